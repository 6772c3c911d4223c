"""Describe DuckDB: the tables of a connection, the columns of a relation that was not computed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from kimi_magic.context.summaries.detail import Detail
from kimi_magic.context.summaries.libraries.wording import (
    attribute,
    fitted_lines,
    hide_literals,
    listed,
    phrase,
)
from kimi_magic.context.summaries.reprs import label
from kimi_magic.context.summaries.tables import dtype_name
from kimi_magic.context.walker import type_name
from kimi_magic.core.text import clip, count
from kimi_magic.core.time_limit import USER_ERRORS

__all__ = ["describe"]

MOST_TABLES = 20
MOST_COLUMNS = 12
MAX_QUERY = 300
# What DuckDB has in its own files or in memory; the list of another database's tables comes from
# its server.
LOCAL = ("duckdb",)
_DATABASES = "SELECT database_name, path, type, readonly FROM duckdb_databases() WHERE NOT internal"
_TABLES = """SELECT database_name, schema_name, table_name, estimated_size, FALSE
FROM duckdb_tables() WHERE NOT internal UNION ALL
SELECT database_name, schema_name, view_name, NULL, TRUE FROM duckdb_views() WHERE NOT internal
ORDER BY 1, 2, 3"""
_COLUMNS = """SELECT database_name, schema_name, table_name, column_name, data_type
FROM duckdb_columns() WHERE NOT internal ORDER BY 1, 2, 3, column_index LIMIT 2000"""


def describe(value: Any, limit: int, detail: Detail) -> str | None:
    if type_name(value) == "DuckDBPyRelation":
        return _relation(value, limit, detail)
    try:
        # The connection itself may have a result that waits to be fetched, which a query ends.
        with value.cursor() as cursor:
            return fitted_lines(list(_connection(cursor, detail)), limit)
    except USER_ERRORS as error:
        closed = "closed" in str(error).lower()
        return f"duckdb connection, {'closed' if closed else 'its tables cannot be read now'}"


def _connection(cursor: Any, detail: Detail) -> Iterator[str]:
    databases = cursor.execute(_DATABASES).fetchall()
    if any(kind not in LOCAL for _, _, kind, _ in databases):
        names = [f"{name} ({kind})" for name, _, kind, _ in databases]
        yield f"duckdb connection to {listed(names)}; their tables were not asked for"
        return
    wheres = []
    for name, path, _, readonly in databases:
        where = (path if detail.values == "rows" else name) if path else "memory"
        wheres.append(f"{where}{' (read only)' if readonly else ''}")
    tables = cursor.execute(_TABLES).fetchall()
    columns = {
        key: [(row[3], row[4]) for row in rows]
        for key, rows in groupby(cursor.execute(_COLUMNS).fetchall(), lambda row: row[:3])
    }
    views = sum(table[4] for table in tables)
    counts = [count(len(tables) - views, "table"), *([count(views, "view")] if views else [])]
    # A cursor is a connection of its own; a registered frame is a temporary view.
    yield f"duckdb connection to {phrase(listed(wheres), *counts)} (temporary ones are not seen)"
    several = len({table[:2] for table in tables}) > 1
    for database, schema, name, rows, is_view in tables[:MOST_TABLES]:
        path = f"{database}.{schema}.{name}" if several else name
        size = "view" if is_view else f"about {count(rows, 'row')}"
        own = columns.get((database, schema, name), [])
        said = (f"{label(column)} {dtype_name(kind)}" for column, kind in own)
        yield f"- {label(path)}, {size}: {listed(said, len(own), most=MOST_COLUMNS)}"
    if len(tables) > MOST_TABLES:
        rest = [table[2] for table in tables[MOST_TABLES:]]
        yield f"- … {len(rest):,} more: {listed(rest, most=20)}"


def _relation(value: Any, limit: int, detail: Detail) -> str:
    lines = ["duckdb relation, lazy: it was not computed"]
    columns = [
        f"{label(name)} ({dtype_name(kind)})"
        for name, kind in zip(value.columns, value.types, strict=False)
    ]
    lines.append(f"{count(len(columns), 'column')}: {listed(columns, most=40, room=1000)}")
    query = attribute(value, "sql_query")
    text = query() if query is not None else ""
    if isinstance(text, str) and text:
        text = " ".join(text.split())
        text = text if detail.values == "rows" else hide_literals(text)
        lines.append(f"query: {clip(text, MAX_QUERY)}")
    return fitted_lines(lines, limit)
