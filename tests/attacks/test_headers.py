"""Aim: have what the environment holds for other services sent to a server."""

from __future__ import annotations

import os
import pickle
import re
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kimi_magic as kimi
from kimi_magic.core.errors import ConfigError
from kimi_magic.core.reply import Reply
from kimi_magic.core.turn_record import TurnRecord
from kimi_magic.export import FORMS, program_of, write
from kimi_magic.secrets.keys import LEAK
from kimi_magic.session import Session
from kimi_magic.testing import ScriptedServer
from kimi_magic.turn.request import make_request
from kimi_magic.wire import connection as connection_module
from kimi_magic.wire.headers import EndpointHeaders
from tests.faulty import listening
from tests.snippets import run

LEFT = "leak-of-the-environment"
SECRET = "-".join(["gate", "0123456789abcdefghijklmnop"])
EVENT = (
    b'data: {"choices":[{"delta":{"content":"9.9"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
)
MEANT = {
    "accept",
    "accept-encoding",
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "host",
    "user-agent",
    "x-stainless-arch",
    "x-stainless-lang",
    "x-stainless-os",
    "x-stainless-package-version",
    "x-stainless-runtime",
    "x-stainless-runtime-version",
}


def names_of_the_sdk() -> set[str]:
    """Every variable that the installed SDK's source names, whichever part of it reads them."""
    found = set()
    for path in Path(openai.__file__).parent.rglob("*.py"):
        found |= set(re.findall(r"\b(?:AZURE_)?OPENAI_[A-Z_]+\b", path.read_text("utf-8")))
    assert {"OPENAI_CUSTOM_HEADERS", "OPENAI_ORG_ID", "OPENAI_BASE_URL"} <= found
    return found


def answer(connection: socket.socket, request: bytes) -> None:
    """Answer each kind of request that we make; the cookie is not to come back."""
    body = EVENT
    status = b"200 OK"
    if request.startswith(b"GET /v1/models"):
        body = b'{"data": [{"id": "m"}]}'
    elif request.startswith(b"POST") and b"pending" in request:
        status, body = b"202 Accepted\r\nNVCF-REQID: 0a1b", b""
    head = b"HTTP/1.1 %b\r\nSet-Cookie: seen=1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    connection.sendall(head % (status, len(body)) + body)


def headers_of(request: bytes) -> dict[str, str]:
    _, *lines = request.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    pairs = [line.partition(": ")[::2] for line in lines]
    assert len({name.lower() for name, _ in pairs}) == len(pairs), "no header twice"
    return {name.lower(): value for name, value in pairs}


@pytest.fixture
def hostile_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    others = {"OPENAI_" + secrets.token_hex(4).upper(), "FOO_API_KEY", "ANTHROPIC_API_KEY"}
    for name in names_of_the_sdk() | others:
        monkeypatch.setenv(name, LEFT)
    monkeypatch.delenv("OPENAI_LOG", raising=False)
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", f"Authorization: Bearer {LEFT}\nX-Leak: {LEFT}")
    for name in ("NVIDIA_API_KEY", "MOONSHOT_API_KEY", "OPENROUTER_API_KEY", "KIMI_API_KEY"):
        monkeypatch.setenv(name, LEFT)


