"""A turn in the form in which a notebook carries it.

It is the form of ``TurnRecord.to_dict`` without all that changes from run to run or tells of the
machine: the same answers leave the same bytes. It is redacted, and no longer than the notebook is
to be. The outputs of tools are left to the record's HTML, which shows them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from kimi_magic.chats.history import NO_ANSWER
from kimi_magic.core.messages import (
    ImagePart,
    Message,
    Part,
    ReasoningPart,
    Step,
    TextPart,
    Timings,
    ToolCall,
    ToolResult,
    Usage,
)
from kimi_magic.core.sent import Sent
from kimi_magic.core.text import clip, keep_ends, mend_surrogates
from kimi_magic.core.turn_record import VERSION, EndpointFacts, TurnRecord
from kimi_magic.secrets.redact import Redactor

__all__ = ["portable"]

LEAST_TEXT = 400  # characters of a text before whole parts are left out
MAX_NAME = 200
_ID = re.compile(r"(functions\..+:)\d+", re.DOTALL)


def portable(
    record: TurnRecord, redactor: Redactor, *, max_chars: int, times: bool = False
) -> dict[str, Any]:
    """Return a turn as JSON data that ``TurnRecord.from_dict`` reads, of so many characters.

    ``cut`` says what is missing of it: the number of ``characters`` of texts, of ``pictures``, and
    the names of the parts that are ``left_out``. With ``times``, the moments and the counts that
    are of this run alone go along.
    """
    whole = record.without_history()
    steady, *attempts = (
        _renumbered(_steady(each, times=times)) for each in (whole, *whole.trajectories)
    )
    steady = replace(steady, trajectories=tuple(attempts))
    cut: dict[str, Any] = {}
    try:
        masked = redactor.value(steady)
    except RecursionError:
        masked = redactor.value(replace(steady, data=None, parameters={}))
        cut = {"left_out": ["data", "parameters"]}
    return _bounded(masked, cut, max_chars)


def _steady(record: TurnRecord, *, times: bool) -> TurnRecord:
    """Leave out what is of this run, of this machine, or shown in HTML, as logprobs are."""
    steps = tuple(
        replace(
            step,
            tool_results=tuple(
                ToolResult(
                    result.name,
                    result.content,
                    error=result.error,
                    call_id=result.call_id,
                    seconds=result.seconds if times else 0.0,
                    recorded=result.recorded,
                )
                for result in step.tool_results
            ),
            usage=step.usage if times else step.usage.steady,
            timings=step.timings if times else Timings(),
            logprobs=(),
            reasoning_logprobs=(),
        )
        for step in record.steps
    )
    endpoint = record.endpoint
    # An endpoint that was given as a URL is named by it.
    named = endpoint is not None and "://" not in endpoint.name
    return replace(
        record,
        steps=steps,
        usage=record.usage if times else sum((step.usage for step in steps), Usage()),
        finish_reason=record.finish_reason and clip(record.finish_reason, MAX_NAME),
        model=clip(record.model, MAX_NAME),
        endpoint=EndpointFacts(clip(endpoint.name, MAX_NAME), wire=clip(endpoint.wire, MAX_NAME))
        if endpoint and named
        else None,
        cell="",  # the notebook's own id of the cell holds
        run="",
        started=record.started if times else 0.0,
        sweep="",  # found in the journal alone
        retries=record.retries if times else (),
    )


def _renumbered(record: TurnRecord) -> TurnRecord:
    """Number the ids of calls from 0: servers draw them at random, or count over a whole chat."""
    new: dict[str, str] = {}

    def again(call_id: str) -> str:
        if call_id not in new:
            found = _ID.fullmatch(call_id)
            new[call_id] = f"{found[1] if found else 'call_'}{len(new)}"
        return new[call_id]

    return record.with_call_ids(again)


def _bounded(record: TurnRecord, lost: dict[str, Any], max_chars: int) -> dict[str, Any]:
    """Return the form of as much of a record as fits; ``lost`` is missing already."""
    for less, cut in _shorter(record, lost, max_chars):
        try:
            text = json.dumps(less.to_dict() | ({"cut": cut} if cut else {}), ensure_ascii=False)
        except (ValueError, RecursionError):  # data of the answer's that are nested too deeply
            continue
        if len(text) <= max_chars:
            # A browser takes neither halves of code points nor NaN.
            form: dict[str, Any] = json.loads(mend_surrogates(text), parse_constant=_nothing)
            return form
    return {"version": VERSION, "cut": {"left_out": ["turn"]}}


def _nothing(_: str) -> None:
    """Stand for a number that JSON does not know."""


def _shorter(
    record: TurnRecord, cut: dict[str, Any], max_chars: int
) -> Iterator[tuple[TurnRecord, dict[str, Any]]]:
    """Yield a record and what is missing of it, each time less of it: long texts first."""
    yield record, cut
    record, pictures = _without_pictures(record)
    if pictures:
        cut = cut | {"pictures": pictures}
        yield record, cut
    limit = max_chars // 2
    while limit > LEAST_TEXT:
        yield _with_short_texts(record, limit, cut)
        limit = limit * 3 // 4
    for name, leave_out in _PARTS.items():
        less = leave_out(record)
        if less != record:
            record = less
            cut = {**cut, "left_out": [*cut.get("left_out", ()), name]}
        yield _with_short_texts(record, LEAST_TEXT, cut)
    for limit in (LEAST_TEXT // 2, LEAST_TEXT // 4, 0):
        yield _with_short_texts(record, limit, cut)


def _without_reasoning(record: TurnRecord) -> TurnRecord:
    # An empty tuple where there was a field: some servers want it beside calls.
    messages = tuple(
        replace(m, reasoning=None if m.reasoning is None else ()) for m in record.messages
    )
    steps = tuple(replace(step, reasoning_parts=()) for step in record.steps)
    return replace(record, steps=steps, messages=messages)


def _with_last_step(record: TurnRecord) -> TurnRecord:
    """Keep the prompt and what was last said: a call without its result would be refused."""
    if len(record.messages) <= record.sent:
        return record
    steps = tuple(replace(s, tool_calls=(), tool_results=()) for s in record.steps[-1:])
    said = replace(
        record.messages[-1] if record.messages[-1].role == "assistant" else Message("assistant"),
        tool_calls=(),
    )
    if not said.content:
        said = replace(said, content=(steps and steps[-1].text) or NO_ANSWER)
    return replace(record, steps=steps, messages=(*record.messages[: record.sent], said))


_PARTS: dict[str, Callable[[TurnRecord], TurnRecord]] = {
    "trajectories": lambda record: replace(record, trajectories=()),
    "retries": lambda record: replace(record, retries=()),
    "tools": lambda record: replace(
        record, parameters={k: v for k, v in record.parameters.items() if k != "tools"}
    ),
    "data": lambda record: replace(record, data=None),
    "reasoning": _without_reasoning,
    "steps": _with_last_step,
    "parameters": lambda record: replace(record, parameters={}),
    "outline": lambda record: replace(record, outline=Sent()),
}


def _without_pictures(record: TurnRecord) -> tuple[TurnRecord, int]:
    """Put the text in the place of each picture that stands for it."""
    count = 0

    def part_of(part: Part) -> Part:
        nonlocal count
        if isinstance(part, TextPart):
            return part
        count += isinstance(part, ImagePart)
        return TextPart(part.text)

    messages = tuple(
        replace(m, content=tuple(map(part_of, m.content))) if isinstance(m.content, tuple) else m
        for m in record.messages
    )
    return replace(record, messages=messages), count


def _with_short_texts(
    record: TurnRecord, limit: int, cut: dict[str, Any]
) -> tuple[TurnRecord, dict[str, Any]]:
    """Cut each text that is longer to its beginning and its end.

    A text that stands in a step and in its message is cut to the same: it is stored once.
    """
    missing = 0

    def short(text: str) -> str:
        nonlocal missing
        missing += max(len(text) - limit, 0)
        return keep_ends(text, limit)

    def parts(given: tuple[ReasoningPart, ...]) -> tuple[ReasoningPart, ...]:
        return tuple(
            part
            if (text := short(part.text)) == part.text
            else replace(part, text=text, signature=None)  # it signs the whole text
            for part in given
        )

    def calls(given: tuple[ToolCall, ...]) -> tuple[ToolCall, ...]:
        return tuple(
            replace(
                call,
                name=clip(call.name, MAX_NAME),
                # Servers take nothing but the text of an object.
                arguments=json.dumps({"cut": short(call.arguments)}, ensure_ascii=False)
                if len(call.arguments) > limit
                else call.arguments,
            )
            for call in given
        )

    def step_of(step: Step) -> Step:
        return replace(
            step,
            text=short(step.text),
            reasoning_parts=parts(step.reasoning_parts),
            tool_calls=calls(step.tool_calls),
            tool_results=tuple(
                replace(
                    result,
                    name=clip(result.name, MAX_NAME),
                    content=short(result.content),
                    error=result.error and short(result.error),
                )
                for result in step.tool_results
            ),
        )

    def message_of(message: Message) -> Message:
        content = message.content
        if isinstance(content, str):
            content = short(content)
        elif content is not None:
            content = tuple(TextPart(short(part.text)) for part in content)
        reasoning = message.reasoning
        return replace(
            message,
            content=content,
            reasoning=reasoning and parts(reasoning),
            tool_calls=calls(message.tool_calls),
            name=message.name and clip(message.name, MAX_NAME),
        )

    steps = tuple(map(step_of, record.steps))
    missing_in_steps, missing = missing, 0
    # Of the messages, the prompt and what else no step holds.
    messages = tuple(map(message_of, record.messages))
    own, missing = missing, 0
    failure = record.failure
    attempts = [_with_short_texts(each, limit, {}) for each in record.trajectories]
    less = replace(
        record,
        trajectories=tuple(attempt for attempt, _ in attempts),
        steps=steps,
        messages=messages,
        prompt=short(record.prompt),
        failure=failure and replace(failure, message=short(failure.message)),
    )
    missing += max(missing_in_steps, own)
    missing += sum(lost.get("characters", 0) for _, lost in attempts)
    return less, {**cut, "characters": missing} if missing else cut
