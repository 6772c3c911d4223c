"""The journal's file: opened, migrated, and changed a turn at a time.

SQLite by Python's own module. Several kernels write to one file at once: each change is a short
transaction that takes the lock for writing at its beginning, so that none waits for another with a
lock in its hand.
"""

from __future__ import annotations

import json
import math
import os
import re
import sqlite3
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from kimi_magic.chats.journal_fragments import recovered
from kimi_magic.chats.journal_schema import APPLICATION_ID, FULL_TEXT, TABLES, VERSION, State
from kimi_magic.core.errors import KimiError
from kimi_magic.core.processes import has_ended
from kimi_magic.core.text import mend_surrogates, why_not_written
from kimi_magic.core.turn_record import TurnRecord

__all__ = [
    "Deleted",
    "JournalError",
    "JournalFile",
    "Marks",
    "error_code",
    "is_on_network",
    "read_marks",
    "set_aside",
]

BUSY = 1.0  # seconds that a statement waits for other writers
MAGIC = b"SQLite format 3\0"
ID_AT = 68  # of the application id in the file's header (SQLite's file format, 1.3)

_BUSY_CODES = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_CORRUPT_CODES = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
# SQLite's WAL needs memory that all writers share: on a file system of several hosts there is none
# (sqlite.org/wal.html). The names are those of Linux's mountinfo.
_NETWORK = re.compile(
    r"nfs\d?|cifs|smb\w*|9p|afs|ceph|glusterfs|lustre|gpfs|beegfs\w*|ncpfs|ocfs2|gfs2|orangefs"
    r"|fuse\.(?:sshfs|glusterfs|ceph\w*|s3fs|rclone|davfs2?|gcsfuse|beegfs)|davfs"
)


class JournalError(KimiError):
    """The journal cannot be read or written.

    Parameters
    ----------
    message : str
        For the reader of a notebook, in one or two lines.
    trouble : str
        ``corrupt``; ``foreign`` and ``later``, for files that stay as they are: another program's,
        a newer version's; ``full``, ``locked``, ``missing`` or ``other``.
    """

    def __init__(self, message: str, trouble: str = "other") -> None:
        super().__init__(message)
        self.trouble = trouble


class Marks(NamedTuple):
    """The marks of a database: those in its header, and the presence of tables."""

    application: int
    version: int
    has_tables: bool

    @property
    def are_foreign(self) -> bool:
        """True for another program's; a file that bears no mark at all is a beginning."""
        return self.application != APPLICATION_ID and any(self)


class Deleted(NamedTuple):
    """The extent of a deletion: turns, and bytes of their records."""

    turns: int
    bytes: int


