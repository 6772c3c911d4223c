"""Tapes in use: recordings found by the meaning of a request, and new ones kept.

A `Tape` is one file in this process, a `TapeUse` one way to use it: a mode, a speed, and how far
its recordings were played.
"""

from __future__ import annotations

import os
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from itertools import count as counter
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from kimi_magic.config import TAPE_MODES
from kimi_magic.core.errors import TapeError
from kimi_magic.core.text import clip, count, reveal
from kimi_magic.wire.tape_file import Header, Recording, TapeFile
from kimi_magic.wire.tape_meaning import (
    difference,
    fingerprint,
    frame_of,
    is_deep,
    likeness,
    nearest,
)

__all__ = [
    "Asked",
    "Lead",
    "OnTape",
    "Tape",
    "TapeUse",
    "Tapes",
    "the_tape",
    "use_of",
]

MAX_SPEED = 1000.0
SPEEDS = "max, real, or how many times faster, such as 4"
NOT_ON_TAPE = "{name} holds no answer to this request, and mode none sends nothing."
EMPTY_TAPE = '{name} {what}, and mode none sends nothing.\n`--mode new` (mode="new") records it.'
NEAREST = "The nearest is «{prompt}»{step}; recorded (-) and asked (+) differ:"
OTHER_MODE = "`--mode new` (KIMI_TAPE_MODE=new) asks and records it."
DEEP = "{count} of data that nest too deeply: left out."
STRICT = "It differs only in its inputs, which --strict refuses."


class Asked(NamedTuple):
    """A request: its meaning, its cue, and where it comes from.

    ``cell`` and ``run`` are the ids of a notebook's cell and of its run, "" where there are none;
    ``lane`` is the number of a trajectory.
    """

    meaning: Mapping[str, Any]
    cue: Mapping[str, Any]
    cell: str = ""
    run: str = ""
    lane: int = 0


class OnTape(NamedTuple):
    """A recording that answers a request; ``differs`` where the inputs were others."""

    recording: Recording
    differs: bool = False


class Lead(NamedTuple):
    """Whom a tape says to ask, where nobody else does.

    ``named`` says what of it a cell had named when it was recorded: ``endpoint``, ``model``.
    """

    endpoint: str
    model: str
    facts: Mapping[str, Any]
    named: tuple[str, ...] = ()


Run = tuple[int, str, str]
"""One run of code: the use of the tape, the cell, and that run of it."""


@dataclass(eq=False, slots=True)
class _Entry:
    """A recording on a tape; ``by`` is the run that made it, None if it was there before."""

    recording: Recording
    by: Run | None = None
    lane: int = 0
    meaning: str = ""
    _cue: str = ""
    _frame: str = ""

    def __post_init__(self) -> None:
        self.lane = self.recording.lane
        self.meaning = fingerprint(self.recording.meaning)

    @property
    def cue(self) -> str:
        self._cue = self._cue or fingerprint(self.recording.cue)
        return self._cue

    @property
    def frame(self) -> str:
        self._frame = self._frame or frame_of(self.recording.meaning)
        return self._frame


