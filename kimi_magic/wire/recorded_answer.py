"""A recorded body, decoded as the answer that it was."""

from __future__ import annotations

from contextlib import suppress

from kimi_magic.core.messages import Completion
from kimi_magic.wire.apis import wire_of_body
from kimi_magic.wire.chunks import BLANK, read_chunks
from kimi_magic.wire.protocols import TooMuch, Wire
from kimi_magic.wire.sse import SSEDecoder

__all__ = ["answer_in", "completion_of"]


def answer_in(body: bytes) -> Completion | None:
    """Decode an answer; None for a body that holds none, such as a refusal's."""
    completion = completion_of(body, wire_of_body(body))
    said = completion.message
    return completion if said.text or said.reasoning or said.tool_calls else None


def completion_of(body: bytes, wire: Wire) -> Completion:
    """Decode as much of an answer as can be read."""
    decoder, fold, body = SSEDecoder(), wire.fold(), body.lstrip(BLANK)
    with suppress(TooMuch, RecursionError):
        streamed = body[:1] not in (b"{", b"[")
        for event in [*decoder.feed(body), *decoder.flush()] if streamed else [body]:
            if wire.is_end(event):
                break
            with suppress(ValueError):
                fold.add(read_chunks(event))
    fold.finish()
    return fold.completion()
