"""Runs a call until its time is over.

In the main thread a timer's signal can end it; elsewhere, and on Windows, nothing can end a call
from outside, so that it runs in a thread which is left behind.
"""

from __future__ import annotations

import contextvars
import signal
import threading
import time
from collections.abc import Callable
from concurrent import futures
from types import FrameType
from typing import Any

__all__ = ["CallTimedOut", "Clock", "Ring", "call_within", "wait"]

# Windows cannot interrupt a wait for a lock: it has to end by itself now and then.
_TICK = 0.1
# Python prints what is raised in a finalizer or a weak reference's callback, and goes on: a ring
# waits a little for the end of one, and who lost it hears it again.
_SOON, _PATIENCE, _AGAIN = 0.001, 0.1, 0.5
_SHORTEST, _LONGEST = 1e-6, 1e7  # a timer of 0 s is none; above, the system's clocks overflow


class CallTimedOut(Exception):
    """The time of a call is over; the text says what became of the function."""


class Ring(BaseException):
    """Ends a function at its time. No Exception: ``except Exception`` in the function lets it by.

    A function that is called inside another's sees that one's ring as well, and lets it by.
    """


class Clock:
    """How much of a call's time is left; without seconds, always enough."""

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + min(seconds, _LONGEST)

    @property
    def limited(self) -> bool:
        return self._end is not None

    @property
    def left(self) -> float:
        return _LONGEST if self._end is None else max(self._end - time.monotonic(), _SHORTEST)

    @property
    def over(self) -> bool:
        return self._end is not None and time.monotonic() >= self._end


def call_within(call: Callable[[], Any], clock: Clock, *, in_thread: bool = False) -> Any:
    """Call a function, and give it up when the clock's time is over.

    Parameters
    ----------
    in_thread : bool
        Whether to run it in a thread of its own, which is left behind at the end of its time.

    Raises
    ------
    CallTimedOut
        And whatever the function raises.
    """
    if in_thread or (clock.limited and not _can_ring()):
        return _in_thread(call, clock)
    return _until_ring(call, clock) if clock.limited else call()


def _can_ring() -> bool:
    """Whether signals arrive in this thread, and the handler that is there can be put back."""
    return (
        hasattr(signal, "setitimer")
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGALRM) is not None
    )


def _until_ring(call: Callable[[], Any], clock: Clock) -> Any:
    alarm = _Alarm(clock.left)
    try:
        alarm.set()
        try:
            value = call()
        finally:
            alarm.armed = False
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if not alarm.rung or (isinstance(error, Ring) and error is not alarm.ring):
            raise
    finally:
        alarm.put_back()
    # Also where the function hides it: IPython's run_cell turns any exception into a traceback.
    if alarm.rung:
        raise CallTimedOut("and was stopped")
    return value


class _Alarm:
    """The process's one interval timer, shared with whoever had set it before.

    While ours is set, the other's handler is called when its time comes, and afterwards its timer
    has what is left of its time.
    """

    def __init__(self, seconds: float) -> None:
        self.ring = Ring()
        self.armed = True
        self.rung = False
        self._handler = signal.getsignal(signal.SIGALRM)
        left, self._interval = signal.getitimer(signal.ITIMER_REAL)
        now = time.monotonic()
        self._due = now + seconds
        self._others_due = now + left if left else None

    def set(self) -> None:
        signal.signal(signal.SIGALRM, self._handle)
        self._start()

    def _start(self) -> None:
        due = self._due if self._others_due is None else min(self._due, self._others_due)
        signal.setitimer(signal.ITIMER_REAL, max(due - time.monotonic(), _SHORTEST))

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if not self.armed:
            return
        now = time.monotonic()
        if self._others_due is not None and now >= self._others_due:
            self._others_due = now + self._interval if self._interval else None
            if callable(self._handler):
                self._handler(signum, frame)
        if now < self._due:
            self._start()
        elif _is_lost_in(frame) and now < self._due + _PATIENCE:
            signal.setitimer(signal.ITIMER_REAL, _SOON)
        else:
            self.rung = True
            self._due = now + _AGAIN
            self._start()
            raise self.ring

    def put_back(self) -> None:
        self.armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._handler)
        if self._others_due is not None:
            left = max(self._others_due - time.monotonic(), _SHORTEST)
            signal.setitimer(signal.ITIMER_REAL, left, self._interval)


def _is_lost_in(frame: FrameType | None) -> bool:
    """Whether it is seen that what is raised here goes no further."""
    if frame is None:
        return False
    module = frame.f_globals.get("__name__")
    return frame.f_code.co_name == "__del__" or module in ("weakref", "_weakrefset")


def _in_thread(call: Callable[[], Any], clock: Clock) -> Any:
    future: futures.Future[Any] = futures.Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised again by who waits for it
            future.set_exception(error)

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(work,), name="kimi-magic call", daemon=True).start()
    return wait(future, clock, "and was left behind; it may still be running")


def wait(future: futures.Future[Any], clock: Clock, fate: str) -> Any:
    """Wait for a future's result until the clock's time is over."""
    while not future.done():
        if clock.over:
            raise CallTimedOut(fate)
        futures.wait([future], timeout=min(clock.left, _TICK))
    error = future.exception()
    if error is not None:
        raise error
    return future.result()
