"""Arrays of numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.context.golden import Case


def numpy(of: Callable[[Any], object]) -> Callable[[], object]:
    return lambda: of(pytest.importorskip("numpy", "2.0"))


CASES = {
    "floats": Case(numpy(lambda np: np.linspace(0, 1, 1000).reshape(20, 50)), "0.5"),
    "gaps": Case(numpy(lambda np: np.array([1.5, np.nan, np.inf] * 40)), "1.5"),
    "labels": Case(numpy(lambda np: np.array([7, 8, 8, 9] * 50)), "7 8 9"),
    "labels-column": Case(numpy(lambda np: np.array([7, 8, 8, 9] * 10)[:, None]), "7 8 9"),
    "labels-text": Case(numpy(lambda np: np.array(["cat", "dog, big", "cat"] * 50)), "cat dog"),
    "labels-objects": Case(
        numpy(lambda np: np.array(["cat", "dog", None] * 50, dtype=object)), "cat dog"
    ),
    "labels-many": Case(numpy(lambda np: np.tile([7, 8], 5_000_000)), "7 8"),
    "truths": Case(numpy(lambda np: np.array([True, False, False] * 50)), "True"),
    "complex": Case(numpy(lambda np: np.exp(1j * np.linspace(0, 6, 200)) * 3), "3"),
    "days": Case(numpy(lambda np: np.arange("2024-01-01", "2024-06-01", dtype="M8[D]")), "2024"),
    "times": Case(
        numpy(lambda np: np.array(["2024-01-01T10:00", "2024-01-01T11:30", "NaT"] * 9, "M8[m]")),
        "2024",
    ),
    "durations": Case(numpy(lambda np: np.arange(5, 95, 3).astype("m8[h]")), "92"),
    "masked": Case(numpy(lambda np: np.ma.masked_greater(np.arange(200.0), 150)), "75"),
    "masked-all": Case(numpy(lambda np: np.ma.array(np.full(30, 4711), mask=True)), "4711"),
    "records": Case(
        numpy(lambda np: np.array([("Qzxj", 4711)] * 30, dtype=[("name", "U8"), ("n", int)])),
        "Qzxj 4711",
    ),
    "four-axes": Case(numpy(lambda np: np.full((20, 20, 20, 20), 4711)), "4711"),
}
