"""The HTTP client for MCP servers: it bounds what they send, and notes why they refuse."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx2

from kimi_magic.core.text import clip, reveal
from kimi_magic.wire.addresses import is_this_machine

__all__ = ["MAX_BODY", "HttpClient"]

MAX_BODY = 32_000_000  # bytes of one answer, and of one event of a stream
BETWEEN_STREAMS = 1.0  # seconds: a server may want its stream opened anew at once, for ever
CONNECT_LIMIT, READ_LIMIT = 30.0, 300.0  # seconds

LOGIN = (
    "wants a login ({status}); logging in (OAuth) is not supported. Give it a token: "
    '"headers": {{"Authorization": "Bearer ${{NAME}}"}} beside its url'
)
MOVED = "redirects to {place}, which is not followed; give that address if it is the server's"
REFUSED = "answered {status}"
TOO_LONG = f"sent more than {MAX_BODY // 1_000_000} MB at once"
PACKED = "sent something compressed, which nobody asked for"


class HttpClient(httpx2.AsyncClient):
    """A client for one server.

    Attributes
    ----------
    problem : str
        Why the latest request failed, to be read after the server's name; "" if it did not.
    """

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        super().__init__(
            # A few kilobytes of it may grow to gigabytes.
            headers={"Accept-Encoding": "identity", **headers},
            timeout=httpx2.Timeout(CONNECT_LIMIT, read=READ_LIMIT),
            # A proxy of the environment has no business with this machine's own servers.
            trust_env=not is_this_machine(url),
        )
        self.problem = ""
        self._streamed = 0.0

    async def send(self, request: httpx2.Request, **how: Any) -> httpx2.Response:
        if request.method == "GET":
            await asyncio.sleep(self._streamed + BETWEEN_STREAMS - time.monotonic())
            self._streamed = time.monotonic()
        try:
            response = await super().send(request, **how)
        except httpx2.TransportError as error:
            self.problem = f"cannot be reached ({_words(error)})"
            raise
        self.problem = "" if request.method == "GET" else _problem(response)
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            self.problem = PACKED
            await response.aclose()
            raise httpx2.DecodingError(PACKED, request=request)
        if not response.headers.get("content-type", "").lower().startswith("text/event-stream"):
            response.stream = _Bounded(response.stream, self)
        return response


class _Bounded(httpx2.AsyncByteStream):
    """A body that ends with an error where it grows too long."""

    def __init__(self, stream: Any, client: HttpClient) -> None:
        self._stream, self._client = stream, client

    async def __aiter__(self) -> AsyncIterator[bytes]:
        taken = 0
        async for piece in self._stream:
            taken += len(piece)
            if taken > MAX_BODY:
                self._client.problem = TOO_LONG
                raise httpx2.ReadError(TOO_LONG)
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()


def _problem(response: httpx2.Response) -> str:
    if response.status_code in (401, 407):
        return LOGIN.format(status=response.status_code)
    if response.has_redirect_location:
        return MOVED.format(place=reveal(clip(response.headers["location"], 200)))
    return REFUSED.format(status=response.status_code) if response.status_code >= 400 else ""


def _words(error: BaseException) -> str:
    return reveal(clip(" ".join(str(error).split()) or type(error).__name__, 200))
