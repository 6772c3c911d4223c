"""A reply → the program that asks the same."""

from __future__ import annotations

from collections.abc import Sequence

from kimi_magic.core.errors import KimiError
from kimi_magic.core.messages import Reply
from kimi_magic.export import Program
from kimi_magic.secrets.keys import Key
from kimi_magic.secrets.patterns import MASKED
from kimi_magic.secrets.redact import Redactor
from kimi_magic.wire.endpoints import LOCAL, Endpoint

__all__ = ["program_of"]

# Where llama.cpp's own server listens by default.
SOME_ADDRESS = "http://127.0.0.1:8080/v1"
NOT_OUTSIDE = "The practice model lives in the kernel alone: set base_url and model to another."


def program_of(reply: Reply, keys: Sequence[Key]) -> Program:
    """What a turn sent first, in words where it was sent in partial mode, and what that needs.

    Parameters
    ----------
    keys : sequence of Key
        Redacted in the messages, as is all that looks like a key.

    Raises
    ------
    KimiError
        The reply is of a turn that sent nothing.
    """
    if not reply.request or not isinstance(reply.endpoint, Endpoint):
        raise KimiError("This turn sent nothing that a program could send again.")
    endpoint = reply.endpoint
    notes: list[str] = [NOT_OUTSIDE] if endpoint is LOCAL else []
    messages = []
    for place, said in enumerate(reply.conversation[: reply.asked]):
        messages.append(Redactor(keys, shapes=True).value(said.to_dict()))
        if MASKED in str(messages[-1]):  # it may have been masked when it was sent
            notes.append(f"messages[{place}] holds [masked] in the place of a secret.")
    return Program(
        dict(reply.request) | {"messages": messages},
        endpoint.base_url or SOME_ADDRESS,
        endpoint.key_env,
        endpoint.name,
        dict(reply.functions),
        tuple(notes),
    )
