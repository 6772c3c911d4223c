"""A turn as the source of a notebook cell: one that asks the same when it is run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from keyword import iskeyword
from typing import Any

from kimi_magic.chats.chat import ChatTurn
from kimi_magic.schema.output import ANY_JSON
from kimi_magic.turn.request import TurnRequest
from kimi_magic.wire.endpoints import LOCAL, OWN, Endpoint

__all__ = ["cell_source"]

_BARE = re.compile(r"(?!-)[\w./:@+,-]+")
_SAME = (
    *("effort", "temperature", "top_p", "max_tokens", "seed", "max_steps", "approve"),
    "var_rows",
)


def cell_source(turn: ChatTurn) -> str:
    """Return a ``%%kimi`` cell that asks what a turn asked, with the options that matter.

    What no magic line can hold, such as a system prompt of two lines, becomes a call of
    ``kimi.chat`` instead. Pictures, and variables that were given as values, are left out.
    """
    request = turn.request if isinstance(turn.request, TurnRequest) else TurnRequest(turn.prompt)
    chat = turn.reply.record.chat or "main"
    if request.continues and _BARE.fullmatch(chat):
        return "%kimi continue" + ("" if chat == "main" else f" {chat}")
    options = dict(_options(turn, request))
    words = [word for name, value in options.items() for word in _words(name, value)]
    if chat != "main":
        words += ["-c", _quoted(chat)]
    if not request.stream:
        words.append("--no-stream")
    if "{{" in turn.prompt:
        words.append("--raw")
    if all(words):
        line = " ".join(words)
        source = f"%%kimi {line}".rstrip() + f"\n{turn.prompt}"
        if _arrives(source, line, turn.prompt):
            return source
    return _call(chat, turn.prompt, options)


def _options(turn: ChatTurn, request: TurnRequest) -> Iterator[tuple[str, Any]]:
    """Yield the options that are not their defaults, by the keywords of ``kimi.ask``."""
    yield from _target(turn, request)
    record = turn.reply.record
    stop = request.stop
    given = {
        "system": request.system,
        "tools": _tools(record.parameters) or None,
        "variables": _names(request.variables) or None,
        **_schema(request.schema, record.data),
        **{name: getattr(request, name) for name in _SAME},
        "stop": [stop] if isinstance(stop, str) else list(stop) if stop else None,
        "fresh": request.fresh or None,
    }
    yield from ((name, value) for name, value in given.items() if value is not None)


def _target(turn: ChatTurn, request: TurnRequest) -> Iterator[tuple[str, str]]:
    """Yield the model and the endpoint: those that answered, whatever the settings are."""
    record, endpoint = turn.reply.record, request.endpoint
    name = endpoint.name if isinstance(endpoint, Endpoint) else endpoint
    name = name or (record.endpoint.name if record.endpoint else "")
    model = request.model or record.parameters.get("model")
    if isinstance(model, str) and model and name != LOCAL.name:  # a file, or what comes with us
        yield "model", model
    # An address is written only where a person wrote it.
    if name and name != OWN and (endpoint or "://" not in name):
        yield "endpoint", name


def _schema(schema: Any, data: Any) -> dict[str, Any]:
    """Return the option that asks for an answer's form."""
    if schema is ANY_JSON or (schema is None and data is not None):
        return {"format": "json"}
    if isinstance(schema, type):
        return {"schema": schema.__name__}
    return {"schema": dict(schema) if isinstance(schema, Mapping) else schema}


def _tools(parameters: Mapping[str, Any]) -> list[str]:
    """Return the names of the functions that were offered."""
    names = []
    tools = parameters.get("tools")
    for tool in tools if isinstance(tools, list | tuple) else ():
        function = tool.get("function") if isinstance(tool, Mapping) else None
        names.append(function.get("name") if isinstance(function, Mapping) else None)
    return _names(names)


def _names(given: Any) -> list[str]:
    given = [given] if isinstance(given, str) else given
    if not isinstance(given, Iterable) or isinstance(given, Mapping):
        return []
    return [n for n in given if isinstance(n, str) and n.isidentifier() and not iskeyword(n)]


_FLAGS = {"model": "-m", "endpoint": "-e", "system": "-s", "tools": "-T", "variables": "-v"}


def _words(name: str, value: Any) -> Iterator[str]:
    """Yield the words of an option on a magic line; an empty one for what it cannot hold."""
    flag = _FLAGS.get(name) or ("-f" if name == "format" else f"--{name.replace('_', '-')}")
    if value is True:
        yield flag
        return
    if name in ("tools", "variables"):
        value = ",".join(value)
    for item in value if isinstance(value, list) else [value]:
        yield flag
        yield "" if isinstance(item, dict) else _quoted(str(item))


def _quoted(text: str) -> str:
    """Return a word as the magic line takes it; "" where it takes no such word."""
    if _BARE.fullmatch(text):
        return text
    if not text.isprintable() or ('"' in text and "'" in text):
        return ""
    return f"'{text}'" if '"' in text else f'"{text}"'


def _arrives(source: str, line: str, prompt: str) -> bool:
    """Return True if IPython hands the line and the prompt on as they are.

    It strips what looks like the prompts of a Python session (``>>>``) from all lines of a cell.
    """
    from IPython.core.inputtransformer2 import TransformerManager

    body = f"{prompt}\n"
    called = f"get_ipython().run_cell_magic('kimi', {line!r}, {body!r})\n"
    manager: Any = TransformerManager  # half typed
    same = manager().transform_cell(source) == called
    return same and prompt == prompt.strip("\n")


def _call(chat: str, prompt: str, options: Mapping[str, Any]) -> str:
    """Return the call that asks; each value is a literal, functions are names."""
    given = []
    for name, value in options.items():
        if name == "tools":
            names = (repr(tool) if tool == "run_python" else tool for tool in value)
            given.append(f"tools=[{', '.join(names)}]")
        elif name == "format":
            given.append("schema={}")
        elif name != "fresh":
            given.append(f"{name}={value!r}")
    reset = f"kimi.chat({chat!r}).reset()\n" if options.get("fresh") else ""
    lines = "".join(f"    {item},\n" for item in [repr(prompt), *given])
    return f"{reset}kimi.chat({chat!r}).ask(\n{lines})"
