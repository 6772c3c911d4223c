"""JSON Schema as the strictest of the servers takes it.

The rules are those of Moonshot's validator (github.com/MoonshotAI/walle, level *strict*): each
subschema has a type, or else ``anyOf`` or ``$ref`` whose branches have one; beside several types
stands no other keyword than title and description; ``enum`` holds values of one type; ``$defs``
are at the root; a property is not named like some of the keywords.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

from kimi_magic.schema.type_hints import HOLDS, Reference

__all__ = ["RESERVED", "branches", "json_type", "with_variables", "without_excess", "written"]

RESERVED = ("$defs", "$ref", "anyOf", "required", "additionalProperties")

_ANY = ["string", "number", "boolean", "object", "array", "null"]
_TYPES: dict[type, str] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    dict: "object",
    list: "array",
    type(None): "null",
}
_IN_WORDS = ("title", "description")
_SCHEMAS = ("items", "additionalProperties", "propertyNames", "contains", "not")
_LISTS = ("anyOf", "allOf", "prefixItems")
_MAX_GROWTH = 4000  # characters by which a schema may grow when references are written out


def without_excess(schema: Mapping[str, Any]) -> dict[str, Any]:
    """What pydantic writes, within the rules: no titles, references only where there is a cycle."""
    defs = schema.get("$defs", {})
    cyclic = {name for name in defs if name in _reachable(defs[name], defs)}
    short = _Tidy(defs, keep=cyclic).root(schema)
    if len(json.dumps(short)) - len(json.dumps(schema, default=str)) > _MAX_GROWTH:
        return _Tidy(defs, keep=set(defs)).root(schema)
    return short


def written(schema: Mapping[str, Any]) -> dict[str, Any]:
    """What a user wrote, left alone but for what servers refuse."""
    text = json.dumps(schema)
    root = json.loads(text.replace('"#/definitions/', '"#/$defs/'))
    if "definitions" in root:
        root["$defs"] = root.pop("definitions") | root.get("$defs", {})
    root = {"type": "object", "properties": {}} | root
    return _Tidy(root.get("$defs", {}), keep=set(root.get("$defs", {})), as_is=True).root(root)


def with_variables(
    schema: Mapping[str, Any], references: list[Reference], namespace: Mapping[str, Any]
) -> dict[str, Any]:
    """Say which variables can be named at this moment."""
    filled = deepcopy(dict(schema))
    for node in _marked(filled):
        sentence = references[node.pop(HOLDS)].sentence(namespace)
        said = str(node.get("description", "")).rstrip(". ")
        node["description"] = f"{said}. {sentence}" if said else sentence
    return filled


def branches(schema: Any, defs: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The alternatives of a schema, each of which says something itself."""
    if not isinstance(schema, Mapping):
        return
    inner = [*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())]
    if "$ref" in schema:
        inner.append(defs.get(str(schema["$ref"]).rpartition("/")[2], {}))
    if not inner:
        yield schema
    for branch in inner:
        yield from branches(branch, defs)


def json_type(value: Any) -> str:
    """JSON's name for the type of a value."""
    return _TYPES.get(type(value), "")


