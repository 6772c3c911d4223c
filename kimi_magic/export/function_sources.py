"""The source of notebook functions, together with everything that it uses."""

from __future__ import annotations
import __future__

import ast
import builtins
import inspect
import re
import symtable
import textwrap
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import PurePath
from types import FunctionType, GenericAlias, ModuleType, UnionType
from typing import Any

from kimi_magic.core.frontend import cell_sources, lines_of
from kimi_magic.core.text import escape_hidden
from kimi_magic.export.formatting import PYTHON
from kimi_magic.export.imports import Imports
from kimi_magic.secrets.fields import may_be_secret
from kimi_magic.secrets.patterns import holds_key

__all__ = ["Sources", "gather"]

MAX_CONSTANT = 4000
MAX_DEPTH = 20
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_SCALARS = (str, bytes, int, float, bool, type(None))
# Immutable, so the assignment in the notebook still says what the value is.
_IMMUTABLE = (re.Pattern, PurePath, Decimal, date, time, timedelta, UnionType, GenericAlias)
# Run as the notebook's next cell, the program finds there what was left behind.
_FROM_NOTEBOOK = 'globals().get("{}")'


@dataclass(slots=True)
class Sources:
    """The parts of a program that come from the notebook."""

    imports: Imports = field(default_factory=Imports)
    # Definitions by the name that they bind, in an order in which they run.
    blocks: dict[str, str] = field(default_factory=dict)
    # The name of each tool's function in the program, by tool name.
    functions: dict[str, str] = field(default_factory=dict)
    # Reasons why something was left behind, by name.
    missing: dict[str, str] = field(default_factory=dict)

    def has_hints_of(self, name: str) -> bool:
        """Return True if the program has every name in the type hints of a definition."""
        return not set(_names_in_hints(self.blocks.get(name, ""))) & set(self.missing)


def gather(functions: Mapping[str, Callable[..., Any]]) -> Sources:
    """Gather the source of functions, by tool name, and of all that they use."""
    gatherer = _Gatherer()
    for tool, function in functions.items():
        gatherer.add_tool(tool, function)
    return gatherer.sources


class _LeftBehind(Exception):
    """Raised with the reason why something cannot be part of the program."""


