"""Prints of one context go elsewhere, those of all others where they went."""

from __future__ import annotations

import contextvars
import gc
import io
import signal
import sys
import threading
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from kimi_magic.core.stdout import redirected, replaced, silenced


def test_silenced_keeps_prints_out_of_the_cell(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    with silenced():
        print("no")
        print("no", file=sys.stderr, flush=True)
        sys.stdout.writelines(["no"])
    print("yes")
    assert capsys.readouterr() == ("yes\n", "")
    assert (sys.stdout, sys.stderr) == before


def test_prints_of_other_threads_go_where_they_went(capsys: pytest.CaptureFixture[str]) -> None:
    """Also where two divert at once, and the first is back before the second."""
    both, first_is_back = threading.Barrier(2, timeout=30), threading.Event()
    theirs, ours = io.StringIO(), io.StringIO()

    def other() -> None:
        print("from the other thread")
        with redirected("stdout", theirs):
            both.wait()
            assert first_is_back.wait(30)
            print("aside")

    before = sys.stdout
    thread = threading.Thread(target=other)
    with redirected("stdout", ours):
        thread.start()
        both.wait()
    first_is_back.set()
    thread.join(30)
    assert ours.getvalue() == ""
    assert theirs.getvalue() == "aside\n"
    assert capsys.readouterr().out == "from the other thread\n"
    assert sys.stdout is before


def test_redirections_nest() -> None:
    outer, inner = io.StringIO(), io.StringIO()
    with redirected("stdout", outer):
        with redirected("stdout", inner):
            print("inner")
        print("outer")
    assert (outer.getvalue(), inner.getvalue()) == ("outer\n", "inner\n")


def test_a_stream_that_was_replaced_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = object()
    with monkeypatch.context() as patch:
        with redirected("stderr", io.StringIO()):
            patch.setattr(sys, "stderr", theirs)
        assert sys.stderr is theirs


def test_where_there_are_no_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        with silenced():
            print("no")
        assert sys.stdout is None


def test_a_thread_that_outlives_its_redirection_prints_where_it_would_have_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    go = threading.Event()
    outer, inner = io.StringIO(), io.StringIO()

    def late() -> None:
        assert go.wait(30)
        print("late")

    with redirected("stdout", outer):
        with redirected("stdout", inner):
            context = contextvars.copy_context()
            thread = threading.Thread(target=context.run, args=(late,))
            thread.start()
        go.set()
        thread.join(30)
    assert (outer.getvalue(), inner.getvalue()) == ("late\n", "")
    assert capsys.readouterr().out == ""


def test_streams_take_text_only() -> None:
    with silenced(), pytest.raises(TypeError, match="must be str, not bytes"):
        sys.stdout.write(b"x")  # type: ignore[arg-type]


class Owner:
    """Its attribute is the class's own until somebody replaces it."""

    def name(self) -> str:
        return "original"


def test_a_replacement_is_shared_and_leaves_no_trace() -> None:
    owner: Any = Owner()
    made: list[object] = []

    def make(original: object) -> object:
        made.append(original)
        return len(made)

    first, second = (replaced(owner, "name", make) for _ in range(2))
    first.__enter__()
    second.__enter__()
    assert owner.name == 1
    first.__exit__(None, None, None)
    assert owner.name == 1
    second.__exit__(None, None, None)
    assert len(made) == 1
    assert not vars(owner)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no timers here")
def test_interrupts_at_any_time_leave_the_streams_in_place(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = sys.stdout, sys.stderr
    random = Random(0)
    interrupted, rang = 0, False

    def interrupt(*_: object) -> None:
        nonlocal rang
        rang = True
        raise KeyboardInterrupt

    handler = signal.signal(signal.SIGALRM, interrupt)
    gc.disable()  # Python swallows what is raised in a callback of the collector
    try:
        for _ in range(2000):
            rang = False
            try:
                signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 2e-4))
                while not rang:
                    with silenced(), redirected("stdout", io.StringIO()):
                        pass
            except KeyboardInterrupt:
                interrupted += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        gc.enable()
    assert interrupted > 1900
    silence_in_another_thread()
    assert (sys.stdout, sys.stderr) == before
    silence_in_another_thread(lambda: print("to the end"))
    assert capsys.readouterr() == ("to the end\n", "")


def silence_in_another_thread(meanwhile: Callable[[], object] = lambda: None) -> None:
    silent, go = threading.Event(), threading.Event()

    def work() -> None:
        with silenced():
            silent.set()
            assert go.wait(30)

    thread = threading.Thread(target=work)
    thread.start()
    assert silent.wait(30)
    meanwhile()
    go.set()
    thread.join(30)
