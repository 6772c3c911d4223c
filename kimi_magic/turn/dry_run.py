"""``--dry-run``: what would leave, message by message."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from kimi_magic.chats.context_window import ContextWindow
from kimi_magic.core.messages import Message
from kimi_magic.turn.loop import Send
from kimi_magic.turn.prompt import Composed
from kimi_magic.wire.endpoints import Endpoint

__all__ = ["preview"]

APART = ("model", "stream_options", "tools", "response_format")


def preview(
    endpoint: Endpoint, body: Mapping[str, Any], send: Send, told: Sequence[str], prompt: Composed
) -> str:
    """Write a request out for a person to read.

    Parameters
    ----------
    body : mapping
        The request beside its messages.
    send : Send
        The messages and tools.
    told : sequence of str
        What the reader would be told before.
    """
    about = ", ".join(f"{k} {v}" for k, v in body.items() if k not in APART)
    where = endpoint.base_url or "on this machine"
    lines = [f"This would go to {endpoint.name} ({where}), model {body['model']}: {about}.", *told]
    for message in send.messages:
        lines += ["", f"── {message.role}", *_lines(message)]
    for name in ("tools", "response_format"):
        if name in body:
            lines += ["", f"── {name}", json.dumps(body[name], indent=2, ensure_ascii=False)]
    tokens = ContextWindow(endpoint.context_window).estimate(send.messages, send.tools)
    lines += ["", f"About {tokens:,} tokens. {_variables(prompt)}"]
    if prompt.masked:
        lines.append(f"Masked: {', '.join(prompt.masked)}.")
    return "\n".join([*lines, "Nothing was sent."])


def _lines(message: Message) -> list[str]:
    """A message with all that goes along: its reasoning, and the calls that it asks for."""
    lines = [f"(reasoning) {message.reasoning}"] if message.reasoning else []
    lines += [message.text] if message.text else []
    return lines + [f"(call) {call.name}({call.arguments})" for call in message.tool_calls]


def _variables(prompt: Composed) -> str:
    if not prompt.variables:
        return "No variable would leave the kernel."
    return f"Variables that would leave the kernel, or summaries: {', '.join(prompt.variables)}."
