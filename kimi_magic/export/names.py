"""Which names a piece of source takes from around it."""

from __future__ import annotations

import ast
import symtable
from collections.abc import Iterator

__all__ = ["names_in_hints", "names_used", "paths_used"]


def names_used(source: str) -> list[str]:
    """The names that a definition takes from around it: in its body, hints and defaults."""
    return sorted(set(_free(symtable.symtable(source, "definition", "exec"))))


def names_in_hints(source: str) -> list[str]:
    """The names in hints, and in texts there, of which some are no hints but data."""
    hints = list(_hints(ast.parse(source)))
    return sorted({n.id for hint in hints for n in ast.walk(hint) if isinstance(n, ast.Name)})


def paths_used(source: str) -> list[str]:
    """The attributes that are taken, as dotted paths: ``xml.etree.ElementTree``."""
    attributes = (n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Attribute))
    return sorted({ast.unparse(node) for node in attributes})


def _free(table: symtable.SymbolTable) -> Iterator[str]:
    outermost = table.get_type() == "module"
    for symbol in table.get_symbols():
        theirs = not symbol.is_assigned() if outermost else symbol.is_global()
        if theirs and symbol.is_referenced():
            yield symbol.get_name()
    for child in table.get_children():
        yield from _free(child)


def _hints(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        for hint in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            if hint is None:
                continue
            yield hint
            for part in ast.walk(hint):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    try:
                        yield ast.parse(part.value, mode="eval")
                    except SyntaxError:  # a text of Literal or Annotated
                        continue
