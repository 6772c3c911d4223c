"""``--dry-run``: the first request of a turn, its new message in full and its history folded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kimi_magic.core.messages import ImagePart, Message
from kimi_magic.core.sent import Attached, Sent, about_tokens, estimate
from kimi_magic.core.text import clip, count
from kimi_magic.turn.loop import Send
from kimi_magic.wire.endpoints import Endpoint

__all__ = ["DryRun", "describe_request"]

SHOWN_APART = ("model", "stream_options", "tools", "response_format")
MAX_LINE = 100


@dataclass(frozen=True, slots=True)
class DryRun:
    """A request written out, and the pictures that it would hold.

    Attributes
    ----------
    summary : str
    history : tuple of Message
        The messages of earlier turns.
    rest : str
        The system prompt, the new message and the tools.
    images : sequence of ImagePart
    """

    summary: str
    history: tuple[Message, ...]
    rest: str
    images: Sequence[ImagePart]

    @property
    def history_title(self) -> str:
        """Count what is folded; "" for a turn that continues nothing."""
        if not self.history:
            return ""
        size = about_tokens(estimate(self.history))
        return f"History: {count(len(self.history), 'message')} of earlier turns, {size}"

    @property
    def history_lines(self) -> list[str]:
        """A line for each message of the history."""
        lines = ((m.role, " ".join(" ".join(_lines(m)).split())) for m in self.history)
        return [f"  {role}: {clip(text, MAX_LINE)}" for role, text in lines]

    @property
    def history_text(self) -> str:
        """The messages of the history in full."""
        return "\n\n".join(map(_written, self.history))

    @property
    def text(self) -> str:
        """All of it as text, the history with a line for each message."""
        folded = [self.history_title, *self.history_lines] if self.history else []
        return "\n".join([self.summary, *folded, "", self.rest])


def describe_request(
    endpoint: Endpoint,
    parameters: Mapping[str, Any],
    send: Send,
    notices: Sequence[str],
    *,
    sent: Sent,
    masked: Sequence[str],
) -> DryRun:
    """Write a request out for a person to read, after the notices that the turn would show.

    ``sent`` is its outline, ``masked`` describes the secrets that were taken out.
    """
    about = ", ".join(f"{k} {v}" for k, v in parameters.items() if k not in SHOWN_APART)
    # An endpoint that was given as a URL is named by it.
    where = "" if "://" in endpoint.name else f" ({endpoint.base_url or 'on this machine'})"
    size = [count(sent.messages, "message")]
    size += [count(len(sent.tools), "tool")] if sent.tools else []
    tokens = about_tokens(sent.tokens)
    lines = [
        f"This would go to {endpoint.name}{where}, model {parameters['model']}: {about}.",
        f"{tokens[:1].upper()}{tokens[1:]} in {' with '.join(size)}. {_variables(sent.attached)}",
        *_others(sent.attached),
        *sent.advice,
    ]
    if masked:
        lines.append(f"Masked: {', '.join(masked)}.")
    lines += notices
    if endpoint.headers:
        lines.append(
            f"Headers of its own, whose values are not shown: {', '.join(endpoint.headers)}."
        )
    system = [message for message in send.messages if message.role == "system"]
    others = [message for message in send.messages if message.role != "system"]
    pieces = [*map(_written, system), *map(_written, others[-1:])]
    for name in ("tools", "response_format"):
        if name in parameters:
            schema = json.dumps(parameters[name], indent=2, ensure_ascii=False)
            pieces.append(f"── {name}\n{schema}")
    images = [image for message in send.messages for image in message.images]
    rest = "\n\n".join([*pieces, "Nothing was sent."])
    return DryRun("\n".join(lines), tuple(others[:-1]), rest, images)


def _written(message: Message) -> str:
    return "\n".join([f"── {message.role}", *_lines(message)])


def _lines(message: Message) -> list[str]:
    lines = [f"(reasoning) {message.reasoning_text}"] if message.reasoning else []
    parts = message.content if isinstance(message.content, tuple) else ()
    shown = "".join(f"[{p}]" if isinstance(p, ImagePart) else p.text for p in parts)
    lines += [shown or message.text] if message.text else []
    return lines + [f"(call) {call.name}({call.arguments})" for call in message.tool_calls]


def _variables(attached: Sequence[Attached]) -> str:
    values = [str(each) for each in attached if each.kind in ("variable", "expression")]
    if not values:
        return "No variable would leave the kernel."
    listed = ", ".join(dict.fromkeys(values))
    return f"Variables that would leave the kernel, or summaries: {listed}."


def _others(attached: Sequence[Attached]) -> list[str]:
    others = [str(each) for each in attached if each.kind in ("cell", "image")]
    return [f"Also: {', '.join(others)}."] if others else []
