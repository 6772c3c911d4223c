"""Sessions with MCP servers: one thread with an event loop, in which all of them live.

A session is opened at its first use and kept; one that has ended is opened again at the next. The
thread is a daemon: at the end of the kernel it is given a moment to end the servers. A kernel that
is killed closes their standard input, at which the protocol has them end; on Linux they also get
SIGTERM.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent import futures
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from kimi_magic.core.errors import ConfigError, KimiError
from kimi_magic.core.interrupts import holding_interrupts, whole_imports
from kimi_magic.core.text import clip, reveal
from kimi_magic.tools.mcp_servers import Launch, McpServer
from kimi_magic.tools.mcp_transports import LastWords, set_patience, transport_to, watched

if TYPE_CHECKING:
    from mcp.client import Client
    from mcp_types import CallToolResult, ElicitRequestParams, ElicitResult
    from mcp_types import Tool as ToolDefinition

__all__ = ["Asked", "CallLimits", "Listing", "ServerError", "ServerSession", "session_of"]

T = TypeVar("T")

START_LIMIT = 60.0  # seconds: npx and uvx may have to download a server first
LIST_LIMIT = 30.0
CALL_LIMIT = 300.0  # seconds of a call in which no person is asked
AT_EXIT = 3.0
TICK = 0.05  # Windows cannot interrupt a wait for a lock
RELIST_AFTER = 30.0  # seconds: a server need not tell that its tools have changed
MAX_PAGES, MAX_LISTED = 50, 1000
MAX_WORDS, MAX_REFUSAL = 300, 4000
MOST_QUESTIONS = 5  # of one call; whoever asks more often gets no answer
# They log what a server sends, with a traceback, which Python prints where nobody handles it.
LOGGERS = ("mcp", "client")
OUT_OF_REACH = "cannot be reached"
STAND_INS = ("Server returned an error response", "Not Found", "Redirect to ")  # of the SDK

NOT_INSTALLED = (
    "MCP servers need a package that is not installed: `pip install 'kimi-magic[mcp]'`, then "
    "restart the kernel."
)


class ServerError(KimiError):
    """Raised when a server cannot be started or reached, or broke off."""


class RefusedByServer(KimiError):
    """Raised when a server answered a request with an error of the protocol."""


class _BrokeOff(Exception):
    """Raised when a server closed the connection before there was a session."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The tools of a server as it listed them; another ``number`` is another listing."""

    number: int
    tools: tuple[ToolDefinition, ...]
    made: float


@dataclass(frozen=True, slots=True)
class Asked:
    """A question of a server to the user, and the way back for the answer."""

    params: ElicitRequestParams
    answer: Callable[[ElicitResult], None]


@dataclass(slots=True)
class CallLimits:
    """The time that a call may take, and its ways to show progress and to ask a person.

    ``ask`` is None where nobody can be asked.
    """

    progress: Callable[[str], None] = lambda _: None
    ask: Callable[[Asked], None] | None = None
    seconds: float | None = None  # None for CALL_LIMIT


@dataclass(slots=True)
class _Call:
    inbox: queue.SimpleQueue[Asked | None] = field(default_factory=queue.SimpleQueue)
    questions: int = 0


