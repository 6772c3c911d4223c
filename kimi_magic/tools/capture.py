"""Capture what a function prints and displays while it runs.

IPython's publisher belongs to the whole process, as ``sys.stdout`` does (see `core.stdout`): its
methods get stand-ins that look up the calling context's capture.
"""

from __future__ import annotations

import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

from kimi_magic.core.frontend import running_shell
from kimi_magic.core.messages import Output
from kimi_magic.core.nesting import depth
from kimi_magic.core.stdout import redirected, redirections, replaced
from kimi_magic.core.text import plain
from kimi_magic.tools.printing import Printing
from kimi_magic.tools.shell_state import inherited_by_threads, refusing_ends

__all__ = ["Capture", "capturing", "open_figures", "show_new_figures"]

MAX_TEXT = 100_000
MAX_OUTPUTS = 100
THREADS_GRACE = 0.1  # seconds

_INLINE = {"inline", "module://matplotlib_inline.backend_inline"}

_current: ContextVar[Capture | None] = ContextVar("kimi_magic_capture", default=None)
_INHERITED: tuple[ContextVar[Any], ...] = (*redirections, *inherited_by_threads, _current, depth)


class Capture:
    """Keeps the first and last ``MAX_TEXT`` characters and the first ``MAX_OUTPUTS`` displays."""

    def __init__(self, printing: Printing | None = None) -> None:
        self._printing = printing
        self.closed = False  # a closed one takes no more displays
        self._lock = threading.Lock()
        self._displays: list[tuple[str | None, Output]] = []
        self._threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        self._forget()

    def clear(self) -> None:
        """Forget what has arrived, as ``clear_output`` does."""
        self._forget()
        if self._printing is not None:
            self._printing.clear()

    def _forget(self) -> None:
        with self._lock:
            self._head = ""
            self._pieces: list[str] = []
            self._size = self._dropped = 0
            self._displays.clear()

    def write(self, text: str) -> int:
        with self._lock:
            self._pieces.append(text)
            self._size += len(text)
            if self._size > 2 * MAX_TEXT:
                self._trim()
        if self._printing is not None:
            self._printing.write(text)
        return len(text)

    def _trim(self) -> None:
        joined = "".join(self._pieces)
        if not self._head:
            self._head, joined = joined[:MAX_TEXT], joined[MAX_TEXT:]
        tail = joined[-MAX_TEXT:]
        self._dropped += len(joined) - len(tail)
        self._pieces, self._size = [tail], len(tail)

    def show(self, output: Output, display_id: str | None = None, *, update: bool = False) -> bool:
        """Add a display; return False for an update of one that was not shown here."""
        with self._lock:
            if not update:
                if len(self._displays) < MAX_OUTPUTS:
                    self._displays.append((display_id, output))
                return True
            known = [i for i, (one, _) in enumerate(self._displays) if one == display_id]
            for i in known if display_id else ():
                self._displays[i] = (display_id, output)
            return bool(display_id and known)

    def add_thread(self, thread: threading.Thread) -> None:
        self._threads.add(thread)

    def wait_for_threads(self) -> None:
        """Give threads that the function started and did not wait for a moment to end."""
        until = time.monotonic() + THREADS_GRACE
        for thread in list(self._threads):
            if thread is not threading.current_thread():
                thread.join(max(until - time.monotonic(), 0))

    @property
    def text(self) -> str:
        """The printed text as a terminal would leave it: no colours, no overwritten lines."""
        with self._lock:
            gap = f"\n… [{self._dropped:,} characters were not kept] …\n" if self._dropped else ""
            return plain(f"{self._head}{gap}{''.join(self._pieces)}")

    @property
    def outputs(self) -> tuple[Output, ...]:
        return tuple(output for _, output in self._displays)


