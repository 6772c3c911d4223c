"""A schema as a form that a model fills in: ``{"name": string, "age": integer (at least 0)}``.

A small model that is shown a JSON Schema answers with a JSON Schema (``benchmarks.structured``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kimi_magic.schema.problems import limit_in_words

__all__ = ["form_of"]

_FORM = set("type enum anyOf items properties required additionalProperties $ref $defs".split())


def form_of(schema: Mapping[str, Any]) -> str:
    """Write a schema, as `strict_schema` makes them, for a model to read."""
    where = [f"{name} is {_form(node)}" for name, node in schema.get("$defs", {}).items()]
    return "\nwhere ".join([_form(schema), *where])


def _form(node: Mapping[str, Any]) -> str:
    notes = [
        " ".join(value.split()) if key == "description" else limit_in_words(key, value)
        for key, value in node.items()
        if key not in _FORM
    ]
    return f"{_kind(node)} ({'; '.join(notes)})" if notes else _kind(node)


def _kind(node: Mapping[str, Any]) -> str:
    if "$ref" in node:
        return str(node["$ref"]).rpartition("/")[2]
    if "anyOf" in node:
        return " or ".join(dict.fromkeys(map(_form, node["anyOf"])))
    if "enum" in node:
        return " or ".join(json.dumps(value, ensure_ascii=False) for value in node["enum"])
    if node["type"] == "array":
        return f"[{_form(node['items'])}, …]"
    if node["type"] == "object":
        return _object(node)
    return node["type"] if isinstance(node["type"], str) else "any JSON"


def _object(node: Mapping[str, Any]) -> str:
    if "properties" in node:
        fields = [f'"{name}": {_form(inner)}' for name, inner in node["properties"].items()]
        return f"{{{', '.join(fields)}}}"
    further = node.get("additionalProperties")
    return f'{{"…": {_form(further)}, …}}' if further else "object"
