#!/usr/bin/env bash
# Tests the HTTP API of a running server against the server's own OpenAPI document.
#
# usage: schemathesis.sh BASE_URL
#
# Schemathesis generates requests from BASE_URL/openapi.json, such that fit the document and such that break it, and
# checks every answer: no 5xx, no status, media type, header or body that the document does not declare, nothing valid
# refused, nothing invalid accepted. What is checked and how much is generated stands in schemathesis.toml beside this
# file. It exits with 0 when nothing was found.
#
# The server is filled with what the requests create: give it a data directory of its own. Start it with
# `--set wait_max_seconds=1`, or requests that wait for a run take their time, and with `--set egress_allow=127.0.0.1`
# (the host of BASE_URL), so that there is a run whose call succeeded. Runs that get started may resolve and call the
# hosts that generated definitions name.
#
# Environment: WEIR_API_KEY is a key of the server, which must have one: the document says that it asks for it. TOOLS_DIR is where the tool is installed, by default target/tools of the repository.
set -euo pipefail

say() { printf 'schemathesis.sh: %s\n' "$*" >&2; }
fail() { say "$*"; exit 2; }

[[ $# -eq 1 && $1 == http* ]] || fail "usage: schemathesis.sh BASE_URL"
base_url=${1%/}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
requirements=$here/requirements.txt
mkdir -p "${TOOLS_DIR:-$here/../../target/tools}"
tools=$(cd "${TOOLS_DIR:-$here/../../target/tools}" && pwd)
venv=$tools/schemathesis
# Written last: an installation that was interrupted, or that has other versions, is made anew.
installed=$venv/requirements.installed

has_venv() { python3 -c 'import ensurepip, venv' 2>/dev/null; }

if ! cmp --silent "$requirements" "$installed"; then
    if ! has_venv; then
        if [[ $(id -u) -eq 0 ]] && command -v apt-get >/dev/null; then
            say "installing python3-venv and python3-pip with apt-get"
            apt-get update -qq >&2
            DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3 python3-venv python3-pip >&2
        fi
        has_venv || fail "needs python3 with the modules venv and ensurepip (Debian: apt-get install python3-venv)"
    fi
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
        || fail "needs Python 3.10 or later, and this is $(python3 --version)"
    say "making a virtual environment in $venv"
    rm -rf "$venv"
    python3 -m venv "$venv"
    say "installing $(grep '^schemathesis==' "$requirements") and what it needs"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --requirement "$requirements" >&2 \
        || fail "pip could not install what $requirements names: see above"
    cp "$requirements" "$installed"
fi

# The server is asked directly, whatever proxy led to the package index.
export no_proxy='*' NO_PROXY='*'
say "starting runs at $base_url that succeed, fail, and wait"
"$venv/bin/python" "$here/schemathesis_seed.py" "$base_url"

say "testing $base_url with $("$venv/bin/schemathesis" --version)"
# Hypothesis writes into the current directory; the order of sets must not depend on the run.
cd "$venv"
export PYTHONHASHSEED=0
exec "$venv/bin/schemathesis" --config-file "$here/schemathesis.toml" \
    run "$base_url/openapi.json" \
    --header "Authorization: Bearer ${WEIR_API_KEY:?}" \
    --phases examples,coverage,fuzzing,stateful
