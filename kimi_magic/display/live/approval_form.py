"""The form in which a person approves a tool call: arguments to edit, and the answer.

It shows all that would run: invisible characters by their number, and arguments that are too long
to show with a note, and locked.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from kimi_magic.core.text import reveal
from kimi_magic.display.view import Answer

__all__ = ["Problem", "as_fields", "read_answer"]

Problem = Callable[[dict[str, Any]], str]
MAX_FIELDS = 100
MAX_CHARS = 20_000  # of all fields together


def as_fields(arguments: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """Return each argument's name, its text, and True if that is the whole of it.

    Strings stand as they are, all else as JSON.
    """
    fields: list[tuple[str, str, bool]] = []
    left = MAX_CHARS
    for name, value in list(arguments.items())[:MAX_FIELDS]:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        kept = text[:left]
        left -= len(kept)
        missing = len(text) - len(kept)
        note = f"\n[{missing:,} more characters cannot be shown here]" if missing else ""
        fields.append((reveal(name), reveal(kept) + note, not missing))
    if len(arguments) > MAX_FIELDS:
        note = f"[{len(arguments) - MAX_FIELDS:,} more arguments cannot be shown here]"
        fields.append(("…", note, False))
    return fields


def read_answer(
    given: dict[str, Any], arguments: dict[str, Any], problem: Problem
) -> tuple[Answer, str]:
    """Return a person's answer, and the problem with it, "" if there is none."""
    if given.get("say") not in ("once", "chat"):
        return "no", ""
    edited = dict(arguments)
    texts = given.get("fields")
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
        return given["say"], ""
    return edited, problem(edited)
