"""A reply → the program that asks the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kimi_magic.endpoints.catalogue import LOCAL, Endpoint
from kimi_magic.errors import KimiError
from kimi_magic.export import Program
from kimi_magic.messages import Reply

__all__ = ["program_of"]

# Where llama.cpp's own server listens by default.
SOME_ADDRESS = "http://127.0.0.1:8080/v1"
NOT_OUTSIDE = "The practice model lives in the kernel alone: set base_url and model to another."


def program_of(reply: Reply, secrets: Mapping[str, str]) -> Program:
    """What a turn sent first, and what it needs beside that.

    Parameters
    ----------
    secrets : mapping
        The keys that are known, by the names of their variables; none is written.

    Raises
    ------
    KimiError
        The reply is of a turn that sent nothing.
    """
    if not reply.request or not isinstance(reply.endpoint, Endpoint):
        raise KimiError("This turn sent nothing that a program could send again.")
    endpoint = reply.endpoint
    notes: list[str] = [NOT_OUTSIDE] if endpoint is LOCAL else []
    messages = [message.to_dict() for message in reply.conversation[: reply.asked]]
    for place, message in enumerate(messages):
        if _masked(message, secrets):
            notes.append(f"messages[{place}] holds [masked] in the place of a secret.")
    return Program(
        dict(reply.request) | {"messages": messages},
        endpoint.base_url or SOME_ADDRESS,
        endpoint.key_env,
        endpoint.name,
        dict(reply.functions),
        tuple(notes),
    )


def _masked(message: dict[str, Any], secrets: Mapping[str, str]) -> bool:
    """Mask the message's texts where they stand; whether anything is, or was before."""
    from kimi_magic.context.secrets import MASKED, mask

    found = False
    for holder, key in _texts(message):
        holder[key] = mask(holder[key], secrets)[0]
        found = found or MASKED in holder[key]
    return found


def _texts(message: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """Where a message has text."""
    parts = message["content"] if isinstance(message.get("content"), list) else ()
    calls = message.get("tool_calls") or ()
    holders = [(message, key) for key in ("content", "reasoning_content", "reasoning")]
    holders += [(part, "text") for part in parts]
    holders += [(call["function"], "arguments") for call in calls]
    return [(holder, key) for holder, key in holders if isinstance(holder.get(key), str)]