class _Tidy:
    """One walk over a schema; `keep` names the definitions that stay references."""

    def __init__(self, defs: Mapping[str, Any], keep: set[str], *, as_is: bool = False) -> None:
        self.defs, self.keep, self.as_is = defs, keep, as_is

    def root(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        tidy = self.node({key: value for key, value in schema.items() if key != "$defs"})
        if self.keep:
            tidy["$defs"] = {
                name: self.node(self.defs[name]) for name in self.defs if name in self.keep
            }
        return tidy

    def node(self, schema: Any) -> dict[str, Any]:
        if not isinstance(schema, Mapping):  # true: anything goes
            return {"type": list(_ANY)}
        node = dict(schema)
        if not self.as_is:
            node = self._written_out(self._trimmed(node))
        for key in _SCHEMAS:
            if isinstance(node.get(key), Mapping):
                node[key] = self.node(node[key])
            elif key in node and key != "additionalProperties":
                del node[key]
                if key == "items" and not node.keys() & {"type", "anyOf", "$ref"}:
                    node["type"] = "array"
        for key in _LISTS:
            if key in node:
                node[key] = [self.node(branch) for branch in node[key]]
        if "properties" in node:
            node["properties"] = {k: self.node(v) for k, v in node["properties"].items()}
        return self._typed(self._flat(node))

    def _trimmed(self, node: dict[str, Any]) -> dict[str, Any]:
        """Leave out what says nothing to the model or is no JSON."""
        node.pop("discriminator", None)
        if isinstance(node.get("title"), str):
            del node["title"]
        if "oneOf" in node:
            node["anyOf"] = node.pop("oneOf")
        if "const" in node:
            node["enum"] = [node.pop("const")]
        for key in ("items", "additionalProperties"):
            if node.get(key, False) in (True, {}):
                del node[key]
        if "(?" in node.get("pattern", ""):  # engines that build grammars have no lookaround
            del node["pattern"]
        return {k: v for k, v in node.items() if not isinstance(v, float) or math.isfinite(v)}

    def _written_out(self, node: dict[str, Any]) -> dict[str, Any]:
        name = str(node.get("$ref", "")).rpartition("/")[2]
        if not name or name in self.keep:
            return node
        beside = {key: value for key, value in node.items() if key != "$ref"}
        return self._written_out(self._trimmed({**self.defs[name], **beside}))

    def _flat(self, node: dict[str, Any]) -> dict[str, Any]:
        """Alternatives of alternatives are alternatives, each of them once."""
        if self.as_is or "anyOf" not in node:
            return node
        flat: list[Any] = []
        for branch in node["anyOf"]:
            inner = branch["anyOf"] if set(branch) == {"anyOf"} else [branch]
            flat += [b for b in inner if b not in flat]
        if {"type": _ANY} in flat:
            del node["anyOf"]
            return node
        if len(flat) == 1 and not set(flat[0]) & set(node):
            del node["anyOf"]
            return {**flat[0], **node}
        return {**node, "anyOf": flat}

    def _typed(self, node: dict[str, Any]) -> dict[str, Any]:
        """A type, or alternatives that have one."""
        kind = node.get("type")
        if "anyOf" in node or "$ref" in node:
            if kind is not None:
                del node["type"]
                node["anyOf"] = [self._inherits(b, kind) for b in node.get("anyOf", ())]
                if not node["anyOf"]:
                    del node["anyOf"]
            return node
        if kind is None:
            kind = self._guess(node)
        kinds = [kind] if isinstance(kind, str) else list(kind)
        if kinds == _ANY and node.get("default", ...) is None:
            del node["default"]
        if len(kinds) == 1:
            return {"type": kinds[0]} | {k: v for k, v in node.items() if k != "type"}
        beside = {k: v for k, v in node.items() if k in (*_IN_WORDS, "default")}
        said = {k: v for k, v in node.items() if k not in beside and k != "type"}
        if not said and "default" not in beside:
            return {"type": kinds, **beside}
        return {"anyOf": [_narrowed(said, kind) for kind in kinds], **beside}

    def _inherits(self, branch: dict[str, Any], kind: Any) -> Any:
        """A branch whose type was written beside the alternatives."""
        own = branch.get("type", _ANY)
        if "anyOf" in branch or "$ref" in branch or own != _ANY:
            return branch
        return self._typed({**branch, "type": kind})

    @staticmethod
    def _guess(node: Mapping[str, Any]) -> list[str]:
        values = node.get("enum", [node["const"]] if "const" in node else None)
        if values is not None:
            return list(dict.fromkeys(map(json_type, values))) or list(_ANY)
        if node.keys() & {"properties", "additionalProperties", "required"}:
            return ["object"]
        if node.keys() & {"items", "prefixItems"}:
            return ["array"]
        return list(_ANY)


def _narrowed(said: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """What of the keywords is about one type."""
    node: dict[str, Any] = {"type": kind}
    for key, value in said.items():
        if key == "enum":
            values = [v for v in value if json_type(v) == kind]
            node |= {"enum": values} if values and kind != "null" else {}
        elif kind in _MEANT_FOR.get(key, (kind,)):
            node[key] = value
    return node


_MEANT_FOR = {
    **dict.fromkeys(("items", "prefixItems", "minItems", "maxItems", "uniqueItems"), ("array",)),
    **dict.fromkeys(("properties", "required", "additionalProperties"), ("object",)),
    **dict.fromkeys(("minLength", "maxLength", "pattern", "format"), ("string",)),
    **dict.fromkeys(("minimum", "maximum", "multipleOf"), ("number", "integer")),
    **dict.fromkeys(("exclusiveMinimum", "exclusiveMaximum"), ("number", "integer")),
}


def _reachable(node: Any, defs: Mapping[str, Any], seen: set[str] | None = None) -> set[str]:
    """The definitions that a schema leads to."""
    seen = set() if seen is None else seen
    if isinstance(node, Mapping):
        name = str(node["$ref"]).rpartition("/")[2] if isinstance(node.get("$ref"), str) else ""
        if name in defs and name not in seen:
            seen.add(name)
            _reachable(defs[name], defs, seen)
        for inner in node.values():
            _reachable(inner, defs, seen)
    elif isinstance(node, list):
        for inner in node:
            _reachable(inner, defs, seen)
    return seen


def _marked(node: Any) -> Iterator[dict[str, Any]]:
    """The places that are filled by a variable's name."""
    if isinstance(node, dict):
        if HOLDS in node:
            yield node
        for inner in list(node.values()):
            yield from _marked(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from _marked(inner)
