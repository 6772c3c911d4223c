"""Redirect ``sys.stdout`` and ``sys.stderr`` for the calling context only.

The streams belong to the whole process, so ``contextlib.redirect_stdout`` takes the prints of
every thread. While anyone redirects, a stand-in takes a stream's place and looks up where the
calling context's text goes; all other text goes where it went before. A thread that was started
without a copy of the context counts as somebody else.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

__all__ = ["redirected", "redirections", "replaced", "silenced"]


class _Redirection:
    """One redirection. A context refers to it weakly: it ends with its ``with`` block's frame.

    So it does even if an interrupt arrives in the middle of leaving the block.
    """

    def __init__(self, target: SupportsWrite[str]) -> None:
        self.target = target
        self.left = False

    @property
    def ended(self) -> bool:
        return self.left or getattr(self.target, "closed", False)


_Chain = tuple[weakref.ref[_Redirection], ...]
_redirections: dict[str, ContextVar[_Chain]] = {
    stream: ContextVar(f"kimi_magic_{stream}", default=()) for stream in ("stdout", "stderr")
}

redirections = tuple(_redirections.values())
"""The variables of a context that say where its text goes."""


def _target(chain: _Chain) -> SupportsWrite[str] | None:
    """Return the innermost target; a thread that outlives it falls back to the one around it."""
    for reference in reversed(chain):
        redirection = reference()
        if redirection is not None and not redirection.ended:
            return redirection.target
    return None


@contextmanager
def redirected(stream: Literal["stdout", "stderr"], target: SupportsWrite[str]) -> Iterator[None]:
    """Send what this context prints to ``target`` instead of ``sys.stdout`` or ``sys.stderr``."""
    variable = _redirections[stream]
    outer = variable.get()
    redirection = _Redirection(target)
    with replaced(sys, stream, lambda original: _Stream(original, variable)):
        # Set inside the try: an interrupt between the two would leave the context redirected.
        try:
            variable.set((*outer, weakref.ref(redirection)))
            yield
        finally:
            redirection.left = True
            variable.set(outer)


@contextmanager
def silenced() -> Iterator[None]:
    """Discard what this context prints."""
    with redirected("stdout", _Nowhere()), redirected("stderr", _Nowhere()):
        yield


class _Nowhere:
    def write(self, text: str) -> int:
        return len(text)


class _Stream:
    """The stand-in for a stream."""

    def __init__(self, original: Any, variable: ContextVar[_Chain]) -> None:
        self._original = original
        self._variable = variable

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        # Under pythonw there are no streams: the original is None.
        target = _target(self._variable.get())
        stream = self._original if target is None else target
        if stream is not None:
            stream.write(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if _target(self._variable.get()) is None and self._original is not None:
            self._original.flush()

    def close(self) -> None:
        """Close the stream, unless the text goes elsewhere: it belongs to everybody."""
        if _target(self._variable.get()) is None and self._original is not None:
            self._original.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)


_MISSING = object()


class _User:
    """A ``with`` block that uses a stand-in, for as long as its frame lives."""


class _StandIn:
    """An attribute's replacement and its users."""

    def __init__(self, owner: Any, name: str, made: Any) -> None:
        self.made = made
        self.users: weakref.WeakSet[_User] = weakref.WeakSet()
        self._owner, self._name = owner, name
        self._before = vars(owner).get(name, _MISSING)

    def remove(self) -> None:
        # Where somebody else has put something in its place since, theirs stays.
        if vars(self._owner).get(self._name) is not self.made:
            return
        if self._before is _MISSING:
            delattr(self._owner, self._name)
        else:
            setattr(self._owner, self._name, self._before)


_lock = threading.RLock()
_stand_ins: list[_StandIn] = []


@contextmanager
def replaced(owner: Any, name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    """Replace an attribute for as long as anyone wants it replaced.

    Users in several threads share one replacement and may leave in any order; ``make`` is called
    with the original where there is no replacement yet.
    """
    user = _User()
    # An interrupt may arrive at any point in here: leaving removes whatever has no users.
    try:
        with _lock:
            current = vars(owner).get(name, _MISSING)
            known = next((one for one in _stand_ins if one.made is current), None)
            if known is None:
                known = _StandIn(owner, name, make(getattr(owner, name)))
                known.users.add(user)
                _stand_ins.append(known)
                setattr(owner, name, known.made)
            known.users.add(user)
        yield
    finally:
        with _lock:
            for stand_in in _stand_ins.copy():
                stand_in.users.discard(user)
                if not stand_in.users:
                    stand_in.remove()
                    _stand_ins.remove(stand_in)
