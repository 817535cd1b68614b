"""Writes what a plugin asks for into its component: `plugin.toml`, as JSON, in one custom section at its end.

usage: request.py PLUGIN.TOML COMPONENT
"""

import json
import sys
import tomllib

SECTION = b"weir:request"


def leb128(number):
    """An unsigned number as WebAssembly writes it."""
    written = bytearray()
    while number >= 0x80:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*written, number])


def section(request):
    """The custom section: its id, its length, its name and the request."""
    body = leb128(len(SECTION)) + SECTION + json.dumps(request, separators=(",", ":")).encode()
    return b"\0" + leb128(len(body)) + body


if __name__ == "__main__":
    manifest, component = sys.argv[1:]
    with open(manifest, "rb") as file:
        request = tomllib.load(file)
    with open(component, "ab") as file:
        file.write(section(request))
