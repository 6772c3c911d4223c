"""The facts of each dialect, and each failure, as a probe sees them at the seams of the wire."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from email.utils import formatdate
from time import time
from typing import Any

import pytest

from kimi_magic.config import Settings
from kimi_magic.secrets.keys import Key
from kimi_magic.testing import ScriptedServer
from kimi_magic.wire.client import Client
from kimi_magic.wire.endpoints import Endpoint
from kimi_magic.wire.models import Model
from kimi_magic.wire.probe import Listing, Probe, Trip
from kimi_magic.wire.protocols import Status
from tests.faulty import Answer, answering, resetting
from tests.wire.exchanges import Playback

KEY = "-".join(["sk", "0123456789" + "abcdefghij" + "KLMNOP"])
ASKED = {"model": "kimi-k2-thinking", "stream": True, "stream_options": {"include_usage": True}}
BODY = {**ASKED, "messages": [{"role": "user", "content": "Hi"}]}
CALLS = [{"name": "get_weather", "arguments": {"city": city}} for city in ("Bern", "Rome")]


def probe_of(url: str, *, key: str = "", transport: Any = None) -> Probe:
    settings = Settings(connect_timeout=2.0)
    held = Key(key, "a test", "LAB_KEY") if key else None
    return Probe(Client(Endpoint("lab", url), url, held, settings, transport=transport), ())


def trip_to(url: str, **more: Any) -> Trip:
    trip = Trip()
    probe_of(url, **more).ask(BODY, Model("kimi-k2-thinking"), None, trip)
    return trip


def played(*chunks: str, **headers: str) -> Trip:
    data = "".join(f"data: {chunk}\n\n" for chunk in (*chunks, "[DONE]")).encode()
    items = [Status(200, {"content-type": "text/event-stream", **headers}), data, None]
    return trip_to("http://127.0.0.1:9/v1", transport=Playback(items))


@pytest.mark.parametrize(
    ("dialect", "field", "whole_calls"),
    [
        ("moonshot", "reasoning_content", False),
        ("vllm", "reasoning", False),
        ("sglang", "reasoning_content", False),
        ("openrouter", "reasoning_details,reasoning", False),
        ("nvidia", "reasoning_content", True),
        ("llamacpp", "reasoning_content", False),
    ],
)
def test_the_facts_of_each_dialect(dialect: str, field: str, whole_calls: bool) -> None:
    with ScriptedServer(dialect) as server:
        server.reply("It is 9.9.", reasoning="Let me see.")
        server.reply(reasoning="Both.", tool_calls=CALLS)
        first = trip_to(server.base_url)
        second = trip_to(server.base_url)
    assert (first.failure, second.failure) == (None, None)
    assert (first.status, first.text, first.is_whole, first.is_chat) == (
        200,
        "It is 9.9.",
        False,
        True,
    )
    assert ",".join(first.reasoning_fields) == field
    assert first.reasoning_chars == len("Let me see.")
    assert first.usage.completion_tokens
    assert first.usage_place == "last"
    assert first.model == "kimi-k2-thinking"
    assert abs(first.skew or 0) < 60
    assert [call.name for call in second.calls] == ["get_weather"] * 2
    assert len({call.id for call in second.calls}) == 2
    assert second.sent_calls
    assert second.sent_indexes != whole_calls


def test_tags_and_raw_tokens_in_the_text() -> None:
    raw = (
        "<think>Well.</think>On it.<|tool_calls_section_begin|><|tool_call_begin|>"
        'functions.get_weather:0<|tool_call_argument_begin|>{\\"city\\":\\"Bern\\"}'
        "<|tool_call_end|><|tool_calls_section_end|>"
    )
    trip = played(
        f'{{"choices":[{{"delta":{{"content":"{raw}"}}}}]}}',
        '{"choices":[{"delta":{},"finish_reason":"stop","usage":{"prompt_tokens":3}}]}',
    )
    assert trip.reasoning_fields == ()
    assert trip.reasoning_chars == len("Well.")
    assert [str(call) for call in trip.calls] == ['get_weather({"city":"Bern"})']
    assert not trip.sent_calls
    assert trip.usage_place == "choice"
    assert trip.pieces == 1


def test_the_pieces_and_their_times() -> None:
    chunk = b'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\n'
    items = [Status(200, {}), chunk * 2, chunk[:20], chunk[20:], b"data: [DONE]\n\n", None]
    times = [0.0, 0.01, 0.02, 0.03, 0.04, 0.05]
    trip = trip_to("http://127.0.0.1:9/v1", transport=Playback(items, times))
    assert (trip.pieces, trip.chunks, trip.text) == (4, 3, "HiHiHi")
    assert trip.span == pytest.approx(0.03)
    assert trip.wait >= 0.01


def test_one_document_where_a_stream_was_asked_for() -> None:
    body = b'{"choices":[{"message":{"content":"Hi.","reasoning":"So."}}],"model":"other"}'
    items = [Status(200, {"content-type": "application/json"}), body, None]
    trip = trip_to("http://127.0.0.1:9/v1", transport=Playback(items))
    assert trip.is_whole
    assert (trip.text, trip.model, trip.reasoning_fields) == ("Hi.", "other", ("reasoning",))
    assert not trip.usage.total_tokens
    assert trip.usage_place == ""


@pytest.mark.parametrize("ahead", [0, 900, -7200])
def test_the_clock_of_the_server(ahead: int) -> None:
    trip = played('{"choices":[{"delta":{"content":"Hi"}}]}', date=formatdate(time() + ahead))
    assert trip.skew == pytest.approx(ahead, abs=30)


def test_a_date_that_is_none() -> None:
    assert played('{"choices":[{"delta":{"content":"Hi"}}]}', date="soon").skew is None


def test_what_is_no_chat_completion_is_noted_by_its_fold_alone() -> None:
    trip = played('{"type":"content_block_delta","delta":[1],"choices":7}')
    assert not trip.is_chat
    assert trip.failure is not None


PAGE = b"<!doctype html><title>Sign in to ACME</title><p>Please."


@contextmanager
def _tls() -> Iterator[str]:
    with answering(lambda _: Answer()) as (url, _):
        yield url.replace("http:", "https:")


@contextmanager
def _dead() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    yield f"http://127.0.0.1:{port}/v1"


@contextmanager
def _given(answer: Answer) -> Iterator[str]:
    with answering(lambda _: answer) as (url, _):
        yield url


@contextmanager
def _named(url: str) -> Iterator[str]:
    yield url


def _error(status: int, message: str, **headers: str) -> AbstractContextManager[str]:
    body = f'{{"error": {{"message": "{message}"}}}}'.encode()
    return _given(Answer(status, body, headers=headers))


FAULTS: list[tuple[str, Callable[[], AbstractContextManager[str]], str]] = [
    ("name", lambda: _named("http://no-such-host.invalid/v1"), "could not be reached"),
    ("refused", _dead, "could not be reached"),
    ("tls", _tls, "SSL"),
    ("broken", resetting, "broke"),
    ("redirect", lambda: _error(302, "x", Location="https://login.test/"), "redirects to"),
    ("page", lambda: _given(Answer(200, PAGE, "text/html")), "Sign in to ACME"),
    ("page", lambda: _given(Answer(404, PAGE, "text/html; charset=utf-8")), "Sign in to ACME"),
    ("proxy", lambda: _error(407, "Who are you?"), "answered 407"),
    ("key", lambda: _error(401, f"Bad key {KEY}"), "answered 401: Bad key [key]"),
    ("missing", lambda: _error(404, "no such model"), "answered 404"),
    ("missing", lambda: _error(410, "ended on 2026-07-07"), "answered 410"),
    ("rate", lambda: _error(429, "slow down"), "answered 429"),
    ("quota", lambda: _error(402, "pay"), "answered 402"),
    ("server", lambda: _error(503, "later"), "answered 503"),
    ("request", lambda: _error(400, "no response_format here"), "no response_format here"),
    ("stream", lambda: _given(Answer(200, b"hello", "text/plain")), "sent no chat completion"),
]


@pytest.mark.parametrize(("kind", "fault", "said"), FAULTS, ids=lambda value: str(value)[:12])
def test_each_failure_has_its_kind(
    kind: str, fault: Callable[[], AbstractContextManager[str]], said: str
) -> None:
    with fault() as url:
        trip = trip_to(url, key=KEY)
        listing = probe_of(url, key=KEY).list_models()
    assert trip.failure is not None
    assert trip.failure.kind == kind
    assert said in trip.failure.said
    assert KEY not in str((trip, listing))
    assert trip.failure.is_unreached == (kind in ("name", "refused", "tls", "proxy"))
    assert listing.ids is None
    assert listing.failure is not None
    assert listing.failure.kind in (kind, "stream")


def test_a_proxy_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with _dead() as url:
        monkeypatch.setenv("HTTP_PROXY", url.removesuffix("/v1"))
        trip = trip_to("http://models.test/v1")
    assert trip.failure is not None
    assert trip.failure.kind == "refused"
    assert "HTTP_PROXY" in trip.failure.advice
    monkeypatch.setenv("HTTP_PROXY", "http://bad proxy:port")
    trip = trip_to("http://models.test/v1")
    assert trip.failure is not None
    assert trip.failure.kind == "proxy"


@pytest.mark.parametrize(
    ("body", "listing"),
    [
        (b'{"data": [{"id": "a", "context_length": 10}]}', Listing(("a",), {"a": 10})),
        (b'{"data": [{"id": "a", "max_model_len": 20}]}', Listing(("a",), {"a": 20})),
        (b'{"data": [{"id": "a", "meta": {"n_ctx": 8}}]}', Listing(("a",), {"a": 8})),
        (b'{"data": [{"id": "a", "context_length": true}, 7]}', Listing(("a",))),
        (b'{"data": [{"id": "a", "meta": 3}, {"x": 1}]}', Listing(("a",))),
        (b'{"data": []}', Listing(())),
    ],
)
def test_the_list_of_models(body: bytes, listing: Listing) -> None:
    with answering(lambda _: Answer(200, body)) as (url, _):
        assert probe_of(url).list_models() == listing
