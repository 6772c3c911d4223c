"""Text without its escapes, and the place of each character in the text as it was written.

A key hides behind the escapes of JSON (``\\u0073k-…``, ``\\/``), of URLs (``%73k-…``), of HTML
(``&#115;k-…``) and of Markdown (``sk\\-…``): whoever decodes the text has the key. Text within text
is escaped several times. Characters that nobody sees, which views leave out, count as escapes of
nothing.
"""

from __future__ import annotations

import html
import re
from bisect import bisect_right

from kimi_magic.core.text import UNSEEN

__all__ = ["Unescaped"]

# Only the escapes of what keys are made of: a notebook's HTML is full of others. Each repetition is
# one more level of text within text, and doubles the backslashes. All begin with a literal, which
# makes the search fast.
_MARKED = (
    r"\\\\{0,7}(?:u00(?P<unicode>[2-7][0-9a-fA-F])|x(?P<hex>[2-7][0-9a-fA-F])|(?P<own>[-_/.:+=~]))"
    r"|%(?:25){0,3}(?P<percent>[2-7][0-9a-fA-F])"
    r"|&(?:amp;){0,3}(?P<entity>\#(?:[0-9]{1,7}|[xX][0-9a-fA-F]{1,6});?"
    r"|(?!amp|lt|gt|quot|apos|nbsp)[a-zA-Z]{2,8};)"
)
_ESCAPE = re.compile(_MARKED)
_ESCAPE_OR_UNSEEN = re.compile(rf"{_MARKED}|(?P<unseen>[\r{UNSEEN}])")
_UNSEEN = re.compile(rf"[\r{UNSEEN}]")
_BACKSLASHES = re.compile(r"\\{1,64}\Z")
_BEGINNING = re.compile(
    r"(?:\\{1,64}(?:u[0-9a-fA-F]{0,3}|x[0-9a-fA-F]?)?"
    r"|%(?:25){0,3}[2-7]?"
    r"|&(?:amp;){0,3}(?:\#[xX]?[0-9a-fA-F]{0,7}|[a-zA-Z]{0,8}))\Z"
)
LONGEST = 72  # characters of an escape at most, and of the backslashes before it
WIDEST = 400  # of a piece of a key that is escaped: endless unseen characters are not waited for


class Unescaped:
    """A text whose escapes are read, each of which stands for one character or for none.

    ``text`` is the same as ``written`` where that holds no escape.
    """

    __slots__ = ("_here", "_there", "escaped", "text", "written")

    def __init__(self, written: str) -> None:
        self.text = self.written = written
        # Asked in the fastest way: hardly a text has an escape.
        marked = "\\" in written or "%" in written or "&" in written or "\r" in written
        self.escaped = marked or not written.isascii()
        if self.escaped:
            self._read(written)

    def place(self, at: int) -> int:
        """Return where in the text as written a character of ``text`` begins."""
        before = bisect_right(self._here, at) - 1 if self.escaped else -1
        return at if before < 0 else self._there[before] + at - self._here[before]

    def widened(self, start: int, stop: int) -> tuple[int, int]:
        """Widen a span of the text as written so that it cuts no escape, of any kind."""
        if before := _BACKSLASHES.search(self.written, max(start - 64, 0), start):
            start = before.start()
        if self.escaped:
            # An even number of boundaries lies before the inside of an escape.
            first = bisect_right(self._there, start) - 1
            last = bisect_right(self._there, stop - 1) - 1
            if first % 2 == 0:
                start = self._there[first]
            if last % 2 == 0:
                stop = self._there[last + 1]
        return start, stop

    def last(self, count: int) -> str:
        """Return the last characters, as they were written."""
        start = self.place(max(len(self.text) - count, 0))
        return self.written[max(start, len(self.written) - WIDEST) :]

    @property
    def unfinished(self) -> int:
        """Count of the characters at the end that may be the beginning of an escape."""
        tail = self.written[-LONGEST:]
        match = _BEGINNING.search(tail) if self.escaped else None
        return len(tail) - match.start() if match else 0

    def _read(self, written: str) -> None:
        # The places where an escape begins and where it ends, by turns.
        self._here: list[int] = []
        self._there: list[int] = []
        pieces, end, length = list[str](), 0, 0
        unseen = "\r" in written or (not written.isascii() and _UNSEEN.search(written))
        for match in (_ESCAPE_OR_UNSEEN if unseen else _ESCAPE).finditer(written):
            char = _meaning(match)
            if char is not None:
                length += match.start() - end
                pieces += [written[end : match.start()], char]
                end = match.end()
                self._here += [length, length + len(char)]
                self._there += [match.start(), end]
                length += len(char)
        self.escaped = bool(pieces) or bool(_BEGINNING.search(written[-LONGEST:]))
        if pieces:
            self.text = "".join([*pieces, written[end:]])


def _meaning(match: re.Match[str]) -> str | None:
    """Return the character that an escape stands for, "" for none; None where it is no escape."""
    kind = match.lastgroup
    if kind == "own":
        return match["own"]
    if kind == "unseen":
        return ""
    if kind == "entity":
        char = html.unescape(f"&{match['entity']}")
        return char if len(char) == 1 else None
    return chr(int(match[kind or 0], 16))
