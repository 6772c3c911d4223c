"""Data shown as a tree or a table."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from kimi_magic.display.html.data import data_html, data_text

TAGS = set("div span details summary table thead tbody tr th td".split())
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
RECORDS = st.lists(st.dictionaries(st.text(), st.text() | st.lists(st.integers()), min_size=1))


class Reader(HTMLParser):
    """What is seen, and whether the elements close in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self.tags: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS
        assert {name for name, _ in attrs} <= {"style", "open", "tabindex"}
        self.tags.append(tag)
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        # MathJax looks for maths in unbroken runs of text.
        assert len(data) == 1 or not set("$\\") & set(data)
        self.text.append(data)


def seen(value: Any) -> str:
    return "".join(Reader(data_html(value)).text)


def test_a_tree_names_what_it_holds() -> None:
    value = {"name": "Ann", "ages": [1, 2.5, None, True], "more": {}}
    assert seen(value).split() == (
        '3 fields name: "Ann" ages: 4 items 0: 1 1: 2.5 2: null 3: true more: {}'.split()
    )
    assert json.loads(data_text(value)) == value


def test_the_first_levels_are_open() -> None:
    html = data_html({"a": {"b": {"c": 1}}})
    assert html.count("<details open>") == 2
    assert html.count("<details>") == 1


def test_records_are_a_table() -> None:
    records = [{"name": "Ann", "tags": ["x", "y"]}, {"name": "Bo\nB", "age": 3}]
    html = data_html(records)
    assert [html.count(f"<{tag}") for tag in ("tr", "th ", "td")] == [3, 3, 6]
    assert "details" not in html
    assert html.count('<td style="text-align:right') == 2, "numbers"
    assert html.count('<th style="text-align:right') == 1
    assert data_text(records).splitlines() == [
        "name | tags       |  age",
        "-----+------------+-----",
        'Ann  | ["x", "y"] | null',
        "Bo B | null       |    3",
    ]


def test_models_are_records() -> None:
    class City(BaseModel):
        name: str
        size: int

    assert data_text([City(name="Rome", size=3)]).splitlines()[-1] == "Rome |    3"
    assert seen(City(name="Rome", size=3)).split() == '2 fields name: "Rome" size: 3'.split()


@pytest.mark.parametrize(
    "value",
    [[], [{}], [1, {"a": 1}], [{"a": {"b": "x" * 300}}], [{str(n): n for n in range(40)}], "x"],
)
def test_what_makes_no_good_table_is_a_tree(value: Any) -> None:
    assert "<table" not in data_html(value)
    assert json.loads(data_text(value)) == value


def test_text_is_escaped_and_its_control_characters_are_visible() -> None:
    text = "<script>alert(1)</script> $x$ \\(y\\) \x1b[31m \u202e"
    for value in ({text: text}, [{text: text}]):
        html = data_html(value)
        assert "<script" not in html
        assert "\x1b" not in html
        assert "\u202e" not in html
        shown = seen(value)
        assert shown.count("<script>alert(1)</script> $x$ \\(y\\) ␛[31m") == 2
        assert "\u202e" not in data_text(value)
        assert "\x1b" not in data_text(value)


def test_much_is_cut_and_counted() -> None:
    assert "… 97,002 more items" in seen({"all": list(range(100_000))})
    assert "… 98,500 more rows" in seen([{"a": n, "b": n} for n in range(100_000)])
    assert data_text([{"a": n} for n in range(1000)]).endswith("\n… 900 more rows")
    assert "… 80,003 more characters" in data_text("x" * 100_001)
    for value in ("x" * 10**6, ["x" * 10**5] * 1000, {"x" * 10**5: 1}, [{"a": "x" * 10**6}] * 9):
        assert len(data_html(value)) < 500_000
        assert len(data_text(value)) < 30_000


@pytest.mark.parametrize("depth", [100, 250, 400, 900])
def test_deep_data_is_cut(depth: int) -> None:
    value: Any = "bottom"
    for _ in range(depth):
        value = [value]
    assert "…" in seen(value) or "too deep" in seen(value)
    assert len(data_text(value)) < 30_000


@given(JSON | RECORDS)
def test_whatever_it_is_the_html_is_whole_and_safe(value: Any) -> None:
    seen(value)
    data_text(value)
