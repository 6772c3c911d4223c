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

from kimi_magic.core.frontend import cell_sources, lines_of, running_shell
from kimi_magic.core.text import escape_hidden
from kimi_magic.export.formatting import PYTHON
from kimi_magic.export.imports import Imports
from kimi_magic.export.placeholders import FROM_NOTEBOOK, placeholder
from kimi_magic.secrets.fields import may_be_secret
from kimi_magic.secrets.patterns import holds_key

__all__ = ["Sources", "gather"]

NO_NAMES: Mapping[str, Mapping[str, Iterable[str]]] = {}
MAX_CONSTANT = 4000
MAX_DEPTH = 20
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_SCALARS = (str, bytes, int, float, bool, type(None))
# Immutable, so the assignment in the notebook still says what the value is.
_IMMUTABLE = (re.Pattern, PurePath, Decimal, date, time, timedelta, UnionType, GenericAlias)
# What the interpreter gives to each module.
_OF_MODULES = frozenset(
    "__annotations__ __builtins__ __cached__ __debug__ __doc__ __file__ __loader__ __name__ "
    "__package__ __spec__".split()
)
# IPython and its kernel put their own in the place of these built-ins: `open` refuses the three
# standard streams.
_HIDDEN = frozenset({"open", "exit", "quit", "input"})
# The last three values and inputs, those by number, and the lists of all (displayhook.py and
# history.py of IPython).
_HISTORY = re.compile(r"In|Out|_[iod]h|_{1,3}|_i{1,3}|_i?\d+")
# Methods of a kernel and its shell, and of what they take the place.
_OF_SHELL = {
    "raw_input": ("builtins", "input"),
    "getpass": ("getpass", "getpass"),
    "get_ipython": ("IPython", "get_ipython"),
}
NO_HISTORY = "it is IPython's history"
NO_SHELL = "it returns None outside of IPython: run the program with ipython"


@dataclass(slots=True)
class Sources:
    """The parts of a program that come from the notebook."""

    imports: Imports = field(default_factory=Imports)
    # Definitions by the name that they bind, in an order in which they run.
    blocks: dict[str, str] = field(default_factory=dict)
    # Statements that stop the program where a live object is missing, by its name.
    placeholders: dict[str, str] = field(default_factory=dict)
    # The names in the type hints of definitions.
    hints: dict[str, list[str]] = field(default_factory=dict)
    # The name of each tool's function in the program, by tool name.
    functions: dict[str, str] = field(default_factory=dict)
    # Reasons why something was left behind, by name.
    missing: dict[str, str] = field(default_factory=dict)

    def has_hints_of(self, name: str) -> bool:
        """Return True if the program has every name in the type hints of a definition."""
        return not set(self.hints.get(name, ())) & set(self.missing)


def gather(
    functions: Mapping[str, Callable[..., Any]],
    named: Mapping[str, Mapping[str, Iterable[str]]] = NO_NAMES,
) -> Sources:
    """Gather the source of functions, by tool name, and of all that they use.

    ``named`` are variables that their calls name, such as ``np.mean``, by tool and parameter.
    """
    gatherer = _Gatherer()
    for tool, function in functions.items():
        gatherer.add_tool(tool, function)
        if tool in gatherer.sources.functions:
            for paths in named.get(tool, {}).values():
                gatherer.add_values(paths, tool, function)
    return gatherer.sources


class _LeftBehind(Exception):
    """Raised with the reason why something cannot be part of the program."""


