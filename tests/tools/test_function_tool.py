"""Any callable as a tool: what the model is told, what it may send, what the body receives."""

# ruff: noqa: UP007, UP045, PYI061 - each way to write a hint is meant

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import functools
import json
import math
import operator
import pathlib
import subprocess
import sys
import textwrap
import typing
import uuid
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from types import GenericAlias
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NewType,
    Optional,
    Protocol,
    TypedDict,
    TypeVar,
    Union,
    Unpack,
)

import numpy as np
import pandas as pd
import pydantic
import pytest
import typing_extensions
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel, Field

from kimi_magic.core.errors import KimiError
from kimi_magic.schema.problems import ArgumentsError
from kimi_magic.schema.type_hints import dict_of, either, list_of, typed_dict
from kimi_magic.testing import check_request
from kimi_magic.tools.function_tool import FunctionTool, make_tool


def checked(fn: Callable[..., Any], **options: Any) -> FunctionTool:
    """A tool whose schema every server takes."""
    tool = make_tool(fn, **options)
    message = {"role": "user", "content": "x"}
    assert check_request({"model": "m", "messages": [message], "tools": [tool.schema()]}) == []
    Draft202012Validator.check_schema(tool.parameters)
    assert "x-holds" not in json.dumps(tool.parameters, allow_nan=False)
    return tool


def properties(tool: FunctionTool) -> dict[str, Any]:
    return dict(tool.parameters["properties"])


def received(
    tool: FunctionTool, arguments: dict[str, Any], namespace: Mapping[str, Any] = {}
) -> Any:
    """What the body gets; the functions here give back what they got."""
    args, kwargs = tool.bind(arguments, namespace)
    return tool.function(*args, **kwargs)


