"""Memory that hostile answers take: ``python -m benchmarks.received [NAME …]``.

Each flood is sent by a bare socket to one turn, or to one request for the list of models, in a
process of its own with the limits as they are by default. The figure is the peak of its resident
memory above that of an ordinary turn, less the text that the turn has kept; the target is 64 MB.
Linux only.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain, count, repeat
from typing import Any

PIECE = 65_536
ZEROS = 200  # MB


@dataclass(frozen=True)
class Flood:
    """A body without end, or one that grows when it is decoded, and the headers before it."""

    body: Callable[[], Iterator[bytes]]
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


def event(**delta: Any) -> bytes:
    return f"data: {json.dumps({'choices': [{'index': 0, 'delta': delta}]})}\n\n".encode()


def call(index: int = 0, **function: str) -> bytes:
    return event(tool_calls=[{"index": index, "id": f"call-{index}", "function": function}])


def zipped(wbits: int, times: int = 1) -> bytes:
    """Compress a mass of zeros, as often as that."""
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    data = b"".join([packer.compress(bytes(1_000_000)) for _ in range(ZEROS)]) + packer.flush()
    for _ in range(times - 1):
        packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
        data = packer.compress(data) + packer.flush()
    return data


def coded(name: str, wbits: int, times: int = 1, status: int = 200) -> Flood:
    coding = ", ".join([name] * times)
    return Flood(lambda: iter([zipped(wbits, times)]), status, {"Content-Encoding": coding})


def words(*parts: str) -> Iterator[bytes]:
    """Yield events of two-letter words, each another one, for these parts in turn."""
    for number in count():
        yield b"".join(event(**{part: f"{number + at:x}"}) for at in range(100) for part in parts)


GZIP, ZLIB, RAW = 31, 15, -15
FLOODS = {
    "gzip": coded("gzip", GZIP),
    "gzip in gzip": coded("gzip", GZIP, 2),
    "deflate": coded("deflate", ZLIB),
    "raw deflate": coded("deflate", RAW),
    "gzip of an error": coded("gzip", GZIP, status=500),
    "gzip of models": coded("gzip", GZIP),
    "an endless line": Flood(lambda: repeat(b"x" * PIECE)),
    "an endless line of data": Flood(lambda: chain([b"data: "], repeat(b"x" * PIECE))),
    "an endless comment": Flood(lambda: chain([b": "], repeat(b"x" * PIECE))),
    "endless lines of data": Flood(lambda: repeat(b"data:\n" * 10_000)),
    "endless reasoning": Flood(lambda: repeat(event(reasoning_content="thought " * 500) * 10)),
    "an endless answer": Flood(lambda: repeat(event(content="é日😀 " * 500) * 10)),
    "endless words": Flood(lambda: words("reasoning_content", "content")),
    "endless arguments": Flood(
        lambda: chain([call(name="look")], repeat(call(arguments="a" * 4000) * 10))
    ),
    "arguments without a name": Flood(lambda: repeat(call(arguments="a" * 4000) * 10)),
    "endless calls": Flood(lambda: (call(at, name="look", arguments="{}") for at in count())),
    "a million events": Flood(lambda: repeat(b"data: {}\n\n" * 10_000, 100)),
    "endless comments": Flood(lambda: repeat(b": ping\n\n" * 8000, 100)),
    "blanks": Flood(lambda: repeat(b" " * PIECE, 300)),
    "objects in one event": Flood(
        lambda: chain([b"data: ["], repeat(b"{}," * 5000, 700), [b"{}]\n\n"])
    ),
    "an endless document": Flood(
        lambda: chain([b'{"choices":[{"message":{"content":"'], repeat(b"x" * PIECE))
    ),
    "endless models": Flood(lambda: chain([b'{"data":["'], repeat(b"x" * PIECE))),
    "endless headers": Flood(
        lambda: iter(()), headers={f"X-{at}": "x" * 1000 for at in range(20_000)}
    ),
}
SLOW = ("endless words",)
"""These take minutes, as each word is an event of its own."""

CHILD = """
import json, sys, threading, time
import kimi_magic as kimi
from kimi_magic.session import current
from kimi_magic.testing import ScriptedServer

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 1e6

def look(at: str = "") -> str:
    "Look."
    return at

def flood(name, url):
    endpoint = kimi.Endpoint("flood", url)
    try:
        if "models" in name:
            current().connector.models(endpoint, None, kimi.settings, print)
        else:
            kimi.ask("Hi", endpoint=endpoint, tools=[look], show=False)
    except kimi.KimiError as error:
        return error

kimi.settings.retries = 0
kimi.settings.first_token_timeout = 20
with ScriptedServer(strict=False) as server:
    server.reply("Hello.")
    kimi.ask("Hi", endpoint=server.base_url, show=False)
for line in sys.stdin:
    name, url = json.loads(line)
    before = most = resident()
    over = threading.Event()
    def watch():
        global most
        while not over.wait(0.001):
            most = max(most, resident())
    watching = threading.Thread(target=watch)
    watching.start()
    error = flood(name, url)
    over.set()
    watching.join()
    steps = error.reply.record.steps if error and error.reply else ()
    text = sum(
        sum(map(sys.getsizeof, (s.text, s.reasoning, *(c.arguments for c in s.tool_calls))))
        for s in steps
    )
    told = [type(error).__name__, str(error)]
    print(json.dumps([most - before - text / 1e6, text / 1e6, *told]), flush=True)
"""


@dataclass(frozen=True)
class Taken:
    """Megabytes above the text that was kept, that text, and the error that the turn ended with."""

    over: float
    text: float
    kind: str
    told: str


@contextmanager
def flooding(flood: Flood) -> Iterator[str]:
    """Run a server that answers with a flood; yields its base URL."""

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            asked = b""
            while b"\r\n\r\n" not in asked:
                asked += connection.recv(PIECE)
            head, _, rest = asked.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            while length and len(rest) < int(length[1]):
                rest += connection.recv(PIECE)
            lines = [f"HTTP/1.1 {flood.status} Flood", "Transfer-Encoding: chunked"]
            lines += [f"{name}: {value}" for name, value in flood.headers.items()]
            connection.sendall("\r\n".join([*lines, "", ""]).encode())
            for piece in flood.body():
                connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
            connection.sendall(b"0\r\n\r\n")

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=server.accept()[:1], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)


def measure(*names: str) -> dict[str, Taken]:
    """Send floods to a fresh process, one after another; return what each took."""
    with ExitStack() as servers:
        urls = [servers.enter_context(flooding(FLOODS[name])) for name in names]
        ran = subprocess.run(
            [sys.executable, "-c", CHILD],
            input="".join(json.dumps(pair) + "\n" for pair in zip(names, urls, strict=True)),
            capture_output=True,
            text=True,
            check=True,
        )
    lines = [line for line in ran.stdout.splitlines() if line.startswith("[")]
    return {name: Taken(*json.loads(line)) for name, line in zip(names, lines, strict=True)}


def main(names: list[str]) -> None:
    for name in names or FLOODS:
        taken = measure(name)[name]
        said = taken.told.splitlines()[0].partition(") ")[2]
        print(
            f"{name}: {taken.over:.0f} MB over {taken.text:.0f} MB of text; {said:.80}", flush=True
        )


if __name__ == "__main__":
    main(sys.argv[1:])
