"""The calls of one step, in order or side by side."""

from __future__ import annotations

import contextvars
import json
import queue
import threading
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import groupby

from kimi_magic.core.events import ToolFinished, ToolPrinted, ToolStarted
from kimi_magic.core.messages import ToolCall, ToolResult
from kimi_magic.tools.call import told
from kimi_magic.tools.printing import Printing, Watch, telling
from kimi_magic.tools.shell_state import guarding
from kimi_magic.tools.tool import Approve
from kimi_magic.tools.toolset import Toolset

__all__ = ["Made", "run_step_calls"]

TICK = 0.05
MAX_THREADS = 16

CallEvent = ToolStarted | ToolPrinted | ToolFinished | None
Made = dict[Hashable, ToolResult]
"""The results of a turn's calls of tools with ``once=True``."""


def run_step_calls(
    toolset: Toolset,
    calls: Sequence[ToolCall],
    approve: Approve | None,
    made: Made,
    watch: Watch | None = None,
) -> Iterator[CallEvent]:
    """Make the calls and yield their events, and None every `TICK` seconds while threads work.

    Consecutive calls of ``parallel=True`` tools run side by side in threads. Every other call runs
    in this thread, once those before it have ended. A ToolInterrupted leaves the threads behind.
    A call of a tool with ``once=True`` that was ``made`` before is not made again. ``watch`` hears
    what calls in this thread print; for those in other threads there are events.
    """

    def is_parallel(place: tuple[int, ToolCall]) -> bool:
        tool = toolset.get(place[1].name)
        if tool is None or _same_call(toolset, place[1]) in made:
            return False
        # Only the turn's own thread can ask a person.
        return tool.options.parallel and not tool.options.confirm

    for parallel, group in groupby(enumerate(calls), is_parallel):
        places = list(group)
        if parallel:
            for event in _side_by_side(toolset, places, watch):
                if isinstance(event, ToolFinished):
                    _note(made, _same_call(toolset, calls[event.index]), event.result)
                yield event
            continue
        for index, call in places:
            yield ToolStarted(index, call)
            same = _same_call(toolset, call)
            if same in made:
                result = replace(made[same], call_id=call.id)
            else:
                with telling(index, watch) as printing:
                    result = toolset.call(
                        call.name,
                        call.arguments,
                        call_id=call.id,
                        approve=approve,
                        printing=printing,
                    )
                _note(made, same, result)
            yield ToolFinished(index, result)


def _same_call(toolset: Toolset, call: ToolCall) -> Hashable:
    """Return what is the same for calls that need to be made only once; None for all others."""
    tool = toolset.get(call.name)
    if tool is None or not tool.options.once:
        return None
    with suppress(ValueError, RecursionError):
        return tool.name, tool.identity(), json.dumps(json.loads(call.arguments), sort_keys=True)
    return None


def _note(made: Made, same: Hashable, result: ToolResult) -> None:
    if same is not None and result.error is None:
        made[same] = result


def _side_by_side(
    toolset: Toolset, places: list[tuple[int, ToolCall]], watch: Watch | None
) -> Iterator[CallEvent]:
    printings = {index: Printing(watch.keys) for index, _ in places} if watch else {}
    todo: queue.SimpleQueue[tuple[int, ToolCall]] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, ToolResult | BaseException]] = queue.SimpleQueue()
    work = partial(_work, toolset, todo, done, printings)
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
                    yield from _prints(printings)
                    yield None
                printings.pop(outcome.index, None)
                yield from _prints(printings)
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


def _work(
    toolset: Toolset,
    todo: queue.SimpleQueue[tuple[int, ToolCall]],
    done: queue.SimpleQueue[tuple[int, ToolResult | BaseException]],
    printings: Mapping[int, Printing],
) -> None:
    """Make calls as long as there are any; the work of a thread."""
    with suppress(queue.Empty):
        while True:
            index, call = todo.get_nowait()
            printing = printings.get(index)
            try:
                result = toolset.call(call.name, call.arguments, call_id=call.id, printing=printing)
                done.put((index, result))
            except BaseException as error:  # noqa: BLE001 - raised again in the turn's thread
                done.put((index, error))


def _prints(printings: Mapping[int, Printing]) -> Iterator[ToolPrinted]:
    for index, printing in printings.items():
        text, clears = printing.take()
        if text or clears:
            yield ToolPrinted(index, text, clears)


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
