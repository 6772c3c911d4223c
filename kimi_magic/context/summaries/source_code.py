"""Functions and classes as signature, docstring and source; modules by what is in them."""

from __future__ import annotations

import ast
import inspect
import textwrap
from contextlib import suppress
from types import ModuleType
from typing import Any

from kimi_magic.core.cell_sources import cell_sources, lines_of
from kimi_magic.core.text import clip, cut_middle
from kimi_magic.core.time_limit import USER_ERRORS

__all__ = ["describe_code", "describe_module"]

MAX_NAMES = 100


def describe_code(value: Any, limit: int) -> str | None:
    """Describe a function, method or class.

    The source says all where there is one; of a long one the signature and the docstring stay
    whole, and what does not fit is missing in its middle.
    """
    if not (inspect.isroutine(value) or isinstance(value, type)):
        return None
    source = _source(value)
    if source and len(source) <= limit:
        return source
    kind = "class" if isinstance(value, type) else "def"
    heading = f"{kind} {value.__qualname__}{_signature(value)}"
    doc = inspect.getdoc(value) or ""
    text = "\n".join(filter(None, [heading, clip(doc, limit // 3)]))
    if isinstance(value, type) and not source:
        text += f"\n{_public(value)}"
    return f"{text}\n\n{cut_middle(source, limit - len(text) - 2)}" if source else text


def _source(value: Any) -> str:
    try:
        source = inspect.getsource(value)
    except USER_ERRORS:  # built in, its file is gone, or a class of the notebook
        source = _source_in_cells(value) if isinstance(value, type) else ""
    return textwrap.dedent(source).rstrip()


def _source_in_cells(value: type) -> str:
    """Find the latest cell that defines a class: a class does not say where its source is."""
    if value.__module__ != "__main__":
        return ""
    for source in cell_sources():
        if f"class {value.__name__}" not in source:
            continue
        with suppress(*USER_ERRORS):
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.ClassDef) and node.name == value.__name__:
                    return lines_of(source, node)
    return ""


def _signature(value: Any) -> str:
    try:
        return str(inspect.signature(value))
    except USER_ERRORS:  # of some built-in functions nothing is known
        return "(…)"


def describe_module(value: Any) -> str | None:
    """Describe a module by its docstring's first paragraph and its public names."""
    if not isinstance(value, ModuleType):
        return None
    version = vars(value).get("__version__")
    heading = f"module {value.__name__}{f' {version}' if isinstance(version, str) else ''}"
    doc = inspect.cleandoc(value.__doc__ or "").partition("\n\n")[0]
    return "\n".join(filter(None, [heading, doc, _public(value)]))


def _public(value: Any) -> str:
    """Name what a module or class offers; its attributes are not touched."""
    listed = vars(value).get("__all__")
    names = list(listed) if isinstance(listed, list | tuple) else sorted(vars(value))
    names = [name for name in names if isinstance(name, str) and not name.startswith("_")]
    more = f", … {len(names) - MAX_NAMES:,} more" if len(names) > MAX_NAMES else ""
    return f"names: {', '.join(names[:MAX_NAMES])}{more}" if names else ""
