"""Views of a turn: live in a notebook, a frozen record, a terminal, plain text.

Each draws the same model, the ``Timeline`` that a turn's events fold into.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from kimi_magic.config import VIEWS
from kimi_magic.core import frontend
from kimi_magic.core.events import Envelope, Sink
from kimi_magic.core.turn_record import TurnRecord

__all__ = [
    "Answer",
    "AsksPerson",
    "Mask",
    "Portable",
    "Throttle",
    "Unseen",
    "View",
    "ViewOptions",
    "open_view",
    "suitable_kind",
]

# Past about 25 messages a second front ends lose some (the PUB socket's high-water mark).
PER_SECOND = 20
Format = Literal["markdown", "text", "json", "code"]
Portable = Callable[[TurnRecord], dict[str, Any]]
"""Makes the form of a turn in which a notebook carries it; whoever knows the keys makes it."""
Mask = Callable[[dict[str, Any]], dict[str, Any]]
Answer = Literal["once", "chat", "no"] | dict[str, Any]
"""A person's answer to a tool call: ``chat`` allows the tool's later calls in the chat as well, a
dict is a yes with other arguments."""


class View(Sink, Protocol):
    """A sink that shows its turn; ``close`` leaves the output as it will stay."""


@runtime_checkable
class AsksPerson(Protocol):
    """A view with buttons."""

    def ask_person(
        self,
        arguments: dict[str, Any],
        problem: Callable[[dict[str, Any]], str],
        *,
        defaults: Mapping[str, str],
        lasting: str,
        about: Mapping[str, Any],
    ) -> Answer | None:
        """Ask if the announced tool call may be made; None if nothing can be clicked.

        The person may change the arguments: ``problem`` says what is wrong with them then, or "".
        ``defaults`` are the texts of those that apply, ``lasting`` is the label of the answer
        ``chat``. ``about`` is what else the form shows, by `approval_form.about_call`.
        """


@dataclass(frozen=True, slots=True)
class ViewOptions:
    """Choices of the reader."""

    # Text stays as it came, json is shown as data, code without fences as Python.
    format: Format = "markdown"
    hide_reasoning: bool = False
    usage: bool = False  # token counts below the answer
    keep_reasoning: bool = False  # unfolded when it has ended
    max_chars: int = 200_000  # of the turn in a notebook
    portable: Portable | None = None  # puts the turn itself beside its record; None: it stays out
    mask: Mask = dict  # takes keys out of the facts beside the record
    times: bool = False  # the metadata tell what differs from run to run: seconds, cached tokens


class Throttle:
    """Limits how often a growing output is refreshed; the first refresh is due at once."""

    __slots__ = ("_clock", "_gap", "_next")

    def __init__(
        self, per_second: float = PER_SECOND, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._gap = 1 / per_second
        self._next = float("-inf")

    @property
    def ready(self) -> bool:
        return self._clock() >= self._next

    def due(self) -> bool:
        """Return True if it is time to refresh, and start the next interval."""
        if not self.ready:
            return False
        self._next = self._clock() + self._gap
        return True


class Unseen:
    """View of a turn that is not shown."""

    def handle(self, envelope: Envelope) -> None: ...
    def tick(self) -> None: ...
    def close(self) -> None: ...


def open_view(kind: str, options: ViewOptions | None = None) -> View:
    """Open a view of the next turn; ``auto`` chooses by what the front end can do."""
    if kind not in VIEWS:
        raise ValueError(f"view must be one of {', '.join(VIEWS)}; got {kind!r}")
    options = options or ViewOptions()
    shell = frontend.running_shell()
    if kind == "auto":
        kind = suitable_kind(shell)
    if kind == "terminal":
        from kimi_magic.display.terminal import TerminalView

        return TerminalView(options)
    if kind == "plain":
        from kimi_magic.display.plain import PlainView

        return PlainView(options)
    # %%capture would show both the widget and the record that replaces it.
    if kind == "live" and frontend.has_kernel(shell) and not frontend.is_captured(shell):
        try:
            from kimi_magic.display.live.live_view import LiveView
        except ImportError:  # a trimmed installation without widgets
            pass
        else:
            return LiveView(options)
    from kimi_magic.display.record import RecordView

    return RecordView(options)


def suitable_kind(shell: Any) -> str:
    """Return the kind of view that fits what the front end can do."""
    if not frontend.has_kernel(shell):
        return "terminal" if sys.stdout is not None and sys.stdout.isatty() else "plain"
    if frontend.is_captured(shell) or not frontend.takes_questions():
        return "record"
    return "plain" if frontend.prints_only() else "live"
