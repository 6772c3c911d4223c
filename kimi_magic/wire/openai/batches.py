"""The Batch API: requests in a file, answered within a day, at a lower price.

It goes through the SDK, and sends the headers of every other request of ours. Moonshot
(platform.kimi.ai/docs/guide/use-batch-api) follows OpenAI's form; where the two differ, the
narrower limit is kept.
"""

from __future__ import annotations

import json
import queue
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from kimi_magic.core.errors import BadStream, EndpointError
from kimi_magic.core.interrupts import waiting
from kimi_magic.core.messages import Completion
from kimi_magic.core.text import clip, replace_unprintable
from kimi_magic.secrets.redact import Redactor
from kimi_magic.wire.chunks import as_string, read_chunks
from kimi_magic.wire.inbox import Inbox
from kimi_magic.wire.openai.chat_completions import words_of
from kimi_magic.wire.protocols import (
    Arrival,
    Deliver,
    Redirected,
    Refused,
    Request,
    Status,
    TooMuch,
)

if TYPE_CHECKING:
    import httpx2

    from kimi_magic.secrets.keys import Key
    from kimi_magic.wire.client import Client
    from kimi_magic.wire.models import Model

__all__ = ["MOST_BYTES", "MOST_REQUESTS", "BatchState", "Batches", "Result", "batch_line"]

T = TypeVar("T")

# A file of Moonshot's has 100 MB at most, one of OpenAI's 50,000 requests.
MOST_BYTES, MOST_REQUESTS = 100_000_000, 50_000
PREFIX = "/v1"  # the addresses of requests in a file begin with it, whatever the base URL
WINDOW: Literal["24h"] = "24h"  # OpenAI takes no other, Moonshot from 12h to 7d
MARK = "kimi_map"
"""The name in a batch's metadata under which it is found again."""
ENDED = ("completed", "failed", "expired", "cancelled")
STATUSES = ("validating", "in_progress", "finalizing", "cancelling", *ENDED)
MAX_WORDS = 300
IO_SECONDS = 120.0  # without a byte; a server answers an upload when it has read all of it
PAGE, MOST_PAGES = 100, 50  # of the list of batches
LONGEST_WAIT = 60.0
PATIENCE = 10.0  # seconds for which an interrupt waits for a batch that is being created
LINES_AHEAD = 8
POLL = 0.05
# Headers of the body and of the connection, which the SDK sets; all others are ours.
_FRAMING = {"accept", "connection", "content-length", "content-type", "host", "transfer-encoding"}
# A gateway's ids may be base64; one that is nothing but dots would be another address.
_ID = re.compile(r"(?!\.+$)[\w.:;,=+-]{1,1000}", re.ASCII)


def batch_line(custom_id: str, request: Request) -> bytes:
    """Return a request as a line of a batch's file; its body is what is sent one by one."""
    about = {"custom_id": custom_id, "method": "POST", "url": PREFIX + request.path}
    return json.dumps(about)[:-1].encode() + b', "body": ' + request.body + b"}\n"


@dataclass(frozen=True, slots=True)
class BatchState:
    """A batch as its server tells of it.

    Attributes
    ----------
    id : str
    status : str
        One of `STATUSES`, or ``of no known status``.
    completed, failed : int
        Requests.
    input_file, output_file, error_file : str
        The ids of its files; "" for one that is not there.
    mark : str
        The one it was created with; "" where the server keeps none.
    words : str
        The reason why it failed.
    created : float
        Seconds since the epoch; 0 where the server does not say.
    """

    id: str
    status: str
    completed: int = 0
    failed: int = 0
    input_file: str = ""
    output_file: str = ""
    error_file: str = ""
    mark: str = ""
    words: str = ""
    created: float = 0.0

    @property
    def ended(self) -> bool:
        """True if no more of its requests are answered."""
        return self.status in ENDED


class Result(NamedTuple):
    """The outcome of one request of a batch; ``body`` is that of the answer, or of the refusal."""

    custom_id: str
    status: int
    body: bytes


