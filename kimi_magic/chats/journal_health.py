"""The health of a journal's file, found out without changing it or waiting for long."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from kimi_magic.chats.journal_file import error_code, is_on_network, read_marks
from kimi_magic.chats.journal_schema import VERSION

__all__ = ["Health", "health_of"]

LONGEST_CHECK = 2.0  # seconds
BUSY = 0.5  # a turn that is being written takes less
STEPS = 10_000  # of SQLite's machine between two looks at the clock

Trouble = Literal["", "missing", "damaged", "foreign", "later", "locked", "read-only", "unreadable"]


@dataclass(frozen=True, slots=True)
class Health:
    """The state of a journal's file.

    Attributes
    ----------
    trouble : str
        Empty where there is none.
    said : str
        The words of SQLite or of the system about it.
    turns, size : int
        Turns in it, and bytes, with those of the write-ahead log.
    checked : bool
        False if there was time to check a part only.
    on_network : bool
        True if it is on a network file system.
    aside : int
        Damaged journals that were set aside beside it.
    """

    trouble: Trouble = ""
    said: str = ""
    turns: int = 0
    size: int = 0
    checked: bool = True
    on_network: bool = False
    aside: int = 0


def health_of(path: Path, seconds: float = LONGEST_CHECK) -> Health:
    """Look at a journal; the check of its pages ends after about ``seconds``."""
    try:
        name = f"{escape(path.stem)}.corrupt-*{escape(path.suffix)}"
        aside = len(list(path.parent.glob(name)))
        if not path.exists():
            return Health("missing", aside=aside)
        files = [path, Path(f"{path}-wal")]
        size = sum(file.stat().st_size for file in files if file.exists())
    except OSError as error:
        return Health("unreadable", error.strerror or type(error).__name__)
    if not size:  # created, and nothing was kept yet
        return Health(aside=aside)
    trouble: Trouble = ""
    said, turns, checked = "", 0, True
    try:
        uri = f"file:{quote(str(path.absolute()))}?mode=rw"
        with closing(
            sqlite3.connect(uri, uri=True, timeout=BUSY, isolation_level=None)
        ) as connection:
            trouble, turns, checked = _look(connection, seconds)
    except sqlite3.Error as error:
        said = str(error)
        trouble = _TROUBLES.get(error_code(error), "unreadable")
    except UnicodeDecodeError:  # SQLite's message quotes the damaged bytes
        trouble = "damaged"
    # On a file that it may only read, SQLite takes no lock for writing and reports no error.
    if not trouble and not all(os.access(place, os.W_OK) for place in (path, path.parent)):
        trouble = "read-only"
    return Health(trouble, said, turns, size, checked, is_on_network(path), aside)


def _look(connection: sqlite3.Connection, seconds: float) -> tuple[Trouble, int, bool]:
    """Return the trouble, the number of turns, and False if the check was cut short."""
    run = connection.execute
    marks = read_marks(connection)
    if marks.are_foreign:
        return "foreign", 0, True
    if marks.version > VERSION:
        return "later", 0, True
    if not any(marks):  # a kernel ended before it made the tables
        return "", 0, True
    turns = run("SELECT count(*) FROM records").fetchone()[0]
    checked, until = True, time.monotonic() + seconds
    connection.set_progress_handler(lambda: time.monotonic() > until, STEPS)
    try:
        found = run("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        if error_code(error) != sqlite3.SQLITE_INTERRUPT:
            raise
        checked = False
    else:
        if found != ("ok",):
            return "damaged", turns, True
    connection.set_progress_handler(None, 0)
    # Take the lock that the writing of a turn takes; nothing is written.
    run("BEGIN IMMEDIATE")
    run("ROLLBACK")
    return "", turns, checked


_TROUBLES: dict[int, Trouble] = {
    sqlite3.SQLITE_BUSY: "locked",
    sqlite3.SQLITE_LOCKED: "locked",
    sqlite3.SQLITE_CORRUPT: "damaged",
    sqlite3.SQLITE_NOTADB: "damaged",
    sqlite3.SQLITE_READONLY: "read-only",
}
