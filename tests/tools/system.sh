#!/usr/bin/env bash
# Sees to it that the programs which tests call are there. On Debian, root gets them installed; anybody else is told.
set -euo pipefail
missing=()
for pair in curl:curl gzip:gzip unshare:util-linux setpriv:util-linux python3:python3 openssl:openssl \
  redis-server:redis-server redis-cli:redis-tools; do
  command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
# Debian keeps the programs of Postgres's server off the PATH.
if ! compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null && ! command -v initdb >/dev/null; then
  missing+=(postgresql)
fi
if [ ${#missing[@]} -eq 0 ]; then
  exit 0
fi
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
  # The packages of servers start them. Tests start their own, so Debian's switch for that is off while this installs;
  # a switch that is there already stays as it is.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
  fi
  echo "installing with apt-get: ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}"
else
  echo "the tests need these packages, please install them: ${missing[*]}" >&2
  exit 1
fi
