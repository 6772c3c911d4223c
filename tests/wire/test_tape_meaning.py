"""The meaning of a request: what does not matter does not, and a difference is shown."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_magic.wire.tape_meaning import (
    cue_of,
    difference,
    fingerprint,
    frame_of,
    likeness,
    meaning_of,
)

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather\n    of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
BODY: dict[str, Any] = {
    "model": "kimi-k2-thinking",
    "messages": [
        {"role": "system", "content": "You are Kimi."},
        {"role": "user", "content": "Is it  warm?"},
        {
            "role": "assistant",
            "reasoning_content": "I look.",
            "tool_calls": [
                {
                    "id": "functions.weather:0",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city": "Rome", "n": 1}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "functions.weather:0", "content": "24 °C"},
    ],
    "tools": [WEATHER],
    "temperature": 1.0,
    "stream": True,
    "stream_options": {"include_usage": True},
}


def changed(*path: Any, to: Any) -> dict[str, Any]:
    body = deepcopy(BODY)
    place: Any = body
    for name in path[:-1]:
        place = place[name]
    if to is None:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return body


def other_ids() -> dict[str, Any]:
    body: dict[str, Any] = json.loads(json.dumps(BODY).replace("functions.weather:0", "call_8fe2"))
    return body


CALL = ("messages", 2, "tool_calls", 0, "function", "arguments")
DESCRIPTION = ("tools", 0, "function", "description")


@pytest.mark.parametrize(
    "body",
    [
        json.loads(json.dumps(BODY, sort_keys=True)),
        changed("stream", to=False),
        changed("stream_options", to=None),
        changed("temperature", to=1),
        changed(*CALL, to='{"n":1,"city":"Rome"}'),
        changed(*DESCRIPTION, to="The weather of a city."),
        other_ids(),
    ],
    ids=["key order", "stream", "stream options", "1.0", "arguments", "white space", "ids"],
)
def test_what_does_not_matter(body: dict[str, Any]) -> None:
    assert fingerprint(meaning_of(body, "lab")) == fingerprint(meaning_of(BODY, "lab"))


@pytest.mark.parametrize(
    "body",
    [
        changed("model", to="kimi-k3"),
        changed("temperature", to=0.6),
        changed("messages", 1, "content", to="Is it warm?"),
        changed("messages", 3, "content", to="25 °C"),
        changed(*CALL, to='{"city": "Oslo", "n": 1}'),
        changed("tools", to=[]),
        changed("seed", to=1),
    ],
)
def test_what_matters(body: dict[str, Any]) -> None:
    assert fingerprint(meaning_of(body, "lab")) != fingerprint(meaning_of(BODY, "lab"))
    assert fingerprint(meaning_of(BODY, "vllm")) != fingerprint(meaning_of(BODY, "lab"))


def test_an_address_is_no_kind() -> None:
    first, second = ("http://127.0.0.1:8001/v1", "http://127.0.0.1:8002/v1")
    assert meaning_of(BODY, first) == meaning_of(BODY, second)


def test_a_picture_is_named_by_its_hash() -> None:
    url = f"data:image/png;base64,{'A' * 4000}"
    part = {"type": "image_url", "image_url": {"url": url}}
    meaning = meaning_of(changed("messages", 1, "content", to=[part]), "lab")
    assert len(json.dumps(meaning)) < 1500
    other = changed("messages", 1, "content", to=[{**part, "image_url": {"url": f"{url}B"}}])
    assert meaning != meaning_of(other, "lab")


def test_a_meaning_comes_back_from_a_tape() -> None:
    meaning = meaning_of(BODY, "lab")
    assert fingerprint(json.loads(json.dumps(meaning))) == fingerprint(meaning)


@given(st.recursive(st.none() | st.booleans() | st.text() | st.integers(), st.lists, max_leaves=5))
def test_any_body_has_a_meaning(value: Any) -> None:
    for name in ("messages", "tools", "response_format", "model"):
        meaning = meaning_of({"model": "m", name: value}, "lab")
        frame_of(meaning)
        difference(meaning, meaning_of(BODY, "lab"))
        assert 0 <= likeness(meaning, meaning_of(BODY, "lab")) <= 1


def test_the_frame_is_all_but_the_conversation() -> None:
    frame = frame_of(meaning_of(BODY, "lab"))
    for body in (
        changed("messages", 3, "content", to="25 °C"),
        changed("messages", 1, "content", to="Else?"),
        changed(*DESCRIPTION, to="Other words."),
    ):
        assert frame_of(meaning_of(body, "lab")) == frame
    for body in (
        changed("temperature", to=0.1),
        changed("messages", 0, "content", to="You are a pirate."),
        changed("tools", to=[]),
        changed("response_format", to={"type": "json_object"}),
    ):
        assert frame_of(meaning_of(body, "lab")) != frame


def test_a_difference_is_shown_where_it_is() -> None:
    asked = changed("messages", 3, "content", to="25 °C")
    asked["temperature"] = 0.6
    asked["model"] = "kimi-k3"
    assert difference(meaning_of(BODY, "lab"), meaning_of(asked, "lab")) == [
        "model:",
        "  - kimi-k2-thinking",
        "  + kimi-k3",
        "message 4 (tool):",
        "  - 24 °C",
        "  + 25 °C",
        "and 1 other place.",
    ]
    long = "word " * 500
    (name, before, after) = difference(
        {"messages": [{"role": "user", "content": f"{long}March{long}"}]},
        {"messages": [{"role": "user", "content": f"{long}May{long}"}]},
    )
    assert name == "message 1 (user):"
    assert before.startswith("  - …")
    assert "March" in before
    assert "May" in after
    assert len(before) < 100


def test_a_cue_has_the_calls_in_any_form() -> None:
    one = cue_of(" Why?\n", 2, [("f", '{"a": 1, "b": 2}')])
    assert one == cue_of("Why?", 2, [("f", '{"b":2,"a":1}')])
    assert one == {
        "prompt": "Why?",
        "step": 2,
        "calls": [{"name": "f", "arguments": {"a": 1, "b": 2}}],
    }
    assert cue_of("Why?", 2, [("f", "{}")]) != one
    assert cue_of("Why?", 1, []) != cue_of("Why?", 1, [], "aggregation")
