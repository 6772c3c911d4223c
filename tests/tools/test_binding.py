"""Arguments of a call: defaults, aliases and names of variables, as the body receives them."""

# ruff: noqa: B008 - a Field as default is meant

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from typing import Annotated, Any, Literal, Optional, TypedDict

import annotated_types as at
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from pydantic import AliasChoices, AliasPath, BaseModel, Field, validate_call

from kimi_magic.schema.problems import ArgumentsError
from kimi_magic.testing import check_request
from kimi_magic.tools.function_tool import FunctionTool, make_tool
from kimi_magic.tools.toolset import Toolset
from kimi_magic.turn.approval import shown_defaults

INT = {"type": "integer"}


def checked(fn: Callable[..., Any], **options: Any) -> FunctionTool:
    """A tool whose schema every server takes."""
    tool = make_tool(fn, **options)
    message = {"role": "user", "content": "x"}
    assert check_request({"model": "m", "messages": [message], "tools": [tool.schema()]}) == []
    return tool


def received(tool: FunctionTool, sent: dict[str, Any], namespace: dict[str, Any]) -> Any:
    return tool.call(tool.bind(sent, namespace))


class Colour(enum.Enum):
    RED = "red"


class Person(BaseModel):
    name: str = Field(alias="n")
    tags: list[str] = Field(default_factory=list)


@dataclasses.dataclass
class Point:
    x: int
    seen: list[int] = dataclasses.field(default_factory=list)


class Keys(TypedDict, total=False):
    a: Annotated[int, Field(gt=0)]


def by_factory(x: list[int] = Field(default_factory=list)) -> Any:
    return x


def by_annotation(x: Annotated[int, Field(default=3)]) -> Any:
    return x


def by_annotated_factory(x: Annotated[list[int], Field(default_factory=lambda: [7])]) -> Any:
    return x


def nested(x: Annotated[Annotated[int, Field(default=4)], Field(gt=2, description="it")]) -> Any:
    return x


def both(x: Annotated[int, Field(gt=2, default=4)] = Field(5, description="it")) -> Any:
    return x


def own_first(x: Annotated[int, Field(default=4)] = 5) -> Any:
    return x


def limited(
    x: Annotated[int, at.Interval(ge=1, le=3)],
    y: Annotated[list[int], at.Len(1, 2)] = Field(default=[1]),
    z: Annotated[int, at.Predicate(lambda v: v % 2 == 0)] = 2,
) -> Any:
    return x, y, z


def after(x: int, y: int = Field(default_factory=lambda before: before["x"] + 1)) -> Any:
    return x, y


def places(x: int, y: Annotated[int, Field(default=3)], z: int = 4, /) -> Any:
    return x, y, z


def alias(x: int = Field(alias="ex")) -> Any:
    return x


def validation_alias(x: Annotated[int, Field(validation_alias=AliasChoices("a", "b"))] = 3) -> Any:
    return x


def path_alias(x: Annotated[int, Field(validation_alias=AliasPath("a", 0))] = 3) -> Any:
    return x


@validate_call
def validated(
    x: Annotated[int, Field(alias="ex")], y: list[int] = Field(default_factory=list)
) -> Any:
    return x, y


def everything(
    person: Person,
    point: Point,
    keys: Keys,
    colour: Colour = Colour.RED,
    which: Literal["a", "b"] = "a",
    maybe: Optional[dict[str, int]] = None,  # noqa: UP045
) -> Any:
    return person.tags, point.seen, keys, colour, which, maybe


