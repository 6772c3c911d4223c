"""The form in which a person approves a call: its arguments as texts to edit, and the answer.

What is shown is all that would run: nothing in it is hidden, and what is too long to be read says
so and cannot be edited.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from kimi_magic.core.text import reveal
from kimi_magic.display.view import Answer

__all__ = ["as_fields", "as_text", "read_answer"]

Problem = Callable[[dict[str, Any]], str]
MOST_FIELDS = 100
MOST_CHARS = 20_000  # of all fields together


def as_fields(arguments: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """Each argument's name, its text, and whether that is the whole of it.

    A text stands as it is, everything else as JSON.
    """
    fields: list[tuple[str, str, bool]] = []
    room = MOST_CHARS
    for name, value in list(arguments.items())[:MOST_FIELDS]:
        text = as_text(value)
        kept = text[:room]
        room -= len(kept)
        missing = len(text) - len(kept)
        note = f"\n[{missing:,} more characters cannot be shown here]" if missing else ""
        fields.append((reveal(name), reveal(kept) + note, not missing))
    if len(arguments) > MOST_FIELDS:
        note = f"[{len(arguments) - MOST_FIELDS:,} more arguments cannot be shown here]"
        fields.append(("…", note, False))
    return fields


def read_answer(
    said: dict[str, Any], arguments: dict[str, Any], problem: Problem
) -> tuple[Answer, str]:
    """What a person said with the form, and what is wrong with it, "" for nothing."""
    if said.get("say") not in ("once", "chat"):
        return "no", ""
    edited = dict(arguments)
    texts = said.get("fields")
    for name, (_, before, whole), text in zip(
        arguments, as_fields(arguments), texts if isinstance(texts, list) else (), strict=False
    ):
        if not whole or text == before or not isinstance(text, str):
            continue
        try:
            edited[name] = text if isinstance(arguments[name], str) else json.loads(text)
        except (ValueError, RecursionError) as error:
            return "no", f"{reveal(name)} is no JSON: {error}"
    if edited == arguments:
        return said["say"], ""
    return edited, problem(edited)


def as_text(value: Any) -> str:
    """A value as a person reads it: a text as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
