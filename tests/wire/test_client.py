"""Requests on a real socket: what arrives, what fails, what is stopped."""

from __future__ import annotations

import gc
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from email.utils import formatdate
from typing import Any

import httpx2
import pytest

from kimi_magic.config import Settings
from kimi_magic.core.errors import (
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
from kimi_magic.secrets.keys import Key
from kimi_magic.testing import DIALECTS, ScriptedServer
from kimi_magic.wire import client as client_module
from kimi_magic.wire import connection as connection_module
from kimi_magic.wire.client import Client
from kimi_magic.wire.connection import Connection, HTTPTransport
from kimi_magic.wire.endpoints import Endpoint
from kimi_magic.wire.error_mapping import ErrorMapper, retry_after
from kimi_magic.wire.inbox import Inbox
from kimi_magic.wire.models import ModelCatalogue
from kimi_magic.wire.openai.chat_completions import ChatCompletions, words_of
from tests.faulty import EVENTS, Answer, Asked, answering, refusing
from tests.wire.exchanges import body, deltas_of, receive

SECRET = "fake-key-0123456789abcdef"


@pytest.fixture
def client(scripted_server: ScriptedServer) -> Iterator[Client]:
    endpoint = Endpoint("lab", scripted_server.base_url, "LAB_KEY")
    key = Key(SECRET, "the environment variable LAB_KEY")
    with closing(Client(endpoint, endpoint.base_url, key, Settings())) as made:
        yield made


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
    assert completion.message.reasoning_text == "Compare the tenths.\n\nSo."
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
    assert len(idle(client)) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork as POSIX has it")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_leaves_its_parents_connections_alone(
    scripted_server: ScriptedServer, client: Client
) -> None:
    scripted_server.reply("OK")
    receive(client)
    before = list(idle(client))
    if not (forked := os.fork()):
        client.close()  # as it would at its exit
        os._exit(len(idle(client)))
    assert os.waitpid(forked, 0)[1] == 0
    scripted_server.reply("OK")
    receive(client)
    assert idle(client) == before != []


def idle(client: Client) -> list[Connection]:
    """The connections that wait for the next request."""
    assert isinstance(client.transport, HTTPTransport)
    return client.transport._idle


AT_PATH = "<At path 'properties.a': type is not defined>"
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
    (401, {"error": {"message": "bad key"}}, KeyRefused, "\nSet LAB_KEY to another key"),
    (403, {"error": {"message": "not yours"}}, KeyRefused, "not yours"),
    (403, {"error": {"message": "no"}}, KeyRefused, "with `-m NAME`, or set LAB_KEY to another"),
    (400, {"error": {"message": f"Bad schema, details: {AT_PATH}"}}, BadRequest, AT_PATH),
    (400, f"Bad schema, details: {AT_PATH}", BadRequest, AT_PATH),
    (400, f'"{AT_PATH}"', BadRequest, AT_PATH),
    (
        502,
        {"error": {"message": "Upstream", "metadata": {"raw": "<!DOCTYPE html><p>no &amp; no"}}},
        ServerFailed,
        "Upstream: no & no",
    ),
    (
        403,
        {
            "error": {
                "message": "Your account org-78cd08fac9804d20 / proj-a418892b55d04bbb "
                "<ak-f94zcrj6ax1111aqsyq1> is not active"
            }
        },
        KeyRefused,
        "Your account [account] / [account] <[account]> is not active",
    ),
    (
        404,
        {"detail": "Function 'f': Not found for account 'a1B2'"},
        NotFound,
        "Function 'f': Not found for account '[account]'",
    ),
    (404, {"detail": "Function 'f': Not found"}, NotFound, "%kimi models"),
    (400, {"error": {"message": "k2 is not a valid model ID"}}, NotFound, "%kimi models"),
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
    (
        400,
        {"error": {"message": "Provider returned error", "metadata": {"raw": "too hot"}}},
        BadRequest,
        "too hot",
    ),
    (400, {"odd": "shape"}, BadRequest, "shape"),
    (422, {"detail": [{"loc": ["body"], "msg": "field required"}]}, BadRequest, "field required"),
    (500, "<script>x()</script><p>sorry\x1b[31m", ServerFailed, "sorry\ufffd[31m"),
    (500, [[[[[["deep"]]]]]], ServerFailed, "500"),
    (500, '{"a":' * 900 + "1" + "}" * 900, ServerFailed, "500"),
    (405, {"detail": "Method Not Allowed"}, NotFound, "often /v1"),
    (500, "[" * 100_000, ServerFailed, "[[["),
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
    text = answer if isinstance(answer, str) else json.dumps(answer)
    content_type = "text/html" if isinstance(answer, str) else "application/json"
    content_type = "text/plain" if AT_PATH in text else content_type
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