class Tape:
    """The recordings of one file; `the_tape` gives every user in this process the same one."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.file = TapeFile(path)
        self.problems: tuple[str, ...] = ()
        self.lock = threading.RLock()
        self._entries: list[_Entry] = []
        self._seen: tuple[int, ...] | None = None
        self._users: set[int] = set()
        self._leads: list[Lead] = []

    @property
    def name(self) -> str:
        return self.file.name

    def entries(self) -> list[_Entry]:
        """Return what is on the tape now; somebody may have edited it."""
        with self.lock:
            state = self._state()
            if state != self._seen:
                content = self.file.read()
                self._seen, self.problems = state, content.problems
                made = {(e.meaning, e.recording.body): e.by for e in self._entries if e.by}
                flat = [r for r in content.recordings if not is_deep([r.meaning, r.cue, r.made_by])]
                if deep := len(content.recordings) - len(flat):
                    self.problems += (DEEP.format(count=count(deep, "exchange")),)
                self._entries = [_Entry(recording) for recording in flat]
                for entry in self._entries:
                    entry.by = made.get((entry.meaning, entry.recording.body))
                self._read_makers((content.header or Header()).made_by)
            return self._entries

    @property
    def lead(self) -> Lead | None:
        """The endpoint and the model that the tape was made with; None for an empty one."""
        self.entries()
        return self._leads[0] if self._leads else None

    def lead_at(self, endpoint: str) -> Lead | None:
        """Return the same for one endpoint, by its name; its model is "" where cells named it."""
        self.entries()
        there = [lead for lead in self._leads if lead.endpoint == endpoint]
        own = [lead for lead in there if "model" not in lead.named]
        return next(iter(own), there[0]._replace(model="") if there else None)

    def add(self, recording: Recording, by: Run, *, anew: bool) -> None:
        """Write a recording; ``anew`` puts it in the place of those that it is made for.

        These are of the same request and were there before this use, or come from another run of
        the same cell; where there are none, one whose inputs differ.
        """
        entry = _Entry(recording, by)
        with self.lock:
            entries = self.entries()
            old = self._replaced(entry, entries) if anew else []
            if old:
                at = min(entries.index(each) for each in old)
                kept = [each for each in entries if each not in old]
                kept.insert(at, entry)
                self.file.rewrite(each.recording for each in kept)
                self._entries = kept
            else:
                self.file.append(recording)
                entries.append(entry)
            self._seen = self._state()
            self._read_makers(entries[0].recording.made_by)

    def _replaced(self, entry: _Entry, entries: Sequence[_Entry]) -> list[_Entry]:
        assert entry.by is not None, "a recording of this process has its run"
        use, cell, run = entry.by

        def is_old(other: _Entry) -> bool:
            if other.by is None or other.by[0] != use:
                return True
            return bool(cell) and other.by[1] == cell and other.by[2] != run

        old = [each for each in entries if is_old(each)]
        same = [e for e in old if e.meaning == entry.meaning and e.lane == entry.lane]
        if same := same or [e for e in old if e.meaning == entry.meaning]:
            return same
        like = [e for e in old if e.cue == entry.cue and e.frame == entry.frame]
        place = nearest(entry.recording.meaning, [e.recording.meaning for e in like])
        return [] if place is None else [like[place]]

    def begin(self, use: int) -> None:
        """Note somebody who may record."""
        with self.lock:
            self._users.add(use)

    def end(self, use: int) -> None:
        """Let other kernels record, when nobody here may any more."""
        with self.lock:
            self._users.discard(use)
            if not self._users:
                self.file.unlock()

    def _state(self) -> tuple[int, ...]:
        try:
            found = self.file.path.stat()
        except OSError:
            return ()
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _read_makers(self, made_by: Mapping[str, Any]) -> None:
        """Find out whom to ask: the first one who answered where nobody was named, else any."""
        makers = [made_by, *(entry.recording.made_by for entry in self._entries)]
        leads = list[Lead]()
        for maker in makers:
            endpoint, model, facts = (maker.get(name) for name in ("endpoint", "model", "facts"))
            if isinstance(endpoint, str) and isinstance(model, str) and endpoint and model:
                own = facts if isinstance(facts, dict) else {}
                named = maker.get("named")
                which = tuple(map(str, named)) if isinstance(named, list) else ()
                leads.append(Lead(endpoint, model, own, which))
        self._leads = sorted(leads, key=lambda lead: bool(lead.named))


_tapes: WeakValueDictionary[str, Tape] = WeakValueDictionary()
_tapes_lock = threading.Lock()


def the_tape(path: str | os.PathLike[str]) -> Tape:
    """Return the tape of a file; every user in this process gets the same one."""
    tape = Tape(path)
    with _tapes_lock:
        return _tapes.setdefault(os.path.normcase(tape.file.path), tape)


class _Cursor:
    """The place up to which the recordings of one request were played."""

    def __init__(self) -> None:
        self._next = 0
        self._cells: dict[str, tuple[str, int, int]] = {}  # run, where it began, where it is

    def take(self, cell: str, run: str, made: int | None) -> int:
        """Return the place of the next one; a cell that is run again begins where it did.

        ``made`` is the place of the first one that the cell itself has made.
        """
        known = self._cells.get(cell) if cell else None
        if known is None:
            start = at = self._next if made is None else made
        elif known[0] == run:
            _, start, at = known
        else:
            start = at = known[1]
        self._cells[cell] = (run, start, at + 1)
        self._next = max(self._next, at + 1)
        return at


_keys = counter()


@dataclass(eq=False)
class TapeUse:
    """One way to use a tape.

    Attributes
    ----------
    tape : Tape
    mode : str
        ``none``: only what is on the tape; ``new``: play what is there, record the rest; ``all``:
        record anew.
    speed : float
        How many times faster than it was recorded; 0: all at once.
    strict : bool
        Play nothing whose inputs differ.
    frozen_tools : bool
        Take the results of tools from the tape, too.
    leads : bool
        Where nobody names an endpoint, the one that the tape was made with is asked.
    counts : Counter
        ``played``, ``differing`` (of these), ``recorded`` and ``refused``.
    """

    tape: Tape
    mode: str = "new"
    speed: float = 0.0
    strict: bool = False
    frozen_tools: bool = False
    leads: bool = True
    counts: Counter[str] = field(default_factory=Counter)
    _cursors: defaultdict[tuple[str, ...], _Cursor] = field(
        default_factory=lambda: defaultdict(_Cursor)
    )
    _played: set[int] = field(default_factory=set)
    _key: int = field(default_factory=_keys.__next__)  # the same for `varied` ones

    @property
    def name(self) -> str:
        return self.tape.name

    @property
    def lead(self) -> Lead | None:
        """Whom to ask where nobody says so; None where the tape does not."""
        return self.tape.lead if self.leads else None

    def varied(self, **changes: Any) -> TapeUse:
        """Return the same use with other choices."""
        return replace(self, **changes)

    def anew(self) -> TapeUse:
        """Return a use that asks again, and puts the answers in the place of those of this one.

        Raises
        ------
        TapeError
            This one sends nothing.
        """
        if self.mode == "none":
            raise TapeError(f"--again asks anew, and {self.name} is on in mode none.")
        return self.varied(mode="all", _key=next(_keys))

    def news(self) -> Iterable[str]:
        """Return lines for the reader, each of them once."""
        return ()

    def find(self, asked: Asked) -> OnTape | None:
        """Find what answers a request; None where it is to be sent.

        Raises
        ------
        TapeError
            It must not be sent, or the tape cannot be read.
        """
        if self.mode == "all":
            return None
        with self.tape.lock:
            found = self._find(asked)
            if found is not None:
                self._played.add(id(found.recording))
                self.counts["played"] += 1
                if found.differs:
                    self.counts["differing"] += 1
        if found is None and self.mode == "none":
            raise TapeError(self._missing(asked))
        return found

    def _find(self, asked: Asked) -> OnTape | None:
        own: Run = (self._key, asked.cell, asked.run)
        # What this very run has recorded is not played back to it: who asks twice wants two.
        entries = [entry for entry in self.tape.entries() if entry.by != own]
        wanted = fingerprint(asked.meaning)
        if same := [entry for entry in entries if entry.meaning == wanted]:
            return OnTape(self._next(same, (wanted,), asked).recording)
        if self.strict:
            return None
        like = self._like(asked, entries)
        if not like:
            return None

        def fits(entry: _Entry) -> tuple[bool, float]:
            fresh = id(entry.recording) not in self._played
            return fresh, likeness(asked.meaning, entry.recording.meaning)

        best = max(like, key=fits).meaning
        same = [entry for entry in like if entry.meaning == best]
        return OnTape(self._next(same, (wanted, best), asked).recording, differs=True)

    def _like(self, asked: Asked, entries: Sequence[_Entry]) -> list[_Entry]:
        """Return what answers the same prompt, step and calls, with whatever inputs."""
        cue, frame = fingerprint(asked.cue), frame_of(asked.meaning)
        same = [entry for entry in entries if entry.cue == cue]

        def fits(entry: _Entry) -> bool:
            # A cell that defines a tool offers it to all cells, those above as well.
            return entry.frame == frame_of(asked.meaning, entry.recording.meaning)

        return [entry for entry in same if entry.frame == frame] or list(filter(fits, same))

    def _next(self, entries: Sequence[_Entry], key: tuple[str, ...], asked: Asked) -> _Entry:
        """Return the next of equal requests' recordings, after the last one that one again."""
        if asked.lane and (own := [entry for entry in entries if entry.lane == asked.lane]):
            entries, key = own, (*key, str(asked.lane))
        made = [place for place, entry in enumerate(entries) if _is_of(entry, asked.cell)]
        at = self._cursors[key].take(asked.cell, asked.run, made[0] if made else None)
        return entries[min(at, len(entries) - 1)]

    def results_after(self, asked: Asked) -> list[Mapping[str, Any]]:
        """Return the messages that the tape has behind a request, in the turn of its answer.

        ``asked`` has the cue of the request that followed.
        """
        with self.tape.lock:
            like = self._like(asked, self.tape.entries())
        begun = asked.meaning.get("messages", [])
        place = nearest(asked.meaning, [entry.recording.meaning for entry in like])
        if place is None:
            return []
        messages = like[place].recording.meaning.get("messages", [])
        return [m for m in messages[len(begun) :] if isinstance(m, Mapping)]

    def begin_recording(self) -> None:
        """Make sure that nobody else records into the file.

        Raises
        ------
        TapeError
            Another kernel does, or it is no tape that can be written.
        """
        with self.tape.lock:
            self.tape.begin(self._key)
            self.tape.file.lock()

    def record(self, recording: Recording, asked: Asked) -> None:
        """Write what came of a request.

        Raises
        ------
        TapeError
            The file cannot be written.
        """
        run: Run = (self._key, asked.cell, asked.run)
        self.tape.add(recording, run, anew=self.mode == "all")
        self.counts["recorded"] += 1

    def close(self) -> None:
        """End the use: other kernels may record."""
        self.tape.end(self._key)

    def _missing(self, asked: Asked) -> str:
        entries = self.tape.entries()
        if not entries:
            what = "holds no recordings" if self.tape.file.exists else "does not exist"
            lines = [EMPTY_TAPE.format(name=self.name, what=what)]
            return "\n".join([*self.tape.problems[:1], *lines])
        like = self._like(asked, entries) or entries
        place = nearest(asked.meaning, [entry.recording.meaning for entry in like]) or 0
        recording = like[place].recording
        prompt, step = recording.cue.get("prompt", ""), recording.cue.get("step", 1)
        told = reveal(clip(" ".join(str(prompt).split()), 50))
        lines = [
            NOT_ON_TAPE.format(name=self.name),
            NEAREST.format(prompt=told, step=f", step {step}" if step != 1 else ""),
            *(reveal(line) for line in difference(recording.meaning, asked.meaning)),
            STRICT if self.strict and like is not entries else OTHER_MODE,
        ]
        return "\n".join(lines)


