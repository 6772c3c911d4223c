"""CPU of eight lanes over that of one with as many tokens: ``python -m benchmarks.lanes``.

The figure is the median of several rounds in one process, of the whole path from the bytes to the
views' operations: a record is drawn, nothing is shown.
"""

from __future__ import annotations

import statistics
import time

from benchmarks.overhead import event
from kimi_magic.core.events import Envelope
from kimi_magic.display.record import make_record
from kimi_magic.display.timeline import Timeline
from kimi_magic.session import Session
from kimi_magic.testing import ScriptedServer
from kimi_magic.turn.lanes import Lanes, side_by_side
from kimi_magic.turn.request import make_request

ROUNDS, LANES, TOKENS = 9, 8, 2500


def stream(tokens: int) -> list[bytes]:
    half = tokens // 2
    thoughts = [event(reasoning_content=" thought")] * half
    return [*thoughts, *[event(content=" word")] * half, b"data: [DONE]\n\n"]


def measure(session: Session, server: ScriptedServer, count: int) -> float:
    """Return the seconds of CPU for all tokens in so many lanes, the server's share included."""
    for _ in range(count):
        server.raw(stream(LANES * TOKENS // count))
    lanes = Lanes(session.settings.max_queue_bytes, count)
    timelines = [Timeline() for _ in range(count)]
    turns = [
        session._prepare_one(make_request("Hi")).run(lane=lanes.lane(number))
        for number in range(1, count + 1)
    ]
    began = time.process_time()
    for envelope in side_by_side(lanes, turns):
        if isinstance(envelope, Envelope):
            timelines[envelope.lane - 1].apply(envelope.event)
    for timeline in timelines:
        make_record(timeline)
    return time.process_time() - began


def main() -> None:
    with ScriptedServer() as server:
        session = Session()
        session.settings.endpoint = server.base_url
        ones, eights = [], []
        for _ in range(ROUNDS):
            ones.append(measure(session, server, 1))
            eights.append(measure(session, server, LANES))
    one, eight = statistics.median(ones[1:]), statistics.median(eights[1:])
    total = LANES * TOKENS
    print(
        f"{total:,} tokens in one lane: {1000 * one:.0f} ms of CPU, {1e6 * one / total:.0f} µs each"
    )
    print(f"{total:,} tokens in {LANES} lanes: {1000 * eight:.0f} ms, {eight / one:.2f} ×")


if __name__ == "__main__":
    main()
