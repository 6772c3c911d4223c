"""Runs a function to its end, or to the end of its time.

A plain function runs in the caller's thread, where matplotlib, sqlite and the user's objects live.
In the main thread a timer's signal can end it; elsewhere, and on Windows, nothing can end a
function from outside, so that one with a time limit runs in a thread which is left behind.
Coroutines run on one loop thread: what they keep open belongs to its loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import signal
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from concurrent import futures
from contextlib import suppress
from itertools import islice
from types import FrameType
from typing import Any

__all__ = ["MAX_ITEMS", "CallTimedOut", "Drained", "Ring", "run"]

MAX_ITEMS = 1000

# Windows cannot interrupt a wait for a lock: it has to end by itself now and then.
_TICK = 0.1
_SHORTEST, _LONGEST = 1e-6, 1e7  # a timer of 0 s is none; above, the system's clocks overflow
_ANSWERS_WITHIN = 0.5

_LAZY = (Generator, map, filter, zip, enumerate, reversed)


class CallTimedOut(Exception):
    """The time of a call is over; the text says what became of the function."""


class Ring(BaseException):
    """Ends a function at its time. No Exception: ``except Exception`` in the function lets it by.

    A function that is called inside another's sees that one's ring as well, and lets it by.
    """


class Drained(list[Any]):
    """The items of a generator.

    Attributes
    ----------
    complete : bool
        False where it had more than ``MAX_ITEMS`` and was closed there.
    """

    complete = True


def run(call: Callable[[], Any], *, timeout: float | None = None, in_thread: bool = False) -> Any:
    """Call a function; await a coroutine and drain a generator that it gives.

    Parameters
    ----------
    call : callable
        The function with its arguments.
    timeout : float or None
        Seconds until it is given up.
    in_thread : bool
        Whether to run it in a thread of its own, which is left behind at the timeout.

    Raises
    ------
    CallTimedOut
        And whatever the function raises.
    """
    clock = _Clock(timeout)
    if in_thread or (timeout is not None and not _can_ring()):
        value = _in_thread(call, clock)
    elif timeout is not None:
        value = _until_ring(call, clock)
    else:
        value = _invoke(call)
    if isinstance(value, Coroutine):
        return _on_loop(value, clock)
    if isinstance(value, AsyncGenerator):
        return _on_loop(_drain(value), clock)
    return value


def _invoke(call: Callable[[], Any]) -> Any:
    value = call()
    return _drained(value) if isinstance(value, _LAZY) else value


def _drained(lazy: Any) -> Drained:
    items = Drained(islice(lazy, MAX_ITEMS + 1))
    if len(items) > MAX_ITEMS:
        items.complete = False
        items.pop()
        if isinstance(lazy, Generator):
            lazy.close()
    return items


async def _drain(generator: AsyncGenerator[Any, Any]) -> Drained:
    items = Drained()
    async for item in generator:
        if len(items) == MAX_ITEMS:
            items.complete = False
            await generator.aclose()
            break
        items.append(item)
    return items


class _Clock:
    """How much of a call's time is left."""

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + min(seconds, _LONGEST)

    @property
    def left(self) -> float:
        return _LONGEST if self._end is None else max(self._end - time.monotonic(), _SHORTEST)

    @property
    def over(self) -> bool:
        return self._end is not None and time.monotonic() >= self._end


def _can_ring() -> bool:
    """Whether signals arrive in this thread, and the handler that is there can be put back."""
    return (
        hasattr(signal, "setitimer")
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGALRM) is not None
    )


def _until_ring(call: Callable[[], Any], clock: _Clock) -> Any:
    alarm = _Alarm(clock.left)
    try:
        alarm.set()
        try:
            value = _invoke(call)
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
        if now >= self._due:
            self.rung = True
            raise self.ring
        self._start()

    def put_back(self) -> None:
        self.armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._handler)
        if self._others_due is not None:
            left = max(self._others_due - time.monotonic(), _SHORTEST)
            signal.setitimer(signal.ITIMER_REAL, left, self._interval)


def _in_thread(call: Callable[[], Any], clock: _Clock) -> Any:
    future: futures.Future[Any] = futures.Future()

    def work() -> None:
        try:
            future.set_result(_invoke(call))
        except BaseException as error:  # noqa: BLE001 - raised again by who waits for it
            future.set_exception(error)

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(work,), name="kimi-magic tool", daemon=True).start()
    return _wait(future, clock, "and was left behind; it may still be running")


def _wait(future: futures.Future[Any], clock: _Clock, fate: str) -> Any:
    while not future.done():
        if clock.over:
            raise CallTimedOut(fate)
        futures.wait([future], timeout=min(clock.left, _TICK))
    error = future.exception()
    if error is not None:
        raise error
    return future.result()


def _on_loop(work: Coroutine[Any, Any, Any], clock: _Clock) -> Any:
    thread = _loop_thread()
    future = asyncio.run_coroutine_threadsafe(_guarded(work), thread.loop)
    try:
        value, error = _wait(future, clock, "and was cancelled")
    except BaseException:
        future.cancel()
        thread.suspect = True
        raise
    finally:
        if not thread.shared:
            thread.retire()
    if error is not None:
        raise error
    return value


async def _guarded(work: Coroutine[Any, Any, Any]) -> tuple[Any, BaseException | None]:
    """Keep what is raised from the loop: SystemExit and KeyboardInterrupt would end it."""
    try:
        return await work, None
    except BaseException as error:  # noqa: BLE001 - raised again by who waits for it
        return None, error


class _LoopThread(threading.Thread):
    """An event loop in a thread of its own."""

    def __init__(self, *, shared: bool) -> None:
        super().__init__(name="kimi-magic coroutines", daemon=True)
        self.shared = shared
        self.loop = asyncio.new_event_loop()
        self.suspect = False
        self._retired = False
        self.start()

    def run(self) -> None:
        asyncio.set_event_loop(self.loop)
        while not self._retired:
            # Raised in a task that the function has left running.
            with suppress(KeyboardInterrupt, SystemExit):
                self.loop.run_forever()
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self.loop.run_until_complete(asyncio.wait(tasks))
        self.loop.close()

    def answers(self) -> bool:
        """Whether the loop still turns: a coroutine that blocks stops it."""
        heard = threading.Event()
        self.loop.call_soon_threadsafe(heard.set)
        return heard.wait(_ANSWERS_WITHIN)

    def retire(self) -> None:
        """End once what holds the loop has ended."""
        self._retired = True
        self.loop.call_soon_threadsafe(self.loop.stop)


_lock = threading.Lock()
_shared: _LoopThread | None = None


def _loop_thread() -> _LoopThread:
    """Give the shared thread; one for this call alone where the caller is on the shared one."""
    global _shared  # noqa: PLW0603 - started when it is wanted first, and again after a fork
    with _lock:
        if threading.current_thread() is _shared:
            return _LoopThread(shared=False)
        if _shared is not None and _shared.is_alive() and _shared.suspect:
            if _shared.answers():
                _shared.suspect = False
            else:
                _shared.retire()
                _shared = None
        if _shared is None or not _shared.is_alive():
            _shared = _LoopThread(shared=True)
        return _shared