def _is_of(entry: _Entry, cell: str) -> bool:
    return bool(cell) and entry.by is not None and entry.by[1] == cell


def use_of(
    path: str | os.PathLike[str],
    mode: str,
    *,
    speed: float | str = "max",
    strict: bool = False,
    frozen_tools: bool = False,
) -> TapeUse:
    """Make a use of a tape of choices as people write them.

    Raises
    ------
    TapeError
        One of them is none, or the file cannot be read.
    """
    if mode not in TAPE_MODES:
        raise TapeError(f"The mode of a tape is one of {', '.join(TAPE_MODES)}; got {mode!r:.40}.")
    if not str(path).strip():
        raise TapeError("A tape is a file, such as 'lesson.tape'.")
    use = TapeUse(the_tape(path), mode, _speed(speed), bool(strict), bool(frozen_tools))
    use.tape.entries()
    return use


def _speed(speed: float | str) -> float:
    """Read a speed as people write it: ``max``, ``real``, or a factor.

    Raises
    ------
    TapeError
        It is none.
    """
    if speed in ("max", "real"):
        return 0.0 if speed == "max" else 1.0
    with suppress(TypeError, ValueError):
        factor = float(speed)
        if not isinstance(speed, bool) and 0 < factor <= MAX_SPEED:
            return factor
    raise TapeError(f"The speed of a tape is {SPEEDS}; got {speed!r:.40}.")


