#!/usr/bin/env bash
# Builds plugins in Python and JavaScript: a component from `app.py` or `app.js`, with the request of `plugin.toml`.
#
# usage: build-guest.sh [DIRECTORY ...]        by default the current directory
#
# The last lines of the output name the files that were built, one for each directory: each is what `POST /plugins`
# takes. A directory whose files (but for components), and whose tools, are those of the last time is not built again.
#
# The tools are componentize-py and componentize-js, in the versions that requirements.txt and package-lock.json beside
# weir.py and weir.js pin. They are installed below guests/ of CARGO_TARGET_DIR, which is target/ of this repository
# otherwise, and need Python 3.11 with venv and, for JavaScript, Node.js 20.19 with npm. As root, on Debian, what is
# missing is installed with apt-get, and where its Node.js is too old, a newer one from npm beside the tools.
set -euo pipefail

say() { printf 'plugins/build-guest.sh: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=${CARGO_TARGET_DIR:-$here/../target}/guests
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
PATH=$folder/javascript/node/node_modules/.bin:$PATH

apt_install() {
  [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null || return 1
  say "installing with apt-get: $*"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@"; } >&2
}

has_python() { python3 -c 'import ensurepip, venv, tomllib' 2>/dev/null; }
has_node() { command -v node >/dev/null && command -v npm >/dev/null; }
node_fits() { node -e 'const [a, b] = process.versions.node.split("."); process.exit(a * 100 + +b >= 2019 ? 0 : 1)'; }

# Sees to it that the tools that $1 names are in $2, where `install` puts them. The copy is written last: an
# installation that was interrupted, or that has other versions, is made anew.
tools() {
  local pins=$1 into=$2 install=$3
  cmp --silent "$pins" "$into/installed" && return
  rm -rf "$into" && mkdir -p "$into"
  "$install" "$into" >&2 || fail "the tools that $pins names could not be installed: see above"
  cp "$pins" "$into/installed"
}

install_python() {
  say "installing $(cat "$here/python/requirements.txt")"
  python3 -m venv "$1" && "$1/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
    --requirement "$here/python/requirements.txt"
}

install_javascript() {
  say "installing componentize-js and what it needs"
  local quietly=(--no-audit --no-fund --loglevel=error)
  # Where PATH says, a newer Node.js is found from here on.
  node_fits || npm install --prefix "$1/node" "${quietly[@]}" node@22 || return 1
  cp "$here"/javascript/{package.json,package-lock.json,componentize.js} "$1" && npm ci --prefix "$1" "${quietly[@]}"
}

# Everything that decides what comes out.
digest() {
  { cat "$here/build-guest.sh" "$here/request.py" "$here"/python/requirements.txt "$here"/javascript/{package-lock.json,componentize.js}
    find "$here/../wit" -type f -exec sha256sum {} + | sort
    (cd "$1" && find -L . \( -name __pycache__ -o -name node_modules -o -name '.?*' -o -name '*.wasm' \) -prune -o -type f -exec sha256sum {} + | sort)
  } | sha256sum
}

build() {
  local from=$1 name out staged digest
  name=$(basename "$from") && out=$folder/$name.wasm
  digest=$(digest "$from")
  if [ "$digest" = "$(cat "$folder/$name.digest" 2>/dev/null)" ] && [ -f "$out" ]; then
    echo "$out"
    return
  fi
  staged=$folder/$name.staged
  rm -rf "$staged" "$folder/$name.digest" && mkdir "$staged"
  cp -rL "$from/." "$staged"
  find "$staged" -name '*.wasm' -delete
  if [ -f "$from/app.py" ]; then
    tools "$here/python/requirements.txt" "$folder/python" install_python
    say "building $name with componentize-py"
    (cd "$staged" && env -i PATH="$PATH" HOME="$HOME" "$folder/python/bin/componentize-py" --quiet --wit-path "$here/../wit" \
      --world plugin-with-http componentize --python-path . --output "$staged.wasm" app) >&2
  else
    has_node || apt_install nodejs npm || fail "needs Node.js 20.19 or later with npm (Debian: apt-get install nodejs npm)"
    tools "$here/javascript/package-lock.json" "$folder/javascript" install_javascript
    say "building $name with componentize-js"
    cp "$here/javascript/main.js" "$staged/main.js"
    node "$folder/javascript/componentize.js" "$staged/main.js" "$here/../wit" "$staged.wasm" >&2
  fi
  python3 "$here/request.py" "$from/plugin.toml" "$staged.wasm" || fail "$from/plugin.toml is not what a plugin asks with"
  mv "$staged.wasm" "$out"
  rm -rf "$staged"
  printf '%s\n' "$digest" >"$folder/$name.digest"
  echo "$out"
}

has_python || apt_install python3 python3-venv || true
has_python || fail "needs Python 3.11 or later with the module venv (Debian: apt-get install python3-venv)"
[ $# -gt 0 ] || set -- .
for directory in "$@"; do
  directory=$(cd "$directory" && pwd) || fail "there is no directory $directory"
  [ -f "$directory/app.py" ] || [ -f "$directory/app.js" ] || fail "$directory has neither app.py nor app.js"
  [ -f "$directory/plugin.toml" ] || fail "$directory has no plugin.toml"
  build "$directory"
done
