"""Events of the Messages API → deltas and one message.

An answer is a list of content blocks: thinking, text, calls. Each begins, grows by deltas and
stops, under its index. An answer that was not streamed is folded as blocks that come whole. Unknown
events, blocks and fields are passed over, as the API's versioning asks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kimi_magic.core.events import ContentDelta, ReasoningDelta
from kimi_magic.core.messages import Completion, Message, ReasoningPart, Usage
from kimi_magic.core.text import Pieces, bytes_of, mend_surrogates
from kimi_magic.secrets.keys import Key
from kimi_magic.secrets.patterns import KEY
from kimi_magic.secrets.stream import StreamRedactor
from kimi_magic.wire.chunks import as_mapping, as_string, is_count
from kimi_magic.wire.openai.tool_call_deltas import CallTable
from kimi_magic.wire.protocols import Delta

__all__ = ["BlockFold"]

# Signatures, encrypted thoughts and inputs show in no delta, so nobody else counts them.
BLOCK_BYTES, MOST_UNSEEN_BYTES = 2000, 16_000_000
FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
"""Our names for the API's; others, such as ``pause_turn``, stay as they are."""
_INPUT = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")


class _Thought:
    """A block of thinking under construction, and its place in the message."""

    def __init__(self, before_call: int, before_text: int, *, redacted: bool) -> None:
        self.text = Pieces()
        self.signature = Pieces()
        self.before_call, self.before_text = before_call, before_text
        self.redacted = redacted
        self.stopped = False

    def part(self) -> ReasoningPart:
        """Return it as it stands; what was cut, or masked, has no valid signature."""
        text = "".join(self.text)
        signed = (self.stopped and KEY not in text) or self.redacted
        return ReasoningPart(
            text,
            mend_surrogates("".join(self.signature)) if signed else None,
            self.before_call,
            self.before_text,
            self.redacted,
        )


