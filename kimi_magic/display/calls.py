"""Tool calls in words: the call in a line, its arguments as Python writes them, how it ended."""

from __future__ import annotations

import json
import re
from html import escape
from textwrap import indent

from kimi_magic.core.text import count, cut_note, escape_hidden, reveal
from kimi_magic.display.html.code import highlight
from kimi_magic.display.html.tool_results import OUTCOMES, result_text
from kimi_magic.display.segments import Segment

__all__ = ["arguments_html", "call_line", "call_notes", "call_text"]

CALL_WIDTH = 70
RECORDED_RESULT = "recorded result"
_STRING_OR_CONSTANT = re.compile(
    r'"(?:[^"\\]++|\\.)*+"?|\b(?:true|false|null|NaN|Infinity)\b', re.DOTALL
)
_CONSTANTS = {"true": "True", "false": "False", "null": "None", "NaN": "nan", "Infinity": "inf"}


def call_line(segment: Segment) -> str:
    """Return a call in one line: ``forecast(month="April")``, ``run_python: x = 1``."""
    return _in_line(segment)[0]


def call_notes(segment: Segment) -> list[str]:
    """Say how a call ended, with its mark, and what else there is to know of it."""
    notes = ["arguments changed"] if segment.edited else []
    if outcome := OUTCOMES.get(segment.state):
        notes.append(f"{outcome.mark} {outcome.word}")
    recorded = segment.result is not None and segment.result.recorded
    return [*notes, RECORDED_RESULT] if recorded else notes


def arguments_html(segment: Segment) -> str:
    """Return a call's arguments for a ``<pre>``; "" where `call_line` shows them all."""
    lines = [escape(f"Defaults: {segment.defaults}")] if segment.defaults else []
    if not _in_line(segment)[1]:
        lines.insert(0, _arguments_at_length(segment))
    return "\n".join(lines)


def call_text(segment: Segment, *, end: bool = True) -> str:
    """Return a tool call and its result as plain text, without a word on its ``end`` if False."""
    notes = call_notes(segment) if end else []
    said = f"Tool call ({', '.join(notes)})" if notes else "Tool call"
    if (code := _code(segment)) is not None:
        lines = [f"{said}: {segment.title}", indent(code, "    ")]
    else:
        inside = _as_python(segment.arguments.rstrip())
        if (pairs := _pairs(segment)) is not None:
            inside = ", ".join(f"{name}={value}" for name, value in pairs)
        elif segment.missing and not segment.edited:
            inside = f"{inside}\n{cut_note(segment.missing)}\n{segment.end}"
        lines = [f"{said}: {segment.title}({escape_hidden(inside)[0]})"]
    lines += [f"Defaults: {segment.defaults}"] if segment.defaults else []
    if segment.result is not None:
        lines.append(indent(result_text(segment.result), "  "))
    return "\n".join(lines)


def _in_line(segment: Segment) -> tuple[str, bool]:
    """Return a call in one line, and True if the line shows all of its arguments."""
    if (code := _code(segment)) is not None:
        first, _, rest = code.strip().partition("\n")
        more = f" … {count(rest.count(chr(10)) + 1, 'more line')}" if rest else ""
        return f"{segment.title}: {_cut(first)}{more}", not rest and len(first) <= CALL_WIDTH
    pairs = _pairs(segment)
    inside = _as_python(segment.arguments)
    if pairs is not None:
        inside = ", ".join(f"{reveal(name)}={reveal(value)}" for name, value in pairs)
    line = " ".join(inside.split())
    is_whole = pairs is not None and line == inside and len(line) <= CALL_WIDTH
    return f"{segment.title}({_cut(line)})", is_whole or not (inside or segment.missing)


def _arguments_at_length(segment: Segment) -> str:
    if (code := _code(segment)) is not None:
        return highlight(code, "python")
    if (pairs := _pairs(segment)) is None:
        return escape(_as_python(segment.arguments.rstrip()))
    text = "\n".join(f"{name} = {value}" for name, value in pairs)
    return highlight(escape_hidden(text)[0], "python")


def _pairs(segment: Segment) -> list[tuple[str, str]] | None:
    """Return the arguments as names and values in Python; None for what is no JSON object."""
    try:
        arguments = json.loads(segment.arguments or "{}")
        if not isinstance(arguments, dict):
            return None
        return [
            (name if name.isidentifier() else _in_python(name), _in_python(value))
            for name, value in arguments.items()
        ]
    except (ValueError, RecursionError):
        return None


def _in_python(value: object) -> str:
    return _as_python(json.dumps(value, ensure_ascii=False))


def _as_python(text: str) -> str:
    """Write the constants of JSON, which may be cut, as Python does."""
    return _STRING_OR_CONSTANT.sub(lambda found: _CONSTANTS.get(found[0], found[0]), text)


def _code(segment: Segment) -> str | None:
    """Return the code that ``run_python`` is called with; None for other calls."""
    try:
        code = json.loads(segment.arguments)["code"] if segment.title == "run_python" else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return escape_hidden(code)[0].rstrip() if isinstance(code, str) else None


def _cut(line: str) -> str:
    return line if len(line) <= CALL_WIDTH else f"{line[: CALL_WIDTH - 1]}…"
