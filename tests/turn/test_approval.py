"""The question to a person at an ``input()`` prompt."""

from __future__ import annotations

import builtins

import pytest

from kimi_magic.display.view import Unseen
from kimi_magic.tools.mcp_questions import Question
from kimi_magic.turn.approval import asking


def test_a_key_in_a_servers_question_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Front ends keep a prompt in the notebook."""
    prompts: list[str] = []

    def type_in(prompt: str = "") -> str:
        prompts.append(prompt)
        return ""

    monkeypatch.setattr(builtins, "input", type_in)
    secret = "fake-key-" + "0123456789abcdef"
    question = Question("demo_asks", f"Is {secret} yours?", {"type": "object"})
    ask = asking(Unseen(), lambda text: text.replace(secret, "[key]"))
    assert ask(question, {}, lambda _: "", {}) == "no"
    (prompt,) = prompts
    assert "Is [key] yours?" in prompt
    assert secret not in prompt
