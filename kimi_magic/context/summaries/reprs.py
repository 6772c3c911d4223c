"""Write the repr of any value in a bounded number of characters."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any

from kimi_magic.context.walker import (
    BRACKETS,
    CHANGED,
    HARMLESS,
    MAX_BITS,
    Members,
    Walker,
    fields_of,
    in_order,
    type_name,
)
from kimi_magic.core.stdout import silenced
from kimi_magic.core.text import clip, count, cut
from kimi_magic.core.time_limit import USER_ERRORS, CallTimedOut
from kimi_magic.secrets.fields import mask_before_cut

__all__ = ["Brief", "Repr", "bounded_repr", "describe_members", "label"]

Brief = Callable[[object, int], str | None]  # takes a limit in characters; None: the repr

MAX_KEY = 60
LEAST = 16
ROOMY = 200  # below, a note on what is missing would take too much of it
MAX_KINDS = 3
MAX_KINDS_OF = 100

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def bounded_repr(value: object, limit: int) -> str:
    """Return the repr of a value in at most ``limit`` characters.

    Memory addresses are left out, so that the same value reads the same in every run.
    """
    if type(value) in HARMLESS:
        return _shortened(_of_builtin(value, limit) or "", limit)
    return Repr().of(value, limit)


class Repr(Walker):
    """Writes bounded reprs; ``brief`` may give a text that stands for a value inside others."""

    def __init__(self, brief: Brief | None = None) -> None:
        super().__init__()
        self._brief = brief

    def of(self, value: object, limit: int, most: int | None = None) -> str:
        """Write a value, and at most ``most`` members of each container in it."""
        self.most = most
        with silenced():
            return cut(self.write(value, limit), limit)

    def open(self, value: Any, _room: int) -> Members | None:
        return _members(value)

    def mark(self, value: object, reason: str) -> str:
        return f"<{type_name(value)} object>" if reason == CHANGED else "…"

    def note(self, _members: Members, left: int, _keys: Iterator[Any], _room: int) -> str:
        return f"… {left:,} more"

    def key(self, key: object, room: int, depth: int, separator: str) -> str:
        if separator == "=":
            return f"{key}="
        return self.write(key, max(min(room // 2, MAX_KEY), LEAST), depth) + separator

    def leaf(self, value: object, room: int) -> str:
        text = _of_builtin(value, room) or self._in_brief(value, room)
        if text is not None:
            return _shortened(text, room)
        try:
            text = str(self.budget.call(_without_address, value, room))
        except CallTimedOut:
            text = f"<{type_name(value)} object; its repr takes too long>"
        except USER_ERRORS as error:
            text = f"<{type_name(value)} object; its repr raises {type_name(error)}>"
        return _shortened(text, room)

    def _in_brief(self, value: object, room: int) -> str | None:
        if self._brief is None:
            return None
        with suppress(*USER_ERRORS):
            return self.budget.call(self._brief, value, room)  # type: ignore[no-any-return]
        return None


def describe_members(value: object) -> str | None:
    """Describe a builtin container by its size and the types in it; None for anything else."""
    if not any(issubclass(type(value), base) for base in BRACKETS):
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
    if type(name) is str:
        return clip(mask_before_cut(name, limit), limit)
    return bounded_repr(name, limit)


def _members(value: Any) -> Members | None:
    kind: Any = type(value)
    for base, brackets in BRACKETS.items():
        # A subclass with a repr of its own is left to that.
        if issubclass(kind, base) and kind.__repr__ is base.__repr__:
            return _container(value, base, *brackets)
    fields = fields_of(value, like_repr=True)
    if fields is None:
        return None
    return Members(fields.items(), len(fields), f"{type_name(value)}(", ")", "=")


def _container(value: Any, base: Any, opening: str, closing: str) -> Members:
    # The base's own methods: a subclass may have iterators without an end.
    total = base.__len__(value)
    if type(value) not in (dict, list, tuple, set) or (base is set and not total):
        brackets = (opening, closing) if total or base not in (set, frozenset) else ("", "")
        opening, closing = f"{type_name(value)}({brackets[0]}", f"{brackets[1]})"
    if issubclass(base, dict):
        return Members(dict.items(value), total, opening, closing, ": ")
    if base is tuple and total == 1:
        closing = f",{closing}"
    items = base.__iter__(value)
    if base in (set, frozenset):
        items = in_order(items, total)
    return Members(((None, item) for item in items), total, opening, closing)


def _of_builtin(value: Any, room: int) -> str | None:
    """Return the repr of a text or a number; None for anything else."""
    kind = type(value)
    if kind in (str, bytes, bytearray):
        return _quoted(value, room)
    if kind is int and value.bit_length() > MAX_BITS:
        return f"<an integer of {value.bit_length():,} bits>"
    if kind in HARMLESS:
        return repr(value)
    numpy_scalar = getattr(sys.modules.get("numpy"), "generic", ())
    if issubclass(kind, numpy_scalar) and value.dtype.kind in "biuf":
        return str(value)
    return None


def _shortened(text: str, room: int) -> str:
    return cut(text, room) if room > ROOMY else clip(text, room)


def _quoted(value: Any, room: int) -> str:
    if len(value) <= room:
        return repr(value)
    note = f"… ({len(value):,} long)"
    if type(value) is str:
        value = mask_before_cut(value, room)
    return f"{value[: max(room - len(note) - 3, LEAST)]!r}{note}"


def _without_address(value: object, room: int) -> str:
    text = str.__str__(repr(value))
    seen = 2 * room + 100
    text = _ADDRESS.sub("", text[:seen]) + text[seen:]
    return mask_before_cut(text, room, fields=True)
