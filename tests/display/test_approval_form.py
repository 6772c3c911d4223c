"""The form in which a call is approved."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_magic.display.live.approval_form import about_call, as_fields, read_answer

ARGUMENTS = {"region": "north\nor south", "amount": 130, "options": {"fast": True}}


def fits(_: dict[str, Any]) -> str:
    return ""


def said(say: str = "once", **changed: str) -> dict[str, Any]:
    fields = {name: text for name, text, _ in as_fields(ARGUMENTS)} | changed
    return {"say": say, "fields": list(fields.values())}


def test_texts_stand_as_they_are_and_the_rest_as_json() -> None:
    assert as_fields(ARGUMENTS) == [
        ("region", "north\nor south", True),
        ("amount", "130", True),
        ("options", '{"fast": true}', True),
    ]


@pytest.mark.parametrize("say", ["once", "chat", "no"])
def test_an_answer_without_changes(say: str) -> None:
    assert read_answer(said(say), ARGUMENTS, fits) == (say, "")


def test_changed_arguments_keep_their_kind() -> None:
    changed, wrong = read_answer(said("chat", region="07", amount="50"), ARGUMENTS, fits)
    assert changed == ARGUMENTS | {"region": "07", "amount": 50}
    assert wrong == ""


def test_what_does_not_fit_is_said() -> None:
    assert "amount" in read_answer(said(amount="lots"), ARGUMENTS, fits)[1]
    problem = read_answer(said(amount="-1"), ARGUMENTS, lambda new: f"{new['amount']} is negative")
    assert problem[1] == "-1 is negative"
    assert read_answer(said("no", amount="lots"), ARGUMENTS, fits) == ("no", "")


@pytest.mark.parametrize(("before", "typed", "after"), [(1, "true", True), (False, "0", 0)])
def test_an_edit_to_what_python_takes_for_equal_is_an_edit(
    before: Any, typed: str, after: Any
) -> None:
    answer, _ = read_answer({"say": "chat", "fields": [typed]}, {"n": before}, fits)
    assert isinstance(answer, dict)
    assert answer["n"] is after


VALUES = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers())
FIELDS = VALUES | st.lists(st.text() | st.none())


@given(st.dictionaries(st.text(), VALUES), st.text() | st.just("once") | st.none(), FIELDS)
def test_no_message_from_the_page_breaks_it(
    arguments: dict[str, Any], say: Any, fields: Any
) -> None:
    answer, _ = read_answer({"say": say, "fields": fields}, arguments, fits)
    assert answer in ("once", "chat", "no") or isinstance(answer, dict)


def test_the_kinds_of_fields_and_the_types() -> None:
    properties = {
        "fast": {"type": "boolean"},
        "amount": {"type": "integer"},
        "rate": {"type": "number"},
        "either": {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
        "regions": {"type": "array", "items": {"type": "string"}},
        "size": {"enum": ["s", "m\n"]},
        "point": {"$ref": "#/$defs/Point"},
        "code": {"type": "string"},
    }
    values: tuple[Any, ...] = (True, 2, 0.5, True, ["n"], "s", {}, "x = 1")
    arguments = dict(zip(properties, values, strict=True)) | {"unknown": 1}
    about = about_call(arguments, {"properties": properties}, {"code": "python"}, " Order.\u202e ")
    assert about["description"] == "Order.⟨U+202E⟩"
    assert [(trait["kind"], trait["type"]) for trait in about["traits"]] == [
        ("bool", "bool"),
        ("int", "int"),
        ("float", "float"),
        ("", "bool | None"),
        ("", "list[str]"),
        ("", "'s' | 'm\\n'"),
        ("", "Point"),
        ("code", "str"),
        ("", ""),
    ]
    html = about["traits"][7]["html"]
    assert re.sub("<[^>]*>", "", html) == "x = 1"
    assert "<span" in html


@given(
    st.recursive(
        st.none() | st.text() | st.integers(),
        lambda t: (
            st.lists(t)
            | st.dictionaries(
                st.sampled_from(["type", "anyOf", "items", "enum", "$ref", "properties", "x"]), t
            )
        ),
    )
)
def test_a_schema_of_any_shape(node: Any) -> None:
    about = about_call({"x": 1}, {"properties": {"x": node}}, {}, "")
    assert about["traits"][0]["kind"] in ("", "int", "float")
