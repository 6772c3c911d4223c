"""Tables of any library as text. Libraries that may not be installed have stand-ins here."""

from __future__ import annotations

import datetime as dt
import importlib
import subprocess
import sys
import types
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import narwhals as nw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_magic.context.summaries import summary as summary_module
from kimi_magic.context.summaries.frames import as_table
from kimi_magic.context.summaries.summary import summarize
from kimi_magic.context.summaries.tables import Rows, Table, cell, describe_table

np: Any = importlib.import_module("numpy")
pd: Any = importlib.import_module("pandas")

DAYS = [dt.datetime(2024, 1, 1) + dt.timedelta(days=n) for n in range(120)]  # noqa: DTZ001
SALES = pd.DataFrame(
    {
        "region": ["north", "south", "east, far"] * 40,
        "sales": [float(n) for n in range(120)],
        "units": [n % 50 for n in range(120)],
        "returned": [n % 4 == 0 for n in range(120)],
        "day": DAYS,
        "note": [None] * 119 + ["a remark"],
        "shop": pd.Categorical(["a", "b"] * 60),
        "version": 2,
        "parts": [[1]] * 120,
    }
)
SALES.loc[[3, 4], "sales"] = np.nan

SAID_OF_COLUMNS = """\
- region (str): 3 distinct: north 33.3 %, south 33.3 %, "east, far" 33.3 %
- sales (float64): 2 missing, 0 to 119, quartiles 31 / 60 / 89, mean 60.45, std 34.3
- units (int64): 0 to 49, quartiles 9 / 19 / 34, mean 22, std 14.56
- returned (bool): 25 % true
- day (datetime64[us]): 2024-01-01 to 2024-04-29
- note (object): 119 missing, always a remark
- shop (category): 2 distinct: a 50 %, b 50 %
- version (int64): always 2
- parts (object): lists of 1 item (int)
"""


def test_a_frame_is_its_shape_its_columns_its_head_and_random_rows() -> None:
    text = summarize(SALES)
    heading, second, *lines = text.splitlines()
    assert heading == "DataFrame, 120 rows × 9 columns"
    assert second == "columns, with figures:"
    # What dtype texts and times have depends on pandas' version.
    names = [line.partition(" (")[0] for line in lines[:9]]
    figures = [line.partition("): ")[2] for line in lines[:9]]
    expected = SAID_OF_COLUMNS.splitlines()
    assert names == [line.partition(" (")[0] for line in expected]
    assert figures == [line.partition("): ")[2] for line in expected]
    assert lines[9:12] == [
        "first 5 rows:",
        ",region,sales,units,returned,day,note,shop,version,parts",
        "0,north,0,0,True,2024-01-01,,a,2,[1]",
    ]
    assert lines[13] == '2,"east, far",2,2,False,2024-01-03,,a,2,[1]'
    assert lines[14].startswith("3,north,,3,")
    assert lines[16] == "5 rows at random:"
    assert len(lines) == 22
    assert summarize(SALES) == text


def test_a_small_frame_is_shown_whole() -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": [0.5, None], ("c", 1): ["x", ""]})
    assert summarize(frame).splitlines() == [
        "DataFrame, 2 rows × 3 columns",
        f"columns: a (int64), b (float64), ('c', 1) ({frame.dtypes.iloc[2]})",
        "all rows:",
        """,a,b,"('c', 1)\"""",
        "0,1,0.5,x",
        '1,2,,""',
    ]


def test_less_room_is_the_names_and_fewer_rows() -> None:
    lines = summarize(SALES[["sales", "units"]], tokens=43).splitlines()[:5]
    assert lines == [
        "DataFrame, 120 rows × 2 columns",
        "columns: sales (float64), units (int64)",
        "first 5 rows:",
        ",sales,units",
        "0,0,0",
    ]
    assert "random" not in summarize(SALES, tokens=100)


