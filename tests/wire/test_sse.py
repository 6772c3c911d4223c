"""Server-sent events from bytes in any split."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_magic.wire.sse import SSEDecoder


def decode(*pieces: bytes) -> list[bytes]:
    decoder = SSEDecoder()
    return [*(event for piece in pieces for event in decoder.feed(piece)), *decoder.flush()]


@pytest.mark.parametrize(
    ("text", "events"),
    [
        (b"data: 1\n\ndata: 2\n\n", [b"1", b"2"]),
        (b"data: 1\r\n\r\ndata: 2\r\n\r\n", [b"1", b"2"]),
        (b"data: 1\r\rdata: 2\r\r", [b"1", b"2"]),
        (b"\xef\xbb\xbfdata: 1\n\n", [b"1"]),
        (b": PROCESSING\n\ndata: 1\n\n: bye\n\n", [b"1"]),
        (b"event: x\nid: 7\ndata: a\ndata: b\nretry: 9\n\n", [b"a\nb"]),
        (b"data:no space\n\ndata:  two\n\n", [b"no space", b" two"]),
        (b"data: last line has no end", [b"last line has no end"]),
        (b"data: 1\n", [b"1"]),
        (b"data: 1\r", [b"1"]),
        (b"\n\n\n", []),
        (b"", []),
    ],
)
def test_events(text: bytes, events: list[bytes]) -> None:
    assert decode(text) == events
    assert decode(*(text[i : i + 1] for i in range(len(text)))) == events


LINES = st.sampled_from(
    [b"data: x", "data: «é🙂»".encode(), b"data:", b": note", b"event: e", b"", b"", b"junk"]
)


@given(st.lists(st.tuples(LINES, st.sampled_from([b"\n", b"\r\n"]))), st.lists(st.integers(0, 80)))
def test_any_split_gives_the_same(lines: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
    text = b"".join(line + end for line, end in lines)
    edges = sorted({0, len(text), *(cut for cut in cuts if cut <= len(text))})
    pieces = [text[a:b] for a, b in pairwise(edges)]
    assert decode(*pieces) == decode(text)
