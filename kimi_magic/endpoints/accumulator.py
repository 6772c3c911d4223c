"""Chunks of one model call → deltas for those who watch, and the message they add up to.

One fold for every dialect: the servers differ in names and places, not in kind. An answer that
was not streamed is folded as a single chunk whose ``message`` is the delta.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kimi_magic.endpoints.think import ThinkSplitter
from kimi_magic.events import ContentDelta, ReasoningDelta, ToolCallDelta, ToolCallStarted
from kimi_magic.messages import Completion, Message, ToolCall, Usage, mend_surrogates

__all__ = ["Accumulator", "Delta"]

Delta = ReasoningDelta | ContentDelta | ToolCallStarted | ToolCallDelta


class _Call:
    """A tool call under construction."""

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []


class Accumulator:
    """The state of one model call, from its first chunk to its last.

    ``add`` may be followed by ``completion`` at any moment: what has arrived is always a message,
    so an interrupt or a broken line loses nothing.
    """

    def __init__(self) -> None:
        self._reasoning: list[str] = []
        self._content: list[str] = []
        self._reasoning_key: str | None = None
        self._calls: dict[int, _Call] = {}
        self._split = ThinkSplitter()
        self._halves: dict[bool, str] = {}
        self._usage = Usage()
        self.finish_reason: str | None = None
        self.model: str | None = None

    @property
    def started(self) -> bool:
        """Whether a first token has arrived."""
        return bool(self._reasoning or self._content or self._calls)

    def add(self, chunk: Mapping[str, Any]) -> list[Delta]:
        """Fold one chunk in; return what it adds."""
        self.model = chunk.get("model") or self.model
        choices = chunk.get("choices")
        choice = choices[0] if choices else {}
        if usage := chunk.get("usage") or choice.get("usage"):
            self._usage = read_usage(usage)
        delta = choice.get("delta") or choice.get("message") or {}
        deltas = self._text(delta)
        if calls := delta.get("tool_calls"):
            deltas += self._tool_calls(calls)
        # The usage chunk may repeat the reason, and a late chunk may carry null.
        if reason := choice.get("finish_reason"):
            self.finish_reason = reason
        return deltas

    def finish(self) -> list[Delta]:
        """No more chunks: release text that was held back as the possible start of a tag."""
        return self._keep(self._split.finish())

    def _whole(self, is_reasoning: bool, text: str) -> str:  # noqa: FBT001 - the key of a dict
        """Text without half a code point: JSON escapes one in two, which chunks may part."""
        if text.isascii() and not self._halves:
            return text
        text = self._halves.pop(is_reasoning, "") + text
        if "\ud800" <= text[-1] <= "\udbff":
            self._halves[is_reasoning] = text[-1]
            text = text[:-1]
        return mend_surrogates(text)

    def completion(self, seconds: float = 0.0) -> Completion:
        """What has arrived so far, whole or cut."""
        reasoning = "".join(self._reasoning)
        usage = Usage(requests=1, seconds=seconds) + self._usage
        return Completion(
            Message(
                "assistant",
                "".join(self._content),
                reasoning=reasoning or None,
                reasoning_key=self._reasoning_key or "reasoning_content",
                tool_calls=tuple(
                    ToolCall(call.id, call.name, "".join(call.arguments))
                    for _, call in sorted(self._calls.items())
                ),
            ),
            finish_reason=self.finish_reason,
            usage=usage,
            model=self.model,
        )

    def _text(self, delta: Mapping[str, Any]) -> list[Delta]:
        pieces = []
        if reasoning := self._reasoning_of(delta):
            pieces.append((True, reasoning))
        content = delta.get("content")
        if isinstance(content, list):  # parts, as the API has them for messages
            content = "".join(part.get("text") or "" for part in content)
        if content and self._reasoning_key is None:
            pieces += self._split.feed(content)
        elif content:  # a server that parses the reasoning itself leaves no tags in the content
            pieces.append((False, content))
        return self._keep(pieces)

    def _keep(self, pieces: list[tuple[bool, str]]) -> list[Delta]:
        deltas: list[Delta] = []
        for is_reasoning, piece in pieces:
            text = self._whole(is_reasoning, piece)
            if not text:
                continue
            (self._reasoning if is_reasoning else self._content).append(text)
            deltas.append(ReasoningDelta(text) if is_reasoning else ContentDelta(text))
        return deltas

    def _reasoning_of(self, delta: Mapping[str, Any]) -> str:
        """Take the reasoning under one of its names: servers that send two send the same twice."""
        for key in ("reasoning_content", "reasoning_details", "reasoning"):
            value = delta.get(key)
            if isinstance(value, list):
                value = "".join(
                    item["text"]
                    for item in value
                    if isinstance(item, dict) and isinstance(item.get("text"), str)
                )
            if isinstance(value, str) and value:
                # reasoning_details always comes beside the plain text, which is what goes back.
                self._reasoning_key = "reasoning" if key == "reasoning_details" else key
                return value
        return ""

    def _tool_calls(self, fragments: list[dict[str, Any]]) -> Iterator[Delta]:
        """Assign ids and names when they are not empty; only arguments are concatenated."""
        for fragment in fragments:
            index = self._index_of(fragment)
            call = self._calls.setdefault(index, _Call())
            function = fragment.get("function") or {}
            call.id = fragment.get("id") or call.id
            if (name := function.get("name")) and name != call.name:
                call.name = name
                yield ToolCallStarted(index, name)
            if arguments := function.get("arguments"):
                call.arguments.append(arguments)
                yield ToolCallDelta(index, arguments)

    def _index_of(self, fragment: Mapping[str, Any]) -> int:
        index = fragment.get("index")
        if isinstance(index, int):
            return index
        # Without an index each fragment is one whole call (NVIDIA), unless its id is known.
        for known, call in self._calls.items():
            if call.id and call.id == fragment.get("id"):
                return known
        return len(self._calls)


def read_usage(usage: Mapping[str, Any]) -> Usage:
    """Read the counts from each of the places where servers put them."""
    prompt_details = usage.get("prompt_tokens_details") or {}
    completion_details = usage.get("completion_tokens_details") or {}
    return Usage(
        prompt_tokens=usage.get("prompt_tokens") or 0,
        completion_tokens=usage.get("completion_tokens") or 0,
        reasoning_tokens=completion_details.get("reasoning_tokens") or 0,
        cached_tokens=usage.get("cached_tokens") or prompt_details.get("cached_tokens") or 0,
    )
