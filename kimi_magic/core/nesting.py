"""Turns inside turns: a tool may ask, and what answers may call tools that ask again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["depth", "inside_turn"]

depth: ContextVar[int] = ContextVar("kimi_magic_depth", default=0)
"""Count of the turns that the running code is inside of.

Threads and coroutines that are started with a copy of the context are inside of them, too.
"""


@contextmanager
def inside_turn() -> Iterator[None]:
    """Count one turn more inside the block."""
    before = depth.get()
    depth.set(before + 1)
    try:
        yield
    finally:
        depth.set(before)  # a token would be of use in this context only
