"""Failures as our errors: the only place where they are mapped.

Two layers speak here: the HTTP library (transport) and the servers' own error bodies, which the
wire reads. The reader gets the server's words, the cause and the next step; a key that a server
echoes is masked.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.request import getproxies, proxy_bypass

from kimi_magic.core import errors
from kimi_magic.core.errors import BadStream, ConnectionFailed, EndpointError, ServerFailed
from kimi_magic.core.text import replace_unprintable, text_of_html
from kimi_magic.secrets.keys import KEYRING_SERVICE, Key
from kimi_magic.secrets.patterns import mask_accounts
from kimi_magic.secrets.redact import Redactor
from kimi_magic.wire.addresses import host_of, is_this_machine
from kimi_magic.wire.endpoints import Endpoint
from kimi_magic.wire.protocols import (
    BadProxy,
    Redirected,
    Refused,
    ServerError,
    TooMuch,
    Wire,
)

__all__ = ["ErrorMapper", "proxy_for", "retry_after"]

MAX_WORDS = 1000
MAX_READ = 10_000
MAX_NAMED = 5
LONGEST_WAIT = 10**8  # seconds; a longer wait is none
# Marks in the server's type, code or words; a status alone does not tell these apart.
_QUOTA = (
    *("exceeded_current_quota", "insufficient_quota", "insufficient balance"),
    *("credit balance is too low", "spend_limit_reached"),
)
_CONTEXT = (
    *("exceed_context_size", "context_length_exceeded", "maximum context length"),
    *("prompt is too long", "exceed context limit"),
)
_NO_MODEL = ("not a valid model", "model_not_found", "model not found")
# NVIDIA reports a model that is down as 400 with the word DEGRADED.
_DOWN = ("degraded function", "overloaded", "server_error", "internalservererror")
RUN_AGAIN = "What had arrived is kept; run the cell again."
OTHER_SERVER = "`-e NAME` or KIMI_BASE_URL choose another."
WRONG_ADDRESS = "Does the address end where the server's API begins (often {})?"
TOO_MUCH = {
    "max_body_bytes": "a body that is too long",
    "max_line_bytes": "a line that is too long",
    "max_turn_bytes": "more text than a turn may hold",
}
Models = Callable[[], Sequence[str]]


@dataclass(frozen=True)
class ErrorMapper:
    """Turns the failures of one endpoint into our errors, with its key and ``others`` masked."""

    endpoint: Endpoint
    base_url: str
    key: Key | None
    wire: Wire
    model: str = ""
    others: Sequence[Key] = ()
    ended: str = ""  # the day since which the model is known to be no longer served there

    def from_exception(  # noqa: PLR0911 - a table
        self, error: Exception, *, started: bool = False, models: Models | None = None
    ) -> EndpointError:
        """Map what the transport or the decoding raised.

        ``started`` is True where some of an answer had arrived. ``models`` asks the server for its
        models, where one of them may be meant.
        """
        import httpx2

        if isinstance(error, EndpointError):
            return error
        if isinstance(error, Refused):
            said = self.wire.read_error(_json_or_text(error.body, error.headers))
            return self._from_server(error.status, said, error.headers, models=models)
        if isinstance(error, Redirected | BadProxy | TooMuch):
            return self._given_up(error, started=started)
        words = self._clean(str(error)) or type(error).__name__
        again = RUN_AGAIN if started else f"Run the cell again. {OTHER_SERVER}"
        if isinstance(error, httpx2.LocalProtocolError | httpx2.UnsupportedProtocol):
            return self.unsendable(words, f"Check the address, {self.base_url}, and the key.")
        if isinstance(error, httpx2.ConnectTimeout | httpx2.ConnectError | httpx2.ProxyError):
            return self.unreached(words)
        if isinstance(error, httpx2.TransportError | OSError):
            return ConnectionFailed(f"The connection to {self.base_url} broke: {words}\n{again}")
        return BadStream(f"{self._name} gave an answer that cannot be read: {words}\n{again}")

    def from_chunk(self, chunk: Mapping[str, Any], *, started: bool) -> EndpointError:
        """Map an error that a server reports in its stream."""
        return self._from_server(None, self.wire.read_error(chunk), {}, started=started)

    def from_event(self, data: bytes, *, started: bool) -> EndpointError:
        """Map an event of the stream that is an error by its name, whatever its form."""
        said = self.wire.read_error(_json_or_text(data))
        return self._from_server(None, said, {}, started=started)

    def unsendable(self, words: str, advice: str) -> errors.BadRequest:
        """Report a request that never left."""
        return errors.BadRequest(f"The request cannot be sent: {words}\n{advice}")

    def unreached(self, words: str) -> ConnectionFailed:
        """Report that nobody answered at the address; ``words`` say why."""
        if untrusted := "CERTIFICATE" in words:
            advice = "Its certificate is not trusted; SSL_CERT_FILE names your own authority's."
        elif "SSL" in words:
            advice = f"Does the server speak https at this port, or plain http? {OTHER_SERVER}"
        elif proxy := proxy_for(self.base_url):
            advice = f"{proxy} puts a proxy in between: is it right? NO_PROXY names exceptions."
        else:
            advice = (
                f"Is the server running, and the address right? {OTHER_SERVER} "
                "`%config KimiMagics.connect_timeout` sets the seconds to wait."
            )
        error = ConnectionFailed(f"{self.base_url} could not be reached: {words}\n{advice}")
        error.retriable = not untrusted
        return error

    def _from_server(
        self,
        status: int | None,
        said: ServerError,
        headers: Mapping[str, str],
        *,
        started: bool = False,
        models: Models | None = None,
    ) -> EndpointError:
        words = self._clean(said.words)
        kind, advice = self._judge(status or said.code, f"{said.type} {words}".lower(), models)
        ids = map(headers.get, ("msh-request-id", "x-request-id", "request-id"))
        request_id = next(filter(None, ids), None)
        wait = retry_after(headers)
        if kind is errors.RateLimited and wait and 1 <= wait < LONGEST_WAIT:
            advice = f"Too many requests: the server asks to wait {wait:,.0f} s."
        if started and kind is ServerFailed:
            kind = BadStream
        did = f"answered {status}" if status else "broke off"
        return kind(
            f"{self._name} {did}: {words or 'no words'}\n{RUN_AGAIN if started else advice}",
            status=status,
            retry_after=wait,
            request_id=request_id and self._clean(request_id),
        )

    def silent(self, seconds: float, *, started: bool) -> errors.TimedOut:
        """Report a server that has sent nothing of its answer for that long."""
        happened = "stopped in the middle of its answer" if started else "sent no first token"
        setting = "stall_timeout" if started else "first_token_timeout"
        so_far = "What had arrived is kept. " if started else ""
        return errors.TimedOut(
            f"{self._name} {happened}: {seconds:.0f} s without data.\n"
            f"{so_far}Run the cell again, or raise `%config KimiMagics.{setting}`."
        )

    def broke_off(self) -> ConnectionFailed:
        """Report a stream that ended before the answer began."""
        return ConnectionFailed(
            f"{self._name} ended its answer before it began.\nRun the cell again."
        )

    def queued(self) -> BadStream:
        """Report a 202 that does not say how to get at the answer."""
        return BadStream(
            f"{self._name} queued the request (202) and did not say where its answer will be.\n"
            "Run the cell again later."
        )

    def unreadable(self, data: bytes, *, started: bool = False) -> BadStream:
        """Report a body that is neither a stream of chunks nor a completion."""
        text = self._clean(self.wire.read_error(data[:MAX_READ]).words) or "an empty body"
        advice = RUN_AGAIN if started else self._wrong_address
        return BadStream(f"{self._name} sent no chat completion but: {text}\n{advice}")

    @property
    def _name(self) -> str:
        name = self.endpoint.name
        return name if name in self.base_url else f"{name} ({self.base_url})"

    @property
    def _wrong_address(self) -> str:
        return WRONG_ADDRESS.format("/anthropic" if self.endpoint.wire == "messages" else "/v1")

    def _judge(  # noqa: PLR0911 - a table
        self, status: int | None, text: str, models: Models | None
    ) -> tuple[type[EndpointError], str]:
        if status == 402 or any(mark in text for mark in _QUOTA):
            advice = "The account's quota is used up: see the provider's billing page."
            return errors.QuotaExhausted, advice
        if any(mark in text for mark in _CONTEXT):
            advice = "Too long for the model: `%kimi reset` starts the chat anew."
            return errors.ContextTooLong, advice
        if status in (401, 403):
            return errors.KeyRefused, self._key_advice(status)
        if status in (404, 405, 410) or (status == 400 and any(mark in text for mark in _NO_MODEL)):
            asked = models if status != 405 else None
            return errors.NotFound, self._model_advice(asked, gone=status == 410)
        if status == 429 or "rate_limit" in text:
            return errors.RateLimited, "Too many requests: wait a little, then run the cell again."
        if (status or 0) >= 500 or any(mark in text for mark in _DOWN):
            return ServerFailed, "The server failed, not the request: run the cell again later."
        if "content_filter" in text:
            advice = "The provider's content filter refused it: rephrase the prompt."
            return errors.ContentFiltered, advice
        if status is None:
            return BadStream, "Run the cell again."
        if status in (408, 409):
            return ServerFailed, "Run the cell again."
        advice = "Change what the server names; the same request will be refused again."
        return errors.BadRequest, advice

    def _model_advice(self, models: Models | None, *, gone: bool) -> str:
        """Name the models that there are, the nearest to the one asked for first.

        A model that is ``gone`` (410, as NVIDIA answers) may be listed all the same.
        """
        if not self.model:
            return self._wrong_address
        known: Sequence[str] = ()
        if models:
            with suppress(Exception):  # only the hint is lost
                known = models()
        if gone and (self.model in known or not known):
            since = f" since {self.ended}" if self.ended else ""
            still = ", although it is still listed" if known else ""
            return (
                f"{self.model!r} is no longer served there{since}{still}. `-m NAME` chooses "
                "another model, `%kimi models` lists all."
            )
        if not known:
            asked_for = f"The model asked for was {self.model!r}, `-m NAME` chooses."
            return f"{asked_for} {self._wrong_address}"
        if self.model in known:
            return (
                f"It lists {self.model!r}, but did not answer for it: the account may lack a "
                "right. `%kimi models` lists all, `-m NAME` chooses another."
            )
        near = get_close_matches(self.model, known, MAX_NAMED, cutoff=0.0)
        more = f" and {len(known) - len(near)} more" if len(known) > len(near) else ""
        names = ", ".join(self._clean(name[:100]) for name in near)
        ended = f" (ended {self.ended})" if self.ended else ""
        return (
            f"It has no model {self.model!r}{ended}, but {names}{more}. "
            "`-m NAME` chooses, `%kimi models` lists all."
        )

    def _given_up(self, error: Redirected | BadProxy | TooMuch, *, started: bool) -> EndpointError:
        """Report what we would not do, or not take."""
        if isinstance(error, BadProxy):
            advice = "HTTP_PROXY, HTTPS_PROXY and ALL_PROXY name one, NO_PROXY names exceptions."
            return self.unsendable(str(error), advice)
        if isinstance(error, TooMuch):
            kept = "What had arrived is kept; " if started else ""
            return BadStream(
                f"{self._name} sent {TOO_MUCH[error.setting]} and was stopped.\n"
                f"{kept}`%config KimiMagics.{error.setting}` sets the limit, in bytes."
            )
        if error.target:
            said = (
                f"{self._name} redirects to {self._clean(error.target[:200])}: nothing was sent "
                "there. If you trust it, give its own address: `-e URL` or KIMI_BASE_URL."
            )
        else:
            status = error.status or "3xx"
            said = (
                f"{self._name} answered {status}, a redirect {error.reason}: it was not "
                f"followed.\n{self._wrong_address}"
            )
        failed = ConnectionFailed(said, status=error.status)
        failed.retriable = False
        return failed

    def _key_advice(self, status: int | None) -> str:
        """Say where the key came from, and what to do: 403 is for one that lacks a right."""
        name, docs = self.endpoint.key_env, self.endpoint.docs
        if self.key and self.key.name.isidentifier():  # KIMI_API_KEY may stand in for it
            name = self.key.name
        if self.key and name:
            other = "choose another model with `-m NAME`, or " * (status == 403)
            made = f" (made at {docs})" * bool(docs)
            do = f"{other}set {name} to another key{made}, in the environment or with"
            return (
                f"The key came from {self.key.source}.\n{do[0].upper()}{do[1:]} "
                f"`keyring set {KEYRING_SERVICE} {name}`, and run the cell again."
            )
        if self.key:
            return f"The key came from {self.key.source}. Run the cell again. {OTHER_SERVER}"
        if name:
            return f"No key was sent. Set {name} to a key, and run the cell again."
        return (
            "No key was sent. Set KIMI_API_KEY beside KIMI_BASE_URL, or name the variable that "
            f"holds one: kimi.add_endpoint(name={self.endpoint.name!r:.60}, base_url=…, "
            "key_env='MY_KEY')."
        )

    def _clean(self, text: str) -> str:
        """One line of bearable length, with no key, no account, nothing that a terminal obeys."""
        keys = [*self.others, self.key] if self.key else self.others
        text = mask_accounts(Redactor(keys).text(" ".join(text[:MAX_READ].split())))
        text = text if len(text) <= MAX_WORDS else text[: MAX_WORDS - 1] + "…"
        return replace_unprintable(text)


def proxy_for(url: str) -> str | None:
    """Return the variable that names the proxy on the way to an address, if there is one."""
    proxies = getproxies()
    if is_this_machine(url) or proxy_bypass(host_of(url)):
        return None
    schemes = (url.partition(":")[0], "all")
    named = [f"{scheme.upper()}_PROXY" for scheme in schemes if scheme in proxies]
    return named[0] if named else None


def _json_or_text(body: bytes, headers: Mapping[str, str] | None = None) -> object:
    text = body.decode("utf-8", "replace").strip()
    with suppress(ValueError, RecursionError):
        return json.loads(text)
    is_page = "html" in (headers or {}).get("content-type", "").lower()
    return text_of_html(text[:MAX_READ]) if is_page else text


def retry_after(headers: Mapping[str, Any]) -> float | None:
    """Return the seconds to wait that the server asks for, in any of the header's forms."""
    value = headers.get("retry-after", "")
    with suppress(ValueError):
        if (milliseconds := float(headers.get("retry-after-ms", ""))) > 0:
            return milliseconds / 1000
    with suppress(ValueError):
        return max(0.0, float(value))
    with suppress(ValueError, OverflowError):  # a year or an offset of twenty digits
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    return None
