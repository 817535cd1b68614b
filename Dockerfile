# syntax=docker/dockerfile:1

# The oldest Rust that builds Weir is `rust-version` in Cargo.toml; a newer one does too.
ARG RUST=1

# Debian 12, as the final image: the binary uses its glibc.
FROM rust:${RUST}-bookworm AS build
WORKDIR /src
COPY . .
# Cargo goes by the times of files, and the cache may be newer than a checkout of another version: `touch` makes it look.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,id=weir-target,target=/src/target,sharing=locked \
    find . -path ./target -prune -o -type f -exec touch {} + && \
    cargo build --release --locked -p weir && install -D target/release/weir /out/weir && mkdir -p /out/data

# glibc, certificates of authorities, and nothing to log in with.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/weir /usr/local/bin/weir
# Where an embedded database and its master key go. A cluster keeps nothing here.
COPY --from=build --chown=65532:65532 /out/data /var/lib/weir
# Where a cluster may keep compiled plugins (WEIR_PLUGIN_CACHE_PATH): a volume that is mounted here has the right owner.
COPY --from=build --chown=65532:65532 /out/data /var/cache/weir
WORKDIR /var/lib/weir
VOLUME /var/lib/weir
# `nonroot`, as a number: what checks that it is not root can see it.
USER 65532:65532
# An address that others reach needs an API key: WEIR_API_KEY_HASHES, or `weir key create`.
ENV WEIR_LISTEN=0.0.0.0:8000 \
    WEIR_DATA_DIR=/var/lib/weir
EXPOSE 8000
# A shutdown may take 15 seconds, and `docker stop` waits for 10: run it with `--stop-timeout 30`.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=10s --start-period=30s --retries=3 CMD ["weir", "healthcheck"]
ENTRYPOINT ["weir"]
CMD ["serve"]
