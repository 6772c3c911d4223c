"""Driving an exchange as a turn does, and a transport that plays what was recorded."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

from kimi_magic.core.messages import Completion
from kimi_magic.wire.client import Client, Exchange
from kimi_magic.wire.protocols import Arrival, Deliver, Delta, Request

TICK = 0.05


def deltas_of(exchange: Exchange) -> Iterator[Delta | None]:
    """The deltas of one exchange, and None on a tick."""
    while not exchange.finished:
        arrived = exchange.inbox.take(TICK)
        deltas = [delta for each, items in arrived for delta in each.receive(items)]
        yield from deltas or (None,)
        exchange.check()


def body(**more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "9.11 or 9.9?"}]
    return {"model": "kimi-k2-thinking", "messages": messages, "stream": True} | more


def receive(client: Client, **more: Any) -> Completion:
    """Ask, and return the whole answer."""
    with client.chat(body(**more)) as exchange:
        for _ in deltas_of(exchange):
            pass
    return exchange.completion()


class Playback:
    """A transport that delivers a list of items: all at once, or at their times in seconds."""

    def __init__(self, items: Iterable[Any], times: Iterable[float] = ()) -> None:
        self.items, self.times = list(items), list(times)
        self.sent: list[Request] = []
        self.ended = 0
        self.connected = True
        self._stopped = threading.Event()

    def send(self, request: Request, deliver: Deliver, connect_timeout: float) -> Playback:
        self.sent.append(request)
        if self.times:
            threading.Thread(target=self._play, args=(deliver,), daemon=True).start()
        else:
            for item in self.items:
                deliver(Arrival(time.monotonic(), item))
        return self

    def _play(self, deliver: Deliver) -> None:
        began = time.monotonic()
        for item, at in zip(self.items, self.times, strict=True):
            if self._stopped.wait(max(0.0, began + at - time.monotonic())):
                return
            deliver(Arrival(began + at, item))

    def end(self) -> None:
        self.ended += 1
        self._stopped.set()

    def get(self, path: str, timeout: float) -> Any:
        raise LookupError(path)

    def close(self) -> None:
        pass
