"""The events of a turn, as small frozen values, and who hears them.

The loop yields them in order; views, ``kimi.stream`` and whoever else watches fold them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from kimi_magic.core.messages import Step, ToolCall, ToolResult
from kimi_magic.core.reply import Reply
from kimi_magic.core.sent import Sent
from kimi_magic.core.shown import Shown
from kimi_magic.core.text import clean, clip
from kimi_magic.core.turn_record import TurnRecord

__all__ = [
    "Aggregating",
    "ApprovalAnswered",
    "ApprovalAsked",
    "ContentDelta",
    "Envelope",
    "Event",
    "LaneEvent",
    "LanesStarted",
    "Notice",
    "Preparing",
    "ReasoningDelta",
    "Replayed",
    "RequestStarted",
    "Retrying",
    "Sink",
    "StepFinished",
    "ToolCallDelta",
    "ToolCallStarted",
    "ToolFinished",
    "ToolPrinted",
    "ToolStarted",
    "TrajectoryEnded",
    "TurnFinished",
    "TurnPrepared",
    "TurnStarted",
    "joined_label",
    "replay_label",
]

SCRIPTED, IN_PART, DIFFERS = "scripted", "in part", "inputs differ"
MAX_TAPE_NAME = 100


@dataclass(frozen=True, slots=True, repr=False)
class TurnStarted(Shown):
    """The turn begins, or begins anew because another model answers.

    ``practice`` is true where the embedded practice model answers.
    """

    model: str
    endpoint: str
    practice: bool = False


@dataclass(frozen=True, slots=True, repr=False)
class TurnPrepared(Shown):
    """The first request is ready; ``record`` is the turn so far: its prompt and what goes along.

    It comes again where the turn has to begin anew, with another model or a looser schema. It is
    for sinks that keep turns; ``kimi.stream`` does not yield it.
    """

    record: TurnRecord


@dataclass(frozen=True, slots=True, repr=False)
class Notice(Shown):
    """One line for the reader about the turn itself."""

    text: str


@dataclass(frozen=True, slots=True, repr=False)
class Preparing(Shown):
    """Work before the turn can start (a download, an engine that starts).

    Each one replaces the one before; none is kept in the record.
    """

    text: str


@dataclass(frozen=True, slots=True, repr=False)
class RequestStarted(Shown):
    """A request is on its way; ``step`` and ``attempt`` count from 1.

    ``sent`` is what the turn's first request holds; None for later ones.
    """

    step: int
    attempt: int = 1
    sent: Sent | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Replayed(Shown):
    """The answer to a request comes from a tape.

    ``tape`` is the file's name, ``made_by`` says what was recorded (a model's name, ``scripted`` or
    ``engine``). ``differs`` is true where the same was asked with other inputs when it was.
    """

    tape: str
    made_by: str
    differs: bool = False

    @property
    def label(self) -> str:
        """The form of ``TurnRecord.replayed``: ``lesson.tape, scripted, inputs differ``."""
        return replay_label([self])

    @classmethod
    def of(cls, label: str) -> Replayed:
        """Read what ``label`` wrote; of who made the tape it tells no more than ``scripted``."""
        tape, marks = label, set()
        while (cut := tape.rpartition(", "))[2] in (SCRIPTED, IN_PART, DIFFERS) and cut[0]:
            tape = cut[0]
            marks.add(cut[2])
        return cls(tape, SCRIPTED if SCRIPTED in marks else "", DIFFERS in marks)


def replay_label(replays: Iterable[Replayed], requests: int = 0) -> str:
    """Return the text of ``TurnRecord.replayed`` for the replays of a turn; "" for none.

    The name of the tape, then ``scripted`` where no model made what was played, ``in part`` where
    fewer than the turn's ``requests`` were played, and ``inputs differ``.
    """
    played = list(replays)
    if not played:
        return ""
    # Cut before the marks follow: a long name must not push them out of sight.
    names = dict.fromkeys(_name(replay.tape) for replay in played)
    marks = {
        SCRIPTED: any(replay.made_by == SCRIPTED for replay in played),
        IN_PART: len(played) < requests,
        DIFFERS: any(replay.differs for replay in played),
    }
    return ", ".join([" + ".join(names), *(mark for mark, holds in marks.items() if holds)])


def joined_label(labels: Iterable[str]) -> str:
    """Return the label of a turn of these parts, "" for one that was asked for."""
    given = list(labels)
    asked = any(not label or IN_PART in label.split(", ")[1:] for label in given)
    played = [Replayed.of(label) for label in given if label]
    return replay_label(played, len(played) + asked)


def _name(tape: str) -> str:
    return clip(" ".join(clean(tape).split()), MAX_TAPE_NAME) or "unnamed"


@dataclass(frozen=True, slots=True, repr=False)
class Retrying(Shown):
    """A request failed and goes out again after ``delay`` seconds."""

    reason: str
    delay: float
    attempt: int
    retries: int


@dataclass(frozen=True, slots=True, repr=False)
class ReasoningDelta(Shown):
    """More of the model's reasoning."""

    text: str


