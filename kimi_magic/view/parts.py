"""A stretch of a turn as it is shown, and text that is safe to show."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from kimi_magic.messages import ToolResult

__all__ = ["Kind", "Part", "clean"]

Kind = Literal["reasoning", "answer", "notice", "tool"]

# C0 and C1 controls (a terminal obeys them), surrogates (no UTF-8 holds them), and the bidi
# controls that reorder what is read.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


def clean(text: str) -> str:
    """Make control characters visible; carriage returns go.

    Works character by character: a text cleaned in pieces is the text cleaned as a whole.
    """
    return _UNSAFE.sub(_visible, text) if _UNSAFE.search(text) else text


def _visible(match: re.Match[str]) -> str:
    char = match[0]
    if char == "\r":
        return ""
    if char < " ":
        return chr(0x2400 + ord(char))  # the Control Pictures block: ␛ for ESC
    return "\N{SYMBOL FOR DELETE}" if char == "\x7f" else "\N{REPLACEMENT CHARACTER}"


@dataclass(slots=True)
class Part:
    """One stretch of one kind.

    Of a tool call ``title`` is the tool's name, ``text`` its arguments, ``state`` empty until it
    is made, then ``running`` (``asked`` while a person is), then ``done`` or ``failed``;
    ``edited`` are the arguments that a person put in their place. Of
    reasoning ``tokens`` is its count where the server told it. ``open`` is what the reader chose,
    None before.
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
    _pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        if len(self._pieces) > 1:
            self._pieces[:] = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""

    def peek(self) -> str:
        """The text, without a touch on it: its own thread may be adding to it."""
        return "".join(tuple(self._pieces))

    @property
    def arguments(self) -> str:
        """Of a tool call, what it is made with."""
        return self.edited or self.text

    @property
    def ends_line(self) -> bool:
        return bool(self._pieces) and self._pieces[-1].endswith("\n")

    def append(self, text: str) -> int:
        """Add text; gives the offset where it begins."""
        at = self.length
        self._pieces.append(text)
        self.length += len(text)
        return at
