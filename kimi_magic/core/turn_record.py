"""A turn as plain data, which a journal, a notebook or a tape can store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from kimi_magic.core.errors import KimiError
from kimi_magic.core.interrupts import whole_imports
from kimi_magic.core.messages import Message, Step, ToolCall, Usage
from kimi_magic.core.sent import Sent
from kimi_magic.core.shown import Shown
from kimi_magic.core.text import clip

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = ["VERSION", "EndpointFacts", "Failure", "Retry", "TurnRecord"]

VERSION = 2
NO_RECORD = "This is no record of a turn: {}."


@dataclass(frozen=True, slots=True, repr=False)
class EndpointFacts(Shown):
    """The endpoint that a turn was sent to; ``base_url`` is empty for the embedded engine.

    The values of ``headers`` name environment variables, as ``${NAME}``, and hold nothing of them.
    They are not stored. ``wire`` is the API that the server speaks, ``chat`` or ``messages``.
    """

    name: str
    base_url: str = ""
    key_env: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    wire: str = "chat"


@dataclass(frozen=True, slots=True, repr=False)
class Failure(Shown):
    """The error that ended a turn: the name of its class, and its message."""

    kind: str
    message: str


@dataclass(frozen=True, slots=True, repr=False)
class Retry(Shown):
    """A request that failed and was sent again: the number of its step, from 1, and why."""

    step: int
    reason: str


@dataclass(frozen=True, slots=True, repr=False)
class TurnRecord(Shown):
    """Everything about a turn that is data.

    Live objects stay outside: the values that tools returned, their functions, the answer as an
    instance of the user's own class, the exception. ``Reply`` holds those.

    Attributes
    ----------
    steps : tuple of Step
        Their tool results carry no ``value``.
    messages : tuple of Message
        The conversation: what the first request held, and what came of it.
    sent : int
        Count of the messages that the first request held. In partial mode it held the last two of
        them as one.
    usage : Usage
        Summed over all requests, discarded ones included.
    finish_reason : str or None
        See ``Reply``.
    model : str
    chat : str or None
    parameters : mapping
        What the request that gave the answer held beside its messages, its ``response_format``
        included, and the tools that were offered before.
    endpoint : EndpointFacts or None
        None where the turn never had one.
    data : any
        The answer as JSON data, where a schema was asked for.
    failure : Failure or None
    prompt : str
        The prompt as it was asked, without the summaries that went along.
    cell, run : str
        The ids of the notebook cell that asked, and of that run of it; "" where there are none.
    fresh : bool
        The turn began its chat anew.
    started : float
        Seconds of Unix time.
    trajectories : tuple of TurnRecord
        The attempts that the answer was aggregated from, in heavy mode.
    agreement : mapping
        The numbers, from 1, of the attempts that came to each distinct answer, most of them first.
    replayed : str
        The tape that answers came from, such as ``lesson.tape`` or ``lesson.tape, scripted, inputs
        differ``; "" where all were asked for.
    outline : Sent
        What the first request held: names and counts, and no value of the notebook.
    sweep : str
        The row of a ``kimi.sweep`` that asked, by which a later sweep finds it; "" elsewhere.
    retries : tuple of Retry
        The requests that failed and were sent again, in order.
    """

    steps: tuple[Step, ...] = ()
    messages: tuple[Message, ...] = ()
    sent: int = 0
    usage: Usage = field(default_factory=Usage)
    finish_reason: str | None = None
    model: str = ""
    chat: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    endpoint: EndpointFacts | None = None
    data: Any = None
    failure: Failure | None = None
    prompt: str = ""
    cell: str = ""
    run: str = ""
    fresh: bool = False
    started: float = 0.0
    trajectories: tuple[TurnRecord, ...] = ()
    agreement: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    replayed: str = ""
    outline: Sent = field(default_factory=Sent)
    sweep: str = ""
    retries: tuple[Retry, ...] = ()

    def _facts(self) -> Iterator[tuple[str, Any]]:
        yield "prompt", self.prompt
        yield "text", self.text
        if self.reasoning:
            yield "reasoning", self.reasoning
        yield "steps", len(self.steps)
        if self.trajectories:
            yield "trajectories", len(self.trajectories)
        for name in ("model", "chat", "finish_reason", "failure", "replayed"):
            if fact := getattr(self, name):
                yield name, fact

    @property
    def text(self) -> str:
        """The final answer, or as much of it as arrived."""
        return self.steps[-1].text if self.steps else ""

    @property
    def reasoning(self) -> str:
        """The reasoning of all steps, in order."""
        return "\n\n".join(step.reasoning for step in self.steps if step.reasoning)

    @property
    def exchange(self) -> tuple[Message, ...]:
        """The prompt and what came of it, as later requests of the chat repeat it.

        Empty where nothing came: a prompt without an answer is not repeated.
        """
        own = self.messages[max(self.sent - 1, 0) :]
        return own if len(own) > 1 else ()

    def without_history(self) -> TurnRecord:
        """Return the record without the messages of earlier turns, which have their own."""
        first = max(self.sent - 1, 0)
        system = tuple(message for message in self.messages[:first] if message.role == "system")
        messages = (*system, *self.messages[first:])
        return replace(
            self,
            messages=messages,
            sent=len(system) + self.sent - first,
            trajectories=tuple(each.alone() for each in self.trajectories),
        )

    def alone(self) -> TurnRecord:
        """Return what is a trajectory's own: the prompt and all around it are the turn's."""
        names = (
            *("steps", "usage", "finish_reason", "model", "data", "failure", "started"),
            *("replayed", "retries"),
        )
        return TurnRecord(**{name: getattr(self, name) for name in names})

    def with_history(self, history: Iterable[Message]) -> TurnRecord:
        """Return the record with the messages of earlier turns before its prompt."""
        first = max(self.sent - 1, 0)
        before = (*self.messages[:first], *history)
        messages = (*before, *self.messages[first:])
        return replace(self, messages=messages, sent=len(before) + self.sent - first)

    def with_call_ids(self, new: Callable[[str], str]) -> TurnRecord:
        """Return the record with other ids of its calls, in the steps and in the messages."""

        def renamed(calls: tuple[ToolCall, ...]) -> tuple[ToolCall, ...]:
            return tuple(replace(call, id=new(call.id)) for call in calls)

        steps = tuple(
            replace(
                step,
                tool_calls=renamed(step.tool_calls),
                tool_results=tuple(replace(r, call_id=new(r.call_id)) for r in step.tool_results),
            )
            for step in self.steps
        )
        messages = tuple(
            replace(
                message,
                tool_calls=renamed(message.tool_calls),
                tool_call_id=None if message.tool_call_id is None else new(message.tool_call_id),
            )
            for message in self.messages
        )
        return replace(self, steps=steps, messages=messages)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON data, the form that ``docs/turn.md`` describes.

        Fields that have their default are left out, and so are the headers of the endpoint.
        """
        data: dict[str, Any] = _adapter().dump_python(
            self,
            mode="json",
            exclude_defaults=True,
            exclude={"endpoint": {"headers"}, "trajectories": True},
        )
        if self.trajectories:
            data["trajectories"] = [each.to_dict() for each in self.trajectories]
        if self.messages:
            pairs = zip(self.messages, data["messages"], strict=True)
            data["messages"] = list(_shortened(pairs, self.steps, data.get("steps", ())))
        return {"version": VERSION} | data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TurnRecord:
        """Read what ``to_dict`` wrote, in this version or an earlier one.

        Unknown fields are ignored.

        Raises
        ------
        KimiError
            It is no record of a turn, or one that a newer version wrote.
        """
        with whole_imports():
            from pydantic import ValidationError

        version = data.get("version")
        if not isinstance(version, int):
            raise KimiError(NO_RECORD.format("it has no version"))
        if version > VERSION:
            raise KimiError(
                f"A newer kimi-magic wrote this record (version {clip(str(version), 20)}; this one "
                f"reads {VERSION}).\nUpdate with `pip install -U kimi-magic`."
            )
        fields = {k: v for k, v in data.items() if k != "version"}
        if "messages" in fields:
            try:
                fields["messages"] = [_whole(m, data.get("steps", ())) for m in fields["messages"]]
            except (LookupError, TypeError, ValueError, AttributeError):
                raise KimiError(NO_RECORD.format("messages does not fit")) from None
        attempts = fields.pop("trajectories", ())
        try:
            record = _adapter().validate_python(fields)
        except ValidationError as error:
            place = " ".join(".".join(map(str, error.errors()[0]["loc"])).split())
            raise KimiError(NO_RECORD.format(f"{clip(place, 80)} does not fit")) from None
        if not isinstance(attempts, list | tuple) or not all(map(_is_attempt, attempts)):
            raise KimiError(NO_RECORD.format("trajectories does not fit"))
        return replace(record, trajectories=tuple(map(cls.from_dict, attempts)))


