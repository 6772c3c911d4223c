"""A turn as a page draws it: the timeline's operations, with what only a page needs.

Text is sent as it comes. Of an answer in Markdown each block follows as safe HTML when it is
finished, or comes in place of its text where that was not sent yet; the open block is drawn anew
now and then while it is small::

    {"op": "part", …, "keep": …, "plain": …}                whether it stays open when it ends,
                                                            whether an answer is no Markdown
    {"op": "block", "part": i, "to": offset, "html": …}     the text up to there, finished
    {"op": "open", "part": i, "to": offset, "html": …}      the text up to there, as it stands
    {"op": "run", …, "call": …, "html": …}                  the call in a line, its arguments
    {"op": "result", …, "html": …, "seconds": …, "shows": …, "given": …}
    {"op": "done", …, "seconds": …}

Times are seconds; an ``age`` is how long ago something began.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from kimi_magic.core.events import Event
from kimi_magic.display.html.markdown import Blocks, to_html
from kimi_magic.display.html.tool_results import has_image, result_html
from kimi_magic.display.record import arguments_html, call_line
from kimi_magic.display.segments import Segment
from kimi_magic.display.throttle import Throttle
from kimi_magic.display.timeline import Op, Timeline
from kimi_magic.display.view import ViewOptions

__all__ = ["Page"]

REDRAWN = 2.0  # times a second
SMALL = 4000


@dataclass(slots=True)
class _Answer:
    """Markdown that arrives: its finished blocks, those that are HTML, and how far it is drawn."""

    blocks: Blocks = field(default_factory=Blocks)
    finished: list[str] = field(default_factory=list)
    html: list[str] = field(default_factory=list)
    to: int = 0
    drawn: int = 0


class Page:
    """Folds a turn's events to the operations that its page draws."""

    def __init__(self, options: ViewOptions, clock: Callable[[], float] = time.monotonic) -> None:
        self.timeline = Timeline(hide_reasoning=options.hide_reasoning, max_chars=options.max_chars)
        self._options = options
        self._clock = clock
        self._redraw = Throttle(REDRAWN, clock)
        self._answers: dict[int, _Answer] = {}
        self._called: set[int] = set()
        self._began: dict[int, float] = {}
        self._seconds: dict[int, float] = {}
        self._turn_began = self._state_began = clock()

    def apply(self, event: Event) -> list[Op]:
        return [drawn for op in self.timeline.apply(event) for drawn in self._draw(op)]

    def end(self) -> list[Op]:
        return [drawn for op in self.timeline.end() for drawn in self._draw(op)]

    @property
    def wants_drawing(self) -> bool:
        """Whether ``draw`` has something to give."""
        return self._open() is not None or any(a.finished for a in self._answers.values())

    def draw(self) -> list[Op]:
        """What is finished since last time, and the open block if it is time."""
        ops = []
        for index, answer in self._answers.items():
            if answer.finished:
                text, answer.finished = "".join(answer.finished), []
                answer.to += len(text)
                answer.html.append(to_html(text))
                block = {"op": "block", "part": index, "to": answer.to, "html": answer.html[-1]}
                ops.append(block)
        if (opened := self._open()) is not None:
            self._redraw.due()
            answer, length = self._answers[opened], self.timeline.parts[opened].length
            answer.drawn = length
            html = to_html(answer.blocks.tail)
            ops.append({"op": "open", "part": opened, "to": length, "html": html})
        return ops

    def _open(self) -> int | None:
        """The answer whose open block is to be drawn: for the first time, or anew at its pace."""
        index = len(self.timeline.parts) - 1
        if (answer := self._answers.get(index)) is None:
            return None
        part = self.timeline.parts[index]
        if part.done or answer.drawn == part.length:
            return None
        if not self._redraw.ready and answer.drawn > answer.to:
            return None
        return index if answer.blocks.tail.strip() and len(answer.blocks.tail) <= SMALL else None

    def snapshot(self) -> Op:
        """The whole of it as one operation, for a page that missed something."""
        self.draw()
        reset, now = self.timeline.snapshot(), self._clock()
        reset["age"] = now - self._turn_began
        reset["waits"] = now - self._state_began
        for index, part in enumerate(self.timeline.parts):
            reset["parts"][index] |= self._drawn_part(index, part, now)
        return reset

    def _drawn_part(self, index: int, part: Segment, now: float) -> Op:
        drawn: Op = {"open": part.open, **self._manner(part.kind)}
        if (seconds := self._seconds.get(index)) is not None:
            drawn["seconds"] = seconds
        elif (began := self._began.get(index)) is not None:
            drawn["age"] = now - began
        if (answer := self._answers.get(index)) is not None:
            drawn |= {"blocks": "".join(answer.html), "to": answer.to}
        if index in self._called:
            drawn["run"] = _call(part)
        if part.result is not None:
            drawn["result"] = _result(part)
        return drawn

    def _draw(self, op: Op) -> list[Op]:
        if op["op"] == "state":
            self._state_began = self._clock()
        ways = {
            "part": self._begin,
            "append": self._grow,
            "run": self._run,
            "result": self._give,
            "done": self._end_part,
        }
        way = ways.get(op["op"])
        return [op] if way is None else way(op, op["part"], self.timeline.parts[op["part"]])

    def _begin(self, op: Op, index: int, part: Segment) -> list[Op]:
        self._began[index] = self._clock()
        manner = self._manner(part.kind)
        if part.kind == "answer" and not manner["plain"]:
            self._answers[index] = _Answer()
        return [op | manner]

    def _grow(self, op: Op, index: int, _part: Segment) -> list[Op]:
        if (answer := self._answers.get(index)) is not None:
            answer.finished += answer.blocks.feed(op["text"])
        return [op]

    def _run(self, op: Op, index: int, part: Segment) -> list[Op]:
        self._began[index] = self._clock()
        self._called.add(index)
        return [op | _call(part)]

    def _give(self, op: Op, index: int, part: Segment) -> list[Op]:
        self._seconds[index] = part.result.seconds if part.result else 0.0
        op |= _result(part)
        if index not in self._called:  # given up before it ran
            self._called.add(index)
            op["given"] = _call(part)
        return [op]

    def _end_part(self, op: Op, index: int, _part: Segment) -> list[Op]:
        if (answer := self._answers.get(index)) is not None:
            answer.finished += answer.blocks.finish()
        seconds = self._seconds.setdefault(index, self._clock() - self._began[index])
        return [op | {"seconds": seconds}]

    def _manner(self, kind: str) -> dict[str, bool]:
        return {
            "keep": kind == "reasoning" and self._options.keep_reasoning,
            "plain": kind == "answer" and self._options.format in ("text", "json"),
        }


def _call(part: Segment) -> Op:
    return {"call": call_line(part), "html": arguments_html(part), "edited": bool(part.edited)}


def _result(part: Segment) -> Op:
    assert part.result is not None, "asked for where there is one"
    return {
        "html": result_html(part.result),
        "seconds": part.result.seconds,
        "shows": has_image(part.result),
    }
