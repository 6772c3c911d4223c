"""JSON Schema within the rules of the servers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from kimi_magic.core.errors import KimiError
from kimi_magic.schema.strict import (
    handwritten_schema,
    one_object,
    strict_schema,
    tool_schema,
)
from kimi_magic.testing import check_request
from tests.schema.test_output import schemas

STRING, INTEGER, NULL = {"type": "string"}, {"type": "integer"}, {"type": "null"}
NORMALIZERS: list[Callable[[Any], dict[str, Any]]] = [
    tool_schema,
    handwritten_schema,
    lambda raw: strict_schema(raw)[0],
]


def accepted(parameters: dict[str, Any]) -> bool:
    """Every server takes a tool with these parameters."""
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    messages = [{"role": "user", "content": "x"}]
    return check_request({"model": "m", "messages": messages, "tools": [tool]}) == []


def with_field(schema: dict[str, Any], **root: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"it": schema}, "required": ["it"], **root}


def field(schema: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = schema["properties"]["it"]
    return found


@pytest.mark.parametrize("normalize", NORMALIZERS)
@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        ({"oneOf": [STRING, INTEGER]}, {"anyOf": [STRING, INTEGER]}),
        ({"anyOf": [STRING, {"anyOf": [INTEGER, STRING]}]}, {"anyOf": [STRING, INTEGER]}),
        ({"anyOf": [STRING]}, STRING),
        ({"allOf": [STRING, {"minLength": 2}]}, {"type": "string", "minLength": 2}),
        (
            {"type": ["integer", "string"], "minimum": 1},
            {"anyOf": [{"type": "integer", "minimum": 1}, STRING]},
        ),
        (
            {"anyOf": [STRING, INTEGER], "maxLength": 3},
            {"anyOf": [{"type": "string", "maxLength": 3}, INTEGER]},
        ),
        (
            {"enum": ["a", 1, None]},
            {
                "anyOf": [
                    {"type": "string", "enum": ["a"]},
                    {"type": "integer", "enum": [1]},
                    NULL,
                ]
            },
        ),
        ({"type": ["string", "null"], "enum": ["a"]}, {"type": "string", "enum": ["a"]}),
        ({"type": "number", "enum": [1, 2.5]}, {"type": "number", "enum": [1, 2.5]}),
        ({"items": STRING}, {"type": "array", "items": STRING}),
        ({"type": "number", "maximum": float("inf")}, {"type": "number"}),
        ({"$ref": "#/$defs/a", "description": "it"}, None),
        (True, None),
        ({}, None),
    ],
    ids=str,
)
def test_rules_of_all_servers(normalize: Any, raw: Any, wanted: Any) -> None:
    made = normalize(with_field(raw, **{"$defs": {"a": STRING}}))
    assert accepted(made)
    if wanted is not None:
        assert field(made) == wanted


@pytest.mark.parametrize("normalize", NORMALIZERS)
def test_a_reference_that_leads_nowhere_is_an_error(normalize: Any) -> None:
    with pytest.raises(KimiError, match=r"refers to #/\$defs/b, which it lacks: add it to \$defs"):
        normalize(with_field({"$ref": "#/$defs/b"}))


@pytest.mark.parametrize("normalize", NORMALIZERS)
def test_what_refers_to_itself_stays_a_reference(normalize: Any) -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/a"}}, "required": ["next"]}
    made = normalize(with_field({"$ref": "#/$defs/a"}, **{"$defs": {"a": node}}))
    assert list(made["$defs"]) == ["a"]
    assert made["$defs"]["a"]["properties"]["next"] == {"$ref": "#/$defs/a"}
    assert accepted(made)


@pytest.mark.parametrize("normalize", NORMALIZERS)
def test_definitions_that_double_each_other_do_not_explode(normalize: Any) -> None:
    defs: dict[str, Any] = {"d0": STRING}
    for i in range(1, 40):
        inner = {"$ref": f"#/$defs/d{i - 1}"}
        properties = {"a": inner, "b": inner}
        required = list(properties)
        defs[f"d{i}"] = {"type": "object", "properties": properties, "required": required}
    made = normalize(with_field({"$ref": "#/$defs/d39"}, **{"$defs": defs}))
    assert len(json.dumps(made)) < 40_000
    assert accepted(made)


# A schema with alternatives at its root · its properties · those required · what is said of it
ALTERNATIVES: list[tuple[dict[str, Any], list[str], list[str], str]] = [
    (
        {"type": "object", "anyOf": [with_field(STRING), {"properties": {"b": INTEGER}}]},
        ["it", "b"], [], "",
    ),
    (
        {"properties": {"a": STRING, "b": STRING, "c": STRING}, "required": ["c"],
         "oneOf": [{"required": ["a"]}, {"required": ["b"]}], "description": "It."},
        ["a", "b", "c"], ["c"], "It. Give either a; or b",
    ),
    (
        {"anyOf": [{"$ref": "#/definitions/a"}, NULL], "definitions": {"a": with_field(STRING)}},
        ["it"], ["it"], "",
    ),
    ({"type": ["object", "null"], "properties": {"a": STRING}}, ["a"], [], ""),
    (
        {"allOf": [with_field(STRING), {"anyOf": [{"required": ["b"], "properties": {"b": STRING}},
                                                 {"required": ["c"], "properties": {"c": NULL}}]}]},
        ["it", "b", "c"], ["it"], "Give either b; or c",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "names", "required", "said"), ALTERNATIVES)
def test_alternatives_at_the_root_become_one_object(
    raw: dict[str, Any], names: list[str], required: list[str], said: str
) -> None:
    tidy = handwritten_schema(raw)
    made = one_object(tidy) if "anyOf" in tidy else tidy
    assert accepted(made)
    assert sorted(made["properties"]) == sorted(names)
    assert made.get("required", []) == required
    assert made.get("description", "") == said


def test_what_older_drafts_write_is_rewritten() -> None:
    properties = {
        "pair": {"type": "array", "items": [STRING, INTEGER], "additionalItems": False},
        "limit": {"type": "number", "minimum": 0, "exclusiveMinimum": True, "maximum": 5},
        "maybe": {"type": "string", "nullable": True, "enum": ["a"]},
        "items": {"type": "string", "default": {"items": [1]}},
    }
    made = handwritten_schema({"type": "object", "properties": properties})
    assert accepted(made)
    assert made["properties"] == {
        "pair": {"type": "array", "prefixItems": [STRING, INTEGER]},
        "limit": {"type": "number", "exclusiveMinimum": 0, "maximum": 5},
        "maybe": {"anyOf": [{"type": "string", "enum": ["a"]}, NULL]},
        "items": {"type": "string", "default": {"items": [1]}},
    }


@pytest.mark.parametrize("normalize", NORMALIZERS)
def test_a_description_stands_in_one_place(normalize: Any) -> None:
    """Beside the references, where one of them has its own; else in the definition."""

    def node(beside: dict[str, Any]) -> dict[str, Any]:
        reference = {"$ref": "#/$defs/a"}
        inner = {"next": reference, "other": {**reference, **beside}}
        own = {"type": "object", "description": "An a.", "properties": inner}
        return with_field(reference, **{"$defs": {"a": own}})

    for beside in ({}, {"description": "The other."}):
        made = normalize(node(beside))
        assert accepted(made)
        target = made["$defs"]["a"]
        other = target["properties"]["other"]
        other = next((b for b in other.get("anyOf", ()) if "$ref" in b), other)
        is_described = beside and normalize is not NORMALIZERS[2]  # OpenAI takes none beside $ref
        assert target.get("description") == (None if is_described else "An a.")
        assert other.get("description") == ("The other." if is_described else None)
        assert field(made).get("description") == ("An a." if is_described else None)


def test_titles_of_pydantic_are_dropped_and_those_of_users_stay() -> None:
    raw = with_field({"type": "string", "title": "It", "default": "a"})
    assert field(tool_schema(raw)) == {"type": "string", "default": "a"}
    assert handwritten_schema(raw) == raw


def test_a_field_may_be_called_like_a_keyword() -> None:
    properties = dict.fromkeys(("title", "type", "enum", "default", "items"), STRING)
    raw = {"type": "object", "properties": properties}
    assert tool_schema(raw)["properties"] == handwritten_schema(raw)["properties"] == properties


@given(st.data(), schemas())
def test_what_fits_a_schema_fits_its_normal_form(
    data: st.DataObject, made: tuple[dict[str, Any], st.SearchStrategy[Any]]
) -> None:
    raw, values = made
    value = {"it": data.draw(values)}
    for normalize in NORMALIZERS:
        normal = normalize(with_field(raw))
        assert accepted(normal)
        Draft202012Validator.check_schema(normal)
        if Draft202012Validator(with_field(raw)).is_valid(value):
            fits = Draft202012Validator(normal).is_valid(value)
            # Strict mode knows closed objects only, whose fields are all required.
            assert fits or normalize is NORMALIZERS[2]
