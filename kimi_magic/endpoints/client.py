"""A request → the bytes of its answer → deltas.

The SDK carries (authentication, proxies, TLS), we decode: through the SDK's own objects a stream
costs about ten times the bare read. Each exchange has a daemon thread that only moves bytes into a
queue; whoever iterates waits 50 ms at most, so an interrupt or a tick never waits for the network.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import socket
import threading
import time
import weakref
from collections.abc import Generator, Iterator, Mapping
from itertools import groupby
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from kimi_magic.config import Key, Settings
from kimi_magic.endpoints.accumulator import Accumulator, Delta
from kimi_magic.endpoints.catalogue import Endpoint
from kimi_magic.endpoints.faults import Faults
from kimi_magic.endpoints.sse import SSEDecoder
from kimi_magic.events import ContentDelta, ReasoningDelta
from kimi_magic.messages import Completion

if TYPE_CHECKING:
    import httpx2
    import openai

__all__ = ["Client", "Exchange"]

TICK = 0.05
# An answer that is not streamed gives no sign of life while the model reasons.
WHOLE_ANSWER_TIMEOUT = 3600.0
MAX_HEAD = 2000
MOST_AT_ONCE = 64
MOST_IDLE = 4
LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")


class _Line:
    """One SDK client with one connection, used by one exchange at a time.

    Closing a response does not wake a thread that reads from it, nor one that waits for headers;
    shutting its socket down does. The HTTP library names a connection's socket only when it
    connects, so each line remembers its own.
    """

    def __init__(self, base_url: str, key: Key | None) -> None:
        import httpx2
        import openai

        self._socket: socket.socket | None = None
        self._lock = threading.Lock()
        self._stopped = self._read_out = False
        self.sdk: openai.OpenAI = openai.OpenAI(
            base_url=base_url,
            api_key=key.value if key else "none",
            max_retries=0,
            http_client=openai.DefaultHttpxClient(
                limits=httpx2.Limits(max_connections=1, max_keepalive_connections=1),
                event_hooks={"request": [self._watch]},
                # A proxy of the environment has no business with this machine's own servers.
                trust_env=httpx2.URL(base_url).host not in LOOPBACK,
            ),
        )

    def stop(self) -> None:
        """Wake the reader, wherever it is, and make the line useless."""
        with self._lock:
            self._stopped = True
            closes = self._read_out
        self._shut_down()
        if closes:
            self.close()

    def read_out(self) -> None:
        """The reader is done; of it and ``stop`` the later one closes what is left."""
        with self._lock:
            self._read_out = True
            closes = self._stopped
        if closes:
            self.close()

    def reuse(self) -> None:
        self._read_out = False

    def close(self) -> None:
        self.sdk.close()

    def _watch(self, request: httpx2.Request) -> None:
        request.extensions["trace"] = self._trace

    def _trace(self, name: str, info: Mapping[str, Any]) -> None:
        # The first part of the name differs for direct, proxied and SOCKS connections.
        if name.endswith((".connect_tcp.complete", ".start_tls.complete")):
            self._socket = info["return_value"].get_extra_info("socket")
            if self._stopped:
                self._shut_down()

    def _shut_down(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):  # it is closed already
                self._socket.shutdown(socket.SHUT_RDWR)


class Client:
    """Sends requests to one endpoint.

    Parameters
    ----------
    endpoint : Endpoint
    base_url : str
        The address in use (the embedded engine's is known only when it runs).
    key : Key or None
    settings : Settings, optional
        The time-outs.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        base_url: str,
        key: Key | None,
        settings: Settings | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.base_url = base_url
        self.key = key
        self.settings = settings or Settings()
        self._idle: list[_Line] = []
        self._under_way: set[Exchange] = set()
        _CLIENTS.add(self)

    def __repr__(self) -> str:
        return f"<Client of {self.endpoint.name} at {self.base_url}, {self.key!r}>"

    def serves(self, endpoint: Endpoint, base_url: str, key: Key | None) -> bool:
        """Whether it is this endpoint's client, at this address and with this key."""
        mine, other = (k.value if k else None for k in (self.key, key))
        return (self.endpoint, self.base_url, mine) == (endpoint, base_url, other)

    def chat(self, body: Mapping[str, Any]) -> Exchange:
        """Ask for a chat completion; ``body`` is the request as the API knows it."""
        faults = Faults(self.endpoint, self.base_url, self.key, body["model"])
        return Exchange(self, body, faults, self.settings)

    def models(self) -> list[str]:
        """The ids that the server offers (``GET /models``), sorted.

        Raises
        ------
        EndpointError
        """
        line = _Line(self.base_url, self.key)
        try:
            return sorted(model.id for model in line.sdk.models.list(timeout=30.0))
        except Exception as error:  # noqa: BLE001 - mapped to one of ours
            raise Faults(self.endpoint, self.base_url, self.key).from_exception(error) from None
        finally:
            line.close()

    @property
    def busy(self) -> bool:
        """Whether an exchange is under way."""
        return bool(self._under_way)

    def begin(self, exchange: Exchange) -> _Line:
        """A line of the exchange's own, warm where there is one."""
        self._under_way.add(exchange)
        with contextlib.suppress(IndexError):
            line = self._idle.pop()
            line.reuse()
            return line
        return _Line(self.base_url, self.key)

    def end(self, exchange: Exchange, line: _Line | None) -> None:
        """The exchange is over; a line that can serve again is handed back."""
        self._under_way.discard(exchange)
        if line and len(self._idle) < MOST_IDLE:
            self._idle.append(line)
        elif line:
            line.close()

    def forget_lines(self) -> None:
        """In a forked process: the connections are the parent's."""
        self._idle.clear()
        self._under_way.clear()

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().close()


class Exchange:
    """One request under way: iterate for its deltas; None now and then while nothing arrives.

    Use as a context manager: leaving it early closes the connection at once.
    """

    def __init__(
        self, client: Client, body: Mapping[str, Any], faults: Faults, settings: Settings
    ) -> None:
        self._client = client
        self._body = body
        self._faults = faults
        self._settings = settings
        self._fold = Accumulator()
        self._waiting: list[Delta] = []
        self._line: _Line | None = None
        self._arrivals: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._began = self._last_byte = time.monotonic()
        self._seconds: float | None = None
        self._read_to_end = False
        self._done = False

    def completion(self) -> Completion:
        """What has arrived so far."""
        elapsed = time.monotonic() - self._began if self._seconds is None else self._seconds
        return self._fold.completion(elapsed)

    def __enter__(self) -> Self:
        self._line = self._client.begin(self)
        threading.Thread(
            target=self._read, args=(self._line,), name="kimi-magic reader", daemon=True
        ).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        line, self._line = self._line, None
        if line is not None and not self._read_to_end:
            line.stop()
            line = None
        self._client.end(self, line)

    def __iter__(self) -> Iterator[Delta | None]:
        """Yield deltas as they arrive.

        Raises
        ------
        EndpointError
            With what had arrived as ``partial``.
        """
        failure: Exception | None = None
        try:
            yield from self._arriving()
        except Exception as raised:  # noqa: BLE001 - mapped to one of ours
            failure = raised
        self._waiting += self._fold.finish()
        yield from self._hand_on()
        if failure:
            error = self._faults.from_exception(failure)
            error.partial = self.completion()
            raise error from None
        self._seconds = time.monotonic() - self._began

    def _arriving(self) -> Iterator[Delta | None]:
        headers = yield from self._next()
        if "json" in headers.get("content-type", "") or not self._body.get("stream"):
            yield from self._whole()
        else:
            yield from self._streamed()

    def _streamed(self) -> Iterator[Delta | None]:
        decoder, seen, head = SSEDecoder(), 0, b""
        while not self._done and (data := (yield from self._next())) is not None:
            head = head if seen else (head + data)[:MAX_HEAD]
            for event in decoder.feed(data):
                seen += 1
                self._waiting += self._event(event)
            if len(self._waiting) >= MOST_AT_ONCE or self._arrivals.empty():
                yield from self._hand_on()
        for event in decoder.flush():
            seen += 1
            self._waiting += self._event(event)
        if self._done and not self._read_to_end:
            yield from self._last_words()
        if not seen:
            raise self._faults.unreadable(head)
        if not self._done and not self._fold.started and not self._fold.finish_reason:
            raise self._faults.broke_off()

    def _hand_on(self) -> Iterator[Delta]:
        """What arrived together goes on together: one delta a kind, not one a token."""
        waiting, self._waiting = self._waiting, []
        for kind, deltas in groupby(waiting, type):
            if kind is ReasoningDelta or kind is ContentDelta:
                yield kind("".join(delta.text for delta in deltas))  # type: ignore[union-attr]
            else:
                yield from deltas

    def _event(self, data: bytes) -> list[Delta]:
        if data.strip() == b"[DONE]":
            self._done = True
            return []
        try:
            chunk = json.loads(data.decode())
        except ValueError:
            raise self._faults.unreadable(data) from None
        return self._fold_in(chunk, data)

    def _whole(self) -> Iterator[Delta | None]:
        pieces = []
        while (data := (yield from self._next())) is not None:
            pieces.append(data)
        body = b"".join(pieces)
        try:
            answer = json.loads(body)
        except ValueError:
            raise self._faults.unreadable(body) from None
        self._waiting += self._fold_in(answer, body)

    def _fold_in(self, chunk: Any, data: bytes) -> list[Delta]:
        if not isinstance(chunk, dict):
            raise self._faults.unreadable(data)
        if chunk.get("error"):
            raise self._faults.from_answer(None, chunk)
        return self._fold.add(chunk)

    def _next(self) -> Generator[None, None, Any]:
        """Wait for what the reader brings, with a tick (None) every 50 ms."""
        while True:
            try:
                item = self._arrivals.get(timeout=TICK)
            except queue.Empty:
                self._check_silence()
                yield None
                continue
            if isinstance(item, BaseException):
                raise item
            self._last_byte = time.monotonic()
            self._read_to_end = item is None
            return item

    def _last_words(self) -> Iterator[None]:
        """After [DONE] the body should end; some servers leave the connection open."""
        with contextlib.suppress(queue.Empty):
            while not self._read_to_end:
                item = self._arrivals.get(timeout=TICK)
                self._read_to_end = item is None
        yield None

    def _check_silence(self) -> None:
        now = time.monotonic()
        if self._fold.started:
            waited, limit = now - self._last_byte, self._settings.stall_timeout
        elif self._body.get("stream"):
            waited, limit = now - self._began, self._settings.first_token_timeout
        else:
            waited, limit = now - self._began, WHOLE_ANSWER_TIMEOUT
        if waited > limit:
            raise self._faults.silent(waited, started=self._fold.started)

    def _read(self, line: _Line) -> None:
        """In the reader's thread: headers, then bytes, then None; or the exception."""
        import httpx2

        put = self._arrivals.put
        end: Exception | None = None
        # Silence is judged by the exchange, which tells a first token from a stall.
        timeout = httpx2.Timeout(None, connect=self._settings.connect_timeout)
        try:
            create = line.sdk.chat.completions.with_streaming_response.create
            # What the SDK takes as messages it walks and copies piece by piece: 60 ms for 600 of
            # them. The extra body goes out as it is.
            about: Any = {name: self._body.get(name) for name in ("model", "stream")}
            with create(
                **about, messages=[], extra_body=dict(self._body), timeout=timeout
            ) as response:
                put(response.headers)
                for data in response.iter_bytes():
                    put(data)
        except Exception as error:  # noqa: BLE001 - it is raised again where the turn runs
            end = error
        line.read_out()
        put(end)


_CLIENTS: weakref.WeakSet[Client] = weakref.WeakSet()


def _forget_lines() -> None:
    for client in _CLIENTS:
        client.forget_lines()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_lines)
