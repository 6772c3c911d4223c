"""Whom a question goes to, with which key, and what is refused before anything is sent."""

from __future__ import annotations

import socket

import pytest

import kimi_magic as kimi
from kimi_magic.config import Settings
from kimi_magic.core.errors import (
    ConfigError,
    ConnectionFailed,
    KimiError,
    MissingKeyError,
    TimedOut,
)
from kimi_magic.core.events import Event, TurnFinished
from kimi_magic.session import Session
from kimi_magic.testing import ScriptedServer
from kimi_magic.wire.endpoints import BUILT_IN, Endpoint
from kimi_magic.wire.local import process as local

SECRET = "fake-key-0123456789abcdef"


def choice(session: Session, monkeypatch: pytest.MonkeyPatch, **environment: str) -> str:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return session.connector.choose(None, session.settings).name


@pytest.mark.parametrize(
    ("environment", "chosen"),
    [
        ({}, "local"),
        ({"OPENROUTER_API_KEY": "x"}, "openrouter"),
        ({"OPENROUTER_API_KEY": "x", "MOONSHOT_API_KEY": "x"}, "moonshot"),
        ({"MOONSHOT_API_KEY": "x", "NVIDIA_API_KEY": "x"}, "nvidia"),
        ({"TOGETHER_API_KEY": "x"}, "local"),
        ({"NVIDIA_API_KEY": "x", "KIMI_BASE_URL": "http://127.0.0.1:9/v1"}, "custom"),
        ({"NVIDIA_API_KEY": "x", "KIMI_ENDPOINT": "vllm"}, "vllm"),
        ({"NVIDIA_API_KEY": "  "}, "local"),
    ],
)
def test_who_answers_by_default(
    session: Session,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    chosen: str,
) -> None:
    monkeypatch.setattr(local, "available", lambda: True)
    assert choice(session, monkeypatch, **environment) == chosen


def test_nobody_to_ask_says_both_ways_out(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "available", lambda: False)
    with pytest.raises(ConfigError, match=r"(?s)NVIDIA_API_KEY.*kimi-magic\[local\]"):
        session.connector.choose(None, session.settings)


@pytest.mark.parametrize(
    ("url", "base_url"),
    [
        ("http://host:8000/v1", "http://host:8000/v1"),
        ("http://host:8000/v1/", "http://host:8000/v1"),
        (" https://host/v1/chat/completions ", "https://host/v1"),
    ],
)
def test_any_url_is_an_endpoint(session: Session, url: str, base_url: str) -> None:
    assert session.connector.catalogue.get(url).base_url == base_url


def test_the_url_of_a_known_endpoint_is_that_endpoint(session: Session) -> None:
    assert session.connector.catalogue.get("https://api.moonshot.ai/v1/").name == "moonshot"


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x/v1", "http://"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ConfigError, match="no address of a server"):
        Endpoint("lab", url)


def test_nvidia_as_its_page_has_it(session: Session) -> None:
    nvidia = session.connector.catalogue.get("nvidia")
    assert nvidia.base_url == "https://integrate.api.nvidia.com/v1"
    assert nvidia.key_env == "NVIDIA_API_KEY"
    target = session.connector.target(nvidia, "kimi-k2-thinking")
    assert target.model == "moonshotai/kimi-k2-thinking"
    record = target.record
    assert (record.temperature, record.top_p, record.max_tokens) == (1.0, 0.9, 16384)


def test_every_endpoint_is_documented() -> None:
    assert all(endpoint.docs for endpoint in BUILT_IN if endpoint.name != "local")


