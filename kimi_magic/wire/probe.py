"""Requests that show the dialect of a server.

A probe sends requests as a turn does. At the transport it notes what arrived and when, at the fold
which fields the chunks have. Their meaning is what the fold itself makes of them.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, cast

from kimi_magic.core import errors
from kimi_magic.core.errors import EndpointError, KimiError
from kimi_magic.core.interrupts import waiting
from kimi_magic.core.messages import Completion, ToolCall, Usage
from kimi_magic.secrets.keys import Key
from kimi_magic.secrets.redact import Redactor
from kimi_magic.wire.client import Client
from kimi_magic.wire.inbox import Inbox
from kimi_magic.wire.models import Model
from kimi_magic.wire.protocols import (
    Arrival,
    BadProxy,
    Carriage,
    Deliver,
    Delta,
    Fold,
    Redirected,
    Refused,
    Request,
    Wire,
)
from kimi_magic.wire.spending import Meter

__all__ = ["Failure", "Listing", "Probe", "Trip"]

TICK = 0.05
LISTING_TIMEOUT = 15.0
REASONING = ("reasoning_content", "reasoning_details", "reasoning")
# The fields in which servers list a model's context window: OpenRouter's, vLLM's, others'.
WINDOWS = (
    "context_length",
    "max_model_len",
    "context_window",
    "max_context_length",
    "max_input_tokens",
)
MOST_CAUSES = 10


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that failed.

    Attributes
    ----------
    kind : str
        ``name`` (of the host), ``tls``, ``proxy``, ``refused`` (the connection), ``slow`` (to
        connect), ``redirect``, ``page`` (of HTML), ``key``, ``missing`` (model or address),
        ``quota``, ``rate``, ``server``, ``silent``, ``request`` (its content), ``stream``,
        ``broken`` (the connection), ``here`` (nothing was sent).
    said, advice : str
        The error's first line, and the rest.
    """

    kind: str
    said: str
    advice: str = ""
    status: int | None = None

    @property
    def is_unreached(self) -> bool:
        """True if no server answered."""
        return self.kind in ("name", "tls", "proxy", "refused", "slow")


@dataclass(slots=True)
class Listing:
    """The server's list of models, and their context windows as far as it tells them."""

    ids: tuple[str, ...] | None = None
    windows: dict[str, int] = field(default_factory=dict)
    failure: Failure | None = None


@dataclass(slots=True)
class Trip:
    """A request and its answer.

    Attributes
    ----------
    status : int
        0 where no answer came.
    is_page : bool
        The answer calls itself HTML.
    skew : float or None
        Seconds by which the server's clock is ahead of this one.
    wait, span : float
        Seconds until the first bytes of the answer, and from those to the last.
    pieces, chunks : int
        Arrivals of bytes, and the chunks in them.
    is_chat : bool
        The chunks are those of chat completions.
    is_whole : bool
        The answer came as one document, not as a stream.
    reasoning_fields : tuple of str
        The fields in which reasoning came.
    sent_calls : bool
        Tool calls came in a field of their own.
    sent_indexes : bool
        Each of these had its index.
    usage_place : str
        ``last`` (a chunk of its own), ``choice``, ``chunk`` (beside choices), or empty.
    reasoning_chars : int
        Characters of reasoning, in fields or in the text.
    stopped : bool
        An interrupt came before the end of the answer.
    """

    status: int = 0
    is_page: bool = False
    skew: float | None = None
    wait: float = 0.0
    span: float = 0.0
    pieces: int = 0
    chunks: int = 0
    is_chat: bool = False
    is_whole: bool = False
    reasoning_fields: tuple[str, ...] = ()
    sent_calls: bool = False
    sent_indexes: bool = True
    usage_place: str = ""
    text: str = ""
    reasoning_chars: int = 0
    calls: tuple[ToolCall, ...] = ()
    usage: Usage = field(default_factory=Usage)
    model: str = ""
    finish_reason: str = ""
    failure: Failure | None = None
    stopped: bool = False

    @property
    def is_answered(self) -> bool:
        """True if the whole answer came."""
        return self.failure is None and not self.stopped


