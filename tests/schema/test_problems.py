"""Words for what is wrong, whoever found it."""

from __future__ import annotations

import pickle
from typing import Any, Literal

import pydantic
import pytest

from kimi_magic.schema.problems import (
    ArgumentsError,
    InvalidValue,
    got,
    object_in_words,
    problems_from_pydantic,
    problems_with_schema,
    stray_booleans,
)

ROOT = {
    "type": "object",
    "properties": {
        "n": {"type": "integer"},
        "rows": {"type": "array", "items": {"$ref": "#/$defs/row"}},
        "either": {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
    },
    "required": ["n"],
    "$defs": {"row": {"type": "object", "additionalProperties": {"type": "number"}}},
}


def test_places_are_written_as_paths() -> None:
    error = InvalidValue({(): "a", ("x", 0, "y"): "b", (1,): "c"})
    assert error.problems == ("a", "x[0].y: b", "[1]: c")
    assert str(error) == "a; x[0].y: b; [1]: c"
    assert ArgumentsError({(): "a", ("x",): "b"}).problems == ("arguments: a", "x: b")


@pytest.mark.parametrize("kind", [InvalidValue, ArgumentsError])
def test_errors_can_be_pickled(kind: type[InvalidValue]) -> None:
    error = pickle.loads(pickle.dumps(kind({("x",): "b"})))
    assert type(error) is kind
    assert error.places == {("x",): "b"}


def test_booleans_where_none_is_wanted() -> None:
    value = {"n": True, "rows": [{"a": 1}, {"a": False}], "either": True, "more": True}
    assert dict(stray_booleans(value, ROOT, ROOT)) == {
        ("n",): "got a boolean (true), want an integer",
        ("rows", 1, "a"): "got a boolean (false), want a number",
    }


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    n: int
    kind: Literal["a", "b"] = "a"
    either: int | list[int] = 0


BOTH = [
    ({}, "n", "missing, want an integer"),
    ({"n": "x"}, "n", 'got a string ("x"), want an integer'),
    ({"n": None}, "n", "got null, want an integer"),
    ({"n": [1, 2]}, "n", "got an array ([1, 2]), want an integer"),
]


@pytest.mark.parametrize(("value", "name", "words"), BOTH, ids=str)
def test_pydantic_and_jsonschema_speak_alike(value: Any, name: str, words: str) -> None:
    schema = Model.model_json_schema()
    with pytest.raises(pydantic.ValidationError) as caught:
        Model.model_validate(value)
    assert problems_with_schema(value, schema)[name,] == words
    found = problems_from_pydantic(caught.value, value, schema)[name,]
    assert found == words


def test_alternatives_of_one_place_are_joined() -> None:
    value = {"n": 1, "either": "x"}
    with pytest.raises(pydantic.ValidationError) as caught:
        Model.model_validate(value)
    found = problems_from_pydantic(caught.value, value, Model.model_json_schema())
    assert found == {("either",): 'got a string ("x"), want an integer or a list'}


def test_known_places_are_not_reported_again() -> None:
    value = {"n": "x", "kind": "c"}
    with pytest.raises(pydantic.ValidationError) as caught:
        Model.model_validate(value)
    found = problems_from_pydantic(caught.value, value, Model.model_json_schema(), [("n",)])
    assert list(found) == [("kind",)]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "got null"),
        (True, "got a boolean (true)"),
        ("é" * 99, "got a string (" + '"' + "é" * 58 + "…)"),
        ({1: {2}}, "got an object (…)"),
    ],
)
def test_values_in_words(value: Any, words: str) -> None:
    assert got(value) == words


def test_an_object_in_words() -> None:
    assert object_in_words(ROOT) == 'one JSON object such as {"n": …}'
    assert object_in_words({}) == "one JSON object"
