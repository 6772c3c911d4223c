"""JSON Schema within the rules of the servers, and steps through a schema.

Schemas of tools follow Moonshot's validator (github.com/MoonshotAI/walle, level *strict*): each
subschema has a type, or else ``anyOf`` or ``$ref``; beside several types only title and description
are allowed; ``enum`` holds values of one type; ``$defs`` is at the root; a property must not have
the name of certain keywords. Schemas of answers also follow OpenAI's *strict* mode (Structured
Outputs guide, supported schemas): an object at the root, every property required, no others.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from kimi_magic.core.errors import KimiError

__all__ = [
    "RESERVED",
    "branches",
    "handwritten_schema",
    "json_type",
    "one_object",
    "resolve",
    "strict_schema",
    "subschema",
    "tool_schema",
    "types_of",
]

Node = dict[str, Any]

RESERVED = ("$defs", "$ref", "anyOf", "required", "additionalProperties")
"""Keywords that servers refuse as the name of a property."""

_ANY = ["string", "number", "boolean", "object", "array", "null"]
_NULL = {"type": "null"}
_TYPES: dict[type, str] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    dict: "object",
    list: "array",
    type(None): "null",
}
_NUMBER = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_CONCERNS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(_NUMBER, ("number", "integer")),
    **dict.fromkeys(("minLength", "maxLength", "pattern"), ("string",)),
    "format": ("string", "number", "integer"),
    **dict.fromkeys(("items", "prefixItems", "contains"), ("array",)),
    **dict.fromkeys(("minItems", "maxItems", "uniqueItems"), ("array",)),
    **dict.fromkeys(("properties", "required", "additionalProperties"), ("object",)),
    **dict.fromkeys(("propertyNames", "patternProperties", "dependentRequired"), ("object",)),
    **dict.fromkeys(("minProperties", "maxProperties"), ("object",)),
    "not": (*_ANY, "integer"),
}
_LITERAL = ("default", "enum", "const", "examples")  # keywords whose values are no schemas
_FLAGS = {"minimum": "exclusiveMinimum", "maximum": "exclusiveMaximum"}
_RULES = {*_CONCERNS, "type", "enum", "const"}
_STRUCTURE = {"$ref", "anyOf", "oneOf", "allOf", "$defs", "definitions", "discriminator"}
_STRICT_LIMITS = {
    "string": ("minLength", "maxLength", "pattern", "format"),
    "number": _NUMBER,
    "integer": _NUMBER,
    "array": ("minItems", "maxItems"),
}
_STRICT_FORMATS = "date-time time date duration email hostname ipv4 ipv6 uuid".split()
_MAX_GROWTH = 4000  # characters of definitions that are written out more than once
_MAX_DEPTH = 10  # alternatives may refer to themselves


def tool_schema(raw: Mapping[str, Any]) -> Node:
    """Normalize pydantic's schema of a tool's parameters.

    Titles are dropped, and references are written out unless they are recursive or large.
    """
    return _Normalizer(raw).root()


def handwritten_schema(raw: Mapping[str, Any]) -> Node:
    """Normalize a user's schema of a tool's parameters, changing only what servers refuse."""
    root = {"type": "object", "properties": {}} | json.loads(json.dumps(raw))
    return _Normalizer(_modern(root), verbatim=True).root()


def one_object(root: Mapping[str, Any]) -> Node:
    """Return a normalized schema whose alternatives at the root are joined in one object.

    Servers want an object there. The result admits whatever an alternative does, and more; its
    description lists what they require. Alternatives that are no objects are dropped.
    """
    found = [node for node in branches(root, root) if node.get("type") == "object"]
    if not found:
        return dict(root)
    gathered: dict[str, list[Node]] = {}
    for node in found:
        for name, inner in node.get("properties", {}).items():
            gathered.setdefault(name, []).append(inner)
    properties = {name: _any_of(nodes) for name, nodes in gathered.items()}
    required = [tuple(n for n in node.get("required", ()) if n in properties) for node in found]
    common = [name for name in required[0] if all(name in names for names in required)]
    joined: Node = {"type": "object", "properties": properties}
    joined |= {"required": common} if common else {}
    if all(node.get("additionalProperties") is False for node in found):
        joined["additionalProperties"] = False
    texts = [str(root.get("description", "")).rstrip(". "), *_choices_in_words(required, common)]
    joined |= {"description": ". ".join(filter(None, texts))} if any(texts) else {}
    return joined | {key: value for key, value in root.items() if key in ("title", "$defs")}


def _choices_in_words(required: list[tuple[str, ...]], common: list[str]) -> list[str]:
    sets = [", ".join(n for n in names if n not in common) for names in dict.fromkeys(required)]
    return [f"Give either {'; or '.join(sets)}"] if len(sets) > 1 and all(sets) else []


def _modern(node: Any) -> Any:
    """Rewrite what older drafts and OpenAPI write otherwise: lists of items, flags for limits."""
    if isinstance(node, list):
        return [_modern(inner) for inner in node]
    if not isinstance(node, dict):
        return node
    made: Node = {}
    for key, inner in node.items():
        if key in ("properties", "$defs", "definitions", "patternProperties"):
            is_named = isinstance(inner, dict)
            made[key] = {n: _modern(each) for n, each in inner.items()} if is_named else inner
        else:
            made[key] = inner if key in _LITERAL else _modern(inner)
    if isinstance(made.get("items"), list):
        made["prefixItems"] = made.pop("items")
        further = made.pop("additionalItems", None)
        made |= {"items": further} if isinstance(further, dict) else {}
    for limit, exclusive in _FLAGS.items():
        if isinstance(made.get(exclusive), bool) and made.pop(exclusive) and limit in made:
            made[exclusive] = made.pop(limit)
    if made.get("nullable") is True and "type" in made:
        del made["nullable"]
        made["type"] = list(dict.fromkeys([*types_of(made), "null"]))
        made |= {"enum": [*made["enum"], None]} if "enum" in made else {}
    return made


def strict_schema(raw: Mapping[str, Any]) -> tuple[Node, str, bool]:
    """Normalize a schema of answers; what strict mode cannot express is left out.

    Returns
    -------
    schema : dict
        An object at the root.
    key : str
        The property that holds the value if it was no object; else empty.
    is_closed : bool
        False if the schema leaves anything open, such as a dict with any keys.
    """
    normalizer = _StrictNormalizer(raw)
    root, key = normalizer.root(), ""
    if root.get("type") != "object":
        key = "items" if root.get("type") == "array" else "value"
        defs = {"$defs": root.pop("$defs")} if "$defs" in root else {}
        root = {"type": "object", **_closed({key: root}), **defs}
    return root, key, normalizer.is_closed


def json_type(value: Any) -> str:
    """Return JSON's name for the type of a value, empty if JSON has none."""
    return _TYPES.get(type(value), "")


