"""A turn in fragments: whatever part of them is there, a valid turn comes of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_magic.chats.history import CUT_OFF
from kimi_magic.chats.journal_fragments import LOST, Fragments, Masks, recovered
from kimi_magic.core.errors import KimiError
from kimi_magic.core.events import (
    ContentDelta,
    Event,
    ReasoningDelta,
    RequestStarted,
    StepFinished,
    ToolCallDelta,
    ToolCallStarted,
    ToolFinished,
    ToolStarted,
)
from kimi_magic.core.messages import Message, Step, ToolCall, ToolResult, Usage, as_reasoning
from kimi_magic.core.turn_record import TurnRecord
from kimi_magic.secrets.keys import Key
from kimi_magic.testing.checks import check_request

MASKS = Masks(shapes=True)
PREPARED = TurnRecord(
    messages=(Message("system", "Be brief."), Message("user", "Go.")),
    sent=2,
    model="kimi-k2-thinking",
    prompt="Go.",
)
BEFORE = Message("user", "Earlier."), Message("assistant", "Yes.")

# Without the beginnings of keys: those come to be masked when more of them is there.
words = st.text(st.sampled_from('ab \n"\\é€\U0001f600\x00'), max_size=12)
calls = st.lists(st.tuples(st.sampled_from(["look", "list_files"]), words), max_size=3)
steps = st.lists(
    st.tuples(st.lists(words, max_size=4), st.lists(words, max_size=4), calls),
    min_size=1,
    max_size=3,
)


def story(parts: Sequence[Any]) -> tuple[list[Event], list[Step]]:
    """The events of a turn, and its steps; the last one asks for no calls."""
    events: list[Event] = []
    finished = []
    for number, (reasoning, content, asked) in enumerate(parts):
        events.append(RequestStarted(number + 1))
        events += map(ReasoningDelta, reasoning)
        events += map(ContentDelta, content)
        made, results = [], []
        for index, (name, argument) in enumerate(asked if number < len(parts) - 1 else ()):
            arguments = json.dumps({"path": argument})
            events += [ToolCallStarted(index, name), ToolCallDelta(index, arguments[:3])]
            events.append(ToolCallDelta(index, arguments[3:]))
            made.append(ToolCall(f"functions.{name}:{number * 10 + index}", name, arguments))
        for index, call in enumerate(made):
            results.append(ToolResult(call.name, f"result {index}", call_id=call.id))
            events += [ToolStarted(index, call), ToolFinished(index, results[-1])]
        step = Step(
            "".join(content),
            as_reasoning("".join(reasoning)) or (),
            tuple(made),
            tuple(results),
            Usage(completion_tokens=3, requests=1),
        )
        events.append(StepFinished(step))
        finished.append(step)
    return events, finished


@given(steps, st.data())
def test_any_part_of_a_turn_is_a_turn(parts: Any, data: st.DataObject) -> None:
    events, whole = story(parts)
    fragments = Fragments()
    for number, event in enumerate(events):
        fragments.take(event)
        if data.draw(st.booleans(), label=f"written after {number}"):
            fragments.update(MASKS)
            place = data.draw(st.integers(0, len(fragments.rows)))
            check(recovered(PREPARED, fragments.rows[:place]), whole)
    fragments.update(MASKS)
    end = recovered(PREPARED, fragments.rows)
    assert end.steps == tuple(whole)
    assert end.usage.completion_tokens == 3 * len(whole)


def check(record: TurnRecord, whole: Sequence[Step]) -> None:
    assert TurnRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record
    assert record.failure == LOST
    for i, step in enumerate(record.steps):
        assert whole[i].text.startswith(step.text)
        assert whole[i].reasoning.startswith(step.reasoning)
        assert len(step.tool_calls) <= len(whole[i].tool_calls)
        if i < len(record.steps) - 1:
            assert step == whole[i]
    assert not record.messages[2:] or record.exchange
    # The chat goes on, as the strictest server wants it.
    later = record.with_history(BEFORE)
    messages = [*later.messages, Message("user", "And now?")]
    body = {
        "model": "kimi-k2-thinking",
        "messages": [message.to_dict() for message in messages],
        "stream": True,
    }
    assert check_request(body, dialect="moonshot") == []


def test_as_much_as_came_is_there() -> None:
    fragments = Fragments()
    for event in (RequestStarted(1), ReasoningDelta("Let me "), ReasoningDelta("see.")):
        fragments.take(event)
    fragments.update(MASKS)
    fragments.take(ContentDelta("It is"))
    fragments.update(MASKS)
    record = recovered(PREPARED, fragments.rows)
    assert (record.reasoning, record.text) == ("Let me see.", "It is")
    assert record.messages[-1].text == "It is"
    only_reasoning = recovered(PREPARED, fragments.rows[:1])
    assert only_reasoning.messages[-1].content == CUT_OFF


def test_calls_that_were_made_and_those_that_were_not() -> None:
    fragments = Fragments()
    fragments.take(RequestStarted(1))
    for index in range(3):
        fragments.take(ToolCallStarted(index, "look"))
        fragments.take(ToolCallDelta(index, f'{{"n": {index}}}'))
    fragments.update(MASKS)
    cut = recovered(PREPARED, fragments.rows)
    assert [call.arguments for call in cut.steps[0].tool_calls] == [
        f'{{"n": {n}}}' for n in range(3)
    ]
    assert not cut.steps[0].tool_results
    assert cut.messages[-1].content == CUT_OFF, "the calls were never made"

    made = [ToolCall(f"functions.look:{n}", "look", f'{{"n": {n}}}') for n in range(2)]
    fragments.take(ToolStarted(0, made[0]))
    fragments.take(ToolFinished(0, ToolResult("look", "zero", call_id=made[0].id)))
    fragments.take(ToolStarted(1, made[1]))
    fragments.update(MASKS)
    (step,) = recovered(PREPARED, fragments.rows).steps
    assert [result.error for result in step.tool_results] == [None, "interrupted", "cancelled"]
    assert len({call.id for call in step.tool_calls}) == 3
    assert [r.call_id for r in step.tool_results] == [call.id for call in step.tool_calls]


def test_an_answer_that_came_to_nothing_gives_way() -> None:
    fragments = Fragments()
    for event in (RequestStarted(1), ReasoningDelta("Hm.")):
        fragments.take(event)
    fragments.update(MASKS)
    fragments.are_written()
    fragments.take(RequestStarted(1, 2))
    fragments.take(ContentDelta("Yes."))
    fragments.update(MASKS)
    assert fragments.instead_from == 0
    assert [place for place, _ in fragments.unwritten] == [0]
    assert recovered(PREPARED, fragments.rows).reasoning == ""


SECRETS = [
    "sk-proj-Abc123Def456Ghi789Jkl012Mno345",
    "nvapi-" + "0123456789abcdefghijklmnop",
    "Bearer abcdefghijklmnopqrstuvwxyz0123",
    "https://me:hunter2hunter2@host/path",
    "aws_secret_access_key = abcdefghijABCDEFGHIJ0123456789abcdefghij",
    "-----BEGIN PRIVATE KEY-----\n"
    + "MIIEvQIBADANBgkqhkiG9w0BAQEF\n" * 60
    + "-----END PRIVATE KEY-----",
]


@given(secret=st.sampled_from(SECRETS), before=st.integers(0, 800), size=st.integers(30, 90))
def test_a_secret_is_masked_wherever_a_row_ends(secret: str, before: int, size: int) -> None:
    """Also one that is a secret only with the word before it, from which a blank parts it."""
    text = f"{'w ' * before}{secret} {'And so on. ' * 60}"
    fragments = Fragments()
    for start in range(0, len(text), size):
        fragments.take(ContentDelta(text[start : start + size]))
        fragments.update(MASKS)
    assert recovered(PREPARED, fragments.rows).text == MASKS.text(text)


@pytest.mark.parametrize("secret", SECRETS, ids=lambda secret: secret[:8])
@pytest.mark.parametrize("size", [1, 7, 100])
def test_what_looks_like_a_key_is_masked_though_it_comes_in_pieces(secret: str, size: int) -> None:
    text = f"{'It is there. ' * 60}{secret} {'And so on. ' * 60}"
    stored: dict[int, str] = {}
    fragments = Fragments()
    for start in range(0, len(text), size):
        fragments.take(ContentDelta(text[start : start + size]))
        fragments.update(MASKS)
        stored.update(fragments.unwritten)
        fragments.are_written()
    assert list(stored.values()) == fragments.rows
    record = recovered(PREPARED, fragments.rows)
    assert record.text == MASKS.text(text)
    assert "[masked]" in record.text


@pytest.mark.parametrize("text", ["word " * 40_000, "x" * 100_000, "-----BEGIN x " * 9000])
def test_writing_takes_time_in_proportion_to_the_turn(text: str) -> None:
    fragments, written = Fragments(), 0
    for start in range(0, len(text), 500):
        fragments.take(ContentDelta(text[start : start + 500]))
        fragments.update(MASKS)
        written += sum(len(row) for _, row in fragments.unwritten)
        fragments.are_written()
    bound = 60 if text.startswith("-") else 12 if text.startswith("x") else 3
    assert written < bound * len(text)


def test_texts_that_grow_by_turns_leave_each_others_rows_alone() -> None:
    fragments, written = Fragments(), 0
    fragments.take(ToolCallStarted(0, "write"))
    for _ in range(300):
        fragments.take(ContentDelta("a word "))
        fragments.take(ToolCallDelta(0, "some more of the file " * 20))
        fragments.update(MASKS)
        written += sum(len(row) for _, row in fragments.unwritten)
        fragments.are_written()
    assert written < 4 * 300 * 450


def test_a_picture_is_not_searched_for_keys() -> None:
    picture = "iVBORw0KGgo" + "AKIA" + "ABCDEFGHIJKLMNOP" * 10 + "/" + "sk" * 60 + "=="
    assert MASKS.value({"data": [picture, picture + "\n"]}) == {"data": [picture, picture + "\n"]}
    assert MASKS.text(f"see {picture}, sk-proj-Abc123Def456Ghi789Jkl012") != f"see {picture}"
    key = "0123456789abcdef" * 3
    known = Masks([Key(key, "OUR_KEY")], shapes=True)
    assert key not in known.text(f"{picture[:80]}{key}{picture[-40:]}")
    assert known.text(picture) == picture


@pytest.mark.parametrize(
    "rows",
    [
        ["{"],
        ["3"],
        ['{"ended": true, "step": 3}'],
        ['{"text": 5}', '{"text": "x"}'],
        ['{"made": 0, "step": {}}'],
    ],
)
def test_what_is_no_fragment(rows: list[str]) -> None:
    with pytest.raises(KimiError):
        recovered(PREPARED, rows)


def test_the_record_keeps_the_rest() -> None:
    record = replace(PREPARED, chat="main", cell="c1", run="r1", fresh=True, started=5.0)
    again = recovered(record, ['{"text": "Yes"}'])
    assert (again.chat, again.cell, again.run, again.fresh) == ("main", "c1", "r1", True)
