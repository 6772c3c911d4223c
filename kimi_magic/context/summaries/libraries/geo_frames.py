"""Describe frames of GeoPandas: reference system, kinds of geometry, bounds, then the table."""

from __future__ import annotations

import sys
from typing import Any

from kimi_magic.context.summaries.detail import Detail, Summary
from kimi_magic.context.summaries.frames import as_table
from kimi_magic.context.summaries.libraries.wording import attribute, number, phrase
from kimi_magic.context.summaries.tables import heading, table_summary
from kimi_magic.context.walker import type_name
from kimi_magic.core.sampling import positions_at_random
from kimi_magic.core.text import clip, count

__all__ = ["describe"]

SAMPLE = 50_000  # geometries that are looked at
FEWEST = 5  # below, the bounds would be as good as the geometries


def describe(value: Any, limit: int, detail: Detail) -> Summary | str | None:
    """Describe a GeoDataFrame, a GeoSeries or a geometry of shapely."""
    if type(value).__module__.startswith("shapely."):
        return _geometry(value, limit, detail)
    table = as_table(value)
    if table is None:
        return None
    geometry = attribute(value, "geometry")
    about = "no active geometry column" if geometry is None else _about(geometry, detail)
    found = table_summary(table, limit - len(about) - 1, detail)
    first = heading(table)
    rest = found.text.removeprefix(first)
    return Summary(f"{first}\n{about}{rest}", found.shown, found.of, found.personal)


def _about(geometry: Any, detail: Detail) -> str:
    name = attribute(geometry, "name")
    crs = attribute(geometry, "crs")
    sampled = len(geometry) > SAMPLE
    some = geometry.iloc[positions_at_random(0, len(geometry), SAMPLE)] if sampled else geometry
    kinds = some.geom_type.value_counts(dropna=True)
    missing = int(some.isna().sum())
    empty = int(some.is_empty.sum())
    of = phrase(
        *(f"{n:,} {kind}" for kind, n in kinds.items()),
        f"{missing:,} missing" if missing else None,
        f"{empty:,} empty" if empty else None,
    )
    parts = [f"geometry «{name}»" if isinstance(name, str) else "geometry", _crs(crs), of]
    if detail.values == "rows" or (detail.values == "figures" and len(geometry) >= FEWEST):
        parts.append(_bounds(some.total_bounds))
    note = f" (of {SAMPLE:,} at random)" if sampled else ""
    return f"{'; '.join(filter(None, parts))}{note}"


def _crs(crs: Any) -> str:
    if crs is None:
        return "no reference system (CRS)"
    units = {axis.unit_name for axis in attribute(crs, "axis_info") or ()}
    code = attribute(crs, "to_authority")
    found = code() if code is not None else None
    named = f"{':'.join(found)} " if found else ""
    unit = f" in {units.pop()}s" if len(units) == 1 else ""
    return f"CRS {named}{clip(str(crs.name), 60)}{unit}"


def _bounds(bounds: Any) -> str:
    left, low, right, high = (number(one, 6) for one in bounds)
    return "" if left == "nan" else f"x {left} to {right}, y {low} to {high}"


def _geometry(value: Any, limit: int, detail: Detail) -> str:
    shapely: Any = sys.modules["shapely"]
    points = int(shapely.get_num_coordinates(value))
    text = phrase(f"shapely {type_name(value)}", count(points, "point"))
    parts = int(shapely.get_num_geometries(value))
    if parts != 1:
        text += f", {count(parts, 'part')}"
    if detail.values != "rows" or value.is_empty:
        return f"{text}, empty" if value.is_empty else text
    if points <= 12:
        return clip(f"{text}: {value.wkt}", limit)
    size = phrase(
        f"area {number(value.area)}" if value.area else None, f"length {number(value.length)}"
    )
    return f"{text}, {_bounds(value.bounds)}, {size}"
