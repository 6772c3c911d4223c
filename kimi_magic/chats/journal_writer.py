"""The thread that writes the journal.

A turn's thread puts small items into a queue and does nothing else. The writer takes them a few
times a second, and brings the file to what each turn has come to. What could not be written stays
in memory and is tried again; a reader is told once.
"""

from __future__ import annotations

import atexit
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from kimi_magic.chats.journal_schema import State
from kimi_magic.core.events import Event, TurnPrepared
from kimi_magic.core.processes import process_name
from kimi_magic.core.turn_record import Failure, TurnRecord

if TYPE_CHECKING:
    from kimi_magic.chats.journal_file import JournalError, JournalFile
    from kimi_magic.chats.journal_fragments import Fragments, Masks
    from kimi_magic.secrets.keys import Key

__all__ = ["JournalWriter", "TurnInJournal"]

BATCH = 0.25  # seconds between two times that a growing turn is written
PATIENCE = 5.0  # seconds that another program may lock the file before the reader hears of it
LONGEST_PAUSE = 30.0  # seconds between two tries
MOST_WAITING = 200  # turns that are kept for a file that cannot be written
MOST_DAMAGES = 3  # files that are set aside before the journal is given up
AT_EXIT = 2.0  # seconds in which the last of it is written when the process ends

DAMAGED = "The journal was damaged: the file is kept as {}, and a new one begins."
NOT_STORED = "A turn could not be stored in the journal ({})."
NO_SQLITE = "The journal is off: this Python has no SQLite."
BROKEN_OFF = Failure("TurnInterrupted", "The turn was broken off; what had arrived is kept.")


class TurnInJournal:
    """One turn on its way into the journal; a turn's thread calls these methods."""

    def __init__(self, writer: JournalWriter, notebook: str) -> None:
        self.notebook = notebook
        # The queues of now: a forked child's writer has others, and this turn is its parent's.
        self._items, self._hurry = writer.items, writer.hurry
        self._flush = writer.flush if writer.is_forked else None

    def put(self, event: Event, *, at_once: bool = False) -> None:
        """Hand over an event without live values."""
        self._items.put((self, event))
        if at_once:
            self._hurry.put(None)

    def finish(self, record: TurnRecord, state: State) -> None:
        """Hand over the whole record."""
        self._items.put((self, (record, state)))
        self._hurry.put(None)
        if self._flush is not None:  # a forked child mostly ends without its exit functions
            self._flush(AT_EXIT)

    def close(self) -> None:
        """End the turn; one that has not finished is stored as far as it came."""
        self._items.put((self, None))


