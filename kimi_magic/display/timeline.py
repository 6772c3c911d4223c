"""The fold from a turn's events to the model that every view draws.

A timeline is a list of segments (reasoning, answers, notices, tool calls) and a state line. Each
event yields small operations on it, so that a view sends or prints no more than the change::

    {"op": "head", "text": …}                                   the model that answers
    {"op": "tape", "text": …, "title": …, "usage": …}           a tape answers in its place; a word
                                                                on its tokens
    {"op": "sent", "text": …, "details": […]}                   what the first request holds
    {"op": "state", "text": …}                                  the state line
    {"op": "retry", "text": …}                                  a request goes out again; the record
                                                                of a turn that ends well has no note
    {"op": "segment", "segment": i, "kind": …, "title": …}      a segment begins
    {"op": "append", "segment": i, "at": offset, "text": …}     more of its text
    {"op": "cut", "segment": i, "text": …}                      a note on text that is not kept;
                                                                without an index, on segments
    {"op": "ask", "segment": i}                                 a person is asked about a call
    {"op": "run", "segment": i}                                 a tool call is made
    {"op": "print", "segment": i, "text": …, "line": …, "clears": …}
                                                                lines that a call under way has
                                                                printed, and the one it is at
    {"op": "result", "segment": i, "state": …, "recorded": …}   the call is done, failed, declined,
                                                                or stopped
    {"op": "done", "segment": i}                                the segment is complete
    {"op": "tokens", "segment": i, "tokens": n}                 tokens of the reasoning
    {"op": "usage", "steps": n, "in": …, "out": …}              tokens of the finished steps
    {"op": "lanes", "count": n}                                 so many trajectories begin
    {"op": "vote", "text": …, "groups": [[answer, [lane, …]]]}  they have ended

Offsets and lengths count code points.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from kimi_magic.core import events
from kimi_magic.core.errors import TurnLost
from kimi_magic.core.messages import ToolResult, Usage
from kimi_magic.core.reply import Reply
from kimi_magic.core.sent import Sent
from kimi_magic.core.text import clean, clip, cut_note, vote_line, without_blank_lines
from kimi_magic.display.printed import Printed
from kimi_magic.display.segments import UNBOUNDED, Kind, Op, Segment
from kimi_magic.display.size_budget import BoundedSegments

__all__ = ["MAX_NAME", "PRACTICE", "Op", "Timeline", "events_of"]

PRACTICE = "practice model"
RECORDED = "Played from a recording."
WRITTEN = "Scripted: written for this tape, not the output of a model."
PARTLY = "The rest of the turn was asked for."
DIFFERENT = "It was recorded with other inputs."
RUN_AGAIN = "Run the cell again"  # of messages
NAMELESS = "a call without a name"
# Characters of a name, of a notice, of a call that a person is asked about, of an error's first
# line, of an error.
MAX_NAME, MAX_NOTICE, MAX_ASKED, MAX_LINE, MAX_ERROR = 200, 2000, 20_000, 300, 1800


class Timeline:
    """The turn as views show it, with at most ``max_chars`` characters."""

    def __init__(self, *, hide_reasoning: bool = False, max_chars: int = UNBOUNDED) -> None:
        self.state = ""  # the state line: "Reasoning…", "Done" …
        self.model = self.endpoint = ""
        self.practice = False
        self.replayed = ""  # the label of the tape that answers come from
        self.made_by = ""  # what was recorded on it, as far as that is known
        self.sent: Sent | None = None  # the first request in outline
        self.reply: Reply | None = None  # once the turn has ended
        self.steps, self.usage = 0, Usage()  # of the finished steps
        self.seconds: float | None = None  # of the turn so far; None where events have no times
        self.running = 0  # segment of the latest tool call that was made or asked about
        self.lanes: dict[int, Timeline] = {}  # of the trajectories, by their numbers
        self.lanes_at = 0  # how many segments come before them
        self.agreement: Mapping[str, Sequence[int]] = {}
        self._hide_reasoning = hide_reasoning
        self._bounded = BoundedSegments(max_chars)
        self.segments = self._bounded.segments
        self._open: int | None = None
        self._skipped: Kind | None = None
        # The step's calls by the server's index: their segments, None for those not kept.
        self._tools: dict[int, int | None] = {}
        self._latest_call = 0
        self._defaults: tuple[tuple[str, str], ...] = ()  # of the call that is asked about
        self._reasoning_of_step: list[int] = []
        self._step = 0
        self._retried: list[str] = []  # reasons, of the present step
        self._replays: dict[events.Replayed, None] = {}  # distinct ones, in order
        # Blank text does not open a segment: it is held back until more of its kind comes.
        self._held_back: tuple[Kind, str] = ("answer", "")

    @classmethod
    def of(cls, reply: Reply, **options: Any) -> Timeline:
        """Return the timeline of a turn that is over, as far as its record tells."""
        timeline = cls(**options)
        for event in events_of(reply):
            timeline.apply(event)
            if isinstance(event, events.LanesStarted):
                for number, each in enumerate(reply.trajectories, 1):
                    for inner in events_of(each):
                        timeline.lanes[number].apply(inner)
        return timeline

    @property
    def left_out(self) -> str:
        """Sentence that counts the segments that did not fit, "" if all did."""
        return self._bounded.left_out

    @property
    def head(self) -> str:
        """Name of the model that answers."""
        return f"{self.model} · {PRACTICE}" if self.practice else self.model

    @property
    def tape(self) -> str:
        """The text of the badge that names the tape, a trajectory's included; "" without one."""
        played = self.replayed or next(filter(None, (t.replayed for t in self.lanes.values())), "")
        return f"tape {clean(clip(played, MAX_NAME))}" if played else ""

    @property
    def about_tape(self) -> str:
        """Sentences that explain the badge."""
        marks = self.tape.split(", ")[1:]
        said = [RECORDED if events.SCRIPTED not in marks else WRITTEN]
        said += [PARTLY] if events.IN_PART in marks else []
        said += [DIFFERENT] if events.DIFFERS in marks else []
        return " ".join(said)

    @property
    def usage_mark(self) -> str:
        """``recorded`` where the tokens are those of the recording, "" where they were used."""
        if not self.tape:
            return ""
        in_part = events.IN_PART in self.tape.split(", ")[1:]
        return "recorded in part" if in_part else "recorded"

    def tape_op(self) -> Op:
        """Return the operation that shows the badge."""
        made_by = "" if self.made_by == events.SCRIPTED else clean(clip(self.made_by, MAX_NAME))
        title = f"{self.about_tape} Made by: {made_by}." if made_by else self.about_tape
        return {"op": "tape", "text": self.tape, "title": title, "usage": self.usage_mark}

    def apply(self, event: events.Event, seconds: float | None = None) -> list[Op]:
        """Return the operations that an event makes, ``seconds`` after the turn began.

        An event of an unknown type makes none.
        """
        ops: list[Op] = []
        self.seconds = self.seconds if seconds is None else seconds
        if handler := self._handlers.get(type(event)):
            handler(self, event, ops)
        self._keep_times(ops)
        return ops

    @property
    def vote(self) -> str:
        """The distinct answers of the trajectories in a line; "" before they have ended."""
        return vote_line(
            (clean(clip(answer, MAX_NAME)), len(lanes)) for answer, lanes in self.agreement.items()
        )

    def vote_op(self) -> Op:
        """Return the operation that tells of the trajectories' answers."""
        groups = [
            [clean(clip(answer, MAX_NAME)), list(lanes)] for answer, lanes in self.agreement.items()
        ]
        return {"op": "vote", "text": self.vote, "groups": groups}

    def answer_of(self, lane: int) -> str:
        """Return the answer that a trajectory came to; "" before it is known."""
        found = (answer for answer, lanes in self.agreement.items() if lane in lanes)
        return clean(clip(next(found, ""), MAX_NAME))

    def end(self) -> list[Op]:
        """Close a turn whose last event never came."""
        if self.reply is not None or self.state in {"Stopped", ""}:
            return []
        ops: list[Op] = []
        self._finish_all(ops)
        text = "Stopped before the end of the turn; what had arrived is kept."
        self._add_notice(text, ops, guaranteed=True)
        self._set_state("Stopped", ops)
        self._keep_times(ops)
        return ops

    def answer(self) -> str:
        """Return the answer so far; safe to call from another thread."""
        answers = [segment for segment in self.segments if segment.kind == "answer"]
        if not answers:
            return ""
        note = cut_note(answers[-1].missing)
        return answers[-1].peek() + (f"\n{note}\n" if note else "") + answers[-1].end

    def snapshot(self) -> Op:
        """Return the whole timeline as one operation, for a front end that missed something."""
        names = ("kind", "title", "text", "done", "state", "tokens")
        segments = [
            {name: getattr(segment, name) for name in names}
            | {"cut": cut_note(segment.missing if segment.done else segment.beyond)}
            for segment in self.segments
        ]
        reset: Op = {"op": "reset", "head": self.head, "state": self.state, "segments": segments}
        reset["tape"] = self.tape_op() if self.tape else None
        reset["sent"] = self._sent_op()
        return reset | {"cut": self.left_out, "usage": self._usage_op()}

    def _keep_times(self, ops: Iterable[Op]) -> None:
        for op in ops:
            if (index := op.get("segment")) is None:
                continue
            segment = self.segments[index]
            if op["op"] in ("segment", "run"):
                segment.began = self.seconds or 0.0
            elif op["op"] == "result" and segment.result is not None:
                segment.seconds = segment.result.seconds
            elif op["op"] == "done" and segment.seconds is None and self.seconds is not None:
                segment.seconds = self.seconds - segment.began

    def _turn_started(self, event: events.TurnStarted, ops: list[Op]) -> None:
        self.model = clean(event.model)[:MAX_NAME]
        self.endpoint = clean(event.endpoint)[:MAX_NAME]
        self.practice = event.practice
        ops.append({"op": "head", "text": self.head})
        if not self.lanes:
            self._set_state(f"Waiting for {self.model}…", ops)

    def _request_started(self, event: events.RequestStarted, ops: list[Op]) -> None:
        if event.step != self._step:
            self._step = event.step
            self._retried.clear()
            self._finish_all(ops)
        # The aggregation's request is one of our own, and that of a retry is the same.
        if event.sent and event.sent != self.sent and not self.agreement:
            self.sent = event.sent
            ops += filter(None, [self._sent_op()])
        if not self.lanes or self.agreement:
            again = f"Try {len(self._retried) + 1}: waiting" if self._retried else "Waiting"
            self._set_state(f"{again} for {self.model}…", ops)

    def _sent_op(self) -> Op | None:
        """Return the operation that shows what was sent, where that is more than the prompt."""
        if self.sent is None or not self.sent.line:
            return None
        details = [clean(line) for line in self.sent.details]
        return {"op": "sent", "text": clean(self.sent.line), "details": details}

    def _replayed(self, event: events.Replayed, ops: list[Op]) -> None:
        self._replays[event] = None
        self.made_by = event.made_by or self.made_by
        self._show_tape(events.replay_label(self._replays), ops)

    def _show_tape(self, label: str, ops: list[Op]) -> None:
        if label and label != self.replayed:
            self.replayed = label
            ops.append(self.tape_op())

    def _lanes_started(self, event: events.LanesStarted, ops: list[Op]) -> None:
        self._finish_open(ops)
        self.lanes_at = len(self.segments)
        share = self._bounded.give_half() // event.count
        for number in range(1, event.count + 1):
            self.lanes[number] = Timeline(hide_reasoning=self._hide_reasoning, max_chars=share)
        ops.append({"op": "lanes", "count": event.count})
        self._set_state(f"{event.count} trajectories…", ops)

    def _aggregating(self, event: events.Aggregating, ops: list[Op]) -> None:
        self.agreement = event.agreement
        ops.append(self.vote_op())
        self._set_state("Aggregating…", ops)

    def _retrying(self, event: events.Retrying, ops: list[Op]) -> None:
        reason = clean(_first_line(event.reason))
        delay = f"{event.delay:.0f} s" if event.delay >= 1 else f"{event.delay:.1f} s"
        self._retried.append(reason)
        ops.append({"op": "retry", "text": f"Retry {event.attempt} of {event.retries}: {reason}"})
        self._set_state(f"Retrying in {delay}: {reason}", ops)

    def _call_started(self, event: events.ToolCallStarted, ops: list[Op]) -> None:
        self._finish_open(ops)
        self._tools[event.index] = self._begin_tool(event.name, ops)
        self._set_state(f"Calling {clean(event.name)[:MAX_NAME] or NAMELESS}…", ops)

    def _call_delta(self, event: events.ToolCallDelta, ops: list[Op]) -> None:
        index = self._tools.get(event.index)
        if index is not None:
            self._bounded.append(index, clean(event.arguments), ops)

    def _tool_started(self, event: events.ToolStarted, ops: list[Op]) -> None:
        self._finish_open(ops)
        streamed = sorted(self._tools)
        if event.index < len(streamed):
            self._latest_call = streamed[event.index]
        else:  # a server that does not stream calls
            self._latest_call = max(streamed, default=-1) + 1
            self._tools[self._latest_call] = self._begin_tool(event.call.name, ops)
        index = self._tools[self._latest_call]
        if index is not None:
            self._bounded.complete(index, clean(event.call.arguments), ops)
        self._run(event.call.name, ops)

    def _approval_asked(self, event: events.ApprovalAsked, ops: list[Op]) -> None:
        index = self._tools.get(self._latest_call)
        if index is None:  # a person must see what the question is about
            title = clean(event.name)[:MAX_NAME]
            segment = Segment("tool", title, limit=MAX_ASKED, guaranteed=True)
            index = self._tools[self._latest_call] = self._bounded.begin(segment, ops)
            self._bounded.append(index, clean(event.arguments), ops)
        self.running = index
        self.segments[index].state = "asked"
        ops.append({"op": "ask", "segment": index})
        if event.question:
            self._set_state(f"Waiting for your answer to {clean(event.name)}…", ops)
            return
        self._defaults = event.defaults
        self._set_state(f"Waiting for your yes or no to {clean(event.name)}…", ops)

    def _approval_answered(self, event: events.ApprovalAnswered, ops: list[Op]) -> None:
        segment = self.segments[self.running]
        if event.question:
            self._run(segment.title, ops)
            return
        segment.edited = self._bounded.cut_text(clean(event.arguments))
        given = _names_in(event.arguments)
        defaults = [
            f"{name}={clip(text, MAX_LINE)}" for name, text in self._defaults if name not in given
        ]
        segment.defaults = self._bounded.cut_text(clean(clip(", ".join(defaults), MAX_NOTICE)))
        self._run(event.name, ops)

    def _tool_printed(self, event: events.ToolPrinted, ops: list[Op]) -> None:
        index = self._call_at(event.index)
        if index is None or (segment := self.segments[index]).result is not None:
            return
        segment.printed = printed = segment.printed or Printed()
        text = printed.feed(event.text, clears=event.clears)
        seen = {"text": text, "line": printed.line, "clears": event.clears}
        ops.append({"op": "print", "segment": index, **seen})

    def _tool_finished(self, event: events.ToolFinished, ops: list[Op]) -> None:
        index = self._call_at(event.index)
        if index is not None:
            self._add_result(index, event.result, ops)

    def _step_finished(self, event: events.StepFinished, ops: list[Op]) -> None:
        self._finish_all(ops)
        self.steps += 1
        self.usage += event.step.usage
        tokens = event.step.usage.reasoning_tokens
        if tokens and len(self._reasoning_of_step) == 1:
            (index,) = self._reasoning_of_step
            self.segments[index].tokens = tokens
            ops.append({"op": "tokens", "segment": index, "tokens": tokens})
        self._reasoning_of_step.clear()
        ops.append(self._usage_op())

    def _turn_finished(self, event: events.TurnFinished, ops: list[Op]) -> None:
        self.reply = event.reply
        if event.reply.record.failure and event.reply.record.outline == Sent():
            self.sent = None  # it was refused before it went out
        self._show_tape(event.reply.replayed, ops)
        if self._tools and event.reply.steps:  # stopped while tools ran
            for place, result in enumerate(event.reply.steps[-1].tool_results):
                index = self._call_at(place)
                if index is not None and self.segments[index].result is None:
                    self._add_result(index, result, ops)
        self._bounded.restore_last_answer(event.reply.text, ops)
        self._finish_all(ops)
        in_lanes = _kinds(*self.lanes.values())
        notice, state = _ending(event.reply, _kinds(self), in_lanes, self._retried)
        if notice:
            self._add_notice(notice, ops, guaranteed=True)
        self._set_state(state, ops)

    def _add_text(self, kind: Kind, text: str, ops: list[Op]) -> None:
        text = clean(text)
        if self._skipped == kind:
            return
        if self._open is not None and self.segments[self._open].kind == kind:
            self._bounded.append(self._open, text, ops)
            return
        held_kind, held = self._held_back
        text = without_blank_lines(held + text if held_kind == kind else text)
        if not text.strip():
            self._held_back = (kind, text)
            return
        self._held_back = (kind, "")
        self._set_state("Reasoning…" if kind == "reasoning" else "Answering…", ops)
        self._finish_open(ops)
        if kind == "reasoning" and self._hide_reasoning:
            return
        self._open = self._bounded.admit(Segment(kind), ops)
        if self._open is None:
            self._skipped = kind
            return
        if kind == "reasoning":
            self._reasoning_of_step.append(self._open)
        self._bounded.append(self._open, text, ops)

    def _call_at(self, place: int) -> int | None:
        """Return the segment of the step's n-th call: servers number calls as they like."""
        streamed = sorted(self._tools)
        return self._tools[streamed[place]] if place < len(streamed) else None

    def _run(self, name: str, ops: list[Op]) -> None:
        index = self._tools.get(self._latest_call)
        if index is not None:
            self.running = index
            self.segments[index].state = "running"
            ops.append({"op": "run", "segment": index})
        self._set_state(f"Calling {clean(name)[:MAX_NAME]}…", ops)

    def _usage_op(self) -> Op:
        tokens = {"in": self.usage.prompt_tokens, "out": self.usage.completion_tokens}
        return {"op": "usage", "steps": self.steps, **tokens}

    def _add_result(self, index: int, result: ToolResult, ops: list[Op]) -> None:
        segment = self.segments[index]
        segment.result = self._bounded.cut_result(result)
        segment.printed = None  # the result has it
        segment.state = result.outcome
        recorded = result.recorded
        ops.append({"op": "result", "segment": index, "state": segment.state, "recorded": recorded})

    def _add_notice(self, text: str, ops: list[Op], *, guaranteed: bool = False) -> None:
        self._finish_open(ops)
        add = self._bounded.begin if guaranteed else self._bounded.admit
        index = add(Segment("notice", limit=MAX_NOTICE, guaranteed=guaranteed), ops)
        if index is not None:
            self._bounded.append(index, clean(text.strip()), ops)
            self._bounded.finish(index, ops)

    def _set_state(self, text: str, ops: list[Op]) -> None:
        if text != self.state:
            self.state = text
            ops.append({"op": "state", "text": text})

    def _begin_tool(self, name: str, ops: list[Op]) -> int | None:
        title = clean(name)[:MAX_NAME] or NAMELESS
        segment = Segment("tool", title, limit=self._bounded.tool_limit)
        return self._bounded.admit(segment, ops)

    def _finish_open(self, ops: list[Op]) -> None:
        self._skipped = None
        if self._open is not None:
            self._bounded.finish(self._open, ops)
            self._open = None

    def _finish_all(self, ops: list[Op]) -> None:
        self._finish_open(ops)
        self._held_back = ("answer", "")
        for index in self._tools.values():
            if index is not None:
                self._bounded.finish(index, ops)
        self._tools.clear()

    # A table: singledispatchmethod costs more than the work on a delta.
    _handlers: ClassVar[dict[type, Callable[[Timeline, Any, list[Op]], None]]] = {
        events.ReasoningDelta: lambda self, event, ops: self._add_text(
            "reasoning", event.text, ops
        ),
        events.ContentDelta: lambda self, event, ops: self._add_text("answer", event.text, ops),
        events.ToolCallDelta: _call_delta,
        events.ToolCallStarted: _call_started,
        events.TurnStarted: _turn_started,
        events.RequestStarted: _request_started,
        events.Replayed: _replayed,
        events.Notice: lambda self, event, ops: self._add_notice(event.text, ops),
        events.Preparing: lambda self, event, ops: self._set_state(clean(event.text), ops),
        events.Retrying: _retrying,
        events.ToolStarted: _tool_started,
        events.ApprovalAsked: _approval_asked,
        events.ApprovalAnswered: _approval_answered,
        events.ToolPrinted: _tool_printed,
        events.ToolFinished: _tool_finished,
        events.StepFinished: _step_finished,
        events.LanesStarted: _lanes_started,
        events.Aggregating: _aggregating,
        events.TurnFinished: _turn_finished,
    }


