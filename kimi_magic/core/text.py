"""Small matters of text: what fits, and how things are counted."""

from __future__ import annotations

import re

__all__ = ["clip", "count", "cut", "cut_middle", "plain"]

_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")


def count(number: int, noun: str) -> str:
    """Say how many there are: ``1 row``, ``1,000 rows``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def clip(text: str, limit: int) -> str:
    """Shorten a text of a few words; an ellipsis stands for the rest."""
    return text if len(text) <= limit else f"{text[: max(limit - 1, 0)]}…"[: max(limit, 0)]


def cut(text: str, limit: int, hint: str = "") -> str:
    """Shorten a text to ``limit`` characters, a note on what is missing included.

    Where the note would take most of them, an ellipsis stands for it.
    """
    if len(text) <= limit:
        return text
    kept, note = _note(len(text), limit, hint)
    return clip(text, limit) if kept < limit // 4 else f"{text[:kept]}{note}"


def cut_middle(text: str, limit: int) -> str:
    """Shorten a text as ``cut`` does, but keep its end too, which has two thirds of the room."""
    if len(text) <= limit:
        return text
    kept, note = _note(len(text), limit - 2)
    if kept < max(limit // 4, 3):
        return clip(text, limit)
    head = kept // 3
    return f"{text[:head]}\n{note}\n{text[head - kept :]}"


def _note(length: int, limit: int, hint: str = "") -> tuple[int, str]:
    """How many characters stay, negative if there is no room for the note, and the note itself.

    It tells how much is missing, which depends on its own length: its digits vary by few.
    """
    hint = hint and f"; {hint}"
    kept = limit - len(f"… [cut: {length:,} of {length:,} characters are missing{hint}]")
    missing = length - max(kept, 0)
    return kept, f"… [cut: {missing:,} of {length:,} characters are missing{hint}]"


def plain(text: str) -> str:
    """What was printed as a terminal would leave it: without colours and overwritten lines."""
    text = _ANSI.sub("", text)
    if "\r" not in text:
        return text
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
