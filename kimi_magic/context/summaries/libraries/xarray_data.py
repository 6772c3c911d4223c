"""Describe xarray's arrays and datasets: dimensions, coordinates with ranges; lazy stays lazy."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from kimi_magic.context.summaries.detail import Detail
from kimi_magic.context.summaries.libraries.wording import (
    attribute,
    fitted_lines,
    listed,
    phrase,
    span,
    written,
)
from kimi_magic.context.summaries.reprs import bounded_repr, label
from kimi_magic.context.walker import type_name
from kimi_magic.core.text import count

__all__ = ["describe"]

MOST_MEMBERS = 20
MOST_ATTRIBUTES = 8
FEW = 6  # values that are all told
FEWEST = 5  # of which figures are told alone


def describe(value: Any, limit: int, detail: Detail) -> str | None:
    """Describe a DataArray, a Dataset or a tree of them."""
    if hasattr(type(value), "data_vars") and hasattr(type(value), "children"):
        return fitted_lines(list(_tree(value)), limit)
    if hasattr(type(value), "data_vars"):
        lines = [f"xarray {type_name(value)}, {_sizes(value)}, {_megabytes(value.nbytes)}"]
        lines += [
            f"- {_variable(name, one, detail)}"
            for name, one in islice(value.data_vars.items(), MOST_MEMBERS)
        ]
        if (left := len(value.data_vars) - MOST_MEMBERS) > 0:
            lines.append(f"- … {count(left, 'more variable')}")
    else:
        lines = [f"xarray {_variable(type_name(value), value, detail)}"]
        if value.name is not None:
            lines[0] += f", named {label(value.name)}"
    lines += _coordinates(value, detail)
    lines += _attributes(value, detail)
    return fitted_lines(lines, limit)


def _sizes(value: Any) -> str:
    return ", ".join(f"{label(name)} {size:,}" for name, size in value.sizes.items()) or "scalar"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else count(size, "byte")


def _variable(name: Any, one: Any, detail: Detail) -> str:
    text = f"{label(name)} ({_sizes(one)}) {one.dtype}"
    if how := _lazy(one):
        return f"{text}, {how}"
    if detail.values == "schema" or (detail.values == "figures" and one.size < FEWEST):
        return text
    return phrase(text, _figures(one, detail), _unit(one, detail))


def _lazy(one: Any) -> str:
    """Tell how a variable is lazy; "" for one in memory."""
    if one.chunks is not None:
        chunks = " × ".join(f"{max(sides):,}" for sides in one.chunks)
        return f"not computed, dask chunks of {chunks}"
    in_memory = attribute(one, "variable._in_memory", attribute(one, "_in_memory", default=True))
    return "" if in_memory else "not read from its file yet"


def _figures(one: Any, detail: Detail) -> str:
    data = attribute(one, "variable.data")
    if data is None or not one.size:
        return ""
    if one.size <= FEW and detail.values == "rows":
        # `tolist` makes integers of times.
        items = data.ravel().tolist() if data.dtype.kind in "biufUSO" else data.ravel()
        return listed((label(written(item), 30) for item in items), one.size)
    return span(data, texts=detail.values == "rows", mean=True)


def _unit(one: Any, detail: Detail) -> str:
    unit = one.attrs.get("units")
    return f"in {label(unit, 30)}" if isinstance(unit, str) and detail.values == "rows" else ""


def _coordinates(value: Any, detail: Detail) -> Iterator[str]:
    coords = value.coords
    if not len(coords):
        return
    said = []
    for name, one in islice(coords.items(), MOST_MEMBERS):
        text = label(name)
        if tuple(one.dims) != (name,):
            text += f" ({', '.join(map(str, one.dims)) or 'scalar'})"
        if how := _lazy(one):
            said.append(f"{text} {how}")
            continue
        about = ""
        if detail.values != "schema" and (detail.values == "rows" or one.size >= FEWEST):
            about = _figures(one, detail).partition(", mean")[0]
        said.append(f"{text} {about or one.dtype}")
    more = f"; … {len(coords) - len(said):,} more" if len(coords) > len(said) else ""
    yield f"coordinates: {'; '.join(said)}{more}"
    without = [name for name in value.dims if name not in coords]
    if without:
        yield f"without coordinates: {listed(without)}"


def _attributes(value: Any, detail: Detail) -> Iterator[str]:
    attrs = value.attrs
    if not attrs:
        return
    shown = detail.values == "rows"
    said = [
        f"{label(key)}={bounded_repr(one, 60)}" if shown else label(key)
        for key, one in islice(attrs.items(), MOST_ATTRIBUTES)
    ]
    yield f"attributes: {listed(said, len(attrs), room=500)}"


def _tree(value: Any) -> Iterator[str]:
    yield f"xarray {type_name(value)} of {count(sum(1 for _ in value.subtree), 'node')}"
    for node in islice(value.subtree, MOST_MEMBERS):
        names = list(node.data_vars)
        yield f"- {node.path}: {_sizes(node)}; {listed(names) if names else 'no variables'}"
