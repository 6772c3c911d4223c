"""One queue for what arrives on any number of exchanges."""

from __future__ import annotations

import queue
import time
from collections import deque
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

from kimi_magic.wire.protocols import Arrival

if TYPE_CHECKING:
    from kimi_magic.wire.client import Exchange

__all__ = ["Inbox"]

# A burst is handed on in parts, so that whoever shows it is never busy for long.
MOST_AT_ONCE = 64
# A wake-up for each token costs more than the token. Where they come closer than NEAR, a moment is
# left to the readers to bring more: less than anybody sees, since views draw 20 times a second.
NEAR, MOMENT = 0.005, 0.003


class Inbox:
    """Holds what the readers of many exchanges bring, for the one thread that waits."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[tuple[Exchange, Arrival]] = queue.SimpleQueue()
        self._gathered: deque[tuple[Exchange, Arrival]] = deque()
        self._taken_at = 0.0

    def put(self, exchange: Exchange, arrival: Arrival) -> None:
        """Add an arrival; called by any thread."""
        self._queue.put((exchange, arrival))

    def wait(self, timeout: float) -> None:
        """Wait at most ``timeout`` seconds for an arrival; an interrupt loses none."""
        if self._gathered:
            return
        with suppress(queue.Empty):
            # Moved in one step of C code: an interrupt comes before or after it.
            self._gathered.extend(map(self._queue.get, (True,), (timeout,)))
            if time.monotonic() - self._taken_at < NEAR and self._queue.qsize() < MOST_AT_ONCE:
                time.sleep(MOMENT)

    def take(self, timeout: float) -> list[tuple[Exchange, list[Arrival]]]:
        """Wait at most ``timeout`` seconds; return each exchange with its arrivals in order."""
        self.wait(timeout)
        with suppress(queue.Empty):
            more = iter(self._queue.get_nowait, None)
            self._gathered.extend(islice(more, max(MOST_AT_ONCE - len(self._gathered), 0)))
        taken: dict[Exchange, list[Arrival]] = {}
        for exchange, arrival in self._gathered:
            taken.setdefault(exchange, []).append(arrival)
        self._gathered.clear()
        self._taken_at = time.monotonic()
        return list(taken.items())
