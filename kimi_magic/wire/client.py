"""A request → the bytes of its answer → deltas.

Nothing here waits or reads: the transport's threads put what arrives into an inbox, and whoever
drives the turn takes it out and hands it to its exchange.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from typing import Any, Self

from kimi_magic.config import Settings
from kimi_magic.core.errors import BadRequest, EndpointError, NotFound
from kimi_magic.core.events import ContentDelta, ReasoningDelta, ToolCallDelta, ToolCallStarted
from kimi_magic.core.messages import Completion, Timings
from kimi_magic.core.text import bytes_of
from kimi_magic.secrets.keys import Key
from kimi_magic.secrets.redact import Redactor
from kimi_magic.wire.chunks import BLANK, read_chunks
from kimi_magic.wire.connection import HTTPTransport
from kimi_magic.wire.endpoints import Endpoint
from kimi_magic.wire.error_mapping import ErrorMapper
from kimi_magic.wire.inbox import Held, Inbox
from kimi_magic.wire.models import Model
from kimi_magic.wire.openai.chat_completions import ChatCompletions
from kimi_magic.wire.protocols import (
    Arrival,
    BadProxy,
    Carriage,
    Delta,
    Fold,
    Recorded,
    Refused,
    Status,
    TooMuch,
    Transport,
    Wire,
)
from kimi_magic.wire.spending import Meter
from kimi_magic.wire.sse import NamedEvent, SSEDecoder

__all__ = ["Client", "Exchange"]

# An answer that is not streamed gives no sign of life while the model reasons.
WHOLE_ANSWER_TIMEOUT = 3600.0
# The list of models: asked for, and fetched only to improve an error.
MODELS_TIMEOUT, HINT_TIMEOUT = 30.0, 3.0
# The HTTP library explains better why it did not connect: it may speak first.
CONNECT_GRACE = 0.5
# After the end of a stream the body should end too; then the connection can serve again.
END_GRACE = 0.05
# A server that has given its reason for finishing has only the usage left to send.
USAGE_GRACE = 2.0
# The beginning of a stream that no chunk came of, for the words of the error.
MOST_OF_NO_CHUNK = 10_000
CALL_BYTES = 2000
# A flood of tiny events becomes Python objects in parts.
EVENTS_AT_ONCE = 1000


class Client:
    """Sends requests to one endpoint, as chat completions over HTTP by default.

    ``base_url`` is the address in use: the embedded engine's is known only when it runs.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        base_url: str,
        key: Key | None,
        settings: Settings | None = None,
        *,
        wire: Wire | None = None,
        transport: Transport | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.base_url = base_url
        self.key = key
        self.settings = settings or Settings()
        self.wire: Wire = wire or ChatCompletions(endpoint.reasoning_key or "reasoning_content")
        # Looked up once: a client whose endpoint's variables have changed since serves no longer.
        self._own_headers = endpoint.own_headers.resolve()
        self.transport: Transport = transport or HTTPTransport(
            base_url, self._headers, lambda: self.settings.max_body_bytes
        )
        self.under_way: set[Exchange] = set()
        self.used_at = 0.0  # when a turn last asked for it, in seconds of the monotonic clock

    def __repr__(self) -> str:
        return f"<Client of {self.endpoint.name} at {self.base_url}, {self.key!r}>"

    def serves(self, endpoint: Endpoint, base_url: str, key: Key | None) -> bool:
        """Return True if it is the client of this endpoint, at this address and with this key."""
        if self.base_url != base_url or self.endpoint != endpoint:
            return False
        if key is not self.key and (key and key.value) != (self.key and self.key.value):
            return False
        return not endpoint.headers or self._own_headers == endpoint.own_headers.resolve()

    def chat(
        self,
        body: Mapping[str, Any],
        keys: Sequence[Key] = (),
        inbox: Inbox | None = None,
        model: Model | None = None,
        *,
        held: Held | None = None,
        transport: Transport | None = None,
        meter: Meter | None = None,
    ) -> Exchange:
        """Prepare a chat request; it is sent when the exchange is entered.

        ``keys`` are masked in what comes. Exchanges that one driver waits for share an inbox, those
        of one turn what it has ``held``. ``model`` has the prices; ``meter`` counts the request
        and may refuse it. Another ``transport`` may carry this one request.
        """
        inbox = inbox or Inbox(self.settings.max_queue_bytes)
        return Exchange(
            self,
            body,
            keys,
            inbox,
            model,
            held=held or Held(),
            transport=transport or self.transport,
            meter=meter,
        )

    def models(self, timeout: float = MODELS_TIMEOUT) -> list[str]:
        """Return the ids that the server offers, sorted, or raise an `EndpointError`."""
        try:
            listed = self.wire.read_models(self.transport.get(self.wire.models_path, timeout))
        except Exception as error:  # noqa: BLE001 - mapped to one of ours
            raise self.errors().from_exception(error) from None
        return Redactor([self.key] if self.key else ()).value(listed)

    def errors(self, model: str = "", keys: Sequence[Key] = (), *, ended: str = "") -> ErrorMapper:
        """Return what maps failures, those of one model where it is named.

        ``ended`` is the day since which that one is known to be served no longer.
        """
        keys = (*keys, *self.endpoint.own_headers.secrets())
        return ErrorMapper(self.endpoint, self.base_url, self.key, self.wire, model, keys, ended)

    def _headers(self) -> Mapping[str, str]:
        """Return all that we mean to send; the endpoint's own take precedence."""
        own = {name.lower() for name in self._own_headers}
        common = {**self.wire.headers(self.key), "Accept-Encoding": "identity"}
        kept = {name: value for name, value in common.items() if name.lower() not in own}
        return kept | self._own_headers

    @property
    def busy(self) -> bool:
        """True while an exchange is under way."""
        return bool(self.under_way)

    def close(self) -> None:
        """Close the idle connections."""
        self.transport.close()


