"""Programs of each form, run against a server: the request that arrives is the turn's own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from IPython.core.inputtransformer2 import TransformerManager

import kimi_magic as kimi
from kimi_magic.core.errors import KimiError
from kimi_magic.export import FORMS, Program, program_of, write
from kimi_magic.session import Session
from kimi_magic.testing import ScriptedServer
from tests.snippets import (
    KEY,
    MODEL,
    NASTY,
    OPTIONS,
    ask,
    batches,
    by_batch,
    check_layout,
    export_and_run,
    find_node_package,
    meaning,
    program,
)

CALL = {"name": "get_weather", "arguments": '{"city": "Beijing"}'}
SCHEMA = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Retrieve current weather information.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "Name of the city"}},
            "required": ["city"],
        },
    },
}
HISTORY: list[dict[str, Any]] = [
    {"role": "system", "content": "You are Kimi."},
    {"role": "user", "content": [{"type": "text", "text": text} for text in ("Is it ", "warm?")]},
    {
        "role": "assistant",
        "reasoning_content": "Look it up.",
        "tool_calls": [{"id": "functions.get_weather:0", "type": "function", "function": CALL}],
    },
    {
        "role": "tool",
        "tool_call_id": "functions.get_weather:0",
        "name": "get_weather",
        "content": "Sunny",
    },
    {"role": "assistant", "content": "It is.", "reasoning_content": "Sunny is warm."},
    {"role": "user", "content": "And tomorrow?"},
]


@dataclass
class Way:
    """A form, and the folder in which its programs run."""

    form: str
    provider: str
    folder: Path

    def program(self, server: ScriptedServer, *messages: dict[str, Any], **how: Any) -> Program:
        return program(server, [*messages], provider=self.provider, **how)

    def run(self, wanted: Program, **environment: str | None) -> str:
        return export_and_run(wanted, self.form, self.folder, **environment)


@pytest.fixture(params=["python", "langchain", "langchain at nvidia", "node", "curl"])
def way(request: pytest.FixtureRequest, tmp_path: Path) -> Way:
    form, _, provider = request.param.partition(" at ")
    folder = request.getfixturevalue("node_folder") if form == "node" else tmp_path
    return Way(form, provider or "lab", folder)


@pytest.fixture
def lab() -> Iterator[ScriptedServer]:
    with ScriptedServer("nvidia", key=KEY, models=[MODEL]) as server:
        yield server


def test_the_request_arrives_and_the_answer_is_printed(way: Way, lab: ScriptedServer) -> None:
    """Covers a history of tools and reasoning, and every option."""
    lab.reply("Rain, alas.", reasoning="Ask the clouds.")
    wanted = way.program(lab, *HISTORY)
    printed = way.run(wanted)
    assert meaning(lab.requests[-1].body) == meaning(wanted.body)
    if way.form != "curl":
        assert printed.strip() == "Ask the clouds.\n\nRain, alas."


@pytest.mark.parametrize("stream", [True, False])
def test_reasoning_by_its_other_name(way: Way, stream: bool) -> None:
    """Covers a request without options: nothing is added to it."""
    with ScriptedServer("vllm") as server:
        server.reply("9.9", reasoning="Compare the tenths.")
        wanted = way.program(server, *ask("9.11 or 9.9?"), **dict.fromkeys(OPTIONS))
        wanted = replace(wanted, key_env=None, body={**wanted.body, "stream": stream})
        printed = way.run(wanted)
    assert meaning(server.requests[-1].body) == meaning(wanted.body)
    if way.form != "curl":
        assert printed.strip() == "Compare the tenths.\n\n9.9"
    assert "Compare" in printed
    assert "9.9" in printed


def test_the_calls_are_shown_where_no_tools_run(way: Way, lab: ScriptedServer) -> None:
    lab.reply("Two.", reasoning="Ask twice.", tool_calls=[CALL, CALL])
    wanted = way.program(lab, *ask("Is it warm?"), tools=[SCHEMA])
    if way.form == "python":
        lab.reply("No idea.")
    printed = way.run(wanted)
    assert meaning(lab.requests[0].body) == meaning(wanted.body)
    assert printed.count("Beijing") == 2
    assert "get_weather" in printed.split("Two.")[-1]
    if way.form != "python":
        assert "calls are shown, and the" in write(wanted, way.form)


@by_batch
@given(texts=batches)
@example(texts=NASTY)
@example(texts=["漢😀\r\n\"'`\\" * 12_000])
def test_hostile_prompts_survive(way: Way, lab: ScriptedServer, texts: list[str]) -> None:
    lab.reply("Whatever.")
    wanted = way.program(lab, *ask(*texts))
    way.run(wanted)
    assert lab.requests[-1].body["messages"] == wanted.messages


def test_half_a_code_point_is_replaced() -> None:
    """No server accepts one; two halves that meet are joined."""
    wanted = Program({"messages": ask("a\ud83d, b\ude00, \ud83d\ude00")}, "")
    assert wanted.messages == ask("a\ufffd, b\ufffd, 😀")


def test_what_the_api_does_not_know_goes_along(way: Way, lab: ScriptedServer) -> None:
    lab.reply("Yes.")
    wanted = way.program(lab, *ask("So?"), chat_template_kwargs={"thinking": True}, top_k=20)
    way.run(wanted)
    assert meaning(lab.requests[-1].body) == meaning(wanted.body)


def test_a_key_goes_to_its_own_endpoint_only(way: Way) -> None:
    """A server that needs no key gets none, whatever the environment holds."""
    others = dict.fromkeys(KEYS_OF_OTHERS, "sk-of-another")
    with ScriptedServer() as server:
        server.reply("Hello.")
        way.run(replace(way.program(server, *ask("Hello?")), key_env=None), **others)
    assert "sk-of-another" not in str(server.requests[0].headers)


def test_without_its_key_no_other_is_sent(way: Way) -> None:
    others = dict.fromkeys(KEYS_OF_OTHERS, "sk-of-another")
    with ScriptedServer() as server:
        wanted = way.program(server, *ask("Hello?"))
        if way.form == "curl":
            server.reply("Hello.")
            way.run(wanted, LAB_API_KEY=None, **others)
            assert server.requests[0].headers["Authorization"].strip() == "Bearer"
        else:
            with pytest.raises(AssertionError, match="LAB_API_KEY"):
                way.run(wanted, LAB_API_KEY=None, **others)
            assert server.requests == []


KEYS_OF_OTHERS = ("OPENAI_API_KEY", "NVIDIA_API_KEY", "DEEPSEEK_API_KEY")
PAGE: dict[str, Any] = {
    "model": "moonshotai/kimi-k2-thinking",
    "temperature": 1,
    "top_p": 0.9,
    "max_tokens": 16384,
    "stream": True,
}


def test_the_recipes_of_the_models_page(way: Way) -> None:
    """The program sends the request of the page's recipe for the same client."""
    if way.form == "langchain" and way.provider != "nvidia":
        return
    with ScriptedServer("nvidia", key=KEY, models=[PAGE["model"]]) as server:
        server.reply("Hello.", reasoning="Say hello.")
        body = {**PAGE, "messages": ask("Hello?")}
        printed = way.run(
            Program(body, server.base_url, "NVIDIA_API_KEY", way.provider), NVIDIA_API_KEY=KEY
        )
    assert server.requests[0].body == body
    assert server.requests[0].path == "/v1/chat/completions"
    assert way.form == "curl" or printed.strip() == "Say hello.\n\nHello."


