"""Carries out the commands of a turn's loop: requests, pauses and calls.

Whatever ends it early (an interrupt, a consumer that has enough), the connection is closed and the
loop knows what had arrived.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kimi_magic.core.errors import EndpointError, ToolInterrupted
from kimi_magic.core.events import Event, Notice, Replayed, ToolFinished, ToolPrinted, ToolStarted
from kimi_magic.core.interrupts import interruptible
from kimi_magic.core.messages import ToolCall
from kimi_magic.turn.lanes import Lane
from kimi_magic.turn.loop import Command, Loop, Pause, RunTools, Send, Stopped

if TYPE_CHECKING:
    from kimi_magic.wire.client import Exchange

__all__ = ["Opened", "ToolEvent", "drive"]

ToolEvent = ToolStarted | ToolPrinted | ToolFinished


def _nothing(_: EndpointError | None) -> Sequence[Notice]:
    return ()


@dataclass(frozen=True, slots=True)
class Opened:
    """A request that is ready to go out.

    ``replayed`` tells of its answer where that is played. ``conclude`` is called when it was
    answered, or has failed, and returns what the reader is told of that.
    """

    exchange: Exchange
    replayed: Replayed | None = None
    conclude: Callable[[EndpointError | None], Sequence[Notice]] = _nothing


def drive(
    loop: Loop,
    open_exchange: Callable[[Send], Opened],
    make_calls: Callable[[tuple[ToolCall, ...]], Generator[ToolEvent | None, None, None]],
    lane: Lane,
) -> Generator[Event | None, None, None]:
    """Carry out the loop's commands; yield its events, and None now and then."""
    running = loop.run()
    command: Event | Command | None = next(running, None)
    while command is not None:
        try:
            match command:
                case Send():
                    while not lane.may_send():
                        yield None
                    try:
                        command = yield from _request(running, open_exchange(command), lane)
                    finally:
                        lane.sent()
                case RunTools(calls):
                    command = yield from _call(running, make_calls(calls))
                case Pause(seconds, for_all):
                    until = time.monotonic() + seconds
                    if for_all:
                        lane.slow_down(until)
                    while not lane.pause(until):
                        yield None
                    command = running.send(None)
                case event:
                    yield event
                    command = running.send(None)
        except StopIteration:
            return


def _request(
    running: Any, opened: Opened, lane: Lane
) -> Generator[Event | None, None, Event | Command]:
    """Answer the loop's ``Send``; return what it yields next."""
    exchange = opened.exchange
    try:
        with exchange:
            try:
                if opened.replayed:
                    yield opened.replayed
                yield from _arrivals(exchange, lane)
            except EndpointError:
                raise
            except BaseException:
                _stop(running, Stopped(exchange.completion()))
                raise
    except EndpointError as error:
        if error.partial:
            lane.answered(error.partial)
        yield from opened.conclude(error)
        failed: Event | Command = running.throw(error)
        return failed
    yield from opened.conclude(None)
    completion = exchange.completion()
    lane.answered(completion)
    answered: Event | Command = running.send(completion)
    return answered


def _arrivals(exchange: Exchange, lane: Lane) -> Iterator[Event | None]:
    while not exchange.finished:
        interrupted = False
        try:
            lane.wait()
        except KeyboardInterrupt:
            interrupted = True  # what has come by now is kept, and shown
        yield from lane.receive(exchange) or (None,)
        if interrupted:
            raise KeyboardInterrupt
        exchange.check()


def _call(
    running: Any, events: Generator[ToolEvent | None, None, None]
) -> Generator[Event | None, None, Event | Command]:
    """Answer the loop's ``RunTools``; return what it yields after the calls."""
    with closing(events):
        while True:
            try:
                with interruptible():
                    event = next(events)
            except StopIteration:
                break
            except ToolInterrupted as interrupt:
                _stop(running, Stopped(result=interrupt.result))
                raise
            told = event is None or isinstance(event, ToolPrinted)  # the loop keeps results alone
            yield event if told else running.send(event)
    called: Event | Command = running.send(None)
    return called


def _stop(running: Any, stopped: Stopped) -> None:
    with suppress(StopIteration):
        running.throw(stopped)
