#!/usr/bin/env bash
# Sees to it that `cargo nextest` is there: where it is not, it is built into TOOLS_DIR.
set -euo pipefail
tools=${TOOLS_DIR:?}
if PATH="$tools/bin:$PATH" cargo nextest --version >/dev/null 2>&1; then
  exit 0
fi
echo "cargo-nextest is not installed: building it into $tools (once, some minutes) ..."
cargo install --quiet --locked --root "$tools" cargo-nextest
