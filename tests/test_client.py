"""Requests on a real socket: what arrives, what fails, what is stopped."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from email.utils import formatdate
from typing import Any

import pytest

from kimi_magic.config import Key, Settings
from kimi_magic.endpoints.catalogue import Endpoint
from kimi_magic.endpoints.client import Client
from kimi_magic.endpoints.faults import retry_after, words_of
from kimi_magic.errors import (
    BadRequest,
    BadStream,
    ConnectionFailed,
    ContentFiltered,
    ContextTooLong,
    EndpointError,
    KeyRefused,
    NotFound,
    QuotaExhausted,
    RateLimited,
    ServerFailed,
    TimedOut,
)
from kimi_magic.messages import Completion
from kimi_magic.testing import DIALECTS, ScriptedServer

SECRET = "fake-key-0123456789abcdef"


def body(**more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "9.11 or 9.9?"}]
    return {"model": "kimi-k2-thinking", "messages": messages, "stream": True} | more


@pytest.fixture
def client(scripted_server: ScriptedServer) -> Iterator[Client]:
    endpoint = Endpoint("lab", scripted_server.base_url, "LAB_KEY")
    key = Key(SECRET, "the environment variable LAB_KEY")
    with closing(Client(endpoint, endpoint.base_url, key, Settings())) as made:
        yield made


def receive(client: Client, **more: Any) -> Completion:
    with client.chat(body(**more)) as exchange:
        for _ in exchange:
            pass
    return exchange.completion()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_gives_the_same(dialect: str, stream: bool) -> None:
    with ScriptedServer(dialect=dialect) as server:
        server.reply("9.9 is **bigger**.", reasoning="Compare the tenths.\n\nSo.")
        endpoint = Endpoint("lab", server.base_url)
        with closing(Client(endpoint, server.base_url, None, Settings())) as client:
            extra = {"stream_options": {"include_usage": True}} if stream else {}
            completion = receive(client, stream=stream, **extra)
    assert completion.message.text == "9.9 is **bigger**."
    assert completion.message.reasoning == "Compare the tenths.\n\nSo."
    assert completion.finish_reason == "stop"
    assert completion.usage.completion_tokens > 0


def test_the_key_goes_to_the_server_and_nowhere_else(
    scripted_server: ScriptedServer, client: Client
) -> None:
    scripted_server.reply("OK")
    receive(client)
    assert scripted_server.requests[0].headers["Authorization"] == f"Bearer {SECRET}"
    assert SECRET not in repr(client) + repr(client.key) + repr(vars(client.endpoint.__class__))


def test_a_connection_serves_again(scripted_server: ScriptedServer, client: Client) -> None:
    for _ in range(3):
        scripted_server.reply("OK")
        receive(client)
    assert len(client._idle) == 1


ANSWERS = [
    (400, {"error": {"type": "invalid_request_error", "message": "no"}}, BadRequest, "no"),
    (400, {"error": {"type": "content_filter", "message": "high risk"}}, ContentFiltered, "filter"),
    (
        400,
        {"error": {"code": "context_length_exceeded", "message": "too long"}},
        ContextTooLong,
        "%kimi reset",
    ),
    (
        400,
        {"status": 400, "title": "Bad Request", "detail": "Function id 'x': DEGRADED function"},
        ServerFailed,
        "DEGRADED function",
    ),
    (401, {"error": {"message": f"bad key {SECRET}"}}, KeyRefused, "variable LAB_KEY"),
    (403, {"error": {"message": "not yours"}}, KeyRefused, "not yours"),
    (404, {"detail": "Function 'f': Not found"}, NotFound, "%kimi models"),
    (402, {"error": {"message": "pay"}}, QuotaExhausted, "quota"),
    (429, {"error": {"type": "engine_overloaded_error", "message": "busy"}}, RateLimited, "busy"),
    (
        429,
        {"error": {"type": "exceeded_current_quota_error", "message": "top up"}},
        QuotaExhausted,
        "top up",
    ),
    (500, "<html><title>502 Bad Gateway</title><p>nginx", ServerFailed, "502 Bad Gateway"),
    (503, "", ServerFailed, "no words"),
]


@pytest.mark.parametrize(("status", "answer", "kind", "words"), ANSWERS)
def test_answers_that_are_errors(
    scripted_server: ScriptedServer,
    client: Client,
    status: int,
    answer: Any,
    kind: type[EndpointError],
    words: str,
) -> None:
    import json

    text = answer if isinstance(answer, str) else json.dumps(answer)
    content_type = "text/html" if isinstance(answer, str) else "application/json"
    scripted_server.raw([text.encode()], status=status, content_type=content_type)
    with pytest.raises(kind) as caught:
        receive(client)
    message = str(caught.value)
    assert type(caught.value) is kind
    assert words in message
    assert SECRET not in message
    assert len(message.splitlines()) <= 4
    assert caught.value.status == status


def test_who_may_be_asked_again() -> None:
    assert RateLimited.retriable
    assert ServerFailed.retriable
    assert ConnectionFailed.retriable
    assert not QuotaExhausted.retriable
    assert not BadRequest.retriable


def test_an_error_in_the_stream_keeps_what_had_arrived(
    scripted_server: ScriptedServer, client: Client
) -> None:
    scripted_server.raw(
        [
            b'data: {"choices":[{"delta":{"content":"9.9"}}]}\n\n',
            b'data: {"error":{"message":"Stream failed","type":"server_error"}}\n\n',
        ]
    )
    with pytest.raises(BadStream, match="Stream failed") as caught:
        receive(client)
    assert caught.value.partial
    assert caught.value.partial.message.text == "9.9"


@pytest.mark.parametrize(
    ("pieces", "content_type"),
    [
        ([b"<html><title>Welcome to nginx</title>"], "text/html"),
        ([b""], "text/event-stream"),
        ([b"data: {broken\n\n"], "text/event-stream"),
        ([b"data: [1]\n\n"], "text/event-stream"),
        ([b"null"], "application/json"),
    ],
)
def test_what_is_no_completion_says_so(
    scripted_server: ScriptedServer, client: Client, pieces: list[bytes], content_type: str
) -> None:
    scripted_server.raw(pieces, content_type=content_type)
    with pytest.raises(BadStream, match=r"no chat completion|cannot be read"):
        receive(client)


def test_a_whole_answer_to_a_stream_request_is_read(
    scripted_server: ScriptedServer, client: Client
) -> None:
    scripted_server.raw(
        [b'{"choices":[{"message":{"content":"9.9"},"finish_reason":"stop"}]}'],
        content_type="application/json",
    )
    assert receive(client).message.text == "9.9"


def test_a_connection_that_breaks(scripted_server: ScriptedServer, client: Client) -> None:
    scripted_server.reply("one two three four five six", cut_after=3)
    with pytest.raises(ConnectionFailed, match="broke") as caught:
        receive(client)
    assert caught.value.partial
    assert "one" in caught.value.partial.message.text


def test_nobody_listens() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}/v1"
        client = Client(Endpoint("lab", url), url, None, Settings())
        with pytest.raises(ConnectionFailed, match="could not be reached") as caught:
            receive(client)
    assert url in str(caught.value)
    assert "KIMI_BASE_URL" in str(caught.value)


@pytest.mark.parametrize(
    ("script", "setting"),
    [({"delay": 30.0}, "first_token_timeout"), ({"stall_after": 2}, "stall_timeout")],
)
def test_silence_has_an_end(
    scripted_server: ScriptedServer, client: Client, script: dict[str, Any], setting: str
) -> None:
    scripted_server.reply("one two three four", **script)
    setattr(client.settings, setting, 0.3)
    with pytest.raises(TimedOut, match=setting):
        receive(client)
    assert scripted_server.requests[0].closed.wait(5)


@pytest.mark.parametrize("script", [{"delay": 30.0}, {"stall_after": 2}, {"rate": 20}])
def test_leaving_early_closes_the_connection(
    scripted_server: ScriptedServer, client: Client, script: dict[str, Any]
) -> None:
    scripted_server.reply(" ".join("word" for _ in range(200)), **script)
    with client.chat(body()) as exchange:
        began = time.monotonic()
        for _ in exchange:
            if time.monotonic() - began > 0.4:
                break
    assert scripted_server.requests[0].closed.wait(5)
    readers = [t for t in threading.enumerate() if t.name == "kimi-magic reader"]
    for reader in readers:
        reader.join(5)
        assert not reader.is_alive(), "the reader ends with its connection"


def test_models(scripted_server: ScriptedServer, client: Client) -> None:
    assert client.models() == ["kimi-k2-thinking"]


def test_retry_after_in_each_of_its_forms() -> None:
    assert retry_after({"retry-after": "1.5"}) == 1.5
    assert retry_after({"retry-after-ms": "250"}) == 0.25
    in_a_minute = retry_after({"retry-after": formatdate(time.time() + 60, usegmt=True)})
    assert in_a_minute is not None
    assert 50 < in_a_minute <= 60
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({}) is None


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"error": "plain"}, "plain"),
        ({"message": "m"}, "m"),
        ({"title": "T", "detail": "D"}, "T: D"),
        ({"detail": [{"msg": "field required"}]}, "field required"),
        ("  two\n lines ", "two lines"),
        (None, ""),
    ],
)
def test_the_servers_words(answer: object, words: str) -> None:
    assert words_of(answer) == words


def test_an_answer_ends_at_done_though_the_connection_stays_open(
    scripted_server: ScriptedServer, client: Client
) -> None:
    events = [
        b'data: {"choices":[{"delta":{"content":"9.9"},"finish_reason":"stop"}]}\n\n',
        b"data: [DONE]\n\n",
        b": never sent\n\n",
    ]
    scripted_server.raw(events, stall_after=2)
    assert receive(client).message.text == "9.9"
    assert scripted_server.requests[0].closed.wait(5), "the connection cannot serve again"


def test_a_stream_that_ends_before_the_answer_may_be_asked_again(
    scripted_server: ScriptedServer, client: Client
) -> None:
    scripted_server.raw([b'data: {"choices":[{"delta":{"role":"assistant"}}]}\n\n'])
    with pytest.raises(ConnectionFailed, match="before it began") as caught:
        receive(client)
    assert caught.value.retriable


def test_a_code_in_the_stream_counts_as_a_status(
    scripted_server: ScriptedServer, client: Client
) -> None:
    scripted_server.raw([b'data: {"error":{"code":429,"message":"slow down"}}\n\n'])
    with pytest.raises(RateLimited, match="slow down"):
        receive(client)


def test_this_machines_servers_are_not_asked_through_a_proxy(
    scripted_server: ScriptedServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    scripted_server.reply("OK")
    assert receive(client).message.text == "OK"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_leaves_the_connections_to_its_parent(
    scripted_server: ScriptedServer, client: Client
) -> None:
    scripted_server.reply("warm")
    receive(client)
    assert len(client._idle) == 1
    child = os.fork()
    if not child:
        os._exit(len(client._idle))
    assert os.waitpid(child, 0)[1] == 0
    scripted_server.reply("again")
    assert receive(client).message.text == "again"