@dataclass(frozen=True, slots=True, repr=False)
class ContentDelta(Shown):
    """More of the answer."""

    text: str


@dataclass(frozen=True, slots=True, repr=False)
class ToolCallStarted(Shown):
    """The model begins to ask for a tool; ``index`` counts the calls of the step from 0."""

    index: int
    name: str


@dataclass(frozen=True, slots=True, repr=False)
class ToolCallDelta(Shown):
    """More of a call's arguments, as JSON text."""

    index: int
    arguments: str


@dataclass(frozen=True, slots=True, repr=False)
class ToolStarted(Shown):
    """A call is made; ``index`` is its place among the calls of the step, from 0."""

    index: int
    call: ToolCall


@dataclass(frozen=True, slots=True, repr=False)
class ApprovalAsked(Shown):
    """A person is asked whether a call may be made, before it runs.

    ``defaults`` are those that apply beside the arguments, each with its parameter's name. With
    ``question``, the running call itself asks, and the arguments are the answer to be sent.
    """

    name: str
    arguments: str
    defaults: tuple[tuple[str, str], ...] = ()
    question: bool = False


@dataclass(frozen=True, slots=True, repr=False)
class ApprovalAnswered(Shown):
    """The person has answered.

    ``agreed`` is True if the call is made, and ``arguments`` are those that the person changed, as
    JSON text. With ``question``, ``agreed`` is True if the answer is sent.
    """

    name: str
    agreed: bool
    arguments: str = ""
    question: bool = False


@dataclass(frozen=True, slots=True, repr=False)
class ToolPrinted(Shown):
    """A call that is under way has printed something.

    ``text`` is as it came, with carriage returns and escape sequences; of a flood it is a part.
    ``clears`` is true where what was printed before is to be forgotten. ``ToolFinished`` has the
    whole. ``kimi.stream`` yields it for tools with ``parallel=True`` only: any other keeps the
    thread busy that the events are taken in.
    """

    index: int
    text: str
    clears: bool = False


@dataclass(frozen=True, slots=True, repr=False)
class ToolFinished(Shown):
    """A call has given its result, or has failed."""

    index: int
    result: ToolResult


@dataclass(frozen=True, slots=True, repr=False)
class StepFinished(Shown):
    """One model call, and the tools that it asked for, are done."""

    step: Step


@dataclass(frozen=True, slots=True, repr=False)
class LanesStarted(Shown):
    """So many trajectories of the turn begin, with the numbers from 1 on."""

    count: int


@dataclass(frozen=True, slots=True, repr=False)
class Aggregating(Shown):
    """The trajectories have ended and are aggregated.

    ``agreement`` has the numbers of those that came to each distinct answer, most of them first.
    """

    agreement: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True, repr=False)
class TurnFinished(Shown):
    """The last event of a turn."""

    reply: Reply


@dataclass(frozen=True, slots=True, repr=False)
class TrajectoryEnded(Shown):
    """A trajectory has come to its end; for what keeps turns, which hears no more of it."""

    record: TurnRecord


@dataclass(frozen=True, slots=True, repr=False)
class LaneEvent(Shown):
    """An event of one of the trajectories of a turn, as ``kimi.stream`` yields it."""

    lane: int
    event: Event


Event = (
    TurnStarted
    | TurnPrepared
    | Notice
    | Preparing
    | RequestStarted
    | Retrying
    | Replayed
    | ReasoningDelta
    | ContentDelta
    | ToolCallStarted
    | ToolCallDelta
    | ToolStarted
    | ApprovalAsked
    | ApprovalAnswered
    | ToolPrinted
    | ToolFinished
    | StepFinished
    | LanesStarted
    | Aggregating
    | LaneEvent
    | TrajectoryEnded
    | TurnFinished
)


@dataclass(frozen=True, slots=True, repr=False)
class Envelope(Shown):
    """An event with the time and the place of its happening.

    Attributes
    ----------
    seconds : float
        Time since the turn began.
    event : Event
    lane : int
        Which of the turn's lanes it belongs to; 0 where there is one.
    """

    seconds: float
    event: Event
    lane: int = 0


class Sink(Protocol):
    """Hears the events of a turn: a view, a chat, a journal."""

    def handle(self, envelope: Envelope) -> None:
        """Take the next event; the last one is ``TurnFinished``."""

    def tick(self) -> None:
        """Do what was put off; called about every 50 ms while the turn waits."""

    def close(self) -> None:
        """Finish; called once, however the turn ended."""
