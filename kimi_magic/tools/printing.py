"""The prints of a call, handed on while it runs.

Threads of the call write, and one reader takes: neither holds a lock that the other needs, as a
call may fork at any moment. Floods are thinned out, as nobody reads 10,000 lines a second; the
call's result has what its capture kept.
"""

from __future__ import annotations

import contextvars
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from kimi_magic.core.events import ToolPrinted
from kimi_magic.core.interrupts import uninterrupted
from kimi_magic.secrets.keys import Key
from kimi_magic.secrets.stream import StreamRedactor

__all__ = ["Printing", "Watch", "telling"]

EVERY = 0.1  # seconds
MOST_CHARS = 8000  # that are handed on at once
CHARS_PER_SECOND = 8000
MOST_PIECES = 1000
GAP = "\n[…]\n"
_SPACE = re.compile(r"\s")


@dataclass(frozen=True, slots=True)
class Watch:
    """Hears what calls print while they run.

    ``announce`` gets an event, or None where nothing new was printed. None of the ``keys`` that
    are known by then is in its text.
    """

    announce: Callable[[ToolPrinted | None], None]
    keys: Callable[[], Iterable[Key]]


class Printing:
    """The text that one call has printed and that was not taken yet."""

    def __init__(
        self,
        keys: Callable[[], Iterable[Key]] = tuple,
        begin: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys = keys
        self._begin = begin  # called for the first text
        self._clock = clock
        self._process = os.getpid()
        self.quiet = threading.Lock()  # who holds it speaks for the turn itself
        # Each with its place in the whole; None where everything before is to be forgotten.
        self._pieces: deque[tuple[int, str | None]] = deque(maxlen=MOST_PIECES)
        self._written = self._taken = 0
        self._line_at = 0  # in the whole, the beginning of the line under way
        self._allowed, self._allowed_at = float(MOST_CHARS), clock()
        self._redactor: StreamRedactor | None = None
        self._known: tuple[Key, ...] = ()

    def write(self, text: str) -> None:
        if os.getpid() != self._process:  # a forked child has no reader
            return
        if "\n" in text:
            self._line_at = self._written + text.rindex("\n") + 1
        missing = max(len(text) - MOST_CHARS, 0)
        self._pieces.append((self._written + missing, text[missing:]))
        self._written += len(text)
        begin, self._begin = self._begin, None
        if begin is not None:
            begin()

    def clear(self) -> None:
        self._pieces.append((self._written, None))

    def end(self) -> None:
        """Let go of what the first text begins: a call may never print."""
        self._begin = None

    def take(self) -> tuple[str, bool]:
        """Return what is new, and True if what was printed before is to be forgotten."""
        pieces: list[str] = []
        gap = clears = False
        before = self._taken
        for _ in range(len(self._pieces)):  # not those that come meanwhile
            at, piece = self._pieces.popleft()
            if piece is None:
                pieces, gap, clears, self._redactor = [], False, True, None
            elif piece:
                if at != self._taken:
                    pieces, gap = [], True
                pieces.append(piece)
                self._taken = at + len(piece)
        text = "".join(pieces)
        if not text:
            return "", clears
        if len(text) > (allowed := self._allowance()):
            text, gap = text[len(text) - allowed :], True
        self._allowed -= len(text)
        if gap:
            # Neither half of a key whose other half is missing is shown.
            self._redactor = None
            _, again, line = text.partition("\r")
            # A progress bar draws its line again and again: no line is missing.
            is_bar = again and self._line_at <= before
            text = again + line if is_bar else GAP + _after_a_space(text)
        return self._redact(text), clears

    def _allowance(self) -> int:
        now = self._clock()
        more = (now - self._allowed_at) * CHARS_PER_SECOND
        self._allowed, self._allowed_at = min(self._allowed + more, MOST_CHARS), now
        return int(self._allowed)

    def _redact(self, text: str) -> str:
        known = tuple(self._keys())
        if self._redactor is None or known != self._known:  # the call may have set one
            text = (self._redactor.finish() if self._redactor else "") + text
            self._redactor, self._known = StreamRedactor(known), known
        return self._redactor.feed(text)


def _after_a_space(text: str) -> str:
    _, line, rest = text.partition("\n")
    if line:
        return rest
    space = _SPACE.search(text)
    return text[space.end() :] if space else ""


@contextmanager
def telling(index: int, watch: Watch | None) -> Iterator[Printing | None]:
    """Announce what a call prints that keeps the thread of the turn busy.

    A helper thread does it, from the first text on: a call that prints once and then computes for a
    minute gives no other occasion. Until the call ends nobody else talks to those who hear of it.
    """
    if watch is None:
        yield None
        return
    helper = _Helper(index, watch)
    try:
        yield helper.printing
    finally:
        helper.end()


class _Helper:
    def __init__(self, index: int, watch: Watch) -> None:
        self.printing = Printing(watch.keys, self._begin)
        self._index = index
        self._watch = watch
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        # Of the turn, not of the call: what the thread itself prints is not the call's.
        self._context = contextvars.copy_context()

    def _begin(self) -> None:
        run = self._context.copy().run
        thread = threading.Thread(target=run, args=(self._work,), name="kimi-magic prints")
        thread.daemon = True
        with suppress(RuntimeError):  # no more threads: the result will tell
            self._context.run(thread.start)
            self._thread = thread

    def end(self) -> None:
        self._over.set()
        self.printing.end()
        with uninterrupted():
            if self._thread is not None:
                self._thread.join()

    def _work(self) -> None:
        while not self._over.wait(EVERY):
            text, clears = self.printing.take()
            news = ToolPrinted(self._index, text, clears) if text or clears else None
            with self.printing.quiet:
                self._watch.announce(news)
