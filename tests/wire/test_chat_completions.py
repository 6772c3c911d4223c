"""Chunks of every dialect fold to the same message."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_magic.core.events import ContentDelta, ReasoningDelta, ToolCallDelta, ToolCallStarted
from kimi_magic.core.messages import Completion, Message, ToolCall, Usage, as_reasoning
from kimi_magic.wire.endpoints import Endpoint
from kimi_magic.wire.models import Model
from kimi_magic.wire.openai.chat_completions import Accumulator
from kimi_magic.wire.protocols import Delta
from kimi_magic.wire.sse import SSEDecoder

WIRE = Path(__file__).parent


def fold(chunks: list[dict[str, Any]]) -> tuple[Completion, list[Delta]]:
    accumulator = Accumulator()
    deltas = [delta for chunk in chunks for delta in accumulator.add([chunk])]
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
    assert completion.message.reasoning_text == (
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
    assert completion.message.reasoning_text == "So."
    assert completion.message.to_dict()[key] == "So.", "it goes back under the same name"


def test_null_reasoning_is_none() -> None:
    completion, deltas = fold(of_deltas({"content": "Hi", "reasoning_content": None}))
    assert deltas == [ContentDelta("Hi")]
    assert completion.message.reasoning_text is None


def in_pieces(text: str, cuts: list[int], field: str = "content") -> list[dict[str, Any]]:
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    return of_deltas(*({field: text[a:b]} for a, b in pairwise(edges)))


def seen(deltas: list[Delta], kind: type[ReasoningDelta | ContentDelta]) -> str:
    """The text that those who watched saw of a kind."""
    return "".join(delta.text for delta in deltas if isinstance(delta, kind))


def calls_seen(deltas: list[Delta]) -> list[tuple[str, str]]:
    """The calls that those who watched saw: names and arguments."""
    calls: list[list[str]] = []
    for delta in deltas:
        if isinstance(delta, ToolCallStarted):
            assert delta.index == len(calls), "calls are counted from 0"
            calls.append([delta.name, ""])
        elif isinstance(delta, ToolCallDelta):
            calls[delta.index][1] += delta.arguments
    return [(name, arguments) for name, arguments in calls]


CUTS = st.lists(st.integers(1, 400))

INLINE = "<think>9.9 is 9.90 < b, so a</b> wins.</think>\n\n9.9 is bigger. <think> is a tag."


@given(CUTS)
def test_inline_think_tags_split_anywhere(cuts: list[int]) -> None:
    completion, deltas = fold(in_pieces(INLINE, cuts))
    assert completion.message.reasoning_text == "9.9 is 9.90 < b, so a</b> wins."
    assert completion.message.text == "9.9 is bigger. <think> is a tag."
    assert completion.message.reasoning_key == "content"
    assert seen(deltas, ReasoningDelta) == completion.message.reasoning_text
    assert seen(deltas, ContentDelta) == completion.message.text


@given(CUTS)
def test_a_reasoning_whose_opening_tag_the_template_wrote(cuts: list[int]) -> None:
    thought = 'It ends with `</think>` or "</think>". So: "9.9"'
    completion, deltas = fold(in_pieces(f"{thought}</think>\n\n9.9, not `</think>`.", cuts))
    assert completion.message.reasoning_text == thought
    assert completion.message.text == "9.9, not `</think>`."
    assert completion.message.reasoning_key == "content"
    assert seen(deltas, ContentDelta) == f"{thought}\n\n9.9, not `</think>`."


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        ("</think>9.9", None, "9.9"),
        ("Compare.</think>", "Compare.", ""),
        ("<think></think>9.9", None, "9.9"),
        (" \n<think>\nCompare.\n</think> 9.9", "\nCompare.\n", " 9.9"),
    ],
)
def test_tags_at_the_edges(text: str, reasoning: str | None, answer: str) -> None:
    for cuts in ([], list(range(len(text)))):
        message = fold(in_pieces(text, cuts))[0].message
        assert (message.reasoning_text, message.text) == (reasoning, answer)
        assert message.reasoning_key == "content"


@pytest.mark.parametrize(
    "text",
    [
        "<thin",
        "<",
        "x <think>y</think>",
        "The tag `</think>` ends it.",
        "'</think>'",
        "<b>bold</b>",
        "  plain",
        "a <| b",
        "<|tool",
        "f <|> g <|tool_calls| h",
    ],
)
def test_content_that_only_looks_like_a_tag_is_content(text: str) -> None:
    completion, _ = fold(in_pieces(text, list(range(len(text)))))
    assert completion.message.text == text
    assert completion.message.reasoning_text is None
    assert not completion.message.tool_calls


def test_reasoning_that_never_ends_is_kept() -> None:
    completion, _ = fold(of_deltas({"content": "<think>so far </thi"}))
    assert completion.message.reasoning_text == "so far </thi"
    assert completion.message.text == ""


def test_tags_are_text_where_the_server_parses_the_reasoning() -> None:
    completion, _ = fold(
        of_deltas({"reasoning_content": "So."}, {"content": "<think> opens, </think> closes."})
    )
    assert completion.message.text == "<think> opens, </think> closes."
    assert completion.message.reasoning_text == "So."


def test_inline_reasoning_goes_back_inline_while_the_tools_run() -> None:
    call = ToolCall("functions.f:0", "f", "{}")
    message = Message("assistant", "", as_reasoning("Look it up."), "content", (call,))
    assert message.to_dict() == {
        "role": "assistant",
        "content": "<think>Look it up.</think>",
        "tool_calls": [call.to_dict()],
    }
    assert Message.from_dict(message.to_dict()) == message
    answer = Message("assistant", "9.9", as_reasoning("Compare."), "content")
    assert answer.to_dict() == {"role": "assistant", "content": "9.9"}
    none = Message("assistant", "One moment.", (), "content", (call,))
    assert none.to_dict()["content"] == "<think></think>One moment."
    assert Message.from_dict(none.to_dict()) == none


SECTION = (
    "<|tool_calls_section_begin|> <|tool_call_begin|> functions.get-weather:0 "
    '<|tool_call_argument_begin|> {"city": "a < b </think> <|x|> 東京"} <|tool_call_end|>\n'
    "<|tool_call_begin|>mcp.files.list:1<|tool_call_argument_begin|>{}<|tool_call_end|>"
    "<|tool_calls_section_end|>"
)
WANTED = (
    ToolCall("functions.get-weather:0", "get-weather", '{"city": "a < b </think> <|x|> 東京"}'),
    ToolCall("mcp.files.list:1", "mcp.files.list", "{}"),
)
BARE = SECTION.replace("<|tool_calls_section_begin|> ", "").replace(
    "<|tool_calls_section_end|>", ""
)


@pytest.mark.parametrize("section", [SECTION, BARE], ids=["section", "bare"])
@pytest.mark.parametrize(
    ("before", "after", "field", "reasoning", "text"),
    [
        ("Let me look.", "", "content", None, "Let me look."),
        ("", "", "content", None, ""),
        ("One\n", "\ntwo", "content", None, "One\n\ntwo"),
        ("<think>So.</think>Let me look.", "", "content", "So.", "Let me look."),
        ("<think>So. ", "", "content", "So. ", ""),
        ("<think>So. ", "</think>Done.", "content", "So. ", "Done."),
        ("So. ", "", "reasoning_content", "So. ", ""),
        ("So. ", " Then.", "reasoning", "So.  Then.", ""),
    ],
)
@given(cuts=CUTS)
def test_calls_between_markers_split_anywhere(
    section: str,
    before: str,
    after: str,
    field: str,
    reasoning: str | None,
    text: str,
    cuts: list[int],
) -> None:
    completion, deltas = fold(in_pieces(before + section + after, cuts, field))
    message = completion.message
    assert message.tool_calls == WANTED
    assert (message.reasoning_text, message.text) == (reasoning, text)
    assert calls_seen(deltas) == [(call.name, call.arguments) for call in WANTED]
    assert seen(deltas, ReasoningDelta) == (reasoning or "")
    assert seen(deltas, ContentDelta) == text


@pytest.mark.parametrize(
    ("text", "calls", "left"),
    [
        ('functions.f:0<|tool_call_argument_begin|>{"x": 1', [("f", '{"x": 1')], ""),
        ("functions.f:0<|tool_call_argument_begin|>", [("f", "")], ""),
        ("functions.f:0", [("f", "")], ""),
        ("functions.f:0 <|tool_call_end|>", [("f", "")], ""),
        ("functions.f:0 <|tool_call_argu", [("f", "")], ""),
        ("functions.get_wea", [], ""),
        ("", [], ""),
        ("f<|tool_call_argument_begin|>{}<|tool_call_end|>", [("f", "{}")], ""),
        ("f:0<|tool_call_argument_begin|>{}<|tool_calls_section_end|>", [("f", "{}")], ""),
        (" begins a call, <|tool_call_end|> ends it.", [], " begins a call,  ends it."),
        ("x" * 300, [], "x" * 300),
    ],
)
def test_calls_between_markers_that_are_cut_or_none(
    text: str, calls: list[tuple[str, str]], left: str
) -> None:
    text = "<|tool_call_begin|>" + text
    for cuts in ([], list(range(len(text)))):
        completion, deltas = fold(in_pieces(text, cuts))
        message = completion.message
        assert [(call.name, call.arguments) for call in message.tool_calls] == calls
        assert calls_seen(deltas) == calls
        assert message.text == seen(deltas, ContentDelta) == left


TALK = st.lists(
    st.sampled_from(
        [
            *("<think>", "</think>", "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
            *("<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"),
            *("functions.f:0", "g-h.i", '{"x": "<"}', "`", '"', " ", "\n", "<", "|>", "a b"),
            *("\ud83d", "\ude00", "é", "<|im_end|>", "<|end_of_msg|>", "<|tool_call_section_end|>"),
            *("<|open|>think<|sep|>", "<|close|>think<|sep|>", "<|open|>", "<|sep|>"),
            *("<|open|>response<|sep|>", "<|close|>response<|sep|>", "<|close|>message<|sep|>"),
            *("<|open|>tools<|sep|>", "<|close|>tools<|sep|>", "<|close|>call<|sep|>"),
            *('<|open|>call tool="f" index="1"<|sep|>', "<|close|>argument<|sep|>"),
            *('<|open|>argument key="x" type="number"<|sep|>', "<|open|>json<|sep|>"),
        ]
    ),
    max_size=14,
).map("".join)


@given(TALK, CUTS, st.sampled_from(["content", "reasoning"]))
def test_any_split_of_any_text_gives_the_same(text: str, cuts: list[int], field: str) -> None:
    completion, deltas = fold(in_pieces(text, cuts, field))
    whole, at_once = fold(of_deltas({field: text}))
    assert completion == whole
    assert calls_seen(deltas) == calls_seen(at_once)
    for kind in (ReasoningDelta, ContentDelta):
        assert seen(deltas, kind) == seen(at_once, kind)
        assert "<|tool_call" not in seen(deltas, kind)
    completion.message.to_dict()


PIECE = st.one_of(
    st.fixed_dictionaries({"content": TALK}),
    st.fixed_dictionaries({"reasoning": TALK}),
    st.fixed_dictionaries({"content": st.sampled_from(["a", "b ", ""]), "reasoning": st.just("r")}),
    st.just({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "{}"}}]}),
)


@given(st.lists(PIECE, max_size=12), st.lists(st.integers(0, 12)))
def test_chunks_that_arrive_together_give_the_same(
    pieces: list[dict[str, Any]], cuts: list[int]
) -> None:
    chunks = of_deltas(*pieces)
    one_by_one, in_time = fold(chunks)
    together = Accumulator()
    deltas: list[Delta] = []
    for a, b in pairwise(sorted({0, len(chunks), *(cut for cut in cuts if cut < len(chunks))})):
        deltas += together.add(chunks[a:b])
    deltas += together.finish()
    assert together.completion() == one_by_one
    assert calls_seen(deltas) == calls_seen(in_time)
    for kind in (ReasoningDelta, ContentDelta):
        assert seen(deltas, kind) == seen(in_time, kind)


NO_MARKER = st.text("<|>tool_calls_begin end:{}\n", max_size=60).filter(
    lambda text: "n|>" not in text and "d|>" not in text
)


@given(NO_MARKER, CUTS)
def test_text_without_a_whole_marker_is_never_lost(text: str, cuts: list[int]) -> None:
    completion, deltas = fold(in_pieces("." + text, cuts))
    assert completion.message.text == seen(deltas, ContentDelta) == "." + text


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


def fragment(index: int | None, name: str | None = None, **fields: Any) -> dict[str, Any]:
    """A delta with one fragment of a call."""
    function = {"name": name} if name is not None else {}
    if "arguments" in fields:
        function["arguments"] = fields.pop("arguments")
    place = {} if index is None else {"index": index}
    return {"tool_calls": [{**place, "type": "function", "function": function, **fields}]}


def both(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Two fragments in one delta."""
    return {"tool_calls": first["tool_calls"] + second["tool_calls"]}


