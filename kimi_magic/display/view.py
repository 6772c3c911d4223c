"""How a turn is shown: live in a notebook, as a frozen record, in a terminal, as plain text.

One fold (``timeline``) turns events into the model that every view draws.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from kimi_magic.config import VIEWS
from kimi_magic.core import frontend
from kimi_magic.core.events import Event

__all__ = [
    "Answer",
    "AsksPerson",
    "Unseen",
    "View",
    "ViewOptions",
    "open_view",
]

Format = Literal["markdown", "text", "json", "code"]
Answer = Literal["once", "chat", "no"] | dict[str, Any]
"""To a tool call: ``chat`` goes for the tool's later calls in this chat as well; a dict means yes,
with these arguments."""


class View(Protocol):
    """Watches one turn and shows it."""

    def handle(self, event: Event) -> None:
        """Take the turn's next event; the last one is ``TurnFinished``."""

    def tick(self) -> None:
        """Show what is held back; called every 50 ms or so while a stream is open."""

    def close(self) -> None:
        """Leave the output as it will stay; called once, whatever happened before."""


@runtime_checkable
class AsksPerson(Protocol):
    """A view with buttons."""

    def ask_person(
        self, arguments: dict[str, Any], problem: Callable[[dict[str, Any]], str]
    ) -> Answer | None:
        """Ask whether the call that was announced may be made; None where nothing can be clicked.

        Parameters
        ----------
        arguments : dict
            Of the call; the person may change them.
        problem : callable
            Says what is wrong with other arguments, "" for nothing.
        """


@dataclass(frozen=True, slots=True)
class ViewOptions:
    """What the reader wants to see.

    Attributes
    ----------
    format : str
        ``markdown`` renders the answer, ``text`` leaves it as it came, ``json`` shows data,
        ``code`` shows it as Python where it is not fenced.
    hide_reasoning : bool
        Leave the reasoning out.
    usage : bool
        Show the tokens below the answer.
    keep_reasoning : bool
        Leave the reasoning open when it has ended.
    max_chars : int
        How much of the turn a notebook keeps.
    """

    format: Format = "markdown"
    hide_reasoning: bool = False
    usage: bool = False
    keep_reasoning: bool = False
    max_chars: int = 200_000


class Unseen:
    """The view of a turn that is not shown."""

    def handle(self, event: Event) -> None:
        pass

    def tick(self) -> None:
        pass

    def close(self) -> None:
        pass


def open_view(kind: str, options: ViewOptions | None = None) -> View:
    """Open a view of the next turn.

    Parameters
    ----------
    kind : str
        One of ``config.VIEWS``; ``auto`` chooses by what the front end can do.
    options : ViewOptions, optional

    Raises
    ------
    ValueError
        There is no such view.
    """
    if kind not in VIEWS:
        raise ValueError(f"view is one of {', '.join(VIEWS)}; got {kind!r}")
    options = options or ViewOptions()
    shell = frontend.running_shell()
    if kind == "auto":
        kind = _fitting(shell)
    if kind == "terminal":
        from kimi_magic.display.terminal import TerminalView

        return TerminalView(options)
    if kind == "plain":
        from kimi_magic.display.plain import PlainView

        return PlainView(options)
    if kind == "live" and frontend.has_kernel(shell) and not frontend.is_captured(shell):
        try:
            from kimi_magic.display.live.live_view import LiveView
        except ImportError:  # a trimmed installation without widgets
            pass
        else:
            return LiveView(options)
    from kimi_magic.display.record import RecordView

    return RecordView(options)


def _fitting(shell: Any) -> str:
    if not frontend.has_kernel(shell):
        return "terminal" if sys.stdout is not None and sys.stdout.isatty() else "plain"
    return "record" if frontend.is_captured(shell) or not frontend.takes_questions() else "live"