class ServerSession:
    """A server, started or reached when it is first used; for use by any thread."""

    def __init__(self, server: McpServer, launch: Launch) -> None:
        self.server = server
        self._launch = launch
        self._loop = _thread()
        self._opening: asyncio.Task[Client] | None = None
        self._task: asyncio.Task[None] | None = None
        self._over = asyncio.Event()
        self._listing: Listing | None = None
        self._listings = 0
        self._stale = True
        self._lists = asyncio.Lock()
        self._calls: list[_Call] = []  # those that can ask somebody
        self._tail = LastWords()

    # For any thread

    @property
    def known(self) -> Listing | None:
        """The latest listing; None before there is one."""
        return self._listing

    def listing(self, *, fresh: bool = False) -> Listing:
        """Return the server's tools, listed anew where they may have changed.

        With ``fresh``, also if the latest list is some time old.

        Raises
        ------
        ServerError
            The server cannot be started or reached, broke off, or gave no list in time.
        RefusedByServer
            It answered with an error.
        """
        return self._wait(self._listed(fresh=fresh), START_LIMIT + LIST_LIMIT)

    def call(self, name: str, arguments: dict[str, Any], limits: CallLimits) -> CallToolResult:
        """Call a tool and wait for its result; an interrupt cancels the request.

        Raises
        ------
        ServerError
            The server broke off, or gave no result in time.
        RefusedByServer
            It answered with an error of the protocol.
        """
        call = _Call()
        seconds = CALL_LIMIT if limits.seconds is None else limits.seconds
        return self._wait(self._called(name, arguments, call, limits), seconds, call, limits.ask)

    def close(self) -> None:
        """End the session; the next use opens it again."""
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._end)

    @property
    def ended(self) -> futures.Future[None]:
        """A future that is done when the session has ended."""
        return asyncio.run_coroutine_threadsafe(self._gone(), self._loop)

    def _wait(
        self,
        work: Coroutine[Any, Any, T],
        seconds: float,
        call: _Call | None = None,
        ask: Callable[[Asked], None] | None = None,
    ) -> T:
        inbox = call.inbox if call else queue.SimpleQueue[Asked | None]()
        future: futures.Future[T] | None = None
        try:
            with holding_interrupts():  # at its end they come: one before would cancel nothing
                future = asyncio.run_coroutine_threadsafe(work, self._loop)
            future.add_done_callback(lambda _: inbox.put(None))
            deadline = time.monotonic() + seconds
            while not future.done() and time.monotonic() < deadline:
                with suppress(queue.Empty):
                    asked = inbox.get(timeout=TICK)
                    if asked is not None and ask is not None:
                        began = time.monotonic()
                        ask(asked)
                        deadline += time.monotonic() - began
        finally:
            if future is not None and not future.done():
                future.cancel()  # at which the SDK tells the server: notifications/cancelled
                if self._listing is None:  # it has not come up yet
                    self.close()
        if future.cancelled():
            if time.monotonic() < deadline:  # by another thread, or a second server of the name
                raise ServerError(f"{self._called_by_name} was ended before it answered.")
            raise ServerError(f"{self._called_by_name} gave no answer in {seconds:g} s.")
        return future.result()

    @property
    def _called_by_name(self) -> str:
        return f"The MCP server {reveal(clip(self.server.name, 60))}"

    # In the loop

    async def _listed(self, *, fresh: bool) -> Listing:
        async with self._lists:  # whoever comes while a list is under way waits for it
            client = await self._open()
            known = self._listing
            is_old = known is None or (fresh and time.monotonic() - known.made >= RELIST_AFTER)
            if known is not None and not (self._stale or is_old):
                return known
            self._stale = False  # first: a change that is told meanwhile may not be in the list
            try:
                async with self._mapped_errors():
                    tools = await _list_all(client)
            except BaseException:  # a list that was cut off tells nothing of a change
                self._stale = True
                raise
            if known is None or known.tools != tools:
                self._listings += 1
            self._listing = Listing(self._listings, tools, time.monotonic())
            return self._listing

    async def _called(
        self, name: str, arguments: dict[str, Any], call: _Call, limits: CallLimits
    ) -> CallToolResult:
        async def progress(progress: float, total: float | None, message: str | None) -> None:
            share = f"{progress:g}" if total is None else f"{progress:g} of {total:g}"
            said = f"{share}: {reveal(clip(message, MAX_WORDS))}" if message else share
            limits.progress(f"{said}\n")

        client = await self._open()
        if limits.ask is not None:
            self._calls.append(call)
        try:
            async with self._mapped_errors():
                return await client.call_tool(name, arguments, progress_callback=progress)
        finally:
            if call in self._calls:
                self._calls.remove(call)

    async def _open(self) -> Client:
        opening = self._opening
        if opening is None or (opening.done() and (opening.cancelled() or opening.exception())):
            self._opening = opening = asyncio.ensure_future(self._opened())
        return await asyncio.shield(opening)

    async def _opened(self) -> Client:
        try:
            with suppress(_BrokeOff):
                return await self._opened_as("auto")
            if not self._launch.url:
                # A server of before the discovery may end at a method that it does not know.
                return await self._opened_as("legacy")
        except _BrokeOff:
            pass
        raise self._failed(self._at_its_address("") or "ended before it answered")

    async def _opened_as(self, mode: str) -> Client:
        ready: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._over, self._tail, self._stale = asyncio.Event(), LastWords(), True
        self._task = asyncio.ensure_future(self._live(mode, ready))
        try:
            async with asyncio.timeout(START_LIMIT):
                return await asyncio.shield(ready)
        except TimeoutError:
            raise self._failed(f"did not answer within {START_LIMIT:g} s") from None
        finally:
            if not ready.done() or ready.cancelled() or ready.exception():
                self._task.cancel()

    async def _live(self, mode: str, ready: asyncio.Future[Client]) -> None:
        """Hold the session open: the SDK wants it ended in the task that began it."""
        from mcp.client import Client

        opening, over, tail, was_up = self._opening, self._over, self._tail, False
        try:
            client = Client(
                watched(transport_to(self._launch, tail), over),
                mode=mode,
                cache=None,
                message_handler=self._hear,
                elicitation_callback=self._elicit,
            )
            async with client:
                # It runs the patterns of the server's own schema, for which nothing stops it.
                client.session.validate_tool_result = _unvalidated  # type: ignore[method-assign]
                tail.spawned()
                ready.set_result(client)
                was_up = True
                listens = asyncio.ensure_future(self._listen(client))
                try:
                    await over.wait()
                finally:
                    listens.cancel()
        except asyncio.CancelledError:
            if not ready.done():
                ready.cancel()
            raise
        except BaseException as error:  # noqa: BLE001 - told to whoever waits for it
            await tail.settled()
            if not ready.done():
                ready.set_exception(self._why_not(error))
        finally:
            tail.spawned()
            # One that did not come up may be followed by a second attempt of the same opening, and
            # one that was ended by the next opening.
            if was_up and self._opening is opening:
                self._opening = None

    async def _listen(self, client: Client) -> None:
        """Hear that the tools have changed; older servers tell it without being asked."""
        from mcp_types.version import MODERN_PROTOCOL_VERSIONS

        tools = client.server_capabilities.tools
        if client.protocol_version not in MODERN_PROTOCOL_VERSIONS or not tools:
            return
        if not tools.list_changed:
            return
        with suppress(Exception):  # then they are listed anew after a while
            async with client.listen(tools_list_changed=True) as changes:
                async for _ in changes:
                    self._stale = True

    async def _hear(self, message: Any) -> None:
        from mcp_types import ToolListChangedNotification

        if isinstance(message, ToolListChangedNotification):
            self._stale = True

    async def _elicit(self, context: Any, params: ElicitRequestParams) -> ElicitResult:  # noqa: ARG002 - the SDK's
        """Hand a question to the call that is under way, and wait for the person's answer."""
        from mcp_types import ElicitResult

        call = self._calls[-1] if self._calls else None
        if call is None or call.questions >= MOST_QUESTIONS:
            return ElicitResult(action="cancel")
        call.questions += 1
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[ElicitResult] = loop.create_future()

        def settle(result: ElicitResult) -> None:
            if not answered.done():
                answered.set_result(result)

        call.inbox.put(Asked(params, lambda result: _soon(loop, settle, result)))
        return await answered

    def _end(self) -> None:
        self._over.set()
        if self._opening is not None and not self._opening.done():
            self._opening.cancel()
        if self._task is not None and not self._task.done() and self._listing is None:
            self._task.cancel()
        self._opening = None

    async def _gone(self) -> None:
        if self._task is not None:
            await asyncio.wait([self._task])

    @asynccontextmanager
    async def _mapped_errors(self) -> AsyncIterator[None]:
        """Turn the SDK's errors into ours, and leave a session behind that has ended."""
        from mcp import MCPError

        opening = self._opening
        try:
            yield
        except Exception as error:
            if isinstance(error, KimiError):
                raise
            cause = _innermost(error)
            if self._is_closed(cause):
                await self._tail.settled()
                if self._opening is opening:  # else another caller opens it again already
                    self._end()
                again = "connects again" if self._launch.url else "starts it again"
                why = self._tail.problem or "broke the connection off"
                raise self._failed(f"{why}. The next call {again}", to_try=False) from None
            if refused := self._refusal(cause):
                raise self._failed(refused) from None
            if isinstance(cause, MCPError):
                raise RefusedByServer(_words(cause)) from None
            text = clip(reveal(" ".join(f"{type(cause).__name__}: {cause}".split())), MAX_WORDS)
            what = f"{self._called_by_name} sent what cannot be read ({text})."
            raise RefusedByServer(what) from None

    def _is_closed(self, error: BaseException) -> bool:
        from mcp_types import CONNECTION_CLOSED

        message = str(getattr(error, "message", ""))
        # The code is that of any error of a server's own as well.
        if getattr(error, "code", None) == CONNECTION_CLOSED:
            return self._over.is_set() or message == "Connection closed"
        # A server that has forgotten the session answers 404 (streamable HTTP, session management).
        names = {kind.__name__ for kind in type(error).__mro__}
        broken = names & {"TransportError", "ConnectionError", "ClosedResourceError"}
        return bool(broken) or message == "Session terminated"

    def _refusal(self, error: BaseException) -> str:
        """Return how an address refused a request, where the SDK says nothing of it."""
        said = getattr(error, "message", None)  # a server may give a reason of its own, as JSON
        return self._tail.problem if said is None or str(said).startswith(STAND_INS) else ""

    def _at_its_address(self, refused: str) -> str:
        """Return how it refused with the address in it; "" for a server without one."""
        if not self._launch.url:
            return ""
        refused, out = refused or self._tail.problem or OUT_OF_REACH, OUT_OF_REACH
        place = f"at {self.server.place}"
        if refused.startswith(out):
            return f"{out} {place}{refused.removeprefix(out)}"
        return f"{place} {refused}"

    def _failed(self, what: str, *, to_try: bool = True) -> ServerError:
        said = f"\n{tail}" if (tail := self._tail.text) else ""
        way = ""
        if to_try and not self._launch.url:
            way = f"\nTry it in a terminal: {clip(self.server.place, 300)}"
        return ServerError(f"{self._called_by_name} {what}.{said}{way}")

    def _why_not(self, error: BaseException) -> Exception:
        """Return what kept the server from starting, in words for the user."""
        cause = _innermost(error)
        if refused := self._refusal(cause):
            return self._failed(self._at_its_address(refused))
        if isinstance(cause, FileNotFoundError | NotADirectoryError | PermissionError):
            if self._launch.url:
                return self._failed(f"cannot be reached: {clip(str(cause), 200)}")
            command, cwd = self._launch.command[0], self._launch.cwd
            if cwd and not os.path.isdir(cwd):  # noqa: PTH112 - as subprocess looks
                return self._failed(f"has no folder {reveal(cwd)} to be started in")
            allowed = "may not be run" if isinstance(cause, PermissionError) else "is not installed"
            return self._failed(f"cannot be started: the program {reveal(command)} {allowed}")
        if self._is_closed(cause):
            return _BrokeOff()
        text = reveal(" ".join(f"{type(cause).__name__}: {cause}".split()))
        verb = "cannot be reached" if self._launch.url else "cannot be started"
        return self._failed(f"{verb} ({clip(text, 200)})")


