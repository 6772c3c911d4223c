"""Reasoning that arrives inside the content, between ``<think>`` and ``</think>``.

Engines without a reasoning parser send it so. Kimi K2 Thinking writes both tags itself; the chat
template of K2.5 and K2.6 writes the opening one, so that only ``</think>`` arrives.
"""

from __future__ import annotations

import re
from typing import Literal

__all__ = ["Piece", "ThinkSplitter", "possible_start"]

Piece = tuple[Literal["reasoning", "content", "retract"], str]

_OPEN, _CLOSE = "<think>", "</think>"
_TAG = re.compile(r"</?think>")
_QUOTES = "`'\""


class ThinkSplitter:
    """Splits content into reasoning and answer, wherever the chunks are cut.

    An opening tag counts only at the start of the content: further on it is text about tags, and
    so is every tag after it. A closing tag without an opening one ends a reasoning that nobody
    knew for one while it came: ``("retract", "")`` says that all content so far was reasoning. In
    quotes it is text as well.

    Attributes
    ----------
    found : bool
        Whether there was a tag that counts.
    """

    def __init__(self) -> None:
        self.found = False
        self._state = "start"  # start → reasoning → after → content; start → open → after → content
        self._held = ""
        self._last = ""

    def feed(self, text: str) -> list[Piece]:
        """Take content; return its pieces."""
        if self._state == "content":
            return [("content", text)]
        text, self._held = self._held + text, ""
        return [piece for piece in self._split(text) if piece[1] or piece[0] == "retract"]

    def finish(self) -> list[Piece]:
        """No more content: return what was held back as the possible start of a tag."""
        held, self._held = self._held, ""
        if held == _CLOSE:
            self.found = True
            return [("retract", "")]
        if not held or self._state == "after":
            return []
        return [("reasoning" if self._state == "reasoning" else "content", held)]

    def _split(self, text: str) -> list[Piece]:
        match self._state:
            case "start":
                return self._start(text)
            case "reasoning":
                return self._reasoning(text)
            case "open":
                return self._open(text)
        text = text.lstrip("\n")  # the blank lines after the tag belong to neither
        if text:
            self._state = "content"
        return [("content", text)]

    def _start(self, text: str) -> list[Piece]:
        stripped = text.lstrip()
        if len(stripped) < len(_OPEN) and _OPEN.startswith(stripped):
            self._held = text
            return []
        if not stripped.startswith(_OPEN):
            self._state = "open"
            return self._split(text)
        self.found, self._state = True, "reasoning"
        return self._split(stripped.removeprefix(_OPEN))

    def _reasoning(self, text: str) -> list[Piece]:
        before, tag, after = text.partition(_CLOSE)
        if not tag:
            self._held = possible_start(before, _CLOSE)
            return [("reasoning", before.removesuffix(self._held))]
        self._state = "after"
        return [("reasoning", before), *self._split(after)]

    def _open(self, text: str) -> list[Piece]:
        """Content whose reasoning may have begun before its first word."""
        at = 0
        while tag := _TAG.search(text, at):
            at = tag.end()
            if tag[0] == _OPEN:
                self._state = "content"
                return [("content", text)]
            if at == len(text):  # the next character tells whether it is in quotes
                self._held = _CLOSE
                return self._opened(text[: tag.start()])
            quote = text[tag.start() - 1] if tag.start() else self._last
            if not quote or quote not in _QUOTES or text[at] != quote:
                self.found, self._state = True, "after"
                before = text[: tag.start()]
                return [("content", before), ("retract", ""), *self._split(text[at:])]
        self._held = possible_start(text, _OPEN, _CLOSE)
        return self._opened(text.removesuffix(self._held))

    def _opened(self, text: str) -> list[Piece]:
        self._last = text[-1:] or self._last
        return [("content", text)]


def possible_start(text: str, *tags: str) -> str:
    """The end of a text that may be the beginning of a tag; each tag has one ``<``, its first."""
    start = text.rfind("<")
    tail = text[start:] if start >= 0 else ""
    return tail if any(tag.startswith(tail) for tag in tags) else ""
