"""Describe engines, connections, sessions and tables of SQLAlchemy, and connections of sqlite3."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from kimi_magic.context.summaries.detail import Detail
from kimi_magic.context.summaries.libraries.wording import (
    attribute,
    fitted_lines,
    listed,
    phrase,
)
from kimi_magic.context.summaries.reprs import label
from kimi_magic.context.walker import type_name
from kimi_magic.core.text import clip, count

__all__ = ["describe"]

MOST_TABLES = 20
MOST_COLUMNS = 12
PATIENCE = 0.1  # seconds for a file that another program writes
_TABLES = (
    "SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view') "
    "AND name NOT LIKE 'sqlite!_%' ESCAPE '!' ORDER BY name"
)


def describe(value: Any, limit: int, detail: Detail) -> str | None:
    name = type_name(value)
    if issubclass(type(value), sqlite3.Connection):
        return fitted_lines([f"sqlite3 {name}", *_of_sqlite(value)], limit)
    if hasattr(type(value), "sync_engine"):
        return describe(value.sync_engine, limit, detail)
    if hasattr(type(value), "create_all"):
        return fitted_lines(list(_metadata(value)), limit)
    if hasattr(type(value), "primary_key") and hasattr(type(value), "foreign_keys"):
        return fitted_lines([f"sqlalchemy Table {_table(value)}"], limit)
    if hasattr(type(value), "identity_map") or hasattr(type(value), "expunge_all"):
        return fitted_lines(list(_session(value, detail)), limit)
    heading = phrase(f"sqlalchemy {name}", *_state(value))
    return fitted_lines(list(_engine(heading, attribute(value, "engine"), detail)), limit)


def _state(connection: Any) -> Iterator[str]:
    if attribute(connection, "closed") is True:
        yield "closed"
    if (within := attribute(connection, "in_transaction")) is not None and within():
        yield "in a transaction"


def _engine(heading: str, engine: Any, detail: Detail) -> Iterator[str]:
    if engine is None:
        yield heading
        return
    url, dialect = engine.url, engine.dialect
    where = _place(url) if detail.values == "rows" else None
    yield phrase(heading, f"{dialect.name} by the driver {dialect.driver}", where)
    if dialect.name != "sqlite":
        yield "its tables were not asked for: that opens a connection"
        return
    yield from _sqlite_tables(engine, url.database)


def _place(url: Any) -> str:
    """Write where a database is; passwords, and the options that may hold one, are left out."""
    host = f"{url.host}{f':{url.port}' if url.port else ''}" if url.host else ""
    user = f"{url.username}@" if url.username else ""
    path = f"/{url.database}" if host and url.database else url.database or ""
    return clip(f"{user}{host}{path}" or "in memory", 200)


def _sqlite_tables(engine: Any, database: str | None) -> Iterator[str]:
    """List the tables of a file, or of memory that a connection holds already."""
    if database and database != ":memory:" and not database.startswith("file:"):
        path = Path(database)
        if not path.is_file():
            yield "there is no such file yet"
            return
        # Not by the engine: its listeners and its log would tell of it.
        uri = f"{path.absolute().as_uri()}?mode=ro"
        try:
            with closing(sqlite3.connect(uri, uri=True, timeout=PATIENCE)) as connection:
                yield from list(_of_sqlite(connection))
        except sqlite3.Error as error:
            yield f"its tables cannot be read now ({error})"
        return
    for connection in _held(engine):
        try:
            found = list(_of_sqlite(connection))
        except sqlite3.Error:  # of another thread
            continue
        yield from found
        return
    yield "no connection is open"


def _held(engine: Any) -> Iterator[Any]:
    """Yield the connections that the pool has; the pool itself would make one, or roll it back."""
    own = vars(engine.pool)
    records = list(own.get("_all_conns") or ())
    if "connection" in own:
        records.append(own["connection"])
    for record in records:
        for name in ("driver_connection", "dbapi_connection"):
            found = attribute(record, name)
            if issubclass(type(found), sqlite3.Connection):
                yield found
                break
        else:
            if issubclass(type(record), sqlite3.Connection):
                yield record


def _of_sqlite(connection: sqlite3.Connection) -> Iterator[str]:
    try:
        cursor = connection.cursor()
        cursor.row_factory = None
        tables = cursor.execute(_TABLES).fetchall()
    except sqlite3.ProgrammingError as error:
        yield "closed" if "closed" in str(error) else "used by another thread"
        return
    views = sum(kind == "view" for _, kind in tables)
    counts = [count(len(tables) - views, "table"), *([count(views, "view")] if views else [])]
    yield ", ".join(counts)
    for name, kind in tables[:MOST_TABLES]:
        escaped = str(name).replace('"', '""')
        columns = cursor.execute(f'PRAGMA table_info("{escaped}")').fetchall()
        keys = {
            row[3]: f" → {row[2]}"
            for row in cursor.execute(f'PRAGMA foreign_key_list("{escaped}")')
        }
        said = (
            f"{column[1]} {column[2]}".strip() + (" key" if column[5] else "")
            + keys.get(column[1], "")
            for column in columns
        )  # fmt: skip
        of = listed(said, len(columns), most=MOST_COLUMNS)
        yield f"- {label(name)}{' (view)' if kind == 'view' else ''}: {of}"
    if len(tables) > MOST_TABLES:
        rest = [name for name, _ in tables[MOST_TABLES:]]
        yield f"- … {len(rest):,} more: {listed(rest, most=20)}"


def _metadata(value: Any) -> Iterator[str]:
    yield f"sqlalchemy {type_name(value)} of {count(len(value.tables), 'table')}"
    for table in islice(value.tables.values(), MOST_TABLES):
        yield f"- {_table(table)}"
    if (left := len(value.tables) - MOST_TABLES) > 0:
        yield f"- … {left:,} more"


def _table(table: Any) -> str:
    said = []
    columns = list(table.columns)
    for column in columns[: MOST_COLUMNS * 2]:
        text = f"{clip(str(column.name), 60)} {clip(str(attribute(column, 'type')), 40)}"
        text += " key" if column.primary_key else ""
        for key in islice(column.foreign_keys, 1):
            text += f" → {attribute(key, 'target_fullname')}"
        said.append(text)
    return f"{clip(str(table.fullname), 80)}: {listed(said, len(columns), most=MOST_COLUMNS * 2)}"


def _session(value: Any, detail: Detail) -> Iterator[str]:
    inner = attribute(value, "registry")
    session = inner() if inner is not None and inner.has() else value
    counts = [
        f"{len(found):,} {what}"
        for what in ("new", "dirty", "deleted")
        if (found := attribute(session, what))
    ]
    loaded = len(attribute(session, "identity_map") or ())
    heading = phrase(
        f"sqlalchemy {type_name(value)}",
        *_state(session),
        count(loaded, "loaded object"),
        *counts,
    )
    yield from _engine(heading, attribute(session, "bind.engine"), detail)
