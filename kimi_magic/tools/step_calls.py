"""The calls of one step: in the order given, those that may side by side."""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import groupby

from kimi_magic.core.events import ToolFinished, ToolStarted
from kimi_magic.core.messages import ToolCall, ToolResult
from kimi_magic.tools.call import Approve
from kimi_magic.tools.toolset import Toolset

__all__ = ["run_step_calls"]

TICK = 0.05
MOST_AT_ONCE = 16

Happening = ToolStarted | ToolFinished | None


def run_step_calls(
    toolset: Toolset, calls: Sequence[ToolCall], approve: Approve | None
) -> Iterator[Happening]:
    """Make the calls, and yield what happens; None now and then while threads work.

    A run of calls of ``parallel=True`` tools is made side by side, in threads; every other call
    runs in this thread, when those before it have ended.

    Raises
    ------
    ToolInterrupted
        A KeyboardInterrupt came while a function ran. Threads are left behind.
    """

    def runs_aside(place: tuple[int, ToolCall]) -> bool:
        tool = toolset.get(place[1].name)
        # A person is asked in this thread.
        return tool is not None and tool.options.parallel and not tool.options.confirm

    for aside, group in groupby(enumerate(calls), runs_aside):
        places = list(group)
        if aside:
            yield from _side_by_side(toolset, places)
            continue
        for index, call in places:
            yield ToolStarted(index, call)
            result = toolset.call(call.name, call.arguments, call_id=call.id, approve=approve)
            yield ToolFinished(index, result)


def _side_by_side(toolset: Toolset, places: list[tuple[int, ToolCall]]) -> Iterator[Happening]:
    todo: queue.SimpleQueue[tuple[int, ToolCall]] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, ToolResult | BaseException]] = queue.SimpleQueue()

    def work() -> None:
        with suppress(queue.Empty):
            while True:
                index, call = todo.get_nowait()
                try:
                    done.put((index, toolset.call(call.name, call.arguments, call_id=call.id)))
                except BaseException as error:  # noqa: BLE001 - raised again in the turn's thread
                    done.put((index, error))

    for index, call in places:
        yield ToolStarted(index, call)
        todo.put((index, call))
    for _ in places[:MOST_AT_ONCE]:
        run = contextvars.copy_context().run
        threading.Thread(target=run, args=(work,), name="kimi-magic calls", daemon=True).start()
    left = len(places)
    try:
        while left:
            try:
                index, outcome = done.get(timeout=TICK)
            except queue.Empty:
                yield None
                continue
            if isinstance(outcome, BaseException):
                raise outcome
            left -= 1
            yield ToolFinished(index, outcome)
    finally:
        with suppress(queue.Empty):  # what has not begun when the turn is stopped never begins
            while True:
                todo.get_nowait()
