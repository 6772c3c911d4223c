"""What a call gave → bounded text for the model."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from itertools import islice
from pathlib import PurePath
from typing import Any
from uuid import UUID

from kimi_magic.context.summaries.reprs import bounded_repr
from kimi_magic.context.summaries.summary import summarize
from kimi_magic.core.messages import Output
from kimi_magic.core.text import cut
from kimi_magic.tools.invocation import MAX_ITEMS, Drained

__all__ = ["compose", "encodable", "is_image", "to_text"]

MAX_DEPTH = 30
MAX_BITS = 10_000
MAX_KEY = 60
MEMBER = 30
LEAF_TOKENS = 100
HINT = "call again for a smaller part to see the rest"
LEAST = 200
MAX_DISPLAYS = 5
MAX_DISPLAY = 1000

_SCALARS = (Decimal, Fraction, date, time, timedelta, UUID, PurePath)
_UNKNOWN = object()


def compose(text: str, printed: str, displays: Sequence[Output], max_chars: int) -> str:
    """Tell the model what a call gave, in ``max_chars`` characters where that is not too few.

    Parameters
    ----------
    text : str
        What it gave; "" for nothing.
    printed : str
        What it printed.
    displays : sequence of Output
        What it displayed.
    """
    max_chars = max(max_chars, LEAST)
    said = [text, *map(_display, displays[:MAX_DISPLAYS])]
    if len(displays) > MAX_DISPLAYS:
        said.append(f"{len(displays) - MAX_DISPLAYS:,} more outputs were shown to the user.")
    told = "\n\n".join(filter(None, said))
    if not printed.strip():
        return cut(encodable(told), max_chars, HINT)
    # What was printed gives way, but for a quarter of the room.
    title = "\n\nPrinted:\n"
    least = min(max_chars // 4, len(title) + len(printed))
    told = cut(encodable(told), max_chars - least, HINT)
    room = max(max_chars - len(told), least) - len(title)
    return f"{told}{title}{cut(encodable(printed.strip()), room, HINT)}".lstrip()


def to_text(value: object, max_chars: int) -> str:
    """Write a value for the model: a str as it is, JSON where it is JSON, else its summary."""
    max_chars = max(max_chars, LEAST)
    if isinstance(value, str) and not hasattr(type(value), "_repr_llm_"):
        return cut(encodable(_plain_str(value)), max_chars, HINT)
    note = _closed_early(value)
    room = max_chars - len(note)
    whole = _Plain(room, member=0)
    found = whole.convert(value)
    if found is _UNKNOWN:
        return encodable(summarize(value, tokens=max(max_chars // 4, 1)))
    text = _dumps(found)
    if whole.trimmed or len(text) > room:
        # Once more, with room for what says how much is missing.
        trimmed = _Plain(room * 4 // 5 - len(HINT), member=MEMBER)
        text = f"{_dumps(trimmed.convert(value))}\n[Cut; {HINT}]"
    return cut(encodable(f"{note}{text}"), max_chars, HINT)


def _closed_early(value: object) -> str:
    if not isinstance(value, Drained) or value.complete:
        return ""
    return f"The first {MAX_ITEMS:,} items; there are more, the generator was closed.\n"


def _dumps(found: object) -> str:
    if isinstance(found, str):
        return found
    return json.dumps(found, ensure_ascii=False, separators=(",", ":"))


def encodable(text: str) -> str:
    """Write lone surrogates, which UTF-8 has no bytes for, as their escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _plain_str(value: str) -> str:
    """The text of a str, whatever a subclass makes of ``str()``."""
    return str.__str__(value)


