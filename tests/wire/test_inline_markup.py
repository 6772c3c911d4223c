"""Kimi K3's elements, whole, split, leaked and cut."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_magic.core.events import ContentDelta, ReasoningDelta
from kimi_magic.schema.json_in_text import parse_arguments
from kimi_magic.schema.problems import ArgumentsError
from tests.wire.test_chat_completions import CUTS, calls_seen, fold, in_pieces, of_deltas, seen


def opened(element: str, **attributes: str) -> str:
    escaped = (
        f' {name}="{value.replace("&", "&amp;").replace(chr(34), "&quot;")}"'
        for name, value in attributes.items()
    )
    return f"<|open|>{element}{''.join(escaped)}<|sep|>"


def closed(element: str) -> str:
    return f"<|close|>{element}<|sep|>"


def kind(value: Any) -> str:
    names = {str: "string", bool: "boolean", type(None): "null", list: "array", dict: "object"}
    return names.get(type(value), "number")


def call(name: str, arguments: dict[str, Any], index: int = 1) -> str:
    elements = (
        opened("argument", key=key, type=kind(value))
        + (value if isinstance(value, str) else json.dumps(value))
        + closed("argument")
        for key, value in arguments.items()
    )
    head = opened("call", tool=name, index=str(index))
    return head + "".join(elements) + closed("call")


def tools(*calls: str) -> str:
    return opened("tools") + "".join(calls) + closed("tools")


END = closed("message") + "<|end_of_msg|>"
WEATHER = call("get_weather", {"city": "Beijing", "days": 2})
CALLS = [("get_weather", {"city": "Beijing", "days": 2})]
BEGUN = 'Compare `<|close|>think<|sep|>` and "<|open|>tools<|sep|>". So: 9.9.'

TEXT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="<"), min_size=1, max_size=20
)
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=4,
)


def arguments_of(calls: list[tuple[str, str]]) -> list[tuple[str, Any]]:
    return [(name, json.loads(arguments)) for name, arguments in calls]


@given(
    st.lists(st.tuples(TEXT, st.dictionaries(TEXT, VALUE, max_size=3)), max_size=3),
    st.tuples(TEXT, TEXT).map(lambda both: (both[0].strip() or "so", both[1].strip() or "ok")),
    CUTS,
)
def test_what_k3_writes_is_read_back(
    calls: list[tuple[str, dict[str, Any]]], texts: tuple[str, str], cuts: list[int]
) -> None:
    reasoning, answer = texts
    written = (
        opened("think")
        + reasoning
        + closed("think")
        + opened("response")
        + answer
        + closed("response")
        + (tools(*(call(*each) for each in calls)) if calls else "")
        + END
    )
    completion, deltas = fold(in_pieces(written, cuts))
    message = completion.message
    assert (message.reasoning_text, message.text) == (reasoning, answer)
    assert arguments_of(calls_seen(deltas)) == calls
    assert arguments_of([(c.name, c.arguments) for c in message.tool_calls]) == calls
    assert seen(deltas, ReasoningDelta) == reasoning
    assert seen(deltas, ContentDelta) == answer


@pytest.mark.parametrize(
    ("text", "field", "reasoning", "answer", "calls"),
    [
        # The template wrote the first tag.
        (f"So.{closed('think')}{opened('response')}9.9{closed('response')}{END}", "content",
         "So.", "9.9", []),
        (f"{BEGUN}{closed('think')}{opened('response')}9.9{closed('response')}", "content",
         BEGUN, "9.9", []),
        (f"Let me look.{closed('response')}{tools(WEATHER)}{END}", "content",
         None, "Let me look.", CALLS),
        # Leaks: vLLM #51412 (end tokens), #53246 and #54273 (the think element is not closed).
        (f"9.9{closed('message')}", "content", None, "9.9", []),
        ("9.9<|im_end|>", "content", None, "9.9", []),
        (f"9.9{END}\n", "content", None, "9.9", []),
        (f"I look.{tools(WEATHER)}{END}", "reasoning_content", "I look.", "", CALLS),
        (f"So.{opened('response')}9.9{closed('response')}{END}", "reasoning_content",
         "So.", "9.9", []),
        (f"So.{closed('think')}9.9", "reasoning_content", "So.", "9.9", []),
        (f"{opened('think')}So.{tools(WEATHER)}", "content", "So.", "", CALLS),
        ("Look.<|im_end|>\n<|tool_call_section_begin|><|tool_call_begin|>functions.f:0"
         "<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_call_section_end|><|im_end|>",
         "content", None, "Look.", [("f", {})]),
        # vLLM with spaces between special tokens.
        (f"{opened('think')}So.{closed('think')}{opened('response')}9.9".replace(
            "<|sep|>", " <|sep|>").replace("|>think", "|> think"), "content", "So.", "9.9", []),
        # Unclosed.
        (opened("tools") + WEATHER, "content", None, "", CALLS),
        (opened("tools") + WEATHER.removesuffix(closed("call")) + closed("tools"), "content",
         None, "", CALLS),
        (tools(WEATHER) + END, "content", None, "", CALLS),
        (f"{opened('response')}{closed('response')}{tools(WEATHER)}{END}", "content",
         None, "", CALLS),
        ("<|im_end|>", "content", None, "", []),
        (WEATHER + call("now", {}, 2) + END, "content", None, "", [*CALLS, ("now", {})]),
        (tools(WEATHER.replace(closed("call"), ""), call("now", {}, 2)), "content",
         None, "", [*CALLS, ("now", {})]),
        # Arguments that are not of their type; those that K3's own writer could not parse.
        (tools(WEATHER.replace(">2<", ">two<")), "content", None, "",
         [("get_weather", {"city": "Beijing", "days": "two"})]),
        (tools(opened("call", tool="f", index="1") + opened("json") + '{"x": [1]}'
               + closed("json") + closed("call")), "content", None, "", [("f", {"x": [1]})]),
        # Raw text may hold any token but its own end.
        (tools(call("write", {"text": f"{opened('tools')}<|im_end|>{closed('call')}</think>"})),
         "content", None, "",
         [("write", {"text": f"{opened('tools')}<|im_end|>{closed('call')}</think>"})]),
        # Text that speaks of tokens.
        ("An answer ends with <|im_end|>, or <|end_of_msg|> in K3.", "content", None,
         "An answer ends with <|im_end|>, or <|end_of_msg|> in K3.", []),
        (f"Calls follow `{opened('tools')}`; `{opened('call', tool='f')}` begins one. "
         f"{closed('argument')} ends an argument, {opened('response')} the thought.",
         "content", None,
         f"Calls follow `{opened('tools')}`; `{opened('call', tool='f')}` begins one. "
         f"{closed('argument')} ends an argument, {opened('response')} the thought.", []),
        (f"K3:\n```\n{opened('think')}So.{closed('think')}\n```\nSo it is.", "content",
         None, f"K3:\n```\n{opened('think')}So.{closed('think')}\n```\nSo it is.", []),
        ("It reads <|open|>think, then <|sep|>.", "content", None,
         "It reads <|open|>think, then <|sep|>.", []),
    ],
)  # fmt: skip
def test_leaked_unclosed_and_quoted(
    text: str,
    field: str,
    reasoning: str | None,
    answer: str,
    calls: list[tuple[str, Any]],
) -> None:
    for cuts in ([], list(range(len(text)))):
        completion, deltas = fold(in_pieces(text, cuts, field))
        message = completion.message
        assert (message.reasoning_text, message.text) == (reasoning, answer)
        assert arguments_of(calls_seen(deltas)) == calls
        assert len(message.tool_calls) == len(calls)


@pytest.mark.parametrize("at", range(len(opened("tools")) + 34, len(opened("tools") + WEATHER)))
def test_a_call_that_was_cut_at_the_limit_is_no_whole_call(at: int) -> None:
    chunks = in_pieces((opened("tools") + WEATHER)[:at], [])
    completion, _ = fold([*chunks, {"choices": [{"delta": {}, "finish_reason": "length"}]}])
    for each in completion.message.tool_calls:
        with pytest.raises(ValueError):  # noqa: PT011 - any error says that it is no JSON
            json.loads(each.arguments)


UNCLOSED = [("Beijing", "string"), ("5", "number"), ("[1", "array"), ("{}", "json")]
RAW = st.lists(
    st.sampled_from(
        [
            *map(closed, ("call", "tools", "message", "think", "json")),
            *map(opened, ("tools", "think", "response")),
            *("<|end_of_msg|>", "<|im_end|>", "<|tool_call_end|>", "<|open|>", "<|sep|>", "<", "x"),
            opened("call", tool="f", index="2"),
        ]
    ),
    max_size=6,
).map("".join)


@given(
    st.sampled_from(UNCLOSED),
    st.lists(st.tuples(TEXT, st.dictionaries(TEXT, VALUE, max_size=2)), max_size=2),
    st.sampled_from(["", "So it is."]),
    CUTS,
)
def test_a_value_that_never_ends_takes_nothing_else_along(
    value: tuple[str, str], others: list[tuple[str, dict[str, Any]]], text: str, cuts: list[int]
) -> None:
    """Its call is no JSON, so that it fails and the model is told; other calls and text stay."""
    begun, its_type = value
    head = opened("json") if its_type == "json" else opened("argument", key="a", type=its_type)
    broken = opened("call", tool="f", index="1") + head + begun + closed("call")
    written = tools(broken, *(call(*each) for each in others)) + text + END
    completion, deltas = fold(in_pieces(written, cuts))
    first, *rest = [(each.name, each.arguments) for each in completion.message.tool_calls]
    assert first == ("f", begun if its_type == "json" else first[1])
    assert begun in first[1]
    assert "<|" not in first[1]
    if its_type != "json":  # its own text may be whole
        with pytest.raises(ArgumentsError):
            parse_arguments(first[1])
    assert arguments_of(rest) == others
    assert [first, *rest] == calls_seen(deltas)
    assert completion.message.text == seen(deltas, ContentDelta) == text


@given(RAW, RAW, CUTS)
def test_raw_text_holds_any_token_but_its_own_end(first: str, second: str, cuts: list[int]) -> None:
    written = tools(call("write", {"a": first, "b": second, "c": 1}), call("now", {})) + END
    message = fold(in_pieces(written, cuts))[0].message
    assert arguments_of([(c.name, c.arguments) for c in message.tool_calls]) == [
        ("write", {"a": first, "b": second, "c": 1}),
        ("now", {}),
    ]


@given(VALUE, VALUE, CUTS)
def test_a_key_that_is_given_twice_is_refused(one: Any, other: Any, cuts: list[int]) -> None:
    """vLLM lets the last one win, Dynamo hands both on: nobody knows which was meant."""
    parts = [call("f", {"x": value, "y": 1}) for value in (one, other)]
    written = tools(parts[0].removesuffix(closed("call")) + parts[1].partition("<|sep|>")[2])
    (made,) = fold(in_pieces(written, cuts))[0].message.tool_calls
    with pytest.raises(ArgumentsError, match="more than once"):
        parse_arguments(made.arguments)


def test_k3_reasoning_goes_back_in_its_field() -> None:
    text = opened("think") + "So." + closed("think") + tools(WEATHER)
    message = fold(of_deltas({"content": text}))[0].message
    assert message.to_dict()["reasoning_content"] == "So."
