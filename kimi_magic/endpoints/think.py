"""Reasoning that arrives inside the content, between ``<think>`` and ``</think>``.

Engines without a reasoning parser send it so; Kimi K2 Thinking writes both tags itself.
"""

from __future__ import annotations

__all__ = ["ThinkSplitter"]

_OPEN, _CLOSE = "<think>", "</think>"


class ThinkSplitter:
    """Splits content into reasoning and answer, wherever the chunks are cut.

    The opening tag counts only at the start of the content: further on it is text about tags. A
    closing tag without an opening one is text as well.
    """

    def __init__(self) -> None:
        self._state = "start"  # start → reasoning → after → content
        self._held = ""

    def feed(self, text: str) -> list[tuple[bool, str]]:
        """Take content; return ``(is_reasoning, text)`` pieces."""
        if self._state == "content":
            return [(False, text)]
        return [piece for piece in self._split(self._held + text) if piece[1]]

    def finish(self) -> list[tuple[bool, str]]:
        """No more content: return what was held back as the possible start of a tag."""
        held, self._held = self._held, ""
        return [(self._state == "reasoning", held)] if held and self._state != "after" else []

    def _split(self, text: str) -> list[tuple[bool, str]]:
        self._held = ""
        if self._state == "start":
            stripped = text.lstrip()
            if len(stripped) < len(_OPEN) and _OPEN.startswith(stripped):
                self._held = text
                return []
            if not stripped.startswith(_OPEN):
                self._state = "content"
                return [(False, text)]
            self._state = "reasoning"
            text = stripped.removeprefix(_OPEN)
        pieces = []
        if self._state == "reasoning":
            before, tag, text = text.partition(_CLOSE)
            if not tag:
                keep = _suffix_that_begins(before, _CLOSE)
                self._held = before[len(before) - keep :]
                return [(True, before[: len(before) - keep])]
            pieces.append((True, before))
            self._state = "after"
        text = text.lstrip("\n")  # the blank lines after the tag belong to neither
        if text:
            self._state = "content"
            pieces.append((False, text))
        return pieces


def _suffix_that_begins(text: str, tag: str) -> int:
    """The length of the longest end of ``text`` that is a beginning of ``tag``."""
    return next((n for n in range(len(tag) - 1, 0, -1) if text.endswith(tag[:n])), 0)
