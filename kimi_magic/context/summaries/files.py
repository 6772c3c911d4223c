"""Describe what a path leads to: the ends of a text file, the entries of a folder."""

from __future__ import annotations

import os
import stat
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from kimi_magic.core.text import count

__all__ = ["describe_path"]

MAX_ENTRIES = 100
LEFT_OUT = "\n… [the middle of the file is left out] …\n"


def describe_path(value: Any, limit: int) -> str | None:
    """Describe a file or a folder."""
    if not issubclass(type(value), Path):
        return None
    try:
        found = value.stat()
    except FileNotFoundError:
        return f"{value} (there is no such file)"
    if stat.S_ISDIR(found.st_mode):
        return _folder(value)
    # Only regular files are opened: a pipe or a device may have no end.
    if not stat.S_ISREG(found.st_mode):
        return f"{value} (no regular file)"
    heading = f"{value.name}, {count(found.st_size, 'byte')}"
    with value.open("rb") as file:
        text = _excerpt(file, found.st_size, limit - len(heading) - 1)
    return f"{heading}, no text" if text is None else f"{heading}\n{text}"


def _folder(path: Path) -> str:
    with os.scandir(path) as entries:
        names = sorted(
            f"{entry.name}{'/' if entry.is_dir() else ''}" for entry in islice(entries, MAX_ENTRIES)
        )
        more = ["…"] if next(entries, None) else []
    return "\n".join([f"the folder {path.name or path} with", *(names or ["nothing in it"]), *more])


def _excerpt(file: BinaryIO, size: int, room: int) -> str | None:
    """Read what fits of a file; None if it is no text."""
    data = file.read(4 * room + 1)  # UTF-8 has up to 4 bytes a character
    if b"\0" in data:
        return None
    text = data.decode("utf-8", "replace")
    if len(data) == size and len(text) <= room:
        return text
    end = (room - len(LEFT_OUT)) // 3
    if end < 1:
        return text[:room]
    file.seek(max(size - 4 * end - 4, 0))
    tail = file.read().decode("utf-8", "replace")[-end:]
    return f"{text[: 2 * end]}{LEFT_OUT}{tail}"
