"""Whatever a model, a tool or a server says, it runs and loads nothing, and stays in its place."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from kimi_magic.chats.chat import ChatTurn
from kimi_magic.core.errors import EndpointError
from kimi_magic.core.events import (
    ApprovalAnswered,
    ApprovalAsked,
    ContentDelta,
    Envelope,
    Event,
    Notice,
    Preparing,
    ReasoningDelta,
    RequestStarted,
    Retrying,
    StepFinished,
    ToolCallDelta,
    ToolCallStarted,
    ToolFinished,
    ToolStarted,
    TurnFinished,
    TurnStarted,
)
from kimi_magic.core.messages import Output, Step, ToolCall, ToolResult
from kimi_magic.display.live.approval_form import as_fields
from kimi_magic.display.live.page import Page
from kimi_magic.display.plain import PlainView
from kimi_magic.display.record import make_record, show_chat, show_code
from kimi_magic.display.terminal import TerminalView
from kimi_magic.display.timeline import Timeline
from kimi_magic.display.view import Format, ViewOptions
from kimi_magic.turn.approval import _shown
from tests.hostile import HTML, VECTORS, Checked, check_plain
from tests.turns import make_reply

KINDS = [
    "text/plain", "text/html", "text/markdown", "text/latex", "image/png", "image/jpeg",
    "image/svg+xml", "application/json", "application/javascript", "text/vnd.mermaid",
    "application/vnd.jupyter.widget-view+json",
]  # fmt: skip

PIECES = st.one_of(
    st.sampled_from(VECTORS),
    st.text(alphabet="<>/\"'&$\\`*_[]()!#|:=-~{}\n abehrjx;0", max_size=30),
    st.text(st.characters(exclude_categories=()), max_size=8),
)
TEXTS = st.lists(PIECES, max_size=4).map("".join)
JSON = st.recursive(TEXTS, lambda inner: st.lists(inner, max_size=2), max_leaves=3)
DATA = JSON | st.lists(st.dictionaries(TEXTS, JSON, min_size=1, max_size=2), max_size=3)
OUTPUTS = st.builds(
    Output,
    st.dictionaries(st.sampled_from(KINDS), JSON, min_size=1, max_size=3),
    st.dictionaries(st.sampled_from(KINDS), st.dictionaries(TEXTS, JSON, max_size=1), max_size=1),
)
RESULTS = st.builds(
    ToolResult,
    TEXTS,
    TEXTS,
    error=st.none() | TEXTS,
    stdout=TEXTS,
    traceback=TEXTS,
    outputs=st.lists(OUTPUTS, max_size=3).map(tuple),
)


def in_pieces(kind: Callable[[str], Event], text: str, size: int) -> list[Event]:
    return [kind(text[i : i + size]) for i in range(0, len(text), size)]


@st.composite
def turns(draw: st.DrawFn) -> list[Event]:
    """A turn in which every text is somebody else's."""
    size = draw(st.integers(1, 40))
    name, arguments = draw(TEXTS), draw(TEXTS)
    called, result = ToolCall("functions.f:0", name, arguments), draw(RESULTS)
    answer = draw(TEXTS)
    error = EndpointError(draw(TEXTS)) if draw(st.booleans()) else None
    reason = draw(st.sampled_from(["stop", "length"]) | TEXTS)
    told: dict[str, Any] = {
        "model": draw(TEXTS),
        "chat": draw(TEXTS),
        "data": draw(st.none() | DATA),
    }
    two = (Step(), Step())
    reply = make_reply(answer, steps=two, finish_reason=reason, error=error, **told)
    asked: list[Event] = [
        ApprovalAsked(name, arguments),
        ApprovalAnswered(name, agreed=True, arguments=draw(TEXTS)),
    ]
    return [
        TurnStarted(draw(TEXTS), draw(TEXTS), practice=draw(st.booleans())),
        Preparing(draw(TEXTS)),
        RequestStarted(1),
        Notice(draw(TEXTS)),
        Retrying(draw(TEXTS), 1.0, 1, 3),
        *in_pieces(ReasoningDelta, draw(TEXTS), size),
        ToolCallStarted(0, name),
        *in_pieces(lambda text: ToolCallDelta(0, text), arguments, size),
        ToolStarted(0, called),
        *(asked if draw(st.booleans()) else []),
        ToolFinished(0, result),
        StepFinished(Step(tool_calls=(called,), tool_results=(result,))),
        RequestStarted(2),
        *in_pieces(ContentDelta, answer, size),
        TurnFinished(reply),
    ]


