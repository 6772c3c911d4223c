"""Frames and columns of pandas, polars and Arrow, and what else pandas has."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.context.golden import Case


def pandas(of: Callable[[Any], object]) -> Callable[[], object]:
    return lambda: of(pytest.importorskip("pandas", "3.0"))


def polars(of: Callable[[Any], object]) -> Callable[[], object]:
    return lambda: of(pytest.importorskip("polars", "1.20"))


def mixed(pd: Any) -> Any:
    return pd.DataFrame(
        {
            "size": pd.Categorical(["small", "large"] * 30, ["small", "middle", "large"], True),
            "month": pd.period_range("2024-01", periods=60, freq="M"),
            "age": pd.cut(list(range(60)), 4),
            "order": [{"id": n, "gift": True} if n % 3 else {"id": n} for n in range(60)],
            "tags": [["red"] * (n % 3) for n in range(60)],
            "took": pd.to_timedelta(range(60), unit="h"),
            "raw": [b"a,b"] * 60,
            "weight": [None, 1.5, 2.5] * 20,
            "place": [" south"] * 60,
        }
    )


def levels(pd: Any) -> Any:
    index = pd.MultiIndex.from_product([["north", "south"], range(2020, 2030)])
    return pd.DataFrame({"n": range(20)}, index=index.set_names(["region", None]))


def pivot(pd: Any) -> Any:
    frame = pd.DataFrame(
        {"city": ["Oslo", "Rome"] * 20, "year": [2020, 2020, 2021, 2021] * 10, "n": range(40)}
    )
    return frame.pivot_table(index="year", columns="city", values="n")


def sparse(pd: Any) -> Any:
    return pd.DataFrame(
        {f"word {n}": pd.arrays.SparseArray([0] * n + [4711] + [0] * (39 - n)) for n in range(40)}
    )


def styled(pd: Any) -> Any:
    style = mixed(pd)[["size", "weight", "place"]].style.format("{:.2f}", subset=["weight"])
    style = style.set_caption("Sizes of the south").highlight_max(subset=["weight"])
    return style.hide(axis="index").hide(["place"], axis="columns")


def gaps(pl: Any) -> Any:
    return pl.DataFrame(
        {
            "x": [1.5, float("nan"), None] * 20,
            "size": pl.Series(["small", "large", None] * 20, dtype=pl.Enum(["small", "large"])),
            "point": [{"lon": 1.0, "lat": 2.0}] * 60,
            "took": [timedelta(days=1, hours=2)] * 60,
            "tags": [["red", "blue"]] * 60,
        }
    )


def arrow() -> object:
    pytest.importorskip("pyarrow", "17.0")
    return gaps(pytest.importorskip("polars", "1.20")).to_arrow()


def many(pd: Any) -> Any:
    rows = range(1_000_000)
    return pd.DataFrame({"n": pd.Series(rows, dtype="float").where(lambda n: n != 77_777)})


WORDS = "small middle large 2024 red a,b south 1.5"
CASES = {
    "pandas-mixed": Case(pandas(mixed), WORDS),
    "pandas-category": Case(pandas(lambda pd: mixed(pd)["size"]), WORDS),
    "pandas-levels": Case(pandas(levels), "north south 2020"),
    "pandas-pivot": Case(pandas(pivot), "Oslo Rome 2020"),
    "pandas-sparse": Case(pandas(sparse), "4711"),
    "pandas-million": Case(pandas(many)),
    "pandas-styler": Case(pandas(styled), f"{WORDS} Sizes"),
    "pandas-multiindex": Case(pandas(lambda pd: levels(pd).index), "north south 2020"),
    "pandas-datetimeindex": Case(
        pandas(lambda pd: pd.date_range("2024-01-01", periods=60, freq="D", name="day")), "2024"
    ),
    "pandas-rangeindex": Case(pandas(lambda pd: pd.RangeIndex(5, 90, 5)), "90"),
    "pandas-categorical": Case(pandas(lambda pd: mixed(pd)["size"].array), WORDS),
    "polars-gaps": Case(polars(gaps), f"{WORDS} blue"),
    "arrow-gaps": Case(arrow, f"{WORDS} blue"),
}
