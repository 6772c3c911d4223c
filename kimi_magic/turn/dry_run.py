"""``--dry-run``: the first request of a turn, message by message."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from kimi_magic.chats.context_window import ContextWindow
from kimi_magic.core.messages import Message
from kimi_magic.turn.loop import Send
from kimi_magic.turn.prompt import ComposedPrompt
from kimi_magic.wire.endpoints import Endpoint

__all__ = ["describe_request"]

SHOWN_APART = ("model", "stream_options", "tools", "response_format")


def describe_request(
    endpoint: Endpoint,
    parameters: Mapping[str, Any],
    send: Send,
    notices: Sequence[str],
    prompt: ComposedPrompt,
) -> str:
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
    tokens = ContextWindow(endpoint.context_window).estimate(send.messages, send.tools)
    lines += ["", f"About {tokens:,} tokens. {_variables(prompt)}"]
    if prompt.masked:
        lines.append(f"Masked: {', '.join(prompt.masked)}.")
    return "\n".join([*lines, "Nothing was sent."])


def _lines(message: Message) -> list[str]:
    lines = [f"(reasoning) {message.reasoning_text}"] if message.reasoning else []
    lines += [message.text] if message.text else []
    return lines + [f"(call) {call.name}({call.arguments})" for call in message.tool_calls]


def _variables(prompt: ComposedPrompt) -> str:
    if not prompt.variables:
        return "No variable would leave the kernel."
    return f"Variables that would leave the kernel, or summaries: {', '.join(prompt.variables)}."
