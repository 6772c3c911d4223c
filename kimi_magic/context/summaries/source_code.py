"""Describe functions and classes by signature, docstring and source, modules by their names.

Those of libraries, whose source is known or can be looked up, have a few lines.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from contextlib import suppress
from types import BuiltinFunctionType, MethodType, MethodWrapperType, ModuleType
from typing import Any

from kimi_magic.core.frontend import cell_sources, lines_of
from kimi_magic.core.installed import library_paths
from kimi_magic.core.text import clip, cut_middle
from kimi_magic.core.time_limit import USER_ERRORS

__all__ = ["describe_code", "describe_module"]

MAX_NAMES = 100
MOST = 800  # characters of what belongs to a library, 200 tokens
LEAST_NAMES = 60
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def describe_code(value: Any, limit: int) -> str | None:
    """Describe a function, method or class.

    A source that fits is the whole description. Of a longer one the signature and the docstring
    stay, and the middle of the source is left out. What belongs to a library is described by its
    signature and the first paragraph of its docstring.
    """
    if type(value).__name__ == "ufunc" and type(value).__module__ == "numpy":
        return _ufunc(value)
    is_class = issubclass(type(value), type)
    if not (is_class or _is_routine(type(value))):
        return None
    if _is_of_library(value):
        return _in_short(value, min(limit, MOST), is_class=is_class)
    source = _source(value)
    if source and len(source) <= limit:
        return source
    heading = f"{'class' if is_class else 'def'} {value.__qualname__}{_signature(value)}"
    doc = inspect.getdoc(value) or ""
    text = "\n".join(filter(None, [heading, clip(doc, limit // 3)]))
    if is_class and not source:
        text += f"\n{_public(value)}"
    return f"{text}\n\n{cut_middle(source, limit - len(text) - 2)}" if source else text


def _ufunc(value: Any) -> str:
    """Describe a universal function of numpy, whose docstring begins with its signature."""
    signature, _, rest = (value.__doc__ or "").partition("\n\n")
    paragraph = rest.partition("\n\n")[0]
    return clip("\n".join(filter(None, [f"numpy ufunc {signature}", paragraph])), MOST)


def _is_of_library(value: Any) -> bool:
    module = sys.modules.get(getattr(value, "__module__", None) or "")
    if module is None or module.__name__ == "__main__":
        return False
    file = getattr(module, "__file__", None)
    return file is None or file.startswith(library_paths())


def _in_short(value: Any, limit: int, *, is_class: bool) -> str:
    """Describe a function or class of a library in a few lines."""
    word = "class" if is_class else "def"
    signature = _signature(value)
    if len(signature) > limit // 2:
        signature = _signature(value, hints=False)
    heading = clip(f"{word} {value.__qualname__}{signature}", limit // 2)
    module = value.__module__
    if module and module != "builtins":
        heading += f"\nof {module}"
    paragraph = (inspect.getdoc(value) or "").partition("\n\n")[0]
    text = "\n".join(filter(None, [heading, clip(paragraph, limit // 2)]))
    if is_class and limit - len(text) > LEAST_NAMES and (names := _public(value)):
        text += f"\n{clip(names, limit - len(text) - 1)}"
    return text


def _is_routine(kind: type) -> bool:
    """Tell functions and methods by their class, as `inspect.isroutine` does by ``__class__``.

    A proxy computes its ``__class__``.
    """
    is_descriptor = hasattr(kind, "__get__") and not hasattr(kind, "__set__")
    return is_descriptor or issubclass(kind, (BuiltinFunctionType, MethodType, MethodWrapperType))


def _source(value: Any) -> str:
    try:
        source = inspect.getsource(value)
    except USER_ERRORS:  # it is built in, its file is gone, or it is a class of the notebook
        source = _source_in_cells(value) if isinstance(value, type) else ""
    return textwrap.dedent(source).rstrip()


def _source_in_cells(value: type) -> str:
    """Find the latest cell that defines a class; unlike a function, a class has no code object."""
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


def _signature(value: Any, *, hints: bool = True) -> str:
    try:
        signature = inspect.signature(value)
    except USER_ERRORS:  # some built-in functions have none
        return "(…)"
    if not hints:
        bare = [one.replace(annotation=one.empty) for one in signature.parameters.values()]
        signature = signature.replace(parameters=bare, return_annotation=signature.empty)
    return _ADDRESS.sub("", str(signature))


def describe_module(value: Any) -> str | None:
    """Describe a module by the first paragraph of its docstring and its public names."""
    if not issubclass(type(value), ModuleType):
        return None
    version = vars(value).get("__version__")
    heading = f"module {value.__name__}{f' {version}' if isinstance(version, str) else ''}"
    doc = inspect.cleandoc(value.__doc__ or "").partition("\n\n")[0]
    return "\n".join(filter(None, [heading, doc, _public(value)]))


def _public(value: Any) -> str:
    """List the public names of a module or class, without reading its attributes."""
    listed = vars(value).get("__all__")
    names = list(listed) if isinstance(listed, list | tuple) else sorted(vars(value))
    names = [name for name in names if isinstance(name, str) and not name.startswith("_")]
    more = f", … {len(names) - MAX_NAMES:,} more" if len(names) > MAX_NAMES else ""
    return f"names: {', '.join(names[:MAX_NAMES])}{more}" if names else ""
