"""Text for readers: clean of characters that mislead, short enough, counted."""

from __future__ import annotations

import errno
import html
import json
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any
from unicodedata import east_asian_width

__all__ = [
    "MATHJAX",
    "UNSEEN",
    "Pieces",
    "bytes_of",
    "clean",
    "clip",
    "columns",
    "count",
    "cut",
    "cut_middle",
    "cut_note",
    "encodable_json",
    "escape_hidden",
    "is_json_bomb",
    "keep_ends",
    "mend_surrogates",
    "plain",
    "plain_html",
    "replace_unprintable",
    "reveal",
    "split_ends",
    "text_of_html",
    "vote_line",
    "why_not_written",
    "without_blank_lines",
    "without_stacks",
]

END_SHARE = 4  # of a text that is cut, one character in so many is of its end
MOST_SAID = 3  # answers of trajectories in the line that counts them
_TAG = re.compile(r"<(?:!|/?[a-zA-Z])[^>]*>")
MATHJAX = re.compile(r"[$\\]")
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")

# Characters that mislead a reader, as ranges of a regular expression's class.
_CONTROLS = "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 without tab and line feed, C1: terminals obey them
_SURROGATES = "\ud800-\udfff"  # UTF-8 cannot hold them
_REORDERING = "\u2028-\u202e\u2066-\u2069\ufff9-\ufffb"  # break lines, turn the writing around
_TAGS = "\U000e0000-\U000e00ff"  # say things to a model that nobody sees
# Take no place, and hide a word from a search or a reader. \u200c and \u200d are not among them:
# they shape Persian and Hindi words and emoji.
_INVISIBLE = (
    "\xad\u034f\u061c\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u2060-\u2065\u206a-\u206f\ufeff"
    "\U000e0100-\U000e01ef"
)
_SELECTORS = "\ufe00-\ufe0f"  # choose how the character before them looks: text or emoji
_LOOKS = "\ufe0e\ufe0f"  # a symbol as text, as emoji
_BLANK_LETTERS = "\u115f\u1160\u3164\uffa0"  # letters by Unicode's category, blank by their looks
_BLANK_BRAILLE = "\u2800"

# Accents that stand on one letter. Beyond a few, which no script needs, they are drawn over the
# lines above and below.
_ACCENTS = (
    "\u0300-\u034e\u0350-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"
)
_STACK = re.compile(f"(?<=[{_ACCENTS}]{{4}})[{_ACCENTS}]+")

_UNSAFE = re.compile(f"[{_CONTROLS}{_SURROGATES}{_REORDERING}{_TAGS}]")
UNSEEN = f"{_INVISIBLE}{_BLANK_LETTERS}"
"""The characters that `clean` drops besides carriage returns, as a part of a regular expression's
class."""
_UNSEEN = re.compile(f"[{UNSEEN}]")
_BLANKS = _BLANK_LETTERS + _BLANK_BRAILLE
_HIDING = re.compile(f"[{_INVISIBLE}{_SELECTORS}{_BLANKS}]")
_MAX_INDENT = 80
_DISK = {
    getattr(errno, "EDQUOT", errno.ENOSPC): "the quota of the disk is used up",
    errno.ENOSPC: "the disk is full",
    errno.EROFS: "the disk is read-only",
}
_HEAD = sys.getsizeof("é") - 1
# An empty object of two letters takes 64 bytes.
LONG_JSON, MOST_CONTAINERS = 1_000_000, 300_000


def clean(text: str) -> str:
    """Make control characters visible; drop carriage returns and what cannot be seen.

    Works character by character: cleaned pieces add up to the cleaned whole.
    """
    if text.isascii() and text.isprintable():
        return text
    return _UNSAFE.sub(_visible, _UNSEEN.sub("", text))


