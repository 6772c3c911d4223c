"""From what the model sent to a result: reading, refusing, running, failing."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Literal, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_magic.core.messages import ToolResult
from kimi_magic.schema.problems import ArgumentsError
from kimi_magic.tools.call import run_call
from kimi_magic.tools.function_tool import make_tool
from kimi_magic.tools.tool import ToolOptions

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


# Calls


def add(x: int, ys: list[int] | None = None, how: Literal["sum", "list"] = "sum") -> Any:
    """Add numbers.

    Parameters
    ----------
    x : int
        The first.
    """
    numbers = [x, *(ys or [])]
    return sum(numbers) if how == "sum" else numbers


def call(function: Callable[..., Any], text: str = "", **options: Any) -> ToolResult:
    tool = make_tool(function, name="tool", options=ToolOptions(**options))
    return run_call(tool, text, {}, call_id="c1")


CALLS = [
    ('{"x": 3}', 3),
    ('{"x": "3", "ys": "[4, 5]"}', 12),
    ('{"x": 1, "ys": [2], "how": "list"}', [1, 2]),
    ('{"x": 1, "ys": null}', 1),
]


@pytest.mark.parametrize(("text", "value"), CALLS)
def test_what_fits_is_called(text: str, value: object) -> None:
    result = call(add, text)
    assert result.error is None
    assert result.value == value
    assert result.content == json.dumps(value, separators=(",", ":"))
    assert (result.name, result.call_id, result.stdout, result.traceback) == ("tool", "c1", "", "")


MISFITS = ["", "[", "[]", '{"x": "a", "z": 1}', '{"x": true}', '{"x": 1, "x": 2}', '{"x": NaN}']


@pytest.mark.parametrize("text", MISFITS)
def test_nothing_runs_where_something_does_not_fit(text: str) -> None:
    ran = []

    def tool(x: int) -> None:
        ran.append(x)

    result = call(tool, text)
    assert not ran
    assert result.error
    assert result.content.startswith(
        "Nothing was run: the arguments do not fit. Mend them and call tool again.\n- "
    )
    assert "got" in result.content or "missing" in result.content
    assert "want" in result.content


def test_many_problems_are_told_at_once_and_bounded() -> None:
    result = call(add, json.dumps({f"k{i}": i for i in range(50)}))
    lines = result.content.splitlines()
    assert len(lines) == 12
    assert lines[-1].startswith("- … and ")


@given(st.one_of(st.text(st.characters()), JSON.map(json.dumps), st.binary().map(repr)))
def test_whatever_arrives_nothing_is_raised(text: str) -> None:
    result = call(add, text)
    result.content.encode()
    assert (result.error is None) == (result.value is not None)


def test_a_lone_surrogate_can_be_sent_back() -> None:
    def shout(text: str) -> str:
        raise ValueError(text)

    result = call(shout, '{"text": "a\\ud800"}')
    for text in (result.content, result.error or "", result.traceback):
        text.encode()


# Confirmation


@pytest.mark.parametrize(
    ("approve", "error"),
    [
        (lambda *_: True, None),
        (lambda *_: False, "The user declined this call"),
        (
            None,
            "This tool needs the user's confirmation, and there was nobody to ask",
        ),
        (lambda *_: 1 / 0, "ZeroDivisionError: division by zero"),
    ],
    ids=["yes", "no", "nobody", "broken"],
)
def test_confirmation(approve: Any, error: str | None) -> None:
    ran: list[int] = []
    asked: list[Any] = []

    def ask(tool: Any, arguments: dict[str, Any]) -> bool:
        asked.append((tool.name, arguments))
        return bool(approve(tool, arguments))

    def note(x: int) -> None:
        ran.append(x)

    tool = make_tool(note, name="send", options=ToolOptions(confirm=True))
    result = run_call(tool, '{"x": 3}', {}, approve=ask if approve else None)
    assert result.error == error
    assert ran == ([3] if error is None else [])
    assert asked == ([("send", {"x": 3})] if approve else [])
    if error:
        assert error in result.content


@pytest.mark.parametrize("word", ["no", "yes", 1, object(), ["x"]])
def test_only_true_and_arguments_are_a_yes(word: Any) -> None:
    tool = make_tool(add, name="add", options=ToolOptions(confirm=True))
    result = run_call(tool, '{"x": 3}', {}, approve=lambda *_: word)
    assert result.value is None
    assert "declined" in str(result.error)


def test_nobody_is_asked_for_what_does_not_fit_or_needs_no_confirmation() -> None:
    asked: list[Any] = []

    def ask(tool: Any, arguments: Any) -> bool:
        asked.append(tool)
        return False

    free = make_tool(add, name="add")
    bound = make_tool(add, name="add", options=ToolOptions(confirm=True))
    assert run_call(free, '{"x": 3}', {}, approve=ask).value == 3
    assert run_call(bound, "{}", {}, approve=ask).error
    assert not asked


# Ways to give something


def numbers() -> Iterator[int]:
    yield from range(5)


async def later() -> str:
    await asyncio.sleep(0)
    return "later"


async def one_by_one() -> AsyncIterator[int]:
    for i in range(3):
        await asyncio.sleep(0)
        yield i


class Callable_:
    async def __call__(self) -> str:
        return "called"


def gives_coroutine() -> Any:
    return later()


GIVEN = [
    (numbers, [0, 1, 2, 3, 4]),
    (lambda: (i for i in "ab"), ["a", "b"]),
    (lambda: zip([1], [2], strict=True), [(1, 2)]),
    (later, "later"),
    (functools.partial(later), "later"),
    (gives_coroutine, "later"),
    (Callable_(), "called"),
    (one_by_one, [0, 1, 2]),
]


@pytest.mark.parametrize("options", [{}, {"timeout": 60}, {"parallel": True}], ids=str)
@pytest.mark.parametrize(("function", "value"), GIVEN, ids=[str(i) for i in range(len(GIVEN))])
def test_what_has_to_be_awaited_or_drained_is(
    function: Callable[[], Any], value: object, options: dict[str, Any]
) -> None:
    result = call(function, **options)
    assert (result.error, result.value) == (None, value)


async def endless_async() -> AsyncIterator[int]:
    i = 0
    try:
        while True:
            yield i
            i += 1
    finally:
        CLOSED.append("async")


def endless() -> Iterator[int]:
    i = 0
    try:
        while True:
            yield i
            i += 1
    finally:
        CLOSED.append("sync")


CLOSED: list[str] = []


@pytest.mark.parametrize(("function", "kind"), [(endless, "sync"), (endless_async, "async")])
def test_endless_generators_are_closed_after_a_thousand(
    function: Callable[[], Any], kind: str
) -> None:
    CLOSED.clear()
    result = call(function)
    assert result.value == list(range(1000))
    assert result.content.startswith("The first 1,000 items; there are more, the generator was")
    assert [kind] == CLOSED


def exactly() -> Iterator[int]:
    yield from range(1000)


def test_a_thousand_items_are_all_of_them() -> None:
    assert call(exactly).content.startswith("[0,1,")


def test_functions_run_in_the_callers_thread() -> None:
    here = threading.get_ident()
    assert call(threading.get_ident).value == here
    assert call(threading.get_ident, timeout=60).value == here
    assert call(threading.get_ident, parallel=True).value != here


async def where() -> tuple[int, asyncio.AbstractEventLoop]:
    return threading.get_ident(), asyncio.get_running_loop()


def test_coroutines_share_one_loop_in_one_thread() -> None:
    first, second = call(where).value, call(where).value
    assert first == second
    assert first[0] != threading.get_ident()


def test_a_coroutine_may_call_a_tool_that_is_one() -> None:
    async def outer() -> Any:
        return call(where, timeout=60).value

    thread, loop = call(outer, timeout=60).value
    assert (thread, loop) != call(where).value


# Failures


def inverse(x: int) -> float:
    """One by x."""
    print("dividing")
    return 1 / x


async def inverse_later(x: int) -> float:
    await asyncio.sleep(0)
    return inverse(x)


def inverses(x: int) -> Iterator[float]:
    yield inverse(x)


def through_a_library(x: int) -> Any:
    return json.loads("[" * x)


FAILING = [
    (inverse, {}, "inverse", "1 / x"),
    (inverse, {"timeout": 60}, "inverse", "1 / x"),
    (inverse, {"parallel": True}, "inverse", "1 / x"),
    (inverse_later, {}, "inverse", "1 / x"),
    (inverses, {}, "inverse", "1 / x"),
]


@pytest.mark.parametrize(("function", "options", "name", "line"), FAILING)
def test_an_exception_is_told_with_its_line(
    function: Callable[..., Any], options: dict[str, Any], name: str, line: str
) -> None:
    result = call(function, '{"x": 0}', **options)
    assert result.error == "ZeroDivisionError: division by zero"
    number = inverse.__code__.co_firstlineno + 3
    assert result.content == (
        "tool failed: ZeroDivisionError: division by zero\n"
        f"  in {name}, line {number}: return {line}\n\nPrinted:\ndividing"
    )
    assert result.stdout == "dividing\n"
    first = result.traceback.splitlines()[:2]
    assert first[0] == "Traceback (most recent call last):"
    assert first[1].endswith(f"in {function.__name__}")
    assert "kimi_magic/tools" not in result.traceback
    assert result.traceback.endswith("ZeroDivisionError: division by zero\n")


def test_the_line_is_the_users_where_a_library_fails() -> None:
    result = call(through_a_library, '{"x": 1}')
    assert f"  in {through_a_library.__name__}, line" in result.content
    assert 'return json.loads("[" * x)' in result.content
    assert "decoder.py" in result.traceback


def test_a_builtin_has_no_line() -> None:
    result = call(functools.partial(int, "q"))
    assert result.content == (
        "tool failed: ValueError: invalid literal for int() with base 10: 'q'"
    )


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


class Noted(ValueError):
    def __init__(self) -> None:
        super().__init__("first")
        self.add_note("and a note")


async def grouped() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(later_fails())


async def later_fails() -> None:
    raise ValueError("inside")


def raising(error: BaseException) -> Callable[[], Any]:
    def fail() -> Any:
        raise error

    return fail


def raising_later(error: BaseException) -> Callable[[], Any]:
    async def fail() -> Any:
        raise error

    return fail


RAISED = [
    (SystemExit(3), "SystemExit: 3"),
    (GeneratorExit(), "GeneratorExit"),
    (asyncio.CancelledError(), "CancelledError"),
    (TimeoutError("own"), "TimeoutError: own"),
    (BaseException("base"), "BaseException: base"),
    (Unprintable(), "Unprintable: <exception str() failed>"),
    (Noted(), "Noted: first\nand a note"),
    (ValueError("x" * 10**6), "characters are missing]"),
    (ArgumentsError({(): "own"}), "own"),
]


@pytest.mark.parametrize("make", [raising, raising_later])
@pytest.mark.parametrize(("error", "text"), RAISED, ids=[text for _, text in RAISED])
def test_whatever_is_raised_becomes_a_result(
    error: BaseException, text: str, make: Callable[[BaseException], Callable[[], Any]]
) -> None:
    result = call(make(error))
    assert text in (result.error or "")
    assert result.content.startswith("tool failed: ")
    assert "in fail, line" in result.content
    assert len(result.content) <= 4000
    assert call(later).value == "later", "the loop goes on"


def test_what_a_group_holds_is_told() -> None:
    assert "\n- ValueError: inside" in (call(grouped).error or "")


def test_a_task_left_behind_cannot_end_the_loop() -> None:
    async def leaves() -> Any:
        async def exits() -> None:
            raise SystemExit(1)

        HELD.append(asyncio.ensure_future(exits()))
        return (await where())[1]

    loop = call(leaves).value
    assert call(where).value[1] is loop
    with contextlib.suppress(SystemExit):
        HELD.pop().exception()


HELD: list[Any] = []


# Interrupts


@pytest.mark.parametrize("options", [{}, {"timeout": 60}, {"parallel": True}], ids=str)
@pytest.mark.parametrize("make", [raising, raising_later])
def test_an_interrupt_goes_through_and_leaves_nothing_behind(
    make: Callable[[BaseException], Callable[[], Any]], options: dict[str, Any]
) -> None:
    before = (sys.stdout, sys.stderr, signal.getsignal(signal.SIGALRM))
    with pytest.raises(KeyboardInterrupt):
        call(make(KeyboardInterrupt()), **options)
    assert (sys.stdout, sys.stderr, signal.getsignal(signal.SIGALRM)) == before
    assert call(later).value == "later"


def test_an_interrupt_cancels_the_coroutine() -> None:
    ended = threading.Event()

    async def waits() -> None:
        try:
            await asyncio.sleep(0.2)  # the caller is waiting by then
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(600)
        finally:
            ended.set()

    with pytest.raises(KeyboardInterrupt):
        call(waits)
    assert ended.wait(60)


# Time limits


def spin() -> NoReturn:
    print("started")
    while True:
        pass


def stubborn() -> None:
    while True:
        with contextlib.suppress(Exception):
            time.sleep(0.001)


async def sleepy() -> None:
    print("started")
    await asyncio.sleep(600)


TIMED = [(spin, "was stopped"), (sleepy, "was cancelled")]


@pytest.mark.parametrize(("function", "fate"), TIMED)
def test_a_time_limit_ends_a_call(function: Callable[[], Any], fate: str) -> None:
    before = signal.getsignal(signal.SIGALRM)
    result = call(function, timeout=0.05)
    assert result.error == "timed out after 0.05 s"
    assert result.content == f"tool timed out after 0.05 s and {fate}.\n\nPrinted:\nstarted"
    assert result.seconds >= 0.05
    assert signal.getsignal(signal.SIGALRM) == before


def test_except_exception_does_not_stop_the_limit() -> None:
    assert call(stubborn, timeout=0.05).error == "timed out after 0.05 s"


def swallows() -> str:
    try:
        spin()
    except BaseException:  # noqa: BLE001 - what run_cell does
        return "as if nothing had happened"


def renames() -> None:
    try:
        spin()
    except BaseException as error:
        raise ValueError("own") from error


@pytest.mark.parametrize("function", [swallows, renames])
def test_a_limit_that_the_function_hides_is_told(function: Callable[[], Any]) -> None:
    assert call(function, timeout=0.05).error == "timed out after 0.05 s"


def loses_it() -> None:
    class Thing:
        pass

    thing = Thing()
    reference = weakref.ref(thing, lambda _: spin())  # what is raised there is printed, and lost
    del thing
    while reference() is None:
        pass


def drops_references() -> None:
    class Thing:
        pass

    while True:
        weakref.WeakSet([Thing()])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_limit_that_is_lost_comes_again() -> None:
    assert call(loses_it, timeout=0.05).error == "timed out after 0.05 s"


@pytest.mark.parametrize("_", range(20))
def test_a_limit_is_not_lost_in_a_callback_of_pythons(_: int) -> None:
    assert call(drops_references, timeout=0.01).error == "timed out after 0.01 s"


@pytest.mark.parametrize("timeout", [0.0, 1e-9])
def test_no_time_at_all(timeout: float) -> None:
    assert call(spin, timeout=timeout).error == f"timed out after {timeout:g} s"


@pytest.mark.parametrize("timeout", [1e300, float("inf")])
def test_all_the_time_in_the_world(timeout: float) -> None:
    assert call(numbers, timeout=timeout).error is None


def test_a_thread_is_left_behind() -> None:
    go, done = threading.Event(), threading.Event()

    def waits() -> None:
        print("started")
        go.wait(60)
        done.set()

    result = call(waits, timeout=0.05, parallel=True)
    assert result.content == (
        "tool timed out after 0.05 s and was left behind; it may still be running."
        "\n\nPrinted:\nstarted"
    )
    go.set()
    assert done.wait(60)


def test_elsewhere_than_in_the_main_thread_a_limit_leaves_a_thread_behind() -> None:
    go = threading.Event()
    results = []
    other = threading.Thread(target=lambda: results.append(call(go.wait, timeout=0.05)))
    other.start()
    other.join(60)
    go.set()
    assert "was left behind" in results[0].content


def test_a_coroutine_that_blocks_the_loop_gets_it_for_itself() -> None:
    go = threading.Event()

    async def blocks() -> None:
        go.wait(60)

    blocked = call(where).value[1]
    assert call(blocks, timeout=0.05).error == "timed out after 0.05 s"
    thread, loop = call(where).value
    assert loop is not blocked
    go.set()
    assert call(where).value == (thread, loop)


@contextlib.contextmanager
def alarm(handler: Any, seconds: float, interval: float) -> Iterator[None]:
    """A timer of somebody else's; pytest-timeout's own is put back afterwards."""
    before = signal.signal(signal.SIGALRM, handler)
    left = signal.setitimer(signal.ITIMER_REAL, seconds, interval)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *left)
        signal.signal(signal.SIGALRM, before)


def test_somebody_elses_timer_is_put_back() -> None:
    def handler(*_: Any) -> None:
        raise AssertionError

    with alarm(handler, 500, 7):
        assert call(spin, timeout=0.05).error
        left, interval = signal.getitimer(signal.ITIMER_REAL)
        assert signal.getsignal(signal.SIGALRM) is handler
    assert 0 < left < 500
    assert interval == 7


def test_somebody_elses_timer_still_rings() -> None:
    rung: list[int] = []

    def wait_for_rings() -> str:
        while len(rung) < 3:
            time.sleep(0.001)
        return "heard"

    with alarm(lambda *_: rung.append(1), 0.01, 0.01):
        assert call(wait_for_rings, timeout=60).value == "heard"
        assert signal.getitimer(signal.ITIMER_REAL)[1] == pytest.approx(0.01)


def test_the_first_limit_of_nested_calls_ends_what_it_belongs_to() -> None:
    ends: dict[str, Any] = {}

    def outer(seconds: float) -> Any:
        try:
            ends["inner"] = call(spin, timeout=seconds)
        finally:
            ends["left"] = signal.getitimer(signal.ITIMER_REAL)[0]
        return "went on"

    before = signal.getsignal(signal.SIGALRM)
    result = call(outer, '{"seconds": 0.05}', timeout=60)
    assert result.value == "went on"
    assert ends["inner"].error == "timed out after 0.05 s"
    assert 0 < ends.pop("left") < 60
    del ends["inner"]
    assert call(outer, '{"seconds": 60}', timeout=0.05).error == "timed out after 0.05 s"
    assert "inner" not in ends
    assert signal.getsignal(signal.SIGALRM) == before
