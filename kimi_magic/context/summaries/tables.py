"""Describe a table: its columns with figures, its first rows and some random ones.

Of a large table a sample is read, and the figures say so.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from kimi_magic.context.summaries.column_figures import MAX_CELL, cell, figures_of, quoted
from kimi_magic.context.summaries.detail import ROWS, Detail, Summary
from kimi_magic.context.summaries.personal import SAMPLE, kind_of
from kimi_magic.context.summaries.reprs import label
from kimi_magic.core.sampling import positions_at_random
from kimi_magic.core.text import clip, count
from kimi_magic.core.time_limit import USER_ERRORS
from kimi_magic.secrets.fields import is_secret_field, names_secret
from kimi_magic.secrets.patterns import MASKED

__all__ = [
    "Columns",
    "Rows",
    "Table",
    "cell",
    "describe_table",
    "dtype_name",
    "has_values_for_labels",
    "heading",
    "table_summary",
]

SAMPLED_CELLS = 100_000
LEAST_SAMPLE, LARGEST_SAMPLE = 1000, 20_000
SHOWN_COLUMNS = 30
FEWEST = 5  # rows below which figures would be as good as the values
MAX_DTYPE = 40
NARROW = 800  # characters; below, there is no room for figures
FEW = 5
MANY = 60
INDEX, LABELS = "index", "labels of the columns"

# Types with their categories: polars has Enum(categories=['a']), DuckDB ENUM('a'). They may be
# members of other types.
_ENUM = re.compile(
    r"""\b(enum\d*)\((?:[^()'"]|'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")*\)""", re.IGNORECASE
)

# polars' Datetime(time_unit='us', time_zone=None)
_UNIT = re.compile(r"time_unit='(\w+)'(?:, time_zone=None)?")

Columns = Sequence[tuple[object, object]]  # names and dtypes


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of a table: their labels and their values by column, None where one is missing."""

    labels: Sequence[object]
    columns: Sequence[Sequence[object]]


@dataclass(frozen=True, slots=True)
class Table:
    """A table of any library.

    ``take`` is called with ascending positions and a number of columns, and returns these rows of
    the first columns.
    """

    title: str
    rows: int
    columns: Columns
    take: Callable[[Sequence[int], int], Rows]
    index: str = ""  # the name of the rows' labels
    notes: tuple[str, ...] = ()  # further lines of the description
    single: bool = False  # a column on its own
    name: str = ""  # of a column on its own, which is a value where it is a row of a frame
    labels_of: str = ""  # the name of what the columns' labels are values of, as in a pivot table
    facts: tuple[str, ...] = ()  # further lines of names, types and counts
    # Counts what is missing in all rows of the first so many columns; None where that takes long.
    missing: Callable[[int], Sequence[int | None]] | None = None
    # Adds to the figures of a column by its number; texts are quoted only with True.
    remark: Callable[[int, bool], str] | None = None
    alike: bool = False  # the columns say so little on their own that their names will do


def describe_table(table: Table, limit: int) -> str:
    """Describe a table in about ``limit`` characters."""
    return table_summary(table, limit).text


def table_summary(table: Table, limit: int, detail: Detail = ROWS) -> Summary:
    """Describe a table in this detail, and tell how many rows are shown."""
    values = detail.values == "rows"
    table = _without_secrets(table)
    hides_labels = not values and has_values_for_labels(table)
    if not values:
        table = _without_values(table, labels=hides_labels)
    names = [f"index: {table.index}"] if table.index else []
    lines = [heading(table), *(table.notes if values else names), *table.facts]
    if hides_labels:
        of = f" of {table.labels_of}" if table.labels_of else ""
        lines.append(f"the labels of the columns are values{of} and not shown")
    room = limit - sum(len(line) + 1 for line in lines)
    counts = table.rows > detail.rows if values else detail.values == "figures"
    personal = () if detail.values == "schema" else _personal(table)
    counts = counts and not table.alike
    if table.columns and counts and limit >= NARROW and table.rows >= FEWEST:
        hidden = {name for name, _ in personal}
        share = room * 3 // 5 if values else room
        figures = _columns_with_figures(table, share, None if values else hidden)
    elif table.single or not table.columns:
        figures = ""
    else:
        figures = _column_names(table, 0, room * 2 // 5 if values else room)
    if figures:
        lines.append(figures)
        room -= len(figures) + 1
    shown = 0
    if values and table.rows and table.columns:
        rows, shown = _some_rows(table, room, detail.rows)
        lines += rows
    return Summary("\n".join(lines), shown, table.rows, personal if values else ())


def _personal(table: Table) -> tuple[tuple[str, str], ...]:
    """Name the columns that look like personal data, as far as columns are shown."""
    width = min(len(table.columns), MANY)
    if not table.rows or not width:
        return ()
    found = []
    with suppress(*USER_ERRORS):
        rows = table.take(positions_at_random(0, table.rows, SAMPLE), width)
        named = [*_index_levels(table, rows.labels)]
        named += zip([name for name, _ in table.columns], rows.columns, strict=False)
        for name, values in named:
            if kind := kind_of(name, values):
                found.append((clip(label(name), MAX_CELL), kind))
        if kind := _kind_of_labels(table):
            found.append((LABELS, kind))
    return tuple(found)


def _index_levels(table: Table, labels: Sequence[Any]) -> Iterator[tuple[object, Sequence[object]]]:
    """Yield the rows' labels by the name of their level."""
    if not all(type(label) is tuple for label in labels):
        yield table.index or INDEX, labels
        return
    names = table.index.split(", ")
    levels = list(zip(*labels, strict=True))
    yield from zip(
        names if len(names) == len(levels) else [INDEX] * len(levels), levels, strict=True
    )


def _kind_of_labels(table: Table) -> str:
    """Return what the labels of the columns seem to hold; "" for nothing personal."""
    labels = [name for name, _ in table.columns[:MANY]]
    return kind_of("", labels) if len(labels) >= FEW else ""


def has_values_for_labels(table: Table) -> bool:
    """Return True where the labels of the columns are data, as far as one can tell."""
    if table.single:
        return False
    parts = [
        part for name, _ in table.columns for part in (name if type(name) is tuple else [name])
    ]
    named = all(
        issubclass(type(part), str | int) or hasattr(type(part), "__index__") for part in parts
    )
    return bool(table.labels_of) or not named or bool(_kind_of_labels(table))


def _without_secrets(table: Table) -> Table:
    """Return the table with what columns hold that are named as secrets are masked."""
    named = {at for at, (name, _) in enumerate(table.columns[:MANY]) if names_secret(name)}
    labels = any(map(names_secret, table.index.split(", ")))
    if not named and not labels:
        return table

    def take(positions: Sequence[int], width: int) -> Rows:
        rows = table.take(positions, width)
        columns = list(rows.columns)
        for at in named & set(range(len(columns))):
            name = table.columns[at][0]
            columns[at] = [
                MASKED if is_secret_field(name, value) else value for value in columns[at]
            ]
        return Rows([MASKED] * len(rows.labels) if labels else rows.labels, columns)

    def remark(at: int, quotes: bool) -> str:  # noqa: FBT001 - as in the table
        return table.remark(at, quotes and at not in named) if table.remark else ""

    notes = (f"index: {table.index}",) if labels else table.notes
    return replace(table, take=take, remark=remark, notes=notes)


def _without_values(table: Table, *, labels: bool) -> Table:
    """Return the table without the name of a lone column and, with ``labels``, those of all."""
    if not labels:
        return replace(table, name="")
    numbered = [(f"column {n}", dtype) for n, (_, dtype) in enumerate(table.columns, 1)]
    return replace(table, columns=numbered)


def heading(table: Table) -> str:
    """Return the first line: the table's type and size."""
    if table.single:
        title = f"{table.title} {table.name}" if table.name else table.title
        return f"{title}, {count(table.rows, 'row')}, dtype {dtype_name(table.columns[0][1])}"
    size = f"{count(table.rows, 'row')} × {count(len(table.columns), 'column')}"
    return f"{table.title}, {size}"


def dtype_name(dtype: object) -> str:
    """Write a type, without the categories that may stand in it."""
    return clip(_UNIT.sub(r"\1", _ENUM.sub(r"\1", str(dtype))), MAX_DTYPE)


def _column_names(table: Table, start: int, room: int) -> str:
    """List the columns from one on, as many as fit."""
    rest = table.columns[start:]
    kinds = Counter(dtype_name(dtype) for _, dtype in rest)
    text = "columns" if not start else f"and {count(len(rest), 'more column')}"
    if alike := len(kinds) == 1:
        text += f" ({next(iter(kinds))})"
    elif len(rest) > MANY:
        text += f" ({', '.join(f'{n:,} {kind}' for kind, n in kinds.most_common(FEW))})"
    text += ": "
    named: list[str] = []
    for index, (name, dtype) in enumerate(rest):
        named.append(label(name) if alike else f"{label(name)} ({dtype_name(dtype)})")
        room -= len(named[-1]) + 2
        if room < len(text) + 20 and index + 1 < len(rest):
            named.append(f"… {len(rest) - index - 1:,} more")
            break
    return text + ", ".join(named)


def _columns_with_figures(table: Table, room: int, hidden: Container[str] | None = None) -> str:
    """Describe columns by their figures.

    Where ``hidden`` is given, no figure is a value of a text, nor of the columns of these names.
    """
    width = min(len(table.columns), max(room // 40, 1))
    wanted = min(max(SAMPLED_CELLS // width, LEAST_SAMPLE), LARGEST_SAMPLE)
    sampled = wanted < table.rows
    rows = table.take(positions_at_random(0, table.rows, wanted), width)
    title = "figures" if table.single else "columns, with figures"
    if sampled:
        title += f" from {wanted:,} of {table.rows:,} rows, taken at random"
    lines = [f"{title}:"]
    room -= len(lines[0])
    missing = table.missing(width) if sampled and table.missing else ()
    quotes = hidden is None
    for at, ((name, dtype), values) in enumerate(zip(table.columns, rows.columns, strict=False)):
        counts = hidden is not None and clip(label(name), MAX_CELL) in hidden
        lost = missing[at] if at < len(missing) else None
        figures = figures_of(values, sampled=sampled, missing=lost, quotes=quotes, counts=counts)
        if table.remark and (more := table.remark(at, quotes)):
            figures = ", ".join(filter(None, [figures, more]))
        lines.append(
            figures if table.single else f"- {label(name)} ({dtype_name(dtype)}): {figures}"
        )
        room -= len(lines[-1]) + 1
        if room < 100 and len(lines) > 2:
            del lines[-1]
            break
    described = len(lines) - 1
    if described < len(table.columns):
        lines.append(_column_names(table, described, max(room, 100)))
    return "\n".join(lines)


def _some_rows(table: Table, room: int, most: int) -> tuple[list[str], int]:
    """Write the first rows, and a sample of the others; return how many there are as well."""
    head = table.rows if table.rows <= most else (most + 1) // 2
    first = list(range(head))
    others = positions_at_random(head, table.rows, most - head) if head < table.rows else []
    rows = table.take(first + others, min(len(table.columns), SHOWN_COLUMNS))
    width = len(rows.columns)
    while width > 1 and sum(map(len, list(_lines(table, rows, width))[:3])) > room - 30:
        width = width * 2 // 3
    names, *lines = _lines(table, rows, width)
    room -= len(names) + 40
    shown = max(_fitting(lines[: len(first)], room), 1)
    written = ["all rows:" if shown == table.rows else f"first {count(shown, 'row')}:"]
    written += filter(None, [names, *lines[:shown]])
    room -= sum(len(line) + 1 for line in lines[:shown])
    if drawn := _fitting(lines[len(first) :], room):
        written.append(f"{count(drawn, 'row')} at random:")
        written += lines[len(first) : len(first) + drawn]
    return written, shown + drawn


def _fitting(lines: Sequence[str], room: int) -> int:
    ends = accumulate(len(line) + 1 for line in lines)
    return sum(end <= room for end in ends)


def _lines(table: Table, rows: Rows, width: int) -> Iterator[str]:
    """Write rows as comma-separated values, after a line with the names."""
    more = ["…"] if width < len(table.columns) else []
    if not table.single or table.index:
        names = [quoted(label(name)) for name, _ in table.columns[:width]]
        yield ",".join([quoted(table.index), *names, *more])
    else:
        yield ""
    for number, name in enumerate(rows.labels):
        cells = [cell(column[number]) for column in rows.columns[:width]]
        yield ",".join([cell(name), *cells, *more])
