"""Turns over the Messages API: all that is above the wire is the same."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import BaseModel

import kimi_magic as kimi
from kimi_magic import session as session_module
from kimi_magic.chats.portable_turn import portable
from kimi_magic.core.errors import BadRequest, ServerFailed
from kimi_magic.core.events import Notice
from kimi_magic.core.messages import ReasoningPart
from kimi_magic.core.turn_record import TurnRecord
from kimi_magic.secrets.keys import Key
from kimi_magic.secrets.redact import Redactor
from kimi_magic.session import Session
from kimi_magic.testing import ScriptedServer
from kimi_magic.testing.block_checks import check_messages_request
from kimi_magic.wire.tape_file import TapeFile
from tests.wire.test_dialects import RECORDED

SIGNATURE = "EqQBCgIYAhIM1gbcDa9GJwZA2b3h"
ADD = {"name": "add", "arguments": {"a": 2, "b": 3}}
FAILS = {"name": "fails", "arguments": {"x": 1}}


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def fails(x: int) -> int:
    """Fail always."""
    raise ValueError(f"no {x}")


@pytest.fixture
def lab(session: Session) -> Iterator[ScriptedServer]:
    with ScriptedServer("anthropic") as server:
        kimi.add_endpoint(
            name="lab", base_url=server.base_url, wire="messages", like="moonshot", model="kimi-k3"
        )
        kimi.settings.endpoint = "lab"
        yield server


@pytest.fixture
def chats(lab: ScriptedServer) -> Iterator[ScriptedServer]:
    """A server of chat completions beside it."""
    with ScriptedServer("moonshot-k3") as server:
        kimi.add_endpoint(name="chats", base_url=server.base_url, like="moonshot", model="kimi-k3")
        yield server


def blocks(server: ScriptedServer, place: int) -> Any:
    return server.requests[-1].body["messages"][place]["content"]


def test_a_tool_loop(lab: ScriptedServer) -> None:
    lab.reply("Let me.", reasoning="Add.", tool_calls=[ADD, FAILS], redacted="ZW5j")
    lab.reply(reasoning="Once more.", tool_calls=[ADD], signature="")
    lab.reply("It is 5.", reasoning="Done.")
    reply = kimi.ask("2 + 3?", tools=[add, fails], chat="main")
    assert (reply.text, reply.finish_reason) == ("It is 5.", "stop")
    assert [result.value for result in reply.tool_results] == [5, None, 5]
    assert reply.steps[0].reasoning_parts[1] == ReasoningPart("", "ZW5j", redacted=True)
    sent = lab.requests[-1].body
    assert [message["role"] for message in sent["messages"]] == ["user", *["assistant", "user"] * 2]
    assert [block["type"] for block in blocks(lab, 1)] == [
        *("thinking", "redacted_thinking", "text", "tool_use", "tool_use"),
    ]
    good, bad = blocks(lab, 2)
    assert "is_error" not in good
    assert bad["is_error"] is True
    assert blocks(lab, 3)[0] == {"type": "thinking", "thinking": "Once more.", "signature": ""}
    assert sent["system"].startswith("You are Kimi")
    assert sent["max_tokens"] == 131_072
    lab.reply("Yes.")
    kimi.ask("Sure?", chat="main")
    assert lab.requests[-1].body["tool_choice"] == {"type": "none"}


def test_a_chat_goes_on_upon_the_other_wire(lab: ScriptedServer, chats: ScriptedServer) -> None:
    chats.reply(reasoning="Chat's.", tool_calls=[ADD])
    chats.reply("Five.", reasoning="Done.")
    kimi.ask("2 + 3?", tools=[add], chat="main", endpoint="chats")
    lab.reply("Six.", reasoning="Lab's.", signature=SIGNATURE, tool_calls=[ADD])
    lab.reply("No, five.", reasoning="So.")
    kimi.ask("And 3 + 3?", tools=[add], chat="main")
    unsigned = {"type": "thinking", "thinking": "Chat's.", "signature": ""}
    assert blocks(lab, 1)[0] == unsigned, "Kimi wants the reasoning of every turn"
    chats.reply("Right.")
    kimi.ask("Sure?", chat="main", endpoint="chats")
    sent = chats.requests[-1].body["messages"]
    assert [m.get("reasoning_content") for m in sent if m["role"] == "assistant"] == [
        *("Chat's.", "Done.", "Lab's.", "So."),
    ]
    assert SIGNATURE not in json.dumps(sent)
    lab.reply("Yes.")
    kimi.ask("Really?", chat="main")
    assert blocks(lab, 5)[0]["signature"] == SIGNATURE, "it comes back to its own server"


def get_weather(city: str) -> str:
    """Tell the weather."""
    return f"sunny in {city}"


def get_time() -> str:
    """Tell the time."""
    return "noon"


OF_BLOCKS = ("anthropic-tool", "anthropic-interleaved", "anthropic-kimi")


@pytest.mark.parametrize("name", OF_BLOCKS)
def test_recorded_blocks_go_back_as_they_came(session: Session, name: str) -> None:
    with ScriptedServer("anthropic", strict=False) as server:
        kimi.add_endpoint(name="lab", base_url=server.base_url, wire="messages", model="kimi-k3")
        server.raw([RECORDED[name]])
        server.reply("OK.")
        assert kimi.ask("Go", tools=[get_weather, get_time], endpoint="lab").text == "OK."
        sent = server.requests[-1].body
    assert check_messages_request(sent) == []
    came: dict[int, dict[str, Any]] = {}
    for line in RECORDED[name].decode().splitlines():
        event = json.loads(line[6:]) if line.startswith("data: ") else {}
        if "content_block" in event:
            came[event["index"]] = event["content_block"]
        if delta := event.get("delta", {}) if "index" in event else {}:
            kind = delta.pop("type").replace("input_json_delta", "partial_json")
            name_of = kind.removesuffix("_delta")
            block = came[event["index"]]
            block[name_of] = block.get(name_of, "") + delta.popitem()[1]
    for block in came.values():
        if text := block.pop("partial_json", ""):
            block["input"] = json.loads(text)
    assert sent["messages"][1]["content"] == list(came.values())
    assert [b["content"] for b in sent["messages"][2]["content"]] == ["sunny in 東京 🙂", "noon"]


def test_another_server_does_without_foreign_signatures(lab: ScriptedServer) -> None:
    lab.reply("Five.", reasoning="Mine.", signature=SIGNATURE)
    kimi.ask("2 + 3?", chat="main")
    with ScriptedServer("anthropic", models=["claude-opus-4-6"]) as other:
        kimi.add_endpoint(name="other", base_url=other.base_url, wire="messages")
        other.reply("Yes.", reasoning="Its own.", tool_calls=[ADD])
        other.reply("Yes.")
        reply = kimi.ask(
            "Sure?", tools=[add], chat="main", endpoint="other", model="claude-opus-4-6"
        )
    assert reply.text == "Yes."
    assert blocks(other, 1) == "Five."
    assert [block["type"] for block in blocks(other, 3)] == ["thinking", "text", "tool_use"]


def test_what_the_api_has_not_is_told(lab: ScriptedServer) -> None:
    lab.reply("OK")
    events = list(kimi.stream("Go", seed=7, logprobs=True, stop=["x"], effort="low"))
    told = [event.text for event in events if isinstance(event, Notice)]
    assert told == ["The Messages API has no seed and no logprobs: left out."]
    body = lab.requests[-1].body
    assert body["output_config"] == {"effort": "low"}
    assert body["stop_sequences"] == ["x"]
    assert not {"seed", "logprobs", "thinking"} & body.keys()


class Sum(BaseModel):
    total: int


def test_an_answer_of_a_schema(lab: ScriptedServer) -> None:
    lab.reply('{"total": 5}')
    assert kimi.ask("2 + 3?", schema=Sum).data == Sum(total=5)
    assert lab.requests[-1].body["output_config"]["format"]["type"] == "json_schema"
    lab.error(400, "output_config: Extra inputs are not permitted")
    lab.reply("So: 5")
    lab.reply('{"total": 5}')
    assert kimi.ask("2 + 3?", schema=Sum).data == Sum(total=5), "told in words, and corrected"
    assert "output_config" not in lab.requests[-1].body


def test_an_overload_is_asked_again_and_a_signature_is_not_blamed(lab: ScriptedServer) -> None:
    kimi.settings.retries = 1
    for _ in range(2):
        lab.error(529, "Overloaded", headers={"Retry-After": "0"})
    lab.reply("OK")
    with pytest.raises(ServerFailed, match="answered 529: Overloaded"):
        kimi.ask("Go")
    assert kimi.ask("Go").text == "OK"
    lab.error(400, "Invalid `signature` in `thinking` block")
    with pytest.raises(BadRequest, match="signature"):
        kimi.ask("Go")


def test_images_for_a_model_that_does_not_see(lab: ScriptedServer) -> None:
    data = BytesIO()
    Image.new("RGB", (4, 4)).save(data, "PNG")
    url = f"data:image/png;base64,{b64encode(data.getvalue()).decode()}"
    image = {"type": "image_url", "image_url": {"url": url}}
    lab.reply("Black.")
    kimi.ask([image, {"type": "text", "text": "See"}])
    assert blocks(lab, 0)[0]["source"]["media_type"] == "image/png"
    with pytest.raises(kimi.KimiError, match="reads no images"):
        kimi.ask([image, {"type": "text", "text": "See"}], model="kimi-k2-thinking")


def test_a_signature_is_kept_wherever_a_turn_is(lab: ScriptedServer) -> None:
    secret = "fake-key-" + "0123456789abcdef"
    thought = f"Add {secret}."
    lab.reply(reasoning=thought, signature=SIGNATURE, tool_calls=[ADD, FAILS], redacted="ZW5j")
    lab.reply("Five.", reasoning="Done.")
    record = kimi.ask("2 + 3?", tools=[add, fails]).record
    again = TurnRecord.from_dict(json.loads(json.dumps(record.to_dict())))
    assert again.messages == record.messages
    assert [message.failed for message in again.messages if message.role == "tool"] == [False, True]
    carried = TurnRecord.from_dict(portable(record, Redactor(shapes=True), max_chars=10_000))
    assert carried.steps[0].reasoning_parts == record.steps[0].reasoning_parts
    # What is masked, or cut, is no longer what was signed.
    masks = Redactor([Key(secret, "a test")])
    assert masks.value(record).steps[0].reasoning_parts[0] == ReasoningPart("Add [key].")
    masks = Redactor([Key(SIGNATURE, "a test")])
    assert masks.value(record).steps[0].reasoning_parts[0] == ReasoningPart(thought)
    long = replace(record.steps[0].reasoning_parts[0], text="x" * 5000)
    step = replace(record.steps[0], reasoning_parts=(long,))
    short = portable(replace(record, steps=(step,), messages=()), Redactor(), max_chars=3000)
    assert "signature" not in str(short)


def test_a_tape_of_this_wire_plays(
    lab: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "lesson.tape"
    lab.reply(reasoning="Add.", signature=SIGNATURE, tool_calls=[ADD])
    lab.reply("Five.", reasoning="Done.")
    with kimi.tape(path):
        live = kimi.ask("2 + 3?", tools=[add])
    first = TapeFile(path).read().recordings[0]
    assert first.meaning["wire"] == "messages"
    assert first.made_by["facts"]["wire"] == "messages"
    own = Session()
    monkeypatch.setattr(session_module, "_current", own)
    with kimi.tape(path, mode="none"):
        played = kimi.ask("2 + 3?", tools=[add])
    own.close()
    assert played.replayed
    assert played.record.messages == live.record.messages
    assert played.steps[0].reasoning_parts == live.steps[0].reasoning_parts


@pytest.mark.parametrize(("ask", "requests"), [
    (lambda: kimi.ask("2 + 3?", heavy=2).text, 3),
    (lambda: str(kimi.map(["2 + 3?", "3 + 3?"], "{{ value }}")), 2),
], ids=["heavy", "map"])  # fmt: skip
def test_many_requests_at_once(lab: ScriptedServer, ask: Callable[[], str], requests: int) -> None:
    for _ in range(requests):
        lab.reply("Five.", reasoning="So.")
    assert "Five" in ask()