@pytest.mark.usefixtures("hostile_environment")
def test_a_request_holds_what_we_mean_and_nothing_else(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Input: every OPENAI_* and *_API_KEY variable set, headers and an organization among them.

    Holds: each kind of request has our headers once, the endpoint's key, and nothing else.
    """
    monkeypatch.setattr(connection_module, "POLL_SECONDS", 0.01)
    monkeypatch.setenv("DEN_KEY", SECRET)
    with listening(answer) as (port, requests):
        endpoint = kimi.Endpoint("den", f"http://127.0.0.1:{port}/v1", "DEN_KEY", "kimi-k2")
        for prompt in ("Hi", "Hi again", "pending"):
            assert kimi.ask(prompt, endpoint=endpoint, show=False).text == "9.9"
        key = session.find_key(endpoint)
        assert session.connector.models(endpoint, key, session.settings, print) == ["m"]
    assert [request.split(b" HTTP", 1)[0] for request in requests] == [
        *[b"POST /v1/chat/completions"] * 3,
        b"GET /v1/status/0a1b",
        b"GET /v1/models",
    ]
    for request in requests:
        got = headers_of(request)
        assert set(got) == MEANT - ({"content-length"} if request.startswith(b"GET") else set())
        assert got["authorization"] == f"Bearer {SECRET}"
        assert got["host"] == f"127.0.0.1:{port}"
        assert got["user-agent"] == f"OpenAI/Python {openai.__version__}"
        assert LEFT.encode() not in request


@pytest.fixture
def gate(session: Session, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    """A server behind a gateway that wants headers, one of them from the environment."""
    monkeypatch.setenv("GATE_TOKEN", SECRET)
    with ScriptedServer() as server:
        kimi.add_endpoint(
            name="gate",
            base_url=server.base_url,
            headers={"X-Gate": "${GATE_TOKEN}", "X-Team": f"literal-{SECRET[::-1]}"},
        )
        yield server


def leaks(*texts: object) -> bool:
    told = "".join(map(str, texts))
    secret = (SECRET, SECRET[::-1])
    return any(s[at : at + LEAK] in told for s in secret for at in range(len(s) - LEAK + 1))


def test_a_header_s_value_goes_to_its_endpoint_alone(
    gate: ScriptedServer, session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    """Input: a server that echoes the values of an endpoint's own headers, one from a variable.

    Holds: the server gets them, and no repr, record, pickle, dry run or program has a value.
    """
    gate.reply(f"I read {SECRET} and {SECRET[::-1]}.", reasoning=SECRET)
    gate.error(400, f"No good: {SECRET}")
    session.settings.view = "record"
    dry = session.dry_run(make_request("Hi", endpoint="gate")).text
    assert "X-Gate, X-Team" in dry
    reply = kimi.ask(f"It is {SECRET}.", endpoint="gate", show=True)
    with pytest.raises(kimi.BadRequest) as raised:
        kimi.ask("Hi", endpoint="gate", show=False)
    sent = gate.requests[0].headers
    assert (sent["X-Gate"], sent["X-Team"]) == (SECRET, f"literal-{SECRET[::-1]}")
    assert not leaks(gate.requests[0].body, dry, capsys.readouterr().out)
    assert not leaks(reply, repr(reply), reply.text, reply.reasoning, reply.record.to_dict())
    assert not leaks(raised.value, repr(raised.value), pickle.dumps(raised.value))
    assert not leaks(pickle.dumps(reply.record), *(kimi.snippet(reply, form) for form in FORMS))
    endpoint = session.connector.catalogue.get("gate")
    assert not leaks(repr(endpoint), repr(session.connector.choose("gate", session.settings)))
    assert reply.record.endpoint is not None
    assert reply.record.endpoint.headers == {"X-Gate": "${GATE_TOKEN}", "X-Team": "${X_TEAM}"}


@pytest.mark.parametrize("form", FORMS)
def test_a_program_looks_its_headers_up(
    gate: ScriptedServer,
    form: str,
    tmp_path: Path,
    session: Session,
    request: pytest.FixtureRequest,
) -> None:
    """Input: a turn through an endpoint with headers, written as a program and run elsewhere.

    Holds: the program sends the values of the variables that are set there.
    """
    gate.reply("OK")
    reply = kimi.ask("Hi", endpoint="gate", show=False)
    gate.reply("OK")
    folder = request.getfixturevalue("node_folder") if form == "node" else tmp_path
    run(kimi.snippet(reply, form), form, folder, GATE_TOKEN="there", X_TEAM="their team")
    sent = gate.requests[-1].headers
    assert (sent["X-Gate"], sent["X-Team"]) == ("there", "their team")


@pytest.mark.parametrize("form", FORMS)
def test_a_record_of_somebody_else_writes_no_code(
    gate: ScriptedServer, session: Session, form: str
) -> None:
    """Input: a record whose headers and key variable hold code of each language.

    Holds: none of it is in a program.
    """
    gate.reply("OK")
    data = kimi.ask("Hi", endpoint="gate", show=False).record.to_dict()
    evil = '${A"]);evil();(["}'
    data["endpoint"]["headers"] = {
        "X-A": evil,
        'X-B"); evil(': "${B}",
        "X-C": "$(evil)",
        "X-D": "`evil` ${D}",
        "X-E": "Bearer ${E}",
    }
    program = program_of(Reply(TurnRecord.from_dict(data)), [])
    assert [header.name for header in program.headers] == ["X-E"]
    assert "evil" not in write(program, form)
    data["endpoint"]["key_env"] = evil
    with pytest.raises(kimi.KimiError):
        program_of(Reply(TurnRecord.from_dict(data)), [])


def test_a_variable_that_is_not_set_is_named(
    gate: ScriptedServer, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Input: the variable of a header is gone, or holds a line break with a header of its own.

    Holds: one line names it, nothing is sent, and a dry run still works.
    """
    for value, words in (("", "GATE_TOKEN, which is not set"), ("a\r\nX: b", "X-Gate holds a")):
        monkeypatch.setenv("GATE_TOKEN", value)
        with pytest.raises(ConfigError, match=words) as raised:
            kimi.ask("Hi", endpoint="gate", show=False)
        assert "\n" not in str(raised.value)
    assert "X-Gate" in session.dry_run(make_request("Hi", endpoint="gate")).text
    assert gate.requests == []


@pytest.mark.parametrize(
    "headers",
    [
        {"X-A": "a\r\nX-B: b"},
        {"X-A": "a\nb"},
        {"X-A": "é"},
        {"X-A": "日本"},
        {"X-A": "\0"},
        {"X-A\r\nX-B": "b"},
        {"X A": "b"},
        {"": "b"},
        {"X-`id`": "b"},
        {"Host": "elsewhere"},
        {"content-length": "0"},
        {"Transfer-Encoding": "chunked"},
        {"Proxy-Authorization": "Basic x"},
        {"X-A": "1", "x-a": "2"},
        {"X-A": "${}"},
        {"X-A": "${A B}"},
        {"X-A": "${UNCLOSED"},
        {"X-A": 5},
        {5: "x"},
        ["X-A"],
        7,
    ],
)
def test_a_header_that_cannot_be_sent_is_refused(headers: object) -> None:
    """Input: line breaks, other alphabets, the connection's own headers, no texts, twins.

    Holds: a `ConfigError` of one line, when the record is made.
    """
    with pytest.raises(ConfigError) as raised:
        kimi.Endpoint("lab", "http://127.0.0.1:9/v1", headers=headers)  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)