F, G = ToolCall("a", "f", '{"x": 1}'), ToolCall("b", "g", "{}")
FORMS: dict[str, tuple[list[dict[str, Any]], tuple[ToolCall, ...]]] = {
    "fragments": (
        [
            fragment(0, "f", id="a", arguments=""),
            fragment(0, arguments='{"x"'),
            fragment(0, arguments=": 1}"),
            fragment(1, "g", id="b", arguments=""),
            fragment(1, arguments="{}"),
        ],
        (F, G),
    ),
    "interleaved; id repeated, name empty or null": (
        [
            fragment(0, "f", id="a"),
            fragment(1, "g", id="b"),
            fragment(0, "", id="a", arguments='{"x": '),
            fragment(1, id=None, arguments="{}"),
            {"tool_calls": [{"index": 0, "function": {"name": None, "arguments": "1}"}}]},
        ],
        (F, G),
    ),
    "whole": ([fragment(0, "f", id="a", arguments='{"x": 1}')], (F,)),
    "whole, no index, one delta": (
        [
            both(
                fragment(None, "f", id="a", arguments='{"x": 1}'),
                fragment(None, "g", id="b", arguments="{}"),
            )
        ],
        (F, G),
    ),
    "whole, no index, two deltas": (
        [
            fragment(None, "f", id="a", arguments='{"x": 1}'),
            fragment(None, "g", id="b", arguments="{}"),
        ],
        (F, G),
    ),
    "whole, neither index nor id": (
        [
            fragment(None, "g", arguments="{}"),
            both(fragment(None, "g", arguments="{}"), fragment(None, "h", arguments="")),
            fragment(None, "k"),
        ],
        tuple(
            ToolCall("", name, text)
            for name, text in zip("gghk", ["{}", "{}", "", ""], strict=True)
        ),
    ),
    "fragments without index": (
        [
            fragment(None, "f", id="a", arguments='{"x"'),
            fragment(None, arguments=": "),
            fragment(None, "f", id="a", arguments="1}"),
            fragment(None, "g", id="b", arguments="{"),
            fragment(None, "", id="b", arguments="}"),
        ],
        (F, G),
    ),
    "index null": (
        [
            {"tool_calls": [{"index": None, "id": "a", "function": {"name": "f"}}]},
            {"tool_calls": [{"index": None, "id": None, "function": {"arguments": '{"x": 1}'}}]},
        ],
        (F,),
    ),
    "index 0 for all": (
        [
            fragment(0, "f", id="a", arguments='{"x"'),
            fragment(0, arguments=": 1}"),
            fragment(0, "f", id="c", arguments="{"),
            fragment(0, arguments="}"),
            fragment(0, "g", id="b", arguments="{}"),
        ],
        (F, ToolCall("c", "f", "{}"), G),
    ),
    "index 0 and one id for all": (
        [
            fragment(0, "f", id="a", arguments='{"x": 1}'),
            fragment(0, "", id="a"),
            fragment(0, "g", id="a", arguments="{}"),
        ],
        (F, ToolCall("a", "g", "{}")),
    ),
    "one id for all, no index": (
        [
            fragment(None, "f", id="a", arguments='{"x": 1}'),
            fragment(None, "g", id="a", arguments="{"),
            fragment(None, id="a", arguments="}"),
        ],
        (F, ToolCall("a", "g", "{}")),
    ),
    "counting from 1": (
        [
            fragment(1, "f", id="a", arguments='{"x": 1}'),
            fragment(2, "g", id="b", arguments="{}"),
        ],
        (F, G),
    ),
    "id in each delta, new while the arguments run": (
        [
            fragment(0, "f", id="z1", arguments='{"x"'),
            fragment(0, "f", id="a", arguments=": 1}"),
        ],
        (F,),
    ),
    "id late": ([fragment(0, "f", arguments='{"x"'), fragment(0, id="a", arguments=": 1}")], (F,)),
    "id late, no index": (
        [fragment(None, "f", arguments='{"x"'), fragment(None, id="a", arguments=": 1}")],
        (F,),
    ),
    "arguments before the name": (
        [
            fragment(0, arguments='{"x"'),
            fragment(0, id="a", arguments=": "),
            fragment(0, "f"),
            fragment(0, arguments="1}"),
        ],
        (F,),
    ),
    "arguments an object": (
        [fragment(0, "f", id="a", arguments={"x": 1}), fragment(1, "g", id="b", arguments={})],
        (F, G),
    ),
    "arguments missing or null": (
        [fragment(0, "g", id="b"), fragment(0, arguments=None), fragment(0, arguments="{}")],
        (G,),
    ),
    "the older form beside it": (
        [
            {"function_call": {"name": "g", "arguments": "{}"}},
            fragment(0, "g", id="b", arguments="{}"),
        ],
        (G,),
    ),
    "nulls and junk": (
        [
            {"tool_calls": None, "content": None},
            {"tool_calls": []},
            {"tool_calls": [None, "x", {}, {"function": None}, {"index": 3, "function": "x"}]},
            fragment(0, "g", id="b", arguments="{}"),
            {"tool_calls": {"index": 0}},
        ],
        (G,),
    ),
    "no name ever": (
        [fragment(0, id="a", arguments="{"), fragment(1, "g", id="b"), fragment(0, arguments="}")],
        (ToolCall("b", "g", ""), ToolCall("a", "", "{}")),
    ),
    "neither name nor arguments": ([fragment(0, id="a"), fragment(0, "", arguments="")], ()),
    "code points in two halves": (
        [fragment(0, "f", id="a", arguments='"\ud83d'), fragment(0, arguments='\ude00"')],
        (ToolCall("a", "f", '"😀"'),),
    ),
}


