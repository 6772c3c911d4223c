"""Another API and another source of bytes fit without a word of the client's."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from kimi_magic.core.errors import ConnectionFailed, RateLimited, ServerFailed, TimedOut
from kimi_magic.core.events import ContentDelta, ReasoningDelta
from kimi_magic.core.messages import Completion, Message, as_reasoning
from kimi_magic.secrets.keys import Key
from kimi_magic.testing import ScriptedServer
from kimi_magic.wire.client import Client
from kimi_magic.wire.endpoints import Endpoint
from kimi_magic.wire.protocols import Delta, Refused, Request, ServerError, Transport, Wire
from tests.faulty import EVENTS, Answer, answering
from tests.wire.exchanges import Playback, deltas_of

URL = "http://127.0.0.1:9/v1"
KEY = Key("fake-key-0123456789abcdef", "a test")


class ToyFold:
    """Adds up the toy API's events."""

    logprob_bytes = 0

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self.thought, self.text = "", ""

    @property
    def started(self) -> bool:
        return bool(self.thought or self.text)

    def drop_logprobs(self) -> None:
        """Do nothing: there are none."""

    def add(self, chunks: Sequence[Mapping[str, Any]]) -> list[Delta]:
        deltas: list[Delta] = []
        for chunk in chunks:
            if "think" in chunk:
                self.thought += chunk["think"]
                deltas.append(ReasoningDelta(chunk["think"]))
            if "say" in chunk:
                self.text += chunk["say"]
                deltas.append(ContentDelta(chunk["say"]))
            self.finish_reason = chunk.get("why", self.finish_reason)
        return deltas

    def finish(self) -> list[Delta]:
        return []

    def completion(self, seconds: float = 0.0) -> Completion:
        message = Message("assistant", self.text, reasoning=as_reasoning(self.thought or None))
        return Completion(message, finish_reason=self.finish_reason)


class ToyWire:
    """An API with names of its own: another path, key header, end, error and list of models."""

    models_path = "/names"

    def headers(self, key: Key | None) -> Mapping[str, str]:
        return {"X-Toy-Key": key.value if key else ""}

    def request(self, body: Mapping[str, Any]) -> Request:
        return Request("/talk", json.dumps({"ask": body["messages"]}).encode())

    def fold(self, keys: Sequence[Key] = ()) -> ToyFold:
        return ToyFold()

    def is_end(self, data: bytes) -> bool:
        return b'"bye"' in data

    def is_error(self, chunk: Mapping[str, Any]) -> bool:
        return "oops" in chunk

    def read_error(self, body: object) -> ServerError:
        return ServerError(str(body["oops"] if isinstance(body, dict) else body), "toy")

    def read_models(self, body: Any) -> list[str]:
        return [str(name) for name in body["names"]]


WIRE: Wire = ToyWire()
BODY = {"model": "toy", "stream": True, "messages": [{"role": "user", "content": "Hi"}]}


def event(**chunk: Any) -> bytes:
    return f"data: {json.dumps(chunk)}\n\n".encode()


def asked(client: Client) -> tuple[Completion, list[Delta]]:
    with client.chat(BODY) as exchange:
        deltas = [delta for delta in deltas_of(exchange) if delta is not None]
    return exchange.completion(), deltas


def test_another_wire_through_the_http_transport() -> None:
    body = event(think="So.") + event(say="9.9") + event(why="done") + event(bye=1)
    given = {
        "/v1/talk": Answer(200, body, EVENTS),
        "/v1/names": Answer(200, b'{"names": ["toy"]}'),
    }
    with answering(lambda request: given[request.path]) as (url, requests):
        client = Client(Endpoint("toy", url), url, KEY, wire=WIRE)
        completion, deltas = asked(client)
        assert client.models() == ["toy"]
        client.close()
    assert (completion.message.text, completion.message.reasoning_text) == ("9.9", "So.")
    assert completion.finish_reason == "done"
    assert deltas == [ReasoningDelta("So."), ContentDelta("9.9")]
    assert {request.headers["X-Toy-Key"] for request in requests} == {KEY.value}
    assert not any("Authorization" in request.headers for request in requests)


def test_the_errors_of_another_wire_become_ours() -> None:
    parts = [200, event(say="9"), event(oops="overloaded")]
    client = Client(Endpoint("toy", URL), URL, KEY, wire=WIRE, transport=Playback(parts))
    with pytest.raises(Exception, match="overloaded") as caught:
        asked(client)
    assert getattr(caught.value, "partial").message.text == "9"  # noqa: B009 - of any of ours
    refused = Refused(429, {"retry-after": "7"}, b'{"oops": "too fast"}')
    client = Client(Endpoint("toy", URL), URL, KEY, wire=WIRE, transport=Playback([refused]))
    with pytest.raises(RateLimited, match="too fast") as slow:
        asked(client)
    assert slow.value.retry_after == 7


def recorded() -> list[bytes]:
    server = ScriptedServer(dialect="moonshot")
    server.reply("9.9 is bigger than 9.11.", reasoning="Compare the tenths.")
    return server.render()


def test_recorded_bytes_play_at_their_times() -> None:
    items = [200, *recorded(), None]
    times = [0.02 * number for number in range(len(items))]
    playback: Transport = Playback(items, times)
    client = Client(Endpoint("lab", URL), URL, None, transport=playback)
    began = time.monotonic()
    completion, deltas = asked(client)
    assert time.monotonic() - began >= times[-1] * 0.9
    assert completion.message.text == "9.9 is bigger than 9.11."
    assert completion.message.reasoning_text == "Compare the tenths."
    assert len(deltas) > 2, "they came one after the other"
    assert isinstance(playback, Playback)
    assert playback.sent[0].path == "/chat/completions"
    assert json.loads(playback.sent[0].body) == BODY
    assert playback.ended == 1


def test_a_recording_that_stalls_times_out_by_the_time_of_its_last_byte() -> None:
    items = [200, recorded()[1], recorded()[2], None]
    client = Client(
        Endpoint("lab", URL), URL, None, transport=Playback(items, [0.0, 0.05, 0.1, 60.0])
    )
    client.settings.stall_timeout = 0.3
    began = time.monotonic()
    with pytest.raises(TimedOut, match="stall_timeout"):
        asked(client)
    assert 0.3 < time.monotonic() - began < 50, "not at the end of the recording, after 60 s"


@pytest.mark.parametrize(
    ("item", "kind"),
    [
        (Refused(503, {}, b"busy"), ServerFailed),
        (ConnectionResetError("reset by peer"), ConnectionFailed),
    ],
)
def test_what_a_transport_fails_with_is_mapped(item: Exception, kind: type[Exception]) -> None:
    client = Client(Endpoint("lab", URL), URL, None, transport=Playback([item]))
    with pytest.raises(kind):
        asked(client)
