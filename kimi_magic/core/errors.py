"""Exceptions that say what went wrong and what to do.

* KimiError
  x MagicError                a ``%kimi`` line or ``%%kimi`` cell that cannot be parsed
  x PromptError               an expression, variable or cell that cannot be in a prompt
  x ConfigError               an invalid setting, endpoint or model name
    + MissingKeyError         the endpoint wants a key and none was found
  x BudgetSpent               a request that would pass the setting ``budget``; it was not sent
  x SchemaMismatch            an answer that does not fit its schema (``structured``)
  x JournalError              the journal cannot be read or written (``journal_file``)
  x LocalEngineError          the embedded engine is missing or cannot run
  x TapeError                 a tape cannot be read or written, or does not hold a request
  x EndpointError             a request that failed
    + ConnectionFailed        the server was not reached, or the connection broke
    + TimedOut                the server was silent for too long
    + BadRequest              400, 413, 422 and other refusals of the request
      - ContextTooLong        more tokens than the model's context window
      - ContentFiltered       refused by the provider's content filter
    + KeyRefused              401, 403
    + NotFound                404: no such model or path
    + RateLimited             429, may succeed later
    + QuotaExhausted          429 or 402: retrying does not help
    + ServerFailed            5xx
    + BadStream               a response that is not a chat completion
* KeyboardInterrupt
  x TurnInterrupted           Kernel → Interrupt while a turn was running
    + TurnLost                the kernel ended while it ran: of a journal, never raised
  x ToolInterrupted           Kernel → Interrupt while a tool was running

Each is raised after what had arrived was shown and stored: ``error.reply`` is that partial turn.
All of them can be pickled and copied, attributes included.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kimi_magic.core.frontend import cell_number
from kimi_magic.core.text import clip, replace_unprintable

if TYPE_CHECKING:
    from collections.abc import Callable

    from kimi_magic.core.messages import Completion, ToolResult
    from kimi_magic.core.reply import Reply

__all__ = [
    "BadRequest",
    "BadStream",
    "BudgetSpent",
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
    "TapeError",
    "TimedOut",
    "ToolInterrupted",
    "TurnInterrupted",
    "TurnLost",
    "redact_errors",
    "redacted",
    "restore",
]

MAX_CHARS = 3000

_redact: Callable[[str], str] = str


def redact_errors(redact: Callable[[str], str]) -> None:
    """Pass the text of every error through this function: the session knows the keys."""
    global _redact  # noqa: PLW0603 - an error is printed wherever it is caught
    _redact = redact


def redacted(text: str) -> str:
    """Return a text without the keys that the session knows."""
    return _redact(text)


def restore(kind: type[BaseException], args: tuple[object, ...]) -> BaseException:
    """Make an exception without its ``__init__``, which may take anything."""
    error = kind.__new__(kind)
    error.args = args
    return error


class _Readable:
    """Text and pickling of our exceptions."""

    args: tuple[object, ...]
    told_in: int | None = None
    """Number of the cell in which the view of the turn has told of the error, to its last word."""

    def __str__(self) -> str:
        # It may quote a server, and front ends and terminals obey unprintable characters.
        return replace_unprintable(_redact(super().__str__()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __reduce__(self) -> tuple[object, ...]:
        # BaseException.__reduce__ calls the class with ``args``: that fails where ``__init__``
        # takes anything but the message.
        args = tuple(_redact(arg) if isinstance(arg, str) else arg for arg in self.args)
        return restore, (type(self), args), {k: v for k, v in vars(self).items() if k != "told_in"}

    def _render_traceback_(self) -> list[str]:
        """Return what IPython prints in place of a traceback."""
        if self.told_in is not None and self.told_in == cell_number():
            return [f"{type(self).__name__}: see above."]
        return [f"{type(self).__name__}: {clip(str(self), MAX_CHARS)}"]


class KimiError(_Readable, Exception):
    """Base of all errors of this package.

    Attributes
    ----------
    reply : Reply or None
        The partial turn, as far as it had come.
    """

    reply: Reply | None = None


class MagicError(KimiError):
    """A ``%kimi`` line or ``%%kimi`` cell that cannot be parsed."""


class PromptError(KimiError):
    """An expression, a variable or a cell that cannot be put into a prompt."""


class BudgetSpent(KimiError):
    """Raised in place of sending a request that would pass the setting ``budget``."""


class ConfigError(KimiError):
    """An invalid setting, endpoint or model name."""


class MissingKeyError(ConfigError):
    """The endpoint wants a key and none was found."""


class LocalEngineError(KimiError):
    """The embedded engine is missing or cannot run."""


class TapeError(KimiError):
    """A tape cannot be read or written, or does not hold what is asked."""


class EndpointError(KimiError):
    """A request that failed.

    Parameters
    ----------
    message : str
        One to four lines: what happened, why, what to do.
    status : int or None
        The HTTP status, where there was an answer.
    retry_after : float or None
        Seconds that the server asks to wait.
    request_id : str or None
        The server's id of the request.

    Attributes
    ----------
    retriable : bool
        True if the same request may succeed when it is sent again.
    partial : Completion or None
        The part of the answer that had arrived.
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
    """The server was not reached, or the connection broke."""

    retriable = True


class TimedOut(EndpointError):
    """The server was silent for too long."""


class BadRequest(EndpointError):
    """The server refuses the request (400, 413, 422 …)."""


class ContextTooLong(BadRequest):
    """More tokens than the model's context window holds."""


class ContentFiltered(BadRequest):
    """Refused by the provider's content filter."""


class KeyRefused(EndpointError):
    """The key is unknown or lacks a right (401, 403)."""


class NotFound(EndpointError):
    """No such model or path (404), or one that is gone for good (410)."""


class RateLimited(EndpointError):
    """Too many requests (429)."""

    retriable = True


class QuotaExhausted(EndpointError):
    """The account has no quota left; retrying does not help."""


class ServerFailed(EndpointError):
    """The server's own failure (5xx, overloaded, degraded)."""

    retriable = True


class BadStream(EndpointError):
    """The response is not a chat completion, or it broke off with an error."""


class TurnInterrupted(_Readable, KeyboardInterrupt):
    """Kernel → Interrupt while a turn was running.

    Attributes
    ----------
    reply : Reply or None
        The partial turn; it is in ``kimi.last`` and in the chat as well.
    """

    reply: Reply | None = None


class TurnLost(TurnInterrupted):
    """The kernel ended while a turn was running: the error of a reply out of a journal."""


class ToolInterrupted(_Readable, KeyboardInterrupt):
    """Kernel → Interrupt while a tool was running.

    Parameters
    ----------
    result : ToolResult
        What the tool had printed and displayed.
    """

    def __init__(self, result: ToolResult) -> None:
        super().__init__(f"Stopped while {result.name} was running.")
        self.result = result
