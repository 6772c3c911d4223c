"""Runs a turn: does for the loop what it may not do itself.

The turn runs in the caller's thread, so an interrupt is a ``KeyboardInterrupt`` in these frames,
and at most ``TICK`` seconds pass between two things that it yields, but while a tool runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING

from kimi_magic.core.errors import EndpointError, ToolInterrupted, TurnInterrupted
from kimi_magic.core.events import Event, ToolFinished, ToolStarted, TurnFinished
from kimi_magic.core.messages import Completion, Reply, ToolCall
from kimi_magic.display.view import View
from kimi_magic.turn.loop import Pause, RunTools, Send, Turn

if TYPE_CHECKING:
    from kimi_magic.wire.client import Exchange

__all__ = ["MakeCalls", "OpenExchange", "drive", "watch"]

TICK = 0.05
OpenExchange = Callable[[Send], "Exchange"]
MakeCalls = Callable[[tuple[ToolCall, ...]], Iterator[Event | None]]


def drive(turn: Turn, open_exchange: OpenExchange, make_calls: MakeCalls) -> Iterator[Event | None]:
    """Yield the turn's events, and None now and then while nothing happens.

    Whatever ends it early (an interrupt, a consumer that has enough), the connection is closed,
    what had arrived is in ``turn.partial``, and the results that there were in ``turn.results``.

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
            case Send():
                try:
                    completion = yield from _receive(turn, open_exchange(command))
                except EndpointError as error:
                    failure = error
            case RunTools(calls):
                yield from _gather(turn, make_calls(calls))
            case Pause(seconds):
                yield from _wait(seconds)
            case event:
                yield event
        try:
            command = run.throw(failure) if failure else run.send(completion)
        except StopIteration:
            return


def watch(events: Generator[Event | None, None, None], view: View) -> Reply:
    """Hand the events to the view; an interrupt that arrives in the view ends the turn as well."""
    reply: Reply | None = None
    interrupt: KeyboardInterrupt | None = None
    while True:
        try:
            event = events.throw(interrupt) if interrupt and not reply else next(events)
            if isinstance(event, TurnFinished):
                reply = event.reply
            if event is None:
                view.tick()
            else:
                view.handle(event)
        except StopIteration:
            assert reply is not None, "a turn ends with TurnFinished"
            if interrupt is not None:
                raise TurnInterrupted("Stopped when the answer was there.") from None
            return reply
        except TurnInterrupted:
            raise
        except KeyboardInterrupt as raised:
            if interrupt is not None:
                raise
            interrupt = raised


def _receive(turn: Turn, exchange: Exchange) -> Generator[Event | None, None, Completion]:
    with exchange:
        try:
            while not exchange.finished:
                arrived = exchange.inbox.take(TICK)
                deltas = [delta for each, items in arrived for delta in each.receive(items)]
                yield from deltas or (None,)
                exchange.check()
        except BaseException:
            turn.partial = exchange.completion()
            raise
    return exchange.completion()


def _gather(turn: Turn, events: Iterator[Event | None]) -> Iterator[Event | None]:
    """Keep each result as it comes, and of a call that was interrupted what there was of it."""
    try:
        for event in events:
            if isinstance(event, ToolStarted):
                turn.begun.add(event.call.id)
            elif isinstance(event, ToolFinished):
                turn.results[event.result.call_id] = event.result
            yield event
    except ToolInterrupted as interrupt:
        turn.results[interrupt.result.call_id] = interrupt.result
        raise


def _wait(seconds: float) -> Iterator[None]:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(TICK, left))
        yield None
