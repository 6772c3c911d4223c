"""Where the notebook's definitions are written: the cells that Python remembers."""

from __future__ import annotations
import __future__

import ast
import inspect
import textwrap
from collections import ChainMap
from collections.abc import Mapping
from contextlib import suppress
from types import FunctionType
from typing import Any

from kimi_magic.core.cell_sources import cell_sources, lines_of

__all__ = [
    "has_source",
    "is_future",
    "name_of",
    "scope_of",
    "source_of",
    "statement_of",
    "without_our_decorators",
]


def has_source(value: Any) -> bool:
    """Whether it is a function or a class, and not a method of an object."""
    return isinstance(value, type) or isinstance(_inner(value), FunctionType)


def source_of(name: str, value: Any) -> str:
    """The definition of a function or a class; "" where it is not to be had.

    A lambda becomes a function of that name.
    """
    source = statement_of(value.__name__) if isinstance(value, type) else ""
    with suppress(OSError, TypeError):
        source = source or inspect.getsource(_inner(value))
    if source[:1].isspace():
        source = textwrap.dedent(source)
    if _inner(value).__name__ == "<lambda>":
        return _as_function(name, source)
    return source if _definition(source) else ""


def statement_of(name: str) -> str:
    """The latest class or plain assignment of this name in a cell; "" where there is none."""
    for source in cell_sources():
        with suppress(SyntaxError):
            for node in reversed(ast.parse(source).body) if name in source else ():
                if _binds(node, name):
                    return lines_of(source, node)
    return ""


def scope_of(value: Any, around: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the names in a function or a class mean; ``around`` is where it was found."""
    inner = _inner(value)
    if isinstance(inner, type):
        methods = (f for f in vars(inner).values() if isinstance(f, FunctionType))
        return around or next((method.__globals__ for method in methods), {})
    return ChainMap(dict(inspect.getclosurevars(inner).nonlocals), inner.__globals__)


def is_future(value: Any) -> bool:
    """Whether its hints are not evaluated (``from __future__ import annotations``)."""
    inside = vars(value).values() if isinstance(value, type) else [_inner(value)]
    codes = (f.__code__ for f in inside if isinstance(f, FunctionType))
    return any(code.co_flags & __future__.annotations.compiler_flag for code in codes)


def name_of(source: str) -> str:
    """The name that a definition binds."""
    node = _definition(source)
    return node.name if node else ""


def without_our_decorators(source: str, scope: Mapping[str, Any]) -> str:
    """A definition without ``@kimi.tool``, which means nothing outside of the notebook."""
    node = _definition(source)
    lines = source.splitlines(keepends=True)
    for decorator in reversed(node.decorator_list if node else []):
        if _is_ours(decorator, scope):
            del lines[decorator.lineno - 1 : decorator.end_lineno]
    return "".join(lines)


def _is_ours(decorator: ast.expr, scope: Mapping[str, Any]) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    first, *rest = ast.unparse(called).split(".")
    found = scope.get(first)
    for part in rest:
        found = getattr(found, part, None)
    return str(getattr(found, "__module__", "")).partition(".")[0] == __name__.partition(".")[0]


def _inner(value: Any) -> Any:
    """The function inside of its decorators."""
    if inspect.ismethod(value):
        return None
    with suppress(Exception):  # an object's own code may answer
        return inspect.unwrap(value)
    return None


def _as_function(name: str, source: str) -> str:
    node = _only_statement(source)
    found = [n for n in ast.walk(node) if isinstance(n, ast.Lambda)] if node else []
    if len(found) != 1:
        return ""
    body = ast.get_source_segment(source, found[0].body) or ""
    body = f"(\n        {body}\n    )" if "\n" in body else body
    return f"def {name}({ast.unparse(found[0].args)}):\n    return {body}\n"


def _definition(source: str) -> ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | None:
    node = _only_statement(source)
    return node if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) else None


def _only_statement(source: str) -> ast.stmt | None:
    with suppress(SyntaxError):
        body = ast.parse(source).body
        return body[0] if len(body) == 1 else None
    return None


def _binds(node: ast.stmt, name: str) -> bool:
    if isinstance(node, ast.Assign):
        return [ast.unparse(target) for target in node.targets] == [name]
    return isinstance(node, ast.ClassDef) and node.name == name
