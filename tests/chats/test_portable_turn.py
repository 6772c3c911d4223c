"""A turn as a notebook carries it: the same for the same answers, without a key, never too long."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_magic.chats.portable_turn import portable
from kimi_magic.core.messages import (
    ImagePart,
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
from kimi_magic.core.turn_record import EndpointFacts, TurnRecord
from kimi_magic.secrets.keys import Key
from kimi_magic.secrets.redact import Redactor
from tests.core.test_turn_record import RECORDS, repeating

NOTHING = Redactor(shapes=True)
SECRET = "a-secret-that-no-shape-gives-away"


def a_turn(
    text: str = "It rains.",
    *,
    reasoning: str = "Look.",
    arguments: str = '{"month": "May"}',
    result: str = "rain",
    run: int = 0,
) -> TurnRecord:
    """A turn with a tool call, of one of several runs that gave the same answers."""
    call = ToolCall(f"call_{run}_x", "forecast", arguments)
    parts = (ReasoningPart(reasoning, signature="c2ln"),)
    usage = Usage(10, 5, 2, cached_tokens=run, requests=1 + run, seconds=1.5 * run, cost=run / 8)
    found = ToolResult(
        "forecast",
        result,
        call_id=call.id,
        stdout=f"{run} s",
        outputs=(Output({"text/plain": f"0x{run}"}, {}),),
        seconds=run,
    )
    steps = (
        Step("", parts, (call,), (found,), usage, "tool_calls", Timings(run, run)),
        Step(text, (), (), (), usage, "stop", Timings(run)),
    )
    messages = (
        Message("system", "Be brief."),
        Message("user", "an earlier turn"),
        Message("assistant", f"of run {run}"),
        Message("user", "And May?"),
        Message("assistant", None, parts, tool_calls=(call,)),
        Message("tool", result, tool_call_id=call.id, name="forecast"),
        Message("assistant", text),
    )
    return TurnRecord(
        steps,
        messages,
        4,
        usage + usage,
        "stop",
        "kimi-k2-thinking",
        "main",
        {"model": "kimi-k2-thinking", "tools": [{"type": "function"}]},
        EndpointFacts("moonshot", f"https://{run}.example/v1", f"KEY_{run}", {"X": f"${{{run}}}"}),
        prompt="And May?",
        cell=f"cell-{run}",
        run=f"run-{run}",
        started=1e9 + run,
    )


def size(form: dict[str, Any]) -> int:
    return len(json.dumps(form, ensure_ascii=False))


def test_what_differs_from_run_to_run_stays_out() -> None:
    first, second = (portable(a_turn(run=n), NOTHING, max_chars=10_000) for n in (0, 7))
    assert first == second
    told = json.dumps(first)
    for word in ("run-", "cell-", "example", "KEY_", "0x", "signed", "earlier turn"):
        assert word not in told
    assert TurnRecord.from_dict(first).endpoint == EndpointFacts("moonshot")
    assert "call_0" in told


def test_times_are_kept_where_they_are_asked_for() -> None:
    form = portable(a_turn(run=7), NOTHING, max_chars=10_000, times=True)
    record = TurnRecord.from_dict(form)
    assert record.started == 1e9 + 7
    assert record.usage == a_turn(run=7).usage
    assert record.steps[0].tool_results[0].seconds == 7
    assert (record.run, record.cell) == ("", "")


def test_ids_of_kimis_own_form_keep_it() -> None:
    call = ToolCall("functions.forecast:41", "forecast", "{}")
    record = replace(a_turn(), steps=(Step(tool_calls=(call,)),), messages=(), sent=0)
    (step,) = TurnRecord.from_dict(portable(record, NOTHING, max_chars=10_000)).steps
    assert step.tool_calls[0].id == "functions.forecast:0"


def test_an_endpoint_that_has_no_name_but_its_address() -> None:
    url = "http://gpu1.internal:8000/v1"
    record = replace(a_turn(), endpoint=EndpointFacts(url, url))
    assert "gpu1" not in json.dumps(portable(record, NOTHING, max_chars=10_000))


def test_it_is_always_masked() -> None:
    token = "ghp_" + "a1B2" * 9
    record = replace(
        a_turn(f"{SECRET} {token}", reasoning=SECRET, arguments=SECRET, result=token),
        data={"key": [SECRET]},
        prompt=SECRET,
    )
    form = portable(record, Redactor([Key(SECRET, "A_KEY")], shapes=True), max_chars=10_000)
    told = json.dumps(form)
    assert SECRET not in told
    assert token not in told
    assert "[masked]" in told


def test_the_base64_of_a_picture_is_not_searched_for_keys() -> None:
    data = "A" * 400 + "/AKIA" + "B" * 16 + "/AA="
    picture = Message("user", (TextPart("See:"), ImagePart(data, width=8, height=8)))
    record = TurnRecord(messages=(picture,), sent=1)
    kept = TurnRecord.from_dict(portable(record, NOTHING, max_chars=10_000)).messages[0]
    assert kept == picture
    cut = portable(record, NOTHING, max_chars=300)
    assert cut["cut"] == {"pictures": 1}
    assert TurnRecord.from_dict(cut).messages[0].text == "See:[picture, 8 × 8 pixels]"


@pytest.mark.parametrize("name", ["text", "reasoning", "arguments", "result"])
def test_a_long_text_keeps_its_beginning_and_its_end(name: str) -> None:
    long = "begin " + "x" * 50_000 + " end"
    record = a_turn(**{name: long})  # type: ignore[arg-type]
    form = portable(record, NOTHING, max_chars=5000)
    assert size(form) <= 5000
    assert form["cut"]["characters"] > 45_000
    assert list(form["cut"]) == ["characters"], "nothing else is missing"
    told = json.dumps(form)
    assert "begin xxx" in told
    assert "xxx end" in told
    assert "more characters are not kept here (setting max_output_chars)" in told
    again = TurnRecord.from_dict(form)
    assert all(isinstance(json.loads(c.arguments), dict) for s in again.steps for c in s.tool_calls)
    assert len(told) < 5000 * 1.2, "a text is stored once"


def test_whole_parts_give_way_last() -> None:
    call = ToolCall("", "f", "{}")
    steps = tuple(
        Step(
            f"text {n} " * 20,
            (ReasoningPart("why " * 50),),
            (replace(call, id=f"c{n}"),),
            (ToolResult("f", "r" * 300, call_id=f"c{n}"),),
        )
        for n in range(100)
    )
    messages: list[Message] = [Message("system", "s"), Message("user", "Ask.")]
    for n, step in enumerate(steps):
        messages += [
            Message("assistant", step.text, step.reasoning_parts, tool_calls=step.tool_calls),
            Message("tool", "r" * 300, tool_call_id=f"c{n}", name="f"),
        ]
    last = Step("The answer.")
    messages.append(Message("assistant", "The answer."))
    record = TurnRecord((*steps, last), tuple(messages), 2, prompt="Ask.")
    form = portable(record, NOTHING, max_chars=2000)
    assert form["cut"]["left_out"] == ["reasoning", "steps"]
    again = TurnRecord.from_dict(form)
    assert (again.prompt, again.text) == ("Ask.", "The answer.")
    assert [m.role for m in again.messages] == ["system", "user", "assistant"]


def test_data_that_no_json_holds() -> None:
    deep: Any = "x"
    for _ in range(3000):
        deep = [deep]
    form = portable(replace(a_turn(), data=deep), NOTHING, max_chars=10_000)
    assert "data" in form["cut"]["left_out"]
    assert TurnRecord.from_dict(form).text == "It rains."
    odd = replace(a_turn("half \ud83d of it"), data=[float("nan"), 1.5])
    form = portable(odd, NOTHING, max_chars=10_000)
    json.dumps(form, ensure_ascii=False, allow_nan=False).encode()
    assert form["data"] == [None, 1.5]


@given(RECORDS | repeating(), st.sampled_from([1000, 1500, 20_000]))
def test_any_record_fits_and_is_read_again(record: TurnRecord, limit: int) -> None:
    form = portable(record, NOTHING, max_chars=limit)
    assert size(form) <= limit
    again = TurnRecord.from_dict(json.loads(json.dumps(form)))
    if "cut" not in form:
        assert again.text == record.text
        assert again.reasoning == record.reasoning
        assert again.prompt == record.prompt
        # Written once more it is the same.
        assert portable(again, NOTHING, max_chars=limit) == form
