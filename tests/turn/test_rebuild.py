"""Chats that are rebuilt of stored turns go on as the chats in which the turns were made."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from kimi_magic import session as session_module
from kimi_magic.chats.chat import Chat, Place
from kimi_magic.core.errors import KimiError
from kimi_magic.core.reply import Reply
from kimi_magic.core.turn_record import EndpointFacts, TurnRecord
from kimi_magic.session import Session
from kimi_magic.testing import ScriptedServer
from kimi_magic.tools.decorator import offered, tool
from kimi_magic.turn.rebuild import rebuild
from kimi_magic.turn.request import continuation, make_request, request_of
from tests.kept_turns import record


@pytest.fixture(params=["moonshot", "moonshot-k3", "vllm"])
def peer(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ScriptedServer]:
    with ScriptedServer(dialect=request.param) as server:
        monkeypatch.setenv("KIMI_BASE_URL", server.base_url)
        yield server


def stored(reply: Reply) -> Reply:
    """A reply as it comes out of a journal."""
    return Reply.from_dict(json.loads(json.dumps(reply.record.without_history().to_dict())))


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def test_a_chat_stands_again(peer: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Session(), Session()
    replies: list[Reply] = []

    def ask(cell: str, run: str, prompt: str, **options: Any) -> None:
        monkeypatch.setattr(session_module, "running_cell", lambda: (cell, run))
        with suppress(KimiError):
            first.ask(make_request(prompt, chat="main", **options), show=False)
        assert first.last is not None
        replies.append(stored(first.last))

    model = peer.models[0]
    peer.reply("Hello.", reasoning="They greet.")
    ask("a", "1", "Hi", model=model)
    peer.reply(tool_calls=[{"name": "add", "arguments": {"a": 1, "b": 2}}], reasoning="I add.")
    peer.reply("It is 3.")
    ask("b", "2", "1 + 2?", model=model, tools=[add])
    peer.reply("Bye.")
    ask("c", "3", "Bye", model=model)
    peer.reply("It is 3, again.", reasoning="As before.")
    ask("b", "4", "1 + 2, again?", model=model, tools=[add])
    peer.error(401, "no")
    ask("d", "5", "Secret?", model=model)

    chat = second.chats.get("main")
    rebuild(chat, replies, connector=second.connector, settings=second.settings)
    before = first.chats.get("main")
    assert chat.messages == before.messages
    assert [t.reply.messages for t in chat.turns] == [t.reply.messages for t in before.turns]
    assert [t.reply.record for t in chat.turns] == [t.reply.record for t in before.turns]
    assert [t.prompt for t in chat.set_aside] == [t.prompt for t in before.set_aside]
    assert [t.place for t in chat.turns] == [t.place for t in before.turns]
    again = continuation(chat, Place("e", "6"))
    asked = continuation(before, Place("e", "6"))
    assert (again.prompt, again.resumed, again.chat) == (asked.prompt, True, "main")
    for cell in ("a", "b", "e"):
        monkeypatch.setattr(session_module, "running_cell", lambda cell=cell: (cell, "9"))
        for request in (again, make_request("What now?", chat="main", model=model)):
            texts = [s.dry_run(request).text for s in (first, second)]
            assert texts[0].split("\n\n")[1:] == texts[1].split("\n\n")[1:]
    first.close()
    second.close()


def test_a_turn_that_was_cut_goes_on(peer: ScriptedServer) -> None:
    first, second = Session(), Session()
    peer.reply("The beginning of", finish_reason="length")
    options: dict[str, Any] = {"model": peer.models[0], "max_tokens": 50, "system": "Be brief."}
    first.ask(make_request("Tell", chat="main", **options), show=False)
    assert first.last is not None
    chat = second.chats.get("main")
    rebuild(chat, [stored(first.last)], connector=second.connector, settings=second.settings)
    asked = [continuation(c, Place("z", "1")) for c in (first.chats.get("main"), chat)]
    assert asked[1] == replace(asked[0], endpoint="custom", model=asked[1].model)
    peer.reply(" the story.")
    second.ask(asked[1], show=False)
    body = peer.requests[-1].body
    peer.reply(" the story.")
    first.ask(asked[0], show=False)
    assert body == peer.requests[-1].body
    first.close()
    second.close()


OPTIONS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.1},
    {"top_p": 0.5, "seed": 3, "stop": ["END"]},
    {"max_tokens": 77},
    {"system": ""},
    {"system": "Be brief."},
    {"effort": "low"},
    {"stream": False},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_request_is_made_of_its_record(peer: ScriptedServer, options: dict[str, Any]) -> None:
    if "effort" in options and "k3" not in peer.dialect:
        pytest.skip("has no levels")
    session = Session()
    peer.reply("Yes.")
    session.ask(make_request("Tell", model=peer.models[0], **options), show=False)
    assert session.last is not None
    again = request_of(stored(session.last).record, session.connector, session.settings)
    peer.reply("Yes.")
    session.ask(again, show=False)
    first, second = [request.body for request in peer.requests if request.body]
    assert first == second
    session.close()


def test_only_tools_that_are_offered_now(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("add", "run_python", "os.system")
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    kept = record("x", parameters={"model": "kimi-k3", "tools": [*tools, 7, {"function": 3}]})
    request = request_of(kept, session.connector, session.settings)
    assert list(request.tools) == []
    tool(add)
    try:
        assert [spec.name for spec in request.tools] == ["add"]
    finally:
        offered.clear()


@pytest.mark.parametrize(
    "parameters",
    [
        {"model": 5, "tools": "all", "stream": None},
        {"model": "kimi-k2-thinking", "temperature": "hot", "top_p": -4, "stop": 7, "seed": []},
        {"model": "kimi-k2-thinking", "max_tokens": "many", "tools": {"function": "x"}},
        {"model": "", "temperature": float("nan")},
    ],
)
def test_a_record_that_was_changed_asks_nothing_odd(
    session: Session, parameters: dict[str, Any]
) -> None:
    kept = record("x", parameters=parameters, endpoint=EndpointFacts("moonshot", "http://evil/v1"))
    request = request_of(kept, session.connector, session.settings)
    assert request.temperature is request.max_tokens is request.top_p is None
    assert request.endpoint in (None, "moonshot")


def test_an_address_in_a_record_is_not_asked(session: Session) -> None:
    kept = record("x", endpoint=EndpointFacts("http://evil/v1", "http://evil/v1"))
    assert request_of(kept, session.connector, session.settings).endpoint is None


def test_a_lost_turn_without_an_answer_is_asked_again(session: Session) -> None:
    chat = Chat("main", session._ask_in_chat)
    kept = Reply(record("Why?", cell="a", run="1").without_history())
    rebuild(chat, [kept], connector=session.connector, settings=session.settings)
    assert chat.turns == ()
    request = continuation(chat, Place("b", "2"))
    assert (request.prompt, request.resumed) == ("Why?", True)
    assert isinstance(kept.record, TurnRecord)


def test_the_form_of_the_answer_is_asked_again(session: Session) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    sent = {"model": "kimi-k3", "response_format": form}
    kept = record("x", parameters=sent, endpoint=EndpointFacts("moonshot"))
    assert request_of(kept, session.connector, session.settings).schema == schema
    for hostile in (5, {"type": "json_schema", "json_schema": 7}, {"type": "json_object"}):
        kept = record("x", parameters=sent | {"response_format": hostile})
        assert request_of(kept, session.connector, session.settings).schema is None


def test_the_properties_of_the_form_stand_in_their_order(session: Session) -> None:
    """In a notebook that nbformat wrote, they are sorted."""
    inner = {"type": "object", "properties": {"z": {}, "a": {}}, "required": ["z", "a"]}
    schema = {
        "properties": {"why": {"anyOf": [inner]}, "answer": {}},
        "required": ["why", "answer"],
    }
    form = json.loads(json.dumps({"json_schema": {"schema": schema}}, sort_keys=True))
    kept = record("x", parameters={"model": "kimi-k3", "response_format": form})
    again = request_of(kept, session.connector, session.settings).schema
    assert again == schema
    assert list(again["properties"]) == ["why", "answer"]
    assert list(again["properties"]["why"]["anyOf"][0]["properties"]) == ["z", "a"]
    deep: Any = {}
    for _ in range(2000):
        deep = {"items": deep}
    kept = record("x", parameters={"response_format": {"json_schema": {"schema": deep}}})
    assert request_of(kept, session.connector, session.settings).schema is None
