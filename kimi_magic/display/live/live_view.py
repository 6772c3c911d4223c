"""The live view: a widget for each turn receives operations, and gives way to the record.

Operations go out as custom messages, the first at once, then gathered. Messages are numbered, so
that a page notices a gap and asks for the whole. HTML is drawn once a page is known to listen, and
then goes in the place of its text; before that a message holds text alone, since a fast turn has
ended before anybody sees it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any
from uuid import uuid4

from kimi_magic.core.events import ApprovalAsked, Envelope, Notice, ToolStarted, TurnFinished
from kimi_magic.core.frontend import request
from kimi_magic.core.interrupts import waiting
from kimi_magic.core.text import reveal
from kimi_magic.display.live import detached
from kimi_magic.display.live.approval_form import ALWAYS, Problem, as_fields, read_answer
from kimi_magic.display.live.clicks import READY_WITHIN, Clicks
from kimi_magic.display.live.late_pages import LatePages
from kimi_magic.display.live.page import Page
from kimi_magic.display.live.widget import SCRIPT, TurnWidget, listen_at_once, mount
from kimi_magic.display.record import make_record, publish
from kimi_magic.display.timeline import Op
from kimi_magic.display.view import Answer, Throttle, ViewOptions

__all__ = ["READY_WITHIN", "LiveView", "Outbox"]

TICK = 0.05
HERE_WITHIN = 0.5
GONE_AFTER = 30.0  # a page that is reloaded comes back
# Ages of the view at which a page that is not heard gets the whole: it may have come late.
RESEND_AT = (0.5, 2.0, 8.0)
# No tick comes before the tool has ended, or the person has answered.
_URGENT = (ToolStarted, ApprovalAsked)
_numbers = count()  # turns of a cell keep their order
NOBODY = "The page was closed before the call was approved: it was not made."


class Outbox:
    """Operations that wait to be sent; appended text is joined, a count replaces earlier ones."""

    def __init__(self) -> None:
        self._ops: list[Op] = []
        self._texts: list[str] = []

    def __bool__(self) -> bool:
        return bool(self._ops)

    def add(self, op: Op) -> None:
        if self._texts and op["op"] == "append" and _place(op) == _place(self._ops[-1]):
            self._texts.append(op["text"])
            return
        self._join()
        if op["op"] == "cut":
            same = ("cut", *_place(op))
            self._ops = [o for o in self._ops if (o["op"], *_place(o)) != same]
        self._ops.append(op)
        if op["op"] == "append":
            self._texts = [op["text"]]

    def take(self, drawn: Sequence[Op] = (), *, draws: bool = False) -> list[Op]:
        """Return all that waits, then what was drawn.

        Text of a finished block is left out if the front end draws. A reader of the text alone,
        such as ``kimi-magic demo``, would miss it.
        """
        self._join()
        ops, self._ops = self._ops, []
        if not draws:
            return [*ops, *drawn]
        blocks = {_place(op): op for op in drawn if op["op"] == "block"}
        rest = []
        for op in [op for op in ops if op["op"] == "append" and _place(op) in blocks]:
            ops.remove(op)
            in_block = max(blocks[_place(op)]["to"] - op["at"], 0)
            if in_block < len(op["text"]):
                rest.append(op | {"at": op["at"] + in_block, "text": op["text"][in_block:]})
        opened = [op for op in drawn if op["op"] != "block"]
        return [*ops, *blocks.values(), *rest, *opened]

    def _join(self) -> None:
        if self._texts:
            self._ops[-1] = self._ops[-1] | {"text": "".join(self._texts)}
            self._texts = []


def _place(op: Op) -> tuple[int, Any]:
    """Return the lane and the segment of an operation."""
    return op.get("lane", 0), op.get("segment")


class LiveView:
    """Shows a turn while it happens, and freezes it at the end.

    The clock is for throttling and ages; durations come from the envelopes.
    """

    def __init__(self, options: ViewOptions, clock: Callable[[], float] = time.monotonic) -> None:
        self._options = options
        self._page = Page(options, clock)
        self._throttle = Throttle(clock=clock)
        self._clock = clock
        self._opened = clock()
        self._resend_at = list(RESEND_AT)
        self._outbox = Outbox()
        self._number = 0
        self._questions = 0
        self._asked_for = ""  # tool that a person is asked about
        self._asking = self._page  # where it was called
        self._asking_lane = 0
        self._form: Op | None = None
        self._record: dict[str, Any] | None = None
        self._nth = next(_numbers)
        self._orphaned = False
        self._stoppable = threading.current_thread() is threading.main_thread()
        self._request = request()
        self._display_id = uuid4().hex
        self._clicks = Clicks(
            on_ready=self._greet,
            on_open=self._fold,
            awaits_late=detached.has_late(self._request),
        )
        self._widget = TurnWidget(script=b"" if detached.was_heard(self._request) else SCRIPT)
        self._widget.on_msg(self._receive)
        listen_at_once(self._widget.comm)
        publish(mount(self._widget), self._display_id)
        self._lock = threading.RLock()  # the whole is sent by another thread while a call computes
        self._late_pages = LatePages(self._widget, self._request, self._clicks, self._resend)

    def handle(self, envelope: Envelope) -> None:
        with self._lock:
            self._handle(envelope)

    def _handle(self, envelope: Envelope) -> None:
        event = envelope.event
        if isinstance(event, TurnFinished) and not envelope.lane:
            self._clicks.end()
        elif isinstance(event, ApprovalAsked):
            self._asked_for = reveal(event.name)
        for op in self._page.apply(envelope):
            self._outbox.add(op)
        if isinstance(event, ApprovalAsked):
            self._asking_lane = envelope.lane
            self._asking = self._page.lanes[envelope.lane] if envelope.lane else self._page
        if isinstance(event, _URGENT):
            self._send()
        self._tick()

    def tick(self) -> None:
        with self._lock:
            self._tick()

    def _tick(self) -> None:
        if not self._throttle.ready:
            return
        if self._resend_at and self._age > self._resend_at[0] and not self._is_heard:
            del self._resend_at[0]
            self._clicks.resync = True
        drawable = self._draws and self._page.wants_drawing
        if self._clicks.resync or self._outbox or drawable:
            self._throttle.due()
            self._send()

    def ask_person(
        self,
        arguments: dict[str, Any],
        problem: Problem,
        *,
        defaults: Mapping[str, str] | None = None,
        lasting: str = ALWAYS,
        about: Mapping[str, Any] | None = None,
    ) -> Answer | None:
        """Ask in the page, if it is heard."""
        while not self._is_heard:
            if self._age > READY_WITHIN:
                return None
            self.tick()
            self._wait_for_answer()
        self._questions += 1
        form = {"op": "form", "segment": self._asking.timeline.running, "number": self._questions}
        form |= {"lane": self._asking_lane} if self._asking_lane else {}
        asked = {"name": self._asked_for, "fields": as_fields(arguments, defaults)}
        form |= asked | {"lasting": lasting} | dict(about or {})
        self._show(form)
        try:
            while True:
                self.tick()
                given = self._wait_for_answer()
                if given is not None and given.get("number") == self._questions:
                    answer, wrong = read_answer(given, arguments, problem)
                    if not wrong:
                        return answer
                    self._show(form | {"wrong": wrong})
                elif self._clicks.nobody_for(GONE_AFTER):
                    self.handle(Envelope(self._page.elapsed, Notice(NOBODY)))
                    return "no"
        finally:
            self._form = None

    def _show(self, form: Op) -> None:
        with self._lock:
            self._form = form
            self._outbox.add(form)

    def _wait_for_answer(self) -> dict[str, Any] | None:
        """Wait a tick: the one place in a view where an interrupt may land."""
        with waiting():
            return self._clicks.answer(TICK)

    def close(self) -> None:
        self._clicks.end()
        taken = True
        try:
            self._late_pages.end()
            for op in self._page.end():
                self._outbox.add(op)
            self._clicks.here.clear()
            # Although the record follows: what reads operations alone needs the last words.
            self._send(here=True)
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

    @property
    def _age(self) -> float:
        return self._clock() - self._opened

    @property
    def _is_heard(self) -> bool:
        return self._clicks.ready.is_set()

    @property
    def _draws(self) -> bool:
        """A page listens, or there is a kernel that will not tell."""
        return self._is_heard or self._age > READY_WITHIN

    def _resend(self) -> None:
        """Send the whole to a page that has asked for it, in another thread than the turn's."""
        with self._lock:
            if self._clicks.resync:
                self._send()

    def _send(self, **more: Any) -> None:
        drawn = self._page.draw() if self._draws else ()
        ops = self._outbox.take(drawn, draws=self._is_heard)
        if self._clicks.resync:
            self._clicks.resync = False
            ops.append(self._snapshot())  # a page that has missed nothing ignores it
        self._widget.send({"number": self._number, "ops": ops, **more})
        self._number += 1

    def _snapshot(self) -> Op:
        reset = self._page.snapshot()
        if self._form is not None:
            lane = str(self._asking_lane)
            asked = reset["lanes"][lane] if self._asking_lane else reset
            asked["segments"][self._form["segment"]]["form"] = self._form
        return reset

    def _freeze(self) -> None:
        bundle = make_record(self._page.timeline, self._options)
        self._record = {"data": bundle.data, "metadata": bundle.metadata, "times": bundle.times}
        detached.note_record(self._request, self._record | self._place)
        publish(bundle, self._display_id, update=True)
        if self._clicks.late:  # a page that came late has no output to update
            self._widget.send({"record": self._record | self._place, "late": True})

    def _is_taken(self) -> bool:
        """Return True if a page is there to take the record, as far as that can be known."""
        if self._is_heard:
            detached.note_heard(self._request)
        if self._clicks.late:
            detached.note_late(self._request)
        if not detached.was_heard(self._request):
            return True
        return self._clicks.here.wait(HERE_WITHIN) and self._clicks.awaited_for() is None

    def _receive(self, _widget: TurnWidget, content: object, _buffers: object) -> None:
        if isinstance(content, dict):
            self._clicks.hear(content)
            if "script" in content:
                self._widget.send_script()
            if "copy" in content:
                self._widget.send({"copied": self._page.timeline.answer()})
            if self._orphaned and ("placed" in content or "here" in content):
                detached.forget(self._widget)

    def _greet(self) -> None:
        """Answer a page that has come: it may show its buttons, or take the record."""
        if self._record is not None:
            self._page.draw()  # nothing else draws any more
            self._widget.send({"ops": [self._snapshot()], "record": self._record | self._place})
            return
        if self._clicks.late:  # the widgets of the cell's earlier turns may have been saved
            for earlier in detached.records_of(self._request):
                self._widget.send({"earlier": earlier})
        if self._stoppable:
            self._widget.send({"ops": [{"op": "clicks", "cell": self._place["cell"]}]})

    @property
    def _place(self) -> dict[str, Any]:
        """The place of the record in a notebook, and the age of those that were open before."""
        cell = (self._request.get("metadata") or {}).get("cellId")
        run = detached.run_of(self._request)
        place = {"cell": cell, "run": run, "nth": self._nth}
        return place | {"mount": self._widget.model_id, "age": self._age}

    def _fold(self, index: int, is_open: bool, lane: int) -> None:  # noqa: FBT001 - the reader's
        whole = self._page.timeline
        timeline = whole.lanes.get(lane) if lane else whole
        if timeline is not None and index < len(timeline.segments):
            timeline.segments[index].open = is_open
