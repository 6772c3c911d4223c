"""The post of a map on a worker: permits and orders come in by it, and answers go out.

The kernel asks for the post of each worker several times a second. The event loop of the worker
answers; the tasks of the map run in other threads.
"""

from __future__ import annotations

import pickle
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import astuple, dataclass, field, replace
from typing import Any, Protocol
from uuid import uuid4

from kimi_magic.batch.cluster_limits import Report

__all__ = ["BOOT", "Outfit", "Post", "Secrets", "drop_post", "keep_post", "post_of", "posts"]

BOOT = uuid4().hex
"""Tells this process from the one that had its address before."""
# A kernel that is gone asks for no post: then nothing more is sent, and at last all is stopped.
SILENT, GONE = 20.0, 90.0
MOST_BYTES = 16_000_000  # answers that wait; with more of them, no request begins
MOST_AT_ONCE = 2_000_000  # bytes in one letter
FIRST_CONTACT = 60.0  # seconds that a task waits for its kernel
LOOK = 0.2  # seconds between two looks at the clock, and at a worker that may close


@dataclass(frozen=True, slots=True)
class Outfit:
    """All that the tasks of a map share.

    ``made`` is the pickled request; ``lanes`` are the requests at once of one task.
    """

    made: bytes = field(repr=False)
    lanes: int


@dataclass(frozen=True, slots=True)
class Secrets:
    """The key, and the values of an endpoint's headers; they pass from memory to memory."""

    key: str | None = field(default=None, repr=False)
    headers: dict[str, str] = field(default_factory=dict, repr=False)


class Asking(Protocol):
    """A task that asks."""

    why: str

    def wanted(self) -> int:
        """Return the number of requests that it could have under way."""


