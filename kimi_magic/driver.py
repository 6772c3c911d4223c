"""Runs a turn: does for the loop what it may not do itself.

The turn runs in the caller's thread, so an interrupt is a ``KeyboardInterrupt`` in these frames,
and at most ``TICK`` seconds pass between two things that it yields.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING

from kimi_magic.errors import EndpointError
from kimi_magic.events import Event
from kimi_magic.loop import Pause, Send, Turn
from kimi_magic.messages import Completion, Message

if TYPE_CHECKING:
    from kimi_magic.endpoints.client import Exchange

__all__ = ["drive"]

TICK = 0.05


def drive(
    turn: Turn, open_exchange: Callable[[tuple[Message, ...]], Exchange]
) -> Iterator[Event | None]:
    """Yield the turn's events, and None now and then while nothing happens.

    Whatever ends it early (an interrupt, a consumer that has enough), the connection is closed and
    what had arrived is in ``turn.partial``.

    Raises
    ------
    EndpointError
        A request failed and is not worth another try.
    """
    run = turn.run()
    command = next(run, None)
    while command is not None:
        completion: Completion | None = None
        failure: EndpointError | None = None
        match command:
            case Send(messages):
                try:
                    completion = yield from _receive(turn, open_exchange(messages))
                except EndpointError as error:
                    failure = error
            case Pause(seconds):
                yield from _wait(seconds)
            case event:
                yield event
        try:
            command = run.throw(failure) if failure else run.send(completion)
        except StopIteration:
            return


def _receive(turn: Turn, exchange: Exchange) -> Generator[Event | None, None, Completion]:
    with exchange:
        try:
            yield from exchange
        except BaseException:
            turn.partial = exchange.completion()
            raise
    return exchange.completion()


def _wait(seconds: float) -> Iterator[None]:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(TICK, left))
        yield None