@pytest.mark.parametrize(("deltas", "calls"), FORMS.values(), ids=FORMS)
def test_every_form_of_tool_call(deltas: list[dict[str, Any]], calls: tuple[ToolCall, ...]) -> None:
    completion, events = fold(of_deltas({"role": "assistant", "content": None}, *deltas))
    assert completion.message.tool_calls == calls
    assert calls_seen(events) == [(call.name, call.arguments) for call in calls]


@pytest.mark.parametrize(
    "chunk",
    [
        {},
        {"choices": None},
        {"choices": {}},
        {"choices": "x"},
        {"choices": [None]},
        {"choices": [{"index": 0}]},
        {"choices": [{"delta": None, "finish_reason": None}]},
        {"choices": [{"delta": "x", "message": 3, "finish_reason": 7}]},
        {"choices": [{"delta": {"content": 5, "reasoning_content": {}, "reasoning": [1, None]}}]},
        {"choices": [{"delta": {"content": [None, "x", {"text": None}], "role": 1}}]},
        {"model": 3, "usage": [1], "choices": [{"usage": "x"}]},
        {"choices": [{"index": 1, "delta": {"content": "another"}, "finish_reason": "length"}]},
    ],
)
def test_chunks_that_say_nothing_change_nothing(chunk: dict[str, Any]) -> None:
    said = of_deltas({"content": "9.9"})
    end = {"model": "m", "choices": [{"delta": {}, "finish_reason": "stop"}], "usage": USAGE}
    completion, deltas = fold([*said, chunk, end, chunk])
    assert completion == fold([*said, end])[0]
    assert deltas == [ContentDelta("9.9")]