def test_what_k3_takes(way: Way) -> None:
    """The program of a K3 turn sends its effort and its limit under their own names."""
    at_nvidia = way.provider == "nvidia"
    model = "moonshotai/kimi-k3" if at_nvidia else "kimi-k3"
    body: dict[str, Any] = {"model": model, "max_completion_tokens": 131_072, "stream": True}
    body |= {"reasoning_effort": "low", "messages": ask("Hello?")}
    if at_nvidia:
        body["chat_template_kwargs"] = {"thinking": True}
    wanted = dict(body)
    if at_nvidia and way.form == "langchain":  # ChatNVIDIA has one name for it
        wanted["max_tokens"] = wanted.pop("max_completion_tokens")
    with ScriptedServer("nvidia-k3" if at_nvidia else "moonshot-k3", key=KEY) as server:
        server.reply("Hello.", reasoning="Say hello.")
        way.run(Program(body, server.base_url, "LAB_API_KEY", way.provider), LAB_API_KEY=KEY)
    assert meaning(server.requests[0].body) == meaning(wanted)


@pytest.mark.parametrize("refused", [0, 1], ids=["json_schema", "json_object"])
def test_the_form_of_an_answer_goes_along(session: Session, way: Way, refused: int) -> None:
    """The program of a turn with ``schema=`` asks for the form that the server took."""
    like = "nvidia" if way.provider == "nvidia" else "moonshot"
    with ScriptedServer(f"{like}-k3", strict=False) as server:
        kimi.add_endpoint(name=way.provider, base_url=server.base_url, like=like)
        for _ in range(refused):
            server.error(400, "response_format is not supported")
        server.reply('{"age": 36}')
        reply = kimi.ask("Who?", schema="age int", endpoint=way.provider, show=False)
        server.reply('{"age": 36}')
        way.run(program_of(reply, []))
        sent, repeated = (request.body for request in server.requests[-2:])
    kind = "json_object" if refused else "json_schema"
    assert sent["response_format"]["type"] == kind
    assert reply.record.parameters["response_format"] == sent["response_format"]
    assert repeated["response_format"] == sent["response_format"]
    assert repeated["messages"] == sent["messages"]