class JournalWriter:
    """Writes turns into one file, in a thread of its own that starts with the first.

    Parameters
    ----------
    path : Path
    keys : callable
        Returns the keys to mask.

    Attributes
    ----------
    notices : deque of str
        What nobody has told the reader yet: never more than one line for one writer.
    opened : threading.Event
        Set when the file was opened, or could not be.
    """

    def __init__(self, path: Path, keys: Callable[[], Iterable[Key]]) -> None:
        self.path = path
        self.notices: deque[str] = deque()
        self._keys = keys
        self._told = self._off = self.is_forked = False
        self._chats: dict[str, _Conversation] = {}
        self._known: JournalFile | None = None  # closed or open: where rows are known to stand
        self._begin()
        _writers.add(self)
        _watch_process()

    def _begin(self) -> None:
        """Begin without a thread; again after the end of one, and in a forked child."""
        self.items: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.hurry: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.opened = threading.Event()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._at_work = threading.Lock()  # held while the file, or an import, is in use
        self._stopping = False
        self._file: JournalFile | None = None
        self._turns: dict[TurnInJournal, _Progress] = {}
        self._ended: list[_Conversation] = []
        self._failing_since: float | None = None
        self._pause = BATCH
        self._damages = 0

    def begin(self, notebook: str) -> TurnInJournal | None:
        """Begin a turn; None where the journal cannot be written at all.

        Parameters
        ----------
        notebook : str
            The path of the notebook, or the working folder.
        """
        if self._off:
            return None
        with self._starting:
            if self._thread is None:
                # A daemon: a disk that hangs must not keep the process from its end.
                thread = threading.Thread(target=self._work, name="kimi-journal", daemon=True)
                thread.start()
                self._thread = thread
                # A child of multiprocessing has forgotten its parent's.
                atexit.unregister(_close_all)
                atexit.register(_close_all)
        return TurnInJournal(self, notebook)

    def adopt(self, chat: str, row: int) -> None:
        """Go on with a conversation of the file under the name of a chat."""
        self._call(lambda: self._chats.update({chat: _Conversation(row)}))

    def forget(self, chat: str) -> None:
        """Note that a chat was reset: its next turn begins another conversation."""
        now = time.time()

        def end() -> None:
            if ended := self._chats.pop(chat, None):
                ended.ended = now
                self._ended.append(ended)

        self._call(end)

    def flush(self, timeout: float) -> bool:
        """Wait until all that was handed over is written; return False if it is not in time."""
        if self._thread is None:
            return True
        done = threading.Event()
        self._call(done.set)
        return done.wait(timeout) and self._failing_since is None

    def close(self, timeout: float = AT_EXIT) -> None:
        """Write what is left and end the thread; a later turn starts another."""
        if (thread := self._thread) is None:
            return
        self._call(self._stop)
        thread.join(timeout)
        if not thread.is_alive():
            self._begin()

    def leave_to_parent(self, *, clean: bool) -> None:
        """Begin anew in a forked child; not ``clean`` if its parent was in the middle of SQLite."""
        if self._file is not None:
            import ctypes

            # Never closed: that would write through the parent's file, with its locks.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._file.connection))
        self._begin()
        self.is_forked = True
        self._off = self._off or not clean

    def pause(self) -> bool:
        """Keep the thread from its work and close the file for a fork; False if it is too busy.

        SQLite counts a process's locks in its memory. With an open file, a child would take its
        parent's for its own: other kernels would not see that the child is there, and one that
        leaves as the last would delete the write-ahead log under it.
        """
        paused = self._at_work.acquire(timeout=AT_EXIT)
        if paused and self._file is not None:
            self._file.close()
            self._file = None
        return paused

    def go_on(self) -> None:
        self._at_work.release()

    def _call(self, function: Callable[[], None]) -> None:
        """Have the thread call a function when all that came before is written."""
        self.items.put((None, function))
        self.hurry.put(None)

    def _stop(self) -> None:
        self._stopping = True

    # What follows runs in the writer's thread.

    def _work(self) -> None:
        pause: float | None = None
        while not self._stopping:
            items = self._gather(pause)
            with self._at_work:
                try:
                    self._carry_out(items)
                except Exception as error:  # noqa: BLE001 - no traceback of ours in the user's cell
                    self._turn_off(f"The journal is off: {type(error).__name__}: {error}")
            pause = None if self._failing_since is None else self._pause
        with self._at_work:
            if self._file is not None:
                self._file.close()

    def _carry_out(self, items: Sequence[Any]) -> None:
        # Of a turn that has come to its end by now, only the whole record counts.
        ended = {turn for turn, item in items if isinstance(item, tuple)}
        for turn, item in items:
            if turn in ended and item is not None and not isinstance(item, tuple | TurnPrepared):
                continue
            if turn is None:
                try:
                    self._write()
                finally:
                    item()
            else:
                self._take(turn, item)
        self._write()

    def _gather(self, pause: float | None) -> list[Any]:
        """Wait for something to do, and a moment for what comes with it."""
        items = []
        with suppress(queue.Empty):
            items.append(self.items.get(timeout=pause))
            if self._file is None and self._failing_since is None:
                with self._at_work:  # while the turn waits for its first token
                    self._open()
            with suppress(queue.Empty):
                self.hurry.get(timeout=BATCH)
        # In this order: what hurries stands in the other queue by then.
        for each in (self.hurry, self.items):
            with suppress(queue.Empty):
                while True:
                    item = each.get_nowait()
                    if item is not None:
                        items.append(item)
        return items

    def _take(self, turn: TurnInJournal, item: Any) -> None:
        progress = self._turns.get(turn)
        if progress is None:
            if item is None or self._off:
                return
            progress = self._turns[turn] = _Progress(turn.notebook)
        if isinstance(item, TurnPrepared):
            progress.prepare(item.record)
        elif isinstance(item, tuple):
            progress.finish(*item)
        elif item is None:
            progress.break_off(self._masks())
        else:
            progress.take(item)
        if progress.conversation is None and (name := progress.chat):
            progress.conversation = self._chats.setdefault(name, _Conversation())

    def _write(self) -> None:
        """Bring the file to what the turns have come to."""
        from kimi_magic.chats.journal_file import JournalError

        if self._turns:
            masks = self._masks()
            for progress in self._turns.values():
                if problem := progress.update(masks):
                    self._tell(NOT_STORED.format(problem))
        while self._turns or self._ended:
            if not self._open() or self._file is None:
                break
            try:
                self._commit(self._file)
            except JournalError as error:
                if not self._mended(error):
                    break
            else:
                self._failing_since, self._pause = None, BATCH
                break
        waiting = [turn for turn, progress in self._turns.items() if progress.is_finished]
        over = [turn for turn, progress in self._turns.items() if progress.is_over]
        for turn in [*over, *waiting[:-MOST_WAITING]]:
            self._turns.pop(turn, None)

    def _commit(self, file: JournalFile) -> None:
        changed = [progress for progress in self._turns.values() if progress.is_changed]
        if not changed and not self._ended:
            return
        chats: dict[_Conversation, int] = {}
        kernel = process_name()
        with file.transaction():
            for progress in changed:
                chat = progress.conversation
                if chat is not None and chat not in chats:
                    row = chat.row
                    if row is None or not file.has_chat(row):
                        row = file.add_chat(progress.notebook, progress.chat, progress.started)
                    chats[chat] = row
                progress.write(file, kernel, None if chat is None else chats[chat])
            for ended in self._ended:
                row = chats.get(ended, ended.row)
                if row is not None:
                    file.end_chat(row, ended.ended)
        self._ended = [chat for chat in self._ended if self._is_awaited(chat)]
        for chat, row in chats.items():
            chat.row = row
        for progress in changed:
            progress.is_written()

    def _is_awaited(self, chat: _Conversation) -> bool:
        """Return True if the row of a conversation that has ended is still to come."""
        return chat.row is None and any(p.conversation is chat for p in self._turns.values())

    def _open(self) -> bool:
        """Open the file; return True if it is open."""
        if self._known is not None and self._known.is_replaced:
            self._leave_file()
        if self._file is not None or self._off:
            return not self._off
        try:
            import ctypes  # noqa: F401 - a forked child may need it, and might not be able to import

            from kimi_magic.chats.journal_file import JournalError, JournalFile
        except ImportError:
            self._turn_off(NO_SQLITE)
            return False
        while self._file is None:
            try:
                file = JournalFile.open(self.path)
                try:
                    file.recover()
                except JournalError as error:
                    file.close()
                    raise error from None
                self._file = self._known = file
            except JournalError as error:
                if not self._mended(error):
                    return False
        self.opened.set()
        return True

    def _leave_file(self) -> None:
        """Close a file; what is known to stand in it has to be written into the next one."""
        if self._file is not None:
            self._file.close()
        self._file = self._known = None
        for progress in self._turns.values():
            progress.is_lost()
        for chat in self._chats.values():
            chat.row = None

    def _mended(self, error: JournalError) -> bool:
        """Deal with a fault; return True if another try may succeed now."""
        from kimi_magic.chats.journal_file import JournalError, set_aside

        if error.trouble in ("foreign", "later"):
            self._turn_off(str(error))
            return False
        if error.trouble == "corrupt" and self._damages < MOST_DAMAGES:
            self._damages += 1
            replaced = self._known is not None and self._known.is_replaced
            self._leave_file()
            try:
                if not replaced:  # by another kernel that has seen it first
                    self._tell(DAMAGED.format(set_aside(self.path).name))
                return True
            except JournalError as second:
                error = second
        now = time.monotonic()
        self._failing_since = self._failing_since or now
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        if error.trouble != "locked" or now - self._failing_since > PATIENCE:
            self._tell(str(error))
            self.opened.set()
        return False

    def _turn_off(self, notice: str) -> None:
        self._off = True
        self._leave_file()
        self._turns.clear()
        self._failing_since = None
        self._tell(notice)
        self.opened.set()

    def _tell(self, notice: str) -> None:
        if not self._told:
            self._told = True
            self.notices.append(notice)

    def _masks(self) -> Masks:
        from kimi_magic.chats.journal_fragments import Masks

        return Masks(self._keys(), shapes=True)


