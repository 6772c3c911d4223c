"""The frozen record of a turn: one static bundle that needs no kernel, widget or script.

Declarations with ``var(--…)`` are dropped in untrusted notebooks, and so is ``<style>``: the
record is made of plain elements with inline styles whose colours suit light and dark pages alike.
Durations live in the metadata, so that a turn that says the same again gives the same output.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict
from html import escape
from textwrap import indent
from typing import Any, NamedTuple

from kimi_magic.core.events import Event
from kimi_magic.core.messages import Usage
from kimi_magic.core.text import clean
from kimi_magic.display.html.code import MONOSPACE, code_html, highlight
from kimi_magic.display.html.data import data_html, data_text
from kimi_magic.display.html.markdown import plain_html, to_html
from kimi_magic.display.html.tool_results import has_image, result_html, result_text
from kimi_magic.display.segments import Segment
from kimi_magic.display.size_budget import cut_note
from kimi_magic.display.timeline import MOST_NAME, Timeline
from kimi_magic.display.view import ViewOptions

__all__ = [
    "Bundle",
    "RecordView",
    "arguments_html",
    "call_line",
    "call_text",
    "details",
    "make_record",
    "pre",
    "publish",
    "tokens_line",
]

# live.css says the same of the live view.
_WRAP = "white-space:pre-wrap;overflow-wrap:anywhere;word-break:normal;line-height:1.5"
_PROSE = "font-family:inherit;font-size:inherit"
_PART = "margin:0 0 .8em"
_SUMMARY = "cursor:pointer;opacity:.8;font-size:90%"
_PANEL = (
    "margin:.3em 0 0 .3em;padding:0 0 0 .9em;border-left:2px solid rgba(127,127,127,.4);"
    "max-height:24em;overflow:auto"
)
_CARD = f"{_PART};padding:.4em .8em;border:1px solid rgba(127,127,127,.35);border-radius:6px"
_INSIDE = "margin:.4em 0 0"
_RESULT = "margin:.5em 0 0;padding:.5em 0 0;border-top:1px dashed rgba(127,127,127,.4)"
_CUT = "opacity:.65;font-size:90%"
_NOTICE = f"{_PART};padding:.1em 0 .1em .8em;border-left:2px solid #b58100"
_FOOTER = "margin:.8em 0 0;opacity:.8;font-size:85%"
_CALL_WIDTH = 70


class Bundle(NamedTuple):
    """What is published as a cell's output."""

    data: dict[str, Any]
    metadata: dict[str, Any]


def make_record(timeline: Timeline, options: ViewOptions | None = None) -> Bundle:
    """Freeze a turn as it stands.

    Returns
    -------
    Bundle
        ``data`` holds ``text/html`` and a transcript as ``text/plain``; ``metadata`` holds, under
        ``kimi_magic``, the model, the endpoint, the chat, and the usage with its seconds.
    """
    options = options or ViewOptions()
    data = {"text/plain": _transcript(timeline, options), "text/html": _html(timeline, options)}
    return Bundle(data, {"kimi_magic": _facts(timeline)})


def tokens_line(usage: Usage) -> str:
    """The usage without its seconds."""
    return str(usage).rpartition(" · ")[0]


class RecordView:
    """Shows nothing until the turn has ended, then its record."""

    def __init__(self, options: ViewOptions) -> None:
        self._options = options
        self._timeline = Timeline(
            hide_reasoning=options.hide_reasoning, max_chars=options.max_chars
        )

    def handle(self, event: Event) -> None:
        self._timeline.apply(event)

    def tick(self) -> None:
        """There is nothing to refresh."""

    def close(self) -> None:
        self._timeline.end()
        publish(make_record(self._timeline, self._options))


def publish(bundle: Bundle, display_id: str | None = None, *, update: bool = False) -> None:
    """Make a bundle an output of the running cell; without IPython, print its text."""
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.display import publish_display_data

    if not InteractiveShell.initialized():
        print(bundle.data["text/plain"])
        return
    send: Any = publish_display_data  # IPython's own annotations leave it untyped
    transient = {"display_id": display_id} if display_id else None
    send(bundle.data, bundle.metadata, transient=transient, update=update)


def _html(timeline: Timeline, options: ViewOptions) -> str:
    answer = _data_part(timeline)
    parts = [
        f"<div>\n{data_html(timeline.reply.data)}</div>"
        if part is answer and timeline.reply
        else _part(part, options)
        for part in timeline.parts
    ]
    left_out = _cut(timeline.left_out)
    return "\n".join(["<div>", *parts, *left_out, _footer(timeline, options), "</div>"])


def _data_part(timeline: Timeline) -> Segment | None:
    """The answer that the turn's data stand in for; not for one of which there is too much."""
    if timeline.reply is None or timeline.reply.data is None:
        return None
    last = next((part for part in reversed(timeline.parts) if part.kind == "answer"), None)
    return None if last is None or last.missing else last


def _part(part: Segment, options: ViewOptions) -> str:
    cut = "".join(_cut(cut_note(part.missing)))
    whole = _whole(part) if part.missing else part.text
    if part.kind == "reasoning":
        is_open = options.keep_reasoning if part.open is None else part.open
        return details("Reasoning", pre(escape(part.text.rstrip())) + cut, is_open=is_open)
    if part.kind == "tool":
        return _card(part)
    if part.kind == "notice":
        return f'<div style="{_NOTICE}">{plain_html(part.text)}{cut}</div>'
    if options.format in ("text", "json"):
        return f'<pre style="{_WRAP};{_PROSE}">{escape(whole)}</pre>'
    if options.format == "code" and "```" not in part.text:
        return code_html(whole, "python")
    return f"<div>\n{to_html(part.text)}{cut}</div>"


