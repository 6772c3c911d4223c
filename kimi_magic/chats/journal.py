"""The journal as its readers see it: every turn that was kept, of all notebooks."""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from kimi_magic.chats.chat import Chat, ChatTurn, Place
from kimi_magic.chats.journal_file import Deleted, JournalError, JournalFile
from kimi_magic.chats.journal_fragments import recovered
from kimi_magic.chats.journal_search import Query, find, moment, texts_of
from kimi_magic.core.errors import KimiError
from kimi_magic.core.interrupts import whole_imports
from kimi_magic.core.reply import Reply
from kimi_magic.core.shown import Shown, short_html, short_repr
from kimi_magic.core.text import count
from kimi_magic.core.turn_record import VERSION

__all__ = ["Forgotten", "Journal", "StoredChat", "StoredTurn", "replies"]

MOST_SECONDS = 9e9  # of Unix time: pandas counts nanoseconds in 64 bits
LONG_CHAT = 200  # turns
TRIES = 10  # to write the file anew, 0.2 seconds apart
logger = logging.getLogger("kimi_magic")

UNREADABLE = "This is no record of a turn: {}."
LEFT_OUT = "Turn %s of the journal is left out: %s"
PAGE = 50  # turns that are read at a time: in between, no writer waits


class StoredTurn(NamedTuple):
    """A turn as it lies in the journal."""

    number: int
    chat: str | None
    notebook: str
    state: str
    started: float
    record: Any  # JSON, as it should be
    fragments: tuple[str, ...] = ()  # of a turn that is under way, or was when its kernel ended

    def __repr__(self) -> str:
        return short_repr(self)

    def _repr_html_(self) -> str:
        return short_html(self)

    def _facts(self) -> Iterator[tuple[str, Any]]:
        for name in ("number", "chat", "notebook", "state", "started"):
            yield name, getattr(self, name)

    def reply(self) -> Reply:
        """Read the record; of a turn that has not ended, with what has come so far.

        Raises
        ------
        KimiError
            It is none, or one that a newer version wrote.
        """
        data = self._data()
        try:
            reply = Reply.from_dict(data)
            if self.state != "running":
                return reply
            return Reply.from_dict(recovered(reply.record, self.fragments).to_dict())
        except (TypeError, AttributeError, RecursionError):
            raise KimiError(UNREADABLE.format("its fields do not fit")) from None

    def texts(self) -> tuple[str, str]:
        """Return the prompt and the answer, without a reading of the whole record.

        Raises
        ------
        KimiError
            As for ``reply``.
        """
        data = self._data()
        if not isinstance(data.get("version"), int) or data["version"] > VERSION:
            self.reply()
        prompt, _, answers = texts_of(data)
        return prompt, answers[-1] if answers else ""

    def _data(self) -> dict[str, Any]:
        try:
            data = json.loads(self.record)
        except (ValueError, TypeError, RecursionError):
            raise KimiError(UNREADABLE.format("it is not JSON")) from None
        if not isinstance(data, dict):
            raise KimiError(UNREADABLE.format("it is not an object"))
        return data


@dataclass(frozen=True, slots=True, repr=False)
class StoredChat(Shown):
    """A conversation in the journal: its row, its turns, the time of the latest."""

    row: int
    name: str
    turns: int
    latest: float
    kernel: str  # that made the latest turn


class Forgotten(NamedTuple):
    """The extent of a deletion."""

    turns: int
    chats: int  # of which no turn is left
    bytes: int
    under_way: int  # turns that stay
    is_clean: bool  # nothing of them is left in the files

    def __repr__(self) -> str:
        return short_repr(self)

    def _repr_html_(self) -> str:
        return short_html(self)


