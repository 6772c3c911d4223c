"""Walk any value and write it within a number of characters.

Containers and records are opened: each member gets its share of the room, and a million members
cost no more than those that are shown. `Walker` bounds size, depth, cycles and time; a subclass
says which values it opens and how they are written.
"""

from __future__ import annotations

import collections
import dataclasses
import inspect
from abc import ABC, abstractmethod
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import chain
from types import MemberDescriptorType, SimpleNamespace
from typing import Any

from kimi_magic.core.time_limit import USER_ERRORS, TimeBudget
from kimi_magic.secrets.fields import is_secret_field
from kimi_magic.secrets.patterns import MASKED

__all__ = [
    "BRACKETS",
    "CHANGED",
    "HARMLESS",
    "MAX_BITS",
    "DoesNotFit",
    "Members",
    "Walker",
    "fields_of",
    "in_order",
    "type_name",
]

CYCLE, DEPTH, CHANGED = "contains itself", "nested deeper", "changed meanwhile"
LEAST = 16
MAX_SORTED = 10_000
# A Python integer of more digits than 4,300 refuses to become text (sys.set_int_max_str_digits).
MAX_BITS = 10_000

# Types whose own code is Python's, so that it needs no guard
HARMLESS = {type(None), str, bytes, bool, int, float, complex, Decimal}
HARMLESS |= {date, time, datetime, timedelta}
BRACKETS: dict[Any, str] = {list: "[]", tuple: "()", deque: "[]", set: "{}", frozenset: "{}"}
BRACKETS |= dict.fromkeys((dict, OrderedDict, defaultdict, Counter), "{}")


class DoesNotFit(Exception):
    """Raised by a walker that must not leave anything out."""


@dataclass(frozen=True, slots=True)
class Members:
    """The members of a value, and the brackets around them."""

    pairs: Iterable[tuple[Any, object]]
    total: int
    opening: str
    closing: str
    keys: str = ""  # between a key and its value; "" where there are no keys
    spare: int = LEAST  # room that the note on members left out needs beside their number


class Walker(ABC):
    """Writes values; its time budget for the values' own code covers all that it writes.

    A walker that writes values ``whole`` raises `DoesNotFit` instead of leaving members out.
    """

    max_depth = 20
    separator = ", "

    def __init__(self, *, whole: bool = False) -> None:
        self.budget = TimeBudget()
        self.most: int | None = None  # members of each container
        self.whole = whole
        self._open: set[int] = set()

    @abstractmethod
    def open(self, value: Any, room: int) -> Members | None:
        """Return a value's members; None for one that is written as a leaf."""

    @abstractmethod
    def leaf(self, value: object, room: int) -> str:
        """Write a value without opening it."""

    @abstractmethod
    def key(self, key: Any, room: int, depth: int, separator: str) -> str:
        """Write a member's key and what separates it from the value."""

    @abstractmethod
    def mark(self, value: object, reason: str) -> str:
        """Write what stands for a value that is not opened, for one of the reasons above."""

    @abstractmethod
    def note(self, members: Members, left: int, keys: Iterator[Any], room: int) -> str:
        """Write how many members are left out, and perhaps some of their keys."""

    def members(self, value: object, room: int) -> Members | None:
        """Open a value within the time budget."""
        if type(value) in BRACKETS:
            return self.open(value, room)
        if type(value) in HARMLESS:
            return None
        try:
            members: Members | None = self.budget.call(self.open, value, room)
        except USER_ERRORS:
            return None
        return members

    def write(self, value: object, room: int, depth: int = 0) -> str:
        """Write a value in about so many characters."""
        members = self.members(value, room)
        if members is None:
            return self.leaf(value, room)
        if id(value) in self._open:
            return self.mark(value, CYCLE)
        if depth >= self.max_depth:
            return self.mark(value, DEPTH)
        self._open.add(id(value))
        try:
            room -= len(members.opening) + len(members.closing)
            return f"{members.opening}{self._inside(members, room, depth + 1)}{members.closing}"
        except DoesNotFit:
            raise
        except USER_ERRORS:
            return self.mark(value, CHANGED)
        finally:
            self._open.discard(id(value))

    def _inside(self, members: Members, room: int, depth: int) -> str:
        shown: list[str] = []
        pairs = iter(members.pairs)
        for index, (key, value) in enumerate(pairs):
            left, share = members.total - index, room
            if left > 1 and not self.whole:
                reserved = len(f"… {left:,} more")
                if room < reserved + members.spare or index == self.most:
                    keys = chain([key], (later for later, _ in pairs))
                    shown.append(self.note(members, left, keys, room))
                    break
                share = (room - reserved) // 2  # half of the room stays for the following members
            name = self.key(key, share, depth, members.keys) if members.keys else ""
            if members.keys and is_secret_field(key, value):
                text = name + self.leaf(MASKED, LEAST)
            else:
                text = name + self.write(value, max(share - len(name), LEAST), depth)
            if self.whole and len(text) > room:
                raise DoesNotFit
            room -= len(text) + len(self.separator)
            shown.append(text)
        return self.separator.join(shown)


def in_order(items: Iterator[Any], total: int) -> Iterator[Any]:
    """Sort the items of a set where that is cheap: the order of texts differs between processes."""
    if total > MAX_SORTED:
        return items
    found = list(items)
    kinds = set(map(type, found))
    if len(kinds) == 1 and kinds <= HARMLESS | {tuple}:
        with suppress(*USER_ERRORS):
            return iter(sorted(found))
    return iter(found)


def fields_of(value: Any, *, like_repr: bool = False) -> dict[str, object] | None:
    """Name the fields of a record: a dataclass, or a named tuple.

    With ``like_repr``, leave records that have a repr of their own, and fields that the repr leaves
    out. Objects of the notebook's own classes, of which Python's repr says nothing, then count too.
    """
    kind: Any = type(value)
    shown = kind.__repr__
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        if like_repr and getattr(shown, "__globals__", None) is not vars(collections):
            return None
        return dict(zip(kind._fields, tuple.__iter__(value), strict=True))
    generated = getattr(getattr(shown, "__wrapped__", None), "__code__", None)
    made = (
        "__dataclass_fields__" in vars(kind) and generated and generated.co_filename == "<string>"
    )
    if made or (hasattr(kind, "__dataclass_fields__") and not like_repr):
        fields = [one.name for one in dataclasses.fields(kind) if one.repr or not like_repr]
        return {name: _stored(value, name) for name in fields}
    if like_repr and kind is SimpleNamespace:
        return dict(vars(value))
    if like_repr and kind.__module__ == "__main__" and shown is object.__repr__:
        own = object.__getattribute__(value, "__dict__")
        return {name: own[name] for name in own if not name.startswith("_")} or None
    return None


def _stored(value: object, name: str) -> object:
    """Read an attribute without running a property or ``__getattr__``."""
    found = inspect.getattr_static(value, name)
    return found.__get__(value) if type(found) is MemberDescriptorType else found


def type_name(value: object) -> str:
    """Return the name of a value's class, whatever its metaclass says."""
    return str(vars(type)["__name__"].__get__(type(value)))