def test_indexes_are_told_and_label_the_rows() -> None:
    by_day = SALES.set_index("day")[["sales"]]
    text = summarize(by_day)
    assert "\nindex: day, from 2024-01-01 to 2024-04-29\n" in text
    assert "\nday,sales\n2024-01-01,0\n" in text
    assert 'index: region, from north to "east, far"' in summarize(SALES.set_index("region"))
    pairs = SALES.set_index(["region", "units"])
    assert """index: region, units, from "('north', 0)" to "('east, far', 19)\"""" in summarize(
        pairs
    )


def test_series() -> None:
    assert summarize(pd.Series([1, 2], name="n")) == (
        "Series n, 2 rows, dtype int64\nall rows:\n0,1\n1,2"
    )
    lines = summarize(SALES.set_index("day")["sales"]).splitlines()
    assert lines[:4] == [
        "Series sales, 120 rows, dtype float64",
        "index: day, from 2024-01-01 to 2024-04-29",
        "figures:",
        "2 missing, 0 to 119, quartiles 31 / 60 / 89, mean 60.45, std 34.3",
    ]


def test_empty_tables() -> None:
    assert summarize(pd.DataFrame()) == "DataFrame, 0 rows × 0 columns"
    assert summarize(pd.DataFrame({"a": []})).startswith("DataFrame, 0 rows × 1 column\ncolumns (")
    assert summarize(pd.DataFrame(index=[1, 2])).startswith("DataFrame, 2 rows × 0 columns")
    assert summarize(pd.Series([], dtype=float)) == "Series, 0 rows, dtype float64"


def test_a_wide_frame_has_figures_for_some_and_names_others() -> None:
    text = summarize(pd.DataFrame(np.ones((30, 1000)), columns=[f"c{n}" for n in range(1000)]))
    assert "\n- c0 (float64): always 1\n" in text
    assert " more columns (float64): c" in text
    mixed = pd.DataFrame({f"c{n}": [n if n % 2 else "x"] * 30 for n in range(200)})
    assert "more columns (" in summarize(mixed)
    assert "int64" in summarize(mixed).rpartition("more columns (")[2]


def test_cells_that_cannot_be_shown_are_no_crash() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise SystemExit(1)

        def __hash__(self) -> int:
            raise RuntimeError

        def __eq__(self, other: object) -> bool:
            raise RuntimeError

    text = summarize(pd.DataFrame({"a": [Broken()] * 50, "b": 1}))
    assert "- a (object): of Broken\n" in text
    assert "<Broken object; its repr raises SystemExit>" in text


def test_numbers_beyond_all_others_are_no_crash() -> None:
    huge = pd.Series([10**400] * 60, dtype=object)
    text = summarize(pd.DataFrame({"a": [1e308, -1e308, float("inf")] * 20, "b": huge}))
    assert "- a (float64): 20 infinite" in text
    assert "- b (object): " in text
    assert "- a (object): 1 to 2.5" in summarize(
        pd.DataFrame({"a": [Decimal(1), Decimal("2.5")] * 20})
    )


def test_names_that_stand_twice() -> None:
    frame = pd.DataFrame([[1, 2]] * 20, columns=["a", "a"])
    assert "- a (int64): always 1\n- a (int64): always 2" in summarize(frame)


class Counting:
    """A table of any size that counts which of its rows are read."""

    def __init__(self, rows: int, width: int = 2) -> None:
        self.read: set[int] = set()
        self.cells = 0
        columns = [(f"c{n}", "int") for n in range(width)]
        self.table = Table("Counting", rows, columns, self.take)

    def take(self, positions: Sequence[int], width: int) -> Rows:
        assert list(positions) == sorted(set(positions))
        self.read.update(positions)
        self.cells += len(positions) * width
        return Rows(positions, [list(positions) for _ in range(width)])


def test_of_a_large_table_a_sample_is_read_and_it_says_so() -> None:
    counting = Counting(10**9)
    text = describe_table(counting.table, 6000)
    assert "figures from 20,000 of 1,000,000,000 rows, taken at random:" in text
    assert len(counting.read) < 20_020
    assert max(counting.read) > 9 * 10**8
    again = Counting(10**9)
    assert describe_table(again.table, 6000) == text


