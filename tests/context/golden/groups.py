"""Grouped data of pandas and polars."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.context.golden import Case

DATA: dict[str, list[Any]] = {
    "region": [("north", "south", "east, far", None)[n % 7 % 4] for n in range(120)],
    "month": [1 + n // 40 for n in range(120)],
    "sales": [n * 12.5 for n in range(120)],
    "day": [datetime(2024, 1, 1) + timedelta(days=n) for n in range(120)],  # noqa: DTZ001
}
PLACES = "north south far 2024"


def pandas(of: Callable[[Any], object]) -> Callable[[], object]:
    def make() -> object:
        pd: Any = pytest.importorskip("pandas", "3.0")
        return of(pd.DataFrame(DATA).set_index("day"))

    return make


def polars(of: Callable[[Any, Any], object]) -> Callable[[], object]:
    def make() -> object:
        pl: Any = pytest.importorskip("polars", "1.20")
        return of(pl.DataFrame(DATA), pl.col)

    return make


def many(of: Callable[[Any], object]) -> Callable[[], object]:
    def make() -> object:
        pd: Any = pytest.importorskip("pandas", "3.0")
        return of(pd.DataFrame({"code": range(600_000), "shop": ["Qzxj", "Wvut"] * 300_000}))

    return make


def by_category(frame: Any) -> object:
    frame["region"] = frame["region"].astype("category").cat.add_categories(["west"])
    return frame.groupby("region", observed=False)


CASES = {
    "pandas-frame": Case(pandas(lambda df: df.groupby("region")), PLACES),
    "pandas-two-keys": Case(pandas(lambda df: df.groupby(["region", "month"])), PLACES),
    "pandas-column": Case(pandas(lambda df: df.groupby("month")["sales"])),
    "pandas-missing": Case(pandas(lambda df: df.groupby("region", dropna=False)), PLACES),
    "pandas-category": Case(pandas(by_category), f"{PLACES} west"),
    "pandas-function": Case(pandas(lambda df: df.groupby(lambda day: day.year)), PLACES),
    "pandas-many": Case(many(lambda df: df.groupby("shop")), "Qzxj Wvut"),
    "pandas-resampler": Case(pandas(lambda df: df.resample("ME")), PLACES),
    "pandas-resampler-gaps": Case(pandas(lambda df: df[::9].sales.resample("D")), PLACES),
    "pandas-rolling": Case(pandas(lambda df: df.sales.rolling(7, center=True)), PLACES),
    "polars-frame": Case(polars(lambda df, _: df.group_by("region")), PLACES),
    "polars-expression": Case(
        polars(lambda df, col: df.group_by("month", col("day").dt.year().alias("year"))), PLACES
    ),
    "polars-dynamic": Case(polars(lambda df, _: df.group_by_dynamic("day", every="1mo")), PLACES),
    "polars-rolling": Case(polars(lambda df, _: df.rolling("day", period="7d")), PLACES),
    "polars-lazy": Case(polars(lambda df, _: df.lazy().group_by("region")), PLACES),
}
