"""Outputs inside Markdown, as nbconvert, code hosts and site builders put them there."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from kimi_magic.chats.chat import ChatTurn
from kimi_magic.core.events import (
    ContentDelta,
    ReasoningDelta,
    StepFinished,
    ToolCallDelta,
    ToolCallStarted,
    ToolFinished,
    ToolStarted,
)
from kimi_magic.core.messages import Output, Step, ToolCall, ToolResult
from kimi_magic.display.record import Bundle, make_record, show_chat, show_code
from kimi_magic.display.timeline import Timeline
from kimi_magic.lab.comparison import compare
from tests.turns import OPENING, make_reply

CODE = "def f(x):\n\n    if x:\n        return 1\n   \n\n\n    return *x*\n"
# Where Markdown's blocks begin and end, with as many blank lines as one likes between them.
BLOCKS = (
    "# title", "text", "    indented", "- item", "  - deeper", "1. one", "> quote", "```python",
    "```", "~~~", "$$", "| a | b |", "|---|---|", "| 1 | 2 |", "<div>", "</div>", "<!-- x", "-->",
    "***", "---", "\t", "   ", "", "", "", "$x$ and *y*", "![i](u)", "a  ", "\\", "<pre>", "[x]: y",
)  # fmt: skip
TEXTS = st.lists(st.sampled_from(BLOCKS)).map("\n".join) | st.text(max_size=40)


class Texts(HTMLParser):
    """The text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text = ""
        self.feed(page)

    def handle_data(self, data: str) -> None:
        self.text += data


def of_turn(reasoning: str, answer: str) -> Bundle:
    """Return the record of a turn with a tool that prints, shows HTML, and returns a text."""
    shown = Output({"text/html": f"<div>\n\n<b>x</b>\n{answer}</div>"}, {})
    result = ToolResult("f", answer, stdout=reasoning, outputs=(shown,), traceback=reasoning)
    timeline = Timeline()
    for event in (
        *OPENING,
        ReasoningDelta(reasoning),
        ToolCallStarted(0, "f"),
        ToolCallDelta(0, '{"a": "x"}'),
        ToolStarted(0, ToolCall("c1", "f", '{"a": "x"}')),
        ToolFinished(0, result),
        StepFinished(Step()),
        ContentDelta(answer),
    ):
        timeline.apply(event)
    timeline.end()
    return make_record(timeline)


def is_whole(bundle: Bundle) -> bool:
    """Return True if Markdown takes a page for what it is, and nothing of it for Markdown."""
    page = bundle.data["text/html"]
    tokens = MarkdownIt("commonmark").parse(f"before\n\n{page}\n\nafter")
    kinds = ["paragraph_open", "inline", "paragraph_close"]
    assert [token.type for token in tokens] == [*kinds, "html_block", *kinds]
    fenced = MarkdownIt("commonmark").parse(f"```{{=html}}\n{page}\n```\n\nafter")
    assert [token.type for token in fenced] == ["fence", *kinds]
    assert fenced[0].content == tokens[3].content
    return tokens[3].content == f"{page}\n"


@given(TEXTS, TEXTS)
def test_an_output_stays_whole(reasoning: str, answer: str) -> None:
    assert is_whole(of_turn(reasoning, answer))
    reply = make_reply(answer, reasoning)
    assert is_whole(show_chat([ChatTurn(reasoning, reply)]))
    assert is_whole(compare(reply, make_reply(reasoning, answer)).bundle())


def test_code_keeps_its_lines() -> None:
    pages = [
        of_turn(CODE, f"See:\n\n```python\n{CODE}```").data["text/html"],
        show_code(CODE, "python").data["text/html"],
    ]
    for page in pages:
        assert "\n\n" not in page
        assert CODE in Texts(page).text
