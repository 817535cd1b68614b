#!/usr/bin/env bash
# Builds plugins: `cargo build --release` for WebAssembly, with whatever toolchain is here.
#
# usage: build.sh [CARGO BUILD OPTIONS]        in the crate's directory, such as: build.sh --locked -p greet
#
# The last lines of the output name the files that were built: each is what `POST /plugins` takes. A toolchain is
# found in this order, and the first one that is there is taken:
#   1. the installed target wasm32-unknown-unknown;
#   2. `rustup target add wasm32-unknown-unknown`;
#   3. Debian's packages rustc-web, cargo-web and rust-web-src, from whose sources the standard library is built. They
#      are installed with apt-get when this is run by root. A linker is taken from rustup or from the package lld-19.
# CARGO_TARGET_DIR is heeded, and is target/ of the crate or its workspace otherwise; builds go into its folder wasm/.
set -euo pipefail

target=wasm32-unknown-unknown
say() { printf 'plugins/build.sh: %s\n' "$*" >&2; }

has_target() { [ -d "$(rustc --print sysroot 2>/dev/null)/lib/rustlib/$target/lib" ]; }

# Debian's compiler with the sources of its own standard library.
has_debian() { [ -x /usr/bin/rustc ] && [ -x /usr/bin/cargo ] && [ -f "$(/usr/bin/rustc --print sysroot)/lib/rustlib/src/rust/library/Cargo.lock" ]; }

apt_install() {
  [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null || return 1
  say "installing with apt-get: $*"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@"; } >&2
}

linker() {
  local found
  for found in "$(rustc --print sysroot 2>/dev/null)"/lib/rustlib/*/bin/rust-lld; do
    [ -x "$found" ] && { echo "$found"; return; }
  done
  for found in wasm-ld wasm-ld-19; do
    command -v "$found" && return
  done
  apt_install lld-19 && command -v wasm-ld-19
}

give_up() {
  say "no toolchain for WebAssembly: install one with 'rustup target add $target', or as root with 'apt-get install rustc-web cargo-web rust-web-src lld-19' (Debian 12)"
  exit 1
}

if ! has_target && ! has_debian; then
  # Either may fail, for want of rustup, of a network, or of rights: the next one is tried then.
  if command -v rustup >/dev/null; then
    say "adding the target $target with rustup"
    timeout 300 rustup target add "$target" >&2 || say "rustup cannot add the target"
  fi
  has_target || apt_install rustc-web cargo-web rust-web-src || true
fi

# Where crates that want random numbers get them is for the plugin to say (plugins/examples/schema/src/random.rs): the
# crate getrandom would ask JavaScript otherwise, which is not there.
flags='--cfg getrandom_backend="custom"'
folder=${CARGO_TARGET_DIR:-$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')}/wasm
messages=(--message-format=json-render-diagnostics)
if has_target; then
  built=$(RUSTFLAGS="$flags" cargo build --release --target "$target" --target-dir "$folder" "${messages[@]}" "$@")
elif has_debian; then
  linker=$(linker) || give_up
  built=$(RUSTC_BOOTSTRAP=1 RUSTC=/usr/bin/rustc RUSTFLAGS="$flags -Clinker=$linker" /usr/bin/cargo build --release \
    -Z build-std=std,panic_abort --target "$target" --target-dir "$folder" "${messages[@]}" "$@")
else
  give_up
fi
# Each plugin that was asked for, also one that was built before.
files=$(printf '%s\n' "$built" | sed -n 's/.*"filenames":\["\([^"]*\.wasm\)".*/\1/p' | sort -u)
if [ -z "$files" ]; then
  say 'no plugin was built: does Cargo.toml say crate-type = ["cdylib"] below [lib]?'
  exit 1
fi
printf '%s\n' "$files"
