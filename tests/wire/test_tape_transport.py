"""A recording is played: the same events, whatever the split, at its own time."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kimi_magic.config import Settings
from kimi_magic.core.errors import BadRequest, EndpointError
from kimi_magic.wire.client import Client
from kimi_magic.wire.endpoints import Api, Endpoint
from kimi_magic.wire.protocols import Arrival, Refused, Status
from kimi_magic.wire.tape_file import Recording, TapeFile
from kimi_magic.wire.tape_secrets import masked
from kimi_magic.wire.tape_transport import Player, Recorder
from tests.wire.exchanges import Playback, deltas_of
from tests.wire.test_dialects import cut, joined, timeless, wire_of

RECORDINGS = sorted(Path(__file__).parent.glob("*.sse"))
URL = "http://127.0.0.1:9/v1"
BODY = {"model": "kimi-k2-thinking", "stream": True}
HEADERS = {"content-type": "text/event-stream", "x-request-id": "r-1"}


def client(wire: Api = "chat") -> Client:
    return Client(Endpoint("lab", URL, wire=wire), URL, None, Settings())


def taken(transport: Any, wire: Api = "chat") -> tuple[Any, Any]:
    with client(wire).chat(BODY, transport=transport) as exchange:
        deltas = [delta for delta in deltas_of(exchange) if delta is not None]
    return exchange.completion(), deltas


def recorded(recorder: Recorder, path: Path, **more: Any) -> Recording:
    """The recording of what a recorder has noted, written and read again."""
    tape = TapeFile(path)
    pieces = masked(tuple(recorder.pieces), ())
    seconds = max([0.0, *(at for at, _ in pieces)])
    headers = recorder.kept_headers
    tape.append(Recording({}, {}, recorder.status, headers, pieces, seconds, **more))
    return tape.read().recordings[-1]


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
@given(cuts=st.lists(st.integers(0, 10**6), max_size=12), compressed=st.booleans())
@settings(max_examples=8, deadline=None)
def test_each_dialect_plays_back_to_the_same_events(
    path: Path, cuts: list[int], compressed: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    pieces = cut(path.read_bytes(), cuts)
    recorder = Recorder(Playback([Status(200, HEADERS), *pieces, None]))
    wire = wire_of(path.stem)
    live, deltas = taken(recorder, wire)
    file = tmp_path_factory.mktemp("tape") / f"a.tape{'.gz' * compressed}"
    recording = recorded(recorder, file)
    assert recording.body == path.read_bytes()
    assert recording.headers == {"content-type": "text/event-stream"}
    played, again = taken(Player(recording), wire)
    assert timeless(played) == timeless(live)
    assert joined(again) == joined(deltas)


def test_the_times_are_those_of_the_recording(tmp_path: Path) -> None:
    body = (Path(__file__).parent / "moonshot-plain.sse").read_bytes()
    recorder = Recorder(Playback([200, body, None]))
    taken(recorder)
    recording = recorded(recorder, tmp_path / "a.tape", first_token=1.5, first_answer=2.5)
    recording = Recording(
        {}, {}, 200, {}, recording.pieces, 7.25, first_token=1.5, first_answer=2.5
    )
    played, _ = taken(Player(recording))
    assert played.usage.seconds == 7.25
    assert (played.timings.first_token, played.timings.first_answer) == (1.5, 2.5)


PIECES = ((0.2, b"one"), (0.4, b"two"), (0.6, b"three"))


@pytest.mark.parametrize("speed", [1.0, 2.0])
def test_nothing_is_played_before_its_time(speed: float) -> None:
    arrivals: list[Arrival] = []
    ended = threading.Event()

    def deliver(arrival: Arrival) -> None:
        arrivals.append(arrival)
        if arrival.item is None:
            ended.set()

    began = time.monotonic()
    Player(Recording({}, {}, 200, {}, PIECES, 0.8), speed).send(None, deliver, 1.0)  # type: ignore[arg-type]
    assert ended.wait(30)
    assert [arrival.item for arrival in arrivals] == [200, b"one", b"two", b"three", None]
    moments = [arrival.time - began for arrival in arrivals]
    due = [0.2, 0.2, 0.4, 0.6, 0.8]
    assert all(at >= when / speed for at, when in zip(moments, due, strict=True))


def test_what_is_stopped_plays_no_further() -> None:
    arrivals: list[Arrival] = []
    first = threading.Event()

    def deliver(arrival: Arrival) -> None:
        arrivals.append(arrival)
        first.set()

    slow = Recording({}, {}, 200, {}, ((0.0, b"one"), (3600.0, b"two")), 3600.0)
    carriage = Player(slow, 1.0).send(None, deliver, 1.0)  # type: ignore[arg-type]
    assert first.wait(30)
    carriage.end()
    for player in [t for t in threading.enumerate() if t.name == "kimi-magic tape"]:
        player.join(30)
    assert b"two" not in [arrival.item for arrival in arrivals]


@pytest.mark.parametrize("speed", [0.0, 1000.0])
def test_a_refusal_is_refused_again(speed: float, tmp_path: Path) -> None:
    body = b'{"error": {"message": "bad thing", "type": "invalid_request_error"}}'
    refused = Refused(400, {"content-type": "application/json", "set-cookie": "a=b"}, body)
    recorder = Recorder(Playback([refused]))
    with pytest.raises(BadRequest, match="bad thing") as live:
        taken(recorder)
    recording = recorded(recorder, tmp_path / "a.tape")
    assert (recording.status, recording.body) == (400, body)
    assert recording.headers == {"content-type": "application/json"}
    with pytest.raises(BadRequest) as played:
        taken(Player(recording, speed))
    assert str(played.value) == str(live.value)


END = b"data: [DONE]\n\n"
TEXT = b'data: {"choices": [{"index": 0, "delta": {"content": "Hello"}}]}\n\n'
ERROR = b'data: {"error": {"message": "overloaded", "code": 503}}\n\n'


@pytest.mark.parametrize(
    ("items", "lasts"),
    [
        ([200, TEXT, END, None], True),
        ([200, TEXT, None], True),  # the server ended it itself
        ([200, b"<html>a page</html>", None], True),
        ([Refused(400, {}, b"{}")], True),
        ([Refused(404, {}, b"{}")], True),
        ([200, TEXT, ConnectionResetError("broke")], False),
        ([200, TEXT, ERROR, None], False),
        ([200, END, None], False),
        ([202, b"", None], False),
        *(([Refused(status, {}, b"{}")], False) for status in (401, 403, 408, 402, 429, 500, 503)),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_worth_recording(items: list[Any], *, lasts: bool) -> None:
    """Not what broke, nor refusals of the moment: the same request may be answered next time."""
    exchange = client().chat(BODY, transport=Playback(items))
    with exchange, contextlib.suppress(EndpointError):
        list(deltas_of(exchange))
    assert exchange.is_lasting is lasts


def test_what_was_left_early_is_not_worth_recording() -> None:
    with client().chat(BODY, transport=Playback([200, TEXT])) as exchange:
        next(deltas_of(exchange))
    assert not exchange.is_lasting
