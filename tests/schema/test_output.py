"""Answers that are data: what a schema may be, what is asked for, what is read."""

from __future__ import annotations

import copy
import dataclasses
import datetime as dt
import enum
import json
import pickle
import subprocess
import sys
import typing
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import pytest
import typing_extensions
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel, ConfigDict, Field, field_validator

from kimi_magic.core.errors import KimiError
from kimi_magic.schema.output import ANY_JSON, OutputSchema, SchemaMismatch, output_schema
from kimi_magic.testing import check_request


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Person(BaseModel):
    """Somebody."""

    name: str = Field(description="as on the passport")
    age: int = Field(ge=0)
    nick: str = "none"

    @field_validator("name")
    @classmethod
    def is_short(cls, name: str) -> str:
        if len(name) > 10:
            raise ValueError("a name of at most 10 letters")
        return name


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    bark: str


class Tree(BaseModel):
    value: int
    children: list[Tree] = []


@dataclasses.dataclass
class Trip:
    to: Person
    colour: Colour
    on: dt.date
    pair: tuple[int, str]


class Loose(typing.TypedDict, total=False):
    name: typing.Required[str]
    tags: list[Tag]


class Tag(typing.TypedDict):
    text: str


class Firm(typing_extensions.TypedDict):
    name: str
    tags: typing_extensions.NotRequired[list[str]]


def problems(schema: Any, text: str) -> tuple[str, ...]:
    with pytest.raises(SchemaMismatch) as caught:
        output_schema(schema).read(text)
    assert caught.value.text == text
    return caught.value.problems


def objects(node: Any) -> list[dict[str, Any]]:
    """Each subschema of an object with fields."""
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    own = [node] if isinstance(node, dict) and isinstance(node.get("properties"), dict) else []
    return own + [found for each in inner for found in objects(each)]


def checked(schema: OutputSchema) -> dict[str, Any]:
    """The JSON Schema, which each server takes."""
    root = schema.json_schema
    Draft202012Validator.check_schema(root)
    tool = {"type": "function", "function": {"name": "f", "parameters": root}}
    message = {"role": "user", "content": "x"}
    assert check_request({"model": "m", "messages": [message], "tools": [tool]}) == []
    assert root["type"] == "object"
    for node in objects(root):
        assert node["required"] == list(node["properties"])
        assert node["additionalProperties"] is False
    return root


# What a schema may be


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        (Person, '{"name": "Ann", "age": 3}', Person(name="Ann", age=3)),
        (list[Person], '{"items": [{"name": "Ann", "age": 3}]}', [Person(name="Ann", age=3)]),
        (list[Person], '[{"name": "Ann", "age": 3}]', [Person(name="Ann", age=3)]),
        (
            Trip,
            '{"to": {"name": "A", "age": 1}, "colour": "red", "on": "2024-05-01", "pair": [1, "x"]'
            "}",
            Trip(Person(name="A", age=1), Colour.RED, dt.date(2024, 5, 1), (1, "x")),
        ),
        (Loose, '{"name": "x", "tags": [{"text": "y"}]}', {"name": "x", "tags": [{"text": "y"}]}),
        (list[Loose], '{"items": [{"name": "x"}]}', [{"name": "x"}]),
        (Firm, '{"name": "x"}', {"name": "x"}),
        (Cat | Dog, '{"value": {"kind": "dog", "bark": "w"}}', Dog(kind="dog", bark="w")),
        (Tree, '{"value": 1, "children": [{"value": 2}]}', Tree(value=1, children=[Tree(value=2)])),
        (dict[str, int], '{"a": 1}', {"a": 1}),
        (int | None, '{"value": null}', None),
        (int, "3", 3),
        (Colour, '{"value": "blue"}', Colour.BLUE),
        (Annotated[int, Field(gt=2)], '{"value": 3}', 3),
        ({"type": "object", "properties": {"a": {"type": "integer"}}}, '{"a": 1}', {"a": 1}),
        ({"type": "array", "items": {"type": "integer"}}, '{"items": [1]}', [1]),
        ("name, age int", '{"name": "x", "age": 3}', {"name": "x", "age": 3}),
        (output_schema(int), '{"value": 1}', 1),
    ],
    ids=str,
)
def test_values_come_back_as_the_type_that_was_given(schema: Any, text: str, value: Any) -> None:
    read = output_schema(schema).read(text)
    assert read == value
    assert type(read) is type(value)
    checked(output_schema(schema))