def opened(schema: Any) -> Any:
    """Without the word that no more may be sent: pydantic before 2.14 does not always say it."""
    if isinstance(schema, list):
        return [opened(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    return {k: opened(v) for k, v in schema.items() if (k, v) != ("additionalProperties", False)}


class Refused(str):  # noqa: SLOT000
    """What is said of arguments that do not fit."""


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Shape(enum.Enum):
    DOT = (0, 0)
    LINE = (0, 1)


@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.0


@dataclasses.dataclass
class Tree:
    value: int
    kids: list[Tree] = dataclasses.field(default_factory=list)


class Person(BaseModel):
    name: str = Field(description="in full")
    age: int | None = None


class Family(BaseModel):
    head: Person
    others: list[Person] = []
    parents: Family | None = None


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


class Whole(TypedDict):
    a: int


class Partly(TypedDict, total=False):
    a: int
    b: str


class Extended(typing_extensions.TypedDict):
    a: typing_extensions.Required[int]
    b: typing_extensions.NotRequired[list[Whole]]


class Pair(typing.NamedTuple):
    left: int
    right: str


class Metres(float):
    pass


class Engine:
    power = 7


class Speaks(Protocol):
    def speak(self) -> str: ...


UserId = NewType("UserId", int)
T = TypeVar("T")
Num = TypeVar("Num", int, float)
Bounded = TypeVar("Bounded", bound=Colour)


class Stack(Generic[T]):
    pass


SENTINEL = object()
FRAME = pd.DataFrame({"a": [1]})
ANY = {"type": ["string", "number", "boolean", "object", "array", "null"]}
NULL = {"type": "null"}
INT, NUM, STR = {"type": "integer"}, {"type": "number"}, {"type": "string"}
COLOURS = {"type": "string", "enum": ["red", "blue"]}
CLOSED = {"additionalProperties": False}


def ident(hint: Any, *default: Any) -> Callable[..., Any]:
    """A function of one parameter, x, with this hint."""

    def f(*args: Any, **kwargs: Any) -> Any: ...

    scope = {"hint": hint, "default": default}
    tail = " = default[0]" if default else ""
    exec(f"def f(x: hint{tail}): return x", scope)
    made: Callable[..., Any] = scope["f"]
    return made


DAY, TIME = dt.date(2025, 3, 1), dt.time(12, 30)
ID = uuid.UUID(int=5)

# hint (or a hint and a default) · what the schema says of x · what is sent → what arrives
HINTS: list[tuple[Any, dict[str, Any], list[tuple[Any, Any]]]] = [
    (int, INT, [(3, 3), ("3", 3), (3.0, 3), (True, Refused("x")), (3.5, Refused("x"))]),
    (int, INT, [(None, Refused("x: got null")), ([], Refused("x: got an array"))]),
    (float, NUM, [(1, 1.0), ("2.5", 2.5), (False, Refused("x")), ("nan", Refused("x"))]),
    (str, STR, [("a", "a"), (1, Refused("x: got an integer (1), want a string"))]),
    (bool, {"type": "boolean"}, [(True, True), ("yes", True), (7, Refused("x"))]),
    (bytes, {"type": "string", "format": "binary"}, [("é", "é".encode())]),
    (complex, STR, [("1+2j", 1 + 2j)]),
    (type(None), NULL, [(None, None), (0, Refused("x"))]),
    (Optional[int], {"anyOf": [INT, NULL]}, [(None, None), (2, 2), (True, Refused("x"))]),
    (int | str, {"anyOf": [INT, STR]}, [(1, 1), ("1", "1"), (True, Refused("x"))]),
    (Union[int, bool], {"anyOf": [INT, {"type": "boolean"}]}, [(1, 1), (True, True)]),
    (int | float, {"anyOf": [INT, NUM]}, [(1, 1), (1.5, 1.5)]),
    (
        Literal["a", "b"],
        {"type": "string", "enum": ["a", "b"]},
        [("a", "a"), ("c", Refused("'a' or 'b'"))],
    ),
    (Literal["a"], {"type": "string", "enum": ["a"]}, [("a", "a"), ("b", Refused("x"))]),
    (
        Literal[1, 2],
        {"type": "integer", "enum": [1, 2]},
        [(1, 1), (True, Refused("x")), (3, Refused("x"))],
    ),
    (
        Literal[1, "a"],
        {"anyOf": [{"type": "integer", "enum": [1]}, {"type": "string", "enum": ["a"]}]},
        [(1, 1), ("a", "a"), (2, Refused("x"))],
    ),
    (
        Literal["a", None],
        {"anyOf": [{"type": "string", "enum": ["a"]}, NULL]},
        [(None, None), ("a", "a")],
    ),
    (
        Literal[Colour.RED],
        {"type": "string", "enum": ["red"]},
        [("red", Colour.RED), ("blue", Refused("want 'red'"))],
    ),
    (Colour, COLOURS, [("red", Colour.RED), ("RED", Refused("x"))]),
    (Level, {"type": "integer", "enum": [1, 2]}, [(2, Level.HIGH), (True, Refused("x"))]),
    (
        Shape,
        {"type": "string", "enum": ["DOT", "LINE"]},
        [("LINE", Shape.LINE), ("OVAL", Refused("'DOT' or 'LINE'"))],
    ),
    (Colour | None, {"anyOf": [COLOURS, NULL]}, [(None, None), ("blue", Colour.BLUE)]),
    (list, {"type": "array"}, [([1, "a"], [1, "a"]), ("ab", Refused("x"))]),
    (
        list[int],
        {"type": "array", "items": INT},
        [
            (["1", 2], [1, 2]),
            ([1, True], Refused("x[1]")),
            ([1, "b"], Refused('x[1]: got a string ("b")')),
        ],
    ),
    (
        list[list[Colour]],
        {"type": "array", "items": {"type": "array", "items": COLOURS}},
        [([["red"], []], [[Colour.RED], []])],
    ),
    (list[Any], {"type": "array"}, [([None, {"a": True}], [None, {"a": True}])]),
    (dict, {"type": "object"}, [({"a": 1}, {"a": 1})]),
    (
        dict[str, int],
        {"type": "object", "additionalProperties": INT},
        [({"a": "1"}, {"a": 1}), ({"a": True}, Refused("x.a")), ({"a": "b"}, Refused("x.a"))],
    ),
    (dict[int, str], {"type": "object", "additionalProperties": STR}, [({"1": "a"}, {1: "a"})]),
    (
        Mapping[str, list[float]],
        {"type": "object", "additionalProperties": {"type": "array", "items": NUM}},
        [({"a": [1]}, {"a": [1.0]})],
    ),
    (
        tuple[int, str],
        {"type": "array", "prefixItems": [INT, STR], "minItems": 2, "maxItems": 2},
        [([1, "a"], (1, "a")), ([1], Refused("x[1]: missing")), ([True, "a"], Refused("x[0]"))],
    ),
    (tuple[int, ...], {"type": "array", "items": INT}, [([1, 2], (1, 2)), ([], ())]),
    (set[str], {"type": "array", "items": STR, "uniqueItems": True}, [(["a", "a"], {"a"})]),
    (frozenset[int], {"type": "array", "items": INT, "uniqueItems": True}, [([1], frozenset({1}))]),
    (Sequence[int], {"type": "array", "items": INT}, [([1], [1]), ("ab", Refused("x"))]),
    (
        Iterable[int],
        {"type": "array", "items": INT},
        [([1, "2"], [1, 2]), ([1, "b"], Refused("x[1]"))],
    ),
    (Collection[str], {"type": "array", "items": STR}, [(["a"], ["a"])]),
    (
        dt.date,
        {"type": "string", "format": "date"},
        [("2025-03-01", DAY), ("soon", Refused("x")), (True, Refused("x"))],
    ),
    (
        dt.datetime,
        {"type": "string", "format": "date-time"},
        [("2025-03-01T12:30:00", dt.datetime.combine(DAY, TIME))],
    ),
    (dt.time, {"type": "string", "format": "time"}, [("12:30", TIME)]),
    (
        dt.timedelta,
        {"type": "string", "format": "duration"},
        [("PT1H", dt.timedelta(hours=1)), (60, dt.timedelta(minutes=1))],
    ),
    (
        decimal.Decimal,
        {"anyOf": [NUM, STR]},
        [("1.10", decimal.Decimal("1.10")), (True, Refused("x"))],
    ),
    (pathlib.Path, {"type": "string", "format": "path"}, [("a/b", pathlib.Path("a/b"))]),
    (uuid.UUID, {"type": "string", "format": "uuid"}, [(str(ID), ID), ("5", Refused("x"))]),
    (
        pd.Timestamp,
        {"type": "string", "format": "date-time"},
        [("2025-03-01T00:00:00", pd.Timestamp(2025, 3, 1))],
    ),
    (np.int64, INT, [(3, np.int64(3)), (True, Refused("x"))]),
    (np.float64, NUM, [(3, np.float64(3))]),
    (Metres, NUM, [(3, Metres(3))]),
    (
        Whole,
        {"type": "object", "properties": {"a": INT}, "required": ["a"], **CLOSED},
        [
            ({"a": "1"}, {"a": 1}),
            ({}, Refused("x.a: missing, want an integer")),
            ({"a": 1, "z": 1}, Refused("x.z: unknown field")),
        ],
    ),
    (
        Partly,
        {"type": "object", "properties": {"a": INT, "b": STR}, **CLOSED},
        [({}, {}), ({"b": "c"}, {"b": "c"})],
    ),
    (
        Extended,
        {
            "type": "object",
            "properties": {
                "a": INT,
                "b": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"a": INT},
                        "required": ["a"],
                        **CLOSED,
                    },
                },
            },
            "required": ["a"],
            **CLOSED,
        },
        [
            ({"a": 1, "b": [{"a": 2}]}, {"a": 1, "b": [{"a": 2}]}),
            ({"a": 1, "b": [{"a": True}]}, Refused("x.b[0].a")),
        ],
    ),
    (
        Pair,
        {"type": "array", "prefixItems": [INT, STR], "minItems": 2, "maxItems": 2},
        [([1, "a"], Pair(1, "a"))],
    ),
    (
        Point,
        {
            "type": "object",
            "properties": {"x": NUM, "y": {"type": "number", "default": 0.0}},
            "required": ["x"],
            **CLOSED,
        },
        [
            ({"x": 1}, Point(1.0)),
            ({"x": True}, Refused("x.x")),
            ({"x": 1, "z": 2}, Refused("x.z: unknown field, want one of x, y")),
        ],
    ),
    (
        Tree,
        {"$ref": "#/$defs/Tree"},
        [
            ({"value": 1, "kids": [{"value": "2"}]}, Tree(1, [Tree(2)])),
            ({"value": 1, "kids": [{}]}, Refused("x.kids[0].value: missing, want an integer")),
        ],
    ),
    (
        Person,
        {
            "type": "object",
            "properties": {
                "name": {"type": "string", "description": "in full"},
                "age": {"anyOf": [INT, NULL], "default": None},
            },
            "required": ["name"],
        },
        [({"name": "A"}, Person(name="A")), ({"age": "x"}, Refused("x.name: missing"))],
    ),
    (
        Family,
        {"$ref": "#/$defs/Family"},
        [
            ({"head": {"name": "A"}}, Family(head=Person(name="A"))),
            ({"head": {"name": "A", "age": True}}, Refused("x.head.age")),
        ],
    ),
    (
        list[Cat | Dog],
        {
            "type": "array",
            "items": {
                "anyOf": [
                    {
                        "type": "object",
                        "properties": {"kind": {"type": "string", "enum": [k]}},
                        "required": ["kind"],
                    }
                    for k in ("cat", "dog")
                ]
            },
        },
        [([{"kind": "dog"}], [Dog(kind="dog")])],
    ),
    (
        Annotated[Cat | Dog, Field(discriminator="kind")],
        {
            "anyOf": [
                {
                    "type": "object",
                    "properties": {"kind": {"type": "string", "enum": [k]}},
                    "required": ["kind"],
                }
                for k in ("cat", "dog")
            ]
        },
        [({"kind": "cat"}, Cat(kind="cat")), ({"kind": "cow"}, Refused("x"))],
    ),
    (
        Annotated[int, Field(ge=1, le=5)],
        {"type": "integer", "minimum": 1, "maximum": 5},
        [(5, 5), (6, Refused("x: got an integer (6), want less than or equal to 5"))],
    ),
    (
        Annotated[str, Field(min_length=2, pattern="^a")],
        {"type": "string", "minLength": 2, "pattern": "^a"},
        [("ab", "ab"), ("b", Refused("x"))],
    ),
    (
        Annotated[list[int], Field(max_length=1)],
        {"type": "array", "items": INT, "maxItems": 1},
        [([1], [1]), ([1, 2], Refused("x"))],
    ),
    (Annotated[int, pydantic.AfterValidator(operator.neg)], INT, [(3, -3)]),
    (
        Annotated[Optional[int], Field(gt=0)],
        {"anyOf": [{"type": "integer", "exclusiveMinimum": 0}, NULL]},
        [(None, None), (0, Refused("x"))],
    ),
    (UserId, INT, [("5", 5), (True, Refused("x"))]),
    (list[UserId], {"type": "array", "items": INT}, [([5], [5])]),
    (T, ANY, [({"a": 1}, {"a": 1})]),
    (list_of(T), {"type": "array"}, [([1, "a"], [1, "a"])]),
    (Num, {"anyOf": [INT, NUM]}, [(1, 1), (1.5, 1.5)]),
    (Bounded, COLOURS, [("red", Colour.RED)]),
    (Any, ANY, [(None, None), ([True], [True])]),
    (object, ANY, [(1, 1)]),
    (typing.LiteralString, STR, [("a", "a")]),
    (
        typing_extensions.TypeAliasType("Alias", list[int]),
        {"type": "array", "items": INT},
        [([1], [1]), ([True], Refused("x[0]"))],
    ),
]


