"""One value → bounded text.

Nothing is imported for it: a value that is a frame or an array has brought its library along.
"""

from __future__ import annotations

import re
import sys
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

__all__ = ["bounded_repr", "cut", "summarize"]

CHARS_PER_TOKEN = 4
HEAD_ROWS = 10
MAX_COLUMNS = 30
MAX_CELL = 60
CORNER = 4
MAX_DEPTH = 20
# A Python integer of more digits than 4,300 refuses to become text (sys.set_int_max_str_digits).
MAX_BITS = 10_000

# What a value's own code may raise. An interrupt goes through, and so does a time-out's signal.
_ANYTHING = (Exception, SystemExit, GeneratorExit)

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_BRACKETS: dict[type, tuple[str, str]] = {
    list: ("[", "]"),
    tuple: ("(", ")"),
    set: ("{", "}"),
    frozenset: ("frozenset({", "})"),
    deque: ("deque([", "])"),
}


def summarize(value: object, *, tokens: int = 1500) -> str:
    """Describe a value in bounded text, for a model to read.

    Parameters
    ----------
    value : object
        ``value._repr_llm_()`` is the text, where the class has that method and it gives a str.
    tokens : int
        The longest text; a token is counted as four characters.

    Returns
    -------
    str
        A frame or series as its shape, dtypes and head; an array as its shape, dtype, range and a
        corner; a str as it is; everything else as its repr. Never raises for what the value does.
    """
    limit = max(tokens, 1) * CHARS_PER_TOKEN
    for describe in (_own_words, _text, _table, _array):
        try:
            found = describe(value, limit)
        except _ANYTHING:  # the next way may do
            continue
        if found is not None:
            return cut(found, limit)
    return bounded_repr(value, limit)


def cut(text: str, limit: int, hint: str = "") -> str:
    """Shorten a text to ``limit`` characters, a note on what is missing included.

    The note stays whole where the limit is too short for it.
    """
    if len(text) <= limit:
        return text
    hint = hint and f"; {hint}"
    # The note tells how much is missing, which depends on its own length: its digits vary by few.
    room = limit - len(f"… [cut: {len(text):,} of {len(text):,} characters are missing{hint}]")
    kept = text[: max(room, 0)]
    missing = len(text) - len(kept)
    return f"{kept}… [cut: {missing:,} of {len(text):,} characters are missing{hint}]"


