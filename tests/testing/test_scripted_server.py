"""The scripted server: its shapes, its strictness, its pace, and how it ends."""

from __future__ import annotations

import gc
import http.client
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kimi_magic.testing import DIALECTS, ScriptedServer, check_messages, check_request
from kimi_magic.testing.answers import Token

WIRE = Path(__file__).parents[1] / "wire"
USER = {"role": "user", "content": "9.11 or 9.9?"}
CALL = {"name": "get_weather", "arguments": {"city": "Bei jing"}}
KEYS = dict.fromkeys(DIALECTS, "reasoning_content") | dict.fromkeys(
    ("vllm", "openrouter"), "reasoning"
)


def body(**more: Any) -> dict[str, Any]:
    return {"model": "kimi-k2-thinking", "messages": [USER], **more}


BEGUN = {"role": "assistant", "content": "9.", "partial": True}


def test_partial_mode_is_moonshots_for_the_last_message_of_plain_text() -> None:
    begun = body(messages=[USER, BEGUN])
    assert check_request(begun) == []
    assert check_request(body(messages=[USER, BEGUN, USER]))
    assert check_request(body(messages=[{**USER, "partial": True}]))
    assert check_request(begun | {"response_format": {"type": "json_object"}})
    assert check_request(begun, dialect="vllm")
    assert check_request(body(messages=[USER, {"content": "9.", "partial": True}]))
    assert check_request(body(messages=[USER, BEGUN | {"partial": "yes"}]))


STREAM = body(stream=True, stream_options={"include_usage": True})


@contextmanager
def posted(
    server: ScriptedServer, data: Any = STREAM, **headers: str
) -> Iterator[http.client.HTTPResponse]:
    """A response whose connection is closed at the end of the block."""
    address = server.base_url.removeprefix("http://").removesuffix("/v1")
    with closing(http.client.HTTPConnection(address, timeout=5)) as connection:
        connection.request(
            "POST",
            "/v1/chat/completions",
            data if isinstance(data, bytes) else json.dumps(data),
            {"Content-Type": "application/json", **headers},
        )
        with connection.getresponse() as response:
            yield response


def post(server: ScriptedServer, data: Any = STREAM, **headers: str) -> tuple[int, Any]:
    with posted(server, data, **headers) as response:
        text = response.read()
        kind = response.headers["Content-Type"]
        return response.status, json.loads(text) if kind == "application/json" else text


def chunks(stream: bytes) -> list[dict[str, Any]]:
    events = [event for event in stream.decode().split("\n\n") if not event.startswith(":")]
    assert events[-2:] == ["data: [DONE]", ""]
    return [json.loads(event.removeprefix("data: ")) for event in events[:-2]]


def rendered(dialect: str, text: str = "", **reply: Any) -> list[dict[str, Any]]:
    server = ScriptedServer(dialect)
    server.reply(text, **reply)
    return chunks(b"".join(server.render()))


