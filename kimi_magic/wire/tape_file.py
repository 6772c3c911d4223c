"""The file of a tape: a header, then one recorded exchange a line, as JSON.

``docs/tape.md`` describes the form. Lines are written whole and flushed; what a kernel that was
killed left of one is no line. A name that ends in ``.gz`` has each line compressed by itself, so
that damage takes no more than the line in which it is.
"""

from __future__ import annotations

import json
import math
import os
import stat
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from kimi_magic.core.errors import TapeError
from kimi_magic.core.file_lock import acquire_lock
from kimi_magic.core.text import clip, count, encodable_json, is_json_bomb, why_not_written

if TYPE_CHECKING:
    from filelock import BaseFileLock

__all__ = ["VERSION", "Header", "Recording", "TapeContent", "TapeFile", "line_of", "read_line"]

VERSION = 1
"""The version of the form that is written; a later one is read as far as it is the same."""

UPDATE = "Update with `pip install -U kimi-magic`."
# Of a file that somebody else made, decompressed: what is read of it lies in memory.
MOST_BYTES = 1_000_000_000
MOST_LINES, LONGEST_LINE = 1_000_000, 100_000_000
LIMIT = f"a tape has at most {MOST_BYTES // 1_000_000} MB, and {MOST_LINES:,} lines"
MAGIC = b"\x1f\x8b\x08"  # of a gzip member, whose compression is always deflate (RFC 1952)
PART = 16_000  # compressed bytes, about a member
GZIP_BITS = 31  # zlib: the format of gzip, with the largest window
KEPT_HEADERS = ("content-type", "retry-after", "retry-after-ms")
LONGEST_VALUE = 300  # of a header
MOMENTS = ("first_token", "first_answer")


@dataclass(frozen=True, slots=True)
class Header:
    """The first line of a tape.

    Attributes
    ----------
    version : int
    made_by : mapping
        ``model``, ``endpoint`` (its name) and ``date`` of the first recording; ``scripted`` or
        ``engine`` where it is true; ``named``, what the cell chose of ``endpoint`` and ``model``;
        ``facts`` of an endpoint that not every machine knows, as far as they shape a request. It
        holds no address.
    """

    version: int = VERSION
    made_by: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Recording:
    """One exchange.

    Attributes
    ----------
    meaning : mapping
        The request in canonical form.
    cue : mapping
        What is the same where the same is asked with other inputs.
    status : int
    headers : mapping
        The few that matter, with names in lower case.
    pieces : tuple of (float, bytes)
        The body as it came, each piece with the seconds since the request went out.
    seconds : float
        Until the body's end.
    first_token, first_answer : float or None
        As in ``Timings``.
    made_by : mapping
        As in the header, which it is where the line says nothing else.
    lane : int
        The number of the trajectory that asked; 0 for none.
    """

    meaning: Mapping[str, Any]
    cue: Mapping[str, Any]
    status: int
    headers: Mapping[str, str]
    pieces: tuple[tuple[float, bytes], ...]
    seconds: float = 0.0
    first_token: float | None = None
    first_answer: float | None = None
    made_by: Mapping[str, Any] = field(default_factory=dict)
    lane: int = 0

    @property
    def body(self) -> bytes:
        return b"".join(data for _, data in self.pieces)


@dataclass(frozen=True, slots=True)
class TapeContent:
    """All that is whole in a tape's file, and one line for each thing that is not."""

    header: Header | None = None
    recordings: tuple[Recording, ...] = ()
    problems: tuple[str, ...] = ()


