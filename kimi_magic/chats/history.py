"""What goes back to the model of what was said, in the form that servers accept.

The rules are Moonshot's, and the others' are weaker: each call is followed by its result, a call's
arguments are the text of a JSON object, no content is empty, and inside a tool loop the reasoning
goes back under the key in which it came.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from kimi_magic.core.messages import Message, ToolCall, ToolResult

__all__ = [
    "CUT_OFF",
    "NO_ANSWER",
    "CallIds",
    "after_the_loop",
    "cancelled",
    "numbered",
    "resumed",
    "sendable",
    "shortened",
    "told",
]

NO_ANSWER = "[No answer was given.]"
CUT_OFF = "[The answer was cut off.]"
CANCELLED = "Cancelled: the user stopped the turn before this call was made."
STOPPED = "The user stopped the turn while this call ran; it may have had its effect."
HIDDEN = "[This result was left out to make room.]"
RESULTS_HIDDEN = "The context window is full: the results of earlier tool calls were left out."
TURNS_LEFT_OUT = "The chat outgrew the model's context window: its oldest turns were left out."

_ID = re.compile(r"functions\..+:(\d+)", re.DOTALL)
_UNFIT = re.compile(r"[^a-zA-Z0-9_-]+")
_MAX_NAME = 64


class CallIds:
    """Gives each call the id that Kimi was trained on: ``functions.NAME:IDX``.

    IDX counts over the whole conversation, from 0. Kimi's chat template prints ids as they are,
    and they alone carry the function's name: with others the model begins to leak its markers
    after a few calls.
    """

    def __init__(self, history: Iterable[Message]) -> None:
        found = (_ID.fullmatch(call.id) for message in history for call in message.tool_calls)
        self._next = 1 + max((int(match[1]) for match in found if match), default=-1)
        keys = [m.reasoning_key for m in history if m.role == "assistant" and m.reasoning]
        self._reasoning_key = keys[-1] if keys else None

    def give(self, message: Message) -> Message:
        """The message that asks for calls, with their ids; ready for the tool loop."""
        calls = []
        for call in message.tool_calls:
            # Some models write the whole id where the name belongs.
            name = re.sub(r"^functions\.|:\d+$", "", call.name.strip())
            name = _UNFIT.sub("_", name)[:_MAX_NAME] or "unnamed"
            name = name if re.match("[a-zA-Z_]", name) else f"_{name}"[:_MAX_NAME]
            calls.append(ToolCall(f"functions.{name}:{self._next}", name, call.arguments))
            self._next += 1
        if message.reasoning:
            self._reasoning_key = message.reasoning_key
        return replace(
            message,
            reasoning=message.reasoning or "",
            reasoning_key=self._reasoning_key or message.reasoning_key,
            tool_calls=tuple(calls),
        )


def numbered(messages: Iterable[Message]) -> tuple[Message, ...]:
    """The messages of several turns with ids that count over all of them.

    Turns that overlapped (threads, or a tool that asks in its own chat) have counted from the same
    number, and no server takes an id twice.
    """
    ids = CallIds(())
    known: dict[str, str] = {}
    result = []
    for message in messages:
        if message.tool_calls:
            given = ids.give(message)
            pairs = zip(message.tool_calls, given.tool_calls, strict=True)
            known |= {old.id: new.id for old, new in pairs}
            result.append(replace(message, tool_calls=given.tool_calls))
        elif message.tool_call_id is not None:
            result.append(replace(message, tool_call_id=known.get(message.tool_call_id)))
        else:
            result.append(message)
    return tuple(result)


def told(message: Message, results: Sequence[ToolResult]) -> list[Message]:
    """The message that asked for calls, and what each of them gave."""
    calls = tuple(replace(c, arguments=_object_text(c.arguments)) for c in message.tool_calls)
    asked = replace(message, content=message.text.strip() and message.content, tool_calls=calls)
    answers = [
        Message("tool", result.content, tool_call_id=call.id, name=call.name)
        for call, result in zip(calls, results, strict=True)
    ]
    return [asked, *answers]


def cancelled(call: ToolCall, *, begun: bool) -> ToolResult:
    """The result of a call that gave none: without one the next request would be refused."""
    content, error = (STOPPED, "interrupted") if begun else (CANCELLED, "cancelled")
    return ToolResult(call.name, content, error=error, call_id=call.id)


def sendable(message: Message, stand_in: str) -> Message:
    """An answer as servers accept it: not empty, and without calls that have no result."""
    return replace(message, content=message.content or stand_in, tool_calls=())


def resumed(history: Sequence[Message]) -> tuple[Message, ...]:
    """The history whose last answer the model is to go on with, as partial mode has it; empty
    where there is no beginning of an answer."""
    if not history or history[-1].role != "assistant" or history[-1].tool_calls:
        return ()
    if history[-1].text.strip() in ("", NO_ANSWER, CUT_OFF):
        return ()
    return (*history[:-1], replace(history[-1], partial=True))


def after_the_loop(message: Message) -> Message:
    """A message of a tool loop that has ended: the chat template leaves out its reasoning by
    itself, but not where that stands in the content."""
    inline = message.reasoning_key == "content" and message.tool_calls
    return replace(message, reasoning=None) if inline else message


def shortened(
    history: Sequence[Message], said: Sequence[Message], *, least: int = 0
) -> tuple[tuple[Message, ...], list[Message], str] | None:
    """Make room where a request is too long.

    First the results of all but the latest calls give way to a note, as the model's makers do in
    their own runs; then the older half of the turns before this one is left out, as long as more
    than ``least`` remain.

    Returns
    -------
    tuple or None
        The history, what was said in this turn, and a line for the reader. None where nothing is
        left that could be left out.
    """
    latest = max((i for i, m in enumerate(said) if m.tool_calls), default=len(said))
    hidden = [_hidden(m) for m in history], [_hidden(m) for m in said[:latest]]
    if hidden != (list(history), list(said[:latest])):
        return tuple(hidden[0]), [*hidden[1], *said[latest:]], RESULTS_HIDDEN
    system = tuple(m for m in history if m.role == "system")
    # After a tool's result it is our own word, in the middle of a turn.
    prompts = [
        i for i, m in enumerate(history) if m.role == "user" and history[i - 1].role != "tool"
    ]
    if len(prompts) <= least:
        return None
    later = prompts[min((len(prompts) + 1) // 2, len(prompts) - least) :]
    kept = tuple(history[later[0] :]) if later else ()
    return system + kept, list(said), TURNS_LEFT_OUT


def _hidden(message: Message) -> Message:
    long = message.role == "tool" and len(message.text) > len(HIDDEN)
    return replace(message, content=HIDDEN) if long else message


def _object_text(arguments: str) -> str:
    """The arguments, if they are the text of a JSON object; "{}" for what no server takes back."""
    try:
        value = json.loads(arguments, parse_constant=_refuse)
        if isinstance(value, str):  # encoded twice
            arguments = value
            value = json.loads(value, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return "{}"
    return arguments if isinstance(value, dict) else "{}"


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")
