"""The sinks of a turn: everyone who hears its events."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from kimi_magic.chats.chat import Chat, ChatTurn, Place
from kimi_magic.core.events import (
    ContentDelta,
    Envelope,
    Event,
    Notice,
    ReasoningDelta,
    RequestStarted,
    Sink,
    StepFinished,
    ToolCallDelta,
    ToolCallStarted,
    ToolFinished,
    ToolStarted,
    TrajectoryEnded,
    TurnFinished,
    TurnPrepared,
)
from kimi_magic.core.messages import ToolResult
from kimi_magic.core.reply import Reply
from kimi_magic.core.turn_record import TurnRecord
from kimi_magic.turn.request import TurnRequest, again

if TYPE_CHECKING:
    from kimi_magic.chats.journal_schema import State
    from kimi_magic.chats.journal_writer import JournalWriter, TurnInJournal

__all__ = ["ChatSink", "GuardedSinks", "JournalSink", "KeptReply", "set_aside"]

logger = logging.getLogger("kimi_magic")
LONGEST_OPENING = 0.5  # seconds that the first turn of a kernel waits for the journal at its end


class KeptReply:
    """Keeps the reply of a turn.

    Attributes
    ----------
    reply : Reply or None
        None until the turn has finished.
    """

    reply: Reply | None = None

    def handle(self, envelope: Envelope) -> None:
        if isinstance(envelope.event, TurnFinished) and not envelope.lane:
            self.reply = envelope.event.reply

    def tick(self) -> None:
        """Do nothing: only the finished turn counts."""

    def close(self) -> None:
        """Do nothing: only the finished turn counts."""


class GuardedSinks:
    """Hands events on to sinks; one that fails is reported once, redacted, and dropped."""

    def __init__(self, sinks: Sequence[Sink], redact: Callable[[str], str]) -> None:
        self._sinks = list(sinks)
        self._redact = redact

    def handle(self, envelope: Envelope) -> None:
        self._each(lambda sink: sink.handle(envelope))

    def tick(self) -> None:
        self._each(lambda sink: sink.tick())

    def close(self) -> None:
        self._each(lambda sink: sink.close())
        self._sinks.clear()

    def _each(self, call: Callable[[Sink], None]) -> None:
        for sink in tuple(self._sinks):
            try:
                call(sink)
            except Exception as error:
                self._sinks.remove(sink)
                with suppress(Exception):
                    sink.close()
                report = f"{type(error).__name__}: {error}"
                # Without a handler, logging writes warnings to stderr: the cell shows them.
                logger.warning(
                    "%s failed and is switched off for this turn, which goes on (%s). "
                    "The reply is in kimi.last.",
                    type(sink).__name__,
                    self._redact(report),
                    exc_info=error if logger.isEnabledFor(logging.DEBUG) else None,
                )


class ChatSink:
    """Keeps the turn in its chat when it has finished."""

    def __init__(self, chat: Chat, place: Place, request: TurnRequest) -> None:
        self._chat = chat
        self._place = place
        self._request = request

    def handle(self, envelope: Envelope) -> None:
        if not isinstance(envelope.event, TurnFinished) or envelope.lane:
            return
        reply = envelope.event.reply
        if reply.record.exchange:
            turn = ChatTurn(reply.record.prompt, reply, self._place, self._request)
            self._chat.append(turn, fresh=self._request.fresh)
        else:
            self._chat.unanswered = again(self._request, reply.trajectories)

    def tick(self) -> None:
        """Do nothing: a chat keeps whole turns."""

    def close(self) -> None:
        """Do nothing: the turn was kept when it finished."""


def set_aside(chat: Chat | None, place: Place, record: TurnRecord) -> str:
    """Return the notice of the turns that give way to one that ends; "" for none."""
    others = chat.displaced_by(place, fresh=record.fresh) if chat and record.exchange else 0
    if chat is None or not others:
        return ""
    when = "earlier" if record.fresh else "later"
    turns = f"1 {when} turn was" if others == 1 else f"{others} {when} turns were"
    return f"{turns} set aside: `%kimi chat {chat.name} --all` shows all."


class JournalSink:
    """Hands the turn to the journal's writer as it grows.

    Parameters
    ----------
    notebook : str
        The path of the notebook.
    view : Sink or None
        Shows a line about the journal where it cannot be written; None logs it.
    """

    def __init__(self, writer: JournalWriter, notebook: str, view: Sink | None) -> None:
        self._writer = writer
        self._notebook = notebook
        self._view = view
        self._turn: TurnInJournal | None = None

    def handle(self, envelope: Envelope) -> None:
        if envelope.lane:
            self._note_trajectory(envelope.event)
        else:
            self._note(envelope.event)
        if self._writer.notices:
            self._tell(envelope)

    def tick(self) -> None:
        """Do nothing: the writer has a clock of its own."""

    def close(self) -> None:
        if self._turn is not None:
            self._turn.close()

    def _note(self, event: Event) -> None:
        turn = self._turn
        if turn is not None and type(event) in _AS_THEY_ARE:  # thousands of them a turn
            turn.put(event)
        elif isinstance(event, TurnPrepared):
            self._turn = turn = turn or self._writer.begin(self._notebook)
            if turn is not None:
                turn.put(event)
        elif isinstance(event, TurnFinished):
            self._turn = turn = turn or self._writer.begin(self._notebook)
            if turn is not None:
                turn.finish(event.reply.record, _state(event.reply.error))
                # Once, so that a line about the file is in this cell and not in a later one.
                self._writer.opened.wait(LONGEST_OPENING)
                self._writer.opened.set()
        elif turn is not None and isinstance(event, ToolFinished):
            turn.put(replace(event, result=_without_value(event.result)))
        elif turn is not None and isinstance(event, StepFinished):
            results = tuple(map(_without_value, event.step.tool_results))
            # After a step without calls the turn is about to end.
            step = replace(event.step, tool_results=results)
            turn.put(StepFinished(step), at_once=bool(results))

    def _note_trajectory(self, event: Event) -> None:
        """Note the end of a trajectory; of one that is under way nothing is kept."""
        if self._turn is not None and isinstance(event, TurnFinished):
            self._turn.put(TrajectoryEnded(event.reply.record.alone()), at_once=True)

    def _tell(self, envelope: Envelope) -> None:
        with suppress(IndexError):  # another turn was faster
            text = self._writer.notices.popleft()
            if self._view is None:
                logger.warning("%s", text)
            else:
                self._view.handle(replace(envelope, event=Notice(text)))


_AS_THEY_ARE = frozenset(
    (ContentDelta, ReasoningDelta, RequestStarted, ToolCallDelta, ToolCallStarted, ToolStarted)
)


def _state(error: BaseException | None) -> State:
    if isinstance(error, KeyboardInterrupt):
        return "stopped"
    return "failed" if error else "done"


def _without_value(result: ToolResult) -> ToolResult:
    return replace(result, value=None)