def test_a_key_goes_to_its_own_endpoint_only(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIMI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("KIMI_API_KEY", SECRET)
    monkeypatch.setenv("NVIDIA_API_KEY", SECRET)
    with ScriptedServer() as server:
        server.reply("OK")
        kimi.ask("Hi", endpoint=server.base_url)
    assert SECRET not in str(server.requests[0].headers)


def test_the_key_of_ones_own_endpoint(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer(key=SECRET) as server:
        monkeypatch.setenv("KIMI_BASE_URL", server.base_url)
        monkeypatch.setenv("KIMI_API_KEY", SECRET)
        server.reply("OK")
        reply = kimi.ask("Hi", show=False)
    assert reply.text == "OK"
    assert SECRET not in repr(session.__dict__) + repr(reply) + repr(kimi.settings)


def test_a_key_for_the_endpoint_that_the_environment_names(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIMI_API_KEY", SECRET)
    monkeypatch.setenv("KIMI_ENDPOINT", "lab")
    with ScriptedServer(key=SECRET) as server:
        server.reply("OK")
        kimi.add_endpoint(kimi.Endpoint("lab", server.base_url, "LAB_KEY"))
        assert kimi.ask("Hi", show=False).text == "OK"
        assert session.connector.key_at_hand(session.connector.catalogue.get("nvidia")) is None


def test_a_key_from_the_keyring(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    import keyring

    monkeypatch.setattr(
        keyring, "get_password", lambda service, name: SECRET if name == "LAB_KEY" else None
    )
    with ScriptedServer(key=SECRET) as server:
        server.reply("OK")
        kimi.add_endpoint(kimi.Endpoint("lab", server.base_url, "LAB_KEY"))
        assert kimi.ask("Hi", endpoint="lab", show=False).text == "OK"


def test_a_missing_key_names_the_ways_to_give_one(session: Session) -> None:
    with pytest.raises(MissingKeyError) as caught:
        kimi.ask("Hi", endpoint="moonshot", show=False)
    message = str(caught.value)
    assert "MOONSHOT_API_KEY" in message
    assert "keyring set kimi-magic MOONSHOT_API_KEY" in message
    assert len(message.splitlines()) <= 4


@pytest.mark.parametrize("prompt", ["", "  \n", [], [{"type": "image_url"}], 3, None])
def test_what_is_no_prompt(session: Session, prompt: object) -> None:
    with pytest.raises(KimiError):
        kimi.ask(prompt, endpoint="vllm", show=False)  # type: ignore[arg-type]


def test_one_off_questions_leave_no_chat(server: ScriptedServer, session: Session) -> None:
    for _ in range(2):
        server.reply("OK")
    for _ in range(2):
        reply = kimi.ask("Hi", show=False)
        assert reply.chat is None
        assert kimi.last is reply
    assert len(server.requests[1].body["messages"]) == 2


def test_an_endpoint_may_be_handed_in(session: Session) -> None:
    with ScriptedServer() as server:
        server.reply("OK")
        endpoint = kimi.Endpoint("lab", server.base_url, model="my-kimi")
        assert kimi.ask("Hi", endpoint=endpoint, show=False).text == "OK"
    assert server.requests[0].body["model"] == "my-kimi"


def test_a_stream_that_is_left_keeps_what_came(server: ScriptedServer, session: Session) -> None:
    server.reply("one two three four five", rate=50)
    chat = kimi.chat("left")
    for event in kimi.stream("Hi", chat=chat):
        if getattr(event, "text", "").strip() == "two":
            break
    assert server.requests[0].closed.wait(30)
    (turn,) = chat.turns
    assert turn.reply.text.startswith("one")
    assert turn.reply.error is not None


def test_a_failed_stream_still_gives_its_reply(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}/v1"
        session.settings.retries = 0
        events: list[Event] = []
        with pytest.raises(ConnectionFailed) as caught:
            events.extend(kimi.stream("Hi", endpoint=url))
    assert isinstance(events[-1], TurnFinished)
    assert caught.value.reply is events[-1].reply is kimi.last


@pytest.mark.parametrize("key", ["two\nlines-of-a-key", "with\u200bspace", "a blank-in-the-middle"])
def test_a_key_that_no_header_can_carry_is_named_and_not_shown(
    session: Session, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("MOONSHOT_API_KEY", key)
    with pytest.raises(ConfigError, match="MOONSHOT_API_KEY") as caught:
        kimi.ask("Hi", endpoint="moonshot", show=False)
    assert not any(part in str(caught.value) for part in ("lines", "space", "middle"))


def test_a_key_is_no_name_of_a_variable_and_no_part_of_an_address() -> None:
    with pytest.raises(ConfigError, match="name of the environment variable"):
        Endpoint("lab", "http://host/v1", "nvapi-0123456789")
    with pytest.raises(ConfigError, match="must not hold a name and password") as caught:
        Endpoint("lab", "https://user:secret@host/v1")
    assert "secret" not in str(caught.value)


def test_a_bad_variable_is_told_at_the_turn_and_can_be_mended(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIMI_RETRIES", "many")
    for _ in range(2):
        with pytest.raises(ConfigError, match="KIMI_RETRIES='many'"):
            kimi.ask("Hi", show=False)
    monkeypatch.setenv("KIMI_RETRIES", "1")
    server.reply("OK")
    assert kimi.ask("Hi", show=False).text == "OK"
    assert kimi.settings.retries == 1


def test_what_was_set_holds_again_when_a_variable_goes(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    kimi.settings.temperature = 0.7
    monkeypatch.setenv("KIMI_TEMPERATURE", "0.1")
    server.reply("OK")
    kimi.ask("Hi", show=False)
    monkeypatch.delenv("KIMI_TEMPERATURE")
    server.reply("OK")
    kimi.ask("Hi", show=False)
    assert [r.body["temperature"] for r in server.requests] == [0.1, 0.7]


def test_a_bad_base_url_is_named_and_bars_no_other_endpoint(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIMI_BASE_URL", "localhost:8000")
    with pytest.raises(ConfigError, match="KIMI_BASE_URL"):
        session.connector.choose(None, session.settings)
    assert session.connector.choose("nvidia", session.settings).name == "nvidia"


def test_settings_that_change_hold_for_a_known_endpoint(
    server: ScriptedServer, session: Session
) -> None:
    server.reply("OK")
    kimi.ask("Hi", show=False)
    session.settings = Settings(stall_timeout=0.3, retries=0)
    server.reply("one two three", stall_after=1)
    with pytest.raises(TimedOut, match="stall_timeout"):
        kimi.ask("Hi", show=False)
    assert server.requests[1].closed.wait(30)


def test_a_prompt_with_half_a_code_point_is_sent(server: ScriptedServer) -> None:
    server.reply("OK")
    kimi.ask("a\ud83db", show=False)
    assert server.requests[0].body["messages"][-1]["content"] == "a\ufffdb"


def test_a_model_of_ones_own_is_not_held_to_the_practice_models_limits(
    server: ScriptedServer, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = local.Running(server.base_url, "key", "my-model", practice=False, context_window=8192)
    monkeypatch.setattr(local.LocalEngine, "start", lambda *_, **__: running)
    server.reply("OK")
    kimi.ask("Hi", endpoint="local", show=False)
    sent = set(server.requests[0].body)
    assert not sent & {"temperature", "max_tokens", "seed", "top_p"}


def test_the_cost_where_prices_are_known(session: Session) -> None:
    with ScriptedServer() as server:
        kimi.add_endpoint(name="lab", base_url=server.base_url, prices=(0.6, 2.5, 0.15))
        usage = {"prompt_tokens": 1_000_000, "completion_tokens": 200_000, "cached_tokens": 400_000}
        server.reply("OK", usage=usage)
        reply = kimi.ask("Hi", endpoint="lab", show=False)
    assert reply.usage.cost == pytest.approx(0.36 + 0.06 + 0.5)
    assert "$0.9200" in str(reply.usage)


@pytest.mark.parametrize(
    "how",
    [
        {"max_steps": "5"},
        {"model": 3},
        {"system": 5},
        {"endpoint": 5},
        {"stop": 5},
        {"stop": [object()]},
        {"approve": "maybe"},
        {"chat": 3},
        {"temperature": "hot"},
    ],
)
def test_values_of_the_wrong_kind(session: Session, how: dict[str, object]) -> None:
    with pytest.raises(KimiError, match=next(iter(how))):
        kimi.ask("Hi", show=False, **how)  # type: ignore[arg-type]
