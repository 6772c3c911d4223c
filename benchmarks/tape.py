"""Cost of playing a tape: ``python -m benchmarks.tape``.

An answer of many tokens is decoded from memory, and played from a tape with everything around it:
the look-up by meaning, the transport, the inbox. The figure is the ratio of the two; the target is
1.2 at most. A second line says what a whole turn of ``kimi.ask`` costs beside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from pydantic_core import from_json

import kimi_magic as kimi
from kimi_magic.config import Settings
from kimi_magic.testing import ScriptedServer
from kimi_magic.wire.client import Client, Exchange
from kimi_magic.wire.endpoints import Endpoint
from kimi_magic.wire.openai.chat_completions import ChatCompletions
from kimi_magic.wire.sse import SSEDecoder
from kimi_magic.wire.tape import Asked, TapeUse, the_tape
from kimi_magic.wire.tape_file import TapeFile
from kimi_magic.wire.tape_meaning import cue_of, meaning_of
from kimi_magic.wire.tape_transport import SLICE, Player

ROUNDS = 15
LENGTHS = (2_500, 36_000)
URL = "http://127.0.0.1:9/v1"


def main() -> None:
    for tokens in LENGTHS:
        with TemporaryDirectory() as folder, ScriptedServer() as server:
            path = Path(folder) / "a.tape"
            server.reply("word " * tokens)
            kimi.add_endpoint(name="lab", base_url=server.base_url, model=server.models[0])
            with kimi.tape(path):
                kimi.ask("Say much", endpoint="lab", show=False)
            (recording,) = TapeFile(path).read().recordings
            body = {"model": server.models[0], "messages": recording.meaning["messages"]}
            body |= recording.meaning["parameters"]
            use = TapeUse(the_tape(path), "none")
            use.tape.entries()
            ways = partial(decode, recording.body), partial(play, use, body)
            decoded, played = timed(*ways)
            with kimi.tape(path, mode="none"):
                (turn,) = timed(lambda: kimi.ask("Say much", endpoint="lab", show=False))
        print(
            f"{tokens:,} tokens: decoding {decoded * 1000:.1f} ms, playing {played * 1000:.1f} ms, "
            f"ratio {played / decoded:.2f} (target 1.2); a whole turn {turn * 1000:.1f} ms"
        )


def timed(*functions: Callable[[], object]) -> list[float]:
    """Return the median seconds of each; they take turns."""
    taken: list[list[float]] = [[] for _ in functions]
    for _ in range(ROUNDS):
        for times, function in zip(taken, functions, strict=True):
            began = time.perf_counter()
            function()
            times.append(time.perf_counter() - began)
    return [median(times) for times in taken]


def decode(body: bytes) -> None:
    """Decode an answer that is there as a whole, in the steps of the client."""
    wire, decoder = ChatCompletions(), SSEDecoder()
    fold = wire.fold()
    for at in range(0, len(body), SLICE):
        events = decoder.feed(body[at : at + SLICE])
        fold.add([from_json(data) for data in events if not wire.is_end(data)])
    fold.finish()
    fold.completion()


def play(use: TapeUse, body: dict[str, object]) -> None:
    """Find it on the tape, and take it in as a turn does."""
    found = use.find(Asked(meaning_of(body, "lab"), cue_of("Say much", 1, [])))
    assert found is not None, "it was recorded"
    client = Client(Endpoint("lab", URL), URL, None, Settings())
    with client.chat(body, transport=Player(found.recording)) as exchange:
        drive(exchange)
    exchange.completion()


def drive(exchange: Exchange) -> None:
    while not exchange.finished:
        for each, arrivals in exchange.inbox.take(0.05):
            each.receive(arrivals)
        exchange.check()


if __name__ == "__main__":
    main()
