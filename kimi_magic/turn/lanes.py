"""Lanes: turns that run side by side in one thread.

A turn that runs alone waits for what arrives. Where several run, none of them may: each comes back
with None when it has nothing to do, and `side_by_side` waits for all of them at once. Whatever
happens in a lane (a failure, a limit, a time-out) ends that lane alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from kimi_magic.core.errors import KimiError
from kimi_magic.core.events import Envelope
from kimi_magic.core.interrupts import waiting
from kimi_magic.wire.inbox import Held, Inbox

if TYPE_CHECKING:
    from kimi_magic.core.messages import Completion
    from kimi_magic.wire.client import Exchange
    from kimi_magic.wire.protocols import Arrival, Delta

__all__ = ["TICK", "Alone", "Lane", "Lanes", "Within", "side_by_side"]

TICK = 0.05  # seconds at most between two things that a turn yields, except while a tool runs

Running = Generator[Envelope | None, None, None]


class Lane(Protocol):
    """The way in which a turn waits.

    Attributes
    ----------
    number : int
        Its number in the envelopes; 0 for the turn itself.
    inbox : Inbox
        Receives what arrives for the turn's exchanges.
    held : Held
        Counts what the turn holds of it.
    """

    @property
    def number(self) -> int: ...
    @property
    def inbox(self) -> Inbox: ...
    @property
    def held(self) -> Held: ...

    def may_send(self) -> bool:
        """Return True if a request may go out now, which then counts until `sent`."""

    def answered(self, completion: Completion) -> None:
        """Note the answer to a request, whole or cut."""

    def sent(self) -> None:
        """Note that a request has been answered, or has failed."""

    def wait(self) -> None:
        """Wait until something has arrived, a tick at most, if there is nobody else to wait."""

    def receive(self, exchange: Exchange) -> list[Delta]:
        """Return what has arrived for an exchange."""

    def slow_down(self, until: float) -> None:
        """Note that the server refuses requests until a moment of the monotonic clock."""

    def pause(self, until: float) -> bool:
        """Wait a tick for a moment of the monotonic clock; return True if it has come."""


class Alone:
    """The lane of a turn that has its thread to itself."""

    number = 0

    def __init__(self, most_bytes: int) -> None:
        self.inbox = Inbox(most_bytes)
        self.held = Held()

    def may_send(self) -> bool:
        return True

    def answered(self, completion: Completion) -> None:
        """Do nothing: there is no limit to what is sent one by one."""

    def sent(self) -> None:
        """Do nothing: there is no limit to what is sent one by one."""

    def wait(self) -> None:
        with waiting():
            self.inbox.wait(TICK)

    def receive(self, exchange: Exchange) -> list[Delta]:  # noqa: ARG002 - there is no other
        taken = self.inbox.take(0)
        return [delta for each, arrivals in taken for delta in each.receive(arrivals)]

    def slow_down(self, until: float) -> None:
        """Do nothing: the turn that was refused pauses, and there is no other."""

    def pause(self, until: float) -> bool:
        left = until - time.monotonic()
        if left <= 0:
            return True
        with waiting():
            time.sleep(min(TICK, left))
        return False


class Lanes:
    """The things that several lanes share: the inbox, the slots for requests, a slow-down.

    Parameters
    ----------
    most_bytes : int
        See `Inbox`.
    most_requests : int
        Requests that may be under way at once; the other lanes wait for one to end.
    sharers : int
        How many of the turns share the limit of what one may hold.
    """

    def __init__(self, most_bytes: int, most_requests: int, sharers: int = 1) -> None:
        self.inbox = Inbox(most_bytes)
        self.idle = Idle()  # the things that the running turn waits for
        self._sharers = sharers
        self._most_requests = most_requests
        self._under_way = 0
        self._not_before = 0.0
        self._arrived: dict[Exchange, list[Arrival]] = {}

    def lane(self, number: int) -> Lane:
        """Return a lane, for one turn."""
        return _Shared(self, number, Held(sharers=self._sharers))

    def wait(self) -> None:
        """Wait until something has arrived, a tick at most."""
        with waiting():
            self.inbox.wait(TICK)

    def take(self) -> None:
        """Take what has arrived, for each exchange apart."""
        for exchange, arrivals in self.inbox.take(0):
            if not exchange.left:
                self._arrived.setdefault(exchange, []).extend(arrivals)

    def arrived(self, exchange: Exchange) -> list[Arrival]:
        return self._arrived.pop(exchange, [])

    def can_go_on(self, idle: Idle) -> bool:
        """Return True if a turn may have something to do, other than to look at the clock."""
        if not (idle.on_exchanges or idle.for_room or idle.for_time):
            return True  # something else, such as a tool
        if idle.for_room and self.has_room():
            return True
        return not self._arrived.keys().isdisjoint(idle.on_exchanges)

    def has_room(self) -> bool:
        """Return True if a request may go out now."""
        room = self._under_way < self._most_requests
        return room and time.monotonic() >= self._not_before

    def may_send(self) -> bool:
        """Take a slot for a request, if there is one."""
        if not self.has_room():
            return False
        self._under_way += 1
        return True

    def answered(self, completion: Completion) -> None:
        """Do nothing: the number of lanes does not follow the server."""

    def sent(self) -> None:
        self._under_way -= 1

    def slow_down(self, until: float) -> None:
        """Send nothing before a moment, and then fewer at once.

        As many as the server has not refused, those that are under way now; at least half as many
        as before, since others may have ended in the meantime.
        """
        self._not_before = max(self._not_before, until)
        most = self._most_requests
        self._most_requests = max(min(most, self._under_way), most // 2, 1)


class Within:
    """The lanes of a turn that shares lanes with others itself: all of them wait together."""

    def __init__(self, lanes: Lanes, sharers: int) -> None:
        self.idle = Idle()
        self._lanes = lanes
        self._sharers = sharers

    def lane(self, number: int) -> Lane:
        """Return a lane, for a part of the turn."""
        return _Shared(self._lanes, number, Held(sharers=self._sharers))

    def wait(self) -> None:
        """Do nothing: the turn comes back with None."""

    def take(self) -> None:
        """Do nothing: what arrives is there for every part."""

    def can_go_on(self, _: Idle) -> bool:
        return True


@dataclass(slots=True)
class Idle:
    """The things that a turn waits for; none are known where it has run a tool, for example."""

    on_exchanges: set[Exchange] = field(default_factory=set)
    for_room: bool = False
    for_time: bool = False


class _Shared:
    """One of several lanes: it never waits itself."""

    def __init__(self, lanes: Lanes, number: int, held: Held) -> None:
        self.number = number
        self.held = held
        self.inbox = lanes.inbox
        self._lanes = lanes

    def may_send(self) -> bool:
        may = self._lanes.may_send()
        self._lanes.idle.for_room |= not may
        return may

    def answered(self, completion: Completion) -> None:
        self._lanes.answered(completion)

    def sent(self) -> None:
        self._lanes.sent()

    def wait(self) -> None:
        """Do nothing: `side_by_side` waits for all lanes."""

    def receive(self, exchange: Exchange) -> list[Delta]:
        arrivals = self._lanes.arrived(exchange)
        if not arrivals:
            self._lanes.idle.on_exchanges.add(exchange)
        return exchange.receive(arrivals) if arrivals else []

    def slow_down(self, until: float) -> None:
        self._lanes.slow_down(until)

    def pause(self, until: float) -> bool:
        is_over = time.monotonic() >= until
        self._lanes.idle.for_time |= not is_over
        return is_over


def side_by_side(
    lanes: Lanes | Within, turns: Sequence[Running], enough: Callable[[], bool] = lambda: False
) -> Running:
    """Run turns side by side to their ends.

    Yields their events as they happen, and None now and then. The errors of the turns are in their
    replies. An interrupt stops all of them, and is raised when each has told of its end. Where it
    is ``enough`` after one has ended, the others are stopped as well.

    A waiting turn goes on when something that it waits for has come, and at each tick, as it may
    wait for a moment in time.
    """
    left: dict[Running, Idle] = {turn: Idle() for turn in turns}
    interrupted = stop = False
    next_tick = 0.0
    try:
        while left:
            ticks = time.monotonic() >= next_tick
            if ticks:
                next_tick = time.monotonic() + TICK
            for turn, idle in tuple(left.items()):
                if not (ticks or interrupted or stop or lanes.can_go_on(idle)):
                    continue
                lanes.idle = left[turn] = Idle()
                ended, stopped = yield from _until_idle(turn, stop=interrupted or stop)
                interrupted = interrupted or stopped
                if ended:
                    del left[turn]
                    try:
                        stop = stop or enough()
                    except KeyboardInterrupt:
                        interrupted = True
            try:
                yield None
                lanes.wait()
            except KeyboardInterrupt:
                interrupted = True
            lanes.take()
    finally:
        for turn in left:
            turn.close()
    if interrupted:
        raise KeyboardInterrupt


def _until_idle(
    turn: Running, *, stop: bool
) -> Generator[Envelope | None, None, tuple[bool, bool]]:
    """Yield a turn's events until it has nothing to do.

    The result is two facts: the turn has ended, and it was stopped by an interrupt.
    """
    try:
        envelope = turn.throw(KeyboardInterrupt) if stop else next(turn)
        while envelope is not None:
            yield envelope
            envelope = next(turn)
    except (StopIteration, KimiError):
        return True, False
    except KeyboardInterrupt:  # a TurnInterrupted, or a turn that had not begun
        return True, not stop
    return False, False