def choices(answer: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [chunk["choices"][0] for chunk in answer if chunk["choices"]]


# ---- shapes


def test_moonshot_sends_what_the_documentation_shows() -> None:
    usage = {"prompt_tokens": 90, "completion_tokens": 50, "total_tokens": 140, "cached_tokens": 90}
    answer = rendered("moonshot", "OK now", reasoning="The end", usage=usage)
    assert {(c["object"], c["model"]) for c in answer} == {
        ("chat.completion.chunk", "kimi-k2-thinking")
    }
    assert [chunk["choices"] for chunk in answer] == [
        [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}],
        [{"index": 0, "delta": {"reasoning_content": "The"}, "finish_reason": None}],
        [{"index": 0, "delta": {"reasoning_content": " end"}, "finish_reason": None}],
        [{"index": 0, "delta": {"content": "OK"}, "finish_reason": None}],
        [{"index": 0, "delta": {"content": " now"}, "finish_reason": None}],
        [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": usage}],
        [],
    ]
    assert answer[-1]["usage"] == usage


NULLS = {"role": None, "content": None, "reasoning_content": None, "tool_calls": None}
THOUGHT = {"type": "reasoning.text", "text": "So", "index": 0}


@pytest.mark.parametrize(
    ("dialect", "opening", "thought", "said", "end"),
    [
        (
            "vllm",
            {"role": "assistant", "content": ""},
            {"reasoning": "So"},
            {"content": "9.9"},
            {"delta": {"content": "9.9"}, "logprobs": None, "token_ids": None},
        ),
        (
            "sglang",
            NULLS | {"role": "assistant", "content": ""},
            NULLS | {"reasoning_content": "So"},
            NULLS | {"content": "9.9"},
            {"delta": NULLS, "logprobs": None, "matched_stop": None},
        ),
        (
            "openrouter",
            {"role": "assistant", "content": ""},
            {"role": "assistant", "content": "", "reasoning": "So", "reasoning_details": [THOUGHT]},
            {"role": "assistant", "content": "9.9"},
            {
                "delta": {"role": "assistant", "content": ""},
                "native_finish_reason": "stop",
                "logprobs": None,
            },
        ),
        (
            "nvidia",
            {"role": "assistant", "content": ""},
            {"reasoning_content": "So"},
            {"content": "9.9"},
            {"delta": {}},
        ),
        (
            "llamacpp",
            {"role": "assistant", "content": None},
            {"reasoning_content": "So"},
            {"content": "9.9"},
            {"delta": {}},
        ),
    ],
)
def test_the_deltas_of_a_dialect(
    dialect: str, opening: Any, thought: Any, said: Any, end: Mapping[str, Any]
) -> None:
    got = choices(rendered(dialect, "9.9", reasoning="So"))
    assert [choice["delta"] for choice in got[:3]] == [opening, thought, said]
    assert got[-1] == {"index": 0, "finish_reason": "stop", **end}
    assert all(choice["finish_reason"] is None for choice in got[:-1])


def test_sglang_repeats_nulls_in_tool_calls() -> None:
    got = choices(rendered("sglang", tool_calls=[CALL]))
    first, later = (choice["delta"]["tool_calls"][0] for choice in got[1:3])
    assert first["function"] == {"name": "get_weather", "arguments": ""}
    assert (later["id"], later["function"]["name"]) == (None, None)


def test_openrouter_comments_between_the_events() -> None:
    server = ScriptedServer("openrouter")
    server.reply("word " * 20)
    stream = b"".join(server.render())
    assert stream.startswith(b": OPENROUTER PROCESSING\n\n")
    assert stream.count(b": OPENROUTER PROCESSING\n\n") >= 3


@pytest.mark.parametrize("dialect", [d for d in DIALECTS if d != "nvidia"])
def test_tool_calls_come_in_fragments(dialect: str) -> None:
    answer = rendered(dialect, tool_calls=[CALL, {"name": "f", "arguments": "{broken", "id": "x"}])
    deltas = [c["delta"]["tool_calls"] for c in choices(answer) if c["delta"].get("tool_calls")]
    assert all(len(calls) == 1 for calls in deltas)
    text = {0: "", 1: ""}
    ids: dict[int, list[str]] = {0: [], 1: []}
    for (call,) in deltas:
        text[call["index"]] += call["function"]["arguments"]
        ids[call["index"]] += [call["id"]] if call.get("id") else []
    assert text == {0: '{"city": "Bei jing"}', 1: "{broken"}
    assert [len(each) for each in ids.values()] == [1, 1]
    assert ids[1] == ["x"]
    assert choices(answer)[-1]["finish_reason"] == "tool_calls"


def test_nvidia_sends_whole_calls_without_an_index() -> None:
    deltas = [c["delta"] for c in choices(rendered("nvidia", tool_calls=[CALL, CALL]))]
    calls = [delta["tool_calls"] for delta in deltas if "tool_calls" in delta]
    assert [len(each) for each in calls] == [1, 1]
    assert "index" not in calls[0][0]
    assert calls[0][0]["function"]["arguments"] == '{"city": "Bei jing"}'
    assert calls[0][0]["id"] != calls[1][0]["id"]


def test_ids_of_calls_count_over_the_conversation() -> None:
    with ScriptedServer() as server:
        server.reply(tool_calls=[CALL])
        history = [USER, called("functions.f:0", "functions.f:1"), answered("functions.f:0")]
        _, got = post(server, body(messages=[*history, answered("functions.f:1")]))
    assert got["choices"][0]["message"]["tool_calls"][0]["id"] == "functions.get_weather:2"


@pytest.mark.parametrize("name", ["llamacpp-plain", "llamacpp-tool", "llamacpp-after_tool"])
def test_llamacpp_has_the_shapes_of_its_recordings(name: str) -> None:
    def shapes(answer: list[dict[str, Any]]) -> set[str]:
        found = set()
        for choice in choices(answer):
            delta = {k: _blank(v) for k, v in choice.pop("delta").items()}
            found.add(json.dumps([delta, sorted(choice)], sort_keys=True))
        return found

    def _blank(value: Any) -> Any:
        if isinstance(value, list):
            return [_blank(item) for item in value]
        if isinstance(value, dict):
            return {key: _blank(item) for key, item in value.items()}
        return type(value).__name__

    ours = rendered("llamacpp", "It is sunny.", reasoning="Look it up.", tool_calls=[CALL])
    recorded = chunks((WIRE / f"{name}.sse").read_bytes())
    assert shapes(recorded) <= shapes(ours)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_one_json_body_says_the_same(dialect: str) -> None:
    with ScriptedServer(dialect) as server:
        server.reply("It is 9.9.", reasoning="Compare.", tool_calls=[CALL])
        status, got = post(server, body())
    message = got["choices"][0]["message"]
    assert status == 200
    assert got["object"] == "chat.completion"
    assert (message["content"], message[KEYS[dialect]]) == ("It is 9.9.", "Compare.")
    assert message["tool_calls"][0]["function"] == {
        "name": "get_weather",
        "arguments": '{"city": "Bei jing"}',
    }
    assert got["choices"][0]["finish_reason"] == "tool_calls"
    assert got["usage"]["total_tokens"] > got["usage"]["prompt_tokens"] > 0


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_sdk_reads_it(dialect: str) -> None:
    with ScriptedServer(dialect, key="secret-for-tests") as server:
        server.reply("It is 9.9.", reasoning="Compare.")
        server.reply(tool_calls=[CALL])
        with openai.OpenAI(
            base_url=server.base_url, api_key="secret-for-tests", max_retries=0
        ) as client:
            assert [model.id for model in client.models.list()] == ["kimi-k2-thinking"]
            text = ""
            for chunk in client.chat.completions.create(**STREAM):
                text += (chunk.choices and chunk.choices[0].delta.content) or ""
            whole = client.chat.completions.create(**body())
    assert text == "It is 9.9."
    assert whole.choices[0].message.tool_calls[0].function.name == "get_weather"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_usage_comes_last_and_only_when_asked(dialect: str) -> None:
    with ScriptedServer(dialect) as server:
        server.reply("one two", reasoning="three")
        server.reply("one two", reasoning="three")
        asked = chunks(post(server, STREAM)[1])
        not_asked = chunks(post(server, body(stream=True))[1])
    assert asked[-1]["choices"] == []
    assert asked[-1]["usage"]["completion_tokens"] >= 3
    assert all(chunk["choices"] for chunk in not_asked)
    assert not any(chunk.get("usage") for chunk in not_asked)
    assert ("usage" in not_asked[-1]["choices"][0]) is (dialect == "moonshot")


def test_finish_reason_and_usage_can_be_given() -> None:
    answer = rendered("nvidia", "cut", finish_reason="length", usage={"total_tokens": 7})
    assert choices(answer)[-1]["finish_reason"] == "length"
    assert answer[-1]["usage"] == {"total_tokens": 7}


@given(
    dialect=st.sampled_from(DIALECTS),
    text=st.text(max_size=80),
    reasoning=st.none() | st.text(max_size=80),
    arguments=st.none() | st.text(max_size=40),
)
@settings(max_examples=150, deadline=None)
def test_the_pieces_are_the_text(
    dialect: str, text: str, reasoning: str | None, arguments: str | None
) -> None:
    calls = [] if arguments is None else [{"name": "f", "arguments": arguments}]
    deltas = [
        choice["delta"]
        for choice in choices(rendered(dialect, text, reasoning=reasoning, tool_calls=calls))
    ]
    assert "".join(delta.get("content") or "" for delta in deltas) == text
    assert "".join(delta.get(KEYS[dialect]) or "" for delta in deltas) == (reasoning or "")
    got = [call for delta in deltas for call in delta.get("tool_calls") or ()]
    assert "".join(call["function"].get("arguments", "") for call in got) == (arguments or "")


# ---- errors and bytes


@pytest.mark.parametrize(
    ("dialect", "shape"),
    [
        ("moonshot", {"error": {"type": "rate_limit_reached_error", "message": "slow down"}}),
        (
            "vllm",
            {"error": {"message": "slow down", "type": "rate_limit_reached_error", "code": 429}},
        ),
        (
            "sglang",
            {
                "object": "error",
                "message": "slow down",
                "type": "rate_limit_reached_error",
                "code": 429,
            },
        ),
        ("openrouter", {"error": {"message": "slow down", "code": 429}, "user_id": "user_1"}),
        ("nvidia", {"status": 429, "title": "Too Many Requests", "detail": "slow down"}),
    ],
)
def test_errors_have_the_dialect_s_shape(dialect: str, shape: dict[str, Any]) -> None:
    with ScriptedServer(dialect) as server:
        server.error(429, "slow down", headers={"Retry-After": "1"})
        with posted(server) as response:
            assert response.status == 429
            assert response.headers["Retry-After"] == "1"
            assert json.load(response) == shape


def test_the_type_of_an_error_can_be_given() -> None:
    with ScriptedServer() as server:
        server.error(429, "no money left", type="exceeded_current_quota_error")
        assert post(server)[1]["error"]["type"] == "exceeded_current_quota_error"


@pytest.mark.parametrize(
    ("dialect", "name"), [("moonshot", "Msh-Request-Id"), ("nvidia", "NVCF-REQID")]
)
def test_answers_carry_the_request_id(dialect: str, name: str) -> None:
    with ScriptedServer(dialect) as server:
        server.reply("OK")
        with posted(server) as response:
            assert response.headers[name] == "req-1"
            response.read()


def test_raw_bytes_go_out_as_they_are_one_write_each() -> None:
    with ScriptedServer() as server:
        server.raw([b"data: {\n", b"\xff\n\n"], status=202, headers={"NVCF-REQID": "7"})
        request = json.dumps(STREAM).encode()
        address = server.base_url.removeprefix("http://").removesuffix("/v1").split(":")
        with socket.create_connection((address[0], int(address[1])), timeout=5) as connection:
            connection.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (len(request), request)
            )
            head, _, rest = connection.makefile("rb").read().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 202")
    assert b"NVCF-REQID: 7" in head
    assert rest == b"8\r\ndata: {\n\r\n3\r\n\xff\n\n\r\n0\r\n\r\n"


