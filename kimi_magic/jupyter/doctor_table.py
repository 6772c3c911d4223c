"""The doctor's findings as a table: in a page, a terminal, as text, JSON, and for a bug report."""

from __future__ import annotations

import json
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal, get_args

from kimi_magic.core.text import clean, clip, count, plain_html, reveal, without_stacks
from kimi_magic.display.record import Bundle

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "GROUPS",
    "Diagnosis",
    "Row",
    "State",
    "draw",
    "hidden",
    "print_table",
    "report",
    "to_json",
    "to_text",
]

VERSION = 1  # of the JSON
State = Literal["ok", "look", "mend", "unknown"]
# A sign and a word tell the state, not a colour; where nothing is to be done, the sign is enough.
SIGNS: dict[State, str] = {"ok": "✓", "look": "!", "mend": "✗", "unknown": "–"}
WORDS: dict[State, str] = {"ok": "fine", "look": "look", "mend": "mend", "unknown": "not known"}
SPOKEN = ("look", "mend")
HEAD = {"what is": 42, "what it means": 32, "what to do": 26}  # widths in percent
FIRST = "To mend, and to look at"
WIDTH = 96
MOST_CHARS = 400  # of one text: a server's words may be long

_CELL = (
    "border:1px solid rgba(127,127,127,.35);text-align:left;vertical-align:top;"
    "overflow-wrap:break-word;white-space:normal;padding:.3em .5em;overflow:hidden;contain:paint"
)
_GROUP = f"{_CELL};font-weight:600;background:rgba(127,127,127,.12)"
_FOUND = f"{_CELL};font-weight:normal"
_MARK = "font-weight:600;white-space:nowrap"
_SCROLLED = "overflow:auto;contain:paint;margin:.3em 0 .8em"
_TABLE = "border-collapse:collapse;width:100%;min-width:38em;table-layout:fixed"
Mask = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Row:
    """One finding.

    Attributes
    ----------
    check : str
        Its stable name, such as ``endpoint.reasoning``; the part before the dot is its group.
    state : str
        ``ok``, ``look`` (it works, and something is worth knowing), ``mend`` or ``unknown``.
    found, means, do : str
        The three columns: what is, what it means, what to do.
    """

    check: str
    state: State
    found: str
    means: str = ""
    do: str = ""