def at(url: str, **settings: Any) -> closing[Client]:
    """A client of the server at that address."""
    key = Key(SECRET, "the environment variable LAB_KEY")
    return closing(Client(Endpoint("lab", url), url, key, Settings(**settings)))


def test_nobody_listens() -> None:
    with (
        refusing() as url,
        at(url) as client,
        pytest.raises(ConnectionFailed, match="could not be reached") as caught,
    ):
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
    assert scripted_server.requests[0].closed.wait(30)


@pytest.mark.parametrize("script", [{"delay": 30.0}, {"stall_after": 2}, {"rate": 20}])
def test_leaving_early_closes_the_connection(
    scripted_server: ScriptedServer, client: Client, script: dict[str, Any]
) -> None:
    scripted_server.reply(" ".join("word" for _ in range(2000)), **script)
    before = threading.enumerate()  # another test's connection may be at rest
    with client.chat(body()) as exchange:
        began = time.monotonic()
        for _ in deltas_of(exchange):
            if time.monotonic() - began > 0.4:
                break
    assert scripted_server.requests[0].closed.wait(30)
    readers = [t for t in threading.enumerate() if t.name == "kimi-magic reader"]
    for reader in set(readers).difference(before):
        reader.join(30)
        assert not reader.is_alive(), "the reader ends with its connection"


@pytest.mark.parametrize("path", ["", "/v1", "/a%20b/v1"])
def test_the_path_of_the_address_goes_before_the_calls(path: str) -> None:
    def answer(asked: Asked) -> Answer:
        return Answer(200, b'{"data": [{"id": "m"}]}' if asked.method == "GET" else WORD, EVENTS)

    with answering(answer) as (url, requests), at(url.removesuffix("/v1") + path) as client:
        assert receive(client).message.text == "9.9"
        assert client.models() == ["m"]
    assert [asked.path for asked in requests] == [f"{path}/chat/completions", f"{path}/models"]


def test_models(scripted_server: ScriptedServer, client: Client) -> None:
    assert client.models() == ["kimi-k2-thinking"]


def test_retry_after_in_each_of_its_forms() -> None:
    assert retry_after({"retry-after": "1.5"}) == 1.5
    assert retry_after({"retry-after-ms": "250"}) == 0.25
    in_a_minute = retry_after({"retry-after": formatdate(time.time() + 60, usegmt=True)})
    assert in_a_minute is not None
    assert 50 < in_a_minute <= 60
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({"retry-after": "Mon, 01 Jan 2026 00:00:00 +99999999999999"}) is None
    assert retry_after({"retry-after": f"Mon, 01 Jan {'9' * 20} 00:00:00 GMT"}) is None
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
    assert scripted_server.requests[0].closed.wait(30), "the connection cannot serve again"


WORD = b'data: {"choices":[{"delta":{"content":"9.9"},"finish_reason":"stop"}]}\n\n'
STARTED = WORD.replace(b'"stop"', b"null")
DONE, PING = b"data: [DONE]\n\n", b": ping\n\n"
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":5}}\n\n'


@pytest.mark.parametrize(
    "behind", [PING, WORD, DONE, b"data: {broken\n\n", b'data: {"error":"late"}\n\n', b"x"]
)
@pytest.mark.parametrize("rate", [30, 100, 1000])
def test_nothing_behind_the_end_holds_the_turn(
    scripted_server: ScriptedServer, client: Client, behind: bytes, rate: int
) -> None:
    scripted_server.raw([WORD, DONE, *[behind] * rate * 60], rate=rate)
    began = time.monotonic()
    completion = receive(client)
    assert time.monotonic() - began < 30, "not at the end of the body, after 60 s"
    assert completion.message.text == "9.9"
    assert scripted_server.requests[0].closed.wait(30), "the connection cannot serve again"
    assert idle(client) == []
    scripted_server.reply("OK")
    assert receive(client).message.text == "OK"


def test_a_body_that_ends_soon_after_the_answer_leaves_its_connection(
    scripted_server: ScriptedServer, client: Client
) -> None:
    scripted_server.raw([WORD, DONE, PING, PING], rate=200)
    assert receive(client).message.text == "9.9"
    assert len(idle(client)) == 1


