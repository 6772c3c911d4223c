"""Short reprs of values, as text and as HTML: bounded, deterministic, without foreign code.

A class that derives from ``Shown`` shows the fields in which it differs from its defaults, or what
its ``_facts`` yields. The formatters of IPython find both forms, and so do the elements of a tuple.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from itertools import islice
from typing import Any

from kimi_magic.core.errors import redacted
from kimi_magic.core.text import clean, clip, plain_html, replace_unprintable, without_stacks

__all__ = ["Shown", "Words", "short_html", "short_repr"]

TEXT_CHARS, REPR_CHARS = 60, 400
HTML_CHARS, HTML_ROWS = 400, 24
MOST_READ = 5000  # characters of a text: a key that stands beyond them is not shown anyway
MOST_ITEMS, MOST_DEPTH = 4, 3
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{80,}={0,2}")
_TABLE = "border-collapse:collapse;margin:0"
_NAME = "text-align:left;vertical-align:top;font-weight:400;opacity:.7;padding:.1em 1em .1em 0"
_VALUE = (
    "text-align:left;vertical-align:top;white-space:pre-wrap;overflow-wrap:anywhere;padding:.1em 0"
)
_TITLE = "opacity:.8;font-size:90%"


class Words(str):
    """A text that is shown without quotation marks."""

    __slots__ = ()


class Shown:
    """A value with short reprs; its dataclass is made with ``repr=False``."""

    __slots__ = ()

    def __repr__(self) -> str:
        return short_repr(self)

    def _repr_html_(self) -> str:
        return short_html(self)


def short_repr(value: Any) -> str:
    """Return one line that names a value's class and its facts."""
    return _line(value, REPR_CHARS, 0)


def short_html(value: Any) -> str:
    """Return a value's facts as a small table in safe HTML."""
    rows: list[str] = []
    for name, fact in _facts(value):
        if len(rows) == HTML_ROWS:
            break
        is_text = isinstance(fact, str) and not isinstance(fact, Words)
        shown = _read(fact) if is_text else _word(fact, HTML_CHARS, 1)
        cell = plain_html(without_stacks(clean(clip(shown, HTML_CHARS))))
        title = plain_html(clip(clean(name.replace("_", " ")), TEXT_CHARS))
        rows.append(
            f'<tr><th scope="row" style="{_NAME}">{title}</th><td style="{_VALUE}">{cell}</td></tr>'
        )
    title = f'<div style="{_TITLE}">{plain_html(type(value).__name__)}</div>'
    table = f'<table style="{_TABLE}"><tbody>\n{chr(10).join(rows)}\n</tbody></table>'
    return f'<div style="overflow:auto;contain:paint">{title}{table if rows else ""}</div>'


def _line(value: Any, room: int, depth: int) -> str:
    shown: list[str] = []
    for name, fact in _facts(value):
        if sum(map(len, shown)) > room:
            break
        word = _word(fact, TEXT_CHARS, depth + 1)
        shown.append(word if name == "text" and not shown else f"{name}={word}")
    # A tuple's repr may stand in a terminal, which obeys some characters.
    line = replace_unprintable(without_stacks(", ".join(shown)))
    return f"{type(value).__name__}({clip(line, room)})"


def _facts(value: Any) -> Iterable[tuple[str, Any]]:
    own = getattr(value, "_facts", None)
    return own() if own else _fields(value)


def _fields(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the fields that differ from their defaults, as far as that can be told cheaply."""
    if isinstance(value, tuple):
        defaults: Mapping[str, Any] = value._field_defaults  # type: ignore[attr-defined]
        names = list(value._fields)  # type: ignore[attr-defined]
    else:
        shown = [each for each in fields(value) if each.repr]
        names, defaults = [each.name for each in shown], {e.name: e.default for e in shown}
    for name in names:
        fact, default = getattr(value, name), defaults.get(name)
        is_simple = isinstance(fact, str | int | float | Shown) and type(fact) is type(default)
        is_empty = fact is None or (isinstance(fact, list | tuple | dict) and not fact)
        if not (is_empty or fact is default or (is_simple and fact == default)):
            yield name, fact


def _word(value: Any, room: int, depth: int) -> str:
    """Return a fact in one line; of a foreign object only the name of its class."""
    if isinstance(value, Words):
        return clip(" ".join(_read(value).split()), room)
    if isinstance(value, str):
        return clip(repr(clip(_read(value), room - 2)), room)
    if isinstance(value, BaseException):
        said = str(value.args[0]) if value.args and isinstance(value.args[0], str) else ""
        return f"{type(value).__name__}({_word(said, room, depth) if said else ''})"
    if isinstance(value, Shown) or hasattr(type(value), "_fields"):
        return _line(value, room, depth) if depth <= MOST_DEPTH else "…"
    if type(value) in (dict, list, tuple):
        return _items(value, room, depth) if depth <= MOST_DEPTH else "…"
    return _scalar(value, room)


def _scalar(value: Any, room: int) -> str:
    if value is None or type(value) is bool:
        return repr(value)
    if type(value) is float:
        return repr(round(value, 6))
    if type(value) is int and abs(value) < 10**room:
        return repr(value)
    return f"<{type(value).__name__}>"


def _items(value: Any, room: int, depth: int) -> str:
    """Return the first items of a container, and the number of the others."""
    first = list(islice(value, MOST_ITEMS))
    if type(value) is dict:
        half = room // 2
        items = [
            f"{_word(key, half, depth + 1)}: {_word(value[key], half, depth + 1)}" for key in first
        ]
    else:
        items = [_word(item, room, depth + 1) for item in first]
    more = len(value) - len(items)
    inside = clip(", ".join(items), room) + (f", … {more} more" if more else "")
    if type(value) is dict:
        return f"{{{inside}}}"
    if type(value) is list:
        return f"[{inside}]"
    return f"({inside}{',' if len(value) == 1 else ''})"


def _read(text: str) -> str:
    """Return the beginning of a text, without known keys and without data in base64."""
    return _BASE64.sub("…", redacted(str.__getitem__(text, slice(0, MOST_READ))))
