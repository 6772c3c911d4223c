"""The operations that a page draws: the timeline's, with HTML and times.

Text is sent as it comes. Markdown follows as safe HTML, a block at a time, when the block is
finished; HTML takes the place of text that was not sent yet. The open block is redrawn now and
then while it is small::

    {"op": "segment", …, "keep": …, "plain": …}                it stays open when it ends;
                                                               the answer is not Markdown
    {"op": "block", "segment": i, "to": offset, "html": …}     the text up to there, finished
    {"op": "thought", "segment": i, "html": …}                  finished reasoning, for its text
    {"op": "open", "segment": i, "to": offset, "html": …}      the text up to there, unfinished
    {"op": "run", …, "call": …, "html": …}                     the call in a line, its arguments
    {"op": "result", …, "html": …, "seconds": …, "shows": …, "given": …}
    {"op": "done", …, "seconds": …}

An operation of a trajectory has its number besides: ``"lane": n``.

Times are seconds. An ``age`` is the time since something began, as the page's clock is another.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import ClassVar

from kimi_magic.core.events import Envelope
from kimi_magic.display.calls import arguments_html, call_line
from kimi_magic.display.html.markdown import Blocks, to_html
from kimi_magic.display.html.tool_results import has_image, result_html
from kimi_magic.display.segments import Segment
from kimi_magic.display.timeline import Op, Timeline
from kimi_magic.display.view import Throttle, ViewOptions

__all__ = ["Page"]

REDRAWS_PER_SECOND = 2.0
MAX_OPEN = 4000  # characters of an open block that is redrawn


@dataclass(slots=True)
class _Answer:
    """Markdown on its way to HTML."""

    blocks: Blocks = field(default_factory=Blocks)
    unread: list[str] = field(default_factory=list)  # splitting a batch is cheaper than its deltas
    ended: bool = False
    finished: list[str] = field(default_factory=list)  # blocks that were not drawn
    html: list[str] = field(default_factory=list)
    to: int = 0  # end of the text in html
    open_to: int = 0  # end of the text that the open block was drawn with
    open_html: str = ""

    def split(self) -> list[str]:
        """Split the text so far, and return the finished blocks that were not drawn."""
        if self.unread:
            self.finished += self.blocks.feed("".join(self.unread))
            self.unread.clear()
        if self.ended:
            self.finished += self.blocks.finish()
            self.ended = False
        return self.finished

    def draw(self) -> str:
        """Draw the finished blocks together: one parse costs less than one for each."""
        text = "".join(self.finished)
        self.finished.clear()
        self.to += len(text)
        self.html.append(to_html(text))
        return self.html[-1]


class Page:
    """Folds a turn's events into the operations that its page draws."""

    def __init__(
        self,
        options: ViewOptions,
        clock: Callable[[], float] = time.monotonic,
        timeline: Timeline | None = None,
    ) -> None:
        self.timeline = timeline or Timeline(
            hide_reasoning=options.hide_reasoning, max_chars=options.max_chars
        )
        self.lanes: dict[int, Page] = {}
        self._options = options
        self._clock = clock
        self._redraw = Throttle(REDRAWS_PER_SECOND, clock)
        self._answers: dict[int, _Answer] = {}
        self._undrawn: dict[int, _Answer] = {}
        self._thoughts: dict[int, str] = {}  # finished reasoning as HTML
        self._undrawn_thoughts: list[int] = []
        self._called: set[int] = set()
        self._state_began = 0.0
        self._seconds = 0.0
        self._received_at = clock()

    @property
    def elapsed(self) -> float:
        """Seconds since the turn began: the last event's, and the time since it came."""
        return self._seconds + self._clock() - self._received_at

    def apply(self, envelope: Envelope) -> list[Op]:
        if envelope.lane:
            ops = self.lanes[envelope.lane].apply(replace(envelope, lane=0))
            return _in_lane(envelope.lane, ops)
        self._seconds = envelope.seconds
        self._received_at = self._clock()
        ops = [self._complete(op) for op in self.timeline.apply(envelope.event, envelope.seconds)]
        for number, timeline in self.timeline.lanes.items():
            if number not in self.lanes:
                self.lanes[number] = Page(self._options, self._clock, timeline)
        return ops

    def end(self) -> list[Op]:
        return [self._complete(op) for op in self.timeline.end()]

    @property
    def wants_drawing(self) -> bool:
        """Return True if ``draw`` has something to return."""
        own = (
            bool(self._undrawn_thoughts)
            or any(answer.split() for answer in self._undrawn.values())
            or self._open() is not None
        )
        return own or any(page.wants_drawing for page in self.lanes.values())

    def draw(self) -> list[Op]:
        """Draw the blocks that were finished since last time, and the open block if it is due."""
        ops: list[Op] = []
        for index in self._undrawn_thoughts:
            html = to_html(self.timeline.segments[index].text, light=True)
            self._thoughts[index] = html
            ops.append({"op": "thought", "segment": index, "html": html})
        self._undrawn_thoughts.clear()
        for index, answer in self._undrawn.items():
            if answer.split():
                html = answer.draw()
                ops.append({"op": "block", "segment": index, "to": answer.to, "html": html})
        self._undrawn.clear()
        if (opened := self._open()) is not None:
            self._redraw.due()
            answer, length = self._answers[opened], self.timeline.segments[opened].length
            answer.open_to = length
            html = answer.open_html = to_html(answer.blocks.tail)
            ops.append({"op": "open", "segment": opened, "to": length, "html": html})
        for number, page in self.lanes.items():
            ops += _in_lane(number, page.draw())
        return ops

    def _open(self) -> int | None:
        """Return the answer whose open block is to be drawn: a new one at once, then throttled."""
        index = len(self.timeline.segments) - 1
        if (answer := self._answers.get(index)) is None:
            return None
        segment = self.timeline.segments[index]
        if segment.done or answer.open_to == segment.length:
            return None
        if answer.open_to > answer.to and not self._redraw.ready:
            return None
        tail = answer.blocks.tail
        return index if len(tail) <= MAX_OPEN and tail.strip() else None

    def snapshot(self) -> Op:
        """Return the whole as one operation, for a page that missed something.

        Blocks are in it as far as they were drawn: the operations that follow go on from there.
        """
        reset, elapsed = self.timeline.snapshot(), self.elapsed
        reset |= {"age": elapsed, "waits": elapsed - self._state_began}
        for index, segment in enumerate(self.timeline.segments):
            reset["segments"][index] |= self._snapshot_of(index, segment, elapsed)
        if self.lanes:
            lanes = {str(number): page.snapshot() for number, page in self.lanes.items()}
            reset |= {"lanes": lanes, "lanes_at": self.timeline.lanes_at}
            reset["vote"] = self.timeline.vote_op() if self.timeline.agreement else None
        return reset

    def _snapshot_of(self, index: int, segment: Segment, elapsed: float) -> Op:
        drawn: Op = {"open": segment.open, **self._traits(segment.kind)}
        if segment.seconds is not None:
            drawn["seconds"] = segment.seconds
        else:
            drawn["age"] = elapsed - segment.began
        if (answer := self._answers.get(index)) is not None:
            drawn |= {"blocks": "".join(answer.html), "to": answer.to}
            if answer.open_to > answer.to:
                drawn["drawn"] = {"html": answer.open_html, "to": answer.open_to}
        if index in self._thoughts:
            drawn["thought"] = self._thoughts[index]
        if index in self._called:
            drawn["run"] = _call(segment)
        if (printed := segment.printed) is not None:
            drawn["printed"] = {"text": printed.text, "line": printed.line}
        if segment.result is not None:
            drawn["result"] = _result(segment)
        return drawn

    def _complete(self, op: Op) -> Op:
        """Add to an operation of the timeline what a page needs."""
        if op["op"] == "state":
            self._state_began = self._seconds
        if (add := self._additions.get(op["op"])) is not None:
            op |= add(self, op, op["segment"])
        return op

    def _begin(self, _op: Op, index: int) -> Op:
        traits = self._traits(self.timeline.segments[index].kind)
        if self.timeline.segments[index].kind == "answer" and not traits["plain"]:
            self._answers[index] = _Answer()
        return traits

    def _append(self, op: Op, index: int) -> Op:
        if (answer := self._answers.get(index)) is not None:
            answer.unread.append(op["text"])
            self._undrawn[index] = answer
        return {}

    def _run(self, _op: Op, index: int) -> Op:
        self._called.add(index)
        return _call(self.timeline.segments[index])

    def _finish_call(self, _op: Op, index: int) -> Op:
        segment = self.timeline.segments[index]
        drawn = _result(segment)
        if index not in self._called:  # given up before it ran
            self._called.add(index)
            drawn["given"] = _call(segment)
        return drawn

    def _finish(self, _op: Op, index: int) -> Op:
        if (answer := self._answers.get(index)) is not None:
            answer.ended = True
            self._undrawn[index] = answer
        is_reasoning = self.timeline.segments[index].kind == "reasoning"
        if is_reasoning and self._options.format not in ("text", "json"):
            self._undrawn_thoughts.append(index)
        return {"seconds": self.timeline.segments[index].seconds}

    def _traits(self, kind: str) -> dict[str, bool]:
        return {
            "keep": kind == "reasoning" and self._options.keep_reasoning,
            "plain": kind == "answer" and self._options.format in ("text", "json"),
        }

    _additions: ClassVar[dict[str, Callable[[Page, Op, int], Op]]] = {
        "append": _append,
        "segment": _begin,
        "run": _run,
        "result": _finish_call,
        "done": _finish,
    }


def _in_lane(number: int, ops: Iterable[Op]) -> list[Op]:
    return [op | {"lane": number} for op in ops]


def _call(segment: Segment) -> Op:
    call, html = call_line(segment), arguments_html(segment)
    return {"call": call, "html": html, "edited": bool(segment.edited)}


def _result(segment: Segment) -> Op:
    assert segment.result is not None, "asked for where there is one"
    return {
        "html": result_html(segment.result),
        "recorded": segment.result.recorded,
        "seconds": segment.result.seconds,
        "shows": has_image(segment.result),
    }