# function · its properties · those required · arguments → what the body got, or the problem
DEFAULTS: list[tuple[Any, dict[str, Any], list[str], list[tuple[dict[str, Any], Any]]]] = [
    (by_factory, {"x": {"type": "array", "items": INT, "default": []}}, [],
     [({}, []), ({"x": [1]}, [1])]),
    (by_annotation, {"x": {**INT, "default": 3}}, [], [({}, 3), ({"x": 1}, 1)]),
    (by_annotated_factory, {"x": {"type": "array", "items": INT}}, [], [({}, [7])]),
    (nested, {"x": {**INT, "exclusiveMinimum": 2, "description": "it", "default": 4}}, [],
     [({}, 4), ({"x": 1}, "x: got an integer (1), want greater than 2")]),
    (both, {"x": {**INT, "exclusiveMinimum": 2, "description": "it", "default": 5}}, [],
     [({}, 5), ({"x": 2}, "x: got an integer (2), want greater than 2")]),
    (own_first, {"x": {**INT, "default": 5}}, [], [({}, 5)]),
    (limited, {"x": {**INT, "minimum": 1, "maximum": 3},
               "y": {"type": "array", "items": INT, "minItems": 1, "maxItems": 2, "default": [1]},
               "z": {**INT, "default": 2}}, ["x"],
     [({"x": 1}, (1, [1], 2)), ({"x": 4}, "x: got an integer (4)"),
      ({"x": 1, "z": 3}, "z: got an integer (3)")]),
    (after, {"x": INT, "y": INT}, ["x"], [({"x": 1}, (1, 2)), ({"x": 1, "y": 7}, (1, 7))]),
    (places, {"x": INT, "y": {**INT, "default": 3}, "z": {**INT, "default": 4}}, ["x"],
     [({"x": 1}, (1, 3, 4)), ({"x": 1, "z": 9}, (1, 3, 9))]),
    (alias, {"ex": INT}, ["ex"], [({"ex": 1}, 1), ({"x": 1}, 1), ({}, "ex: missing")]),
    (validation_alias, {"a": {**INT, "default": 3}}, [], [({"a": 1}, 1), ({}, 3)]),
    (path_alias, {"x": {**INT, "default": 3}}, [], [({"x": 1}, 1), ({}, 3)]),
    (validated, {"ex": INT, "y": {"type": "array", "items": INT, "default": []}}, ["ex"],
     [({"ex": 1}, (1, [])), ({"ex": 1, "y": [2]}, (1, [2]))]),
]  # fmt: skip


@pytest.mark.parametrize(("fn", "said", "required", "calls"), DEFAULTS)
def test_defaults_as_pydantic_understands_them(
    fn: Any, said: dict[str, Any], required: list[str], calls: list[tuple[dict[str, Any], Any]]
) -> None:
    tool = checked(fn)
    assert tool.parameters["properties"] == said
    assert tool.parameters.get("required", []) == required
    for sent, expected in calls:
        if isinstance(expected, str):
            with pytest.raises(ArgumentsError) as caught:
                tool.bind(sent, {})
            assert any(problem.startswith(expected) for problem in caught.value.problems)
        else:
            assert received(tool, sent, {}) == expected


def test_a_default_is_made_for_each_call() -> None:
    def keep(x: list[int] = Field(default=[]), y: Any = Field(default_factory=object)) -> Any:
        x.append(1)
        return x, y

    tool = checked(keep)
    (first, one), (second, other) = (received(tool, {}, {}) for _ in "12")
    assert first == second == [1]
    assert one is not other
    shown = shown_defaults(tool, {})
    assert shown["x"] == "[]"
    assert "made anew for each call by object()" in shown["y"], "to whom is asked to approve"


