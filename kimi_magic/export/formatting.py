"""Values, comments and statements as source text, laid out as the usual formatters do.

Invisible characters are escaped: control characters, every space but the ordinary one, and the
marks that change the direction of writing. Nothing is lost when a program is copied or saved.
"""

from __future__ import annotations

import inspect
import json
import math
import re
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any
from unicodedata import category, east_asian_width

__all__ = ["JAVASCRIPT", "PYTHON", "as_json", "comment", "join_parts"]

# Zero-width joiners shape Persian and Hindi words and emoji; str.isprintable refuses them.
_JOINERS = "\u200c\u200d"
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_DEFINITION = re.compile(r"@|(async )?def |class ")


class Literals(ABC):
    """Writer of JSON values as literals of a language."""

    width: int  # longest line that is not broken up
    tab: str  # one level of indentation
    separator: str  # text between a keyword and its value

    def write(self, value: Any, indent: str = "", used: int = 0) -> str:
        """Return the literal of a value, broken into lines where it is too long for one.

        On its first line, ``indent`` and ``used`` columns are taken by the text around it.
        """
        flat = self.flat(value)
        if len(indent) + used + _columns(flat) <= self.width:
            return flat
        if isinstance(value, str):
            return self.multiline(value) if "\n" in value else flat
        if not isinstance(value, Mapping | list | tuple | set) or not value:
            return flat
        inner = indent + self.tab
        return f"{flat[0]}\n{self._lines(self._items(value), inner)}{indent}{flat[-1]}"

    def keywords(self, values: Mapping[str, Any], indent: str | None = None) -> str:
        """Return the keyword arguments of a call or the fields of an object, one to a line."""
        pairs = ((f"{name}{self.separator}", value) for name, value in values.items())
        return self._lines(pairs, self.tab if indent is None else indent)

    def headers(
        self,
        name: str,
        headers: Iterable[tuple[str, str, str]],
        fixed: Mapping[str, str] = _NO_HEADERS,
    ) -> str:
        """Return the keyword of headers; "" for none.

        The values of ``headers`` are environment variables, those of ``fixed`` are written out.
        """
        lines = [
            f"{self.tab * 2}{self.key(header)}: {self.flat(value)},\n"
            for header, value in fixed.items()
        ]
        lines += [
            f"{self.tab * 2}{self.key(header)}: {self.looked_up(before, variable)},\n"
            for header, before, variable in headers
        ]
        opening = f"{self.tab}{name}{self.separator}{{\n"
        return "".join([opening, *lines, f"{self.tab}}},\n"]) if lines else ""

    @abstractmethod
    def looked_up(self, before: str, variable: str) -> str:
        """Return the expression of an environment variable's value, with text before it."""

    @abstractmethod
    def flat(self, value: Any) -> str:
        """Return the literal on one line."""

    @abstractmethod
    def multiline(self, text: str) -> str:
        """Return a literal that shows a string's lines as lines."""

    def key(self, key: Any) -> str:
        """Return the name of a field or an item."""
        return self.flat(key)

    def _items(self, value: Any) -> Iterable[tuple[str, Any]]:
        """Return the items of a container, each with the text that precedes it."""
        if isinstance(value, Mapping):
            return [(f"{self.key(key)}: ", item) for key, item in value.items()]
        return [("", item) for item in value]

    def _lines(self, items: Iterable[tuple[str, Any]], indent: str) -> str:
        # The comma behind an item takes a column as well.
        return "".join(
            f"{indent}{key}{self.write(item, indent, len(key) + 1)},\n" for key, item in items
        )

    def _flat_items(self, value: Any) -> str:
        return ", ".join(f"{key}{self.flat(item)}" for key, item in self._items(value))


