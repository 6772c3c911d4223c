"""Aim: have a turn cost without end, or hide what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

import kimi_magic as kimi
from kimi_magic.core.events import Notice, ToolFinished
from kimi_magic.display.timeline import Timeline
from kimi_magic.session import Session
from kimi_magic.testing import ScriptedServer

CUT: list[dict[str, Any]] = [{"name": "save", "arguments": '{"text": "It was a dark and stor'}]
WHOLE: list[dict[str, Any]] = [{"name": "save", "arguments": {"text": "It was."}}]
ENOUGH = {"prompt_tokens": 9, "completion_tokens": 70_000}


@pytest.fixture
def saved() -> list[str]:
    return []


@pytest.fixture
def tools(saved: list[str]) -> Sequence[Any]:
    def save(text: str) -> str:
        """Save a text."""
        saved.append(text)
        return "Saved."

    return [save]


@pytest.mark.parametrize(
    "ending", [{"finish_reason": "length"}, {"finish_reason": "tool_calls", "usage": ENOUGH}]
)
def test_a_call_that_is_cut_each_time(
    server: ScriptedServer, saved: list[str], tools: Sequence[Any], ending: dict[str, Any]
) -> None:
    """Input: a call cut at the limit of tokens, whatever is asked, as `length` or as vLLM says it.

    Holds: two requests, the second with more room; nothing runs; the turn ends and says why.
    """
    for _ in range(2):
        server.reply(reasoning="I write.", tool_calls=CUT, **ending)
    events = list(kimi.stream("A novel, please.", tools=tools, chat="novel"))
    assert [request.body["max_tokens"] for request in server.requests] == [16_384, 65_536]
    assert saved == []
    reply = kimi.last
    assert reply is not None
    assert (reply.finish_reason, reply.error, len(reply.steps)) == ("length", None, 2)
    assert [result.error for result in reply.tool_results] == ["cut at the limit of tokens"] * 2
    assert [event.text for event in events if isinstance(event, Notice)] == [
        "The call of save was cut at the limit of tokens: the model is told, and asked once more.",
        "The call of save was cut at the limit of tokens again: the turn ends here.",
    ]
    assert sum(isinstance(event, ToolFinished) for event in events) == 2
    server.reply("All right.")
    assert kimi.chat("novel").ask("Leave it.").text == "All right.", "the chat stays valid"


def test_a_limit_that_the_user_chose_is_kept(
    server: ScriptedServer, saved: list[str], tools: Sequence[Any]
) -> None:
    """Input: a call cut at a limit that the user set. Holds: nothing is sent with a higher one."""
    server.reply(reasoning="I write.", tool_calls=CUT, finish_reason="length")
    server.reply(reasoning="In short.", tool_calls=WHOLE)
    server.reply("Saved.")
    assert kimi.ask("A novel, please.", tools=tools, max_tokens=50).text == "Saved."
    assert {request.body["max_tokens"] for request in server.requests} == {50}
    assert saved == ["It was."]
    told = server.requests[1].body["messages"][-1]["content"]
    assert told.startswith("Nothing was run: your answer reached its limit of tokens")


def test_a_server_that_has_no_more_room(
    server: ScriptedServer, saved: list[str], tools: Sequence[Any]
) -> None:
    """Input: a cut call, then 400 for the higher limit. Holds: it is asked with the old one."""
    server.reply(reasoning="I write.", tool_calls=CUT, finish_reason="length")
    server.error(400, "max_tokens must be at most 20000")
    server.reply(reasoning="In short.", tool_calls=WHOLE)
    server.reply("Saved.")
    assert kimi.ask("A novel, please.", tools=tools).text == "Saved."
    limits = [request.body["max_tokens"] for request in server.requests]
    assert limits == [16_384, 65_536, 16_384, 16_384]
    assert saved == ["It was."]


def test_the_room_is_that_of_the_window(
    session: Session, scripted_server: ScriptedServer, tools: Sequence[Any]
) -> None:
    """Input: a cut call in a small window. Holds: the higher limit fits beside the request."""
    address = scripted_server.base_url
    endpoint = kimi.Endpoint("small", address, model="m", context_window=4096, max_tokens=999)
    scripted_server.reply(reasoning="I write.", tool_calls=CUT, finish_reason="length")
    scripted_server.reply("No.")
    kimi.ask("A novel, please: " + "x" * 4000, tools=tools, endpoint=endpoint)
    first, second = (request.body["max_tokens"] for request in scripted_server.requests)
    assert first == 999
    assert 2000 < second < 3096


def test_a_long_call_that_is_no_json_was_not_cut(
    server: ScriptedServer, saved: list[str], tools: Sequence[Any]
) -> None:
    """Input: a cut call, then one over the old limit that is no JSON. Holds: the turn goes on."""
    server.reply(reasoning="I write.", tool_calls=CUT, finish_reason="length")
    server.reply(reasoning="So.", tool_calls=CUT, usage=ENOUGH | {"completion_tokens": 20_000})
    server.reply(reasoning="In short.", tool_calls=WHOLE)
    server.reply("Saved.")
    assert kimi.ask("A novel, please.", tools=tools).text == "Saved."
    assert saved == ["It was."]


def test_whole_calls_beside_a_cut_one_run_once(
    server: ScriptedServer, saved: list[str], tools: Sequence[Any]
) -> None:
    """Input: whole calls around one that is cut. Holds: the whole ones run, each once, in order."""
    calls = [*WHOLE, *CUT, {"name": "save", "arguments": {"text": "The end."}}]
    server.reply(reasoning="I write.", tool_calls=calls, finish_reason="length")
    server.reply("Saved.")
    reply = kimi.ask("A novel, please.", tools=tools)
    assert saved == ["It was.", "The end."]
    assert [r.error for r in reply.tool_results] == [None, "cut at the limit of tokens", None]
    told = [m["content"] for m in server.requests[1].body["messages"] if m["role"] == "tool"]
    assert [text[:6] for text in told] == ["Saved.", "Nothin", "Saved."]


NAMELESS = b"""\
data: {"choices":[{"delta":{"reasoning_content":"So."}}]}

