"""Keep a forked process from going on with its parent's work, and tell processes apart."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["has_ended", "in_this_process", "process_name"]

_word = (0, "")
DAY = 86_400.0
SLACK = 60.0  # seconds that the clock may have been set back


def process_name() -> str:
    """Return ``HOST:PID:WORD``, a name that no other process ever has, a forked child included."""
    global _word  # noqa: PLW0603 - one word a process
    pid = os.getpid()
    if _word[0] != pid:
        _word = (pid, secrets.token_hex(4))
    return f"{socket.gethostname()}:{pid}:{_word[1]}"


def has_ended(name: str, since: float, now: float) -> bool:
    """Return True if the process of that name, which was at work at ``since``, is no more.

    Of another host nothing is known: a process there counts as ended after a day, and if its clock
    was that far ahead.
    """
    own = process_name()
    host, _, pid = name.rpartition(":")[0].rpartition(":")
    if name == own:
        return False
    if host != own.rpartition(":")[0].rpartition(":")[0] or not pid.isdecimal():
        return abs(now - since) > DAY
    return int(pid) == os.getpid() or _is_gone(int(pid), since)


def _is_gone(pid: int, since: float) -> bool:
    """Return True if no process has this number, or one that began after ``since``."""
    try:
        import psutil  # ipykernel brings it
    except ImportError:
        return _is_gone_without_psutil(pid)
    try:
        found = psutil.Process(pid)
        started: float = found.create_time()
        return started > since + SLACK or found.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:  # it is there, and another user's
        return False


def _is_gone_without_psutil(pid: int) -> bool:
    if os.name != "posix":  # elsewhere os.kill ends the process, whatever the signal
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


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
