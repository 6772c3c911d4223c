"""Summaries as a model reads them, one file for each object.

``UPDATE_SUMMARIES=1 pytest tests/context/test_golden_summaries.py`` writes `tests/summaries/` anew.
The objects are in `tests/context/golden/`.
"""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path

import pytest

from kimi_magic.chats.context_window import CHARS_PER_TOKEN
from kimi_magic.context.summaries.detail import Detail, Summary
from kimi_magic.context.summaries.summary import summary_of
from tests.context.golden import all_cases

FILES = Path(__file__).parent.parent / "summaries"
CASES = all_cases()
DETAILS = [Detail(values) for values in ("rows", "figures", "schema")]
MOST_TOKENS = 400  # for what shows no rows of data


def summaries(value: object) -> dict[str, Summary]:
    return {detail.values: summary_of(value, detail=detail) for detail in DETAILS}


def written(texts: dict[str, str]) -> str:
    """Write the texts under titles with their sizes, equal ones once."""
    titles: dict[str, list[str]] = {}
    for values, text in texts.items():
        titles.setdefault(text, []).append(values)
    return "\n\n".join(
        f"## {', '.join(names)} ({-(-len(text) // CHARS_PER_TOKEN)} tokens)\n{text}"
        for text, names in titles.items()
    )


@pytest.mark.parametrize("name", CASES)
def test_a_summary_is_as_it_was_read_and_approved(name: str) -> None:
    """Nothing is printed or warned of, and the same object reads the same again."""
    value = CASES[name].make()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        found = summaries(value)
        again = summaries(value)
    assert not [str(warning.message) for warning in warned]
    assert found == again
    texts = {values: summary.text for values, summary in found.items()}
    if not found["rows"].shown:
        assert max(map(len, texts.values())) <= MOST_TOKENS * CHARS_PER_TOKEN
    path = FILES / f"{name}.txt"
    text = written(texts) + "\n"
    if os.environ.get("UPDATE_SUMMARIES"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), f"see the docstring to renew {path.name}"


@pytest.mark.parametrize("name", CASES)
def test_no_value_is_in_a_summary_without_values(name: str) -> None:
    """Nor is a text in one with figures."""
    case = CASES[name]
    found = summaries(case.make())
    for value in case.values.split():
        whole = re.compile(rf"(?<!\w){re.escape(value)}(?!\w)")
        assert not whole.search(found["schema"].text), value
        if not re.fullmatch(r"[\d.,-]+", value):
            assert not whole.search(found["figures"].text), value


def test_every_file_belongs_to_an_object() -> None:
    assert {path.stem for path in FILES.iterdir()} == set(CASES)
