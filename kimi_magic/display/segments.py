"""Segments of a turn, and text that is safe to show."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from typing import Any, Literal

from kimi_magic.core.messages import ToolResult

__all__ = ["UNBOUNDED", "Kind", "Op", "Segment", "clean", "reveal", "without_blank_lines"]

UNBOUNDED = sys.maxsize
INDENT = 80
Kind = Literal["reasoning", "answer", "notice", "tool"]
Op = dict[str, Any]

# C0 and C1 controls (a terminal obeys them), surrogates (no UTF-8 holds them), what reorders or
# breaks lines of what is read, and tags, which say things to a model that nobody sees.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u2028-\u202e\u2066-\u2069\ufff9-\ufffb"
    "\U000e0000-\U000e00ff]"
)
# What takes no place, and hides a word from a search or a reader: \u200c and \u200d are not among
# them, which shape Persian and Hindi words and emoji.
_UNSEEN = re.compile(
    "[\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u2060-\u2065\u206a-\u206f"
    "\u3164\ufeff\uffa0\U000e0100-\U000e01ef]"
)
_UNSEEN_ANYWHERE = re.compile(f"{_UNSEEN.pattern}|[\u2800\ufe00-\ufe0f]")


def clean(text: str) -> str:
    """Make control characters visible; carriage returns go, and what cannot be seen.

    Works character by character: a text cleaned in pieces is the text cleaned as a whole.
    """
    if text.isascii() and text.isprintable():
        return text
    return _UNSAFE.sub(_visible, _UNSEEN.sub("", text))


def reveal(text: str) -> str:
    """Show what cannot be seen by its number: a person is to approve all that is there."""
    return "".join(
        char if char in "\n\t" or (char.isprintable() and not _UNSEEN_ANYWHERE.match(char))
        else f"⟨U+{ord(char):04X}⟩"
        for char in text
    )  # fmt: skip


def without_blank_lines(text: str) -> str:
    """Drop blank lines at the beginning, but keep the indentation of the first line with text."""
    body = text.lstrip()
    blank = text[: len(text) - len(body)]
    return blank.rpartition("\n")[2][-INDENT:] + body


def _visible(match: re.Match[str]) -> str:
    char = match[0]
    if char == "\r":
        return ""
    if char < " ":
        return chr(0x2400 + ord(char))  # the Control Pictures block: ␛ for ESC
    return "\N{SYMBOL FOR DELETE}" if char == "\x7f" else "\N{REPLACEMENT CHARACTER}"


@dataclass(slots=True)
class Segment:
    """A stretch of a turn that is of one kind.

    Attributes
    ----------
    title, edited : str
        Name of the tool that is called, and arguments that a person put in the model's place.
    state : str
        State of a tool call: empty until it is made, ``asked`` while a person is asked about it,
        then ``running``, then ``done`` or ``failed``.
    tokens : int
        Count of reasoning tokens, if the server reported it.
    open : bool or None
        The reader's choice to unfold or fold it; None before there was one.
    limit, missing : int
        Characters that are kept at most, and characters that came beyond that.
    guaranteed : bool
        It is kept even if the size budget of the turn is used up.
    """

    kind: Kind
    title: str = ""
    done: bool = False
    length: int = 0
    state: str = ""
    edited: str = ""
    result: ToolResult | None = None
    tokens: int = 0
    open: bool | None = None
    limit: int = UNBOUNDED
    missing: int = 0
    guaranteed: bool = False
    _pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The text of an answer, reasoning or notice; the arguments of a tool call as JSON."""
        if len(self._pieces) > 1:
            self._pieces[:] = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""

    def peek(self) -> str:
        """Return the text without joining it in place: another thread may be adding to it."""
        return "".join(tuple(self._pieces))

    @property
    def arguments(self) -> str:
        """Arguments that a tool call is made with."""
        return self.edited or self.text

    @property
    def ends_line(self) -> bool:
        return bool(self._pieces) and self._pieces[-1].endswith("\n")

    def append(self, text: str) -> int:
        """Add text and return the offset at which it begins."""
        at = self.length
        self._pieces.append(text)
        self.length += len(text)
        return at