def test_authorization_takes_the_place_of_no_key(
    scripted_server: ScriptedServer, session: Session
) -> None:
    """Input: an Authorization among the headers, with and without a key of the endpoint's.

    Holds: with a key it is refused, so that none is replaced unseen; without, it is sent.
    """
    headers = {"authorization": "Token mine"}
    with pytest.raises(ConfigError, match="not both"):
        kimi.Endpoint("lab", scripted_server.base_url, "LAB_KEY", headers=headers)
    scripted_server.reply("OK")
    endpoint = kimi.Endpoint("lab", scripted_server.base_url, headers=headers)
    kimi.ask("Hi", endpoint=endpoint, show=False)
    assert scripted_server.requests[0].headers["Authorization"] == "Token mine"


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=12), max_size=3))
def test_whatever_headers_are_given(headers: dict[str, str]) -> None:
    """Input: any names and values. Holds: a `ConfigError`, or headers that hide their values."""
    try:
        made = EndpointHeaders(headers)
    except ConfigError:
        return
    assert made == headers
    assert pickle.loads(pickle.dumps(made)) == made
    assert all(re.fullmatch(r"[\w-]+", name.replace(".", ""), re.ASCII) for name in made)
    for name, value in made.public().items():
        assert value == headers[name] or value.upper() == value
    assert os.environ.get("HOME", "") not in repr(made)


@pytest.mark.parametrize(
    "value", ["2023-06-01", "Notebook", "application/json", "assistants=v2", "tools-2024-05-31"]
)
def test_a_header_of_words_masks_none_in_an_answer(
    scripted_server: ScriptedServer, session: Session, value: str
) -> None:
    """Input: headers that gateways want, such as a version, whose words stand in an answer too.

    Holds: prompt and answer keep these words; under a name that tells of a secret they are masked.
    """
    address = scripted_server.base_url
    for name, masked in (("anthropic-version", False), ("X-Api-Token", True)):
        scripted_server.reply(f"On {value}.")
        endpoint = kimi.Endpoint("words", address, headers={name: value})
        reply = kimi.ask(f"It is {value}.", endpoint=endpoint, show=False)
        assert (value not in reply.text) == masked
        assert (value not in str(scripted_server.requests[-1].body)) == masked
