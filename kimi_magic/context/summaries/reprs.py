"""Any value → its repr in a bounded number of characters.

Builtin containers and records are walked, so that each member has its part of the room and a
million members cost no more than those that are shown.
"""

from __future__ import annotations

import collections
import dataclasses
import re
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import islice
from types import SimpleNamespace
from typing import Any

from kimi_magic.context.guard import ANYTHING, Patience, silence
from kimi_magic.core.text import clip, count, cut
from kimi_magic.core.time_limit import CallTimedOut

__all__ = ["Brief", "Repr", "bounded_repr", "describe_members", "label", "type_name"]

Brief = Callable[[object, int], str | None]

MAX_DEPTH = 20
MAX_KEY = 60
LEAST = 16
ROOMY = 200  # below, a note on what is missing would take too much of it
MAX_KINDS = 3
MAX_KINDS_OF = 100
MAX_SORTED = 10_000
# A Python integer of more digits than 4,300 refuses to become text (sys.set_int_max_str_digits).
MAX_BITS = 10_000

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_HARMLESS = {
    type(None),
    str,
    bytes,
    bool,
    int,
    float,
    complex,
    Decimal,
    date,
    time,
    datetime,
    timedelta,
}
_BRACKETS: dict[Any, str] = {
    dict: "{}",
    OrderedDict: "{}",
    defaultdict: "{}",
    Counter: "{}",
    list: "[]",
    tuple: "()",
    set: "{}",
    frozenset: "{}",
    deque: "[]",
}


def bounded_repr(value: object, limit: int) -> str:
    """Give the repr of a value in at most ``limit`` characters; large containers are not walked.

    Memory addresses are left out, so that the same value reads the same.
    """
    return Repr().of(value, limit)