def bounded_repr(value: object, limit: int) -> str:
    """Give the repr of a value in ``limit`` characters, or so; large containers are not walked.

    Memory addresses are left out, so that the same value reads the same.
    """
    # A container leaves room for its last item and for the note on how many more there are.
    budget = limit - min(100, limit // 2) if _is_container(value) else limit
    return cut(_Repr(budget).of(value, MAX_DEPTH), limit)


def _is_container(value: object) -> bool:
    """Whether the value is a builtin container itself: a subclass may have a repr of its own."""
    return type(value) is dict or type(value) in _BRACKETS


class _Repr:
    """One repr with a budget: what it has not spent on the first items is left for the next."""

    def __init__(self, budget: int) -> None:
        self._left = budget
        self._open: set[int] = set()

    def of(self, value: object, depth: int) -> str:
        if _is_container(value):
            if depth <= 0 or id(value) in self._open:
                return "…"
            self._open.add(id(value))
            try:
                return self._container(value, depth - 1)
            finally:
                self._open.discard(id(value))
        text = self._leaf(value)
        self._left -= len(text)
        return text

    def _container(self, value: Any, depth: int) -> str:
        if not value:
            return repr(value)
        if isinstance(value, dict):
            pairs = (
                f"{self.of(key, depth)}: {self.of(item, depth)}" for key, item in value.items()
            )
            return "{" + self._join(pairs, len(value)) + "}"
        opening, closing = _BRACKETS[type(value)]
        inner = self._join((self.of(item, depth) for item in value), len(value))
        comma = "," if isinstance(value, tuple) and len(value) == 1 else ""
        return f"{opening}{inner}{comma}{closing}"

    def _join(self, pieces: Iterable[str], total: int) -> str:
        shown = []
        for piece in pieces:
            shown.append(piece)
            self._left -= 2
            if self._left < 0 and len(shown) < total:
                shown.append(f"… {total - len(shown):,} more")
                break
        return ", ".join(shown)

    def _leaf(self, value: object) -> str:
        limit = max(self._left, MAX_CELL)
        if isinstance(value, str | bytes | bytearray) and len(value) > limit:
            return f"{value[:limit]!r}… ({len(value):,} long)"
        if isinstance(value, int) and abs(value).bit_length() > MAX_BITS:
            return f"<an integer of {value.bit_length():,} bits>"
        try:
            return cut(_ADDRESS.sub("", repr(value)), limit)
        except _ANYTHING as error:
            return f"<{type(value).__name__} object; its repr raises {type(error).__name__}>"


def _own_words(value: object, _limit: int) -> str | None:
    # Looked up in the class: a mock or proxy answers to any name.
    method: Callable[[Any], object] | None = getattr(type(value), "_repr_llm_", None)
    said = method(value) if method is not None else None
    return said if isinstance(said, str) else None


def _text(value: object, _limit: int) -> str | None:
    return str.__str__(value) if isinstance(value, str) else None


def _table(value: Any, limit: int) -> str | None:
    pandas: Any = sys.modules.get("pandas")
    if pandas is None or not hasattr(pandas, "DataFrame"):
        return None
    if isinstance(value, pandas.DataFrame):
        return _frame(value, limit)
    if isinstance(value, pandas.Series):
        title = f"Series {_label(value.name)}" if value.name is not None else "Series"
        return f"{title}, {_count(len(value), 'row')}, dtype {value.dtype}\n" + _head(
            value.to_frame(), limit, header=False
        )
    return None


def _frame(frame: Any, limit: int) -> str:
    rows, columns = frame.shape
    lines = [f"DataFrame, {_count(rows, 'row')} × {_count(columns, 'column')}"]
    if columns:
        dtypes = zip(frame.columns, frame.dtypes, strict=True)
        named = [f"{_label(name)} ({dtype})" for name, dtype in islice(dtypes, 60)]
        if columns > len(named):
            named.append(f"… {columns - len(named):,} more")
        lines.append(f"columns: {', '.join(named)}")
    names = [name for name in frame.index.names if name is not None]
    if names:
        lines.append(f"index: {', '.join(map(_label, names))}")
    if rows and columns:
        lines.append(_head(frame, limit - sum(map(len, lines)) - len(lines)))
    return "\n".join(lines)


def _label(name: object) -> str:
    """A label of a table: text as it is."""
    return cut(name, MAX_CELL) if isinstance(name, str) else bounded_repr(name, MAX_CELL)


def _head(frame: Any, limit: int, *, header: bool = True) -> str:
    """Show as many of the first rows as there is room for, one at least."""
    rows = min(HEAD_ROWS, len(frame))
    text = ""
    while rows:
        table = frame.iloc[:rows].to_string(
            max_cols=MAX_COLUMNS, max_colwidth=MAX_CELL, header=header
        )
        more = len(frame) - rows
        text = f"{table}\n… {_count(more, 'more row')}" if more else table
        if len(text) <= limit:
            break
        rows //= 2
    return text


def _array(value: Any, _limit: int) -> str | None:
    numpy: Any = sys.modules.get("numpy")
    if numpy is None or not hasattr(numpy, "ndarray") or not isinstance(value, numpy.ndarray):
        return None
    lines = [f"{type(value).__name__}, shape {value.shape}, dtype {value.dtype}"]
    if value.size and value.dtype.kind in "biufmM":
        lines[0] += _range(value, numpy)
    side = CORNER if value.ndim < 3 else CORNER // 2
    corner = value[(slice(side),) * value.ndim] if value.ndim else value
    with numpy.printoptions(threshold=CORNER**3, edgeitems=2):
        lines.append(str(corner))
    if corner.shape != value.shape:
        lines[1:1] = [f"corner {corner.shape}:"]
    return "\n".join(lines)


def _range(array: Any, numpy: Any) -> str:
    if array.dtype.kind in "mM":
        known, missing = array[~numpy.isnat(array)], "NaT"
    else:
        known, missing = array[numpy.isfinite(array)], "not finite"
    text = f", from {known.min()} to {known.max()}" if known.size else ""
    lost = array.size - known.size
    return f"{text}, {lost:,} {missing}" if lost else text


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
