"""How the code of values is kept from printing, raising and taking its time."""

from __future__ import annotations

import io
import sys
import threading
import time

import pytest

from kimi_magic.context.guard import Patience, diverted, silence
from kimi_magic.core.time_limit import CallTimedOut


def test_silence_keeps_prints_out_of_the_cell(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    with silence():
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
        with diverted("stdout", theirs):
            both.wait()
            assert first_is_back.wait(30)
            print("aside")

    before = sys.stdout
    thread = threading.Thread(target=other)
    with diverted("stdout", ours):
        thread.start()
        both.wait()
    first_is_back.set()
    thread.join(30)
    assert ours.getvalue() == ""
    assert theirs.getvalue() == "aside\n"
    assert capsys.readouterr().out == "from the other thread\n"
    assert sys.stdout is before


def test_diversions_nest() -> None:
    outer, inner = io.StringIO(), io.StringIO()
    with diverted("stdout", outer):
        with diverted("stdout", inner):
            print("inner")
        print("outer")
    assert (outer.getvalue(), inner.getvalue()) == ("outer\n", "inner\n")


def test_a_stream_that_was_replaced_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = object()
    with monkeypatch.context() as patch:
        with diverted("stderr", io.StringIO()):
            patch.setattr(sys, "stderr", theirs)
        assert sys.stderr is theirs


def test_where_there_are_no_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        with silence():
            print("no")
        assert sys.stdout is None


def wait_for_ever() -> None:
    while True:
        time.sleep(0.01)


def test_patience_ends_and_is_shared_by_all_calls() -> None:
    patience = Patience(0.2)
    assert patience.call(len, "abc") == 3
    with pytest.raises(CallTimedOut):
        patience.call(wait_for_ever)
    with pytest.raises(CallTimedOut, match="not called"):
        patience.call(len, "abc")


def test_patience_ends_in_other_threads() -> None:
    ended: list[str] = []

    def work() -> None:
        try:
            Patience(0.2).call(threading.Event().wait)
        except CallTimedOut as error:
            ended.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)
    assert ended
