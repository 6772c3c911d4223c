"""A turn as plain data: it survives JSON, and becomes a reply again."""

from __future__ import annotations

import json
import pickle
from contextlib import suppress
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import jsonschema
import pytest
from hypothesis import given

import kimi_magic as kimi
from kimi_magic.core.errors import KimiError, RateLimited, TurnInterrupted
from kimi_magic.core.likelihoods import Alternative, TokenLogprob
from kimi_magic.core.messages import (
    Message,
    Output,
    ReasoningPart,
    Step,
    TextPart,
    Timings,
    ToolCall,
    ToolResult,
    Usage,
)
from kimi_magic.core.reply import Reply
from kimi_magic.core.sent import Attached, Sent
from kimi_magic.core.turn_record import EndpointFacts, Failure, TurnRecord
from kimi_magic.testing import ScriptedServer

TEXTS = st.text(max_size=20)
COUNTS = st.integers(0, 10**9)
SECONDS = st.floats(0, 1e6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | SECONDS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(TEXTS, JSON, max_size=3)
PARTS = st.builds(ReasoningPart, TEXTS, st.none() | TEXTS, st.integers(0, 9))
CALLS = st.builds(ToolCall, TEXTS, TEXTS, TEXTS)
USAGES = st.builds(Usage, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, SECONDS, SECONDS)


def several(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(items, max_size=3).map(tuple)


RESULTS = st.builds(
    ToolResult,
    TEXTS,
    TEXTS,
    error=st.none() | TEXTS,
    call_id=TEXTS,
    stdout=TEXTS,
    outputs=several(st.builds(Output, OBJECTS, OBJECTS)),
    traceback=TEXTS,
    seconds=SECONDS,
    recorded=st.booleans(),
)
MESSAGES = st.builds(
    Message,
    st.sampled_from(["system", "user", "assistant", "tool"]),
    st.none() | TEXTS | several(st.builds(TextPart, TEXTS)),
    st.none() | several(PARTS),
    TEXTS,
    several(CALLS),
    st.none() | TEXTS,
    st.none() | TEXTS,
    st.booleans(),
)
TIMINGS = st.builds(Timings, SECONDS, st.none() | SECONDS, st.none() | SECONDS)
LOGPROBS = st.floats(-9999, 0)
TOKENS = st.builds(
    TokenLogprob, TEXTS, st.none() | LOGPROBS, several(st.builds(Alternative, TEXTS, LOGPROBS))
)
STEPS = st.builds(
    Step,
    TEXTS,
    several(PARTS),
    several(CALLS),
    several(RESULTS),
    USAGES,
    st.none() | TEXTS,
    TIMINGS,
    several(TOKENS),
    several(TOKENS),
)
ATTACHED = st.builds(
    Attached,
    TEXTS,
    TEXTS,
    st.none() | COUNTS,
    st.none() | COUNTS,
    TEXTS,
    several(st.tuples(TEXTS, TEXTS)),
)
OUTLINES = st.builds(Sent, COUNTS, COUNTS, COUNTS, several(TEXTS), several(ATTACHED))
RECORDS = st.builds(
    TurnRecord,
    several(STEPS),
    several(MESSAGES),
    st.integers(0, 5),
    USAGES,
    st.none() | TEXTS,
    TEXTS,
    st.none() | TEXTS,
    OBJECTS,
    st.none() | st.builds(EndpointFacts, TEXTS, TEXTS, st.none() | TEXTS),
    JSON,
    st.none() | st.builds(Failure, TEXTS, TEXTS),
    TEXTS,
    TEXTS,
    TEXTS,
    st.booleans(),
    SECONDS,
)


@st.composite
def repeating(draw: st.DrawFn) -> TurnRecord:
    """A record whose messages repeat what its steps hold, all of it or nearly."""
    record = draw(RECORDS)
    messages: list[Message] = list(record.messages)
    for step in record.steps:
        parts = step.reasoning_parts
        asked = Message("assistant", step.text, parts, tool_calls=step.tool_calls)
        changes: Any = draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "content": st.none() | TEXTS,
                    "reasoning": st.none() | st.just(()),
                    "tool_calls": st.just(()) | several(CALLS),
                    "reasoning_key": TEXTS,
                },
            )
        )
        messages.append(replace(asked, **changes))
        for result in step.tool_results:
            content = draw(st.just(result.content) | TEXTS)
            name = draw(st.just(result.name) | st.none())
            messages.append(Message("tool", content, tool_call_id=result.call_id, name=name))
    return replace(record, messages=tuple(messages))


SCHEMA = jsonschema.Draft202012Validator(
    json.loads(files("kimi_magic.core").joinpath("turn.schema.json").read_text("utf-8"))
)


HEAVY = st.builds(
    replace,
    RECORDS,
    trajectories=several(RECORDS),
    agreement=st.dictionaries(TEXTS, several(COUNTS), max_size=3),
    replayed=TEXTS,
    outline=OUTLINES,
    sweep=TEXTS,
)


@given(RECORDS | repeating() | HEAVY)
def test_a_record_survives_json(record: TurnRecord) -> None:
    data = json.loads(json.dumps(record.to_dict()))
    assert TurnRecord.from_dict(data) == record
    assert TurnRecord.from_dict(data | {"of a later version": 1}) == record