class TapeFile:
    """The file of a tape; it need not exist."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        # The file that a link leads to; a cell may change the folder later.
        self.path = Path(os.path.realpath(Path(path).expanduser()))
        self._compressed = self.path.suffix == ".gz"
        self._lock: BaseFileLock | None = None
        self._locked_in = 0  # the process: one that was forked has no lock
        self._left_at: tuple[int, ...] = ()  # the file as our last line left it
        self._header: Header | None = None

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def exists(self) -> bool:
        return self.path.exists()

    def read(self) -> TapeContent:
        """Read what is whole; a file that does not exist is an empty tape.

        Raises
        ------
        TapeError
            It cannot be read at all.
        """
        return _content(self.lines(), self.name)

    def lines(self) -> list[bytes]:
        """Return the lines as they are in the file, decompressed; none where there is no file.

        Raises
        ------
        TapeError
            It cannot be read at all.
        """
        try:
            with open(self.path, "rb", opener=_without_waiting) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise TapeError(f"{self.path} cannot be read: it is no ordinary file.")
                data = file.read(MOST_BYTES + 1)
        except FileNotFoundError:
            return []
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise TapeError(f"{self.path} cannot be read: {why}.") from None
        return self._lines(data)

    def append(self, recording: Recording) -> None:
        """Write one more recording; the first one makes the file, and its header.

        Raises
        ------
        TapeError
            The file cannot be written, or is of a later version.
        """
        with self._writing():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b") as file:
                header = self._header if _state(file) == self._left_at else self._prepare(file)
                lines = []
                if header is None:
                    header = Header(VERSION, recording.made_by)
                    lines = [_header_line(header)]
                lines.append(line_of(recording, header))
                file.write(b"".join(map(self._packed, lines)))
                file.flush()
                self._header, self._left_at = header, _state(file)

    def rewrite(self, recordings: Iterable[Recording], header: Header | None = None) -> None:
        """Put these recordings in the place of all; the file is never seen half written.

        The header stays the same unless another one is given.

        Raises
        ------
        TapeError
            The file cannot be written, or is of a later version.
        """
        recordings = list(recordings)
        content = self.read()
        header = header or content.header
        self._check(content)
        first = recordings[0].made_by if recordings else {}
        header = header or Header(VERSION, first)
        lines = [_header_line(header), *(line_of(each, header) for each in recordings)]
        beside = self.path.with_name(f".{self.name}.{os.getpid()}.tmp")
        with self._writing():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with beside.open("wb") as file:
                    file.write(b"".join(map(self._packed, lines)))
                    file.flush()
                    os.fsync(file.fileno())
                with suppress(FileNotFoundError):
                    beside.chmod(stat.S_IMODE(self.path.stat().st_mode))
                beside.replace(self.path)
            finally:
                beside.unlink(missing_ok=True)

    def lock(self) -> None:
        """Keep other kernels from recording into the file, until `unlock` or this one's end.

        Raises
        ------
        TapeError
            Another kernel records into it.
        """
        if self._lock is not None and self._locked_in == os.getpid():
            return
        with self._writing():
            lock = acquire_lock(self.path)
        if lock is None:
            raise TapeError(
                f"Another kernel records into {self.name}; nothing was sent.\n"
                "Shut it down, or record into another file."
            )
        self._lock, self._locked_in = lock, os.getpid()

    def unlock(self) -> None:
        """Let others record."""
        lock, self._lock = self._lock, None
        if lock is not None and self._locked_in == os.getpid():
            lock.release()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TapeError(f"{self.path} cannot be written: {why_not_written(error)}.") from None

    def _check(self, content: TapeContent) -> None:
        """Refuse to write into what is no tape of ours."""
        header = content.header
        if header is None and content.problems:
            raise TapeError(f"{self.path} is no tape: nothing is written into it.")
        if header is not None and header.version > VERSION:
            raise TapeError(
                f"{self.name} is of a later version ({header.version}; this kimi-magic writes "
                f"{VERSION}): nothing is added to it.\n{UPDATE}"
            )

    def _prepare(self, file: BinaryIO) -> Header | None:
        """Make an open file ready for a line more; return its header, None where it has none.

        What a kernel that was killed left of a line at the end goes.
        """
        file.seek(0)
        data = file.read()
        if not data:
            return None
        lines = self._lines(data)
        content = _content(lines, self.name)
        self._check(content)
        is_whole = read_line(lines[-1]) is not None
        if self._compressed and not is_whole:
            file.truncate(0)
            file.write(b"".join(self._packed(line + b"\n") for line in lines[:-1]))
        elif not self._compressed and not data.endswith(b"\n"):
            if is_whole:  # written by hand
                file.write(b"\n")
            else:
                file.truncate(data.rfind(b"\n") + 1)
        return content.header

    def _packed(self, line: bytes) -> bytes:
        if not self._compressed:
            return line
        packer = zlib.compressobj(9, zlib.DEFLATED, GZIP_BITS)  # without a time, always the same
        return packer.compress(line) + packer.flush()

    def _lines(self, data: bytes) -> list[bytes]:
        """Return the lines, of a compressed file as much as can be decompressed."""
        if self._compressed and data:
            data = b"".join(_unpacked(data))
        if len(data) > MOST_BYTES or data.count(b"\n") > MOST_LINES:
            raise TapeError(f"{self.path} is too large: {LIMIT}.")
        lines = data.split(b"\n")
        return lines if lines[-1] else lines[:-1]


def _without_waiting(path: str, flags: int) -> int:
    """Open a file that may be a pipe, for whose other end Python would wait."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _state(file: BinaryIO) -> tuple[int, ...]:
    """Return what changes where somebody else writes."""
    found = os.fstat(file.fileno())
    return found.st_ino, found.st_size, found.st_mtime_ns


def line_of(recording: Recording, header: Header | None = None) -> bytes:
    """Return a recording as its line in a tape with this header."""
    made_by: dict[str, Any] = {}
    if header is None or _maker(recording.made_by) != _maker(header.made_by):
        made_by = {"made_by": dict(recording.made_by)}
    lane = {"lane": recording.lane} if recording.lane else {}
    moments = {name: getattr(recording, name) for name in MOMENTS}
    data = {
        "cue": recording.cue,
        **lane,
        **made_by,
        "meaning": recording.meaning,
        "status": recording.status,
        "headers": recording.headers,
        "seconds": recording.seconds,
        **{name: value for name, value in moments.items() if value is not None},
        "pieces": [[seconds, _readable(piece)] for seconds, piece in recording.pieces],
    }
    return _line(data)


