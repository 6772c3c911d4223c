"""Messages from the pages that show a turn.

They arrive in another thread, or, with ipykernel 6, when the cell has ended. So they are only noted
here; Stop alone acts at once, as Kernel → Interrupt does.
"""

from __future__ import annotations

import _thread
import queue
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

__all__ = ["READY_WITHIN", "Clicks"]

READY_WITHIN = 2.0
"""Seconds until a page is heard, if it is heard at all: ipykernel 6 takes no messages in a cell."""


class Clicks:
    """Receives the messages of the pages that show a turn.

    ``on_ready`` is called when a page has come, ``on_open`` with the index of a segment that the
    reader unfolds or folds, the state, and the lane. ``awaits_late`` is True if a page waits for
    the turn that was loaded after the cell began.
    """

    def __init__(
        self,
        *,
        on_ready: Callable[[], None],
        on_open: Callable[[int, bool, int], None],
        awaits_late: bool = False,
    ) -> None:
        # Set when a page was heard while the cell ran: its clicks reach the turn.
        self.ready = threading.Event()
        self.here = threading.Event()  # a page has come, or has answered that it is still there
        self.resync = False  # a page has missed something
        self.late = False  # a page has come that was loaded after the cell began
        self._on_ready = on_ready
        self._on_open = on_open
        self._pages: set[str] = set()
        self._left_at: float | None = None
        self._opened = time.monotonic()
        self._awaited_since = self._opened if awaits_late else None
        self._answers: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._over = False

    def hear(self, content: dict[str, Any]) -> None:
        """Take a message from a page."""
        match content:
            case {"ready": str(page)}:
                self._pages.add(page)
                if content.get("late"):
                    self.late = True
                    self._awaited_since = None
                self._left_at = None
                self.ready.set()
                self.here.set()
                self._on_ready()
            case {"leaving": str(page)}:
                self._pages.discard(page)
                self._awaited_since = time.monotonic()
                self._left_at = None if self._pages else self._awaited_since
            case {"here": _}:
                self.here.set()
            case {"resync": _}:
                self.resync = True
            case {"open": [int(index), bool(is_open)], "lane": int(lane)}:
                self._on_open(index, is_open, lane)
            case {"open": [int(index), bool(is_open)]}:
                self._on_open(index, is_open, 0)
            case {"answer": dict(answer)}:
                self._answers.put(answer)
            case {"stop": _}:
                self._interrupt()

    def answer(self, timeout: float) -> dict[str, Any] | None:
        """Wait for the next answer to a question; None if none comes in time."""
        try:
            return self._answers.get(timeout=timeout)
        except queue.Empty:
            return None

    def nobody_for(self, seconds: float) -> bool:
        """Return True if the last page was closed that long ago."""
        left_at = self._left_at
        return left_at is not None and time.monotonic() - left_at > seconds

    def awaited_for(self) -> float | None:
        """Return since when a page may be waiting for the turn, in seconds; None if none is.

        One that has left may have been reloaded. Where none is heard, nobody says that it leaves.
        """
        since = self._awaited_since
        if since is None and not self.ready.is_set():
            since = self._opened + READY_WITHIN
        return None if since is None or since > (now := time.monotonic()) else now - since

    def end(self) -> None:
        """Ignore Stop from now on: the turn is over."""
        with self._lock:
            self._over = True

    def _interrupt(self) -> None:
        with self._lock:
            if self._over:
                return
            # interrupt_main() only sets a flag: a main thread that waits in a system call sleeps
            # on. A signal to that thread ends the call; Windows has none.
            main = threading.main_thread().ident
            if main is not None and hasattr(signal, "pthread_kill"):
                signal.pthread_kill(main, signal.SIGINT)
            else:
                _thread.interrupt_main()
