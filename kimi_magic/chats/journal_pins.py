"""Agreements of a person to MCP servers and their tools, kept in the journal's file."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

from kimi_magic.chats.journal_file import JournalError, JournalFile
from kimi_magic.chats.journal_schema import PINS

__all__ = ["Pin", "Place", "keep_pin", "kept_pin"]

Place = tuple[str, str, str]
"""The owner, the server and the tool."""


class Pin(NamedTuple):
    """The hash of what a person agreed to, and its text as the person saw it."""

    hash: str
    shown: str


def kept_pin(path: Path, place: Place) -> Pin | None:
    """Return the pin kept at a place; None if there is none, or the file cannot be read."""
    query = "SELECT hash, shown FROM mcp_pins WHERE owner = ? AND server = ? AND tool = ?"
    with suppress(JournalError, sqlite3.Error), closing(JournalFile.open(path, create=False)) as f:
        row = f.connection.execute(query, place).fetchone()
        if row is not None and all(isinstance(each, str) for each in row):
            return Pin(*row)
    return None


def keep_pin(path: Path, place: Place, pin: Pin) -> None:
    """Keep a pin at a place, if the file can be written."""
    query = "INSERT OR REPLACE INTO mcp_pins VALUES (?, ?, ?, ?, ?)"
    with (
        suppress(JournalError, sqlite3.Error),
        closing(JournalFile.open(path)) as file,
        file.transaction(),
    ):
        file.connection.execute(PINS)
        file.connection.execute(query, (*place, *pin))
