"""A stretch of a turn as it is shown."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any, Literal

from kimi_magic.core.messages import ToolResult

__all__ = ["UNBOUNDED", "Kind", "Op", "Segment"]

UNBOUNDED = sys.maxsize
Kind = Literal["reasoning", "answer", "notice", "tool"]
Op = dict[str, Any]


@dataclass(slots=True)
class Segment:
    """One stretch of one kind.

    Of a tool call ``title`` is the tool's name, ``text`` its arguments, ``state`` empty until it
    is made, then ``running`` (``asked`` while a person is), then ``done`` or ``failed``;
    ``edited`` are the arguments that a person put in their place. Of
    reasoning ``tokens`` is its count where the server told it. ``open`` is what the reader chose,
    None before. ``most`` is how much of its text is kept, ``missing`` what came beyond that;
    what is ``assured`` is kept whatever else there is.
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
    most: int = UNBOUNDED
    missing: int = 0
    assured: bool = False
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