@pytest.mark.parametrize(("hint", "said", "sent"), HINTS, ids=[str(h[0])[:50] for h in HINTS])
def test_hints(hint: Any, said: dict[str, Any], sent: list[tuple[Any, Any]]) -> None:
    tool = checked(ident(hint))
    assert opened(properties(tool)["x"]) == opened(said)
    assert tool.parameters["required"] == ["x"]
    assert tool.parameters["additionalProperties"] is False
    for value, expected in sent:
        if isinstance(expected, Refused):
            with pytest.raises(ArgumentsError) as caught:
                tool.bind({"x": value}, {})
            assert any(str(expected) in problem for problem in caught.value.problems), caught.value
            assert all(", want " in problem for problem in caught.value.problems)
        else:
            got = received(tool, {"x": value})
            assert got == expected
            assert type(got) is type(expected)


def test_iterators_arrive_as_iterators() -> None:
    for hint in (Iterator[int], Generator[int, None, None]):
        tool = checked(ident(hint))
        got = received(tool, {"x": [1, "2"]})
        assert not isinstance(got, list)
        assert list(got) == [1, 2]


@pytest.mark.parametrize(
    ("default", "said"),
    [
        (3, {"type": "integer", "default": 3}),
        (math.inf, {"type": "integer"}),
        (SENTINEL, {"type": "integer"}),
        (FRAME, {"type": "integer"}),
        (Level.LOW, {"type": "integer"}),
        (None, {"anyOf": [{"type": "integer"}, NULL], "default": None}),
        ([1, {"a": None}], {"type": "integer", "default": [1, {"a": None}]}),
        ((1,), {"type": "integer"}),
        ({1: 2}, {"type": "integer"}),
        (list(range(1000)), {"type": "integer"}),
    ],
)
def test_defaults_stay_with_python(default: Any, said: dict[str, Any]) -> None:
    tool = checked(ident(int, default))
    assert properties(tool)["x"] == said
    assert "required" not in tool.parameters
    assert tool.bind({}, {}) == ((), {})
    assert received(tool, {}) is default
    assert received(tool, {"x": 5}) == 5


def bare(x, n=3, r=0.5, s="a", b=True, l=[], o=SENTINEL, z=None):  # type: ignore[no-untyped-def]  # noqa: B006, E741
    return x, n, r, s, b, l, o, z


def test_no_hints() -> None:
    tool = checked(bare)
    assert properties(tool) == {
        "x": ANY,
        "n": {"anyOf": [{"type": "integer"}, {"type": "number"}], "default": 3},
        "r": {"type": "number", "default": 0.5},
        "s": {"type": "string", "default": "a"},
        "b": {"type": "boolean", "default": True},
        "l": {"type": "array", "default": []},
        "o": ANY,
        "z": ANY,
    }
    assert received(tool, {"x": None, "n": 1.5, "o": 4})[:2] == (None, 1.5)
    with pytest.raises(ArgumentsError, match="n: got a boolean"):
        tool.bind({"x": 1, "n": True}, {})
    assert "n: no hint, taken as number from its default 3" in tool.notes
    assert "x: no hint, any value goes" in tool.notes


def odd(schema: int, model_config: str, _x: bool, json: list[int], self_: float = 1.0) -> Any:
    return schema, model_config, _x, json, self_


def places(a: int, b: int = 2, /, c: int = 3, *, d: int, e: int = 5) -> Any:
    return a, b, c, d, e


def rest(a: int, b: int = 2, *args: float, k: str = "k", **kwargs: bool) -> Any:
    return a, b, args, k, kwargs


def only_places(a: Any = SENTINEL, b: int = 2, /) -> Any:
    return a, b


def unpacked(**kwargs: Unpack[Partly]) -> Any:
    return kwargs


def field_default(x: int = Field(7, ge=1, description="how many"), y: str = Field()) -> Any:
    return x, y


def keyworded(required: int, anyOf: int = 0, required_: int = 1) -> Any:
    return required, anyOf, required_


def over(a: int, /, **kwargs: int) -> Any:
    return a, kwargs


def timed(fn: Any) -> Any:
    @functools.wraps(fn)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return inner


def careless(fn: Any) -> Any:
    def inner(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return inner


def lying(fn: Any) -> Any:
    """A wrapper that takes less than it says."""

    @functools.wraps(fn)
    def inner(a: Any) -> Any:
        return fn(a, 9)

    return inner


def add(a: int, b: int) -> Any:
    return a, b


class Shop:
    def __init__(self, tax: float = 0.5) -> None:
        self.tax = tax

    def price(self, net: float) -> Any:
        return net * self.tax

    @classmethod
    def named(cls, name: str) -> Any:
        return cls, name

    @staticmethod
    def plain(n: int) -> Any:
        return n

    def __call__(self, times: int) -> Any:
        return times, self.tax

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Shop) and self.tax == other.tax

    __hash__ = None  # type: ignore[assignment]


