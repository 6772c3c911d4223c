"""Chunks of one model call → deltas for those who watch, and the message they add up to.

One fold for every dialect: the servers differ in names and places, not in kind. An answer that
was not streamed is folded as a single chunk whose ``message`` is the delta.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from kimi_magic.core.events import ContentDelta, ReasoningDelta
from kimi_magic.core.messages import Completion, Message, Usage
from kimi_magic.secrets.keys import Key
from kimi_magic.secrets.stream import StreamRedactor
from kimi_magic.wire.openai.inline_markup import (
    CallArguments,
    CallBegun,
    MarkerSplitter,
    Piece,
    ThinkSplitter,
)
from kimi_magic.wire.openai.tool_call_deltas import CallTable
from kimi_magic.wire.protocols import Delta

__all__ = ["Accumulator"]

Field = Literal["reasoning", "content"]


class Accumulator:
    """The state of one model call, from its first chunk to its last.

    ``add`` may be followed by ``completion`` at any moment: what has arrived is always a message,
    so an interrupt or a broken connection loses nothing.

    The deltas add up to the message but for one dialect: where only ``</think>`` arrives, its
    reasoning was handed on as content before anybody could know. The message has it as reasoning;
    those who watched saw one text, with an empty line where the tag stood.

    Parameters
    ----------
    keys : sequence of Key
        Masked in what arrives.
    """

    def __init__(self, keys: Sequence[Key] = ()) -> None:
        self._texts: dict[Field, list[str]] = {"reasoning": [], "content": []}
        self._redactors: dict[Field, StreamRedactor] = {
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
        return bool(self._texts["reasoning"] or self._texts["content"] or self._calls)

    def add(self, chunks: Sequence[Mapping[str, Any]]) -> list[Delta]:
        deltas: list[Delta] = []
        run: list[str] = []
        run_field: Field = "content"
        for chunk in chunks:
            plain = self._plain_text(chunk)
            if run and (plain is None or plain[0] != run_field):
                deltas += self._text(run_field, "".join(run))
                run.clear()
            if plain is None:
                deltas += self._chunk(chunk)
            else:
                run_field, text = plain
                run.append(text)
        return deltas + self._text(run_field, "".join(run)) if run else deltas

    def finish(self) -> list[Delta]:
        deltas: list[Delta] = []
        for field, markers in self._markers.items():
            for found in markers.finish():
                deltas += self._found(field, found)
        deltas += self._pieces(self._think.finish())
        for field in self._redactors:
            deltas += self._rest(field)
        return [*deltas, *self._calls.finish()]

    def completion(self, seconds: float = 0.0) -> Completion:
        return Completion(
            Message(
                "assistant",
                "".join(self._texts["content"]),
                reasoning="".join(self._texts["reasoning"]) or None,
                reasoning_key=self._reasoning_key
                or ("content" if self._think.found else "reasoning_content"),
                tool_calls=self._calls.calls(),
            ),
            finish_reason=self.finish_reason,
            usage=Usage(requests=1, seconds=seconds) + self._usage,
            model=self.model,
        )

    def _plain_text(self, chunk: Mapping[str, Any]) -> tuple[Field, str] | None:
        """Read a chunk that is a piece of text and nothing else, as nearly every one is.

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
        field: Field = "reasoning" if reasoning else "content"
        text = reasoning or content
        if not isinstance(text, str) or not text or (reasoning and content) or "<" in text:
            return None
        return (field, text) if self._markers[field].idle else None

    def _chunk(self, chunk: Mapping[str, Any]) -> Iterator[Delta]:
        self.model = _string(chunk.get("model")) or self.model
        choice = _first_choice(chunk.get("choices"))
        if usage := _mapping(chunk.get("usage")) or _mapping(choice.get("usage")):
            self._usage = _read_usage(usage)
        # The usage chunk may repeat the reason, and a late chunk may carry null.
        self.finish_reason = _string(choice.get("finish_reason")) or self.finish_reason
        delta = _mapping(choice.get("delta")) or _mapping(choice.get("message"))
        if reasoning := self._reasoning_of(delta):
            yield from self._pieces(self._think.finish())
            yield from self._marked_text("reasoning", reasoning)
        content = delta.get("content")
        if isinstance(content, list):  # parts, as the API has them for messages
            content = "".join(_string(_mapping(part).get("text")) for part in content)
        if content := _string(content):
            yield from self._marked_text("content", content)
        calls = delta.get("tool_calls")
        for entry in calls if isinstance(calls, list) else ():
            yield from self._calls.add(_mapping(entry))

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

    def _marked_text(self, field: Field, text: str) -> Iterator[Delta]:
        for found in self._markers[field].feed(text):
            yield from self._found(field, found)

    def _found(self, field: Field, found: str | CallBegun | CallArguments) -> Iterator[Delta]:
        """Take a text between markers, or a part of a call written with them."""
        if isinstance(found, CallBegun):
            yield from self._calls.begin(found.id, found.name)
        elif isinstance(found, CallArguments):
            yield from self._calls.extend(found.text)
        elif field == "content" and self._reasoning_key is None:
            yield from self._pieces(self._think.feed(found))
        else:  # a server that parses the reasoning itself leaves no tags in the content
            yield from self._text(field, found)

    def _pieces(self, pieces: list[Piece]) -> Iterator[Delta]:
        for kind, piece in pieces:
            if kind == "retract":
                yield from self._rest("content")
                if content := self._texts["content"]:
                    yield ContentDelta("\n\n")
                self._texts = {"reasoning": content, "content": []}
            else:
                yield from self._text(kind, piece)

    def _text(self, field: Field, text: str) -> list[Delta]:
        return self._masked(field, self._redactors[field].feed(text))

    def _rest(self, field: Field) -> list[Delta]:
        return self._masked(field, self._redactors[field].finish())

    def _masked(self, field: Field, text: str) -> list[Delta]:
        if not text:
            return []
        self._texts[field].append(text)
        return [ReasoningDelta(text) if field == "reasoning" else ContentDelta(text)]


def _first_choice(choices: Any) -> Mapping[str, Any]:
    """Return the choice of index 0: nobody asked for another one."""
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and not choice.get("index"):
            return choice
    return {}


def _read_usage(usage: Mapping[str, Any]) -> Usage:
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