def events_of(reply: Reply) -> Iterator[events.Event]:
    """Yield the events of a turn that is over, as far as its record tells."""
    endpoint = reply.record.endpoint
    yield events.TurnStarted(reply.model, endpoint.name if endpoint else "")
    if reply.replayed:
        yield events.Replayed.of(reply.replayed)
    if reply.trajectories:
        yield events.LanesStarted(len(reply.trajectories))
        yield events.Aggregating(reply.record.agreement)
    for number, step in enumerate(reply.steps, 1):
        sent = reply.record.outline if number == 1 else None
        yield events.RequestStarted(number, 1, sent)
        yield from _retries_of(reply, number)
        for part in step.reasoning_parts:
            yield events.ReasoningDelta(part.text)
        yield events.ContentDelta(step.text)
        for index, call in enumerate(step.tool_calls):
            yield events.ToolStarted(index, call)
        for index, result in enumerate(step.tool_results):
            yield events.ToolFinished(index, result)
        yield events.StepFinished(step)
    if retries := list(_retries_of(reply, len(reply.steps) + 1)):
        yield events.RequestStarted(len(reply.steps) + 1)
        yield from retries
    yield events.TurnFinished(reply)


def _retries_of(reply: Reply, step: int) -> Iterator[events.Retrying]:
    reasons = [retry.reason for retry in reply.retries if retry.step == step]
    for attempt, reason in enumerate(reasons, 1):
        yield events.Retrying(reason, 0.0, attempt, len(reasons))


