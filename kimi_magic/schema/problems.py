"""What is wrong with a value, in words from which a model can mend it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

__all__ = [
    "Misfit",
    "Place",
    "Places",
    "got",
    "json_type",
    "limit_in_words",
    "schema_problems",
]

Place = tuple[int | str, ...]
Places = dict[Place, str]

MAX_SHOWN = 60
MAX_CHOICES = 20
_NAMES = {
    "string": "a string",
    "number": "a number",
    "integer": "an integer",
    "boolean": "a boolean",
    "array": "an array",
    "object": "an object",
}
_LIMITS = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "exclusiveMinimum": "more than {}",
    "exclusiveMaximum": "less than {}",
    "multipleOf": "a multiple of {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
}
_TYPES: dict[type, str] = {
    str: "string",
    float: "number",
    int: "integer",
    bool: "boolean",
    list: "array",
    dict: "object",
    type(None): "null",
}


class Misfit(Exception):
    """A value that does not fit.

    Parameters
    ----------
    places : dict
        What is wrong, by where it stands.
    """

    def __init__(self, places: Places) -> None:
        super().__init__(places)
        self.places = places

    @property
    def problems(self) -> tuple[str, ...]:
        """One line for each."""
        lines = ((_path(place), words) for place, words in self.places.items())
        return tuple(f"{path}: {words}" if path else words for path, words in lines)


def schema_problems(value: Any, schema: Mapping[str, Any]) -> Places:
    """What a JSON Schema says against a value."""
    from jsonschema import Draft202012Validator
    from referencing import Registry

    # The registry is empty, or references would be fetched.
    validator = Draft202012Validator(schema, registry=Registry())
    places: Places = {}
    for error in validator.iter_errors(value):
        for reason in _reasons(error):
            for place, words in _said(reason, schema):
                places.setdefault(place, words)
    return places


def limit_in_words(rule: str, limit: Any) -> str:
    """What a keyword of JSON Schema asks for."""
    shown = limit if isinstance(limit, str) else json.dumps(limit, ensure_ascii=False)
    return _LIMITS.get(rule, f"{rule} {{}}").format(_short(shown))


def json_type(value: Any) -> str:
    """JSON's name for the type of a value."""
    return _TYPES.get(type(value), "string")


def got(value: Any) -> str:
    """A value that came, in words."""
    text = _short(json.dumps(value, ensure_ascii=False))
    name = _NAMES.get(json_type(value))
    return f"got {name} ({text})" if name else f"got {text}"


def _short(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


def _reasons(error: Any) -> Iterator[Any]:
    """Of alternatives the one that came nearest; none where the value is of another type."""
    branches: dict[Any, list[Any]] = {}
    for inner in error.context or ():
        branches.setdefault(inner.schema_path[0], []).append(inner)
    near = [inner for inner in branches.values() if not any(map(_is_about_all, inner))]
    if not near:
        yield error
        return
    for inner in min(near, key=len):
        yield from _reasons(inner)


def _is_about_all(error: Any) -> bool:
    return not error.path and error.validator in ("type", "enum", "const")


def _said(error: Any, root: Mapping[str, Any]) -> Iterator[tuple[Place, str]]:
    place, value, schema = tuple(error.absolute_path), error.instance, error.schema
    rule, limit = error.validator, error.validator_value
    properties = schema.get("properties", {}) if isinstance(schema, Mapping) else {}
    if schema is False:
        yield place, f"{got(value)}, want nothing there"
    elif rule == "required":
        for name in limit:
            if name not in value:
                yield (*place, name), f"missing, want {_words([properties.get(name, {})], root)}"
    elif rule in ("additionalProperties", "unevaluatedProperties") and limit is False:
        for name in value:
            if name not in properties:
                yield (*place, name), f"unknown field, want only {', '.join(properties) or 'none'}"
    elif rule in ("type", "enum", "const", "anyOf", "oneOf"):
        yield place, f"{got(value)}, want {_words([schema], root)}"
    else:
        yield place, f"{got(value)}, want {limit_in_words(rule, limit)}"


def _words(nodes: Iterable[Any], root: Mapping[str, Any]) -> str:
    return " or ".join(dict.fromkeys(w for n in nodes for w in _each(n, root))) or "a value"


def _each(node: Any, root: Mapping[str, Any]) -> Iterator[str]:
    """A schema's alternatives in words."""
    if not isinstance(node, Mapping):
        return
    values = node.get("enum", [node["const"]] if "const" in node else [])
    kind = node.get("type", ())
    if values:
        yield from (json.dumps(value, ensure_ascii=False) for value in values[:MAX_CHOICES])
    elif kind:
        for name in [kind] if isinstance(kind, str) else kind:
            yield _NAMES.get(name, name)
    elif "$ref" in node:
        name = str(node["$ref"]).rpartition("/")[2]
        yield from _each({"type": "object"} | dict(root.get("$defs", {}).get(name, {})), root)
    for branch in [*node.get("anyOf", ()), *node.get("oneOf", ())]:
        yield from _each(branch, root)


def _path(place: Place) -> str:
    path = ""
    for step in place:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else step
    return path
