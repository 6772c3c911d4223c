"""The live view: one widget per turn that receives deltas, and at the end gives way to the record.

Nothing is sent twice to a page that was heard. Operations go out as custom messages, at once at
first, then gathered; their numbers let the page notice a gap and ask for the whole.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import anywidget

from kimi_magic.core.events import ApprovalAsked, Event, Notice, ToolStarted, TurnFinished
from kimi_magic.core.frontend import request
from kimi_magic.display.live import detached
from kimi_magic.display.live.approval_form import as_fields, read_answer
from kimi_magic.display.live.clicks import Clicks
from kimi_magic.display.live.page import Page
from kimi_magic.display.record import Bundle, make_record, publish
from kimi_magic.display.throttle import Throttle
from kimi_magic.display.timeline import Op
from kimi_magic.display.view import Answer, ViewOptions

__all__ = ["LiveView", "Outbox", "TurnWidget"]

_HERE = Path(__file__).parent
TICK = 0.05
READY_WITHIN = 2.0
"""Seconds from its opening in which a page is heard, if it is ever heard while the cell runs."""
HERE_WITHIN = 0.5
GONE_AFTER = 3.0
# Seconds after which a page that cannot ask for it is sent the whole: it may have come late.
RESENT = (0.5, 2.0, 8.0)
WITHOUT_WIDGETS = (
    "A turn is running; what it brings will stand here when it ends. This front end shows no "
    'widgets: %config KimiMagics.view = "plain" shows text as it comes.'
)
NOBODY = "The page was closed before the call was approved: it was not made."


class TurnWidget(anywidget.AnyWidget):
    """The browser's side: draws operations, owns no text of the kernel's."""

    # As text: anywidget watches a path for changes, and thereby keeps each widget for ever.
    _esm = (_HERE / "live.js").read_text("utf-8")
    _css = (_HERE / "live.css").read_text("utf-8")


class Outbox:
    """Operations that wait to be sent; text for the same part is gathered, of counts the last one
    is kept."""

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
        if op["op"] == "cut":
            self._ops = [
                o for o in self._ops if o["op"] != "cut" or o.get("part") != op.get("part")
            ]
        self._ops.append(op)
        if op["op"] == "append":
            self._texts = [op["text"]]

    def take(self, drawn: Sequence[Op] = (), *, draws: bool = False) -> list[Op]:
        """Everything that waits, then what was drawn.

        Text that was drawn as a block is left out where the front end is known to draw: who reads
        the text alone, as ``kimi-magic demo`` does, would miss it.
        """
        self._join()
        ops, self._ops = self._ops, []
        if not draws:
            return [*ops, *drawn]
        blocks = {op["part"]: op for op in drawn if op["op"] == "block"}
        rest = []
        for op in [op for op in ops if op["op"] == "append" and op["part"] in blocks]:
            ops.remove(op)
            known = max(blocks[op["part"]]["to"] - op["at"], 0)
            if known < len(op["text"]):
                rest.append(op | {"at": op["at"] + known, "text": op["text"][known:]})
        opened = [op for op in drawn if op["op"] != "block"]
        return [*ops, *blocks.values(), *rest, *opened]

    def _join(self) -> None:
        if self._texts:
            self._ops[-1] = self._ops[-1] | {"text": "".join(self._texts)}
            self._texts = []


class LiveView:
    """Shows a turn while it happens, and freezes it."""

    def __init__(self, options: ViewOptions, clock: Callable[[], float] = time.monotonic) -> None:
        self._options = options
        self._page = Page(options, clock)
        self._pace = Throttle(clock=clock)
        self._clock = clock
        self._opened = clock()
        self._resent = list(RESENT)
        self._outbox = Outbox()
        self._number = 0
        self._asked = 0
        self._form: Op | None = None
        self._record: dict[str, Any] | None = None
        self._orphaned = False
        self._stoppable = threading.current_thread() is threading.main_thread()
        self._request = request()
        self._display_id = uuid4().hex
        self._clicks = Clicks(on_ready=self._greet, on_open=self._fold)
        self._widget = TurnWidget()
        self._widget.on_msg(self._hear)
        _listen_at_once(self._widget.comm)
        publish(_mount(self._widget), self._display_id)

    def handle(self, event: Event) -> None:
        if isinstance(event, TurnFinished):
            self._clicks.end()
        for op in self._page.apply(event):
            self._outbox.add(op)
        if isinstance(event, ToolStarted | ApprovalAsked):
            self._send()  # no tick comes before the tool has ended, or the person has answered
        self.tick()

    def tick(self) -> None:
        age = self._clock() - self._opened
        if self._resent and age > self._resent[0] and not self._clicks.ready.is_set():
            del self._resent[0]
            self._clicks.resync = True
        wanted = self._clicks.resync or self._outbox or self._page.wants_drawing
        if wanted and self._pace.due():
            self._send()

    def ask_person(
        self, arguments: dict[str, Any], problem: Callable[[dict[str, Any]], str]
    ) -> Answer | None:
        """Ask in the page, where it can be heard."""
        while not self._clicks.ready.wait(TICK):
            if self._clock() - self._opened > READY_WITHIN:
                return None
            self.tick()
        self._asked += 1
        form = {"op": "form", "part": self._page.timeline.running, "number": self._asked}
        self._form = form | {"fields": as_fields(arguments)}
        try:
            return self._await_answer(arguments, problem)
        finally:
            self._form = None

    def _await_answer(
        self, arguments: dict[str, Any], problem: Callable[[dict[str, Any]], str]
    ) -> Answer:
        assert self._form is not None, "it is being asked"
        self._outbox.add(self._form)
        while True:
            self.tick()
            said = self._clicks.answer(TICK)
            if said is not None and said.get("number") == self._asked:
                answer, wrong = read_answer(said, arguments, problem)
                if not wrong:
                    return answer
                self._form = self._form | {"wrong": wrong}
                self._outbox.add(self._form)
            elif self._clicks.nobody_for(GONE_AFTER):
                self.handle(Notice(NOBODY))
                return "no"

    def close(self) -> None:
        self._clicks.end()
        for op in self._page.end():
            self._outbox.add(op)
        taken = True
        try:
            self._clicks.here.clear()
            self._send(here=True)  # the last words: a front end that goes its own way needs them
            self._freeze()
            taken = self._is_taken()
        except KeyboardInterrupt:  # a second interrupt must not leave a dead widget behind
            self._freeze()
            raise
        finally:
            self._orphaned = not taken
            if taken:
                detached.forget(self._widget)
            else:
                detached.keep(self._widget)

    def _send(self, **more: Any) -> None:
        ops = self._outbox.take(self._page.draw(), draws=self._clicks.ready.is_set())
        if self._clicks.resync:
            self._clicks.resync = False
            ops.append(self._snapshot())  # a page that has missed nothing passes over it
        self._widget.send({"number": self._number, "ops": ops, **more})
        self._number += 1

    def _snapshot(self) -> Op:
        reset = self._page.snapshot()
        if self._form is not None:
            reset["parts"][self._form["part"]]["form"] = self._form
        return reset

    def _freeze(self) -> None:
        bundle = make_record(self._page.timeline, self._options)
        self._record = {"data": bundle.data, "metadata": bundle.metadata}
        publish(bundle, self._display_id, update=True)

    def _is_taken(self) -> bool:
        """Whether a page is there to take the record, as far as that can be known."""
        client = detached.client_of(self._request)
        if self._clicks.ready.is_set():
            detached.was_heard(client)
        return not detached.expects(client) or self._clicks.here.wait(HERE_WITHIN)

    def _hear(self, _widget: TurnWidget, content: object, _buffers: object) -> None:
        if isinstance(content, dict):
            self._clicks.hear(content)
            if "copy" in content:
                self._widget.send({"copied": self._page.timeline.answer()})
            if self._orphaned and ("placed" in content or "here" in content):
                detached.forget(self._widget)

    def _greet(self) -> None:
        """Answer a page that has come: its clicks are heard; or the turn is over."""
        if self._record is not None:
            cell = (self._request.get("metadata") or {}).get("cellId")
            age = self._clock() - self._opened
            where = {"cell": cell, "mount": self._widget.model_id, "age": age}
            self._widget.send({"ops": [self._snapshot()], "record": self._record | where})
        elif self._stoppable:
            self._widget.send({"ops": [{"op": "clicks"}]})

    def _fold(self, part: int, is_open: bool) -> None:  # noqa: FBT001 - the reader's choice
        if part < len(self._page.timeline.parts):
            self._page.timeline.parts[part].open = is_open


def _listen_at_once(comm: Any) -> None:
    """Let the browser's messages in while the cell runs.

    ipykernel 7.4 hands them to the shell that last sent on the comm, which the cell keeps busy;
    the subshell that the front end asks for is free.
    """
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = lambda _data, default: default  # noqa: SLF001 - no public way


def _mount(widget: TurnWidget) -> Bundle:
    data, metadata = widget._repr_mimebundle_() or ({}, {})
    return Bundle(data | {"text/plain": WITHOUT_WIDGETS}, metadata)
