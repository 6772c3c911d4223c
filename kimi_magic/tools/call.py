"""One call: arguments read, confirmation asked, the tool run, its result composed."""

from __future__ import annotations

import contextvars
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from kimi_magic.chats.history import CANCELLED
from kimi_magic.context.summaries.summary import summarize
from kimi_magic.core.errors import ToolInterrupted
from kimi_magic.core.interrupts import Insisted, stoppable
from kimi_magic.core.messages import (
    DECLINED,
    INSISTED,
    INTERRUPTED,
    NOBODY,
    NOT_MADE,
    Output,
    ToolResult,
)
from kimi_magic.core.processes import in_this_process
from kimi_magic.core.text import clip, cut
from kimi_magic.core.time_limit import CallTimedOut, DeadlineReached, TimeLimit, call_within
from kimi_magic.display.live.approval_form import is_same_call
from kimi_magic.schema.json_in_text import parse_arguments
from kimi_magic.schema.problems import ArgumentsError
from kimi_magic.tools.capture import capturing, open_figures, show_new_figures
from kimi_magic.tools.invocation import run
from kimi_magic.tools.printing import Printing
from kimi_magic.tools.results import (
    as_outputs,
    compose,
    describe,
    encodable,
    fit_for_notebooks,
    is_image,
    to_text,
)
from kimi_magic.tools.shell_state import CallGuard, guarding
from kimi_magic.tools.tool import Approve, CallFailed, KnowsNames, RunningCall, Tool, running_call

__all__ = ["run_call", "told"]

T = TypeVar("T")

MAX_PROBLEMS = 10
MAX_EDITED = 1000
MAX_FAILURE = 1500
STOPPED = "The user stopped this call before its end."
STOPPED_SHOWING = "The call ended; the user stopped it while its value was made into text."
AGAIN = "The user stopped this call, which had caught the first interrupt and gone on."
UNSHOWN = "Done; what it returned cannot be shown"


def run_call(
    tool: Tool,
    arguments_text: str,
    namespace: Mapping[str, Any],
    *,
    call_id: str = "",
    approve: Approve | None = None,
    printing: Printing | None = None,
) -> ToolResult:
    """Make a call that the model asks for; failures are results too.

    ``printing`` hears what it prints while it runs.

    Raises ToolInterrupted if a KeyboardInterrupt comes while the tool runs.
    """
    try:
        parameters = tool.schema()["function"].get("parameters")
        arguments = parse_arguments(arguments_text, parameters)
        bound = tool.bind(arguments, namespace)
        agreed: object = True
        if tool.options.confirm:
            try:
                agreed = approve(tool, arguments) if approve else False
            except KeyboardInterrupt:
                raise ToolInterrupted(_failed(tool, call_id, NOT_MADE, CANCELLED)) from None
        if agreed is not True and not isinstance(agreed, dict):  # "no" is truthy
            refusal = DECLINED if approve else NOBODY
            return _failed(tool, call_id, refusal, f"{refusal}. Nothing was run.")
        running = RunningCall(_outside(approve), printing)
        if isinstance(agreed, dict) and not is_same_call(agreed, arguments):
            bound = tool.bind(agreed, namespace)
            result = _run(tool, partial(tool.call, bound), call_id, running)
            return _edited(_misnamed(result, tool, agreed, namespace), agreed)
        result = _run(tool, partial(tool.call, bound), call_id, running)
        return _misnamed(result, tool, arguments, namespace)
    except ArgumentsError as error:
        return _refused(tool, call_id, error)
    except (KeyboardInterrupt, DeadlineReached):
        raise
    except BaseException as error:  # noqa: BLE001 - validators and approvers may raise anything
        message = describe(error).message
        return _failed(tool, call_id, message, f"The call was not made: {message}")


def _outside(approve: Approve | None) -> Approve | None:
    """Return what asks a person as if outside of the call, whose prints are captured."""
    if approve is None:
        return None
    context = contextvars.copy_context()
    return lambda tool, arguments: context.copy().run(approve, tool, arguments)


def _failed(tool: Tool, call_id: str, error: str, content: str, **observed: Any) -> ToolResult:
    return ToolResult(
        tool.name, encodable(content), error=encodable(error), call_id=call_id, **observed
    )


def _refused(tool: Tool, call_id: str, error: ArgumentsError) -> ToolResult:
    problems = [f"- {problem}" for problem in error.problems[:MAX_PROBLEMS]]
    if len(error.problems) > MAX_PROBLEMS:
        problems.append(f"- … and {len(error.problems) - MAX_PROBLEMS:,} more")
    head = f"Nothing was run: the arguments do not fit. Mend them and call {tool.name} again."
    return _failed(tool, call_id, str(error), "\n".join([head, *problems]))


def _misnamed(
    result: ToolResult, tool: Tool, arguments: Mapping[str, Any], namespace: Mapping[str, Any]
) -> ToolResult:
    """Tell the model of a failed call which texts it may have meant as variables."""
    if not (result.error and isinstance(tool, KnowsNames)):
        return result
    words = tool.misnamed(arguments, namespace)[:MAX_PROBLEMS]
    return replace(result, content="\n".join([result.content, *map(encodable, words)]))


def _edited(result: ToolResult, arguments: dict[str, Any]) -> ToolResult:
    """Tell the model which arguments the user chose instead of its own."""
    text = encodable(json.dumps(arguments, ensure_ascii=False))
    content = f"The user changed the arguments to {cut(text, MAX_EDITED)}.\n{result.content}"
    return replace(result, content=content)


