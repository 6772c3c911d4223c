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
    """A stretch of a turn that is of one kind.

    Attributes
    ----------
    kind : str
    title : str
        Name of the tool that is called.
    done : bool
        Nothing more comes.
    length : int
        Characters of ``text``.
    state : str
        State of a tool call: empty until it is made, ``asked`` while a person is asked about it,
        then ``running``, then ``done`` or ``failed``.
    edited : str
        Arguments that a person put in the place of the model's.
    result : ToolResult or None
    tokens : int
        Count of reasoning tokens, if the server reported it.
    open : bool or None
        The reader's choice to unfold or fold it; None before there was one.
    limit : int
        Characters of the text that are kept at most.
    missing : int
        Characters that came beyond that.
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
