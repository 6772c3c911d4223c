"""Run a function to its end, or until its time limit expires.

A plain function runs in the caller's thread, where matplotlib, sqlite and the user's objects live,
unless its time limit needs another one. Coroutines run on one loop in a thread: what they keep
open, such as a client's connections, belongs to that loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import suppress
from itertools import islice
from typing import Any

from kimi_magic.core.interrupts import stoppable
from kimi_magic.core.processes import in_this_process
from kimi_magic.core.time_limit import TimeLimit, call_within, wait

__all__ = ["MAX_ITEMS", "Drained", "run"]

MAX_ITEMS = 1000

_ANSWERS_WITHIN = 0.5

_LAZY = (Generator, map, filter, zip, enumerate, reversed)


class Drained(list[Any]):
    """The items of a generator."""

    complete = True  # False where it had more than MAX_ITEMS and was closed there


def run(call: Callable[[], Any], *, timeout: float | None = None, in_thread: bool = False) -> Any:
    """Call a function; await the coroutine or drain the generator that it returns.

    Raises CallTimedOut when the limit expires; errors of the function pass unchanged.
    """
    limit = TimeLimit(timeout)
    value = call_within(lambda: _invoke(call), limit, in_thread=in_thread)
    if isinstance(value, Coroutine):
        return _on_loop(value, limit)
    if isinstance(value, AsyncGenerator):
        return _on_loop(_drain(value), limit)
    return value


def _invoke(call: Callable[[], Any]) -> Any:
    with in_this_process():
        return stoppable(lambda: _drained(call()))


def _drained(value: Any) -> Any:
    if not isinstance(value, _LAZY):
        return value
    items = Drained(islice(value, MAX_ITEMS + 1))
    if len(items) > MAX_ITEMS:
        items.complete = False
        items.pop()
        if isinstance(value, Generator):
            value.close()
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


def _on_loop(work: Coroutine[Any, Any, Any], limit: TimeLimit) -> Any:
    thread = _loop_thread()
    future = asyncio.run_coroutine_threadsafe(_guarded(work), thread.loop)
    try:
        value, error = wait(future, limit, "and was cancelled")
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
    """Return what is raised: SystemExit and KeyboardInterrupt would end the loop."""
    try:
        with in_this_process():
            return await work, None
    except BaseException as error:  # noqa: BLE001 - raised again in the waiting thread
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
            # Raised by a task that the function has left running.
            with suppress(KeyboardInterrupt, SystemExit):
                self.loop.run_forever()
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self.loop.run_until_complete(asyncio.wait(tasks))
        self.loop.close()

    def answers(self) -> bool:
        """Return True if the loop runs: a coroutine that blocks stops it."""
        answered = threading.Event()
        self.loop.call_soon_threadsafe(answered.set)
        return answered.wait(_ANSWERS_WITHIN)

    def retire(self) -> None:
        """End the thread as soon as the coroutine that blocks it has ended."""
        self._retired = True
        self.loop.call_soon_threadsafe(self.loop.stop)


_lock = threading.Lock()
_shared: _LoopThread | None = None


def _loop_thread() -> _LoopThread:
    """Return the shared thread, or a new one if the caller runs on the shared one."""
    global _shared  # noqa: PLW0603 - started on first use, and again after a fork
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
