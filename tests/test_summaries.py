"""One value as bounded text for a model."""

from __future__ import annotations

import importlib
from collections import deque
from typing import Any

import pytest

from kimi_magic.context import bounded_repr, cut, summarize

np: Any = importlib.import_module("numpy")
pd: Any = importlib.import_module("pandas")


class SaysItself:
    def _repr_llm_(self) -> str:
        return "seventeen parts"


class SaysNothing:
    def _repr_llm_(self) -> None:
        return None

    def __repr__(self) -> str:
        return "SaysNothing()"


class FailsToSay:
    def _repr_llm_(self) -> str:
        raise RuntimeError("no")

    def __repr__(self) -> str:
        return "FailsToSay()"


class AnswersToAnything:
    def __getattr__(self, name: str) -> Any:
        return lambda: name

    def __repr__(self) -> str:
        return "a proxy"


class Broken:
    def __repr__(self) -> str:
        raise SystemExit(1)


class Endless:
    def __repr__(self) -> str:
        return repr(self)


TABLE = pd.DataFrame({"region": ["north", "south"] * 60, "sales": range(120)})

SUMMARIES = [
    ("a text", "a text"),
    (3.5, "3.5"),
    (None, "None"),
    (SaysItself(), "seventeen parts"),
    (SaysItself, "<class 'tests.test_summaries.SaysItself'>"),
    (SaysNothing(), "SaysNothing()"),
    (FailsToSay(), "FailsToSay()"),
    (AnswersToAnything(), "a proxy"),
    (Broken(), "<Broken object; its repr raises SystemExit>"),
    ([Endless()], "[<Endless object; its repr raises RecursionError>]"),
    (object(), "<object object>"),
    ({"a": [(1,), set()], "b": deque([1])}, "{'a': [(1,), set()], 'b': deque([1])}"),
    (frozenset({1}), "frozenset({1})"),
    (10**6000, "<an integer of 19,932 bits>"),
    (pd.DataFrame(), "DataFrame, 0 rows × 0 columns"),
    (pd.Series([1, 2], name="n"), "Series n, 2 rows, dtype int64\n0  1\n1  2"),
    (np.array([1.0, np.nan]), "ndarray, shape (2,), dtype float64, from 1.0 to 1.0, 1 not finite"),
    (np.array([], dtype=int), "ndarray, shape (0,), dtype int64\n[]"),
    (np.array(3), "ndarray, shape (), dtype int64, from 3 to 3\n3"),
    (np.array(["2024-01-01", "NaT"], dtype="M8[D]"), "from 2024-01-01 to 2024-01-01, 1 NaT"),
    (np.arange(10_000).reshape(100, 100), "corner (4, 4):\n[[  0   1   2   3]"),
    (np.array([{}, None]), "ndarray, shape (2,), dtype object\n[{} None]"),
]


@pytest.mark.parametrize(("value", "text"), SUMMARIES, ids=[str(i) for i in range(len(SUMMARIES))])
def test_summaries(value: object, text: str) -> None:
    found = summarize(value)
    assert found == text or (text in found and type(value).__module__ in {"numpy", "pandas"})


def test_a_frame_is_its_shape_its_dtypes_and_its_head() -> None:
    lines = summarize(TABLE).splitlines()
    assert lines[0] == "DataFrame, 120 rows × 2 columns"
    assert lines[1].startswith("columns: region (")
    assert lines[1].endswith("), sales (int64)")
    assert lines[3].split() == ["0", "north", "0"]
    assert lines[-1] == "… 110 more rows"
    assert "index: region" in summarize(TABLE.set_index("region"))


def test_less_room_shows_fewer_rows() -> None:
    assert summarize(TABLE, tokens=50).endswith("… 115 more rows")


def test_a_wide_frame_names_the_first_columns() -> None:
    assert ", … 940 more\n" in summarize(pd.DataFrame(np.zeros((3, 1000))))


def test_a_frame_whose_cells_cannot_be_shown_is_no_crash() -> None:
    assert summarize(pd.DataFrame({"a": [FailsToSay(), Broken()]})).startswith("<DataFrame object")


CIRCLE: list[Any] = [1]
CIRCLE.append(CIRCLE)
DEEP: list[Any] = []
for _ in range(10_000):
    DEEP = [DEEP]
HUGE = [
    list(range(10**6)),
    {i: [i] * 1000 for i in range(1000)},
    "x" * 10**6,
    b"x" * 10**6,
    [["y" * 10**5] * 100] * 100,
    DEEP,
    CIRCLE,
    pd.DataFrame({"a": ["z" * 1000] * 50}),
    np.zeros((20,) * 4),
]


@pytest.mark.parametrize("tokens", [1, 30, 1500])
@pytest.mark.parametrize("value", HUGE, ids=[str(i) for i in range(len(HUGE))])
def test_huge_values_are_bounded(value: object, tokens: int) -> None:
    assert len(summarize(value, tokens=tokens)) <= max(tokens * 4, 60)


def test_a_container_says_how_many_more_there_are() -> None:
    text = bounded_repr(list(range(1000)), 300)
    shown = text.count(", ")
    assert text.startswith("[0, 1, 2, ")
    assert text.endswith(f"… {1000 - shown:,} more]")


def test_cut_counts_what_is_missing_and_keeps_to_its_limit() -> None:
    assert cut("abc", 3) == "abc"
    text = cut("x" * 5000, 100, "ask")
    kept = text.count("x")
    assert len(text) <= 100
    assert text.endswith(f"… [cut: {5000 - kept:,} of 5,000 characters are missing; ask]")
    assert cut("x" * 100, 10) == "… [cut: 100 of 100 characters are missing]"
