"""Aim: have a notebook run code, send a key or show HTML when its chats are loaded."""

from __future__ import annotations

import ast
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat as nbformat_typed
import pytest
from IPython.core.inputtransformer2 import TransformerManager

import kimi_magic as kimi
from kimi_magic.core.messages import Message, Step, ToolCall, ToolResult
from kimi_magic.core.turn_record import EndpointFacts, TurnRecord
from kimi_magic.display.record import show_chat
from kimi_magic.export import FORMS
from kimi_magic.session import Session
from kimi_magic.testing import ScriptedServer

nbformat: Any = nbformat_typed  # half typed
manager: Any = TransformerManager
EVIL = "https://evil.example/v1"
SCRIPT = "<script>pwn()</script><img src=x onerror=pwn()>"
BREAKS = [
    "x\nimport os; os._exit(1)",
    "x'); os._exit(1); ('",
    'a" -s "b',
    "\u2028!true",
    "-h",
    "{x}",
]


def a_turn(**fields: Any) -> TurnRecord:
    messages = (Message("user", "Hi"), Message("assistant", "Hello."))
    record = TurnRecord((Step("Hello."),), messages, 1, chat="main", prompt="Hi", model="m")
    return replace(record, **fields)


def notebook(folder: Path, *turns: TurnRecord) -> Path:
    """A notebook as somebody would send it."""
    outputs = [
        {
            "output_type": "display_data",
            "data": {"text/html": SCRIPT, "text/plain": SCRIPT},
            "metadata": {"kimi_magic": {"turn": turn.to_dict(), "state": SCRIPT}},
        }
        for turn in turns
    ]
    cell = {"cell_type": "code", "id": "c", "source": "import os; os._exit(1)", "outputs": outputs}
    path = folder / "lesson.ipynb"
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "cells": [cell]}), "utf-8")
    return path


def is_ours(source: str) -> bool:
    """Return True for code that calls our magic, or asks, and does nothing else."""
    for statement in ast.parse(manager().transform_cell(source)).body:
        if isinstance(statement, ast.Import):
            continue
        assert isinstance(statement, ast.Expr)
        call = statement.value
        assert isinstance(call, ast.Call)
        name = ast.unparse(call.func)
        values = [*call.args, *(keyword.value for keyword in call.keywords)]
        names = {n.id for value in values for n in ast.walk(value) if isinstance(n, ast.Name)}
        known = ("get_ipython().run_cell_magic", "get_ipython().run_line_magic")
        if name not in known and not name.startswith("kimi.chat("):
            return False
        if names or any(isinstance(n, ast.Call) for value in values for n in ast.walk(value)):
            return False
    return True


@pytest.mark.parametrize("text", BREAKS)
@pytest.mark.parametrize("field", ["prompt", "chat", "model", "system", "stop", "tool", "endpoint"])
def test_a_saved_cell_holds_nothing_but_a_question(
    session: Session, tmp_path: Path, text: str, field: str
) -> None:
    """Input: names and texts that end a line, a quote or an option. Holds: what is saved of them
    is a cell of ours with one question, and none of the text is code."""
    parameters: dict[str, Any] = {"model": "m"}
    fields: dict[str, Any] = {field: text} if field in ("prompt", "chat") else {}
    if field == "model":
        parameters["model"] = text
    if field == "stop":
        parameters["stop"] = [text]
    if field == "tool":
        parameters["tools"] = [{"type": "function", "function": {"name": text}}]
    if field == "endpoint":
        fields["endpoint"] = EndpointFacts(text)
    if field == "system":
        messages = (Message("system", text), *a_turn().messages)
        fields |= {"messages": messages, "sent": 2}
    (chat,) = kimi.load(notebook(tmp_path, a_turn(parameters=parameters, **fields)))
    saved = nbformat.read(kimi.save(tmp_path / "x.ipynb", chat), as_version=4)
    assert all(is_ours(cell.source) for cell in saved.cells), saved.cells[1].source


def test_questions_and_programs_go_nowhere_new(
    server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Input: turns whose endpoints have an address, a key's name and headers of the sender's.
    Holds: the next question goes where this kernel asks, and no program names any of them."""
    monkeypatch.setenv("CLOUD_PASSWORD", "hunter2")
    facts = EndpointFacts("moonshot", EVIL, "CLOUD_PASSWORD", {"X-Evil": "${CLOUD_PASSWORD}"})
    data = notebook(
        tmp_path,
        a_turn(parameters={"model": "m"}, endpoint=facts, finish_reason="length"),
        a_turn(parameters={"model": "m"}, endpoint=replace(facts, name="evil")),
    )
    whole = json.loads(data.read_text("utf-8"))
    for output in whole["cells"][0]["outputs"]:
        output["metadata"]["kimi_magic"]["turn"]["endpoint"]["headers"] = dict(facts.headers)
    data.write_text(json.dumps(whole), "utf-8")
    (chat,) = kimi.load(data)
    for turn in chat.turns:
        for form in FORMS:
            program = kimi.snippet(turn.reply, form)
            assert "evil.example" not in program
            assert "CLOUD_PASSWORD" not in program
    server.reply("OK")
    chat.ask("And you?", show=False)
    assert len(server.requests) == 1


def test_no_html_of_the_file_is_shown(session: Session, tmp_path: Path) -> None:
    """Input: HTML in outputs, texts, tool results and data. Holds: the chat and its records show
    it as text, if at all."""
    call = ToolCall("c", SCRIPT, SCRIPT)
    steps = (
        Step("", (), (call,), (ToolResult(SCRIPT, SCRIPT, call_id="c", error=SCRIPT),)),
        Step(SCRIPT),
    )
    messages = (
        Message("user", SCRIPT),
        Message("assistant", None, (), tool_calls=(call,)),
        Message("tool", SCRIPT, tool_call_id="c", name=SCRIPT),
        Message("assistant", SCRIPT),
    )
    record = a_turn(steps=steps, messages=messages, prompt=SCRIPT, model=SCRIPT, data={"a": SCRIPT})
    (chat,) = kimi.load(notebook(tmp_path, record))
    pages = [show_chat(chat.turns).data["text/html"]]
    saved = nbformat.read(kimi.save(tmp_path / "x.ipynb", chat), as_version=4)
    pages += [output.data["text/html"] for output in saved.cells[1].outputs]
    for page in pages:
        assert "&lt;script&gt;" in page
        assert "<script" not in page
        assert "<img" not in page
