"""A recorded body says what its answer said."""

from __future__ import annotations

import pytest

from kimi_magic.wire.recorded_answer import answer_in

WORD = b'{"choices":[{"delta":{"content":"It is 9.9"},"finish_reason":"stop"}]}'


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"data: " + WORD + b"\n\ndata: [DONE]\n\ndata: " + WORD + b"\n\n", "It is 9.9"),
        (b"data: " + WORD.replace(b"9.9", b"9\xff9") + b"\n\n", "It is 9\ufffd9"),
        (b"data: [" + WORD + b", 7]\n\n", "It is 9.9"),
        (b"data: {broken\n\ndata: " + WORD + b"\n\n", "It is 9.9"),
        (b'\xef\xbb\xbf {"choices":[{"message":{"content":"It is 9.9"}}]}', "It is 9.9"),
    ],
    ids=["stream", "bytes that are no UTF-8", "chunks in a list", "a broken event", "document"],
)
def test_an_answer_is_read_as_from_a_server(body: bytes, text: str) -> None:
    answer = answer_in(body)
    assert answer is not None
    assert answer.message.text == text


@pytest.mark.parametrize("body", [b"", b'{"error": {"message": "no"}}', b"<html>", b"[" * 5000])
def test_a_body_without_an_answer(body: bytes) -> None:
    assert answer_in(body) is None