class Probe:
    """Asks one server, and notes how it answers.

    Parameters
    ----------
    client : Client
        Its wire and its transport carry the requests.
    keys : sequence of Key
        They are masked in what comes.
    """

    def __init__(self, client: Client, keys: Sequence[Key]) -> None:
        self._client = client
        self._keys = [*keys, *([client.key] if client.key else ())]

    def list_models(self) -> Listing:
        """Ask for the list of models."""
        client, listing = self._client, Listing()
        try:
            with waiting():
                body = client.transport.get(client.wire.models_path, LISTING_TIMEOUT)
            ids = client.wire.read_models(body)
        except Exception as raised:  # noqa: BLE001 - mapped to one of ours
            error = client.errors(keys=self._keys).from_exception(raised)
            listing.failure = self._failure(error, raised)
            return listing
        listing.ids = tuple(Redactor(self._keys).value(ids))
        listing.windows = dict(_windows(body))
        return listing

    def ask(self, body: Mapping[str, Any], model: Model, meter: Meter | None, trip: Trip) -> None:
        """Send a chat request and note the answer; an interrupt leaves the notes so far."""
        trip.stopped = True
        tap = _Tap(self._client, trip)
        try:
            exchange = tap.client.chat(body, self._keys, Inbox(), model, meter=meter)
            try:
                with exchange:
                    while not exchange.finished:
                        with waiting():
                            exchange.inbox.wait(TICK)
                        for each, arrivals in exchange.inbox.take(0):
                            each.receive(arrivals)
                        exchange.check()
            finally:
                _note(trip, exchange.completion())
        except KimiError as error:
            trip.failure = self._failure(error, tap.raised, trip)
        trip.stopped = False

    def _failure(
        self, error: KimiError, raised: BaseException | None, trip: Trip | None = None
    ) -> Failure:
        said, _, advice = str(error).partition("\n")
        status = error.status if isinstance(error, EndpointError) else None
        is_page = trip is not None and trip.is_page
        if isinstance(raised, Refused):
            is_page = "html" in (raised.headers.get("content-type") or "").lower()
        kind = _kind(error, raised, answered=trip is not None and trip.status > 0)
        if is_page and kind in ("stream", "missing", "request"):
            kind = "page"
        return Failure(kind, said, " ".join(advice.split()), status)


class _Tap:
    """A transport around a client's own, with a copy of the client that uses it."""

    def __init__(self, client: Client, trip: Trip) -> None:
        self.raised: BaseException | None = None
        self._trip = trip
        self._transport = client.transport
        self._sent_at = self._first_at = 0.0
        # A copy, whatever a client holds besides: its connections and its key are the same.
        self.client = copy(client)
        self.client.transport = self
        self.client.wire = cast("Wire", _TappedWire(client.wire, self._look))

    def send(self, request: Request, deliver: Deliver, connect_timeout: float) -> Carriage:
        """Send a request, as a `Transport` does."""

        def note(arrival: Arrival) -> None:
            self._note(arrival)
            deliver(arrival)

        self._sent_at = time.monotonic()
        return self._transport.send(request, note, connect_timeout)

    def get(self, path: str, timeout: float) -> Any:
        """Fetch a document, as a `Transport` does: a hint for an error."""
        return self._transport.get(path, timeout)

    def close(self) -> None:
        """Do nothing: the connections are the client's."""

    def _note(self, arrival: Arrival) -> None:
        """Note what arrived; called in the transport's thread."""
        trip, item = self._trip, arrival.item
        if isinstance(item, bytes):
            if not item:
                return
            trip.pieces += 1
            self._first_at = self._first_at or arrival.time
            trip.wait = self._first_at - self._sent_at
            trip.span = arrival.time - self._first_at
        elif isinstance(item, BaseException):
            self.raised = item
            if isinstance(item, Refused):
                self._note_head(item.status, item.headers)
        elif item is not None:
            self._note_head(int(item), getattr(item, "headers", {}))

    def _note_head(self, status: int, headers: Mapping[str, str]) -> None:
        self._trip.status = status
        self._trip.is_page = "html" in (headers.get("content-type") or "").lower()
        try:
            said = parsedate_to_datetime(headers.get("date") or "").timestamp()
        except (ValueError, TypeError, OverflowError):
            return
        self._trip.skew = said - time.time()

    def _look(self, chunk: Mapping[str, Any]) -> None:
        """Note the fields of a chunk."""
        trip = self._trip
        trip.chunks += 1
        trip.is_whole = trip.is_whole or chunk.get("type") == "message"  # of the Messages API
        choices = chunk.get("choices")
        if not isinstance(choices, list):
            return
        trip.is_chat = True
        choice = next((each for each in choices if isinstance(each, dict)), {})
        for place, holder in (("choice", choice), ("chunk" if choices else "last", chunk)):
            if isinstance(holder.get("usage"), dict):
                trip.usage_place = place
        trip.is_whole = trip.is_whole or "message" in choice
        delta = choice.get("delta") or choice.get("message")
        if not isinstance(delta, dict):
            return
        found = {*trip.reasoning_fields, *(name for name in REASONING if delta.get(name))}
        trip.reasoning_fields = tuple(name for name in REASONING if name in found)
        calls = delta.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            trip.sent_calls = True
            if not (isinstance(call, dict) and isinstance(call.get("index"), int)):
                trip.sent_indexes = False


