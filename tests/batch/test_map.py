"""Maps: what is asked of rows, what is kept, and what a frame holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest

import kimi_magic as kimi
from kimi_magic.session import Session
from kimi_magic.testing import ScriptedServer

COLUMNS = ["text", "reasoning", "error", "usage", "attempts"]


def asked(server: ScriptedServer) -> list[str]:
    return [request.body["messages"][-1]["content"] for request in server.requests]


@pytest.mark.parametrize("library", ["pandas", "polars", "list"])
def test_a_frame_like_the_data(server: ScriptedServer, session: Session, library: str) -> None:
    rows = [{"name": "a", "n": 1}, {"name": "b", "n": 2}, {"name": "a", "n": 1}]
    data: Any = rows
    if library == "pandas":
        data = pd.DataFrame(rows, index=[7, 5, 3])
    if library == "polars":
        data = pl.DataFrame(rows)
    server.reply("A", reasoning="R")
    server.reply("B", reasoning="R")
    frame = kimi.map(data, "{{ name }}{{ n + 1 }}", concurrency=1)
    assert asked(server) == ["a2", "b3"]
    assert list(frame.columns) == COLUMNS
    assert list(frame["text"]) == ["A", "B", "A"]
    assert list(frame["attempts"]) == [1, 1, 0]
    if library == "pandas":
        assert list(frame.index) == [7, 5, 3]
        assert list(data.join(frame).text) == ["A", "B", "A"]
    assert isinstance(frame, pl.DataFrame if library == "polars" else pd.DataFrame)


def test_one_row_never_fails_the_others(server: ScriptedServer, session: Session) -> None:
    server.reply("A")
    server.error(400, "no")
    server.reply("C")
    frame = kimi.map(["a", "b", "", "c"], "{{ value }}", concurrency=1)
    assert list(frame.text.fillna("-")) == ["A", "-", "-", "C"]
    assert [str(e).partition(":")[0] for e in frame.error] == [
        "nan",
        "BadRequest",
        "KimiError",
        "nan",
    ]


def test_goes_on_where_it_stopped(server: ScriptedServer, session: Session, tmp_path: Path) -> None:
    into = tmp_path / "labels.parquet"
    server.reply("A")
    server.error(401, "no")
    frame = kimi.map(["a", "b", "c"], "{{ value }}", concurrency=1, into=into)
    assert list(frame.error.str.partition(":")[0].fillna("-")) == ["-", "KeyRefused", "not asked"]
    server.reply("B")
    server.reply("C")
    frame = kimi.map(["a", "b", "c"], "{{ value }}", concurrency=1, into=into)
    assert asked(server) == ["a", "b", "b", "c"]
    assert list(frame.text) == ["A", "B", "C"]
    assert list(pd.read_parquet(into).text) == ["A", "B", "C"]


def test_fields_of_a_schema(server: ScriptedServer, session: Session) -> None:
    server.reply('{"label": "x", "score": 1}')
    plan = kimi.map(["a"], "{{ value }}", schema="label, score int", dry_run=True)
    assert plan.prompts[0].startswith("a")
    frame = kimi.map(["a"], "{{ value }}", schema="label, score int")
    assert list(frame.columns) == ["label", "score", *COLUMNS[1:]]
    assert (frame.label[0], frame.score[0]) == ("x", 1)
