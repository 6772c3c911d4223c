"""The fold from events to the view model."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_magic.core.errors import KeyRefused, ServerFailed, TurnInterrupted
from kimi_magic.core.events import (
    ContentDelta,
    Event,
    Notice,
    ReasoningDelta,
    RequestStarted,
    Retrying,
    StepFinished,
    ToolCallDelta,
    ToolCallStarted,
    TurnFinished,
)
from kimi_magic.core.messages import Step
from kimi_magic.core.reply import Reply
from kimi_magic.core.sent import Sent
from kimi_magic.core.text import clean
from kimi_magic.core.turn_record import Retry
from kimi_magic.display.timeline import Timeline
from tests.turns import OPENING, STOP, make_reply, pieces


def fold(*events: Event, **options: Any) -> Timeline:
    timeline = Timeline(**options)
    for event in events:
        timeline.apply(event)
    return timeline


def shown(timeline: Timeline) -> list[tuple[str, str]]:
    return [(segment.kind, segment.text) for segment in timeline.segments]


def test_a_retry_sends_the_same_and_says_so_once() -> None:
    timeline, sent = Timeline(), Sent(4, 30, earlier=2)
    ops: list[Any] = []
    for attempt in (1, 2, 3):
        ops += timeline.apply(RequestStarted(1, attempt, sent))
    assert [op["op"] for op in ops].count("sent") == 1
    ops = timeline.apply(RequestStarted(1, 4, Sent(3, 20, earlier=1)))
    assert [op["op"] for op in ops].count("sent") == 1


def test_states_follow_the_turn() -> None:
    timeline = Timeline()
    states = []
    for event in (
        *OPENING,
        Retrying("busy\nsecond line", 2.0, 1, 3),
        RequestStarted(1, 2),
        ReasoningDelta("hm"),
        ContentDelta("yes"),
        ToolCallStarted(0, "forecast"),
        STOP,
    ):
        timeline.apply(event)
        states.append(timeline.state)
    assert states == [
        "Waiting for kimi-k2-thinking…",
        "Waiting for kimi-k2-thinking…",
        "Retrying in 2 s: busy",
        "Try 2: waiting for kimi-k2-thinking…",
        "Reasoning…",
        "Answering…",
        "Calling forecast…",
        "Done",
    ]


def test_another_try_leaves_no_note_in_a_turn_that_ends_well() -> None:
    timeline = fold(
        *OPENING,
        Retrying("busy", 0.5, 1, 3),
        RequestStarted(1, 2),
        ReasoningDelta("hm"),
        ContentDelta("yes"),
        STOP,
    )
    assert shown(timeline) == [
        ("reasoning", "hm"),
        ("answer", "yes"),
    ]


def test_a_new_step_starts_new_parts() -> None:
    timeline = fold(
        *OPENING,
        ReasoningDelta("a"),
        ContentDelta("b"),
        StepFinished(Step()),
        RequestStarted(2),
        ReasoningDelta("c"),
        StepFinished(Step()),
        RequestStarted(3),
        ReasoningDelta("d"),
        ContentDelta("e"),
        STOP,
    )
    kinds = ["reasoning", "answer", "reasoning", "reasoning", "answer"]
    assert shown(timeline) == list(zip(kinds, "abcde", strict=True))


def test_tool_calls_side_by_side_keep_their_arguments() -> None:
    timeline = fold(
        *OPENING,
        ToolCallStarted(0, "one"),
        ToolCallStarted(1, "two"),
        ToolCallDelta(0, '{"a":'),
        ToolCallDelta(1, '{"b":'),
        ToolCallDelta(0, "1}"),
        ToolCallDelta(1, "2}"),
        StepFinished(Step()),
    )
    assert [(p.title, p.text, p.done) for p in timeline.segments] == [
        ("one", '{"a":1}', True),
        ("two", '{"b":2}', True),
    ]


def test_blank_text_between_kinds_opens_no_part() -> None:
    timeline = fold(
        *OPENING,
        ReasoningDelta("\n"),
        ReasoningDelta("a"),
        ContentDelta("\n"),
        ContentDelta("\n  "),
        ReasoningDelta("b"),
        ContentDelta("\n"),
        ContentDelta("\n    code"),
        STOP,
    )
    assert shown(timeline) == [("reasoning", "ab"), ("answer", "    code")]


def test_hidden_reasoning_leaves_its_state_only() -> None:
    timeline = fold(*OPENING, ReasoningDelta("hm"), hide_reasoning=True)
    assert timeline.state == "Reasoning…"
    timeline.apply(ContentDelta("yes"))
    timeline.apply(STOP)
    assert shown(timeline) == [("answer", "yes")]


@pytest.mark.parametrize(
    ("reply", "answered", "notice", "state"),
    [
        (make_reply("x", finish_reason="length"), True, "--max-tokens", "Done"),
        (make_reply("", finish_reason="length"), False, "before an answer began", "Done"),
        (make_reply("x", finish_reason="content_filter"), True, "content filter", "Done"),
        (make_reply("", finish_reason="stop"), False, "empty", "Done"),
        (make_reply("x", error=TurnInterrupted("stop")), True, "kept", "Stopped"),
        (make_reply("", error=TurnInterrupted("stop")), False, "nothing had arrived", "Stopped"),
        (
            make_reply("", error=KeyRefused("No.\nDo this.")),
            False,
            "KeyRefused: No.\nDo this.",
            "Failed",
        ),
    ],
)
def test_the_end_says_what_is_amiss(reply: Reply, answered: bool, notice: str, state: str) -> None:
    timeline = fold(*OPENING, *([ContentDelta("x")] if answered else []), TurnFinished(reply))
    assert timeline.state == state
    assert [segment.kind for segment in timeline.segments].count("notice") == 1
    assert notice in timeline.segments[-1].text
    assert all(segment.done for segment in timeline.segments)


def test_a_turn_that_fails_tells_how_often_it_was_tried_and_gives_one_advice() -> None:
    tries = (Retrying("busy", 0.5, 1, 2), RequestStarted(1, 2), Retrying("busy", 0.5, 2, 2))

    def notice(error: BaseException) -> str:
        events = (*OPENING, *tries, RequestStarted(1, 3), ContentDelta("x"))
        reply = make_reply("x", error=error, chat="main", retries=(Retry(1, "busy"),) * 2)
        lived = fold(*events, TurnFinished(reply)).segments[-1].text
        assert Timeline.of(reply).segments[-1].text == lived, "also when it is opened again"
        return lived

    assert notice(ServerFailed("Busy.")) == (
        "ServerFailed: Busy. Tried 3 times.\nWhat had arrived is kept. (%kimi continue goes on.)"
    )
    assert notice(ServerFailed("Busy.\nWait: `sleep`.")) == (
        "ServerFailed: Busy. Tried 3 times.\nWhat had arrived is kept. (%kimi continue goes on.)"
    )
    alone = make_reply("", error=ServerFailed("Busy.\nWait: `sleep`."))
    timeline = fold(*OPENING, *tries[:2], TurnFinished(alone))
    assert timeline.segments[-1].text == "ServerFailed: Busy. Tried 2 times.\nWait: `sleep`."
    assert "It was tried again: busy" in notice(TurnInterrupted("Stopped."))


def test_a_turn_without_its_last_event_ends_stopped() -> None:
    timeline = fold(*OPENING, ReasoningDelta("hm"))
    assert timeline.end()
    assert timeline.state == "Stopped"
    assert [segment.kind for segment in timeline.segments] == ["reasoning", "notice"]
    assert not timeline.end(), "ending twice says it once"
    assert not fold(*OPENING, ContentDelta("x"), STOP).end()


@given(st.text(), st.text(), st.lists(st.integers(0, 300)), st.lists(st.integers(0, 300)))
def test_any_split_gives_the_same_timeline(
    reasoning: str, answer: str, cuts: list[int], more_cuts: list[int]
) -> None:
    whole = fold(*OPENING, ReasoningDelta(reasoning), ContentDelta(answer), STOP)
    split = fold(
        *OPENING,
        *map(ReasoningDelta, pieces(reasoning, cuts)),
        *map(ContentDelta, pieces(answer, more_cuts)),
        STOP,
    )
    assert split.snapshot() == whole.snapshot()


@given(st.lists(st.sampled_from([ReasoningDelta("r 😀"), ContentDelta("a\n"), Notice("n")])))
def test_the_operations_alone_rebuild_the_timeline(events: list[Event]) -> None:
    timeline = Timeline()
    segments: list[dict[str, Any]] = []
    for event in (*OPENING, *events, STOP):
        for op in timeline.apply(event):
            if op["op"] == "segment":
                assert op["segment"] == len(segments)
                new = {"kind": op["kind"], "title": op["title"], "text": "", "done": False}
                segments.append(new | {"state": "", "tokens": 0, "cut": ""})
            elif op["op"] == "append":
                segment = segments[op["segment"]]
                assert not segment["done"]
                assert op["at"] == len(segment["text"])
                segment["text"] += op["text"]
            elif op["op"] == "done":
                segments[op["segment"]]["done"] = True
    assert segments == timeline.snapshot()["segments"]


def test_control_characters_become_visible() -> None:
    assert clean("a\x1b[31m\x00\u202eb\x9b\r\n\t\ud800\x7f") == "a␛[31m␀\ufffdb\ufffd\n\t\ufffd␡"
    assert clean("שלום, 日本, 😀") == "שלום, 日本, 😀"


@pytest.mark.parametrize("text", ["word ", "\n"])
def test_200_000_deltas_take_linear_time(text: str) -> None:
    def seconds(n: int) -> float:
        timeline = fold(*OPENING)
        began = time.process_time()
        for _ in range(n):
            timeline.apply(ContentDelta(text))
        assert len(timeline.segments) == (text != "\n")
        return time.process_time() - began

    short, long = seconds(20_000), seconds(200_000)
    assert long < 40 * short + 0.5
