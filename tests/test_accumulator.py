"""Chunks of every dialect fold to the same message."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_magic.endpoints.accumulator import Accumulator, Delta
from kimi_magic.endpoints.sse import SSEDecoder
from kimi_magic.events import ContentDelta, ReasoningDelta
from kimi_magic.messages import Completion, ToolCall, Usage

WIRE = Path(__file__).parent / "wire"


def fold(chunks: list[dict[str, Any]]) -> tuple[Completion, list[Delta]]:
    accumulator = Accumulator()
    deltas = [delta for chunk in chunks for delta in accumulator.add(chunk)]
    deltas += accumulator.finish()
    return accumulator.completion(), deltas


def of_deltas(*deltas: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]


def recorded(name: str) -> list[dict[str, Any]]:
    events = SSEDecoder().feed((WIRE / f"{name}.sse").read_bytes())
    return [json.loads(event) for event in events if event != b"[DONE]"]


def test_a_recorded_answer_of_llama_cpp() -> None:
    completion, deltas = fold(recorded("llamacpp-plain"))
    assert completion.message.text == "The capital of France is Paris."
    assert completion.message.reasoning == (
        "The user wants to know what the capital of France is. I tell it.\n"
    )
    assert completion.finish_reason == "stop"
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (391, 27)
    kinds = [type(delta) for delta in deltas]
    assert kinds == sorted(kinds, key=[ReasoningDelta, ContentDelta].index), "reasoning first"


def test_a_recorded_tool_call_of_llama_cpp() -> None:
    completion, _ = fold(recorded("llamacpp-tool"))
    (call,) = completion.message.tool_calls
    assert call.name == "get_weather"
    assert json.loads(call.arguments) == {"city": "beijing"}
    assert completion.finish_reason == "tool_calls"
    assert completion.usage.cached_tokens == 29


@pytest.mark.parametrize(
    ("delta", "key"),
    [
        ({"reasoning_content": "So."}, "reasoning_content"),
        ({"reasoning": "So."}, "reasoning"),
        ({"reasoning_content": "So.", "reasoning": "So."}, "reasoning_content"),
        (
            {"reasoning": "So.", "reasoning_details": [{"type": "reasoning.text", "text": "So."}]},
            "reasoning",
        ),
        ({"reasoning_content": None, "reasoning": "So."}, "reasoning"),
    ],
)
def test_reasoning_under_each_of_its_names(delta: dict[str, Any], key: str) -> None:
    completion, deltas = fold(of_deltas({"role": "assistant", "content": ""}, delta))
    assert deltas == [ReasoningDelta("So.")]
    assert completion.message.reasoning == "So."
    assert completion.message.to_dict()[key] == "So.", "it goes back under the same name"


def test_null_reasoning_is_none() -> None:
    completion, deltas = fold(of_deltas({"content": "Hi", "reasoning_content": None}))
    assert deltas == [ContentDelta("Hi")]
    assert completion.message.reasoning is None


INLINE = "<think>9.9 is 9.90 < b, so a</b> wins.</think>\n\n9.9 is bigger. <think> is a tag."


@given(st.lists(st.integers(1, len(INLINE) - 1)))
def test_inline_think_tags_split_anywhere(cuts: list[int]) -> None:
    edges = sorted({0, len(INLINE), *cuts})
    pieces = [INLINE[a:b] for a, b in pairwise(edges)]
    completion, deltas = fold(of_deltas(*({"content": piece} for piece in pieces)))
    assert completion.message.reasoning == "9.9 is 9.90 < b, so a</b> wins."
    assert completion.message.text == "9.9 is bigger. <think> is a tag."
    assert "".join(d.text for d in deltas if isinstance(d, ReasoningDelta)) == (
        completion.message.reasoning
    )
    assert "".join(d.text for d in deltas if isinstance(d, ContentDelta)) == (
        completion.message.text
    )


@pytest.mark.parametrize("text", ["<thin", "<", "x <think>y</think>", "<b>bold</b>", "  plain"])
def test_content_that_only_looks_like_a_tag_is_content(text: str) -> None:
    completion, _ = fold(of_deltas(*({"content": letter} for letter in text)))
    assert completion.message.text == text
    assert completion.message.reasoning is None


def test_reasoning_that_never_ends_is_kept() -> None:
    completion, _ = fold(of_deltas({"content": "<think>so far </thi"}))
    assert completion.message.reasoning == "so far </thi"
    assert completion.message.text == ""


USAGE = {"prompt_tokens": 90, "completion_tokens": 50, "total_tokens": 140}


@pytest.mark.parametrize(
    "chunks",
    [
        [{"choices": [], "usage": USAGE | {"cached_tokens": 80}}],
        [{"choices": [{"delta": {}, "usage": USAGE | {"cached_tokens": 80}}]}],
        [{"choices": [], "usage": USAGE | {"prompt_tokens_details": {"cached_tokens": 80}}}],
        [
            {"choices": [{"delta": {}, "usage": USAGE | {"cached_tokens": 80}}]},
            {"choices": [], "usage": USAGE | {"cached_tokens": 80}},
        ],
    ],
    ids=["at the end", "in the choice", "details", "twice"],
)
def test_usage_in_each_of_its_places(chunks: list[dict[str, Any]]) -> None:
    completion, _ = fold(chunks)
    assert completion.usage == Usage(90, 50, 0, 80, requests=1)


def test_reasoning_tokens() -> None:
    details = {"completion_tokens_details": {"reasoning_tokens": 40}}
    completion, _ = fold([{"choices": [], "usage": USAGE | details}])
    assert completion.usage.reasoning_tokens == 40


@pytest.mark.parametrize("reason", ["stop", "length", "content_filter", "tool_calls"])
def test_the_finish_reason_survives_later_chunks(reason: str) -> None:
    chunks: list[dict[str, Any]] = [
        {"choices": [{"delta": {"content": "x"}, "finish_reason": None}]},
        {"choices": [{"delta": {}, "finish_reason": reason}]},
        {"choices": [{"delta": {}, "finish_reason": None}], "usage": USAGE},
        {"choices": [], "usage": USAGE},
    ]
    completion, _ = fold(chunks)
    assert completion.finish_reason == reason


def test_an_answer_in_one_piece() -> None:
    message = {"role": "assistant", "content": "9.9", "reasoning_content": "Compare."}
    completion, deltas = fold(
        [{"model": "m", "choices": [{"message": message, "finish_reason": "stop"}], "usage": USAGE}]
    )
    assert deltas == [ReasoningDelta("Compare."), ContentDelta("9.9")]
    assert (completion.model, completion.finish_reason) == ("m", "stop")


def test_fragments_of_two_tool_calls() -> None:
    def fragment(index: int, **fields: Any) -> dict[str, Any]:
        return {"tool_calls": [{"index": index, **fields}]}

    completion, _ = fold(
        of_deltas(
            fragment(0, id="a", type="function", function={"name": "f", "arguments": ""}),
            fragment(0, function={"arguments": '{"x"'}),
            fragment(1, id="b", function={"name": "g"}),
            fragment(0, id="a", function={"name": "", "arguments": ": 1}"}),
            fragment(1, id=None, function={"name": None, "arguments": "{}"}),
        )
    )
    assert completion.message.tool_calls == (
        ToolCall("a", "f", '{"x": 1}'),
        ToolCall("b", "g", "{}"),
    )


def test_whole_tool_calls_without_an_index() -> None:
    calls = [
        {"id": name, "type": "function", "function": {"name": name, "arguments": "{}"}}
        for name in "fg"
    ]
    completion, _ = fold(of_deltas({"tool_calls": calls}))
    assert [call.name for call in completion.message.tool_calls] == ["f", "g"]


def test_a_code_point_in_two_chunks_is_whole() -> None:
    completion, deltas = fold(of_deltas({"content": "so \ud83d"}, {"content": "\ude00!"}))
    assert completion.message.text == "so 😀!"
    assert deltas == [ContentDelta("so "), ContentDelta("😀!")]


def test_half_a_code_point_can_be_sent_back() -> None:
    completion, _ = fold(of_deltas({"content": "a\ude00b"}))
    assert completion.message.text == "a\ufffdb"
