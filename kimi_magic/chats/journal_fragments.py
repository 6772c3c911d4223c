"""A turn that is under way, as fragments: rows that are written as it grows.

A kernel that is killed leaves the record of before the first request, and these. Each piece of text
is written once, but for the last few words: those may turn out to be the beginning of a key. When a
step has ended, it takes the place of its fragments.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kimi_magic.chats.history import (
    CUT_OFF,
    NO_ANSWER,
    CallIds,
    cancelled,
    final_message,
    tool_messages,
)
from kimi_magic.core.errors import KimiError
from kimi_magic.core.events import (
    ContentDelta,
    Event,
    ReasoningDelta,
    RequestStarted,
    StepFinished,
    ToolCallDelta,
    ToolCallStarted,
    ToolFinished,
    ToolStarted,
    TrajectoryEnded,
)
from kimi_magic.core.messages import Message, ReasoningPart, Step, ToolCall, ToolResult, Usage
from kimi_magic.core.text import mend_surrogates
from kimi_magic.core.turn_record import VERSION, Failure, TurnRecord
from kimi_magic.secrets.redact import Redactor

if TYPE_CHECKING:
    from kimi_magic.secrets.keys import Key

__all__ = ["LOST", "Fragments", "Masks", "recovered"]

LOST = Failure("TurnLost", "The kernel ended during this turn; what had arrived is kept.")

# Characters at the end of a text in which a key may still be growing, between two blanks and
# without any; and those of a private key, which has many lines.
GROWING, LONGEST_WORD, LONGEST_KEY = 256, 4096, 24_000
LONGEST_ROW = 250_000
MOST_BLANKS = 8  # within a key, and what tells that it is one
_BLANK = re.compile(r"\s")
_PICTURE = re.compile(r"(?:iVBOR|/9j/|R0lGOD|UklGR)[A-Za-z0-9+/\s]{100,}={0,2}\s*")


class Masks(Redactor):
    """Redacts keys and what looks like one, in the base64 of a picture the keys alone.

    There the search for shapes would hit by chance, and spoil it.
    """

    def __init__(self, keys: Iterable[Key] = (), *, shapes: bool = False) -> None:
        super().__init__(keys, shapes=shapes)
        self._in_pictures = Redactor(self._keys)

    def text(self, text: str) -> str:
        if _PICTURE.fullmatch(text):
            return self._in_pictures.text(text)
        return super().text(text)


class Fragments:
    """The rows of a turn that is under way.

    Attributes
    ----------
    rows : list of str
        All of them, as JSON without secrets; a row's place is its index.
    instead_from : int or None
        The place from which the rows that were written earlier are to be deleted.
    """

    def __init__(self) -> None:
        self.rows: list[str] = []
        self._first = 0  # the place of the first row of the step under way
        self._texts: dict[tuple[str, int], _Text] = {}
        self._calls = 0
        self._new: list[dict[str, Any]] = []
        self._changed: set[int] = set()  # the places of the rows to write
        self.instead_from: int | None = None

    def take(self, event: Event) -> None:
        """Take the turn's next event; no other is to hold live values."""
        match event:
            case ContentDelta(text):
                self._text("text").append(text)
            case ReasoningDelta(text):
                self._text("reasoning", self._calls).append(text)
            case ToolCallDelta(index, arguments):
                self._text("arguments", index).append(arguments)
            case ToolCallStarted(index, name):
                self._calls = max(self._calls, index + 1)
                self._new.append({"call": index, "name": name})
            case ToolStarted(index, call):
                self._new.append({"made": index, "step": Step(tool_calls=(call,))})
            case ToolFinished(index, result):
                self._new.append({"result": index, "step": Step(tool_results=(result,))})
            case RequestStarted():  # of an answer that came to nothing, nothing is kept
                self._begin_step()
            case TrajectoryEnded(record):
                self._new.append({"ended": True, "attempt": record})
            case StepFinished(step):
                self._begin_step()
                self._new.append({"ended": True, "step": step})
            case _:
                pass

    def update(self, masks: Redactor) -> None:
        """Bring ``rows`` up to date."""
        for data in self._new:
            if "step" in data:
                data["step"] = _dump(data["step"])
            if "attempt" in data:
                data["attempt"] = data["attempt"].to_dict()
            self._put(len(self.rows), masks.value(data))
            if "ended" in data:
                self._first = len(self.rows)
        self._new.clear()
        for text in self._texts.values():
            for place, row in text.rows(masks, len(self.rows)):
                self._put(place, row)

    @property
    def are_changed(self) -> bool:
        """True if something is to be written or deleted."""
        return bool(self._changed) or self.instead_from is not None

    @property
    def unwritten(self) -> list[tuple[int, str]]:
        """The rows to write, with their places."""
        return [(place, self.rows[place]) for place in sorted(self._changed)]

    def are_written(self) -> None:
        """Note that the rows stand in the file as they are now."""
        self._changed.clear()
        self.instead_from = None

    def are_lost(self) -> None:
        """Note that the file has none of them."""
        self._changed = set(range(len(self.rows)))
        self.instead_from = None

    def _text(self, kind: str, index: int = 0) -> _Text:
        field = (kind, index)
        if field not in self._texts:
            self._texts[field] = _Text(kind, index)
        return self._texts[field]

    def _begin_step(self) -> None:
        self._new = [data for data in self._new if "ended" in data]
        self._calls = 0
        self._texts.clear()
        if len(self.rows) > self._first:
            if self.instead_from is None:
                self.instead_from = self._first
            self._changed -= set(range(self._first, len(self.rows)))
            del self.rows[self._first :]

    def _put(self, place: int, data: Mapping[str, Any]) -> None:
        row = mend_surrogates(json.dumps(data, ensure_ascii=False))
        self.rows[place : place + 1] = [row]
        self._changed.add(place)


