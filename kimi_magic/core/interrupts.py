"""Interrupts that arrive only where a turn can take them.

Python raises ``KeyboardInterrupt`` between any two bytecodes of the main thread: inside an import,
in the middle of a view's update, in a ``finally``. While a turn runs, SIGINT is therefore held back
and let through where the turn waits for something or runs code of the user's. An import is never
cut in two, whoever makes it: the interrupt comes as soon as it has ended.
"""

from __future__ import annotations

import _thread
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import Any, TypeVar

from kimi_magic.core.delicate import (
    LONGEST_IMPORT,
    DroppedErrors,
    Insistence,
    Insistent,
    current_frame,
    imports_under_way,
)
from kimi_magic.core.processes import in_this_process

__all__ = [
    "Hold",
    "Insisted",
    "holding_interrupts",
    "interruptible",
    "is_interrupt",
    "stoppable",
    "uninterrupted",
    "waiting",
    "whole_imports",
]

T = TypeVar("T")

# An interrupt that nothing lets through must not make a hung view unstoppable.
PATIENCE = 3
# Code of the user's may catch an interrupt and go on: after this many seconds the next one comes
# through again. Until then our own code around it may be dealing with the first.
GRACE = 0.3
# How often a delayed interrupt is tried again, and how soon after another one that was caught.
RETRY, RAISE_AGAIN = 0.01, 0.5


class Insisted(Insistent, KeyboardInterrupt):
    """The interrupt of a call that caught an earlier one and went on."""


class Hold:
    """The interrupts of one turn, or of one piece of code outside of any.

    With ``always_open`` they are let through everywhere but in the middle of an import.

    Attributes
    ----------
    pending : int
        Interrupts that arrived and were not let through.
    over : bool
        The previous handler is being restored: it gets the interrupts that arrive now.
    """

    def __init__(
        self, handler: Callable[[int, FrameType | None], Any], *, always_open: bool = False
    ) -> None:
        self.pending = 0
        self._handler = handler
        self._always_open = self._open = always_open
        self._raised = False
        self._reopens_at = math.inf
        self._imports = imports_under_way(current_frame())
        self._came_at = 0.0  # the first of those that are pending
        self.over = False
        self._nudged = self._nudging = False
        self._sending = threading.Lock()
        self._insistence: Insistence | None = None
        self._insists = False
        self._dropped = DroppedErrors(KeyboardInterrupt, self._come_again)

    def begin(self) -> None:
        self._dropped.begin()

    def end(self) -> None:
        # The nudging thread may have checked and not sent yet. As long as the handler is ours its
        # signal does nothing; after this lock it sends none.
        with self._sending:
            self._dropped.end()

    def receive(self, signum: int, frame: FrameType | None) -> None:
        """Handle SIGINT: raise where the hold is open, else remember it."""
        now = time.monotonic()
        nudged, self._nudged = self._nudged, False
        if self.over:
            self.pending += not nudged
            return
        if not nudged:
            self._came_at = self._came_at if self.pending else now
            self.pending += 1
        elif not (self.pending or self._insists):
            return
        impatient = self.pending >= PATIENCE
        again = not self._open and (
            now >= self._reopens_at or (impatient and self._reopens_at < math.inf)
        )
        if not (self._open or again or self._insists or impatient):
            if self._reopens_at < math.inf:  # it comes when the first has been dealt with
                self._nudge_in(GRACE)
        elif self._in_import(frame, now):
            self._nudge_in(RETRY)
        else:
            # Closed here, not in a handler of the exception: a second SIGINT may come before that.
            self._open, self._raised, self.pending = self._always_open, True, 0
            self._reopens_at = now + GRACE if self._reopens_at < math.inf else math.inf
            if self._insistence is not None and (again or self._insists):
                self._insists = True
                self._nudge_in(RAISE_AGAIN)
                error = self._insistence.error()
                self._insistence.begin(frame)
                raise error
            self._handler(signum, frame)

    def call(self, function: Callable[[], T]) -> T:
        """Call code of the user's, which the second interrupt ends even if it catches them all."""
        outer, insistence = self._insistence, Insistence(Insisted)
        insistence.caller = current_frame()
        self._insistence = insistence
        try:
            result = function()
        finally:
            insistence.caller = None  # first: what follows is our own code
            insisted, self._insists = self._insists, False
            self._insistence = outer
            insistence.end()
        if insisted:
            raise Insisted
        return result

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
            self._let_pending_through()
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
        if self._open:
            self._let_pending_through()

    def _let_pending_through(self) -> None:
        if self.pending:
            self._nudged = True
            self.receive(signal.SIGINT, None)

    def _in_import(self, frame: FrameType | None, now: float) -> bool:
        late = now - self._came_at > LONGEST_IMPORT
        return not late and imports_under_way(frame) > self._imports

    def _come_again(self) -> None:
        """Have an interrupt come again that was raised where Python drops errors."""
        if self._raised:
            self._open, self._raised, self.pending = True, False, self.pending + 1
            self._came_at = time.monotonic()
            self._nudge_in(RETRY)
            if self._insistence is not None and self._insistence.dropped():
                self._insists = True

    def _nudge_in(self, seconds: float) -> None:
        """Have SIGINT sent to the main thread when one that is pending can be raised."""
        if not self._nudging:
            self._nudging = True
            # Not threading.Thread, which takes a lock that the code under this handler may hold.
            _thread.start_new_thread(self._nudge, (seconds,))

    def _nudge(self, seconds: float) -> None:
        main = threading.main_thread().ident
        assert main is not None, "it runs"
        time.sleep(seconds)
        while not self.over and (self.pending or self._insists):
            now = time.monotonic()
            due = self._open or now >= self._reopens_at or self._insists
            if due and not self._in_import(_frame_of(main), now):
                with self._sending:
                    if self.over:
                        break
                    self._nudged = True
                    _send_interrupt(main)
            time.sleep(RAISE_AGAIN if self._insists else RETRY)
        self._nudging = False


