"""How a value's own code is run: what it may raise, where it prints, how long it may take."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from kimi_magic.core.time_limit import CallTimedOut, Clock, call_within

__all__ = ["ANYTHING", "Patience", "diverted", "silence"]

# What a value's own code may raise. An interrupt goes through, and so does a time-out's signal.
ANYTHING = (Exception, SystemExit, GeneratorExit)

ALTOGETHER = 1.5
ONE_CALL = 0.3


class Patience:
    """How long the code of values may take: each call, and all calls of one summary together."""

    def __init__(self, seconds: float = ALTOGETHER) -> None:
        self._clock = Clock(seconds)

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function.

        Raises
        ------
        CallTimedOut
            And whatever the function raises.
        """
        if self._clock.over:
            raise CallTimedOut("and was not called")
        return call_within(lambda: function(*args), Clock(min(ONE_CALL, self._clock.left)))


_TARGETS: dict[str, ContextVar[Any]] = {
    stream: ContextVar(f"kimi_magic_{stream}", default=None) for stream in ("stdout", "stderr")
}
_lock = threading.Lock()


@contextmanager
def silence() -> Iterator[None]:
    """Let nothing be printed from here."""
    with diverted("stdout", _Nowhere()), diverted("stderr", _Nowhere()):
        yield


@contextmanager
def diverted(stream: str, target: Any) -> Iterator[None]:
    """Send what is printed from here to ``target`` in place of ``sys.stdout`` or ``sys.stderr``.

    The streams belong to all threads at once: what others print goes where it went before.
    """
    with _lock:
        standin = getattr(sys, stream)
        if not isinstance(standin, _StandIn):
            standin = _StandIn(_TARGETS[stream], standin)
            setattr(sys, stream, standin)
        standin.users += 1
    token = _TARGETS[stream].set(target)
    try:
        yield
    finally:
        _TARGETS[stream].reset(token)
        with _lock:
            standin.users -= 1
            # Where somebody else has put something since, theirs stays.
            if not standin.users and getattr(sys, stream) is standin:
                setattr(sys, stream, standin.original)


class _Nowhere:
    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass


class _StandIn:
    """Stands in a stream's place for as long as anybody's prints are diverted from it."""

    def __init__(self, target: ContextVar[Any], original: Any) -> None:
        self.original = original
        self.users = 0
        self._target = target

    def write(self, text: str) -> int:
        # pythonw has no streams at all.
        stream = self._target.get() or self.original
        return len(text) if stream is None else int(stream.write(text) or 0)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        stream = self._target.get() or self.original
        if stream is not None:
            stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.original, name)