class _Undefined(_LeftBehind):
    """Raised for a name that the notebook does not have either."""


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

    def add_values(self, paths: Iterable[str], tool: str, function: Callable[..., Any]) -> None:
        """Add the variables that a tool's calls name."""
        scope = getattr(_unwrap(function), "__globals__", {})
        for path in paths:
            self._add_used(path.partition(".")[0], tool, scope, [path])

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
        if _is_own(name, value):
            return
        if _is_history(name, value):
            raise _LeftBehind(NO_HISTORY)
        if not self._import(name, value, paths):
            # Its dependencies must enter the blocks first, so the text comes before the key.
            text = self._text(name, value, scope)
            self.sources.blocks[name] = escape_hidden(text.rstrip())[0]

    def _import(self, name: str, value: Any, paths: Iterable[str]) -> bool:
        """Import a value; return False if no import can provide it."""
        imports = self.sources.imports
        place = _OF_SHELL.get(value.__name__) if _is_method_of_shell(value) else None
        if place is None:
            return imports.add_value(name, value, paths)
        imports.add(*place, name)
        if place[0] == "IPython":
            self.sources.missing.setdefault(name, NO_SHELL)
        return True

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
            return f'{name} = {FROM_NOTEBOOK.format(name)} or os.environ["{name}"]'
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
        self.sources.hints[name] = _names_in_hints(source, scope)
        hinted = [hint for hint in self.sources.hints[name] if hint in scope]
        for needed in dict.fromkeys([*used, *hinted]):
            self._add_used(needed, name, scope, paths)
        return source

    def _add_used(
        self, name: str, user: str, scope: Mapping[str, Any], paths: Iterable[str]
    ) -> None:
        """Add a name that something uses, or put a statement in its place."""
        try:
            self._add(name, _look_up(name, scope), scope, paths)
        except _LeftBehind as reason:
            self._leave_behind(name, user, scope, reason)

    def _leave_behind(
        self, name: str, user: str, scope: Mapping[str, Any], reason: _LeftBehind
    ) -> None:
        """Note what is missing, and put a statement in its place."""
        why = f"{reason} (used by {user})"
        sources = self.sources
        sources.missing.setdefault(name, why)
        if (
            name in sources.blocks
            or name in sources.placeholders
            or name in sources.imports.names()
        ):
            return
        if isinstance(reason, _Undefined):
            sources.blocks[name] = f"{name} = {FROM_NOTEBOOK.format(name)}"
            return
        statement = _statement_of(name)
        if _is_secret("", statement):
            statement = ""
        text = placeholder(name, scope.get(name), why, statement)
        sources.placeholders[name] = escape_hidden(text)[0]


def _look_up(name: str, scope: Mapping[str, Any]) -> Any:
    if name not in scope and not hasattr(builtins, name):
        raise _Undefined("it is not defined")
    return scope[name] if name in scope else getattr(builtins, name)


def _is_own(name: str, value: Any) -> bool:
    """Return True for what every program has: the interpreter's own."""
    if name in _OF_MODULES:
        return True
    if _is_of_shell(value):  # it adds display and get_ipython to the built-ins
        return name in _HIDDEN
    return getattr(builtins, name, _is_own) is value


def _is_of_shell(value: Any) -> bool:
    homes = [getattr(value, "__module__", ""), type(value).__module__]
    if isinstance(value, FunctionType):  # IPython's `open` says that it is of `_io`
        homes.append(value.__globals__.get("__name__"))
    return any(str(home).startswith(("IPython.", "ipykernel.")) for home in homes)


def _is_method_of_shell(value: Any) -> bool:
    return inspect.ismethod(value) and _is_of_shell(value)


def _is_history(name: str, value: Any) -> bool:
    """Return True for the names under which IPython keeps inputs and values."""
    return running_shell() is not None and bool(_HISTORY.fullmatch(name)) and not callable(value)


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


def _names_in_hints(source: str, scope: Mapping[str, Any]) -> list[str]:
    """Return the names in type hints, quoted hints included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        for hint in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            names.update(_names_in(hint, scope) if hint else ())
    return sorted(names)


def _names_in(hint: ast.AST, scope: Mapping[str, Any], *, quoted: bool = True) -> Iterator[str]:
    """Yield the names in a type hint; strings are hints as well if it is ``quoted``."""
    if isinstance(hint, ast.Name):
        yield hint.id
    elif isinstance(hint, ast.Constant) and isinstance(hint.value, str) and quoted:
        with suppress(SyntaxError):
            yield from _names_in(ast.parse(hint.value, mode="eval").body, scope)
    elif isinstance(hint, ast.Subscript):
        yield from _names_in(hint.value, scope)
        form = _special_form(hint.value, scope)
        parts = hint.slice.elts if isinstance(hint.slice, ast.Tuple) else [hint.slice]
        for place, part in enumerate(parts):
            is_type = form != "Literal" and not (form == "Annotated" and place)
            yield from _names_in(part, scope, quoted=is_type)
    else:
        for child in ast.iter_child_nodes(hint):
            yield from _names_in(child, scope, quoted=quoted)


def _special_form(node: ast.expr, scope: Mapping[str, Any]) -> str:
    """Return the name of what a hint subscripts, where ``typing`` has it under another one, too."""
    name = ast.unparse(node).rpartition(".")[2]
    return str(getattr(scope.get(name), "_name", None) or name)