class JournalFile:
    """An open journal, for one thread at a time.

    Attributes
    ----------
    path : Path
    connection : sqlite3.Connection
        In autocommit mode; changes belong into ``transaction()``.
    full_text : bool
        False where Python's SQLite has no FTS5.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self.connection = connection
        self.full_text = False
        self._inode = _inode(path)

    @classmethod
    def open(cls, path: Path, *, create: bool = True) -> JournalFile:
        """Open a journal and bring its tables to this version.

        Parameters
        ----------
        create : bool
            Make the file, and its folder, where there is none; only their owner may read them.

        Raises
        ------
        JournalError
            It cannot be opened, is damaged, or is no journal of ours.
        """
        with _told(path):
            if not path.exists():
                if not create:
                    raise JournalError(f"There is no journal at {path}.", "missing")
                _create(path)
            # Not created here: its mode would be open to others until it is changed.
            uri = f"file:{quote(str(path.absolute()))}?mode=rw"
            connection = sqlite3.connect(
                uri,
                uri=True,
                timeout=BUSY,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=0,  # each would keep the texts that were bound to it last
            )
            connection.text_factory = _decoded
            file = cls(path, connection)
            try:
                file._prepare()
            except sqlite3.DatabaseError as error:
                connection.close()
                if error_code(error) == sqlite3.SQLITE_NOTADB and not _bears_our_id(path):
                    raise _foreign(path) from None
                raise
            except BaseException:
                connection.close()
                raise
        return file

    def close(self) -> None:
        with suppress(sqlite3.Error):
            self.connection.close()

    @property
    def is_replaced(self) -> bool:
        """True if the path leads to another file by now, or to none."""
        return _inode(self.path) != self._inode

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make the changes of a block together, or none of them.

        Raises
        ------
        JournalError
            They could not be made.
        """
        with _told(self.path):
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self.connection.execute("ROLLBACK")
                raise

    # The methods from here to `recover` are called within a transaction.

    def add_chat(self, notebook: str, name: str, began: float) -> int:
        """Add a conversation; return its row's id."""
        values = (notebook, name, began)
        return self._insert("INSERT INTO chats (notebook, name, began) VALUES (?, ?, ?)", values)

    def has_chat(self, chat: int) -> bool:
        """Return True if a conversation is there: it may have been deleted."""
        return bool(self._rows("SELECT 1 FROM chats WHERE id = ?", (chat,)))

    def end_chat(self, chat: int, when: float) -> None:
        """Note that a conversation was reset."""
        self.connection.execute("UPDATE chats SET ended = ? WHERE id = ?", (when, chat))

    def add(
        self, data: Mapping[str, Any], *, chat: int | None, notebook: str, kernel: str, state: State
    ) -> int:
        """Add a turn; return its row's id.

        Parameters
        ----------
        data : mapping
            Its record, as `TurnRecord.to_dict` gives it, with its secrets masked.
        """
        row = self._insert(
            "INSERT INTO records (chat, notebook, kernel, state, started, record) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (chat, notebook, kernel, state, data.get("started", 0.0), self._text(data)),
        )
        if state != "running":
            self._index(row, data)
        return row

    def replace(self, row: int, data: Mapping[str, Any], *, state: State) -> None:
        """Put a turn's record in the place of the one that is there and of its fragments.

        Nothing happens where the turn was deleted.
        """
        self.connection.execute("DELETE FROM fragments WHERE record = ?", (row,))
        found = self._rows("SELECT state, record FROM records WHERE id = ?", (row,))
        if not found:
            return
        if found[0][0] != "running":  # another kernel took this one for dead
            self._unindex(row, found[0][1])
        query = "UPDATE records SET record = ?, state = ? WHERE id = ?"
        self.connection.execute(query, (self._text(data), state, row))
        if state != "running":
            self._index(row, data)

    def put_fragments(
        self, row: int, rows: Iterable[tuple[int, str]], *, instead_from: int | None = None
    ) -> None:
        """Write fragments of a turn at their places; with ``instead_from``, in place of the later.

        Nothing happens where the turn was deleted, or is no longer under way.
        """
        query = "SELECT 1 FROM records WHERE id = ? AND state = 'running'"
        if not self._rows(query, (row,)):
            return
        if instead_from is not None:
            query = "DELETE FROM fragments WHERE record = ? AND place >= ?"
            self.connection.execute(query, (row, instead_from))
        query = "INSERT OR REPLACE INTO fragments VALUES (?, ?, ?)"
        self.connection.executemany(query, ((row, place, _copied(text)) for place, text in rows))

    def recover(self) -> int:
        """Make whole records of the turns whose kernel has ended; return how many there were.

        Raises
        ------
        JournalError
        """
        query = (
            "SELECT id, CAST(kernel AS TEXT), CAST(started AS REAL), record "
            "FROM records WHERE state = 'running'"
        )
        with _told(self.path):
            now = time.time()
            ended = [row for row in self._rows(query) if has_ended(row[1], row[2], now)]
        if ended:
            with self.transaction():
                for row, _, _, text in ended:
                    self._recover(row, text)
        return len(ended)

    def delete(self, rows: Iterable[int]) -> Deleted:
        """Delete turns for good: nothing of them stays in the file.

        Raises
        ------
        JournalError
        """
        turns = size = 0
        with self.transaction():
            for row in rows:
                for state, record in self._rows(
                    "SELECT state, record FROM records WHERE id = ?", (row,)
                ):
                    text = record if isinstance(record, str) else ""  # of another program
                    turns, size = turns + 1, size + len(text.encode())
                    if state != "running":
                        self._unindex(row, text)
                    self.connection.execute("DELETE FROM fragments WHERE record = ?", (row,))
                    self.connection.execute("DELETE FROM records WHERE id = ?", (row,))
            unused = "NOT EXISTS (SELECT 1 FROM records WHERE chat = chats.id)"
            self.connection.execute(f"DELETE FROM chats WHERE {unused}")  # noqa: S608 - a constant
            if turns and self.full_text:
                # A deleted row's words stay in the index until its segments are merged.
                self.connection.execute("INSERT INTO turn_texts (turn_texts) VALUES ('optimize')")
        with suppress(sqlite3.Error):  # its pages of before are in the write-ahead log
            self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return Deleted(turns, size)

    def _recover(self, row: int, text: str) -> None:
        query = "SELECT data FROM fragments WHERE record = ? ORDER BY place"
        fragments = [data for (data,) in self._rows(query, (row,))]
        try:
            record = recovered(TurnRecord.from_dict(json.loads(text)), fragments)
        except (ValueError, KimiError):  # somebody else wrote it: it stays as it is
            values = ("lost", row)
            self.connection.execute("UPDATE records SET state = ? WHERE id = ?", values)
        else:
            # A kernel may have ended, or recovered it, since the turns were listed.
            query = "SELECT 1 FROM records WHERE id = ? AND state = 'running'"
            if self._rows(query, (row,)):
                self.replace(row, record.to_dict(), state="lost")

    def _prepare(self) -> None:
        run = self.connection.execute
        marks = read_marks(self.connection)
        if marks.are_foreign:
            raise _foreign(self.path)
        if marks.version > VERSION:
            raise JournalError(
                f"The journal is off: a newer kimi-magic wrote {self.path}. "
                "`pip install -U kimi-magic` updates this one.",
                "later",
            )
        if not marks.has_tables:
            # A turn of average length leaves half a page empty; a deletion makes the file smaller.
            run("PRAGMA page_size = 2048")
            run("PRAGMA auto_vacuum = FULL")
        run("PRAGMA secure_delete = ON")
        run("PRAGMA synchronous = NORMAL")
        self._choose_journal_mode()
        self.full_text = _knows_full_text(self.connection)
        if marks.version < VERSION or marks.application != APPLICATION_ID:
            with self.transaction():
                self._migrate()
            run("PRAGMA wal_checkpoint")  # the file itself is to bear our id
        if self.full_text and not self._rows(_HAS_INDEX):
            with self.transaction():
                self._make_index()

    def _choose_journal_mode(self) -> None:
        wanted = "delete" if is_on_network(self.path) else "wal"
        (mode,) = self.connection.execute("PRAGMA journal_mode").fetchone()
        if mode != wanted:
            # While another kernel uses the file, it stays as it is.
            with suppress(sqlite3.OperationalError):
                self.connection.execute(f"PRAGMA journal_mode = {wanted}").fetchone()

    def _migrate(self) -> None:
        # Another kernel may have done it while this one waited for the lock.
        (version,) = self.connection.execute("PRAGMA user_version").fetchone()
        for migration in MIGRATIONS[version:]:
            migration(self)
        self.connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        self.connection.execute(f"PRAGMA user_version = {VERSION}")

    def _make_index(self) -> None:
        """Make the full-text index, which a Python without FTS5 had left out."""
        if self._rows(_HAS_INDEX):
            return
        self._run_script(FULL_TEXT)
        turns = self.connection.execute("SELECT id, record FROM records WHERE state != 'running'")
        for row, text in turns:
            with suppress(*_NO_RECORD):
                self._index(row, json.loads(text))

    def _index(self, row: int, data: Mapping[str, Any]) -> None:
        """Put a turn into the index, as its record is stored."""
        if self.full_text:
            query = "INSERT INTO turn_texts (rowid, prompt, reasoning, answer) VALUES (?, ?, ?, ?)"
            self.connection.execute(query, (row, *map(_copied, _texts(data))))

    def _unindex(self, row: int, text: str) -> None:
        """Take a turn out of the index, which wants to be told what it was given."""
        if not self.full_text or not self._rows("SELECT 1 FROM turn_texts WHERE rowid = ?", (row,)):
            return
        query = (
            "INSERT INTO turn_texts (turn_texts, rowid, prompt, reasoning, answer) "
            "VALUES ('delete', ?, ?, ?, ?)"
        )
        try:
            texts = [*map(_copied, _texts(json.loads(text)))]
        except _NO_RECORD:  # it was damaged since
            self.connection.execute("DROP TABLE turn_texts")
            self._make_index()
        else:
            self.connection.execute(query, (row, *texts))

    def _text(self, data: Mapping[str, Any]) -> str:
        """Return a record as JSON that SQLite reads: one that it cannot would break the views."""
        # Of all fields, only these can be nested too deeply.
        own = {name: data[name] for name in ("data", "parameters") if name in data}
        with suppress(RecursionError):
            query, text = "SELECT json_valid(?)", _json([own])  # as deep as the record
            if self.connection.execute(query, (text,)).fetchone()[0]:
                return _json(data)
        return _json({name: value for name, value in data.items() if name not in own})

    def _insert(self, query: str, values: Sequence[Any]) -> int:
        row = self.connection.execute(query, values).lastrowid
        assert row is not None, "it was inserted"
        return row

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        return self.connection.execute(query, values).fetchall()

    def _run_script(self, script: str) -> None:
        """Run statements one by one: `executescript` would end the transaction."""
        statement = ""
        for line in script.splitlines(keepends=True):
            statement += line
            if sqlite3.complete_statement(statement):
                self.connection.execute(statement)
                statement = ""