def _run(tool: Tool, call: Callable[[], Any], call_id: str, running: RunningCall) -> ToolResult:
    with guarding() as guard:
        before = running_call.get()
        running_call.set(running)
        try:
            value, error, observed = _observed(tool, call, guard, running)
        finally:
            running_call.set(before)
        if isinstance(error, KeyboardInterrupt):
            is_second = isinstance(error, Insisted)
            said = (INSISTED, AGAIN) if is_second else (INTERRUPTED, STOPPED)
            raise ToolInterrupted(_stopped(tool, call_id, said, observed))
        # A repr may print, which is no output of the tool.
        with capturing():
            if error is not None:
                result = _ended_badly(tool, call_id, error, observed)
            else:
                result = _ended_well(tool, call_id, value, observed)
    return told(result, guard.changes)


def _observed(
    tool: Tool, call: Callable[[], Any], guard: CallGuard, running: RunningCall
) -> tuple[Any, BaseException | None, dict[str, Any]]:
    """Make the call; return its value, its error, and the fields of a result that it gave."""
    value: Any = None
    error: BaseException | None = None
    with capturing(running.printing) as capture:
        figures = open_figures()
        began = time.perf_counter()
        try:
            value = run(call, timeout=tool.options.timeout, in_thread=tool.options.parallel)
        except DeadlineReached:
            raise
        except BaseException as raised:  # noqa: BLE001 - SystemExit would end the kernel
            error = raised
        seconds = time.perf_counter() - began
        try:
            # In another thread, a new figure may belong to any other call.
            if threading.current_thread() is threading.main_thread() and not tool.options.parallel:
                _with_limit(tool, partial(show_new_figures, figures, value))
            capture.wait_for_threads()
        except DeadlineReached:
            raise
        except BaseException as raised:  # noqa: BLE001 - drawing may run any code
            error = error or raised
        guard.settle()
    if not isinstance(error, KeyboardInterrupt):
        error = error or guard.refused
    printed = encodable(capture.text)
    outputs = (*capture.outputs, *running.outputs)
    displays = tuple(filter(None, map(fit_for_notebooks, outputs)))
    return value, error, {"stdout": printed, "outputs": displays, "seconds": seconds}


def _stopped(
    tool: Tool, call_id: str, said: tuple[str, str], observed: dict[str, Any]
) -> ToolResult:
    error, text = said
    content = compose(text, observed["stdout"], observed["outputs"], tool.options.max_chars)
    return _failed(tool, call_id, error, content, **observed)


def told(result: ToolResult, changes: list[str]) -> ToolResult:
    """Add to a result, for the model and for the reader, what the call changed and left so."""
    if not changes:
        return result
    text = f"This call changed {', '.join(changes)}."
    output = Output({"text/plain": text}, {})
    content = f"{result.content}\n\n{encodable(text)}".lstrip()
    return replace(result, content=content, outputs=(*result.outputs, output))


def _with_limit(tool: Tool, call: Callable[[], T]) -> T:
    """Run code that a value brings along, such as its repr, within the tool's time limit."""
    with in_this_process():
        result: T = call_within(lambda: stoppable(call), TimeLimit(tool.options.timeout))
        return result


def _ended_well(tool: Tool, call_id: str, value: Any, observed: dict[str, Any]) -> ToolResult:
    limit, displays = tool.options.max_chars, observed["outputs"]
    shown: tuple[Output, ...] = ()
    try:
        shown, text = _with_limit(tool, lambda: _shown(value, limit))
        if value is None and not (observed["stdout"].strip() or displays):
            text = "Done; it returned None."
    except DeadlineReached:
        raise
    except KeyboardInterrupt:
        said = (INTERRUPTED, STOPPED_SHOWING)
        raise ToolInterrupted(_stopped(tool, call_id, said, observed)) from None
    except CallTimedOut:
        text = f"{UNSHOWN}: showing it took longer than {tool.options.timeout:g} s."
    except BaseException as error:  # noqa: BLE001 - the value's own code may raise anything
        text = f"{UNSHOWN}: {describe(error).message}"
    content = compose(text, observed["stdout"], displays, limit)
    observed["outputs"] = (*displays, *shown)
    return ToolResult(tool.name, content, value, call_id=call_id, **observed)


def _shown(value: Any, limit: int) -> tuple[tuple[Output, ...], str]:
    """Return a value's outputs, and its text for the model; "" for None."""
    shown = tuple(filter(None, map(fit_for_notebooks, as_outputs(value))))
    if any(map(is_image, shown)):
        return shown, f"A figure was shown to the user: {summarize(value, tokens=100)}"
    return shown, "" if value is None else to_text(value, limit)


def _ended_badly(
    tool: Tool, call_id: str, error: BaseException, observed: dict[str, Any]
) -> ToolResult:
    if isinstance(error, CallTimedOut):
        message = f"timed out after {tool.options.timeout:g} s"
        text = f"{tool.name} {message} {error}."
    elif isinstance(error, CallFailed):
        message = clip(str(error), MAX_FAILURE)
        text = f"{tool.name} failed: {error}"
    else:
        failure = describe(error)
        message = failure.message
        text = f"{tool.name} failed: {message}"
        if failure.place:
            text = f"{text}\n  {failure.place}"
        observed["traceback"] = encodable(failure.traceback)
    content = compose(text, observed["stdout"], observed["outputs"], tool.options.max_chars)
    return _failed(tool, call_id, message, content, **observed)
