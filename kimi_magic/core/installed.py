"""The folders of what is installed: the standard library and packages."""

from __future__ import annotations

import site
import sysconfig
from functools import cache

__all__ = ["library_paths"]


@cache
def library_paths() -> tuple[str, ...]:
    """Return how the names of files of libraries begin, modules inside Python among them."""
    paths = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return ("<frozen ", *filter(None, paths | {site.getusersitepackages()}))
