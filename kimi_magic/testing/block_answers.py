"""Scripted replies in the form of Anthropic's Messages API."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kimi_magic.testing.answers import Answer, json_answer
from kimi_magic.testing.dialects import dumps

__all__ = ["BlockReply"]

STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
_COUNTS = {"prompt_tokens": "input_tokens", "completion_tokens": "output_tokens"}


@dataclass(frozen=True, slots=True)
class BlockReply:
    """A scripted message, sent in the form that a request asks for.

    ``signature`` is that of the reasoning, made of its text where it is None; ``redacted`` is an
    encrypted thought before the answer.
    """

    text: str
    reasoning: str | None
    calls: Sequence[tuple[str | None, str, str]]  # id, name, arguments
    finish_reason: str | None
    usage: Mapping[str, Any] | None
    signature: str | None
    redacted: str | None

    def thinking(self) -> list[dict[str, Any]]:
        """Return the blocks of thinking, which a client gives back unchanged."""
        blocks: list[dict[str, Any]] = []
        if self.reasoning is not None:
            signed = hashlib.sha256(self.reasoning.encode()).hexdigest()
            signature = f"Eq{signed}==" if self.signature is None else self.signature
            blocks.append({"type": "thinking", "thinking": self.reasoning, "signature": signature})
        if self.redacted is not None:
            blocks.append({"type": "redacted_thinking", "data": self.redacted})
        return blocks

    def call_ids(self, number: int) -> list[str]:
        """Return the ids of the calls in the answer to the ``number``-th request."""
        names = (
            uuid.uuid5(uuid.NAMESPACE_OID, f"{number}:{i}").hex for i in range(len(self.calls))
        )
        return [
            given or f"toolu_{unique[:24]}"
            for (given, *_), unique in zip(self.calls, names, strict=True)
        ]

    def answer(self, body: Mapping[str, Any], number: int) -> Answer:
        """Return the answer to the ``number``-th request of the server."""
        reason = self.finish_reason or ("tool_calls" if self.calls else "stop")
        reason = STOP_REASONS.get(reason, reason)
        usage = self._count(body)
        message = {"id": f"msg_{number}", "type": "message", "role": "assistant"}
        message["model"] = str(body.get("model"))
        if body.get("stream"):
            return self._stream(message, number, reason, usage)
        text = [{"type": "text", "text": self.text}] if self.text else []
        calls = [
            {"type": "tool_use", "id": call_id, "name": name, "input": json.loads(arguments)}
            for call_id, (_, name, arguments) in zip(self.call_ids(number), self.calls, strict=True)
        ]
        whole = {"content": [*self.thinking(), *text, *calls], "stop_reason": reason}
        return json_answer({**message, **whole, "stop_sequence": None, "usage": usage})

    def _stream(
        self, message: Mapping[str, Any], number: int, reason: str, usage: Mapping[str, int]
    ) -> Answer:
        begun = {**usage, "output_tokens": 1}
        empty: dict[str, Any] = {"content": [], "stop_reason": None, "stop_sequence": None}
        opening = [_event("message_start", message={**message, **empty, "usage": begun}), _PING]
        end = {"stop_reason": reason, "stop_sequence": None}
        closing = [
            _event("message_delta", delta=end, usage={"output_tokens": usage["output_tokens"]}),
            _event("message_stop"),
        ]
        deltas: list[bytes] = []
        held = b""  # what belongs to no delta goes out with the next one
        for index, (block, pieces) in enumerate(self._blocks(number)):
            held += _event("content_block_start", index=index, content_block=block)
            for piece in pieces:
                deltas.append(held + _event("content_block_delta", index=index, delta=piece))
                held = b""
            held += _event("content_block_stop", index=index)
        return Answer(
            deltas,
            opening,
            [held, *closing] if held else closing,
            headers={"Content-Type": "text/event-stream; charset=utf-8"},
            joined=True,
        )

    def _blocks(self, number: int) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
        """Yield the blocks as they begin, each with its deltas."""
        for block in self.thinking():
            if block["type"] == "redacted_thinking":
                yield block, []
                continue
            pieces = _deltas("thinking_delta", "thinking", block["thinking"])
            if block["signature"]:
                pieces.append({"type": "signature_delta", "signature": block["signature"]})
            yield {"type": "thinking", "thinking": "", "signature": ""}, pieces
        if self.text:
            yield {"type": "text", "text": ""}, _deltas("text_delta", "text", self.text)
        for call_id, (_, name, arguments) in zip(self.call_ids(number), self.calls, strict=True):
            begun = {"type": "tool_use", "id": call_id, "name": name, "input": {}}
            whole = "" if arguments == "{}" else arguments
            first = {"type": "input_json_delta", "partial_json": ""}
            yield begun, [first, *_deltas("input_json_delta", "partial_json", whole)]

    def _count(self, body: Mapping[str, Any]) -> dict[str, int]:
        """Count words in place of tokens; counts that were given may have the other API's names."""
        prompt = len(dumps([body.get("system"), body.get("messages")]).split())
        answer = len(f"{self.reasoning or ''} {self.text} {dumps(self.calls)}".split())
        counted = {"input_tokens": prompt, "output_tokens": answer}
        given = {_COUNTS.get(name, name): count for name, count in (self.usage or {}).items()}
        return counted | {n: c for n, c in given.items() if isinstance(c, int)}


def _deltas(kind: str, name: str, text: str) -> list[dict[str, Any]]:
    return [{"type": kind, name: piece} for piece in re.findall(r"\s*\S{1,12}|\s+", text)]


def _event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {dumps({'type': kind, **fields})}\n\n".encode()


_PING = b'event: ping\ndata: {"type": "ping"}\n\n'
