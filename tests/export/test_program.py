"""The program of a reply: the first request of its turn, and the remarks that a reader needs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

import kimi_magic as kimi
from kimi_magic.core.errors import KimiError
from kimi_magic.core.messages import Message
from kimi_magic.core.reply import Reply
from kimi_magic.core.turn_record import EndpointFacts, TurnRecord
from kimi_magic.export import Program, program_of
from kimi_magic.secrets.keys import Key
from kimi_magic.testing import ScriptedServer
from tests.snippets import MODEL, ask

LAB = EndpointFacts("lab", "http://lab/v1", "LAB_API_KEY")


def reply_of(*texts: str, endpoint: EndpointFacts | None = LAB) -> Reply:
    """Return the reply of a turn that sent these texts first, and one more later."""
    record = TurnRecord(
        messages=tuple(Message("user", text) for text in (*texts, "Later?")),
        sent=len(texts),
        parameters={"model": MODEL, "stream": True},
        endpoint=endpoint,
    )
    return Reply(record, functions={"len": len})


def test_the_first_request_and_the_facts_of_its_endpoint() -> None:
    program = program_of(reply_of("One?", "Two?"), [])
    assert program.body == {"model": MODEL, "stream": True, "messages": ask("One?", "Two?")}
    assert (program.provider, program.base_url) == ("lab", "http://lab/v1")
    assert (program.key_env, program.functions) == ("LAB_API_KEY", {"len": len})
    assert program.notes == ()


def test_keys_and_what_looks_like_one_are_masked() -> None:
    texts = "Hi", "It is fake-key-0123456789abcdef", "sk-" + "aB3" * 12, "[masked] before"
    program = program_of(
        reply_of(*texts), [Key("fake-key-0123456789abcdef", "a test", "LAB_API_KEY")]
    )
    contents = [message["content"] for message in program.messages]
    assert contents == ["Hi", "It is [masked]", "[masked]", "[masked] before"]
    assert [note.partition(" ")[0] for note in program.notes] == [
        "messages[1]",
        "messages[2]",
        "messages[3]",
    ]


def test_the_embedded_engine_has_no_address() -> None:
    program = program_of(reply_of("Hi", endpoint=EndpointFacts("local")), [])
    assert program.base_url.startswith("http://127.0.0.1")
    assert "practice model" in program.notes[0]


def test_an_endpoint_that_only_a_tape_knows_has_no_address(
    server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.reply("Hi.")
    with kimi.tape(path := tmp_path / "a.tape"):
        kimi.ask("Hello")
    for name in ("KIMI_BASE_URL", "KIMI_MODEL"):
        monkeypatch.delenv(name, raising=False)
    with kimi.tape(path, mode="none"):
        reply = kimi.ask("Hello")
    for form in ("python", "langchain", "node", "curl"):
        code = kimi.snippet(reply, form)
        assert ".invalid" not in code
        assert "set base_url to your server" in " ".join(code.split())
    stays = EndpointFacts("lab", "http://tape.invalid.lab/v1")
    assert program_of(reply_of("Hi", endpoint=stays), []).base_url == stays.base_url


@pytest.mark.parametrize("reply", [Reply(), reply_of("Hi", endpoint=None)])
def test_a_turn_that_sent_nothing(reply: Reply) -> None:
    with pytest.raises(KimiError, match="sent nothing"):
        program_of(reply, [])


def test_a_body_becomes_plain_json() -> None:
    body = {"model": MODEL, "messages": (), "stop": ("a", "b"), "extra": MappingProxyType({"n": 1})}
    assert Program(body, "").body == {
        "model": MODEL,
        "messages": [],
        "stop": ["a", "b"],
        "extra": {"n": 1},
    }


def test_beside_tools_no_answer_is_held_to_its_schema() -> None:
    """The turn's last request had a schema and no tools: the first one had tools alone."""
    reply = reply_of("Hi")
    form = {"type": "json_object"}
    for tools, held in (([{"type": "function", "function": {"name": "f"}}], False), ([], True)):
        parameters = {"model": MODEL, "response_format": form, "tools": tools}
        program = program_of(Reply(replace(reply.record, parameters=parameters)), [])
        assert ("response_format" in program.body) is held
        assert bool(program.notes) is not held
