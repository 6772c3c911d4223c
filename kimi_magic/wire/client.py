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
import threading
import time
import weakref
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from types import TracebackType
from typing import Any, Self

from kimi_magic.config import Settings
from kimi_magic.core.events import ContentDelta, ReasoningDelta
from kimi_magic.core.messages import Completion
from kimi_magic.secrets.keys import Key
from kimi_magic.wire.connection import Connection
from kimi_magic.wire.endpoints import Endpoint
from kimi_magic.wire.error_mapping import ErrorMapper, is_error
from kimi_magic.wire.openai.accumulator import Accumulator, Delta
from kimi_magic.wire.sse import SSEDecoder

__all__ = ["Client", "Exchange"]

TICK = 0.05
# An answer that is not streamed gives no sign of life while the model reasons.
WHOLE_ANSWER_TIMEOUT = 3600.0
MAX_HEAD = 2000
MOST_AT_ONCE = 64
MOST_IDLE = 4
# How long the list of models may take, where it is asked for and where it only helps.
MODELS_TIMEOUT, HINT_TIMEOUT = 30.0, 3.0
# The HTTP library says better what kept it from connecting, if it comes to that.
CONNECT_GRACE = 0.5
BLANK = b"\xef\xbb\xbf \t\r\n"


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
        self._idle: list[Connection] = []
        self._under_way: set[Exchange] = set()
        _CLIENTS.add(self)

    def __repr__(self) -> str:
        return f"<Client of {self.endpoint.name} at {self.base_url}, {self.key!r}>"

    def serves(self, endpoint: Endpoint, base_url: str, key: Key | None) -> bool:
        """Whether it is this endpoint's client, at this address and with this key."""
        mine, other = (k.value if k else None for k in (self.key, key))
        return (self.endpoint, self.base_url, mine) == (endpoint, base_url, other)

    def chat(self, body: Mapping[str, Any], keys: Sequence[Key] = ()) -> Exchange:
        """Ask for a chat completion; ``body`` is the request as the API knows it, and ``keys``
        are masked in what comes."""
        faults = ErrorMapper(self.endpoint, self.base_url, self.key, body["model"], keys)
        return Exchange(self, body, faults, self.settings, keys)

    def models(self) -> list[str]:
        """The ids that the server offers (``GET /models``), sorted.

        Raises
        ------
        EndpointError
        """
        line = Connection(self.base_url, self.key)
        try:
            return line.models(MODELS_TIMEOUT)
        except Exception as error:  # noqa: BLE001 - mapped to one of ours
            raise ErrorMapper(self.endpoint, self.base_url, self.key).from_exception(
                error
            ) from None
        finally:
            line.close()

    @property
    def busy(self) -> bool:
        """Whether an exchange is under way."""
        return bool(self._under_way)

    def begin(self, exchange: Exchange) -> Connection:
        """A line of the exchange's own, warm where there is one."""
        self._under_way.add(exchange)
        with contextlib.suppress(IndexError):
            line = self._idle.pop()
            line.reuse()
            return line
        return Connection(self.base_url, self.key)

    def end(self, exchange: Exchange, line: Connection | None) -> None:
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
        self,
        client: Client,
        body: Mapping[str, Any],
        faults: ErrorMapper,
        settings: Settings,
        keys: Sequence[Key] = (),
    ) -> None:
        self._client = client
        self._body = body
        self._faults = faults
        self._settings = settings
        self._fold = Accumulator(keys)
        self._waiting: list[Delta] = []
        self._chunks = 0
        self._line: Connection | None = None
        self._arrivals: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._began = self._last_byte = time.monotonic()
        self._seconds: float | None = None
        self._read_to_end = False
        self._done = False

    def completion(self) -> Completion:
        """What has arrived so far."""
        elapsed = time.monotonic() - self._began if self._seconds is None else self._seconds
        found = self._fold.completion(elapsed)
        return replace(found, usage=self._client.endpoint.priced(found.usage))

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
            error = self._faults.from_exception(failure, started=self._fold.started)
            error.partial = self.completion()
            raise error from None
        self._seconds = time.monotonic() - self._began

    def _arriving(self) -> Iterator[Delta | None]:
        if (yield from self._next()) == 202:
            raise self._faults.queued()
        head: bytes = b""
        while not head.lstrip(BLANK) and (data := (yield from self._next())) is not None:
            head += data
        # The body tells more than the Content-Type, which servers and proxies set as they like.
        if head.lstrip(BLANK).startswith((b"{", b"[")):
            yield from self._whole(head)
        else:
            yield from self._streamed(head)

    def _streamed(self, data: bytes | None) -> Iterator[Delta | None]:
        decoder, head = SSEDecoder(), b""
        while data is not None:
            head = head if self._chunks else (head + data)[:MAX_HEAD]
            self._fold_events(decoder.feed(data))
            if len(self._waiting) >= MOST_AT_ONCE or self._arrivals.empty():
                yield from self._hand_on()
            if self._done:
                yield from self._last_words()
                break
            yield from self._still_waiting()
            data = yield from self._next()
        self._fold_events(decoder.flush(), cut=True)  # the last event may be cut in two
        if not self._chunks and not self._done:
            raise self._faults.unreadable(head)
        if not self._fold.started and not self._fold.finish_reason:
            raise self._faults.broke_off()

    def _hand_on(self) -> Iterator[Delta]:
        """What arrived together goes on together: one delta a kind, not one a token."""
        waiting, self._waiting = self._waiting, []
        for kind, deltas in groupby(waiting, type):
            if kind is ReasoningDelta or kind is ContentDelta:
                yield kind("".join(delta.text for delta in deltas))  # type: ignore[union-attr]
            else:
                yield from deltas

    def _fold_events(self, events: list[bytes], *, cut: bool = False) -> None:
        for data in events:
            if self._done:  # what comes after the end belongs to no answer
                return
            if data.strip() == b"[DONE]":
                self._done = True
                return
            try:
                value = _json(data)
            except ValueError:
                if cut:
                    return
                raise self._faults.unreadable(data, started=self._fold.started) from None
            self._fold_in(value)

    def _whole(self, data: bytes | None) -> Iterator[Delta | None]:
        pieces = []
        while data is not None:
            pieces.append(data)
            data = yield from self._next()
        body = b"".join(pieces)
        with contextlib.suppress(ValueError):
            self._fold_in(_json(body.lstrip(BLANK)))
        if not self._fold.started and not self._fold.finish_reason:
            raise self._faults.unreadable(body)

    def _fold_in(self, value: Any) -> None:
        """Fold what is an object; other JSON says nothing in this API, such as a sign of life."""
        for chunk in value if isinstance(value, list) else [value]:
            if isinstance(chunk, dict):
                self._chunks += 1
                if is_error(chunk):
                    raise self._faults.from_answer(None, chunk, started=self._fold.started)
                self._waiting += self._fold.add(chunk)

    def _next(self) -> Generator[None, None, Any]:
        """Wait for what the reader brings, with a tick (None) every 50 ms; None at the end."""
        while not self._read_to_end:
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

    def _still_waiting(self) -> Iterator[None]:
        """Comments that come faster than the ticks are no sign of an answer."""
        if not self._fold.started:
            self._check_silence()
            yield None

    def _check_silence(self) -> None:
        now, settings = time.monotonic(), self._settings
        if self._line and not self._line.connected:
            # The HTTP library's limit is for each address, and leaves out the look-up of the name.
            if now - self._began > settings.connect_timeout + CONNECT_GRACE:
                raise self._faults.unreached("no answer in time")
            return
        if self._fold.started:
            waited, limit = now - self._last_byte, settings.stall_timeout
        elif self._body.get("stream"):
            waited, limit = now - self._began, settings.first_token_timeout
        else:
            waited, limit = now - self._began, WHOLE_ANSWER_TIMEOUT
        if waited > limit:
            raise self._faults.silent(waited, started=self._fold.started)

    def _read(self, line: Connection) -> None:
        """In the reader's thread: the status, then bytes, then None; or the exception."""
        import openai

        end: Exception | None = None
        try:
            line.ask(self._body, self._settings.connect_timeout, self._arrivals.put)
        except openai.APIStatusError as error:
            end = self._faults.from_exception(error, models=lambda: line.models(HINT_TIMEOUT))
        except Exception as error:  # noqa: BLE001 - it is raised again where the turn runs
            end = error
        line.read_out()
        self._arrivals.put(end)


def _json(data: bytes) -> Any:
    return json.loads(data.decode("utf-8", "replace"))


_CLIENTS: weakref.WeakSet[Client] = weakref.WeakSet()


def _forget_lines() -> None:
    for client in _CLIENTS:
        client.forget_lines()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_lines)
