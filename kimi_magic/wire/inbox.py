"""One queue for what arrives on any number of exchanges."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from kimi_magic.wire.protocols import Arrival

if TYPE_CHECKING:
    from kimi_magic.wire.client import Exchange

__all__ = ["Held", "Inbox"]

# A burst is handed on in parts, so that whoever shows it is never busy for long.
MOST_AT_ONCE = 64
# A wake-up for each token costs more than the token. Where they come closer than NEAR, a moment is
# left to the readers to bring more: less than anybody sees, since views draw 20 times a second.
# It is over with the end of an answer: nothing follows that, and a map's next request waits for it.
NEAR, MOMENT, PART_OF_MOMENT = 0.005, 0.003, 0.0005
MOST_BYTES_AT_ONCE = 500_000
MOST_BYTES = 4_000_000
# An arrival of one byte takes more room than its byte.
OVERHEAD = 250
# Polled, not notified: the thread that takes may be interrupted anywhere, with a lock in its hand.
FULL_SECONDS = 0.005


@dataclass(slots=True)
class Held:
    """The bytes that a turn holds, counted by its exchanges.

    Attributes
    ----------
    text_bytes : int
        The text in its answers.
    logprob_bytes : int
        What the logarithms of their tokens take.
    sharers : int
        How many turns share the limit of one.
    """

    text_bytes: int = 0
    logprob_bytes: int = 0
    sharers: int = 1


class Inbox:
    """Holds what the readers of many exchanges bring, for the one thread that waits.

    A reader that brings more than ``most`` bytes ahead of that thread waits for it.
    """

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._most = most
        self._queue: queue.SimpleQueue[tuple[Exchange, Arrival]] = queue.SimpleQueue()
        self._gathered: deque[tuple[Exchange, Arrival]] = deque()
        self._taken_at = 0.0
        self._has_end = False  # among what waits, as far as is known
        # The readers count up the one, whoever takes the other.
        self._put_bytes = self._taken_bytes = 0
        self._counting = threading.Lock()

    def put(self, exchange: Exchange, arrival: Arrival) -> None:
        """Add an arrival; called by any thread.

        The reader waits where there is no room, until its exchange is left at the latest; what
        comes after that is dropped.
        """
        if exchange.left:
            return
        size = _size(arrival)
        if size:
            with self._counting:
                self._put_bytes += size
        if not isinstance(arrival.item, bytes | int):
            self._has_end = True
        self._queue.put((exchange, arrival))
        if size and self._is_full():
            self._wait_for_room(exchange)

    def wait(self, timeout: float) -> None:
        """Wait at most ``timeout`` seconds for an arrival; an interrupt loses none."""
        if self._gathered:
            return
        with suppress(queue.Empty):
            # Moved in one step of C code: an interrupt comes before or after it.
            self._gathered.extend(map(self._queue.get, (True,), (timeout,)))
            began = time.monotonic()
            if began - self._taken_at < NEAR:
                while not self._is_ready(began + MOMENT):
                    time.sleep(PART_OF_MOMENT)

    def take(self, timeout: float) -> list[tuple[Exchange, list[Arrival]]]:
        """Wait at most ``timeout`` seconds; return each exchange with its arrivals in order."""
        self.wait(timeout)
        self._has_end = False
        size = sum(_size(arrival) for _, arrival in self._gathered)
        with suppress(queue.Empty):
            more = iter(self._queue.get_nowait, None)
            while len(self._gathered) < MOST_AT_ONCE and size < MOST_BYTES_AT_ONCE:
                self._gathered.extend(islice(more, 1))
                size += _size(self._gathered[-1][1])
        taken: dict[Exchange, list[Arrival]] = {}
        for exchange, arrival in self._gathered:
            taken.setdefault(exchange, []).append(arrival)
        self._gathered.clear()
        self._taken_bytes += size
        self._taken_at = time.monotonic()
        return list(taken.items())

    def _is_ready(self, by: float) -> bool:
        return self._has_end or self._queue.qsize() >= MOST_AT_ONCE or time.monotonic() >= by

    def _wait_for_room(self, exchange: Exchange) -> None:
        exchange.held_up = math.inf
        while self._is_full() and exchange.waits_for_room():
            time.sleep(FULL_SECONDS)
        exchange.held_up = time.monotonic()

    def _is_full(self) -> bool:
        return self._put_bytes - self._taken_bytes > self._most


def _size(arrival: Arrival) -> int:
    return len(arrival.item) + OVERHEAD if isinstance(arrival.item, bytes) else 0