class Journal:
    """The turns that were kept.

    Attributes
    ----------
    path : Path or None
        The file; None where no turns are kept.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def turns(
        self,
        words: str | Iterable[str] | None = None,
        *,
        chat: str | None = None,
        since: Any = None,
        notebook: str | Path | None = None,
    ) -> Iterator[Reply]:
        """Yield the replies of turns that are over, the newest last.

        They are read a few at a time. Each has its own messages, without those of earlier turns.

        Parameters
        ----------
        words : str or iterable of str, optional
            Words that occur in prompt, reasoning or answer, or texts.
        chat : str, optional
        since : str, datetime, date or timedelta, optional
            ``"2d"``, ``"3h"``, or a day as in ``"2026-11-01"``.
        notebook : str or Path, optional
            The path of a notebook.

        Raises
        ------
        KimiError
            The file cannot be read.
        """
        query = Query.of(
            words,
            chat=chat,
            since=None if since is None else moment(since),
            notebook=None if notebook is None else str(Path(notebook).expanduser().resolve()),
            running=False,
        )
        yield from replies(self.stored(query))

    @whole_imports()
    def to_pandas(self) -> Any:
        """Return the view ``turns`` as a ``pandas.DataFrame``, its times in UTC.

        Raises
        ------
        KimiError
            pandas is not installed, or the file cannot be read.
        """
        try:
            import pandas as pd
        except ImportError:
            raise KimiError(
                "pandas is not installed: install it with `pip install pandas`, or take "
                "kimi.journal.turns()."
            ) from None
        with self._open() as file:
            columns, rows = _view(file.connection) if file else ([], [])
        frame = pd.DataFrame(rows, columns=columns or None)
        if columns:
            started = pd.to_numeric(frame["started"], errors="coerce")
            # Earlier pandas raise for a number that is no date, whatever errors= says.
            started = started.where(started.abs() < MOST_SECONDS)
            frame["started"] = pd.to_datetime(started, unit="s", utc=True, errors="coerce")
        return frame

    def find(self, query: Query) -> Sequence[int]:
        """Return the numbers of the turns that a query names, oldest first."""
        with self._open() as file:
            return find(file.connection, query) if file else []

    def stored(self, query: Query) -> Iterator[StoredTurn]:
        """Yield the turns that a query names as they lie in the file, oldest first."""
        yield from self.numbered(self.find(query))

    def numbered(self, numbers: Iterable[int]) -> Iterator[StoredTurn]:
        """Yield the turns of these numbers as they lie in the file; those that are gone are not."""
        rest = iter(numbers)
        while page := list(islice(rest, PAGE)):
            marks = ", ".join("?" * len(page))
            rows = self._rows(f"{_TURNS} WHERE r.id IN ({marks}) ORDER BY r.id", page)
            for turn in (StoredTurn(*row) for row in rows):
                yield self._whole(turn) if turn.state == "running" else turn

    def turn(self, number: int) -> StoredTurn:
        """Return the turn of a number.

        Raises
        ------
        KimiError
            There is none.
        """
        for found in self.numbered([number]):
            return found
        raise KimiError(f"The journal has no turn {number}: `%kimi log` lists its latest turns.")

    def chats(self, notebook: str, *, kernel: str = "", recover: bool = False) -> list[StoredChat]:
        """Return the chats of a notebook that may go on, the one with the latest turn first.

        Of several with one name, that is the one that began last.

        Parameters
        ----------
        kernel : str
            Leave out the chats that this kernel goes on with.
        recover : bool
            Make whole turns of those whose kernel has ended, before that.
        """
        found: dict[str, StoredChat] = {}
        with self._open(write=recover) as file:
            if file is None:
                return []
            if recover:
                with suppress(KimiError):
                    file.recover()
            for row in file.connection.execute(_CHATS, [notebook, kernel]).fetchall():
                chat = StoredChat(*row)
                if chat.name not in found:
                    found[chat.name] = replace(chat, turns=_length(file.connection, chat))
        return sorted(found.values(), key=lambda chat: chat.latest, reverse=True)

    def names(self, notebook: str) -> list[str]:
        """Return the names of a notebook's chats."""
        query = "SELECT DISTINCT CAST(name AS TEXT) FROM chats WHERE notebook = ?"
        rows = self._rows(query, [notebook])
        return [name for (name,) in rows]

    def turns_of(self, chat: StoredChat) -> Iterator[StoredTurn]:
        """Yield the turns of a chat in their order."""
        numbers = self._rows("SELECT id FROM records WHERE chat = ? ORDER BY id", [chat.row])
        yield from self.numbered(number for (number,) in numbers)

    def __repr__(self) -> str:
        if self.path is None:
            return "<Journal: off, no turns are kept>"
        try:
            ((number,),) = self._rows("SELECT count(*) FROM records", []) or [(0,)]
            size = self.path.stat().st_size if self.path.exists() else 0
        except (KimiError, OSError) as error:
            return f"<Journal {self.path}: {str(error).partition(chr(10))[0]}>"
        return f"<Journal {self.path}: {count(number, 'turn')}, {size / 1e6:,.1f} MB>"

    def recover(self) -> None:
        """Make whole turns of those whose kernel has ended; a fault leaves them as they are."""
        with suppress(KimiError), self._open(write=True) as file:
            if file:
                file.recover()

    def forget(self, query: Query) -> Forgotten:
        """Delete the turns that a query names for good, but for those that are under way.

        Raises
        ------
        KimiError
            They could not be deleted.
        """
        self.recover()
        named = self.find(query)
        over = self.find(replace(query, running=False))
        with self._open(write=True) as file:
            if file is None:
                return Forgotten(0, 0, 0, 0, is_clean=True)
            run = file.connection.execute
            before = run("SELECT count(*) FROM chats").fetchone()[0] if over else 0
            deleted = file.delete(over) if over else Deleted(0, 0)
            after = run("SELECT count(*) FROM chats").fetchone()[0] if over else 0
            is_clean = _rewrite(file.connection)
        under_way = len(named) - len(over)
        return Forgotten(deleted.turns, before - after, deleted.bytes, under_way, is_clean)

    def of_sweep(self, marks: Collection[str], notebook: str) -> Iterator[StoredTurn]:
        """Yield the turns that a notebook's sweeps brought to an answer, the latest of each mark.

        Raises
        ------
        KimiError
            The file cannot be read.
        """
        wanted = frozenset(marks)
        found = {mark: number for number, mark in self._rows(_SWEPT, [notebook]) if mark in wanted}
        yield from self.numbered(sorted(found.values()))

    def _whole(self, turn: StoredTurn) -> StoredTurn:
        rows = self._rows(
            "SELECT data FROM fragments WHERE record = ? ORDER BY place", [turn.number]
        )
        return turn._replace(fragments=tuple(text for (text,) in rows))

    def _rows(self, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        with self._open() as file:
            return file.connection.execute(sql, values).fetchall() if file else []

    @contextmanager
    def _open(self, *, write: bool = False) -> Iterator[JournalFile | None]:
        """Open the file; None where there is none."""
        try:
            opened = None if self.path is None else JournalFile.open(self.path, create=False)
        except JournalError as error:
            if error.trouble != "missing":
                raise
            opened = None
        if opened is None:
            yield None
            return
        with closing(opened) as file:
            file.connection.text_factory = _decoded
            if not write:
                file.connection.execute("PRAGMA query_only = 1")
            try:
                yield file
            except sqlite3.Error as error:
                raise KimiError(f"The journal {self.path} cannot be read: {error}.") from None


def _rewrite(file: sqlite3.Connection) -> bool:
    """Write the file anew; return False where another program keeps it from that.

    Pages that SQLite has rearranged hold copies of rows that were moved and deleted later.
    """
    for _ in range(TRIES):
        with suppress(sqlite3.OperationalError):
            file.execute("VACUUM")
            busy, *_ = file.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if not busy:
                return True
        time.sleep(0.2)
    return False


def replies(turns: Iterable[StoredTurn]) -> Iterator[Reply]:
    """Yield the replies of stored turns; a line tells of each that cannot be read."""
    for turn in turns:
        try:
            reply = turn.reply()
        except KimiError as error:
            logger.warning(LEFT_OUT, turn.number, str(error).partition("\n")[0])
        else:
            yield reply


# Rows of a sweep are in no chat. The first test spares most records a reading of their JSON.
_SWEPT = """
SELECT id, json_extract(record, '$.sweep') FROM records
WHERE chat IS NULL AND notebook = ? AND state = 'done'
    AND CASE WHEN instr(record, '"sweep":') THEN json_valid(record) ELSE 0 END
ORDER BY id
"""
# In SQLite a column holds values of any type: another program may have written what fits none.
_TURNS = """
SELECT r.id, CAST(c.name AS TEXT), CAST(r.notebook AS TEXT), CAST(r.state AS TEXT),
    CAST(r.started AS REAL), r.record
FROM records AS r LEFT JOIN chats AS c ON c.id = r.chat
"""
_CHATS = """
SELECT c.id, CAST(c.name AS TEXT), (SELECT count(*) FROM records WHERE chat = c.id),
    CAST(r.started AS REAL), CAST(r.kernel AS TEXT)
FROM chats AS c JOIN records AS r ON r.id = (SELECT max(id) FROM records WHERE chat = c.id)
WHERE c.notebook = ? AND c.ended IS NULL AND r.kernel != ?
ORDER BY c.began DESC, c.id DESC
"""
_PLACES = """
SELECT json_extract(record, '$.cell'), json_extract(record, '$.run'),
    json_extract(record, '$.fresh')
FROM records WHERE chat = ? AND json_valid(record) AND json_array_length(record, '$.steps') > 0
ORDER BY id
"""


def _length(file: sqlite3.Connection, chat: StoredChat) -> int:
    """Return how many turns a chat has, without those that others took the place of.

    In a long chat those count as well.
    """
    if chat.turns > LONG_CHAT:
        return chat.turns
    again = Chat(chat.name, Reply)
    for cell, run, fresh in file.execute(_PLACES, [chat.row]):
        again.append(ChatTurn("", Reply(), Place(cell or "", run or "")), fresh=bool(fresh))
    return len(again.turns)


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _view(file: sqlite3.Connection) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Return the columns and the rows of the view ``turns``, of each record that it can read."""
    every = "SELECT * FROM turns WHERE id IN (SELECT id FROM records WHERE json_valid(record))"
    try:
        found = file.execute(every)
        return [name for name, *_ in found.description], found.fetchall()
    except sqlite3.OperationalError:  # JSON of another form: SQLite refuses the whole query
        pass
    columns = [name for name, *_ in file.execute("SELECT * FROM turns LIMIT 0").description]
    rows: list[tuple[Any, ...]] = []
    for number in find(file, Query()):
        try:
            rows += file.execute("SELECT * FROM turns WHERE id = ?", [number])
        except sqlite3.OperationalError:
            logger.warning(
                "Turn %s of the journal is left out: its record is of another form.", number
            )
    return columns, rows