@dataclass(eq=False, slots=True)
class _Conversation:
    """A chat of this kernel, with its row once it has one, and the time of its reset."""

    row: int | None = None
    ended: float = 0.0


class _Progress:
    """The state that a turn has come to, and how much of it stands in the file."""

    def __init__(self, notebook: str) -> None:
        self.notebook = notebook
        self.conversation: _Conversation | None = None
        self.is_over = False  # nothing is left to be written
        self._record: TurnRecord | None = None
        self._state: State = "running"
        self._fragments: Fragments | None = None
        self._data: dict[str, Any] | None = None  # the record as it is stored
        self._row: int | None = None
        self._row_to_be: int | None = None
        self._stands = False  # the record stands in the file

    @property
    def chat(self) -> str:
        return (self._record and self._record.chat) or ""

    @property
    def started(self) -> float:
        return self._record.started if self._record else 0.0

    @property
    def is_finished(self) -> bool:
        return self._state != "running"

    @property
    def is_changed(self) -> bool:
        fragments = self._fragments is not None and self._fragments.are_changed
        return self._data is not None and (not self._stands or fragments)

    def prepare(self, record: TurnRecord) -> None:
        from kimi_magic.chats.journal_fragments import Fragments

        self._set(record, "running")
        self._fragments = Fragments()

    def take(self, event: Event) -> None:
        if self._fragments is not None:
            self._fragments.take(event)

    def finish(self, record: TurnRecord, state: State) -> None:
        self._set(record, state)
        self._fragments = None

    def break_off(self, masks: Masks) -> None:
        """End a turn that has not told its end."""
        from kimi_magic.chats.journal_fragments import recovered

        if self.is_finished:
            return
        if self._record is None:
            self.is_over = True
            return
        self.update(masks)
        rows = self._fragments.rows if self._fragments is not None else ()
        self.finish(replace(recovered(self._record, rows), failure=BROKEN_OFF), "stopped")

    def update(self, masks: Masks) -> str:
        """Make what is to be written; return the reason why it cannot be made, or ""."""
        if self._data is None and self._record is not None:
            self._data, problem = _stored(self._record, masks)
            if self._data is None:
                self.is_over = True
                return problem
        if self._fragments is not None:
            try:
                self._fragments.update(masks)
            except Exception:  # noqa: BLE001 - an output of the user's that is no JSON
                self._fragments = None
        return ""

    def write(self, file: JournalFile, kernel: str, chat: int | None) -> None:
        assert self._data is not None, "only what was made is written"
        row = self._row
        if row is None:
            row = file.add(
                self._data, chat=chat, notebook=self.notebook, kernel=kernel, state=self._state
            )
        elif not self._stands:
            file.replace(row, self._data, state=self._state)
        if self._fragments is not None:
            rows, instead_from = self._fragments.unwritten, self._fragments.instead_from
            file.put_fragments(row, rows, instead_from=instead_from)
        self._row_to_be = row

    def is_written(self) -> None:
        """Note that what was to be written stands in the file."""
        self._row, self._stands, self.is_over = self._row_to_be, True, self.is_finished
        if self._fragments is not None:
            self._fragments.are_written()

    def is_lost(self) -> None:
        """Note that nothing of it stands in the file."""
        self._row, self._stands = None, False
        if self._fragments is not None:
            self._fragments.are_lost()

    def _set(self, record: TurnRecord, state: State) -> None:
        self._record, self._state = record, state
        self._data, self._stands = None, False


