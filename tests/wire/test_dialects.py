"""Each server's wire from recorded bytes: through the client, and through a real kernel.

``tests/wire/*.sse`` are recordings (llamacpp) and bytes in the documented shapes of the other
servers; those that no server's name begins hold together what was seen here and there.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_magic.core.errors import EndpointError
from kimi_magic.core.messages import Completion
from kimi_magic.testing import ScriptedServer
from kimi_magic.wire.client import Client
from kimi_magic.wire.endpoints import WIRES, Api, Endpoint
from kimi_magic.wire.protocols import Delta
from tests.kernels import Kernel
from tests.wire.exchanges import Playback, deltas_of

WIRE = Path(__file__).parent
RECORDED = {path.stem: path.read_bytes() for path in sorted(WIRE.glob("*.sse"))}

THOUGHT, ANSWER = "Compare the tenths: 9 > 1.", "9.9 is **bigger** (東京 🙂)."
NEED, LOOK = "I need the weather.", "Let me look."
CALLS: tuple[tuple[str, Any], ...] = (("get_weather", {"city": "東京 🙂"}), ("get_time", {}))


class Said(NamedTuple):
    """The answer in a recording."""

    text: str = ANSWER
    reasoning: str | None = THOUGHT
    key: str = "reasoning_content"
    calls: tuple[tuple[str, Any], ...] = ()
    tokens: tuple[int, int, int, int] = (90, 50, 0, 0)  # prompt, completion, reasoning, cached
    finish: str | None = "stop"


def asks(**different: Any) -> Said:
    return Said(
        **{"text": LOOK, "reasoning": NEED, "calls": CALLS, "finish": "tool_calls"} | different
    )


NOTHING = (0, 0, 0, 0)
SAID = {
    "moonshot-plain": Said(tokens=(90, 50, 0, 80)),
    "moonshot-tool": asks(tokens=(90, 50, 0, 80)),
    "vllm-plain": Said(key="reasoning"),
    "vllm-both": Said(),
    "vllm-tool": asks(key="reasoning"),
    "sglang-plain": Said(),
    "sglang-tool": asks(),
    "sglang-markers": asks(text="", finish="stop"),
    "openrouter-plain": Said(key="reasoning", tokens=(90, 50, 30, 80)),
    "openrouter-tool": asks(key="reasoning", tokens=(90, 50, 30, 80)),
    "nvidia-plain": Said(),
    "nvidia-reasoning": Said(key="reasoning"),
    "nvidia-tool": asks(),
    "llamacpp-plain": Said(
        "The capital of France is Paris.",
        "The user wants to know what the capital of France is. I tell it.\n",
        tokens=(391, 27, 0, 0),
    ),
    "llamacpp-tool": Said(
        "",
        "I need the weather Beijing. I call get_weather.\n",
        calls=(("get_weather", {"city": "beijing"}),),
        tokens=(833, 41, 0, 29),
        finish="tool_calls",
    ),
    "llamacpp-after_tool": Said(
        "It is 23 C in Beijing.", "The tool returned sunny, 23 C.\n", tokens=(295, 22, 0, 7)
    ),
    "ktransformers-plain": Said(key="content", tokens=NOTHING),
    "ktransformers-prefilled": Said(key="content", tokens=NOTHING),
    "ktransformers-unclosed": Said("", key="content", tokens=NOTHING, finish="length"),
    "ktransformers-tool": asks(key="content", tokens=NOTHING, finish="stop"),
    "ktransformers-tool-unclosed": asks(
        text="", reasoning=NEED + " ", key="content", tokens=NOTHING, finish="stop"
    ),
    "framing": Said(),
    "chunks": Said(tokens=(90, 50, 0, 80)),
    "calls-index-zero": asks(reasoning=None, tokens=NOTHING),
    "calls-late": asks(reasoning=None, tokens=NOTHING),
    "calls-odd": asks(reasoning=None, tokens=NOTHING),
    "markers-cut": asks(
        reasoning=None, calls=(("get_weather", '{"city":"東'),), tokens=NOTHING, finish=None
    ),
    "anthropic-plain": Said(tokens=(90, 50, 30, 80)),
    "anthropic-tool": asks(),
    "anthropic-interleaved": asks(),
    "anthropic-unknown": Said(),
    "anthropic-kimi": asks(),
    "anthropic-cut": Said("", tokens=(90, 1, 0, 0), finish=None),
    "anthropic-refusal": Said("", None, finish="content_filter", tokens=(90, 1, 0, 0)),
}


def wire_of(name: str) -> Api:
    return "messages" if name.startswith("anthropic") else "chat"


def take_apart(
    pieces: Iterable[bytes], *, stream: bool = True, wire: Api = "chat"
) -> tuple[Completion, list[Delta]]:
    """The completion that the client makes of these bytes, and the deltas on the way to it."""
    url = "http://127.0.0.1:9/v1"
    lab = Endpoint("lab", url, wire=wire)
    client = Client(lab, url, None, transport=Playback([200, *pieces, None]))
    body = {"model": "kimi-k2-thinking", "stream": stream}
    with client.chat(body) as exchange:
        deltas = [delta for delta in deltas_of(exchange) if delta is not None]
    return exchange.completion(), deltas


def joined(deltas: list[Delta]) -> list[Any]:
    """The deltas as if those of one kind that follow each other had come as one."""

    def kind(delta: Delta) -> Any:
        return type(delta).__name__, getattr(delta, "index", None), getattr(delta, "name", None)

    def text(delta: Delta) -> str:
        return getattr(delta, "text", getattr(delta, "arguments", ""))

    return [(key, "".join(map(text, group))) for key, group in groupby(deltas, kind)]


def timeless(completion: Completion) -> Any:
    usage = completion.usage
    counts = (usage.prompt_tokens, usage.completion_tokens, usage.reasoning_tokens)
    return completion.message, completion.finish_reason, completion.model, counts


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(at % (len(data) + 1) for at in cuts)})
    return [data[a:b] for a, b in pairwise(edges)]


def parsed(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


@pytest.mark.parametrize("name", RECORDED)
def test_what_each_recording_says(name: str) -> None:
    completion, _ = take_apart([RECORDED[name]], wire=wire_of(name))
    message, usage = completion.message, completion.usage
    assert (
        Said(
            message.text,
            message.reasoning_text,
            message.reasoning_key if message.reasoning_text else "reasoning_content",
            tuple((call.name, parsed(call.arguments)) for call in message.tool_calls),
            (
                usage.prompt_tokens,
                usage.completion_tokens,
                usage.reasoning_tokens,
                usage.cached_tokens,
            ),
            completion.finish_reason,
        )
        == SAID[name]
    )


CUTS = st.lists(st.integers(0, 20_000), max_size=8)


@given(st.sampled_from(sorted(RECORDED)), CUTS)
def test_any_split_of_the_bytes_gives_the_same(name: str, cuts: list[int]) -> None:
    whole, at_once = take_apart([RECORDED[name]], wire=wire_of(name))
    split, in_time = take_apart(cut(RECORDED[name], cuts), wire=wire_of(name))
    assert timeless(split) == timeless(whole)
    assert joined(in_time) == joined(at_once)


@pytest.mark.parametrize("name", RECORDED)
def test_byte_by_byte_gives_the_same(name: str) -> None:
    whole, at_once = take_apart([RECORDED[name]], wire=wire_of(name))
    data = RECORDED[name]
    pieces = [data[at : at + 1] for at in range(len(data))]
    split, in_time = take_apart(pieces, wire=wire_of(name))
    assert timeless(split) == timeless(whole)
    assert joined(in_time) == joined(at_once)


def survives(pieces: list[bytes], *, stream: bool = True, wire: Api = "chat") -> None:
    """Take bytes apart; whatever they are, it is an answer or one of our errors."""
    failure: EndpointError | None = None
    try:
        completion, _ = take_apart(pieces, stream=stream, wire=wire)
    except EndpointError as error:
        failure = error
    if failure:
        assert len(str(failure).splitlines()) <= 4
        assert len(str(failure)) <= 3000
        assert failure.partial is not None
        completion = failure.partial
    json.dumps(completion.message.to_dict(), ensure_ascii=False).encode()


SCRAPS = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [
            *(
                b"data: ",
                b"\n\n",
                b"\r\n",
                b"\xef\xbb\xbf",
                b"[DONE]",
                b": x\n",
                b"{",
                b"}",
                b"[" * 99,
            ),
            *(b'{"choices":', b'[{"delta":{"content":"x"}}]', b'{"error":"x"}', b'"\\ud83d"'),
            *(b'{"choices":[{"delta":{"tool_calls":[{"function":{"arguments":[1]}}]}}]}', b"null"),
            *(
                b'data: {"choices":[{"delta":{"content":"<think>"}}]}\n\n',
                b"<html>",
                b"NaN",
                b"1e999",
            ),
            *(
                b'data: {"type":"content_block_start","index":0,"content_block":{"type":"thinking"',
                b'{"type":"content_block_delta","index":[],"delta":{"type":"thinking_delta"}}',
                b'{"type":"message","content":[{"type":"tool_use","input":[1]},3,null],"usage":7}',
                b'{"type":"message_delta","delta":null,"usage":{"output_tokens":-1}}',
            ),
        ]
    ),
)


@given(st.lists(SCRAPS, max_size=12), st.booleans(), st.sampled_from(WIRES))
def test_no_bytes_raise_anything_but_our_errors(
    pieces: list[bytes], stream: bool, wire: Api
) -> None:
    survives(pieces, stream=stream, wire=wire)


@given(st.sampled_from(sorted(RECORDED)), st.lists(st.tuples(CUTS, SCRAPS), max_size=4), CUTS)
def test_no_damaged_recording_raises_anything_but_our_errors(
    name: str, damage: list[tuple[list[int], bytes]], cuts: list[int]
) -> None:
    data = RECORDED[name]
    for cuts_there, scrap in damage:
        data = scrap.join(cut(data, cuts_there))
    survives(cut(data, cuts), wire=wire_of(name))


# Strings that are long, deep or not ended, where a decoder may lose its way.
@pytest.mark.parametrize(
    "data",
    [
        b"data: " + b"[" * 200_000,
        b"data: " + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"\n\n",
        b'data: {"error":' + b"[" * 900 + b"]" * 900 + b"}\n\n",
        b'data: {"choices":[{"delta":{"content":' + b"9" * 5000 + b"}}]}\n\n",
        b"<" * 1_000_000,
        b"\n" * 100_000,
    ],
    ids=["open", "deep", "deep error", "digits", "tags", "blank"],
)
def test_bytes_that_lead_decoders_astray(data: bytes) -> None:
    survives([data])


def event(**delta: Any) -> bytes:
    chunk = {"choices": [{"index": 0, "delta": delta}]}
    return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n".encode()


END = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


def test_a_chunk_of_a_megabyte() -> None:
    text = "東京 🙂 " * 100_000
    data = event(content=text) + END
    assert len(data) > 1_000_000
    completion, _ = take_apart(data[at : at + 16_384] for at in range(0, len(data), 16_384))
    assert completion.message.text == text


BODY = {
    "choices": [
        {"message": {"content": ANSWER, "reasoning_content": THOUGHT}, "finish_reason": "stop"}
    ]
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("data", [json.dumps(BODY).encode(), b" \n" + json.dumps([BODY]).encode()])
def test_an_answer_in_one_body(data: bytes, stream: bool) -> None:
    for pieces in ([data], [data[at : at + 1] for at in range(len(data))]):
        completion, _ = take_apart(pieces, stream=stream)
        assert (completion.message.text, completion.message.reasoning_text) == (ANSWER, THOUGHT)
        assert completion.finish_reason == "stop"


def test_a_stream_in_answer_to_a_question_for_one_body() -> None:
    completion, _ = take_apart([RECORDED["moonshot-plain"]], stream=False)
    assert completion.message.text == ANSWER


def test_an_error_after_the_end_is_nobodys() -> None:
    completion, _ = take_apart([event(content="9.9") + END + b'data: {"error":"late"}\n\n'])
    assert completion.message.text == "9.9"


PLAIN = [
    name
    for name, said in SAID.items()
    if not said.calls and said.finish and wire_of(name) == "chat"
]


@pytest.mark.parametrize("name", PLAIN)
def test_each_plain_recording_in_a_cell(name: str, kernel: Kernel, asked: ScriptedServer) -> None:
    asked.raw([RECORDED[name]])
    record = kernel.run("%%kimi\n9.11 or 9.9?", allow_stdin=True).record
    ran = kernel.run("print(repr((kimi.last.text, kimi.last.reasoning, kimi.last.error)))")
    said = SAID[name]
    assert ran.stdout.strip() == repr((said.text, said.reasoning, None))
    for shown in (said.text.replace("**", ""), said.reasoning or ""):
        assert shown.strip() in record["text/plain"].replace("**", "")
    asked.reply("Next.")
    kernel.run("%%kimi\nAnd now?")
    assert asked.requests[-1].body["messages"][-1]["content"] == "And now?"


@pytest.mark.parametrize("how", ["gzip", "gzip in pieces", "json"])
def test_other_ways_of_packing_in_a_cell(how: str, kernel: Kernel, asked: ScriptedServer) -> None:
    data, headers = RECORDED["moonshot-plain"], {"Content-Encoding": "gzip"}
    if how == "gzip":
        asked.raw([gzip.compress(data)], headers=headers)
    elif how == "gzip in pieces":
        packed = gzip.compress(data)
        asked.raw([packed[at : at + 7] for at in range(0, len(packed), 7)], headers=headers)
    else:
        asked.raw([json.dumps(BODY).encode()], content_type="application/json")
    kernel.run("%%kimi\n9.11 or 9.9?")
    ran = kernel.run("print(kimi.last.text); print(kimi.last.reasoning)")
    assert ran.stdout.splitlines() == [ANSWER, THOUGHT]
