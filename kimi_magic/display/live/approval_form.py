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
    texts = {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in list(arguments.items())[:MAX_FIELDS]
    }
    limits = _shares({name: len(text) for name, text in texts.items()})
    fields = [
        (_in_a_line(name), _kept(text, limits[name]), len(text) <= limits[name])
        for name, text in texts.items()
    ]
    if len(arguments) > MAX_FIELDS:
        note = f"[{len(arguments) - MAX_FIELDS:,} more arguments cannot be shown here]"
        fields.append(("…", note, False))
    return fields


def _shares(sizes: dict[str, int]) -> dict[str, int]:
    """Divide the room among the arguments: a long one takes none that a short one needs."""
    shares, left = {}, MAX_CHARS
    for rank, name in enumerate(sorted(sizes, key=sizes.__getitem__)):
        shares[name] = min(sizes[name], left // (len(sizes) - rank))
        left -= shares[name]
    return shares


def _in_a_line(name: str) -> str:
    """Show a name; a line break in it could pass for the end of a question."""
    return reveal(name).replace("\n", "⟨U+000A⟩").replace("\t", "⟨U+0009⟩")


def _kept(text: str, limit: int) -> str:
    """Show a text; of one that is too long the beginning and the end."""
    if len(text) <= limit:
        return reveal(text)
    end = limit // 4
    note = f"[{len(text) - limit:,} more characters cannot be shown here]"
    return f"{reveal(text[: limit - end])}\n{note}\n{reveal(text[len(text) - end :])}"


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