async def waits(seconds: float) -> Any: ...


def bad_return(x: int) -> NoSuchThing:  # type: ignore[name-defined]  # noqa: F821
    return x


def bad_one(x: NoSuchThing, y: int = 1) -> Any:  # type: ignore[name-defined]  # noqa: F821
    return x, y


def wrong_hint(x: (int, str), y: 3) -> Any:  # type: ignore[valid-type, syntax]
    return x, y


@functools.lru_cache
def cached(n: int) -> Any:
    return n


@functools.singledispatch
def dispatched(x: int, y: int = 1) -> Any:
    return x, y


# what · its name · properties' names · arguments → what the body got
CALLABLES: list[tuple[Any, str, list[str], list[tuple[dict[str, Any], Any]]]] = [
    (
        odd,
        "odd",
        ["schema", "model_config", "_x", "json", "self_"],
        [({"schema": 1, "model_config": "m", "_x": True, "json": [1]}, (1, "m", True, [1], 1.0))],
    ),
    (
        places,
        "places",
        ["a", "b", "c", "d", "e"],
        [
            ({"a": 1, "d": 4}, (1, 2, 3, 4, 5)),
            ({"a": 1, "b": 7, "c": 8, "d": 9}, (1, 7, 8, 9, 5)),
            ({"a": 1}, Refused("d: missing, want an integer")),
        ],
    ),
    (
        rest,
        "rest",
        ["a", "b", "args", "k", "kwargs"],
        [
            ({"a": 1}, (1, 2, (), "k", {})),
            ({"a": 1, "args": [5]}, (1, 2, (5.0,), "k", {})),
            ({"a": 1, "kwargs": {"u": True}, "v": False}, (1, 2, (), "k", {"u": True, "v": False})),
            ({"a": 1, "kwargs": {"k": True}}, Refused("kwargs.k")),
            ({"a": 1, "z": 3}, Refused("kwargs.z")),
            ({"a": 1, "args": [True]}, Refused("args[0]")),
        ],
    ),
    (only_places, "only_places", ["a", "b"], [({"b": 3}, (SENTINEL, 3)), ({}, (SENTINEL, 2))]),
    (
        unpacked,
        "unpacked",
        ["a", "b"],
        [
            ({}, {}),
            ({"a": "1"}, {"a": 1}),
            ({"c": 1}, Refused("c: unknown field, want one of a, b")),
        ],
    ),
    (
        field_default,
        "field_default",
        ["x", "y"],
        [({"y": "a"}, (7, "a")), ({"x": 0, "y": "a"}, Refused("x")), ({}, Refused("y: missing"))],
    ),
    (
        keyworded,
        "keyworded",
        ["required__", "anyOf_", "required_"],
        [
            ({"required__": 1}, (1, 0, 1)),
            ({"required": 1, "anyOf": 2}, (1, 2, 1)),
            ({"required": 1, "required__": 2}, Refused("required: unknown field")),
        ],
    ),
    (over, "over", ["a", "kwargs"], [({"a": 1, "kwargs": {"a": 2}}, (1, {"a": 2}))]),
    (
        timed(add),
        "add",
        ["a", "b"],
        [({"a": 1, "b": 2}, (1, 2)), ({"a": 1}, Refused("b: missing"))],
    ),
    (
        careless(add),
        "inner",
        ["args", "kwargs"],
        [({"args": [1, 2]}, (1, 2)), ({"a": 1, "b": 2}, (1, 2))],
    ),
    (
        lying(add),
        "add",
        ["a"],
        [({"a": "1"}, (1, 9)), ({"a": 1, "b": 2}, Refused("b: unknown field, want one of a"))],
    ),
    (Shop(2.0).price, "price", ["net"], [({"net": 3}, 6.0)]),
    (Shop.named, "named", ["name"], [({"name": "a"}, (Shop, "a"))]),
    (Shop.plain, "plain", ["n"], [({"n": 1}, 1)]),
    (Shop(4.0), "Shop", ["times"], [({"times": 2}, (2, 4.0))]),
    (Shop, "Shop", ["tax"], [({"tax": 1}, Shop(1.0)), ({}, Shop())]),
    (Point, "Point", ["x", "y"], [({"x": 1}, Point(1.0))]),
    (Person, "Person", ["name", "age"], [({"name": "A", "age": 3}, Person(name="A", age=3))]),
    (functools.partial(add, 1), "add", ["b"], [({"b": 2}, (1, 2))]),
    (
        functools.partial(add, b=2),
        "add",
        ["a"],
        [({"a": 1}, (1, 2)), ({"a": 1, "b": 3}, Refused("b"))],
    ),
    (
        functools.partial(functools.partial(places, 1), d=FRAME),
        "places",
        ["b", "c", "e"],
        [({"b": 2}, (1, 2, 3, FRAME, 5))],
    ),
    (cached, "cached", ["n"], [({"n": "3"}, 3)]),
    (dispatched, "dispatched", ["x", "y"], []),
    (waits, "waits", ["seconds"], []),
    (lambda x, y=1: (x, y), "lambda", ["x", "y"], [({"x": 1}, (1, 1))]),
    (bad_return, "bad_return", ["x"], [({"x": "1"}, 1)]),
    (bad_one, "bad_one", ["x", "y"], [({"x": "1", "y": "2"}, ("1", 2))]),
    (wrong_hint, "wrong_hint", ["x", "y"], [({"x": 1, "y": "a"}, (1, "a"))]),
    (len, "len", ["obj"], [({"obj": [1, 2]}, 2)]),
    (max, "max", ["args"], [({"args": [1, 3]}, 3)]),
    (
        round,
        "round",
        ["number", "ndigits"],
        [({"number": 1.26, "ndigits": 1}, 1.3), ({"number": 2.6}, 3)],
    ),
    ("a,b".split, "split", ["sep", "maxsplit"], [({"sep": ","}, ["a", "b"])]),
    (int, "int", ["args"], [({"args": ["ff", 16]}, 255)]),
]


@pytest.mark.parametrize(
    ("fn", "name", "names", "calls"),
    CALLABLES,
    ids=[f"{c[1]}-{i}" for i, c in enumerate(CALLABLES)],
)
def test_callables(
    fn: Any, name: str, names: list[str], calls: list[tuple[dict[str, Any], Any]]
) -> None:
    tool = checked(fn)
    assert list(properties(tool)) == names
    assert tool.name == name
    for sent, expected in calls:
        if isinstance(expected, Refused):
            with pytest.raises(ArgumentsError) as caught:
                tool.bind(sent, {})
            assert any(p.startswith(str(expected)) for p in caught.value.problems), caught.value
        else:
            assert received(tool, sent) == expected


def test_ufuncs() -> None:
    tool = checked(np.add)
    assert set(properties(tool)) >= {"x1", "x2"} or set(properties(tool)) == {"args"}
    sent = {"x1": 1, "x2": 2} if "x1" in properties(tool) else {"args": [1, 2]}
    assert received(tool, sent) == 3