async def _list_all(client: Client) -> tuple[ToolDefinition, ...]:
    """Return the tools of all pages, within limits: a server may send pages without an end."""
    tools: list[ToolDefinition] = []
    cursor: str | None = None
    seen: set[str | None] = set()
    for _ in range(MAX_PAGES):
        page = await client.list_tools(cursor=cursor)
        tools += page.tools
        seen.add(cursor)
        cursor = page.next_cursor
        if cursor is None or cursor in seen or len(tools) >= MAX_LISTED:
            break
    return tuple(tools[:MAX_LISTED])


def _words(error: Any) -> str:
    """Return the text of an error, and the pages that it wants to have visited."""
    data = error.data if isinstance(error.data, dict) else {}
    asked = data.get("elicitations")
    pages = [p.get("url") for p in asked if isinstance(p, dict)] if isinstance(asked, list) else []
    lines = [str(error.message), *(f"The user has to open {page}" for page in pages[:5])]
    return "\n".join(reveal(clip(line, MAX_REFUSAL)) for line in lines)


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _soon(loop: asyncio.AbstractEventLoop, function: Callable[[T], None], value: T) -> None:
    with suppress(RuntimeError):  # the loop has ended
        loop.call_soon_threadsafe(function, value)


async def _unvalidated(name: str, result: CallToolResult) -> None:
    pass


