"""Keep a forked process from going on with its parent's work."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["in_this_process"]


@contextmanager
def in_this_process() -> Iterator[None]:
    """End a forked child where it leaves the block, quietly.

    Code of the user's may fork. Behind it stands ours, with the parent's sockets, widgets and
    files, which the child must not write to.
    """
    parent = os.getpid()
    status = 1
    try:
        yield
        status = 0
    finally:
        if os.getpid() != parent:
            os._exit(status)