# The texts of a turn stand in its steps. A message that repeats them refers to its step, or to the
# result of a tool by the places of step and call, and has only the fields in which it differs.
_OF_STEP = {"content": "text", "reasoning": "reasoning_parts", "tool_calls": "tool_calls"}
_OF_RESULT = {"content": "content", "tool_call_id": "call_id", "name": "name"}


def _shortened(
    messages: Iterable[tuple[Message, dict[str, Any]]],
    steps: Sequence[Step],
    stored: Sequence[Mapping[str, Any]],
) -> Iterator[dict[str, Any]]:
    """Yield stored messages, with references in the place of what the steps hold as well."""
    place = 0
    results: dict[str, tuple[int, int]] = {}
    for message, data in messages:
        if message.role == "assistant":
            found = next((i for i in range(place, len(steps)) if _repeats(message, steps[i])), None)
            if found is not None:
                place = found + 1
                results = {r.call_id: (found, j) for j, r in enumerate(steps[found].tool_results)}
                yield {"step": found} | _differing(data, stored[found], _OF_STEP)
                continue
        elif message.role == "tool" and message.tool_call_id in results:
            i, j = results[message.tool_call_id]
            if message.content == steps[i].tool_results[j].content:
                result = stored[i]["tool_results"][j]
                yield {"result": [i, j]} | _differing(data, result, _OF_RESULT)
                continue
        yield data


