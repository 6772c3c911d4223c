"""The journal as its readers see it: every turn that was kept, of all notebooks."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from kimi_magic.chats.journal_search import Query, find, moment, texts_of
from kimi_magic.core.errors import KimiError
from kimi_magic.core.interrupts import whole_imports
from kimi_magic.core.reply import Reply
from kimi_magic.core.text import count
from kimi_magic.core.turn_record import VERSION

__all__ = ["Journal", "StoredChat", "StoredTurn"]

logger = logging.getLogger("kimi_magic")

UNREADABLE = "This is no record of a turn: {}."
LEFT_OUT = "Turn %s of the journal is left out: %s"
PAGE = 50  # turns that are read at a time: in between, no writer waits
PATIENCE = 5.0  # seconds to wait for a writer


class StoredTurn(NamedTuple):
    """A turn as it lies in the journal."""

    number: int
    chat: str | None
    notebook: str
    state: str
    started: float
    record: Any  # JSON, as it should be

    def reply(self) -> Reply:
        """Read the record.

        Raises
        ------
        KimiError
            It is none, or one that a newer version wrote.
        """
        data = self._data()
        try:
            return Reply.from_dict(data)
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
        prompt, _, answer = texts_of(data)
        return prompt, answer

    def _data(self) -> dict[str, Any]:
        try:
            data = json.loads(self.record)
        except (ValueError, TypeError, RecursionError):
            raise KimiError(UNREADABLE.format("it is not JSON")) from None
        if not isinstance(data, dict):
            raise KimiError(UNREADABLE.format("it is not an object"))
        return data


@dataclass(frozen=True, slots=True)
class StoredChat:
    """A conversation in the journal: its row, its turns, the time of the latest."""

    row: int
    name: str
    turns: int
    latest: float
    kernel: str  # that made the latest turn


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
        for turn in self.stored(query):
            try:
                reply = turn.reply()
            except KimiError as error:
                line = str(error).partition("\n")[0]
                logger.warning(LEFT_OUT, turn.number, line)
            else:
                yield reply

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
            columns, rows = _view(file) if file else ([], [])
        frame = pd.DataFrame(rows, columns=columns or None)
        if columns:
            frame["started"] = pd.to_datetime(frame["started"], unit="s", utc=True)
        return frame

    def find(self, query: Query) -> Sequence[int]:
        """Return the numbers of the turns that a query names, oldest first."""
        with self._open() as file:
            return find(file, query) if file else []

    def stored(self, query: Query) -> Iterator[StoredTurn]:
        """Yield the turns that a query names as they lie in the file, oldest first."""
        yield from self.numbered(self.find(query))

    def numbered(self, numbers: Iterable[int]) -> Iterator[StoredTurn]:
        """Yield the turns of these numbers as they lie in the file; those that are gone are not."""
        rest = iter(numbers)
        while page := list(islice(rest, PAGE)):
            marks = ", ".join("?" * len(page))
            rows = self._rows(f"{_TURNS} WHERE r.id IN ({marks}) ORDER BY r.id", page)
            yield from (StoredTurn(*row) for row in rows)

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

    def chats(self, notebook: str, name: str | None = None) -> list[StoredChat]:
        """Return the chats of a notebook that may go on, the one with the latest turn first.

        Of several with one name, that is the one that began last.
        """
        found: dict[str, StoredChat] = {}
        for row in self._rows(_CHATS, [notebook, name, name]):
            chat = StoredChat(*row)
            found.setdefault(chat.name, chat)
        return sorted(found.values(), key=lambda chat: chat.latest, reverse=True)

    def turns_of(self, chat: StoredChat) -> Iterator[StoredTurn]:
        """Yield the turns of a chat that are over, in their order."""
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

    def _rows(self, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        with self._open() as file:
            return file.execute(sql, values).fetchall() if file else []

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection | None]:
        """Open the file for reading; None where there is none."""
        if self.path is None or not self.path.exists():
            yield None
            return
        try:
            with closing(sqlite3.connect(self.path, timeout=PATIENCE)) as file:
                file.execute("PRAGMA query_only = 1")
                file.text_factory = _decoded
                yield file
        except sqlite3.Error as error:
            raise KimiError(f"The journal {self.path} cannot be read: {error}.") from None


_TURNS = """
SELECT r.id, c.name, r.notebook, r.state, r.started, r.record
FROM records AS r LEFT JOIN chats AS c ON c.id = r.chat
"""
_CHATS = """
SELECT c.id, c.name, (SELECT count(*) FROM records WHERE chat = c.id), r.started, r.kernel
FROM chats AS c JOIN records AS r ON r.id = (SELECT max(id) FROM records WHERE chat = c.id)
WHERE c.notebook = ? AND c.ended IS NULL AND (? IS NULL OR c.name = ?)
ORDER BY c.began DESC, c.id DESC
"""


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