def _names_in(arguments: str) -> set[str]:
    """Return the names of arguments in JSON, which may be none."""
    try:
        return set(json.loads(arguments or "{}"))
    except (ValueError, TypeError, RecursionError):
        return set()


def _kinds(*timelines: Timeline) -> set[Kind]:
    """Return the kinds of segments that something arrived in."""
    kinds = {segment.kind for timeline in timelines for segment in timeline.segments}
    return kinds - {"notice"}


def _ending(
    reply: Reply, kinds: set[Kind], in_lanes: set[Kind], retried: Sequence[str]
) -> tuple[str, str]:
    """Return the turn's last notice, "" for none, and its last state."""
    answered = "answer" in kinds
    arrived = bool(kinds or in_lanes)
    advice = _how_to_continue(reply) if arrived else ""
    if isinstance(reply.error, KeyboardInterrupt):
        kept = "what had arrived is kept" if arrived else "nothing had arrived"
        is_lost = isinstance(reply.error, TurnLost)
        line = _first_line(str(reply.error)) if is_lost else f"Stopped: {kept}."
        line += f" It was tried again: {retried[-1]}" if retried else ""
        return f"{line}{advice}", "Stopped"
    if reply.error is not None:
        name, message = type(reply.error).__name__, clip(str(reply.error).strip(), MAX_ERROR)
        first, *more = (f"{name}: {message}" if message else name).split("\n")
        first += f" Tried {len(retried) + 1} times." if retried else ""
        # One piece of advice: to go on where something arrived, else the message's own.
        if advice and RUN_AGAIN in message:
            more = [line.replace(RUN_AGAIN, f"Run `{_continue(reply)}`") for line in more]
        elif advice:
            more = [f"What had arrived is kept.{advice}"]
        return "\n".join([first, *more]), "Failed"
    if reply.finish_reason == "length":
        cut = "The answer was cut" if answered else "Cut before an answer began, the limit reached"
        return f"{cut} at max_tokens; raise it with --max-tokens.{advice}", "Done"
    if reply.finish_reason == "content_filter":
        return f"The provider's content filter ended the answer.{advice}", "Done"
    if reply.finish_reason not in ("stop", "tool_calls", "max_steps", "repetition"):
        reason = clean(_first_line(reply.finish_reason or "it gave no reason"))
        return f"The server ended the answer early ({reason}).{advice}", "Done"
    return ("" if answered else "The answer is empty."), "Done"


def _how_to_continue(reply: Reply) -> str:
    if reply.chat is None:
        return ""
    return f" ({_continue(reply)} goes on.)"


def _continue(reply: Reply) -> str:
    chat = reply.chat or "main"
    return "%kimi continue" if chat == "main" else f"%kimi continue {clean(_first_line(chat))}"


def _first_line(text: str) -> str:
    return clip((text.strip().splitlines() or [""])[0], MAX_LINE)
