#!/usr/bin/env bash
# Format and lints. What a toolchain does not have is not checked, and said.
set -euo pipefail

have() {
  if cargo "$1" --version >/dev/null 2>&1; then
    return 0
  fi
  echo "cargo $1 is not installed: $2"
  return 1
}

if have fmt "the format is not checked (rustup component add rustfmt)"; then
  cargo fmt --all --check
fi
if have clippy "lints are not checked (rustup component add clippy)"; then
  cargo clippy --quiet --locked --workspace --all-targets -- -D warnings
fi
if have deny "licences and sources are not checked (cargo install cargo-deny)"; then
  cargo deny --locked check bans licenses sources
fi
