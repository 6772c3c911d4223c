"""Describe pandas' Styler: as its frame, and how it is to be shown."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

from kimi_magic.context.summaries.detail import Detail, Summary
from kimi_magic.context.summaries.frames import as_table
from kimi_magic.context.summaries.reprs import label
from kimi_magic.context.summaries.tables import has_values_for_labels, table_summary
from kimi_magic.core.text import clip, count
from kimi_magic.core.time_limit import USER_ERRORS

__all__ = ["describe"]

MAX_TEXT = 200
SHOWN = 8


def describe(value: Any, limit: int, detail: Detail) -> Summary | None:
    table = as_table(value.data)
    if table is None:
        return None
    quotes = detail.values == "rows"
    settings = "; ".join(_settings(value, quotes, quotes or not has_values_for_labels(table)))
    heading = f"Styler with {settings or 'nothing set'}, of a "
    summary = table_summary(table, limit - len(heading), detail)
    return replace(summary, text=heading + summary.text)


def _settings(value: Any, quotes: bool, names: bool) -> list[str]:  # noqa: FBT001
    found = []
    if caption := value.caption:
        found.append(f"caption «{clip(str(caption), MAX_TEXT)}»" if quotes else "a caption")
    exported = value.export()  # what is to be done: nothing is computed
    styles = [style for step in exported["apply"] if (style := _function(step))]
    if styles:
        found.append(f"styles {', '.join(dict.fromkeys(styles[:SHOWN]))}")
    if exported["table_styles"]:
        found.append(f"{count(len(exported['table_styles']), 'table style')}")
    if exported["hide_index"]:
        found.append("hidden index")
    if hidden := list(value.hidden_columns):
        columns = [label(value.columns[at]) for at in hidden[:SHOWN]]
        more = ", …" if len(hidden) > SHOWN else ""
        which = f": {', '.join(columns)}{more}" if names else ""
        found.append(f"{count(len(hidden), 'hidden column')}{which}")
    if rows := len(value.hidden_rows):
        found.append(count(rows, "hidden row"))
    with suppress(*USER_ERRORS):  # has no public name
        if formats := len({column for _, column in vars(value)["_display_funcs"]}):
            found.append(f"formats for {count(formats, 'column')}")
    return found


def _function(step: Any) -> str:
    """Name the function of a step, which pandas keeps with its arguments."""
    try:
        function = step[1][0]
        function = getattr(function, "func", function)
        return str(function.__name__).strip("_").replace("<lambda>", "a lambda")
    except USER_ERRORS:
        return "a function"
