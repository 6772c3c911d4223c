"""How code of the notebook is run on the way to a prompt: what it may raise, where it prints."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any

__all__ = ["ANYTHING", "aside"]

# What a value's own code may raise. An interrupt goes through, and so does a time-out's signal.
ANYTHING = (Exception, SystemExit, GeneratorExit)

_lock = threading.Lock()
_heard = threading.local()


@contextmanager
def aside(stream: str) -> Iterator[StringIO]:
    """Keep what this thread prints to ``sys.stdout`` or ``sys.stderr`` out of the cell's output.

    The streams belong to all threads at once: what the others print goes where it went before.
    """
    with _lock:
        standin = getattr(sys, stream)
        if not isinstance(standin, _StandIn):
            standin = _StandIn(stream, standin)
            setattr(sys, stream, standin)
        standin.users += 1
    before, buffer = getattr(_heard, stream, None), StringIO()
    setattr(_heard, stream, buffer)
    try:
        yield buffer
    finally:
        setattr(_heard, stream, before)
        with _lock:
            standin.users -= 1
            # Where somebody else has put something since, theirs stays.
            if not standin.users and getattr(sys, stream) is standin:
                setattr(sys, stream, standin.original)


class _StandIn:
    """Stands in a stream's place for as long as any thread's prints are kept from it."""

    def __init__(self, name: str, original: Any) -> None:
        self.name = name
        self.original = original
        self.users = 0

    @property
    def _target(self) -> Any:
        return getattr(_heard, self.name, None) or self.original

    def write(self, text: str) -> int:
        # pythonw has no streams at all.
        return len(text) if self._target is None else int(self._target.write(text) or 0)

    def writelines(self, lines: Iterator[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if self._target is not None:
            self._target.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.original, name)
