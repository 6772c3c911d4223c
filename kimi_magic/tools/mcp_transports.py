"""Ways to an MCP server: a process with its standard streams, or an address."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import sysconfig
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Self

from kimi_magic.core.text import clip, mend_surrogates, reveal
from kimi_magic.tools.mcp_servers import Launch, program_is_there

if TYPE_CHECKING:
    from kimi_magic.tools.mcp_http import HttpClient

__all__ = ["LastWords", "WholeLines", "set_patience", "transport_to", "watched"]

MAX_TAIL, MAX_TAIL_LINES = 4000, 5
MAX_LINE = 32_000_000  # characters of an answer
MAX_HEAD = 500  # characters at either end of an answer in which its number is looked for
NO_ANSWER = "The server's answer is too long, or none of the protocol."
_ANSWER = re.compile(r'\s*\{\s*"(?:jsonrpc|id|result|error)"')
_ID = re.compile(r'"id"\s*:\s*(\d{1,15})\b')

# A killed kernel ends no server, and not every server ends with its standard input. Linux signals a
# process when the thread that started it ends (PR_SET_PDEATHSIG, prctl(2)): here the thread of all
# sessions, which lives as long as the kernel. The setting outlives an exec. So do the signals that
# Python ignores and the LC_CTYPE that it may set (PEP 538), which the server is not to inherit.
_TIED = """
import os, signal, sys
try:
    import ctypes
    ctypes.CDLL(None).prctl(1, ctypes.c_ulong(signal.SIGTERM))
except Exception:
    pass  # a Python without ctypes: the server starts all the same
if os.getppid() != int(sys.argv[1]):
    sys.exit()  # the kernel ended before it was asked for the signal
for each in (signal.SIGPIPE, signal.SIGXFSZ):
    signal.signal(each, signal.SIG_DFL)
with open("/proc/self/environ", "rb") as file:
    env = dict(pair.split(b"=", 1) for pair in file.read().split(b"\\0") if b"=" in pair)
try:
    os.execvpe(sys.argv[2], sys.argv[2:], env)
except OSError as error:
    sys.exit(f"{sys.argv[2]}: {error.strerror}")
"""


def transport_to(launch: Launch, tail: LastWords) -> AbstractAsyncContextManager[Any]:
    """Return the SDK's transport, not entered yet."""
    if launch.url:
        return _http(launch, tail)
    from mcp.client import stdio

    # The SDK joins a line piece by piece, which takes the square of its length and has no end.
    vars(stdio)["TextReceiveStream"] = WholeLines
    command, *args = _tied(launch, {**stdio.get_default_environment(), **launch.env})
    params = stdio.StdioServerParameters(
        command=command,
        args=args,
        env=dict(launch.env),
        cwd=launch.cwd or None,
        encoding_error_handler="replace",
    )
    return stdio.stdio_client(params, errlog=tail.file())


def _tied(launch: Launch, env: Mapping[str, str]) -> Sequence[str]:
    """Return the command; on Linux, one that has the same server end with this process.

    A program that is not found stays as it is, so that the error is the system's own.
    """
    # A Python that finds its own library by this variable does not start without it.
    needs_path = os.environ.get("LD_LIBRARY_PATH") and sysconfig.get_config_var("Py_ENABLE_SHARED")
    if sys.platform != "linux" or needs_path or not os.access(sys.executable or "", os.X_OK):
        return launch.command
    if not program_is_there(launch.command[0], launch.cwd, env.get("PATH", os.defpath)):
        return launch.command
    return [sys.executable, "-I", "-S", "-c", _TIED, str(os.getpid()), *launch.command]


def set_patience(seconds: float) -> None:
    """Set how long a process may take to end by itself, and again when it is told to."""
    stdio: Any = sys.modules.get("mcp.client.stdio")
    if stdio is not None:
        stdio.PROCESS_TERMINATION_TIMEOUT = stdio.FORCE_KILL_TIMEOUT = seconds


@asynccontextmanager
async def _http(launch: Launch, tail: LastWords) -> AsyncIterator[Any]:
    from mcp.client.streamable_http import streamable_http_client

    from kimi_magic.tools.mcp_http import MAX_BODY, HttpClient

    async with HttpClient(launch.url, launch.headers) as client:
        tail.client = client
        async with streamable_http_client(
            launch.url, http_client=client, max_sse_event_size=MAX_BODY
        ) as streams:
            yield streams