def test_notes_say_what_was_guessed() -> None:
    assert "b: fixed by the partial, not offered" in checked(functools.partial(add, b=2)).notes
    assert "renamed from é-f" in checked(add, name="é-f").notes
    assert "no description: write a docstring" in checked(add).notes
    assert "no description of a, b" in checked(add).notes
    assert any("'NoSuchThing' cannot be resolved" in note for note in checked(bad_one).notes)
    assert any(note.startswith("x: its hint") for note in checked(wrong_hint).notes)
    assert "required: sent as required__, for servers refuse the name" in checked(keyworded).notes
    assert any("no signature" in note for note in checked(max).notes)

    def said(n: Annotated[int, "how many"]) -> None:
        """Do."""

    assert checked(said).notes == ()


def test_a_notebook_without_future_annotations() -> None:
    source = """
        import dataclasses, typing
        @dataclasses.dataclass
        class Box:
            n: int
        def f(box: Box, more: typing.Optional["Box"] = None, own: "list[Later]" = ()):
            return box, more, own
        class Later(typing.NamedTuple):
            n: int
        def g(x: Later, here: "Elsewhere"):
            return x, here
    """
    shell: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(textwrap.dedent(source), "cell", "exec", dont_inherit=True), shell)
    tool = checked(shell["f"], namespace=shell)
    box, more, own = received(tool, {"box": {"n": 1}, "more": None, "own": [[2]]})
    assert (box.n, more, own[0].n) == (1, None, 2)
    shell["Elsewhere"] = Colour
    assert (
        received(checked(shell["g"], namespace=shell), {"x": [1], "here": "red"})[1] is Colour.RED
    )


def test_classes_of_a_function_resolve() -> None:
    class Local(enum.Enum):
        A = "a"

    def f(x: Local, y: list[Local]) -> Any:
        return x, y, Local

    assert received(checked(f), {"x": "a", "y": ["a"]}) == (Local.A, [Local.A], Local)


# Objects by reference.
Connection = Engine


class Voice:
    def speak(self) -> str:
        return "hello"


NAMESPACE = {
    "__name__": __name__,
    "sales": FRAME,
    "costs": FRAME.copy(),
    "_hidden": FRAME,
    "array": np.arange(3),
    "engine": Engine(),
    "voice": Voice(),
    "box": type("Box", (), {"frame": FRAME, "inner": Engine()})(),
    "square": lambda n: n * n,
    "n": 3,
    "Engine": Engine,
}


def sentence(kind: str, now: str = "") -> str:
    article = "an" if kind == "Engine" else "a"
    return f"Name of a variable that holds {article} {kind}{now}"


@pytest.mark.parametrize(
    ("hint", "kind", "now", "refused"),
    [
        (pd.DataFrame, "DataFrame", ["costs", "sales"], "array"),
        (np.ndarray, "ndarray", ["array"], "sales"),
        (np.ndarray[Any, np.dtype[np.float64]], "ndarray", ["array"], "sales"),
        (pd.Series, "Series", [], "sales"),
        (Engine, "Engine", ["engine"], "sales"),
        (Stack[int], "Stack", [], "engine"),
        (Callable[[int], int], "function", ["Engine", "square"], "n"),
        (Callable, "function", ["Engine", "square"], "n"),
        (type[Engine], "type", ["Engine"], "engine"),
        (Speaks, "Speaks", ["voice"], "engine"),
    ],
)
def test_references(hint: Any, kind: str, now: list[str], refused: str) -> None:
    tool = checked(ident(hint), namespace=NAMESPACE)
    listed = {"enum": now, "description": sentence(kind)}
    nothing = {"description": sentence(kind, " (none now)")}
    assert properties(tool)["x"] == {"type": "string", **(listed if now else nothing)}
    assert f"x: JSON carries no {kind}, offered by a variable's name" in tool.notes
    for named in now:
        assert received(tool, {"x": named}, NAMESPACE) is NAMESPACE[named]
    for wrong in (refused, "nothing", "sales.nothing", "", "__class__", "a b", 3, None, ["sales"]):
        with pytest.raises(ArgumentsError, match=f"x: got .*, want the name of a .*{kind}"):
            tool.bind({"x": wrong}, NAMESPACE)


def test_a_reference_is_resolved_when_it_is_called() -> None:
    namespace = dict(NAMESPACE)
    tool = checked(ident(pd.DataFrame), namespace=namespace)
    namespace["sales"], namespace["later"] = FRAME.copy(), FRAME.copy()
    assert received(tool, {"x": "sales"}, namespace) is namespace["sales"]
    with pytest.raises(ArgumentsError, match=r"a DataFrame: costs, sales$"):
        tool.bind({"x": "later"}, namespace)
    now = tool.at_moment(namespace)
    assert properties(now)["x"]["enum"] == ["costs", "later", "sales"]
    assert received(now, {"x": "later"}, namespace) is namespace["later"]
    assert properties(tool)["x"]["enum"] == ["costs", "sales"]
    namespace["sales"] = 3
    with pytest.raises(ArgumentsError, match=r"a DataFrame: costs \(sales holds none any more\)"):
        tool.bind({"x": "sales"}, namespace)


def test_attributes_and_containers_of_references() -> None:
    box, namespace = NAMESPACE["box"], {"namespace": NAMESPACE}
    with pytest.raises(ArgumentsError, match=r"a DataFrame: costs, sales$"):
        checked(ident(pd.DataFrame), **namespace).bind({"x": "box.frame"}, NAMESPACE)
    named = checked(ident(pd.DataFrame), refs="box.frame", **namespace)
    assert properties(named)["x"]["enum"] == ["box.frame", "costs", "sales"]
    assert received(named, {"x": "box.frame"}, NAMESPACE) is FRAME
    several = checked(ident(list[pd.DataFrame]), refs=["box.frame"], **namespace)
    assert received(several, {"x": ["sales", "box.frame"]}, NAMESPACE) == [FRAME, FRAME]
    by_key = checked(ident(dict[str, Engine]), refs=["box.inner"], **namespace)
    assert received(by_key, {"x": {"a": "box.inner"}}, NAMESPACE) == {"a": box.inner}
    with pytest.raises(ArgumentsError, match=r"x\[1\]: got a string \(\"n\"\)"):
        several.bind({"x": ["sales", "n"]}, NAMESPACE)


def test_alternatives_to_references() -> None:
    maybe = checked(ident(Optional[pd.DataFrame], None), namespace=NAMESPACE)
    assert received(maybe, {"x": None}, NAMESPACE) is None
    assert received(maybe, {"x": "sales"}, NAMESPACE) is FRAME
    either = checked(ident(Union[str, pd.DataFrame, np.ndarray]), namespace=NAMESPACE)
    assert received(either, {"x": "sales"}, NAMESPACE) is FRAME
    assert received(either, {"x": "array"}, NAMESPACE) is NAMESPACE["array"]
    assert received(either, {"x": "a text"}, NAMESPACE) == "a text"
    default = checked(ident(pd.DataFrame, FRAME))
    assert "default" not in properties(default)["x"]
    assert received(default, {}) is FRAME


