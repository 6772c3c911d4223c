"""A parameters schema that a user wrote → hints, so that calls are read as all others are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, ValidationInfo

from kimi_magic.core.errors import KimiError
from kimi_magic.schema.signature import EMPTY, KEYWORD_ONLY, VAR_KEYWORD, VAR_POSITIONAL, Parameter
from kimi_magic.schema.type_hints import Carrier, choice, dict_of, either, list_of, typed_dict

__all__ = ["parameters_of"]

_LIMITS = {
    "minimum": "ge",
    "maximum": "le",
    "exclusiveMinimum": "gt",
    "exclusiveMaximum": "lt",
    "multipleOf": "multiple_of",
    "minLength": "min_length",
    "maxLength": "max_length",
    "pattern": "pattern",
    "minItems": "min_length",
    "maxItems": "max_length",
}
_LIMITS_OF = {
    "string": ("minLength", "maxLength", "pattern"),
    "array": ("minItems", "maxItems"),
    "integer": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}


def parameters_of(
    schema: Mapping[str, Any], own: Sequence[Parameter], carrier: Carrier, name: str
) -> list[Parameter]:
    """The parameters of a function as a schema describes them.

    Parameters
    ----------
    schema : mapping
        The schema, an object at the root.
    own : sequence of Parameter
        What the function itself takes.
    carrier : Carrier
        For the function's own hints, to which what was read is then converted.
    name : str
        Of the tool, for messages.

    Raises
    ------
    KimiError
        The schema and the function do not fit each other.
    """
    properties, required = schema["properties"], schema.get("required", ())
    if missing := [key for key in required if key not in properties]:
        raise KimiError(f"the schema of {name} requires {missing[0]}: add it to its properties")
    further = next((p for p in own if p.kind is VAR_KEYWORD), None)
    found: list[Parameter] = []
    for p in own:
        if p.name in properties and p.kind is not VAR_KEYWORD:
            hint = _hint(properties[p.name], schema, ())
            if p.kind is not VAR_POSITIONAL:
                hint = _then(hint, carrier.carry(p.hint, p.name)) if p.hint is not Any else hint
            else:
                hint = Any
            default = EMPTY if p.name in required else p.default
            found.append(replace(p, hint=hint, default=default))
        elif p.required:
            raise KimiError(f"the schema of {name} lacks {p.name}, which it takes: add a property")
        elif p is not further:
            found.append(replace(p, offered=False))
    names = {p.name for p in own if p.kind is not VAR_KEYWORD}
    others = [key for key in properties if key not in names]
    if others and further is None and not _is_open(own):
        raise KimiError(f"the schema of {name} has {others[0]}, which {name} does not take")
    found += [
        Parameter(key, KEYWORD_ONLY, _hint(properties[key], schema, ()), _absent(key, required))
        for key in others
    ]
    if further and schema.get("additionalProperties", True) is not False:
        found.append(replace(further, name=_free(further.name, properties), hint=Any, offered=True))
    return found


def _absent(key: str, required: Sequence[str]) -> Any:
    return EMPTY if key in required else ...


def _free(name: str, taken: Mapping[str, Any]) -> str:
    while name in taken:
        name += "_"
    return name


def _is_open(own: Sequence[Parameter]) -> bool:
    """Whether nothing is known of what the function takes."""
    return [(p.name, p.kind) for p in own] == [("args", VAR_POSITIONAL)]


def _then(read: Any, hint: Any) -> Any:
    """A hint that reads what the schema says, then what the function says."""
    adapter = TypeAdapter(hint)

    def convert(value: Any, info: ValidationInfo) -> Any:
        try:
            return adapter.validate_python(value, context=info.context)
        except ValidationError as error:
            raise ValueError(error.errors(include_url=False)[0]["msg"]) from None

    return Annotated[read, AfterValidator(convert)]


def _hint(node: Mapping[str, Any], root: Mapping[str, Any], within: tuple[str, ...]) -> Any:
    """The hint that reads what a subschema says; where it says more than we read, any value."""
    if reference := node.get("$ref"):
        name = str(reference).rpartition("/")[2]
        inner = root.get("$defs", {}).get(name)
        if reference == "#" or name in within:
            return Any
        if inner is None:
            raise KimiError(f"the schema refers to {reference}, which it lacks: add it to $defs")
        return _hint(inner, root, (*within, name))
    if alternatives := node.get("anyOf") or node.get("oneOf"):
        return _either([_hint(branch, root, within) for branch in alternatives])
    if "enum" in node or "const" in node:
        return choice({v: v for v in node.get("enum", [node.get("const")])})
    kinds = node.get("type", ())
    if not isinstance(kinds, str):
        return _either([_hint({**node, "type": kind}, root, within) for kind in kinds])
    limits = {_LIMITS[key]: node[key] for key in _LIMITS_OF.get(kinds, ()) if key in node}
    hint = _plain(kinds, node, root, within)
    return Annotated[hint, Field(**limits)] if limits else hint


def _either(hints: list[Any]) -> Any:
    return either(hints) if hints and Any not in hints else Any


def _plain(
    kind: str, node: Mapping[str, Any], root: Mapping[str, Any], within: tuple[str, ...]
) -> Any:
    if kind == "array":
        return list_of(_hint(node["items"], root, within) if "items" in node else Any)
    if kind != "object":
        plain = {
            "string": str,
            "integer": int,
            "number": int | float,
            "boolean": bool,
            "null": None,
        }
        return plain.get(kind, Any)
    further = node.get("additionalProperties", True)
    if "properties" not in node:
        return dict_of(_hint(further, root, within) if isinstance(further, Mapping) else Any)
    hints = {key: _hint(inner, root, within) for key, inner in node["properties"].items()}
    made = typed_dict("Object", hints, node.get("required", ()))
    made.__pydantic_config__ = ConfigDict(extra="forbid" if further is False else "allow")
    return made
