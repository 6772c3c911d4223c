"""JSON in text: arguments of calls are read as they stand, or refused in words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_magic.schema.json_in_text import parse_arguments
from kimi_magic.schema.problems import ArgumentsError

PARAMETERS = {
    "type": "object",
    "properties": {
        "xs": {"type": "array", "items": {"type": "integer"}},
        "rows": {"type": "array", "items": {"$ref": "#/$defs/Row"}},
        "text": {"type": "string"},
        "any": {},
        "either": {"anyOf": [{"type": "string"}, {"type": "array", "items": {}}]},
        "maybe": {"anyOf": [{"$ref": "#/$defs/Row"}, {"type": "null"}]},
        "kinds": {"type": ["array", "null"]},
        "chosen": {"enum": ["[1]"]},
    },
    "required": ["xs"],
    "additionalProperties": {"type": "object", "properties": {}},
    "$defs": {"Row": {"type": "object", "properties": {"a": {"type": "array"}}}},
}

READ: list[tuple[str, dict[str, Any]]] = [
    ("", {}),
    (" \n", {}),
    ("null", {}),
    ("{}", {}),
    ('""', {}),
    ('"null"', {}),
    ('"{}"', {}),
    (json.dumps(json.dumps({"text": "a"})), {"text": "a"}),
    (json.dumps(json.dumps(json.dumps({"text": "a"}))), {"text": "a"}),
    ('{"text": "ü\\u00fc"}', {"text": "üü"}),
    ('{"text": "line\nbreak"}', {"text": "line\nbreak"}),
    ('{"xs": "[1, 2]"}', {"xs": [1, 2]}),
    ('{"xs": "\\"[1]\\""}', {"xs": '"[1]"'}),
    ('{"xs": "{}"}', {"xs": "{}"}),
    ('{"xs": "[1"}', {"xs": "[1"}),
    ('{"xs": "[NaN]"}', {"xs": "[NaN]"}),
    ('{"xs": ["[1]"]}', {"xs": ["[1]"]}),
    ('{"text": "[1]"}', {"text": "[1]"}),
    ('{"any": "[1]"}', {"any": "[1]"}),
    ('{"either": "[1]"}', {"either": "[1]"}),
    ('{"chosen": "[1]"}', {"chosen": "[1]"}),
    ('{"maybe": "{\\"a\\": 1}"}', {"maybe": {"a": 1}}),
    ('{"maybe": "null"}', {"maybe": None}),
    ('{"kinds": "null"}', {"kinds": None}),
    ('{"rows": ["{}", {"a": "[1]"}]}', {"rows": [{}, {"a": [1]}]}),
    ('{"other": "{}"}', {"other": {}}),
    ('{"xs": 3}', {"xs": 3}),
]


@pytest.mark.parametrize(("text", "arguments"), READ, ids=[text for text, _ in READ])
def test_arguments_are_read(text: str, arguments: dict[str, Any]) -> None:
    assert parse_arguments(text, PARAMETERS) == arguments


WANT = 'want one JSON object such as {"xs": …}'
REFUSED = [
    ("[1]", [f"arguments: got an array ([1]), {WANT}"]),
    ("3", [f"arguments: got an integer (3), {WANT}"]),
    ("2.5", [f"arguments: got a number (2.5), {WANT}"]),
    ("true", [f"arguments: got a boolean (true), {WANT}"]),
    (
        '{"xs": [1, 2',
        ["got JSON that is cut off after «{\"xs\": [1, 2» (Expecting ',' delimiter); " + WANT],
    ),
    (
        '{"text": "abc',
        ['got JSON that is cut off after «{"text": "abc» (Unterminated string); ' + WANT],
    ),
    (
        "{xs: 1}",
        ["enclosed in double quotes at character 2, near «{xs: 1}»); " + WANT],
    ),
    ('{"xs": 1} {"xs": 2}', ["Extra data at character 11"]),
    ('"xs=3"', ["near «xs=3»"]),
    ("```json\n{}\n```", ["arguments: got text that is not JSON"]),
    ("\x00\ud800", ["arguments: got text that is not JSON"]),
    ('{"xs": 1, "xs": 2}', ['"xs": got it more than once, want it once']),
    ('{"rows": [{"a": 1, "a": 1}]}', ['"a": got it more than once, want it once']),
    (
        '{"xs": [1, NaN], "any": {"b": -Infinity}, "text": 1e999}',
        [
            "xs[1]: got NaN, want a finite number",
            "any.b: got -Infinity, want a finite number",
            "text: got Infinity, want a finite number",
        ],
    ),
    ("[" * 100_000, [f"arguments: nested too deeply; {WANT}"]),
    ('{"any": ' + '{"a":' * 100_000, [f"arguments: nested too deeply; {WANT}"]),
    ('{"any": ' + "9" * 5000 + "}", ["arguments: got an integer of more than 4,300 digits"]),
    (json.dumps("x" * 10_000), ["near «xxxxxxxxxxxxxxx»"]),
]


@pytest.mark.parametrize(("text", "problems"), REFUSED, ids=[text[:30] for text, _ in REFUSED])
def test_arguments_are_refused_in_words(text: str, problems: list[str]) -> None:
    with pytest.raises(ArgumentsError) as caught:
        parse_arguments(text, PARAMETERS)
    assert len(caught.value.problems) == len(problems)
    for found, wanted in zip(caught.value.problems, problems, strict=True):
        assert wanted in found
        assert len(found) < 250


def test_without_a_schema_any_object_is_read() -> None:
    assert parse_arguments('{"a": "[1]"}') == {"a": "[1]"}
    with pytest.raises(ArgumentsError, match=r"want one JSON object$"):
        parse_arguments("[]")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), JSON))
def test_any_object_is_read_as_it_is(arguments: dict[str, Any]) -> None:
    text = json.dumps(arguments)
    assert parse_arguments(text) == arguments
    assert parse_arguments(json.dumps(text)) == arguments
