# syntax=docker/dockerfile:1

# The oldest Rust that builds Weir is `rust-version` in Cargo.toml; a newer one does too.
ARG RUST=1
ARG DEBIAN=bookworm

FROM rust:${RUST}-${DEBIAN} AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --release --locked -p weir && install -D target/release/weir /out/weir && mkdir -p /out/data

# glibc, certificates of authorities, and nothing to log in with.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/weir /usr/local/bin/weir
# Where an embedded database and its master key go. A cluster keeps nothing here.
COPY --from=build --chown=nonroot:nonroot /out/data /var/lib/weir
WORKDIR /var/lib/weir
VOLUME /var/lib/weir
USER nonroot:nonroot
# An address that others reach needs an API key: WEIR_API_KEY_HASHES, or `weir key create`.
ENV WEIR_LISTEN=0.0.0.0:8000 \
    WEIR_DATA_DIR=/var/lib/weir
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s CMD ["weir", "healthcheck"]
ENTRYPOINT ["weir"]
CMD ["serve"]
