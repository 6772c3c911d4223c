"""Run code that is not ours within a time limit.

In the main thread a timer's signal ends a call. In other threads, and on Windows, nothing can end
a call from outside: it runs in a thread of its own, which is left behind.
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

from kimi_magic.core.delicate import (
    LONGEST_IMPORT,
    DroppedErrors,
    Insistence,
    Insistent,
    current_frame,
    imports_under_way,
)

__all__ = [
    "USER_ERRORS",
    "CallTimedOut",
    "DeadlineReached",
    "TimeBudget",
    "TimeLimit",
    "call_within",
    "wait",
]

# Everything a value's own code may raise, except an interrupt and a time limit's signal.
USER_ERRORS = (Exception, SystemExit, GeneratorExit)

# Windows cannot interrupt a wait for a lock, so no wait is longer than this.
_TICK = 0.1
# Python prints and drops what is raised in a finalizer or in a weak reference's callback. The
# signal waits a little until such a callback has returned, and is raised again if it was dropped.
# It waits longer for the end of an import, which would be broken for good.
_RETRY_SOON, _CALLBACK_GRACE, _RAISE_AGAIN = 0.001, 0.1, 0.5
_SHORTEST, _LONGEST = 1e-6, 1e7  # setitimer takes 0 for «off»; above, the system's clocks overflow


class CallTimedOut(Exception):
    """The time limit of a call has expired; the text says what became of the function."""


class DeadlineReached(Insistent):
    """Raised in a function when its time limit expires.

    Not an ``Exception``, so that ``except Exception`` in the function does not catch it. Nested
    calls see each other's, and must let those that are not their own pass.
    """


class TimeLimit:
    """A deadline some seconds from now; with None, never."""

    def __init__(self, seconds: float | None) -> None:
        self._deadline = None if seconds is None else time.monotonic() + min(seconds, _LONGEST)

    @property
    def is_set(self) -> bool:
        return self._deadline is not None

    @property
    def remaining(self) -> float:
        if self._deadline is None:
            return _LONGEST
        return max(self._deadline - time.monotonic(), _SHORTEST)

    @property
    def expired(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline


class TimeBudget:
    """Time in seconds that several calls share; none of them may take more than ``each``."""

    def __init__(self, seconds: float = 1.5, each: float = 0.3) -> None:
        self._limit = TimeLimit(seconds)
        self._each = each

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function within what is left of the budget, or raise CallTimedOut."""
        if self._limit.expired:
            raise CallTimedOut("and was not called")
        limit = TimeLimit(min(self._each, self._limit.remaining))
        return call_within(lambda: function(*args), limit)


def call_within(call: Callable[[], Any], limit: TimeLimit, *, in_thread: bool = False) -> Any:
    """Call a function, and raise CallTimedOut when the limit expires.

    Errors of the function pass unchanged.
    """
    if in_thread or (limit.is_set and not _can_use_signal()):
        return _in_thread(call, limit)
    return _until_signal(call, limit) if limit.is_set else call()


def _can_use_signal() -> bool:
    return (
        hasattr(signal, "setitimer")
        and threading.current_thread() is threading.main_thread()
        # None: the handler was not installed from Python, and could not be put back.
        and signal.getsignal(signal.SIGALRM) is not None
    )


def _until_signal(call: Callable[[], Any], limit: TimeLimit) -> Any:
    alarm = _Alarm(limit.remaining)
    try:
        alarm.set()
        try:
            value = call()
        finally:
            alarm.insistence.caller = None
            alarm.armed = False
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if not alarm.fired or (isinstance(error, DeadlineReached) and not alarm.raised(error)):
            raise
    finally:
        alarm.put_back()
    # A function may hide the error: IPython's run_cell turns any exception into a traceback.
    if alarm.fired:
        raise CallTimedOut("and was stopped")
    return value


class _Alarm:
    """The process's only interval timer, shared with code that had set it before.

    Until ours fires, the other code's handler is called when its own time comes. Afterwards its
    timer gets back what is left of its time.
    """

    def __init__(self, seconds: float) -> None:
        self.insistence = Insistence(DeadlineReached)
        self.armed = True
        self.fired = False
        self._other_handler = signal.getsignal(signal.SIGALRM)
        remaining, self._other_interval = signal.getitimer(signal.ITIMER_REAL)
        now = time.monotonic()
        self._limit = self._deadline = now + seconds
        self._other_deadline = now + remaining if remaining else None

        self._imports = imports_under_way(current_frame())
        self._dropped = DroppedErrors(DeadlineReached, self._come_again)

    def set(self) -> None:
        self.insistence.caller = current_frame().f_back
        self._dropped.begin()
        signal.signal(signal.SIGALRM, self._handle)
        self._start()

    def _start(self) -> None:
        due = min(self._deadline, self._other_deadline or self._deadline)
        signal.setitimer(signal.ITIMER_REAL, max(due - time.monotonic(), _SHORTEST))

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if not self.armed:
            return
        now = time.monotonic()
        if self._other_deadline is not None and now >= self._other_deadline:
            self._call_other(signum, frame, now)
        if now < self._deadline:
            self._start()
        elif (_drops_errors(frame) and now < self._deadline + _CALLBACK_GRACE) or (
            now < self._limit + LONGEST_IMPORT and imports_under_way(frame) > self._imports
        ):
            self._raise_soon()
        else:
            error = self.insistence.error()
            caught, self.fired = self.fired, True
            self._deadline = now + _RAISE_AGAIN
            self._start()
            if caught:
                self.insistence.begin(frame)
            raise error

    def _call_other(self, signum: int, frame: FrameType | None, now: float) -> None:
        self._other_deadline = now + self._other_interval if self._other_interval else None
        if not callable(self._other_handler):
            return
        try:
            self._other_handler(signum, frame)
        finally:
            # A limit around this one has set the timer: it comes again if its error is caught.
            remaining, interval = signal.getitimer(signal.ITIMER_REAL)
            if remaining:
                self._other_deadline = time.monotonic() + remaining
                self._other_interval = interval
            self._start()

    def _raise_soon(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, _RETRY_SOON)

    def _come_again(self) -> None:
        self._raise_soon()
        self.insistence.dropped()

    def raised(self, error: DeadlineReached) -> bool:
        return error.insistence is self.insistence

    def put_back(self) -> None:
        self.armed = False
        self.insistence.end()
        self._dropped.end()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._other_handler)
        if self._other_deadline is not None:
            remaining = max(self._other_deadline - time.monotonic(), _SHORTEST)
            signal.setitimer(signal.ITIMER_REAL, remaining, self._other_interval)


def _drops_errors(frame: FrameType | None) -> bool:
    """Return True if what is raised in this frame visibly goes no further."""
    if frame is None:
        return False
    module = frame.f_globals.get("__name__")
    return frame.f_code.co_name == "__del__" or module in ("weakref", "_weakrefset")


def _in_thread(call: Callable[[], Any], limit: TimeLimit) -> Any:
    future: futures.Future[Any] = futures.Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised again in the waiting thread
            future.set_exception(error)

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(work,), name="kimi-magic call", daemon=True).start()
    return wait(future, limit, "and was left behind; it may still be running")


def wait(future: futures.Future[Any], limit: TimeLimit, outcome: str) -> Any:
    """Wait for a future's result; when the limit expires, raise CallTimedOut with ``outcome``."""
    while not future.done():
        if limit.expired:
            raise CallTimedOut(outcome)
        futures.wait([future], timeout=min(limit.remaining, _TICK))
    error = future.exception()
    if error is not None:
        raise error  # `result` would add frames of its own to the traceback
    return future.result()
