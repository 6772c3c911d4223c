"""The form in which a person approves a call: its arguments as texts to edit, and the answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from kimi_magic.view import Answer

__all__ = ["as_fields", "read_answer"]

Problem = Callable[[dict[str, Any]], str]


def as_fields(arguments: dict[str, Any]) -> list[tuple[str, str]]:
    """Each argument's name and text: a text as it is, everything else as JSON."""
    return [(name, _text(value)) for name, value in arguments.items()]


def read_answer(
    said: dict[str, Any], arguments: dict[str, Any], problem: Problem
) -> tuple[Answer, str]:
    """What a person said with the form, and what is wrong with it, "" for nothing."""
    if said.get("say") not in ("once", "chat"):
        return "no", ""
    edited = dict(arguments)
    texts = said.get("fields")
    for (name, before), text in zip(
        as_fields(arguments), texts if isinstance(texts, list) else (), strict=False
    ):
        if text == before or not isinstance(text, str):
            continue
        try:
            edited[name] = text if isinstance(arguments[name], str) else json.loads(text)
        except (ValueError, RecursionError) as error:
            return "no", f"{name} is no JSON: {error}"
    if edited == arguments:
        return said["say"], ""
    return edited, problem(edited)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
