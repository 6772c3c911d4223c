"""The pace of a map: requests under way at once, and those that may begin in a minute."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from kimi_magic.turn.lanes import Lanes

if TYPE_CHECKING:
    from kimi_magic.core.messages import Completion

__all__ = ["Pace"]

LEAST = 1.0
MINUTE = 60.0
# What is slow: answers that begin this many times later than the server's usual ones.
SLOW = 2.0
LESS = 0.75  # of the requests at once are tried where answers are slow
HELD = 0.875  # of the answers a second, at least, came as well with so many fewer: halfway
FEW = 4  # requests at once that no server is slow for
ROUNDS, FEWEST = 2, 16  # answers that tell how fast the server is: of so many rounds, at least


class Pace(Lanes):
    """Lanes whose number follows the server: one more for each round that it takes, half at 429.

    That is the congestion control of TCP (additive increase, multiplicative decrease; Chiu and
    Jain 1989): it shares a server's limit among clients that know nothing of each other.

    A server that queues what is too much for it refuses nothing: its answers only begin later. So
    where they take twice their usual time to begin, a quarter fewer are sent at once. If as many
    are answered a second all the same, the rest had only been waiting, and still fewer are tried;
    if not, the server is slow for another reason, and that many are sent again. Where answers do
    not come late, nothing of this happens.

    Parameters
    ----------
    most_bytes, most_requests : int
        As for `Lanes`; never more requests than that are under way.
    per_minute : int, optional
        Requests that may begin within a minute.
    tokens_per_minute : int, optional
        Tokens that may be used within a minute. A request that is under way counts with the mean
        of those that were answered.
    clock : callable
        Returns seconds, as `time.monotonic` does.
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
        self._ceiling = float(most_requests)  # up to which the window grows by itself
        self._waits: list[float] = []  # seconds until answers began
        self._since = clock()  # when the first of them might have come
        self._skip = 0  # answers to requests that were sent with another window
        self._usual = 0.0  # seconds until an answer begins where the server is not busy
        self._rate = 0.0  # answers a second before fewer were tried; 0 where none are tried

    @property
    def at_once(self) -> int:
        """Requests that may be under way now."""
        return max(int(self._window), 1)

    def has_room(self) -> bool:
        if self._under_way >= self.at_once:
            return False
        now = self._clock()
        return now >= self._not_before and not self._is_full(now)

    def may_send(self) -> bool:
        may = super().may_send()
        if may and self._per_minute:
            self._begun.append(self._clock())
        return may

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
            self._window = min(self._window + 1 / self._window, self._ceiling)

    def expect(self, tokens: int) -> None:
        """Take the prompt of a request for all of it, until the first has been answered."""
        if not self._answered:
            self._expected = max(self._expected, float(tokens))

    def answered(self, completion: Completion) -> None:
        self.used(completion.usage.total_tokens)
        began = completion.timings.first_token
        self.came(completion.usage.seconds if began is None else began)

    def came(self, seconds: float) -> None:
        """Take in how long the server took to begin an answer."""
        if self._skip:
            self._skip -= 1
            self._since = self._clock()
            return
        self._waits.append(seconds)
        if len(self._waits) < max(ROUNDS * self.at_once, FEWEST):
            return
        self._weigh()
        self._waits.clear()
        self._since = self._clock()

    def _weigh(self) -> None:
        """Follow the server where its answers begin late."""
        waits, took = sorted(self._waits), self._clock() - self._since
        wait, rate = statistics.median(waits), len(waits) / max(took, 1e-9)
        # Of those that were sent together first, a few had nobody before them.
        self._usual = min(self._usual, wait) if self._usual else waits[1]
        if self._rate and rate < HELD * self._rate:
            self._set_window(min(self._window / LESS, float(self._most_requests)))
            self._usual, self._rate = wait, 0.0
        elif wait <= SLOW * self._usual:
            self._ceiling = min(self._ceiling + 1, float(self._most_requests))
            self._rate = 0.0
        elif self._window > FEW:
            self._rate = self._rate or rate
            self._set_window(max(self._window * LESS, float(FEW)))

    def _set_window(self, window: float) -> None:
        self._window = self._ceiling = window
        self._skip = self._under_way

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
            self._waits.clear()
            self._skip, self._rate = self._under_way, 0.0
        self._not_before = max(self._not_before, until)