class _Text:
    """One text of a step, of which the end is still open."""

    __slots__ = ("_arrived", "_field", "_open", "_place")

    def __init__(self, kind: str, index: int) -> None:
        self._field = (kind, index)
        self._arrived: deque[str] = deque()
        self._open = ""
        self._place: int | None = None  # of the row with the open end

    def append(self, text: str) -> None:
        for start in range(0, len(text), LONGEST_ROW):
            self._arrived.append(text[start : start + LONGEST_ROW])

    def rows(self, masks: Redactor, next_place: int) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Yield the rows that have changed, with their places."""
        if not self._arrived:
            return
        place = next_place if self._place is None else self._place
        while self._arrived:
            self._open += self._next_part()
            if cut := _settled(self._open, masks):
                yield place, self._row(self._open[:cut], masks)
                self._open = self._open[cut:]
                place = max(next_place, place + 1)
        yield place, self._row(self._open, masks)
        self._place = place

    def _next_part(self) -> str:
        pieces, length = [], 0
        while self._arrived and length < LONGEST_ROW:
            pieces.append(self._arrived.popleft())
            length += len(pieces[-1])
        return "".join(pieces)

    def _row(self, text: str, masks: Redactor) -> Mapping[str, Any]:
        kind, index = self._field
        return {kind: masks.text(text)} | ({"at": index} if index else {})


def _settled(text: str, masks: Redactor) -> int:
    """Return the length of the beginning of a text that can be masked without its end."""
    end = first = _without_growing(text)
    start = max(end - LONGEST_KEY, 0)
    whole = masks.text(text[start:]) if end else ""
    # A blank may stand within what is a key only as a whole: «Bearer …», «secret_key = …».
    for _ in range(MOST_BLANKS):
        if end <= start or masks.text(text[start:end]) + masks.text(text[end:]) == whole:
            return end
        end = _behind_blank(text, end - 1)
    return 0 if len(text) < LONGEST_KEY else first


def _without_growing(text: str) -> int:
    """Return the length of the beginning of a text in which no key is still growing."""
    if len(text) <= 2 * GROWING:
        return 0
    end = _behind_blank(text, len(text) - GROWING)
    if not end and len(text) > LONGEST_WORD:
        end = len(text) - LONGEST_WORD // 2
    key = text.rfind("-----BEGIN ", 0, end)
    if key >= 0 and len(text) - key < LONGEST_KEY:
        closed = text.find("-----END ", key)
        if closed < 0 or closed + 40 > end:
            end = key
    return end


def _behind_blank(text: str, end: int) -> int:
    """Return where the last blank before ``end`` ends; 0 if a whole word's length has none."""
    least = max(end - LONGEST_WORD, 0)
    while end > least and not _BLANK.match(text, end - 1):
        end -= 1
    return end if end > least else 0


