"""See frames of any library as tables, and tell lazy ones from those that hold their data.

Eager frames are read through narwhals, which imports no frame library: a value that is a frame has
brought its own along. Lazy ones (dask, polars, Spark, DuckDB, Ibis …) are only named with their
columns. They are recognised by their methods: this covers libraries and arrays that narwhals does
not know, and keeps each library's own names of types.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from kimi_magic.context.summaries.dtypes import (
    density,
    is_sparse,
    labels_at,
    level_counts,
    missing_in,
    remark_on,
    shown_dtype,
)
from kimi_magic.context.summaries.reprs import label
from kimi_magic.context.summaries.tables import Rows, Table, cell, dtype_name
from kimi_magic.core.time_limit import USER_ERRORS

__all__ = ["as_table", "describe_lazy", "lazy_heading", "load_reader"]

MAX_COLUMNS = 60
MOST_SPARSE = 10  # columns with figures for each

# Every frame and column that narwhals reads has one of these, and few other objects do.
_PROTOCOLS = (
    "__arrow_c_stream__",
    "__arrow_c_array__",
    "__dataframe__",
    "__narwhals_dataframe__",
    "__narwhals_series__",
)
_LIBRARIES = {"pandas", "geopandas", "polars", "pyarrow", "modin", "cudf"}

# A class with one of the first and one of the second is lazy. Reading its columns computes
# nothing; its repr and its length may.
_COMPUTES = ("compute", "collect", "execute", "explain")
_COLUMNS = ("collect_schema", "dtypes", "schema", "columns", "dtype")
# Its arrays hold their data, or have a repr that does not read them.
_NOT_LAZY = ("xarray.",)


def load_reader() -> None:
    """Import narwhals where there may be frames; slow machines need longer than a time limit."""
    if sys.modules.keys() & _LIBRARIES:
        import narwhals  # noqa: F401


def as_table(value: Any) -> Table | None:
    """See a value as a table, if it is a frame or a column that holds its data."""
    kind = type(value)
    # A Series of pandas 2.2 or polars 1.0 has no protocol.
    known = kind.__module__.partition(".")[0] in _LIBRARIES
    if not known and not any(hasattr(kind, name) for name in _PROTOCOLS):
        return None
    import narwhals as nw

    arrow: Any = sys.modules.get("pyarrow")
    if issubclass(kind, getattr(arrow, "RecordBatch", ())):
        return as_table(arrow.Table.from_batches([value]))
    if issubclass(kind, getattr(arrow, "Array", ())):
        value = arrow.chunked_array([value])
    names: list[Any] | None = None
    try:
        frame: Any = nw.from_native(value, pass_through=True, allow_series=True)
    except nw.exceptions.DuplicateError:
        names, value = _numbered(value)
        frame = nw.from_native(value)
    if isinstance(frame, nw.Series):
        return _column(frame, kind.__name__)
    if isinstance(frame, nw.DataFrame):
        return _frame(frame, _of_library(frame, kind.__name__), names)
    backend: Any = arrow or sys.modules.get("polars")
    # Without a length it may be a stream that can be read only once.
    reads = hasattr(kind, "__arrow_c_stream__") and hasattr(kind, "__len__") and backend
    if not reads or _computes(kind):
        return None
    return _frame(nw.DataFrame.from_arrow(value, backend=backend), kind.__name__)


def _numbered(frame: Any) -> tuple[list[Any], Any]:
    """Return a frame's names, and the frame with numbers for names.

    narwhals refuses a frame in which a name occurs twice.
    """
    if hasattr(frame, "rename_columns"):
        names = frame.column_names
        return names, frame.rename_columns([str(n) for n in range(len(names))])
    names = list(frame.columns)
    frame = frame.copy(deep=False)
    frame.columns = range(len(names))
    return names, frame


def _of_library(frame: Any, name: str) -> str:
    """Name a kind of frame after its library; pandas' go without."""
    implementation = frame.implementation
    return name if implementation.is_pandas() else f"{implementation.value} {name}"


