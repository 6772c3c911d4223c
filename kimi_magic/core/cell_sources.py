"""The source of the cells that have run, which Python keeps to quote its lines in tracebacks."""

from __future__ import annotations

import ast
import linecache
from collections.abc import Iterator

from IPython import get_ipython

__all__ = ["cell_sources", "lines_of"]


def cell_sources() -> Iterator[str]:
    """The cells' sources, the latest first."""
    shell = get_ipython()
    ran = shell.history_manager.input_hist_parsed if shell else []
    number = {source: n for n, source in enumerate(ran)}
    found: list[tuple[int, int, str]] = []
    latest = 0
    for entry in linecache.cache.values():
        # The shell leaves out the time of change, so that its cells are never looked for on disk.
        if len(entry) == 4 and entry[1] is None:
            source = "".join(entry[2])
            # A cell that is run again with the same text keeps its first place in the cache; what
            # a cell has run, as run_python does, comes after that cell.
            latest = number.get(source.rstrip("\n"), latest)
            found.append((latest, len(found), source))
    return (source for _, _, source in sorted(found, reverse=True))


def lines_of(source: str, node: ast.stmt) -> str:
    """The lines of a statement, from its first decorator on."""
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
    return "".join(source.splitlines(keepends=True)[first - 1 : node.end_lineno])
