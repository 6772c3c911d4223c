"""Events folded into the one model that every view draws.

A timeline is a sequence of parts (reasoning, answers, notices, tool calls) and one line of state.
Each event gives a few small operations on it, so that a view sends or prints only what is new::

    {"op": "head", "text": …}                               who answers
    {"op": "state", "text": …}                              what is going on
    {"op": "part", "part": i, "kind": …, "title": …}        a part begins
    {"op": "append", "part": i, "at": offset, "text": …}    more of its text
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

from kimi_magic.events import (
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
from kimi_magic.messages import Reply, ToolResult, Usage
from kimi_magic.view.parts import Kind, Part, clean

__all__ = ["PRACTICE", "Op", "Timeline"]

Op = dict[str, Any]

PRACTICE = "practice model"
FIRST_LINE = 300
INDENT = 80


class Timeline:
    """The turn as it is shown.

    Attributes
    ----------
    parts : list of Part
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

    def __init__(self, *, hide_reasoning: bool = False) -> None:
        self.parts: list[Part] = []
        self.state = ""
        self.model = ""
        self.endpoint = ""
        self.practice = False
        self.reply: Reply | None = None
        self.steps = 0
        self.usage = Usage()
        self._hide_reasoning = hide_reasoning
        self._open: int | None = None
        self._tools: dict[int, int] = {}
        self.running = 0
        self._reasoned: list[int] = []
        self._step = 0
        self._held: tuple[Kind, str] = ("answer", "")

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
        self._notice("Stopped before the end of the turn; what had arrived is kept.", ops)
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
            }
            for part in self.parts
        ]
        reset = {"op": "reset", "head": self.head, "state": self.state, "parts": parts}
        return reset | {"usage": self._usage_op()}

    @singledispatchmethod
    def _apply(self, event: Any, ops: list[Op]) -> None:
        """Events that this version does not know change nothing."""

    @_apply.register
    def _(self, event: TurnStarted, ops: list[Op]) -> None:
        self.model, self.endpoint = clean(event.model), clean(event.endpoint)
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
        reason = _first_line(event.reason)
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
        name = clean(event.name)
        self._tools[event.index] = self._begin(Part("tool", name), ops)
        self._set_state(f"Calling {name}…", ops)

    @_apply.register
    def _(self, event: ToolCallDelta, ops: list[Op]) -> None:
        text = clean(event.arguments)
        if text and event.index in self._tools:
            self._append(self._tools[event.index], text, ops)

    @_apply.register
    def _(self, event: ToolStarted, ops: list[Op]) -> None:
        self._close_open(ops)
        name, arguments = clean(event.call.name), clean(event.call.arguments)
        index = self._tool(event.index)
        if index is None:  # nothing of it was streamed
            index = self._begin(Part("tool", name), ops)
            self._tools[max(self._tools, default=-1) + 1] = index
        part = self.parts[index]
        if part.length < len(arguments) and arguments.startswith(part.text):
            self._append(index, arguments[part.length :], ops)
        self.running = index
        self._run(name, ops)

    @_apply.register
    def _(self, event: ApprovalAsked, ops: list[Op]) -> None:
        self.parts[self.running].state = "asked"
        ops.append({"op": "ask", "part": self.running})
        self._set_state(f"Waiting for your yes or no to {clean(event.name)}…", ops)

    @_apply.register
    def _(self, event: ApprovalAnswered, ops: list[Op]) -> None:
        self.parts[self.running].edited = clean(event.arguments)
        self._run(clean(event.name), ops)

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
        self._close_parts(ops)
        closing, state = _closing(event.reply, {part.kind for part in self.parts})
        if closing:
            self._notice(closing, ops)
        self._set_state(state, ops)

    def _text(self, kind: Kind, text: str, ops: list[Op]) -> None:
        """Add to the open part, or open one as soon as there is something to see."""
        text = clean(text)
        if self._open is not None and self.parts[self._open].kind == kind:
            if text:
                self._append(self._open, text, ops)
            return
        held_kind, held = self._held
        text = _without_blank_lines(held + text if held_kind == kind else text)
        if not text.strip():
            self._held = (kind, text)
            return
        self._held = (kind, "")
        self._set_state("Reasoning…" if kind == "reasoning" else "Answering…", ops)
        self._close_open(ops)
        if kind == "reasoning" and self._hide_reasoning:
            return
        self._open = self._begin(Part(kind), ops)
        if kind == "reasoning":
            self._reasoned.append(self._open)
        self._append(self._open, text, ops)

    def _tool(self, place: int) -> int | None:
        """The part of the step's call at this place: servers number calls as they like."""
        numbers = sorted(self._tools)
        return self._tools[numbers[place]] if place < len(numbers) else None

    def _run(self, name: str, ops: list[Op]) -> None:
        self.parts[self.running].state = "running"
        ops.append({"op": "run", "part": self.running})
        self._set_state(f"Calling {name}…", ops)

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
        part.result = result
        part.state = "failed" if result.error else "done"
        ops.append({"op": "result", "part": index, "state": part.state})

    def _notice(self, text: str, ops: list[Op]) -> None:
        self._close_open(ops)
        part = self._begin(Part("notice"), ops)
        self._append(part, clean(text.strip()), ops)
        self._finish(part, ops)

    def _set_state(self, text: str, ops: list[Op]) -> None:
        if text != self.state:
            self.state = text
            ops.append({"op": "state", "text": text})

    def _begin(self, part: Part, ops: list[Op]) -> int:
        self.parts.append(part)
        index = len(self.parts) - 1
        ops.append({"op": "part", "part": index, "kind": part.kind, "title": part.title})
        return index

    def _append(self, index: int, text: str, ops: list[Op]) -> None:
        at = self.parts[index].append(text)
        ops.append({"op": "append", "part": index, "at": at, "text": text})

    def _finish(self, index: int, ops: list[Op]) -> None:
        self.parts[index].done = True
        ops.append({"op": "done", "part": index})

    def _close_open(self, ops: list[Op]) -> None:
        if self._open is not None:
            self._finish(self._open, ops)
            self._open = None

    def _close_parts(self, ops: list[Op]) -> None:
        self._close_open(ops)
        self._held = ("answer", "")
        for index in self._tools.values():
            self._finish(index, ops)
        self._tools.clear()