def recovered(record: TurnRecord, fragments: Iterable[str]) -> TurnRecord:
    """Return the record of a turn that did not come to its end, with what had arrived.

    Parameters
    ----------
    record : TurnRecord
        The turn before its first request.
    fragments : iterable of str
        The rows that came after, or the first of them.

    Raises
    ------
    KimiError
        They are no fragments of a turn.
    """
    steps: list[Step] = []
    attempts: list[TurnRecord] = []
    last = _OpenStep()
    try:
        for data in map(json.loads, fragments):
            if "attempt" in data:
                attempts.append(TurnRecord.from_dict(data["attempt"]))
            elif "ended" in data:
                steps.append(_load(data["step"]))
                last = _OpenStep()
            else:
                last.take(data)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise KimiError("These are no fragments of a turn.") from error
    # A step before the last one either called tools, or gave way to another try.
    closed = [step for step in steps if step.tool_calls]
    messages = [message for step in closed for message in _messages_of(step)]
    if last:
        step = last.step(messages)
        steps.append(step)
        messages += _messages_of(step)
    elif steps and not steps[-1].tool_calls:
        messages.append(final_message(_message_of(steps[-1]), NO_ANSWER))
    return replace(
        record,
        steps=tuple(steps),
        messages=(*record.messages, *messages),
        usage=sum([*(a.usage for a in attempts), *(s.usage for s in steps)], Usage()),
        trajectories=tuple(attempts),
        finish_reason=None,
        failure=LOST,
    )


class _OpenStep:
    """The step that was under way."""

    def __init__(self) -> None:
        self._text = ""
        self._reasoning: dict[int, str] = {}
        self._names: dict[int, str] = {}
        self._arguments: dict[int, str] = {}
        self._made: dict[int, ToolCall] = {}
        self._results: dict[int, ToolResult] = {}

    def __bool__(self) -> bool:
        return bool(self._text or self._reasoning or self._names or self._made or self._results)

    def take(self, data: Mapping[str, Any]) -> None:
        at = data.get("at", 0)
        if "text" in data:
            self._text += data["text"]
        elif "reasoning" in data:
            self._reasoning[at] = self._reasoning.get(at, "") + data["reasoning"]
        elif "arguments" in data:
            self._arguments[at] = self._arguments.get(at, "") + data["arguments"]
        elif "call" in data:
            self._names[data["call"]] = data["name"]
        elif "made" in data:
            self._made[data["made"]] = _load(data["step"]).tool_calls[0]
        elif "result" in data:
            self._results[data["result"]] = _load(data["step"]).tool_results[0]

    def step(self, earlier: Sequence[Message]) -> Step:
        calls = self._calls(earlier)
        results = [
            self._results.get(place) or cancelled(call, begun=place in self._made)
            for place, call in calls.items()
        ]
        return Step(
            self._text,
            tuple(ReasoningPart(t, None, n) for n, t in sorted(self._reasoning.items()) if t),
            tuple(calls.values()),
            # Before the first is made, the calls are a part of an answer that was cut.
            tuple(results) if self._made else (),
            Usage(requests=1),
        )

    def _calls(self, earlier: Sequence[Message]) -> dict[int, ToolCall]:
        """Return the calls by their places, each with an id of its own once they are made."""
        places = sorted({*self._names, *self._made})
        calls = {
            place: self._made.get(place)
            or ToolCall("", self._names[place], self._arguments.get(place, ""))
            for place in places
        }
        if self._made:
            made = Message("assistant", tool_calls=tuple(self._made.values()))
            others = [place for place in places if place not in self._made]
            asked = Message("assistant", tool_calls=tuple(calls[place] for place in others))
            given = CallIds([*earlier, made], keep=True).give(asked)
            calls |= dict(zip(others, given.tool_calls, strict=True))
        return calls


def _messages_of(step: Step) -> list[Message]:
    """Return the messages of a step that asked for calls, or of the part of one."""
    if step.tool_results:
        return tool_messages(_message_of(step), step.tool_results)
    return [final_message(_message_of(step), CUT_OFF)]


def _message_of(step: Step) -> Message:
    return Message(
        "assistant", step.text, reasoning=step.reasoning_parts, tool_calls=step.tool_calls
    )


def _dump(step: Step) -> Any:
    return TurnRecord(steps=(step,)).to_dict()["steps"][0]


def _load(data: Any) -> Step:
    return TurnRecord.from_dict({"version": VERSION, "steps": [data]}).steps[0]
