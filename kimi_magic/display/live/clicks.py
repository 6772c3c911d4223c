"""What comes back from the page while a turn runs.

It arrives in another thread, or, where the kernel is of the older kind, when the cell has ended.
So nothing is done here but to note it; only Stop acts at once, as Kernel → Interrupt does.
"""

from __future__ import annotations

import _thread
import queue
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

__all__ = ["Clicks"]


class Clicks:
    """Hears the pages that show a turn.

    Attributes
    ----------
    ready : threading.Event
        Set when a page was heard in time: what is clicked there reaches the turn.
    here : threading.Event
        Set when a page has come, or has answered that it is still there.
    resync : bool
        Whether a page has missed something.
    """

    def __init__(
        self, *, on_ready: Callable[[], None], on_open: Callable[[int, bool], None]
    ) -> None:
        self.ready = threading.Event()
        self.here = threading.Event()
        self.resync = False
        self._on_ready = on_ready
        self._on_open = on_open
        self._pages: set[str] = set()
        self._left_at: float | None = None
        self._answers: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._over = False

    def hear(self, content: dict[str, Any]) -> None:
        """Take a message of a page."""
        match content:
            case {"ready": str(page)}:
                self._pages.add(page)
                self._left_at = None
                self.ready.set()
                self.here.set()
                self._on_ready()
            case {"leaving": str(page)}:
                self._pages.discard(page)
                self._left_at = None if self._pages else time.monotonic()
            case {"here": _}:
                self.here.set()
            case {"resync": _}:
                self.resync = True
            case {"open": [int(part), bool(is_open)]}:
                self._on_open(part, is_open)
            case {"answer": dict(answer)}:
                self._answers.put(answer)
            case {"stop": _}:
                self._interrupt()

    def answer(self, timeout: float) -> dict[str, Any] | None:
        """The next answer to a question; None where none comes in time."""
        try:
            return self._answers.get(timeout=timeout)
        except queue.Empty:
            return None

    def nobody_for(self, seconds: float) -> bool:
        """Whether every page was closed that long ago."""
        left_at = self._left_at
        return left_at is not None and time.monotonic() - left_at > seconds

    def end(self) -> None:
        """From now on nothing interrupts any more."""
        with self._lock:
            self._over = True

    def _interrupt(self) -> None:
        with self._lock:
            if not self._over:
                _interrupt_main_thread()


def _interrupt_main_thread() -> None:
    if hasattr(signal, "pthread_kill"):  # this ends a call that waits as well
        ident = threading.main_thread().ident
        assert ident is not None, "it runs"
        signal.pthread_kill(ident, signal.SIGINT)
    else:
        _thread.interrupt_main()
