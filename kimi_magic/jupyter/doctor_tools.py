"""The doctor on MCP servers: which are told of, and what is missing to start them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec

from kimi_magic.core.text import count
from kimi_magic.jupyter.doctor_table import Row
from kimi_magic.tools.mcp_servers import known_servers

__all__ = ["McpFinding", "look_at_tools", "tool_rows"]


@dataclass(frozen=True, slots=True)
class McpFinding:
    """MCP servers.

    Attributes
    ----------
    sources : mapping
        By name, where it is told of.
    missing : mapping
        By name, the program that is not found.
    problems : sequence of str
        What of the file or the setting cannot be used.
    """

    sources: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    problems: Sequence[str] = ()
    is_installed: bool = True


def look_at_tools() -> McpFinding:
    """Look for MCP servers; none is started."""
    problems: list[str] = []
    servers = known_servers(problems)
    missing = {
        name: program
        for name, server in servers.items()
        if (program := "".join(server.command[:1]))
        and "${" not in program
        and shutil.which(program, path=server.env.get("PATH")) is None
    }
    sources = {name: server.source for name, server in servers.items()}
    return McpFinding(sources, missing, problems, find_spec("mcp") is not None)


def tool_rows(facts: McpFinding) -> Iterator[Row]:
    """Judge the MCP servers; nothing of them is shown but names and programs."""
    for problem in facts.problems:
        said, _, do = problem.partition("\n")
        yield Row("tool.mcp_entry", "mend", said, "its tools cannot be offered", do)
    if facts.sources and not facts.is_installed:
        yield Row(
            "tool.mcp",
            "mend",
            f"{count(len(facts.sources), 'MCP server')}, and no library to reach them",
            "`-T mcp:NAME` fails",
            'pip install "kimi-magic[mcp]"',
        )
    for name, source in facts.sources.items():
        if program := facts.missing.get(name):
            yield Row(
                "tool.mcp_program",
                "look",
                f"the MCP server {name} is started by {program}, which is not found",
                "its tools cannot be offered",
                f"install {program}, or give its whole path in {source}",
            )
        else:
            yield Row(
                "tool.mcp_server", "ok", f"the MCP server {name}, told of by {source}", _OFFER
            )


_OFFER = "`-T mcp:NAME` starts it; its calls ask first"