def test_a_default_that_fails_runs_nothing() -> None:
    def f(x: int = Field(default_factory=lambda: 1 // 0)) -> Any:
        raise AssertionError

    with pytest.raises(ArgumentsError, match="ZeroDivisionError"):
        checked(f).bind({}, {})


def test_types_that_pydantic_reads_are_parameters() -> None:
    tool = checked(everything)
    sent = {"person": {"n": "A"}, "point": {"x": 1}, "keys": {"a": 1}}
    assert received(tool, sent, {}) == ([], [], {"a": 1}, Colour.RED, "a", None)
    with pytest.raises(ArgumentsError, match=r"keys\.a: got an integer \(0\)"):
        tool.bind({**sent, "keys": {"a": 0}}, {})


@pytest.mark.parametrize(
    ("sent", "problem"),
    [
        ({"maybe": ""}, 'maybe: got a string (""), want an object, or leave maybe out'),
        ({"which": None}, "which: got null, want 'a' or 'b', or leave which out"),
        ({"keys": {"a": ""}}, "or leave a out"),
        ({"point": ""}, 'point: got a string (""), want an object'),
        ({"maybe": "sales"}, "sales is a variable, but its name is not taken here"),
    ],
)
def test_the_model_is_told_what_to_do_instead(sent: dict[str, Any], problem: str) -> None:
    needed = {"person": {"n": "A"}, "point": {"x": 1}, "keys": {}}
    with pytest.raises(ArgumentsError) as caught:
        checked(everything).bind(needed | sent, {"sales": 3})
    (found,) = caught.value.problems
    assert problem in found
    assert ("leave" in found) == ("leave" in problem)


# Names of variables where a value may be sent as well.
FRAME, ARRAY, WORDS = pd.DataFrame({"a": [1, 2]}), np.arange(3), ["x", "y"]
SPACE: dict[str, Any] = {
    "__name__": "__main__",
    "df": FRAME,
    "arr": ARRAY,
    "words": WORDS,
    "engine": type("Engine", (), {})(),
    "n": 3,
    "word": "a text",
    "np": np,
    "mean": np.mean,
    "_df": FRAME,
}
ARRAYS, DATA = ["arr", "df", "words"], ["arr", "df", "engine", "words"]


SOURCE = """
def bare(x): return x
def maybe(x=None): return x
def listed(x=[]): return x
def number(x=3): return x
def text(x="a"): return x
def any_hint(x: Any): return x
def str_hint(x: str): return x
def floats(x: list[float]): return x
def array_hint(x: npt.ArrayLike): return x
def frame_hint(x: pd.DataFrame): return x
def unresolved(x: "AnyArrayLike | None"): return x
def strange(x: "Strange"): return x
"""
ONE: dict[str, Any] = {"Any": Any, "npt": npt, "pd": pd}
exec(compile(SOURCE, "cell", "exec", dont_inherit=True), ONE)


def documented(name: str, kind: str, style: str = "numpy") -> Any:
    """The function with a docstring that gives its parameter a type."""
    fn = ONE[name]
    made = type(fn)(fn.__code__, fn.__globals__, name, fn.__defaults__)
    made.__annotations__ = dict(fn.__annotations__)
    made.__doc__ = {
        "numpy": f"Do.\n\nParameters\n----------\nx : {kind}\n    It.",
        "google": f"Do.\n\nArgs:\n    x ({kind}): It.",
        "sphinx": f"Do.\n\n:param x: It.\n:type x: {kind}",
    }[style]
    return made


SKLEARN = "{array-like, sparse matrix} of shape (n_samples, n_features)"
# a function · the names that its schema lists
NAMED: list[tuple[Any, list[str]]] = [
    (ONE["bare"], DATA),
    (ONE["maybe"], DATA),
    (ONE["listed"], DATA),
    (ONE["number"], []),
    (ONE["text"], []),
    (ONE["any_hint"], []),
    (ONE["str_hint"], []),
    (ONE["floats"], []),
    (ONE["array_hint"], ARRAYS),
    (ONE["frame_hint"], ["df"]),
    (ONE["unresolved"], ARRAYS),
    (ONE["strange"], []),
    (documented("bare", SKLEARN), ARRAYS),
    (documented("bare", "array_like, optional"), ARRAYS),
    (documented("bare", "ndarray or DataFrame", "google"), ARRAYS),
    (documented("bare", "array-like", "sphinx"), ARRAYS),
    (documented("bare", "int or tuple of ints"), []),
    (documented("bare", "label or list, or array-like"), []),
    (documented("any_hint", "array-like"), ARRAYS),
    (documented("floats", "array-like"), ARRAYS),
    (documented("number", "array_like, default 1"), ARRAYS),
    (documented("str_hint", "array-like"), []),
    (documented("frame_hint", "array-like"), ["df"]),
    (documented("strange", "array-like"), ARRAYS),
]  # fmt: skip


def names_in(node: Any, root: dict[str, Any]) -> list[str]:
    """The names that the schema of a parameter lists."""
    for branch in node.get("anyOf", [node]):
        if "$ref" in branch:
            branch = root["$defs"][branch["$ref"].rpartition("/")[2]]  # noqa: PLW2901
        if "variable" in branch.get("description", ""):
            return list(branch.get("enum", ()))
    return []


NAMED_IDS = [f"{fn.__name__}-{i}" for i, (fn, _) in enumerate(NAMED)]


@pytest.mark.parametrize(("fn", "names"), NAMED, ids=NAMED_IDS)
def test_names_stand_for_values(fn: Any, names: list[str]) -> None:
    tool = checked(fn, namespace=SPACE)
    assert names_in(tool.parameters["properties"]["x"], tool.parameters) == names
    for name in names:
        assert received(tool, {"x": name}, SPACE) is SPACE[name]
    checked(fn)  # without any variable


@pytest.mark.parametrize("name", ["bare", "maybe", "any_hint", "array_hint", "unresolved"])
def test_what_is_no_name_is_a_value(name: str) -> None:
    tool = checked(ONE[name], namespace=SPACE)
    texts = ("n", "word", "np", "mean", "_df", "df.a", "a b", "")
    for value in (*texts, 3, True, None, [1], {"a": 1}):
        assert received(tool, {"x": value}, SPACE) == value


def test_a_hint_holds_for_what_is_no_name() -> None:
    tool = checked(documented("floats", "array-like"), namespace=SPACE)
    assert received(tool, {"x": [1, 2]}, SPACE) == [1.0, 2.0]
    with pytest.raises(ArgumentsError, match="holds array-like data: arr, df, words or an array"):
        tool.bind({"x": "n"}, SPACE)


def test_several_parameters_share_one_list_of_names() -> None:
    def f(a, b=None, *rest, **others):  # type: ignore[no-untyped-def]
        return a, b, rest, others

    tool = checked(f, namespace=SPACE)
    assert list(tool.parameters["$defs"]) == ["data"]
    assert tool.parameters["$defs"]["data"]["enum"] == DATA
    got = received(tool, {"a": "df", "rest": ["arr", 1], "others": {"c": "words"}, "d": "n"}, SPACE)
    assert got[0] is FRAME
    assert got[2][0] is ARRAY
    assert got[3] == {"c": WORDS, "d": "n"}
    nothing = checked(f, namespace={}).parameters
    assert "$defs" not in nothing
    assert "items" not in nothing["properties"]["rest"]


def test_parameters_may_have_the_names_of_keywords() -> None:
    def f(items, properties, enum, default=None):  # type: ignore[no-untyped-def]
        return items, properties, enum, default

    for space in ({}, SPACE):
        tool = checked(f, namespace=space)
        assert list(tool.parameters["properties"]) == ["items", "properties", "enum", "default"]
        assert tool.parameters["required"] == ["items", "properties", "enum"]


def test_a_variable_that_was_not_listed_is_not_a_text() -> None:
    space = dict(SPACE)
    tool = make_tool(ONE["bare"], namespace=space)
    space["late"] = FRAME
    with pytest.raises(ArgumentsError, match=r"x: got .*holds data: .* \(late was not listed\)"):
        tool.bind({"x": "late"}, space)
    space["df"] = 3
    with pytest.raises(ArgumentsError, match=r"\(df holds none any more\)"):
        tool.bind({"x": "df"}, space)


def test_a_library_function_works_on_live_data() -> None:
    mean = checked(np.mean, namespace=SPACE)
    assert received(mean, {"a": "arr"}, SPACE) == 1.0
    merge = checked(FRAME.merge, namespace=SPACE)
    assert list(received(merge, {"right": "df", "on": "a"}, SPACE)) == ["a"]
    concat = checked(pd.concat, namespace=SPACE)
    assert len(received(concat, {"objs": ["df", "df"]}, SPACE)) == 4


# A part of the parameters.
def part(a: int, b: int = 2, *args: int, c: int = 3, **others: int) -> Any:
    return a, b, args, c, others


@pytest.mark.parametrize(
    ("params", "offered", "sent", "expected"),
    [
        (["a"], ["a"], {"a": 1}, (1, 2, (), 3, {})),
        (["c", "a"], ["a", "c"], {"a": 1, "c": 9}, (1, 2, (), 9, {})),
        ("a, others", ["a", "others"], {"a": 1, "d": 4}, (1, 2, (), 3, {"d": 4})),
        (("a", "args"), ["a", "args"], {"a": 1, "args": [5]}, (1, 2, (5,), 3, {})),
        (["a"], ["a"], {"a": 1, "b": 5}, "b: unknown field, want one of a"),
    ],
)
def test_a_part_of_the_parameters(
    params: Any, offered: list[str], sent: Any, expected: Any
) -> None:
    tool = checked(part, params=params)
    assert list(tool.parameters["properties"]) == offered
    if isinstance(expected, str):
        with pytest.raises(ArgumentsError, match=expected):
            tool.bind(sent, {})
    else:
        assert received(tool, sent, {}) == expected
    assert shown_defaults(tool, {"a": 1})["b"] == "2", "a person who approves sees what is fixed"


def test_another_part_is_another_tool() -> None:
    assert make_tool(part, params=["a"]).identity() == make_tool(part, params=["a"]).identity()
    assert make_tool(part, params=["a"]).identity() != make_tool(part, params=["a", "b"]).identity()
    assert make_tool(part, params=["a"]).identity() != make_tool(part).identity()


def test_a_part_of_a_schema_by_hand() -> None:
    schema = {"properties": {"a": INT, "b": INT, "c": INT}, "required": ["a"]}
    tool = checked(part, schema=schema, params=["a", "c"])
    assert list(tool.parameters["properties"]) == ["a", "c"]
    assert received(tool, {"a": 1, "c": 5}, {}) == (1, 2, (), 5, {})


def test_a_list_that_was_encoded_twice_is_decoded_where_names_may_stand() -> None:
    tools = Toolset([documented("floats", "array-like")], namespace=SPACE)
    assert tools.call("floats", '{"x": "[1, 2]"}').value == [1.0, 2.0]
    assert tools.call("floats", '{"x": "arr"}').value is ARRAY


def test_one_constraint_that_pydantic_does_not_read_spoils_no_other() -> None:
    unread = at.Timezone(tz=None)

    def f(x: Annotated[int, at.Gt(2), unread, Field(lt=5)]) -> Any:
        return x

    said = checked(f).parameters["properties"]["x"]
    assert said == {**INT, "exclusiveMinimum": 2, "exclusiveMaximum": 5}
