"""Maps: what is asked of rows, what is kept, and what a frame holds."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa  # type: ignore[import-untyped]
import pytest
from pydantic import BaseModel, Field, field_validator

import kimi_magic as kimi
from kimi_magic.batch import pace
from kimi_magic.core.errors import ConfigError, KeyRefused, KimiError
from kimi_magic.session import Session
from kimi_magic.testing import ScriptedServer
from tests.batch.faulty_server import FaultyServer, named_fault

COLUMNS = ["text", "reasoning", "error", "usage", "attempts"]


def asked(server: ScriptedServer) -> list[str]:
    return [request.body["messages"][-1]["content"] for request in server.requests]


def kinds(frame: Any) -> list[str]:
    """The kinds of errors; "" for none."""
    return [str(e).partition(":")[0] if isinstance(e, str) else "" for e in frame.error]


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch, session: Session) -> Iterator[FaultyServer]:
    session.settings.retries = 0
    with FaultyServer(named_fault) as server:
        monkeypatch.setenv("KIMI_BASE_URL", server.base_url)
        monkeypatch.setenv("KIMI_MODEL", "kimi-k2-thinking")
        yield server


ROWS = [{"name": "a", "n": 1}, {"name": "b", "n": 2}, {"name": "a", "n": 1}]
PAIRS = pd.MultiIndex.from_tuples([("x", 1), ("x", 1), ("y", 2)], names=["k", "l"])
DATA: dict[str, Any] = {
    "an index": pd.DataFrame(ROWS, index=[7, 5, 3]),
    "an index with duplicates": pd.DataFrame(ROWS, index=PAIRS),
    "dates": pd.DataFrame(ROWS, index=pd.date_range("2026-01-01", periods=3)),
    "polars": pl.DataFrame(ROWS),
    "pyarrow": pa.Table.from_pylist(ROWS),
    "list": ROWS,
    "tuple": tuple(ROWS),
    "generator": ROWS,
}


@pytest.mark.parametrize("kind", DATA)
def test_a_frame_like_the_data(server: ScriptedServer, session: Session, kind: str) -> None:
    """Equal rows are asked once, and the first has what they took."""
    data = DATA[kind]
    server.reply("A", reasoning="R")
    server.reply("B", reasoning="R")
    given = iter(data) if kind == "generator" else data
    frame = kimi.map(given, "{{ name }}{{ n + 1 }}", concurrency=1)
    assert asked(server) == ["a2", "b3"]
    wanted = type(data) if isinstance(data, pl.DataFrame | pa.Table) else pd.DataFrame
    assert isinstance(frame, wanted)
    if isinstance(data, pd.DataFrame):
        assert isinstance(frame, pd.DataFrame)
        assert frame.index.equals(data.index)
        frame.index.names = data.index.names
    if isinstance(frame, pa.Table):
        frame = frame.to_pandas()
    assert list(frame.columns) == COLUMNS
    assert list(frame["text"]) == ["A", "B", "A"]
    assert list(frame["reasoning"]) == ["R", "R", "R"]
    assert list(frame["attempts"]) == [1, 1, 0]


@pytest.mark.parametrize(
    "data",
    [pd.Series(["a", "b"], index=[4, 4], name="t"), pl.Series("t", ["a", "b"])],
    ids=["pandas", "polars"],
)
def test_a_column(faults: FaultyServer, data: Any) -> None:
    frame = kimi.map(data, "{{ t }} {{ value }}")
    assert list(frame["text"]) == ["A A", "B B"]
    assert type(frame).__module__.partition(".")[0] == type(data).__module__.partition(".")[0]


@pytest.mark.parametrize(
    "data",
    [[], iter(()), pd.DataFrame({"value": []}), pl.DataFrame({"value": []})],
    ids=["list", "iterator", "pandas", "polars"],
)
@pytest.mark.parametrize("schema", [None, "label, score int"])
def test_no_rows(faults: FaultyServer, tmp_path: Path, data: Any, schema: Any) -> None:
    into = tmp_path / "none.parquet"
    frame = kimi.map(data, "{{ value }}", schema=schema, into=into)
    assert len(frame) == 0
    assert list(frame.columns) == (
        [*COLUMNS] if schema is None else ["label", "score", *COLUMNS[1:]]
    )
    assert into.exists()
    assert faults.asked == []


@pytest.mark.parametrize("data", ["text", b"bytes", {"a": 1}, 3, None, pl.LazyFrame({"a": [1]})])
def test_what_has_no_rows(faults: FaultyServer, data: Any) -> None:
    with pytest.raises(KimiError, match=r"kimi\.map takes"):
        kimi.map(data, "{{ value }}")


def test_one_row_never_fails_the_others(faults: FaultyServer) -> None:
    rows = ["a", "400", "", "500", "cut", "empty", "b"]
    frame = kimi.map(rows, "{{ value }}", concurrency=4)
    wanted = ["", "BadRequest", "KimiError", "ServerFailed", "ConnectionFailed"]
    assert kinds(frame) == [*wanted, "The answer is empty.", ""]
    assert list(frame.text.fillna("-")) == ["A", "-", "-", "-", "C", "-", "B"]


def test_functions_that_fail_are_errors_of_their_rows(faults: FaultyServer) -> None:
    def prompt(row: Any) -> str:
        if row["value"] == "x":
            raise SystemExit(3)
        return "p " + {"a": "one", "b": "two"}[row["value"]]

    frame = kimi.map(["a", "x", "y", "b"], prompt)
    assert kinds(frame) == ["", "SystemExit", "KeyError", ""]
    assert list(frame.attempts) == [1, 0, 0, 1]
    assert sorted(faults.asked) == ["p one", "p two"]


@pytest.mark.parametrize(
    ("status", "kind"), [("401", "KeyRefused"), ("404", "NotFound"), ("402", "QuotaExhausted")]
)
def test_what_befalls_all_rows_ends_the_map(faults: FaultyServer, status: str, kind: str) -> None:
    rows = ["a", "b", status, *map(str, range(600, 700))]
    frame = kimi.map(rows, "{{ value }}", concurrency=1)
    assert faults.asked == ["a", "b", status]
    assert kinds(frame)[:4] == ["", "", kind, "not asked"]
    assert frame.error.iloc[-1].startswith(f"not asked: {kind}: ")


def test_the_same_failure_again_and_again_ends_the_map(faults: FaultyServer) -> None:
    rows = ["a", *(f"400 {n}" for n in range(100))]
    frame = kimi.map(rows, "{{ value }}", concurrency=1)
    assert len(faults.asked) == 21
    assert Counter(kinds(frame)) == {"": 1, "BadRequest": 20, "not asked": 80}
    assert "The last 20 rows failed alike" in frame.error.iloc[-1]


def test_a_missing_column_asks_nothing(faults: FaultyServer) -> None:
    frame = kimi.map([{"a": n} for n in range(50)], "{{ b }}")
    assert faults.asked == []
    assert "NameError: name 'b' is not defined. The row has a" in frame.error[0]


def test_equal_rows_are_asked_once_and_fail_together(faults: FaultyServer) -> None:
    """Also while the first of them is under way."""
    frame = kimi.map(["a", "500", "a", "500", "500"], "{{ value }}", concurrency=5)
    assert sorted(faults.asked) == ["500", "a"]
    assert kinds(frame) == ["", "ServerFailed", "", "ServerFailed", "ServerFailed"]
    assert list(frame.attempts) == [1, 1, 0, 0, 0]
    assert frame.usage.notna().tolist() == [True, True, False, False, False]


def test_failures_are_raised_where_that_is_wanted(faults: FaultyServer, tmp_path: Path) -> None:
    into = tmp_path / "labels.csv"
    rows = ["a", "401", "b", "c"]
    with pytest.raises(KeyRefused):
        kimi.map(rows, "{{ value }}", on_error="raise", concurrency=1, into=into)
    with pytest.raises(ZeroDivisionError):
        kimi.map(rows, lambda row: row["value"] * (1 // 0), on_error="raise")
    assert faults.asked == ["a", "401"]
    kimi.map(["a", "b"], "{{ value }}", concurrency=1, into=into)
    assert faults.asked == ["a", "401", "b"]


def test_limits_of_a_call(faults: FaultyServer, session: Session) -> None:
    """The answers that are under way when a limit is reached are waited for."""
    rows = [f"{n} tokens" for n in range(600, 700)]
    frame = kimi.map(rows, "{{ value }}", max_tokens_total=8, concurrency=1)
    assert len(faults.asked) == 2
    assert frame.error.iloc[-1] == "not asked: max_tokens_total=8 is reached."
    with pytest.raises(KimiError, match="max_cost= counts nothing here: the prices of"):
        kimi.map(rows, "{{ value }}", max_cost=1)
    priced = kimi.add_endpoint(name="priced", base_url=faults.base_url, prices=(1e6, 1e6))
    frame = kimi.map(rows, "{{ value }}", max_cost=8, concurrency=4, endpoint=priced)
    assert 2 <= frame.error.isna().sum() <= 5
    assert Counter(kinds(frame)) == {"": frame.error.isna().sum(), "not asked": frame.error.count()}
    assert "max_cost=8 is reached, at $" in frame.error.iloc[-1]


def test_an_interrupt_returns_what_has_come(
    faults: FaultyServer, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def interrupt(count: int) -> None:
        if count == 4:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    faults.on_request = interrupt
    rows = ["a", "b", "c", "silent", "silent too", *map(str, range(600, 700))]
    into = tmp_path / "labels.jsonl"
    frame = kimi.map(rows, "{{ value }}", concurrency=1, into=into, show=True)
    assert kinds(frame)[:5] == ["", "", "", "Stopped while the answer was under way.", "not asked"]
    assert "Stopped: Interrupted.\n3 of 105 rows came; run it again" in capsys.readouterr().out
    assert len(pd.read_json(into, lines=True)) == len(rows)


class Place(BaseModel):
    name: str
    inhabitants: int = Field(alias="people")
    area: dict[str, int]

    @field_validator("name")
    @classmethod
    def is_known(cls, name: str) -> str:
        return {"bern": "Bern"}[name]


@pytest.mark.parametrize(
    ("schema", "answer", "columns"),
    [
        ("label, score int", '{"label": "x", "score": 1}', {"label": "x", "score": 1}),
        ("list[str]", '["x", "y"]', {"data": ["x", "y"]}),
        (int, "3", {"data": 3}),
        ("cities list[name, n int]", '{"cities": [{"name": "x", "n": 1}]}',
         {"cities": [{"name": "x", "n": 1}]}),
        (Place, '{"name": "bern", "people": 3, "area": {"w": 1}}',
         {"name": "Bern", "inhabitants": 3, "area": {"w": 1}}),
        (dict[str, int], '{"a": 1}', {"data": {"a": 1}}),
    ],
)  # fmt: skip
def test_fields_of_a_schema(
    server: ScriptedServer, session: Session, schema: Any, answer: str, columns: dict[str, Any]
) -> None:
    server.reply(answer)
    frame = kimi.map(["a"], "{{ value }}", schema=schema)
    assert list(frame.columns) == [*columns, *COLUMNS[1:]]
    assert frame.iloc[0][list(columns)].to_dict() == columns
    assert kinds(frame) == [""]


def test_answers_that_do_not_fit_are_errors_of_their_rows(
    server: ScriptedServer, session: Session
) -> None:
    for text in ("no", "no", "no"):  # two corrections
        server.reply(text)
    server.reply('{"name": "nowhere", "people": 3, "area": {}}')  # the validator raises
    for _ in "bc":
        server.reply('{"name": "bern", "people": 3, "area": {}}')
    frame = kimi.map(["a", "b", "c"], "{{ value }}", schema=Place, concurrency=1)
    assert kinds(frame) == ["SchemaMismatch", "", ""]
    assert frame.name.isna().tolist() == [True, False, False]
    assert list(frame.attempts) == [3, 2, 1]


@pytest.mark.parametrize("name", ["reasoning", "error", "usage", "attempts"])
def test_a_field_that_hides_a_column(faults: FaultyServer, name: str) -> None:
    with pytest.raises(KimiError, match=f"The schema's {name} would hide"):
        kimi.map(["a"], "{{ value }}", schema=f"label, {name}")


def test_tools(server: ScriptedServer, session: Session) -> None:
    called = []

    def area(name: str) -> int:
        """Return the area."""
        called.append(name)
        return 7

    server.reply(tool_calls=[{"name": "area", "arguments": {"name": "Bern"}}])
    server.reply("seven")
    frame = kimi.map(["Bern"], "{{ value }}", tools=[area])
    assert (called, list(frame.text)) == (["Bern"], ["seven"])


def test_heavy(server: ScriptedServer, session: Session) -> None:
    for text in ("1", "2", "12", "3", "4", "34"):
        server.reply(text)
    frame = kimi.map(["a", "b"], "{{ value }}", heavy=2, concurrency=1)
    assert list(frame.text) == ["12", "34"]


def test_one_trajectory_is_an_ordinary_turn(faults: FaultyServer) -> None:
    frame = kimi.map(["a"], "{{ value }}", heavy=1)
    assert list(frame.text) == ["A"]
    assert list(frame.attempts) == [1]
    with pytest.raises(KimiError, match="heavy= takes int"):
        kimi.map(["a"], "{{ value }}", heavy=True)


def test_heavy_rows_side_by_side(faults: FaultyServer, session: Session) -> None:
    """Trajectories of several rows are under way together, no more than are allowed."""
    session.settings.first_token_timeout = 60
    faults.holds_for = 5
    rows = [f"r{n}" for n in range(12)]
    frame = kimi.map(rows, "{{ value }}", heavy=2, concurrency=5)
    assert faults.most_at_once == 5
    assert len(faults.asked) == 3 * len(rows)
    assert kinds(frame) == [""] * len(rows)
    assert all(row.upper() in text for row, text in zip(rows, frame.text, strict=True))
    assert list(frame.attempts) == [3] * len(rows)


def test_an_interrupt_keeps_heavy_rows_that_have_come(
    faults: FaultyServer, session: Session
) -> None:
    def interrupt(count: int) -> None:
        if count == 7:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    faults.on_request = interrupt
    rows = ["a", "b", "silent", *(f"r{n}" for n in range(50))]
    frame = kimi.map(rows, "{{ value }}", heavy=2, concurrency=1)
    assert kinds(frame)[:4] == ["", "", "Stopped while the answer was under way.", "not asked"]
    assert len(faults.asked) == 7


def test_limits_of_heavy_rows(faults: FaultyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits of the endpoint hold for each request of a row."""
    kimi.add_endpoint(name="few", base_url=faults.base_url, requests_per_minute=7)
    monkeypatch.setattr(pace, "MINUTE", 0.3)
    may_send = pace.Pace.may_send
    begun: list[tuple[float, float]] = []  # a moment before and one after each begins

    def timed(self: pace.Pace) -> bool:
        before = time.monotonic()
        may = may_send(self)
        if may:
            begun.append((before, time.monotonic()))
        return may

    monkeypatch.setattr(pace.Pace, "may_send", timed)
    frame = kimi.map(["a", "b", "c", "d"], "{{ value }}", heavy=3, endpoint="few")
    assert kinds(frame) == [""] * 4
    assert len(faults.asked) == len(begun) == 16
    assert begun[-1][1] - begun[0][0] > 0.59


