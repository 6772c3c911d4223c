"""Tables of pandas, polars and Arrow, and of whatever else speaks a dataframe protocol.

Nothing is imported for it: a value that is a table has brought its library along.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from kimi_magic.context.guard import ANYTHING
from kimi_magic.context.summaries.interchange import table_of_interchange
from kimi_magic.context.summaries.lazy import may_compute
from kimi_magic.context.summaries.reprs import label
from kimi_magic.context.summaries.tables import Columns, Rows, Table, cell

__all__ = ["as_table"]


def as_table(value: object) -> Table | None:
    """See a value as a table, if it is one."""
    for adapt in (_pandas, _polars, _arrow, _speaks_interchange, _speaks_arrow):
        table: Table | None = adapt(value)
        if table is not None:
            return table
    return None


def _class(library: str, name: str) -> Any:
    """A class of a library that is loaded; else one that has no instances, to ``isinstance``."""
    return getattr(sys.modules.get(library), name, ())


def _pandas(value: Any) -> Table | None:
    if isinstance(value, _class("pandas", "Series")):
        name = "" if value.name is None else f" {label(value.name)}"
        title = f"{type(value).__name__}{name}"
        return _of_pandas(value.to_frame(), title, [(value.name, value.dtype)], single=True)
    if isinstance(value, _class("pandas", "DataFrame")):
        columns = list(zip(value.columns, value.dtypes, strict=True))
        return _of_pandas(value, type(value).__name__, columns)
    return None


def _of_pandas(frame: Any, title: str, columns: Columns, *, single: bool = False) -> Table:
    index = frame.index
    named = ", ".join(label(name) for name in index.names if name is not None)
    notes: tuple[str, ...] = ()
    if len(frame) and (named or not isinstance(index, _class("pandas", "RangeIndex"))):
        said = f"index: {named}, " if named else "index: "
        notes = (f"{said}from {cell(index[0])} to {cell(index[-1])}",)

    def take(positions: Sequence[int], width: int) -> Rows:
        part = frame.iloc[:, :width].iloc[list(positions)]
        columns = (part.iloc[:, i] for i in range(part.shape[1]))
        return Rows(part.index.tolist(), [_known(column) for column in columns])

    return Table(title, len(frame), columns, take, named, notes, single)


def _known(column: Any) -> list[object]:
    values: list[object] = column.tolist()
    with suppress(*ANYTHING):  # of values that cannot be compared
        missing = column.isna().tolist()
        return [None if lost else value for value, lost in zip(values, missing, strict=True)]
    return values


def _polars(value: Any) -> Table | None:
    if isinstance(value, _class("polars", "Series")):
        title = f"polars Series {value.name}".rstrip()
        return _column(title, value.dtype, len(value), lambda at: value[at].to_list())
    if isinstance(value, _class("polars", "DataFrame")):

        def take(positions: Sequence[int], width: int) -> Rows:
            part = value[list(positions), :width]
            return Rows(positions, [column.to_list() for column in part.get_columns()])

        columns = list(zip(value.columns, value.dtypes, strict=True))
        return Table("polars DataFrame", value.height, columns, take)
    return None


def _arrow(value: Any) -> Table | None:
    if isinstance(value, _class("pyarrow", "RecordBatch")):
        value = _class("pyarrow", "Table").from_batches([value])
    if isinstance(value, (_class("pyarrow", "Array"), _class("pyarrow", "ChunkedArray"))):
        title = f"pyarrow {type(value).__name__}"
        return _column(title, value.type, len(value), lambda at: _taken(value, at))
    if isinstance(value, _class("pyarrow", "Table")):

        def take(positions: Sequence[int], width: int) -> Rows:
            return Rows(positions, [_taken(value.column(i), positions) for i in range(width)])

        columns = [(field.name, field.type) for field in value.schema]
        return Table("pyarrow Table", value.num_rows, columns, take)
    return None


def _taken(column: Any, positions: Sequence[int]) -> list[Any]:
    with suppress(*ANYTHING):  # not every type can be taken, such as views of strings
        taken: list[Any] = column.take(list(positions)).to_pylist()
        return taken
    return [column[position].as_py() for position in positions]


def _column(title: str, dtype: object, rows: int, take: Callable[[list[int]], list[Any]]) -> Table:
    """A column of its own, whose rows have no labels but their positions."""

    def rows_at(positions: Sequence[int], _width: int) -> Rows:
        return Rows(positions, [take(list(positions))])

    return Table(title, rows, [("", dtype)], rows_at, single=True)


def _speaks_interchange(value: Any) -> Table | None:
    if not hasattr(type(value), "__dataframe__") or may_compute(type(value)):
        return None
    return table_of_interchange(value.__dataframe__(), type(value).__name__)


def _speaks_arrow(value: Any) -> Table | None:
    """Let a library that is there read what speaks Arrow's C stream interface.

    One without a length may be a stream that can be read only once.
    """
    kind = type(value)
    if not (hasattr(kind, "__arrow_c_stream__") and hasattr(kind, "__len__")) or may_compute(kind):
        return None
    read = _class("pyarrow", "table") or _class("polars", "DataFrame")
    table = as_table(read(value)) if read else None
    return table and Table(kind.__name__, table.rows, table.columns, table.take)
