"""MCP servers for tests, each with the plan that it follows."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

import kimi_magic as kimi

if TYPE_CHECKING:
    from kimi_magic.tools.mcp_servers import McpServer

SCRIPT = Path(__file__).with_name("mcp_server.py")
ANY = {"type": "object", "properties": {"x": {"type": "integer"}}}


def described(name: str, about: str = "Does something.", **more: Any) -> dict[str, Any]:
    return {"name": name, "description": about, "inputSchema": ANY, **more}


class Planned:
    """A server, its plan, and what it got."""

    def __init__(self, folder: Path, name: str = "demo", **plan: Any) -> None:
        self.name = name
        self._plan, self._log = folder / f"{name}.json", folder / f"{name}.log"
        self.plan(**plan)

    def plan(self, tools: Any = None, **more: Any) -> None:
        """Change what the server does from now on."""
        listed = [described("act")] if tools is None else tools
        self._plan.write_text(json.dumps({"tools": listed, **more}), "utf-8")

    @property
    def command(self) -> list[str]:
        return [sys.executable, str(SCRIPT), str(self._plan), str(self._log)]

    @property
    def entry(self) -> dict[str, Any]:
        """The server in the form of ``.mcp.json``."""
        return {"command": self.command[0], "args": self.command[1:]}

    def server(self, **options: Any) -> McpServer:
        return kimi.mcp(self.command, name=self.name, **{"trust": True} | options)

    @property
    def got(self) -> list[dict[str, Any]]:
        if not self._log.exists():
            return []
        return [json.loads(line) for line in self._log.read_text("utf-8").splitlines()]

    def methods(self) -> list[str]:
        return [message["method"] for message in self.got if "method" in message]


class Plans(Protocol):
    """Makes a server that follows a plan."""

    def __call__(self, name: str = "demo", **plan: Any) -> Planned: ...


@pytest.fixture
def planned(tmp_path: Path) -> Iterator[Plans]:
    """Make servers, and end them after the test."""
    yield lambda name="demo", **plan: Planned(tmp_path, name, **plan)
    from kimi_magic.tools import mcp_pins, mcp_servers
    from kimi_magic.tools.mcp_session import close_all

    close_all()
    mcp_servers._named.clear()
    mcp_pins._kept.clear()


@contextmanager
def served_over_http(tools: Mapping[str, Any]) -> Iterator[str]:
    """Serve functions with the SDK's own server, at an address."""
    import socket
    import threading
    import time

    import uvicorn
    from mcp.server.mcpserver import MCPServer

    app = MCPServer("web", log_level="ERROR")
    for name, function in tools.items():
        app.tool(name=name)(function)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        config = uvicorn.Config(app.streamable_http_app(), log_level="critical")
        web = uvicorn.Server(config)
        thread = threading.Thread(target=web.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not web.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            web.should_exit = web.force_exit = True
            thread.join(10)


@contextmanager
def answering(status: int, body: bytes = b"", **headers: str) -> Iterator[tuple[str, list[str]]]:
    """Serve one answer to all requests; yield the address, and the methods of the requests."""
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    methods: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            methods.append(self.command)
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            with suppress(OSError):  # who has seen enough
                self.wfile.write(body)

        do_GET = do_DELETE = do_POST

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        thread = threading.Thread(target=web.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{web.server_port}/mcp", methods
        finally:
            web.shutdown()
            thread.join(10)
