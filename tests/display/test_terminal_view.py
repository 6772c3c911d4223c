"""The terminal view: what rich prints."""

from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console

from kimi_magic.core.events import (
    ContentDelta,
    Envelope,
    Event,
    Notice,
    Preparing,
    ReasoningDelta,
    Replayed,
    ToolCallDelta,
    ToolCallStarted,
    TurnFinished,
    TurnStarted,
)
from kimi_magic.core.messages import Usage
from kimi_magic.display.terminal import TerminalView
from kimi_magic.display.view import ViewOptions
from tests.turns import OPENING, make_reply

STOP = TurnFinished(make_reply("x", finish_reason="stop", usage=Usage(1000, 234, 0, 0, 1, 5.0)))


class Screen:
    def __init__(self, *, colours: bool = False, options: ViewOptions | None = None) -> None:
        self.file = io.StringIO()
        console = Console(
            file=self.file,
            width=60,
            force_terminal=colours,
            color_system="standard" if colours else None,
            _environ={},
        )
        self.view = TerminalView(options or ViewOptions(), console)

    def play(self, *events: Event) -> str:
        for event in events:
            self.view.handle(Envelope(0.0, event))
        return self.file.getvalue()


def printed(*events: Event, options: ViewOptions | None = None) -> str:
    screen = Screen(options=options)
    screen.play(*events)
    screen.view.close()
    lines = screen.file.getvalue().splitlines()
    return "\n".join(line.rstrip() for line in lines)


def test_a_turn_from_a_tape() -> None:
    played = Replayed("lesson.tape", "kimi-k3", differs=True)
    usage = Usage(1000, 234, 0, 0, 1, 5.0)
    end = TurnFinished(make_reply("x", finish_reason="stop", usage=usage, replayed=played.label))
    text = printed(*OPENING, played, ContentDelta("yes"), end)
    assert "tape lesson.tape, inputs differ\n\nyes\n\n" in text
    assert text.endswith(
        "kimi-k2-thinking · 1,234 tokens · 5.0 s · recorded · tape\nlesson.tape, inputs differ"
    )


def test_a_turn_in_a_terminal() -> None:
    text = printed(
        *OPENING,
        Notice("one line"),
        ReasoningDelta("a [bold]thought"),
        ToolCallStarted(0, "add"),
        ToolCallDelta(0, '{"a": 1}'),
        ContentDelta("The **sum**\n\n- one\n- $x_1$ and ![pic](https://a.b/c)\n\ntail"),
        STOP,
    )
    header, _, body = text.partition("\n")
    assert header.startswith("kimi-k2-thinking ───")
    assert body == (
        "one line\n\n"
        "Reasoning\na [bold]thought\n\n"
        "The sum\n\n"
        " • one\n • $x_1$ and pic (https://a.b/c)\n\n"
        "tail\n\n"
        "Tool call: add(a=1)\n\n"
        "kimi-k2-thinking · 1,234 tokens · 5.0 s"
    )


def test_boxes_footnotes_and_numbers() -> None:
    text = printed(*OPENING, ContentDelta("- [x] a[^1]\n\n| n |\n|---|\n| 1 |\n| 22 |\n\n[^1]: b"))
    assert "☑ a[1]" in text
    assert re.search(r"\n(?P<left> +) 1\n(?P=left)22\n", text), "to the right"
    assert "[1] b" in text


def test_raw_html_is_shown_not_dropped() -> None:
    assert "<b>bold</b>" in printed(*OPENING, ContentDelta("<b>bold</b>"), STOP)


def test_reasoning_is_dim_and_markdown_is_drawn() -> None:
    screen = Screen(colours=True)
    screen.play(*OPENING, ReasoningDelta("hm"), ContentDelta("**yes**"), STOP)
    text = screen.file.getvalue()
    assert "\x1b[2mhm\x1b[0m" in text
    assert "\x1b[1myes\x1b[0m" in text


@pytest.mark.parametrize("kind", [ReasoningDelta, ContentDelta, Notice])
@pytest.mark.parametrize("form", ["markdown", "text"])
def test_the_model_commands_no_terminal(kind: type[ContentDelta], form: str) -> None:
    options = ViewOptions(format="text" if form == "text" else "markdown")
    attack = "\x1b]0;title\x07\x1b[2J\x9b31m\x08[link=https://evil.example]x[/link]\n\n`\x1b[1m`"
    text = printed(TurnStarted("m\x1b[1m", "e"), kind(attack), STOP, options=options)
    assert not {"\x1b", "\x07", "\x08", "\x9b"} & set(text)
    assert "[link=https://evil.example]x" in text


def test_a_block_is_drawn_when_it_is_finished() -> None:
    screen = Screen()
    assert "First" not in screen.play(*OPENING, ContentDelta("**First**\n"))
    assert "Second" not in screen.play(ContentDelta("\nSecond\n"))
    assert "First" in screen.file.getvalue()
    screen.view.close()
    assert "Second" in screen.file.getvalue()


def test_plain_text_streams_as_it_comes() -> None:
    screen = Screen(options=ViewOptions(format="text"))
    screen.play(*OPENING)
    screen.view.handle(Envelope(0.0, ContentDelta("**First**")))
    assert "**First**" in screen.file.getvalue()


def test_practice_and_usage_are_told() -> None:
    text = printed(
        TurnStarted("qwen3-0.6b", "local", practice=True),
        ReasoningDelta("secret"),
        ContentDelta("x"),
        STOP,
        options=ViewOptions(usage=True, hide_reasoning=True),
    )
    footer = "qwen3-0.6b · practice model · 1,000 tokens in · 234 out · 1"
    assert footer in text
    assert "secret" not in text


def test_what_is_waited_for_is_told_until_it_is_there() -> None:
    screen = Screen(colours=True)
    screen.play(Preparing("Starting the practice model…"))
    until = time.monotonic() + 10
    while "Starting the practice model…" not in screen.file.getvalue():
        assert time.monotonic() < until, "the line never came"
        time.sleep(0.01)
    screen.play(*OPENING, ContentDelta("OK"), STOP)
    screen.view.close()
    begun = screen.file.getvalue().index("kimi-k2-thinking")
    assert "Starting" not in screen.file.getvalue()[begun:]
