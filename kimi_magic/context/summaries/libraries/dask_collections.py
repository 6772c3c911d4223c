"""Describe collections of Dask and frames of Spark: schema and partitions; nothing is computed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from typing import Any

from kimi_magic.context.summaries.detail import Detail
from kimi_magic.context.summaries.libraries.wording import (
    attribute,
    fitted_lines,
    is_number,
    listed,
    phrase,
)
from kimi_magic.context.summaries.reprs import label
from kimi_magic.context.summaries.tables import cell, dtype_name
from kimi_magic.context.walker import type_name
from kimi_magic.core.text import clip, count

__all__ = ["describe"]

NOT_COMPUTED = "lazy: it was not computed"
MOST_COLUMNS = 60


def describe(value: Any, limit: int, detail: Detail) -> str:
    if any(kind.__module__.startswith("pyspark.") for kind in type(value).__mro__):
        return fitted_lines(list(_spark(value)), limit)
    name = f"dask {type_name(value)}"
    if type_name(value).startswith("Delayed"):  # has an attribute of any name
        return f"dask Delayed, of {clip(str(value.key), 60)}, {NOT_COMPUTED}"
    if "GroupBy" in type_name(value):
        frame = describe(value.obj, limit, detail)
        by = attribute(value, "_by_columns") or attribute(value, "by")
        return f"{name} by {listed(by if isinstance(by, list) else [by])}, {NOT_COMPUTED}\n{frame}"
    partitions = attribute(value, "npartitions")
    parts = count(int(partitions), "partition") if is_number(partitions) else None
    if hasattr(type(value), "chunks"):
        return _array(value, name)
    lines = [phrase(name, parts, NOT_COMPUTED)]
    lines += _columns(value)
    if detail.values == "rows":
        lines += _divisions(value)
    return fitted_lines(lines, limit)


def _array(value: Any, name: str) -> str:
    sides = " × ".join(f"{max(side):,}" for side in value.chunks if side) or "one value"
    unknown = " (nan: not known before it is computed)" if any(map(_unknown, value.shape)) else ""
    shape = ", ".join("nan" if _unknown(side) else f"{side}" for side in value.shape)
    number = attribute(value, "npartitions")
    blocks = count(int(number), "chunk") if is_number(number) else "chunks"
    heading = f"{name}, shape ({shape}){unknown}, dtype {value.dtype}"
    return f"{heading}, {blocks} of {sides}, {NOT_COMPUTED}"


def _unknown(side: Any) -> bool:
    return isinstance(side, float) and math.isnan(side)


def _columns(value: Any) -> Iterator[str]:
    dtypes = attribute(value, "dtypes")
    if hasattr(dtypes, "items"):
        yield _named(list(dtypes.items()))
    elif (dtype := attribute(value, "dtype")) is not None:
        name = attribute(value, "name")
        kind = "index" if "Index" in type_name(value) else "column"
        yield f"{kind}{f' {label(name)}' if type(name) is str else ''} ({dtype_name(dtype)})"


def _named(columns: list[tuple[Any, Any]]) -> str:
    said = (f"{label(name)} ({dtype_name(dtype)})" for name, dtype in islice(columns, MOST_COLUMNS))
    text = listed(said, len(columns), most=MOST_COLUMNS, room=1200)
    return f"{count(len(columns), 'column')}: {text}"


def _divisions(value: Any) -> Iterator[str]:
    divisions = attribute(value, "divisions")
    if isinstance(divisions, tuple) and divisions and divisions[0] is not None:
        name = attribute(value, "index.name")
        of = f" {label(name)}" if name is not None else ""
        yield f"partitions by the index{of}, from {cell(divisions[0])} to {cell(divisions[-1])}"


def _spark(value: Any) -> Iterator[str]:
    # The number of partitions is not asked for: of a sorted frame that runs a job.
    streams = "streaming" if attribute(value, "isStreaming") else None
    yield phrase(f"pyspark {type_name(value)}", streams, NOT_COMPUTED)
    fields = attribute(value, "schema.fields")
    if fields is None:
        return
    columns = []
    for field in fields:
        told = attribute(field.dataType, "simpleString")
        kind = clip(told(), 60) if told is not None else type_name(field.dataType)
        columns.append((field.name, kind if field.nullable else f"{kind} not null"))
    yield _named(columns)