def test_many_variables_are_not_all_listed() -> None:
    """Those that were defined last are, and those that the user named."""
    namespace = {f"v{i:03}": Engine() for i in range(130)}
    tool = checked(ident(Engine), namespace=namespace, refs=["v000"])
    said = properties(tool)["x"]
    assert said["enum"] == ["v000", *(f"v{i:03}" for i in range(31, 130))]
    assert said["description"] == sentence("Engine", " (30 more cannot be named)")
    with pytest.raises(ArgumentsError):
        tool.bind({"x": "v001"}, namespace)


def test_a_description_stays_beside_the_reference() -> None:
    def f(df: Annotated[pd.DataFrame, "The sales."]) -> None: ...

    said = properties(checked(f, namespace=NAMESPACE))["df"]["description"]
    assert said == "The sales. " + sentence("DataFrame")


# Descriptions.
def test_where_descriptions_come_from() -> None:
    def f(
        a: Annotated[int, "from a"],
        b: Annotated[int, Field(description="from b")],
        c: int,
        d: Annotated[int, typing_extensions.Doc("from d")] | None = None,
        e: int = 1,
    ) -> None:
        """Do.

        Args:
            a: not this
            c: from c
        """

    said = properties(checked(f))
    assert {k: v.get("description") for k, v in said.items()} == {
        "a": "from a",
        "b": "from b",
        "c": "from c",
        "d": "from d",
        "e": None,
    }
    assert checked(f).description == "Do."
    assert checked(f, description="Else.").description == "Else."


def test_where_purposes_come_from() -> None:
    class Tool:
        """A thing."""

        def __init__(self, a: int) -> None:
            """Make it.

            Args:
                a: how much
            """

        def __call__(self, b: int) -> None:
            """Use it."""

    assert checked(Tool).description == "A thing."
    assert properties(checked(Tool))["a"]["description"] == "how much"
    assert checked(Tool(1)).description == "Use it."
    assert checked(functools.partial(Tool(1).__call__, 2)).description == "Use it."
    assert checked(functools.partial(json.dumps, obj=1)).description.startswith("Serialize")
    assert len(checked(add, description="x" * 9000).description) == 4000


# Names.
@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("f", "f"),
        ("model.predict", "model_predict"),
        ("prévoir", "prevoir"),
        ("my tool!", "my_tool_"),
        ("2nd", "_2nd"),
        ("-x", "_-x"),
        ("预测", "tool"),
        ("x" * 70, "x" * 64),
    ],
)
def test_names(given: str, name: str) -> None:
    tool = checked(add, name=given)
    assert tool.name == name
    assert any("renamed" in note for note in tool.notes) == (given != name)


def test_a_lambda_is_called_like_its_variable() -> None:
    assert checked(NAMESPACE["square"], namespace=NAMESPACE).name == "square"


def test_what_cannot_be_called_is_no_tool() -> None:
    with pytest.raises(KimiError, match=r"^3 cannot be called: offer a function"):
        make_tool(3)  # type: ignore[arg-type]


# Schemas written by hand.
WEATHER = {
    "type": "object",
    "required": ["city"],
    "properties": {
        "city": {"type": "string", "description": "Name of the city"},
        "unit": {"type": "string", "enum": ["C", "F"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 7},
        "at": {"type": "array", "items": {"type": "number"}, "maxItems": 2},
        "more": {
            "type": "object",
            "properties": {"a": {"type": ["integer", "null"]}},
            "required": ["a"],
            "additionalProperties": False,
        },
    },
}


def weather(city, unit="C", days=1, at=(), more=None):  # type: ignore[no-untyped-def]
    return city, unit, days, at, more


def test_a_schema_by_hand() -> None:
    tool = checked(weather, schema=WEATHER)
    assert received(tool, {"city": "Beijing"}) == ("Beijing", "C", 1, (), None)
    sent = {"city": "a", "unit": "F", "days": "2", "at": [1, 2.5], "more": {"a": None}}
    assert received(tool, sent) == ("a", "F", 2, [1, 2.5], {"a": None})
    whole = {
        "type": "function",
        "function": {"name": "w", "description": "W.", "parameters": WEATHER},
    }
    tool = checked(weather, schema=whole)
    assert (tool.name, tool.description) == ("w", "W.")
    assert received(tool, {"city": "Beijing"})[0] == "Beijing"


@pytest.mark.parametrize(
    ("sent", "problem"),
    [
        ({}, "city: missing, want a string"),
        ({"city": 3}, "city: got an integer (3), want a string"),
        ({"city": "a", "unit": "K"}, "unit: got a string (\"K\"), want 'C' or 'F'"),
        ({"city": "a", "days": 9}, "days: got an integer (9), want less than or equal to 7"),
        ({"city": "a", "days": True}, "days: got a boolean (true), want an integer"),
        ({"city": "a", "at": [True]}, "at[0]: got a boolean"),
        ({"city": "a", "at": [1, 2, 3]}, "at: got an array"),
        ({"city": "a", "more": {}}, "more.a: missing, want an integer or null"),
        ({"city": "a", "more": {"a": 1, "b": 2}}, "more.b: unknown field"),
        ({"city": "a", "town": 1}, "town: unknown field, want one of city, unit, days, at, more"),
    ],
)
def test_what_does_not_fit_a_schema_by_hand(sent: dict[str, Any], problem: str) -> None:
    with pytest.raises(ArgumentsError) as caught:
        checked(weather, schema=WEATHER).bind(sent, {})
    assert any(p.startswith(problem) for p in caught.value.problems), caught.value.problems


def test_hints_convert_what_a_schema_by_hand_reads() -> None:
    def f(day: dt.date, df: pd.DataFrame, *, n: int = 1, **others: Any) -> Any:
        return day, df, n, others

    schema = {
        "type": "object",
        "properties": {k: {"type": "string"} for k in ("day", "df", "u")},
        "required": ["day", "df"],
    }
    tool = checked(f, schema=schema, namespace=NAMESPACE)
    sent = {"day": "2025-03-01", "df": "sales", "u": "v", "w": 1}
    assert received(tool, sent, NAMESPACE) == (DAY, FRAME, 1, {"u": "v", "w": 1})
    with pytest.raises(ArgumentsError, match=r"day: got a string .*, want a date"):
        tool.bind({"day": "soon", "df": "sales"}, NAMESPACE)
    with pytest.raises(ArgumentsError, match=r"df: got a string .*, want the name of a variable"):
        tool.bind({"day": "2025-03-01", "df": "n"}, NAMESPACE)


def test_places_of_parameters_with_a_schema_by_hand() -> None:
    def f(a: Any, b: Any = SENTINEL, c: Any = 3, /) -> Any:
        return a, b, c

    schema = {"properties": {"a": {}, "c": {"type": "integer"}}, "required": ["a", "c"]}
    assert received(checked(f, schema=schema), {"a": 1, "c": 2}) == (1, SENTINEL, 2)


def test_what_servers_refuse_in_a_schema_by_hand_is_mended() -> None:
    schema = {
        "properties": {
            "city": {"description": "where"},
            "unit": {"type": "string", "anyOf": [{"enum": ["C"]}, {"minLength": 3}]},
            "days": True,
            "at": {"$ref": "#/definitions/at"},
            "more": {"enum": ["a", "b"]},
        },
        "definitions": {"at": {"items": True}},
    }
    tool = checked(weather, schema=schema)
    assert properties(tool)["city"] == {**ANY, "description": "where"}
    assert tool.parameters["$defs"] == {"at": {"type": "array"}}
    sent = {"city": 1, "unit": "C", "days": False, "at": [1], "more": "b"}
    assert received(tool, sent) == (1, "C", False, [1], "b")


def test_a_right_schema_by_hand_is_sent_as_it_is() -> None:
    schema = {
        "type": "object",
        "title": "Weather",
        "properties": {
            "city": {"anyOf": [{"type": "string"}, {"type": "null"}], "title": "City"},
            "unit": {"$ref": "#/$defs/unit"},
            "title": {"type": "string", "const": "a"},
        },
        "required": ["city"],
        "additionalProperties": True,
        "$defs": {"unit": {"type": "string", "enum": ["C"]}},
    }
    assert checked(lambda **keys: keys, schema=schema).parameters == schema


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "array"}, 'must have "type": "object" at its root'),
        ({"properties": {"city": {}, "town": {}}}, "has town, which weather does not take"),
        ({"properties": {"unit": {}}}, "lacks city, which it takes: add a property"),
        ({"properties": {"city": {}}, "required": ["x"]}, "requires x: add it to its properties"),
        ({"properties": {"city": {"$ref": "#/$defs/x"}}}, r"refers to #/\$defs/x, which it lacks"),
        ({"properties": {"city": SENTINEL}}, "is no JSON Schema"),
    ],
)
def test_wrong_schemas_by_hand(schema: dict[str, Any], message: str) -> None:
    with pytest.raises(KimiError, match=message) as caught:
        make_tool(weather, schema=schema)
    assert "\n" not in str(caught.value)