@pytest.mark.parametrize("form", ["python", "langchain"])
@pytest.mark.parametrize("provider", ["lab", "nvidia"])
@pytest.mark.parametrize("tools", [None, [SCHEMA]])
@pytest.mark.parametrize("stream", [True, False])
def test_the_layout_of_python(
    form: str, provider: str, tools: Any, stream: bool, tmp_path: Path
) -> None:
    wanted = Program(
        {
            "model": MODEL,
            "messages": [*HISTORY, *ask(*NASTY)],
            **OPTIONS,
            "tools": tools,
            "stream": stream,
        },
        "https://lab.example/v1",
        "LAB_API_KEY",
        provider,
    )
    check_layout(write(wanted, form), tmp_path)


@by_batch
@given(batches)
@example(NASTY)
def test_a_cell_of_the_notebook_leaves_the_program_alone(texts: list[str]) -> None:
    """IPython transforms neither %%, ! and ? nor prompts within a string."""
    source = write(Program({"model": MODEL, "messages": ask(*texts)}, "http://lab/v1"), "python")
    shell: Any = TransformerManager
    assert shell().transform_cell(source) == source


@pytest.mark.parametrize("form", FORMS)
def test_the_opening_comment_holds_what_it_quotes(form: str) -> None:
    notes = ("masked:\nimport os; os.abort()\r#\u2028process.exit()\0", "- in message 2")
    text = write(
        Program({"model": "a\nb", "messages": ask("x")}, "http://lab/v1", "K", notes=notes), form
    )
    mark = "//" if form == "node" else "#"
    assert [
        line
        for line in re.split(r"[\n\r\u2028]", text)
        if "abort" in line or "process.exit" in line
    ] == [f"{mark} masked: import os; os.abort() # process.exit()\\x00"]
    assert f"{mark} - in message 2\n" in text
    assert f"{mark} a b through" in text


def test_without_node_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(LookupError, match="no node on this machine"):
        find_node_package()


def test_there_are_four_forms() -> None:
    assert list(FORMS) == ["python", "langchain", "node", "curl"]
    with pytest.raises(KimiError, match="'ruby': write python, langchain, node, curl"):
        write(Program({"model": MODEL, "messages": ask("x")}, "http://lab/v1"), "ruby")
