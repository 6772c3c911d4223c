"""Segments of a turn: stretches of one kind, as they are shown."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any, Literal

from kimi_magic.core.messages import ToolResult
from kimi_magic.display.printed import Printed

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
    state: str = ""  # of a tool call: "", asked, running, or the outcome of its result
    edited: str = ""  # arguments that a person put in the model's place
    defaults: str = ""  # those that apply beside the arguments of a call that a person was asked
    printed: Printed | None = None  # by a call that is under way
    result: ToolResult | None = None
    tokens: int = 0  # of reasoning, if the server reported them
    began: float = 0.0  # seconds of the turn; of a call that is made, when it was
    seconds: float | None = None  # that it took; None before its end, and where it is not known
    open: bool | None = None  # the reader's choice; None before there was one
    limit: int = UNBOUNDED  # characters of the beginning that are kept at most
    end_limit: int = 0  # characters of the end that are kept of what does not fit
    beyond: int = 0  # characters that came beyond the beginning
    guaranteed: bool = False  # kept even if the turn's size budget is used up
    _pieces: list[str] = field(default_factory=list)
    _end: list[str] = field(default_factory=list)
    _end_length: int = 0

    @property
    def text(self) -> str:
        """The text of an answer, reasoning or notice; the arguments of a tool call as JSON."""
        if len(self._pieces) > 1:
            self._pieces[:] = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""

    @property
    def missing(self) -> int:
        """Characters between the text and its end that are not kept."""
        return max(self.beyond - self.end_limit, 0)

    @property
    def end(self) -> str:
        """The last characters of a text that was too long."""
        joined = "".join(self._end)
        return joined[max(len(joined) - self.end_limit, 0) :]

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

    def skip(self, text: str) -> None:
        """Take text that does not fit, and keep the end of it."""
        self.beyond += len(text)
        self._end.append(text)
        self._end_length += len(text)
        if self._end_length > 2 * self.end_limit:  # not for each piece, as joining costs time
            self._end = [self.end]
            self._end_length = len(self._end[0])

    def skip_to(self, text: str, end_limit: int) -> None:
        """Replace what does not fit."""
        self.end_limit, self.beyond, self._end, self._end_length = end_limit, 0, [], 0
        self.skip(text)