class _Python(Literals):
    """Python in the layout of ruff and black; writes tuples, sets and bytes as well."""

    width = 88
    tab = "    "
    separator = "="

    def flat(self, value: Any) -> str:
        if isinstance(value, str):
            # Double quotes, unless single ones need fewer escapes.
            quote = "'" if value.count('"') > value.count("'") else '"'
            text = value.replace("\\", r"\\").replace(quote, f"\\{quote}")
            return f"{quote}{_escape(text, _python_escape)}{quote}"
        if isinstance(value, bytes):
            text = repr(value)
            return text if '"' in text else f'b"{text[2:-1]}"'
        if isinstance(value, Mapping | list | tuple | set):
            return self._bracketed(value)
        if isinstance(value, float) and not math.isfinite(value):
            return f'float("{value}")'
        # black and ruff write 1e100, not 1e+100.
        return repr(value).replace("e+", "e")

    def multiline(self, text: str) -> str:
        text = _escape(text.replace("\\", r"\\"), _python_escape, keep="\n")
        # A lone quote needs no escape, except at the end, where it would join the closing ones.
        text = re.sub(r'"{2,}|"\Z', lambda quotes: r"\"" * len(quotes[0]), text)
        return f'"""\\\n{_keep_trailing_spaces(text)}"""'

    def assign(self, name: str, value: Any) -> str:
        """Return the statement that binds a name to a value."""
        text = self.write(value, used=len(name) + 3)
        flat = f"{name} = {text}"
        fits_below = "\n" not in text and len(self.tab) + _columns(text) <= self.width
        if _columns(flat) > self.width and fits_below:
            return f"{name} = (\n{self.tab}{text}\n)"
        return flat

    def looked_up(self, before: str, variable: str) -> str:
        value = f'os.environ["{variable}"]'
        return f"{self.flat(before)} + {value}" if before else value

    def request(
        self,
        method: Callable[..., Any],
        fields: Mapping[str, Any],
        indent: str,
        messages: str,
        *more: str,
    ) -> str:
        """Return the arguments of a call of an SDK: the model, the messages, the other fields.

        ``messages`` is an expression, ``more`` are lines of source text. The SDKs take fields that
        are not in the ``method``'s signature only as ``extra_body``.
        """
        known = inspect.signature(method).parameters
        options = {name: value for name, value in fields.items() if name in known}
        extra = {name: value for name, value in fields.items() if name not in known}
        parts = [
            self.keywords({"model": options.pop("model")}, indent),
            f"{indent}messages={messages},\n",
            self.keywords(options, indent),
            *more,
            self.keywords({"extra_body": extra}, indent) if extra else "",
        ]
        return "".join(parts)

    def _bracketed(self, value: Any) -> str:
        inside = self._flat_items(value)
        if isinstance(value, tuple):
            return f"({inside}{',' * (len(value) == 1)})"
        if isinstance(value, list):
            return f"[{inside}]"
        return "set()" if value == set() else f"{{{inside}}}"


class _JavaScript(Literals):
    """JavaScript in the layout of prettier."""

    width = 80
    tab = "  "
    separator = ": "

    def flat(self, value: Any) -> str:
        if isinstance(value, Mapping):
            return f"{{ {self._flat_items(value)} }}" if value else "{}"
        if isinstance(value, list | tuple):
            return f"[{self._flat_items(value)}]"
        return as_json(value)

    def multiline(self, text: str) -> str:
        # In a template literal, a dollar means something only before a brace.
        text = re.sub(r"[\\`]|\$(?=\{)", r"\\\g<0>", text)
        return f"`{_keep_trailing_spaces(_escape(text, _json_escape, keep=chr(10)))}`"

    def looked_up(self, before: str, variable: str) -> str:
        value = f"process.env.{variable}"
        return f"{self.flat(before)} + {value}" if before else value

    def key(self, key: Any) -> str:
        return key if re.fullmatch(r"[A-Za-z_]\w*", key, re.ASCII) else as_json(key)


PYTHON, JAVASCRIPT = _Python(), _JavaScript()


def as_json(value: Any, indent: int | None = None) -> str:
    """Return JSON that people can read: non-ASCII characters as they are, if they are visible."""
    # json escapes newlines within strings, so those that are left belong to the layout.
    return _escape(json.dumps(value, ensure_ascii=False, indent=indent), _json_escape, keep="\n")


def comment(mark: str, paragraphs: Iterable[str]) -> str:
    """Return paragraphs as a wrapped comment; one that begins with ``- `` is a list item."""
    lines: list[str] = []
    for paragraph in paragraphs:
        # Quoted text could end the comment with a line break, a U+2028 included.
        text = _escape(" ".join(paragraph.split()), _python_escape)
        lines += textwrap.wrap(
            text,
            width=87,
            initial_indent=f"{mark} ",
            subsequent_indent=f"{mark}   " if text.startswith("- ") else f"{mark} ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    return "\n".join(lines)


def join_parts(parts: Iterable[str]) -> str:
    """Join the parts of a Python program with the blank lines that ruff and black expect."""
    text = previous = ""
    for part in (part.strip("\n") for part in parts):
        if _DEFINITION.match(previous) or (previous and _DEFINITION.match(part)):
            text += "\n\n"
        elif previous and not (_is_short_binding(previous) and _is_short_binding(part)):
            text += "\n"
        text, previous = f"{text}{part}\n", part
    return text


def _is_short_binding(part: str) -> bool:
    return re.match(r"\w+ = ", part) is not None and "\n" not in part


def _escape(text: str, escape: Callable[[str], str], keep: str = "") -> str:
    """Escape invisible characters; backslashes must be escaped already."""
    return "".join(
        char if char.isprintable() or char in _JOINERS or char in keep else escape(char)
        for char in text
    )


def _python_escape(char: str) -> str:
    return repr(char)[1:-1]


def _json_escape(char: str) -> str:
    if char in "\r\t":
        return _python_escape(char)
    # JSON and JavaScript escape UTF-16 code units, so that an astral character takes two.
    units = char.encode("utf-16-be").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))


def _keep_trailing_spaces(text: str) -> str:
    # Many editors strip spaces from the ends of lines when they save.
    return re.sub(r" (?=\n)", r"\\x20", text)


def _columns(text: str) -> int:
    """Return the width of a text as formatters count it."""
    if text.isascii():
        return len(text)
    # As in ruff's unicode-width: combining marks take no column, wide characters two.
    marks = sum(category(char) in ("Mn", "Me", "Cf") for char in text)
    return len(text) - marks + sum(east_asian_width(char) in "WF" for char in text)