def test_comments_before_the_first_token_are_no_sign_of_an_answer(
    scripted_server: ScriptedServer, client: Client
) -> None:
    scripted_server.raw([*[PING] * 6000, WORD, DONE], rate=100)
    client.settings.first_token_timeout = 0.4
    began = time.monotonic()
    with pytest.raises(TimedOut, match="first_token_timeout"):
        receive(client)
    assert 0.4 <= time.monotonic() - began < 30, "not at the first token, after 60 s"
    assert scripted_server.requests[0].closed.wait(30)


def test_comments_before_the_first_token_leave_time_to_the_view(
    scripted_server: ScriptedServer, client: Client
) -> None:
    scripted_server.raw([*[PING] * 40, WORD, DONE], rate=100)
    with client.chat(body()) as exchange:
        ticks = list(deltas_of(exchange)).count(None)
    assert ticks >= 5, "pings that come faster than the ticks hold none of them back"


@pytest.mark.parametrize(
    "sign",
    [PING, b"event: ping\ndata: {}\n\n", b"data: \n\n", b"id: 7\nretry: 9\n\n", b"data: 1\n\n"],
)
def test_signs_of_life_in_the_middle_of_an_answer_are_no_answer(
    scripted_server: ScriptedServer, client: Client, sign: bytes
) -> None:
    scripted_server.raw([STARTED, *[sign] * 3000, WORD, DONE], rate=60)
    client.settings.stall_timeout = 0.4
    with pytest.raises(TimedOut, match="stall_timeout") as caught:
        receive(client)
    assert caught.value.partial
    assert caught.value.partial.message.text == "9.9"
    assert scripted_server.requests[0].closed.wait(30)


