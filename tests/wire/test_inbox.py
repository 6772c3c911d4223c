"""One inbox for many exchanges: one wait, whatever their number."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from typing import Any

from kimi_magic.config import Settings
from kimi_magic.core.errors import EndpointError, ServerFailed, TimedOut
from kimi_magic.core.events import ContentDelta
from kimi_magic.wire.client import Client, Exchange
from kimi_magic.wire.endpoints import Endpoint
from kimi_magic.wire.inbox import MOST_AT_ONCE, Inbox
from kimi_magic.wire.protocols import Arrival, Refused
from tests.wire.exchanges import TICK, Playback

URL = "http://127.0.0.1:9/v1"
BODY = {"model": "m", "stream": True}
DONE = [b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n', None]


def word(text: str) -> bytes:
    chunk = {"choices": [{"index": 0, "delta": {"content": text}}]}
    return f"data: {json.dumps(chunk)}\n\n".encode()


def words(count: int) -> list[bytes]:
    return [word(f"{number} ") for number in range(count)]


def spaced(items: list[Any], seconds: float) -> Playback:
    return Playback(items, [seconds * number for number in range(len(items))])


def exchange_of(transport: Playback, inbox: Inbox, **settings: float) -> Exchange:
    made = Client(Endpoint("lab", URL), URL, None, Settings(**settings), transport=transport)
    return made.chat(BODY, inbox=inbox)


class Counted(Inbox):
    """Counts how often it is waited for."""

    waits = 0

    def take(self, timeout: float) -> list[tuple[Exchange, list[Arrival]]]:
        self.waits += 1
        return super().take(timeout)


def test_eight_exchanges_on_one_inbox() -> None:
    inbox = Counted()
    fast = [exchange_of(spaced([200, *words(40), *DONE], 0.001), inbox) for _ in range(3)]
    slow = [exchange_of(spaced([200, *words(10), *DONE], 0.2), inbox) for _ in range(3)]
    stalls = exchange_of(Playback([200, *words(2)], [0.0, 0.01, 0.02]), inbox, stall_timeout=0.3)
    errs = exchange_of(Playback([Refused(500, {}, b"broken")], [0.1]), inbox)
    everybody = [*fast, *slow, stalls, errs]
    for exchange in everybody:
        exchange.__enter__()

    texts: dict[Exchange, str] = defaultdict(str)
    finished_at: dict[Exchange, float] = {}
    failures: dict[Exchange, EndpointError] = {}
    began = time.monotonic()
    open_now = set(everybody)
    while open_now:
        for exchange, arrivals in inbox.take(TICK):
            for delta in exchange.receive(arrivals):
                assert isinstance(delta, ContentDelta)
                texts[exchange] += delta.text
        for exchange in list(open_now):
            try:
                exchange.check()
            except EndpointError as error:
                failures[exchange] = error
            if exchange.finished or exchange in failures:
                finished_at[exchange] = time.monotonic() - began
                exchange.__exit__(None, None, None)
                open_now.discard(exchange)

    in_order = "".join(f"{number} " for number in range(40))
    assert [texts[exchange] for exchange in fast] == [in_order] * 3
    assert [texts[exchange] for exchange in slow] == [in_order[: in_order.index("10 ")]] * 3
    assert texts[stalls] == "0 1 "
    assert isinstance(failures[stalls], TimedOut)
    assert isinstance(failures[errs], ServerFailed)
    partial = failures[stalls].partial
    assert partial is not None
    assert partial.message.text == "0 1 "
    assert set(failures) == {stalls, errs}
    assert max(finished_at[e] for e in fast) < min(finished_at[e] for e in slow)
    assert all(exchange.completion().finish_reason == "stop" for exchange in (*fast, *slow))


def test_a_silent_exchange_costs_one_wait_a_tick() -> None:
    inbox = Counted()
    silent = [exchange_of(Playback([200], [0.0]), inbox) for _ in range(8)]
    for exchange in silent:
        exchange.__enter__()
    began = time.monotonic()
    while time.monotonic() - began < 0.5:
        inbox.take(TICK)
        for exchange in silent:
            exchange.check()
    assert inbox.waits <= 0.5 / TICK + 9, "a tick each, and what arrived"
    for exchange in silent:
        exchange.__exit__(None, None, None)


def test_arrivals_are_taken_together_and_in_parts() -> None:
    inbox = Inbox()
    first, second = (exchange_of(Playback([]), inbox) for _ in range(2))
    assert inbox.take(0.0) == []
    for number in range(MOST_AT_ONCE):
        inbox.put(first if number % 2 else second, Arrival(0.0, number))
    inbox.put(first, Arrival(0.0, None))
    taken = dict(inbox.take(0.0))
    assert list(taken) == [second, first]
    assert [arrival.item for arrival in taken[first]] == list(range(1, MOST_AT_ONCE, 2))
    assert [arrival.item for arrival in dict(inbox.take(0.0))[first]] == [None]


def test_what_arrives_late_for_an_exchange_that_was_left_is_nobodys() -> None:
    inbox = Inbox()
    with exchange_of(Playback([200, word("9.9")]), inbox) as left:
        pass
    ((exchange, arrivals),) = inbox.take(0.0)
    assert exchange is left
    assert left.receive(arrivals) == []
