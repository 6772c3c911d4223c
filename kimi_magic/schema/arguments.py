"""The text of a call's arguments → the arguments, or what is wrong with them.

JSON is read as it stands: nothing is guessed at, closed or completed. What servers and models are
known to wrap around it (nothing for no arguments, JSON in a JSON string) is taken off.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from kimi_magic.schema.argument_problems import ArgumentsError

__all__ = ["parse_arguments"]

MAX_WRAPS = 3
MAX_SHOWN = 60

_NAMES = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
}


def parse_arguments(text: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Read the arguments of a call.

    Parameters
    ----------
    text : str
        What the model sent: a JSON object, or nothing or ``null`` for no arguments; a JSON string
        that holds one of these is unwrapped.
    parameters : mapping or None
        The tool's JSON Schema. Where it wants an array or object and no string, a string that
        holds one is decoded, once.

    Raises
    ------
    ArgumentsError
        Broken or truncated JSON, anything but an object, a key twice, NaN or infinity.
    """
    parameters = parameters or {}
    try:
        arguments = _unwrap(text, parameters)
        problems = [
            f"{path}: got {_constant(number)}, want a finite number"
            for path, number in _infinite(arguments, "")
        ]
        if problems:
            raise ArgumentsError(*problems)
        return {
            name: _decode(value, _property(parameters, name), parameters)
            for name, value in arguments.items()
        }
    except RecursionError:
        problem = f"arguments: nested too deeply; want {_wanted(parameters)}"
        raise ArgumentsError(problem) from None


def _unwrap(text: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    found: object = text
    for _ in range(MAX_WRAPS):
        if not isinstance(found, str):
            break
        if not found.strip():
            return {}
        found = _loads(found, parameters)
    if found is None:
        return {}
    if isinstance(found, dict):
        return found
    problem = f"arguments: got {_got(found)}, want {_wanted(parameters)}"
    raise ArgumentsError(problem)


def _loads(text: str, parameters: Mapping[str, Any]) -> Any:
    doubled: list[str] = []

    def read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found:
                doubled.append(name)
            found[name] = value
        return found

    try:
        # A line break inside a string, which strict JSON wants escaped, has one meaning only.
        found = json.loads(text, object_pairs_hook=read_object, strict=False)
    except json.JSONDecodeError as error:
        raise ArgumentsError(f"arguments: {_broken(error)}; want {_wanted(parameters)}") from None
    except ValueError:
        # sys.set_int_max_str_digits
        raise ArgumentsError("arguments: got an integer of more than 4,300 digits") from None
    if doubled:
        problems = (
            f"{_short(name)}: got it more than once, want it once"
            for name in dict.fromkeys(doubled)
        )
        raise ArgumentsError(*problems)
    return found


def _broken(error: json.JSONDecodeError) -> str:
    text, at = error.doc, error.pos
    reason = error.msg.removesuffix(" at").removesuffix(" starting")
    if at >= len(text.rstrip()) or reason == "Unterminated string":
        return f"got JSON that is cut off after «{text.rstrip()[-30:]}» ({reason})"
    near = text[max(at - 15, 0) : at + 15]
    return f"got text that is not JSON ({reason} at character {at + 1}, near «{near}»)"


def _infinite(value: object, path: str) -> Iterator[tuple[str, float]]:
    """Find the numbers that JSON does not have: NaN, Infinity, and 1e999, which becomes it."""
    if isinstance(value, float) and not math.isfinite(value):
        yield path, value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _infinite(item, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _infinite(item, f"{path}[{i}]")


def _constant(number: float) -> str:
    if math.isnan(number):
        return "NaN"
    return "Infinity" if number > 0 else "-Infinity"


def _decode(value: Any, schema: Any, root: Mapping[str, Any]) -> Any:
    """Decode strings that hold what the schema wants in their place."""
    if isinstance(value, str):
        return _decode_text(value, _types(schema, root))
    if isinstance(value, dict):
        return {
            name: _decode(item, _inside(schema, root, name), root) for name, item in value.items()
        }
    if isinstance(value, list):
        return [_decode(item, _inside(schema, root, None), root) for item in value]
    return value


def _decode_text(text: str, wanted: set[str]) -> Any:
    if "string" in wanted or not wanted & {"array", "object"}:
        return text
    try:
        found = _loads(text, {})
    except ArgumentsError:
        return text
    return text if _json_type(found) not in wanted or any(_infinite(found, "")) else found


def _json_type(value: object) -> str:
    kinds: dict[type, str] = {dict: "object", list: "array", type(None): "null"}
    return kinds.get(type(value), "")


def _property(schema: Mapping[str, Any], name: str) -> Any:
    properties = schema.get("properties")
    if isinstance(properties, Mapping) and name in properties:
        return properties[name]
    return schema.get("additionalProperties")


def _inside(schema: Any, root: Mapping[str, Any], name: str | None) -> Any:
    """Find the schema of a property, or of an item; the first that fits of several branches."""
    for branch in _branches(schema, root):
        found = branch.get("items") if name is None else _property(branch, name)
        if isinstance(found, Mapping):
            return found
    return {}


def _types(schema: Any, root: Mapping[str, Any]) -> set[str]:
    """Name the types that a schema admits; empty where it admits any."""
    types: set[str] = set()
    for branch in _branches(schema, root):
        named = branch.get("type")
        if named is None:
            # A value may be spelled out in place of its type; a text may be meant as it is.
            return {"string"} if {"enum", "const"} & branch.keys() else set()
        types |= {named} if isinstance(named, str) else set(named)
    return types


def _branches(schema: Any, root: Mapping[str, Any], depth: int = 5) -> Iterator[Mapping[str, Any]]:
    """Follow references and alternatives to the schemas that say something themselves."""
    if not isinstance(schema, Mapping) or not depth:
        return
    inner = list(schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf") or ())
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/"):
        inner.append(_resolve(reference, root))
    if not inner:
        yield schema
    for branch in inner:
        yield from _branches(branch, root, depth - 1)


def _resolve(reference: str, root: Mapping[str, Any]) -> Any:
    found: Any = root
    for step in reference[2:].split("/"):
        name = step.replace("~1", "/").replace("~0", "~")
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _wanted(parameters: Mapping[str, Any]) -> str:
    names = list(parameters.get("properties") or {})
    if not names:
        return "one JSON object"
    required = [name for name in parameters.get("required") or () if name in names]
    shown = ", ".join(f'"{name}": …' for name in (required or names)[:5])
    return f"one JSON object such as {{{shown}}}"


def _got(value: object) -> str:
    kind = _NAMES.get(type(value), "a value")
    return f"{kind} ({_short(value)})"


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"
