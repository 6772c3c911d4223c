"""Connections and engines of DuckDB, SQLAlchemy and sqlite3."""

from __future__ import annotations

import sqlite3
from types import SimpleNamespace
from typing import Any

import pytest

from tests.context.golden import Case


def duckdb() -> Any:
    connection = pytest.importorskip("duckdb", "1.1").connect()
    connection.execute("CREATE TABLE sales AS SELECT range AS id, 'Bonn' AS city FROM range(5000)")
    connection.execute("CREATE TABLE days (day DATE, closed BOOLEAN)")
    connection.execute("CREATE VIEW big AS SELECT * FROM sales WHERE id > 100")
    return connection


def relation() -> Any:
    pytest.importorskip("duckdb", "2.0")  # writes a query in its own way
    return duckdb().sql("SELECT city, count(*) AS n FROM sales WHERE city = 'Bonn' GROUP BY city")


def closed() -> Any:
    connection = duckdb()
    connection.close()
    return connection


def tables() -> Any:
    sa: Any = pytest.importorskip("sqlalchemy", "2.0")
    metadata = sa.MetaData()
    number = sa.Column("id", sa.Integer, primary_key=True)
    sa.Table("users", metadata, number, sa.Column("name", sa.String(30)))
    number = sa.Column("id", sa.Integer, primary_key=True)
    sa.Table("orders", metadata, number, sa.Column("user_id", sa.ForeignKey("users.id")))
    return metadata


def sqlite() -> Any:
    sa: Any = pytest.importorskip("sqlalchemy", "2.0")
    engine = sa.create_engine("sqlite://")
    tables().create_all(engine)
    return engine


def postgres() -> Any:
    sa: Any = pytest.importorskip("sqlalchemy", "2.0")
    driver = SimpleNamespace(paramstyle="pyformat", __version__="1.31.0")
    url = "postgresql+pg8000://ann:Hidden1@db.example.org:5432/shop?options=Hidden2"
    return sa.create_engine(url, module=driver)


def session() -> Any:
    return pytest.importorskip("sqlalchemy.orm").Session(sqlite())


def of_sqlite3() -> Any:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)")
    return connection


CASES = {
    "duckdb": Case(duckdb, "Bonn 4999"),
    "duckdb-relation": Case(relation, "Bonn"),
    "duckdb-closed": Case(closed),
    "sqlalchemy-sqlite": Case(sqlite),
    "sqlalchemy-postgres": Case(postgres, "Hidden1 Hidden2"),
    "sqlalchemy-metadata": Case(tables),
    "sqlalchemy-session": Case(session),
    "sqlite3": Case(of_sqlite3),
}