def _closing(reply: Reply, kinds: set[Kind]) -> tuple[str, str]:
    """The last notice of a turn, "" for none, and its last state."""
    answered = "answer" in kinds
    if isinstance(reply.error, KeyboardInterrupt):
        kept = "what had arrived is kept" if kinds - {"notice"} else "nothing had arrived"
        return f"Stopped: {kept}.", "Stopped"
    if reply.error is not None:
        name, line = type(reply.error).__name__, _first_line(str(reply.error))
        return f"{name}: {line}" if line else name, "Failed"
    if reply.finish_reason == "length":
        cut = "The answer was cut" if answered else "Cut before an answer began, the limit reached"
        return f"{cut} at max_tokens; raise it with --max-tokens.", "Done"
    if reply.finish_reason == "content_filter":
        return "The provider's content filter ended the answer.", "Done"
    if reply.finish_reason not in ("stop", "tool_calls", "max_steps", "repetition"):
        reason = clean(reply.finish_reason or "it gave no reason")
        return f"The server ended the answer early ({reason}).", "Done"
    return ("" if answered else "The answer is empty."), "Done"


def _without_blank_lines(text: str) -> str:
    """The text from its first line with something on it; the indentation of that line stays."""
    body = text.lstrip()
    blank = text[: len(text) - len(body)]
    return blank.rpartition("\n")[2][-INDENT:] + body


def _first_line(text: str) -> str:
    line = (text.strip().splitlines() or [""])[0]
    return line if len(line) <= FIRST_LINE else line[: FIRST_LINE - 1] + "…"


def _seconds(delay: float) -> str:
    return f"{delay:.0f} s" if delay >= 1 else f"{delay:.1f} s"
