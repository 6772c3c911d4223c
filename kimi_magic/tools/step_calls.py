"""The calls of one step, in order or side by side."""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import groupby

from kimi_magic.core.events import ToolFinished, ToolStarted
from kimi_magic.core.messages import ToolCall, ToolResult
from kimi_magic.tools.call import Approve, told
from kimi_magic.tools.shell_state import guarding
from kimi_magic.tools.toolset import Toolset

__all__ = ["run_step_calls"]

TICK = 0.05
MAX_THREADS = 16

CallEvent = ToolStarted | ToolFinished | None


def run_step_calls(
    toolset: Toolset, calls: Sequence[ToolCall], approve: Approve | None
) -> Iterator[CallEvent]:
    """Make the calls and yield their events, and None every `TICK` seconds while threads work.

    Consecutive calls of ``parallel=True`` tools run side by side in threads. Every other call runs
    in this thread, once those before it have ended. A ToolInterrupted leaves the threads behind.
    """

    def is_parallel(place: tuple[int, ToolCall]) -> bool:
        tool = toolset.get(place[1].name)
        # Only the turn's own thread can ask a person.
        return tool is not None and tool.options.parallel and not tool.options.confirm

    for parallel, group in groupby(enumerate(calls), is_parallel):
        places = list(group)
        if parallel:
            yield from _side_by_side(toolset, places)
            continue
        for index, call in places:
            yield ToolStarted(index, call)
            result = toolset.call(call.name, call.arguments, call_id=call.id, approve=approve)
            yield ToolFinished(index, result)


def _side_by_side(toolset: Toolset, places: list[tuple[int, ToolCall]]) -> Iterator[CallEvent]:
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

    last: ToolFinished | None = None
    with guarding() as guard:
        for index, call in places:
            yield ToolStarted(index, call)
            todo.put((index, call))
        for _ in places[:MAX_THREADS]:
            run = contextvars.copy_context().run
            threading.Thread(target=run, args=(work,), name="kimi-magic calls", daemon=True).start()
        try:
            for left in range(len(places) - 1, -1, -1):
                while (outcome := _next(done)) is None:
                    yield None
                if left:
                    yield outcome
                else:
                    last = outcome
        finally:
            with suppress(queue.Empty):  # a stopped turn must not start the waiting calls
                while True:
                    todo.get_nowait()
    assert last is not None, "there is a call"
    # Which of them changed something cannot be told.
    yield replace(last, result=told(last.result, guard.changes))


def _next(
    done: queue.SimpleQueue[tuple[int, ToolResult | BaseException]],
) -> ToolFinished | None:
    """Wait for the next call to end; return None where none has within `TICK` seconds."""
    try:
        index, outcome = done.get(timeout=TICK)
    except queue.Empty:
        return None
    if isinstance(outcome, BaseException):
        raise outcome
    return ToolFinished(index, outcome)