class Post:
    """Holds what passes between the kernel and the tasks of one map on a worker.

    Parameters
    ----------
    closes : callable
        Returns True when the worker closes: it waits for its tasks.

    Attributes
    ----------
    reuse : bool
        Permits may be kept for the next request.
    state : str
        ``go``; ``finish``: rows that were not begun are left; ``stop``: all are.
    """

    def __init__(
        self, outfit: Outfit, secrets: Secrets, closes: Callable[[], bool] = lambda: False
    ) -> None:
        self._closes = closes
        self.outfit = outfit
        self.secrets = secrets
        self.reuse = False
        self.state = "go"
        self._report = Report()
        self._held_until = 0.0
        self._heard = time.monotonic()
        self._expected: frozenset[int] = frozenset()
        self._admitted: set[int] = set()
        self._asking: list[Asking] = []
        self._changed = threading.Condition()
        self._out: deque[tuple[int, bytes]] = deque()
        self._bytes = self._put = 0
        self._answered: list[tuple[int, tuple[int, float]]] = []
        self._refused: list[tuple[int, float]] = []

    def admit(self, chunk: int, asking: Asking) -> bool:
        """Wait until the kernel wants a chunk from this process; False if it does not.

        Dask runs the tasks of a lost worker again, also when their rows were given to others.
        """
        with self._changed:
            until = time.monotonic() + FIRST_CONTACT
            while chunk not in self._expected and not self.is_stopped:
                if time.monotonic() > until:
                    return False
                self._changed.wait(LOOK)
            if chunk not in self._expected or chunk in self._admitted or self.state != "go":
                return False
            self._admitted.add(chunk)
            self._asking.append(asking)
            return True

    def replace(self, before: Asking, asking: Asking) -> None:
        """Put a task in the place of what stood for it until it was ready."""
        with self._changed:
            asking.why = before.why
            self._asking[self._asking.index(before)] = asking

    def leave(self, asking: Asking) -> None:
        with self._changed:
            self._asking.remove(asking)

    @property
    def is_stopped(self) -> bool:
        """True if the tasks have to stop at once: they are told to, or are of no use any more."""
        is_gone = time.monotonic() - self._heard > GONE
        return self.state == "stop" or is_gone or self._closes()

    def put(self, event: tuple[Any, ...]) -> None:
        """Put something into the post."""
        written = pickle.dumps(event)
        with self._changed:
            self._put += 1
            self._bytes += len(written)
            self._out.append((self._put, written))

    def has_room(self) -> bool:
        """Return True if there is a permit, and it may be used now."""
        now = time.monotonic()
        full = self._bytes > MOST_BYTES or now - self._heard > SILENT
        return not full and now >= self._held_until and self._report.unspent > 0

    def may_send(self) -> bool:
        """Take a permit, if there is one."""
        with self._changed:
            if not self.has_room():
                return False
            self._report = replace(self._report, begun=self._report.begun + 1)
            return True

    def sent(self) -> None:
        """Note that a request has ended; its permit may serve another one."""
        with self._changed:
            own = self._report
            self._report = replace(own, ended=own.ended + 1, reused=own.reused + self.reuse)

    def slow_down(self, until: float) -> None:
        """Send nothing before a moment, and tell the kernel."""
        with self._changed:
            self._held_until = max(self._held_until, until)
            self.reuse = False
            self._put += 1
            self._refused.append((self._put, max(until - time.monotonic(), 0.0)))

    def answered(self, tokens: int, seconds: float) -> None:
        """Note what an answer used, and after how long it began."""
        with self._changed:
            self._put += 1
            self._answered.append((self._put, (tokens, seconds)))

    def answer(self, orders: dict[str, Any]) -> dict[str, Any]:
        """Take in the kernel's orders, and return what it has not had yet.

        Parameters
        ----------
        orders : dict
            ``granted`` permits, ``reuse``, seconds to be ``held_back``, the ``state``, the chunks
            that are ``expected``, and the number of the last letter that the kernel has ``had``.
        """
        with self._changed:
            now = self._heard = time.monotonic()
            self._drop(orders["had"])
            self.reuse = orders["reuse"]
            self._held_until = max(self._held_until, now + orders["held_back"])
            self._report = replace(self._report, granted=orders["granted"])
            self._expected = frozenset(orders["expected"])
            self.state = orders["state"]
            if self.state != "go":
                for each in self._asking:
                    each.why = each.why or self.state
            self._count_wanted(now)
            letters: list[bytes] = []
            size, last = 0, self._put
            for number, written in self._out:
                size += len(written)
                if size > MOST_AT_ONCE and letters:
                    last = number - 1
                    break
                letters.append(written)
            self._changed.notify_all()
            return {
                "boot": BOOT,
                "report": astuple(self._report),
                "letters": letters,
                "answered": [facts for number, facts in self._answered if number <= last],
                "refused": [seconds for number, seconds in self._refused if number <= last],
                "last": last,
            }

    def _count_wanted(self, now: float) -> None:
        """Count the permits that are wanted; what there is no use for goes back."""
        own = self._report
        under_way = own.begun - own.ended
        wanted = sum(each.wanted() for each in self._asking) - under_way - own.unspent
        surplus = own.unspent if now < self._held_until else min(-wanted, own.unspent)
        if surplus > 0:
            own = replace(own, given_back=own.given_back + surplus)
        self._report = replace(own, wanted=max(wanted + max(surplus, 0), 0))

    def _drop(self, had: int) -> None:
        while self._out and self._out[0][0] <= had:
            self._bytes -= len(self._out.popleft()[1])
        self._answered = [each for each in self._answered if each[0] > had]
        self._refused = [each for each in self._refused if each[0] > had]

    @property
    def is_forgotten(self) -> bool:
        """True if the kernel has not asked for so long that it will not come again."""
        return not self._asking and time.monotonic() - self._heard > 2 * GONE


posts: dict[tuple[str, str], Post] = {}
"""By the map and the address of the worker: several may live in one process."""
_arrived = threading.Condition()


def keep_post(name: tuple[str, str], post: Post) -> None:
    """Add a post; those that were forgotten go."""
    with _arrived:
        for other, old in list(posts.items()):
            if old.is_forgotten:
                del posts[other]
        posts.setdefault(name, post)
        _arrived.notify_all()


def post_of(name: tuple[str, str]) -> Post | None:
    """Wait for the post of a map."""
    with _arrived:
        _arrived.wait_for(lambda: name in posts, timeout=FIRST_CONTACT)
    return posts.get(name)


def drop_post(name: tuple[str, str]) -> None:
    """Remove a post, with its secrets."""
    if post := posts.pop(name, None):
        post.state = "stop"
