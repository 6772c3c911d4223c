"""Hints for pydantic: what is translated, what is passed by reference, what is refused."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator
from typing import Any, NotRequired, Required

import pydantic
import pytest

from kimi_magic.schema.output import output_schema
from kimi_magic.schema.references import Listing, Variables
from kimi_magic.schema.type_hints import HintTranslator, keys_of, with_names


class Metres(float):
    pass


class Inner(typing.TypedDict):
    n: int


class Keys(typing.TypedDict, total=False):
    a: Required[int]
    b: str
    c: NotRequired[list[Inner]]


class Engine:
    pass


TRANSLATED = [
    (Metres, 3, Metres(3)),
    (Keys, {"a": 1, "c": [{"n": 2}]}, {"a": 1, "c": [{"n": 2}]}),
    (dict[str, Inner | None], {"x": {"n": 1}, "y": None}, {"x": {"n": 1}, "y": None}),
    (tuple[Inner, ...], [{"n": 1}], ({"n": 1},)),
]


@pytest.mark.parametrize(("hint", "sent", "value"), TRANSLATED, ids=str)
def test_one_translation_serves_tools_and_answers(hint: Any, sent: Any, value: Any) -> None:
    adapter = pydantic.TypeAdapter(HintTranslator().translate(hint))
    answer = output_schema(hint)
    for read in (adapter.validate_python(sent), answer._check(sent)):
        assert read == value
        assert type(read) is type(value)


@pytest.mark.parametrize("hint", [Engine, list[Engine], Callable[[int], int], Engine | int])
def test_what_json_cannot_carry_is_passed_by_reference_or_refused(hint: Any) -> None:
    by_name = HintTranslator()
    by_name.translate(hint)
    assert len(by_name.references) == 1
    with pytest.raises(TypeError):
        HintTranslator(by_reference=False).translate(hint)


def test_a_parameter_that_cannot_be_read_takes_any_value() -> None:
    translator = HintTranslator()
    assert translator.parameter("no hint", "x") is Any
    assert translator.parameter(Iterator[Engine], "y") is not Any
    assert translator.notes == [
        "x: its hint 'no hint' fits no JSON, any value goes",
        "y: JSON carries no Engine, offered by a variable's name",
    ]


def test_keys_with_and_without_marks() -> None:
    assert {name: required for name, (_, required) in keys_of(Keys).items()} == {
        "a": True,
        "b": False,
        "c": False,
    }


def test_names_are_written_into_a_copy() -> None:
    translator = HintTranslator()
    schema = pydantic.TypeAdapter(translator.translate(list[Engine])).json_schema()
    variables = Variables({"engine": Engine(), "n": 1})
    listing = Listing.of(translator.references, variables)
    filled = with_names(schema, translator.references, listing)
    assert filled["items"]["enum"] == ["engine"]
    assert "description" not in schema["items"]
