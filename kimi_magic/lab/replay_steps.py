"""A stored turn as moments, which a replay shows one after the other."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from typing import Any

from kimi_magic.core import events
from kimi_magic.core.events import Envelope
from kimi_magic.core.messages import Step
from kimi_magic.core.reply import Reply
from kimi_magic.core.step_table import StepRow, step_rows
from kimi_magic.display.plain import PlainView
from kimi_magic.display.view import Throttle, ViewOptions

__all__ = ["Moment", "moments_of", "page_moments", "text_pages"]

# Characters of reasoning in one moment: about a paragraph.
MAX_PIECE = 500
_PARAGRAPH = re.compile(r"(?<=\n)\n+")
_SENTENCE = re.compile(r"(?<=[.!?。！？\n])\s+")
# Seconds between two moments when they are played.
SHORTEST, LONGEST = 0.5, 8.0
READ_PER_SECOND = 40  # characters, where the times of a turn are not known


@dataclass(frozen=True, slots=True)
class Moment:
    """The events that appear together.

    Attributes
    ----------
    envelopes : tuple of Envelope
    is_answer : bool
        It shows the final answer, or comes after it.
    """

    envelopes: tuple[Envelope, ...]
    is_answer: bool = False

    @property
    def seconds(self) -> float:
        """Time of the turn at which it is there."""
        return max(envelope.seconds for envelope in self.envelopes)

    @property
    def chars(self) -> int:
        """Length of its texts."""
        return sum(len(getattr(envelope.event, "text", "")) for envelope in self.envelopes)


def moments_of(reply: Reply) -> list[Moment]:
    """Return a turn that is over as moments, in order: its prompt first, its answer last."""
    rows = {(row.lane, row.step): row for row in step_rows(reply.record)}
    record = reply.record
    endpoint = record.endpoint.name if record.endpoint else ""
    opening: list[events.Event] = [events.TurnStarted(reply.model, endpoint)]
    opening += [events.Replayed.of(reply.replayed)] if reply.replayed else []
    opening += [events.Notice(f"Prompt: {record.prompt}")] if record.prompt.strip() else []
    moments = [Moment(tuple(Envelope(0.0, event) for event in opening))]
    if reply.trajectories:
        began = Envelope(0.0, events.LanesStarted(len(reply.trajectories)))
        lanes = [
            _trajectory(number, each, rows) for number, each in enumerate(reply.trajectories, 1)
        ]
        lanes[0] = replace(lanes[0], envelopes=(began, *lanes[0].envelopes))
        moments += lanes
    ended = max((moment.seconds for moment in moments), default=0.0)
    steps = reply.steps  # which the reply makes anew each time
    for number, step in enumerate(steps, 1):
        is_last = number == len(steps)
        made = list(_moments_of_step(step, rows[0, number], is_last=is_last))
        moments += made
        ended = max(ended, made[-1].seconds)
    voted = Envelope(ended, events.Aggregating(record.agreement))
    if reply.trajectories:  # the vote is an answer as well
        at = next((i for i, m in enumerate(moments) if m.is_answer), len(moments))
        if at == len(moments):
            moments.append(Moment((voted,)))
        else:
            answer = moments[at]
            voted = replace(voted, seconds=answer.envelopes[0].seconds)
            moments[at] = replace(answer, envelopes=(voted, *answer.envelopes))
    moments[-1] = _with(moments[-1], Envelope(ended, events.TurnFinished(reply)))
    return moments


def _trajectory(number: int, reply: Reply, rows: dict[tuple[int, int], StepRow]) -> Moment:
    """Return a whole trajectory as one moment: the reader unfolds what is of interest."""
    own = [
        envelope
        for place, step in enumerate(reply.steps, 1)
        for moment in _moments_of_step(step, rows[number, place], is_last=False)
        for envelope in moment.envelopes
    ]
    ended = max((envelope.seconds for envelope in own), default=0.0)
    started = Envelope(0.0, events.TurnStarted(reply.model, ""))
    whole = [started, *own, Envelope(ended, events.TurnFinished(reply))]
    return Moment(tuple(replace(envelope, lane=number) for envelope in whole))


def _moments_of_step(step: Step, row: StepRow, *, is_last: bool) -> Iterator[Moment]:
    """Yield the moments of a step, at the times at which what they show began to come."""
    times = {phase: (start, end) for phase, start, end in row.phases()}
    requested = row.began + row.seconds - row.tool_seconds
    asked = Envelope(row.began, events.RequestStarted(row.step))
    made: list[Moment] = []
    start, end = times.get("reasoning", (requested, requested))
    pieces = [piece for part in step.reasoning_parts for piece in _pieces(part.text)]
    length = sum(map(len, pieces)) or 1
    at = 0
    for piece in pieces:
        seconds = start + (end - start) * at / length
        made.append(Moment((Envelope(seconds, events.ReasoningDelta(piece)),)))
        at += len(piece)
    start, _ = times.get("answer", (requested, requested))
    if step.text:
        said = Envelope(start, events.ContentDelta(step.text))
        made.append(Moment((said,), is_answer=is_last and bool(step.text.strip())))
    for index, call in enumerate(step.tool_calls):
        made.append(Moment((Envelope(requested, events.ToolStarted(index, call)),)))
    for index, result in enumerate(step.tool_results):
        requested += result.seconds
        made.append(Moment((Envelope(requested, events.ToolFinished(index, result)),)))
    made = made or [Moment((asked,))]
    if made[0].envelopes[0] is not asked:
        made[0] = replace(made[0], envelopes=(asked, *made[0].envelopes))
    made[-1] = _with(made[-1], Envelope(requested, events.StepFinished(step)))
    shown = False
    for moment in made:
        shown = shown or moment.is_answer
        yield replace(moment, is_answer=shown)


def _with(moment: Moment, envelope: Envelope) -> Moment:
    return replace(moment, envelopes=(*moment.envelopes, envelope))


def _pieces(text: str) -> Iterator[str]:
    """Cut a text into paragraphs, and long ones at the ends of sentences; nothing is lost."""
    for paragraph in _cut_after(_PARAGRAPH, text):
        if len(paragraph) <= MAX_PIECE:
            yield paragraph
            continue
        piece = ""
        for sentence in _cut_after(_SENTENCE, paragraph):
            if piece and len(piece) + len(sentence) > MAX_PIECE:
                yield piece
                piece = ""
            piece += sentence
        yield piece


def _cut_after(pattern: re.Pattern[str], text: str) -> Iterator[str]:
    start = 0
    for found in pattern.finditer(text):
        yield text[start : found.end()]
        start = found.end()
    if start < len(text):
        yield text[start:]


def page_moments(moments: Iterable[Moment], options: ViewOptions) -> list[dict[str, Any]]:
    """Return moments as a page draws them: operations, the time of the turn, the pause before."""
    from kimi_magic.display.live.live_view import Outbox
    from kimi_magic.display.live.page import Page

    ticks = itertools.count()
    page = Page(options, lambda: float(next(ticks)))  # a clock that never makes a drawing wait
    made: list[dict[str, Any]] = []
    before = 0.0
    for moment in moments:
        outbox = Outbox()
        for envelope in moment.envelopes:
            for op in page.apply(envelope):
                outbox.add(op)
        ops = outbox.take(page.draw(), draws=True)
        over = any(isinstance(each.event, events.TurnFinished) for each in moment.envelopes)
        if made and not over and not any(map(_is_seen, ops)):  # there is no room for it
            made[-1]["ops"] += ops
            continue
        passed = moment.seconds - before or moment.chars / READ_PER_SECOND
        before = moment.seconds
        facts = {"seconds": moment.seconds, "pause": min(max(passed, SHORTEST), LONGEST)}
        made.append({"ops": ops, "answer": moment.is_answer, **facts})
    return made


def _is_seen(op: dict[str, Any]) -> bool:
    """Return True for an operation that changes more than the line of figures below a turn."""
    return "segment" in op or "lane" in op or op["op"] in ("lanes", "vote", "reset")


def text_pages(moments: Iterable[Moment], options: ViewOptions) -> tuple[list[str], int]:
    """Return moments as the pages of text that a plain view writes, and how many hide the answer.

    A moment of which a plain view shows nothing, such as a call that has no result yet, is on the
    page of the next one.
    """
    view = PlainView(options, Throttle(1e9))
    pages: list[str] = []
    before, text = 0, ""
    for moment in moments:
        with redirect_stdout(StringIO()) as page:
            for envelope in moment.envelopes:
                view.handle(envelope)
            last = moment.envelopes[-1]
            if isinstance(last.event, events.TurnFinished) and not last.lane:
                view.close()
            view.tick()
        text += page.getvalue()
        if text.strip():
            pages.append(text)
            text = ""
            before += not moment.is_answer
    return pages, before
