"""The limits of a map on a cluster: one pace, and the permits that it gives to the workers.

A request on a worker takes a permit. The kernel gives them out, so that no limit is passed however
many workers there are: a permit counts until its request has ended, or its worker has died.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from kimi_magic.batch.pace import MINUTE, Pace

__all__ = ["Permits", "Report"]


@dataclass(frozen=True, slots=True)
class Report:
    """A worker's own count of its permits, since the map began there.

    Attributes
    ----------
    granted : int
        Permits that it knows of.
    begun, ended : int
        Requests.
    reused : int
        Permits of ended requests that it kept for the next ones.
    given_back : int
        Permits that it had no use for.
    wanted : int
        Permits that it could use beside those that it has.
    """

    granted: int = 0
    begun: int = 0
    ended: int = 0
    reused: int = 0
    given_back: int = 0
    wanted: int = 0

    @property
    def unspent(self) -> int:
        """Permits that no request has taken yet."""
        return self.granted + self.reused - self.begun - self.given_back


class _SharedPace(Pace):
    """The pace of all workers together: here the permits are counted as under way."""

    @property
    def under_way(self) -> int:
        return self._under_way

    @property
    def held_back(self) -> float:
        """The seconds for which nothing may be sent, as a server's ``Retry-After`` says."""
        return max(self._not_before - self._clock(), 0.0)

    def take_again(self) -> None:
        """Count a permit that its worker keeps for another request."""
        self._under_way += 1

    def give_back(self) -> None:
        """Count a permit no longer; that says nothing of the server."""
        self._under_way -= 1


class Permits:
    """Gives the workers permits for their requests.

    Parameters
    ----------
    most : int
        Requests at once.
    per_minute, tokens_per_minute : int, optional
        See `Pace`. A request may begin a while after its permit was given: the minute counts from
        the moment at which the kernel hears of it.
    """

    def __init__(
        self,
        most: int,
        *,
        per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pace = _SharedPace(0, most, tokens_per_minute=tokens_per_minute, clock=clock)
        self._clock = clock
        self._per_minute = per_minute
        # A permit that is kept for the next request would begin it without being asked.
        self._one_by_one = per_minute is not None or tokens_per_minute is not None
        self._begun: deque[float] = deque()
        self._granted: dict[str, int] = {}
        self._reports: dict[str, Report] = {}
        self._wanted: dict[str, int] = {}
        self._heard: set[str] = set()
        self._most = most

    @property
    def under_way(self) -> int:
        """Permits that the workers have."""
        return self._pace.under_way

    def join(self, worker: str) -> None:
        self._granted[worker] = self._wanted[worker] = 0
        self._reports[worker] = Report()

    def leave(self, worker: str) -> None:
        """Take back the permits of a worker that is gone; its requests may have begun."""
        for _ in range(self._held(worker)):
            self._pace.give_back()
        self._count_begun(self._unspent(worker))
        del self._reports[worker], self._granted[worker], self._wanted[worker]
        self._heard.discard(worker)

    def hear(
        self,
        worker: str,
        report: Report,
        answered: Iterable[tuple[int, float]] = (),
        refused: Iterable[float] = (),
    ) -> None:
        """Take in a worker's report, and give permits out.

        Parameters
        ----------
        answered : iterable of tuple
            For each answer since its last report, the tokens, and the seconds until it began.
        refused : iterable of float
            For each refusal since then, the seconds for which nothing shall be sent.
        """
        last = self._reports[worker]
        self._reports[worker] = report
        self._heard.add(worker)
        for _ in range(report.ended - last.ended):
            self._pace.sent()
        for _ in range(report.reused - last.reused):
            self._pace.take_again()
        for _ in range(report.given_back - last.given_back):
            self._pace.give_back()
        self._count_begun(report.begun - last.begun)
        for tokens, seconds in answered:
            self._pace.used(tokens)
            self._pace.came(seconds)
        for seconds in refused:
            self._pace.slow_down(self._clock() + seconds)
        # It does not know of the permits yet that were given since it was asked.
        self._wanted[worker] = max(report.wanted - (self._granted[worker] - report.granted), 0)
        self._give_out()

    def orders(self, worker: str) -> dict[str, Any]:
        """Return what a worker has to know: see `Post.answer`."""
        self._give_out()
        held_back = self._pace.held_back
        crowded = self._pace.under_way > self._pace.at_once or held_back > 0
        mine = self._held(worker)
        others = (self._held(other) for other, wanted in self._wanted.items() if wanted)
        has_more = any(mine > other + 1 for other in others)
        return {
            "granted": self._granted[worker],
            "reuse": not (self._one_by_one or crowded or has_more),
            "held_back": held_back,
        }

    def expect(self, tokens: int) -> None:
        """See `Pace.expect`."""
        self._pace.expect(tokens)

    def _give_out(self) -> None:
        """Give a permit to each worker that wants one, those with the fewest first, and again.

        More than its share is given to none before all have told what they want.
        """
        while wanting := [worker for worker, wanted in self._wanted.items() if wanted]:
            worker = min(wanting, key=self._held)
            share = -(-self._most // len(self._reports))
            if self._held(worker) >= share and not self._heard.issuperset(self._reports):
                return
            if self._is_full() or not self._pace.may_send():
                return
            self._granted[worker] += 1
            self._wanted[worker] -= 1

    def _held(self, worker: str) -> int:
        """Return the permits of a worker, those of requests that are under way among them."""
        report = self._reports[worker]
        return self._granted[worker] - report.ended + report.reused - report.given_back

    def _unspent(self, worker: str) -> int:
        """Return the permits that no request is known to have taken."""
        report = self._reports[worker]
        return self._granted[worker] - report.granted + report.unspent

    def _is_full(self) -> bool:
        if self._per_minute is None:
            return False
        now = self._clock()
        while self._begun and self._begun[0] <= now - MINUTE:
            self._begun.popleft()
        unspent = sum(map(self._unspent, self._reports))
        return len(self._begun) + unspent >= self._per_minute

    def _count_begun(self, count: int) -> None:
        if self._per_minute is not None:
            self._begun.extend([self._clock()] * count)
