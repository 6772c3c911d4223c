"""The detail of a summary: with values, with figures alone, or with neither."""

from __future__ import annotations

from dataclasses import dataclass
from types import FunctionType
from typing import Any

from kimi_magic.context.summaries.reprs import describe_members
from kimi_magic.context.walker import type_name
from kimi_magic.core.text import count
from kimi_magic.core.time_limit import USER_ERRORS

__all__ = ["ROWS", "Detail", "Summary", "describe_type"]

MOST_ROWS = 10  # of a table


@dataclass(frozen=True, slots=True)
class Detail:
    """The detail that a summary may tell of a value.

    ``values`` is ``rows`` for all, ``figures`` for sums and counts of tables and arrays but no
    value of a text, ``schema`` for names, types and counts. ``rows`` is how many rows of a table
    are shown at most.
    """

    values: str = "rows"
    rows: int = MOST_ROWS

    @classmethod
    def of(cls, values: str, rows: int | None) -> Detail:
        """Return the detail of a setting and of the number of rows that a request wants."""
        if rows == 0 and values == "rows":
            return cls("schema")
        return cls(values, rows or MOST_ROWS)

    @property
    def note(self) -> str:
        """A few words on what is left out; "" where nothing is."""
        return {"figures": "figures only", "schema": "types only"}.get(self.values, "")


ROWS = Detail()


@dataclass(frozen=True, slots=True)
class Summary:
    """A summary, with the rows of a table that it shows, and columns that look personal."""

    text: str
    shown: int | None = None
    of: int | None = None
    personal: tuple[tuple[str, str], ...] = ()


def describe_type(value: Any) -> str:
    """Describe a value without any value: its type, the size and the types of its members."""
    kind = type(value)
    if issubclass(kind, str | bytes | bytearray):
        of = "characters" if issubclass(kind, str) else "bytes"
        return f"{type_name(value)} of {kind.__len__(value):,} {of}"
    if members := describe_members(value):
        return members
    if issubclass(kind, FunctionType):  # isinstance would ask `value.__class__`
        code = value.__code__
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        return f"function {value.__name__}, parameters: {', '.join(names) or 'none'}"
    if issubclass(kind, type):
        return f"class {vars(type)['__name__'].__get__(value)}"
    text = f"{type_name(value)} object"
    try:
        if hasattr(kind, "__len__"):
            text += f", {count(len(value), 'item')}"
    except USER_ERRORS:
        pass
    return text
