"""Interrupts are held, and let through where they may come."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable

import pytest

from kimi_magic.core import interrupts
from kimi_magic.core.interrupts import (
    holding_interrupts,
    interruptible,
    uninterrupted,
    waiting,
)


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def let_through(call: Callable[..., object], *arguments: str) -> None:
    with interruptible():
        call(*arguments)


def test_an_interrupt_waits_for_an_open_place() -> None:
    with holding_interrupts() as hold:
        interrupt()
        assert hold is not None
        assert hold.pending == 1
        with pytest.raises(KeyboardInterrupt):
            let_through(pytest.fail, "it comes before the block")


def test_where_it_is_open_an_interrupt_comes_at_once_and_the_next_one_waits() -> None:
    with holding_interrupts() as hold:
        with pytest.raises(KeyboardInterrupt):
            let_through(interrupt)
        interrupt()
        assert hold is not None
        assert hold.pending == 1
        hold.pending = 0


def test_one_that_nothing_took_goes_to_who_handled_them_before() -> None:
    with pytest.raises(KeyboardInterrupt):
        leave_pending()
    with holding_interrupts() as outer:
        leave_pending()
        assert outer is not None
        assert outer.pending == 1
        outer.pending = 0


def leave_pending() -> None:
    with holding_interrupts():
        interrupt()


def test_a_tool_that_catches_one_can_be_stopped_later(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("kimi_magic.core.interrupts.time.monotonic", lambda: now)
    with holding_interrupts() as hold, interruptible():
        swallow()
        interrupt()  # a moment later: our own code may be dealing with the first
        assert hold is not None
        assert hold.pending == 1
        now += 1
        with pytest.raises(KeyboardInterrupt):
            interrupt()


def test_what_hangs_can_be_stopped() -> None:
    with holding_interrupts():
        interrupt()
        interrupt()
        with pytest.raises(KeyboardInterrupt):
            interrupt()


def test_the_handler_is_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with holding_interrupts(), interruptible(), holding_interrupts():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


def test_a_turn_inside_a_tool_of_another_turn() -> None:
    with holding_interrupts(), interruptible():
        with holding_interrupts():
            interrupt()
            with pytest.raises(KeyboardInterrupt):
                let_through(int)
        with pytest.raises(KeyboardInterrupt):  # the tool goes on, and can be stopped
            interrupt()


def test_our_own_code_inside_the_users_is_not_interrupted() -> None:
    reached = []

    def ask() -> None:
        with uninterrupted():
            interrupt()
            reached.append("the form is drawn")
        reached.append("never")

    def answer() -> None:
        with uninterrupted():
            with waiting():
                reached.append("nothing was pending")
            interrupt()
            let_through(reached.append, "never")

    with holding_interrupts():
        for call in (ask, answer):
            with pytest.raises(KeyboardInterrupt):
                let_through(call)
    assert reached == ["the form is drawn", "nothing was pending"]


def swallow() -> None:
    with contextlib.suppress(KeyboardInterrupt):
        interrupt()


def test_an_interrupt_that_a_finalizer_swallows_comes_after_the_wait() -> None:
    with holding_interrupts():
        with pytest.raises(KeyboardInterrupt), waiting():
            swallow()
        with interruptible():  # what a tool catches is the tool's
            swallow()


def test_in_another_thread_nothing_is_held() -> None:
    seen = []

    def work() -> None:
        with holding_interrupts() as hold, interruptible():
            seen.append(hold)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None]


def test_the_thread_that_repeats_an_interrupt_sends_none_behind_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The thread may have looked and not sent yet when the turn ends."""
    looked, over = threading.Event(), threading.Event()
    sent: list[int] = []

    class Dropping:
        def __del__(self) -> None:
            interrupt()

    def frame_of(_thread: int) -> None:
        looked.set()
        over.wait(30)

    monkeypatch.setattr(interrupts, "_frame_of", frame_of)
    monkeypatch.setattr(interrupts, "_send_interrupt", sent.append)
    holds: list[interrupts.Hold | None] = []

    def turn() -> None:
        with holding_interrupts() as hold, interruptible():
            holds.append(hold)
            Dropping()
            looked.wait(30)

    with pytest.raises(KeyboardInterrupt):
        turn()
    over.set()
    (hold,) = holds
    assert hold is not None
    for _ in range(300):
        if not hold._nudging:
            break
        threading.Event().wait(0.1)
    assert not hold._nudging
    assert sent == []
