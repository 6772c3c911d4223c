"""Server-sent events from bytes in any split."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_magic.wire.protocols import TooMuch
from kimi_magic.wire.sse import NamedEvent, SSEDecoder


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
        (b"data:\n\ndata: 1\n\ndata: \n\ndata\n\n", [b"1"]),
        (b"data: 1\n\ndata:  \n\ndata: 2\n\n", [b"1", b"2"]),
        (b"event: ping\ndata: now\n\nevent:heartbeat\ndata: 1\n\ndata: 2\n\n", [b"2"]),
        (b"event: ping\n\ndata: 1\n\n", [b"1"]),
        (b"retry: 5\n\nid: 7\n\ndata: 1\n\n", [b"1"]),
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


def test_an_event_knows_its_name() -> None:
    decoder = SSEDecoder()
    events = decoder.feed(b"event: Error\ndata: no\n\ndata: yes\n\ndata: no\nevent:error\n\n")
    assert [getattr(event, "name", b"") for event in events] == [b"error", b"", b"error"]
    assert decoder.feed(b"event: error\n") == []
    (event,) = decoder.feed(b"data: late\n\n")
    assert isinstance(event, NamedEvent)
    assert (event, event.name) == (b"late", b"error")


@pytest.mark.parametrize(
    ("pieces", "in_data"),
    [
        ([b"data: {"], True),
        ([b"d", b"at", b"a", b":"], True),
        ([b": x"], False),
        ([b"data: 1\n"], False),
    ],
)
def test_a_line_of_data_under_way_is_told_from_a_comment(
    pieces: list[bytes], in_data: bool
) -> None:
    decoder = SSEDecoder()
    for piece in pieces:
        decoder.feed(piece)
    assert decoder.in_data is in_data


@pytest.mark.parametrize("size", [7, 60, 10_000])
@pytest.mark.parametrize("end", [b"\n\n", b"\r\r", b""])
def test_an_event_past_the_limit_is_too_much_in_any_split(size: int, end: bytes) -> None:
    decoder = SSEDecoder(most=100)
    small = b"data: 1\n\n" * 30
    assert decoder.feed(small) == [b"1"] * 30
    whole = b"data: " + b"x" * 200 + end
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    with pytest.raises(TooMuch):
        list(map(decoder.feed, pieces))