data: {"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c1","function":{"arguments":"{}"}}]}}]}

data: {"choices":[{"delta":{},"finish_reason":"tool_calls"}]}

data: [DONE]

"""


def test_a_call_without_a_name(
    server: ScriptedServer, saved: list[str], tools: Sequence[Any]
) -> None:
    """Input: a call whose name never comes. Holds: nothing runs; model and reader are told so."""
    server.raw([NAMELESS])
    server.reply(reasoning="I see.", tool_calls=WHOLE)
    server.reply("Saved.")
    events = list(kimi.stream("Save.", tools=tools))
    told = server.requests[1].body["messages"][-1]["content"]
    assert told == (
        "Nothing was run: this call has no name. Call one of the tools by its name: save."
    )
    (first, _) = (event.result for event in events if isinstance(event, ToolFinished))
    assert first.error == "the call has no name"
    timeline = Timeline()
    for event in events:
        timeline.apply(event)
    titles = [segment.title for segment in timeline.segments if segment.kind == "tool"]
    assert titles == ["a call without a name", "save"]
    assert saved == ["It was."]


ABSURD = [
    {"prompt_tokens": -5, "completion_tokens": -(10**9), "cached_tokens": -1},
    {"prompt_tokens": 10**15, "completion_tokens": 10**300},
    {"prompt_tokens": "9", "completion_tokens": [5], "prompt_tokens_details": "x"},
    {"prompt_tokens": True, "completion_tokens": 1e9, "completion_tokens_details": [1]},
    {"prompt_tokens": 9, "completion_tokens": 0, "cached_tokens": 10**9},
]


@pytest.mark.parametrize("usage", ABSURD)
def test_absurd_counts(
    session: Session, scripted_server: ScriptedServer, usage: dict[str, Any]
) -> None:
    """Input: negative and absurd usage counts. Holds: they count as unknown in sums and cost."""
    prices = (3.0, 15.0, 0.3)
    endpoint = kimi.Endpoint("lab", scripted_server.base_url, prices=prices)
    long = "A long question. " * 600
    chat = kimi.chat("counted")
    for given in ({"prompt_tokens": 3000, "completion_tokens": 100}, usage):
        scripted_server.reply("Yes.", usage=given)
        chat.ask(long, endpoint=endpoint)
    total = chat.usage
    assert 3000 <= total.prompt_tokens <= 3009
    assert total.completion_tokens == 100
    assert total.cached_tokens == 0
    assert 0.0105 <= total.cost <= 0.0106
    (calibration,) = session.chats.get("counted").calibrations.values()
    assert 0.25 <= calibration.factor <= 4


def test_a_count_of_five_thousand_digits(server: ScriptedServer) -> None:
    """Input: a number that Python refuses to read. Holds: the answer is whole."""
    server.raw(
        [
            b'data: {"choices":[{"delta":{"content":"Yes."},"finish_reason":"stop"}]}\n\n',
            b'data: {"choices":[],"usage":{"prompt_tokens":' + b"9" * 5000 + b"}}\n\n",
            b"data: [DONE]\n\n",
        ]
    )
    reply = kimi.ask("Hi")
    assert (reply.text, reply.usage.prompt_tokens) == ("Yes.", 0)
