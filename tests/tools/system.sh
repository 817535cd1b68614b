#!/usr/bin/env bash
# Sees to it that the programs which tests call are there. On Debian, root gets them installed; anybody else is told.
set -euo pipefail
missing=()
for pair in curl:curl gzip:gzip unshare:util-linux python3:python3; do
  command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
if [ ${#missing[@]} -eq 0 ]; then
  exit 0
fi
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
  echo "installing with apt-get: ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}"
else
  echo "the tests need these programs, please install them: ${missing[*]}" >&2
  exit 1
fi