def _frame(frame: Any, title: str, names: Sequence[object] | None = None) -> Table:
    native = frame.to_native()
    dtypes = list(native.dtypes if hasattr(native, "dtypes") else native.schema.types)
    # pandas names the axis of the columns where their labels come from the data: in a pivot table.
    axis = getattr(getattr(native, "columns", None), "names", ())
    of = ", ".join(label(name) for name in axis if name is not None)
    columns = list(zip(names or frame.columns, dtypes, strict=True))
    return _table(frame, title, columns, labels_of=of)


def _column(series: Any, name: str) -> Table:
    native = series.to_native()
    own = "" if series.name in (None, "") else label(series.name)
    dtype = native.dtype if hasattr(native, "dtype") else native.type
    return _table(series, _of_library(series, name), [(series.name, dtype)], single=True, name=own)


def _table(
    data: Any,
    title: str,
    columns: Sequence[tuple[object, object]],
    *,
    single: bool = False,
    name: str = "",
    labels_of: str = "",
) -> Table:
    import narwhals as nw

    index: Any = nw.maybe_get_index(data)  # only pandas and its kin have one
    names = () if index is None else index.names
    named = ", ".join(label(name) for name in names if name is not None)
    notes: tuple[str, ...] = ()
    if names and len(index) and (named or type(index).__name__ != "RangeIndex"):
        heading = f"index: {named}, " if named else "index: "
        notes = (f"{heading}from {cell(index[0])} to {cell(index[-1])}{_frequency(index)}",)

    def take(positions: Sequence[int], width: int) -> Rows:
        at = list(positions)
        labels = at if index is None else labels_at(index, at)
        part = data if single else data[:, :width]
        try:
            part = part[at]
        except USER_ERRORS:  # pyarrow cannot take from every type, such as views of strings
            return Rows(labels, [[column[i] for i in at] for column in _columns(part)])
        return Rows(labels, [_values(column) for column in _columns(part)])

    def column(at: int) -> Any:
        return data if single else data[:, at]

    dtypes = [dtype for _, dtype in columns]
    native = data.to_native()
    facts = [
        level_counts(index, "index levels"),
        level_counts(getattr(native, "columns", None), "levels of the columns"),
        density(native, dtypes),
    ]
    return Table(
        title,
        len(data),
        [(name, shown_dtype(dtype)) for name, dtype in columns],
        take,
        named,
        notes,
        single,
        name,
        labels_of,
        tuple(filter(None, facts)),
        lambda width: missing_in(map(column, range(width)), dtypes, len(data)),
        lambda at, quotes: remark_on(column(at).to_native(), dtypes[at], quotes=quotes),
        alike=len(columns) > MOST_SPARSE and all(map(is_sparse, dtypes)),
    )


def _frequency(index: Any) -> str:
    frequency = getattr(index, "freqstr", None)
    return f", frequency {frequency}" if frequency else ""


def _columns(data: Any) -> Iterable[Any]:
    return data.iter_columns() if hasattr(data, "iter_columns") else [data]


def _values(column: Any) -> list[object]:
    values: list[object] = column.to_list()
    with suppress(*USER_ERRORS):  # of values that cannot be compared
        missing = column.is_null().to_list()
        return [None if lost else value for value, lost in zip(values, missing, strict=True)]
    return values


def lazy_heading(value: Any) -> str | None:
    """Name a lazy value with its library; return None for one that is not lazy."""
    kind = type(value)
    if not _computes(kind) or not any(hasattr(kind, name) for name in _COLUMNS):
        return None
    if kind.__module__.startswith(_NOT_LAZY):
        return None
    return f"{kind.__module__.partition('.')[0]} {kind.__name__}, lazy: it was not computed"


def _computes(kind: type) -> bool:
    """Return True if a class has a method that would compute what its objects stand for."""
    return any(hasattr(kind, name) for name in _COMPUTES)


def describe_lazy(value: Any) -> str | None:
    """Describe a lazy frame or array by its columns or its shape."""
    heading = lazy_heading(value)
    if heading is None:
        return None
    with suppress(*USER_ERRORS):  # the heading must do: the repr may compute
        kind = type(value)
        if not hasattr(kind, "dtype"):
            return f"{heading}\ncolumns: {_named(_lazy_columns(value))}"
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


def _lazy_columns(value: Any) -> Iterable[tuple[object, object]]:
    """Read the names and dtypes, in whichever form the library has them."""
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
