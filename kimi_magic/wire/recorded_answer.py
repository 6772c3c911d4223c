"""A recorded body, decoded for people who look at a tape."""

from __future__ import annotations

import json
from contextlib import suppress

from kimi_magic.core.messages import Completion
from kimi_magic.core.text import is_json_bomb
from kimi_magic.wire.openai.chat_completions import ChatCompletions
from kimi_magic.wire.protocols import TooMuch
from kimi_magic.wire.sse import SSEDecoder

__all__ = ["answer_in"]

BLANK = b"\xef\xbb\xbf \t\r\n"


def answer_in(body: bytes) -> Completion | None:
    """Decode an answer; None for a body that holds none, such as a refusal's."""
    wire, decoder, body = ChatCompletions(), SSEDecoder(), body.lstrip(BLANK)
    fold = wire.fold()
    with suppress(TooMuch, RecursionError):
        streamed = body[:1] not in (b"{", b"[")
        for event in [*decoder.feed(body), *decoder.flush()] if streamed else [body]:
            if wire.is_end(event):
                break
            chunk = None
            with suppress(ValueError):
                chunk = None if is_json_bomb(event) else json.loads(event)
            if isinstance(chunk, dict):
                fold.add([chunk])
    fold.finish()
    completion = fold.completion()
    said = completion.message
    return completion if said.text or said.reasoning or said.tool_calls else None
