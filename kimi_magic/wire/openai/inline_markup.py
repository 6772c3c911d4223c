"""Reasoning and tool calls that arrive as text, from engines that parse neither.

Kimi K2 Thinking writes its reasoning between ``<think>`` and ``</think>``; the chat template of
K2.5 and K2.6 writes the opening tag, so that only ``</think>`` arrives. Calls stand between marker
tokens (the model card, *Tool Call Guidance*; white space may surround ids and arguments, the
section's markers may be missing)::

    <|tool_calls_section_begin|>
    <|tool_call_begin|>functions.NAME:IDX<|tool_call_argument_begin|>{…}<|tool_call_end|>
    <|tool_calls_section_end|>

Both may be cut anywhere: a possible beginning waits for the next chunk.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

__all__ = ["CallPart", "MarkerSplitter", "Piece", "ThinkSplitter"]

Piece = tuple[Literal["reasoning", "content", "retract"], str]

_OPEN, _CLOSE = "<think>", "</think>"
_TAG = re.compile(r"</?think>")
_QUOTES = "`'\""

_BEGIN, _ARGUMENTS = "<|tool_call_begin|>", "<|tool_call_argument_begin|>"
_MARKERS = (
    _BEGIN,
    _ARGUMENTS,
    "<|tool_call_end|>",
    "<|tool_calls_section_begin|>",
    "<|tool_calls_section_end|>",
)
_ANY_MARKER = re.compile("|".join(map(re.escape, _MARKERS)))
_HEADER = re.compile(r"\s*(?P<id>(?:functions\.)?(?P<name>[\w.-]*)(?P<count>:\d*)?)\s*")
LONGEST_HEADER, LONGEST_BLANK = 200, 10_000


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


class CallPart(NamedTuple):
    """A call's id, as the model wrote it, and name; or more of the last call's arguments."""

    id: str = ""
    name: str = ""
    arguments: str = ""


Found = str | CallPart


class MarkerSplitter:
    """Splits text into text and tool calls.

    No marker ever comes out. Text after ``<|tool_call_begin|>`` that cannot be the head of a call
    speaks of markers and stays text; blanks between two markers belong to neither.
    """

    def __init__(self) -> None:
        # text; after a marker: between, header, opening (no argument yet), arguments
        self._state = "text"
        self._held = ""  # the possible start of a marker
        self._blank = ""  # white space that matters only if more than a marker follows
        self._header = ""

    @property
    def idle(self) -> bool:
        """True where a text without ``<`` would come out as it is."""
        return not self._held and self._state == "text"

    def feed(self, text: str) -> Iterator[Found]:
        """Take text; yield what it holds, text as ``str``."""
        if self.idle and "<" not in text:
            yield text
        else:
            yield from self._split(self._held + text)

    def finish(self) -> Iterator[Found]:
        """Release what was held back, and a last call that was cut; no more text follows."""
        held, self._held = self._held, ""
        if self._state != "header":
            yield from self._take(held)
        elif (head := _HEADER.fullmatch(self._header)) and head["count"] and head["name"]:
            yield CallPart(head["id"], head["name"])

    def _split(self, text: str) -> Iterator[Found]:
        at = 0
        for marker in _ANY_MARKER.finditer(text):
            yield from self._take(text[at : marker.start()])
            yield from self._pass(marker[0])
            at = marker.end()
        rest = text[at:]
        self._held = _possible_start(rest, *_MARKERS)
        yield from self._take(rest.removesuffix(self._held))

    def _pass(self, marker: str) -> Iterator[Found]:
        """Go over a marker; a head that no arguments follow is a call as well."""
        self._blank = ""
        if self._state == "header" and (head := _HEADER.fullmatch(self._header)) and head["name"]:
            yield CallPart(head["id"], head["name"])
            if marker == _ARGUMENTS:
                self._state = "opening"
                return
        self._state = "header" if marker == _BEGIN else "between"
        self._header = ""

    def _take(self, text: str) -> Iterator[Found]:
        """Take text that holds no marker."""
        if not text:
            return
        if self._state == "header":
            self._header += text
            if len(self._header) <= LONGEST_HEADER and _HEADER.fullmatch(self._header):
                return
            self._state, text = "text", self._header
        text, self._blank = self._blank + text, ""
        if self._state == "between" and not text.isspace():
            self._state = "text"
        if self._state == "text":
            yield text
        elif text.isspace():
            self._blank = text[:LONGEST_BLANK]
        else:
            body = text.rstrip()
            self._blank = text[len(body) :]
            yield CallPart(arguments=body.lstrip() if self._state == "opening" else body)
            self._state = "arguments"


def _possible_start(text: str, *tags: str) -> str:
    """Return the end of a text that may begin a tag; each tag has one ``<``, its first."""
    start = text.rfind("<")
    tail = text[start:] if start >= 0 else ""
    return tail if any(tag.startswith(tail) for tag in tags) else ""
