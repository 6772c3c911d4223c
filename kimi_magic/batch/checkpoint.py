"""The answers of a map in a file, one line each as they come.

Each run begins with a header, a line that says what is asked; the other lines are answers with the
keys of their rows. A line is written at once, so that a killed kernel loses the rows that were
under way and no others.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from kimi_magic.core.errors import KimiError
from kimi_magic.core.file_lock import acquire_lock
from kimi_magic.core.text import encodable_json, why_not_written

if TYPE_CHECKING:
    from filelock import BaseFileLock

    from kimi_magic.secrets.redact import Redactor

__all__ = [
    "SUFFIX",
    "Answer",
    "Checkpoint",
    "Header",
    "KeptMap",
    "kept_maps",
    "maps_folder",
]

VERSION = 1
BEGIN = b'{"map": '
SUFFIX = ".map.jsonl"
LATEST = 1e11  # seconds that a date can hold
IN_USE = (
    "Another kernel runs this map now: it writes {path}. Wait for its end, or name another file "
    "with into=."
)
FOREIGN = "{path} is no file of kimi.map: name another with into=, or move it away."
NOT_READ = "{path} could not be read: {why}. Name another file with into=."
NOT_WRITTEN = "{path} could not be written: {why}. Name another file with into=."
LATER = "{path} was written by a later version of kimi-magic: upgrade it, or name another file."


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a row.

    Attributes
    ----------
    text, reasoning : str
    data : any
        The fields of a schema, as JSON.
    error : str or None
        What failed; the other fields hold what had come by then.
    usage : mapping
        Tokens, seconds and cost, as in ``Usage``.
    attempts : int
        The requests that it took, retries included.
    """

    text: str = ""
    reasoning: str = ""
    data: Any = None
    error: str | None = None
    usage: Mapping[str, Any] = field(default_factory=dict)
    attempts: int = 0


_FIELDS = tuple(each.name for each in fields(Answer))


@dataclass(frozen=True, slots=True)
class Header:
    """The question of a run, in outline: for `%kimi map status`."""

    prompt: str
    model: str
    rows: int
    notebook: str = ""
    began: float = field(default_factory=time.time)
    map: int = VERSION


class Checkpoint:
    """The file of a map's answers; without a path they are kept nowhere.

    Parameters
    ----------
    path : Path or None
    header : Header
    redactor : Redactor
        Masks keys in what is written.

    Attributes
    ----------
    found : dict
        The answers that were there, by the keys of their rows, without failures.
    """

    def __init__(self, path: Path | None, header: Header, redactor: Redactor) -> None:
        self.path = path
        self.found: dict[str, Answer] = {}
        self._header = header
        self._redactor = redactor
        self._file: BinaryIO | None = None
        self._lock: BaseFileLock | None = None

    def open(self) -> None:
        """Read what is there, and keep other kernels out.

        Raises
        ------
        KimiError
            The file cannot be read or written, is something else, or another kernel writes it.
        """
        if self.path is None:
            return
        if not self._acquire(self.path):
            raise KimiError(IN_USE.format(path=self.path))
        try:
            self.read()
            # Only its owner reads answers. On Windows, text mode would be the default.
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
            self._file = os.fdopen(os.open(self.path, flags, 0o600), "r+b", buffering=0)
            if self._file.seek(0, os.SEEK_END):
                self._file.seek(-1, os.SEEK_END)
                if self._file.read(1) != b"\n":  # the kernel was killed within a line
                    self._write(b"\n")
            self._write_line({"map": VERSION, **asdict(self._header)})
        except OSError as error:
            self.close()
            raise self._not_written(error) from None
        except BaseException:
            self.close()
            raise

    def read(self) -> None:
        """Read what is there, without a lock; a dry run looks and leaves no trace.

        Raises
        ------
        KimiError
            It cannot be read, or is a file of something else, or of a later version.
        """
        if self.path is None:
            return
        try:
            with self.path.open("rb") as file:
                _check_first(self.path, file.readline())
                self.found = {key: answer for key, answer in _answers(file) if answer.error is None}
        except FileNotFoundError:
            return
        except OSError as error:
            raise KimiError(NOT_READ.format(path=self.path, why=why_not_written(error))) from None

    def open_if_free(self) -> bool:
        """Open it; return False if somebody else has it open."""
        if self.path is not None and not self._acquire(self.path):
            return False
        self.open()
        return True

    def _acquire(self, path: Path) -> bool:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = self._lock or acquire_lock(path)
        except OSError as error:
            raise self._not_written(error) from None
        return self._lock is not None

    def _not_written(self, error: OSError) -> KimiError:
        return KimiError(NOT_WRITTEN.format(path=self.path, why=why_not_written(error)))

    def keep(self, key: str, answer: Answer) -> None:
        """Write an answer down, or a failure, which is only counted.

        Raises
        ------
        KimiError
            It cannot be written, for example because the disk is full; later answers are not
            written either.
        """
        if self._file is not None:
            masked = self._redactor.value({name: getattr(answer, name) for name in _FIELDS})
            self.note({"key": key, **masked})

    def note(self, line: Mapping[str, Any]) -> None:
        """Write a line as it is, of any kind; nothing where no file is open.

        Raises
        ------
        KimiError
            As for `keep`.
        """
        if self._file is None:
            return
        try:
            self._write_line(line)
        except OSError as error:
            file, self._file = self._file, None  # the next line would continue the cut one
            file.close()
            raise self._not_written(error) from None

    def _write_line(self, line: Mapping[str, Any]) -> None:
        self._write(encodable_json(line).encode() + b"\n")

    def _write(self, data: bytes) -> None:
        assert self._file is not None, "it is open"
        while data:  # where the disk is nearly full, a part is written
            data = data[self._file.write(data) :]

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()


