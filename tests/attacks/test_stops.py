"""Aim: go on after a person has stopped the turn, or after the time is up."""

from __future__ import annotations

import contextlib
import gc
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

import kimi_magic as kimi
from kimi_magic.core.errors import ToolInterrupted, TurnInterrupted
from kimi_magic.core.interrupts import holding_interrupts, interruptible
from kimi_magic.core.messages import ToolResult
from kimi_magic.core.time_limit import TimeBudget
from kimi_magic.session import Session
from kimi_magic.testing import ScriptedServer
from kimi_magic.tools.toolset import Toolset
from kimi_magic.wire.client import Exchange
from kimi_magic.wire.inbox import Inbox
from kimi_magic.wire.protocols import Arrival

ROUNDS = 200
finished: list[int] = []


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def call(function: Callable[..., Any], **options: Any) -> ToolResult:
    """Call a tool as a turn does."""
    tool = kimi.tool(**options)(function) if options else function
    with holding_interrupts(), interruptible():
        return Toolset({"tool": tool}).call("tool", "{}")


# What catches everything


def catches_all(strike: Callable[[], None]) -> None:
    for _ in range(ROUNDS):
        try:
            strike()
        except BaseException:  # noqa: BLE001 - as some tools do
            continue


def catches_all_twice(strike: Callable[[], None]) -> None:
    for _ in range(ROUNDS):
        try:
            for _ in range(3):
                try:
                    strike()
                except BaseException:  # noqa: BLE001 - as some tools do
                    continue
        except BaseException:  # noqa: BLE001 - as some tools do
            _ = 1


def suppresses(strike: Callable[[], None]) -> None:
    for _ in range(ROUNDS):
        with contextlib.suppress(BaseException):
            for _ in range(3):
                with contextlib.suppress(BaseException):
                    strike()


def keeps_what_it_caught(strike: Callable[[], None]) -> None:
    kept = []
    for _ in range(ROUNDS):
        try:
            strike()
        except BaseException as error:  # noqa: BLE001 - as some tools do
            kept.append(error)


def returns_in_a_handler(strike: Callable[[], None]) -> None:
    def inner() -> int:
        try:
            strike()
        except BaseException:  # noqa: BLE001 - as some tools do
            return 1
        return 2

    for _ in range(ROUNDS):
        inner()


def continues_in_finally(strike: Callable[[], None]) -> None:
    for _ in range(ROUNDS):
        try:
            strike()
        finally:
            continue  # noqa: B012 - as some tools do


def catches_in_a_generator(strike: Callable[[], None]) -> None:
    def items() -> Iterator[int]:
        for number in range(ROUNDS):
            try:
                yield number
                strike()
            except BaseException:  # noqa: BLE001 - as some tools do
                continue

    list(items())


CATCHING = [
    catches_all,
    catches_all_twice,
    suppresses,
    keeps_what_it_caught,
    returns_in_a_handler,
    continues_in_finally,
    catches_in_a_generator,
]


@pytest.mark.parametrize("catching", CATCHING)
def test_a_tool_that_catches_every_interrupt(catching: Callable[..., None]) -> None:
    """Input: loops around `except BaseException`. Holds: the interrupts after the first end it."""
    trace, cleaned = sys.gettrace(), []

    def tool() -> str:
        try:
            catching(interrupt)
        finally:
            cleaned.append(1)
            cleaned.append(2)
        return "survived"

    with pytest.raises(ToolInterrupted) as caught:
        call(tool)
    assert "had caught the first interrupt and gone on" in caught.value.result.content
    assert cleaned == [1, 2], "what cleans up runs to its end"
    assert sys.gettrace() is trace


@pytest.mark.parametrize("catching", CATCHING)
def test_a_tool_that_catches_its_time_limit(catching: Callable[..., None]) -> None:
    """Input: the same loops under a time limit. Holds: it ends, as one that timed out."""
    trace = sys.gettrace()

    def tool() -> str:
        catching(lambda: time.sleep(0.02))
        return "survived"

    result = call(tool, timeout=0.01)
    assert result.error == "timed out after 0.01 s"
    assert sys.gettrace() is trace


