"""The doctor on MCP servers: those that are configured, and what is missing to start them."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from kimi_magic.core.text import count
from kimi_magic.jupyter.doctor_table import Row
from kimi_magic.tools.mcp_servers import McpServer, known_servers, program_is_there

__all__ = ["tool_rows"]


def tool_rows() -> Iterator[Row]:
    """Judge the MCP servers; none is started, and only names and programs are shown."""
    problems: list[str] = []
    servers = known_servers(problems)
    for problem in problems:
        said, _, do = problem.partition("\n")
        yield Row("tool.mcp_entry", "mend", said, "its tools cannot be offered", do)
    if servers and find_spec("mcp") is None:
        yield Row(
            "tool.mcp",
            "mend",
            f"{count(len(servers), 'MCP server')}, and no library to reach them",
            "`-T mcp:NAME` fails",
            'pip install "kimi-magic[mcp]"',
        )
    for name, server in servers.items():
        if program := _missing_program(server):
            yield Row(
                "tool.mcp_program",
                "look",
                f"the MCP server {name} is started by {program}, which is not found",
                "its tools cannot be offered",
                f"install {program}, or give its whole path in {server.source}",
            )
        else:
            found = f"the MCP server {name}, named in {server.source}"
            yield Row("tool.mcp_server", "ok", found, _OFFER)


_OFFER = "`-T mcp:NAME` starts it; its calls ask first"


def _missing_program(server: McpServer) -> str:
    """Return the program that starts a server, if it is not found; else ""."""
    program = server.command[0] if server.command else ""
    path = server.env.get("PATH")
    if not program or "${" in f"{program}{server.cwd}{path}":  # filled in when it is started
        return ""
    folder = Path(server.file).parent / server.cwd
    return "" if program_is_there(program, folder, path) else program