@pytest.mark.parametrize(
    "pieces",
    [
        [b'data: {"choices":[{"delta":{"content":""}}]}\n\n'] * 60,
        [b"data: " + b" " * 60 + WORD[6:-2], *[b" "] * 60, b"\n\n"],
    ],
    ids=["chunks without text", "an event that takes its time"],
)
def test_data_keep_an_answer_alive(
    scripted_server: ScriptedServer, client: Client, pieces: list[bytes]
) -> None:
    scripted_server.raw([STARTED, *pieces, WORD, DONE], rate=20)
    client.settings.stall_timeout = 2
    assert receive(client).message.text.startswith("9.99.9")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The usage is waited for only for a moment."""
    monkeypatch.setattr(client_module, "USAGE_GRACE", 1.0)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("behind", [[], [USAGE], [PING] * 4000, [USAGE, PING]])
@pytest.mark.parametrize("text", [b"9.9", b"9.9 <|tool"])
def test_silence_after_the_finish_reason_ends_a_whole_answer(
    scripted_server: ScriptedServer, client: Client, text: bytes, behind: list[bytes]
) -> None:
    events = [WORD.replace(b"9.9", text), *behind]
    scripted_server.raw([*events, PING], stall_after=len(events), rate=100)
    client.settings.stall_timeout = client.settings.first_token_timeout = 30
    seen = ""
    with client.chat(body()) as exchange:
        for delta in deltas_of(exchange):
            seen += getattr(delta, "text", "")
    completion = exchange.completion()
    assert completion.message.text == seen == text.decode()
    assert completion.finish_reason == "stop"
    assert completion.usage.completion_tokens == (5 if USAGE in behind else 0)
    assert scripted_server.requests[0].closed.wait(30), "the connection cannot serve again"


@pytest.mark.usefixtures("impatient")
def test_a_call_without_a_text_before_it_ends_as_well(
    scripted_server: ScriptedServer, client: Client
) -> None:
    ending = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
    scripted_server.raw([ending, PING], stall_after=1)
    assert receive(client).finish_reason == "stop"


@pytest.mark.parametrize(
    "behind", [[], [USAGE], [USAGE, b'data: {"choices":[],"us'], [USAGE, b"data: {broken\n\n"]]
)
@pytest.mark.parametrize("reset", [True, False])
def test_a_reset_after_the_finish_reason_leaves_a_whole_answer(
    scripted_server: ScriptedServer, client: Client, behind: list[bytes], reset: bool
) -> None:
    scripted_server.raw([STARTED, WORD, *behind], cut_after=2 + len(behind) if reset else None)
    completion = receive(client)
    assert (completion.message.text, completion.finish_reason) == ("9.99.9", "stop")
    assert completion.usage.completion_tokens == (5 if USAGE in behind else 0)
    scripted_server.reply("OK")
    assert receive(client).message.text == "OK"


def test_text_behind_the_finish_reason_is_waited_for(
    scripted_server: ScriptedServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "USAGE_GRACE", 5)
    scripted_server.raw([WORD, WORD, WORD, DONE], rate=10)
    assert receive(client).message.text == "9.99.99.9"


@pytest.mark.parametrize(
    "nothing",
    [b"data: \n\n", b"data:\n\n", b"retry: 9\n\n", b"id: 7\n\n", b"event: ping\n\n",
     b"event: ping\ndata: now\n\n", b'event: ping\ndata: {"type": "ping"}\n\n', b": x\n\n",
     b"data: null\n\n", b"event: keepalive\ndata: .\n\n"],
)  # fmt: skip
def test_an_event_that_says_nothing_is_nothing(
    scripted_server: ScriptedServer, client: Client, nothing: bytes
) -> None:
    scripted_server.raw([nothing, STARTED, nothing, WORD, nothing, USAGE, nothing, DONE, nothing])
    completion = receive(client)
    assert (completion.message.text, completion.usage.prompt_tokens) == ("9.99.9", 9)


@pytest.mark.parametrize(
    ("event", "kind", "words"),
    [
        ('event: error\ndata: {"message":"No room","type":"server_error","code":500}', ServerFailed,
         "No room"),
        ('event: error\ndata: {"message":"Slow","type":"rate_limit_error","code":"429"}',
         RateLimited, "Slow"),
        ('event: error\ndata: {"error":{"message":"Nested"}}', BadStream, "Nested"),
        ("event: error\ndata: the engine died", BadStream, "the engine died"),
        ("data: the engine died\nevent:Error", BadStream, "the engine died"),
        ('event: error\ndata: {"choices":[],"message":"Odd"}', BadStream, "Odd"),
        ('data: {"message":"Top","type":"error"}', BadStream, "Top"),
        ('data: {"message":"Top","code":503}', ServerFailed, "Top"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("before", [[], [STARTED]])
def test_an_error_event_is_told_in_its_own_words(
    scripted_server: ScriptedServer, client: Client, event: str, kind: type[EndpointError],
    words: str, before: list[bytes],
) -> None:  # fmt: skip
    scripted_server.raw([*before, event.encode() + b"\n\n", DONE])
    with pytest.raises(EndpointError, match=words) as caught:
        receive(client)
    assert type(caught.value) is (BadStream if before and kind is ServerFailed else kind)
    assert bool(caught.value.partial) is bool(before)


def test_text_that_was_held_back_comes_before_the_time_out(
    scripted_server: ScriptedServer, client: Client
) -> None:
    scripted_server.raw([STARTED.replace(b"9.9", b"9.9 <|tool"), PING], stall_after=1)
    client.settings.stall_timeout = 0.3
    seen: list[str] = []
    with client.chat(body()) as exchange, pytest.raises(TimedOut) as caught:
        seen.extend(getattr(delta, "text", "") for delta in deltas_of(exchange))
    assert caught.value.partial
    assert "".join(seen) == caught.value.partial.message.text == "9.9 <|tool"


def test_nothing_of_openais_environment_goes_along(
    scripted_server: ScriptedServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "another-key-0123456789")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-mine")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-of-mine")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Mine: private")
    scripted_server.reply("OK")
    receive(client)
    sent = str(scripted_server.requests[0].headers)
    assert not any(word in sent for word in ("another-key", "of-mine", "private"))
    assert scripted_server.requests[0].headers["User-Agent"].startswith("OpenAI/Python")


def test_a_value_that_is_no_json_is_not_sent(client: Client) -> None:
    for value in (float("nan"), {1, 2}, "\ud83d"):
        with pytest.raises(BadRequest, match="cannot be sent"):
            receive(client, value=value)
    assert not client.busy


def test_a_forgotten_client_leaves_no_thread(scripted_server: ScriptedServer) -> None:
    before = set(threading.enumerate())
    client = Client(Endpoint("lab", scripted_server.base_url), scripted_server.base_url, None)
    scripted_server.reply("OK")
    receive(client)
    assert len(idle(client)) == 1
    del client
    gc.collect()
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
        assert not thread.is_alive()


def test_many_requests_at_once_leave_their_connections(
    scripted_server: ScriptedServer, client: Client
) -> None:
    for _ in range(16):
        scripted_server.reply("OK", delay=0.1)
    inbox = Inbox()
    with ExitStack() as stack:
        exchanges = [stack.enter_context(client.chat(body(), inbox=inbox)) for _ in range(16)]
        assert client.busy
        while not all(exchange.finished for exchange in exchanges):
            for exchange, arrivals in inbox.take(0.05):
                exchange.receive(arrivals)
            for exchange in exchanges:
                exchange.check()
    assert not client.busy
    assert {exchange.completion().message.text for exchange in exchanges} == {"OK"}
    assert len(idle(client)) == 16
    for connection in idle(client):
        connection.resting_since -= 60
    scripted_server.reply("OK")
    receive(client)
    assert len(idle(client)) == 1, "those that a burst left behind are closed"
    client.close()
    assert idle(client) == []


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
    assert len(idle(client)) == 1
    child = os.fork()
    if not child:
        os._exit(len(idle(client)))
    assert os.waitpid(child, 0)[1] == 0
    scripted_server.reply("again")
    assert receive(client).message.text == "again"


NEAR = ["moonshotai/kimi-k2", "moonshotai/kimi-k2-thinking-0905"]


def test_a_model_that_is_not_there_names_the_nearest() -> None:
    with (
        ScriptedServer("nvidia", models=[*NEAR, *(f"other-{n}" for n in range(40))]) as server,
        at(server.base_url) as client,
    ):
        server.error(404, "page not found")
        with pytest.raises(NotFound) as caught:
            receive(client)
    said = str(caught.value).splitlines()[1]
    assert said.startswith(
        "It has no model 'kimi-k2-thinking', but moonshotai/kimi-k2-thinking-0905, "
        "moonshotai/kimi-k2, "
    )
    assert "and 37 more. `-m NAME` chooses, `%kimi models` lists all." in said
    assert server.requests[1].path == "/v1/models"


def test_a_model_that_is_listed_but_does_not_answer() -> None:
    with ScriptedServer("nvidia") as server, at(server.base_url) as client:
        server.error(404, "Function 'f': Not found for account 'a'")
        with pytest.raises(NotFound, match=r"(?s)for account.*It lists 'kimi-k2-thinking', but"):
            receive(client)


@pytest.mark.parametrize("listing", [Answer(404), Answer(200, b"<html>"), Answer(200, b"{}"), None])
def test_without_a_list_of_models_the_address_is_in_doubt(
    listing: Answer | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "HINT_TIMEOUT", 0.2)
    over = threading.Event()

    def answer(asked: Asked) -> Answer:
        if asked.method == "POST":
            return Answer(404, b"nothing here")
        return listing or Answer(500, b"" if over.wait(10) else b"late")

    with (
        answering(answer) as (url, _),
        at(url) as client,
        pytest.raises(NotFound, match=r"nothing here\n.*'kimi-k2-thinking'.*often /v1"),
    ):
        receive(client)
    over.set()


PENDING = "0a1b2c3d-0000-4000-8000-000000000000"


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pending results are asked for often."""
    monkeypatch.setattr(connection_module, "POLL_SECONDS", 0.05)