FORMATS = st.sampled_from(["markdown", "text", "json", "code"])


@given(turns(), FORMATS, st.booleans(), st.sampled_from([300, 200_000]))
def test_a_record_holds_nothing_that_acts(
    turn: list[Event], shape: Format, usage: bool, most: int
) -> None:
    options, timeline = ViewOptions(format=shape, usage=usage), Timeline(max_chars=most)
    for event in turn:
        timeline.apply(event)
    data, metadata = make_record(timeline, options)
    assert set(data) == {"text/html", "text/plain"}
    check_plain(json.dumps(metadata, ensure_ascii=False))
    check_plain(data["text/plain"])
    page = Checked(data["text/html"])
    assert len(page.children) == len(timeline.segments) + bool(timeline.left_out) + 1


@given(turns(), FORMATS)
def test_nothing_that_a_page_is_sent_acts(turn: list[Event], shape: Format) -> None:
    page = Page(ViewOptions(format=shape))
    blocks: dict[int, str] = {}
    for event in turn:
        ops = [*page.apply(Envelope(0.0, event)), *page.draw(), page.snapshot()]
        for op in ops:
            if op["op"] == "block":
                blocks[op["segment"]] = blocks.get(op["segment"], "") + op["html"]
            check_operation(op)
    for html in blocks.values():
        Checked(f"<div>{html}</div>")


def check_operation(op: Any) -> None:
    """HTML is checked as such; all else the page shows as text."""
    if isinstance(op, dict):
        for name, value in op.items():
            if name in ("html", "blocks"):
                around = "pre" if "call" in op else "div"
                Checked(f"<{around}>{value}</{around}>")
            else:
                check_operation(value)
    elif isinstance(op, list):
        for item in op:
            check_operation(item)
    elif isinstance(op, str):
        check_plain(op)


@given(turns(), TEXTS)
def test_a_chat_and_a_program_hold_nothing_that_acts(turn: list[Event], text: str) -> None:
    (end,) = [event for event in turn if isinstance(event, TurnFinished)]
    told = ChatTurn(text, make_reply(text, text, error=end.reply.error))
    for bundle in (show_chat([told], [told]), show_code(text, "python"), show_chat([])):
        Checked(f"<div>{bundle.data['text/html']}</div>")
        check_plain(bundle.data["text/plain"])


@given(st.dictionaries(TEXTS, JSON | st.integers(), max_size=3))
def test_nothing_is_hidden_from_who_approves(arguments: dict[str, Any]) -> None:
    for name, text, _ in as_fields(arguments):
        for shown in (name, text):
            check_plain(shown)
            assert not re.search("[\u200c\u200d\u2800\ufe0f\xa0]", shown)
    prompt = _shown(arguments)
    check_plain(prompt)
    heads = [line for line in prompt.split("\n") if not line.startswith("  │ ")]
    assert len(heads) == max(len(arguments), 1)


@pytest.mark.parametrize("char", ["\u202e", "\u200b", "\u200d", "\xa0", "\x1b", "\0", "\ud800"])
def test_what_cannot_be_seen_is_shown_by_its_number(char: str) -> None:
    ((_, text, _),) = as_fields({"code": f"a{char}b\n\tc"})
    assert text == f"a⟨U+{ord(char):04X}⟩b\n\tc"


@given(turns(), FORMATS)
def test_a_terminal_and_a_pipe_are_told_nothing_that_they_obey(
    turn: list[Event], shape: Format
) -> None:
    screen, pipe = io.StringIO(), io.StringIO()
    options = ViewOptions(format=shape)
    console = Console(file=screen, width=80, color_system=None, _environ={})
    for view in (TerminalView(options, console), PlainView(options)):
        with redirect_stdout(pipe):
            for event in turn:
                view.handle(Envelope(0.0, event))
            view.close()
    check_plain(screen.getvalue())
    check_plain(pipe.getvalue())


@given(TEXTS)
def test_an_error_tells_nothing_that_is_obeyed(text: str) -> None:
    error = EndpointError(text)
    check_plain(str(error))
    check_plain("".join(error._render_traceback_()))


@pytest.mark.parametrize("vector", HTML[:-1])
def test_the_check_sees_what_acts(vector: str) -> None:
    with pytest.raises(AssertionError):
        Checked(f"<div>{vector}</div>")
