"""A turn as flushed text on standard output, for pipes and front ends without widgets."""

from __future__ import annotations

import sys

from kimi_magic.core.events import ApprovalAsked, Envelope, Preparing, ToolPrinted, TurnFinished
from kimi_magic.core.text import clean, without_stacks
from kimi_magic.display.calls import call_text
from kimi_magic.display.printed import Transcript
from kimi_magic.display.record import confidence_line, lane_line, tokens_line
from kimi_magic.display.segments import Segment
from kimi_magic.display.timeline import Op, Timeline
from kimi_magic.display.view import Throttle, ViewOptions

__all__ = ["PlainView"]

_OPENING = {"reasoning": "\nReasoning:\n", "answer": "\n", "notice": "\n[", "tool": ""}


class PlainView:
    """Writes text as it comes, without colours and cursor movements."""

    def __init__(self, options: ViewOptions, throttle: Throttle | None = None) -> None:
        self._options = options
        self._timeline = Timeline(hide_reasoning=options.hide_reasoning)
        self._throttle = throttle or Throttle()
        self._pending: list[str] = []
        self._stage = ""
        self._told: set[int] = set()  # calls that are written to the end
        self._printing: int | None = None  # the call that is written while it runs
        self._transcript = Transcript("")

    def handle(self, envelope: Envelope) -> None:
        event = envelope.event
        if envelope.lane:
            self._handle_lane(envelope)
            return
        if not isinstance(event, ToolPrinted):
            self._prepare(clean(event.text) if isinstance(event, Preparing) else "")
        for op in self._timeline.apply(event):
            self._take(op)
        self.tick()

    def _handle_lane(self, envelope: Envelope) -> None:
        """Tell of a trajectory when it has ended: several at once cannot be read."""
        whole, event = self._timeline, envelope.event
        whole.lanes[envelope.lane].apply(event)
        if isinstance(event, ApprovalAsked):
            self._flush()
        if isinstance(event, TurnFinished):
            self._pending.append(f"[{lane_line(whole, envelope.lane)}]\n")
        self.tick()

    def tick(self) -> None:
        if self._pending and self._throttle.due():
            self._flush()

    def close(self) -> None:
        self._prepare("")
        for op in self._timeline.end():
            self._take(op)
        self._flush()
        self._footer()

    def _prepare(self, text: str) -> None:
        """Show what the turn waits for before it begins, "" when it waits no more."""
        stage = text.partition("…")[0]  # a line for each stage, not for each percentage
        if stage and stage != self._stage:
            self._stage = stage
            self._pending.append(f"[{text}]\n")

    def _take(self, op: Op) -> None:
        if op["op"] == "head":
            self._pending.append(f"[{op['text'].replace(' · ', ' — ')}]\n")
            return
        if op["op"] in {"tape", "sent", "retry"}:
            self._pending.append(f"[{op['text']}]\n")
        if op["op"] == "vote":
            self._pending.append(f"[{op['text']}]\n")
        if op["op"] == "ask":  # before the question, not after its answer
            self._flush()
        if "segment" not in op:
            return
        segment = self._timeline.segments[op["segment"]]
        if self._take_call(op, op["segment"]):
            return
        if op["op"] == "segment":
            self._pending.append(_OPENING[segment.kind])
        elif op["op"] == "done":
            self._pending.append(_closing(segment))
        elif op["op"] == "append" and segment.kind != "tool":  # calls may arrive interleaved
            self._pending.append(op["text"])

    def _take_call(self, op: Op, index: int) -> bool:
        """Write what a call prints while it runs; return True if nothing else is to be done.

        Of several that run at once, the first one that prints is written.
        """
        segment = self._timeline.segments[index]
        if op["op"] == "print":
            if self._printing is None:
                self._begin_call(index)
            if self._printing == index:
                moves = segment.printed is None or segment.printed.moves
                self._print(op["text"], "" if moves else op["line"])
            return True
        if op["op"] == "result" and index == self._printing:
            succeeded = segment.state == "done"
            whole = call_text(segment, end=not succeeded)
            self._finish_call(self._transcript.rest(whole))
            self._told.add(index)
            self._printing = None
        return op["op"] == "done" and index in self._told

    def _begin_call(self, index: int) -> None:
        for before, segment in enumerate(self._timeline.segments[:index]):
            if segment.kind == "tool" and segment.result is not None and not segment.done:
                self._take({"op": "done", "segment": before})
                self._told.add(before)
        self._printing = index
        self._transcript = Transcript(call_text(self._timeline.segments[index], end=False))
        self._write_call(f"\n{self._transcript.text}")

    def _write_call(self, text: str) -> None:
        self._pending.append(text)

    def _print(self, finished: str, line: str) -> None:
        self._write_call(self._transcript.grow(finished, line))

    def _finish_call(self, rest: str) -> None:
        self._write_call(f"{rest}\n")

    def _footer(self) -> None:
        reply = self._timeline.reply
        if line := confidence_line(self._timeline):
            self._pending.append(f"\n[{line}]\n")
            self._flush()
        if self._options.usage and reply is not None:
            tokens = tokens_line(reply.usage, self._timeline.usage_mark)
            self._pending.append(f"\n[{tokens} · {reply.usage.seconds:.1f} s]\n")
            self._flush()

    def _flush(self) -> None:
        text, self._pending = without_stacks("".join(self._pending)), []
        out = sys.stdout
        if not text or out is None:  # pythonw has no standard output
            return
        try:
            out.write(text)
        except UnicodeEncodeError:  # Windows code pages, LANG=C
            encoding = out.encoding or "ascii"
            out.write(text.encode(encoding, "replace").decode(encoding))
        out.flush()


def _closing(segment: Segment) -> str:
    if segment.kind == "tool":
        return f"\n{call_text(segment)}\n"
    if segment.kind == "notice":
        return "]\n"
    return "" if segment.ends_line else "\n"
