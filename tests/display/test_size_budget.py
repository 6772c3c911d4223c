"""What a notebook keeps of one turn, and what it says of the rest."""

from __future__ import annotations

import base64
import re
import struct
import time
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_magic.chats.chat import ChatTurn
from kimi_magic.core.events import (
    ApprovalAsked,
    ContentDelta,
    Envelope,
    Event,
    Notice,
    ReasoningDelta,
    RequestStarted,
    StepFinished,
    ToolCallDelta,
    ToolCallStarted,
    ToolFinished,
    ToolStarted,
    TurnFinished,
)
from kimi_magic.core.messages import Output, Step, ToolCall, ToolResult
from kimi_magic.display.html.markdown import MAX_HTML_DEPTH, foreign_html, to_html
from kimi_magic.display.live.live_view import Outbox
from kimi_magic.display.live.page import Page
from kimi_magic.display.record import Bundle, make_record, show_chat
from kimi_magic.display.timeline import Op, Timeline
from kimi_magic.display.view import ViewOptions
from tests.turns import OPENING, make_reply

MOST = 20_000
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 3000).decode()
MORE = r"([\d,]+) more characters"
# A record's HTML beside its text: what stands around 50 characters, and what they become.
MARKUP = 30


def end(text: str = "", **facts: Any) -> TurnFinished:
    return TurnFinished(make_reply(text, **({"finish_reason": "stop"} | facts)))


def played(*events: Event, most: int = MOST) -> Timeline:
    timeline = Timeline(max_chars=most)
    for event in (*OPENING, *events):
        timeline.apply(event)
    return timeline


def record(*events: Event) -> Bundle:
    return make_record(played(*events), ViewOptions())


def call(
    arguments: str = "{}", step: int = 1, *, asked: bool = False, **gave: Any
) -> tuple[Event, ...]:
    called = ToolCall(f"functions.f:{step}", "f", arguments)
    return (
        RequestStarted(step),
        ToolCallStarted(0, "f"),
        *(ToolCallDelta(0, arguments[i : i + 999]) for i in range(0, len(arguments), 999)),
        ToolStarted(0, called),
        *([ApprovalAsked("f", arguments)] if asked else []),
        ToolFinished(0, ToolResult("f", "done", **gave)),
        StepFinished(Step()),
    )


def shows(**data: Any) -> dict[str, Any]:
    kinds = {"html": "text/html", "png": "image/png", "markdown": "text/markdown"}
    kinds["plain"] = "text/plain"
    return {"outputs": (Output({kinds[kind]: content for kind, content in data.items()}, {}),)}