@pytest.mark.parametrize("key", ["id", ["id"], lambda row: row["id"]])
def test_a_key_tells_rows_apart(faults: FaultyServer, tmp_path: Path, key: Any) -> None:
    into = tmp_path / "labels.parquet"
    rows = [{"id": 1, "t": "a"}, {"id": 2, "t": "b"}, {"id": 1, "t": "c"}]
    for _ in range(2):
        frame = kimi.map(rows, "{{ t }}", key=key, into=into, concurrency=1)
        assert list(frame.text) == ["A", "B", "A"]
        assert list(frame.attempts) == [1, 1, 0]
        rows[1]["t"] = "changed"
    assert faults.asked == ["a", "b"]


def test_keys_of_two_columns_are_told_apart(faults: FaultyServer, tmp_path: Path) -> None:
    rows = [{"id": 1, "rank": 2, "t": "a"}, {"id": 2, "rank": 1, "t": "b"}]
    for key in ("id", "rank", ["id", "rank"], ["rank", "id"]):
        frame = kimi.map(rows, "{{ t }}", key=key, into=tmp_path / "labels.csv", concurrency=1)
        assert list(frame.text) == ["A", "B"]
    assert faults.asked == ["a", "b"] * 3


def test_another_function_asks_anew(faults: FaultyServer, tmp_path: Path) -> None:
    """Functions of one name, ``<lambda>``, are told apart where a key names the rows."""
    into = tmp_path / "labels.parquet"
    first, second = (lambda row: f"1{row['value']}"), (lambda row: f"2{row['value']}")
    kimi.map(["a"], first, key="value", into=into)
    kimi.map(["a"], second, key="value", into=into)
    kimi.map(["a"], first, key="value", into=into)
    assert faults.asked == ["1a", "2a"]