class _TappedWire:
    """A wire whose folds show each chunk before they take it."""

    def __init__(self, wire: Wire, look: Callable[[Mapping[str, Any]], None]) -> None:
        self._wire = wire
        self._look = look

    def fold(self, keys: Sequence[Key] = ()) -> Fold:
        return cast("Fold", _TappedFold(self._wire.fold(keys), self._look))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wire, name)


class _TappedFold:
    def __init__(self, fold: Fold, look: Callable[[Mapping[str, Any]], None]) -> None:
        self._fold = fold
        self._look = look

    def add(self, chunks: Sequence[Mapping[str, Any]]) -> list[Delta]:
        for chunk in chunks:
            self._look(chunk)
        return self._fold.add(chunks)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fold, name)


def _note(trip: Trip, completion: Completion) -> None:
    """Note what the fold made of the answer."""
    message = completion.message
    trip.text = message.text
    trip.reasoning_chars = len(message.reasoning_text or "")
    trip.calls = message.tool_calls
    trip.usage = completion.usage
    trip.model = completion.model or ""
    trip.finish_reason = completion.finish_reason or ""


def _windows(body: Any) -> Iterator[tuple[str, int]]:
    """Yield the models of a list with their context windows, where it tells them."""
    models = body.get("data") if isinstance(body, dict) else None
    for model in models if isinstance(models, list) else ():
        if not isinstance(model, dict) or not isinstance(model.get("id"), str):
            continue
        own = [model.get(name) for name in WINDOWS]
        if isinstance(meta := model.get("meta"), dict):  # llama.cpp
            own += [meta.get("n_ctx"), meta.get("n_ctx_train")]
        if found := next((size for size in own if type(size) is int and size > 0), 0):
            yield model["id"], found


_BY_ERROR: tuple[tuple[type[BaseException], str], ...] = (
    (errors.KeyRefused, "key"),
    (errors.NotFound, "missing"),
    (errors.QuotaExhausted, "quota"),
    (errors.RateLimited, "rate"),
    (errors.ServerFailed, "server"),
    (errors.TimedOut, "silent"),
    (errors.ConnectionFailed, "broken"),
    (errors.BadStream, "stream"),
    (errors.BadRequest, "request"),
)


def _kind(error: KimiError, raised: BaseException | None, *, answered: bool) -> str:
    """Return the kind of a failure, by the causes of what the transport raised if it did."""
    import httpx2

    by_cause = (
        (Redirected, "redirect"),
        (httpx2.ProxyError, "proxy"),
        (BadProxy, "proxy"),
        (socket.gaierror, "name"),
        (ssl.SSLError, "tls"),
        (httpx2.ConnectTimeout, "slow"),
        (httpx2.ConnectError, "refused"),
    )
    if isinstance(raised, Refused) and raised.status == 407:
        return "proxy"
    causes = list(_causes(raised or error))
    for known, kind in by_cause:
        if any(isinstance(cause, known) for cause in causes):
            return kind
    if isinstance(error, errors.ConnectionFailed) and raised is None and not answered:
        return "slow"  # by the exchange's own limit
    return next((kind for known, kind in _BY_ERROR if isinstance(error, known)), "here")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes, those too that `from None` hides in tracebacks."""
    for _ in range(MOST_CAUSES):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__
