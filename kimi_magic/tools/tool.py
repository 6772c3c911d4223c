"""One callable as a tool: its name, what it is for, its parameters as JSON Schema, its binding."""

from __future__ import annotations

import inspect
import json
import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from kimi_magic.core.errors import KimiError
from kimi_magic.schema.argument_problems import ArgumentsError
from kimi_magic.schema.docstrings import read_docstring
from kimi_magic.schema.handmade import parameters_of
from kimi_magic.schema.shapes import with_variables, without_excess, written
from kimi_magic.schema.signature import (
    EMPTY,
    VAR_KEYWORD,
    VAR_POSITIONAL,
    Parameter,
    home_of,
    read_parameters,
)
from kimi_magic.schema.type_hints import Carrier, Reference
from kimi_magic.tools.binding import Binding

__all__ = ["ArgumentsError", "Tool", "ToolOptions", "make_tool", "name_of", "proper_name"]

MAX_NAME = 64
MAX_DESCRIPTION = 4000
MAX_DEFAULT = 300


@dataclass(frozen=True, slots=True)
class ToolOptions:
    """How a tool is called.

    Parameters
    ----------
    confirm : bool
        Ask before each call.
    timeout : float or None
        Seconds after which a call is given up.
    max_chars : int
        The longest text that the model is given.
    parallel : bool
        May run in a worker thread, beside others.
    """

    confirm: bool = False
    timeout: float | None = None
    max_chars: int = 4000
    parallel: bool = False


@dataclass(frozen=True, slots=True)
class _Inside:
    """How a tool's arguments are read, and what of its schema changes with the notebook."""

    binding: Binding
    template: Mapping[str, Any]
    references: list[Reference]


@dataclass(frozen=True, slots=True)
class Tool:
    """A callable that the model may call; `make_tool` makes one.

    Attributes
    ----------
    name, description : str
        As the model sees them.
    parameters : dict
        The JSON Schema of the arguments, an object at the root.
    function : callable
        What is called.
    options : ToolOptions
        How it is called.
    notes : tuple of str
        What was guessed, renamed or dropped, in words.
    """

    name: str
    description: str
    parameters: dict[str, Any]
    function: Callable[..., Any]
    options: ToolOptions = ToolOptions()
    notes: tuple[str, ...] = ()
    _inside: _Inside = field(kw_only=True, repr=False, compare=False)

    def bind(
        self, arguments: Mapping[str, Any], namespace: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What the function is to be called with.

        Parameters
        ----------
        arguments : mapping
            The arguments as JSON has them.
        namespace : mapping
            Where variables that the model names are looked up.

        Returns
        -------
        tuple
            The positional arguments and a dict of the others; only what was sent.

        Raises
        ------
        ArgumentsError
            They do not fit; it says what does.
        """
        return self._inside.binding(arguments, namespace)

    def schema(self) -> dict[str, Any]:
        """The tool as the API has it."""
        function = {"name": self.name, "description": self.description}
        return {"type": "function", "function": {**function, "parameters": self.parameters}}

    def at_moment(self, namespace: Mapping[str, Any]) -> Tool:
        """The tool with the variables that its schema lists as they are now."""
        if not self._inside.references:
            return self
        inside = self._inside
        now = with_variables(inside.template, inside.references, namespace)
        return replace(self, parameters=now)


def make_tool(
    fn: Callable[..., Any],
    *,
    name: str | None = None,
    description: str | None = None,
    schema: Mapping[str, Any] | None = None,
    options: ToolOptions = ToolOptions(),
    namespace: Mapping[str, Any] | None = None,
) -> Tool:
    """Offer a callable to the model.

    Parameters
    ----------
    fn : callable
        Function, method, partial, class, callable object, builtin …
    name, description : str or None
        In place of its own.
    schema : mapping or None
        A parameters schema written by hand, as the API has it.
    options : ToolOptions
        How it is called.
    namespace : mapping or None
        The notebook's variables: names in hints are looked up there, and what can be named for a
        parameter that JSON cannot carry.

    Raises
    ------
    KimiError
        It cannot be a tool; the message says what to do.
    """
    if not callable(fn):
        raise KimiError(f"{fn!r:.60} cannot be called: offer a function, a method or a class")
    namespace = {} if namespace is None else namespace
    if schema is not None:
        name, description, schema = _taken_apart(schema, name, description)
    wanted = name or name_of(fn, namespace)
    proper = proper_name(wanted)
    notes = [f"renamed from {wanted}"] if proper != wanted else []
    purpose, described = _documentation(fn)
    purpose = purpose if description is None else description
    if not purpose:
        notes.append("no description: write a docstring")
    if len(purpose) > MAX_DESCRIPTION:
        notes.append(f"the description is cut after {MAX_DESCRIPTION:,} characters")
        purpose = purpose[: MAX_DESCRIPTION - 1] + "…"
    parameters, guessed = read_parameters(fn, namespace)
    carrier = Carrier()
    if schema is None:
        carrier.notes += guessed
        parameters = [
            replace(p, description=p.description or described.get(p.name, "")) for p in parameters
        ]
        binding = Binding(parameters, carrier)
        template = _described(binding, notes)
    else:
        template = _handwritten(schema, proper)
        binding = Binding(parameters_of(template, parameters, carrier, proper), carrier)
    notes += carrier.notes
    sent = with_variables(template, carrier.references, namespace)
    inside = _Inside(binding, template, carrier.references)
    return Tool(proper, purpose, sent, fn, options, tuple(notes), _inside=inside)


def name_of(fn: Any, namespace: Mapping[str, Any]) -> str:
    """What a callable is called; a lambda like the variable that holds it."""
    while isinstance(fn, partial):
        fn = fn.func
    name = str(getattr(fn, "__name__", type(fn).__name__))
    if name == "<lambda>":
        name = next((key for key, value in list(namespace.items()) if value is fn), "lambda")
    return name


def proper_name(name: str) -> str:
    """The nearest name that servers take."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^a-zA-Z0-9_-]+", "_", plain)
    if not plain.strip("_-"):
        plain = "tool"
    return (plain if re.match(r"[a-zA-Z_]", plain) else f"_{plain}")[:MAX_NAME]


