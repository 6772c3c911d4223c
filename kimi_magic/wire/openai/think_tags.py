"""Reasoning that arrives in the content, between ``<think>`` and ``</think>``.

Kimi K2 Thinking writes both tags; the chat template of K2.5 and K2.6 writes the opening one, so
that only ``</think>`` arrives. A tag may be cut anywhere: a possible beginning waits for the next
chunk.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

__all__ = ["Piece", "ThinkSplitter"]

Piece = tuple[Literal["reasoning", "content", "retract"], str]

_OPEN, _CLOSE = "<think>", "</think>"
_TAG = re.compile(r"</?think>")
_QUOTES = "`'\""


class ThinkSplitter:
    """Splits content into reasoning and answer.

    An opening tag counts only at the start of the content: further on it is text about tags, and
    so is every tag after it. A closing tag without an opening one ends a reasoning that looked
    like content while it came: ``("retract", "")`` says that all content so far was reasoning. In
    quotes it is text as well.
    """

    def __init__(self) -> None:
        self.found = False  # True once there was a tag that counts
        self._state = "start"  # start → reasoning → after → content; start → open → after → content
        self._held = ""  # the possible start of a tag
        self._last = ""  # the last character handed on, which may be a quote

    def feed(self, text: str) -> list[Piece]:
        """Take content; return its pieces."""
        if self._state == "content":
            return [("content", text)]
        text, self._held = self._held + text, ""
        return [piece for piece in self._split(text) if piece[1] or piece[0] == "retract"]

    def finish(self) -> list[Piece]:
        """Return what was held back; no more content follows."""
        held, self._held = self._held, ""
        if held == _CLOSE:
            self.found = True
            return [("retract", "")]
        if not held or self._state == "after":
            return []
        return [("reasoning" if self._state == "reasoning" else "content", held)]

    def _split(self, text: str) -> Iterator[Piece]:
        if self._state == "start":
            stripped = text.lstrip()
            if len(stripped) < len(_OPEN) and _OPEN.startswith(stripped):
                self._held = text
                return
            self.found = stripped.startswith(_OPEN)
            self._state = "reasoning" if self.found else "open"
            text = stripped.removeprefix(_OPEN) if self.found else text
        if self._state == "open":
            yield from self._unopened(text)
            return
        if self._state == "reasoning":
            before, tag, text = text.partition(_CLOSE)
            if tag:
                self._state = "after"
            else:
                self._held = _possible_start(before, _CLOSE)
            yield "reasoning", before.removesuffix(self._held)
        text = text.lstrip("\n")  # the blank lines after the tag belong to neither
        if text:
            self._state = "content"
            yield "content", text

    def _unopened(self, text: str) -> Iterator[Piece]:
        """Split content whose reasoning may have begun before its first word."""
        at = 0
        while tag := _TAG.search(text, at):
            at = tag.end()
            if tag[0] == _OPEN:
                self._state = "content"
                yield "content", text
                return
            if at == len(text):  # the next character tells whether it is in quotes
                self._held = _CLOSE
                break
            quote = text[tag.start() - 1] if tag.start() else self._last
            if not quote or quote not in _QUOTES or text[at] != quote:
                self.found, self._state = True, "after"
                yield from (("content", text[: tag.start()]), ("retract", ""))
                yield from self._split(text[at:])
                return
        self._held = self._held or _possible_start(text, _OPEN, _CLOSE)
        text = text.removesuffix(self._held)
        self._last = text[-1:] or self._last
        yield "content", text


def _possible_start(text: str, *tags: str) -> str:
    """Return the end of a text that may begin a tag; each tag has one ``<``, its first."""
    start = text.rfind("<")
    tail = text[start:] if start >= 0 else ""
    return tail if any(tag.startswith(tail) for tag in tags) else ""
