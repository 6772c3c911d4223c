"""Words for what is wrong with a value, from which a model can correct it.

Every problem names the field, what came and what is wanted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from kimi_magic.schema.strict import branches, json_type, subschema, types_of

if TYPE_CHECKING:
    from pydantic import ValidationError

__all__ = [
    "ArgumentsError",
    "InvalidValue",
    "Place",
    "Places",
    "abridge",
    "got",
    "is_optional",
    "limit_in_words",
    "object_in_words",
    "problems_from_pydantic",
    "problems_with_schema",
    "stray_booleans",
    "value_at",
]

Place = tuple[int | str, ...]
"""The path to a value inside another."""

Places = dict[Place, str]
"""Problems in words, by place."""

MAX_SHOWN = 60
MAX_CHOICES = 20
MAX_FIELDS = 5
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


class InvalidValue(Exception):
    """Raised for a text or a value that does not fit."""

    root = ""  # stands for the path of the value as a whole

    def __init__(self, places: Places) -> None:
        super().__init__(places)
        self.places = places

    def __str__(self) -> str:
        return "; ".join(self.problems)

    @property
    def problems(self) -> tuple[str, ...]:
        """One line for each problem."""
        lines = ((_path(place) or self.root, words) for place, words in self.places.items())
        return tuple(f"{path}: {words}" if path else words for path, words in lines)


class ArgumentsError(InvalidValue):
    """Raised for arguments of a tool that do not fit."""

    root = "arguments"


def problems_with_schema(value: Any, schema: Mapping[str, Any]) -> Places:
    """Find what a JSON Schema has against a value."""
    from jsonschema import Draft202012Validator
    from referencing import Registry

    # Without an empty registry, jsonschema fetches remote references.
    validator = Draft202012Validator(schema, registry=Registry())
    places: Places = {}
    for error in validator.iter_errors(value):
        for reason in _nearest(error):
            for place, words in _explained(reason, schema):
                places.setdefault(place, words)
    return places


def problems_from_pydantic(
    error: ValidationError, value: Any, schema: Mapping[str, Any], known: Collection[Place] = ()
) -> Places:
    """Put pydantic's errors into words; alternatives of one place are joined.

    Problems of the places in ``known`` are in words already, and are left out.
    """
    places: Places = {}
    wanted: dict[Place, list[str]] = {}
    # pydantic reports an error for every member of a union that it tried.
    for found in error.errors(include_url=False, include_context=False, include_input=False):
        kind, loc = found["type"], found["loc"]
        is_about_key = kind in ("missing", "extra_forbidden", "unexpected_keyword_argument")
        place, stem, node, inner = _locate(loc[:-1] if is_about_key else loc, value, schema)
        if any(other[: len(stem)] == stem for other in known):
            continue
        if kind == "missing":
            field = subschema(node, loc[-1], schema)
            places[*place, loc[-1]] = f"missing, want {_in_words(field, schema)}"
        elif is_about_key:
            names = [k for each in branches(node, schema) for k in each.get("properties", ())]
            listed = f"one of {', '.join(dict.fromkeys(names))}" if names else "no fields"
            places[*place, loc[-1]] = f"unknown field, want {listed}"
        else:
            places.setdefault(place, got(inner))
            wanted.setdefault(place, []).append(_cleaned(found["msg"]))
    for place, words in wanted.items():
        places[place] += f", want {' or '.join(dict.fromkeys(words))}"
    return places


def stray_booleans(
    value: Any, schema: Any, root: Mapping[str, Any], place: Place = ()
) -> Iterator[tuple[Place, str]]:
    """Find booleans where none is wanted, which pydantic reads as 0 and 1."""
    if isinstance(value, bool):
        nodes = list(branches(schema, root))
        if nodes and not any(map(_admits_booleans, nodes)):
            yield place, f"{got(value)}, want {_in_words(schema, root)}"
    elif isinstance(value, dict | list):
        for step, inner in value.items() if isinstance(value, dict) else enumerate(value):
            field = subschema(schema, step, root)
            yield from stray_booleans(inner, field, root, (*place, step))


def value_at(value: Any, place: Place) -> Any:
    """Return the value at a place; None where there is none."""
    for step in place:
        try:
            value = value[step]
        except (LookupError, TypeError):
            return None
    return value


def is_optional(place: Place, schema: Mapping[str, Any]) -> bool:
    """Return True for a field of an object that may be left out of it."""
    *way, name = place
    node: Any = schema
    for step in way:
        node = subschema(node, step, schema)
    holders = [each for each in branches(node, schema) if name in each.get("properties", ())]
    return bool(holders) and all(name not in each.get("required", ()) for each in holders)


def got(value: Any) -> str:
    try:
        text = abridge(json.dumps(value, ensure_ascii=False))
    except (TypeError, ValueError, RecursionError):  # arguments may come from a person's edit
        text = "…"
    name = _NAMES.get(json_type(value))
    return f"got {name} ({text})" if name else f"got {text}"


def limit_in_words(rule: str, limit: Any) -> str:
    """Put a keyword of JSON Schema into words."""
    shown = limit if isinstance(limit, str) else json.dumps(limit, ensure_ascii=False)
    return _LIMITS.get(rule, f"{rule} {{}}").format(abridge(shown))


def object_in_words(schema: Mapping[str, Any]) -> str:
    """Show an object with the required fields of a schema, or else its first ones."""
    names = list(schema.get("properties") or ())
    required = [name for name in schema.get("required") or () if name in names]
    fields = ", ".join(f'"{name}": …' for name in (required or names)[:MAX_FIELDS])
    return f"one JSON object such as {{{fields}}}" if fields else "one JSON object"


def abridge(text: str) -> str:
    """Shorten a text that is quoted within a problem."""
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


def _path(place: Place) -> str:
    path = ""
    for step in place:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else step
    return path


def _nearest(error: Any) -> Iterator[Any]:
    """Yield the errors of the alternative that came nearest, or the error itself."""
    # Of the errors below anyOf or oneOf, schema_path starts with the index of the alternative.
    alternatives: dict[Any, list[Any]] = {}
    for inner in error.context or ():
        alternatives.setdefault(inner.schema_path[0], []).append(inner)
    near = [inner for inner in alternatives.values() if not any(map(_is_of_other_type, inner))]
    if not near:
        yield error
        return
    for inner in min(near, key=len):
        yield from _nearest(inner)


def _is_of_other_type(error: Any) -> bool:
    return not error.path and error.validator in ("type", "enum", "const")


def _explained(error: Any, root: Mapping[str, Any]) -> Iterator[tuple[Place, str]]:
    """Put an error of jsonschema into words."""
    place, value, schema = tuple(error.absolute_path), error.instance, error.schema
    rule, limit = error.validator, error.validator_value
    properties = schema.get("properties", {}) if isinstance(schema, Mapping) else {}
    if schema is False:
        yield place, f"{got(value)}, want nothing there"
    elif rule == "required":
        for name in limit:
            if name not in value:
                yield (*place, name), f"missing, want {_in_words(properties.get(name, {}), root)}"
    elif rule in ("additionalProperties", "unevaluatedProperties") and limit is False:
        for name in value:
            if name not in properties:
                yield (*place, name), f"unknown field, want only {', '.join(properties) or 'none'}"
    elif rule in ("type", "enum", "const", "anyOf", "oneOf"):
        yield place, f"{got(value)}, want {_in_words(schema, root)}"
    else:
        yield place, f"{got(value)}, want {limit_in_words(rule, limit)}"


def _in_words(schema: Any, root: Mapping[str, Any]) -> str:
    words = [text for node in branches(schema, root) for text in _each_in_words(node)]
    if not words and isinstance(schema, Mapping):
        words = _each_in_words(schema)
    return " or ".join(dict.fromkeys(words)) or "a value"


def _each_in_words(node: Mapping[str, Any]) -> list[str]:
    if values := _choices(node):
        return [json.dumps(value, ensure_ascii=False) for value in values[:MAX_CHOICES]]
    return [_NAMES.get(kind, kind) for kind in types_of(node)]


def _choices(node: Mapping[str, Any]) -> list[Any]:
    return [*node.get("enum", ()), *([node["const"]] if "const" in node else ())]


def _admits_booleans(node: Mapping[str, Any]) -> bool:
    if values := _choices(node):
        return any(isinstance(value, bool) for value in values)
    return "boolean" in types_of(node) or "type" not in node


def _locate(loc: Place, value: Any, schema: Mapping[str, Any]) -> tuple[Place, Place, Any, Any]:
    """Find where pydantic's location leads, which also names the alternatives that were tried.

    Returns the place, its part before the first alternative, the schema there and the value.
    """
    place: Place = ()
    stem: Place | None = None
    node: Any = schema
    for step in loc:
        in_object = isinstance(value, dict) and step in value
        if in_object or (isinstance(value, list) and isinstance(step, int) and step < len(value)):
            place, node, value = (*place, step), subschema(node, step, schema), value[step]
        elif stem is None:
            stem = place
    return place, place if stem is None else stem, node, value


def _cleaned(message: str) -> str:
    """Reduce a message of pydantic, or of a user's validator, to what it wants."""
    message = re.sub("^(Value error, |Assertion failed, )+", "", message)
    message = message.partition(", unable to parse")[0].partition(", got a number")[0]
    for start in ("Input should be ", "Input must be "):
        message = message.removeprefix(start)
    message = message.replace("a valid ", "a ")
    return re.sub(r"\ba (?=integer|array|object)", "an ", message)
