"""Steps as rows: their times, their phases, and frames of them."""

from __future__ import annotations

import sys
from itertools import pairwise

import pytest
from hypothesis import given

from kimi_magic.core.errors import KimiError
from kimi_magic.core.reply import Reply
from kimi_magic.core.step_table import step_rows, steps_frame
from kimi_magic.core.turn_record import TurnRecord
from tests.lab.steps import timed_step, timed_turn, turns


def test_the_phases_of_a_turn() -> None:
    first, last = step_rows(timed_turn())
    assert list(first.phases()) == [
        ("waiting", 0.0, 0.5), ("reasoning", 0.5, 3.0), ("tools", 3.0, 4.5),
    ]  # fmt: skip
    assert list(last.phases()) == [
        ("waiting", 5.0, 5.25), ("reasoning", 5.25, 6.0), ("answer", 6.0, 7.0),
    ]  # fmt: skip
    assert first.tokens_per_second == 20


def test_a_call_alone_belongs_to_the_tools() -> None:
    record = TurnRecord((timed_step(first_token=1, seconds=2, calls=["f"], tool_seconds=1),))
    (row,) = step_rows(record)
    assert [phase for phase, _, _ in row.phases()] == ["waiting", "tools", "tools"]


@given(turns)
def test_phases_follow_each_other(reply: Reply) -> None:
    rows = step_rows(reply.record)
    lanes = [row.lane for row in rows]
    assert lanes == sorted(lanes, key=lambda lane: lane or len(lanes) + 1)
    for row in rows:
        spans = list(row.phases())
        assert sum(end - start for _, start, end in spans) == pytest.approx(row.seconds)
        for (_, _, end), (_, start, _) in pairwise(spans):
            assert end == start
        assert all(start >= 0 for _, start, _ in spans)


def test_steps_without_times_follow_each_other() -> None:
    own = tuple(timed_step("a", seconds=seconds) for seconds in (1.0, 2.0))
    rows = step_rows(TurnRecord(own[:1], trajectories=(TurnRecord(own), TurnRecord(own[:1]))))
    assert [(row.lane, row.began) for row in rows] == [(1, 0), (1, 1), (2, 0), (0, 3)]


def test_a_tidy_frame() -> None:
    turn = timed_turn()
    frame = Reply(timed_turn(trajectories=(turn, turn))).steps_frame()
    assert type(frame).__module__.startswith("pandas")
    assert list(frame.lane) == [1, 1, 2, 2, 0, 0]
    assert list(frame.tools) == ["monthly", ""] * 3
    assert list(frame.finish_reason) == ["tool_calls", "stop"] * 3
    assert list(frame.text_chars) == [0, 13] * 3
    assert frame.first_answer.isna().tolist() == [True, False] * 3


def test_other_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    frame = Reply(timed_turn()).steps_frame()
    assert type(frame).__module__.startswith("polars")
    assert frame["first_answer"].to_list() == [None, 1.0]
    assert steps_frame([]).height == 0
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(KimiError, match="pip install pandas"):
        Reply(timed_turn()).steps_frame()
