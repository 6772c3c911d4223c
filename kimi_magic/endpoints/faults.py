"""What went wrong on the way, as one of our errors: the only place where it is mapped.

Three layers speak here: the HTTP library (transport), the SDK (status codes), and the servers'
own error bodies, each in a shape of its own. The reader gets the server's words, the cause, and
the next step; a key that a server echoes is masked.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from kimi_magic.config import Key
from kimi_magic.endpoints.catalogue import Endpoint
from kimi_magic.errors import (
    BadRequest,
    BadStream,
    ConnectionFailed,
    ContentFiltered,
    ContextTooLong,
    EndpointError,
    KeyRefused,
    NotFound,
    QuotaExhausted,
    RateLimited,
    ServerFailed,
    TimedOut,
)

__all__ = ["Faults", "words_of"]

MAX_WORDS = 1000
_QUOTA = ("exceeded_current_quota", "insufficient_quota", "insufficient balance")
_CONTEXT = ("exceed_context_size", "context_length_exceeded", "maximum context length")


class Faults:
    """Turns the failures of one endpoint into ours.

    Parameters
    ----------
    endpoint : Endpoint
    base_url : str
        The address in use.
    key : Key or None
        The key in use; its text is taken out of all messages.
    model : str
        The model asked for.
    """

    def __init__(self, endpoint: Endpoint, base_url: str, key: Key | None, model: str = "") -> None:
        self._endpoint = endpoint
        self._base_url = base_url
        self._key = key
        self._model = model

    def from_exception(self, error: Exception) -> EndpointError:
        """Map what the SDK or the HTTP library raised."""
        import httpx2
        import openai

        if isinstance(error, EndpointError):
            return error
        if isinstance(error, openai.APIStatusError):
            response = error.response
            body = error.body if error.body is not None else response.text
            return self.from_answer(response.status_code, body, response.headers)
        # The SDK maps transport errors before the headers, the HTTP library's own come after.
        cause = error.__cause__ if isinstance(error, openai.APIConnectionError) else error
        if isinstance(cause, httpx2.LocalProtocolError | httpx2.UnsupportedProtocol):
            return BadRequest(f"The request cannot be sent: {self._clean(str(cause))}")
        if isinstance(cause, httpx2.ConnectTimeout | httpx2.ConnectError | httpx2.ProxyError):
            return self._not_reached(cause)
        if isinstance(cause, httpx2.TransportError | OSError):
            return ConnectionFailed(
                f"The connection to {self._base_url} broke: "
                f"{self._clean(str(cause)) or type(cause).__name__}\nRun the cell again."
            )
        words = self._clean(str(error)) or type(error).__name__
        return BadStream(f"{self._name} gave an answer that cannot be read: {words}")

    def _not_reached(self, cause: Exception) -> ConnectionFailed:
        words = self._clean(str(cause)) or "no answer in time"
        advice = (
            "Is the server running, and the address right? `-e NAME` or KIMI_BASE_URL choose "
            "another; `%config KimiMagics.connect_timeout` sets the seconds to wait."
        )
        untrusted = "CERTIFICATE" in words
        if untrusted:
            advice = "Its certificate is not trusted; SSL_CERT_FILE names your own authority's."
        error = ConnectionFailed(f"{self._base_url} could not be reached: {words}\n{advice}")
        error.retriable = not untrusted
        return error

    def from_answer(
        self, status: int | None, body: object, headers: Mapping[str, str] | None = None
    ) -> EndpointError:
        """Map an answer with an error status, or an error object in a stream (status None)."""
        headers = headers or {}
        words = self._clean(words_of(body))
        kind_of, code = _type_of(body)
        kind, advice = self._judge(status or code, f"{kind_of} {words}".lower())
        said = f"answered {status}" if status else "broke off"
        lines = [f"{self._name} {said}: {words or 'no words'}", *([advice] if advice else [])]
        return kind(
            "\n".join(lines),
            status=status,
            retry_after=retry_after(headers),
            request_id=headers.get("msh-request-id") or headers.get("x-request-id"),
        )

    def silent(self, seconds: float, *, started: bool) -> TimedOut:
        """The server has sent nothing for that long."""
        what = "stopped in the middle of its answer" if started else "sent no first token"
        setting = "stall_timeout" if started else "first_token_timeout"
        return TimedOut(
            f"{self._name} {what}: {seconds:.0f} s without a sign.\n"
            f"Run the cell again, or raise `%config KimiMagics.{setting}`."
        )

    def broke_off(self) -> ConnectionFailed:
        """The stream ended before the answer began."""
        return ConnectionFailed(
            f"{self._name} ended its answer before it began. Run the cell again."
        )

    def unreadable(self, data: bytes) -> BadStream:
        """The body is neither a stream of chunks nor a completion."""
        text = self._clean(words_of(data.decode("utf-8", "replace"))) or "an empty body"
        return BadStream(
            f"{self._name} sent no chat completion but: {text}\n"
            f"Does {self._base_url} end where the server's API begins (often /v1)?"
        )

    @property
    def _name(self) -> str:
        name = self._endpoint.name
        return name if name in self._base_url else f"{name} ({self._base_url})"

    def _judge(self, status: int | None, text: str) -> tuple[type[EndpointError], str]:  # noqa: PLR0911 - a table
        if status == 402 or any(mark in text for mark in _QUOTA):
            return (
                QuotaExhausted,
                "The account's quota is used up: see the provider's billing page.",
            )
        if any(mark in text for mark in _CONTEXT):
            return ContextTooLong, "Too long for the model: `%kimi reset` starts the chat anew."
        if status in (401, 403):
            return KeyRefused, self._key_advice()
        if status == 404 and not self._model:
            return NotFound, "Does the address end where the server's API begins (often /v1)?"
        if status == 404:
            return NotFound, (
                f"The model asked for was {self._model!r}; `%kimi models` lists what the server "
                "has, `-m NAME` chooses."
            )
        if status == 429 or "rate_limit" in text:
            return RateLimited, "Too many requests: wait a little, then run the cell again."
        # NVIDIA reports a model that is down as 400 with the word DEGRADED.
        if (status or 0) >= 500 or "degraded function" in text or "overloaded" in text:
            return ServerFailed, "The server failed, not the request: run the cell again later."
        if "content_filter" in text:
            return ContentFiltered, "The provider's content filter refused it: rephrase the prompt."
        if status is None:
            return BadStream, "What had arrived is kept; run the cell again."
        return (ServerFailed, "") if status in (408, 409) else (BadRequest, "")

    def _key_advice(self) -> str:
        if self._key:
            where = f"The key came from {self._key.source}."
            docs = f" Keys are made at {self._endpoint.docs}." if self._endpoint.docs else ""
            return where + docs
        return (
            "No key was sent. For a server of your own set KIMI_BASE_URL and KIMI_API_KEY, or use "
            "kimi.add_endpoint(kimi.Endpoint(name, base_url, key_env='MY_KEY'))."
        )

    def _clean(self, text: str) -> str:
        text = self._key.mask(text) if self._key else text
        return text if len(text) <= MAX_WORDS else text[: MAX_WORDS - 1] + "…"


def words_of(body: object) -> str:
    """The server's own words in an error body, whatever its shape."""
    if isinstance(body, bytes):
        body = body.decode("utf-8", "replace")
    if isinstance(body, str):
        title = re.search(r"<title>(.*?)</title>", body, re.IGNORECASE | re.DOTALL)
        return " ".join((title[1] if title else re.sub(r"<[^>]*>", " ", body)).split())
    if isinstance(body, list):
        return "; ".join(words_of(item) for item in body)
    if not isinstance(body, Mapping):
        return "" if body is None else str(body)
    if body.get("error"):
        return words_of(body["error"])
    named = [body.get(name) for name in ("title", "message", "msg", "detail")]
    return ": ".join(words_of(value) for value in named if value)


def _type_of(body: object) -> tuple[str, int | None]:
    """The server's type and code in one text; the code as a status where it is a number."""
    if not isinstance(body, Mapping):
        return "", None
    inner = body.get("error")
    source = inner if isinstance(inner, Mapping) else body
    code = source.get("code")
    return f"{source.get('type') or ''} {code or ''}", code if isinstance(code, int) else None


def retry_after(headers: Mapping[str, Any]) -> float | None:
    """Seconds that the server asks to wait: ``Retry-After`` (seconds or date), or in ms."""
    if milliseconds := _number(headers.get("retry-after-ms")):
        return milliseconds / 1000
    value = headers.get("retry-after")
    if value is None:
        return None
    if (seconds := _number(value)) is not None:
        return seconds
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _number(value: str | None) -> float | None:
    try:
        return max(0.0, float(value)) if value is not None else None
    except ValueError:
        return None