class _Gatherer:
    """Depth-first walk from functions to what they use, so that definitions precede their use."""

    def __init__(self) -> None:
        self.sources = Sources()
        self._values: dict[str, Any] = {}

    def add_tool(self, tool: str, function: Callable[..., Any]) -> None:
        """Add a tool's function under its own name, or the tool's where it has none."""
        name = getattr(function, "__name__", "")
        if not name.isidentifier():
            name = re.sub(r"\W", "_", tool)
        try:
            self._add(name, function, {})
        except _LeftBehind as reason:
            self.sources.missing[tool] = str(reason)
        else:
            self.sources.functions[tool] = name

    def _add(
        self, name: str, value: Any, scope: Mapping[str, Any], paths: Iterable[str] = ()
    ) -> None:
        """Bind a name in the program to what it means in the notebook."""
        if name in self._values:
            if self._values[name] is not value:
                raise _LeftBehind("another one of this name is in the program")
            if not isinstance(value, ModuleType):  # whose other submodules may be used as well
                return
        self._values[name] = value
        if not _is_builtin(name, value) and not self.sources.imports.add_value(name, value, paths):
            # Its dependencies must enter the blocks first, so the text comes before the key.
            text = self._text(name, value, scope)
            self.sources.blocks[name] = escape_hidden(text.rstrip())[0]

    def _text(self, name: str, value: Any, scope: Mapping[str, Any]) -> str:
        if all(type(leaf) in _SCALARS for _, leaf in _leaves(value)):
            return self._constant(name, value)
        if isinstance(value, type) or isinstance(_unwrap(value), FunctionType):
            return self._definition(name, value, scope)
        immutable = isinstance(value, _IMMUTABLE) or type(value).__module__ == "typing"
        if immutable and (statement := _statement_of(name)):
            return self._with_dependencies(name, statement, scope)
        if inspect.ismethod(value):
            kind = type(value.__self__).__name__
            raise _LeftBehind(f"it belongs to a live object, of type {kind}")
        raise _LeftBehind(f"it is a live object, of type {type(value).__name__}")

    def _constant(self, name: str, value: Any) -> str:
        if any(_is_secret(key, leaf) for key, leaf in _leaves(value, name)):
            if not isinstance(value, str):
                raise _LeftBehind("it may hold a secret")
            self.sources.imports.add("os")
            self.sources.missing[name] = "it may be a secret, and is read from the environment"
            return f'{name} = {_FROM_NOTEBOOK.format(name)} or os.environ["{name}"]'
        text = PYTHON.assign(name, value)
        if len(text) > MAX_CONSTANT:
            raise _LeftBehind(f"it is long ({len(text):,} characters)")
        return text

    def _definition(self, name: str, value: Any, scope: Mapping[str, Any]) -> str:
        scope = _scope_of(value, scope)
        source = _without_our_decorators(_source_of(name, value), scope)
        definition = _parse_definition(source)
        if definition is None:
            raise _LeftBehind("its source is not at hand")
        if definition.name != name:
            self._add(definition.name, value, scope)
            return f"{name} = {definition.name}"
        if _postpones_hints(value):
            self.sources.imports.add("__future__", "annotations")
        return self._with_dependencies(name, source, scope)

    def _with_dependencies(self, name: str, source: str, scope: Mapping[str, Any]) -> str:
        """Add everything that the source names, and return the source itself."""
        if _is_secret("", source):
            raise _LeftBehind("it may hold a secret")
        try:
            used, paths = _names_used(source), _dotted_paths(source)
        except SyntaxError:  # a nested function with a nonlocal statement
            raise _LeftBehind("it cannot stand alone") from None
        hinted = [hint for hint in _names_in_hints(source) if hint in scope]
        for needed in dict.fromkeys([*used, *hinted]):
            try:
                self._add(needed, _look_up(needed, scope), scope, paths)
            except _LeftBehind as reason:
                self.sources.missing.setdefault(needed, f"{reason} (used by {name})")
                block = f"{needed} = {_FROM_NOTEBOOK.format(needed)}"
                self.sources.blocks.setdefault(needed, block)
        return source


def _look_up(name: str, scope: Mapping[str, Any]) -> Any:
    if name not in scope and not hasattr(builtins, name):
        raise _LeftBehind("it is not defined")
    return scope[name] if name in scope else getattr(builtins, name)


def _is_builtin(name: str, value: Any) -> bool:
    # IPython adds display and get_ipython to the builtins.
    from_ipython = str(getattr(value, "__module__", "")).startswith("IPython")
    return not from_ipython and getattr(builtins, name, _is_builtin) is value


def _leaves(value: Any, key: Any = "", depth: int = MAX_DEPTH) -> Iterator[tuple[Any, Any]]:
    """Yield what is in nested containers, each with its key in a dict; too deep ones are leaves."""
    if depth and type(value) is dict:
        for name, item in value.items():
            yield from _leaves(name, "", depth - 1)
            yield from _leaves(item, name, depth - 1)
    elif depth and type(value) in (list, tuple, set):
        for item in value:
            yield from _leaves(item, "", depth - 1)
    else:
        yield key, value


def _is_secret(name: Any, value: Any) -> bool:
    if not isinstance(value, str) or not value:
        return False
    return (isinstance(name, str) and may_be_secret(name)) or holds_key(value)


def _source_of(name: str, value: Any) -> str:
    """Return the definition of a function or class, a lambda as a function; "" if unavailable."""
    # inspect finds classes through the file of their module, and a kernel's __main__ has none.
    source = _statement_of(value.__name__) if isinstance(value, type) else ""
    with suppress(OSError, TypeError):
        source = source or inspect.getsource(_unwrap(value))
    if source[:1].isspace():  # a nested function or a method
        source = textwrap.dedent(source)
    return _lambda_as_def(name, source) if _unwrap(value).__name__ == "<lambda>" else source


