"""The rows of a map: read from frames, columns and lists, and made into a frame like them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from kimi_magic.core.errors import KimiError
from kimi_magic.core.tabular import to_frame
from kimi_magic.core.text import encodable_json

__all__ = ["VALUE", "Rows", "as_json", "is_of"]

VALUE = "value"
"""The name of what is in a column or a list of plain values."""
AT_ONCE = 1000  # rows of a frame that are read together
WANTED = "kimi.map takes a frame or a column of pandas or polars, or a list of dicts or texts"


class Rows:
    """Rows as mappings from names to values, whatever holds them.

    Parameters
    ----------
    data : any
        A frame or a Series of pandas, polars or pyarrow, or an iterable of mappings or of texts.
        A Series or a list of plain values has one column, ``value``, and a Series with a name that
        as well.

    Raises
    ------
    KimiError
        It is none of these, or a frame in which a name occurs twice.
    """

    def __init__(self, data: Any) -> None:
        self._data = data
        if isinstance(data, str | bytes | Mapping):
            raise KimiError(f"{WANTED}; got a {type(data).__name__}.")
        self._frame, self._series = _with_narwhals(data)
        self._list: Sequence[Any] = ()
        if self._frame is None and self._series is None:
            if not isinstance(data, Iterable):
                raise KimiError(f"{WANTED}; got a {type(data).__name__}.")
            to_frame({})  # a frame can be made of the answers
            self._list = data if isinstance(data, list | tuple) else list(data)

    def __len__(self) -> int:
        for held in (self._frame, self._series):
            if held is not None:
                return len(held)
        return len(self._list)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        if self._frame is not None:
            for begin in range(0, len(self), AT_ONCE):
                yield from self._frame[begin : begin + AT_ONCE].rows(named=True)
        elif self._series is not None:
            name = self._series.name
            named = [VALUE, name] if isinstance(name, str) and name else [VALUE]
            for begin in range(0, len(self), AT_ONCE):
                for value in self._series[begin : begin + AT_ONCE].to_list():
                    yield dict.fromkeys(named, value)
        else:
            for item in self._list:
                yield item if isinstance(item, Mapping) else {VALUE: item}

    def like(self, columns: Mapping[str, Sequence[Any]], texts: Iterable[str]) -> Any:
        """Make a frame of the same library, with the same index where there is one.

        ``texts`` are columns of texts, which may hold nothing but None.
        """
        held = self._frame if self._frame is not None else self._series
        if held is None:
            return to_frame(columns, texts=texts)
        library = held.implementation
        if library.is_polars():
            return _in_polars(columns, texts)
        if library.is_pyarrow():
            return _in_pyarrow(columns, texts)
        if library.is_pandas():
            import pandas as pd

            index = self._data.index
            # A dict in the place of a column would be aligned with the index.
            made = {n: pd.Series(list(c), index=index) for n, c in columns.items()}
            return pd.DataFrame(made, index=index)
        return to_frame(columns, texts=texts)


def is_of(value: Any, library: str, *names: str) -> bool:
    """Return True for an instance of a library's classes; the library is not imported for that."""
    module = sys.modules.get(library)
    kinds = tuple(kind for name in names if isinstance(kind := getattr(module, name, None), type))
    return isinstance(value, kinds)


def _with_narwhals(data: Any) -> tuple[Any, Any]:
    """Return the data as a frame, or as a column, of narwhals, if it is one."""
    if isinstance(data, list | tuple):
        return None, None
    if not sys.modules.keys() & {"pandas", "polars", "pyarrow", "modin", "cudf"}:
        return None, None
    import narwhals as nw

    try:
        found: Any = nw.from_native(data, pass_through=True, allow_series=True)
    except nw.exceptions.DuplicateError as error:
        raise KimiError(
            f"Two columns of the frame have one name: rename one of them. {error}"
        ) from None
    if isinstance(found, nw.LazyFrame):
        raise KimiError("kimi.map takes frames that hold their rows: .collect() it first.")
    is_frame, is_series = isinstance(found, nw.DataFrame), isinstance(found, nw.Series)
    return found if is_frame else None, found if is_series else None


def _in_polars(columns: Mapping[str, Sequence[Any]], texts: Iterable[str]) -> Any:
    import polars as pl

    def column(name: str, values: Sequence[Any]) -> Any:
        is_text = name in texts
        kind = pl.String if is_text else None
        try:
            made = pl.Series(name, list(values), dtype=kind, strict=False)
        except OverflowError:  # of old versions, at integers beyond 64 bits
            return pl.Series(name, as_json(values), dtype=pl.String)
        others = {type(value) for value in values} - {str, type(None)}
        is_changed = made.null_count() > sum(value is None for value in values)
        if others and (is_changed or made.dtype in (pl.String, pl.Object)):  # of several kinds
            return pl.Series(name, as_json(values), dtype=pl.String)
        return made

    return pl.DataFrame([column(name, values) for name, values in columns.items()])


def _in_pyarrow(columns: Mapping[str, Sequence[Any]], texts: Iterable[str]) -> Any:
    import pyarrow as pa  # type: ignore[import-untyped]

    def column(name: str, values: Sequence[Any]) -> Any:
        try:
            return pa.array(list(values), type=pa.string() if name in texts else None)
        except (pa.ArrowException, OverflowError):  # of several kinds, or too large
            return pa.array(as_json(values), type=pa.string())

    return pa.table({name: column(name, values) for name, values in columns.items()})


def as_json(values: Iterable[Any]) -> list[str | None]:
    """Return the values of a column as JSON texts."""
    return [None if value is None else encodable_json(value, default=str) for value in values]