def test_short_form() -> None:
    text = "name, age int, pi float, ok bool, tags list[str], ns int[], all list, more dict"
    schema = output_schema(f"{text}, born date: the birthday, at datetime, note: what else")
    fields = checked(schema)["properties"]
    assert {name: node.get("type") for name, node in fields.items()} == {
        "name": "string",
        "age": "integer",
        "pi": "number",
        "ok": "boolean",
        "tags": "array",
        "ns": "array",
        "all": "array",
        "more": "object",
        "born": "string",
        "at": "string",
        "note": "string",
    }
    assert fields["tags"]["items"] == {"type": "string"}
    assert fields["born"] == {"type": "string", "format": "date", "description": "the birthday"}
    assert fields["note"]["description"] == "what else"
    assert output_schema("born date").read('{"born": "2024-05-01"}') == {
        "born": dt.date(2024, 5, 1)
    }


def test_short_form_by_lines_has_commas_in_descriptions() -> None:
    schema = output_schema("name: first, then last\n\nage int: in years,\n")
    assert schema.json_schema["properties"] == {
        "name": {"type": "string", "description": "first, then last"},
        "age": {"type": "integer", "description": "in years"},
    }


def test_a_type_after_the_colon_is_a_type() -> None:
    assert output_schema("age: int").json_schema["properties"] == {"age": {"type": "integer"}}


NOTEBOOK = {
    "Person": Person,
    "models": SimpleNamespace(Person=Person),
    "person_schema": {"type": "object", "properties": {"a": {"type": "string"}}},
    "city": "Rome",
    "Town": "Rome",
}


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("Person", Person),
        (" list[Person] ", list[Person]),
        ("models.Person", Person),
        ("dict[str, models.Person]", dict[str, Person]),
        ("Person | None", Person | None),
        ('Literal["red", "blue"]', Literal["red", "blue"]),
        ("person_schema", NOTEBOOK["person_schema"]),
        ("city", "city str"),
        ("street", "street str"),
    ],
)
def test_names_of_the_notebook(text: str, same: Any) -> None:
    assert output_schema(text, NOTEBOOK).json_schema == output_schema(same).json_schema


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ("Persn", "no Persn in the notebook. Did you mean Person"),
        ("list[Persn]", "no Persn in the notebook"),
        ("models.Persn", "models.Persn does not name a type"),
        ("models.__class__", "does not name a type"),
        ("Person[0]", "Person\\[0\\] does not name a type"),
        ("Town", "Town is a str"),
        ("print('x')", "is no field"),
        ("first name", "'name' is none of the types str, int"),
        ("age whole", "'whole' is none of the types"),
        ("a, a", "twice"),
        ("  ", "empty"),
        (None, "None is no type"),
        (len, "len is no type"),
        (5, "5 is no type"),
        (Person(name="x", age=1), "is no type"),
        (subprocess.Popen, "Popen cannot be read from JSON"),
        (Callable[[int], int], "cannot be read from JSON"),
        ({"name": "str"}, "neither type nor properties"),
        ({"type": "text"}, "no JSON Schema: 'text'"),
        ({"type": "string", "pattern": "("}, "no JSON Schema"),
        ({"type": {1}}, "no JSON: "),
        ({"type": "object", "properties": {"a": {"$ref": "#/$defs/b"}}}, "lacks"),
        ({"type": "object", "properties": {"a": {"$ref": "http://x.org/s"}}}, "lacks"),
    ],
    ids=str,
)
def test_what_is_no_schema_is_refused_in_words(schema: Any, says: str) -> None:
    with pytest.raises(KimiError, match=says) as caught:
        output_schema(schema, NOTEBOOK)
    assert len(str(caught.value).splitlines()) <= 4


def test_names_are_only_looked_up() -> None:
    class Trap:
        def __call__(self) -> None:
            raise AssertionError

    for text in ("trap()", "list[trap()]", "trap.x()", "(lambda: trap())()"):
        with pytest.raises(KimiError):
            output_schema(text, {"trap": Trap()})


# What is asked for


def test_request_in_each_mode() -> None:
    schema = output_schema(Person)
    assert schema.request("json_schema") == {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "Person", "schema": schema.json_schema, "strict": True},
        }
    }
    assert schema.request("json_object") == {"response_format": {"type": "json_object"}}
    assert schema.request("text") == {}
    assert schema.instruction == (
        "Answer with JSON only, without any other text, in this form: "
        '{"name": string (as on the passport), "age": integer (at least 0), '
        '"nick": string or null} (Somebody.)'
    )