def test_of_a_wide_table_few_columns_are_read() -> None:
    counting = Counting(10**6, width=100_000)
    describe_table(counting.table, 6000)
    assert counting.cells < 200_000


def test_ten_million_rows_of_pandas() -> None:
    frame = pd.DataFrame({"n": np.arange(10**7) % 7, "x": np.zeros(10**7, dtype="int8")})
    text = summarize(frame)
    assert text.startswith("DataFrame, 10,000,000 rows × 2 columns\n")
    assert "figures from 20,000 of 10,000,000 rows, taken at random" in text
    assert "- x (int8): always 0" in text


class Interchange:
    """A frame with nothing but the deprecated ``__dataframe__``, which narwhals does not read."""

    def __dataframe__(self) -> Any:
        pytest.fail("its buffers are not read")

    def __repr__(self) -> str:
        return "Interchange()"


def test_a_frame_of_the_interchange_protocol_alone_is_its_repr() -> None:
    assert summarize(Interchange()) == "Interchange()"


def test_frames_that_narwhals_wraps() -> None:
    frame = nw.from_native(SALES[["sales", "units"]])
    assert summarize(frame) == summarize(SALES[["sales", "units"]])
    assert summarize(frame["units"]) == summarize(SALES["units"])
    assert summarize(frame.lazy()).startswith("narwhals LazyFrame, lazy: it was not computed")


@pytest.fixture
def polars() -> Any:
    return pytest.importorskip("polars")


@pytest.fixture
def arrow() -> Any:
    return pytest.importorskip("pyarrow")


def test_polars(polars: Any) -> None:
    missing = polars.Series("b", [None] * 50, dtype=polars.Int64)
    text = summarize(polars.DataFrame({"a": list(range(50))}).with_columns(missing))
    assert text.startswith("polars DataFrame, 50 rows × 2 columns\n")
    assert "- a (Int64): 0 to 49, " in text
    assert "- b (Int64): 50 missing" in text
    assert "\n,a,b\n0,0,\n" in text
    assert summarize(polars.Series("n", [1, None])) == (
        "polars Series n, 2 rows, dtype Int64\nall rows:\n0,1\n1,"
    )
    assert summarize(polars.LazyFrame({"a": [1]})) == (
        "polars LazyFrame, lazy: it was not computed\ncolumns: a (Int64)"
    )


def test_nan_is_missing_in_pandas_and_a_value_elsewhere(polars: Any, arrow: Any) -> None:
    values = [1.5, float("nan"), None] * 20
    frame = pd.DataFrame({"x": values}, index=[float("nan"), *range(59)])
    text = summarize(frame)
    assert "- x (float64): 40 missing, always 1.5" in text
    assert "\n,1.5\n" in text
    for other in (polars.DataFrame({"x": values}, strict=False), arrow.table({"x": values})):
        text = summarize(other)
        assert "): 20 missing, 20 NaN, always 1.5" in text
        assert "\n1,nan\n2,\n" in text


def test_a_rare_gap_in_many_rows_is_counted(polars: Any) -> None:
    values = np.arange(300_000.0)
    values[123_456] = np.nan
    frame = pd.DataFrame({"x": values, "n": 1})
    assert "- x (float64): 1 missing of all, " in summarize(frame)
    assert "- x (Float64): 1 missing of all, " in summarize(polars.from_pandas(frame))
    assert "- n (int64): always 1" in summarize(frame)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (dt.timedelta(days=1, hours=2), '"1 day, 2:00:00"'),
        (b"a,b", "\"b'a,b'\""),
        ({"a": 1, "b": 2}, "\"{'a': 1, 'b': 2}\""),
        ([1, 2], '"[1, 2]"'),
        ("a,b", '"a,b"'),
        (" a", '" a"'),
        (np.float64(0.1) * 3, "0.3"),
        (np.str_("a"), "a"),
        (pd.Period("2024-01", "M"), "2024-01"),
        (pd.Interval(0, 5), '"(0, 5]"'),
        (float("nan"), "nan"),
        (None, ""),
    ],
)
def test_what_holds_a_comma_is_quoted_in_rows(value: object, written: str) -> None:
    assert cell(value) == written