_sessions: dict[tuple[str, str], ServerSession] = {}
_lock = threading.Lock()
_running: tuple[int, asyncio.AbstractEventLoop] | None = None  # and the process


def session_of(server: McpServer, launch: Launch) -> ServerSession:
    """Return the session with a server; another one of its name is ended.

    Raises
    ------
    ConfigError
        The SDK is not installed.
    """
    try:
        with whole_imports():
            import_module("mcp.client")
    except ImportError:
        raise ConfigError(NOT_INSTALLED) from None
    for name in LOGGERS:
        logger = logging.getLogger(name)
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())
    key = server.name, server.fingerprint
    with _lock:
        known = _sessions.get(key)
        if known is None or known._launch != launch:  # noqa: SLF001 - of this module
            for other in [k for k in _sessions if k[0] == server.name]:
                _sessions.pop(other).close()
            known = _sessions[key] = ServerSession(server, launch)
        return known


def known_session(server: McpServer) -> ServerSession | None:
    """Return the session with a server, if there is one."""
    return _sessions.get((server.name, server.fingerprint))


def known_listings() -> Iterator[tuple[McpServer, Listing]]:
    """Yield the servers that have listed their tools."""
    for session in list(_sessions.values()):
        if session.known is not None:
            yield session.server, session.known