@pytest.mark.parametrize(
    ("schema", "form"),
    [
        (Tree, '{"value": integer, "children": [Tree, …] or null}\nwhere Tree is {"value": '),
        (Colour, '{"value": "red" or "blue"}'),
        (dict[str, list[int]], '{"…": [integer, …], …}'),
        (
            "born date: the birthday, more dict",
            '"born": string (format date; the birthday), "more": ',
        ),
        ("more dict", '{"more": object}'),
        ("all list", '{"all": [any JSON, …]}'),
    ],
)
def test_the_model_is_shown_a_form(schema: Any, form: str) -> None:
    assert form in output_schema(schema).instruction


@pytest.mark.parametrize(
    ("schema", "name"),
    [
        (Person, "Person"),
        (list[Person], "Person_list"),
        (Cat | Dog, "answer"),
        ("name", "answer"),
        ({"title": "My «tree»!", "type": "object"}, "My_tree"),
        ({"title": "x" * 99, "type": "object"}, "x" * 64),
    ],
)
def test_the_name_is_one_that_servers_take(schema: Any, name: str) -> None:
    assert output_schema(schema).name == name


def test_a_schema_is_written_by_the_rules_of_strict_mode() -> None:
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Order",
        "type": "object",
        "properties": {
            "id": {"type": ["integer", "string"], "minimum": 1, "description": "any"},
            "state": {"enum": ["new", 3, None]},
            "kind": {"const": "order"},
            "lines": {"type": "array", "items": {"$ref": "#/definitions/line"}, "default": []},
            "mix": {"oneOf": [{"type": "string", "format": "uri"}, {"type": "boolean"}]},
            "both": {"allOf": [{"$ref": "#/definitions/line"}, {"required": ["sku"]}]},
            "pattern": {"type": "string", "pattern": "(?=a)b", "maxLength": 3},
        },
        "required": ["id", "state", "kind", "lines", "mix", "pattern"],
        "definitions": {
            "line": {"type": "object", "properties": {"sku": {"type": "string"}}, "title": "L"}
        },
    }
    null = {"type": "null"}
    line = {
        "type": "object",
        "properties": {"sku": {"anyOf": [{"type": "string"}, null]}},
        "required": ["sku"],
        "additionalProperties": False,
    }
    closed_line = line | {"properties": {"sku": {"type": "string"}}}
    assert checked(output_schema(schema)) == {
        "type": "object",
        "properties": {
            "id": {
                "anyOf": [{"type": "integer", "minimum": 1}, {"type": "string"}],
                "description": "any",
            },
            "state": {
                "anyOf": [
                    {"type": "string", "enum": ["new"]},
                    {"type": "integer", "enum": [3]},
                    null,
                ]
            },
            "kind": {"type": "string", "enum": ["order"]},
            "lines": {"type": "array", "items": line},
            "mix": {"anyOf": [{"type": "string"}, {"type": "boolean"}]},
            "both": {"anyOf": [closed_line, null]},
            "pattern": {"type": "string", "maxLength": 3},
        },
        "required": list(schema["properties"]),
        "additionalProperties": False,
    }


def test_what_stands_beside_alternatives_holds_in_each() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
        "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
    }
    root = checked(output_schema(schema))
    one, other = root["properties"]["value"]["anyOf"]
    assert one["properties"]["a"] == other["properties"]["b"] == {"type": "string"}
    assert output_schema(schema).read('{"value": {"a": null, "b": "x"}}') == {"b": "x"}


def test_only_what_leads_to_itself_stays_a_reference() -> None:
    assert "$defs" not in checked(output_schema(list[Trip]))
    root = checked(output_schema(Tree))
    children = {"type": "array", "items": {"$ref": "#/$defs/Tree"}}
    assert root["properties"]["children"] == {"anyOf": [children, {"type": "null"}]}
    assert list(root["$defs"]) == ["Tree"]


def test_a_large_schema_keeps_its_references() -> None:
    many = {f"f{i}": {"$ref": "#/$defs/big"} for i in range(300)}
    big = {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(50)}}
    root = checked(output_schema({"type": "object", "properties": many, "$defs": {"big": big}}))
    assert len(json.dumps(root)) < 60_000
    assert list(root["$defs"]) == ["big"]


@pytest.mark.parametrize("schema", [dict[str, int], "more dict", Any, list[Any]])
def test_strict_is_not_claimed_where_anything_may_come(schema: Any) -> None:
    wanted = output_schema(schema).request("json_schema")["response_format"]["json_schema"]
    assert wanted["strict"] is False