@given(RECORDS | repeating() | HEAVY)
def test_the_form_is_the_documented_one(record: TurnRecord) -> None:
    SCHEMA.validate(json.loads(json.dumps(record.to_dict())))


def test_the_example_of_the_documents() -> None:
    text = (Path(__file__).parents[2] / "docs/turn.md").read_text("utf-8")
    example = json.loads(text.partition("```json\n")[2].partition("```")[0])
    SCHEMA.validate(example)
    record = TurnRecord.from_dict(example)
    assert record.to_dict() == example
    assert [m.role for m in record.exchange] == ["user", "assistant", "tool", "assistant"]
    assert record.exchange[-1].text == record.text == "The south fell."


def test_a_record_of_version_1_opens() -> None:
    step = {"text": "4", "reasoning_parts": [{"text": "Add."}], "finish_reason": "stop"}
    messages = [
        {"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": "4", "reasoning": [{"text": "Add."}]},
    ]
    data = {"version": 1, "steps": [step], "messages": messages, "sent": 1, "model": "kimi-k2"}
    record = TurnRecord.from_dict(data)
    assert (record.text, record.reasoning, record.model) == ("4", "Add.", "kimi-k2")
    assert [m.text for m in record.exchange] == ["2 + 2?", "4"]


def test_a_stored_turn_has_no_headers_and_can_do_without_earlier_turns() -> None:
    system, asked, said = (
        Message("system", "Be brief."),
        Message("user", "1?"),
        Message("assistant", "One."),
    )
    own = (Message("user", "2?"), Message("assistant", "Two."))
    facts = EndpointFacts("lab", "https://lab/v1", headers={"X-Team": "${TEAM}"})
    record = TurnRecord(messages=(system, asked, said, *own), sent=4, endpoint=facts)
    assert "TEAM" not in json.dumps(record.to_dict())
    alone = record.without_history()
    assert (alone.messages, alone.sent, alone.exchange) == ((system, *own), 2, record.exchange)
    assert alone.with_history([asked, said]) == record


@given(repeating(), st.data())
def test_anything_at_any_place_is_read_or_refused(record: TurnRecord, data: st.DataObject) -> None:
    stored: Any = json.loads(json.dumps(record.to_dict()))
    inside = stored
    while isinstance(inside, dict | list) and inside:
        keys: Any = sorted(inside) if isinstance(inside, dict) else range(len(inside))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(inside[key], dict | list) or data.draw(st.booleans()):
            inside[key] = data.draw(JSON)
            break
        inside = inside[key]
    with suppress(KimiError):
        TurnRecord.from_dict(stored).to_dict()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"version": 2, "messages": [{"role": "assistant", "step": 0}]}, "messages"),
        ({"version": 2, "messages": [{"role": "tool", "result": [0]}], "steps": [{}]}, "messages"),
        ({"version": 2, "messages": [{"role": "tool", "result": 7}], "steps": [{}]}, "messages"),
        ({"version": 2, "messages": 7}, "messages"),
        ({"version": 2, "messages": ["x"], "steps": [5]}, "steps.0"),
        (
            {"version": 2, "messages": [{"role": "assistant", "step": -1}], "steps": [{}]},
            "messages",
        ),
        ({}, "no version"),
        ({"version": 99}, "newer kimi-magic"),
        ({"version": 1, "steps": [{"text": 5}]}, r"steps\.0\.text"),
    ],
)
def test_what_is_no_record(data: dict[str, Any], words: str) -> None:
    with pytest.raises(KimiError, match=words):
        TurnRecord.from_dict(data)


def test_a_reply_is_its_record_and_what_is_live_beside_it(server: ScriptedServer) -> None:
    class Frame:
        """A live object that no JSON holds."""

    frame = Frame()

    def load(name: str) -> Frame:
        """Load a frame."""
        return frame

    server.reply("", reasoning="Look.", tool_calls=[{"name": "load", "arguments": {"name": "x"}}])
    server.reply("Loaded.", reasoning="So.")
    reply = kimi.ask("Load x", tools=[load], show=False)
    assert reply.tool_results[0].value is reply.steps[0].tool_results[0].value is frame
    assert reply.functions == {"load": load}
    assert all(result.value is None for step in reply.record.steps for result in step.tool_results)
    again = Reply.from_dict(json.loads(json.dumps(reply.to_dict())))
    assert again.record == reply.record
    assert (again.text, again.reasoning, again.usage) == ("Loaded.", "Look.\n\nSo.", reply.usage)
    assert again.messages == reply.messages
    assert again.tool_calls == reply.tool_calls
    assert again.tool_results[0].content == reply.tool_results[0].content
    assert pickle.loads(pickle.dumps(reply)).record == reply.record


@pytest.mark.parametrize("error", [RateLimited("Wait."), TurnInterrupted("Stopped.")])
def test_the_error_comes_back_as_its_own_class(error: BaseException) -> None:
    record = TurnRecord(failure=Failure(type(error).__name__, str(error)))
    again = Reply.from_dict(record.to_dict()).error
    assert type(again) is type(error)
    assert str(again) == str(error)


def test_the_answer_as_data_is_json_in_the_record(server: ScriptedServer) -> None:
    server.reply('{"name": "Ada", "age": 36}')
    reply = kimi.ask("Who?", schema="name, age int", show=False)
    assert Reply.from_dict(reply.to_dict()).data == {"name": "Ada", "age": 36}