def test_functions_with_other_values_ask_anew(faults: FaultyServer, tmp_path: Path) -> None:
    """A key names the row, not the question."""

    def ask(style: str, row: Any) -> str:
        return f"{style} {row['value']}"

    def styled(style: str) -> Any:
        return lambda row: ask(style, row)

    asks = [styled("1"), styled("2"), partial(ask, "3"), partial(ask, "4"), styled("1")]
    for prompt in asks:
        kimi.map(["a"], prompt, key="value", into=tmp_path / "labels.parquet")
    assert faults.asked == ["1 a", "2 a", "3 a", "4 a"]


def test_a_function_is_known_again_in_another_kernel(faults: FaultyServer, tmp_path: Path) -> None:
    """There a set may have another order, as that of these numbers follows how they are written."""
    asks = [
        eval("lambda row: str(row['value'] in {" + numbers + "})") for numbers in ("0, 8", "8, 0")
    ]
    assert [list(prompt.__code__.co_consts[-1]) for prompt in asks] == [[0, 8], [8, 0]]
    for prompt in asks:
        kimi.map(["a"], prompt, key="value", into=tmp_path / "labels.parquet")
    assert faults.asked == ["False"]


def test_other_parameters_ask_anew(faults: FaultyServer, tmp_path: Path) -> None:
    into = tmp_path / "labels.parquet"
    given: list[dict[str, Any]] = [{}, {"system": "S"}, {"temperature": 0.5}, {"max_tokens": 9}]
    for _ in range(2):
        for keywords in given:
            kimi.map(["a"], "{{ value }}", into=into, **keywords)
    assert len(faults.asked) == len(given)


