"""Refusals of the scripted server in the dialect of Anthropic's Messages API."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from kimi_magic.testing.block_checks import (
    check_messages_request,
    check_thinking,
    signed_elsewhere,
)

THINKING = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "3"}
VALID: dict[str, Any] = {
    "model": "claude-opus-4-6",
    "max_tokens": 2000,
    "system": "Be brief.",
    "messages": [
        {"role": "user", "content": "Go"},
        {"role": "assistant", "content": [THINKING, CALL]},
        {"role": "user", "content": [RESULT, {"type": "text", "text": "So?"}]},
    ],
    "tools": [{"name": "add", "input_schema": {"type": "object"}}],
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "stream": True,
}


def body(change: Callable[[dict[str, Any]], object] = lambda _: None) -> dict[str, Any]:
    changed = copy.deepcopy(VALID)
    change(changed)
    return changed


def content(given: dict[str, Any], place: int) -> Any:
    return given["messages"][place]["content"]


def test_a_valid_request() -> None:
    assert check_messages_request(body()) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda b: b.pop("max_tokens"), "max_tokens: Field required"),
        (lambda b: b.update(seed=1), "seed: Extra inputs are not permitted"),
        (lambda b: b.update(temperature=1.5), "temperature: range"),
        (lambda b: b.update(stop_sequences=[" "]), "stop_sequences: each must contain"),
        (lambda b: b.update(system=""), "system: must be a text"),
        (lambda b: b.update(max_tokens=1024), "max_tokens must be greater than thinking.budget"),
        (lambda b: b.update(output_config={"effort": "huge"}), "output_config.effort"),
        (lambda b: b.pop("tools"), "must define tools"),
        (lambda b: b["tools"][0].pop("input_schema"), "tools.0.input_schema"),
        (lambda b: b["tools"].append(b["tools"][0]), "Tool names must be unique"),
        (lambda b: b["messages"].pop(0), "roles must alternate"),
        (lambda b: b["messages"].pop(), "must end with a user message"),
        (lambda b: content(b, 2).reverse(), "tool_result blocks come first"),
        (lambda b: content(b, 2).pop(0), "found without `tool_result` blocks immediately after"),
        (lambda b: content(b, 1).pop(), "unexpected `tool_use_id`"),
        (lambda b: content(b, 1)[0].pop("signature"), "signature: Field required"),
        (lambda b: content(b, 1)[0].update(signature=""), "Invalid `signature`"),
        (lambda b: content(b, 1).append(THINKING), "the final block in an assistant message"),
        (lambda b: content(b, 1)[1].update(id="a.b:0"), "should match pattern"),
        (lambda b: content(b, 1)[1].update(input="{}"), "should be an object"),
        (lambda b: content(b, 2)[1].update(text=" "), "non-whitespace"),
        (lambda b: content(b, 2)[1].update(type="news"), "unknown block"),
        (lambda b: content(b, 2).append(THINKING), "not permitted in a message of role user"),
        (lambda b: content(b, 2).append({"type": "image"}), "source.type: must be base64 or url"),
    ],
)  # fmt: skip
def test_what_is_refused(change: Callable[[dict[str, Any]], object], says: str) -> None:
    assert any(says in problem for problem in check_messages_request(body(change)))


def test_thinking_comes_back_as_it_went() -> None:
    issued = [(["toolu_1"], [THINKING])]
    assert check_thinking(body(), issued) == []
    changed = body(lambda b: content(b, 1)[0].update(thinking="Ha."))
    assert any("Invalid `signature`" in problem for problem in check_thinking(changed, issued))
    without = body(lambda b: content(b, 1).pop(0))
    assert any("must remain" in problem for problem in check_thinking(without, issued))
    kimi = THINKING | {"signature": ""}
    empty = body(lambda b: content(b, 1)[0].update(kimi, thinking=""))
    assert check_thinking(empty, [([], [kimi])]) == [], "an empty signature proves nothing"
    assert signed_elsewhere(body(), issued) == ""
    assert signed_elsewhere(body(), []).startswith("messages.1.content.0: Invalid `signature`")