class Batches:
    """The batches of an account at one server; ``http`` is closed with it.

    Every method waits for the server in a thread of its own: an interrupt must not fall into the
    connection, and ends the wait. All of them raise an `EndpointError` for what fails.

    Attributes
    ----------
    interrupted : bool
        True if an interrupt came while a batch was created; the batch is known all the same.
    """

    def __init__(self, client: Client, http: httpx2.Client, headers: Mapping[str, str]) -> None:
        import httpx2
        import openai

        self.interrupted = False
        self._client = client
        self._http = http
        self._most = client.settings.max_body_bytes
        # The SDK would add headers that the environment's OPENAI_* name.
        own = {n: v for n, v in headers.items() if n.lower() not in ("accept", "content-type")}
        self._own = own
        http.event_hooks = {"request": [self._put_headers], "response": [self._bound]}
        self._sdk = openai.OpenAI(
            base_url=client.base_url,
            api_key=client.key.value if client.key else "none",
            http_client=http,
            max_retries=client.settings.retries,
            timeout=httpx2.Timeout(IO_SECONDS, connect=client.settings.connect_timeout),
        )

    def upload(self, file: IO[bytes], name: str) -> str:
        """Upload a file of requests; return its id."""
        file.seek(0)
        # On Windows a temporary file is a wrapper, which the SDK does not take.
        content = getattr(file, "file", file)
        given = (name, content, "application/jsonl")
        made = self._apart(lambda: self._sdk.files.create(file=given, purpose="batch"))
        return self._checked(_text(_facts(made), "id"))

    def create(self, file: str, mark: str) -> BatchState:
        """Create a batch of an uploaded file.

        It is sent again only where the server has surely made none. An interrupt comes when the
        server has answered, after `PATIENCE` seconds at the latest.
        """
        import openai

        retries = self._client.settings.retries
        once = self._sdk.with_options(max_retries=0)

        def send() -> Any:
            for attempt in range(retries + 1):
                try:
                    return once.batches.create(
                        input_file_id=file,
                        endpoint="/v1/chat/completions",
                        completion_window=WINDOW,
                        metadata={MARK: mark},
                    )
                except openai.RateLimitError as error:
                    wait = self._map(error).retry_after
                    if attempt == retries or (wait or 0) > LONGEST_WAIT:
                        raise
                    time.sleep(min(2.0**attempt, LONGEST_WAIT) if wait is None else wait)
            raise AssertionError("the last attempt returns or raises")

        return self._state(self._apart(send, PATIENCE))

    def retrieve(self, batch: str) -> BatchState:
        """Return a batch as it is now."""
        return self._state(self._apart(lambda: self._sdk.batches.retrieve(self._checked(batch))))

    def cancel(self, batch: str) -> BatchState:
        """Have a batch cancelled; return it as it is then."""
        return self._state(self._apart(lambda: self._sdk.batches.cancel(self._checked(batch))))

    def created_since(self, moment: float) -> Iterator[BatchState]:
        """Yield the account's batches, the latest first, back to a moment of the clock."""
        after: dict[str, Any] = {}
        for _ in range(MOST_PAGES):
            listed = self._apart(
                lambda after=after: self._sdk.batches.list(limit=PAGE, **after)  # type: ignore[misc]
            )
            found = getattr(listed, "data", None)
            page = [_facts(batch) for batch in (found if isinstance(found, list) else ())]
            states = [self._state(facts) for facts in page if _ID.fullmatch(_text(facts, "id"))]
            yield from states
            is_old = bool(states) and 0 < states[-1].created < moment
            if not states or is_old or not getattr(listed, "has_more", False):
                return
            after = {"after": states[-1].id}

    def results(self, file: str) -> Iterator[Result]:
        """Yield the results in an output file or an error file; lines that are none are left out.

        They are read as they come: a file may be larger than the memory.
        """
        for line in self._lines(self._checked(file)):
            if (result := _result(line)) is not None:
                yield result

    def completion(
        self, result: Result, model: str, record: Model, keys: Sequence[Key]
    ) -> Completion:
        """Decode an answer as any other, or raise the `EndpointError` of a refusal."""
        client = self._client
        if not 200 <= result.status < 300:
            refused = Refused(result.status, {}, result.body)
            raise client.errors(model, keys).from_exception(refused)
        inbox = Inbox(max(len(result.body), 1) * 2)
        asked = {"model": model, "stream": False}
        whole = _Whole(result)
        with client.chat(asked, keys, inbox, record, transport=whole) as exchange:
            for each, arrivals in inbox.take(0):
                each.receive(arrivals)
            exchange.check()
            return exchange.completion()

    def close(self) -> None:
        self._http.close()

    def _lines(self, file: str) -> Iterator[bytes]:
        arrived: queue.Queue[bytes | Exception | None] = queue.Queue(LINES_AHEAD)
        left = threading.Event()

        def put(item: bytes | Exception | None) -> bool:
            while not left.is_set():
                with suppress(queue.Full):
                    arrived.put(item, timeout=POLL)
                    return True
            return False

        def read() -> None:
            end: Exception | None = None
            try:
                streaming = self._sdk.files.with_streaming_response
                with streaming.content(file) as response:
                    for line in _split(response.iter_bytes(), self._most):
                        if not put(line):
                            return
            except Exception as error:  # noqa: BLE001 - mapped where it is waited for
                end = error
            put(end)

        threading.Thread(target=read, name="kimi-batch", daemon=True).start()
        try:
            while (item := _wait_for(arrived)) is not None:
                if isinstance(item, Exception):
                    raise self._map(item) from None
                yield item
        finally:
            left.set()

    def _apart(self, call: Callable[[], T], patience: float = 0.0) -> T:
        """Make a call in a thread of its own; an interrupt comes ``patience`` seconds later."""
        found: list[T] = []
        failed: list[Exception] = []
        done = threading.Event()

        def run() -> None:
            try:
                found.append(call())
            except Exception as error:  # noqa: BLE001 - mapped below
                failed.append(error)
            finally:
                done.set()

        threading.Thread(target=run, name="kimi-batch", daemon=True).start()
        try:
            with waiting():
                while not done.wait(POLL):
                    pass
        except KeyboardInterrupt:
            done.wait(patience)
            if not patience or not found:
                raise
            self.interrupted = True
        if failed:
            raise self._map(failed[0]) from None
        return found[0]

    def _map(self, error: Exception) -> EndpointError:
        """Return our error for one of the SDK's."""
        import openai

        errors = self._client.errors()
        if isinstance(error, openai.APIStatusError):
            answer = error.response
            if answer.has_redirect_location:
                moved = Redirected(answer.status_code, reason="of a request for a batch")
                return errors.from_exception(moved)
            return errors.from_exception(
                Refused(answer.status_code, answer.headers, _body_of(answer))
            )
        if isinstance(error, openai.APIConnectionError) and isinstance(error.__cause__, Exception):
            error = error.__cause__
        return errors.from_exception(error)

    def _state(self, batch: Any) -> BatchState:
        facts = _facts(batch)
        counts, named = _facts(facts.get("request_counts")), _facts(facts.get("metadata"))
        created = facts.get("created_at")
        status = _text(facts, "status").lower()
        return BatchState(
            self._checked(_text(facts, "id")),
            status if status in STATUSES else "of no known status",
            completed=_count(counts, "completed"),
            failed=_count(counts, "failed"),
            input_file=_text(facts, "input_file_id"),
            output_file=_text(facts, "output_file_id"),
            error_file=_text(facts, "error_file_id"),
            mark=_text(named, MARK),
            words=self._clean(words_of(_facts(facts.get("errors")).get("data"))),
            created=created if isinstance(created, int | float) else 0.0,
        )

    def _clean(self, text: str) -> str:
        key = self._client.key
        return replace_unprintable(clip(Redactor([key] if key else ()).text(text), MAX_WORDS))

    def _checked(self, name: str) -> str:
        key = self._client.key
        if _ID.fullmatch(name) and not (key and key.value in name):
            return name
        raise BadStream(
            f"{self._client.endpoint.name} sent no id of a file or a batch.\n"
            "Has its server the Batch API?"
        )

    def _put_headers(self, request: httpx2.Request) -> None:
        for name in set(request.headers) - _FRAMING:
            del request.headers[name]
        request.headers.update(self._own)

    def _bound(self, response: httpx2.Response) -> None:
        import httpx2

        if response.is_success and response.request.url.path.endswith("/content"):
            return  # its lines are bounded
        stream, most = response.stream, self._most

        class Bounded(httpx2.SyncByteStream):
            def __iter__(self) -> Iterator[bytes]:
                assert isinstance(stream, httpx2.SyncByteStream)
                size = 0
                for data in stream:
                    size += len(data)
                    if size > most:
                        raise TooMuch("max_body_bytes")
                    yield data

            def close(self) -> None:
                assert isinstance(stream, httpx2.SyncByteStream)
                stream.close()

        response.stream = Bounded()


