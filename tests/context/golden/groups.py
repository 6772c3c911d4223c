"""Grouped data of pandas and polars."""

from __future__ import annotations

from typing import Any

import pytest

from tests.context.golden import Case


def grouped(*keys: str, **options: Any) -> Any:
    pd: Any = pytest.importorskip("pandas", "3.0")
    rows = range(120)
    frame = pd.DataFrame(
        {
            "region": [("north", "south", "east, far")[n % 7 % 3] for n in rows],
            "month": [1 + n // 40 for n in rows],
            "sales": [n * 12.5 for n in rows],
        }
    )
    return frame.groupby(list(keys), **options)


CASES = {
    "pandas-frame": Case(lambda: grouped("region"), "north south far"),
    "pandas-frame-two-keys": Case(lambda: grouped("region", "month"), "north south far"),
    "pandas-column": Case(lambda: grouped("month")["sales"]),
}
