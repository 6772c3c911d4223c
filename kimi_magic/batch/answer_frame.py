"""The frame that a map returns: a column for the answers, and for what they took."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from kimi_magic.batch.checkpoint import Answer
from kimi_magic.batch.questions import WHOLE
from kimi_magic.batch.rows import Rows, as_json
from kimi_magic.core.errors import KimiError
from kimi_magic.core.text import encodable_json

__all__ = ["OWN", "WRITERS", "Run", "make_frame", "write_frame"]

OWN = ("reasoning", "error", "usage", "attempts")
"""The columns beside the answers."""
LARGE = 2**63
WRITERS = {
    ".parquet": ("to_parquet", "write_parquet"),
    ".csv": ("to_csv", "write_csv"),
    ".jsonl": ("to_json", "write_ndjson"),
}


class Run(Protocol):
    """A run that is over; see `MapRun` for what its attributes hold."""

    why: str
    failure: BaseException | None
    keys: list[str]
    owners: dict[str, int]

    @property
    def done(self) -> int: ...
    def answer(self, place: int) -> Answer: ...
    def take(self, *, show: bool) -> None: ...


def make_frame(run: Run, rows: Rows, fields: list[str], *, flat: bool = False) -> Any:
    """Make the frame of a run's answers, like that of the rows.

    In a flat one, columns of more than plain values of one kind are JSON texts.
    """
    answers = [run.answer(place) for place in range(len(rows))]
    columns: dict[str, list[Any]] = {}
    if not fields:
        columns["text"] = [a.text if a.text or not a.error else None for a in answers]
    elif fields == [WHOLE]:
        columns[WHOLE] = [a.data for a in answers]
    else:
        for name in _names(fields, answers):
            columns[name] = [
                a.data.get(name) if isinstance(a.data, Mapping) else None for a in answers
            ]
    columns["reasoning"] = [a.reasoning or None for a in answers]
    columns["error"] = [a.error for a in answers]
    # Equal rows were asked once, in this run or in an earlier one: one of them has the usage.
    owners = dict(run.owners)
    own = [not key or owners.setdefault(key, place) == place for place, key in enumerate(run.keys)]
    columns["usage"] = [
        (a.usage or None) if mine else None for a, mine in zip(answers, own, strict=True)
    ]
    columns["attempts"] = [a.attempts if mine else 0 for a, mine in zip(answers, own, strict=True)]
    if flat:
        columns = {n: c if _is_plain(c) else as_json(c) for n, c in columns.items()}
    return rows.like(columns, texts=[*([] if fields else ["text"]), "reasoning", "error"])


def _is_plain(column: Iterable[Any]) -> bool:
    kinds = {type(value) for value in column if value is not None}
    if int in kinds and any(type(v) is int and not -LARGE <= v < LARGE for v in column):
        return False
    return len(kinds) < 2 and kinds <= {str, int, float, bool}


def _names(fields: list[str], answers: Iterable[Answer]) -> list[str]:
    """Return the fields as the answers name them: JSON Schema has the aliases of a model."""
    found = {name: None for a in answers if isinstance(a.data, Mapping) for name in a.data}
    return fields if found.keys() <= set(fields) else list(found)


def write_frame(frame: Any, file: Path, flat: Callable[[], Any]) -> None:
    """Write a frame, with the index of pandas where the format has room for it.

    A file that is there is replaced when the new one is whole. ``flat`` returns the frame for a
    format that cannot hold this one: Parquet has no columns of several kinds, for example.

    Raises
    ------
    KimiError
        It cannot be written.
    """
    new = file.with_name(f".{file.name}.{os.getpid()}.new")
    try:
        try:
            _write(frame, new, file.suffix)
        except (OSError, ImportError):
            raise
        except Exception:  # noqa: BLE001 - pyarrow, pandas and polars raise all kinds
            _write(flat(), new, file.suffix)
        new.replace(file)
    except Exception as error:  # noqa: BLE001 - pyarrow, pandas and polars raise all kinds
        said = str(error).partition("\n")[0]
        raise KimiError(f"{file} could not be written: {said}\nThe answers are kept.") from None
    finally:
        with suppress(OSError):
            new.unlink(missing_ok=True)


def _write(frame: Any, file: Path, suffix: str) -> None:
    of_pandas, of_polars = WRITERS[suffix]
    if hasattr(frame, "to_pylist"):
        _write_pyarrow(frame, file, suffix)
    elif hasattr(frame, of_polars):
        getattr(frame, of_polars)(file)
    elif suffix == ".jsonl":
        frame.to_json(file, orient="records", lines=True)
    else:
        getattr(frame, of_pandas)(file)


def _write_pyarrow(table: Any, file: Path, suffix: str) -> None:
    if suffix == ".parquet":
        from pyarrow import parquet  # type: ignore[import-untyped]

        parquet.write_table(table, file)
    elif suffix == ".csv":
        from pyarrow import csv

        csv.write_csv(table, file)
    else:
        lines = (encodable_json(row, default=str) + "\n" for row in table.to_pylist())
        with file.open("w", encoding="utf-8", newline="\n") as out:
            out.writelines(lines)
