"""The Messages API: requests as they go out, answers as they come in, errors in their own words."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

import kimi_magic as kimi
from kimi_magic.config import Settings
from kimi_magic.core.errors import (
    BadRequest,
    BadStream,
    ConfigError,
    ConnectionFailed,
    ContextTooLong,
    EndpointError,
    KeyRefused,
    NotFound,
    QuotaExhausted,
    RateLimited,
    ServerFailed,
    TimedOut,
)
from kimi_magic.core.messages import ImagePart, Message, ReasoningPart, TextPart
from kimi_magic.core.messages import ToolCall as Call
from kimi_magic.secrets.keys import Key
from kimi_magic.session import Session
from kimi_magic.testing import ScriptedServer
from kimi_magic.testing.block_checks import check_messages_request
from kimi_magic.wire import apis
from kimi_magic.wire.anthropic.block_fold import MOST_UNSEEN_BYTES, BlockFold
from kimi_magic.wire.anthropic.messages_api import Messages
from kimi_magic.wire.anthropic.messages_body import messages_body
from kimi_magic.wire.client import Client
from kimi_magic.wire.endpoints import Catalogue, Endpoint
from kimi_magic.wire.recorded_answer import answer_in
from tests.wire.exchanges import receive
from tests.wire.test_dialects import RECORDED

SECRET = "fake-key-" + "0123456789abcdef"
KEY = Key(SECRET, "the environment variable LAB_KEY", "LAB_KEY")
THOUGHT = ReasoningPart("Need it.", "c2ln")
CALLS = (Call("functions.add:0", "add", '{"a": 1}'), Call("functions.add:1", "add", ""))
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


def encoded(*messages: Message, model: str = "kimi-k3", **more: Any) -> dict[str, Any]:
    """Return the body that goes out, which has to pass the checks of a server."""
    whole = [message.to_dict(whole=True) for message in messages]
    body = messages_body({"model": model, "messages": whole, **more})
    assert check_messages_request(body) == []
    return body


GO, AND = Message("user", "Go"), Message("user", "And?")


def blocks(body: dict[str, Any], place: int = 1) -> Any:
    return body["messages"][place]["content"]


def test_a_whole_conversation() -> None:
    picture = ImagePart("aGk=", "image/jpeg")
    body = encoded(
        Message("system", "Be brief."),
        Message("user", (TextPart("See"), picture)),
        Message("assistant", "Let me.", (THOUGHT,), tool_calls=CALLS),
        Message("tool", "3", tool_call_id=CALLS[0].id, name="add"),
        Message("tool", "", tool_call_id=CALLS[1].id, name="add", failed=True),
        Message("user", "Conclude."),
        tools=[TOOL],
        tool_choice="required",
        temperature=0.5,
        max_completion_tokens=500,
        stop=["END"],
        seed=7,
        logprobs=True,
        stream=True,
        stream_options={"include_usage": True},
    )
    assert body == {
        "model": "kimi-k3",
        "max_tokens": 500,
        "system": "Be brief.",
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "See"},
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/jpeg", "data": "aGk="},
                    },
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Need it.", "signature": "c2ln"},
                    {"type": "text", "text": "Let me."},
                    {"type": "tool_use", "id": CALLS[0].id, "name": "add", "input": {"a": 1}},
                    {"type": "tool_use", "id": CALLS[1].id, "name": "add", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": CALLS[0].id, "content": "3"},
                    {"type": "tool_result", "tool_use_id": CALLS[1].id, "is_error": True},
                    {"type": "text", "text": "Conclude."},
                ],
            },
        ],
        "tools": [{"name": "add", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "any"},
        "temperature": 0.5,
        "stop_sequences": ["END"],
        "stream": True,
    }


def test_thinking_goes_back_where_it_stood() -> None:
    parts = (
        ReasoningPart("", "ZW5j", redacted=True),
        ReasoningPart("one", "MQ=="),
        ReasoningPart("two", "Mg==", before_text=3),
        ReasoningPart("three", "Mw==", before_call=1, before_text=9),
    )
    results = [Message("tool", "3", tool_call_id=call.id, name="add") for call in CALLS]
    answer = Message("assistant", "AbcDefGhi", parts, tool_calls=CALLS)
    found = blocks(encoded(GO, answer, *results, tools=[TOOL]))
    assert [list(block.values())[1] for block in found[:5]] == [
        "ZW5j",
        "one",
        "Abc",
        "two",
        "DefGhi",
    ]
    assert [block["type"] for block in found[5:]] == ["tool_use", "thinking", "tool_use"]
    assert not {"before_call", "before_text"} & {name for block in found for name in block}


@pytest.mark.parametrize(
    ("model", "signature", "sent"),
    [
        ("kimi-k3", None, [""]),  # of another API, or cut
        ("kimi-k3", "", [""]),
        ("kimi-k3", "c2ln", ["c2ln"]),
        ("claude-opus-4-6", None, []),
        ("claude-opus-4-6", "", []),
        ("claude-opus-4-6", "c2ln", ["c2ln"]),
        ("glm-5", None, [""]),
    ],
)
def test_what_a_server_takes_of_reasoning(
    model: str, signature: str | None, sent: list[str]
) -> None:
    answer = Message("assistant", "Yes.", (ReasoningPart("Hm.", signature),))
    found = blocks(encoded(GO, answer, AND, model=model))
    thoughts = [] if isinstance(found, str) else [b for b in found if b["type"] == "thinking"]
    assert [block["signature"] for block in thoughts] == sent


def test_kimi_wants_a_block_of_thinking_before_each_call() -> None:
    answer = Message("assistant", None, (), tool_calls=CALLS[:1])
    result = Message("tool", "3", tool_call_id=CALLS[0].id)
    for model, first in (("kimi-k3", "thinking"), ("glm-5", "tool_use")):
        assert blocks(encoded(GO, answer, result, model=model))[0]["type"] == first


def test_a_history_with_calls_has_tools_though_none_may_be_called() -> None:
    answer = Message("assistant", None, (THOUGHT,), tool_calls=CALLS[:1])
    result = Message("tool", "3", tool_call_id=CALLS[0].id)
    body = encoded(GO, answer, result, model="claude-sonnet-4-5")
    assert body["tools"] == [{"name": "add", "input_schema": {"type": "object"}}]
    assert body["tool_choice"] == {"type": "none"}
    assert blocks(body)[1]["id"] == "functions_add_0", "the id that Anthropic takes"


@pytest.mark.parametrize(
    ("model", "asked", "thinking", "output"),
    [
        ("kimi-k3", {"reasoning_effort": "low"}, None, {"effort": "low"}),
        (
            "claude-opus-5-5",
            {"reasoning_effort": "max"},
            {"type": "adaptive", "display": "summarized"},
            {"effort": "max"},
        ),
        (
            "claude-sonnet-4-5-20250929",
            {"reasoning_effort": "high"},
            {"type": "enabled", "budget_tokens": 8192},
            None,
        ),
        ("glm-5", {"reasoning_effort": "low", "max_tokens": 2000},
         {"type": "enabled", "budget_tokens": 1024}, None),
        ("glm-5", {"reasoning_effort": "max", "max_tokens": 1024}, None, None),
        ("kimi-k2.6", {"thinking": {"type": "disabled"}}, {"type": "disabled"}, None),
        ("kimi-k2.6", {"thinking": {"type": "enabled"}, "max_tokens": 4096},
         {"type": "enabled", "budget_tokens": 3072}, None),
        ("kimi-k2.6", {"chat_template_kwargs": {"thinking": False}}, {"type": "disabled"}, None),
        ("other", {"thinking": {"type": "adaptive"}, "output_config": {"effort": "xhigh"}},
         {"type": "adaptive"}, {"effort": "xhigh"}),
    ],
)  # fmt: skip
def test_an_effort_in_the_terms_of_the_model(
    model: str, asked: dict[str, Any], thinking: Any, output: Any
) -> None:
    body = encoded(GO, model=model, **asked)
    assert (body.get("thinking"), body.get("output_config")) == (thinking, output)


def test_a_schema_and_an_image_by_its_address() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    body = encoded(GO, response_format=form)
    assert body["output_config"] == {"format": {"type": "json_schema", "schema": schema}}
    assert "output_config" not in encoded(GO, response_format={"type": "json_object"})
    parts = [{"type": "image_url", "image_url": {"url": "https://host/a.png"}}]
    messages = [{"role": "user", "content": parts}]
    body = messages_body({"model": "m", "messages": messages})
    assert blocks(body, 0)[0]["source"] == {"type": "url", "url": "https://host/a.png"}


def test_what_the_chat_wire_sends_has_nothing_of_it() -> None:
    message = Message("assistant", "Hi", (THOUGHT, ReasoningPart("", "ZW5j", redacted=True)))
    assert message.to_dict() == {
        "role": "assistant",
        "content": "Hi",
        "reasoning_content": "Need it.",
    }
    assert Message("tool", "x", tool_call_id="1", failed=True).to_dict() == {
        "role": "tool",
        "content": "x",
        "tool_call_id": "1",
    }


def parts_of(name: str) -> tuple[ReasoningPart, ...]:
    completion = answer_in(RECORDED[name])
    assert completion is not None
    return completion.message.reasoning or ()


def test_signatures_are_kept_as_they_came() -> None:
    assert [part.signature for part in parts_of("anthropic-kimi")] == [""]
    assert [part.signature for part in parts_of("anthropic-cut")] == [None], "it was not ended"
    redacted, first, second = parts_of("anthropic-interleaved")
    assert redacted.redacted
    assert (first.text, second.text) == ("I need ", "the weather.")
    assert (redacted.before_text, second.before_text) == (0, len("Let me look."))
    recorded = RECORDED["anthropic-interleaved"].decode()
    assert redacted.signature
    assert redacted.signature in recorded
    assert first.signature == "EqQBCgIYAhIM1gbcDa9GJwZA2b3hGgxBdjrkzLoky3dl1pkiMOYds+zK2Q=="


def test_an_answer_in_one_body_is_what_its_stream_is() -> None:
    usage = {"input_tokens": 10, "cache_read_input_tokens": 80, "output_tokens": 50}
    signature = parts_of("anthropic-plain")[0].signature
    whole = {
        "type": "message",
        "model": "claude-opus-4-6",
        "content": [
            {"type": "thinking", "thinking": "Compare the tenths: 9 > 1.", "signature": signature},
            {"type": "text", "text": "9.9 is **bigger** (東京 🙂)."},
        ],
        "stop_reason": "end_turn",
        "usage": usage | {"output_tokens_details": {"thinking_tokens": 30}},
    }
    assert answer_in(json.dumps(whole).encode()) == answer_in(RECORDED["anthropic-plain"])


def test_a_masked_thought_has_no_signature() -> None:
    fold = Messages().fold([KEY])
    start = {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking"}}
    pieces = [f"The key is {SECRET[:9]}", SECRET[9:], ", I see."]
    deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces]
    deltas.append({"type": "signature_delta", "signature": "c2ln"})
    fold.add([start])
    told = fold.add([{"type": "content_block_delta", "index": 0, "delta": d} for d in deltas])
    told += fold.add([{"type": "content_block_stop", "index": 0}])
    assert SECRET not in repr(told)
    (part,) = fold.completion().message.reasoning or ()
    assert part == ReasoningPart("The key is [key], I see.", None)


def begun(index: int, call_id: str, given: Any) -> dict[str, Any]:
    block = {"type": "tool_use", "id": call_id, "name": "add", "input": given}
    return {"type": "content_block_start", "index": index, "content_block": block}


def piece(index: int, text: str) -> dict[str, Any]:
    delta = {"type": "input_json_delta", "partial_json": text}
    return {"type": "content_block_delta", "index": index, "delta": delta}


STOP: dict[str, Any] = {"type": "content_block_stop", "index": 0}
ENDED: dict[str, Any] = {"type": "message_delta", "delta": {"stop_reason": "tool_use"}}


@pytest.mark.parametrize(
    ("events", "arguments"),
    [
        ([begun(0, "a", {"a": 1}), begun(1, "b", {"a": 2}), ENDED], ['{"a": 1}', '{"a": 2}']),
        ([begun(0, "a", {"a": 1}), begun(0, "a", {"a": 2}), ENDED], ['{"a": 1}', '{"a": 2}']),
        ([begun(0, "", {}), piece(0, '{"a":1}'), begun(0, "", {}), ENDED], ['{"a":1}', "{}"]),
        ([begun(0, "a", {"a": 9}), piece(0, '{"a":1}'), ENDED], ['{"a":1}']),
        ([begun(0, "a", []), STOP, ENDED], ["{}"]),
        ([begun(0, "a", [1]), STOP, ENDED], ["[1]"]),
        ([piece(0, '{"a":1}'), STOP, ENDED], []),
        ([begun(0, "a", {})], [""]),  # cut: no call without arguments
    ],
)
def test_calls_of_servers_that_stop_no_blocks_or_number_none(
    events: list[dict[str, Any]], arguments: list[str]
) -> None:
    fold = BlockFold()
    for event in events:
        fold.add([event])
    fold.finish()
    assert [call.arguments for call in fold.completion().message.tool_calls] == arguments


@pytest.mark.parametrize(
    ("first", "last", "prompt", "cached"),
    [
        ({"input_tokens": 10, "cache_read_input_tokens": 80}, {"output_tokens": 5}, 90, 80),
        ({"input_tokens": 0}, {"input_tokens": 10, "cache_creation_input_tokens": 80}, 90, 0),
        ({"input_tokens": 90}, {"input_tokens": 10, "cache_read_input_tokens": 80}, 90, 80),
        ({"input_tokens": 90}, {"input_tokens": 0, "cache_read_input_tokens": 90}, 90, 90),
        ({"input_tokens": 90}, {"input_tokens": 0, "output_tokens": 5}, 90, 0),
        ({"input_tokens": 90}, None, 90, 0),
        (None, {"input_tokens": -5, "output_tokens": True}, 0, 0),
    ],
)
def test_no_token_is_counted_twice(first: Any, last: Any, prompt: int, cached: int) -> None:
    fold = BlockFold()
    fold.add([{"type": "message_start", "message": {"usage": first}}, ENDED | {"usage": last}])
    usage = fold.completion().usage
    assert (usage.prompt_tokens, usage.cached_tokens) == (prompt, cached)


def test_thinking_that_nothing_follows_or_that_is_lost() -> None:
    """Anthropic takes no thinking at an end, and none at all where that before results is lost."""
    last = ReasoningPart("More?", "c2ln", before_text=4)
    answer = Message("assistant", "Yes.", (THOUGHT, last))
    claude = {"model": "claude-sonnet-4-5", "reasoning_effort": "high"}
    assert [block["type"] for block in blocks(encoded(GO, answer, AND, **claude))] == [
        "thinking",
        "text",
    ]
    for thought, kept in ((THOUGHT, True), (ReasoningPart("[key]"), False)):
        asked = Message("assistant", "", (thought,), tool_calls=CALLS[:1])
        body = encoded(GO, asked, Message("tool", "3", tool_call_id=CALLS[0].id), **claude)
        assert ("thinking" in body) == kept
    assert "thinking" in encoded(GO, Message("assistant", "Yes."), AND, **claude)


def test_an_address_is_enough(server: ScriptedServer, session: Session) -> None:
    server.reply("9.9", reasoning="So.")
    assert kimi.ask("9.11 or 9.9?", endpoint=server.base_url, model="kimi-k3").text == "9.9"


def test_signatures_have_a_bound() -> None:
    fold = BlockFold()
    start = {"type": "content_block_start", "content_block": {"type": "thinking"}}
    delta = {"type": "signature_delta", "signature": "x" * 1_000_000}
    flood = [{"type": "content_block_delta", "delta": delta}] * (MOST_UNSEEN_BYTES // 1_000_000 + 1)
    with pytest.raises(ValueError, match="too long signatures"):
        fold.add([start, *flood])


@pytest.mark.parametrize(
    ("reason", "ours"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("pause_turn", "pause_turn"),
    ],
)
def test_reasons_for_finishing(reason: str, ours: str) -> None:
    fold = BlockFold()
    fold.add([{"type": "message_delta", "delta": {"stop_reason": reason}, "usage": None}])
    assert fold.completion().finish_reason == ours


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer("anthropic") as server:
        yield server


def client_of(server: ScriptedServer) -> closing[Client]:
    endpoint = Endpoint("lab", server.base_url, "LAB_KEY", wire="messages")
    return closing(Client(endpoint, endpoint.base_url, KEY, Settings()))


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_over_http(server: ScriptedServer, stream: bool) -> None:
    calls = [{"name": "add", "arguments": {"a": 1}}, {"name": "now", "arguments": {}}]
    server.reply("9.9", reasoning="So.\n\nYes.", tool_calls=calls, signature="", redacted="ZW5j")
    with client_of(server) as client:
        completion = receive(client, stream=stream)
        assert client.models() == ["kimi-k3"]
    message = completion.message
    assert (message.text, message.reasoning_text) == ("9.9", "So.\n\nYes.")
    assert [(c.name, json.loads(c.arguments)) for c in message.tool_calls] == [
        ("add", {"a": 1}),
        ("now", {}),
    ]
    assert message.reasoning == (
        ReasoningPart("So.\n\nYes.", ""),
        ReasoningPart("", "ZW5j", redacted=True),
    )
    assert completion.finish_reason == "tool_calls"
    assert completion.usage.completion_tokens > 0
    headers = server.requests[0].headers
    assert headers["X-Api-Key"] == SECRET
    assert headers["Authorization"] == f"Bearer {SECRET}"
    assert headers["anthropic-version"] == "2023-06-01"
    assert "Anthropic" in headers["User-Agent"]


def test_anthropic_gets_the_key_in_one_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "another")
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "X-Mine: another")
    headers = Messages(signed=True).headers(KEY)
    assert headers["X-Api-Key"] == SECRET
    assert "Authorization" not in headers
    assert "another" not in str(headers)
    assert SECRET not in str(Messages().headers(None))


def test_headers_of_ones_own_go_first(server: ScriptedServer) -> None:
    endpoint = Endpoint(
        "lab", server.base_url, wire="messages", headers={"x-api-key": "mine-" + "0123456789"}
    )
    server.reply("OK")
    with closing(Client(endpoint, endpoint.base_url, None, Settings())) as client:
        receive(client)
    assert server.requests[0].headers["X-Api-Key"].startswith("mine-")
    with pytest.raises(ConfigError, match="an X-Api-Key header of its own, not both"):
        Endpoint("lab", server.base_url, "A", wire="messages", headers={"x-api-key": "b"})


ERRORS = [
    (400, "temperature: range", BadRequest, "Change what the server names"),
    (400, "prompt is too long: 208310 tokens > 200000 maximum", ContextTooLong, "reset"),
    (400, "input length and `max_tokens` exceed context limit", ContextTooLong, "reset"),
    (400, "Your credit balance is too low to access the API", QuotaExhausted, "billing"),
    (401, f"invalid x-api-key {SECRET}", KeyRefused, "variable LAB_KEY"),
    (402, "pay", QuotaExhausted, "billing"),
    (403, "not yours", KeyRefused, "LAB_KEY"),
    (404, "model: kimi-k9", NotFound, "kimi-k3"),
    (413, "Request exceeds the maximum size", BadRequest, "413"),
    (429, "slow down", RateLimited, "wait"),
    (500, "Internal server error", ServerFailed, "later"),
    (504, "too slow", ServerFailed, "later"),
    (529, "Overloaded", ServerFailed, "later"),
]


@pytest.mark.parametrize(("status", "words", "error", "says"), ERRORS)
def test_errors(
    server: ScriptedServer,
    status: int,
    words: str,
    error: type[EndpointError],
    says: str,
) -> None:
    server.error(status, words, headers={"Retry-After": "7"})
    with client_of(server) as client, pytest.raises(error) as caught:
        receive(client)
    assert type(caught.value) is error
    assert caught.value.retriable == (error in (RateLimited, ServerFailed))
    assert (caught.value.retry_after, caught.value.request_id) == (7, "req-1")
    assert says in str(caught.value)
    assert SECRET not in str(caught.value)


PLAIN = RECORDED["anthropic-plain"]
HALF = PLAIN[: PLAIN.index(b"event: message_delta")]


@pytest.mark.parametrize(
    ("kind", "before", "error"),
    [
        ("overloaded_error", b"", ServerFailed),
        ("rate_limit_error", b"", RateLimited),
        ("authentication_error", b"", KeyRefused),
        ("invalid_request_error", HALF, BadRequest),
        ("overloaded_error", HALF, BadStream),
        ("api_error", HALF, BadStream),
        ("novel_error", HALF, BadStream),
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_errors_in_the_stream(
    server: ScriptedServer, kind: str, before: bytes, error: type[EndpointError], named: bool
) -> None:
    data = json.dumps({"type": "error", "error": {"type": kind, "message": "It broke."}}).encode()
    server.raw([before, b"event: error\n" * named + b"data: " + data + b"\n\n"])
    with client_of(server) as client, pytest.raises(error, match="broke off: It broke") as caught:
        receive(client)
    assert type(caught.value) is error
    assert caught.value.partial is not None
    assert bool(caught.value.partial) == bool(before)


@pytest.mark.parametrize(
    ("script", "setting", "error"),
    [
        ({"cut_after": 3}, "", ConnectionFailed),
        ({"stall_after": 3}, "stall_timeout", TimedOut),
        ({"delay": 30.0}, "first_token_timeout", TimedOut),
    ],
)
def test_faults_on_the_way(
    server: ScriptedServer, script: Any, setting: str, error: type[EndpointError]
) -> None:
    server.reply("one two three four", reasoning="Well", **script)
    with client_of(server) as client:
        if setting:
            setattr(client.settings, setting, 0.3)
        with pytest.raises(error) as caught:
            receive(client)
    partial = caught.value.partial
    assert partial is not None
    assert ("one" in partial.message.text) == ("delay" not in script)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><title>Welcome to nginx</title>",
        b"data: {broken\n\n",
        b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
        b'{"type": "message", "content": []}',
    ],
)
def test_what_is_no_answer(server: ScriptedServer, body: bytes) -> None:
    server.raw([body], content_type="text/event-stream")
    with client_of(server) as client, pytest.raises((BadStream, ConnectionFailed)) as caught:
        receive(client)
    assert "/v1" not in str(caught.value)


@pytest.mark.parametrize("version", ["", "0.121.0"])
def test_without_the_sdk_one_line_says_what_to_install(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if version:
        monkeypatch.setattr(apis, "version", lambda _: version)
    else:
        monkeypatch.setitem(sys.modules, "anthropic", None)
    endpoint = Catalogue().get("moonshot-anthropic")
    with pytest.raises(ConfigError, match=r'pip install "kimi-magic\[anthropic\]"') as caught:
        Client(endpoint, endpoint.base_url, KEY)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/", "/v1/messages"])
def test_an_address_ends_where_the_sdks_do(end: str) -> None:
    lab = Endpoint("lab", f"https://host/anthropic{end}", wire="messages", partial_mode=True)
    assert lab.base_url == "https://host/anthropic"
    assert (lab.partial_mode, lab.stream_usage) == (False, False)


def test_endpoints_by_their_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = Catalogue()
    built_in = catalogue.get("moonshot-anthropic")
    assert (built_in.wire, built_in.kind, built_in.key_env) == (
        "messages",
        "moonshot",
        "MOONSHOT_API_KEY",
    )
    assert catalogue.get("https://api.moonshot.ai/anthropic") == built_in
    assert catalogue.get("https://api.moonshot.ai/anthropic/v1/messages") == built_in
    lab = catalogue.get("http://lab:8000/v1/messages")
    assert (lab.wire, lab.base_url) == ("messages", "http://lab:8000")
    monkeypatch.setenv("KIMI_BASE_URL", "http://lab:8000/v1/messages")
    assert Catalogue().get("custom").wire == "messages"
    assert catalogue.get("https://lab.example/api/anthropic/").wire == "messages"
    assert catalogue.get("https://api.anthropic.com").wire == "messages"
    for url in ("http://lab:8000/v1", "https://api.anthropic.com/v1", "http://anthropic:1/v1"):
        assert catalogue.get(url).wire == "chat"
    own = {"name": "lab", "base_url": "http://lab", "wire": "messages"}
    gateway = catalogue.resemble("moonshot", own)
    assert (gateway.batch, gateway.kind) == (False, "moonshot")
    with pytest.raises(ConfigError, match="wire is one of chat, messages"):
        Endpoint("lab", "http://lab", wire="grpc")  # type: ignore[arg-type]