def _check_first(path: Path, line: bytes) -> None:
    """Refuse a file that does not begin with a header, which may have been cut."""
    begun = line.removesuffix(b"\n")
    if not (begun.startswith(BEGIN) or BEGIN.startswith(begun)):
        raise KimiError(FOREIGN.format(path=path))
    version = _object(line).get("map", VERSION)
    if type(version) is not int or version > VERSION:
        raise KimiError(LATER.format(path=path))


def _object(line: bytes) -> dict[str, Any]:
    """Read a line; one that was cut, or that is no object, is empty."""
    with suppress(ValueError, RecursionError):
        found = json.loads(line)
        if isinstance(found, dict):
            return found
    return {}


def _answers(lines: Iterable[bytes]) -> Iterator[tuple[str, Answer]]:
    for line in lines:
        facts = _object(line)
        with suppress(KeyError, TypeError):  # a header, or a line that was cut
            yield str(facts.pop("key")), Answer(**facts)


def _checked(header: Header) -> Header:
    """Return a header as it was read, or raise a TypeError: the file may be anybody's."""
    texts = (header.prompt, header.model, header.notebook)
    known = all(isinstance(text, str) for text in texts) and type(header.rows) is int
    if not known or type(header.began) is not float or not 0 <= header.began < LATEST:
        raise TypeError("no header of ours")
    return header


@dataclass(frozen=True, slots=True)
class KeptMap:
    """A map whose answers are kept.

    Attributes
    ----------
    path : Path
        The file of its answers.
    header : Header
        The latest run.
    answered, failed : int
        Rows, equal ones counted once; those of all runs with this file.
    """

    path: Path
    header: Header
    answered: int
    failed: int


def maps_folder(journal: Path) -> Path:
    """Return the folder for the answers of maps without ``into=``: it is beside the journal."""
    return journal.parent / "maps"


def kept_maps(folder: Path) -> Iterator[KeptMap]:
    """Yield the maps of a folder, the latest first."""
    files = []
    for path in folder.glob(f"*{SUFFIX}"):
        with suppress(OSError):
            files.append((path.stat().st_mtime, path))
    for _, path in sorted(files, reverse=True):
        with suppress(OSError, KimiError):
            if (found := _kept_map(path)) is not None:
                yield found


def _kept_map(path: Path) -> KeptMap | None:
    header: Header | None = None
    states: dict[str, bool] = {}
    with path.open("rb") as file:
        _check_first(path, file.readline())
        file.seek(0)
        for line in file:
            facts = _object(line)
            if "map" in facts:  # another run, which asks again for what has failed
                states = {key: True for key, answered in states.items() if answered}
                with suppress(TypeError):
                    header = _checked(Header(**facts))
            elif "key" in facts:
                states[str(facts["key"])] = facts.get("error") is None
    answered = sum(states.values())
    return KeptMap(path, header, answered, len(states) - answered) if header else None
