"""No import is cut in two, and what Python drops or a function catches comes again."""

from __future__ import annotations

import contextlib
import importlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import FrameType, ModuleType

import pytest

from kimi_magic.core import interrupts
from kimi_magic.core.delicate import Insistence, Insistent, current_frame, imports_under_way
from kimi_magic.core.interrupts import Hold, holding_interrupts, interruptible, whole_imports
from kimi_magic.core.time_limit import CallTimedOut, TimeLimit, call_within

STRUCK = """
import signal, time
times = {times}
for _ in range(times):
    signal.raise_signal(signal.SIGINT)
time.sleep({seconds})
complete = True
"""


@pytest.fixture
def struck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ModuleType]]:
    """Import a module that interrupts its own import, or takes long for it."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(times: int = 0, seconds: float = 0) -> ModuleType:
        (tmp_path / "struck.py").write_text(STRUCK.format(times=times, seconds=seconds))
        importlib.invalidate_caches()
        return importlib.import_module("struck")

    yield make
    sys.modules.pop("struck", None)


@contextlib.contextmanager
def in_a_turn() -> Iterator[None]:
    with holding_interrupts(), interruptible():
        yield


@pytest.mark.parametrize("around", [whole_imports, in_a_turn, holding_interrupts])
@pytest.mark.parametrize("times", [1, 3, 7])
def test_an_interrupt_comes_when_an_import_has_ended(
    around: Callable[[], AbstractContextManager[object]],
    times: int,
    struck: Callable[..., ModuleType],
) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        import_and_wait(around, lambda: struck(times))
    assert sys.modules["struck"].complete
    assert signal.getsignal(signal.SIGINT) == before


def import_and_wait(
    around: Callable[[], AbstractContextManager[object]], load: Callable[[], object]
) -> None:
    with around():
        load()
        if around is not holding_interrupts:
            time.sleep(10)


def test_an_import_that_hangs_can_be_interrupted(
    monkeypatch: pytest.MonkeyPatch, struck: Callable[..., ModuleType]
) -> None:
    monkeypatch.setattr(interrupts, "LONGEST_IMPORT", 0.02)
    with pytest.raises(KeyboardInterrupt), in_a_turn():
        struck(1, seconds=30)
    assert "struck" not in sys.modules


def test_code_that_began_inside_an_import_is_interrupted_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a script is that runs turns while it is imported."""
    (tmp_path / "script.py").write_text("import tests.core.test_delicate as t; t.one_turn()")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        importlib.import_module("script")


def one_turn() -> None:
    assert imports_under_way(current_frame())
    with in_a_turn():
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it comes at once")


def test_a_time_limit_waits_for_the_end_of_an_import(struck: Callable[..., ModuleType]) -> None:
    def load() -> None:
        struck(seconds=0.2)
        time.sleep(10)

    with pytest.raises(CallTimedOut):
        call_within(load, TimeLimit(0.05))
    assert sys.modules["struck"].complete


def test_whole_imports_lets_go_of_what_is_held_elsewhere() -> None:
    with holding_interrupts() as hold:
        with whole_imports():
            signal.raise_signal(signal.SIGINT)
        assert hold is not None
        assert hold.pending == 1
        hold.pending = 0


def test_the_second_of_two_comes_although_a_third_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It comes by itself when the time is over in which it may belong to the first."""
    monkeypatch.setattr(interrupts, "GRACE", 0.02)

    def strike_twice() -> None:
        for _ in range(2):
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        time.sleep(10)

    with pytest.raises(KeyboardInterrupt), in_a_turn():
        strike_twice()


class Again(Insistent):
    """An error of the tests."""


def test_insistence_ends_with_the_call_and_puts_the_trace_function_back() -> None:
    seen: list[str] = []

    def debugger(_frame: FrameType, event: str, _argument: object) -> None:
        seen.append(event)

    def stubborn(insistence: Insistence) -> None:
        while True:
            try:
                insistence.begin(current_frame())
                raise insistence.error()
            except Again:
                continue

    before = sys.gettrace()
    insistence = Insistence(Again)
    with ExitStack() as stack:
        stack.callback(sys.settrace, before)
        sys.settrace(debugger)
        insistence.caller = current_frame()
        with pytest.raises(Again):
            stubborn(insistence)
        insistence.caller = None
        insistence.end()
        assert sys.gettrace() is debugger


def test_a_hold_that_is_over_sends_nothing() -> None:
    with pytest.raises(KeyboardInterrupt), whole_imports():
        signal.raise_signal(signal.SIGINT)
    time.sleep(0.05)
    assert Hold(signal.default_int_handler).pending == 0