def test_what_a_tool_catches_once_is_its_own() -> None:
    """Input: a tool that handles one interrupt. Holds: its value, as it always was."""

    def careful() -> str:
        try:
            interrupt()
        except KeyboardInterrupt:
            return "as far as it came"
        return "whole"

    assert call(careful).value == "as far as it came"


# What Python drops


class Finalized:
    def __del__(self) -> None:
        interrupt()


class Referent:
    """Something to hold weakly."""


def finalizes() -> None:
    Finalized()


def weak_callback() -> None:
    held = Referent()
    references.append(weakref.ref(held, lambda _: interrupt()))
    del held


def collects() -> None:
    def callback(phase: str, _info: dict[str, int]) -> None:
        if phase == "start":
            interrupt()

    gc.callbacks.append(callback)
    try:
        gc.collect()
    finally:
        gc.callbacks.remove(callback)


references: list[Any] = []


@pytest.mark.parametrize("drops", [finalizes, weak_callback, collects])
def test_an_interrupt_where_python_drops_errors(
    drops: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Input: SIGINT in `__del__`, weak references', gc's callbacks. Holds: it comes after them."""
    went_on: list[int] = []

    def tool() -> None:
        drops()
        for number in range(ROUNDS):
            went_on.append(number)
            time.sleep(0.01)

    with pytest.raises(ToolInterrupted):
        call(tool)
    assert len(went_on) < ROUNDS
    assert "ignored" not in capsys.readouterr().err


@pytest.mark.parametrize("drops", [finalizes, weak_callback])
def test_a_tool_that_spends_its_time_there(drops: Callable[[], None]) -> None:
    """Input: SIGINT in every one of many finalizers. Holds: the tool ends all the same."""

    def tool() -> str:
        for _ in range(ROUNDS):
            drops()
        return "survived"

    with pytest.raises(ToolInterrupted):
        call(tool)


@pytest.mark.parametrize("drops", [finalizes, weak_callback])
def test_a_tool_that_ends_right_behind_a_dropped_interrupt(drops: Callable[[], None]) -> None:
    """Input: the same as a tool's last act. Holds: it is not lost; the call was stopped."""
    with pytest.raises(KeyboardInterrupt):
        call(drops)


COLLECTING = """
import gc, time
import kimi_magic as kimi

def callback(_phase, _info):
    time.sleep(0.01)

def quick(_phase, _info):
    time.perf_counter()

@kimi.tool(timeout=0.005)
def tool():
    gc.callbacks.insert(0, quick)
    gc.callbacks.append(callback)
    try:
        for _ in range(200):
            gc.collect()
    finally:
        gc.callbacks.remove(callback)
        gc.callbacks.remove(quick)

print(kimi.Toolset([tool]).call("tool", "{}").error)
"""


def test_a_time_limit_in_a_callback_of_the_collector() -> None:
    """Input: a tool whose time passes in gc's callbacks, two of them. Holds: it is timed out.

    In a process of its own: with all that other tests have left, one collection takes long.
    """
    ran = subprocess.run(
        [sys.executable, "-c", COLLECTING], capture_output=True, text=True, timeout=200, check=False
    )
    assert ran.stdout == "timed out after 0.005 s\n", ran.stderr
    assert ran.stderr == ""


# What a result does when it is shown


class Slow:
    def __init__(self, strike: Callable[[], object]) -> None:
        self.strike = strike

    def __repr__(self) -> str:
        while True:
            with contextlib.suppress(Exception):
                self.strike()


class SlowHTML(Slow):
    def _repr_html_(self) -> str:
        return repr(self)


@pytest.mark.parametrize("kind", [Slow, SlowHTML])
def test_a_result_that_takes_for_ever_to_show(kind: type[Slow]) -> None:
    """Input: an endless `__repr__`. Holds: the tool's limit ends it; the value is kept."""
    result = call(lambda: kind(lambda: time.sleep(0.01)), timeout=0.1)
    assert result.error is None
    assert isinstance(result.value, kind)
    if (
        result.content
        != "Done; what it returned cannot be shown: showing it took longer than 0.1 s."
    ):
        assert "Slow" in result.content, "the summary has a limit of its own"


def test_an_interrupt_while_a_result_is_shown() -> None:
    """Input: SIGINT in a `__repr__`. Holds: the call is told as one that the user stopped."""
    with pytest.raises(ToolInterrupted) as caught:
        call(lambda: Slow(interrupt))
    assert "stopped" in caught.value.result.content


# Children and threads of a call


def child_returns() -> str:
    child = os.fork()
    return f"ended with {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}" if child else "child"


def child_raises() -> str:
    if child := os.fork():
        return f"ended with {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}"
    raise RuntimeError("child")


async def child_of_a_coroutine() -> str:
    return child_returns()


class Forking:
    def __repr__(self) -> str:
        return child_returns()


def child_of_a_repr() -> Forking:
    return Forking()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize(
    ("function", "options", "status"),
    [
        (child_returns, {}, 0),
        (child_raises, {}, 1),
        (child_returns, {"timeout": 30}, 0),
        (child_returns, {"parallel": True}, 0),
        (child_of_a_coroutine, {}, 0),
        (child_of_a_repr, {}, 0),
    ],
)
def test_a_forked_child_does_not_go_on_with_the_turn(
    server: ScriptedServer,
    session: Session,
    monkeypatch: pytest.MonkeyPatch,
    function: Callable[[], object],
    options: dict[str, Any],
    status: int,
) -> None:
    """Input: `os.fork` in a tool, whose child returns or raises. Holds: it ends and sends nothing.

    The answer goes to one process only, so a child that goes on takes it or asks in vain.
    """
    """Input: `os.fork` in a tool, whose child returns or raises. Holds: it ends and sends nothing.

    The answer goes to one process only, so a child that goes on takes it or asks in vain.
    """
    # A large process takes its time to fork.
    monkeypatch.setattr("kimi_magic.context.walker.TimeBudget", partial(TimeBudget, 60, 60))
    tool = kimi.tool(name="tool", **options)(function)
    server.reply("", tool_calls=[{"name": "tool", "arguments": {}}])
    server.reply("Done.")
    reply = kimi.ask("Fork", tools=[tool])
    assert reply.text == "Done."
    assert reply.tool_results[0].content == f"ended with {status}"
    assert len(server.requests) == 2


def test_what_a_tools_own_threads_print() -> None:
    """Input: threads, timers and pools in a tool. Holds: the call has their text; others' not."""
    from concurrent.futures import ThreadPoolExecutor

    def inner() -> None:
        thread = threading.Thread(target=print, args=("of a thread's thread",))
        thread.start()
        thread.join()

    def tool() -> None:
        for target in (lambda: print("of a thread"), inner):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
        with ThreadPoolExecutor(2) as pool:
            pool.submit(print, "of a pool").result()
        timer = threading.Timer(0, lambda: print("of a timer"))
        timer.start()
        timer.join()

    assert call(tool).stdout.splitlines() == [
        "of a thread",
        "of a thread's thread",
        "of a pool",
        "of a timer",
    ]


@pytest.mark.parametrize("when", [1, 4, 9])
def test_an_interrupt_loses_nothing_that_had_arrived(
    when: int, server: ScriptedServer, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Input: SIGINT in the moment in which tokens are gathered. Holds: the reply has them all."""
    moments: list[int] = []
    arrived: list[bytes] = []
    put = Inbox.put

    def interrupted(_: float) -> None:
        moments.append(1)
        if len(moments) == when:
            had_arrived.extend(arrived)
            interrupt()

    def noting(self: Inbox, exchange: Exchange, arrival: Arrival) -> None:
        put(self, exchange, arrival)
        if isinstance(arrival.item, bytes):
            arrived.append(arrival.item)

    had_arrived: list[bytes] = []
    monkeypatch.setattr("kimi_magic.wire.inbox.NEAR", math.inf)  # as if they came close together
    # Not time.sleep itself: threads that earlier tests left behind sleep as well.
    clock = SimpleNamespace(sleep=interrupted, monotonic=time.monotonic)
    monkeypatch.setattr("kimi_magic.wire.inbox.time", clock)
    monkeypatch.setattr(Inbox, "put", noting)
    server.reply(" ".join(f"word{number}" for number in range(50)), rate=500)
    with pytest.raises(TurnInterrupted) as caught:
        kimi.ask("Go on")
    assert caught.value.reply is not None
    pieces = re.findall(r'"content": ?"([^"]*)"', b"".join(had_arrived).decode())
    assert pieces
    assert caught.value.reply.text.startswith("".join(pieces).rstrip())