# ---- requests


def test_requests_are_kept_in_order() -> None:
    with ScriptedServer() as server:
        server.reply("one")
        server.reply("two")
        post(server, body(seed=1), **{"X-Test": "yes"})
        post(server, body(seed=2))
        first, second = server.requests
    assert (first.number, first.method, first.path) == (1, "POST", "/v1/chat/completions")
    assert (first.body["seed"], second.body["seed"]) == (1, 2)
    assert first.headers["x-test"] == "yes"
    assert first.arrived <= second.arrived
    assert not first.closed_early


@pytest.mark.parametrize("dialect", DIALECTS)
def test_another_key_is_refused_and_takes_no_answer(dialect: str) -> None:
    with ScriptedServer(dialect, key="secret-for-tests") as server:
        server.reply("OK")
        assert post(server)[0] == 401
        assert post(server, Authorization="Bearer another")[0] == 401
        assert post(server, Authorization="Bearer secret-for-tests")[0] == 200


def test_models_and_unknown_paths() -> None:
    with ScriptedServer(models=["a", "b"]) as server:
        with urllib.request.urlopen(f"{server.base_url}/models", timeout=5) as response:
            assert [model["id"] for model in json.load(response)["data"]] == ["a", "b"]
        with pytest.raises(urllib.error.HTTPError, match="404") as caught:
            urllib.request.urlopen(f"{server.base_url}/nothing", timeout=5)
        caught.value.close()
        assert [request.path for request in server.requests] == ["/v1/models", "/v1/nothing"]


