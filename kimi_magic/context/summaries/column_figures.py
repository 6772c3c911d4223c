"""Figures of a column's values, and values as cells of a row.

A value is None where it is missing. NaN is a value, except where the library says otherwise, as
pandas does.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any

from kimi_magic.context.summaries.reprs import bounded_repr, label
from kimi_magic.context.walker import type_name
from kimi_magic.core.text import clip, count
from kimi_magic.core.time_limit import USER_ERRORS
from kimi_magic.secrets.fields import mask_before_cut

__all__ = ["MAX_CELL", "cell", "figures_of", "quoted"]

MAX_CELL = 60
MAX_FIGURES = 200
FEW = 5
MOST_KEYS = 12
PANDAS_SCALARS = ("Period", "Interval")


def figures_of(
    values: Sequence[Any],
    *,
    sampled: bool,
    missing: int | None = None,
    quotes: bool = True,
    counts: bool = False,
) -> str:
    """Describe values by their figures; texts are quoted among them with ``quotes``.

    With ``counts`` the figures are counts alone. ``missing`` is how many are missing of all, where
    ``values`` are a sample and that is known.
    """
    known = [value for value in values if value is not None]
    figures = []
    lost = len(values) - len(known)
    if missing:
        figures.append(f"{missing:,} missing of all")
    elif lost and missing is None:
        part = f"{100 * lost / len(values):.1f} %" if sampled else f"{lost:,}"
        figures.append(f"{part} missing")
    with suppress(*USER_ERRORS):  # a value's own hash may fail, and a number may be too large
        if known and counts:
            figures += [_distinct(known)]
        else:
            figures += _figures_of_kind(known, quotes=quotes) if known else []
    return clip(", ".join(figures), MAX_FIGURES)


def _distinct(known: list[Any]) -> str:
    distinct = len(set(known))
    return "all distinct" if distinct == len(known) else f"{distinct:,} distinct"


def _figures_of_kind(known: list[Any], *, quotes: bool) -> list[str]:
    kinds = set(map(type, known))
    if kinds == {bool}:
        return [f"{100 * sum(known) / len(known):.3g} % true"]
    if all(issubclass(kind, int | float | Decimal) for kind in kinds) and bool not in kinds:
        few = quotes and kinds == {int} and len(set(known)) <= FEW
        return _shares(known) if few else _quantities(known)
    if all(issubclass(kind, date | time | timedelta) for kind in kinds):
        return [f"{cell(min(known))} to {cell(max(known))}"]
    if len(kinds) == 1 and (pandas_kind := _of_pandas(known[0])):
        parts = [_distinct(known)] if pandas_kind == "Interval" else []
        return [*parts, f"{cell(min(known))} to {cell(max(known))}"]
    return _figures_of_others(known, kinds, quotes=quotes)


def _figures_of_others(known: list[Any], kinds: set[type], *, quotes: bool) -> list[str]:
    if all(issubclass(kind, dict) for kind in kinds):
        return [_keys(known, quotes=quotes)]
    try:
        return _shares(known) if quotes else [_distinct(known)]
    except TypeError:  # values without a hash, such as lists
        return [_lists(known)]


def _quantities(known: Sequence[Any]) -> list[str]:
    numbers = [float(number) for number in known]
    finite = sorted(number for number in numbers if math.isfinite(number))
    nans = sum(map(math.isnan, numbers))
    infinite = len(numbers) - len(finite) - nans
    parts = [f"{nans:,} NaN"] if nans else []
    parts += [f"{infinite:,} infinite"] if infinite else []
    if not finite:
        return parts
    if finite[0] == finite[-1]:
        return [*parts, f"always {_number(finite[0])}"]
    last = len(finite) - 1
    quartiles = " / ".join(_number(finite[last * quarter // 4]) for quarter in (1, 2, 3))
    parts += [f"{_number(finite[0])} to {_number(finite[-1])}", f"quartiles {quartiles}"]
    with suppress(OverflowError):
        mean = math.fsum(finite) / len(finite)
        squares = math.fsum((number - mean) * (number - mean) for number in finite)
        parts += [f"mean {mean:.4g}", f"std {math.sqrt(squares / last):.4g}"]
    return parts


def _number(number: float) -> str:
    return f"{number:.0f}" if number.is_integer() and abs(number) < 1e15 else f"{number:.5g}"


def _shares(known: list[Any]) -> list[str]:
    """List the most frequent values with their shares."""
    counted = Counter(known)
    if len(counted) == 1:
        return [f"always {cell(known[0])}"]
    parts = ["all distinct"]
    if len(counted) < len(known):
        shares = (
            f"{cell(value)} {_percent(times, known)}"
            for value, times in counted.most_common(FEW if len(counted) <= FEW else 3)
        )
        parts = [f"{len(counted):,} distinct: {', '.join(shares)}"]
    if all(type(value) is str for value in known):
        length = sum(map(len, known)) / len(known)
        parts += [f"{length:.0f} characters on average"] if length > MAX_CELL / 2 else []
    return parts


def _percent(times: int, known: Sequence[object]) -> str:
    return f"{100 * times / len(known):.3g} %"


def _keys(known: Sequence[dict[Any, Any]], *, quotes: bool) -> str:
    """List the keys of dicts, and the share of the dicts that have them where not all do.

    A key may be a text like any other.
    """
    counted = Counter[Any]()
    for value in known:
        counted.update(dict.keys(value))
    if not quotes or not counted:
        return f"dicts of {count(len(counted), 'key')}"
    shown = (
        label(key) if times == len(known) else f"{label(key)} ({_percent(times, known)})"
        for key, times in counted.most_common(MOST_KEYS)
    )
    more = f", … {len(counted) - MOST_KEYS:,} more" if len(counted) > MOST_KEYS else ""
    return f"dicts with {'key' if len(counted) == 1 else 'keys'} {', '.join(shown)}{more}"


def _lists(known: Sequence[Any]) -> str:
    """Describe containers by their types, their sizes and the types of their members."""
    kinds = sorted({type_name(value) for value in known})
    if not all(issubclass(type(value), list | tuple) for value in known):
        return f"of {' | '.join(kinds)}"
    sizes = [len(value) for value in known]
    members = Counter(type_name(member) for value in known for member in value[:FEW])
    size = count(sizes[0], "item")
    if min(sizes) < max(sizes):
        size = f"{min(sizes):,} to {count(max(sizes), 'item')}"
    inner = f" ({' | '.join(name for name, _ in members.most_common(3))})" if members else ""
    return f"{' | '.join(f'{kind}s' for kind in kinds)} of {size}{inner}"


def _of_pandas(value: object) -> str:
    """Name the kind of one of pandas' own scalars whose text says all; "" for anything else."""
    kind = type(value)
    named = kind.__module__.partition(".")[0] == "pandas" and kind.__name__ in PANDAS_SCALARS
    return kind.__name__ if named else ""


def cell(value: object) -> str:
    """Write a value of a row; a missing one is empty."""
    if value is None:
        return ""
    kind = type(value)
    if issubclass(kind, str):
        return quoted(clip(mask_before_cut(str.__str__(value), MAX_CELL), MAX_CELL)) or '""'
    if issubclass(kind, float):
        return f"{float.__float__(value):.6g}"  # type: ignore[arg-type]
    if isinstance(value, date | time | timedelta | Decimal) or _of_pandas(value):
        return quoted(str(value).removesuffix(" 00:00:00"))
    return quoted(bounded_repr(value, MAX_CELL))


def quoted(text: str) -> str:
    """Quote a text that would break the line, count as several cells, or lose its blanks."""
    if any(character in text for character in ',"\n\r') or text != text.strip():
        return json.dumps(text, ensure_ascii=False)
    return text
