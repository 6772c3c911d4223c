"""The live view: one widget per turn that receives deltas, and at the end gives way to the record.

Nothing is sent twice. Operations of the timeline go out as custom messages, at once at first, then
gathered; offsets let the browser notice a gap and ask for the whole. Its requests arrive in
another thread, where they set a flag that the next tick serves.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import anywidget

from kimi_magic.events import ApprovalAsked, Event, ToolStarted
from kimi_magic.view import ViewOptions
from kimi_magic.view.pace import Pace
from kimi_magic.view.record import Bundle, make_record, publish
from kimi_magic.view.results import result_html
from kimi_magic.view.timeline import Op, Timeline

__all__ = ["LiveView", "Outbox", "TurnWidget"]

_HERE = Path(__file__).parent


class TurnWidget(anywidget.AnyWidget):
    """The browser's side: draws operations, owns no text of the kernel's."""

    _esm = _HERE / "live.js"
    _css = _HERE / "live.css"


class Outbox:
    """Operations that wait to be sent; text for the same part is gathered."""

    def __init__(self) -> None:
        self._ops: list[Op] = []
        self._texts: list[str] = []

    def __bool__(self) -> bool:
        return bool(self._ops)

    def add(self, op: Op) -> None:
        if self._texts and op["op"] == "append" and op["part"] == self._ops[-1]["part"]:
            self._texts.append(op["text"])
            return
        self._join()
        self._ops.append(op)
        if op["op"] == "append":
            self._texts = [op["text"]]

    def take(self) -> list[Op]:
        """Everything that waits; the outbox is empty afterwards."""
        self._join()
        ops, self._ops = self._ops, []
        return ops

    def _join(self) -> None:
        if self._texts:
            self._ops[-1] = self._ops[-1] | {"text": "".join(self._texts)}
            self._texts = []


class LiveView:
    """Shows a turn while it happens, and freezes it."""

    def __init__(self, options: ViewOptions, pace: Pace | None = None) -> None:
        self._options = options
        self._timeline = Timeline(hide_reasoning=options.hide_reasoning)
        self._pace = pace or Pace()
        self._outbox = Outbox()
        self._resync = False
        self._display_id = uuid4().hex
        self._widget = TurnWidget()
        self._widget.on_msg(self._hear)
        _listen_at_once(self._widget.comm)
        publish(_mount(self._widget), self._display_id)

    def handle(self, event: Event) -> None:
        for op in self._timeline.apply(event):
            self._outbox.add(self._drawn(op))
        if isinstance(event, ToolStarted | ApprovalAsked):
            self._send()  # no tick comes before the tool has ended, or the person has answered
        self.tick()

    def tick(self) -> None:
        if (self._resync or self._outbox) and self._pace.due():
            self._send()

    def close(self) -> None:
        for op in self._timeline.end():
            self._outbox.add(op)
        try:
            if self._outbox:  # the last words: a front end that goes its own way needs them
                self._send()
            self._freeze()
        except KeyboardInterrupt:  # a second interrupt must not leave a dead widget behind
            self._freeze()
            raise
        finally:
            self._widget.layout.close()
            self._widget.close()

    def _send(self) -> None:
        ops = self._outbox.take()
        if self._resync:
            self._resync = False
            ops = [self._timeline.snapshot()]
        self._widget.send({"ops": ops})

    def _drawn(self, op: Op) -> Op:
        """A tool's result as the page shows it."""
        if op["op"] != "result":
            return op
        result = self._timeline.parts[op["part"]].result
        return op if result is None else op | {"html": result_html(result)}

    def _freeze(self) -> None:
        publish(make_record(self._timeline, self._options), self._display_id, update=True)

    def _hear(self, _widget: TurnWidget, content: object, _buffers: object) -> None:
        if isinstance(content, dict) and content.get("resync"):
            self._resync = True


def _listen_at_once(comm: Any) -> None:
    """Let the browser's messages in while the cell runs.

    ipykernel 7.4 hands them to the shell that last sent on the comm, which the cell keeps busy;
    the subshell that the front end asks for is free.
    """
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = lambda _data, default: default  # noqa: SLF001 - no public way


def _mount(widget: TurnWidget) -> Bundle:
    data, metadata = widget._repr_mimebundle_() or ({}, {})
    return Bundle(data | {"text/plain": "A turn is running."}, metadata)