def _documentation(fn: Any) -> tuple[str, dict[str, str]]:
    """The docstring of a callable; a class may describe its parameters in ``__init__``."""
    home = home_of(fn)
    inner = fn
    while isinstance(inner, partial):
        inner = inner.func
    own = inner if inspect.isroutine(inner) or isinstance(inner, type) else type(inner)
    texts = [getattr(thing, "__doc__", None) for thing in (own, home)]
    if own is type(inner):  # an object: what its call does says more than what it is
        texts.reverse()
    read = [read_docstring(text) for text in texts if isinstance(text, str)]
    purpose = next((said for said, _ in read if said), "")
    described: dict[str, str] = {}
    for _, parameters in reversed(read):
        described |= parameters
    return purpose, described


def _described(binding: Binding, notes: list[str]) -> dict[str, Any]:
    """pydantic's schema within the rules, with descriptions and with defaults that are JSON."""
    raw = binding.schema
    raw.setdefault("properties", {})
    for p in binding.parameters:
        node = raw["properties"][binding.names[p.name]]
        node.pop("default", None)
        described = p.description or node.get("description") or _given(p)
        if described:
            node["description"] = described
        if p.kind not in (VAR_POSITIONAL, VAR_KEYWORD) and _is_json(p.default):
            node["default"] = p.default
    missing = [p.name for p in binding.parameters if not p.description]
    if missing:
        notes.append(f"no description of {', '.join(missing)}")
    return without_excess(raw)


def _given(parameter: Parameter) -> str:
    if parameter.kind is VAR_KEYWORD:
        return "Further arguments by name"
    return "Further values, in order" if parameter.kind is VAR_POSITIONAL else ""


def _is_json(value: Any) -> bool:
    """Whether JSON has the value itself, and not only something like it."""
    if value is EMPTY or value is ...:
        return False
    if type(value) is float:
        return math.isfinite(value)
    if type(value) in (list, dict):
        keys = value if isinstance(value, dict) else ()
        inner = value.values() if isinstance(value, dict) else value
        try:
            fits = all(type(k) is str for k in keys) and all(map(_is_json, inner))
            return fits and len(json.dumps(value)) <= MAX_DEFAULT
        except RecursionError:
            return False
    return (
        value is None
        or type(value) in (bool, int)
        or (type(value) is str and len(value) <= MAX_DEFAULT)
    )


def _taken_apart(
    schema: Mapping[str, Any], name: str | None, description: str | None
) -> tuple[str | None, str | None, Mapping[str, Any]]:
    """The parameters of a schema that may be that of a whole tool."""
    whole = schema.get("function", schema)
    if not isinstance(whole, Mapping) or "properties" in whole or "name" not in whole:
        return name, description, schema
    said = whole.get("description")
    return (
        name or whole["name"],
        said if description is None else description,
        whole.get("parameters") or {},
    )


def _handwritten(schema: Mapping[str, Any], name: str) -> dict[str, Any]:
    try:
        tidy = written(schema)
    except (TypeError, ValueError, AttributeError) as error:
        raise KimiError(f"the schema of {name} is no JSON Schema: {error}") from None
    if tidy.get("type") != "object" or not isinstance(tidy["properties"], dict):
        raise KimiError(f'the schema of {name} must have "type": "object" at its root')
    return tidy