# What is read


def test_what_may_be_left_out_may_be_null() -> None:
    schema = output_schema(Person)
    nick = schema.json_schema["properties"]["nick"]
    assert nick == {"anyOf": [{"type": "string"}, {"type": "null"}]}
    assert schema.read('{"name": "Ann", "age": 1, "nick": null}').nick == "none"
    assert output_schema(Loose).read('{"name": "x", "tags": null}') == {"name": "x"}
    assert problems(Person, '{"name": null, "age": 1}') == ("name: missing, want a string",)


ANN = '{"name": "Ann", "age": 1}'
BEN = '{"name": "Ben", "age": 2}'


@pytest.mark.parametrize(
    "text",
    [
        BEN,
        f"\n {BEN} \n",
        f"Here it is:\n```json\n{BEN}\n```\nAnything else?",
        f"```\n{BEN}\n```",
        f"```JSON\r\n{BEN}\r\n```",
        f"1. So:\n   ```json\n   {BEN}\n   ```",
        f"```json\n{BEN}",
        f"It is {BEN}, I think [1].",
        f"As in {ANN} before, it is {BEN}.",
        f"```json\n{BEN}\n```\nand not {ANN}",
        f"```python\nx = {ANN}\n```\nso\n```json\n{BEN}\n```",
        f"```python\nx = 1\n```\n{ANN} is somebody else.\n```json\n{BEN}\n```",
        f'{BEN} {{"other": 1}}',
        f"A set {{x}} and {BEN}",
        f"In [0, 1) and [ ] there is {BEN}",
    ],
)
def test_where_an_answer_may_stand(text: str) -> None:
    assert output_schema(Person).read(text).name == "Ben"


def test_a_list_in_prose() -> None:
    people = output_schema(list[Person])
    assert [p.name for p in people.read(f"They are [{ANN}, {BEN}], as said in [1].")] == [
        "Ann",
        "Ben",
    ]
    assert output_schema(list[int]).read('It is {"items": [4]} says [1].') == [4]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", 'got no JSON, want one JSON object such as {"name": …, "age": …, "nick": …}'),
        ("I do not know {it}.", "got no JSON"),
        ('{"name": "Ann", "age": 1', "got JSON that is cut off after «"),
        ('{"name": "An', "got JSON that is cut off after «"),
        (f'As in {ANN} it is {{"name": "Be', "got JSON that is cut off after «"),
        (f'[{ANN}, {{"name": "Be', "got JSON that is cut off after «"),
        ('{"name": "Ann", "age": 1,}', "got text that is not JSON"),
        (f'{ANN} or {{"name": "Ann", "age": 1,}}', "got text that is not JSON"),
        ("{'name': 'Ann', 'age': 1}", "got text that is not JSON"),
        ('{"name": "Ann", "age": NaN}', "age: got NaN, want a finite number"),
        ('{"name": "Ann", "age": 1e999}', "age: got Infinity, want a finite number"),
        (f'{{"name": "Ann", "age": {"1" * 5000}}}', "more than 4,300 digits"),
        ('{"name": "Ann", "age": 1, "age": 2}', '"age": got it more than once, want it once'),
        ('{"a":' * 5000 + "1" + "}" * 5000, "nested too deeply"),
        ("3", "got an integer (3), want an object"),
        (f"[{ANN}]", "got an array"),
        ("null", "got null, want an object"),
    ],
)
def test_what_is_no_answer_is_not_guessed_at(text: str, says: str) -> None:
    (problem,) = problems(Person, text)
    assert says in problem
    assert len(problem) < 300


