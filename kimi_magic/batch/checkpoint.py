"""The answers of a map in a file, one line each as they come.

A header says what was asked; each further line is an answer with the key of its row. A line is
written whole and at once, so that a killed kernel loses the rows that were under way and no others.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from kimi_magic.core.errors import KimiError
from kimi_magic.core.text import encodable_json, why_not_written

if TYPE_CHECKING:
    from filelock import BaseFileLock

__all__ = ["VERSION", "Answer", "Checkpoint", "Header", "headers"]

VERSION = 1
SUFFIX = ".map.jsonl"
IN_USE = "Another kernel runs this map now: it writes {path}."


@dataclass(frozen=True, slots=True)
class Answer:
    """What came for a row.

    Attributes
    ----------
    text, reasoning : str
    data : any
        The fields of a schema, as JSON.
    error : str or None
        What failed; its other fields hold what had come by then.
    usage : mapping
        Tokens, seconds and cost, as in ``Usage``.
    attempts : int
        How often it was asked, retries included.
    """

    text: str = ""
    reasoning: str = ""
    data: Any = None
    error: str | None = None
    usage: Mapping[str, Any] = field(default_factory=dict)
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Header:
    """What a map asked: for `%kimi map status`."""

    prompt: str
    model: str
    rows: int
    notebook: str = ""
    began: float = field(default_factory=time.time)
    version: int = VERSION


class Checkpoint:
    """An open file, or none: without a path, answers are kept nowhere.

    Attributes
    ----------
    found : dict
        The answers that were there, by the keys of their rows; failures are none.
    """

    def __init__(self, path: Path | None, header: Header) -> None:
        self.path = path
        self.found: dict[str, Answer] = {}
        self._header = header
        self._file: BinaryIO | None = None
        self._lock: BaseFileLock | None = None

    def open(self, *, anew: bool = False) -> None:
        """Read what is there, unless all is asked ``anew``, and keep other kernels out.

        Raises
        ------
        KimiError
            The file cannot be read or written, or another kernel writes it.
        """
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._acquire()
            is_new = anew or not self.path.exists()
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | (os.O_TRUNC if is_new else 0)
            # Only its owner reads answers.
            self._file = os.fdopen(os.open(self.path, flags, 0o600), "r+b", buffering=0)
            if is_new or not self._file.seek(0, os.SEEK_END):
                self._write(asdict(self._header))
                return
            self._file.seek(0)
            self.found = dict(_answers(self._file.readlines()))
            self._file.seek(-1, os.SEEK_END)
            if self._file.read(1) != b"\n":  # the kernel was killed within a line
                self._file.write(b"\n")
        except OSError as error:
            self.close()
            raise KimiError(f"{self.path} {why_not_written(error)}") from None

    def read(self) -> None:
        """Read what is there, without a lock; a dry run looks and leaves no trace."""
        if self.path is not None and self.path.exists():
            with suppress(OSError), self.path.open("rb") as file:
                self.found = dict(_answers(file.readlines()))

    def _acquire(self) -> None:
        from filelock import FileLock, Timeout
        from platformdirs import user_cache_path

        folder = user_cache_path("kimi-magic", appauthor=False) / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        name = sha256(str(self.path and self.path.resolve()).encode()).hexdigest()[:32]
        lock = FileLock(folder / f"{name}.lock", timeout=0, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            raise KimiError(IN_USE.format(path=self.path)) from None
        self._lock = lock

    def keep(self, key: str, answer: Answer) -> None:
        """Write an answer down; failures are only counted.

        Raises
        ------
        KimiError
            It cannot be written: the disk is full, for example.
        """
        if self._file is None:
            return
        try:
            self._write({"key": key, **asdict(answer)})
        except OSError as error:
            raise KimiError(f"{self.path} {why_not_written(error)}") from None

    def _write(self, line: Mapping[str, Any]) -> None:
        assert self._file is not None, "it is open"
        self._file.write(encodable_json(line).encode() + b"\n")

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()


def _answers(lines: list[bytes]) -> Iterator[tuple[str, Answer]]:
    for line in lines[1:]:
        with suppress(ValueError, TypeError, KeyError):  # a line that was cut is none
            facts = json.loads(line)
            key = facts.pop("key")
            answer = Answer(**facts)
            if answer.error is None:
                yield key, answer


def headers(folder: Path) -> Iterator[tuple[Path, Header, int, int]]:
    """Yield the maps of a folder, the latest first: file, header, answers and failures."""
    files = sorted(folder.glob(f"*{SUFFIX}"), key=lambda f: f.stat().st_mtime, reverse=True)
    for path in files:
        with suppress(OSError, ValueError, TypeError):
            with path.open("rb") as file:
                header = Header(**json.loads(file.readline()))
                lines = file.readlines()
            done = {key for key, _ in _answers([b"", *lines])}
            yield path, header, len(done), len(lines) - len(done)
