"""Events folded into the one model that every view draws.

A timeline is a sequence of parts (reasoning, answers, notices, tool calls) and one line of state.
Each event gives a few small operations on it, so that a view sends or prints only what is new::

    {"op": "head", "text": …}                               who answers
    {"op": "state", "text": …}                              what is going on
    {"op": "part", "part": i, "kind": …, "title": …}        a part begins
    {"op": "append", "part": i, "at": offset, "text": …}    more of its text
    {"op": "cut", "part": i, "text": …}                     how much of it is not kept; without a
                                                            part: which ones are not kept
    {"op": "ask", "part": i}                                a person is asked about a call
    {"op": "run", "part": i}                                a tool call is made
    {"op": "result", "part": i, "state": …}                 it is done, or has failed
    {"op": "done", "part": i}                               nothing more comes
    {"op": "tokens", "part": i, "tokens": n}                how much reasoning it was
    {"op": "usage", "steps": n, "in": …, "out": …}          tokens of the steps that have ended

Offsets and lengths count code points.
"""

from __future__ import annotations

from functools import singledispatchmethod
from typing import Any

from kimi_magic.core.events import (
    ApprovalAnswered,
    ApprovalAsked,
    ContentDelta,
    Event,
    Notice,
    Preparing,
    ReasoningDelta,
    RequestStarted,
    Retrying,
    StepFinished,
    ToolCallDelta,
    ToolCallStarted,
    ToolFinished,
    ToolStarted,
    TurnFinished,
    TurnStarted,
)
from kimi_magic.core.messages import ToolResult, Usage
from kimi_magic.core.reply import Reply
from kimi_magic.display.closing import closing_of, first_line
from kimi_magic.display.kept_segments import KeptSegments
from kimi_magic.display.segments import UNBOUNDED, Kind, Op, Segment, clean, without_blank_lines
from kimi_magic.display.size_budget import cut_note

__all__ = ["MOST_NAME", "PRACTICE", "Op", "Timeline"]

PRACTICE = "practice model"
# Characters of a name, of a notice, and of a call that a person is asked about.
MOST_NAME, MOST_NOTICE, ASSURED = 200, 2000, 20_000