class BlockFold:
    """The state of one answer, from its first event to its last: the `Fold` of this API.

    ``add`` may be followed by ``completion`` at any moment.
    """

    logprob_bytes = 0  # the API has none

    def __init__(self, keys: Sequence[Key] = ()) -> None:
        self._text, self._text_chars = Pieces(), 0
        self._thoughts: list[_Thought] = []
        self._open: dict[int, _Thought] = {}
        self._open_calls: dict[int, int] = {}  # their numbers, by the index of the block
        self._inputs: dict[int, str] = {}  # the inputs that came with their starts
        # A key may be spread over several blocks: all of one kind pass through one redactor.
        self._text_redactor, self._thought_redactor = StreamRedactor(keys), StreamRedactor(keys)
        self._calls = CallTable(keys)
        self._begun_calls = 0
        self._counts: dict[str, int] = {}
        self._unseen_bytes = 0
        self.finish_reason: str | None = None
        self.model: str | None = None

    @property
    def started(self) -> bool:
        return bool(self._text or self._thoughts or self._calls)

    def drop_logprobs(self) -> None:
        """Do nothing: there are none."""

    def add(self, chunks: Sequence[Mapping[str, Any]]) -> list[Delta]:
        deltas: list[Delta] = []
        for chunk in chunks:
            match chunk.get("type"):
                case "content_block_delta":
                    deltas += self._delta(_index(chunk), as_mapping(chunk.get("delta")))
                case "content_block_start":
                    deltas += self._start(_index(chunk), as_mapping(chunk.get("content_block")))
                case "content_block_stop":
                    deltas += self._stop(_index(chunk))
                case "message_start":
                    deltas += self._message(as_mapping(chunk.get("message")))
                case "message":
                    deltas += self._message(chunk)
                case "message_delta":
                    self._end(as_mapping(chunk.get("delta")))
                    self._count(chunk.get("usage"))
        return deltas

    def finish(self) -> list[Delta]:
        deltas = [*self._flush_thought(), *self._flush_text()]
        if self.finish_reason:  # of a server that stops no blocks; else they were cut
            for index in tuple(self._open_calls):
                deltas += self._stop(index)
        return [*deltas, *self._calls.finish()]

    def completion(self, seconds: float = 0.0) -> Completion:
        thoughts = [thought.part() for thought in self._thoughts]
        reasoning = tuple(part for part in thoughts if part.text or part.signature)
        return Completion(
            Message(
                "assistant",
                "".join(self._text),
                reasoning=reasoning or None,
                tool_calls=self._calls.calls(),
            ),
            finish_reason=self.finish_reason,
            usage=Usage(requests=1, seconds=seconds) + self._usage(),
            model=self.model,
        )

    def _message(self, message: Mapping[str, Any]) -> Iterator[Delta]:
        """Take a message: the head of a stream, without content, or a whole answer."""
        self.model = mend_surrogates(as_string(message.get("model"))) or self.model
        content = message.get("content")
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        for index, block in enumerate(content if isinstance(content, list) else ()):
            yield from self._start(index, as_mapping(block))
            yield from self._stop(index)
        self._count(message.get("usage"))
        self._end(message)

    def _end(self, source: Mapping[str, Any]) -> None:
        if reason := as_string(source.get("stop_reason")):
            self.finish_reason = FINISH_REASONS.get(reason, reason)
            for thought in self._open.values():  # of a server that stops no blocks
                thought.stopped = True

    def _start(self, index: int, block: Mapping[str, Any]) -> Iterator[Delta]:
        if index in self._open or index in self._open_calls:
            yield from self._stop(index)
        kind = block.get("type")
        if kind in ("thinking", "redacted_thinking"):
            yield from self._begin_thought(index, redacted=kind == "redacted_thinking")
            thought = self._open[index]
            yield from self._think(as_string(block.get("thinking")))
            self._sign(thought, as_string(block.get("data" if thought.redacted else "signature")))
        elif kind == "text":
            yield from self._flush_thought()
            yield from self._say(as_string(block.get("text")))
        elif kind == "tool_use":
            yield from self._flush_thought()
            yield from self._flush_text()
            number = self._open_calls[index] = self._begun_calls
            self._begun_calls += 1
            given = block.get("input")
            self._inputs[index] = json.dumps(given, ensure_ascii=False) if given else "{}"
            self._bound(bytes_of(self._inputs[index]))
            yield from self._call(number, as_string(block.get("id")), as_string(block.get("name")))

    def _delta(self, index: int, delta: Mapping[str, Any]) -> Iterator[Delta]:
        match delta.get("type"):
            case "text_delta":
                yield from self._say(as_string(delta.get("text")))
            case "thinking_delta":
                if index not in self._open:
                    yield from self._begin_thought(index, redacted=False)
                yield from self._think(as_string(delta.get("thinking")))
            case "signature_delta" if index in self._open:
                self._sign(self._open[index], as_string(delta.get("signature")))
            case "input_json_delta" if index in self._open_calls:  # not of a call the server makes
                if piece := as_string(delta.get("partial_json")):
                    self._take_input(index)
                    yield from self._call(self._open_calls[index], arguments=piece)

    def _stop(self, index: int) -> Iterator[Delta]:
        if thought := self._open.pop(index, None):
            yield from self._flush_thought()
            thought.stopped = True
        elif index in self._open_calls:
            given, number = self._take_input(index), self._open_calls.pop(index)
            if given:  # no delta came: it is what the start said
                yield from self._call(number, arguments=given)
        else:
            yield from self._flush_text()

    def _begin_thought(self, index: int, *, redacted: bool) -> list[Delta]:
        deltas = [*self._flush_thought(), *self._flush_text()]
        thought = _Thought(self._begun_calls, self._text_chars, redacted=redacted)
        self._bound(BLOCK_BYTES)
        self._open[index] = thought
        self._thoughts.append(thought)
        return deltas

    def _think(self, text: str) -> list[Delta]:
        return self._thought(self._thought_redactor.feed(text))

    def _flush_thought(self) -> list[Delta]:
        return self._thought(self._thought_redactor.finish())

    def _thought(self, text: str) -> list[Delta]:
        if not text:
            return []
        self._thoughts[-1].text.append(text)
        return [ReasoningDelta(text)]

    def _sign(self, thought: _Thought, signature: str) -> None:
        if signature:
            self._bound(bytes_of(signature))
            thought.signature.append(signature)

    def _say(self, text: str) -> list[Delta]:
        return self._said(self._text_redactor.feed(text))

    def _flush_text(self) -> list[Delta]:
        return self._said(self._text_redactor.finish())

    def _said(self, text: str) -> list[Delta]:
        if not text:
            return []
        self._text.append(text)
        self._text_chars += len(text)
        return [ContentDelta(text)]

    def _call(
        self, number: int, call_id: str = "", name: str = "", arguments: str = ""
    ) -> Iterator[Delta]:
        function = {"name": name, "arguments": arguments}
        return self._calls.add({"index": number, "id": call_id, "function": function})

    def _take_input(self, index: int) -> str:
        given = self._inputs.pop(index, "")
        self._bound(-bytes_of(given))
        return given

    def _bound(self, unseen: int) -> None:
        self._unseen_bytes += unseen
        if self._unseen_bytes > MOST_UNSEEN_BYTES:
            raise ValueError("too many blocks of thinking, or too long signatures or inputs")

    def _count(self, usage: Any) -> None:
        """Take counts, which are cumulative: later ones replace earlier ones.

        Some servers send 0 at the start, or at the end. Others count the whole input at the start,
        and at the end the cached part of it separately.
        """
        found = as_mapping(usage)
        found = {**found, **as_mapping(found.get("output_tokens_details"))}
        for names in (_INPUT, ("output_tokens",), ("thinking_tokens",)):
            values = {name: found.get(name) for name in names}
            counts = {name: value for name, value in values.items() if is_count(value)}
            if any(counts.values()):
                self._counts |= counts

    def _usage(self) -> Usage:
        """Return the counts as ours: the API's input excludes what the cache read or wrote."""
        counts = self._counts
        return Usage(
            prompt_tokens=sum(counts.get(name, 0) for name in _INPUT),
            completion_tokens=counts.get("output_tokens", 0),
            reasoning_tokens=counts.get("thinking_tokens", 0),
            cached_tokens=counts.get("cache_read_input_tokens", 0),
        )


def _index(chunk: Mapping[str, Any]) -> int:
    index = chunk.get("index")
    return index if isinstance(index, int) else 0