def _statement_of(name: str) -> str:
    """Return the latest class or plain assignment of a name in the cells; "" if there is none."""
    for source in cell_sources():
        with suppress(SyntaxError):
            for node in reversed(ast.parse(source).body) if name in source else ():
                if isinstance(node, ast.Assign):
                    found = [ast.unparse(target) for target in node.targets] == [name]
                else:
                    found = isinstance(node, ast.ClassDef) and node.name == name
                if found:
                    return lines_of(source, node)
    return ""


def _scope_of(value: Any, around: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the values of the names in a function or class found in the scope ``around``."""
    inner = _unwrap(value)
    if isinstance(inner, type):
        # A class holds no reference to its globals, but its methods do.
        methods = (f for f in vars(inner).values() if isinstance(f, FunctionType))
        return around or next((method.__globals__ for method in methods), {})
    return ChainMap(dict(inspect.getclosurevars(inner).nonlocals), inner.__globals__)


def _postpones_hints(value: Any) -> bool:
    """Return True if it was compiled under ``from __future__ import annotations``."""
    inside = vars(value).values() if isinstance(value, type) else [_unwrap(value)]
    codes = (f.__code__ for f in inside if isinstance(f, FunctionType))
    return any(code.co_flags & __future__.annotations.compiler_flag for code in codes)


def _without_our_decorators(source: str, scope: Mapping[str, Any]) -> str:
    """Remove ``@kimi.tool``, which means nothing outside the notebook."""
    node = _parse_definition(source)
    lines = source.splitlines(keepends=True)
    for decorator in reversed(node.decorator_list if node else []):
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        first, *rest = ast.unparse(called).split(".")
        found = scope.get(first)
        for part in rest:
            found = getattr(found, part, None)
        if str(getattr(found, "__module__", "")).partition(".")[0] == "kimi_magic":
            del lines[decorator.lineno - 1 : decorator.end_lineno]
    return "".join(lines)


def _unwrap(value: Any) -> Any:
    """Return the function inside its decorators; None for a method."""
    if inspect.ismethod(value):
        return None
    with suppress(Exception):  # attribute access may run the object's own code
        return inspect.unwrap(value)
    return None


def _lambda_as_def(name: str, source: str) -> str:
    node = _only_statement(source)
    found = [n for n in ast.walk(node) if isinstance(n, ast.Lambda)] if node else []
    # inspect returns whole lines: with two lambdas on them there is no telling which one it is.
    if len(found) != 1:
        return ""
    body = ast.get_source_segment(source, found[0].body) or ""
    body = f"(\n        {body}\n    )" if "\n" in body else body
    return f"def {name}({ast.unparse(found[0].args)}):\n    return {body}\n"


def _parse_definition(source: str) -> Definition | None:
    node = _only_statement(source)
    return node if isinstance(node, Definition) else None


def _only_statement(source: str) -> ast.stmt | None:
    with suppress(SyntaxError):
        body = ast.parse(source).body
        return body[0] if len(body) == 1 else None
    return None


def _names_used(source: str) -> list[str]:
    """Return the free names of a definition: in its body, type hints and defaults."""

    def free(table: symtable.SymbolTable) -> Iterator[str]:
        for symbol in table.get_symbols():
            # At the top, the definition itself is assigned; below, free names are global.
            is_module = table.get_type() == "module"
            is_free = not symbol.is_assigned() if is_module else symbol.is_global()
            if is_free and symbol.is_referenced():
                yield symbol.get_name()
        for child in table.get_children():
            yield from free(child)

    return sorted(set(free(symtable.symtable(source, "definition", "exec"))))


def _dotted_paths(source: str) -> list[str]:
    """Return the attributes used, as dotted paths such as ``xml.etree.ElementTree``."""
    attributes = (n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Attribute))
    return sorted({ast.unparse(node) for node in attributes})


def _names_in_hints(source: str) -> list[str]:
    """Return the names in type hints, quoted hints included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        hints = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        for part in (part for hint in hints if hint for part in ast.walk(hint)):
            if isinstance(part, ast.Name):
                names.add(part.id)
            elif isinstance(part, ast.Constant) and isinstance(part.value, str):
                with suppress(SyntaxError):  # a string of Literal or Annotated, and no hint
                    quoted = ast.walk(ast.parse(part.value, mode="eval"))
                    names |= {n.id for n in quoted if isinstance(n, ast.Name)}
    return sorted(names)
