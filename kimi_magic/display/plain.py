"""A turn as flushed text on standard output, for front ends without widgets and for pipes."""

from __future__ import annotations

import sys

from kimi_magic.core.events import Event, Preparing
from kimi_magic.core.text import clean
from kimi_magic.display.record import call_text, tokens_line
from kimi_magic.display.segments import Segment
from kimi_magic.display.throttle import Throttle
from kimi_magic.display.timeline import Op, Timeline
from kimi_magic.display.view import ViewOptions

__all__ = ["PlainView"]


_OPENING = {"reasoning": "\nReasoning:\n", "answer": "\n", "notice": "\n[", "tool": ""}


class PlainView:
    """Writes what is new as it comes; no colours, no cursor movements."""

    def __init__(self, options: ViewOptions, pace: Throttle | None = None) -> None:
        self._options = options
        self._timeline = Timeline(hide_reasoning=options.hide_reasoning)
        self._pace = pace or Throttle()
        self._pending: list[str] = []
        self._prepared = ""

    def handle(self, event: Event) -> None:
        if isinstance(event, Preparing):
            self._prepare(clean(event.text))
        for op in self._timeline.apply(event):
            self._take(op)
        self.tick()

    def tick(self) -> None:
        if self._pending and self._pace.due():
            self._flush()

    def close(self) -> None:
        for op in self._timeline.end():
            self._take(op)
        reply = self._timeline.reply
        if self._options.usage and reply is not None:
            self._pending.append(f"\n[{tokens_line(reply.usage)} · {reply.usage.seconds:.1f} s]\n")
        self._flush()

    def _prepare(self, text: str) -> None:
        """One line for each thing that is waited for, not one for each per cent of it."""
        begins = text.partition("…")[0]
        if begins != self._prepared:
            self._prepared = begins
            self._pending.append(f"[{text}]\n")

    def _take(self, op: Op) -> None:
        if op["op"] == "head":
            self._pending.append(f"[{op['text'].replace(' · ', ' — ')}]\n")
            return
        if "part" not in op:
            return
        part = self._timeline.parts[op["part"]]
        if op["op"] == "part":
            self._pending.append(_OPENING[part.kind])
        elif op["op"] == "done":
            self._pending.append(_closing(part))
        elif op["op"] == "append" and part.kind != "tool":  # calls may come interleaved
            self._pending.append(op["text"])

    def _flush(self) -> None:
        text, self._pending = "".join(self._pending), []
        out = sys.stdout
        if not text or out is None:
            return
        try:
            out.write(text)
        except UnicodeEncodeError:
            encoding = out.encoding or "ascii"
            out.write(text.encode(encoding, "replace").decode(encoding))
        out.flush()


def _closing(part: Segment) -> str:
    if part.kind == "tool":
        return f"\n{call_text(part)}\n"
    if part.kind == "notice":
        return "]\n"
    return "" if part.ends_line else "\n"
