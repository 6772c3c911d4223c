"""Runs a function to its end, or to the end of its time.

A plain function runs in the caller's thread, where matplotlib, sqlite and the user's objects live,
unless its time limit wants it elsewhere. Coroutines run on one loop thread: what they keep open
belongs to its loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import suppress
from itertools import islice
from typing import Any

from kimi_magic.core.time_limit import CallTimedOut, Clock, Ring, call_within, wait

__all__ = ["MAX_ITEMS", "CallTimedOut", "Drained", "Ring", "run"]

MAX_ITEMS = 1000

_ANSWERS_WITHIN = 0.5

_LAZY = (Generator, map, filter, zip, enumerate, reversed)


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
    clock = Clock(timeout)
    value = call_within(lambda: _invoke(call), clock, in_thread=in_thread)
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


def _on_loop(work: Coroutine[Any, Any, Any], clock: Clock) -> Any:
    thread = _loop_thread()
    future = asyncio.run_coroutine_threadsafe(_guarded(work), thread.loop)
    try:
        value, error = wait(future, clock, "and was cancelled")
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
