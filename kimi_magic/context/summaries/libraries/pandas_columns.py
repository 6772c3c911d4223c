"""Describe an index or an array of pandas as the column that it is."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kimi_magic.context.summaries.detail import Detail, Summary
from kimi_magic.context.summaries.dtypes import level_counts, shown_dtype
from kimi_magic.context.summaries.frames import as_table
from kimi_magic.context.summaries.tables import Rows, Table, table_summary
from kimi_magic.context.walker import type_name
from kimi_magic.core.text import count

__all__ = ["describe"]


def describe(value: Any, limit: int, detail: Detail) -> str | Summary | None:
    if hasattr(value, "levels"):
        return table_summary(_levels(value), limit, detail)
    if hasattr(value, "step"):  # a RangeIndex, whose numbers are nowhere
        from_to = f": {value!r}" if detail.values == "rows" else ""
        return f"RangeIndex of {count(len(value), 'row')}{from_to}"
    pandas: Any = sys.modules["pandas"]
    name = getattr(value, "name", None)
    table = as_table(pandas.Series(getattr(value, "array", value), name=name, copy=False))
    if table is None:
        return None
    frequency = getattr(value, "freqstr", None)
    facts = (*table.facts, f"frequency {frequency}") if frequency else table.facts
    return table_summary(replace(table, title=type_name(value), facts=facts), limit, detail)


def _levels(index: Any) -> Table:
    """See a MultiIndex as a table with a column for each level."""

    def take(positions: Sequence[int], width: int) -> Rows:
        part = index[list(positions)]
        levels = [part.get_level_values(level) for level in range(width)]
        missing = (level.isna() for level in levels)
        return Rows(
            positions,
            [
                [None if lost else name for name, lost in zip(level.tolist(), gaps, strict=True)]
                for level, gaps in zip(levels, missing, strict=True)
            ],
        )

    columns = [
        (at if name is None else name, shown_dtype(level.dtype))
        for at, (name, level) in enumerate(zip(index.names, index.levels, strict=True))
    ]
    return Table("MultiIndex", len(index), columns, take, facts=(level_counts(index, "levels"),))
