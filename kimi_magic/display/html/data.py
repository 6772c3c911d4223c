"""Data from a model as a tree or a table, in safe HTML and in plain text.

The size is bounded, and omissions are counted. Nothing is trusted: text is escaped, its control
characters are made visible, and MathJax finds no maths in it.
"""

from __future__ import annotations

import json
from typing import Any

from kimi_magic.core.tabular import to_json, to_table
from kimi_magic.core.text import clean, clip, count
from kimi_magic.display.html.markdown import plain_html

__all__ = ["data_html", "data_text"]

NO_JSON = "(nested too deeply to show)"  # pydantic's limit is 255 levels
MAX_NODES = 3000
CHARS_PER_NODE = 100
MAX_DEPTH = 20
OPEN_DEPTH = 2
MAX_COLUMNS = 30
MAX_CELL = 200
MAX_LEAF = 2000
TEXT_CHARS, TEXT_END = 20_000, 5000
TEXT_ROWS = 100
TEXT_CELL = 40

_CHILDREN = "margin:0 0 0 .4em;padding:0 0 0 .9em;border-left:2px solid rgba(127,127,127,.4)"
_LEAF = "white-space:pre-wrap;overflow-wrap:anywhere"
_CELL = "text-align:left;vertical-align:top;white-space:pre-wrap;overflow-wrap:anywhere"
_QUIET = "opacity:.7"
# Legible on white and on the #111 of JupyterLab's dark theme, like the colours of code.
_STRING = "color:#34893b"
_OTHER = "color:#007bd4"


def data_html(value: Any) -> str:
    """Show data as HTML: records as a table, all else as a tree that folds."""
    try:
        data = to_json(value)
    except ValueError:
        return f"<div>{NO_JSON}</div>"
    table = _as_table(data)
    return _table_html(*table) if table else f"<div>{_Tree().node('', data, 0)}</div>"


def data_text(value: Any) -> str:
    """Show data as plain text: records as a table, all else as indented JSON."""
    try:
        data = to_json(value)
    except ValueError:
        return NO_JSON
    if table := _as_table(data):
        return _table_text(*table)
    text = clean(json.dumps(data, ensure_ascii=False, indent=2))
    more = len(text) - TEXT_CHARS
    if more <= 0:
        return text
    note = f"… {count(more, 'more character')} …"
    return f"{text[: TEXT_CHARS - TEXT_END]}\n{note}\n{text[-TEXT_END:]}"


def _as_table(data: Any) -> tuple[list[str], list[list[Any]]] | None:
    """Return columns and rows if the data are records with short cells."""
    if not isinstance(data, list) or not data or not all(isinstance(r, dict) and r for r in data):
        return None
    columns, rows = to_table(data)
    cells = (cell for row in rows for cell in row if isinstance(cell, dict | list))
    fits = len(columns) <= MAX_COLUMNS and all(len(_word(cell)) <= MAX_CELL for cell in cells)
    return (columns, rows) if fits else None


def _word(value: Any) -> str:
    """Return a value as a cell shows it: strings as they are, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _table_html(columns: list[str], rows: list[list[Any]]) -> str:
    shown = rows[: max(MAX_NODES // len(columns), 1)]
    styles = [_CELL.replace("left", "right") if n else _CELL for n in _are_numbers(rows)]
    head = "".join(
        f'<th style="{style}">{_safe(name)}</th>'
        for style, name in zip(styles, columns, strict=True)
    )
    body = "\n".join(f"<tr>{''.join(map(_cell, row, styles))}</tr>" for row in shown)
    return (
        '<div tabindex="0" style="overflow:auto"><table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"
        f"{_more(len(rows) - len(shown), 'row')}</div>"
    )


def _are_numbers(rows: list[list[Any]]) -> list[bool]:
    """Return of each column if all of its values are numbers."""
    kinds = [
        {type(cell) for cell in column if cell is not None} for column in zip(*rows, strict=True)
    ]
    return [bool(found) and found <= {int, float} for found in kinds]


def _cell(value: Any, style: str) -> str:
    quiet = f";{_QUIET}" if value is None else ""
    return f'<td style="{style}{quiet}">{_safe(clip(_word(value), MAX_LEAF))}</td>'


def _table_text(columns: list[str], rows: list[list[Any]]) -> str:
    lines = [[_flat(cell) for cell in row] for row in (columns, *rows[:TEXT_ROWS])]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    just = [str.rjust if numbers else str.ljust for numbers in _are_numbers(rows)]
    text = [
        " | ".join(to(cell, n) for to, cell, n in zip(just, line, widths, strict=True)).rstrip()
        for line in lines
    ]
    text.insert(1, "-+-".join("-" * width for width in widths))
    if (more := len(rows) - TEXT_ROWS) > 0:
        text.append(f"… {count(more, 'more row')}")
    return "\n".join(text)


def _flat(value: Any) -> str:
    return clip(" ".join(clean(_word(value)).split()), TEXT_CELL)


class _Tree:
    """A tree with a budget of nodes; a long text counts as several."""

    def __init__(self) -> None:
        self._left = MAX_NODES

    def node(self, name: str, value: Any, depth: int) -> str:
        """Return a value as HTML; ``name`` is its label, HTML as well."""
        self._left -= 1
        if not value or not isinstance(value, dict | list):
            return f'<div style="{_LEAF}">{name}{self._leaf(value)}</div>'
        what = count(len(value), _noun(value))
        if depth >= MAX_DEPTH:
            return f"<div>{name}… {what}</div>"
        is_open = " open" if depth < OPEN_DEPTH else ""
        return (
            f'<details{is_open}><summary style="cursor:pointer">{name}'
            f'<span style="{_QUIET}">{what}</span></summary>\n'
            f'<div style="{_CHILDREN}">{self._children(value, depth)}</div></details>'
        )

    def _children(self, value: dict[str, Any] | list[Any], depth: int) -> str:
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        shown: list[str] = []
        for key, inner in pairs:
            if self._left <= 0:
                shown.append(_more(len(value) - len(shown), _noun(value)))
                break
            label = _safe(clip(str(key), MAX_CELL))
            shown.append(self.node(f'<span style="{_QUIET}">{label}:</span> ', inner, depth + 1))
        return "\n".join(shown)

    def _leaf(self, value: Any) -> str:
        if not isinstance(value, str):
            return f'<span style="{_OTHER}">{_safe(_word(value))}</span>'
        text = clip(value, MAX_LEAF)
        self._left -= len(text) // CHARS_PER_NODE
        return f'<span style="{_STRING}">"{_safe(text)}"</span>'


def _noun(value: Any) -> str:
    return "field" if isinstance(value, dict) else "item"


def _safe(text: str) -> str:
    return plain_html(clean(text))


def _more(number: int, noun: str) -> str:
    note = f'<div style="{_QUIET}">… {count(number, f"more {noun}")}</div>'
    return note if number > 0 else ""
