"""JSON Schema as servers hold an answer to it.

The rules of OpenAI's *strict* mode (Structured Outputs guide, supported schemas) and those of
Moonshot's validator (github.com/MoonshotAI/walle): an object at the root, each property required,
no further ones, a type in every subschema, alternatives as ``anyOf``, enumerations of one type.
What they have no word for is left out here and checked when the answer is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from kimi_magic.core.errors import KimiError
from kimi_magic.schema.problems import json_type

__all__ = ["strict_schema"]

Node = dict[str, Any]

_ANY = ["string", "number", "boolean", "object", "array", "null"]
_NUMBER = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_LIMITS = {
    "string": ("minLength", "maxLength", "pattern", "format"),
    "number": _NUMBER,
    "integer": _NUMBER,
    "array": ("minItems", "maxItems"),
}
_FORMATS = "date-time time date duration email hostname ipv4 ipv6 uuid".split()
_LARGE = 300  # subschemas after which references are not written out any more
_NULL = {"type": "null"}
_IN_WORDS = ("title", "description", "default", "examples", "$schema", "$id", "$comment", "$defs")


def strict_schema(raw: Mapping[str, Any]) -> tuple[Node, str, bool]:
    """Make a schema that servers take.

    Returns
    -------
    schema : dict
        An object at the root.
    key : str
        The property that holds the value where it was no object; else empty.
    is_closed : bool
        Whether it says all that may come; a dict with any keys does not.

    Raises
    ------
    KimiError
        A reference that leads nowhere.
    """
    walk = _Walk(raw)
    root = walk.root()
    key = ""
    if root.get("type") != "object":
        key = "items" if root.get("type") == "array" else "value"
        root = {"type": "object", **_closed({key: root})}
    if walk.defs:
        root["$defs"] = walk.defs
    return root, key, walk.is_closed


class _Walk:
    """One walk over a schema; `defs` are the definitions that stay references."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self.defs: dict[str, Node] = {}
        self.is_closed = True
        self._raw = raw
        self._names: dict[str, str] = {}
        self._size = 0

    def root(self) -> Node:
        """Not itself a reference: servers want to see an object there."""
        raw = {key: value for key, value in self._raw.items() if key != "$ref"}
        return self.node(raw | dict(self._target(self._raw.get("$ref", "#"))))

    def node(self, raw: Any) -> Node:
        """A subschema: one type, alternatives, or a reference that has to stay."""
        self._size += 1
        if not isinstance(raw, Mapping):  # true: anything goes
            raw = {}
        if "$ref" in raw:
            target = self._target(str(raw["$ref"]))
            if self._size > _LARGE or self._reaches(target, str(raw["$ref"]), set()):
                return self._kept(str(raw["$ref"]), target)
            return self.node({**target, **{k: v for k, v in raw.items() if k != "$ref"}})
        for inner in raw.get("allOf", ()):
            raw = _merged({k: v for k, v in raw.items() if k != "allOf"}, self._plain(inner))
        found = _either(list(self._alternatives(raw)))
        if raw.get("description"):
            found = {**found, "description": str(raw["description"])}
        return found

    def _alternatives(self, raw: Mapping[str, Any]) -> Iterator[Node]:
        branches = [*raw.get("anyOf", ()), *raw.get("oneOf", ())]
        if branches:
            beside = {k: v for k, v in raw.items() if k not in ("anyOf", "oneOf", *_IN_WORDS)}
            for branch in branches:
                yield self.node(_merged(self._plain(branch), beside) if beside else branch)
            return
        values = raw.get("enum", [raw["const"]] if "const" in raw else [])
        if values:
            for kind in dict.fromkeys(map(json_type, values)):
                chosen = [value for value in values if json_type(value) == kind]
                yield _NULL if kind == "null" else {"type": kind, "enum": chosen}
            return
        kinds = raw.get("type") or _guess(raw)
        if kinds == _ANY:
            self.is_closed = False
            yield {"type": list(_ANY)}
            return
        for kind in [kinds] if isinstance(kinds, str) else kinds:
            yield self._typed(kind, raw)

    def _typed(self, kind: str, raw: Mapping[str, Any]) -> Node:
        node: Node = {"type": kind}
        if kind == "object":
            node |= self._object(raw)
        if kind == "array":
            # Tuples are arrays of what may stand anywhere in them: no server knows prefixItems.
            first = raw.get("prefixItems", ())
            items = [*first, raw["items"]] if isinstance(raw.get("items"), Mapping) else [*first]
            node["items"] = self.node({"anyOf": items} if items else {})
        limits = {key: raw[key] for key in _LIMITS.get(kind, ()) if key in raw}
        if "(?" in limits.get("pattern", ""):  # engines that build grammars have no lookaround
            del limits["pattern"]
        if limits.get("format", _FORMATS[0]) not in _FORMATS:
            del limits["format"]
        return node | limits

    def _object(self, raw: Mapping[str, Any]) -> Node:
        further = raw.get("additionalProperties", True)
        if "properties" not in raw and further is not False:
            self.is_closed = False
            return {"additionalProperties": self.node(further)} if further not in (True, {}) else {}
        properties, required = raw.get("properties", {}), raw.get("required", ())
        nodes = {name: self.node(inner) for name, inner in properties.items()}
        return _closed({n: v if n in required else _nullable(v) for n, v in nodes.items()})

    def _kept(self, reference: str, target: Mapping[str, Any]) -> Node:
        if reference not in self._names:
            name = re.sub(r"[^a-zA-Z0-9_-]+", "_", reference.rpartition("/")[2]).strip("_")
            name = name or "root"
            while name in self.defs:
                name += "_"
            self._names[reference] = name
            self.defs[name] = {}  # its place: it leads to itself
            self.defs[name] = self.node(target)
        return {"$ref": f"#/$defs/{self._names[reference]}"}

    def _plain(self, raw: Any) -> Mapping[str, Any]:
        """A schema that is merged into another, its own reference resolved."""
        if isinstance(raw, Mapping) and "$ref" in raw:
            return {**self._target(str(raw["$ref"])), **{k: raw[k] for k in raw if k != "$ref"}}
        return raw if isinstance(raw, Mapping) else {}

    def _reaches(self, node: Any, reference: str, seen: set[str]) -> bool:
        """Whether a schema leads to the reference."""
        if isinstance(node, Mapping):
            further = node.get("$ref")
            if isinstance(further, str) and further not in seen:
                seen.add(further)
                if further == reference or self._reaches(self._target(further), reference, seen):
                    return True
            node = list(node.values())
        return isinstance(node, list) and any(self._reaches(n, reference, seen) for n in node)

    def _target(self, reference: str) -> Mapping[str, Any]:
        found: Any = self._raw
        path, _, fragment = reference.partition("#")
        try:
            if path:
                raise KeyError(path)
            for step in filter(None, fragment.split("/")):
                found = found[step.replace("~1", "/").replace("~0", "~")]
        except (LookupError, TypeError):
            found = None
        if not isinstance(found, Mapping):
            raise KimiError(f"The schema refers to {reference}, which it lacks: add it to $defs.")
        return {k: v for k, v in found.items() if k != "$defs"}