def _thread() -> asyncio.AbstractEventLoop:
    """Return the loop of the thread, which is started where this process has none yet."""
    global _running  # noqa: PLW0603 - one thread a process
    if _running is None:
        # Only Proactor runs subprocesses on Windows; ipykernel makes the other the default there.
        if sys.platform == "win32":
            loop: asyncio.AbstractEventLoop = asyncio.ProactorEventLoop()
        else:
            loop = asyncio.new_event_loop()
        threading.Thread(target=_run, args=(loop,), name="kimi-magic mcp", daemon=True).start()
        _running = os.getpid(), loop
        atexit.register(_at_exit)
    return _running[1]


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()


def close_all(seconds: float = AT_EXIT) -> None:
    """End all sessions, and wait for that for so long at most."""
    with _lock:
        sessions = list(_sessions.values())
        _sessions.clear()
    for session in sessions:
        session.close()
    if sessions:
        futures.wait([session.ended for session in sessions], timeout=seconds)


def _at_exit() -> None:
    if _running is None or _running[0] != os.getpid():
        return
    # Jupyter kills a kernel that takes 5 s to end, and with it who would end the servers.
    set_patience(AT_EXIT / 4)
    close_all()


def _in_child() -> None:
    """Leave the parent's servers to it: a forked child starts its own."""
    global _running, _lock
    _running, _lock = None, threading.Lock()
    _sessions.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
