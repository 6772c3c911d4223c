"""The sinks of a turn: everyone who hears its events."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from kimi_magic.chats.chat import Chat, ChatTurn, Place
from kimi_magic.core.events import Envelope, Sink, TurnFinished
from kimi_magic.turn.request import TurnRequest

__all__ = ["ChatSink", "GuardedSinks"]

logger = logging.getLogger("kimi_magic")


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
            attempts = tuple(each for each in reply.trajectories if each.error is None)
            self._chat.unanswered = replace(self._request, attempts=attempts)

    def tick(self) -> None:
        """Do nothing: a chat keeps whole turns."""

    def close(self) -> None:
        """Do nothing: the turn was kept when it finished."""