class _Entered(NamedTuple):
    """A use of a tape that was begun, and the thread that did."""

    use: TapeUse
    thread: int


_inner: ContextVar[tuple[_Entered, ...]] = ContextVar("kimi_magic_tapes", default=())


class Tapes:
    """The tapes of a session that are on.

    The innermost one counts. One that a thread has put on is on in that thread, and in those that
    it starts with a copy of its context; one of the main thread is on everywhere.
    """

    def __init__(self) -> None:
        self._entered: list[_Entered] = []
        self._lock = threading.Lock()
        self._base: TapeUse | None = None
        self._based_on: tuple[Path | None, str] = (None, "")

    def enter(self, use: TapeUse) -> Callable[[], None]:
        """Put a tape on; return the function that takes it off."""
        entered = _Entered(use, threading.get_ident())
        with self._lock:
            self._entered.append(entered)
        _inner.set((*_inner.get(), entered))

        def leave() -> None:
            with self._lock:
                self._entered = [each for each in self._entered if each is not entered]
            _inner.set(tuple(each for each in _inner.get() if each is not entered))
            if not any(each.use._key == use._key for each in self._entered):  # noqa: SLF001
                use.close()

        return leave

    def put_on(self, use: TapeUse, path: Path | None, mode: str) -> None:
        """Use a tape as long as the settings name this file, and this mode."""
        with self._lock:
            before, self._base = self._base, use
            self._based_on = (path, mode)
        if before is not None:
            before.close()

    def current(self, path: Path | None, mode: str) -> TapeUse | None:
        """Return the tape that is on here; ``path`` and ``mode`` are those of the settings."""
        me, main = threading.get_ident(), threading.main_thread().ident
        mine = _inner.get()
        with self._lock:
            entered = self._entered
            own = [e for e in entered if e.thread == me or any(e is each for each in mine)]
            if found := own or [each for each in entered if each.thread == main]:
                return found[-1].use
            return self._of_settings(path, mode)

    def _of_settings(self, path: Path | None, mode: str) -> TapeUse | None:
        if self._based_on != (path, mode):
            if self._base is not None:
                self._base.close()
            self._base = TapeUse(the_tape(path), mode) if path else None
            self._based_on = (path, mode)
        return self._base

    def close(self) -> None:
        """Take all tapes off."""
        for each in self._entered:
            each.use.close()
        if self._base is not None:
            self._base.close()
        self._entered, self._base, self._based_on = [], None, (None, "")
