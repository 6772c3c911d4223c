"""The tables of the journal, as ``docs/journal.md`` documents them."""

from __future__ import annotations

from typing import Literal

__all__ = ["APPLICATION_ID", "FULL_TEXT", "PINS", "TABLES", "VERSION", "State"]

State = Literal["running", "done", "failed", "stopped", "lost"]
"""The state of a turn; ``lost``: its kernel ended before it did."""

APPLICATION_ID = 0x6B696D69  # "kimi": another program's file has none, or another
VERSION = 1  # PRAGMA user_version

# Times are seconds of Unix time. A turn that is under way has its record as it was before the
# first request, and what came since in fragments. Each text is stored once: the views read it out
# of the records.
TABLES = """
CREATE TABLE chats (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given again, also after a deletion
    notebook TEXT NOT NULL,     -- its path; the working folder where that is not known
    name TEXT NOT NULL,
    began REAL NOT NULL,
    ended REAL                  -- when it was reset: it is not offered again
);
CREATE INDEX chats_by_notebook ON chats (notebook, name, began);

CREATE TABLE records (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- the N of `%kimi show N`
    chat INTEGER REFERENCES chats (id),
    notebook TEXT NOT NULL,
    kernel TEXT NOT NULL,       -- who writes it: host, process id, and a word of its own
    state TEXT NOT NULL,        -- running, done, failed, stopped, lost
    started REAL NOT NULL,
    record TEXT NOT NULL        -- JSON, see docs/turn.md
);
CREATE INDEX records_by_chat ON records (chat);
CREATE INDEX records_by_time ON records (started);
CREATE INDEX records_running ON records (state) WHERE state = 'running';

CREATE TABLE fragments (
    record INTEGER NOT NULL REFERENCES records (id),
    place INTEGER NOT NULL,
    data TEXT NOT NULL,         -- JSON
    PRIMARY KEY (record, place)
) WITHOUT ROWID;

CREATE VIEW turns AS SELECT
    r.id, r.chat AS chat_id, c.name AS chat, r.notebook, r.state, r.started,
    datetime(r.started, 'unixepoch') AS started_utc,
    json_extract(r.record, '$.endpoint.name') AS endpoint,
    json_extract(r.record, '$.model') AS model,
    json_extract(r.record, '$.cell') AS cell,
    json_extract(r.record, '$.prompt') AS prompt,
    (SELECT group_concat(json_extract(p.value, '$.text'), char(10, 10))
        FROM json_each(r.record, '$.steps') AS s, json_each(s.value, '$.reasoning_parts') AS p
    ) AS reasoning,
    json_extract(r.record, '$.steps[#-1].text') AS answer,
    json_extract(r.record, '$.finish_reason') AS finish_reason,
    json_extract(r.record, '$.failure.message') AS failure,
    coalesce(json_extract(r.record, '$.usage.prompt_tokens'), 0) AS prompt_tokens,
    coalesce(json_extract(r.record, '$.usage.completion_tokens'), 0) AS completion_tokens,
    coalesce(json_extract(r.record, '$.usage.reasoning_tokens'), 0) AS reasoning_tokens,
    coalesce(json_extract(r.record, '$.usage.cached_tokens'), 0) AS cached_tokens,
    coalesce(json_extract(r.record, '$.usage.cost'), 0) AS cost,
    coalesce(json_extract(r.record, '$.usage.seconds'), 0) AS seconds,
    json_array_length(r.record, '$.steps') AS steps
FROM records AS r LEFT JOIN chats AS c ON c.id = r.chat;

CREATE VIEW steps AS SELECT
    r.id AS turn, s.key + 1 AS step,
    (SELECT group_concat(json_extract(p.value, '$.text'), '')
        FROM json_each(s.value, '$.reasoning_parts') AS p) AS reasoning,
    json_extract(s.value, '$.text') AS text,
    json_extract(s.value, '$.finish_reason') AS finish_reason,
    json_extract(s.value, '$.timings.started') AS started,
    json_extract(s.value, '$.timings.first_token') AS first_token,
    json_extract(s.value, '$.timings.first_answer') AS first_answer,
    coalesce(json_extract(s.value, '$.usage.prompt_tokens'), 0) AS prompt_tokens,
    coalesce(json_extract(s.value, '$.usage.completion_tokens'), 0) AS completion_tokens,
    coalesce(json_extract(s.value, '$.usage.reasoning_tokens'), 0) AS reasoning_tokens,
    coalesce(json_extract(s.value, '$.usage.seconds'), 0) AS seconds
FROM records AS r, json_each(r.record, '$.steps') AS s;

CREATE VIEW tool_calls AS SELECT
    r.id AS turn, s.key + 1 AS step, c.key + 1 AS call,
    json_extract(c.value, '$.name') AS name,
    json_extract(c.value, '$.arguments') AS arguments,
    json_extract(s.value, '$.tool_results[' || c.key || '].content') AS result,
    json_extract(s.value, '$.tool_results[' || c.key || '].error') AS error,
    json_extract(s.value, '$.tool_results[' || c.key || '].seconds') AS seconds
FROM records AS r, json_each(r.record, '$.steps') AS s, json_each(s.value, '$.tool_calls') AS c;
"""

# Where SQLite has FTS5. Without content of its own, the index takes the texts but does not store
# them a second time; a row is deleted by giving its texts once more.
FULL_TEXT = """
CREATE VIRTUAL TABLE turn_texts USING fts5 (prompt, reasoning, answer, content = '');
"""

# Made when the first pin is kept; an older kimi-magic ignores it.
PINS = """
CREATE TABLE IF NOT EXISTS mcp_pins (
    owner TEXT NOT NULL,        -- the notebook; for the start of a server, the file that names it
    server TEXT NOT NULL,
    tool TEXT NOT NULL,         -- its name as the server lists it; empty for the server's start
    hash TEXT NOT NULL,         -- SHA-256, of name, description and schema
    shown TEXT NOT NULL,        -- the text that a person agreed to, without secrets
    PRIMARY KEY (owner, server, tool)
) WITHOUT ROWID;
"""