def test_pyarrow(arrow: Any) -> None:
    assert summarize(arrow.table({"a": [1, 2]})) == (
        "pyarrow Table, 2 rows × 1 column\ncolumns (int64): a\nall rows:\n,a\n0,1\n1,2"
    )
    views = arrow.array(["x"], type=arrow.string_view())  # of which nothing can be taken
    assert summarize(arrow.table({"a": views})).endswith(",a\n0,x")
    twice = arrow.table([[1], ["x"]], names=["a", "a"])
    assert summarize(twice).endswith("\ncolumns: a (int64), a (string)\nall rows:\n,a,a\n0,1,x")
    assert summarize(arrow.record_batch({"a": [7]})).startswith("pyarrow Table, 1 row × 1 column")
    chunks = arrow.chunked_array([[5], [None]])
    assert summarize(chunks) == ("pyarrow ChunkedArray, 2 rows, dtype int64\nall rows:\n0,5\n1,")
    assert summarize(arrow.array([5])) == ("pyarrow Int64Array, 1 row, dtype int64\nall rows:\n0,5")


class Capsule:
    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        raise AssertionError("who reads it is a library that is there")

    def __repr__(self) -> str:
        return "Capsule()"


class SizedCapsule(Capsule):
    def __len__(self) -> int:
        return 3


class ReadableCapsule(SizedCapsule):
    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        frame: Any = pd.DataFrame({"a": [1, 2, 3]})
        return frame.__arrow_c_stream__(requested_schema)


class ComputingCapsule(SizedCapsule):
    """As an array of xarray, which may be a plan of dask's."""

    def compute(self) -> None:
        pytest.fail("it was computed")


