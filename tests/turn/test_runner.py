"""A turn from the request to what is kept of it, where user code, sinks and consumers misbehave."""

from __future__ import annotations

import copy
import gc
import json
import signal
import weakref
from typing import Any

import pydantic
import pytest

import kimi_magic as kimi
from kimi_magic.core.errors import BadRequest, KimiError, TurnInterrupted
from kimi_magic.core.events import Envelope, Notice, TurnFinished
from kimi_magic.core.reply import Reply
from kimi_magic.schema.output import SchemaMismatch
from kimi_magic.session import Session
from kimi_magic.testing import ScriptedServer
from kimi_magic.turn.sinks import ChatSink

CALL = {"name": "make", "arguments": {}}


class Raw(pydantic.BaseModel):
    a: float
    b: bytes = pydantic.Field(default_factory=lambda: b"\xff")


class Shy(pydantic.BaseModel):
    a: float

    @pydantic.model_serializer
    def refuse(self) -> dict[str, Any]:
        raise RuntimeError("no")


class NoNumber(pydantic.BaseModel):
    a: float

    @pydantic.field_validator("a")
    @classmethod
    def nan(cls, _: float) -> float:
        return float("nan")


@pytest.mark.parametrize("schema", [Raw, Shy, NoNumber])
def test_data_that_are_no_json_lose_nothing(
    server: ScriptedServer, schema: type[pydantic.BaseModel]
) -> None:
    server.reply('{"a": 1}')
    reply = kimi.ask("x", schema=schema, chat="main", show=False)
    assert isinstance(reply.data, schema)
    assert kimi.last is reply
    assert len(kimi.chat().turns) == 1
    data = json.loads(json.dumps(reply.to_dict(), allow_nan=False))
    assert Reply.from_dict(data).record == reply.record


def test_a_consumer_may_leave_at_any_event(
    server: ScriptedServer, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = ("first", "1")
    monkeypatch.setattr("kimi_magic.session.running_cell", lambda: place)
    for cell, prompt in (("first", "a"), ("second", "b")):
        place = (cell, "1")
        server.reply("OK")
        kimi.ask(prompt, chat="main", show=False)
    place = ("first", "2")
    server.reply("three")
    for event in kimi.stream("a again", chat="main"):
        if isinstance(event, Notice):
            assert "set aside" in event.text
            break
    else:
        pytest.fail("a turn of another cell is set aside")
    assert session.last is not None
    assert session.last.text == "three"
    assert [turn.prompt for turn in kimi.chat().turns] == ["a again"]


def stop_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt arrives while the finished turn is kept."""
    handle = ChatSink.handle

    def interrupted(self: ChatSink, envelope: Envelope) -> None:
        handle(self, envelope)
        if isinstance(envelope.event, TurnFinished):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(ChatSink, "handle", interrupted)


@pytest.mark.parametrize("fails", [False, True])
def test_an_interrupt_at_the_end_of_a_turn_is_not_lost(
    server: ScriptedServer, session: Session, monkeypatch: pytest.MonkeyPatch, *, fails: bool
) -> None:
    stop_at_the_end(monkeypatch)
    session.settings.retries = 0
    for ask in (
        lambda: kimi.ask("x", chat="main", show=False),
        lambda: list(kimi.stream("x", chat="main")),
    ):
        if fails:
            server.error(400, "no")
        else:
            server.reply("OK")
        with pytest.raises(TurnInterrupted) as caught:
            ask()
        assert caught.value.reply is session.last


def test_validators_can_be_interrupted(server: ScriptedServer) -> None:
    class Slow(pydantic.BaseModel):
        a: int

        @pydantic.field_validator("a")
        @classmethod
        def check(cls, value: int) -> int:
            signal.raise_signal(signal.SIGINT)
            pytest.fail("it is let through")
            return value

    server.reply('{"a": 1}')
    with pytest.raises(TurnInterrupted) as caught:
        kimi.ask("x", schema=Slow, show=False)
    assert caught.value.reply is not None
    assert caught.value.reply.text == '{"a": 1}'


def test_what_a_tool_returned_lives_as_long_as_the_reply(
    server: ScriptedServer, session: Session
) -> None:
    class Frame:
        """A large object."""

    made: list[weakref.ref[Frame]] = []

    def make() -> Frame:
        """Make a frame."""
        frame = Frame()
        made.append(weakref.ref(frame))
        return frame

    server.reply(tool_calls=[CALL])
    server.reply("OK")
    gc.collect()
    gc.disable()
    try:
        reply: Reply | None = kimi.ask("x", tools=[make], show=False)
        assert made[0]() is not None
        assert reply is not None
        assert copy.copy(reply).values == reply.values
        reply = session.last = None
        assert made[0]() is None, "no cycle keeps it until the garbage is collected"
    finally:
        gc.enable()


def test_a_deep_copy_keeps_what_is_live(server: ScriptedServer) -> None:
    def make() -> set[int]:
        """Make a set."""
        return {1}

    server.reply(tool_calls=[CALL])
    server.reply("OK")
    reply = kimi.ask("x", tools=[make], show=False)
    again = copy.deepcopy(reply)
    assert again.tool_results[0].value == {1}
    assert again.tool_results[0].value is not reply.tool_results[0].value
    assert again.functions == reply.functions


def test_a_correction_that_quotes_half_a_code_point_is_sent(server: ScriptedServer) -> None:
    server.reply('{"a": "\\ud800"}')
    server.reply('{"a": 1}')
    assert kimi.ask("x", schema="a int", show=False).data == {"a": 1}


def test_a_proxy_that_is_none_is_named(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "foo://bar")
    with pytest.raises(BadRequest, match="HTTPS_PROXY") as caught:
        kimi.ask("x", endpoint="https://lab.example/v1", chat="main", show=False)
    assert caught.value.reply is kimi.last
    assert kimi.chat().unanswered is not None


def test_a_call_that_was_stopped_before_it_ran_says_so(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: str) -> str:
        signal.raise_signal(signal.SIGINT)
        return "y"

    @kimi.tool(confirm=True)
    def make() -> None:
        """Make it."""
        pytest.fail("nobody said yes")

    monkeypatch.setattr("kimi_magic.turn.runner.can_answer", lambda: True)
    monkeypatch.setattr("builtins.input", interrupt)
    server.reply(tool_calls=[CALL])
    with pytest.raises(TurnInterrupted) as caught:
        kimi.ask("x", tools=[make], show=False)
    assert caught.value.reply is not None
    (result,) = caught.value.reply.tool_results
    assert (result.error, result.content.partition(":")[0]) == ("cancelled", "Cancelled")


def test_the_error_of_a_schema_comes_back_as_its_class(server: ScriptedServer) -> None:
    for _ in range(3):
        server.reply("no")
    with pytest.raises(SchemaMismatch) as caught:
        kimi.ask("x", schema="a int", show=False)
    assert caught.value.reply is not None
    again = Reply.from_dict(caught.value.reply.to_dict()).error
    assert type(again) is SchemaMismatch
    assert isinstance(again, KimiError)
    assert str(again) == str(caught.value)
