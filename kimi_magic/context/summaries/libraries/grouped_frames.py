"""Describe frames and columns of pandas and polars that were grouped: keys, groups, their sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kimi_magic.context.summaries.detail import Detail
from kimi_magic.context.summaries.frames import as_table
from kimi_magic.context.summaries.reprs import label
from kimi_magic.context.summaries.tables import cell, heading
from kimi_magic.context.walker import type_name
from kimi_magic.core.text import count

__all__ = ["describe"]

EXACT = 500_000  # rows that are counted whole
SHOWN = 8


def describe(value: Any, limit: int, detail: Detail) -> str | None:
    table = as_table(value.obj)
    if table is None:
        return None
    lines = [f"{type_name(value)} of a {heading(table)}"]
    if table.rows > EXACT:
        return f"{lines[0]}\nkeys: {label(value.keys, limit)}"
    sizes = value.size()
    if sizes.ndim > 1:  # as_index=False
        sizes = sizes.set_index(list(sizes.columns[:-1])).iloc[:, 0]
    names = ", ".join("(no name)" if name is None else label(name) for name in sizes.index.names)
    lines[0] = f"{type_name(value)} by {names}, of a {heading(table)}"
    counts = sizes.tolist()
    lines.append(_sizes(counts))
    if detail.values == "rows" and counts:
        lines.append(_largest(sizes.index.tolist(), counts))
    return "\n".join(lines)


def _sizes(counts: Sequence[int]) -> str:
    text = count(len(counts), "group")
    return f"{text} of {min(counts):,} to {max(counts):,} rows" if counts else text


def _largest(names: Sequence[object], counts: Sequence[int]) -> str:
    order = sorted(range(len(names)), key=lambda at: -counts[at])[:SHOWN]
    shown = ", ".join(f"{cell(names[at])}: {counts[at]:,}" for at in order)
    return f"the largest: {shown}" if len(names) > SHOWN else f"groups: {shown}"
