"""What is wrong with arguments, in words from which a model can mend them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from kimi_magic.schema.shapes import branches, json_type

__all__ = ["ArgumentsError", "problems_of", "stray_booleans"]

MAX_SHOWN = 60
_ARTICLES = {"integer": "an integer", "array": "an array", "object": "an object", "null": "null"}


class ArgumentsError(Exception):
    """Arguments that do not fit.

    Attributes
    ----------
    problems : tuple of str
        Each names the field, what it got and what it wants.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def problems_of(error: ValidationError, sent: Any, schema: Mapping[str, Any]) -> list[str]:
    """What pydantic found, field by field; alternatives of one field are drawn together."""
    defs = schema.get("$defs", {})
    said: dict[str, str] = {}
    wanted: dict[str, list[str]] = {}
    for found in error.errors(include_url=False, include_context=False):
        kind, loc = found["type"], found["loc"]
        named = kind in ("missing", "extra_forbidden", "unexpected_keyword_argument")
        path, node, value = _place(loc[:-1] if named else loc, sent, schema)
        if named:
            path = _joined(path, loc[-1])
        if kind == "missing":
            inner = list(branches(_at(node, loc[-1], defs), defs))
            said[path] = f"missing, want {_words(inner)}"
        elif named:
            known = [k for n in branches(node, defs) for k in n.get("properties", ())]
            names = ", ".join(dict.fromkeys(known))
            said[path] = f"unknown field, want {f'one of {names}' if known else 'no fields'}"
        else:
            said.setdefault(path, _got(value))
            wanted.setdefault(path, []).append(_want(found["msg"]))
    return [
        f"{path or 'arguments'}: "
        + (f"{text}, want {' or '.join(dict.fromkeys(wanted[path]))}" if path in wanted else text)
        for path, text in said.items()
    ]


def stray_booleans(
    value: Any, schema: Any, defs: Mapping[str, Any], path: str = ""
) -> Iterator[str]:
    """Where true or false stands and no boolean is wanted; pydantic takes true for 1."""
    nodes = list(branches(schema, defs))
    if isinstance(value, bool):
        if nodes and not any(map(_takes_booleans, nodes)):
            yield f"{path}: {_got(value)}, want {_words(nodes)}"
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from stray_booleans(inner, _at(schema, key, defs), defs, _joined(path, key))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from stray_booleans(inner, _at(schema, i, defs), defs, _joined(path, i))


def _takes_booleans(node: Mapping[str, Any]) -> bool:
    values = [*node.get("enum", ()), *([node["const"]] if "const" in node else ())]
    if values:
        return any(isinstance(value, bool) for value in values)
    return "boolean" in _types(node) if "type" in node else True


def _types(node: Mapping[str, Any]) -> list[str]:
    kind = node.get("type", [])
    return [kind] if isinstance(kind, str) else list(kind)


def _joined(path: str, step: int | str) -> str:
    if isinstance(step, int):
        return f"{path}[{step}]"
    return f"{path}.{step}" if path else step


def _at(schema: Any, step: int | str, defs: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a field or of an item: alternatives, where there are several."""
    found = [_inside(node, step) for node in branches(schema, defs)]
    return {"anyOf": [inner for inner in found if inner is not None]}


def _inside(node: Mapping[str, Any], step: int | str) -> Mapping[str, Any] | None:
    return _at_index(node, step) if isinstance(step, int) else _at_key(node, step)


def _at_key(node: Mapping[str, Any], key: str) -> Mapping[str, Any] | None:
    inner: Any = node.get("properties", {}).get(key)
    if inner is None and _may_be(node, "object"):
        inner = node.get("additionalProperties")
        return inner if isinstance(inner, Mapping) else {}
    return inner  # type: ignore[no-any-return]


def _at_index(node: Mapping[str, Any], index: int) -> Mapping[str, Any] | None:
    first = node.get("prefixItems", ())
    if index < len(first):
        return first[index]  # type: ignore[no-any-return]
    inner = node.get("items")
    if not _may_be(node, "array"):
        return None
    return inner if isinstance(inner, Mapping) else {}


def _may_be(node: Mapping[str, Any], kind: str) -> bool:
    return kind in _types(node) or not _types(node)


def _place(loc: Sequence[int | str], sent: Any, schema: Mapping[str, Any]) -> tuple[str, Any, Any]:
    """Where in the arguments: pydantic's way there also names the alternatives that it tried."""
    defs = schema.get("$defs", {})
    path, node, value = "", dict(schema), sent
    for step in loc:
        in_object = isinstance(value, dict) and step in value
        if in_object or (isinstance(value, list) and isinstance(step, int) and step < len(value)):
            path, node, value = _joined(path, step), _at(node, step, defs), value[step]
    return path, node, value


def _want(message: str) -> str:
    """What pydantic, or the validator of a user, wants."""
    message = re.sub("^(Value error, |Assertion failed, )+", "", message)
    message = message.partition(", unable to parse")[0].partition(", got a number")[0]
    for start in ("Input should be ", "Input must be "):
        message = message.removeprefix(start)
    return message.replace("a valid ", "a ").replace("a integer", "an integer")


def _words(nodes: Sequence[Mapping[str, Any]]) -> str:
    """A schema in words."""
    words: list[str] = []
    for node in nodes:
        if values := [*node.get("enum", ()), *([node["const"]] if "const" in node else ())]:
            words += [json.dumps(value, ensure_ascii=False) for value in values[:20]]
        else:
            words += [_ARTICLES.get(kind, f"a {kind}") for kind in _types(node)]
    return " or ".join(dict.fromkeys(words)) or "a value"


def _got(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = "…"
    text = text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"
    kind = json_type(value)
    return f"got {text}" if value is None else f"got {_ARTICLES.get(kind, f'a {kind}')} ({text})"