@pytest.mark.parametrize(
    ("schema", "text", "said"),
    [
        (Person, '{"name": "A", "age": "old"}', ('age: got a string ("old"), want an integer',)),
        (Person, '{"name": "A", "age": -1}', ("age: got an integer (-1), want at least 0",)),
        (
            Person,
            '{"name": "Annabellissima", "age": true}',
            (
                "age: got a boolean (true), want an integer",
                'name: got a string ("Annabellissima"), want a name of at most 10 letters',
            ),
        ),
        (
            list[Person],
            f'{{"items": [{ANN}, {{"nick": 1}}]}}',
            (
                "items[1].nick: got an integer (1), want a string",
                "items[1].name: missing, want a string",
                "items[1].age: missing, want an integer",
            ),
        ),
        (list[Person], ANN, ('items: got an object ({"name": "Ann", "age": 1}), want an array',)),
        (
            Cat | Dog,
            '{"value": {"kind": "cat", "lives": "nine"}}',
            ('value.lives: got a string ("nine"), want an integer',),
        ),
        (Cat | Dog, '{"value": 3}', ("value: got an integer (3), want an object",)),
        (Colour, '{"value": "green"}', ('value: got a string ("green"), want "red" or "blue"',)),
        (int | bool, '"x"', ('value: got a string ("x"), want an integer or a boolean',)),
        ("born date", '{"born": "soon"}', None),
        (
            {"type": "object", "properties": {"a": {}}, "additionalProperties": False},
            '{"a": 1, "b": 2}',
            ("b: unknown field, want only a",),
        ),
        (
            {"type": "object", "properties": {"a": {"type": "string", "pattern": "^x"}}},
            '{"a": "y"}',
            ('a: got a string ("y"), want pattern ^x',),
        ),
        (
            {"type": "object", "properties": {"a": False, "b": {"not": {"type": "null"}}}},
            '{"a": 1, "b": null}',
            ("got an integer (1), want nothing there",),
        ),
    ],
)
def test_problems_name_the_field_what_came_and_what_is_wanted(
    schema: Any, text: str, said: tuple[str, ...] | None
) -> None:
    found = problems(schema, text)
    if said is None:
        assert found[0].startswith('born: got a string ("soon"), want a date')
    else:
        assert found == said


def test_the_models_correction_and_the_users_message() -> None:
    with pytest.raises(SchemaMismatch) as caught:
        output_schema("a int, b int, c int, d int").read("{}")
    error = caught.value
    assert str(error).splitlines() == [
        "The answer does not fit what was asked for: a: missing, want an integer; "
        "b: missing, want an integer; c: missing, want an integer; and 1 more."
    ]
    assert error.correction == (
        "Your answer does not fit:\n"
        "- a: missing, want an integer\n"
        "- b: missing, want an integer\n"
        "- c: missing, want an integer\n"
        "- d: missing, want an integer\n"
        "Answer again with the whole JSON only."
    )


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))]
)
def test_a_mismatch_can_be_copied_and_sent_elsewhere(again: Callable[[Any], Any]) -> None:
    with pytest.raises(SchemaMismatch) as caught:
        output_schema("a int, b int, c int, d int").read('{"a": 1}')
    error = caught.value
    error.add_note("seen")
    made = again(error)
    assert type(made) is SchemaMismatch
    assert (str(made), made.problems, made.text) == (str(error), error.problems, error.text)
    assert (made.correction, made.reply, made.__notes__) == (error.correction, None, ["seen"])


def test_a_validator_that_breaks_is_a_problem_and_no_crash() -> None:
    class Broken(BaseModel):
        x: int

        @field_validator("x")
        @classmethod
        def breaks(cls, x: int) -> int:
            raise KeyError(x)

    assert problems(Broken, '{"x": 1}') == ("KeyError: 1",)


def test_strict_models_and_aliases() -> None:
    class Strict(BaseModel):
        model_config = ConfigDict(strict=True, extra="forbid")
        on: dt.date = Field(alias="date")
        kinds: set[int]

    read = output_schema(Strict).read('{"date": "2024-05-01", "kinds": [1, 1]}')
    assert (read.on, read.kinds) == (dt.date(2024, 5, 1), {1})
    assert problems(Strict, '{"date": "2024-05-01", "kinds": [], "x": 1}') == (
        "x: unknown field, want only date, kinds",
    )


def test_any_json() -> None:
    assert ANY_JSON.read("[1, 2]") == [1, 2]
    assert ANY_JSON.read("So:\n```json\n[1, 2]\n```") == [1, 2]
    assert ANY_JSON.read('So: {"a": 1}.') == {"a": 1}
    assert ANY_JSON.request("json_schema") == {"response_format": {"type": "json_object"}}
    assert ANY_JSON.request("text") == {}
    assert "JSON" in ANY_JSON.instruction
    with pytest.raises(SchemaMismatch, match="got no JSON, want one JSON object"):
        ANY_JSON.read("none")


def test_importing_it_imports_nothing_heavy() -> None:
    code = "import sys, kimi_magic.schema.output, kimi_magic.core.tabular; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"pydantic", "jsonschema", "pandas", "openai"} & set(ran.stdout.split())


# Whatever comes

PROSE = st.text(st.characters(exclude_characters="{}[]`\x00", exclude_categories=["Cs"]))
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)


