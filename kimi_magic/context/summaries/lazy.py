"""What is a plan so far (of dask, polars, Spark, DuckDB, Ibis …): told, not computed."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from typing import Any

from kimi_magic.context.guard import ANYTHING
from kimi_magic.context.summaries.reprs import label
from kimi_magic.context.summaries.tables import dtype_name

__all__ = ["describe_lazy", "lazy_heading", "may_compute"]

MAX_COLUMNS = 60

# A class with one of the first and one of the second is such a plan. Reading its columns computes
# nothing; its repr and its length may.
_COMPUTES = ("compute", "collect", "execute", "explain")
_COLUMNS = ("collect_schema", "dtypes", "schema", "columns", "dtype")
# Its arrays are there, or are shown without being read.
_NOT_MEANT = ("xarray.",)


def may_compute(kind: type) -> bool:
    """Whether a class has a method that would compute what it stands for."""
    return any(hasattr(kind, name) for name in _COMPUTES)


def lazy_heading(value: Any) -> str | None:
    """Say that it is a plan, and of which library, if it is one."""
    kind = type(value)
    if not may_compute(kind) or not any(hasattr(kind, name) for name in _COLUMNS):
        return None
    if kind.__module__.startswith(_NOT_MEANT):
        return None
    return f"{kind.__module__.partition('.')[0]} {kind.__name__}, lazy: it was not computed"


def describe_lazy(value: Any) -> str | None:
    """Describe a lazy table or array by its columns or its shape."""
    heading = lazy_heading(value)
    if heading is None:
        return None
    with suppress(*ANYTHING):  # what is left must not be its repr
        kind = type(value)
        if not hasattr(kind, "dtype"):
            return f"{heading}\ncolumns: {_named(_columns(value))}"
        shape = "" if hasattr(kind, "columns") else f", shape {value.shape}"
        return f"{heading}{shape}, dtype {value.dtype}"
    return heading


def _named(columns: Iterable[tuple[object, object]]) -> str:
    found = list(islice(columns, MAX_COLUMNS + 1))
    named = [
        label(name) if dtype is None else f"{label(name)} ({dtype_name(dtype)})"
        for name, dtype in found[:MAX_COLUMNS]
    ]
    return ", ".join(named + ["…"][: len(found) - len(named)])


def _columns(value: Any) -> Iterable[tuple[object, object]]:
    """The names and dtypes, in whichever form the library has them."""
    for name in _COLUMNS:
        if not hasattr(type(value), name):
            continue
        found: Any = getattr(value, name)
        found = found() if callable(found) else found
        if hasattr(found, "items"):
            return found.items()  # type: ignore[no-any-return]
        entries = list(found)
        if name == "columns":
            return [(entry, None) for entry in entries]
        if all(isinstance(entry, tuple) for entry in entries):
            return entries
        if all(hasattr(entry, "name") for entry in entries):
            return [(entry.name, getattr(entry, "type", None)) for entry in entries]
        return zip(value.columns, entries, strict=False)
    return []
