"""Aim: learn values of the notebook from a summary that sends names and types alone."""

from __future__ import annotations

import datetime as dt

import pandas as pd
import polars as pl
import pytest

from kimi_magic.context.summaries.detail import Detail
from kimi_magic.context.summaries.summary import summary_of
from kimi_magic.context.summaries.tables import dtype_name
from kimi_magic.context.variables import attach_variables

SECRET = [f"canary{n}" for n in range(12)]
PEOPLE = pd.DataFrame({"who": SECRET, "n": range(12)})
LEVELS = pl.Enum(SECRET)
HOLDERS = {
    "pivot": PEOPLE.pivot_table(index="n", columns="who", values="n", aggfunc="size"),
    "pivot of two": PEOPLE.pivot_table(index="n", columns="who", values=["n"], aggfunc=["size"]),
    "crosstab": pd.crosstab(PEOPLE.n, PEOPLE.who),
    "transposed": PEOPLE.set_index("who").T,
    "row": PEOPLE.set_index("who").loc["canary3"],
    "index": pd.DataFrame({"n": range(12)}, index=SECRET),
    "categories": pd.DataFrame({"c": pd.Categorical(SECRET)}),
    "enum": pl.DataFrame({"e": pl.Series(SECRET, dtype=LEVELS)}),
    "enum in a list": pl.DataFrame({"e": [[s] for s in SECRET]}, schema={"e": pl.List(LEVELS)}),
    "enum in a struct": pl.Series([{"a": "canary1"}], dtype=pl.Struct({"a": LEVELS})),
    "lazy enum": pl.LazyFrame({"e": pl.Series([SECRET[:1]], dtype=pl.List(LEVELS))}),
}


@pytest.mark.parametrize("values", ["schema", "figures"])
@pytest.mark.parametrize("holder", HOLDERS)
def test_labels_names_and_types_that_hold_values(holder: str, values: str) -> None:
    """Input: frames whose labels, name or type hold values. Holds: none of them is sent."""
    assert "canary" not in summary_of(HOLDERS[holder], detail=Detail(values)).text


def test_labels_that_look_like_values() -> None:
    """Input: columns labelled by dates or by addresses. Holds: numbers stand for them."""
    days = pd.DataFrame({pd.Timestamp(1999, 1, n + 1): [n] * 6 for n in range(3)})
    mails = pd.DataFrame({f"canary{n}@x.org": [n] for n in range(6)})
    dates = pd.DataFrame([[1]], columns=[dt.date(1999, 1, 1)])
    for frame in (days, mails, dates):
        text = summary_of(frame, detail=Detail("schema")).text
        assert "1999" not in text
        assert "canary" not in text
        assert "column 1" in text
        assert "the labels of the columns are values" in text


def test_ordinary_labels_stay() -> None:
    """Input: names, numbers and pairs of names. Holds: they are sent as they are."""
    plain = pd.DataFrame({"price": [1.5], 2024: [1], ("n", "min"): [2]})
    text = summary_of(plain, detail=Detail("schema")).text
    assert all(name in text for name in ("price", "2024", "'min'"))
    assert "Series n," in summary_of(PEOPLE.n).text


@pytest.mark.parametrize(
    ("dtype", "shown"),
    [
        ("Enum(categories=['a)', \"it's\", 'b\\'c'])", "Enum"),
        ("Struct({'a': List(Enum(categories=['x']))})", "Struct({'a': List(Enum)})"),
        ("ENUM('a', 'it''s)')[]", "ENUM[]"),
        ("Enum8('a' = 1, 'b' = 2)", "Enum8"),
    ],
)
def test_types_that_spell_their_categories(dtype: str, shown: str) -> None:
    """Input: types of polars, DuckDB and ClickHouse with categories. Holds: the type is told."""
    assert dtype_name(dtype) == shown


def test_personal_data_in_labels_is_pointed_out() -> None:
    """Input: addresses as the index, a level of it, or labels. Holds: the line Sent says so."""
    mails = [f"a{n}@x.org" for n in range(6)]
    table = pd.DataFrame({"mail": mails, "k": range(6), "n": 1})
    values = {
        "own": pd.DataFrame({"n": range(6)}, index=mails),
        "named": table.set_index("mail").n,
        "level": table.set_index(["k", "mail"]),
        "labels": table.set_index("mail").T,
        "none": pd.DataFrame({"n": range(6)}, index=[f"row {n}" for n in range(6)]),
    }
    _, attached = attach_variables(values)
    kind = "e-mail addresses"
    assert [each.personal for each in attached] == [
        (("index", kind),),
        (("mail", kind),),
        (("mail", kind),),
        (("labels of the columns", kind),),
        (),
    ]
