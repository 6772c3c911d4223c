"""Times of a turn, which the page is told and its record's HTML does not have."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kimi_magic.core.events import (
    Aggregating,
    ContentDelta,
    Envelope,
    Event,
    LanesStarted,
    ReasoningDelta,
    StepFinished,
    ToolFinished,
    ToolStarted,
    TurnFinished,
)
from kimi_magic.core.messages import Step, ToolCall, ToolResult, Usage
from kimi_magic.display.record import make_record, record_of
from kimi_magic.display.timeline import Timeline
from kimi_magic.display.times import times_of
from kimi_magic.display.view import ViewOptions
from tests.display.test_record import SENT
from tests.turns import OPENING, STOP

CALL = ToolCall("1", "forecast", "{}")
RESULT = ToolResult("forecast", "rain", call_id="1", seconds=0.25)
STEP = Step("", tool_calls=(CALL,), tool_results=(RESULT,), usage=Usage(reasoning_tokens=300))
PLAYED = (
    *OPENING,
    ReasoningDelta("Look."),
    ToolStarted(0, CALL),
    ToolFinished(0, RESULT),
    StepFinished(STEP),
    ReasoningDelta("So it is."),
    ContentDelta("Rain."),
    STOP,
)


def timeline_of(*events: Event, pace: float = 1.5, timeline: Timeline | None = None) -> Timeline:
    timeline = timeline or Timeline()
    for number, event in enumerate(events):
        timeline.apply(event, pace * number)
    return timeline


def test_each_panel_that_folds_has_its_time() -> None:
    timeline = timeline_of(*PLAYED)
    assert times_of(timeline) == {
        "folded": [{"seconds": 1.5, "tokens": 300}, {"seconds": 0.25}, {"seconds": 1.5}],
        "seconds": 1.5 * (len(PLAYED) - 1),
    }
    assert times_of(timeline_of(*PLAYED, pace=0.0)) == {
        "folded": [{"tokens": 300}, {"seconds": 0.25}, None],
        "seconds": 0.001,
    }


def test_panels_of_other_kinds_have_a_place() -> None:
    timeline = timeline_of(*PLAYED)
    timeline.sent = SENT
    assert times_of(timeline)["folded"][0] is None
    html = make_record(timeline).data["text/html"]
    assert html.count("<details") == len(times_of(timeline)["folded"])


@pytest.mark.parametrize("after", [False, True])
def test_trajectories_have_the_times_of_each(after: bool) -> None:
    events = (*OPENING, ReasoningDelta("First."), LanesStarted(2))
    timeline = timeline_of(*events)
    for number, lane in timeline.lanes.items():
        timeline_of(*PLAYED[:-1], pace=number, timeline=lane)
    if after:
        timeline_of(Aggregating({"Rain.": (1, 2)}), ReasoningDelta("All."), timeline=timeline)
    first, lanes, *rest = times_of(timeline)["folded"]
    assert first["seconds"] == 1.5
    assert [lane[0]["seconds"] for lane in lanes] == [1, 2]
    assert len(rest) == after


def test_a_turn_that_was_stored_tells_what_it_knows() -> None:
    assert isinstance(STOP, TurnFinished)
    assert times_of(Timeline.of(STOP.reply)) == {}
    assert record_of(STOP.reply).times == {}
    timeline = Timeline()
    for event in PLAYED:
        timeline.apply(event)
    assert times_of(timeline)["folded"][1:] == [{"seconds": 0.25}, None]
    assert "seconds" not in times_of(timeline)


def test_they_are_transient_and_in_the_metadata_where_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from IPython.core.interactiveshell import InteractiveShell

    from kimi_magic.display import record

    shown: list[dict[str, Any]] = []
    monkeypatch.setattr(InteractiveShell, "initialized", lambda: True)
    monkeypatch.setattr(
        "IPython.display.publish_display_data",
        lambda data, metadata, **more: shown.append({"saved": (data, metadata), **more}),
    )
    for times in (False, True):
        view = record.RecordView(ViewOptions(times=times))
        for number, event in enumerate(PLAYED):
            view.handle(Envelope(1.5 * number, event))
        view.close()
    steady, kept = shown
    told = times_of(timeline_of(*PLAYED))
    assert steady["transient"] == kept["transient"] == {"kimi_magic": told}
    assert "times" not in steady["saved"][1]["kimi_magic"]
    assert kept["saved"][1]["kimi_magic"]["times"] == told
    assert kept["saved"][0] == steady["saved"][0]
    assert "0.25" not in json.dumps(steady["saved"])


@pytest.mark.parametrize(
    "answer", ["Rain.", "It **rains**.\n\n- a\n\n[b]", "👍🏽 e" + "\u0301" * 9 + " it is\u200b"]
)
def test_the_answer_is_found_in_the_transcript(answer: str) -> None:
    events = (*OPENING, ReasoningDelta("e" + "\u0301" * 9), ContentDelta("Wait."), *PLAYED[2:-2])
    bundle = make_record(timeline_of(*events, ContentDelta(answer), STOP))
    start, end = bundle.metadata["kimi_magic"]["answer"]
    found = bundle.data["text/plain"][start:end]
    assert found.startswith(answer[:5])
    assert found.endswith(answer[-5:].rstrip("\u200b"))
    assert "Reasoning" not in found


def test_without_an_answer_none_is_found() -> None:
    assert "answer" not in make_record(timeline_of(*PLAYED[:4])).metadata["kimi_magic"]