class Repr:
    """Gives bounded reprs; its patience with the values' own code is for all of them together.

    Parameters
    ----------
    brief : callable, optional
        What stands for a value inside others, in so many characters; None: its repr.
    """

    def __init__(self, brief: Brief | None = None) -> None:
        self._brief = brief
        self._open: set[int] = set()
        self._patience = Patience()

    def of(self, value: object, limit: int, most: int | None = None) -> str:
        """Give a value's repr, and of each container in it ``most`` members at most."""
        with silence():
            return cut(self._of(value, limit, MAX_DEPTH, most), limit)

    def _of(self, value: object, room: int, depth: int, most: int | None) -> str:
        members = self._members(value)
        if members is None:
            return self._leaf(value, room)
        if depth <= 0 or id(value) in self._open:
            return "…"
        self._open.add(id(value))
        try:
            room -= len(members.opening) + len(members.closing)
            return (
                f"{members.opening}{self._inside(members, room, depth - 1, most)}{members.closing}"
            )
        except ANYTHING:  # changed while it was walked
            return f"<{type_name(value)} object>"
        finally:
            self._open.discard(id(value))

    def _members(self, value: object) -> _Members | None:
        if type(value) in _BRACKETS:
            return _members(value)
        if type(value) in _HARMLESS:
            return None
        try:
            members: _Members | None = self._patience.call(_members, value)
        except ANYTHING:
            return None
        return members

    def _inside(self, members: _Members, room: int, depth: int, most: int | None) -> str:
        shown: list[str] = []
        for index, (key, value) in enumerate(members.pairs):
            left = members.total - index
            note = f"… {left:,} more"
            if left > 1 and (room < len(note) + LEAST or index == most):
                shown.append(note)
                break
            # Half of the room stays for those that follow.
            part = (room - len(note)) // 2 if left > 1 else room
            name = self._key(key, part, depth, members.keys) if members.keys else ""
            text = name + self._of(value, max(part - len(name), LEAST), depth, most)
            shown.append(text)
            room -= len(text) + 2
        return ", ".join(shown)

    def _key(self, key: object, room: int, depth: int, separator: str) -> str:
        if separator == "=":
            return f"{key}="
        return self._of(key, max(min(room // 2, MAX_KEY), LEAST), depth, None) + separator

    def _leaf(self, value: object, room: int) -> str:
        shorten = cut if room > ROOMY else clip
        said = _of_builtin(value, room) or self._in_brief(value, room)
        if said is not None:
            return shorten(said, room)
        try:
            text: str = self._patience.call(_without_address, value, room)
        except CallTimedOut:
            text = f"<{type_name(value)} object; its repr takes too long>"
        except ANYTHING as error:
            text = f"<{type_name(value)} object; its repr raises {type_name(error)}>"
        return shorten(text, room)

    def _in_brief(self, value: object, room: int) -> str | None:
        if self._brief is None:
            return None
        with suppress(*ANYTHING):
            return self._patience.call(self._brief, value, room)  # type: ignore[no-any-return]
        return None


def describe_members(value: object) -> str | None:
    """Say how much of what is in a builtin container; None for anything else."""
    if not any(issubclass(type(value), base) for base in _BRACKETS):
        return None
    members = _members(value)
    if members is None:
        return None
    first = list(islice(members.pairs, MAX_KINDS_OF))
    kinds = _kinds(item for _, item in first)
    if members.keys:
        kinds = f"{_kinds(key for key, _ in first)} → {kinds}"
    return f"{type_name(value)} of {count(members.total, 'item')} ({kinds})"


def _kinds(values: Iterable[object]) -> str:
    names = list(dict.fromkeys(map(type_name, values)))
    return " | ".join(names[:MAX_KINDS] + ["…"][: len(names) - MAX_KINDS])


def label(name: object, limit: int = MAX_KEY) -> str:
    """Write the name of a column, line or key: a text as it is."""
    return clip(name, limit) if type(name) is str else bounded_repr(name, limit)


def type_name(value: object) -> str:
    """The name of a value's class, whatever its metaclass says."""
    return str(vars(type)["__name__"].__get__(type(value)))


@dataclass(frozen=True, slots=True)
class _Members:
    """What is in a value, how much, and between which brackets."""

    pairs: Iterable[tuple[object, object]]
    total: int
    opening: str
    closing: str
    keys: str = ""  # what stands between a key and its value; "" where there are no keys


def _members(value: Any) -> _Members | None:
    kind: Any = type(value)
    for base, brackets in _BRACKETS.items():
        # A subclass with a repr of its own is left to that.
        if issubclass(kind, base) and kind.__repr__ is base.__repr__:
            return _container(value, base, *brackets)
    fields = _fields(value, kind)
    if fields is None:
        return None
    return _Members(fields.items(), len(fields), f"{type_name(value)}(", ")", "=")


def _container(value: Any, base: Any, opening: str, closing: str) -> _Members:
    # The base's own methods: a subclass may have iterators without an end.
    total = base.__len__(value)
    if type(value) not in (dict, list, tuple, set) or (base is set and not total):
        brackets = (opening, closing) if total or base not in (set, frozenset) else ("", "")
        opening, closing = f"{type_name(value)}({brackets[0]}", f"{brackets[1]})"
    if issubclass(base, dict):
        return _Members(dict.items(value), total, opening, closing, ": ")
    if base is tuple and total == 1:
        closing = f",{closing}"
    items = base.__iter__(value)
    if base in (set, frozenset):
        items = _in_order(items, total)
    return _Members(((None, item) for item in items), total, opening, closing)


def _in_order(items: Iterator[Any], total: int) -> Iterator[Any]:
    """Sort a set of texts or of numbers: the order of texts differs from process to process."""
    if total > MAX_SORTED:
        return items
    found = list(items)
    alike = len(kinds := set(map(type, found))) == 1 and kinds <= {str, int, float}
    return iter(sorted(found) if alike else found)


def _fields(value: Any, kind: Any) -> dict[str, object] | None:
    """Name what is in a record that has the repr that Python made for it."""
    shown = kind.__repr__
    if kind is SimpleNamespace:
        return dict(vars(value))
    if issubclass(kind, tuple) and getattr(shown, "__globals__", None) is vars(collections):
        return dict(zip(kind._fields, tuple.__iter__(value), strict=True))
    generated = getattr(getattr(shown, "__wrapped__", None), "__code__", None)
    if "__dataclass_fields__" in vars(kind) and generated and generated.co_filename == "<string>":
        names = [field.name for field in dataclasses.fields(value) if field.repr]
        return {name: object.__getattribute__(value, name) for name in names}
    if kind.__module__ == "__main__" and shown is object.__repr__:
        # An object of the notebook's own class, of which Python's repr says nothing.
        own = object.__getattribute__(value, "__dict__")
        return {name: own[name] for name in own if not name.startswith("_")} or None
    return None


def _of_builtin(value: Any, room: int) -> str | None:
    """The repr of a text or a number; None for anything else."""
    kind = type(value)
    if kind in (str, bytes, bytearray):
        return _quoted(value, room)
    if kind is int and value.bit_length() > MAX_BITS:
        return f"<an integer of {value.bit_length():,} bits>"
    if kind in _HARMLESS:
        return repr(value)
    numpy_scalar = getattr(sys.modules.get("numpy"), "generic", ())
    if issubclass(kind, numpy_scalar) and value.dtype.kind in "biuf":
        return str(value)
    return None


def _quoted(value: Any, room: int) -> str:
    if len(value) <= room:
        return repr(value)
    note = f"… ({len(value):,} long)"
    return f"{value[: max(room - len(note) - 3, LEAST)]!r}{note}"


def _without_address(value: object, room: int) -> str:
    text = str.__str__(repr(value))
    seen = 2 * room + 100
    return _ADDRESS.sub("", text[:seen]) + text[seen:]
