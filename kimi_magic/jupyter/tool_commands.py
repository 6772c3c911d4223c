"""The tool bench: a function as the model will see it, and called as the model would call it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kimi_magic.core.errors import KimiError, MagicError
from kimi_magic.core.messages import ToolResult
from kimi_magic.tools.decorator import offered
from kimi_magic.tools.tool import Tool
from kimi_magic.tools.toolset import Toolset, find

__all__ = ["change_offer", "describe", "list_offered", "told_to_the_model", "tool_named"]


def tool_named(name: str, namespace: Mapping[str, Any]) -> Toolset:
    """The tool that a name means, as in a ``%%kimi`` cell that names it.

    Raises
    ------
    KimiError
        There is none, or it cannot be a tool.
    """
    return Toolset([offered.resolve(name, namespace)], namespace=namespace)


def describe(tool: Tool) -> str:
    """The schema as it would be sent, and what was guessed, renamed or dropped."""
    schema = json.dumps(tool.schema(), indent=2, ensure_ascii=False)
    return "\n".join([schema, *(f"- {note}" for note in tool.notes)])


def told_to_the_model(result: ToolResult) -> str:
    """What the model would get, after how long."""
    state = "refused or failed" if result.error else "returned"
    return (
        f"[{result.name} {state} after {result.seconds:.2f} s; the model gets:]\n{result.content}"
    )


def list_offered() -> str:
    """The tools that are offered to every cell, a line each."""
    rows = [
        f"{tool.name}: {tool.description.partition(chr(10))[0] or '(no description)'}"
        for tool in Toolset(list(offered)).tools
    ]
    return (
        "\n".join(rows) or "No tools are offered. `%kimi tools add NAME`, or decorate: @kimi.tool"
    )


def change_offer(words: str, namespace: Mapping[str, Any]) -> str:
    """Carry out ``add NAME`` or ``remove NAME``; what was done, in a line.

    Raises
    ------
    KimiError
        No such function or tool.
    """
    what, _, name = words.partition(" ")
    name = name.strip()
    if what not in ("add", "remove") or not name:
        raise MagicError("`%kimi tools` lists; `%kimi tools add NAME` and `remove NAME` change it.")
    if what == "remove":
        offered.remove(name)
        return f"{name} is not offered any more."
    try:
        return f"{offered.add(find(name, namespace))} is offered to every cell."
    except KimiError as error:
        raise MagicError(f"{str(error)[:1].upper()}{str(error)[1:]}.") from None