def _visible(match: re.Match[str]) -> str:
    char = match[0]
    if char == "\r":
        return ""
    if char < " ":
        return chr(0x2400 + ord(char))  # the Control Pictures block: ␛ for ESC
    return "\N{SYMBOL FOR DELETE}" if char == "\x7f" else "\N{REPLACEMENT CHARACTER}"


def reveal(text: str) -> str:
    """Show each unseen character by its number: nobody can approve what is hidden.

    Of accents that stand on one letter the fifth and later ones are shown so too.
    """
    shown = "".join(
        char if _is_printable(char) and not _HIDING.match(char) else _number(char) for char in text
    )
    return _STACK.sub(lambda match: "".join(map(_number, match[0])), shown)


def _number(char: str) -> str:
    return f"⟨U+{ord(char):04X}⟩"


def without_stacks(text: str) -> str:
    """Drop the fifth and later ones of the accents on a letter, for displays that do not clip."""
    return text if text.isascii() else _STACK.sub("", text)


def escape_hidden(code: str) -> tuple[str, int]:
    """Write what code hides as Python's escapes, and return how many characters those are.

    Within a string an escape means the same character. Elsewhere it is text that a reader sees,
    and outside of a comment Python refuses it.
    """
    code = code.replace("\r\n", "\n")
    pieces: list[str] = []
    backslashes = escaped = 0
    before = ""
    for char in code:
        is_seen = _is_printable(char) and not _HIDING.match(char)
        if is_seen or (char in _LOOKS and before > "\u2000" and not before.isalnum()):
            pieces.append(char)
        else:
            # After a lone backslash the escape's own would be taken for an escaped one.
            pieces.append("\\" * (backslashes % 2) + _escape(char))
            escaped += 1
        backslashes = backslashes + 1 if char == "\\" else 0
        before = char if is_seen else ""
    return "".join(pieces), escaped


def _escape(char: str) -> str:
    number = ord(char)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def replace_unprintable(text: str) -> str:
    """Put U+FFFD for what a terminal or a front end would obey, and for blanks in disguise."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char if _is_printable(char) and char not in _BLANKS else "\N{REPLACEMENT CHARACTER}"
        for char in text
    )


def _is_printable(char: str) -> bool:
    return char.isprintable() or char in "\n\t"


def mend_surrogates(text: str) -> str:
    """Join the two halves of a code point where they meet; a half alone becomes U+FFFD.

    No server accepts a text that UTF-8 cannot encode.
    """
    if text.isascii():  # without a copy of it
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def text_of_html(page: str) -> str:
    """Return what a page says, in one line: its title, where it has one, else its text."""
    page = re.sub(r"(?is)<(script|style)\b.*?</\1>", " ", page)
    title = re.search(r"(?is)<title[^>]*>(.*?)</title>", page)
    return " ".join(html.unescape(_TAG.sub(" ", title[1] if title else page)).split())


def without_blank_lines(text: str) -> str:
    """Drop blank lines at the beginning; the indentation of the first other line stays."""
    body = text.lstrip()
    blank = text[: len(text) - len(body)]
    return blank.rpartition("\n")[2][-_MAX_INDENT:] + body


def count(number: int, noun: str) -> str:
    """Format a count with its noun: ``1 row``, ``1,000 rows``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def clip(text: str, limit: int) -> str:
    """Shorten a few words; an ellipsis stands for the rest."""
    return text if len(text) <= limit else f"{text[: max(limit - 1, 0)]}…"[: max(limit, 0)]


def cut(text: str, limit: int, hint: str = "") -> str:
    """Shorten a text to ``limit`` characters, a note on what is missing included.

    An ellipsis replaces a note that would take most of them.
    """
    if len(text) <= limit:
        return text
    size, note = _note(len(text), limit, hint)
    return clip(text, limit) if size < limit // 4 else f"{text[:size]}{note}"