@contextmanager
def capturing(printing: Printing | None = None) -> Iterator[Capture]:
    """Capture what this context prints and displays; ``printing`` hears of it at once."""
    capture = Capture(printing)
    shell = running_shell()
    with ExitStack() as stack:
        stack.enter_context(redirected("stdout", capture))
        stack.enter_context(redirected("stderr", capture))
        stack.enter_context(replaced(threading.Thread, "start", _start))
        if shell is not None:
            stack.enter_context(replaced(sys, "displayhook", _displayhook))
            stack.enter_context(replaced(shell.display_pub, "publish", _publish))
            stack.enter_context(replaced(shell.display_pub, "clear_output", _clear_output))
            # IPython reports errors in formatters through it, and ipykernel sends them directly.
            stack.enter_context(replaced(shell, "_showtraceback", _showtraceback))
        token = _current.set(capture)
        try:
            yield capture
        finally:
            _current.reset(token)
            capture.closed = True


def _start(original: Callable[[threading.Thread], None]) -> Callable[[threading.Thread], None]:
    """Make the stand-in for ``Thread.start``: what a call's own threads print is the call's.

    A thread begins in an empty context. It gets our variables and no others, which code of the
    user's may expect to be unset.
    """

    def start(thread: threading.Thread) -> None:
        capture = _current.get()
        if capture is not None and not capture.closed:
            values = [(variable, variable.get()) for variable in _INHERITED]
            run = thread.run

            def run_in_call() -> None:
                for variable, value in values:
                    variable.set(value)
                with refusing_ends():  # even when the call is over
                    run()

            thread.run = run_in_call  # type: ignore[method-assign]
            capture.add_thread(thread)
        original(thread)

    return start


def _captured(act: Callable[..., bool]) -> Callable[[Any], Any]:
    """Make a stand-in that acts on the context's capture, and calls the original if that fails."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def stand_in(*args: Any, **kwargs: Any) -> Any:
            capture = _current.get()
            if capture is None or capture.closed or not act(capture, *args, **kwargs):
                return original(*args, **kwargs)
            return None

        return stand_in

    return make


@_captured
def _displayhook(capture: Capture, value: Any) -> bool:
    if value is not None:
        data, metadata = running_shell().display_formatter.format(value)
        if data:
            capture.show(Output(data, metadata))
    return True


@_captured
def _publish(
    capture: Capture,
    data: dict[str, Any],
    metadata: dict[str, Any] | None = None,
    *_: Any,
    transient: dict[str, Any] | None = None,
    update: bool = False,
    **__: Any,
) -> bool:
    name = (transient or {}).get("display_id")
    return capture.show(Output(dict(data), dict(metadata or {})), name, update=update)


@_captured
def _clear_output(capture: Capture, *_: Any, **__: Any) -> bool:
    capture.clear()
    return True


@_captured
def _showtraceback(capture: Capture, _kind: Any, _error: Any, lines: list[str]) -> bool:
    capture.write("\n".join([*lines, ""]))
    return True


def open_figures() -> frozenset[int]:
    """Return the numbers of pyplot's open figures; none where it is not imported."""
    # While another thread imports pyplot, the module is there without its functions.
    numbers = getattr(sys.modules.get("matplotlib.pyplot"), "get_fignums", tuple)
    return frozenset(numbers())


def show_new_figures(before: frozenset[int], value: object) -> None:
    """Display and close the figures opened since, as the inline backend does at a cell's end.

    A figure that is the function's value is only closed: the value is displayed anyway.
    """
    new = sorted(open_figures() - before)
    if not new or running_shell() is None:
        return
    matplotlib: Any = sys.modules["matplotlib"]
    if matplotlib.get_backend().lower() not in _INLINE or not matplotlib.is_interactive():
        return
    from IPython import display as ipython_display

    display: Any = ipython_display.display  # untyped
    pyplot: Any = sys.modules["matplotlib.pyplot"]
    for number in new:
        figure = pyplot.figure(number)
        pyplot.close(figure)
        if figure is not value:
            display(figure)
