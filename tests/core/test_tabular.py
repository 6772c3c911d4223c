"""Records as columns and rows."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import date
from typing import Any

import pandas as pd
import pytest
from pydantic import BaseModel, Field

from kimi_magic.core.errors import KimiError
from kimi_magic.core.tabular import to_frame, to_json, to_pandas, to_table


class City(BaseModel):
    name: str
    founded: date = Field(alias="since")


@dataclass
class Trip:
    to: City
    nights: int


ROME = City(name="Rome", since=date(753, 4, 21))


@pytest.mark.parametrize(
    ("value", "columns", "rows"),
    [
        ([ROME], ["name", "founded"], [["Rome", date(753, 4, 21)]]),
        (ROME, ["name", "founded"], [["Rome", date(753, 4, 21)]]),
        (
            [Trip(ROME, 2)],
            ["to", "nights"],
            [[{"name": "Rome", "founded": date(753, 4, 21)}, 2]],
        ),
        ([{"a": 1}, {"b": [2], "a": None}], ["a", "b"], [[1, None], [None, [2]]]),
        ([], [], []),
    ],
)
def test_records_become_columns_and_rows(value: Any, columns: list[str], rows: list[Any]) -> None:
    assert to_table(value) == (columns, rows)


@pytest.mark.parametrize("value", [5, "text", None, [1, 2], [{"a": 1}, 2]])
def test_what_is_no_record_makes_no_table(value: Any) -> None:
    with pytest.raises(KimiError, match="Only records make a table"):
        to_pandas(value)


def test_a_frame_keeps_dates_and_numbers() -> None:
    frame = to_pandas([ROME, City(name="Oslo", since=date(1040, 1, 1))])
    assert list(frame.columns) == ["name", "founded"]
    assert list(frame.founded) == [date(753, 4, 21), date(1040, 1, 1)]
    assert to_pandas({"n": 2}).n.sum() == 2
    assert isinstance(to_pandas([]), pd.DataFrame)


def test_without_pandas_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(KimiError, match="pip install pandas"):
        to_pandas([ROME])


def test_json_has_names_of_fields_and_text_for_what_it_lacks() -> None:
    value = {"trip": Trip(ROME, 2), "raw": b"\xff", "odd": object, "set": {1}}
    assert to_json(value) == {
        "trip": {"to": {"name": "Rome", "founded": "0753-04-21"}, "nights": 2},
        "raw": "_w==",
        "odd": "<class 'object'>",
        "set": [1],
    }


def test_a_frame_of_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    columns: dict[str, list[Any]] = {"a": [1, 2], "b": ["x", "y"]}
    assert to_frame(columns).equals(pd.DataFrame(columns))
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert to_frame(columns).to_dict(as_series=False) == columns
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(KimiError, match="needs pandas or polars"):
        to_frame(columns)