def test_answers_are_given_once_each_under_load() -> None:
    with ScriptedServer() as server, ThreadPoolExecutor(8) as pool:
        for number in range(40):
            server.reply(f"<{number}>")
        got = list(pool.map(lambda _: post(server, body()), range(40)))
    texts = [answer["choices"][0]["message"]["content"] for _, answer in got]
    assert sorted(texts) == sorted(f"<{number}>" for number in range(40))


def test_a_large_request_is_read() -> None:
    with ScriptedServer() as server:
        server.reply("OK")
        big = {"role": "user", "content": "word " * 600_000}
        assert post(server, body(messages=[big]))[0] == 200


# ---- what is refused


def called(*ids: str, name: str = "f", **more: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": "{}"}
    calls = [{"id": each, "type": "function", "function": function} for each in ids]
    return {"role": "assistant", "reasoning_content": "", "tool_calls": calls, **more}


def answered(call_id: str, name: str = "f", content: Any = "42") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "name": name, "content": content}


def without(message: dict[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in message.items() if k != key}


def with_arguments(text: Any) -> dict[str, Any]:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": text}}
    return {"role": "assistant", "reasoning_content": "", "tool_calls": [call]}


ANSWER = {"role": "assistant", "content": "9.9"}
PARTS = [{"type": "text", "text": "Hi"}]
LOOP = [USER, called("1", "2"), answered("2"), answered("1")]

GOOD_HISTORIES = [
    [USER],
    [{"role": "system", "content": "Be brief."}, USER, ANSWER, USER],
    [{"role": "user", "content": PARTS}],
    LOOP,
    [*LOOP, called("3", content="So far."), answered("3", content="")],
    [*LOOP, ANSWER],
    [USER, without(called("1"), "reasoning_content"), answered("1"), ANSWER, USER],
    [USER, called("1", content=None), answered("1"), USER],
]
BAD_HISTORIES = [
    ([], "messages must be a list that is not empty"),
    ("Hi", "messages must be a list that is not empty"),
    (["Hi"], "messages[0]: role must be"),
    ([{"role": "developer", "content": "Hi"}], "not 'developer'"),
    ([{"role": "user"}], "content must be a text or a list"),
    ([{"role": "user", "content": 3}], "content must be a text or a list"),
    ([{"role": "user", "content": ""}], "'user' must not be empty"),
    ([{"role": "user", "content": []}], "'user' must not be empty"),
    ([{"role": "user", "content": ["Hi"]}], "only text parts are read"),
    ([{"role": "user", "content": [{"type": "image_url"}]}], "only text parts are read"),
    ([{"role": "user", "content": [{"type": "text", "text": ""}]}], "text content is empty"),
    ([USER, {"role": "assistant", "content": ""}, USER], "'assistant' must not be empty"),
    ([USER, {"role": "assistant", "content": None}, USER], "content must be a text"),
    ([USER, called("1", content=""), answered("1")], "messages[1]: text content is empty"),
    ([USER, called(), answered("1")], "tool_calls must be a list that is not empty"),
    ([USER, called("1")], "tool_call_id '1' is not found: no tool message follows"),
    ([USER, called("1"), USER], "messages[2]: tool_call_id '1' is not found: it must be answered"),
    ([USER, called("1", "2"), answered("1"), ANSWER], "tool_call_id '2' is not found"),
    ([USER, answered("1")], "messages[1]: tool_call_id '1' is not found among"),
    ([USER, called("1"), answered("1"), answered("1")], "messages[3]: tool_call_id '1'"),
    ([USER, called("1"), answered("9"), answered("1")], "messages[2]: tool_call_id '9'"),
    ([*LOOP, called("1"), answered("1")], "and unique, not '1'"),
    ([USER, called(""), answered("")], "must be a text, and unique, not ''"),
    ([USER, called("1"), answered("1", name="g")], "name must be that of the tool called, 'f'"),
    ([USER, called("1"), without(answered("1"), "name")], "name must be that of the tool called"),
    ([USER, called("1", name="no good"), answered("1", "no good")], "type function and name it"),
    ([USER, with_arguments(""), answered("1")], "must be the text of a JSON object"),
    ([USER, with_arguments("[1]"), answered("1")], "must be the text of a JSON object"),
    ([USER, with_arguments('{"a":'), answered("1")], "must be the text of a JSON object"),
    ([USER, with_arguments({"a": 1}), answered("1")], "must be the text of a JSON object"),
    (
        [USER, without(called("1"), "reasoning_content"), answered("1")],
        "enabled but reasoning_content is missing in assistant tool call message at index 1",
    ),
]


@pytest.mark.parametrize("messages", GOOD_HISTORIES)
def test_good_histories_pass(messages: Any) -> None:
    assert check_messages(messages) == []


@pytest.mark.parametrize(("messages", "words"), BAD_HISTORIES)
def test_bad_histories_are_refused(messages: Any, words: str) -> None:
    assert words in "\n".join(check_messages(messages))


@pytest.mark.parametrize(
    ("dialect", "key", "good"),
    [
        ("moonshot", "reasoning", False),
        ("vllm", "reasoning_content", False),
        ("vllm", "reasoning", True),
        ("openrouter", "reasoning", True),
        ("openrouter", "reasoning_details", True),
        ("openrouter", "reasoning_content", False),
        ("nvidia", "reasoning", True),
        ("llamacpp", "reasoning_content", True),
    ],
)
def test_reasoning_goes_back_under_the_server_s_key(dialect: str, key: str, good: bool) -> None:
    message = without(called("1"), "reasoning_content") | {key: "So."}
    problems = check_messages([USER, message, answered("1")], dialect=dialect)
    assert (problems == []) is good


@pytest.mark.parametrize("role", ["system", "assistant"])
def test_nvidia_refuses_lists_but_for_users(role: str) -> None:
    messages = [{"role": role, "content": PARTS}, {"role": "user", "content": PARTS}]
    assert check_messages(messages) == []
    assert check_messages(messages, dialect="nvidia") == [
        f"messages[0]: content of role {role} must be a text, not a list"
    ]


def tool(name: Any = "f", parameters: Any = None, **properties: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties} if parameters is None else parameters
    return {"type": "function", "function": {"name": name, "parameters": schema}}


GOOD_REQUESTS: list[dict[str, Any]] = [
    {},
    {"stream": True, "stream_options": {"include_usage": True}},
    {"stream": False, "temperature": 1.0, "top_p": 0.9, "max_tokens": 16384, "seed": 0},
    {"temperature": None, "stop": "END", "n": 1, "cache_prompt": False},
    {"stop": ["a", "b"], "response_format": {"type": "json_object"}, "presence_penalty": 0.1},
    {"tools": [tool(), tool("g-1_X")], "tool_choice": "auto"},
    {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "none"},
    {"tools": [tool(f"f{number}") for number in range(128)]},
    {
        "tools": [
            tool(
                a={"type": ["string", "null"], "enum": ["x", None]},
                b={"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
                c={"type": "array", "items": {"type": "object", "additionalProperties": False}},
                d={"type": "object", "additionalProperties": {"type": "string"}},
                type={"type": "string"},
                items={"type": "array", "items": {}},
            )
        ]
    },
    {
        "tools": [
            tool(
                parameters={
                    "type": "object",
                    "properties": {"a": {"$ref": "#/$defs/Node"}, "self": {"$ref": "#"}},
                    "required": ["a"],
                    "$defs": {"Node": {"type": "object", "properties": {}}},
                }
            )
        ]
    },
]
BAD_REQUESTS: list[tuple[dict[str, Any], str]] = [
    ({"model": None}, "model must be the name of a model"),
    ({"model": ""}, "model must be the name of a model"),
    ({"messages": []}, "messages must be a list that is not empty"),
    ({"messages": [USER, ANSWER]}, "the last message must be of role user or tool"),
    ({"max_tokenz": 5}, "unknown key 'max_tokenz'"),
    ({"temperature": 1.1}, "temperature must be a number from 0 to 1, not 1.1"),
    ({"temperature": "hot"}, "temperature must be a number"),
    ({"temperature": True}, "temperature must be a number"),
    ({"top_p": -0.1}, "top_p must be a number from 0 to 1"),
    ({"max_tokens": 0}, "max_tokens must be an integer of at least 1"),
    ({"max_tokens": 5.0}, "max_tokens must be an integer"),
    ({"seed": "7"}, "seed must be an integer"),
    ({"stop": [1]}, "stop must be a text or a list of texts"),
    ({"stream": "yes"}, "stream must be true or false"),
    ({"stream_options": {"include_usage": True}}, "only allowed with stream"),
    ({"stream": False, "stream_options": {}}, "only allowed with stream"),
    ({"tool_choice": "required", "tools": [tool()]}, "tool_choice must be auto, none or absent"),
    ({"tool_choice": {"type": "function"}}, "tool_choice must be auto, none or absent"),
    ({"tools": [tool(f"f{number}") for number in range(129)]}, "at most 128"),
    ({"tools": [{"name": "f"}]}, "tools[0]: must be of type function"),
    ({"tools": [tool("1st")]}, "named like"),
    ({"tools": [tool("f" * 65)]}, "named like"),
    ({"tools": [tool("f\n")]}, "named like"),
    ({"tools": [tool(None)]}, "named like"),
    ({"tools": [tool(), tool()]}, "tools[1]: function name 'f' is duplicated"),
    ({"tools": [tool(parameters={})]}, 'type is required and must be "object"'),
    ({"tools": [tool(parameters={"type": "string"})]}, 'type is required and must be "object"'),
    ({"tools": [tool(x={})]}, "At path 'properties.x': type is not defined"),
    ({"tools": [tool(x={"enum": ["a"]})]}, "At path 'properties.x': type is not defined"),
    ({"tools": [tool(x={"oneOf": [{"type": "null"}]})]}, "'properties.x': type is not defined"),
    ({"tools": [tool(x={"type": "text"})]}, "invalid type 'text'"),
    ({"tools": [tool(x={"type": ["string", {}]})]}, "invalid type"),
    ({"tools": [tool(x=True)]}, "At path 'properties.x': schema must be an object, not True"),
    ({"tools": [tool(x={"type": "array", "items": True})]}, "'properties.x.items': schema must"),
    (
        {
            "tools": [
                tool(x={"type": "array", "items": {"type": "object", "properties": {"y": {}}}})
            ]
        },
        "At path 'properties.x.items.properties.y': type is not defined",
    ),
    (
        {"tools": [tool(x={"anyOf": [{"enum": [1]}]})]},
        "At path 'properties.x.anyOf': type is not defined",
    ),
    (
        {"tools": [tool(x={"type": "string", "anyOf": [{"type": "string"}]})]},
        "At path 'properties.x': when using anyOf, type should be defined in anyOf items",
    ),
    (
        {"tools": [tool(x={"type": "object", "$ref": "#"})]},
        "when using $ref, type should be defined in the referenced schema",
    ),
    ({"tools": [tool(x={"$ref": "#/$defs/No"})]}, "$defs not found for reference: #/$defs/No"),
    ({"tools": [tool(x={"$ref": "other.json"})]}, "$defs not found for reference: other.json"),
    (
        {"tools": [tool(parameters={"type": "object", "required": ["x"]})]},
        "At path 'root': required property 'x' is not defined in properties",
    ),
]


@pytest.mark.parametrize("more", GOOD_REQUESTS)
def test_good_requests_pass(more: dict[str, Any]) -> None:
    assert check_request(body(**more)) == []


@pytest.mark.parametrize(("more", "words"), BAD_REQUESTS)
def test_bad_requests_are_refused(more: dict[str, Any], words: str) -> None:
    assert words in "\n".join(check_request(body(**more)))


def test_others_than_moonshot_take_more_heat() -> None:
    assert check_request(body(temperature=1.5), dialect="vllm") == []


WORDS = st.sampled_from(
    "role content tool_calls id type function name arguments tool_call_id text parameters "
    "properties required anyOf $ref $defs items additionalProperties model messages tools stop "
    "stream stream_options temperature max_tokens tool_choice".split()
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)
ROLES = st.sampled_from(["user", "assistant", "tool", "system"])
MESSAGE = st.builds(lambda role, rest: {**rest, "role": role}, ROLES, st.dictionaries(WORDS, JSON))


@given(data=st.dictionaries(WORDS, JSON), messages=JSON | st.lists(MESSAGE, max_size=3), tools=JSON)
@settings(max_examples=200, deadline=None)
def test_any_json_is_judged_without_a_crash(data: Any, messages: Any, tools: Any) -> None:
    function = {"type": "function", "function": {"name": "f", "parameters": tools}}
    for request in (data, data | {"messages": messages, "tools": [function]}):
        assert all(isinstance(problem, str) for problem in check_request(request))


# ---- how it ends


def complaint(server: ScriptedServer, act: Callable[[], object]) -> str:
    """The verdict of the server at the end of a block in which something was done."""

    def block() -> None:
        with server:
            act()

    with pytest.raises(AssertionError) as caught:
        block()
    return str(caught.value)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_invalid_request_is_answered_400_and_remembered(dialect: str) -> None:
    server = ScriptedServer(dialect)
    server.reply("not for that one")
    answers = []

    def act() -> None:
        answers.extend([post(server, body(oops=1)), post(server, body())])

    said = "request 1, POST /v1/chat/completions: invalid: unknown key 'oops'"
    assert complaint(server, act) == f"ScriptedServer:\n  {said}"
    assert [status for status, _ in answers] == [400, 200]
    assert "Invalid request: unknown key 'oops'" in json.dumps(answers[0][1])
    assert server.requests[0].problems == ["unknown key 'oops'"]


def test_a_body_that_is_no_json_is_refused() -> None:
    server = ScriptedServer()
    assert "model must be" in complaint(server, lambda: post(server, b"{"))


def test_lenient_servers_take_anything() -> None:
    with ScriptedServer(strict=False) as server:
        server.reply("OK")
        server.reply(tool_calls=[CALL])
        assert post(server, body(oops=1))[0] == 200
        assert post(server, {"messages": 3})[0] == 200
    with ScriptedServer() as server:
        server.lenient = True
        server.reply("OK")
        assert post(server, body(oops=1))[0] == 200


def test_an_unexpected_request_is_answered_500_and_remembered() -> None:
    server, answers = ScriptedServer(), []
    said = complaint(server, lambda: answers.append(post(server)))
    assert said.endswith(
        "request 1, POST /v1/chat/completions: unexpected: nothing scripted for it"
    )
    assert answers[0][0] == 500
    assert answers[0][1]["error"]["message"] == "nothing scripted"


def test_answers_left_over_fail_and_all_is_listed() -> None:
    server = ScriptedServer()

    def act() -> None:
        server.reply("asked for")
        assert post(server)[0] == 200
        server.verify()
        server.reply("The answer", tool_calls=[CALL])
        server.error(429, "slow down")
        server.raw([b"data: x"])
        post(server, body(oops=1))
        with pytest.raises(AssertionError, match="not asked for"):
            server.verify()

    assert complaint(server, act).splitlines() == [
        "ScriptedServer:",
        "  request 2, POST /v1/chat/completions: invalid: unknown key 'oops'",
        "  not asked for: reply('The answer', 1 tool calls)",
        "  not asked for: error(429, 'slow down')",
        "  not asked for: raw([b'data: x'])",
    ]


def test_another_exception_goes_on_with_a_note() -> None:
    def block() -> None:
        with ScriptedServer() as server:
            server.reply("left over")
            post(server, body(oops=1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        block()
    assert caught.value.__notes__ == [
        "ScriptedServer:\n  request 1, POST /v1/chat/completions: invalid: unknown key 'oops'"
    ]


@pytest.mark.parametrize("scripted_server", ["nvidia"], indirect=True)
def test_the_fixture_takes_a_dialect(scripted_server: ScriptedServer) -> None:
    scripted_server.error(404, "Function 'x': Not found for account 'y'")
    assert post(scripted_server)[1]["title"] == "Not Found"


# ---- pace


def leave(server: ScriptedServer, data: Any, read: Callable[[Any], object]) -> None:
    """Leave before the end; the server notices it."""
    with posted(server, data) as response:
        read(response)
        assert not server.requests[0].closed_early
    assert server.requests[0].closed.wait(30)
    assert server.requests[0].closed_early


def test_a_stalled_stream_notices_its_client_s_leaving() -> None:
    with ScriptedServer() as server:
        server.reply("one two three four", stall_after=2)
        leave(server, STREAM, lambda response: [response.readline() for _ in range(6)])


def test_a_stalled_body_has_its_headers_only() -> None:
    with ScriptedServer() as server:
        server.reply("one two three four", stall_after=0)
        leave(server, body(), lambda response: None)


def test_stalling_after_no_delta_still_opens_the_stream() -> None:
    with ScriptedServer() as server:
        server.reply("one", stall_after=0)
        with posted(server) as response:
            assert b'"role":"assistant"' in response.readline()


def test_leaving_before_the_headers_is_noticed() -> None:
    with ScriptedServer() as server:
        server.reply("one", delay=60)
        request = json.dumps(STREAM).encode()
        address = server.base_url.removeprefix("http://").removesuffix("/v1").split(":")
        with socket.create_connection((address[0], int(address[1])), timeout=5) as connection:
            connection.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (len(request), request)
            )
            begin = time.monotonic()
            while not server.requests and time.monotonic() < begin + 30:
                time.sleep(0.002)
        assert server.requests[0].closed.wait(30)


def test_leaving_in_the_middle_of_a_slow_stream_is_noticed() -> None:
    with ScriptedServer(rate=50) as server:
        server.reply("word " * 5000)
        leave(server, STREAM, lambda response: response.readline())


def test_the_end_of_the_server_is_no_leaving_of_the_client() -> None:
    with ExitStack() as later:
        with ScriptedServer() as server:
            server.reply("one two", stall_after=1)
            later.enter_context(posted(server)).readline()
        assert not server.requests[0].closed_early


@pytest.mark.parametrize(
    ("dialect", "count"), [("moonshot", 2), ("vllm", 0), ("openrouter", 3), ("sglang", 100)]
)
def test_a_cut_comes_after_that_many_deltas(dialect: str, count: int) -> None:
    with ScriptedServer(dialect) as server:
        server.reply("one two three four", cut_after=count)
        with (
            posted(server) as response,
            pytest.raises(http.client.IncompleteRead) as caught,
        ):
            response.read()
        assert not server.requests[0].closed_early
    assert caught.value.partial.count(b"data: {") == 1 + min(count, 4)
    assert b"[DONE]" not in caught.value.partial


def test_a_cut_of_much_loses_nothing() -> None:
    with ScriptedServer() as server:
        server.reply("word " * 20_000, cut_after=15_000)
        with posted(server) as response, pytest.raises(http.client.IncompleteRead) as caught:
            response.read()
    assert caught.value.partial.count(b"data: {") == 15_001


def test_delay_and_rate() -> None:
    with ScriptedServer(rate=0.1) as server:
        server.reply("one two three four five", delay=0.1, rate=100)
        begin = time.monotonic()
        with posted(server) as response:
            waited = time.monotonic() - begin
            assert chunks(response.read())
        took = time.monotonic() - begin
    assert waited >= 0.1
    assert 0.16 <= took < 30, "not at the server's rate, after 50 s"


def test_starting_and_stopping_leaves_nothing() -> None:
    with ScriptedServer():
        pass  # what asyncio and aiohttp load once
    before = threading.enumerate()
    for _ in range(5):
        with ScriptedServer() as server:
            server.reply("OK")
            post(server)
    assert threading.enumerate() == before
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{server.base_url}/models", timeout=1)
    gc.collect()  # an unclosed socket or loop would warn, and warnings are errors


# ---- the module


def run(code: str) -> str:
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return ran.stdout.strip()


def test_it_does_without_pytest() -> None:
    code = "import sys; sys.modules['pytest'] = None; from kimi_magic import testing as t; "
    assert run(code + "print(hasattr(t, 'scripted_server'))") == "False"


def test_it_says_what_to_install() -> None:
    code = """
import sys
sys.modules["aiohttp"] = None
try:
    from kimi_magic.testing import ScriptedServer
except ImportError as error:
    print(error)
"""
    assert run(code) == 'kimi_magic.testing needs aiohttp: pip install "kimi-magic[test]"'


@pytest.mark.parametrize("stream", [True, False])
def test_logprobs_are_sent_where_they_are_asked_for(stream: bool) -> None:
    server = ScriptedServer("vllm")
    tokens: list[Token] = [("9", -0.1, {"8": -2.5, "7": -4.0}), (b".\xc3", -0.2), (b"\xa9", -0.3)]
    for asked in (False, True):
        server.reply("9.é", reasoning="So it is", logprobs=tokens)
        body = {"stream": stream, "logprobs": asked, "top_logprobs": 2 * asked}
        data = b"".join(server.render(body)).decode()
        lines = [line.removeprefix("data: ") for line in data.splitlines() if line]
        chunks = [json.loads(line) for line in lines if line != "[DONE]"]
        choices = [choice for chunk in chunks for choice in chunk["choices"]]
        found = [entry for c in choices for entry in (c["logprobs"] or {"content": []})["content"]]
        if not asked:
            assert found == []
            continue
        assert [bytes(entry["bytes"]) for entry in found] == [
            *(b"So", b" it", b" is"),
            *(b"9", b".\xc3", b"\xa9"),
        ]
        assert [top["token"] for top in found[3]["top_logprobs"]] == ["9", "8"]
        said = "".join((c.get("delta") or c["message"]).get("content") or "" for c in choices)
        assert said == "9.é"


def test_logprobs_of_another_text() -> None:
    with pytest.raises(ValueError, match="the tokens make '9'"):
        ScriptedServer().reply("9.9", logprobs=[("9", -0.1)])


def test_a_dialect_that_refuses_logprobs() -> None:
    asked = [{"role": "user", "content": "Hi"}]
    body: dict[str, Any] = {"model": "kimi-k2-thinking", "messages": asked}
    body |= {"logprobs": True, "top_logprobs": 5}
    assert check_request(body) == []
    assert check_request(body, dialect="nvidia") == ["logprobs is not supported by this model"]
    assert "from 0 to 20" in check_request(body | {"top_logprobs": 21})[0]
    assert "from 0 to 20" in check_request(body | {"logprobs": False})[0]
    assert "true or false" in check_request(body | {"logprobs": 5})[0]


def test_a_stalled_answer_goes_on() -> None:
    with ScriptedServer() as server:
        for _ in range(2):
            server.reply("one two three four", stall_after=2)
            with posted(server) as response:
                before = b"".join(response.readline() for _ in range(4))
                assert b"three" not in before
                server.go_on()
                rest = response.read()
            assert b" four" in rest
            assert rest.rstrip().endswith(b"data: [DONE]")


def test_answers_to_requests_of_their_own() -> None:
    """Requests side by side come in any order."""
    with ScriptedServer() as server:
        server.reply("B", to="second")
        server.reply("A", to="first")
        server.reply("any")
        sdk = openai.OpenAI(base_url=server.base_url, api_key="none")
        for text, answer in (("the first", "A"), ("another", "any"), ("the second", "B")):
            told = sdk.chat.completions.create(
                model="kimi-k2-thinking", messages=[{"role": "user", "content": text}]
            )
            assert told.choices[0].message.content == answer


def test_a_file_that_no_batch_takes() -> None:
    """The verdict names each refusal of Moonshot's; the batch is taken all the same."""
    body = {"model": "kimi-k2-thinking", "messages": [{"role": "user", "content": "Hi"}]}
    line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": body}
    other = line | {"url": "/chat", "body": {**body, "model": "kimi-k3", "stream": True}}
    data = "\n".join(map(json.dumps, (line, other, {"body": {}}))).encode()
    server = ScriptedServer()

    def send() -> None:
        with server:
            sdk = openai.OpenAI(base_url=server.base_url, api_key="none")
            file = sdk.files.create(file=("a.jsonl", data), purpose="batch")
            sdk.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
            )
            assert [batch.status for batch in sdk.batches.list()] == ["in_progress"]

    with pytest.raises(AssertionError) as verdict:
        send()
    for problem in ("twice", "several models", "another address", "a stream", "a line of a batch"):
        assert problem in str(verdict.value)