def _frame_of(thread: int) -> FrameType | None:
    return sys._current_frames().get(thread)  # noqa: SLF001 - a documented function


def _send_interrupt(thread: int) -> None:
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(thread, signal.SIGINT)  # wakes it from a wait, too
    else:
        _thread.interrupt_main()


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
    with _handling(hold):
        _holds.append(hold)
        try:
            yield hold
        finally:
            _holds.remove(hold)


@contextmanager
def whole_imports() -> Iterator[None]:
    """Let interrupts through inside the block, but never in the middle of an import.

    For the doors of the package: what stands behind them imports what it needs when it needs it.
    """
    handler = signal.getsignal(signal.SIGINT) if _in_main_thread() else None
    if callable(handler) and not isinstance(getattr(handler, "__self__", None), Hold):
        with _handling(Hold(handler, always_open=True)):
            yield
    else:
        yield


def is_interrupt(error: BaseException) -> bool:
    """Return True for an interrupt, also one that went through other code.

    pydantic-core 2.23 panics if Python code that it calls is interrupted.
    """
    is_panic = type(error).__name__ == "PanicException" and "KeyboardInterrupt" in str(error)
    return is_panic or isinstance(error, KeyboardInterrupt)


@contextmanager
def _handling(hold: Hold) -> Iterator[None]:
    before = signal.signal(signal.SIGINT, hold.receive)
    hold.begin()
    try:
        yield
    except KeyboardInterrupt:
        hold.pending = 0  # those that followed the first
        raise
    except BaseException as error:
        if is_interrupt(error):
            hold.pending = 0
            raise KeyboardInterrupt from None
        raise
    finally:
        hold.over = True  # here: an interrupt might come before the first line of a call
        hold.end()
        signal.signal(signal.SIGINT, before)
        if hold.pending:  # whoever handled interrupts before gets it
            signal.raise_signal(signal.SIGINT)


@contextmanager
def interruptible(*, recover: bool = False) -> Iterator[None]:
    """Let interrupts through inside the block, as ``KeyboardInterrupt``.

    For code of the user's, which may catch one on purpose.
    """
    if _holds and _in_main_thread():
        with in_this_process(), _holds[-1].open(recover=recover):
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


def stoppable(function: Callable[[], T]) -> T:
    """Call code of the user's so that the second interrupt ends it, whatever it catches.

    Python code, that is: a loop in C that does not ask for signals runs to its end, and only then
    is the interrupt raised.
    """
    return _holds[-1].call(function) if _holds and _in_main_thread() else function()


def waiting() -> AbstractContextManager[None]:
    """Let interrupts through while our own code waits.

    None is lost: Python swallows an exception that a handler raises inside a finalizer or a
    callback of the garbage collector, and prints it.
    """
    return interruptible(recover=True)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