@asynccontextmanager
async def watched(
    transport: AbstractAsyncContextManager[Any], over: asyncio.Event
) -> AsyncIterator[Any]:
    """Tell when the stream of a transport ends, which the SDK tells only to pending requests."""
    async with transport as (read, write):
        yield _Watched(read, over), write


class _Watched:
    """A stream for reading that tells of its end, and answers for what cannot be read.

    The SDK passes over a line that it cannot read, and whoever waits for that answer waits in vain.
    """

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
            item = await self._stream.__anext__()
        except BaseException:
            self._over.set()
            raise
        return _mended(item) if isinstance(item, ValueError) else item

    async def receive(self) -> Any:
        return await self._stream.receive()

    async def aclose(self) -> None:
        await self._stream.aclose()


class WholeLines:
    """A stream of bytes as text in whole lines; of a line that is too long, its two ends."""

    def __init__(self, stream: Any, encoding: str, errors: str) -> None:
        from anyio.streams.text import TextReceiveStream

        self._texts = TextReceiveStream(stream, encoding=encoding, errors=errors)

    async def __aiter__(self) -> AsyncIterator[str]:
        begun: list[str] = []
        length = 0
        async for text in self._texts:
            head, ended, rest = text.rpartition("\n")
            if ended:
                yield "".join([*begun, head, ended])
                begun, length = [rest], len(rest)
            elif length <= MAX_LINE:
                begun.append(text)
                length += len(text)
                if length > MAX_LINE:
                    # With what no JSON holds, or head and end could be taken for a whole.
                    begun = ["".join(begun)[:MAX_HEAD], "\0"]


def _mended(error: ValueError) -> Any:
    """Return the message whose line raised an error, or an error as its answer.

    Half of a surrogate pair is JSON, as Python writes it, but no text that the SDK takes. Return
    the error itself for what is no answer.
    """
    from mcp.shared.message import SessionMessage
    from mcp_types import PARSE_ERROR, ErrorData, JSONRPCError, jsonrpc_message_adapter

    read, number = _answer_in(error)
    with suppress(ValueError, RecursionError):
        text = json.dumps(_without_halves(read))
        return SessionMessage(jsonrpc_message_adapter.validate_json(text, by_name=False))
    if number is None:
        return error
    said = ErrorData(code=PARSE_ERROR, message=NO_ANSWER)
    return SessionMessage(JSONRPCError(jsonrpc="2.0", id=number, error=said))


def _answer_in(error: ValueError) -> tuple[Any, int | None]:
    """Return what pydantic could not read, and the number of the request that it answers."""
    from pydantic import ValidationError

    errors = error.errors(include_url=False) if isinstance(error, ValidationError) else []
    for given in (each["input"] for each in errors):
        if isinstance(given, str) and _ANSWER.match(given):
            found = _ID.search(given[:MAX_HEAD]) or _ID.search(given[-MAX_HEAD:])
            with suppress(ValueError, RecursionError):
                return json.loads(given), int(found[1]) if found else None
            return None, int(found[1]) if found else None
        if isinstance(given, dict) and "jsonrpc" in given and "method" not in given:
            number = given.get("id")
            return None, number if isinstance(number, int) else None
    return None, None


def _without_halves(value: Any) -> Any:
    if isinstance(value, str):
        return mend_surrogates(value)
    if isinstance(value, list):
        return [_without_halves(each) for each in value]
    if isinstance(value, dict):
        return {mend_surrogates(name): _without_halves(each) for name, each in value.items()}
    return value


class LastWords:
    """The last words of a server: the end of its standard error, or how it refused.

    Through a pipe: ipykernel's ``sys.stderr`` has no file number everywhere, and a file would grow
    for as long as the server talks.
    """

    def __init__(self) -> None:
        self.client: HttpClient | None = None
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
        for _ in range(100):  # its end comes at once, but for what a child of it holds open
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
    def problem(self) -> str:
        """The reason why an address refused the latest request, to be read after the server's name.

        "" if there is none.
        """
        return self.client.problem if self.client is not None else ""

    @property
    def text(self) -> str:
        lines = self._data.decode("utf-8", "replace").strip().splitlines()
        return "\n".join(reveal(clip(line.rstrip(), 200)) for line in lines[-MAX_TAIL_LINES:])