class _TimeIsUp(Exception):
    """Put into the inbox by an exchange whose time is over, unless something came before it."""


class Exchange:
    """One request under way; use as a context manager, leaving it early stops it at once.

    The driver takes arrivals from the inbox, gives each batch to `receive`, and calls `check`
    after each wait, until it is ``finished``: the answer complete, the connection at rest.

    Nothing that arrives gets out with a key in it: deltas and completions are redacted here, when
    all is decoded, whatever the wire makes of the bytes; failures are by the `ErrorMapper`.
    """

    def __init__(
        self,
        client: Client,
        body: Mapping[str, Any],
        keys: Sequence[Key],
        inbox: Inbox,
        model: Model | None,
        *,
        held: Held,
        transport: Transport,
        meter: Meter | None = None,
    ) -> None:
        self.inbox = inbox
        self._transport = transport
        self._held = held
        self._meter = meter
        self._most_held = client.settings.max_turn_bytes // held.sharers
        self.finished = False
        self.held_up = 0.0  # when its reader last had to wait for room; infinite while it does
        self._last: Completion | None = None  # the answer, once it is left
        self.left = False  # nobody takes what still comes
        self._driver = 0  # the thread that takes from the inbox
        self._client = client
        self._settings = client.settings
        self._body = body
        self._model = model
        ended = model.ended.get(client.endpoint.kind, "") if model else ""
        self._errors = client.errors(body["model"], keys, ended=ended)
        if client.key and client.key not in keys:
            keys = (*keys, client.key)
        self._redactor = Redactor(keys)
        self._fold: Fold = client.wire.fold(keys)
        self._decoder = SSEDecoder(self._settings.max_line_bytes)
        self._carriage: Carriage | None = None
        self._deltas: list[Delta] = []
        self._body_read = bytearray()  # until a chunk was understood
        self._streamed: bool | None = None  # False: one JSON document; None: no telling yet
        self._chunks = 0
        self._began = self._last_byte = self._last_data = time.monotonic()
        self._timings = Timings(time.time())
        self._answered: float | None = None  # when the server gave its reason for finishing
        self._ended: float | None = None
        self._failure: EndpointError | None = None
        self._unreadable = False
        self._timed_out = False
        self._recorded: Recorded | None = None  # the times of an answer that is played

    def __enter__(self) -> Self:
        self._driver = threading.get_ident()
        try:
            request = self._client.wire.request(self._body)
        except (ValueError, TypeError, RecursionError) as error:
            advice = "A value in it cannot be written as JSON."
            raise self._errors.unsendable(str(error), advice) from None
        if self._meter:
            self._meter.begin()
        try:
            self._carriage = self._transport.send(
                request, self.deliver, self._settings.connect_timeout
            )
        except BadProxy as error:
            self._close_meter()
            raise self._errors.from_exception(error) from None
        except BaseException:
            self._close_meter()
            raise
        self._client.under_way.add(self)
        return self

    def waits_for_room(self) -> bool:
        """Return True if somebody takes from the inbox, in another thread than this one."""
        return not self.left and threading.get_ident() != self._driver

    def __exit__(self, *_: object) -> None:
        self.left = True
        carriage, self._carriage = self._carriage, None
        if carriage:
            carriage.end()
        self._client.under_way.discard(self)
        self._close_meter()

    def _close_meter(self) -> None:
        meter, self._meter = self._meter, None
        if meter:
            # What a server refused is not paid; an empty answer that it counted is.
            self._last = completion = self.completion()  # nothing is received after this
            meter.end(completion if completion or completion.usage.total_tokens else None)

    def deliver(self, arrival: Arrival) -> None:
        """Put an arrival into the inbox; called in the transport's thread."""
        if isinstance(arrival.item, Refused):  # the hint may take seconds: not in the driver's time
            try:
                error = self._errors.from_exception(
                    arrival.item, models=lambda: self._client.models(HINT_TIMEOUT)
                )
            except Exception as unread:  # noqa: BLE001 - the driver waits for this arrival
                error = self._errors.from_exception(unread)
            arrival = Arrival(arrival.time, error)
        self.inbox.put(self, arrival)

    def receive(self, arrivals: Sequence[Arrival]) -> list[Delta]:
        """Take arrivals in; return what they add to the answer, one delta a kind.

        It never raises: `check` does, once the last deltas were handed on.
        """
        if self.finished or self._failure or self._carriage is None:
            return []
        data: list[bytes] = []
        try:
            for arrival in arrivals:
                if isinstance(arrival.item, bytes):
                    data.append(arrival.item)
                    self._last_byte = arrival.time
                else:
                    self._read(b"".join(data))
                    data.clear()
                    if isinstance(arrival.item, _TimeIsUp):
                        self._time_is_up(arrival.time)
                    else:
                        self._take(arrival.item)
            self._read(b"".join(data))
        except Exception as error:  # noqa: BLE001 - mapped to one of ours
            self._failure = self._errors.from_exception(error, started=self._fold.started)
            self._deltas += self._fold.finish()
            self._failure.partial = self.completion()
        deltas, self._deltas = self._deltas, []
        if deltas and self._timings.first_answer is None:
            self._note_first(deltas)
        return self._redactor.value(_joined(deltas) if len(deltas) > 1 else deltas)

    def check(self) -> None:
        """Look at the clock; raise the failure, with what had arrived as its ``partial``.

        A time-out arrives through the inbox like any failure: the text that was held back goes
        first. It counts only if nothing in the inbox says otherwise, as where a consumer of the
        turn's events was away while the answer went on.
        """
        if self._failure:
            raise self._failure
        now = time.monotonic()
        if self._ended is not None:
            # Pings may go on for ever behind the end.
            self.finished = self.finished or now - self._ended >= END_GRACE
        elif not self._timed_out and (self._all_is_said(now) or self._silence(now)):
            self._timed_out = True
            self.inbox.put(self, Arrival(now, _TimeIsUp()))

    def completion(self) -> Completion:
        """Return what has arrived so far."""
        if self._last is not None:
            return self._last
        end = time.monotonic() if self._ended is None else self._ended
        seconds, timings = end - self._began, self._timings
        if self._recorded and self._ended is not None:
            seconds, *moments = self._recorded
            timings = Timings(timings.started, *moments)
        completion = self._redactor.value(self._fold.completion(seconds))
        usage = completion.usage
        if self._model is not None:
            usage = self._model.priced(usage, self._client.endpoint)
        return replace(completion, usage=usage, timings=timings)

    @property
    def wire(self) -> Wire:
        return self._client.wire

    @property
    def key(self) -> Key | None:
        """The key that goes along."""
        return self._client.key

    @property
    def is_lasting(self) -> bool:
        """True if the same request would be answered, or refused, in the same way again.

        Not for what broke, was stopped or given up, and not for refusals of the moment.
        """
        refused = isinstance(self._failure, BadRequest | NotFound)
        return self.finished if self._failure is None else refused or self._unreadable

    def _note_first(self, deltas: Sequence[Delta]) -> None:
        seconds = self._last_byte - self._began
        first_token, first_answer = self._timings.first_token, None
        if any(isinstance(delta, ContentDelta) for delta in deltas):
            first_answer = seconds
        self._timings = Timings(
            self._timings.started, seconds if first_token is None else first_token, first_answer
        )

    def _time_is_up(self, at: float) -> None:
        """End the answer, unless something was received before that moment."""
        if self._all_is_said(at):
            self._take(None)
        elif error := self._silence(at):
            self._take(error)
        else:
            self._timed_out = False

    def _take(self, item: int | Exception | None) -> None:
        if isinstance(item, Status):
            self._recorded = item.recorded
        if item == 202:
            raise self._errors.queued()
        if isinstance(item, Exception) and self._ended is None and self._answered is None:
            raise item
        if not isinstance(item, int) and self._ended is None:
            self._read_end()
        if not isinstance(item, int):
            self.finished = True

    def _read(self, data: bytes) -> None:
        if not data or self._ended is not None:  # what comes after the end belongs to no answer
            return
        if not self._chunks:
            self._body_read += data
            if self._streamed is None:
                # The body tells more than the Content-Type, which servers and proxies set as they
                # like.
                self._body_read = self._body_read.lstrip(BLANK)
                data = bytes(self._body_read)
                self._streamed = data[:1] not in b"{[" if data else None
            if self._streamed:
                del self._body_read[MOST_OF_NO_CHUNK:]
            elif len(self._body_read) > self._settings.max_body_bytes:
                raise TooMuch("max_body_bytes")
        if self._streamed:
            self._fold_events(self._decoder.feed(data))
            if self._decoder.in_data:
                self._last_data = self._last_byte

    def _read_end(self) -> None:
        """Take the end of a body that no event announced."""
        body = bytes(self._body_read)
        if self._streamed:
            self._fold_events(self._decoder.flush(), cut=True)
        elif body:
            with suppress(ValueError):
                self._fold_in(read_chunks(body))
            if not self._fold.started and not self._fold.finish_reason:
                raise self._not_read(body)
        if not self._chunks and self._ended is None:
            raise self._not_read(body)
        self._end()

    def _end(self) -> None:
        if not self._fold.started and not self._fold.finish_reason:
            raise self._errors.broke_off()
        self._deltas += self._fold.finish()
        self._ended = time.monotonic()

    def _fold_events(self, events: list[bytes], *, cut: bool = False) -> None:
        """Fold events in; the last one may be ``cut`` in two, where the body ended in it."""
        chunks: list[Mapping[str, Any]] = []
        ended, unreadable = False, None
        for data in events:
            if ended := self._client.wire.is_end(data):
                break
            if isinstance(data, NamedEvent) and data.name == b"error":
                self._fold_in(chunks)
                raise self._errors.from_event(data, started=self._fold.started)
            try:
                chunks += read_chunks(data)
            except ValueError:
                unreadable = data
                break
            if len(chunks) >= EVENTS_AT_ONCE:
                self._fold_in(chunks)
                chunks = []
        self._fold_in(chunks)
        if unreadable is not None and not cut and self._answered is None:
            raise self._not_read(unreadable)
        if ended:
            self._end()

    def _not_read(self, data: bytes) -> EndpointError:
        self._unreadable = True
        return self._errors.unreadable(data, started=self._fold.started)

    def _fold_in(self, chunks: list[Mapping[str, Any]]) -> None:
        self._chunks += len(chunks)
        for count, chunk in enumerate(chunks):
            if self._client.wire.is_error(chunk):
                self._deltas += self._fold.add(chunks[:count])
                raise self._errors.from_chunk(chunk, started=self._fold.started)
        before = self._fold.logprob_bytes
        deltas = self._fold.add(chunks)
        self._deltas += deltas
        self._count_logprobs(before)
        if chunks:
            self._last_data = self._last_byte
        if self._fold.finish_reason and (deltas or self._answered is None):
            self._answered = self._last_byte
        self._held.text_bytes += sum(map(_size, deltas))
        if self._held.text_bytes > self._most_held:
            raise TooMuch("max_turn_bytes")

    def _count_logprobs(self, before: int) -> None:
        """Give up the tokens' logarithms where they take too much: the text does without."""
        self._held.logprob_bytes += self._fold.logprob_bytes - before
        if self._held.logprob_bytes > self._most_held:
            self._held.logprob_bytes -= self._fold.logprob_bytes
            self._fold.drop_logprobs()

    def _all_is_said(self, now: float) -> bool:
        if self._answered is None:
            return False
        return now - max(self._answered, self.held_up) >= USAGE_GRACE

    def _silence(self, now: float) -> EndpointError | None:
        if self._answered is not None:
            return None
        settings, started = self._settings, self._fold.started
        if self._carriage and not self._carriage.connected:
            # The HTTP library's limit is for each address, and leaves out the look-up of the name.
            late = now - self._began > settings.connect_timeout + CONNECT_GRACE
            return self._errors.unreached("no answer in time") if late else None
        if started:
            waited, limit = now - max(self._last_data, self.held_up), settings.stall_timeout
        elif self._body.get("stream"):  # comments are no sign of an answer
            waited, limit = now - self._began, settings.first_token_timeout
        else:
            waited, limit = now - self._began, WHOLE_ANSWER_TIMEOUT
        return self._errors.silent(waited, started=started) if waited > limit else None


def _size(delta: Delta) -> int:
    """Return the bytes that a delta adds to the turn; a call is more than its text."""
    if isinstance(delta, ToolCallStarted):
        return CALL_BYTES + bytes_of(delta.name)
    return bytes_of(delta.arguments if isinstance(delta, ToolCallDelta) else delta.text)


def _joined(deltas: list[Delta]) -> list[Delta]:
    """Join deltas of one kind that arrived together: one a kind, not one a token."""
    joined: list[Delta] = []
    for kind, group in groupby(deltas, type):
        if kind is ReasoningDelta or kind is ContentDelta:
            joined.append(kind("".join(delta.text for delta in group)))  # type: ignore[union-attr]
        else:
            joined += group
    return joined
