"""The request of a map in a form that workers can take: without keys, and without the notebook."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from kimi_magic.batch.prompts import expression_names
from kimi_magic.batch.questions import Questions
from kimi_magic.core.errors import KimiError
from kimi_magic.core.frontend import user_namespace
from kimi_magic.secrets.keys import SHORTEST, Key
from kimi_magic.secrets.redact import Redactor
from kimi_magic.session import Session
from kimi_magic.turn.request import TurnRequest
from kimi_magic.turn.runner import PreparedTurn
from kimi_magic.wire.endpoints import Endpoint

__all__ = ["RemoteRequest", "check_remote", "pack", "remote_request", "unpack"]

NO_OTHER_JUDGE = "Workers ask one endpoint: leave @ out of judge=, or map in this kernel."
NO_LOCAL = (
    "The practice model runs in this kernel, not on workers: name another endpoint with endpoint=, "
    "or map in this kernel."
)
NO_TAPE = "The workers see no tape: `%kimi tape off`, or map in this kernel."
NO_TEXT_TOOL = "tools= takes functions where workers ask; got {tool!r:.60}."
UNSENDABLE = (
    "The prompt, the schema or a tool cannot be sent to the workers: {why}.\n"
    "Make that object where it is used, or map in this kernel."
)
HOLDS_KEY = (
    "The prompt, the schema or a tool holds the key from {source}: it must not be in a task.\n"
    "Read it where it is used, from os.environ."
)


@dataclass(frozen=True, slots=True)
class RemoteRequest:
    """A request without its prompt, and what it is asked with.

    The endpoint comes without headers; ``settings`` are those of the notebook.
    """

    request: TurnRequest
    endpoint: Endpoint
    settings: Mapping[str, Any]
    raises: bool


def check_remote(questions: Questions, session: Session) -> None:
    """Refuse what no worker can do."""
    if "@" in (questions.one.request.judge or ""):
        raise KimiError(NO_OTHER_JUDGE)
    if not questions.one.endpoint.base_url:
        raise KimiError(NO_LOCAL)
    if session.tapes.current is not None:
        raise KimiError(NO_TAPE)


def remote_request(one: PreparedTurn, *, raises: bool) -> RemoteRequest:
    """Return the request of all rows, with the notebook's objects in the place of their names."""
    masks = Redactor(one.keys, shapes=True)
    request = replace(
        one.request,
        prompt="…",
        endpoint=None,
        model=one.model,
        schema=_schema(one),
        tools=_tools(one.request.tools),
        system=masks.value(one.request.system),
    )
    settings = {name: getattr(one.settings, name) for name in one.settings.trait_names(config=True)}
    # The environment and the headers of MCP servers hold secrets.
    settings |= {"budget": None, "tape": "", "journal": "off", "model": "", "mcp_servers": {}}
    settings |= {name: masks.value(settings[name]) for name in ("system", "heavy_prompt")}
    return RemoteRequest(request, replace(one.endpoint, headers={}), settings, raises)


def pack(value: Any, keys: Sequence[Key] = ()) -> bytes:
    """Pickle something with the functions and classes of the notebook that it holds.

    Raises
    ------
    KimiError
        It cannot be pickled, or it holds one of the keys.
    """
    import cloudpickle

    try:
        packed: bytes = cloudpickle.dumps(value)
    except Exception as error:  # noqa: BLE001 - objects of the user's raise what they like
        why = str(error).partition("\n")[0].rstrip(".")
        raise KimiError(UNSENDABLE.format(why=why)) from None
    for key in keys:
        if len(key.value) >= SHORTEST and key.value.encode() in packed:
            raise KimiError(HOLDS_KEY.format(source=key.source))
    return packed


def unpack(packed: bytes) -> Any:
    """Read what came over the cluster's own connections; whoever writes there runs code anyhow."""
    return pickle.loads(packed)  # noqa: S301


def _schema(one: PreparedTurn) -> Any:
    """Return the schema in a form that needs no notebook."""
    from kimi_magic.schema.answer_types import parse_type

    given, names = one.request.schema, user_namespace()
    used: set[str] = set()
    if isinstance(given, str):
        with suppress(SyntaxError):  # it is a list of fields
            used = expression_names(given)
    return parse_type(given, names) if names.keys() & used else given


def _tools(given: Any) -> Any:
    """Return the tools, those of the notebook's functions that are named in the place of names."""
    if given is None or callable(given):
        return given
    tools = [given] if isinstance(given, str) else given
    if not isinstance(tools, list | tuple):
        return tools
    names = user_namespace()
    for tool in tools:
        if isinstance(tool, str) and not callable(names.get(tool)):
            raise KimiError(NO_TEXT_TOOL.format(tool=tool))
    return [names[tool] if isinstance(tool, str) else tool for tool in tools]