class Timeline:
    """The turn as it is shown.

    Parameters
    ----------
    max_chars : int
        How many characters are kept.

    Attributes
    ----------
    parts : list of Segment
    state : str
        What is going on: ``Reasoning…``, ``Done`` …
    model, endpoint : str
    practice : bool
        Whether the embedded practice model answers.
    reply : Reply or None
        What the turn gave, once it has ended.
    steps, usage : int, Usage
        Of the steps that have ended.
    running : int
        The part of the latest tool call that was made, or is to be.
    """

    def __init__(self, *, hide_reasoning: bool = False, max_chars: int = UNBOUNDED) -> None:
        self.state = ""
        self.model = ""
        self.endpoint = ""
        self.practice = False
        self.reply: Reply | None = None
        self.steps = 0
        self.usage = Usage()
        self.running = 0
        self._hide_reasoning = hide_reasoning
        self._kept = KeptSegments(max_chars)
        self._open: int | None = None
        self._skipped: Kind | None = None
        # By the server's number of a call: its part, None where that is not kept.
        self._tools: dict[int, int | None] = {}
        self._called = 0
        self._reasoned: list[int] = []
        self._step = 0
        self._held: tuple[Kind, str] = ("answer", "")

    @property
    def parts(self) -> list[Segment]:
        return self._kept.parts

    @property
    def left_out(self) -> str:
        """Which parts had no room; "" for none."""
        return self._kept.left_out

    @property
    def head(self) -> str:
        """Who answers."""
        return f"{self.model} · {PRACTICE}" if self.practice else self.model

    def apply(self, event: Event) -> list[Op]:
        """Take the next event; gives what changed."""
        ops: list[Op] = []
        self._apply(event, ops)
        return ops

    def end(self) -> list[Op]:
        """Close a turn whose last event never came."""
        if self.reply is not None or self.state in {"Stopped", ""}:
            return []
        ops: list[Op] = []
        self._close_parts(ops)
        said = "Stopped before the end of the turn; what had arrived is kept."
        self._notice(said, ops, assured=True)
        self._set_state("Stopped", ops)
        return ops

    def answer(self) -> str:
        """The answer so far; another thread may ask."""
        answers = [part for part in self.parts if part.kind == "answer"]
        return answers[-1].peek() if answers else ""

    def snapshot(self) -> Op:
        """The whole of it as one operation, for a front end that missed something."""
        parts = [
            {
                "kind": part.kind,
                "title": part.title,
                "text": part.text,
                "done": part.done,
                "state": part.state,
                "tokens": part.tokens,
                "cut": cut_note(part.missing),
            }
            for part in self.parts
        ]
        reset = {"op": "reset", "head": self.head, "state": self.state, "parts": parts}
        reset["cut"] = self.left_out
        return reset | {"usage": self._usage_op()}

    @singledispatchmethod
    def _apply(self, event: Any, ops: list[Op]) -> None:
        """Events that this version does not know change nothing."""

    @_apply.register
    def _(self, event: TurnStarted, ops: list[Op]) -> None:
        self.model = clean(event.model)[:MOST_NAME]
        self.endpoint = clean(event.endpoint)[:MOST_NAME]
        self.practice = event.practice
        ops.append({"op": "head", "text": self.head})
        self._set_state(f"Waiting for {self.model}…", ops)

    @_apply.register
    def _(self, event: RequestStarted, ops: list[Op]) -> None:
        if event.step != self._step:
            self._step = event.step
            self._close_parts(ops)
        self._set_state(f"Waiting for {self.model}…", ops)

    @_apply.register
    def _(self, event: Notice, ops: list[Op]) -> None:
        self._notice(event.text, ops)

    @_apply.register
    def _(self, event: Preparing, ops: list[Op]) -> None:
        self._set_state(clean(event.text), ops)

    @_apply.register
    def _(self, event: Retrying, ops: list[Op]) -> None:
        reason = clean(first_line(event.reason))
        self._notice(f"Retry {event.attempt} of {event.retries}: {reason}", ops)
        self._set_state(f"Retrying in {_seconds(event.delay)}: {reason}", ops)

    @_apply.register
    def _(self, event: ReasoningDelta, ops: list[Op]) -> None:
        self._text("reasoning", event.text, ops)

    @_apply.register
    def _(self, event: ContentDelta, ops: list[Op]) -> None:
        self._text("answer", event.text, ops)

    @_apply.register
    def _(self, event: ToolCallStarted, ops: list[Op]) -> None:
        self._close_open(ops)
        self._tools[event.index] = self._new_tool(event.name, ops)
        self._set_state(f"Calling {clean(event.name)[:MOST_NAME]}…", ops)

    @_apply.register
    def _(self, event: ToolCallDelta, ops: list[Op]) -> None:
        index = self._tools.get(event.index)
        if index is not None:
            self._kept.append(index, clean(event.arguments), ops)

    @_apply.register
    def _(self, event: ToolStarted, ops: list[Op]) -> None:
        self._close_open(ops)
        numbers = sorted(self._tools)
        if event.index < len(numbers):
            self._called = numbers[event.index]
        else:  # nothing of it was streamed
            self._called = max(numbers, default=-1) + 1
            self._tools[self._called] = self._new_tool(event.call.name, ops)
        index = self._tools[self._called]
        if index is not None:
            self._kept.complete(index, clean(event.call.arguments), ops)
        self._run(event.call.name, ops)

    @_apply.register
    def _(self, event: ApprovalAsked, ops: list[Op]) -> None:
        index = self._tools.get(self._called)
        if index is None:  # what a person is asked about is always shown
            part = Segment("tool", clean(event.name)[:MOST_NAME], most=ASSURED, assured=True)
            index = self._tools[self._called] = self._kept.begin(part, ops)
            self._kept.append(index, clean(event.arguments), ops)
        self.running = index
        self.parts[index].state = "asked"
        ops.append({"op": "ask", "part": index})
        self._set_state(f"Waiting for your yes or no to {clean(event.name)}…", ops)

    @_apply.register
    def _(self, event: ApprovalAnswered, ops: list[Op]) -> None:
        self.parts[self.running].edited = self._kept.room.text(clean(event.arguments))
        self._run(event.name, ops)

    @_apply.register
    def _(self, event: ToolFinished, ops: list[Op]) -> None:
        index = self._tool(event.index)
        if index is not None:
            self._show_result(index, event.result, ops)

    @_apply.register
    def _(self, event: StepFinished, ops: list[Op]) -> None:
        self._close_parts(ops)
        self.steps += 1
        self.usage += event.step.usage
        tokens = event.step.usage.reasoning_tokens
        if tokens and len(self._reasoned) == 1:
            (index,) = self._reasoned
            self.parts[index].tokens = tokens
            ops.append({"op": "tokens", "part": index, "tokens": tokens})
        self._reasoned.clear()
        ops.append(self._usage_op())

    @_apply.register
    def _(self, event: TurnFinished, ops: list[Op]) -> None:
        self.reply = event.reply
        if self._tools and event.reply.steps:  # stopped while tools ran
            for place, result in enumerate(event.reply.steps[-1].tool_results):
                index = self._tool(place)
                if index is not None and self.parts[index].result is None:
                    self._show_result(index, result, ops)
        self._kept.keep_last_answer(event.reply.text, ops)
        self._close_parts(ops)
        closing, state = closing_of(event.reply, {part.kind for part in self.parts})
        if closing:
            self._notice(closing, ops, assured=True)
        self._set_state(state, ops)

    def _text(self, kind: Kind, text: str, ops: list[Op]) -> None:
        """Add to the open part, or open one as soon as there is something to see."""
        text = clean(text)
        if self._skipped == kind:
            return
        if self._open is not None and self.parts[self._open].kind == kind:
            self._kept.append(self._open, text, ops)
            return
        held_kind, held = self._held
        text = without_blank_lines(held + text if held_kind == kind else text)
        if not text.strip():
            self._held = (kind, text)
            return
        self._held = (kind, "")
        self._set_state("Reasoning…" if kind == "reasoning" else "Answering…", ops)
        self._close_open(ops)
        if kind == "reasoning" and self._hide_reasoning:
            return
        self._open = self._kept.admit(Segment(kind), ops)
        if self._open is None:
            self._skipped = kind
            return
        if kind == "reasoning":
            self._reasoned.append(self._open)
        self._kept.append(self._open, text, ops)

    def _tool(self, place: int) -> int | None:
        """The part of the step's call at this place: servers number calls as they like."""
        numbers = sorted(self._tools)
        return self._tools[numbers[place]] if place < len(numbers) else None

    def _run(self, name: str, ops: list[Op]) -> None:
        index = self._tools.get(self._called)
        if index is not None:
            self.running = index
            self.parts[index].state = "running"
            ops.append({"op": "run", "part": index})
        self._set_state(f"Calling {clean(name)[:MOST_NAME]}…", ops)

    def _usage_op(self) -> Op:
        usage = self.usage
        return {
            "op": "usage",
            "steps": self.steps,
            "in": usage.prompt_tokens,
            "out": usage.completion_tokens,
        }

    def _show_result(self, index: int, result: ToolResult, ops: list[Op]) -> None:
        part = self.parts[index]
        part.result = self._kept.room.result(result)
        part.state = "failed" if result.error else "done"
        ops.append({"op": "result", "part": index, "state": part.state})

    def _notice(self, text: str, ops: list[Op], *, assured: bool = False) -> None:
        self._close_open(ops)
        part = Segment("notice", most=MOST_NOTICE, assured=assured)
        index = self._kept.begin(part, ops) if assured else self._kept.admit(part, ops)
        if index is not None:
            self._kept.append(index, clean(text.strip()), ops)
            self._kept.finish(index, ops)

    def _set_state(self, text: str, ops: list[Op]) -> None:
        if text != self.state:
            self.state = text
            ops.append({"op": "state", "text": text})

    def _new_tool(self, name: str, ops: list[Op]) -> int | None:
        part = Segment("tool", clean(name)[:MOST_NAME], most=self._kept.room.half())
        return self._kept.admit(part, ops)

    def _close_open(self, ops: list[Op]) -> None:
        self._skipped = None
        if self._open is not None:
            self._kept.finish(self._open, ops)
            self._open = None

    def _close_parts(self, ops: list[Op]) -> None:
        self._close_open(ops)
        self._held = ("answer", "")
        for index in self._tools.values():
            if index is not None:
                self._kept.finish(index, ops)
        self._tools.clear()


def _seconds(delay: float) -> str:
    return f"{delay:.0f} s" if delay >= 1 else f"{delay:.1f} s"