@pytest.mark.usefixtures("often")
def test_an_accepted_request_is_asked_for_until_it_is_done() -> None:
    left = [Answer(202, headers={"NVCF-REQID": PENDING}), Answer(202)]
    done = {"choices": [{"message": {"content": "9.9"}, "finish_reason": "stop"}]}
    left.append(Answer(200, json.dumps(done).encode()))
    with answering(lambda _: left.pop(0)) as (url, requests), at(url) as client:
        completion = receive(client)
    assert (completion.message.text, completion.finish_reason) == ("9.9", "stop")
    assert [(asked.method, asked.path) for asked in requests] == [
        ("POST", "/v1/chat/completions"),
        ("GET", f"/v1/status/{PENDING}"),
        ("GET", f"/v1/status/{PENDING}"),
    ]
    assert {asked.headers["Authorization"] for asked in requests} == {f"Bearer {SECRET}"}


@pytest.mark.usefixtures("often")
def test_an_accepted_request_that_fails_or_never_ends() -> None:
    left = [Answer(202, headers={"NVCF-REQID": PENDING}), Answer(500, b'{"detail": "it broke"}')]
    with (
        answering(lambda _: left.pop(0)) as (url, _),
        at(url) as client,
        pytest.raises(ServerFailed, match="it broke"),
    ):
        receive(client)
    pending = Answer(202, headers={"NVCF-REQID": PENDING})
    with (
        answering(lambda _: pending) as (url, requests),
        at(url, first_token_timeout=0.3) as client,
    ):
        with pytest.raises(TimedOut, match="first_token_timeout"):
            receive(client)
        asked = len(requests)
        time.sleep(0.3)
        assert len(requests) <= asked + 1, "nobody goes on asking"


