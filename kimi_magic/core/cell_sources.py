"""Find the sources of cells that have run, in the cache that tracebacks quote from."""

from __future__ import annotations

import ast
import linecache
from collections.abc import Iterator

from kimi_magic.core.frontend import running_shell

__all__ = ["cell_sources", "lines_of"]


def cell_sources() -> Iterator[str]:
    """Yield the cells' sources, the latest first."""
    shell = running_shell()
    ran = shell.history_manager.input_hist_parsed if shell else []
    number = {source: n for n, source in enumerate(ran)}
    found: list[tuple[int, int, str]] = []
    latest = 0
    for entry in linecache.cache.values():
        # The shell sets no modification time, so that linecache never looks for a file on disk.
        if len(entry) == 4 and entry[1] is None:
            source = "".join(entry[2])
            # A cell that runs again with the same text keeps its first place in the cache. Code
            # that a cell has run, as run_python does, comes after that cell.
            latest = number.get(source.rstrip("\n"), latest)
            found.append((latest, len(found), source))
    return (source for _, _, source in sorted(found, reverse=True))


def lines_of(source: str, node: ast.stmt) -> str:
    """Return the lines of a statement, from its first decorator on."""
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
    return "".join(source.splitlines(keepends=True)[first - 1 : node.end_lineno])
