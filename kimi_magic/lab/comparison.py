"""Replies side by side: their figures, where they part, and what they say in common."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from kimi_magic.core.errors import KimiError
from kimi_magic.core.interrupts import whole_imports
from kimi_magic.core.messages import Step, ToolCall
from kimi_magic.core.reply import Reply
from kimi_magic.core.step_table import step_rows
from kimi_magic.core.text import clean, clip, keep_ends, without_stacks
from kimi_magic.display.html.data import data_html, data_text
from kimi_magic.display.html.markdown import plain_html, to_html
from kimi_magic.display.record import Bundle
from kimi_magic.session import current
from kimi_magic.turn.agreement import final_answer, normalised

__all__ = ["Comparison", "Parting", "Statement", "compare", "statements_of"]

MATCHED = (
    "Sentences of the answers, the same where they agree letter by letter but for case, spaces, "
    "marks of Markdown and ways to write a number."
)
NOT_COMPARED = "Tool calls and texts of the steps are compared, reasoning is not."
MAX_LINE, MAX_NAME, MAX_STATEMENTS, MAX_REPLIES = 300, 60, 200, 64

_SCROLLED = "overflow:auto;contain:paint;margin:.3em 0 .8em"
_CELL = (
    "border:1px solid rgba(127,127,127,.35);text-align:left;vertical-align:top;"
    "overflow-wrap:anywhere;padding:.3em"
)
_TITLE = f"{_CELL};white-space:pre"
# The room beside its name keeps a column readable on a narrow page.
_COLUMN = f"{_TITLE};padding:.3em 9em .3em .3em"
_ANSWER = "max-width:40em;overflow:hidden;contain:paint"
_HEADING = "margin:.8em 0 .3em;font-weight:600"
_SAID = "overflow-wrap:anywhere;overflow:hidden;contain:paint"
_NOTE = f"opacity:.8;font-size:90%;{_SAID}"
_FENCE = re.compile(r"^ {0,3}(?:```|~~~)")
_MARKER = re.compile(r"^\s*(?:[-*+]|\d+[.)]|#{1,6}|>)\s+")
_SENTENCE_END = re.compile(r"(?<=[.!?…。！？])[\"'”’)\]*_]*\s+(?=\S)")


@dataclass(frozen=True, slots=True)
class Parting:
    """The first step in which replies differ.

    Attributes
    ----------
    step : int
        Counted from 1.
    by : str
        ``tool calls``, ``text``, or ``end`` where a reply has ended before it.
    versions : tuple of str
        The calls or the text of each reply in a line, "" where it has ended.
    """

    step: int
    by: str
    versions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence of one or more of the answers, as the first of them has it.

    Attributes
    ----------
    text : str
    places : tuple of int
        The replies that have it, counted from 1.
    """

    text: str
    places: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Replies side by side; a notebook shows it as a table.

    Attributes
    ----------
    replies : tuple of Reply
    names : tuple of str
        The names of the columns.
    parting : Parting or None
        Where the replies part; None where all their calls and texts are the same.
    common, shared, lone : tuple of Statement
        The statements of all answers, those of several, and those of one alone.
    """

    replies: tuple[Reply, ...]
    names: tuple[str, ...]
    max_chars: int = 200_000

    @property
    def parting(self) -> Parting | None:
        steps = [reply.record.steps for reply in self.replies]
        for number in range(max(map(len, steps), default=0)):
            present = [own[number] if number < len(own) else None for own in steps]
            for by, told in (("end", _presence), ("tool calls", _calls), ("text", _text)):
                if len({told(step) for step in present}) > 1:
                    shown = _text if by == "text" else _step_line
                    lines = tuple(_line(shown(step)) for step in present)
                    return Parting(number + 1, by, lines)
        return None

    @property
    def common(self) -> tuple[Statement, ...]:
        return self._said_by(lambda count: count == len(self.replies))

    @property
    def shared(self) -> tuple[Statement, ...]:
        return self._said_by(lambda count: 1 < count < len(self.replies))

    @property
    def lone(self) -> tuple[Statement, ...]:
        return self._said_by(lambda count: count == 1)

    def _said_by(self, fits: Callable[[int], bool]) -> tuple[Statement, ...]:
        found: dict[str, tuple[str, list[int]]] = {}
        for place, reply in enumerate(self.replies, 1):
            for text in statements_of(reply):
                _, places = found.setdefault(normalised(text) or text, (text, []))
                if place not in places:
                    places.append(place)
        made = (Statement(text, tuple(places)) for text, places in found.values())
        return tuple(statement for statement in made if fits(len(statement.places)))

    def to_pandas(self) -> Any:
        """Return a ``pandas.DataFrame``, one reply a row.

        Raises
        ------
        KimiError
            pandas is not installed.
        """
        with whole_imports():
            try:
                import pandas as pd
            except ImportError:
                raise KimiError("pandas is not installed: `pip install pandas`.") from None
            rows = [_figures(reply) | {"reply": reply} for reply in self.replies]
            return pd.DataFrame(rows, index=pd.Index(self.names, name="name"))

    def __repr__(self) -> str:
        return self.bundle().data["text/plain"]  # type: ignore[no-any-return]

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        with whole_imports():
            return self.bundle().data

    def bundle(self) -> Bundle:
        """Draw it as static HTML and as text."""
        return Bundle.of(without_stacks(_text_page(self)), _page(self))


def compare(*replies: Any, names: Sequence[str] | None = None) -> Comparison:
    """Put replies side by side: answers, figures, where they part, and what they share.

    Parameters
    ----------
    *replies : Reply or sequence of Reply
        One reply alone is taken for its trajectories.
    names : sequence of str, optional
        Names of the columns; by default numbers.

    Returns
    -------
    Comparison

    Raises
    ------
    KimiError
        There are fewer than two replies, or something else among them.

    Examples
    --------
    >>> kimi.compare(low, high, names=["low", "high"])  # doctest: +SKIP
    >>> kimi.compare(answer.trajectories)  # doctest: +SKIP
    """
    found = list(_flat(replies))
    if len(found) == 1 and found[0].trajectories:
        found = list(found[0].trajectories)
    if len(found) < 2:
        raise KimiError("Two replies at least make a comparison, or one with trajectories.")
    if len(found) > MAX_REPLIES:
        raise KimiError(f"{len(found)} replies are too many: {MAX_REPLIES} at most are compared.")
    titles = list(names) if names is not None else [str(n) for n in range(1, len(found) + 1)]
    if len(titles) != len(found):
        raise KimiError(f"names= has {len(titles)} names for {len(found)} replies.")
    most = current().settings.max_output_chars
    shown = tuple(clip(" ".join(clean(str(title)).split()), MAX_NAME) for title in titles)
    return Comparison(tuple(found), shown, most)


def _flat(values: Iterable[Any]) -> Iterator[Reply]:
    for value in values:
        if isinstance(value, Reply):
            yield value
        elif isinstance(value, list | tuple):
            yield from _flat(value)
        else:
            raise KimiError(f"Replies are compared; got {type(value).__name__}.")


def statements_of(reply: Reply) -> list[str]:
    """Return the statements of an answer: its sentences, or the fields of its data.

    A block of code is one statement.
    """
    if reply.record.data is not None:
        return _fields(reply.record.data)
    found: list[str] = []
    code: list[str] | None = None
    for line in reply.text.splitlines():
        if _FENCE.match(line):
            if code:
                found.append("\n".join(code))
            code = [] if code is None else None
        elif code is not None:
            code.append(line)
        else:
            found += _SENTENCE_END.split(_MARKER.sub("", line).strip())
    if code:
        found.append("\n".join(code))
    return [text for text in map(str.strip, found) if any(map(str.isalnum, text))]


def _fields(data: Any) -> list[str]:
    if isinstance(data, dict):
        return [f"{name}: {_json(value)}" for name, value in data.items()]
    return [_json(item) for item in data] if isinstance(data, list) else [_json(data)]


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _presence(step: Step | None) -> bool:
    return step is not None


def _calls(step: Step | None) -> tuple[tuple[str, str], ...]:
    return tuple((call.name, _arguments(call)) for call in step.tool_calls) if step else ()


def _arguments(call: ToolCall) -> str:
    """Return arguments as JSON of one form; as they arrived where they are none."""
    try:
        return json.dumps(json.loads(call.arguments or "{}"), sort_keys=True, ensure_ascii=False)
    except (ValueError, RecursionError):
        return call.arguments


def _text(step: Step | None) -> str:
    return " ".join(step.text.split()) if step else ""


def _step_line(step: Step | None) -> str:
    if step is None:
        return ""
    called = ", ".join(f"{name}({arguments})" for name, arguments in _calls(step))
    return called or _text(step)


def _line(text: str) -> str:
    return clip(clean(text), MAX_LINE)


def _figures(reply: Reply) -> dict[str, Any]:
    record, usage = reply.record, reply.usage
    return {
        "model": record.model,
        "answer": reply.text,
        "final_answer": final_answer(reply.text),
        "steps": len(record.steps),
        "tools": [call.name for call in reply.tool_calls],
        "tokens": usage.completion_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "reasoning_chars": len(record.reasoning),
        "seconds": max((row.began + row.seconds for row in step_rows(record)), default=0.0),
        "cost": usage.cost or None,
        "error": type(reply.error).__name__ if reply.error else None,
    }


def _rows(replies: Sequence[Reply]) -> Iterator[tuple[str, list[str]]]:
    """Yield the rows of figures that are not empty: a title, and a text for each reply."""
    figures = [_figures(reply) for reply in replies]
    shown: dict[str, Callable[[dict[str, Any]], str]] = {
        "model": lambda f: str(f["model"]),
        "steps": lambda f: f"{f['steps']:,}",
        "tools": lambda f: ", ".join(f["tools"]),
        "tokens": lambda f: f"{f['tokens']:,}" if f["tokens"] else "",
        "of reasoning": lambda f: f"{f['reasoning_tokens']:,}" if f["reasoning_tokens"] else "",
        "seconds": lambda f: f"{f['seconds']:.1f}",
        "cost": lambda f: f"${f['cost']:.4f}" if f["cost"] else "",
        "error": lambda f: f["error"] or "",
    }
    for title, text in shown.items():
        texts = [_line(text(each)) for each in figures]
        if any(texts):
            yield title, texts


def _parting_line(comparison: Comparison) -> str:
    parting = comparison.parting
    if parting is None:
        return f"They do not part. {NOT_COMPARED}"
    how = {"end": "where one has ended", "text": "by their text"}.get(parting.by, "by tool calls")
    return f"They part at step {parting.step}, {how}. {NOT_COMPARED}"


def _said(comparison: Comparison) -> Iterator[tuple[str, Sequence[Statement]]]:
    """Yield the statements in groups, each with its heading."""
    if comparison.common:
        yield "In all answers", comparison.common
    if comparison.shared:
        yield "In several", comparison.shared
    for place, name in enumerate(comparison.names, 1):
        own = [statement for statement in comparison.lone if statement.places == (place,)]
        if own:
            yield f"Only in {name}", own


def _who(comparison: Comparison, statement: Statement) -> str:
    names = [comparison.names[place - 1] for place in statement.places]
    return f" ({', '.join(names)})" if 1 < len(names) < len(comparison.names) else ""


def _page(comparison: Comparison) -> str:
    share = comparison.max_chars // (2 * len(comparison.replies))
    head = "".join(_th(name, _COLUMN) for name in comparison.names)
    rows = [f'<tr><td style="{_CELL}"></td>{head}</tr>']
    for title, texts in _rows(comparison.replies):
        cells = "".join(f'<td style="{_CELL}">{plain_html(text)}</td>' for text in texts)
        rows.append(f"<tr>{_th(title)}{cells}</tr>")
    answers = "".join(
        f'<td style="{_CELL}"><div style="{_ANSWER}">{_answer_html(reply, share)}</div></td>'
        for reply in comparison.replies
    )
    rows.append(f"<tr>{_th('answer')}{answers}</tr>")
    if parting := comparison.parting:
        cells = "".join(
            f'<td style="{_CELL}">{plain_html(version) or "(ended)"}</td>'
            for version in parting.versions
        )
        rows.append(f"<tr>{_th(f'step {parting.step}')}{cells}</tr>")
    # Keys scroll only an element that can have the focus.
    table = f'<div tabindex="0" style="{_SCROLLED}"><table>{"".join(rows)}</table></div>'
    pieces = [table, f'<div style="{_NOTE}">{plain_html(_parting_line(comparison))}</div>']
    left = MAX_STATEMENTS
    for title, statements in _said(comparison):
        items = "".join(
            f"<li>{plain_html(_line(s.text) + _who(comparison, s))}</li>" for s in statements[:left]
        )
        left = max(left - len(statements), 0)
        pieces.append(f'<div style="{_HEADING}">{plain_html(title)}</div>')
        pieces.append(f'<div style="{_SAID}"><ul>{items}</ul></div>')
        if not left:
            break
    pieces.append(f'<div style="{_NOTE}">{escape(MATCHED)}</div>')
    return "\n".join(["<div>", *pieces, "</div>"])


def _th(text: str, style: str = _TITLE) -> str:
    return f'<th style="{style}">{plain_html(text)}</th>'


def _answer_html(reply: Reply, share: int) -> str:
    if reply.record.data is not None:
        return data_html(reply.record.data)
    return to_html(clean(keep_ends(reply.text, share))) or "(empty)"


def _text_page(comparison: Comparison) -> str:
    share = comparison.max_chars // (4 * len(comparison.replies))
    rows = [("", list(comparison.names)), *_rows(comparison.replies)]
    widths = [max(len(row[1][i]) for row in rows) for i in range(len(comparison.names))]
    first = max(len(title) for title, _ in rows)
    lines = [
        "  ".join(
            [title.ljust(first), *(t.ljust(w) for t, w in zip(texts, widths, strict=True))]
        ).rstrip()
        for title, texts in rows
    ]
    for name, reply in zip(comparison.names, comparison.replies, strict=True):
        data = reply.record.data
        text = clean(keep_ends(reply.text, share)) if data is None else data_text(data)
        lines += ["", f"{name}:", text or "(empty)"]
    lines += ["", _parting_line(comparison)]
    if parting := comparison.parting:
        pairs = zip(comparison.names, parting.versions, strict=True)
        lines += [f"  {name}: {version or '(ended)'}" for name, version in pairs]
    left = MAX_STATEMENTS
    for title, statements in _said(comparison):
        shown = [f"  {_line(s.text)}{_who(comparison, s)}" for s in statements[:left]]
        left = max(left - len(statements), 0)
        lines += ["", f"{title}:", *shown]
        if not left:
            break
    return "\n".join([*lines, "", MATCHED])