def _repeats(message: Message, step: Step) -> bool:
    return bool(
        (step.text and message.content == step.text)
        or (step.reasoning_parts and message.reasoning == step.reasoning_parts)
        or (step.tool_calls and message.tool_calls == step.tool_calls)
    )


def _differing(
    message: dict[str, Any], source: Mapping[str, Any], names: Mapping[str, str]
) -> dict[str, Any]:
    """Return the fields of a message that are not those of its source, None for its defaults."""
    data = dict(message)
    for name, there in names.items():
        own, other = data.get(name), source.get(there)
        if own == other:
            data.pop(name, None)
        else:
            data[name] = own
    return data


def _whole(message: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return a stored message with what it refers to in its place."""
    if "step" in message:
        source, names = steps[_place(message["step"])], _OF_STEP
    elif "result" in message:
        step, call = message["result"]
        source, names = steps[_place(step)]["tool_results"][_place(call)], _OF_RESULT
    else:
        return message
    repeated = {name: source[there] for name, there in names.items() if there in source}
    whole = {**repeated, **message}
    return {name: value for name, value in whole.items() if value is not None}


def _is_attempt(data: Any) -> bool:
    """Return True for what may be a turn that has no trajectories itself."""
    return isinstance(data, Mapping) and "trajectories" not in data


def _place(number: Any) -> int:
    if not isinstance(number, int) or number < 0:
        raise LookupError(number)
    return number


@cache
def _adapter() -> TypeAdapter[TurnRecord]:
    with whole_imports():
        from pydantic import TypeAdapter

        return TypeAdapter(TurnRecord)