# Properties.
LEAVES: list[Any] = [
    int,
    float,
    str,
    bool,
    type(None),
    dt.date,
    Colour,
    Level,
    Literal["a", 1],
    Any,
]


def keys(a: Any, b: Any) -> Any:
    made = typed_dict("Keys", {"a": a, "b": b}, ["a"])
    made.__pydantic_config__ = pydantic.ConfigDict(extra="forbid")
    return made


hints = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.one_of(
        inner.map(list_of),
        inner.map(dict_of),
        inner.map(lambda h: GenericAlias(tuple, (h, ...))),
        inner.map(Optional.__getitem__),
        st.tuples(inner, inner).map(either),
        st.tuples(inner, inner).map(lambda pair: GenericAlias(tuple, pair)),
        st.tuples(inner, inner).map(lambda pair: keys(pair[0], pair[1])),
    ),
    max_leaves=4,
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["a", "b", "red", "1", "2025-03-01", "true", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(hints, st.lists(values, min_size=1, max_size=8), st.data())
def test_what_a_schema_accepts_arrives_as_pydantic_gives_it(
    hint: Any, some: list[Any], data: st.DataObject
) -> None:
    tool = checked(ident(hint))
    accepts = Draft202012Validator(tool.parameters)
    adapter = pydantic.TypeAdapter(hint)
    for value in some:
        try:
            expected = adapter.validate_json(json.dumps(value))
        except pydantic.ValidationError:
            with pytest.raises(ArgumentsError):
                tool.bind({"x": value}, {})
            continue
        if accepts.is_valid({"x": value}):
            got = received(tool, {"x": value})
            assert repr(got) == repr(expected)


@given(st.dictionaries(st.text(max_size=8) | st.sampled_from(["a", "b", "args"]), values))
def test_arguments_fit_or_are_refused(sent: dict[str, Any]) -> None:
    for tool in (make_tool(rest), make_tool(places), make_tool(odd)):
        try:
            args, kwargs = tool.bind(sent, {})
        except ArgumentsError:
            continue
        tool.function(*args, **kwargs)


def test_what_no_reader_takes_is_refused() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ArgumentsError, match="RecursionError"):
        make_tool(ident(Tree)).bind({"x": deep}, {})

    def picky(value: int) -> int:
        raise ZeroDivisionError("no")

    with pytest.raises(ArgumentsError, match=r"^arguments: ZeroDivisionError: no$"):
        make_tool(ident(Annotated[int, pydantic.AfterValidator(picky)])).bind({"x": 1}, {})


