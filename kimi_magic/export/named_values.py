"""Variables that a tool's call names, as JSON cannot carry their values."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

__all__ = ["NAMED", "names_by_parameter"]

MAX_NAMES = 8  # each may be a value for a person to fill in

# string.Template: $name, and no escaping of braces.
NAMED = '''
def $named(function, *parameters):
    """Call a function with variables' values in the place of their names."""

    def value(name):
        if isinstance(name, list):
            return [value(item) for item in name]
        return $variables.get(name, name) if isinstance(name, str) else name

    def call(**given):
        found = {name: value(given[name]) for name in parameters if name in given}
        return function(**(given | found))

    return call
'''


def names_by_parameter(
    schema: Mapping[str, Any], function: Callable[..., Any]
) -> dict[str, list[str]]:
    """Return the names that a tool's schema lists for variables, by parameter.

    They are choices that the parameter's type hint does not take as they are.
    """
    found: dict[str, list[str]] = {}
    with suppress(Exception):  # evaluates type hints, which is user code
        known = inspect.signature(function, eval_str=True).parameters
        for name, part in (schema.get("properties") or {}).items():
            listed = list(dict.fromkeys(_choices(part)))[:MAX_NAMES]
            if listed and name in known and not _takes(known[name].annotation, listed[0]):
                found[name] = listed
    return found


def _choices(part: Any) -> Iterator[str]:
    if isinstance(part, Mapping):
        if part.get("type") == "string":
            yield from (n for n in part.get("enum") or () if _is_path(n))
        for inner in (part.get("items"), *(part.get("anyOf") or ())):
            yield from _choices(inner)


def _is_path(name: Any) -> bool:
    return isinstance(name, str) and all(map(str.isidentifier, name.split(".")))


def _takes(hint: Any, name: str) -> bool:
    """Return True if a hint's values may be this text, or a list of it."""
    import pydantic

    if hint is inspect.Parameter.empty:
        return True
    with suppress(Exception):
        adapter = pydantic.TypeAdapter(hint)
        for value in (name, [name]):
            with suppress(pydantic.ValidationError):
                adapter.validate_python(value)
                return True
    return False