def types_of(node: Mapping[str, Any]) -> list[str]:
    """Return the types that a subschema names itself."""
    kind = node.get("type", [])
    return [kind] if isinstance(kind, str) else list(kind)


def resolve(reference: str, root: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Follow a reference within a schema."""
    found: Any = root
    path, _, pointer = reference.partition("#")
    try:
        for step in filter(None, pointer.split("/")):
            found = found[step.replace("~1", "/").replace("~0", "~")]
    except (LookupError, TypeError):
        return None
    return found if isinstance(found, Mapping) and not path else None


def branches(
    schema: Any, root: Mapping[str, Any], depth: int = _MAX_DEPTH
) -> Iterator[Mapping[str, Any]]:
    """Yield the alternatives of a schema, references and combinations resolved."""
    if not isinstance(schema, Mapping) or not depth:
        return
    inner: list[Any] = [
        branch for key in ("anyOf", "oneOf", "allOf") for branch in schema.get(key, ())
    ]
    if "$ref" in schema:
        inner.append(resolve(str(schema["$ref"]), root) or {})
    if not inner:
        yield schema
    for branch in inner:
        yield from branches(branch, root, depth - 1)


def subschema(schema: Any, step: int | str, root: Mapping[str, Any]) -> Node:
    """Return the schema of a field or an item, with ``anyOf`` where there are several."""
    found = [
        _item(node, step) if isinstance(step, int) else _field(node, step)
        for node in branches(schema, root)
    ]
    return {"anyOf": [inner for inner in found if inner is not None]}


def _field(node: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    inner = node.get("properties", {}).get(name)
    if inner is None and _may_be(node, "object"):
        inner = node.get("additionalProperties")
        return inner if isinstance(inner, Mapping) else {}
    return inner  # type: ignore[no-any-return]


def _item(node: Mapping[str, Any], index: int) -> Mapping[str, Any] | None:
    first = node.get("prefixItems", ())
    if index < len(first):
        return first[index]  # type: ignore[no-any-return]
    inner = node.get("items")
    if not _may_be(node, "array"):
        return None
    return inner if isinstance(inner, Mapping) else {}


def _may_be(node: Mapping[str, Any], kind: str) -> bool:
    return kind in types_of(node) or not types_of(node)


class _Normalizer:
    """One walk over a schema; `verbatim` keeps all that servers accept as it was written."""

    def __init__(self, raw: Mapping[str, Any], *, verbatim: bool = False) -> None:
        self._raw = raw
        self._verbatim = verbatim
        self._defs: dict[str, Node] = {}
        self._names: dict[str, str] = {}  # of the definitions, by reference
        self._recursive: dict[str, bool] = {}
        self._inlined: set[str] = set()
        self._growth = 0

    def root(self) -> Node:
        # Servers want an object at the root, not a reference to one.
        beside = {key: value for key, value in self._raw.items() if key != "$ref"}
        target = self._target(str(self._raw["$ref"])) if "$ref" in self._raw else {}
        root = self.node({**beside, **target})
        return _described_once(root | ({"$defs": self._defs} if self._defs else {}))

    def node(self, raw: Any) -> Node:
        raw = raw if isinstance(raw, Mapping) else {}  # true admits anything
        if "$ref" in raw:
            return self._reference(raw)
        for inner in raw.get("allOf", ()):
            raw = _merged({k: v for k, v in raw.items() if k != "allOf"}, self._resolved(inner))
        return self._annotated(_any_of(list(self._alternatives(raw))), raw)

    def _alternatives(self, raw: Mapping[str, Any]) -> Iterator[Node]:
        alternatives = [*raw.get("anyOf", ()), *raw.get("oneOf", ())]
        if alternatives:
            beside = {k: v for k, v in raw.items() if k in _RULES}
            for branch in alternatives:
                yield self.node(_merged(self._resolved(branch), beside) if beside else branch)
            return
        values = raw.get("enum") or ([raw["const"]] if "const" in raw else [])
        kinds = types_of(raw) or _guess(raw, values)
        if values:
            own = [kind for kind in kinds if _of_type(values, kind)]
            kinds = own or list(dict.fromkeys(map(json_type, values)))
        if self._stays_open(kinds, raw):
            yield {"type": list(kinds)}
            return
        for kind in kinds:
            chosen = _of_type(values, kind)
            name = "const" if self._verbatim and "const" in raw else "enum"
            has_choice = chosen and kind != "null"
            choice = {name: chosen[0] if name == "const" else chosen} if has_choice else {}
            yield {"type": kind, **choice, **self._rules(kind, raw)}

    def _stays_open(self, kinds: list[str], raw: Mapping[str, Any]) -> bool:
        """Return True if the types can stand side by side in one subschema."""
        return len(kinds) > 1 and not raw.keys() & (_RULES - {"type"})

    def _rules(self, kind: str, raw: Mapping[str, Any]) -> Node:
        rules: Node = {}
        for key, value in raw.items():
            if kind not in _CONCERNS.get(key, ()) or not self._is_kept(key, value):
                continue
            if key == "properties":
                rules[key] = {name: self.node(inner) for name, inner in value.items()}
            elif key == "prefixItems":
                rules[key] = [self.node(inner) for inner in value]
            else:
                rules[key] = self.node(value) if isinstance(value, Mapping) else value
        return rules

    def _is_kept(self, key: str, value: Any) -> bool:
        if key == "items":
            return value not in (True, {})
        if key == "additionalProperties":
            return self._verbatim or value not in (True, {})
        # Engines that compile schemas to grammars have no lookaround.
        lookaround = key == "pattern" and "(?" in value and not self._verbatim
        return not lookaround and _is_finite(value)

    def _annotated(self, node: Node, raw: Mapping[str, Any]) -> Node:
        dropped = _RULES | _STRUCTURE | (set() if self._verbatim else {"title"})
        annotations = {k: v for k, v in raw.items() if k not in dropped and _is_finite(v)}
        if node.get("type") == _ANY and annotations.get("default", ...) is None:
            del annotations["default"]
        if isinstance(node.get("type"), list) and annotations.keys() - {"title", "description"}:
            node = {"anyOf": [{"type": kind} for kind in node["type"]]}
        return {**node, **annotations}

    def _reference(self, raw: Mapping[str, Any]) -> Node:
        reference = str(raw["$ref"])
        target = self._target(reference)
        beside = {key: value for key, value in raw.items() if key != "$ref"}
        if self._is_recursive(reference) or not self._is_inlined(reference, target, beside):
            return self._annotated({"$ref": self._defined(reference, target)}, beside)
        return self.node({**target, **beside})

    def _is_inlined(
        self, reference: str, target: Mapping[str, Any], beside: Mapping[str, Any]
    ) -> bool:
        if self._verbatim:
            return bool(beside.keys() & _RULES)
        if self._growth > _MAX_GROWTH:
            return False
        if reference in self._inlined:
            self._growth += len(json.dumps(target, default=str))
        self._inlined.add(reference)
        return True

    def _is_recursive(self, reference: str) -> bool:
        if reference not in self._recursive:
            self._recursive[reference] = self._reaches(self._target(reference), reference, set())
        return self._recursive[reference]

    def _reaches(self, node: Any, reference: str, seen: set[str]) -> bool:
        if isinstance(node, Mapping):
            further = node.get("$ref")
            if isinstance(further, str) and further not in seen:
                seen.add(further)
                if further == reference or self._reaches(self._target(further), reference, seen):
                    return True
            node = list(node.values())
        return isinstance(node, list) and any(self._reaches(n, reference, seen) for n in node)

    def _defined(self, reference: str, target: Mapping[str, Any]) -> str:
        """Return the reference to a definition at the root, which is added when it is new."""
        if reference not in self._names:
            name = re.sub(r"[^a-zA-Z0-9_-]+", "_", reference.rpartition("/")[2]).strip("_")
            name = name or "root"
            while name in self._defs:
                name += "_"
            self._names[reference] = name
            self._defs[name] = {}  # reserves the name while the definition refers to itself
            self._defs[name] = self.node(target)
        return f"#/$defs/{self._names[reference]}"

    def _resolved(self, raw: Any) -> Mapping[str, Any]:
        """Return a schema that is merged into another, its own reference written out."""
        if isinstance(raw, Mapping) and "$ref" in raw:
            return {**self._target(str(raw["$ref"])), **{k: raw[k] for k in raw if k != "$ref"}}
        return raw if isinstance(raw, Mapping) else {}

    def _target(self, reference: str) -> Mapping[str, Any]:
        found = resolve(reference, self._raw)
        if found is None:
            raise KimiError(f"The schema refers to {reference}, which it lacks: add it to $defs")
        return {k: v for k, v in found.items() if k not in ("$defs", "definitions")}


class _StrictNormalizer(_Normalizer):
    """The walk for strict mode, which knows fewer keywords and closed objects only."""

    is_closed = True

    def _stays_open(self, kinds: list[str], raw: Mapping[str, Any]) -> bool:  # noqa: ARG002
        if kinds != _ANY:
            return False
        self.is_closed = False
        return True

    def _rules(self, kind: str, raw: Mapping[str, Any]) -> Node:
        rules: Node = {}
        if kind == "object":
            rules = self._object(raw)
        elif kind == "array":
            # Strict mode has no prefixItems: a tuple becomes an array of any of its items.
            further = [raw["items"]] if isinstance(raw.get("items"), Mapping) else []
            items = [*raw.get("prefixItems", ()), *further]
            rules = {"items": self.node({"anyOf": items} if items else {})}
        limits = _STRICT_LIMITS.get(kind, ())
        rules |= {key: raw[key] for key in limits if key in raw and self._is_kept(key, raw[key])}
        if rules.get("format", _STRICT_FORMATS[0]) not in _STRICT_FORMATS:
            del rules["format"]
        return rules

    def _object(self, raw: Mapping[str, Any]) -> Node:
        further = raw.get("additionalProperties", True)
        if "properties" not in raw and further is not False:
            self.is_closed = False
            return {"additionalProperties": self.node(further)} if further not in (True, {}) else {}
        properties, required = raw.get("properties", {}), raw.get("required", ())
        nodes = {name: self.node(inner) for name, inner in properties.items()}
        return _closed({n: v if n in required else _nullable(v) for n, v in nodes.items()})

    def _annotated(self, node: Node, raw: Mapping[str, Any]) -> Node:
        # OpenAI refuses any keyword beside $ref.
        is_described = raw.get("description") and "$ref" not in node
        return {**node, "description": str(raw["description"])} if is_described else node


def _described_once(root: Node) -> Node:
    """Leave a description beside a reference or in its definition, never in both."""
    sites: dict[str, list[Node]] = {}
    _gather(root, sites)
    for reference, nodes in sites.items():
        target = resolve(reference, root)
        is_described = any("description" in node for node in nodes)
        if is_described and isinstance(target, dict) and "description" in target:
            text = target.pop("description")
            for node in nodes:
                node.setdefault("description", text)
    return root


def _gather(node: Any, sites: dict[str, list[Node]]) -> None:
    """Gather the references in a schema, each with the nodes that make it."""
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            sites.setdefault(node["$ref"], []).append(node)
        node = [inner for key, inner in node.items() if key not in _LITERAL]
    if isinstance(node, list):
        for inner in node:
            _gather(inner, sites)


def _merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> Node:
    """Return a schema for values that fit both."""
    both = {**other, **one}
    if "properties" in one and "properties" in other:
        both["properties"] = {**other["properties"], **one["properties"]}
    if "required" in one and "required" in other:
        both["required"] = [*one["required"], *other["required"]]
    return both


def _closed(properties: dict[str, Node]) -> Node:
    names = list(properties)
    return {"properties": properties, "required": names, "additionalProperties": False}


def _any_of(nodes: list[Node]) -> Node:
    """Return a schema of alternatives, flattened and without duplicates."""
    flat: list[Node] = []
    for node in nodes:
        for branch in node["anyOf"] if set(node) == {"anyOf"} else [node]:
            if branch.get("type") == _ANY:
                return {"type": list(_ANY)}
            flat += [branch] if branch not in flat else []
    return flat[0] if len(flat) == 1 else {"anyOf": flat}


def _nullable(node: Node) -> Node:
    """Admit null, strict mode's only way to leave a property out."""
    if node.get("type") == _ANY:
        return node
    described = {"description": node["description"]} if "description" in node else {}
    return _any_of([{k: v for k, v in node.items() if k not in described}, _NULL]) | described


def _guess(raw: Mapping[str, Any], values: list[Any]) -> list[str]:
    if values:
        return list(dict.fromkeys(map(json_type, values)))
    if raw.keys() & {"properties", "additionalProperties", "required"}:
        return ["object"]
    return ["array"] if raw.keys() & {"items", "prefixItems"} else list(_ANY)


def _of_type(values: list[Any], kind: str) -> list[Any]:
    fitting = ("number", "integer") if kind == "number" else (kind,)
    return [value for value in values if json_type(value) in fitting]


def _is_finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)
