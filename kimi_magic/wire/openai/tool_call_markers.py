"""Tool calls that arrive as text, between the marker tokens of Kimi K2.

An engine without a tool parser passes on what the model wrote (its model card, *Tool Call
Guidance*; white space may stand around ids and arguments, the section's markers may be missing)::

    <|tool_calls_section_begin|>
    <|tool_call_begin|>functions.NAME:IDX<|tool_call_argument_begin|>{…}<|tool_call_end|>
    <|tool_calls_section_end|>
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from kimi_magic.wire.openai.think_tags import possible_start

__all__ = ["CallArguments", "CallBegun", "MarkerSplitter"]

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
LONGEST_HEADER = 200


class CallBegun(NamedTuple):
    """A call whose name is known; ``id`` is the model's own, as it wrote it."""

    id: str
    name: str


class CallArguments(NamedTuple):
    """More of the arguments of the call that began last."""

    text: str


Found = str | CallBegun | CallArguments


class MarkerSplitter:
    """Splits text into text and tool calls, wherever the chunks are cut.

    No marker ever comes out. What stands after ``<|tool_call_begin|>`` and cannot be the head of a
    call is text that speaks of markers; blanks between two markers belong to neither.
    """

    def __init__(self) -> None:
        # text; after a marker: between, header, opening (no argument yet), arguments
        self._state = "text"
        self._held = ""  # the possible start of a marker
        self._blank = ""  # white space that matters only if more than a marker follows
        self._header = ""

    @property
    def idle(self) -> bool:
        """Whether a text without ``<`` would come out as it is."""
        return not self._held and self._state == "text"

    def feed(self, text: str) -> Iterator[Found]:
        """Take text; yield what it holds, text as ``str``."""
        if self.idle and "<" not in text:
            yield text
        else:
            yield from self._split(self._held + text)

    def finish(self) -> Iterator[Found]:
        """No more text: release what was held back, and a last call that was cut."""
        held, self._held = self._held, ""
        if self._state == "header":
            head = _HEADER.fullmatch(self._header)
            if head and head["count"] and head["name"]:
                yield CallBegun(head["id"], head["name"])
        elif held:
            yield from self._take(held)

    def _split(self, text: str) -> Iterator[Found]:
        at = 0
        for marker in _ANY_MARKER.finditer(text):
            yield from self._take(text[at : marker.start()])
            yield from self._pass(marker[0])
            at = marker.end()
        rest = text[at:]
        self._held = possible_start(rest, *_MARKERS)
        yield from self._take(rest.removesuffix(self._held))

    def _pass(self, marker: str) -> Iterator[Found]:
        """Go over a marker; a head that no arguments follow is a call as well."""
        self._blank = ""
        if self._state == "header" and (head := _HEADER.fullmatch(self._header)) and head["name"]:
            yield CallBegun(head["id"], head["name"])
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
            self._blank = text
        else:
            body = text.rstrip()
            self._blank = text[len(body) :]
            yield CallArguments(body.lstrip() if self._state == "opening" else body)
            self._state = "arguments"