# The titles of the groups, in the order of the table.
GROUPS = {
    "software": "Python and libraries",
    "front_end": "Front end",
    "key": "Endpoints and keys",
    "kept": "What is kept",
    "local": "Practice model",
    "tool": "MCP servers",
    "setting": "Settings that differ from the default",
    "environment": "Environment",
    "endpoint": "The endpoint",
}


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All findings, and the circumstances in which they were made.

    Attributes
    ----------
    where : str
        ``kernel``, ``terminal`` (IPython) or ``shell`` (the command).
    endpoint : str
        The name of the endpoint that was checked; empty for none.
    sent : bool
        True if something was sent to it.
    stopped : bool
        True if an interrupt ended the examination.
    """

    rows: tuple[Row, ...]
    version: str
    where: str
    endpoint: str = ""
    sent: bool = False
    stopped: bool = False

    @property
    def must_mend(self) -> bool:
        return any(row.state == "mend" for row in self.rows)

    @property
    def summary(self) -> str:
        """One line that counts what needs a look."""
        states = Counter(row.state for row in self.rows)
        mend, look = states["mend"], states["look"]
        told = [f"{count(mend, 'thing')} to mend"] if mend else []
        told += [f"{look if mend else count(look, 'thing')} to look at"] if look else []
        stopped = " The doctor was stopped: the rest was not asked." if self.stopped else ""
        return f"{', '.join(told) or 'Nothing to mend'}.{stopped}"

    def masked(self, mask: Mask) -> Diagnosis:
        """Return the same findings with each text masked and cut to a readable length."""

        def fit(text: str) -> str:
            return clip(reveal(mask(" ".join(text.split()))), MOST_CHARS)

        def fit_row(row: Row) -> Row:
            # The group is a word of ours, even where a notebook or a machine has the same name.
            group, _, name = row.check.partition(".")
            texts = map(fit, (row.found, row.means, row.do))
            return Row(f"{group}.{fit(name)}", row.state, *texts)

        return replace(self, rows=tuple(map(fit_row, self.rows)), endpoint=fit(self.endpoint))

    def groups(self) -> Iterator[tuple[str, list[Row]]]:
        """Yield titles with their rows: first what needs a look, then the others by group."""
        order = list(GROUPS)
        ranked = sorted(self.rows, key=lambda row: order.index(_group(row)))
        first = [row for state in ("mend", "look") for row in ranked if row.state == state]
        if first:
            yield FIRST, first
        rest = [row for row in ranked if row.state not in SPOKEN]
        for group, rows in groupby(rest, _group):
            named = f" {self.endpoint}" if group == "endpoint" else ""
            yield f"{GROUPS[group]}{named}", list(rows)


def _group(row: Row) -> str:
    return row.check.partition(".")[0]


def draw(diagnosis: Diagnosis) -> Bundle:
    """Draw a masked table as static HTML and as text."""
    return Bundle.of(without_stacks(to_text(diagnosis)), _page(diagnosis))


def to_text(diagnosis: Diagnosis, width: int = WIDTH) -> str:
    """Write the table as text: below each finding, what it means and what to do."""
    lines = [_title(diagnosis)]
    for title, rows in diagnosis.groups():
        lines += ["", title]
        for row in rows:
            lines += _wrapped(f"  {_mark(row.state)}  ", row.found, width)
            lines += _wrapped(" " * 6, row.means, width) if row.means else []
            lines += _wrapped("      → ", row.do, width) if row.do else []
    return "\n".join(map(clean, lines))


def _mark(state: State) -> str:
    return f"{SIGNS[state]} {WORDS[state]}" if state in SPOKEN else SIGNS[state]


def _wrapped(indent: str, text: str, width: int) -> list[str]:
    """Break a text into lines; commands and addresses stay whole, so that they can be copied."""
    return textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=" " * min(len(indent), 8),
        break_long_words=False,
        break_on_hyphens=False,
    )


def print_table(diagnosis: Diagnosis, console: Console) -> None:
    """Print the table: in columns on a terminal, as text elsewhere."""
    if not console.is_terminal or console.width < 60:
        print(to_text(diagnosis, console.width if console.is_terminal else WIDTH))
        return
    from rich.table import Table
    from rich.text import Text

    styles: dict[State, str] = {"ok": "", "look": "bold", "mend": "bold reverse", "unknown": "dim"}
    console.print(Text(_title(diagnosis), "bold"), soft_wrap=True)
    table = Table(expand=True)
    for name, width in HEAD.items():
        table.add_column(name, ratio=width, overflow="fold")
    for title, rows in diagnosis.groups():
        table.add_section()
        table.add_row(Text(title, "bold"))
        for row in rows:
            found = Text.assemble((_mark(row.state), styles[row.state]), " ", clean(row.found))
            table.add_row(found, Text(clean(row.means)), Text(clean(row.do)))
    console.print(table)


def to_json(diagnosis: Diagnosis) -> str:
    """Write the table as JSON, in the stable form that docs/doctor.md describes."""
    states = Counter(row.state for row in diagnosis.rows)
    data: dict[str, Any] = {
        "doctor": VERSION,
        "kimi_magic": diagnosis.version,
        "where": diagnosis.where,
        "endpoint": diagnosis.endpoint,
        "sent": diagnosis.sent,
        "stopped": diagnosis.stopped,
        "counts": {state: states[state] for state in get_args(State)},
        "rows": [
            {
                "check": row.check,
                "group": _group(row),
                "state": row.state,
                "is": row.found,
                "means": row.means,
                "do": row.do,
            }
            for row in diagnosis.rows
        ],
    }
    return json.dumps(data, indent=2, ensure_ascii=False)


def report(diagnosis: Diagnosis) -> str:
    """Write the table as Markdown to put into a bug report."""
    lines = [
        f"### kimi-magic {diagnosis.version}, seen from a {diagnosis.where}",
        "",
        diagnosis.summary,
        "",
        "| | what is | what it means |",
        "|---|---|---|",
    ]
    for title, rows in diagnosis.groups():
        lines.append(f"| | **{_cell(title)}** | |")
        lines += [f"| {SIGNS[r.state]} | {_cell(r.found)} | {_cell(r.means)} |" for r in rows]
    return "\n".join(lines)


def hidden(text: str, names: Mapping[str, str]) -> str:
    """Replace each name by its mark, wherever it is a word or a path of its own."""
    if not names:
        return text
    ranked = sorted(names, key=len, reverse=True)
    pattern = "|".join(map(re.escape, ranked))
    return re.sub(rf"(?<!\w)(?:{pattern})(?!\w)", lambda found: names[found[0]], text)


def _cell(text: str) -> str:
    """Escape text for a cell of a Markdown table."""
    marked = "".join(f"\\{char}" if char in "\\`*_{}[]<>#|~!&$@" else char for char in clean(text))
    # GitHub makes links of addresses, and of what begins with www.
    return re.sub(r"(?i)(?=://)|(?<=www)(?=\.)", r"\\", marked.replace("\n", " "))


def _page(diagnosis: Diagnosis) -> str:
    titles = "".join(
        f'<th scope="col" style="{_CELL};width:{width}%">{title}</th>'
        for title, width in HEAD.items()
    )
    rows = [f"<tr>{titles}</tr>"]
    for title, of_group in diagnosis.groups():
        heading = _html(title)
        rows.append(f'<tr><th scope="colgroup" colspan="3" style="{_GROUP}">{heading}</th></tr>')
        rows += _rows(of_group)
    summary = f'<div style="{_MARK};white-space:normal">{_html(_title(diagnosis))}</div>'
    table = f'<table style="{_TABLE}">{"".join(rows)}</table>'
    # Keys scroll only an element that can have the focus.
    return f'<div>{summary}<div tabindex="0" style="{_SCROLLED}">{table}</div></div>'


def _title(diagnosis: Diagnosis) -> str:
    return f"kimi-magic {diagnosis.version}: {diagnosis.summary}"


def _rows(rows: Sequence[Row]) -> Iterable[str]:
    for row in rows:
        mark = f'<span style="{_MARK}">{SIGNS[row.state]} {WORDS[row.state]}</span>'
        if row.state not in SPOKEN:  # the word is for the ear alone
            label = f'role="img" aria-label="{WORDS[row.state]}"'
            mark = f'<span style="{_MARK}" {label}>{SIGNS[row.state]}</span>'
        found = f'<th scope="row" style="{_FOUND}">{mark} {_html(row.found)}</th>'
        others = "".join(f'<td style="{_CELL}">{_code(text)}</td>' for text in (row.means, row.do))
        yield f"<tr>{found}{others}</tr>"


def _html(text: str) -> str:
    return plain_html(without_stacks(clean(text)))


def _code(text: str) -> str:
    """Escape a text of ours, with what stands between two backticks as code."""
    pieces = text.split("`")
    if len(pieces) % 2 == 0:
        return _html(text)
    return "".join(
        f"<code>{_html(piece)}</code>" if number % 2 else _html(piece)
        for number, piece in enumerate(pieces)
    )
