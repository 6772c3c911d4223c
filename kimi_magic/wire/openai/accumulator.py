"""Chunks of one model call → deltas for those who watch, and the message they add up to.

One fold for every dialect: the servers differ in names and places, not in kind. An answer that
was not streamed is folded as a single chunk whose ``message`` is the delta.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from kimi_magic.core.events import ContentDelta, ReasoningDelta, ToolCallDelta, ToolCallStarted
from kimi_magic.core.messages import Completion, Message, Usage, as_reasoning
from kimi_magic.secrets.keys import Key
from kimi_magic.secrets.stream import StreamRedactor
from kimi_magic.wire.openai.think_tags import Piece, ThinkSplitter
from kimi_magic.wire.openai.tool_call_deltas import CallTable
from kimi_magic.wire.openai.tool_call_markers import CallArguments, CallBegun, MarkerSplitter

__all__ = ["Accumulator", "Delta"]

Delta = ReasoningDelta | ContentDelta | ToolCallStarted | ToolCallDelta
Field = Literal["reasoning", "content"]
_REASONING: Field = "reasoning"
_CONTENT: Field = "content"


class Accumulator:
    """The state of one model call, from its first chunk to its last.

    ``add`` may be followed by ``completion`` at any moment: what has arrived is always a message,
    so an interrupt or a broken line loses nothing.

    The deltas add up to the message but for one dialect: where only ``</think>`` arrives, its
    reasoning was handed on as content before anybody could know. The message has it as reasoning;
    those who watched saw one text, with an empty line where the tag stood.

    Parameters
    ----------
    keys : sequence of Key
        Masked in what arrives.
    """

    def __init__(self, keys: Sequence[Key] = ()) -> None:
        self._text: dict[Field, list[str]] = {"reasoning": [], "content": []}
        self._arriving: dict[Field, StreamRedactor] = {
            "reasoning": StreamRedactor(keys),
            "content": StreamRedactor(keys),
        }
        self._markers: dict[Field, MarkerSplitter] = {
            "reasoning": MarkerSplitter(),
            "content": MarkerSplitter(),
        }
        self._think = ThinkSplitter()
        self._calls = CallTable(keys)
        self._reasoning_key: str | None = None
        self._usage = Usage()
        self.finish_reason: str | None = None
        self.model: str | None = None

    @property
    def started(self) -> bool:
        """Whether a first token has arrived."""
        return bool(self._text["reasoning"] or self._text["content"] or self._calls)

    def add(self, chunk: Mapping[str, Any]) -> list[Delta]:
        """Fold one chunk in; return what it adds."""
        if (plain := self._plain(chunk)) is not None:
            return plain
        self.model = _string(chunk.get("model")) or self.model
        choice = _first_choice(chunk.get("choices"))
        if usage := _mapping(chunk.get("usage")) or _mapping(choice.get("usage")):
            self._usage = read_usage(usage)
        # The usage chunk may repeat the reason, and a late chunk may carry null.
        self.finish_reason = _string(choice.get("finish_reason")) or self.finish_reason
        delta = _mapping(choice.get("delta")) or _mapping(choice.get("message"))
        return list(self._delta(delta))

    def finish(self) -> list[Delta]:
        """No more chunks: release text that was held back as the possible start of something."""
        ends = [*self._end_of("reasoning"), *self._end_of("content")]
        ends += self._keep(self._think.finish())
        return [*ends, *self._rest("reasoning"), *self._rest("content"), *self._calls.finish()]

    def completion(self, seconds: float = 0.0) -> Completion:
        """What has arrived so far, whole or cut."""
        return Completion(
            Message(
                "assistant",
                "".join(self._text["content"]),
                reasoning=as_reasoning("".join(self._text["reasoning"]) or None),
                reasoning_key=self._reasoning_key
                or ("content" if self._think.found else "reasoning_content"),
                tool_calls=self._calls.calls(),
            ),
            finish_reason=self.finish_reason,
            usage=Usage(requests=1, seconds=seconds) + self._usage,
            model=self.model,
        )

    def _plain(self, chunk: Mapping[str, Any]) -> list[Delta] | None:
        """What nearly every chunk is, a piece of text and nothing else, at a third of the cost.

        None for all others, and as long as a tag or a marker may be on its way.
        """
        choices = chunk.get("choices")
        if self._reasoning_key is None or not choices or len(choices) != 1 or chunk.get("usage"):
            return None
        choice = choices[0]
        if not isinstance(choice, dict) or choice.get("finish_reason") or choice.get("index"):
            return None
        delta = choice.get("delta")
        if not isinstance(delta, dict) or delta.get("tool_calls") or "reasoning_details" in delta:
            return None
        reasoning, content = delta.get(self._reasoning_key), delta.get("content")
        text, field = (content, _CONTENT) if not reasoning else (reasoning, _REASONING)
        if not isinstance(text, str) or not text or (reasoning and content) or "<" in text:
            return None
        if not self._markers[field].idle:
            return None
        return list(self._told(field, self._arriving[field].feed(text)))

    def _delta(self, delta: Mapping[str, Any]) -> Iterator[Delta]:
        if reasoning := self._reasoning_of(delta):
            yield from self._keep(self._think.finish())
            yield from self._field("reasoning", reasoning)
        content = delta.get("content")
        if isinstance(content, list):  # parts, as the API has them for messages
            content = "".join(_string(_mapping(part).get("text")) for part in content)
        if content := _string(content):
            yield from self._field("content", content)
        calls = delta.get("tool_calls")
        for fragment in calls if isinstance(calls, list) else ():
            yield from self._calls.fragment(_mapping(fragment))

    def _reasoning_of(self, delta: Mapping[str, Any]) -> str:
        """Take the reasoning under one of its names: servers that send two send the same twice."""
        for key in ("reasoning_content", "reasoning_details", "reasoning"):
            value = delta.get(key)
            if isinstance(value, list):
                value = "".join(_string(_mapping(item).get("text")) for item in value)
            if isinstance(value, str) and value:
                # reasoning_details always comes beside the plain text, which is what goes back.
                self._reasoning_key = "reasoning" if key == "reasoning_details" else key
                return value
        return ""

    def _field(self, field: Field, text: str) -> Iterator[Delta]:
        for found in self._markers[field].feed(text):
            yield from self._found(field, found)

    def _end_of(self, field: Field) -> Iterator[Delta]:
        for found in self._markers[field].finish():
            yield from self._found(field, found)

    def _found(self, field: Field, found: str | CallBegun | CallArguments) -> Iterator[Delta]:
        """A text between markers, or a part of a call written with them."""
        if isinstance(found, CallBegun):
            yield from self._calls.begin(found.id, found.name)
        elif isinstance(found, CallArguments):
            yield from self._calls.more(found.text)
        elif field == "content" and self._reasoning_key is None:
            yield from self._keep(self._think.feed(found))
        else:  # a server that parses the reasoning itself leaves no tags in the content
            yield from self._keep([(field, found)])

    def _keep(self, pieces: list[Piece]) -> Iterator[Delta]:
        for kind, piece in pieces:
            if kind == "retract":
                yield from self._rest("content")
                if content := self._text["content"]:
                    yield ContentDelta("\n\n")
                self._text = {"reasoning": content, "content": []}
            else:
                yield from self._told(kind, self._arriving[kind].feed(piece))

    def _rest(self, kind: Field) -> Iterator[Delta]:
        return self._told(kind, self._arriving[kind].finish())

    def _told(self, kind: Field, text: str) -> Iterator[Delta]:
        if text:
            self._text[kind].append(text)
            yield ReasoningDelta(text) if kind == "reasoning" else ContentDelta(text)


def _first_choice(choices: Any) -> Mapping[str, Any]:
    """The choice of index 0: nobody asked for another one."""
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and not choice.get("index"):
            return choice
    return {}


def read_usage(usage: Mapping[str, Any]) -> Usage:
    """Read the counts from each of the places where servers put them."""
    return Usage(
        prompt_tokens=_count(usage, "prompt_tokens"),
        completion_tokens=_count(usage, "completion_tokens"),
        reasoning_tokens=_count(usage.get("completion_tokens_details"), "reasoning_tokens"),
        cached_tokens=_count(usage, "cached_tokens")
        or _count(usage.get("prompt_tokens_details"), "cached_tokens"),
    )


def _count(counts: Any, name: str) -> int:
    value = _mapping(counts).get(name)
    return value if isinstance(value, int) else 0


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""