def _stored(record: TurnRecord, masks: Masks) -> tuple[dict[str, Any] | None, str]:
    """Return a record as it is stored, or None and the reason.

    Without what a tool displayed and an answer's data, if these are no JSON or too deeply nested.
    """
    problem = ""
    for each in (record, _plainer(record)):
        try:
            return masks.value(each.without_history().to_dict()), ""
        except Exception as error:  # noqa: BLE001 - pydantic's, and RecursionError
            problem = type(error).__name__
    return None, problem


def _plainer(record: TurnRecord) -> TurnRecord:
    steps = tuple(
        replace(step, tool_results=tuple(replace(r, outputs=()) for r in step.tool_results))
        for step in record.steps
    )
    return replace(record, steps=steps, data=None, parameters={})


_writers: WeakSet[JournalWriter] = WeakSet()
_paused: list[tuple[JournalWriter, bool]] = []
_watched = False


def _watch_process() -> None:
    """Be called at each fork; there is no way to take that back."""
    global _watched  # noqa: PLW0603 - once a process
    if not _watched and hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child
        )
    _watched = True


def _before_fork() -> None:
    # A child of a process that is in the middle of SQLite waits for its locks forever.
    _paused[:] = [(writer, writer.pause()) for writer in list(_writers)]


def _after_fork() -> None:
    for writer, paused in _paused:
        if paused:
            writer.go_on()
    _paused.clear()


def _in_child() -> None:
    for writer, paused in _paused:
        writer.leave_to_parent(clean=paused)
    _paused.clear()


def _close_all() -> None:
    for writer in list(_writers):
        writer.close()
