"""Values as source text that means exactly them.

What the eye cannot tell is escaped: control characters, blanks other than the usual one, marks
that change the direction of writing. So nothing is lost where a program is copied or saved.
"""

from __future__ import annotations

import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from unicodedata import category, east_asian_width

__all__ = ["JavaScript", "Literals", "Python", "as_json", "visible"]

# Zero-width joiners shape Persian and Hindi words and emoji; str.isprintable refuses them.
_JOINERS = "\u200c\u200d"


class Literals(ABC):
    """How a language writes what JSON can hold, in the layout of its usual formatter.

    Attributes
    ----------
    width : int
        The longest line that is not broken up.
    tab : str
    """

    width: int
    tab: str

    def write(self, value: Any, indent: str = "", used: int = 0) -> str:
        """Write a value.

        Parameters
        ----------
        indent : str
            Of the line in which it begins.
        used : int
            Columns of that line that are taken by what stands before and after.
        """
        flat = self.flat(value)
        if len(indent) + used + _columns(flat) <= self.width:
            return flat
        if isinstance(value, str):
            return self.lines(value) if "\n" in value else flat
        if not isinstance(value, Mapping | list | tuple | set) or not value:
            return flat
        inner = indent + self.tab
        items = [
            f"{inner}{key}{self.write(item, inner, len(key) + 1)},\n"
            for key, item in self.items(value)
        ]
        return f"{flat[0]}\n{''.join(items)}{indent}{flat[-1]}"

    def items(self, value: Any) -> Iterable[tuple[str, Any]]:
        """What is in a container, each with the text before it."""
        if isinstance(value, Mapping):
            return [(f"{self.key(key)}: ", item) for key, item in value.items()]
        return [("", item) for item in value]

    @abstractmethod
    def flat(self, value: Any) -> str:
        """The value in one line."""

    @abstractmethod
    def lines(self, text: str) -> str:
        """A text of several lines as several lines."""

    @abstractmethod
    def key(self, key: Any) -> str:
        """The key of a mapping."""

    def flat_items(self, value: Any) -> str:
        return ", ".join(f"{key}{self.flat(item)}" for key, item in self.items(value))


class Python(Literals):
    """As ruff and black format it; tuples, sets and bytes as well."""

    width = 88
    tab = "    "

    def flat(self, value: Any) -> str:
        if isinstance(value, str):
            return self._quoted(value)
        if isinstance(value, bytes):
            text = repr(value)
            return text if '"' in text else f'b"{text[2:-1]}"'
        if isinstance(value, Mapping | list | tuple | set):
            return self._bracketed(value)
        if isinstance(value, float) and not math.isfinite(value):
            return f'float("{value}")'
        return repr(value).replace("e+", "e")

    def lines(self, text: str) -> str:
        text = _escape(text.replace("\\", r"\\"), _python_escape, keep="\n")
        text = re.sub(r'"{2,}|"\Z', lambda quotes: r"\"" * len(quotes[0]), text)
        return f'"""\\\n{_ends_kept(text)}"""'

    def key(self, key: Any) -> str:
        return self.flat(key)

    def assign(self, name: str, value: Any) -> str:
        """A statement that gives a name to a value."""
        text = self.write(value, used=len(name) + 3)
        flat = f"{name} = {text}"
        fits_below = "\n" not in text and len(self.tab) + _columns(text) <= self.width
        if _columns(flat) > self.width and fits_below:
            return f"{name} = (\n{self.tab}{text}\n)"
        return flat

    def _bracketed(self, value: Any) -> str:
        inside = self.flat_items(value)
        if isinstance(value, tuple):
            return f"({inside}{',' * (len(value) == 1)})"
        if isinstance(value, list):
            return f"[{inside}]"
        return "set()" if value == set() else f"{{{inside}}}"

    @staticmethod
    def _quoted(text: str) -> str:
        """In double quotes, unless single ones need fewer escapes."""
        quote = "'" if text.count('"') > text.count("'") else '"'
        text = text.replace("\\", r"\\").replace(quote, f"\\{quote}")
        return f"{quote}{_escape(text, _python_escape)}{quote}"


class JavaScript(Literals):
    """As prettier formats it."""

    width = 80
    tab = "  "

    def flat(self, value: Any) -> str:
        if isinstance(value, Mapping):
            return f"{{ {self.flat_items(value)} }}" if value else "{}"
        if isinstance(value, list | tuple):
            return f"[{self.flat_items(value)}]"
        return as_json(value)

    def lines(self, text: str) -> str:
        text = re.sub(r"[\\`]|\$(?=\{)", r"\\\g<0>", text)
        return f"`{_ends_kept(_escape(text, _json_escape, keep=chr(10)))}`"

    def key(self, key: Any) -> str:
        return key if re.fullmatch(r"[A-Za-z_]\w*", key, re.ASCII) else as_json(key)


def as_json(value: Any, indent: int | None = None) -> str:
    """JSON to be read by people as well."""
    # A line end is the layout's: in a text json escapes it.
    return _escape(json.dumps(value, ensure_ascii=False, indent=indent), _json_escape, keep="\n")


def visible(text: str) -> str:
    """A text in which nothing is hidden."""
    return _escape(text, _python_escape)


def _escape(text: str, escape: Callable[[str], str], keep: str = "") -> str:
    """Escape what cannot be seen; backslashes are taken care of already."""
    return "".join(
        char if char.isprintable() or char in _JOINERS or char in keep else escape(char)
        for char in text
    )


def _python_escape(char: str) -> str:
    return repr(char)[1:-1]


def _json_escape(char: str) -> str:
    if char in "\r\t":
        return _python_escape(char)
    units = char.encode("utf-16-be").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))


def _ends_kept(text: str) -> str:
    """Many an editor takes blanks off the ends of lines."""
    return re.sub(r" (?=\n)", r"\\x20", text)


def _columns(text: str) -> int:
    """How wide a formatter takes a text to be."""
    if text.isascii():
        return len(text)
    marks = sum(category(char) in ("Mn", "Me", "Cf") for char in text)
    return len(text) - marks + sum(east_asian_width(char) in "WF" for char in text)