def cut_middle(text: str, limit: int) -> str:
    """Shorten a text like ``cut``, but keep its end too: that gets two thirds of the characters."""
    if len(text) <= limit:
        return text
    size, note = _note(len(text), limit - 2)
    if size < max(limit // 4, 3):
        return clip(text, limit)
    head = size // 3
    return f"{text[:head]}\n{note}\n{text[head - size :]}"


def _note(length: int, limit: int, hint: str = "") -> tuple[int, str]:
    """Return how many characters remain beside the note (negative: none fit), and the note.

    The note tells how much is missing, which depends on its own length: its digits vary by few.
    """
    hint = hint and f"; {hint}"
    size = limit - len(f"… [cut: {length:,} of {length:,} characters are missing{hint}]")
    missing = length - max(size, 0)
    return size, f"… [cut: {missing:,} of {length:,} characters are missing{hint}]"


def plain(text: str) -> str:
    """Return printed text as a terminal leaves it: without colours and overwritten lines."""
    text = _ANSI.sub("", text)
    if "\r" not in text:
        return text
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))


def plain_html(text: str) -> str:
    """Escape text that stands outside ``<pre>``, so that MathJax finds no maths in it."""
    return MATHJAX.sub(r"<span>\g<0></span>", html.escape(text))


def bytes_of(text: str) -> int:
    """Return the bytes that the characters of a text take in memory, four each at most."""
    return len(text) if text.isascii() else sys.getsizeof(text) - _HEAD


def why_not_written(error: OSError) -> str:
    """Return why a file could not be written, in a reader's words."""
    return _DISK.get(error.errno or 0) or error.strerror or str(error) or type(error).__name__


def is_json_bomb(data: bytes) -> bool:
    """Return True for JSON whose objects would take many times the room of its text."""
    return len(data) > LONG_JSON and data.count(b"{") + data.count(b"[") > MOST_CONTAINERS


def encodable_json(value: Any, **options: Any) -> str:
    """Write JSON that UTF-8 can encode: half a code point, which it cannot, is an escape.

    ``options`` are those of ``json.dumps``.
    """
    text = json.dumps(value, ensure_ascii=False, **options)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, **options)
    return text


class Pieces(list[str]):
    """The pieces of a text that grows by ``append``.

    They are joined a block at a time: a text of two letters takes 50 bytes, and 8 for its place.
    """

    BLOCK = 1000

    def __init__(self, pieces: Iterable[str] = ()) -> None:
        super().__init__(pieces)
        self._loose = 0

    def append(self, piece: str) -> None:
        super().append(piece)
        self._loose += 1
        if self._loose == self.BLOCK:
            self[-self.BLOCK :] = ["".join(self[-self.BLOCK :])]
            self._loose = 0


def split_ends(limit: int) -> tuple[int, int]:
    """Divide a number of characters between the beginning of a text and its end."""
    return limit - limit // END_SHARE, limit // END_SHARE


def cut_note(missing: int) -> str:
    """Say how many characters are missing; "" if none are."""
    said = f"{missing:,} more characters are not kept here (setting max_output_chars)"
    return f"… {said} …" if missing else ""


def keep_ends(text: str, limit: int) -> str:
    """Shorten a text to its beginning and its end, with a note between them."""
    missing = len(text) - max(limit, 0)
    if missing <= 0:
        return text
    head, end = split_ends(max(limit, 0))
    return f"{text[:head]}\n{cut_note(missing)}\n{text[len(text) - end :]}"


def vote_line(groups: Iterable[tuple[str, int]]) -> str:
    """Say how many trajectories came to each answer, most of them first."""
    given = list(groups)
    total = sum(number for _, number in given)
    said = [f"{number} of {total}: {answer}" for answer, number in given[:MOST_SAID]]
    more = len(given) - len(said)
    return "; ".join([*said, *([count(more, "other answer")] if more else [])])


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Write rows one below the other, their cells in columns."""
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    )


def _width(text: str) -> int:
    """Return the columns that a text takes where all characters are as wide, or twice."""
    return sum(2 if east_asian_width(char) in "WF" else 1 for char in text)
