"""Requests that fit the model: on servers that refuse what the real ones refuse."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest

import kimi_magic as kimi
from kimi_magic.core.errors import BadRequest, ConnectionFailed, KeyRefused, KimiError, NotFound
from kimi_magic.core.events import Event, Notice, TurnFinished
from kimi_magic.core.messages import ImagePart
from kimi_magic.core.reply import Reply
from kimi_magic.core.turn_record import TurnRecord
from kimi_magic.display.timeline import Timeline
from kimi_magic.session import Session
from kimi_magic.testing import K3_DIALECTS, ScriptedServer
from kimi_magic.turn.request import make_request
from kimi_magic.wire import connector as connector_module
from kimi_magic.wire.endpoints import Endpoint
from tests.faulty import EVENTS, Answer, Asked, answering


def add(x: int, y: int) -> int:
    """Add two numbers."""
    return x + y


def endpoint(server: ScriptedServer, **fields: Any) -> str:
    like = server.dialect.removesuffix("-k3")
    return kimi.add_endpoint(name="x", base_url=server.base_url, like=like, **fields).name


def taken(prompt: str, **options: Any) -> tuple[Reply, list[str]]:
    """Ask, and return the reply with the notices that were shown."""
    events = list(kimi.stream(prompt, **options))
    assert isinstance(events[-1], TurnFinished)
    return events[-1].reply, [event.text for event in events if isinstance(event, Notice)]


@pytest.mark.parametrize("dialect", K3_DIALECTS)
def test_a_chat_with_tools_on_k3(session: Session, dialect: str) -> None:
    with ScriptedServer(dialect) as server:
        name = endpoint(server)
        for _ in range(2):
            server.reply(
                reasoning="Add.",
                tool_calls=[{"name": "add", "arguments": {"x": 2, "y": 3}, "id": "call_1"}],
            )
            server.reply("It is 5.", reasoning="Done.")
            kimi.ask("2 + 3?", endpoint=name, chat="main", tools=add, show=False)
        server.reply("No reasoning here.")
        kimi.ask("And?", endpoint=name, chat="main", show=False)
        server.reply("Yes.")
        kimi.ask("So?", endpoint=name, chat="main", show=False)
        bodies = [request.body for request in server.requests if request.method == "POST"]
    assert {body["model"] for body in bodies} == set(server.models)
    assert {body["max_completion_tokens"] for body in bodies} == {131_072}
    assert not any({"temperature", "top_p", "max_tokens"} & body.keys() for body in bodies)
    calls = [call["id"] for m in bodies[-1]["messages"] for call in m.get("tool_calls", ())]
    assert calls[0] == "call_1", "the server's own id"
    assert len(set(calls)) == 2, "no id twice, although the server gave one twice"
    key = server._flavour.reasoning
    answers = [m for m in bodies[-1]["messages"] if m["role"] == "assistant"]
    assert [m[key] for m in answers] == ["Add.", "Done.", "Add.", "Done.", ""]


def test_a_chat_goes_on_with_k3_that_another_model_began(session: Session) -> None:
    with ScriptedServer() as before:
        before.reply("<think>So.</think>Hi.")
        kimi.ask("Hi", endpoint=before.base_url, chat="main", show=False)
    with ScriptedServer("moonshot-k3") as server:
        server.reply("Ho.")
        kimi.ask("Ho", endpoint=endpoint(server), chat="main", show=False)
        (request,) = server.requests
    assert request.body["messages"][2]["reasoning_content"] == "So."


@pytest.mark.parametrize("dialect", K3_DIALECTS)
def test_reasoning_that_came_in_the_text_goes_back_in_the_servers_field(
    session: Session, dialect: str
) -> None:
    call = '<|open|>tools<|sep|><|open|>call tool="add" index="1"<|sep|>'
    with ScriptedServer(dialect) as server:
        name = endpoint(server)
        server.reply(f"Add.<|close|>think<|sep|>{call}<|close|>call<|sep|><|close|>tools<|sep|>")
        server.reply("Why.<|close|>think<|sep|>Done.")
        kimi.ask("2 + 3?", endpoint=name, chat="main", tools=add, show=False)
        server.reply("Yes.")
        kimi.ask("So?", endpoint=name, chat="main", show=False)
        answers = [m for m in server.requests[-1].body["messages"] if m["role"] == "assistant"]
    assert [m[server._flavour.reasoning] for m in answers] == ["Add.", "Why."]


@pytest.mark.parametrize("dialect", K3_DIALECTS)
def test_a_chat_with_k3_goes_on_at_another_server(session: Session, dialect: str) -> None:
    for each in ("moonshot-k3", "vllm-k3", dialect):
        with ScriptedServer(each) as server:
            server.reply("Yes.", reasoning="Why.")
            kimi.ask("So?", endpoint=endpoint(server), chat="main", show=False)
            answers = [m for m in server.requests[-1].body["messages"] if m["role"] == "assistant"]
        assert all(m[server._flavour.reasoning] == "Why." for m in answers)
    assert len(answers) == 2


def test_sampling_that_the_model_fixes_is_left_out_with_one_notice(session: Session) -> None:
    with ScriptedServer("moonshot-k3") as server:
        server.reply("OK", usage={"prompt_tokens": 1_000_000, "completion_tokens": 0})
        reply, notices = taken("Hi", endpoint=endpoint(server), temperature=0.2, top_p=0.5)
    assert notices == ["kimi-k3 fixes its sampling: temperature and top_p are left out."]
    assert reply.usage.cost == pytest.approx(3.0)


def test_what_is_left_out_is_told_of_the_model_that_answers(session: Session) -> None:
    """A default that is gone gives way: its rules were no matter."""
    with ScriptedServer(models=["kimi-k2.6"]) as server:
        server.error(404, GONE)
        server.reply("OK")
        _, notices = taken("Hi", endpoint=endpoint(server), temperature=0.2)
        assert server.requests[-1].body["temperature"] == 0.2
    assert [notice.partition(" ")[0] for notice in notices] == ["kimi-k3"]
    assert "kimi-k2.6 answers" in notices[0]
    with ScriptedServer(models=["kimi-k3.1-pro"]) as server:
        server.error(410, GONE)
        server.reply("OK")
        _, notices = taken("Hi", endpoint=endpoint(server), temperature=0.2)
    assert notices[1:] == ["kimi-k3.1-pro fixes its sampling: temperature is left out."]
    with ScriptedServer(models=["kimi-k3"]) as server:
        server.error(400, "No.")
        told: list[Event] = []
        with pytest.raises(BadRequest):
            told.extend(kimi.stream("Hi", endpoint=endpoint(server), temperature=0.2))
    assert Notice("kimi-k3 fixes its sampling: temperature is left out.") in told


def test_the_sampling_of_other_models_is_the_users(session: Session) -> None:
    with ScriptedServer() as server:
        server.reply("OK")
        _, notices = taken(
            "Hi", endpoint=endpoint(server), model="kimi-k2-thinking", temperature=0.2
        )
    assert not notices
    assert server.requests[0].body["temperature"] == 0.2


@pytest.mark.parametrize("dialect", K3_DIALECTS)
def test_an_effort_that_the_server_takes(session: Session, dialect: str) -> None:
    with ScriptedServer(dialect) as server:
        server.reply("OK")
        kimi.ask("Hi", endpoint=endpoint(server), effort="low", show=False)
    assert server.requests[-1].body["reasoning_effort"] == "low"


def test_an_effort_that_the_model_does_not_have(session: Session) -> None:
    with ScriptedServer() as server:
        name, model = endpoint(server), "kimi-k2-thinking"
        with pytest.raises(KimiError, match=r"^kimi-k2-thinking has no levels of effort: .*--eff"):
            kimi.ask("Hi", endpoint=name, model=model, effort="low", show=False)
        assert not server.requests
        session.settings.effort = "high"
        server.reply("OK")
        _, notices = taken("Hi", endpoint=name, model=model)
    assert notices == [
        "The setting effort is left out: kimi-k2-thinking has no levels of effort."
    ]  # fmt: skip
    with pytest.raises(KimiError, match="effort= is one of low, high, max"):
        kimi.ask("Hi", effort="huge")


GONE = "The model has reached its end of life on 2026-05-25."


@pytest.mark.parametrize("status", [404, 410])
def test_a_default_that_is_gone_gives_way_to_the_newest(session: Session, status: int) -> None:
    models = ["kimi-k3.1-pro", "kimi-k3.1-pro-highspeed", "kimi-k2.6"]
    with ScriptedServer(models=models) as server:
        name = endpoint(server)
        server.error(status, GONE)
        server.reply("OK")
        reply, notices = taken("Hi", endpoint=name)
        server.reply("OK")
        _, later = taken("Hi", endpoint=name)
        asked = [request.body["model"] for request in server.requests if request.body]
    assert (reply.text, reply.model) == ("OK", "kimi-k3.1-pro")
    assert asked == ["kimi-k3", "kimi-k3.1-pro", "kimi-k3.1-pro"]
    assert len(notices) == 1
    assert "kimi-k3 " in notices[0]
    assert "kimi-k3.1-pro" in notices[0]
    assert not later


def test_the_reader_sees_the_model_that_answers(session: Session) -> None:
    """In a live view, at the head of a text, and in the record."""
    with ScriptedServer(models=["kimi-k3.1-pro"]) as server:
        server.error(404, GONE)
        server.reply("OK", reasoning="So.")
        events = list(kimi.stream("Hi", endpoint=endpoint(server)))
    timeline = Timeline()
    states = [op for event in events for op in timeline.apply(event) if op["op"] == "state"]
    assert timeline.head == "kimi-k3.1-pro"
    assert [op["text"] for op in states if "Waiting" in op["text"]][-1] == (
        "Waiting for kimi-k3.1-pro…"
    )


def test_a_model_that_is_gone_may_still_be_listed(session: Session) -> None:
    with ScriptedServer(models=["kimi-k3", "kimi-k2.6"]) as server:
        server.error(410, GONE)
        server.reply("OK")
        name = endpoint(server)
        assert taken("Hi", endpoint=name)[0].model == "kimi-k2.6"
        for _ in range(2):  # nothing else is left: no model is asked for twice in a turn
            server.error(410, GONE)
        with pytest.raises(NotFound):
            kimi.ask("Hi", endpoint=name, show=False)
        asked = [request.body["model"] for request in server.requests if request.body]
    assert asked == ["kimi-k3", "kimi-k2.6", "kimi-k2.6", "kimi-k3"]


@pytest.mark.parametrize("status", [404, 410])
def test_a_model_that_the_user_named_is_never_replaced(session: Session, status: int) -> None:
    with ScriptedServer(models=["kimi-k3", "kimi-k2.6"]) as server:
        name = endpoint(server)
        server.error(status, GONE)
        with pytest.raises(NotFound) as failed:
            kimi.ask("Hi", endpoint=name, model="kimi-k2-thinking", show=False)
        session.settings.model = "kimi-k2-thinking"
        server.error(status, GONE)
        with pytest.raises(NotFound):
            kimi.ask("Hi", endpoint=name, show=False)
        posts = [request for request in server.requests if request.method == "POST"]
    assert len(posts) == 2, "never asked again"
    assert "2026-05-25" in str(failed.value), "the server's words"
    assert "kimi-k3" in str(failed.value), "the ids that there are"


def test_a_default_without_a_replacement_fails_as_before(session: Session) -> None:
    with ScriptedServer(models=["a", "b"]) as server:
        server.error(404, "Not found the model")
        with pytest.raises(NotFound, match=r"(?s)answered 404.*but b, a"):
            kimi.ask("Hi", endpoint=server.base_url, show=False)


def test_ones_own_server_answers_with_what_it_lists(session: Session) -> None:
    with ScriptedServer("vllm", models=["qwen3-32b"]) as server:
        name = endpoint(server)
        for _ in range(2):
            server.reply("OK")
            reply, notices = taken("Hi", endpoint=name)
        paths = [request.path.rpartition("/")[2] for request in server.requests]
    assert paths == ["models", "completions", "completions"]
    assert (reply.model, notices) == ("qwen3-32b", [])
    roles = [message["role"] for message in server.requests[-1].body["messages"]]
    assert roles == ["user"], "only Kimi is told that it is Kimi"


@pytest.mark.parametrize("way", ["KIMI_BASE_URL", "a URL", "add_endpoint"])
def test_an_address_that_nobody_knows_answers_with_what_it_lists(
    session: Session, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    with ScriptedServer("llamacpp", models=["/models/qwen3-32b.gguf"]) as server:
        where: Any = {"endpoint": server.base_url}
        if way == "KIMI_BASE_URL":
            monkeypatch.setenv("KIMI_BASE_URL", server.base_url)
            where = {}
        elif way == "add_endpoint":
            where = {"endpoint": kimi.add_endpoint(name="lab", base_url=server.base_url)}
        dry = session.dry_run(make_request("Hi", **where)).text
        assert "would be asked for its models first: kimi-k2-thinking stands for" in dry
        image = ImagePart("AAAA", width=9, height=9)
        assert "stands for" in session.dry_run(make_request("Hi", images=(image,), **where)).text
        assert not server.requests
        for _ in range(2):
            server.reply("OK")
            reply, notices = taken("Hi", **where)
        paths = [request.path.rpartition("/")[2] for request in server.requests]
        assert paths == ["models", "completions", "completions"], "asked once"
        assert (reply.model, notices) == ("/models/qwen3-32b.gguf", [])
        body = server.requests[-1].body
        assert body["model"] == "/models/qwen3-32b.gguf"
        assert [message["role"] for message in body["messages"]] == ["user"], "it is no Kimi"
        assert "model /models/qwen3-32b.gguf:" in session.dry_run(make_request("Hi", **where)).text
        server.reply("OK")
        assert taken("Hi", model="named", **where)[0].model == "named"
        assert len(server.requests) == 4


def test_no_list_is_asked_for_where_a_model_is_named(session: Session) -> None:
    """By the turn, the setting, or the endpoint, also one that resembles another."""
    with ScriptedServer(models=["kimi-k3", "kimi-k2.6"]) as server:
        mine, bare = endpoint(server, model="my-model"), Endpoint("bare", server.base_url)
        vllm = kimi.add_endpoint(name="y", base_url=server.base_url, like="vllm", model="my-model")
        for options in ({"endpoint": mine}, {"endpoint": vllm}):
            server.reply("OK")
            assert taken("Hi", **options)[0].model == "my-model"
        server.reply("OK")
        assert taken("Hi", endpoint=bare, model="a")[0].model == "a"
        session.settings.model = "b"
        server.reply("OK")
        assert taken("Hi", endpoint=bare)[0].model == "b"
        assert {request.method for request in server.requests} == {"POST"}
        session.settings.model = ""
        server.reply("OK")
        assert taken("Hi", endpoint=bare)[0].model == "kimi-k3"
        server.reply("OK")
        assert taken("Hi", endpoint=mine)[0].model == "my-model", "whatever is listed there"


def test_a_list_is_asked_for_again_once_the_server_is_reached(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.settings.retries = 0
    with ScriptedServer(key="right", models=["qwen"], strict=False) as server:
        lab = Endpoint("lab", server.base_url, "LAB_KEY")
        monkeypatch.setenv("LAB_KEY", "wrong")
        with pytest.raises(KeyRefused):
            kimi.ask("Hi", endpoint=lab, show=False)
        monkeypatch.setenv("LAB_KEY", "right")
        server.reply("OK")
        assert kimi.ask("Hi", endpoint=lab, show=False).model == "qwen"
    with pytest.raises(ConnectionFailed):
        kimi.ask("Hi", endpoint=lab.base_url, model="x", show=False)
    nobody = "http://127.0.0.1:9/v1"
    with pytest.raises(ConnectionFailed):
        kimi.ask("Hi", endpoint=nobody, show=False)
    assert session.connector.default_model(Endpoint("y", nobody)) == "", "not known yet"
    assert session.connector.default_model(lab) == "qwen"


def test_a_server_without_a_list_is_asked_as_before(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has none, an empty one, one that is none, or lets one wait."""
    monkeypatch.setattr(connector_module, "LISTING_TIMEOUT", 0.1)
    until = threading.Event()

    def late(_: Asked) -> Answer:
        until.wait(10)
        return Answer()

    lists: list[Callable[[Asked], Answer]] = [
        lambda _: Answer(404, b"{}"),
        lambda _: Answer(200, b'{"data": []}'),
        lambda _: Answer(200, b"<html>", "text/html"),
        late,
    ]
    chunk = {"choices": [{"index": 0, "delta": {"content": "OK"}, "finish_reason": "stop"}]}
    answer = Answer(200, f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode(), EVENTS)
    for listed in lists:
        with answering(lambda a, f=listed: f(a) if a.method == "GET" else answer) as (url, asked):  # type: ignore[misc]
            for _ in range(2):
                reply = kimi.ask("Hi", endpoint=url, show=False)
                assert reply.record.parameters["model"] == "kimi-k2-thinking"
        assert [request.method for request in asked] == ["GET", "POST", "POST"]
    until.set()


