"""``--dry-run``: the first request of a turn, message by message."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from kimi_magic.chats.context_window import estimate
from kimi_magic.core.messages import ImagePart, Message
from kimi_magic.turn.loop import Send
from kimi_magic.turn.prompt import ComposedPrompt
from kimi_magic.wire.endpoints import Endpoint

__all__ = ["DryRun", "describe_request"]

SHOWN_APART = ("model", "stream_options", "tools", "response_format")


class DryRun(NamedTuple):
    """A request written out, and the pictures that it would hold."""

    text: str
    images: Sequence[ImagePart]


def describe_request(
    endpoint: Endpoint,
    parameters: Mapping[str, Any],
    send: Send,
    notices: Sequence[str],
    prompt: ComposedPrompt,
) -> DryRun:
    """Write a request out for a person to read, after the notices that the turn would show."""
    about = ", ".join(f"{k} {v}" for k, v in parameters.items() if k not in SHOWN_APART)
    where = endpoint.base_url or "on this machine"
    model = parameters["model"]
    lines = [f"This would go to {endpoint.name} ({where}), model {model}: {about}.", *notices]
    if endpoint.headers:
        lines.append(
            f"Headers of its own, whose values are not shown: {', '.join(endpoint.headers)}."
        )
    for message in send.messages:
        lines += ["", f"── {message.role}", *_lines(message)]
    for name in ("tools", "response_format"):
        if name in parameters:
            lines += ["", f"── {name}", json.dumps(parameters[name], indent=2, ensure_ascii=False)]
    tokens = estimate(send.messages, send.tools)
    lines += ["", f"About {tokens:,} tokens. {_variables(prompt)}"]
    if prompt.masked:
        lines.append(f"Masked: {', '.join(prompt.masked)}.")
    images = [image for message in send.messages for image in message.images]
    return DryRun("\n".join([*lines, "Nothing was sent."]), images)


def _lines(message: Message) -> list[str]:
    lines = [f"(reasoning) {message.reasoning_text}"] if message.reasoning else []
    parts = message.content if isinstance(message.content, tuple) else ()
    shown = "".join(f"[{p}]" if isinstance(p, ImagePart) else p.text for p in parts)
    lines += [shown or message.text] if message.text else []
    return lines + [f"(call) {call.name}({call.arguments})" for call in message.tool_calls]


def _variables(prompt: ComposedPrompt) -> str:
    if not prompt.variables:
        return "No variable would leave the kernel."
    return f"Variables that would leave the kernel, or summaries: {', '.join(prompt.variables)}."