class _Plain:
    """Values → what JSON can carry, about ``room`` characters of it.

    Of a container that does not fit the first items stay, and a text that says how many more
    there are.

    Parameters
    ----------
    room : int
        Characters.
    member : int
        Characters that are kept for each of an object's later members, so that all are seen.

    Attributes
    ----------
    trimmed : bool
        Whether anything did not fit.
    """

    def __init__(self, room: int, *, member: int) -> None:
        self.trimmed = False
        self._member = member
        self._left = room
        self._open: set[int] = set()

    def convert(self, value: Any, depth: int = MAX_DEPTH) -> Any:
        """Convert a value; ``_UNKNOWN`` for one that is no data."""
        try:
            if hasattr(type(value), "_repr_llm_"):
                return _UNKNOWN
            scalar = _scalar(value)
            return self._nested(value, depth) if scalar is _UNKNOWN else self._spend(scalar)
        except Exception:  # noqa: BLE001 - the value's own code; its repr is what is left
            return _UNKNOWN

    def _nested(self, value: Any, depth: int) -> Any:
        inner = _contents(value)
        if inner is None:
            return _UNKNOWN
        if id(value) in self._open:
            return self._spend("… (contains itself)")
        if depth <= 0:
            return self._spend("… (nested deeper)")
        self._left -= 1
        self._open.add(id(value))
        try:
            convert: Any = self._object if isinstance(inner, Mapping) else self._array
            return convert(inner, depth - 1)
        finally:
            self._open.discard(id(value))

    def _object(self, inner: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, item in inner.items():
            if self._left < 0:
                self.trimmed = True
                names = cut(", ".join(_key(key) for key in islice(inner, len(found), None)), 200)
                return found | {"…": f"{len(inner) - len(found):,} more: {names}"}
            name = _key(key)
            if name in found:
                name = bounded_repr(key, MAX_KEY)
            later = self._member * (len(inner) - len(found) - 1)
            kept = min(later, max(self._left, 0) // 2)
            self._left -= len(name) + 3 + kept
            found[name] = self._item(item, depth)
            self._left += kept
        return found

    def _array(self, inner: Sequence[Any], depth: int) -> list[Any]:
        found: list[Any] = []
        for item in inner:
            if self._left < 0:
                self.trimmed = True
                return [*found, f"… {len(inner) - len(found):,} more"]
            found.append(self._item(item, depth))
        return found

    def _item(self, value: Any, depth: int) -> Any:
        found = self.convert(value, depth)
        if found is _UNKNOWN:
            found = self._spend(summarize(value, tokens=LEAF_TOKENS))
        self._left -= 1
        return found

    def _spend(self, scalar: Any) -> Any:
        if isinstance(scalar, str) and len(scalar) > (room := max(self._left, MAX_KEY)):
            self.trimmed = True
            scalar = cut(scalar, room)
        self._left -= len(scalar) + 2 if isinstance(scalar, str) else len(str(scalar))
        return scalar


def _scalar(value: Any) -> Any:
    """Give the JSON scalar of a value, or ``_UNKNOWN``."""
    value = _unboxed(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _plain_str(value)
    if isinstance(value, int):
        big = abs(value).bit_length() > MAX_BITS
        return f"an integer of {value.bit_length():,} bits" if big else int(value)
    if isinstance(value, float):
        # JSON has no NaN and no infinity; as texts they are what JavaScript calls them.
        return float(value) if math.isfinite(value) else _constant(value)
    if isinstance(value, _SCALARS):
        return value.isoformat() if isinstance(value, date | time) else str(value)
    return _UNKNOWN


def _unboxed(value: Any) -> Any:
    """Take an Enum's or a NumPy scalar's value out."""
    if isinstance(value, Enum):
        value = value.value
    generic = getattr(sys.modules.get("numpy"), "generic", None)
    if generic is not None and isinstance(value, generic):
        item = value.item() if value.dtype.kind in "biufSU" else value
        # A long double is its own item.
        return str(item) if isinstance(item, generic) else item
    return value


def _constant(number: float) -> str:
    return "NaN" if math.isnan(number) else f"{'-' if number < 0 else ''}Infinity"


def _contents(value: Any) -> Mapping[Any, Any] | Sequence[Any] | None:
    """What is in a container of data; None for all else, frames and arrays among it."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, AbstractSet):
        return _in_order(value)
    fields = _fields(value)
    if fields is None and isinstance(value, Sequence):
        return None if isinstance(value, bytes | bytearray | memoryview) else value
    return fields


def _in_order(value: AbstractSet[Any]) -> list[Any]:
    try:
        return sorted(value)
    except TypeError:  # of several kinds
        return list(value)


def _fields(value: Any) -> Mapping[str, Any] | None:
    """Name what is in a record: a dataclass, a named tuple, a pydantic model, a row of SQLite."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return dict(zip(value._fields, value, strict=True))
    pydantic: Any = sys.modules.get("pydantic")
    if pydantic is not None and isinstance(value, pydantic.BaseModel):
        return dict(value)
    sqlite: Any = sys.modules.get("sqlite3")
    if sqlite is not None and isinstance(value, sqlite.Row):
        return dict(zip(value.keys(), value, strict=True))
    return None


def _key(key: object) -> str:
    """Name a member as JSON would; other keys by their repr."""
    scalar = _scalar(key)
    if isinstance(scalar, str):
        return scalar
    return json.dumps(scalar) if scalar is not _UNKNOWN else bounded_repr(key, MAX_KEY)


def _display(output: Output) -> str:
    if is_image(output):
        return "A figure was shown to the user."
    text = output.data.get("text/plain")
    # IPython's HTML, Markdown and their kin say nothing in plain text.
    if isinstance(text, str) and not text.startswith("<IPython.core."):
        return f"Shown to the user:\n{cut(text, MAX_DISPLAY, HINT)}"
    return f"Shown to the user: {', '.join(output.data)}."


def is_image(output: Output) -> bool:
    """Whether a display is, among other things, an image."""
    return any(kind.startswith("image/") for kind in output.data)
