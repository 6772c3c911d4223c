"""The pace of a map: requests under way at once, and those that may begin in a minute."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from kimi_magic.turn.lanes import Lanes

__all__ = ["Pace"]

LEAST = 1.0
MINUTE = 60.0


class Pace(Lanes):
    """Lanes whose number follows the server: one more for each round that it takes, half at 429.

    That is the congestion control of TCP (additive increase, multiplicative decrease; Chiu and
    Jain 1989): it shares a server's limit among clients that know nothing of each other.

    Parameters
    ----------
    most_bytes, most_requests : int
        As for `Lanes`; never more requests than that are under way.
    per_minute : int, optional
        Requests that may begin within a minute.
    tokens_per_minute : int, optional
        Tokens that may be used within a minute. A request that is under way counts with the mean
        of those that were answered.
    """

    def __init__(
        self,
        most_bytes: int,
        most_requests: int,
        *,
        per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(most_bytes, most_requests)
        self._clock = clock
        self._window = float(most_requests)  # requests at once
        self._refused_together = 0  # requests that were sent before the latest halving
        self._per_minute = per_minute
        self._tokens_per_minute = tokens_per_minute
        self._begun: deque[float] = deque()
        self._used: deque[tuple[float, int]] = deque()
        self._tokens = 0  # of the latest minute
        self._expected = 0.0
        self._answered = 0

    @property
    def at_once(self) -> int:
        """Requests that may be under way now."""
        return max(int(self._window), 1)

    def may_send(self) -> bool:
        now = self._clock()
        if self._under_way >= self.at_once or now < self._not_before or self._is_full(now):
            return False
        self._under_way += 1
        if self._per_minute:
            self._begun.append(now)
        return True

    def _is_full(self, now: float) -> bool:
        while self._begun and self._begun[0] <= now - MINUTE:
            self._begun.popleft()
        while self._used and self._used[0][0] <= now - MINUTE:
            self._tokens -= self._used.popleft()[1]
        if self._per_minute and len(self._begun) >= self._per_minute:
            return True
        if not self._tokens_per_minute or not (self._under_way or self._used):
            return False  # one that is larger than the limit goes out alone
        expected = self._tokens + (self._under_way + 1) * self._expected
        return expected > self._tokens_per_minute

    def sent(self) -> None:
        super().sent()
        if self._refused_together:
            self._refused_together -= 1
        elif self._clock() >= self._not_before:
            self._window = min(self._window + 1 / self._window, float(self._most_requests))

    def expect(self, tokens: int) -> None:
        """Take the prompt of a request for all of it, until the first has been answered."""
        if not self._answered:
            self._expected = max(self._expected, float(tokens))

    def used(self, tokens: int) -> None:
        """Count the tokens of an answer."""
        if self._tokens_per_minute:
            self._used.append((self._clock(), tokens))
            self._tokens += tokens
            self._answered += 1
            self._expected += (tokens - self._expected) / self._answered

    def slow_down(self, until: float) -> None:
        """Send nothing before a moment, and half as many at once after it.

        Those that were sent together are refused together: they count once.
        """
        if not self._refused_together:
            self._window = max(self._window / 2, LEAST)
            self._refused_together = self._under_way + 1
        self._not_before = max(self._not_before, until)
