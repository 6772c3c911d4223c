"""A stored turn as moments: nothing is lost, nothing comes early, the answer is last."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given

from kimi_magic.core.errors import KimiError, TurnInterrupted
from kimi_magic.core.reply import Reply
from kimi_magic.display.timeline import Timeline
from kimi_magic.display.view import ViewOptions
from kimi_magic.lab import replay_view
from kimi_magic.lab.replay_steps import moments_of, page_moments, text_pages
from kimi_magic.lab.replay_view import read_pages, replay
from kimi_magic.testing import ScriptedServer
from tests.kernels import Kernel
from tests.lab.steps import timed_turn, turns
from tests.turns import make_reply

TURN = Reply(timed_turn())
HEAVY = Reply(
    timed_turn(
        300.0,
        trajectories=(timed_turn(), timed_turn()),
        agreement={"**February**.": (1, 2)},
    )
)


def shown(timeline: Timeline) -> list[tuple[Any, ...]]:
    return [
        (s.kind, s.title, s.text, s.done, s.state, s.result, s.tokens) for s in timeline.segments
    ]


@given(turns)
def test_its_moments_are_the_turn(reply: Reply) -> None:
    timeline = Timeline()
    for moment in moments_of(reply):
        for envelope in moment.envelopes:
            place = timeline.lanes[envelope.lane] if envelope.lane else timeline
            place.apply(envelope.event)
    whole = Timeline.of(reply)
    prompted = bool(reply.record.prompt.strip())
    assert shown(timeline)[prompted:] == shown(whole)
    assert (timeline.state, timeline.vote, timeline.usage) == (
        whole.state, whole.vote, whole.usage,
    )  # fmt: skip
    for number, lane in whole.lanes.items():
        assert shown(timeline.lanes[number]) == shown(lane)


@given(turns)
def test_the_answer_comes_last(reply: Reply) -> None:
    moments = moments_of(reply)
    flags = [moment.is_answer for moment in moments]
    assert flags == sorted(flags)
    assert any(flags) == bool(reply.text.strip())


@given(turns)
def test_a_page_can_go_back_and_forth(reply: Reply) -> None:
    """Each operation refers to a segment that an earlier one began: folding them cannot fail."""
    begun: dict[int, int] = {}
    for moment in page_moments(moments_of(reply), ViewOptions(keep_reasoning=True)):
        assert 0.5 <= moment["pause"] <= 8
        for op in moment["ops"]:
            lane = op.get("lane", 0)
            if op["op"] == "segment":
                assert op["segment"] == begun.get(lane, 0)
                begun[lane] = op["segment"] + 1
            elif "segment" in op:
                assert op["segment"] < begun[lane]


def test_the_times_of_its_moments() -> None:
    moments = moments_of(TURN)
    assert [moment.seconds for moment in moments] == [0, 0.5, 3, 4.5, 5.25, 7]
    assert [moment.is_answer for moment in moments] == [False] * 5 + [True]
    pauses = [moment["pause"] for moment in page_moments(moments, ViewOptions())]
    assert pauses[2] == 2.5


def test_long_reasoning_comes_in_pieces() -> None:
    thought = "One thing.\n\n" + "Another thing follows from it. " * 60
    moments = moments_of(make_reply("x", thought, finish_reason="stop"))
    pages, before = text_pages(moments, ViewOptions())
    assert len(pages) > 5
    assert all(len(page) < 700 for page in pages)
    assert before == len(pages) - 1
    assert "".join(pages).count("Another thing follows") == 60


def test_the_vote_comes_with_the_answer() -> None:
    pages, before = text_pages(moments_of(HEAVY), ViewOptions())
    assert "Prompt: Which month?" in pages[0]
    assert "Trajectory 1 · Done" in pages[1]
    assert all("2 of 2" not in page for page in pages[:before])
    assert "2 of 2: **February**." in pages[before]
    assert "Stopped" not in "".join(pages)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (["", "", ""], ["p0", "p1", "p2", "hidden"]),
        (["", "b", "b", "q"], ["p0", "p1", "p0", "p0"]),
        (["a", ""], ["p0", "p3", "p4"]),
        (["", "", "a", "", "x"], ["p0", "p1", "p2", "p3", "p4"]),
    ],
)
def test_pages_are_turned(
    keys: list[str],
    expected: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given_keys: Iterator[str] = iter(keys)

    def answer(_prompt: str) -> str:
        try:
            return next(given_keys)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr(replay_view, "can_answer", lambda: True)
    monkeypatch.setattr(builtins, "input", answer)
    read_pages([f"p{n}" for n in range(5)], 3)
    printed = capsys.readouterr().out.replace("[The answer is hidden: a shows it.]", "hidden")
    assert printed.split() == expected


def test_all_of_it_where_nobody_can_answer(capsys: pytest.CaptureFixture[str]) -> None:
    replay(TURN, "plain")
    printed = capsys.readouterr().out
    assert printed.index("Look it up.") < printed.index("monthly") < printed.index("February")


def test_a_turn_without_anything() -> None:
    with pytest.raises(KimiError, match="nothing had arrived"):
        replay(make_reply(error=TurnInterrupted("x")))


def test_the_verb(kernel: Kernel, asked: ScriptedServer) -> None:
    asked.reply("**Nine**.", reasoning="Count them.")
    kernel.run("%%kimi\nHow many?")
    sent = len(asked.requests)
    ran = kernel.run("%kimi step main:1")
    assert "Count them." in ran.stdout
    (error,) = kernel.run("%kimi step 7", ok=False).error.splitlines()
    assert "journal" in error

    ran = kernel.run("%kimi step", allow_stdin=True)  # a front end with widgets
    (shown,) = ran.displays
    assert "application/vnd.jupyter.widget-view+json" in shown
    assert "<strong>Nine</strong>" in shown["text/html"]
    assert ran.ops == []  # the page asks for them
    kernel.run("%config KimiMagics.view = 'plain'")
    ran = kernel.run("%kimi step", allow_stdin=True, answer=["", "a"])
    assert ran.questions == ["Enter: on · b: back · a: answer · q: quit "] * 2
    assert "Nine" in ran.stdout
    assert len(asked.requests) == sent
