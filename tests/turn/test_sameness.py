"""Answers that users keep are found again by a later version."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kimi_magic.batch.prompts import row_prompt
from kimi_magic.batch.questions import Questions, row_key
from kimi_magic.lab.sweep_journal import mark_of
from kimi_magic.session import Session
from kimi_magic.turn.request import make_request

ENDPOINT = "http://127.0.0.1:9/v1"
PROMPT = "Hi {{ value }}"


@pytest.mark.parametrize(
    ("given", "marks"),
    [
        ({}, "91158a53 354f5379 157104c2 950c76ca"),
        (
            {"seed": 4, "stop": ["a"], "temperature": 0.5, "system": "S"},
            "04f03791 d804b539 90940f25 c43d7d8c",
        ),
        ({"heavy": 3, "judge": "kimi-k3"}, "fe202f4f 4e8123d3 fa3b2911 e7a835ee"),
        ({"schema": "a int, b"}, "20532003 1dbb60cc c2a300b3 a08def9d"),
    ],
)
def test_the_keys_of_kept_answers_stay(session: Session, given: dict[str, Any], marks: str) -> None:
    """A map's file, its rows by prompt and by key, and the row of a sweep, in 1.0 and since."""
    request = make_request(PROMPT, endpoint=ENDPOINT, model="kimi-k2-thinking", **given)
    turn = session.prepare(replace(request, no_history=True), ask_for_key=False)
    fill, row = row_prompt(PROMPT, tokens=99), {"value": "Zürich"}
    by_prompt = Questions(turn, PROMPT, fill, None)
    by_key = Questions(turn, PROMPT, fill, row_key("value"))
    keys = by_prompt.mark, by_prompt.key(row, fill(row)), by_key.key(row, ""), mark_of(turn)
    assert " ".join(key[:8] for key in keys) == marks
