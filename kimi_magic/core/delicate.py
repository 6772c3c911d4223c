"""Moments in which what a signal's handler raises does harm, is lost, or is caught.

An exception in the middle of an import leaves modules half imported: those that were complete stay,
without their parents, and each later import fails. What is raised in a finalizer, a weak
reference's callback or a callback of the garbage collector is printed and dropped. A function may
catch everything and go on.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

__all__ = [
    "LONGEST_IMPORT",
    "DroppedErrors",
    "Insistence",
    "Insistent",
    "current_frame",
    "imports_under_way",
]

current_frame = sys._getframe  # noqa: SLF001 - a documented function
"""Return the frame of the caller."""

# An import that hangs must not make a turn unstoppable: after this many seconds it is cut.
LONGEST_IMPORT = 10.0

_OURS = "kimi_magic.core."  # such as a handler that runs in the middle of a call
_IMPORT_SYSTEM = "<frozen importlib._bootstrap>"


def imports_under_way(frame: FrameType | None) -> int:
    """Count the import system's frames under a frame; 0 where nothing is being imported.

    Code that began inside an import, as that of a script's module may, compares two counts.
    """
    count = 0
    while frame is not None:
        count += frame.f_code.co_filename == _IMPORT_SYSTEM
        frame = frame.f_back
    return count


class DroppedErrors:
    """Calls a function for errors of one kind that Python drops, in place of printing them.

    For the main thread; between `begin` and `end`, and these nest.
    """

    def __init__(self, kind: type[BaseException], notice: Callable[[], None]) -> None:
        self._kind = kind
        self._notice = notice
        self._main = threading.main_thread().ident
        self._before: Callable[[Any], Any] = sys.unraisablehook

    def begin(self) -> None:
        self._before = sys.unraisablehook
        sys.unraisablehook = self._hook

    def end(self) -> None:
        if sys.unraisablehook == self._hook:
            sys.unraisablehook = self._before

    def _hook(self, unraisable: Any) -> None:
        is_ours = isinstance(unraisable.exc_value, self._kind)
        if is_ours and threading.get_ident() == self._main:
            self._notice()
        else:
            self._before(unraisable)


class Insistent(BaseException):
    """An error that `Insistence` raises anew where it was caught."""

    insistence: Insistence | None = None

    def __del__(self) -> None:
        # The trace function is removed when it raises. The error dies where it was caught.
        if self.insistence is not None:
            self.insistence.resume(current_frame().f_back)


class Insistence:
    """Raises an error in a call until the call ends, however often the call catches it.

    Handlers and ``finally`` blocks run undisturbed; the error comes again when they are through.

    Attributes
    ----------
    caller : frame or None
        The frame that makes the call, which sets it to None as soon as the call has ended.
    """

    def __init__(self, kind: type[Insistent]) -> None:
        self.caller: FrameType | None = None
        self._kind = kind
        # Looked up here: Python code of another module would be traced below, and raise there.
        self._main = threading.main_thread().ident
        self._begun = False
        self._drops = 0
        self._trace_before: Any = None
        self._unwound: FrameType | None = None  # the latest that an exception came to

    def begin(self, frame: FrameType | None) -> None:
        """Insist from now on."""
        if not self._begun:
            self._begun, self._trace_before = True, sys.gettrace()
            # Of calls within each other, any may end first.
            if isinstance(other := getattr(self._trace_before, "__self__", None), Insistence):
                self._trace_before = other._trace_before  # noqa: SLF001 - of the same class
        self.resume(frame)

    def resume(self, frame: FrameType | None) -> None:
        is_main = threading.get_ident() == self._main
        if self._begun and self.caller is not None and is_main:
            sys.settrace(self._trace)
            while frame is not None and frame is not self.caller:
                frame.f_trace = self._trace
                frame = frame.f_back

    def dropped(self) -> bool:
        """Insist if an error is dropped for the second time; return True if so.

        A call may spend all its time where errors are dropped.
        """
        self._drops += 1
        if self._drops > 1:
            self.begin(current_frame())
        return self._drops > 1

    def end(self) -> None:
        """Put back what was there."""
        if self._begun:
            self._begun, self._unwound = False, None
            sys.settrace(self._trace_before)

    def error(self) -> Insistent:
        """Make an error to raise."""
        error = self._kind()
        error.insistence = self
        return error

    def _trace(self, frame: FrameType, event: str, _argument: object) -> Any:
        is_ours = str(frame.f_globals.get("__name__")).startswith(_OURS)
        if is_ours or self.caller is None or not self._begun:
            return None
        if event == "exception":
            self._unwound = frame
        elif event == "line":
            # The first line behind an exception may be the entry of a ``with`` block's handler,
            # whose stack the interpreter breaks when an error comes there.
            entering, self._unwound = self._unwound is frame, None
            if not (entering or self._handled_now()):
                raise self.error()
        return self._trace

    def _handled_now(self) -> bool:
        handled = sys.exc_info()[1]
        while handled is not None:
            if isinstance(handled, Insistent) and handled.insistence is self:
                return True
            handled = handled.__context__
        return False