def test_docstrings_are_parsed_only_when_there_is_need() -> None:
    code = """
import sys
from kimi_magic.tools.function_tool import make_tool
def f(a: int):
    "Do it."
make_tool(f)
assert "griffe" not in sys.modules
f.__doc__ = "Do it.\\n\\nArgs:\\n    a: this"
assert make_tool(f).parameters["properties"]["a"]["description"] == "this"
assert "griffe" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# Identity: what makes a function the one that was approved.
EQUAL = [
    "def f(x: int): return x",
    "def f(x, y=1, z='a', w=None, v=(1, 2.5)): return x",
    "def f(*, key=1): return key",
    "def f(x: list[int], y: dict[str, int] | None = None): return x",
    "def f(x: typing.Callable[[int], str]): return x",
    "def f(x: typing.Literal['a', 1], y: typing.Optional[int] = 3): return x",
    "f = lambda x: x + 1",
    "def make(n):\n def f(x): return x + n\n return f\nf = make(3)",
    "def make():\n def f(x): return x and f(x - 1)\n return f\nf = make()",
    "def make():\n def f(x): return later\n return f\n later = 1\nf = make()",
    "def wrap(g):\n @functools.wraps(g)\n def f(*a): return g(*a)\n return f\n"
    "@wrap\ndef f(x, y=2): return x",
    "def g(x, y): return x\nf = functools.partial(g, 1, y=2)",
    "f = box.predict",
    "f = box",
    "f = len",
    "f = text.split",
    "async def f(x): return x",
    "def f(x):\n yield x",
]
# a definition · each of which is another function
REDEFINED = [
    ("def f(x): return x", "def f(x): return -x"),
    ("def f(x): return 1", "def f(x): return True"),
    ("def f(x=1): return x", "def f(x=2): return x"),
    ("def f(x=1): return x", "def f(x): return x"),
    ("def f(x=1): return x", "def f(x=1.0): return x"),
    ("def f(x=1): return x", "def f(x=True): return x"),
    ("def f(x=0.0): return x", "def f(x=-0.0): return x"),
    ("def f(x='a'): return x", "def f(x=b'a'): return x"),
    ("def f(x=(1, 2)): return x", "def f(x=(1, 3)): return x"),
    ("def f(x=['safe']): return x", "def f(x=['all']): return x"),
    ("def f(x=len): return x", "def f(x=max): return x"),
    ("def f(x, y=1): return x", "def f(x=1, y=1): return x"),
    ("def f(*, key='a'): return key", "def f(*, key='b'): return key"),
    ("def f(*, key='a'): return key", "def f(*, key): return key"),
    ("def f(x: int): return x", "def f(x: float): return x"),
    ("def f(x: int): return x", "def f(x): return x"),
    ("def f(x: list[int]): return x", "def f(x: list[str]): return x"),
    ("def f(x: 'int'): return x", "def f(x: 'str'): return x"),
    (
        "def f(x: typing.Annotated[int, max]): return x",
        "def f(x: typing.Annotated[int, min]): return x",
    ),
    (
        "class A: pass\ndef f(x: A): return x",
        "class A: pass\n\ndef f(x: A): return x",
    ),
    (
        "def make(n):\n def f(x): return n\n return f\nf = make(1)",
        "def make(n):\n def f(x): return n\n return f\nf = make(2)",
    ),
    (
        "def make(n):\n def f(x): return n\n return f\nf = make(object())",
        "def make(n):\n def f(x): return n\n return f\nf = make(object())",
    ),
    (
        "def make():\n def f(x): return later\n return f\n later = 1\nf = make()",
        "def make():\n def f(x): return later\n later = 2\n return f\nf = make()",
    ),
    (
        "def make():\n def f(x): return later\n later = None\n return f\nf = make()",
        "def make():\n def f(x): return later\n later = 1\n del later\n return f\nf = make()",
    ),
    (
        "def wrap(g):\n def f(*a): return g(*a)\n return f\n@wrap\ndef f(x, y=2): return x",
        "def wrap(g):\n def f(*a): return g(*a)\n return f\n@wrap\ndef f(x, y=3): return x",
    ),
    (
        "def g(x, y): return x\nf = functools.partial(g, y=1)",
        "def g(x, y): return x\nf = functools.partial(g, y=2)",
    ),
    (
        "def g(x, y): return x\nf = functools.partial(g, 1)",
        "def g(x, y): return x\nf = functools.partial(g, 2)",
    ),
    (
        "def g(x, y): return x\nf = functools.partial(g, 1)",
        "def g(x, y): return y\nf = functools.partial(g, 1)",
    ),
    ("f = box.predict", "f = other_box.predict"),
    ("f = box.predict", "f = type('Sub', (type(box),), {})().predict"),
    ("f = box", "f = other_box"),
    ("f = text.split", "f = text.strip"),
    ("f = text.split", "f = ''.join(['an', 'other']).split"),
    ("f = len", "f = max"),
    ("class f: pass", "class f: pass"),
    ("def f(x): return x", "class f:\n def __init__(self, x): pass"),
    ("def f(x): return x", "async def f(x): return x"),
    ("def f(x): return x", "def f(x):\n yield x"),
]


class Box:
    def predict(self, x: int) -> int:
        return x

    def __call__(self, x: int) -> int:
        return x


CELL = {
    "functools": functools,
    "typing": typing,
    "box": Box(),
    "other_box": Box(),
    "text": "a text",
    "__name__": "__main__",
}


def identities(*sources: str, scope: dict[str, Any] | None = None) -> list[Any]:
    """The identity of the function f after each cell of one notebook, all kept alive."""
    scope = dict(CELL) if scope is None else scope
    found = []
    for source in sources:
        exec(compile(source, "cell", "exec", dont_inherit=True), scope)
        found.append(make_tool(scope["f"]).identity())
        hash(found[-1])
    return found


@pytest.mark.parametrize("source", EQUAL)
def test_a_cell_that_runs_again_defines_the_same_function(source: str) -> None:
    first, second = identities(source, source)
    assert first == second
    assert hash(first) == hash(second)


@pytest.mark.parametrize(("first", "second"), REDEFINED)
def test_a_function_that_is_redefined_is_another(first: str, second: str) -> None:
    one, other = identities(first, second)
    assert one != other


def test_the_same_code_in_another_module_is_another_function() -> None:
    source = "def f(x): return helper(x)"
    (one,), (other,) = identities(source), identities(source, scope=dict(CELL))
    assert one != other


def test_a_function_whose_parts_are_replaced_is_another() -> None:
    def f(x: int = 1, *, y: int = 2) -> int:
        return x + y

    tool, seen = make_tool(f), [make_tool(f).identity()]
    changes: list[tuple[str, Any]] = [
        ("__defaults__", (5,)),
        ("__kwdefaults__", {"y": 5}),
        ("__annotations__", {"x": str}),
        ("__code__", (lambda x=1, *, y=2: x - y).__code__),
    ]
    for name, new in changes:
        setattr(f, name, new)
        assert tool.identity() not in seen
        seen.append(tool.identity())


def test_a_cell_that_is_not_filled_yet_is_no_error() -> None:
    def make() -> tuple[Any, Any]:
        def f(x: int) -> Any:
            return later

        empty = make_tool(f).identity()
        later = x = 1
        return empty, make_tool(f).identity() if x else later

    empty, filled = make()
    assert empty != filled


def test_state_of_a_function_does_not_change_its_identity() -> None:
    log: list[int] = []

    def f(x: int, cache: list[int] = []) -> None:  # noqa: B006
        cache.append(x)
        log.append(x)

    tool = make_tool(f)
    before = tool.identity()
    f(1)
    assert tool.identity() == before


def test_functions_that_refer_to_each_other_have_an_identity() -> None:
    """Each path through many functions must not be walked anew."""

    def make() -> Any:
        functions: list[Any] = []
        names = [f"f{i}" for i in range(12)]
        bodies = "\n".join(f" def {n}(x): return {', '.join(names)}" for n in names)
        scope: dict[str, Any] = {}
        exec(f"def make():\n{bodies}\n return f0", scope)
        functions.append(scope["make"]())
        return functions[0]

    assert len(repr(make_tool(make()).identity())) < 100_000


def test_values_are_not_compared_by_their_own_code() -> None:
    class Sly:
        def __eq__(self, other: object) -> bool:
            raise AssertionError

        def __hash__(self) -> int:
            raise AssertionError

    def make(value: Any) -> Any:
        def f(x: Any = value) -> Any:
            return value

        return f

    sly = Sly()
    assert make_tool(make(sly)).identity() == make_tool(make(sly)).identity()
    assert make_tool(make(sly)).identity() != make_tool(make(Sly())).identity()
    assert make_tool(make(FRAME)).identity() == make_tool(make(FRAME)).identity()
