"""Schemas as text: fields, lists of them, and objects in them."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_magic.core.errors import KimiError
from kimi_magic.schema.output import SchemaMismatch, output_schema

CITIES = [{"name": "Rome", "population": 2_800_000}, {"name": "Ostia", "population": 85_000}]


def item(text: str, namespace: dict[str, Any] | None = None) -> Any:
    """Return the schema of the items of a list, without references."""
    schema = output_schema(text, namespace).json_schema
    assert schema["type"] == "object", "a root that every server takes"
    assert schema["required"] == ["items"]
    return _whole(schema["properties"]["items"]["items"], schema.get("$defs", {}))


def _whole(node: Any, defs: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_whole(each, defs) for each in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _whole(defs[node["$ref"].rpartition("/")[2]], defs)
    return {key: _whole(value, defs) for key, value in node.items()}


def names_of(node: Any) -> Any:
    """Return a schema as nested fields and types, to compare."""
    if node.get("type") == "object":
        return {name: names_of(inner) for name, inner in node["properties"].items()}
    if node.get("type") == "array":
        return [names_of(node["items"])]
    return node.get("format", node["type"])


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("list[name, population int]", {"name": "string", "population": "integer"}),
        (" list [ name,population int, ] ", {"name": "string", "population": "integer"}),
        ("list[name, age]", {"name": "string", "age": "string"}),
        ("list[name str]", {"name": "string"}),
        ("list[name: int]", {"name": "integer"}),
        ("list[name, born date: the birthday]", {"name": "string", "born": "date"}),
        ("list[{name, age int}]", {"name": "string", "age": "integer"}),
        ("{name, age int}[]", {"name": "string", "age": "integer"}),
        ("list[list[name, age int]]", [{"name": "string", "age": "integer"}]),
        ("list[a, b list[str], c int[]]", {"a": "string", "b": ["string"], "c": ["integer"]}),
        ("list[a, b list[c, d {w int, l int}]]",
         {"a": "string", "b": [{"c": "string", "d": {"w": "integer", "l": "integer"}}]}),
        ("list[a {x int}, b {x str}]", {"a": {"x": "integer"}, "b": {"x": "string"}}),
        ("list[\n  name: first, then last\n  born date\n]", {"name": "string", "born": "date"}),
        ("list[int]", "integer"),
    ],
)  # fmt: skip
def test_lists(text: str, fields: Any) -> None:
    assert names_of(item(text)) == fields


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("country, cities list[name, population int]",
         {"country": "string", "cities": [{"name": "string", "population": "integer"}]}),
        ("country\ncities list[\n  name,\n  population int\n]: the largest, first",
         {"country": "string", "cities": [{"name": "string", "population": "integer"}]}),
        ("who {name, age int}: a person", {"who": {"name": "string", "age": "integer"}}),
        ("who: {name, age int}", {"who": {"name": "string", "age": "integer"}}),
        ("p float: in [0, 1], q", {"p": "number", "q": "string"}),
        ("{name, age int}", {"name": "string", "age": "integer"}),
    ],
)  # fmt: skip
def test_nested_fields(text: str, fields: Any) -> None:
    schema = output_schema(text).json_schema
    assert names_of(_whole(schema, schema.get("$defs", {}))) == fields


def test_the_data_of_a_list_are_a_list() -> None:
    schema = output_schema("list[name, population int]")
    assert schema.read(json.dumps({"items": CITIES})) == CITIES  # as the server was asked for it
    assert schema.read(f"Here:\n```json\n{json.dumps(CITIES)}\n```") == CITIES
    with pytest.raises(SchemaMismatch, match="population"):
        schema.read('{"items": [{"name": "Rome"}]}')
    born = output_schema("list[born date]")
    assert born.read('[{"born": "2024-05-01"}]') == [{"born": dt.date(2024, 5, 1)}]


def test_a_type_of_the_notebook_comes_first() -> None:
    from tests.schema.test_output import Person

    known = {"Person": Person}
    for text in (
        "list[Person]",
        "list[dict[str, Person]]",
        "list[Person | None]",
        "list[list[Person]]",
    ):
        assert (
            output_schema(text, known).json_schema == output_schema(eval(text, known)).json_schema
        )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("list[name, population int", "is no field of a schema"),
        ("list[,]", "is empty"),
        ("list[name, age whole]", "age: 'whole' is none of the types"),
        ("list[name, name]", "twice"),
        ("list[first name, age]", "first: 'name' is none of the types"),
        ("list[name, 3 int]", "'3 int' is no field"),
        ("list[nme foo]", "'foo' is none of the types"),
        ("tags list[whole]", "'list\\[whole\\]' is none of the types"),
        ("x list[a], y", "'list\\[a\\]' is none of the types"),
        ("list[" * 50 + "a int, b" + "]" * 50, "nested more than 8 deep"),
        ("list[a, b]]", "is no field"),
        ("list[__import__('os').system('x'), b]", "is no field"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_in_one_line(text: str, says: str) -> None:
    with pytest.raises(KimiError, match=says) as caught:
        output_schema(text)
    assert len(str(caught.value).splitlines()) == 1


@given(st.text("list[]{}, :nameit\n3", max_size=40) | st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        schema = output_schema(text, {})
    except KimiError:
        return
    assert schema.json_schema["type"] == "object"
