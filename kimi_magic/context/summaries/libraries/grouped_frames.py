"""Describe data of pandas and polars that were grouped: the keys, the groups and their sizes.

Of the frame behind them only the columns are named: it has a summary of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from kimi_magic.context.summaries.detail import Detail, Summary
from kimi_magic.context.summaries.frames import as_table
from kimi_magic.context.summaries.personal import SAMPLE, kind_of
from kimi_magic.context.summaries.reprs import bounded_repr, label
from kimi_magic.context.summaries.tables import (
    Table,
    cell,
    has_values_for_labels,
    heading,
    table_summary,
)
from kimi_magic.context.walker import type_name
from kimi_magic.core.sampling import positions_at_random
from kimi_magic.core.text import clip, count
from kimi_magic.core.time_limit import USER_ERRORS
from kimi_magic.secrets.fields import names_secret

__all__ = ["describe"]

EXACT = 500_000  # rows that are grouped whole; pandas keeps their groups for what comes next
SAMPLED = 5_000
SHOWN = 8
MAX_KEYS, MAX_FRAME = 200, 400
_OPTIONS = ("period", "every", "offset", "closed", "maintain_order")


def describe(value: Any, limit: int, detail: Detail) -> Summary | None:
    kind = type(value)
    if kind.__module__.startswith("polars."):
        return _of_polars(value, detail)
    frame = value.obj
    table = as_table(frame)
    if table is None:
        return None
    if hasattr(kind, "size"):
        groups = _pandas_groups(value, frame, table)
        name = _with_frequency(value)
    else:  # a window
        groups, name = None, clip(bounded_repr(value, MAX_KEYS), MAX_KEYS)
    return _written(name, groups, table, detail)


class _Groups:
    """Keys, and the groups with their sizes; ``sampled`` is the number of rows they are of."""

    def __init__(
        self, keys: Sequence[Any], names: Sequence[Any], sizes: Sequence[int], sampled: int = 0
    ) -> None:
        self.keys = keys
        self.names = names
        self.sizes = sizes
        self.sampled = sampled


def _with_frequency(value: Any) -> str:
    name = type_name(value)
    with suppress(*USER_ERRORS):
        return f"{name} by {value.freq.freqstr}"
    return name


def _pandas_groups(value: Any, frame: Any, table: Table) -> _Groups | None:
    keys, sampled = value.keys, 0
    if table.rows > EXACT:
        plain = keys if isinstance(keys, list) else [keys]
        if not all(type(key) is str for key in plain):
            return None
        if frame.ndim == 1 or not all(key in frame for key in plain):
            return _Groups(plain, [], [])
        at = positions_at_random(0, table.rows, SAMPLED)
        part = frame.take(at).groupby(plain, dropna=False, observed=True)
        sizes, sampled = part.size(), SAMPLED
        if len(plain) == 1:
            sizes.index = sizes.index.get_level_values(0)
    else:
        sizes = value.size()
    if sizes.ndim > 1:  # as_index=False
        named = [name for name in sizes.columns if name != "size"]
        sizes = sizes.set_index(named)["size"] if named else sizes["size"]
    groups = [_known(name) for name in sizes.index.tolist()]
    return _Groups(list(sizes.index.names), groups, sizes.tolist(), sampled)


def _known(name: Any) -> Any:
    """Return None for a label that pandas counts as missing."""
    if type(name) is tuple:
        return tuple(map(_known, name))
    with suppress(*USER_ERRORS):  # pandas.NA is neither equal to itself nor not
        return name if name == name else None  # noqa: PLR0124
    return None


def _of_polars(value: Any, detail: Detail) -> Summary | None:
    kind = type_name(value)
    if not hasattr(value, "df"):
        return Summary(f"polars {kind}, lazy: it was not computed")
    table = as_table(value.df)
    if table is None:
        return None
    if hasattr(value, "time_column"):
        options = {name: getattr(value, name, None) for name in _OPTIONS}
        said = ", ".join(f"{name}={option}" for name, option in options.items() if option)
        return _written(f"polars {kind} by {label(value.time_column)}, {said}", None, table, detail)
    by = [key for part in value.by for key in (part if isinstance(part, list | tuple) else [part])]
    # A key may be any expression, and have functions of the user's in it.
    if value.named_by or not all(_is_column(key) for key in by):
        quotes = detail.values == "rows"  # an expression may have values in it
        keys = [_polars_key(key, whole=quotes) for key in by]
        named = value.named_by.items()
        keys += [
            f"{name}={_polars_key(key, whole=True)}" if quotes else name for name, key in named
        ]
        return _written(f"polars {kind}", _Groups(keys, [], []), table, detail)
    frame, sampled = value.df, 0
    if table.rows > EXACT:
        frame, sampled = frame[positions_at_random(0, table.rows, SAMPLED)], SAMPLED
    found = frame.group_by(by, maintain_order=True).len("kimi_magic size")
    *columns, sizes = found.get_columns()
    rows = list(zip(*(column.to_list() for column in columns), strict=True))
    names = [row[0] if len(row) == 1 else row for row in rows]
    keys = [column.name for column in columns]
    return _written(f"polars {kind}", _Groups(keys, names, sizes.to_list(), sampled), table, detail)


def _is_column(key: Any) -> bool:
    return isinstance(key, str) or bool(hasattr(key, "meta") and key.meta.is_column())


def _polars_key(key: Any, *, whole: bool) -> str:
    if isinstance(key, str):
        return key
    return str(key if whole and not _is_column(key) else key.meta.output_name())


def _written(name: str, groups: _Groups | None, table: Table, detail: Detail) -> Summary:
    quotes = detail.values == "rows"
    lines = [name]
    personal: tuple[tuple[str, str], ...] = ()
    if groups is not None:
        hides = not quotes and has_values_for_labels(table)
        keys = ", ".join("(no name)" if key is None else label(key) for key in groups.keys)
        by = count(len(groups.keys), "key") if hides else clip(keys, MAX_KEYS)
        joint = " of " if " by " in name else " by "
        lines[0] += f"{joint}{by}" + _sizes(groups, table.rows)
        if quotes and groups.sizes and not any(map(names_secret, groups.keys)):
            personal = _personal(groups)
            lines.append(_largest(groups, in_time=" by " in name))
    frame = table_summary(table, MAX_FRAME, Detail("schema")).text
    if quotes:
        frame = "\n".join([heading(table), *frame.splitlines()[1:]])
    return Summary("\n".join([*lines, f"of a {frame}"]), personal=personal)


def _personal(groups: _Groups) -> tuple[tuple[str, str], ...]:
    """Name the keys whose values look personal."""
    rows = [name if type(name) is tuple else (name,) for name in groups.names[:SAMPLED]]
    levels = zip(groups.keys, zip(*rows, strict=False), strict=False)
    kinds = ((label(key), kind_of(key, values[:SAMPLE])) for key, values in levels)
    return tuple((key, kind) for key, kind in kinds if kind)


def _sizes(groups: _Groups, rows: int) -> str:
    sizes = sorted(size for size in groups.sizes if size)
    if not sizes:
        return ": no groups" if groups.names or not rows else ""
    text = f": {count(len(sizes), 'group')} of "
    if groups.sampled:
        return f": {count(len(sizes), 'group')} among {count(groups.sampled, 'row')} at random"
    if sizes[0] == sizes[-1]:
        text += count(sizes[0], "row")
    else:
        middle = sizes[len(sizes) // 2]
        text += f"{sizes[0]:,} to {count(sizes[-1], 'row')} (median {middle:,})"
    if empty := len(groups.sizes) - len(sizes):
        text += f", {empty:,} more without rows"
    if (lost := rows - sum(sizes)) > 0:
        text += f"; {count(lost, 'row')} in no group: a key is missing"
    return text


def _largest(groups: _Groups, *, in_time: bool) -> str:
    names = groups.names
    sizes = groups.sizes
    order: Sequence[int] = range(len(names))
    words = "groups"
    if len(names) > SHOWN and in_time:
        return f"from {_group(names[0])} to {_group(names[-1])}"
    if len(names) > SHOWN:
        order, words = sorted(order, key=lambda at: -sizes[at])[:SHOWN], "the largest"
    of = groups.sampled
    shown = (
        f"{_group(names[at])}: {f'{100 * sizes[at] / of:.3g} %' if of else f'{sizes[at]:,}'}"
        for at in order
    )
    return f"{words}: {', '.join(shown)}"


def _group(name: object) -> str:
    if type(name) is tuple:
        return f"({', '.join(map(_group, name))})"
    return cell(name) or "missing"