# What arrives, how many characters it has, and what the record says of it.
FLOODS: dict[str, tuple[tuple[Event, ...], int, str]] = {
    "an answer": ((ContentDelta("word " * 160_000), end("word " * 160_000)), 800_000, MORE),
    "reasoning": ((ReasoningDelta("hm " * 200_000), end()), 600_000, MORE),
    "what a tool printed": ((*call(stdout="x" * 50_000_000), end()), 50_000_000, MORE),
    "arguments": ((*call('{"a": "' + "b" * 9_999_991 + '"}'), end()), 10_000_000, MORE),
    "HTML": ((*call(**shows(html="<b>x</b>" * 6_000_000)), end()), 48_000_000, MORE),
    "Markdown": ((*call(**shows(markdown="# x\n" * 1_000_000)), end()), 4_000_000, MORE),
    "an image": ((*call(**shows(png="iVBO" * 10_000_000)), end()), 30_000_000, r"([\d,]+) bytes"),
    "figures": (
        (*(event for i in range(300) for event in call(step=i, **shows(png=PNG))), end()),
        300,
        r"([\d,]+) × tool call",
    ),
    "notices": ((*(Notice(f"number {i}") for i in range(5000)), end()), 5000, r"([\d,]+) × notice"),
    "steps": (
        tuple(
            event
            for i in range(3000)
            for event in (ReasoningDelta("so?"), ContentDelta("well"), *call(step=i))
        ),
        3000,
        r"([\d,]+) × tool call",
    ),
    "calls of one step": (
        tuple(ToolCallStarted(i, "f" * 10_000) for i in range(5000)),
        5000,
        r"([\d,]+) × tool call",
    ),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_record_is_bounded_and_says_what_is_missing(flood: str) -> None:
    events, size, words = FLOODS[flood]
    data = record(*events).data
    images = "".join(re.findall(r"data:image/png;base64,[^\"]*", data["text/html"]))
    assert len(images) <= 21 * MOST
    assert len(data["text/plain"]) < 2 * MOST
    assert len(data["text/html"]) - len(images) < MARKUP * MOST
    for text in data.values():
        found = re.search(words, text)
        assert found, text[-1000:]
        assert size - MOST <= int(found[1].replace(",", "")) <= size


@pytest.mark.parametrize("flood", FLOODS)
def test_what_a_page_is_sent_is_bounded(flood: str) -> None:
    page, outbox = Page(ViewOptions(max_chars=MOST), lambda: 0.0), Outbox()
    ops: list[Op] = []
    for i, event in enumerate((*OPENING, *FLOODS[flood][0])):
        for op in page.apply(Envelope(0.0, event)):
            outbox.add(op)
        if i % 50 == 0:
            ops += outbox.take(page.draw())
    ops += outbox.take(page.draw())
    counts = [op for op in ops if op["op"] == "cut"]
    assert len(str(ops)) - len(str(counts)) < (MARKUP + 21) * MOST
    assert len(counts) <= len(FLOODS[flood][0]) // 25 + 2, "the latest count of a part is sent"
    assert len(str(page.snapshot())) < (MARKUP + 21) * MOST
    assert any("max_output_chars" in str(op) for op in ops)


MIDDLE = "word " * 80_000
BOTH = f"the first words {MIDDLE} the last words"
ROWS = f"<tr><td>the first words{'<tr><td>the last words' * 9999}"
ENDS: dict[str, tuple[Event, ...]] = {
    "an answer": (ContentDelta(BOTH), end(BOTH)),
    "an answer after others": (
        *(event for i in range(9) for event in (ContentDelta(MIDDLE), RequestStarted(i))),
        ContentDelta(BOTH),
        end(BOTH),
    ),
    "an answer that has little room": (
        ContentDelta("x" * (MOST // 2 - 300)),
        *call(),
        RequestStarted(2),
        ContentDelta(BOTH),
        end(BOTH),
    ),
    "reasoning": (ReasoningDelta(BOTH), end()),
    "what a tool printed": (*call(stdout=BOTH), end()),
    "a second flood": (*call(stdout=MIDDLE), *call(step=2, stdout=BOTH), end()),
    "an error": (*call(error=BOTH), end()),
    "arguments": (*call(BOTH), end()),
    "a notice": (Notice(BOTH), end()),
    "HTML": (*call(**shows(html=f"<table><tr><td>{BOTH}</td></tr></table>", plain=BOTH)), end()),
    "rows": (*call(**shows(html=f"<table>{ROWS}</table>", plain=BOTH)), end()),
    "Markdown": (*call(**shows(markdown=BOTH, plain=BOTH)), end()),
}


@pytest.mark.parametrize("flood", ENDS)
def test_of_a_long_text_both_ends_are_kept(flood: str) -> None:
    for text in record(*ENDS[flood]).data.values():
        first, note, last = map(text.rfind, ("the first words", "not kept here", "the last words"))
        assert 0 <= first < note < last, (first, note, last)


def test_a_chat_keeps_both_ends_of_prompts_and_answers() -> None:
    told = ChatTurn(BOTH, make_reply(BOTH, BOTH))
    for text in show_chat([told], max_chars=MOST).data.values():
        assert text.count("the first words") == text.count("the last words") > 1


@given(st.lists(st.text("a\n", min_size=1, max_size=400), min_size=1, max_size=30))
def test_what_is_kept_and_what_is_missing_add_up(pieces: list[str]) -> None:
    text = "x" + "".join(pieces)
    timeline = played(ContentDelta("x"), *map(ContentDelta, pieces), most=2000)
    timeline.apply(end(text))
    (answer,) = [segment for segment in timeline.segments if segment.kind == "answer"]
    assert text.startswith(answer.text)
    assert text.endswith(answer.end)
    assert len(answer.text) + answer.missing + len(answer.end) == len(text)
    assert len(answer.text) + len(answer.end) <= 1000
    assert not answer.missing or len(answer.text) + len(answer.end) == 950


def test_a_turn_within_the_bound_loses_nothing() -> None:
    answer, thought = "word " * 3000, "hm " * 4000
    events = (ReasoningDelta(thought), *call(stdout="x" * 4000), ContentDelta(answer), end(answer))
    timeline = played(*events, most=200_000)
    assert [part.missing for part in timeline.segments] == [0, 0, 0]
    assert "max_output_chars" not in str(make_record(timeline, ViewOptions()))


def test_the_last_answer_is_kept_whatever_came_before() -> None:
    chatter = [e for i in range(900) for e in (ContentDelta(f"Now step {i}. "), *call(step=i))]
    text = "The answer is 42."
    last = played(*chatter, RequestStarted(901), ContentDelta(text), end(text)).segments[-1]
    assert (last.kind, last.text, last.missing) == ("answer", text, 0)
    first = "word " * 8000
    timeline = played(
        ContentDelta(first), *call(), RequestStarted(2), ContentDelta(text), end(text)
    )
    assert timeline.segments[-1].text == text


def test_what_a_person_is_asked_about_is_always_shown() -> None:
    notices = [Notice("x" * 500) for _ in range(500)]
    timeline = played(*notices, *call('{"code": "print(1)"}', asked=True, stdout="1\n"))
    (card,) = [part for part in timeline.segments if part.kind == "tool"]
    assert card.text == '{"code": "print(1)"}'
    assert timeline.segments[timeline.running] is card


def test_how_a_turn_ended_is_always_told() -> None:
    notices = [Notice("x" * 500) for _ in range(500)]
    assert "max_tokens" in played(*notices, end("x", finish_reason="length")).segments[-1].text
    stopped = played(*notices)
    stopped.end()
    assert stopped.segments[-1].text.startswith("Stopped")


def test_later_calls_have_room_after_a_flood() -> None:
    floods = [e for i in range(4) for e in call(step=i, stdout="x" * 1_000_000)]
    data = record(*floods, *call('{"month": "May"}', 9, stdout="rain in May"), end()).data
    assert "rain in May" in data["text/html"]


TEXTS = st.text(alphabet="a\n𝕏$*", max_size=400)


@given(st.lists(st.tuples(st.booleans(), TEXTS), max_size=30), st.integers(1, 7), st.data())
def test_how_a_text_arrives_makes_no_difference(
    said: list[tuple[bool, str]], size: int, data: Any
) -> None:
    def events(size: int) -> list[Event]:
        return [
            (ReasoningDelta if thought else ContentDelta)(text[i : i + size])
            for thought, text in said
            for i in range(0, len(text), size)
        ]

    most = data.draw(st.integers(0, 4000))
    whole, pieces = played(*events(10_000), most=most), played(*events(size), most=most)
    assert [(p.kind, p.text, p.missing) for p in whole.segments] == [
        (p.kind, p.text, p.missing) for p in pieces.segments
    ]
    assert whole.left_out == pieces.left_out
    assert sum(part.length for part in whole.segments) <= most


def depth(html: str) -> int:
    """How deep elements are nested."""
    steps = (tag[1] == "/" for tag in re.findall(r"</?[a-z]", html.replace("<br>", "")))
    return max(accumulate(-1 if closes else 1 for closes in steps), default=0)


@pytest.mark.parametrize(
    "html",
    ["<div>", "<ul><li>", "<table><tr><td>", "<b>", "<svg>", "<details>", "<blockquote>", "<p><b>"],
)
def test_html_that_is_nested_deep_is_shown_as_text(html: str) -> None:
    began = time.process_time()
    data = record(*call(**shows(html=html * 100_000)), end()).data
    assert time.process_time() - began < 5
    assert depth(data["text/html"]) < MAX_HTML_DEPTH + 10
    assert depth(foreign_html(html * 150)) <= MAX_HTML_DEPTH


@pytest.mark.parametrize(
    "text",
    [
        "> " * 50_000, ">" * 100_000, "- " * 50_000, "1. " * 30_000, "[" * 100_000, "![" * 50_000,
        "*a_ " * 25_000, "<b>" * 30_000, r"\(" * 50_000, "`" * 100_000, "$x$" * 30_000,
        "[a](" * 25_000, "|a" * 200 + "|\n" + "|-" * 200 + "|\n" + "|\n" * 50_000,
        ("|a" * 99 + "|\n" + "|-" * 99 + "|\n" + "|\n" * 300 + "\n") * 100,
    ],
)  # fmt: skip
def test_markdown_that_is_nested_deep_neither_hangs_nor_floods(text: str) -> None:
    kept = text[: MOST // 2]
    began = time.process_time()
    html = to_html(kept)
    assert time.process_time() - began < 10
    assert len(html) < MARKUP * len(kept)


@pytest.mark.parametrize("language", ["c", "java", "csharp", "make", "systemd", "python", "html"])
@pytest.mark.parametrize("text", ["\n", " ", "a b\n", "@a\n", "(", "{{", "<a "])
def test_code_that_makes_lexers_slow_is_left_plain(language: str, text: str) -> None:
    began = time.process_time()
    to_html(f"```{language}\n{text * 20_000}\n```")
    assert time.process_time() - began < 5


def test_quotes_nested_too_deep_stay_as_text() -> None:
    assert "<pre>" in to_html("> " * 40 + "found")
    assert "found" in to_html("> " * 40 + "found")


def test_an_image_that_would_fill_the_memory_is_not_shown() -> None:
    def png(width: int, height: int) -> str:
        head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height)
        return base64.b64encode(head + b"\0" * 40).decode()

    assert "<img" in record(*call(**shows(png=png(4000, 3000))), end()).data["text/html"]
    assert "<img" not in record(*call(**shows(png=png(90_000, 90_000))), end()).data["text/html"]