def _merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> Node:
    """Two schemas that both hold."""
    both = {**other, **one}
    if "properties" in one and "properties" in other:
        both["properties"] = {**other["properties"], **one["properties"]}
    if "required" in one and "required" in other:
        both["required"] = [*one["required"], *other["required"]]
    return both


def _closed(properties: dict[str, Node]) -> Node:
    names = list(properties)
    return {"properties": properties, "required": names, "additionalProperties": False}


def _either(nodes: list[Node]) -> Node:
    """Alternatives of alternatives are alternatives, each of them once."""
    flat: list[Node] = []
    for node in nodes:
        for branch in node.get("anyOf", [node]):
            if branch.get("type") == _ANY:
                return {"type": list(_ANY)}
            flat += [branch] if branch not in flat else []
    return flat[0] if len(flat) == 1 else {"anyOf": flat}


def _nullable(node: Node) -> Node:
    """What may be left out may be null: strict schemas know no other way to leave it out."""
    if node.get("type") == _ANY:
        return node
    described = {"description": node["description"]} if "description" in node else {}
    return _either([{k: v for k, v in node.items() if k not in described}, _NULL]) | described


def _guess(raw: Mapping[str, Any]) -> str | list[str]:
    if raw.keys() & {"properties", "additionalProperties", "required"}:
        return "object"
    return "array" if raw.keys() & {"items", "prefixItems"} else _ANY
