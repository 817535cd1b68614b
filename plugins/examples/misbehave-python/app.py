"""Tools that reach for what the sandbox does not have. Each is refused in its own way, and nobody beside it notices."""

import encodings.idna  # noqa: F401  or a name is not looked up, for want of a module
import os
import random
import socket
import subprocess
import sys
import threading
import time

import weir
from weir import Tools  # noqa: F401  the host calls `Tools`


def _attempts():
    """What is attempted, by name: each must fail."""

    def tcp():
        return socket.socket(socket.AF_INET, socket.SOCK_STREAM)

    def udp():
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    return {
        "open": lambda: open("/etc/passwd").read(),
        "open_relative": lambda: open("app.py").read(),
        "open_in_directory": lambda: os.open("etc/passwd", os.O_RDONLY, dir_fd=3),
        "create": lambda: open("/tmp/weir", "w").write("a"),
        "list": lambda: os.listdir("/"),
        "list_here": lambda: os.listdir("."),
        "stat": lambda: str(os.stat("/")),
        "make_directory": lambda: os.mkdir("/weir"),
        "remove": lambda: os.remove("/etc/hostname"),
        "link": lambda: os.symlink("/etc/passwd", "/weir"),
        "make_tcp_socket": tcp,
        "make_udp_socket": udp,
        "connect": lambda: tcp().connect(("127.0.0.1", 80)),
        "connect_ipv6": lambda: socket.socket(socket.AF_INET6, socket.SOCK_STREAM).connect(("::1", 80)),
        "bind": lambda: tcp().bind(("127.0.0.1", 0)),
        "listen": lambda: tcp().listen(),
        "udp_send": lambda: udp().sendto(b"a", ("127.0.0.1", 53)),
        "udp_bind": lambda: udp().bind(("0.0.0.0", 0)),
        "resolve": lambda: str(socket.getaddrinfo("example.com", 80)),
        "resolve_localhost": lambda: str(socket.getaddrinfo("localhost", 80)),
        "process": lambda: subprocess.run(["true"]),
        "fork": lambda: os.fork(),
        "kill": lambda: os.kill(1, 9),
        "thread": lambda: threading.Thread(target=print).start(),
        "read_standard_input": lambda: sys.stdin.buffer.read() or _nothing(),
        "read_descriptor": lambda: os.read(3, 1),
    }


def _nothing():
    raise EOFError("there is nothing to read")


@weir.tool
def attempt(what: str) -> dict:
    """Attempts what the sandbox does not have, and says how that failed."""
    try:
        return {"got": str(_attempts()[what]())}
    except Exception as error:
        return {"error": type(error).__name__, "message": str(error)}


@weir.tool
def attempts() -> list[str]:
    """What `attempt` knows."""
    return list(_attempts())


@weir.tool
def surroundings() -> dict:
    """The environment, the arguments of the process, and its directory."""
    return {"environment": dict(os.environ), "arguments": sys.argv[1:], "directory": os.getcwd()}


@weir.tool
def end_process(status: int, way: str) -> str:
    """Ends the process."""
    sys.stderr.write("these are my last words\n")
    sys.stderr.flush()
    {"_exit": lambda: os._exit(status), "sys.exit": lambda: sys.exit(status), "abort": lambda: os.abort()}[way]()
    return "still here"


@weir.tool
def draw() -> list[float]:
    """Numbers that nobody can foresee."""
    return [random.random(), float(int.from_bytes(os.urandom(6)))]


@weir.tool
def endless_loop() -> str:
    """Computes for ever."""
    while True:
        pass


@weir.tool
def deep_recursion() -> str:
    """Calls itself without end."""

    def deeper(n):
        return deeper(n + 1) + n

    return str(deeper(0))


@weir.tool
def drop_recursion() -> str:
    """Nests lists so deeply that dropping them uses up the stack of the interpreter itself."""
    nested = []
    while True:
        for _ in range(100_000):
            nested = [nested]
        del nested
        nested = []


@weir.tool
def memory_hog() -> str:
    """Takes memory until there is none."""
    taken = []
    while True:
        taken.append(bytearray(1 << 20))


@weir.tool
def sleep() -> str:
    """Waits in the host, for longer than anybody has."""
    time.sleep(3600)
    return "rested"


@weir.tool
def print_flood(bytes: int, then_abort: bool = False) -> str:
    """Writes so much to standard output."""
    for _ in range(bytes // 1000):
        print("x" * 999)
    if then_abort:
        print("xxx and the end", flush=True)
        os.abort()
    return "printed"


@weir.tool
def remember() -> int:
    """How often it was called: each call is the first."""
    _CALLS.append(1)
    return len(_CALLS)


_CALLS = []