def test_rate_limits_are_waited_for(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row is asked until the server takes it: it is not to blame for what others ask."""
    session.settings.retries = 0
    with FaultyServer(lambda _, times: "429 after" if times < 4 else "") as server:
        monkeypatch.setenv("KIMI_BASE_URL", server.base_url)
        frame = kimi.map(["a", "b", "c"], "{{ value }}", concurrency=3)
    assert list(frame.text) == ["A", "B", "C"]
    assert list(frame.attempts) == [5, 5, 5]


def test_what_the_endpoint_takes_at_once(faults: FaultyServer) -> None:
    kimi.add_endpoint(
        name="few", base_url=faults.base_url, max_concurrency=2, requests_per_minute=1000
    )
    kimi.map([f"r{n}" for n in range(40)], "{{ value }}", endpoint="few")
    assert faults.most_at_once == 2
    for wrong in (0, -1, 1.5, True, "9"):
        with pytest.raises(ConfigError, match="requests_per_minute is a whole number"):
            kimi.add_endpoint(name="x", base_url=faults.base_url, requests_per_minute=wrong)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"concurrency": 0}, "concurrency= is a whole number"),
        ({"concurrency": True}, "concurrency= is a whole number"),
        ({"on_error": "skip"}, "on_error= is one of"),
        ({"engine": "batches"}, "engine= is one of threads, batch"),
        ({"engine": object()}, "engine= is one of"),
        ({"engine": pd.Series(["threads"])}, "engine= is one of"),
        ({"on_error": pd.Series(["keep"])}, "on_error= is one of"),
        ({"key": []}, "key= takes"),
        ({"into": "a\0.csv"}, "into= is the path of a file"),
        ({"chat": "main"}, "kimi.map has no chat="),
        ({"max_token": 9}, "did you mean max_tokens="),
        ({"max_cost": -1}, "max_cost= is a number above 0"),
        ({"max_tokens_total": 1.5}, "max_tokens_total= is a number above 0"),
        ({"into": "labels.txt"}, "into= is a file that ends in"),
        ({"into": 3}, "into= is the path of a file"),
        ({"key": 3}, "key= takes"),
        ({"prompt": "the same"}, "The prompt is the same for every row"),
        ({"prompt": 3}, "prompt= is a text"),
        ({"prompt": "{{ 1 + }}"}, "1 +"),
        ({"prompt": "{{ unit price }}"}, r"row\[.unit price.\]"),
    ],
)
def test_arguments_that_do_not_fit(faults: FaultyServer, given: dict[str, Any], said: str) -> None:
    prompt = given.pop("prompt", "{{ value }}")
    with pytest.raises(KimiError, match=said):
        kimi.map(["a"], prompt, **given)
    assert faults.asked == []


def test_nothing_of_a_row_is_read_as_a_template(faults: FaultyServer) -> None:
    kimi.map([{"t": "{{ secret }}", "secret": "s"}], "{{ t }} {{ row['t'] }}")
    assert faults.asked == ["{{ secret }} {{ secret }}"]


def test_rows_are_no_turns_of_the_notebook(faults: FaultyServer, session: Session) -> None:
    kimi.map(["a"], "{{ value }}")
    assert session.last is None


class Untold(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


def test_errors_that_cannot_be_told(faults: FaultyServer) -> None:
    def prompt(row: Any) -> str:
        if row["value"] == "x":
            raise Untold
        return str(row["value"])

    assert kinds(kimi.map(["a", "x", "b"], prompt)) == ["", "Untold", ""]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
@pytest.mark.parametrize("library", [pd.DataFrame, pl.DataFrame, pa.table])
def test_answers_that_no_column_holds(
    server: ScriptedServer, session: Session, tmp_path: Path, library: Any, suffix: str
) -> None:
    """The file has them as JSON, and so has a library that takes no others."""
    into = tmp_path / f"labels{suffix}"
    given = [10**30, "a", {"k": [1]}, [{}]]
    for value in given:
        server.reply(json.dumps({"x": value}))
    schema = {"type": "object", "properties": {"x": {}}}
    frame = kimi.map(
        library({"t": list("abcd")}), "{{ t }}", schema=schema, into=into, concurrency=1
    )
    written = [json.dumps(value) for value in given]
    assert list(frame["x"].to_pylist() if library is pa.table else frame["x"]) == (
        given if library is pd.DataFrame else written
    )
    if suffix == ".parquet":
        assert [json.loads(text) for text in pd.read_parquet(into)["x"]] == given
    assert into.stat().st_size


def test_rows_without_a_key_are_told_apart(faults: FaultyServer) -> None:
    data = pd.DataFrame({"id": [None, float("nan"), 1, 1], "t": list("abcd")})
    assert list(kimi.map(data, "{{ t }}", key="id", concurrency=1).text) == list("ABCC")
    asked = [{"id": value, "t": str(n)} for n, value in enumerate([None, pd.NaT, pd.NA])]
    assert list(kimi.map(asked, "{{ t }}", key=["id"]).text) == ["0", "1", "2"]


def test_answers_that_all_do_not_fit_end_the_map(server: ScriptedServer, session: Session) -> None:
    """Whatever each of them says."""
    words = "apple pear quince lemon mango grape fig olive peach plum".split()
    said = [f"{a} {b}" for a in words for b in words]
    for text in said[:60]:  # with two corrections
        server.reply(text)
    frame = kimi.map(said, "{{ value }}", schema="label", concurrency=1)
    assert Counter(kinds(frame)) == {"SchemaMismatch": 20, "not asked": 80}
