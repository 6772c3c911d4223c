"""Interrupts that arrive only where a turn can take them.

Python raises ``KeyboardInterrupt`` between any two bytecodes of the main thread: inside an import,
in the middle of a view's update, in a ``finally``. While a turn runs, SIGINT is therefore held back
and let through where the turn waits for something or runs code of the user's.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import Any

__all__ = ["Hold", "holding_interrupts", "interruptible", "uninterrupted", "waiting"]

# An interrupt that nothing lets through must not make a hung view unstoppable.
PATIENCE = 3
# Code of the user's may catch an interrupt and go on: after this many seconds the next one comes
# through again. Until then our own code around it may be dealing with the first.
GRACE = 0.3


class Hold:
    """The interrupts of one turn.

    Attributes
    ----------
    pending : int
        Interrupts that arrived and were not let through.
    """

    def __init__(self, handler: Callable[[int, FrameType | None], Any]) -> None:
        self.pending = 0
        self._handler = handler
        self._open = False
        self._raised = False
        self._reopens_at = math.inf

    def receive(self, signum: int, frame: FrameType | None) -> None:
        """Handle SIGINT: raise where the hold is open, else remember it."""
        now = time.monotonic()
        if self._open or now >= self._reopens_at or self.pending + 1 >= PATIENCE:
            # Closed here, not in a handler of the exception: a second SIGINT may come before that.
            self._open, self._raised, self.pending = False, True, 0
            self._reopens_at = now + GRACE if self._reopens_at < math.inf else math.inf
            self._handler(signum, frame)
        else:
            self.pending += 1

    @contextmanager
    def open(self, *, recover: bool) -> Iterator[None]:
        """Let interrupts through, those that are pending first.

        Parameters
        ----------
        recover : bool
            Raise again what was raised in the block and did not come out of it.
        """
        before = self._open, self._reopens_at
        try:
            self._open, self._raised = True, False
            self._reopens_at = math.inf if recover else time.monotonic() + GRACE
            if self.pending:
                self.receive(signal.SIGINT, None)
            yield
        finally:
            self._open, self._reopens_at = before[0] and not self._raised, before[1]
        if self._raised and recover:
            raise KeyboardInterrupt

    @contextmanager
    def close(self) -> Iterator[None]:
        """Hold interrupts again, inside a block where they are let through."""
        before, self._open = self._open, False
        reopens_at, self._reopens_at = self._reopens_at, math.inf
        try:
            yield
        finally:
            self._open, self._reopens_at = before and not self._raised, reopens_at
        if self._open and self.pending:
            self.receive(signal.SIGINT, None)


_holds: list[Hold] = []


@contextmanager
def holding_interrupts() -> Iterator[Hold | None]:
    """Hold interrupts back inside the block, but for what runs in ``interruptible``.

    Yields
    ------
    Hold or None
        None outside the main thread, where no interrupt ever arrives, and where SIGINT is ignored
        or handled outside Python.
    """
    handler = signal.getsignal(signal.SIGINT) if _in_main_thread() else None
    if not callable(handler):
        yield None
        return
    # A turn inside a tool of another turn: what is let through here is raised here.
    while isinstance(owner := getattr(handler, "__self__", None), Hold):
        handler = owner._handler  # noqa: SLF001 - of the same class
    hold = Hold(handler)
    before = signal.signal(signal.SIGINT, hold.receive)
    _holds.append(hold)
    try:
        yield hold
    except KeyboardInterrupt:
        hold.pending = 0  # those that followed the first
        raise
    finally:
        _holds.remove(hold)
        signal.signal(signal.SIGINT, before)
        if hold.pending:  # whoever handled interrupts before gets it
            signal.raise_signal(signal.SIGINT)


@contextmanager
def interruptible(*, recover: bool = False) -> Iterator[None]:
    """Let interrupts through inside the block, as ``KeyboardInterrupt``.

    For code of the user's, which may catch one on purpose.
    """
    if _holds and _in_main_thread():
        with _holds[-1].open(recover=recover):
            yield
    else:
        yield


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold interrupts back while our own code runs in the middle of code of the user's."""
    if _holds and _in_main_thread():
        with _holds[-1].close():
            yield
    else:
        yield


def waiting() -> AbstractContextManager[None]:
    """Let interrupts through while our own code waits.

    None is lost: Python swallows an exception that a handler raises inside a finalizer or a
    callback of the garbage collector, and prints it.
    """
    return interruptible(recover=True)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
