"""Messages that go back to the model, in the form that servers accept.

The rules are Moonshot's, the strictest: each call is followed by its result, a call's arguments are
the text of a JSON object, no content is empty, and inside a tool loop the reasoning goes back under
the key in which it came.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from kimi_magic.core.messages import (
    INTERRUPTED,
    NOT_MADE,
    ImagePart,
    Message,
    Part,
    TextPart,
    ToolCall,
    ToolResult,
)

__all__ = [
    "CUT_OFF",
    "NO_ANSWER",
    "CallIds",
    "cancelled",
    "final_message",
    "outside_loop",
    "renumbered",
    "shorten",
    "to_continue",
    "tool_messages",
    "unsigned",
    "with_reasoning",
]

NO_ANSWER = "[No answer was given.]"
CUT_OFF = "[The answer was cut off.]"
CANCELLED = "Cancelled: the user stopped the turn before this call was made."
STOPPED = "The user stopped the turn while this call ran; it may have had its effect."
HIDDEN = "[This result was left out to make room.]"
PICTURE_HIDDEN = "[This picture was left out to make room.]"
RESULTS_HIDDEN = "The context window is full: the results of earlier tool calls were left out."
TURNS_LEFT_OUT = "The chat outgrew the model's context window: its oldest turns were left out."

_ID = re.compile(r"functions\..+:(\d+)", re.DOTALL)
_UNFIT = re.compile(r"[^a-zA-Z0-9_-]+")
_MAX_NAME = 64


class CallIds:
    """Gives each call the id that Kimi K2 was trained on: ``functions.NAME:IDX``.

    IDX counts over the whole conversation, from 0. K2's chat template prints ids as they are, and
    they alone carry the function's name: with others the model begins to leak its markers after a
    few calls. K3's template prints none: with ``keep``, ids stay as the server gave them, unless
    one is missing or was there before (vLLM #50295), which no server takes.
    """

    def __init__(self, history: Sequence[Message], *, keep: bool = False) -> None:
        self._keep = keep
        self._seen = {call.id for message in history for call in message.tool_calls}
        found = map(_ID.fullmatch, self._seen)
        self._next = 1 + max((int(match[1]) for match in found if match), default=-1)
        keys = [m.reasoning_key for m in history if m.role == "assistant" and m.reasoning]
        self._reasoning_key = keys[-1] if keys else None

    def give(self, message: Message) -> Message:
        """Return a message that asks for calls with their ids, ready for the tool loop."""
        calls = []
        for call in message.tool_calls:
            # Some models write the whole id where the name belongs.
            name = re.sub(r"^functions\.|:\d+$", "", call.name.strip())
            name = _UNFIT.sub("_", name)[:_MAX_NAME] or "unnamed"
            name = name if re.match("[a-zA-Z_]", name) else f"_{name}"[:_MAX_NAME]
            call_id = call.id
            if not self._keep or not call_id or call_id in self._seen:
                call_id = f"functions.{name}:{self._next}"
                self._next += 1
            self._seen.add(call_id)
            calls.append(ToolCall(call_id, name, call.arguments))
        if message.reasoning:
            self._reasoning_key = message.reasoning_key
        return replace(
            message,
            # Moonshot wants the field beside every call: "" where there was no reasoning.
            reasoning=message.reasoning or (),
            reasoning_key=self._reasoning_key or message.reasoning_key,
            tool_calls=tuple(calls),
        )


def renumbered(messages: Iterable[Message], *, keep: bool = False) -> tuple[Message, ...]:
    """Return the messages of several turns with ids of calls that are unique over all of them.

    ``keep`` leaves the ids that are.

    Turns that overlapped (in threads, or a tool that asks in its own chat) counted from the same
    number, and no server takes an id twice.
    """
    ids = CallIds((), keep=keep)
    new_ids: dict[str, str] = {}
    result = []
    for message in messages:
        changes: dict[str, Any] = {}
        if message.tool_calls:
            given = ids.give(message)
            pairs = zip(message.tool_calls, given.tool_calls, strict=True)
            new_ids |= {old.id: new.id for old, new in pairs}
            changes = {"tool_calls": given.tool_calls}
        elif message.tool_call_id is not None:
            changes = {"tool_call_id": new_ids.get(message.tool_call_id)}
        result.append(_changed(message, **changes))
    return tuple(result)


def _changed(message: Message, **changes: Any) -> Message:
    """Return a message with these fields, itself where it has them: long chats share messages."""
    same = all(getattr(message, name) == value for name, value in changes.items())
    return message if same else replace(message, **changes)


def tool_messages(message: Message, results: Sequence[ToolResult]) -> list[Message]:
    """Return the message that asked for calls, and one message for each result."""
    calls = tuple(replace(c, arguments=_object_text(c.arguments)) for c in message.tool_calls)
    # Beside tool_calls Moonshot refuses an empty content.
    asked = replace(message, content=message.text.strip() and message.content, tool_calls=calls)
    answers = [
        Message(
            "tool", result.content, tool_call_id=call.id, name=call.name, failed=bool(result.error)
        )
        for call, result in zip(calls, results, strict=True)
    ]
    return [asked, *answers]


def cancelled(call: ToolCall, *, begun: bool) -> ToolResult:
    """Return a result for a call that gave none: without one the next request is refused."""
    content, error = (STOPPED, INTERRUPTED) if begun else (CANCELLED, NOT_MADE)
    return ToolResult(call.name, content, error=error, call_id=call.id)


def final_message(message: Message, placeholder: str) -> Message:
    """Return an answer as servers accept it: not empty, and without calls that have no result."""
    return replace(message, content=message.content or placeholder, tool_calls=())


def to_continue(history: Sequence[Message]) -> tuple[Message, ...]:
    """Mark the last answer as the text that the model continues (Moonshot's partial mode).

    Empty where the history does not end with the beginning of an answer.
    """
    if not history or history[-1].role != "assistant" or history[-1].tool_calls:
        return ()
    if history[-1].text.strip() in ("", NO_ANSWER, CUT_OFF):
        return ()
    return (*history[:-1], replace(history[-1], partial=True))


def outside_loop(message: Message) -> Message:
    """Return a message of a tool loop that has ended.

    Chat templates drop its reasoning by themselves, but not where that stands in the content.
    """
    inline = message.reasoning_key == "content" and message.tool_calls
    return replace(message, reasoning=None) if inline else message


def unsigned(message: Message) -> Message:
    """Return a message whose reasoning has no proof of origin, which another server refuses."""
    if not message.reasoning:
        return message
    parts = (replace(part, signature=None) for part in message.reasoning if not part.redacted)
    return replace(message, reasoning=tuple(parts))


def with_reasoning(
    messages: Iterable[Message],
    earlier: Iterable[Message] = (),
    *,
    key: str = "",
) -> Iterator[Message]:
    """Yield messages whose answers all have a field for their reasoning, empty where there is none.

    K3 refuses a history in which it is missing. ``key`` is the field that the server reads, for
    messages that may have come from another; else it is the one in which each came.
    """
    messages = list(messages)
    keys = [m.reasoning_key for m in (*earlier, *messages) if m.role == "assistant" and m.reasoning]
    default = next((name for name in reversed(keys) if name != "content"), "reasoning_content")
    for message in messages:
        if message.role == "assistant":
            own = message.reasoning and message.reasoning_key != "content"
            name = key or (message.reasoning_key if own else default)
            yield _changed(message, reasoning=message.reasoning or (), reasoning_key=name)
        else:
            yield message


def shorten(
    history: Sequence[Message], own: Sequence[Message], *, least: int = 0
) -> tuple[tuple[Message, ...], list[Message], str] | None:
    """Make room in a request that is too long.

    At first the results of all but the latest calls give way to a note, as the model's makers do
    in their own runs, and so do the pictures that tools made; then the older half of the earlier
    turns is left out, as long as more than ``least`` remain.

    ``own`` are the messages of this turn after its prompt. The result is both, shortened, and a
    notice for the reader; None where nothing can be left out.
    """
    latest = max((i for i, m in enumerate(own) if m.tool_calls), default=len(own))
    hidden = _hidden(history), _hidden(own[:latest])
    if hidden != (list(history), list(own[:latest])):
        return tuple(hidden[0]), [*hidden[1], *own[latest:]], RESULTS_HIDDEN
    system = tuple(m for m in history if m.role == "system")
    prompts = [
        i for i, m in enumerate(history) if m.role == "user" and not _inside_turn(history, i)
    ]
    if len(prompts) <= least:
        return None
    later = prompts[min((len(prompts) + 1) // 2, len(prompts) - least) :]
    kept = tuple(history[later[0] :]) if later else ()
    return system + kept, list(own), TURNS_LEFT_OUT


def _inside_turn(messages: Sequence[Message], place: int) -> bool:
    """Return True for a user's message that is our own, after a tool's result.

    It asks to conclude, or holds the pictures that the tool made.
    """
    while place > 0 and messages[place].role == "user":
        place -= 1
    return messages[place].role == "tool"


def _hidden(messages: Sequence[Message]) -> list[Message]:
    """Return messages without the long results of tools, and without the pictures they made."""
    hidden = []
    for place, message in enumerate(messages):
        if message.role == "tool" and len(message.text) > len(HIDDEN):
            message = replace(message, content=HIDDEN)  # noqa: PLW2901 - what is left of it
        elif message.images and _inside_turn(messages, place):
            message = replace(message, content=_without_pictures(message))  # noqa: PLW2901
        hidden.append(message)
    return hidden


def _without_pictures(message: Message) -> tuple[Part, ...]:
    return tuple(
        TextPart(PICTURE_HIDDEN) if isinstance(part, ImagePart) else part
        for part in message.content or ()
        if not isinstance(part, str)
    )


def _object_text(arguments: str) -> str:
    """Return arguments that are the text of a JSON object; "{}" for what no server takes back."""
    try:
        value = json.loads(arguments, parse_constant=_refuse)
        if isinstance(value, str):  # encoded twice
            arguments = value
            value = json.loads(value, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return "{}"
    return arguments if isinstance(value, dict) else "{}"


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")