@st.composite
def schemas(draw: st.DrawFn, depth: int = 2) -> tuple[dict[str, Any], st.SearchStrategy[Any]]:
    """A JSON Schema, and the values that its strict form admits."""
    kind = draw(
        st.sampled_from(["leaf", "enum", *(["array", "object", "either"] if depth else [])])
    )
    if kind == "enum":
        values = draw(st.lists(SCALARS.filter(lambda v: type(v) is not float), min_size=1))
        return {"enum": values}, st.sampled_from(values)
    if kind == "array":
        items, inner = draw(schemas(depth=depth - 1))
        return {"type": "array", "items": items}, st.lists(inner, max_size=3)
    if kind == "either":
        one, other = draw(schemas(depth=depth - 1)), draw(schemas(depth=depth - 1))
        return {"anyOf": [one[0], other[0]]}, one[1] | other[1]
    if kind == "object":
        names = draw(st.lists(st.sampled_from("abcde"), unique=True, max_size=3))
        fields = {name: draw(schemas(depth=depth - 1)) for name in names}
        required = [name for name in names if draw(st.booleans())]
        schema = {
            "type": "object",
            "properties": {name: node for name, (node, _) in fields.items()},
            "required": required,
        }
        return schema, st.fixed_dictionaries(
            {n: v if n in required else v | st.none() for n, (_, v) in fields.items()}
        )
    leaves: list[tuple[dict[str, Any], st.SearchStrategy[Any]]] = [
        ({"type": "string"}, st.text(st.characters(exclude_categories=["Cs"]))),
        ({"type": "integer"}, st.integers()),
        ({"type": ["boolean", "null"]}, st.booleans() | st.none()),
        ({"type": "number"}, st.floats(allow_nan=False, allow_infinity=False)),
    ]
    schema, leaf = draw(st.sampled_from(leaves))
    return schema, leaf


EMBEDDINGS = ("{json}", "{before} {json} {after}", "{before}\n```json\n{json}\n```\n{after}")


@given(st.data(), schemas(), PROSE, PROSE, st.sampled_from(EMBEDDINGS))
def test_what_a_server_is_held_to_is_read(
    data: st.DataObject,
    made: tuple[dict[str, Any], st.SearchStrategy[Any]],
    before: str,
    after: str,
    form: str,
) -> None:
    raw, values = made
    schema = output_schema({"type": "object", "properties": {"it": raw}, "required": ["it"]})
    strict = checked(schema)
    value = {"it": data.draw(values)}
    assert Draft202012Validator(strict).is_valid(value)
    text = form.format(json=json.dumps(value, ensure_ascii=False), before=before, after=after)
    read = schema.read(text)
    assert Draft202012Validator({"properties": {"it": raw}}).is_valid(read)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), JSON), PROSE, PROSE)
def test_any_object_comes_back_out_of_prose_and_fences(
    value: dict[str, Any], before: str, after: str
) -> None:
    schema = output_schema({"type": "object"})
    for form in EMBEDDINGS:
        for indent in (None, 2):
            text = json.dumps(value, ensure_ascii=False, indent=indent)
            assert schema.read(form.format(json=text, before=before, after=after)) == value


@given(st.lists(st.builds(Person, name=st.text(max_size=10), age=st.integers(0)), max_size=3))
def test_models_come_back_as_they_were(people: list[Person]) -> None:
    schema = output_schema(list[Person])
    text = json.dumps({"items": [person.model_dump() for person in people]})
    assert schema.read(f"So:\n```json\n{text}\n```") == people


JSON_LIKE = st.text(st.sampled_from('{}[]",:\\ \n`ab1.-tfnNI')) | st.lists(
    st.sampled_from(["```json\n", "\n```\n", '{"name": ', '"x"', "1", ", ", "}", "[", "]", "\\"])
).map("".join)


@given(
    st.text() | JSON_LIKE | JSON.map(json.dumps),
    st.sampled_from([Person, list[Person], Tree, Cat | Dog, Loose, dict[str, int], "a, b date"]),
)
def test_no_text_raises_anything_else(text: str, schema: Any) -> None:
    with suppress(SchemaMismatch):
        output_schema(schema).read(text)


@pytest.mark.parametrize("text", ['{"' * 50_000, "[" * 100_000, '["[' * 50_000, '{"a":"' * 50_000])
def test_long_nonsense_is_refused_in_no_time(text: str) -> None:
    assert len(problems(Person, text)) == 1