def test_a_list_that_cannot_be_had_is_no_obstacle(session: Session) -> None:
    with ScriptedServer("openrouter", models=[]) as server:
        server.models = ()
        server.reply("OK")
        reply, _ = taken("Hi", endpoint=endpoint(server))
    assert reply.text == "OK"
    assert server.requests[-1].body["model"] == "moonshotai/kimi-k3"


def test_the_key_of_a_known_endpoint_stays_with_its_address(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOONSHOT_API_KEY", "sk-" + "0123456789abcdef" * 2)
    with ScriptedServer("moonshot-k3") as server:
        server.reply("OK")
        assert kimi.ask("Hi", endpoint=endpoint(server), show=False).text == "OK"
    assert "0123456789abcdef" not in str(server.requests[0].headers)


def test_the_record_has_the_parameters_of_the_answers_request(session: Session) -> None:
    """With tools, the answer that does not fit is asked for again, without tools and held."""
    with ScriptedServer("moonshot-k3") as server:
        name = endpoint(server)
        server.reply(tool_calls=[{"name": "add", "arguments": {"x": 2, "y": 3}}])
        server.reply('{"sum": 5}')
        fits = kimi.ask("2 + 3?", endpoint=name, tools=add, schema="sum int", show=False)
        server.reply("five")
        server.reply('{"sum": 5}')
        mended = kimi.ask("2 + 3?", endpoint=name, tools=add, schema="sum int", show=False)
        sent = [dict(request.body) for request in server.requests]
    for body in sent:
        del body["messages"]
    assert fits.record.parameters == sent[1]
    assert mended.record.parameters == sent[3] | {"tools": sent[2]["tools"]}
    assert "response_format" in mended.record.parameters
    assert "response_format" not in fits.record.parameters
    assert TurnRecord.from_dict(mended.record.to_dict()) == mended.record


def test_the_model_is_told_of_calls_that_cannot_be_read(session: Session) -> None:
    """K3's raw text: a value that never ends, and a key that is there twice."""

    def argument(key: str, value: str, end: str = "<|close|>argument<|sep|>") -> str:
        return f'<|open|>argument key="{key}" type="number"<|sep|>{value}{end}'

    def call(*arguments: str) -> str:
        return f'<|open|>call tool="add" index="1"<|sep|>{"".join(arguments)}<|close|>call<|sep|>'

    calls = [
        call(argument("x", "2"), argument("y", "3", "")),
        call(argument("x", "2"), argument("x", "4"), argument("y", "3")),
        call(argument("x", "2"), argument("y", "3")),
    ]
    written = f"I add.<|open|>tools<|sep|>{''.join(calls)}<|close|>tools<|sep|>"
    with ScriptedServer("vllm-k3") as server:
        server.reply(f"{written}<|close|>message<|sep|>")
        server.reply("It is 5.")
        reply = kimi.ask("2 + 3?", endpoint=endpoint(server), tools=add, show=False)
        results = [m["content"] for m in server.requests[-1].body["messages"][-3:]]
    assert reply.steps[0].text == "I add."
    assert "Nothing was run: the arguments do not fit." in results[0]
    assert "cut off after" in results[0]
    assert "more than once" in results[1]
    assert results[2] == "5"


@pytest.mark.parametrize("dialect", K3_DIALECTS)
def test_a_long_chat_with_pictures_and_reasoning_is_shortened(
    session: Session, dialect: str
) -> None:
    """The rest is as strict servers take it, and shorter at each try."""
    from PIL import Image

    def draw(width: int) -> Any:
        """Draw."""
        return Image.new("RGB", (width, 10), "red")

    def pictures(body: Mapping[str, Any]) -> int:
        return json.dumps(body["messages"]).count("image_url") // 2

    draws = [{"name": "draw", "arguments": {"width": width}} for width in (20, 30)]
    too_long = "This model's maximum context length is 1048576 tokens"
    with ScriptedServer(dialect) as server:
        options: Any = {"endpoint": endpoint(server), "chat": "main", "show": False}
        for question in ("One", "Two"):
            server.reply(reasoning="Draw.", tool_calls=draws)
            server.reply("Red.", reasoning="Seen.")
            kimi.ask(question, tools=draw, **options)
        server.reply(reasoning="Draw.", tool_calls=draws)
        server.reply(reasoning="Draw again.", tool_calls=draws[:1])
        for _ in range(3):
            server.error(400, too_long)
        server.reply("Still red.", reasoning="Seen.")
        reply = kimi.ask("Three", tools=draw, max_steps=3, **options)
        tries = [request.body for request in server.requests if request.body][-4:]
        assert [pictures(body) for body in tries] == [7, 1, 1, 1]
        said = ("One", "Two", "Three")
        prompts = [[m["content"] for m in b["messages"] if m.get("content") in said] for b in tries]
        assert prompts == [["One", "Two", "Three"]] * 2 + [["Two", "Three"], ["Three"]]
        assert "This picture was left out to make room." in json.dumps(tries[1])
        server.reply("Yes.")
        kimi.ask("Is it?", **options)
    assert reply.text == "Still red."
