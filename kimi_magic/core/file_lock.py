"""The lock that keeps other kernels from writing a file."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from kimi_magic.core.interrupts import whole_imports

if TYPE_CHECKING:
    from filelock import BaseFileLock

__all__ = ["acquire_lock"]


def acquire_lock(path: Path) -> BaseFileLock | None:
    """Take the lock of a file; return None if another process has it.

    The lock does not lie beside the file, which is often in a repository.

    Raises
    ------
    OSError
        It cannot be made.
    """
    with whole_imports():
        from filelock import FileLock, Timeout
        from platformdirs import user_cache_path

    folder = user_cache_path("kimi-magic", appauthor=False) / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    file = os.path.normcase(path.resolve())
    name = sha256(file.encode("utf-8", "surrogateescape")).hexdigest()
    lock = FileLock(folder / f"{name[:32]}.lock", timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        return None
    return lock
