"""Ways to an MCP server: a process with its standard streams, or an address."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, Self

from kimi_magic.core.text import clip, reveal
from kimi_magic.tools.mcp_servers import Launch

__all__ = ["StderrTail", "set_patience", "transport_to", "watched"]

MAX_TAIL, MAX_TAIL_LINES = 4000, 5
HTTP_LIMIT, READ_LIMIT = 30.0, 300.0  # seconds


def transport_to(launch: Launch, tail: StderrTail) -> AbstractAsyncContextManager[Any]:
    """Return the SDK's transport, not entered yet."""
    if launch.url:
        return _http(launch)
    from mcp.client.stdio import StdioServerParameters, stdio_client

    command, *args = launch.command
    params = StdioServerParameters(
        command=command,
        args=args,
        env=dict(launch.env),
        cwd=launch.cwd or None,
        encoding_error_handler="replace",
    )
    return stdio_client(params, errlog=tail.file())


def set_patience(seconds: float) -> None:
    """Set how long a process may take to end by itself, and again when it is told to."""
    stdio: Any = sys.modules.get("mcp.client.stdio")
    if stdio is not None:
        stdio.PROCESS_TERMINATION_TIMEOUT = stdio.FORCE_KILL_TIMEOUT = seconds


@asynccontextmanager
async def _http(launch: Launch) -> AsyncIterator[Any]:
    import httpx2
    from mcp.client.streamable_http import streamable_http_client

    timeout = httpx2.Timeout(HTTP_LIMIT, read=READ_LIMIT)
    headers = dict(launch.headers)
    async with (
        httpx2.AsyncClient(headers=headers, timeout=timeout) as client,
        streamable_http_client(launch.url, http_client=client) as streams,
    ):
        yield streams


@asynccontextmanager
async def watched(
    transport: AbstractAsyncContextManager[Any], over: asyncio.Event
) -> AsyncIterator[Any]:
    """Tell when the stream of a transport ends, which the SDK tells to pending requests alone."""
    async with transport as (read, write):
        yield _Watched(read, over), write


class _Watched:
    """A stream for reading that tells of its end."""

    def __init__(self, stream: Any, over: asyncio.Event) -> None:
        self._stream, self._over = stream, over

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> Any:
        return await self._stream.__aexit__(*error)

    def __aiter__(self) -> _Watched:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self._stream.__anext__()
        except BaseException:
            self._over.set()
            raise

    async def receive(self) -> Any:
        return await self._stream.receive()

    async def aclose(self) -> None:
        await self._stream.aclose()


class StderrTail:
    """The end of what a server writes to its standard error.

    Through a pipe: ipykernel's ``sys.stderr`` has no file number everywhere, and a file would grow
    for as long as the server talks.
    """

    def __init__(self) -> None:
        self._data = b""
        self._writing: Any = None
        self._ended = threading.Event()
        self._ended.set()

    def file(self) -> Any:
        """Return the file to write to."""
        reading, writing = os.pipe()
        self._writing = os.fdopen(writing, "w")
        self._ended.clear()
        threading.Thread(
            target=self._read, args=(reading,), name="kimi-magic mcp stderr", daemon=True
        ).start()
        return self._writing

    def spawned(self) -> None:
        """Close our end of the pipe, which the server has now."""
        writing, self._writing = self._writing, None
        if writing is not None:
            with suppress(OSError):
                writing.close()

    async def settled(self) -> None:
        """Wait a moment for the last words of a server that has ended."""
        self.spawned()
        for _ in range(20):
            if self._ended.is_set():
                break
            await asyncio.sleep(0.01)

    def _read(self, reading: int) -> None:
        with suppress(OSError):
            while data := os.read(reading, 65536):
                self._data = (self._data + data)[-MAX_TAIL:]
        with suppress(OSError):
            os.close(reading)
        self._ended.set()

    @property
    def text(self) -> str:
        lines = self._data.decode("utf-8", "replace").strip().splitlines()
        return "\n".join(reveal(clip(line.rstrip(), 200)) for line in lines[-MAX_TAIL_LINES:])