def _version_1(file: JournalFile) -> None:
    file._run_script(TABLES)  # noqa: SLF001 - of this module


# The first makes version 1 of an empty file, each further one the next version of the one before.
MIGRATIONS: list[Callable[[JournalFile], None]] = [_version_1]
# What comes of a text that is not the JSON of a record.
_NO_RECORD = (ValueError, TypeError, LookupError, AttributeError, RecursionError)
_HAS_INDEX = "SELECT 1 FROM sqlite_master WHERE name = 'turn_texts'"


def read_marks(connection: sqlite3.Connection) -> Marks:
    """Read the marks as they are at one moment: another kernel may be about to set them."""
    run = connection.execute
    run("BEGIN")
    marks = Marks(
        run("PRAGMA application_id").fetchone()[0],
        run("PRAGMA user_version").fetchone()[0],
        run("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is not None,
    )
    run("COMMIT")
    return marks


def _knows_full_text(connection: sqlite3.Connection) -> bool:
    query = "SELECT 1 FROM pragma_module_list WHERE name = 'fts5'"
    return connection.execute(query).fetchone() is not None


def set_aside(path: Path) -> Path:
    """Rename a damaged journal so that a new one can begin; return its new name.

    Raises
    ------
    JournalError
        It cannot be renamed.
    """
    with _told(path):
        number = 1
        while True:
            aside = path.with_name(f"{path.stem}.corrupt-{number}{path.suffix}")
            try:
                os.close(os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
                break
            except FileExistsError:
                number += 1
        # The write-ahead log first: SQLite would play it into the new file.
        for tail in ("-wal", "-shm", ""):
            with suppress(FileNotFoundError):
                Path(f"{path}{tail}").replace(f"{aside}{tail}")
    return aside


def is_on_network(path: Path) -> bool:
    """Return True if a file is on a network file system, as far as that can be known."""
    if sys.platform == "win32":
        import ctypes

        full = os.path.realpath(path)
        if full.startswith("\\\\"):
            return True
        drive = os.path.splitdrive(full)[0] + "\\"
        return bool(ctypes.windll.kernel32.GetDriveTypeW(drive) == 4)  # DRIVE_REMOTE
    return bool(_NETWORK.fullmatch(_file_system(path)))


def _file_system(path: Path) -> str:
    """Return the type of a file's file system in Linux's words; "" where it is not known."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
        device = path.stat().st_dev
    except OSError:
        return ""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in mounts.splitlines():
        before, _, behind = line.partition(" - ")
        if before.split()[2:3] == [wanted]:
            return behind.split()[0]
    return ""


def _create(path: Path) -> None:
    missing = [folder for folder in path.parents if not folder.exists()]
    for folder in reversed(missing):
        with suppress(FileExistsError):  # another kernel was faster
            folder.mkdir(0o700)
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _inode(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return found.st_dev, found.st_ino


def _bears_our_id(path: Path) -> bool:
    """Return True if a file that SQLite cannot read was ours.

    It is opened only then: closing it ends the locks that this process has on it.
    """
    with path.open("rb") as file:
        head = file.read(100)
    return head[ID_AT : ID_AT + 4] == APPLICATION_ID.to_bytes(4, "big")


def _foreign(path: Path) -> JournalError:
    return JournalError(
        f"The journal is off: {path} is another program's file. "
        "%config KimiMagics.journal = 'PATH' names another.",
        "foreign",
    )


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Raise errors of SQLite and of the system as ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise _told_error(path, error) from error
    except UnicodeDecodeError as error:  # of SQLite's message, which quotes what is damaged
        raise JournalError(f"The journal is damaged: {path}.", "corrupt") from error
    except OSError as error:
        text = f"The journal cannot be written: {why_not_written(error)} ({path})."
        raise JournalError(text, "full" if "full" in text else "other") from error


def _told_error(path: Path, error: sqlite3.Error) -> JournalError:
    code = error_code(error)
    if code in _CORRUPT_CODES:
        return JournalError(f"The journal is damaged: {path}.", "corrupt")
    if code in _BUSY_CODES:
        words, trouble = "another program has locked it", "locked"
    elif code == sqlite3.SQLITE_FULL:
        words, trouble = "the disk is full", "full"
    elif code == sqlite3.SQLITE_READONLY:
        words, trouble = "it is read-only", "other"
    else:
        words, trouble = str(error), "other"
    return JournalError(f"The journal cannot be written: {words} ({path}).", trouble)


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def error_code(error: sqlite3.Error) -> int:
    """Return SQLite's primary code, the low byte; 0 for errors of Python's module itself."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _texts(data: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return a record's prompt, reasoning and answers, as the index takes them."""
    steps = data.get("steps", ())
    reasoning = ("".join(p["text"] for p in s.get("reasoning_parts", ())) for s in steps)
    answers = (step.get("text", "") for step in steps)
    return data.get("prompt", ""), "\n\n".join(filter(None, reasoning)), "\n\n".join(answers)


def _copied(text: str) -> str:
    """Return a text as SQLite takes it, of which Python keeps no second form.

    What is bound keeps its UTF-8 beside it as long as it lives, as the text of a reply may.
    """
    return text if text.isascii() else mend_surrogates(text).encode().decode()


def _json(data: Any) -> str:
    try:
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError:  # JSON knows no infinity
        text = json.dumps(_finite(data), ensure_ascii=False, separators=(",", ":"))
    return mend_surrogates(text)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
