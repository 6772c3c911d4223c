"""Programs for an endpoint that speaks the Messages API: the turn's own request arrives."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kimi_magic as kimi
from kimi_magic.core.errors import KimiError
from kimi_magic.export import Program, write
from kimi_magic.session import Session
from kimi_magic.testing import ScriptedServer
from tests.snippets import KEY, cell, check_layout, run

CALL = {"name": "get_weather", "arguments": {"city": "Rome"}}


SOURCE = '''
def get_weather(city: str) -> str:
    """Tell the weather of a city."""
    if city == "Atlantis":
        raise ValueError("it sank")
    return f"sunny in {city}"
'''


@pytest.fixture
def get_weather() -> Any:
    namespace: dict[str, Any] = {}
    cell(SOURCE, namespace)
    return namespace["get_weather"]


@pytest.fixture
def lab(session: Session, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    monkeypatch.setenv("LAB_API_KEY", KEY)
    with ScriptedServer("anthropic", key=KEY) as server:
        kimi.add_endpoint(
            name="lab", base_url=server.base_url, key_env="LAB_API_KEY", wire="messages"
        )
        kimi.settings.endpoint, kimi.settings.model = "lab", "kimi-k3"
        yield server


def script(lab: ScriptedServer) -> None:
    sunk = {"name": "get_weather", "arguments": {"city": "Atlantis"}}
    lab.reply("Look.", reasoning="I need it.", tool_calls=[CALL, sunk])
    lab.reply("Sunny.", reasoning="Good.")


def bodies(server: ScriptedServer) -> list[dict[str, Any]]:
    """Take the bodies of the requests, each of which had the key as the turn's own has it."""
    for request in server.requests:
        assert request.headers["X-Api-Key"] == KEY
        assert request.headers["Authorization"] == f"Bearer {KEY}"
    found = [request.body for request in server.requests]
    server.requests.clear()
    return found


def test_python_with_tools(lab: ScriptedServer, get_weather: Any, tmp_path: Path) -> None:
    script(lab)
    reply = kimi.ask("Weather?", tools=[get_weather], effort="low", temperature=0.5, stop="END")
    live = bodies(lab)
    text = kimi.snippet(reply)
    check_layout(text, tmp_path)
    assert "from anthropic import Anthropic" in text
    assert "pip install anthropic" in text
    assert KEY not in text
    script(lab)
    printed = run(text, "python", tmp_path)
    first, second = bodies(lab)
    assert first == live[0]
    assert [m["role"] for m in second["messages"]] == ["user", "assistant", "user"]
    assert second["messages"][1] == live[1]["messages"][1], "thinking with its signature"
    good, bad = second["messages"][2]["content"]
    assert (good["content"], good["is_error"]) == ("sunny in Rome", False)
    assert bad["is_error"] is True
    order = [printed.index(part) for part in ("I need it.", "Look.", "sunny in", "Sunny.")]
    assert order == sorted(order)


def test_python_of_a_chat(lab: ScriptedServer, get_weather: Any, tmp_path: Path) -> None:
    script(lab)
    kimi.ask("Weather?", tools=[get_weather], chat="main")
    lab.reply("Yes.", reasoning="Still.")
    reply = kimi.ask("Sure?", chat="main", system="Be brief.")
    live = bodies(lab)[-1]
    lab.reply("Yes.", reasoning="Still.")
    whole = kimi.snippet(reply, chat=True, with_data=True)
    check_layout(whole, tmp_path)
    assert run(whole, "python", tmp_path).strip() == "Still.\n\nYes."
    assert bodies(lab) == [live]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(lab: ScriptedServer, tmp_path: Path) -> None:
    lab.reply("Yes.", reasoning="Still.")
    reply = kimi.ask("Sure?")
    live = bodies(lab)
    lab.reply("Yes.", reasoning="Still.")
    printed = run(kimi.snippet(reply, "curl"), "curl", tmp_path)
    assert "message_stop" in printed
    assert bodies(lab) == live


def test_anthropics_own_server_gets_the_key_in_one_header() -> None:
    body = {"model": "claude-opus-5-5", "messages": [{"role": "user", "content": "Sure?"}]}
    for url, seconds in (("https://api.anthropic.com", 0), ("https://api.anthropic.com.test", 1)):
        program = Program(body, url, "LAB_API_KEY", encoded={**body, "max_tokens": 5})
        for form, first in (("curl", "Bearer $LAB_API_KEY"), ("python", "api_key=os.environ")):
            text = write(program, form)
            assert first in text
            assert text.count("X-Api-Key") == seconds


def test_other_forms_say_which_there_are(lab: ScriptedServer) -> None:
    lab.reply("Yes.")
    reply = kimi.ask("Sure?")
    for form in ("node", "langchain"):
        with pytest.raises(KimiError, match=f"no form {form}: write python or curl"):
            kimi.snippet(reply, form)