def _header_line(header: Header) -> bytes:
    return _line({"kimi_tape": header.version, "made_by": dict(header.made_by)})


def _line(data: Mapping[str, Any]) -> bytes:
    return f"{encodable_json(data, allow_nan=False)}\n".encode()


def _maker(made_by: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in made_by.items() if name != "date"}


def _readable(piece: bytes) -> str | dict[str, str]:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(piece).decode()}


def _content(lines: Sequence[bytes], name: str) -> TapeContent:
    """Read the lines of a tape."""
    header: Header | None = None
    recordings, problems = list[Recording](), list[str]()
    later: set[int] = set()
    for number, line in enumerate(lines, 1):
        data = read_line(line)
        where = f"{name}, line {number}"
        if data is None:
            last = number == len(lines)
            problems.append(
                f"{where} is cut off: it is left out."
                if last
                else f"{where} is damaged: it is left out."
            )
            continue
        if "kimi_tape" in data:
            if header is None and (found := _header(data)):
                header = found
                later.add(found.version)
            continue
        version = data.get("version", VERSION)
        if isinstance(version, int) and version > VERSION:
            later.add(version)
            continue
        try:
            recordings.append(_recording(data, header))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            why = clip(str(error).partition("\n")[0], 60) or type(error).__name__
            problems.append(f"{where} is no recorded exchange ({why}): it is left out.")
    if later and (version := max(later)) > VERSION:
        problems.insert(
            0,
            f"{name} is of a later version ({version}; this kimi-magic reads {VERSION}): only what "
            f"is the same plays. {UPDATE}",
        )
    if lines and header is None:
        if recordings:
            problems.insert(0, f"{name} has lost its first line: nobody knows what made it.")
        else:
            problems = [f"{name} is no tape: {count(len(lines), 'line')} of something else."]
        header = Header() if recordings else None
    return TapeContent(header, tuple(recordings), tuple(problems))


def read_line(line: bytes) -> dict[str, Any] | None:
    """Read a line; None for what is no JSON object."""
    try:
        is_bomb = len(line) > LONGEST_LINE or is_json_bomb(line)
        data = None if is_bomb else json.loads(line)
    except (ValueError, RecursionError):
        return None
    return data if type(data) is dict else None


def _header(data: Mapping[str, Any]) -> Header | None:
    version, made_by = data.get("kimi_tape"), data.get("made_by")
    if not isinstance(version, int) or isinstance(version, bool):
        return None
    return Header(
        version,
        made_by if isinstance(made_by, dict) else {},
    )


def _recording(data: Mapping[str, Any], header: Header | None) -> Recording:
    meaning, cue, status = data["meaning"], data.get("cue", {}), data["status"]
    own = data.get("made_by", header.made_by if header else {})
    if not all(isinstance(each, dict) for each in (meaning, cue, own)):
        raise ValueError("meaning and cue are objects")
    if type(status) is not int or not 100 <= status <= 599:
        raise ValueError("status is none of HTTP")
    lane = data.get("lane", 0)
    pieces = tuple(_piece(piece) for piece in data["pieces"])
    headers = {
        name.lower(): clip(" ".join(value.split()), LONGEST_VALUE)
        for name, value in data.get("headers", {}).items()
        if name.lower() in KEPT_HEADERS
    }
    return Recording(
        meaning,
        cue,
        status,
        headers,
        pieces,
        max([_seconds(data.get("seconds", 0)), *(at for at, _ in pieces)]),
        made_by=own,
        lane=lane if type(lane) is int else 0,
        **{name: _seconds(data[name]) for name in MOMENTS if name in data},
    )


def _piece(piece: Sequence[Any]) -> tuple[float, bytes]:
    at, data = piece
    if isinstance(data, dict):
        return _seconds(at), b64decode(data["base64"], validate=True)
    return _seconds(at), data.encode("utf-8", "surrogatepass")


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("a time is a number")
    if not (math.isfinite(value) and value >= 0):
        raise ValueError("a time is a number of seconds")
    return float(value)


def _unpacked(data: bytes) -> Iterator[bytes]:
    """Yield what the members of a gzip file hold; a damaged one up to its damage, as a line."""
    at, total = 0, 0
    while 0 <= at < len(data) and total <= MOST_BYTES:
        unpacker = zlib.decompressobj(GZIP_BITS)
        pieces, end = list[bytes](), at
        try:
            # A part at a time: all the rest, for each member, would take the square of the file.
            while end < len(data) and not unpacker.eof and total <= MOST_BYTES:
                part = data[end : end + PART]
                pieces.append(unpacker.decompress(part, MOST_BYTES + 1 - total))
                total += len(pieces[-1])
                end += len(part)
        except zlib.error:
            # The checksum, or a bit within: what came before is not to be trusted either.
            pieces.clear()
        if unpacker.eof and pieces:
            yield b"".join(pieces)
            at = end - len(unpacker.unused_data)
        else:
            yield b"".join(pieces).rstrip(b"\n")[:-1] + b"\n"  # never taken for a whole line
            at = data.find(MAGIC, at + 1)