ABSURD = [-1, 9.0, "9", None, True, [9], {"a": 9}, 10**12 + 1, 10**400, float("inf"), float("nan")]


@pytest.mark.parametrize("absurd", ABSURD, ids=lambda value: f"{value!r:.20}")
def test_counts_that_are_none_count_nothing(absurd: Any) -> None:
    names = ("prompt_tokens", "completion_tokens", "cached_tokens")
    for usage in (
        absurd,
        [absurd],
        dict.fromkeys(names, absurd),
        {"prompt_tokens_details": absurd, "completion_tokens_details": absurd},
        {
            "prompt_tokens_details": {"cached_tokens": absurd},
            "completion_tokens_details": {"reasoning_tokens": absurd},
        },
    ):
        completion, _ = fold([{"choices": [{"usage": usage, "delta": {}}], "usage": usage}])
        assert completion.usage == Usage(requests=1)
        known = {"choices": [], "usage": USAGE}
        completion, _ = fold([known, {"choices": [], "usage": usage}])
        assert completion.usage == Usage(90, 50, requests=1), "what was known stays"


def test_more_cached_tokens_than_were_sent_count_nothing() -> None:
    completion, _ = fold([{"choices": [], "usage": USAGE | {"cached_tokens": 91}}])
    assert completion.usage == Usage(90, 50, requests=1)
    endpoint = Endpoint("lab", "http://lab.invalid/v1")
    assert Model("m", prices=(3.0, 15.0, 0.3)).priced(completion.usage, endpoint).cost > 0


def test_content_after_the_finish_is_kept() -> None:
    end = {"choices": [{"delta": {"content": "9"}, "finish_reason": "stop"}]}
    completion, _ = fold([end, *of_deltas({"content": ".9"})])
    assert (completion.message.text, completion.finish_reason) == ("9.9", "stop")


def test_a_code_point_in_two_chunks_is_whole() -> None:
    completion, deltas = fold(of_deltas({"content": "so \ud83d"}, {"content": "\ude00!"}))
    assert completion.message.text == "so 😀!"
    assert deltas == [ContentDelta("so "), ContentDelta("😀!")]


def test_half_a_code_point_can_be_sent_back() -> None:
    completion, _ = fold(of_deltas({"content": "a\ude00b"}))
    assert completion.message.text == "a\ufffdb"
