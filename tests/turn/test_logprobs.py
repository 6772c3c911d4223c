"""Turns that ask how likely each token was, of servers that tell and servers that do not."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pandas as pd
import polars as pl
import pytest

import kimi_magic as kimi
from kimi_magic.core.errors import BadRequest, KimiError
from kimi_magic.core.events import Event, Notice
from kimi_magic.core.reply import Reply
from kimi_magic.session import Session, current
from kimi_magic.testing import ScriptedServer
from kimi_magic.testing.answers import Token
from kimi_magic.turn.request import make_request

LACKING = "kimi-k2-thinking gives no logprobs here."
TOKENS: list[Token] = [
    ("9", -0.1, {"8": -2.4}),
    (".9", -1.2, {".8": -0.5}),
    (b" \xf0\x9f", -0.3),
    (b"\x99\x82", -0.2),
]


def notices(events: Iterator[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Notice)]


def ask(prompt: str = "Which?", **options: object) -> tuple[Reply, list[str]]:
    told = notices(kimi.stream(prompt, logprobs=True, **options))  # type: ignore[arg-type]
    assert kimi.last is not None
    return kimi.last, told


def asked(server: ScriptedServer) -> list[bool]:
    return ["logprobs" in request.body for request in server.requests]


@pytest.fixture
def refusing(session: Session, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    with ScriptedServer("nvidia") as server:
        monkeypatch.setenv("KIMI_BASE_URL", server.base_url)
        monkeypatch.setenv("KIMI_MODEL", server.models[0])
        yield server


@pytest.mark.parametrize("whole", [False, True])
def test_what_is_asked_and_what_comes(server: ScriptedServer, whole: bool) -> None:
    server.reply("9.9 🙂", reasoning="Compare them.", logprobs=TOKENS)
    if whole:
        request = make_request("Which?", logprobs=True, stream=False)
        reply, told = current().ask(request, show=False), list[str]()
    else:
        reply, told = ask()
    assert told == []
    body = server.requests[0].body
    assert (body["logprobs"], body["top_logprobs"]) == (True, 5)
    assert reply.record.parameters["top_logprobs"] == 5
    (step,) = reply.steps
    assert [token.token for token in step.logprobs] == ["9", ".9", " ", "🙂"]
    assert "".join(token.token for token in step.reasoning_logprobs) == "Compare them."
    again = Reply.from_dict(json.loads(json.dumps(reply.to_dict())))
    assert again.steps[0].logprobs == step.logprobs


def test_the_frame(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.reply("9.9 🙂", reasoning="So.", logprobs=TOKENS)
    reply, _ = ask()
    frame = reply.logprobs
    assert isinstance(frame, pd.DataFrame)
    assert list(frame.columns) == (
        ["step", "place", "kind", "token", "logprob", "probability", "alternatives"]
    )
    answer = frame[frame.kind == "answer"].reset_index()
    assert answer.token.tolist() == ["9", ".9", " ", "🙂"]
    assert (answer.step[0], answer.place.tolist()) == (1, [1, 2, 3, 4])
    assert answer.probability.round(2).tolist() == [0.9, 0.3, 0.74, 0.82]
    assert [each["token"] for each in answer.alternatives[1]] == [".8", ".9"]

    monkeypatch.setitem(sys.modules, "pandas", None)
    same = reply.logprobs
    assert isinstance(same, pl.DataFrame)
    assert same["logprob"].to_list() == frame.logprob.tolist()
    assert [each["token"] for each in same["alternatives"][2]] == [".8", ".9"]

    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(KimiError, match="pip install pandas") as raised:
        _ = reply.logprobs
    assert "\n" not in str(raised.value)


def test_a_reply_without_them(server: ScriptedServer) -> None:
    server.reply("9.9", logprobs=True)
    reply = kimi.ask("Which?", show=False)
    assert asked(server) == [False]
    with pytest.raises(KimiError, match="logprobs=True") as raised:
        _ = reply.logprobs
    assert "\n" not in str(raised.value)


def test_a_server_that_refuses_is_asked_once_more_and_then_never(refusing: ScriptedServer) -> None:
    for text in ("9.9", "9.8"):
        refusing.reply(text)
        reply, told = ask()
        assert (reply.text, told) == (text, [LACKING])
    assert asked(refusing) == [True, False, False]
    assert "logprobs" not in reply.record.parameters


def test_it_is_remembered_for_that_model_at_that_endpoint(
    refusing: ScriptedServer, scripted_server: ScriptedServer
) -> None:
    refusing.reply("9.9")
    ask()
    kimi.add_endpoint(name="other", base_url=scripted_server.base_url)
    scripted_server.reply("9.9", logprobs=True)
    reply, told = ask(endpoint="other", model=scripted_server.models[0])
    assert told == []
    assert reply.steps[0].logprobs


def test_a_server_that_ignores_them(server: ScriptedServer) -> None:
    server.reply("", tool_calls=[{"name": "tell", "arguments": {}}], reasoning="Hm.")
    server.reply("9.9", reasoning="So.")

    def tell() -> str:
        """Tell."""
        return "x"

    reply, told = ask(tools=[tell])
    assert (reply.text, told) == ("9.9", [LACKING])
    server.reply("9.8")
    assert ask()[1] == [LACKING]
    assert asked(server) == [True, True, False]


@pytest.mark.parametrize("words", ["top_logprobs: extra inputs are not permitted", "bad request"])
def test_a_refusal_in_any_words(server: ScriptedServer, words: str) -> None:
    server.error(400, words)
    server.reply("9.9")
    reply, told = ask()
    assert (reply.text, told) == ("9.9", [LACKING])
    assert asked(server) == [True, False]


def test_what_else_is_refused_is_not_laid_to_them(server: ScriptedServer) -> None:
    server.error(400, "the image is broken")
    server.error(400, "the image is broken")
    with pytest.raises(BadRequest, match="the image is broken"):
        ask()
    server.reply("9.9", logprobs=True)
    reply, told = ask()
    assert told == []
    assert reply.steps[0].logprobs
    assert asked(server) == [True, False, True]


def test_a_schema_that_is_refused_as_well(server: ScriptedServer) -> None:
    """Each looser hold on the answer is tried with them first."""
    server.error(400, "response_format is not supported")
    server.error(400, "response_format is not supported")
    server.reply('{"name": "Ada"}', logprobs=True)
    reply, told = ask(schema="name")
    assert reply.data == {"name": "Ada"}
    assert reply.steps[0].logprobs
    assert not any("logprobs" in line for line in told)
    assert asked(server) == [True, False, True]


def test_too_many_for_the_turns_memory(server: ScriptedServer, session: Session) -> None:
    session.settings.max_turn_bytes = 100_000
    server.reply("word " * 1000, logprobs=True)
    reply, told = ask()
    assert len(reply.text) == 5000
    assert reply.steps[0].logprobs == ()
    assert len(told) == 1
    assert "too many" in told[0]
    server.reply("9.9", logprobs=True)
    assert ask()[1] == [], "it is not remembered"


@pytest.mark.parametrize("value", ["yes", 5])
def test_what_is_no_switch(session: Session, value: object) -> None:
    with pytest.raises(KimiError, match="logprobs= takes True or False"):
        kimi.ask("x", logprobs=value)  # type: ignore[arg-type]


def test_heavy_mode_has_them_for_each_trajectory(server: ScriptedServer) -> None:
    for text in ("9.9", "9.9", "9.9 it is"):
        server.reply(text, logprobs=True)
    reply, told = ask(heavy=2)
    assert not any("logprobs" in line for line in told)
    assert all(each.steps[0].logprobs for each in reply.trajectories)
    assert len(reply.logprobs) == 3
