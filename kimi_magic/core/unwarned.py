"""Ignore warnings while code runs that nobody asked for."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

__all__ = ["unwarned"]

_lock = threading.Lock()
_inside = 0
_stack = ExitStack()


@contextmanager
def unwarned() -> Iterator[None]:
    """Ignore warnings, and forget which were given: the first to a user is not taken for a second.

    The filters belong to the process. Two threads that each put back those they found would leave
    the wrong ones, so that of several threads the last to leave puts them back.
    """
    global _inside  # noqa: PLW0603 - as the filters
    with _lock:
        if not _inside:
            _stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                _stack.close()
