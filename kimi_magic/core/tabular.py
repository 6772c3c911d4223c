"""Turn records (models, dataclasses or dicts) into tables and frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kimi_magic.core.errors import KimiError

__all__ = ["to_frame", "to_json", "to_pandas", "to_table"]


def to_json(value: Any) -> Any:
    """Convert to JSON types; models and dataclasses become objects, what JSON lacks text."""
    from pydantic_core import to_jsonable_python

    return to_jsonable_python(value, by_alias=False, bytes_mode="base64", fallback=str)


def to_table(value: Any) -> tuple[list[str], list[list[Any]]]:
    """Arrange one record or a list of them as columns, in order of appearance, and rows.

    A row has None where its record lacks a column; nested values are dicts and lists.
    """
    from pydantic import TypeAdapter

    plain = TypeAdapter(Any).dump_python(value, warnings=False)
    records = plain if isinstance(plain, list) else [plain]
    for record in records:
        if not isinstance(record, Mapping):
            kind = f"a list with a {type(record).__name__}" if records is plain else "no record"
            raise KimiError(f"Only records make a table: this is {kind} ({record!r:.40}).")
    columns = list(dict.fromkeys(name for record in records for name in record))
    return columns, [[record.get(name) for name in columns] for record in records]


def to_pandas(value: Any) -> Any:
    """Convert records to a ``pandas.DataFrame``, one row each."""
    columns, rows = to_table(value)
    try:
        import pandas as pd
    except ImportError:
        raise KimiError(
            "pandas is not installed: install it with `pip install pandas`, or take reply.data."
        ) from None
    return pd.DataFrame(rows, columns=columns)


def to_frame(
    columns: Mapping[str, Sequence[Any]], *, numbers: Iterable[str] = (), texts: Iterable[str] = ()
) -> Any:
    """Make a frame of columns: of pandas or, where that is not installed, of polars.

    ``numbers`` and ``texts`` are columns of that type that may hold None, or nothing else.

    Raises
    ------
    KimiError
        Neither is installed.
    """
    try:
        import pandas as pd
    except ImportError:
        try:
            import polars as pl
        except ImportError:
            raise KimiError(
                "A frame needs pandas or polars: install one with `pip install pandas`."
            ) from None
        kinds = {**dict.fromkeys(numbers, pl.Float64), **dict.fromkeys(texts, pl.String)}
        return pl.DataFrame(columns, schema_overrides=kinds)
    return pd.DataFrame(columns).astype(dict.fromkeys(numbers, float))
