"""The label of a replay: one text for the record, the badge and ``reply.replayed``."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_magic.core.events import Replayed, replay_label

PLAYED = Replayed("lesson.tape", "kimi-k3")


@pytest.mark.parametrize(
    ("replays", "requests", "label"),
    [
        ([], 2, ""),
        ([PLAYED], 1, "lesson.tape"),
        ([PLAYED], 0, "lesson.tape"),
        (
            [PLAYED, Replayed("lesson.tape", "kimi-k3", differs=True)],
            2,
            "lesson.tape, inputs differ",
        ),
        ([PLAYED], 2, "lesson.tape, in part"),
        ([Replayed("a.tape", "scripted")], 1, "a.tape, scripted"),
        (
            [Replayed("a.tape", "scripted", differs=True)],
            2,
            "a.tape, scripted, in part, inputs differ",
        ),
        ([Replayed("a.tape", "engine"), PLAYED], 2, "a.tape + lesson.tape"),
    ],
)
def test_the_label_of_a_turn(replays: list[Replayed], requests: int, label: str) -> None:
    assert replay_label(replays, requests) == label


@given(st.text(), st.sampled_from(["scripted", "kimi-k3"]), st.booleans())
def test_a_label_is_read_to_the_same_label(tape: str, made_by: str, differs: bool) -> None:
    label = Replayed(tape, made_by, differs).label
    again = Replayed.of(label)
    assert (made_by != "scripted") or again.made_by == "scripted"
    assert again.differs or not differs
    assert "\n" not in label
    assert "\x1b" not in label
