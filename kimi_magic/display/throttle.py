"""How often a growing output may be refreshed."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["PER_SECOND", "Throttle"]

# Past about 25 messages a second front ends lose some (the PUB socket's high-water mark).
PER_SECOND = 20


class Throttle:
    """Says when it is time: at once at first, then at most ``per_second`` times a second."""

    __slots__ = ("_clock", "_gap", "_next")

    def __init__(
        self, per_second: float = PER_SECOND, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._gap = 1 / per_second
        self._next = float("-inf")

    @property
    def ready(self) -> bool:
        """Whether it is time."""
        return self._clock() >= self._next

    def due(self) -> bool:
        """Whether it is time; if so the next time is set."""
        if not self.ready:
            return False
        self._next = self._clock() + self._gap
        return True