@pytest.mark.parametrize("library", ["pyarrow", "polars"])
def test_the_arrow_capsule_interface(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(library)
    pytest.importorskip("pyarrow")  # pandas makes its streams with it
    if library == "polars":
        monkeypatch.delitem(sys.modules, "pyarrow")
    assert summarize(ReadableCapsule()).startswith("ReadableCapsule, 3 rows × 1 column")
    # What has no length may be a stream that can be read only once.
    assert summarize(Capsule()) == "Capsule()"
    assert summarize(ComputingCapsule()) == "Capsule()"


def test_without_a_library_that_reads_it_a_capsule_is_its_repr(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for library in ("pyarrow", "polars"):
        monkeypatch.delitem(sys.modules, library, raising=False)
    assert summarize(SizedCapsule()) == "Capsule()"


IMPORTS = """
import sys
import pandas
from kimi_magic.context.summaries.summary import summarize
frame = pandas.DataFrame({"a": [1]})
before = set(sys.modules)
summarize(frame)
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print(*sorted(new & {"polars", "pyarrow", "dask", "duckdb", "ibis", "pyspark", "modin", "cudf"}))
"""


def test_no_frame_library_is_imported() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == ""


class Plan:
    """What is lazy: everything that might compute is a failure."""

    def collect(self) -> int:
        pytest.fail("it was computed")

    compute = execute = explain = __dataframe__ = __arrow_c_stream__ = collect

    def __len__(self) -> int:
        return self.collect() or 0

    def __repr__(self) -> str:
        pytest.fail("it was computed")


class PolarsPlan(Plan):
    def collect_schema(self) -> dict[str, str]:
        return {"a": "Int64", "b": "String"}


class SparkPlan(Plan):
    @property
    def dtypes(self) -> list[tuple[str, str]]:
        return [("a", "int"), ("b", "string")]


class DaskPlan(Plan):
    columns = ("a", "b")
    dtypes = pd.Series({"a": "int64", "b": "object"})
    shape = ("computes", 2)


class DuckPlan(Plan):
    columns = ("a", "b")
    dtypes = ("BIGINT", "VARCHAR")


class IbisPlan(Plan):
    def schema(self) -> dict[str, str]:
        return {"a": "int64", "b": "string"}


class FusionPlan(Plan):
    def schema(self) -> list[Any]:
        return [types.SimpleNamespace(name="a", type="int64")]


class NamesOnly(Plan):
    columns = tuple(f"c{n}" for n in range(100))


class Sulking(Plan):
    @property
    def schema(self) -> object:
        raise RuntimeError


class ArrayPlan(Plan):
    shape, dtype = (10, 10), "float64"


LAZY = [
    (PolarsPlan(), "\ncolumns: a (Int64), b (String)"),
    (SparkPlan(), "\ncolumns: a (int), b (string)"),
    (DaskPlan(), "\ncolumns: a (int64), b (object)"),
    (DuckPlan(), "\ncolumns: a (BIGINT), b (VARCHAR)"),
    (IbisPlan(), "\ncolumns: a (int64), b (string)"),
    (FusionPlan(), "\ncolumns: a (int64)"),
    (NamesOnly(), ", c59, …"),
    (Sulking(), ", lazy: it was not computed"),
    (ArrayPlan(), ", shape (10, 10), dtype float64"),
]


@pytest.mark.parametrize(("plan", "said"), LAZY, ids=[type(plan).__name__ for plan, _ in LAZY])
def test_what_is_lazy_is_not_computed(plan: Plan, said: str) -> None:
    name = type(plan).__name__
    text = summarize(plan)
    assert text.startswith(f"tests {name}, lazy: it was not computed")
    assert text.endswith(said)
    assert summarize([plan]).startswith(f"[<tests {name}, lazy: it was not computed")


values = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.dates()
    | st.datetimes()
    | st.lists(st.integers())
    | st.decimals()
)


@given(
    st.lists(st.lists(values, max_size=60), max_size=8),
    st.integers(1, 1500),
    st.booleans(),
)
def test_any_table_is_described_within_the_budget(
    data: list[list[Any]], tokens: int, label: bool
) -> None:
    length = max(map(len, data), default=0)
    columns = {f"c{i}": (column + [None] * length)[:length] for i, column in enumerate(data)}
    frame = pd.DataFrame(
        {name: pd.Series(column, dtype=object) for name, column in columns.items()}
    )
    if label and length and len(data) > 1:
        frame = frame.set_index(frame.columns[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(summary_module, "SECONDS", 60)  # on a busy machine, too
        text = summarize(frame, tokens=tokens)
    assert len(text) <= tokens * 4
    assert text.startswith("DataFrame, "[: tokens * 4 - 1])
    assert as_table(frame) is not None


def test_columns_whose_values_have_no_order_or_are_no_floats_have_figures() -> None:
    day = dt.datetime(2020, 1, 1)  # noqa: DTZ001
    times = [day, day.replace(tzinfo=dt.UTC)] * 10
    frame = pd.DataFrame(
        {
            "zones": pd.Series(times, dtype=object),
            "days": pd.Series([day.date(), day] * 10, dtype=object),
            "ids": [2**60 + n for n in range(20)],
            "huge": pd.Series([10**400 + n for n in range(20)], dtype=object),
        }
    )
    text = summarize(frame)
    assert "- zones (object): of datetime, 50 % with a time zone, the others without\n" in text
    assert "- days (object): of date | datetime\n" in text
    assert f"- ids (int64): all distinct, {2**60} to {2**60 + 19}\n" in text
    assert "- huge (object): all distinct, 1000" in text


def test_a_million_categories_do_not_take_the_time_limit() -> None:
    names = [f"c{n}" for n in range(1_000_000)]
    used = pd.Series(pd.Categorical(names[3:], categories=names))
    assert "unused: c0, c1, c2" in summarize(used)
