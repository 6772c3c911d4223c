"""Segments of a turn: stretches of one kind, as they are shown."""

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
    """A stretch of a turn that is of one kind."""

    kind: Kind
    title: str = ""  # name of the tool that is called
    done: bool = False
    length: int = 0
    state: str = ""  # of a tool call: "", asked, running, done or failed
    edited: str = ""  # arguments that a person put in the model's place
    defaults: str = ""  # those that apply beside the arguments of a call that a person was asked
    result: ToolResult | None = None
    tokens: int = 0  # of reasoning, if the server reported them
    open: bool | None = None  # the reader's choice; None before there was one
    limit: int = UNBOUNDED  # characters that are kept at most
    missing: int = 0  # characters that came beyond that
    guaranteed: bool = False  # kept even if the turn's size budget is used up
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
        self._pieces.append(text)
        self.length += len(text)
        return self.length - len(text)
