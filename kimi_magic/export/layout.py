"""The layout of programs, as the usual formatters keep it."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from kimi_magic.export.literals import Python, visible

__all__ = ["comment", "keywords", "stacked"]

_DEFINITION = re.compile(r"@|(async )?def |class ")


def comment(mark: str, paragraphs: Iterable[str]) -> str:
    """Paragraphs as a comment; ``- `` begins an item of a list."""
    lines: list[str] = []
    for paragraph in paragraphs:
        # On one line and visible, whatever it quotes stays within the comment.
        text = visible(" ".join(paragraph.split()))
        lines += textwrap.wrap(
            text,
            width=87,
            initial_indent=f"{mark} ",
            subsequent_indent=f"{mark}   " if text.startswith("- ") else f"{mark} ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    return "\n".join(lines)


def stacked(parts: Iterable[str]) -> str:
    """Parts of a Python program with the blank lines between them that ruff and black want."""
    text = before = ""
    for part in (part.strip("\n") for part in parts):
        if _DEFINITION.match(before) or (before and _DEFINITION.match(part)):
            text += "\n\n"
        elif before and not (_is_short(before) and _is_short(part)):
            text += "\n"
        text, before = f"{text}{part}\n", part
    return text


def keywords(values: Mapping[str, Any], indent: str) -> str:
    """Keyword arguments of a call in Python, a line or more each."""
    literals = Python()
    return "".join(
        f"{indent}{name}={literals.write(value, indent, len(name) + 2)},\n"
        for name, value in values.items()
    )


def _is_short(part: str) -> bool:
    """Whether it is a binding of one line: such stand together."""
    return re.match(r"\w+ = ", part) is not None and "\n" not in part
