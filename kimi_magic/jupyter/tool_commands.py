"""The tool bench: show a function as the model sees it, and call it as the model would."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from kimi_magic.core.errors import KimiError, MagicError, ToolInterrupted
from kimi_magic.core.frontend import can_answer
from kimi_magic.core.interrupts import holding_interrupts, interruptible
from kimi_magic.core.messages import ToolCall, ToolResult
from kimi_magic.core.text import count
from kimi_magic.jupyter.notebook import Notebook
from kimi_magic.tools.decorator import offered
from kimi_magic.tools.mcp_servers import (
    PREFIX,
    McpServer,
    find_server,
    is_served,
    known_servers,
    one_line,
    read_selector,
)
from kimi_magic.tools.tool import Tool, split_params
from kimi_magic.tools.toolset import LEFT_OUT, Toolset, find, remark_on_size

__all__ = ["call_tool", "change_offer", "describe_tool", "list_offered"]

MAX_NAMED = 400


def describe_tool(name: str, namespace: Mapping[str, Any]) -> str:
    """Return a tool's schema as it is sent, and notes on what was guessed, renamed or dropped.

    For an MCP server, return those of each of its tools.
    """
    toolset = _find_tool(name, namespace)
    shown = [*map(_described, toolset.tools), *_left_out(toolset)]
    return "\n".join(shown) or f"{name} has no tools."


def _left_out(toolset: Toolset) -> list[str]:
    return [LEFT_OUT.format(*each) for each in toolset.left_out.items()]


def _described(tool: Tool) -> str:
    schema = json.dumps(tool.schema(), indent=2, ensure_ascii=False)
    remark = remark_on_size(tool)
    notes = [*tool.notes, remark] if remark else tool.notes
    return "\n".join([schema, *(f"- {note}" for note in notes)])


def call_tool(notebook: Notebook, name: str, arguments: str) -> None:
    """Call a tool with arguments as the model writes them, and show all that comes of it.

    A call that fails raises nothing: its error is what the model gets.
    """
    from kimi_magic.turn.approval import Approval, ask_with_input

    toolset = _find_tool(name, notebook.variables)
    if not len(toolset) and toolset.left_out:
        raise MagicError("\n".join(_left_out(toolset)))
    if len(toolset) != 1:
        raise MagicError(f"{name} has {count(len(toolset), 'tool')}: name one, mcp:SERVER[TOOL].")
    (tool,) = toolset.tools
    redact = notebook.session.redact
    approval = Approval(toolset.namespace, set(), ask_with_input, lambda _: None, redact)
    try:
        with holding_interrupts(), interruptible():  # as in a turn
            result = toolset.call(tool.name, arguments, approve=approval if can_answer() else None)
    except ToolInterrupted as interrupt:
        _show(notebook, arguments, interrupt.result)
        raise
    _show(notebook, arguments, result)


def list_offered() -> str:
    """Return the tools that are offered to every cell, one per line."""
    rows = [
        f"{tool.name}: {tool.description.partition(chr(10))[0] or '(no description)'}"
        for tool in Toolset(list(offered)).tools
    ]
    none = "No tools are offered. Offer one with `%kimi tools add NAME` or @kimi.tool."
    problems: list[str] = []
    servers = known_servers(problems)
    rows = rows or [none]
    if servers:
        rows += ["", *_list_servers(servers)]
    return "\n".join([*rows, *problems])


def _list_servers(servers: Mapping[str, McpServer]) -> Iterator[str]:
    """Yield a line for each MCP server, and its tools as far as they are known; none is started."""
    from kimi_magic.tools.mcp_tool import known_tools

    every = {read_selector(selector)[0]: selector for selector in offered.servers}
    yield "MCP servers, which -T offers:"
    for name, server in servers.items():
        known = known_tools(server)
        tools = one_line(", ".join(known), MAX_NAMED) if known else "not started yet"
        always = f", offered to every cell as {every[name]}" if name in every else ""
        yield f"  {PREFIX}{name} ({server.source}{always}): {tools}"
    yield "`%kimi tool mcp:NAME` starts one and shows what it says of its tools."


def change_offer(change: str, namespace: Mapping[str, Any]) -> str:
    """Carry out ``add NAME`` or ``remove NAME``, and return a line that says so."""
    match change.split(None, 1):
        case ["remove", name]:
            offered.remove(name)
            return f"{name} is no longer offered."
        case ["add", name] if is_served(name):
            server = find_server(name)
            offered.add_server(name)
            return f"The tools of the MCP server {server.name} are offered to every cell."
        case ["add", name]:
            try:
                path, params = split_params(name)
                function = find(path, namespace)
                if params is not None:  # a mistake in them shows at once
                    Toolset([name], namespace=namespace)
                return f"{offered.add(function, params=params)} is offered to every cell."
            except KimiError as error:
                raise MagicError(f"{str(error)[:1].upper()}{str(error)[1:]}.") from None
    raise MagicError("`%kimi tools` lists; `%kimi tools add NAME` and `remove NAME` change it.")


def _find_tool(name: str, namespace: Mapping[str, Any]) -> Toolset:
    """Return the tool that a ``%%kimi`` cell means by a name."""
    return Toolset([offered.resolve(name, namespace)], namespace=namespace)


def _show(notebook: Notebook, arguments: str, result: ToolResult) -> None:
    """Show a call as a turn would, then the text for the model."""
    from kimi_magic.display.record import publish, show_call

    call = ToolCall("", result.name, arguments)
    shown = notebook.session.redact((call, result))
    publish(show_call(*shown, max_chars=notebook.session.settings.max_output_chars))
    outcome = "refused or failed" if result.error else "returned"
    notebook.say(f"[{result.name} {outcome} after {result.seconds:.2f} s; the model gets:]")
    notebook.say(shown[1].content)
