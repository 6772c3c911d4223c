"""The source of the cells that have run, which Python keeps to quote its lines in tracebacks."""

from __future__ import annotations

import ast
import linecache
from collections.abc import Iterator

__all__ = ["cell_sources", "lines_of"]


def cell_sources() -> Iterator[str]:
    """The cells' sources, the latest first."""
    for entry in reversed([*linecache.cache.values()]):
        # The shell leaves out the time of change, so that its cells are never looked for on disk.
        if len(entry) == 4 and entry[1] is None:
            yield "".join(entry[2])


def lines_of(source: str, node: ast.stmt) -> str:
    """The lines of a statement, from its first decorator on."""
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
    return "".join(source.splitlines(keepends=True)[first - 1 : node.end_lineno])
