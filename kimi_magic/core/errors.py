"""What can go wrong, as exceptions that say what to do.

* KimiError
  x MagicError                a line or cell that cannot be understood
  x PromptError               an expression, variable or cell that cannot be put into a prompt
  x ConfigError               a setting, endpoint or model name that does not fit
    + MissingKeyError         the endpoint wants a key and none was found
  x SchemaMismatch            an answer that does not fit its schema (``structured``)
  x LocalEngineError          the embedded engine cannot be had or cannot run
  x EndpointError             a request that failed
    + ConnectionFailed        the server was not reached, or the line broke
    + TimedOut                the server was silent for too long
    + BadRequest              400, 413, 422 and other refusals of what was sent
      - ContextTooLong        more tokens than the model's context window
      - ContentFiltered       refused by the provider's content filter
    + KeyRefused              401, 403
    + NotFound                404: no such model or path
    + RateLimited             429, worth another try later
    + QuotaExhausted          429 or 402: no try will help
    + ServerFailed            5xx
    + BadStream               an answer that is no chat completion
* KeyboardInterrupt
  x TurnInterrupted           Kernel → Interrupt while a turn was running
  x ToolInterrupted           Kernel → Interrupt while a tool was running

Each is raised after what had arrived was shown and kept: ``error.reply`` is that partial turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from kimi_magic.core.messages import Completion, ToolResult
    from kimi_magic.core.reply import Reply

__all__ = [
    "BadRequest",
    "BadStream",
    "ConfigError",
    "ConnectionFailed",
    "ContentFiltered",
    "ContextTooLong",
    "EndpointError",
    "KeyRefused",
    "KimiError",
    "LocalEngineError",
    "MagicError",
    "MissingKeyError",
    "NotFound",
    "PromptError",
    "QuotaExhausted",
    "RateLimited",
    "ServerFailed",
    "TimedOut",
    "ToolInterrupted",
    "TurnInterrupted",
    "mask_with",
]

MAX_CHARS = 3000


# Letters by their kind, blanks by their looks.
FILLERS = "\u115f\u1160\u2800\u3164\uffa0"


def _seen(char: str) -> str:
    plain = (char.isprintable() and char not in FILLERS) or char in "\n\t"
    return char if plain else "\ufffd"


_without_keys: Callable[[str], str] = str


def mask_with(without_keys: Callable[[str], str]) -> None:
    """Have this take the keys out of what every error says: the session knows them."""
    global _without_keys  # noqa: PLW0603 - an error is told wherever it is caught
    _without_keys = without_keys


class _OwnTraceback:
    """IPython prints what ``_render_traceback_`` returns in place of a traceback."""

    def __str__(self) -> str:
        # A server's words may be in it, and front ends and terminals obey what is not printable.
        return "".join(map(_seen, _without_keys(super().__str__())))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def _render_traceback_(self) -> list[str]:
        text = str(self)
        if len(text) > MAX_CHARS:
            text = text[: MAX_CHARS - 1] + "…"
        return [f"{type(self).__name__}: {text}"]


class KimiError(_OwnTraceback, Exception):
    """Base of all our errors.

    Attributes
    ----------
    reply : Reply or None
        What the turn had received when it failed.
    """

    reply: Reply | None = None


class MagicError(KimiError):
    """A ``%kimi`` line or ``%%kimi`` cell that cannot be understood."""


class PromptError(KimiError):
    """An expression, a variable or a cell that cannot be put into a prompt."""


class ConfigError(KimiError):
    """A setting, endpoint or model name that does not fit."""


class MissingKeyError(ConfigError):
    """The endpoint wants a key and none was found."""


class LocalEngineError(KimiError):
    """The embedded engine cannot be had or cannot run."""


class EndpointError(KimiError):
    """A request that failed.

    Parameters
    ----------
    message : str
        One to four lines: what happened, why, what to do.
    status : int or None
        The HTTP status, where there was an answer.
    retry_after : float or None
        Seconds the server asks to wait.
    request_id : str or None
        The server's name for the request.

    Attributes
    ----------
    retriable : bool
        Whether the same request may succeed when it is sent again.
    partial : Completion or None
        What had arrived when it failed.
    """

    retriable = False

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.request_id = request_id
        self.partial: Completion | None = None


class ConnectionFailed(EndpointError):
    """The server was not reached, or the line broke."""

    retriable = True


class TimedOut(EndpointError):
    """The server was silent for too long."""


class BadRequest(EndpointError):
    """The server refuses what was sent (400, 413, 422 …)."""


class ContextTooLong(BadRequest):
    """More tokens than the model's context window holds."""


class ContentFiltered(BadRequest):
    """Refused by the provider's content filter."""


class KeyRefused(EndpointError):
    """The key is unknown or lacks a right (401, 403)."""


class NotFound(EndpointError):
    """No such model or path (404)."""


class RateLimited(EndpointError):
    """Too many requests (429)."""

    retriable = True


class QuotaExhausted(EndpointError):
    """The account has nothing left; another try does not help."""


class ServerFailed(EndpointError):
    """The server's own failure (5xx, overloaded, degraded)."""

    retriable = True


class BadStream(EndpointError):
    """What came back is no chat completion, or it broke off with an error."""


class TurnInterrupted(_OwnTraceback, KeyboardInterrupt):
    """Kernel → Interrupt while a turn was running.

    Attributes
    ----------
    reply : Reply or None
        What had arrived until then; it is in ``kimi.last`` and in the chat as well.
    """

    reply: Reply | None = None


class ToolInterrupted(_OwnTraceback, KeyboardInterrupt):
    """Kernel → Interrupt while a tool was running.

    Parameters
    ----------
    result : ToolResult
        What it had printed and displayed until then.
    """

    def __init__(self, result: ToolResult) -> None:
        super().__init__(f"Stopped while {result.name} was running.")
        self.result = result
