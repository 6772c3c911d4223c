"""The plain view: flushed text."""

from __future__ import annotations

import io
from contextlib import redirect_stdout

import pytest

from kimi_magic.core.errors import TurnInterrupted
from kimi_magic.core.events import (
    ContentDelta,
    Envelope,
    Event,
    Notice,
    Preparing,
    ReasoningDelta,
    Replayed,
    RequestStarted,
    ToolCallDelta,
    ToolCallStarted,
    TurnFinished,
    TurnStarted,
)
from kimi_magic.core.messages import Usage
from kimi_magic.display.plain import PlainView
from kimi_magic.display.view import Throttle, ViewOptions
from tests.turns import make_reply

OPENING: tuple[Event, ...] = (TurnStarted("qwen3-0.6b", "local", practice=True), RequestStarted(1))


def printed(*events: Event, options: ViewOptions | None = None) -> str:
    with redirect_stdout(io.StringIO()) as out:
        view = PlainView(options or ViewOptions())
        for event in events:
            view.handle(Envelope(0.0, event))
        view.close()
    return out.getvalue()


def test_a_turn_from_a_tape() -> None:
    played = Replayed("lesson.tape", "scripted")
    usage = Usage(12, 34, 0, 0, 1, 5.0)
    end = TurnFinished(make_reply("x", finish_reason="stop", usage=usage, replayed=played.label))
    events = (*OPENING, played, ContentDelta("yes\n"), RequestStarted(2), played, end)
    text = printed(*events, options=ViewOptions(usage=True))
    assert text == (
        "[qwen3-0.6b — practice model]\n"
        "[tape lesson.tape, scripted]\n\n"
        "yes\n\n"
        "[12 tokens in · 34 out · 1 request · recorded · 5.0 s]\n"
    )


def test_a_turn_as_text() -> None:
    usage = Usage(12, 34, 0, 0, 1, 5.0)
    text = printed(
        *OPENING,
        Notice("one line"),
        ReasoningDelta("a "),
        ReasoningDelta("thought"),
        ToolCallStarted(0, "add"),
        ToolCallDelta(0, '{"a": 1}'),
        ContentDelta("\x1b[31m**yes**\n"),
        TurnFinished(make_reply("x", finish_reason="length", usage=usage)),
        options=ViewOptions(usage=True),
    )
    assert text == (
        "[qwen3-0.6b — practice model]\n\n"
        "[one line]\n\n"
        "Reasoning:\na thought\n\n"
        "␛[31m**yes**\n\n"
        "Tool call: add(a=1)\n\n"
        "[The answer was cut at max_tokens; raise it with --max-tokens.]\n\n"
        "[12 tokens in · 34 out · 1 request · 5.0 s]\n"
    )


def test_progress_is_one_line_for_each_thing_that_is_waited_for() -> None:
    text = printed(
        Preparing("Downloading the practice model (93 MB, once)… 1 %"),
        Preparing("Downloading the practice model (93 MB, once)… 42 %"),
        Preparing("Starting the practice model…"),
        *OPENING,
        ContentDelta("yes"),
    )
    assert text.startswith(
        "[Downloading the practice model (93 MB, once)… 1 %]\n[Starting the practice model…]\n["
    )


def test_hidden_reasoning_is_not_printed() -> None:
    events = (*OPENING, ReasoningDelta("thought"), ContentDelta("yes"))
    end = TurnFinished(make_reply("yes", finish_reason="stop"))
    text = printed(*events, end, options=ViewOptions(hide_reasoning=True))
    assert text == "[qwen3-0.6b — practice model]\n\nyes\n"


def test_what_arrived_stays_when_the_turn_breaks_off() -> None:
    assert "so far\n\n[Stopped" in printed(*OPENING, ContentDelta("so far"))
    stopped = TurnFinished(make_reply("so far", error=TurnInterrupted("Stopped.")))
    assert "so far\n\n[Stopped: what had" in printed(*OPENING, ContentDelta("so far"), stopped)


def test_text_is_flushed_twenty_times_a_second_at_most() -> None:
    now = 0.0
    flushes = []
    out = io.StringIO()
    out.flush = lambda: flushes.append(out.getvalue())  # type: ignore[method-assign]
    with redirect_stdout(out):
        view = PlainView(ViewOptions(), Throttle(clock=lambda: now))
        for event in (*OPENING, *[ContentDelta("x")] * 1000):
            view.handle(Envelope(0.0, event))
            now += 0.001
        now += 0.05
        view.tick()
    assert flushes[0] == "[qwen3-0.6b — practice model]\n"
    assert 19 <= len(flushes) <= 22
    assert flushes[-1].endswith("x" * 1000)


def test_a_stream_that_cannot_show_a_letter_shows_another() -> None:
    raw = io.BytesIO()
    with redirect_stdout(io.TextIOWrapper(raw, encoding="ascii")):
        view = PlainView(ViewOptions())
        for event in (*OPENING, ContentDelta("π = 3")):
            view.handle(Envelope(0.0, event))
        view.close()
        assert b"? = 3" in raw.getvalue()


def test_without_a_standard_output_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    view = PlainView(ViewOptions())
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", None)
        view.handle(Envelope(0.0, OPENING[0]))
        view.close()
