"""The scripted server: answers to give, requests received, and the verdict."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Any, Self, Unpack

try:
    from aiohttp import web
except ImportError:
    raise ImportError('kimi_magic.testing needs aiohttp: pip install "kimi-magic[test]"') from None

from kimi_magic.testing.answers import Answer, Pace, Reply, Token, as_json, json_answer
from kimi_magic.testing.batch_desk import BatchDesk
from kimi_magic.testing.block_answers import BlockReply
from kimi_magic.testing.block_checks import (
    check_messages_request,
    check_thinking,
    signed_elsewhere,
)
from kimi_magic.testing.checks import NO_LOGPROBS, check_request
from kimi_magic.testing.dialects import BY_NAME, NOTHING, error_body, json_object, texts_of

CHAT = "/v1/chat/completions"


@dataclass(slots=True, eq=False)
class Request:
    """A request that the server received.

    Attributes
    ----------
    number : int
        Position in the order of arrival, from 1.
    method, path : str
    headers : Mapping
        Case-insensitive.
    body : dict
        The JSON object sent; empty if there was none.
    problems : list of str
        Reasons why the server refused the request.
    arrived : float
        Time of arrival, as of `time.monotonic`.
    closed : threading.Event
        Set if the client closes the connection before the answer is complete.
    """

    number: int
    method: str
    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]
    problems: list[str] = field(default_factory=list)
    arrived: float = field(default_factory=time.monotonic)
    closed: threading.Event = field(default_factory=threading.Event)

    @property
    def closed_early(self) -> bool:
        """True if the client closed the connection before the answer was complete."""
        return self.closed.is_set()


@dataclass(frozen=True, slots=True)
class _Entry:
    """A scripted answer and its `Pace`."""

    summary: str
    answer: Callable[[Mapping[str, Any], int], Answer]
    to: str = ""
    delay: float = 0.0
    rate: float | None = None
    stall_after: int | None = None
    cut_after: int | None = None


class ScriptedServer:
    """An HTTP server on a loopback port that answers chat completions from a script.

    It runs in its own thread inside a ``with`` block. Each ``POST /v1/chat/completions`` takes
    the next scripted answer; ``GET /v1/models`` is always answered. Answers may be scripted at
    any time, from any thread.

    ``/v1/files`` and ``/v1/batches`` are those of the Batch API: a batch is under way until
    `finish_batches` answers its requests from the script.

    Parameters
    ----------
    dialect : str
        The server to imitate, one of `DIALECTS` or `K3_DIALECTS`; or ``anthropic``, which answers
        ``POST /v1/messages`` in the form of Anthropic's Messages API.
    rate : float, optional
        Deltas per second, for all answers; None for full speed.
    key : str, optional
        Key that requests must carry; any other is answered with 401.
    models : sequence of str
        Ids listed by ``GET /v1/models``; by default the dialect's. In the dialects of K3 a request
        for another model is answered with 404.
    strict : bool
        Refuse requests in which `check_request` finds problems; ``server.lenient`` is its opposite.

    Attributes
    ----------
    base_url : str
        Base URL for clients; in the dialect ``anthropic`` it ends in ``/anthropic`` and has no
        ``/v1``, as its SDKs take it.
    requests : list of Request
        All requests so far, in order of arrival.

    Raises
    ------
    AssertionError
        On leaving the ``with`` block without another exception; see `verify`.
    """

    def __init__(
        self,
        dialect: str = "moonshot",
        *,
        rate: float | None = None,
        key: str | None = None,
        models: Sequence[str] = (),
        strict: bool = True,
    ) -> None:
        self._flavour = BY_NAME[dialect]
        self.dialect, self.rate, self.key = dialect, rate, key
        self.models = models or self._flavour.models
        self.lenient = not strict
        self.base_url = ""
        self._root = "/anthropic" if self._flavour.blocks else ""
        self.requests: list[Request] = []
        self._script: deque[_Entry] = deque()
        self._elsewhere: dict[str, deque[_Entry]] = {}  # what is scripted for other paths
        self._desk = BatchDesk()
        self._complaints: list[str] = []
        # In the dialect anthropic: the ids of the calls and the thinking of each answer.
        self._issued: list[tuple[Sequence[str], list[dict[str, Any]]]] = []
        self._held = asyncio.Event()  # replaced by each go_on

    def reply(
        self,
        text: str = "",
        *,
        reasoning: str | None = None,
        tool_calls: Iterable[Mapping[str, Any]] = (),
        finish_reason: str | None = None,
        usage: Mapping[str, Any] | None = None,
        logprobs: bool | Sequence[Token] = False,
        to: str = "",
        signature: str | None = None,
        redacted: str | None = None,
        **pace: Unpack[Pace],
    ) -> None:
        """Script a completion, sent as a stream or as one JSON body, whichever is asked for.

        Parameters
        ----------
        text, reasoning : str
            The answer and the reasoning before it, streamed in word-like pieces, one to a delta.
        tool_calls : iterable of Mapping
            Each with ``name`` and ``arguments`` (values, or JSON text to send as it is), and with
            ``id`` to override the dialect's.
        finish_reason : str, optional
            ``tool_calls`` or ``stop`` by default.
        usage : Mapping, optional
            Word counts by default.
        logprobs : bool or sequence of tuple
            Sent where a request asks for them; without them it is as if the server knew none.
            True makes some up. Or the tokens that ``text`` is made of, one to a delta, each with
            its logprob, and with those of others: ``("9", -0.1, {"8": -2.4})``. A part of a
            character is bytes.
        to : str
            Only a request with this text in one of its messages gets it: for requests that come
            side by side, as from ``kimi.map``, in any order.
        signature, redacted : str, optional
            In the dialect ``anthropic``: the signature of the reasoning (Kimi's may be empty; by
            default one is made up), and an encrypted thought. Clients give both back unchanged.
        **pace
            See `Pace`.

        Raises
        ------
        ValueError
            The tokens are not those of the text.
        """
        if not isinstance(logprobs, bool):
            whole = b"".join(t if isinstance(t, bytes) else t.encode() for t, *_ in logprobs)
            if whole != text.encode():
                raise ValueError(f"the tokens make {whole.decode('utf-8', 'replace')!r:.60}")
        calls = [(c.get("id"), c["name"], as_json(c.get("arguments", {}))) for c in tool_calls]
        summary = f"reply({text!r:.60}, {len(calls)} tool calls)"
        if self._flavour.blocks:
            block = BlockReply(text, reasoning, calls, finish_reason, usage, signature, redacted)
            self._script.append(_Entry(summary, partial(self._issue, block), to, **pace))
            return
        reply = Reply(self._flavour, text, reasoning, calls, finish_reason, usage, logprobs)
        self._script.append(_Entry(summary, reply.answer, to, **pace))

    def _issue(self, reply: BlockReply, body: Mapping[str, Any], number: int) -> Answer:
        self._issued.append((reply.call_ids(number), reply.thinking()))
        return reply.answer(body, number)

    def error(
        self,
        status: int,
        message: str,
        *,
        type: str | None = None,  # noqa: A002 (the API's word)
        headers: Mapping[str, str] | None = None,
        path: str = CHAT,
        **pace: Unpack[Pace],
    ) -> None:
        """Script an error response in the dialect's format.

        Parameters
        ----------
        status : int
            HTTP status.
        message, type : str
            Contents of the body; the type follows from the status by default.
        headers : Mapping, optional
            Additional headers, such as ``Retry-After``.
        path : str
            The next request for it is answered so, such as ``/v1/files``.
        **pace
            See `Pace`.
        """
        entry = self._refusal(status, message, type, headers or {})
        self._script_for(path).append(replace(entry, **pace))

    def raw(
        self,
        items: Iterable[bytes],
        *,
        content_type: str = "text/event-stream",
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        path: str = CHAT,
        **pace: Unpack[Pace],
    ) -> None:
        """Script bytes to send as they are, one write per item; a `Pace` counts the items.

        ``path`` is as for `error`.
        """
        about = {"Content-Type": content_type, **(headers or {})}
        answer = Answer(list(items), status=status, headers=about)
        summary = f"raw({answer.deltas!r:.60})"
        self._script_for(path).append(_Entry(summary, lambda *_: answer, **pace))

    def finish_batches(self, status: str = "completed", *, most: int | None = None) -> None:
        """End the batches under way: their requests are answered from the script, in order.

        Parameters
        ----------
        status : str
            ``completed``, ``expired`` or ``failed``. One that is being cancelled is ``cancelled``
            in any case, and no more of its requests are answered.
        most : int, optional
            As many requests of each batch are answered; all by default, none of one that failed.
        """

        async def finish() -> None:
            self._desk.finish(status, most, self._answer_in_batch)

        asyncio.run_coroutine_threadsafe(finish(), self._loop).result()

    def _answer_in_batch(self, body: dict[str, Any], headers: Mapping[str, str]) -> Answer:
        request = Request(len(self.requests) + 1, "POST", CHAT, headers, body)
        self.requests.append(request)
        return self._entry_for(request).answer(body, request.number)

    def _script_for(self, path: str) -> deque[_Entry]:
        return self._script if path == CHAT else self._elsewhere.setdefault(path, deque())

    def render(self, body: Mapping[str, Any] | None = None) -> list[bytes]:
        """Take the next answer off the script and return its bytes, one item per event.

        Parameters
        ----------
        body : Mapping, optional
            The request to answer; a stream with usage by default.
        """
        asked = {"model": self.models[0], "stream": True, "stream_options": {"include_usage": True}}
        answer = self._script.popleft().answer(body or asked, 1)
        return [*answer.opening, *answer.deltas, *answer.closing]

    def go_on(self) -> None:
        """Let the answers that stall now, by ``stall_after``, go on to their ends."""

        def release() -> None:
            held = self._held
            self._held = asyncio.Event()
            held.set()

        self._loop.call_soon_threadsafe(release)

    def verify(self) -> None:
        """Check that everything went as scripted.

        Raises
        ------
        AssertionError
            A request was invalid or unexpected, or answers are left; the message lists them all.
        """
        scripted = chain(self._script, *self._elsewhere.values())
        left = [f"not asked for: {entry.summary}" for entry in scripted]
        if problems := [*self._complaints, *left]:
            raise AssertionError("\n  ".join(["ScriptedServer:", *problems]))

    def __enter__(self) -> Self:
        port: Future[int] = Future()
        run = self._serve(port)
        self._thread = threading.Thread(target=asyncio.run, args=[run], name="ScriptedServer")
        self._thread.daemon = True
        self._thread.start()
        self.base_url = f"http://127.0.0.1:{port.result(timeout=10)}{self._root or '/v1'}"
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        if error is None:
            self.verify()
        elif self._complaints:
            error.add_note("\n  ".join(["ScriptedServer:", *self._complaints]))

    async def _serve(self, port: Future[int]) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(client_max_size=2**28)
        app.router.add_route("*", "/{path:.*}", self._handle)
        # Without handler_cancellation, aiohttp does not tell a handler that its client has gone.
        runner = web.AppRunner(
            app, handler_cancellation=True, access_log=None, shutdown_timeout=0.01
        )
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port.set_result(runner.addresses[0][1])
        await self._stopping.wait()
        await runner.cleanup()

    async def _handle(self, got: web.Request) -> web.StreamResponse:
        body = await self._desk.read_upload(got) or json_object(await got.read()) or {}
        request = Request(len(self.requests) + 1, got.method, got.path, got.headers, body)
        self.requests.append(request)
        try:
            return await self._send(got, request, self._entry_for(request))
        except (ConnectionError, asyncio.CancelledError):
            if not self._stopping.is_set():
                request.closed.set()
            raise

    def _entry_for(self, request: Request) -> _Entry:  # noqa: PLR0911 - the checks of a server
        where = f"request {request.number}, {request.method} {request.path}"
        if self.key is not None and not self._is_authorized(request.headers):
            return self._refusal(401, "Invalid Authentication")
        if self._elsewhere.get(request.path):
            return self._elsewhere[request.path].popleft()
        asked = request.method, request.path.removeprefix(self._root)
        if asked == ("GET", "/v1/models"):
            return self._list_models()
        if asked != ("POST", "/v1/messages" if self._flavour.blocks else CHAT):
            return self._at_the_desk(request) or self._refusal(404, f"nothing at {request.path}")
        if self._flavour.refuses_logprobs and request.body.get("logprobs"):
            return self._refusal(400, NO_LOGPROBS)  # no complaint: clients may ask
        if not self.lenient:
            if self._flavour.blocks and (foreign := signed_elsewhere(request.body, self._issued)):
                return self._refusal(400, foreign)  # no complaint: clients may try
            model = request.body.get("model")
            if self._flavour.k3 and model not in self.models:
                return self._refusal(404, f"Not found the model {model} or Permission denied")
            request.problems += self._check(request)
        if request.problems:
            self._complaints += (f"{where}: invalid: {problem}" for problem in request.problems)
            return self._refusal(400, "Invalid request: " + "; ".join(request.problems))
        return self._next_for(request, where)

    def _next_for(self, request: Request, where: str) -> _Entry:
        said = "\n".join(texts_of(request.body.get("messages")))
        for place, entry in enumerate(self._script):
            if entry.to in said:
                del self._script[place]
                return entry
        self._complaints.append(f"{where}: unexpected: nothing scripted for it")
        return self._refusal(500, "nothing scripted")

    def _list_models(self) -> _Entry:
        kind = {"type": "model"} if self._flavour.blocks else {"object": "model", "created": 0}
        page = {"has_more": False} if self._flavour.blocks else {"object": "list"}
        answer = json_answer({**page, "data": [{"id": model, **kind} for model in self.models]})
        return _Entry("models", lambda *_: answer)

    def _at_the_desk(self, request: Request) -> _Entry | None:
        method, path, body = request.method, request.path, request.body
        answer = self._desk.answer(method, path, body, request.headers, self._complaints)
        return answer and _Entry(f"batches({request.path})", lambda *_: answer)

    def _is_authorized(self, headers: Mapping[str, str]) -> bool:
        own = self._flavour.blocks and headers.get("X-Api-Key") == self.key
        return own or headers.get("Authorization") == f"Bearer {self.key}"

    def _check(self, request: Request) -> list[str]:
        if not self._flavour.blocks:
            return check_request(request.body, dialect=self.dialect)
        problems = check_messages_request(request.body)
        if "anthropic-version" not in request.headers:
            problems.append("anthropic-version: header is required")
        return problems + check_thinking(request.body, self._issued)

    def _refusal(
        self,
        status: int,
        message: str,
        kind: str | None = None,
        headers: Mapping[str, str] = NOTHING,
    ) -> _Entry:
        body = error_body(self.dialect, status, message, kind)
        answer = json_answer(body, status, headers)
        return _Entry(f"error({status}, {message!r:.60})", lambda *_: answer)

    async def _send(self, got: web.Request, request: Request, entry: _Entry) -> web.StreamResponse:
        answer = entry.answer(request.body, request.number)
        await asyncio.sleep(entry.delay)
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        response.headers.setdefault(self._flavour.request_id, f"req-{request.number}")
        response.headers["Kimi-Scripted"] = "true"  # a tape says so of what it recorded
        await response.prepare(got)
        limit = entry.stall_after if entry.cut_after is None else entry.cut_after
        whole = [*answer.opening, *answer.deltas, *answer.closing]
        before = len(whole) if limit is None else len([*answer.opening, *answer.deltas[:limit]])
        await self._write(response, answer, whole[:before], entry.rate or self.rate)
        if entry.cut_after is not None and got.transport is not None:
            while got.transport.get_write_buffer_size():
                await asyncio.sleep(0.001)
            got.transport.abort()
        elif limit is not None:
            await self._held.wait()
            await self._write(response, answer, whole[before:], entry.rate or self.rate)
        return response

    async def _write(
        self, response: web.StreamResponse, answer: Answer, blocks: list[bytes], rate: float | None
    ) -> None:
        if answer.joined and not rate:
            blocks = [b"".join(blocks)]
        started = self._loop.time()
        for number, block in enumerate(blocks):
            if rate:
                await asyncio.sleep(max(0, started + number / rate - self._loop.time()))
            await response.write(block)