class _Whole:
    """The `Transport` of an answer that has come already."""

    connected = True

    def __init__(self, result: Result) -> None:
        self._result = result

    def send(self, request: Request, deliver: Deliver, connect_timeout: float) -> _Whole:  # noqa: ARG002
        now = time.monotonic()
        for item in (Status(self._result.status, {}), self._result.body, None):
            deliver(Arrival(now, item))
        return self

    def get(self, path: str, timeout: float) -> Any:
        raise NotImplementedError

    def end(self) -> None:
        """Do nothing: there is no connection."""

    def close(self) -> None:
        """Do nothing: there is no connection."""


def _wait_for(arrived: queue.Queue[T]) -> T:
    with waiting():
        while True:
            with suppress(queue.Empty):
                return arrived.get(timeout=POLL)


def _split(pieces: Iterable[bytes], most: int) -> Iterator[bytes]:
    """Yield lines; one that is longer than the limit is left out.

    Only line feeds end a line: texts may hold other separators as they are.
    """
    rest, too_long = b"", False
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if not too_long and len(line) <= most:
                yield line
            too_long = False
        if len(rest) > most:
            rest, too_long = b"", True
    if rest and not too_long:
        yield rest


def _result(line: bytes) -> Result | None:
    """Read a line of an output or an error file; None where it is none."""
    try:
        facts = next(iter(read_chunks(line)), {})
    except (ValueError, RecursionError):
        return None
    response, error = _facts(facts.get("response")), facts.get("error")
    status = response.get("status_code")
    status = status if type(status) is int else 200
    if error:  # the request has not come to be answered: expired, for example
        status = status if status >= 400 else 500
        body: Any = {"error": error}
    else:
        body = response.get("body")
    custom_id = _text(facts, "custom_id")
    if not custom_id or (body is None and status < 400):
        return None
    return Result(custom_id, status, body.encode() if isinstance(body, str) else _dumped(body))


def _dumped(body: Any) -> bytes:
    try:
        return json.dumps(body).encode()
    except (ValueError, RecursionError):
        return b""


def _facts(value: Any) -> Mapping[str, Any]:
    """Return what a server sent as a mapping; the SDK's objects hold anything."""
    if isinstance(value, Mapping):
        return value
    dump = getattr(value, "to_dict", None)
    with suppress(Exception):
        found = dump(mode="json") if dump else None
        if isinstance(found, dict):
            return found
    return {}


def _text(facts: Mapping[str, Any], name: str) -> str:
    return as_string(facts.get(name))


def _count(facts: Mapping[str, Any], name: str) -> int:
    value = facts.get(name)
    return value if type(value) is int and value > 0 else 0


def _body_of(answer: httpx2.Response) -> bytes:
    with suppress(Exception):
        return answer.read()
    return b""