def _cut(note: str) -> list[str]:
    return [f'<div style="{_CUT}">{plain_html(note)}</div>'] if note else []


def _card(part: Segment) -> str:
    """A tool call: what it was called with, and below it what it gave."""
    result = part.result
    inner = [f'<div style="{_INSIDE}">{pre(arguments_html(part), MONOSPACE)}</div>']
    inner += _cut(cut_note(part.missing))
    if result is not None:
        inner.append(f'<div style="{_RESULT}">{result_html(result)}</div>')
    shows = result is not None and has_image(result)
    notes = [" · arguments changed"] if part.edited else []
    notes += [" · failed"] if part.state == "failed" else []
    title = f"<code>{escape(call_line(part))}</code>{''.join(notes)}"
    is_open = shows if part.open is None else part.open
    return _folding(title, "\n".join(inner), _CARD, is_open=is_open)


def call_line(part: Segment) -> str:
    """A tool call in one line: ``forecast(month="April")``."""
    inside = part.arguments
    with suppress(ValueError, RecursionError):
        arguments = json.loads(part.arguments)
        if isinstance(arguments, dict):
            inside = ", ".join(
                f"{clean(name)}={clean(json.dumps(value, ensure_ascii=False))}"
                for name, value in arguments.items()
            )
    inside = " ".join(inside.split())
    if len(inside) > _CALL_WIDTH:
        inside = f"{inside[: _CALL_WIDTH - 1]}…"
    return f"{part.title}({inside})"


def arguments_html(part: Segment) -> str:
    """What a tool is called with, for a ``<pre>``; code in its colours."""
    code = python_code(part)
    return escape(part.arguments.rstrip()) if code is None else highlight(code, "python")


def python_code(part: Segment) -> str | None:
    """The code that ``run_python`` is called with; None for other calls."""
    try:
        code = json.loads(part.arguments)["code"] if part.title == "run_python" else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return clean(code).rstrip() if isinstance(code, str) else None


def pre(html: str, font: str = _PROSE) -> str:
    """Text, escaped already, with its line breaks."""
    return f'<pre style="margin:0;opacity:.8;{_WRAP};{font}">{html}</pre>'


def details(title: str, html: str, *, is_open: bool = False) -> str:
    """A panel that folds away."""
    # A key scrolls only what can have the focus.
    panel = f'<div tabindex="0" style="{_PANEL}">{html}</div>'
    return _folding(title, panel, _PART, is_open=is_open)


def _folding(title: str, html: str, style: str, *, is_open: bool) -> str:
    return (
        f'<details{" open" if is_open else ""} style="{style}">'
        f'<summary style="{_SUMMARY}">{title}</summary>\n{html}</details>'
    )


def _footer(timeline: Timeline, options: ViewOptions) -> str:
    facts = [timeline.head]
    if timeline.reply is not None:
        steps = len(timeline.reply.steps)
        if steps > 1:
            facts.append(f"{steps} steps")
        if options.usage:
            facts.append(tokens_line(timeline.reply.usage))
    return f'<div style="{_FOOTER}">{plain_html(" · ".join(facts))}</div>'


def _transcript(timeline: Timeline, options: ViewOptions) -> str:
    paragraphs = []
    answer = _data_part(timeline)
    for part in timeline.parts:
        text = _whole(part)
        if part is answer and timeline.reply:
            text = data_text(timeline.reply.data)
        elif part.kind == "reasoning":
            text = f"Reasoning:\n{text}"
        elif part.kind == "tool":
            text = call_text(part)
        elif part.kind == "notice":
            text = f"[{text}]"
        paragraphs.append(text)
    paragraphs += [timeline.left_out] if timeline.left_out else []
    paragraphs.append(f"— {timeline.head}")
    if options.usage and timeline.reply is not None:
        paragraphs[-1] += f" · {tokens_line(timeline.reply.usage)}"
    return "\n\n".join(paragraphs)


def _whole(part: Segment) -> str:
    """A part's text, with a word on what is missing."""
    text = part.text.rstrip()
    return f"{text}\n{cut_note(part.missing)}" if part.missing else text


def call_text(part: Segment) -> str:
    """A tool call in a transcript."""
    lines = [f"Tool call: {part.title}({part.edited.rstrip() or _whole(part)})"]
    if (code := python_code(part)) is not None:
        lines = [f"Tool call: {part.title}", indent(code, "    ")]
    if part.result is not None:
        lines.append(indent(result_text(part.result), "  "))
    return "\n".join(lines)


def _facts(timeline: Timeline) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "model": timeline.model,
        "endpoint": timeline.endpoint,
        "practice": timeline.practice,
        "state": timeline.state,
    }
    if (reply := timeline.reply) is not None:
        facts |= {
            "model": _name(reply.model) or timeline.model,
            "chat": _name(reply.chat),
            "finish_reason": _name(reply.finish_reason),
            "error": type(reply.error).__name__ if reply.error is not None else None,
            "steps": len(reply.steps),
            "usage": asdict(reply.usage),
        }
    return facts


def _name(text: str | None) -> str | None:
    return clean(text)[:MOST_NAME] if text else text
