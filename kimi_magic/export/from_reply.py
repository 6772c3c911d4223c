"""A reply → the program that asks the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kimi_magic.core.errors import KimiError
from kimi_magic.core.reply import Reply
from kimi_magic.export import Program
from kimi_magic.secrets.redact import mapped

__all__ = ["program_of"]

# Where llama.cpp's own server listens by default.
SOME_ADDRESS = "http://127.0.0.1:8080/v1"
NOT_OUTSIDE = "The practice model lives in the kernel alone: set base_url and model to another."


def program_of(reply: Reply, secrets: Mapping[str, str]) -> Program:
    """What a turn sent first, in words where it was sent in partial mode, and what that needs.

    Parameters
    ----------
    secrets : mapping
        The keys that are known, by the names of their variables; none is written.

    Raises
    ------
    KimiError
        The reply is of a turn that sent nothing.
    """
    record, endpoint = reply.record, reply.record.endpoint
    if not record.parameters or endpoint is None:
        raise KimiError("This turn sent nothing that a program could send again.")
    notes = [] if endpoint.base_url else [NOT_OUTSIDE]
    messages = []
    for place, said in enumerate(record.messages[: record.sent]):
        message, is_masked = _masked(said.to_dict(), secrets)
        messages.append(message)
        if is_masked:
            notes.append(f"messages[{place}] holds [masked] in the place of a secret.")
    return Program(
        dict(record.parameters) | {"messages": messages},
        endpoint.base_url or SOME_ADDRESS,
        endpoint.key_env,
        endpoint.name,
        dict(reply.functions),
        tuple(notes),
    )


def _masked(message: dict[str, Any], secrets: Mapping[str, str]) -> tuple[dict[str, Any], bool]:
    """The message with its texts masked; whether anything is, or was before."""
    from kimi_magic.secrets.patterns import MASKED, mask

    found = []

    def clean(text: str) -> str:
        text = mask(text, secrets)[0]
        found.append(MASKED in text)
        return text

    return mapped(message, clean), any(found)