@pytest.mark.parametrize("name", ["", "../../elsewhere"])
def test_an_accepted_request_without_a_name_says_so(name: str) -> None:
    with (
        answering(lambda _: Answer(202, headers={"NVCF-REQID": name})) as (url, _),
        at(url) as client,
        pytest.raises(BadStream, match=r"\(202\) and did not say"),
    ):
        receive(client)


def test_a_name_that_is_looked_up_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def never(*_: Any, **__: Any) -> Any:
        over.wait(60)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", never)
    monkeypatch.setattr(client_module, "CONNECT_GRACE", 0.1)
    url = "http://lab.invalid/v1"
    with at(url, connect_timeout=0.2) as client:
        began = time.monotonic()
        with pytest.raises(ConnectionFailed, match="no answer in time"):
            receive(client)
        assert time.monotonic() - began < 30
        over.set()


def failure(error: Exception, url: str = "https://lab.invalid/v1") -> EndpointError:
    endpoint, key = Endpoint("lab", url), Key(SECRET, "x")
    return ErrorMapper(endpoint, url, key, ChatCompletions()).from_exception(error)


def test_certificates_are_loaded_once_and_anew_where_others_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded = []

    def load(**_: Any) -> ssl.SSLContext:
        loaded.append(os.environ.get("SSL_CERT_FILE"))
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    monkeypatch.setattr(httpx2, "create_ssl_context", load)
    connection_module._tls.cache_clear()
    for file in ("one.pem", "one.pem", "two.pem"):
        monkeypatch.setenv("SSL_CERT_FILE", file)
        with at("https://127.0.0.1:9/v1") as client, pytest.raises(ConnectionFailed):
            receive(client)
    connection_module._tls.cache_clear()
    assert loaded == ["one.pem", "two.pem"]


def test_a_certificate_that_is_not_trusted_is_not_asked_again() -> None:
    told = failure(httpx2.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate"))
    assert "SSL_CERT_FILE" in str(told)
    assert not told.retriable
    other = failure(httpx2.ConnectError(str(ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER]"))))
    assert "WRONG_VERSION_NUMBER" in str(other)


def test_a_proxy_in_between_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://me:word@127.0.0.1:9")
    refused = httpx2.ConnectError("[Errno 111] Connection refused")
    assert "HTTPS_PROXY puts a proxy in between" in str(failure(refused))
    assert "word" not in str(failure(refused))
    assert "PROXY" not in str(failure(refused, "https://127.0.0.1:8000/v1"))
    monkeypatch.setenv("NO_PROXY", "lab.invalid")
    assert "PROXY" not in str(failure(refused))


def gone(status: int, listed: list[str], model: str) -> str:
    with ScriptedServer("nvidia-k3", strict=False) as server:
        server.models = listed
        server.error(status, "The model 'm' reached its end of life on 2026-07-07.")
        client = Client(Endpoint("nv", server.base_url, like="nvidia"), server.base_url, None)
        record = ModelCatalogue().get(model)
        body = {"model": model, "messages": [], "stream": True}
        with pytest.raises(NotFound) as caught, client.chat(body, model=record) as exchange:
            list(deltas_of(exchange))
    return str(caught.value)


def test_a_model_that_has_ended_is_not_a_missing_right() -> None:
    """NVIDIA answers 410 with a dated sentence, and may list the model for weeks."""
    for listed in (["moonshotai/kimi-k2.6", "x"], []):
        said = gone(410, listed, "moonshotai/kimi-k2.6")
        assert "answered 410: Gone: The model 'm' reached its end of life on 2026-07-07." in said
        assert "is no longer served there since 2026-07-07" in said
        assert ("although it is still listed" in said) is bool(listed)
        assert "right" not in said
    assert "may lack a right" in gone(404, ["moonshotai/kimi-k3"], "moonshotai/kimi-k3")
    said = gone(404, ["moonshotai/kimi-k3"], "moonshotai/kimi-k2.6")
    assert "has no model 'moonshotai/kimi-k2.6' (ended 2026-07-07), but moonshotai/kimi-k3" in said
