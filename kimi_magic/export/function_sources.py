"""Functions of the notebook → the source that they need outside of it."""

from __future__ import annotations

import builtins
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import PurePath
from types import GenericAlias, ModuleType, UnionType
from typing import Any

from kimi_magic.export.imports import Imports
from kimi_magic.export.literals import Python
from kimi_magic.export.names import names_in_hints, names_used, paths_used
from kimi_magic.export.notebook_code import (
    has_source,
    is_future,
    name_of,
    scope_of,
    source_of,
    statement_of,
    without_our_decorators,
)
from kimi_magic.secrets.patterns import holds_key

__all__ = ["Sources", "gather"]

MAX_CONSTANT = 4000
MAX_DEPTH = 20
_SCALARS = (str, bytes, int, float, bool, type(None))
# What never changes is still what its assignment said.
_SETTLED = (re.Pattern, PurePath, Decimal, date, time, timedelta, UnionType, GenericAlias)
_SECRET_NAME = re.compile(
    r"(?i)((api|access|private|secret)[_-]?key|token|secret|password|passwd|authorization)$"
)
# In a cell of the notebook it is there, and stays what it is.
_AT_HAND = 'globals().get("{}")'


@dataclass(slots=True)
class Sources:
    """What a program takes along.

    Attributes
    ----------
    imports : Imports
    blocks : dict
        Definitions by the names that they bind, in an order in which they run.
    functions : dict
        The name that a tool's function has in the program.
    missing : dict
        What stays behind, and why.
    """

    imports: Imports = field(default_factory=Imports)
    blocks: dict[str, str] = field(default_factory=dict)
    functions: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def has_hints_of(self, name: str) -> bool:
        """Whether all that the hints of a definition name is in the program."""
        return not set(names_in_hints(self.blocks.get(name, ""))) & set(self.missing)


def gather(functions: Mapping[str, Callable[..., Any]]) -> Sources:
    """Gather the source of tools, and of all that they use, as far as it can be had."""
    gatherer = _Gatherer()
    for tool, function in functions.items():
        gatherer.take_tool(tool, function)
    return gatherer.found


class _StaysBehind(Exception):
    """The text says why."""


class _Gatherer:
    """Walks from the tools to what they use; what is used is written first."""

    def __init__(self) -> None:
        self.found = Sources()
        self._meanings: dict[str, Any] = {}

    def take_tool(self, tool: str, function: Callable[..., Any]) -> None:
        """Take a tool's function along, under a name of its own where it has one."""
        name = getattr(function, "__name__", "")
        if not name.isidentifier():
            name = re.sub(r"\W", "_", tool)
        try:
            self._take(name, function, {})
        except _StaysBehind as reason:
            self.found.missing[tool] = str(reason)
        else:
            self.found.functions[tool] = name

    def _take(
        self, name: str, value: Any, scope: Mapping[str, Any], paths: Iterable[str] = ()
    ) -> None:
        """Have a name mean in the program what it means in the notebook."""
        if name in self._meanings:
            if self._meanings[name] is not value:
                raise _StaysBehind("another one of this name is in the program")
            if not isinstance(value, ModuleType):  # of which another submodule may be used
                return
        self._meanings[name] = value
        if not _is_builtin(name, value) and not self.found.imports.bring(name, value, paths):
            # What it needs has its place in the program before it.
            text = self._text(name, value, scope)
            self.found.blocks[name] = text.rstrip()

    def _text(self, name: str, value: Any, scope: Mapping[str, Any]) -> str:
        if _is_plain(value):
            return self._constant(name, value)
        if has_source(value):
            return self._definition(name, value, scope)
        settled = isinstance(value, _SETTLED) or type(value).__module__ == "typing"
        if settled and (statement := statement_of(name)):
            return self._with_its_names(name, statement, scope)
        raise _StaysBehind(_kind(value))

    def _constant(self, name: str, value: Any) -> str:
        if isinstance(value, str) and _is_secret(name, value):
            self.found.imports.add("os")
            self.found.missing[name] = "it may be a secret, and is read from the environment"
            return f'{name} = {_AT_HAND.format(name)} or os.environ["{name}"]'
        if _is_secret("", value):
            raise _StaysBehind("it may hold a secret")
        text = Python().assign(name, value)
        if len(text) > MAX_CONSTANT:
            raise _StaysBehind(f"it is long ({len(text):,} characters)")
        return text

    def _definition(self, name: str, value: Any, scope: Mapping[str, Any]) -> str:
        scope = scope_of(value, scope)
        source = without_our_decorators(source_of(name, value), scope)
        if not source:
            raise _StaysBehind("its source is not at hand")
        own_name = name_of(source)
        if own_name != name:
            self._take(own_name, value, scope)
            return f"{name} = {own_name}"
        if is_future(value):
            self.found.imports.add("__future__", "annotations")
        return self._with_its_names(name, source, scope)

    def _with_its_names(self, name: str, source: str, scope: Mapping[str, Any]) -> str:
        """The source itself, after what it names."""
        if holds_key(source):
            raise _StaysBehind("it may hold a secret")
        try:
            used, paths = names_used(source), paths_used(source)
        except SyntaxError:  # a nested function that changes what is around it
            raise _StaysBehind("it cannot stand alone") from None
        hinted = [hint for hint in names_in_hints(source) if hint in scope]
        for needed in dict.fromkeys([*used, *hinted]):
            try:
                self._take(needed, _look_up(needed, scope), scope, paths)
            except _StaysBehind as reason:
                self.found.missing.setdefault(needed, f"{reason} (used by {name})")
                self.found.blocks.setdefault(needed, f"{needed} = {_AT_HAND.format(needed)}")
        return source


def _look_up(name: str, scope: Mapping[str, Any]) -> Any:
    if name not in scope and not hasattr(builtins, name):
        raise _StaysBehind("it is not defined")
    return scope[name] if name in scope else getattr(builtins, name)


def _is_builtin(name: str, value: Any) -> bool:
    # IPython adds display and get_ipython.
    ours = not str(getattr(value, "__module__", "")).startswith("IPython")
    return ours and getattr(builtins, name, _is_builtin) is value


def _is_plain(value: Any, depth: int = MAX_DEPTH) -> bool:
    if type(value) is dict:
        return _is_plain([*value.keys(), *value.values()], depth)
    if type(value) in (list, tuple, set):
        return depth > 0 and all(_is_plain(item, depth - 1) for item in value)
    return type(value) in _SCALARS


def _is_secret(name: Any, value: Any) -> bool:
    if isinstance(value, list | tuple | set):
        return any(_is_secret("", item) for item in value)
    if isinstance(value, dict):
        return any(_is_secret(key, item) for key, item in value.items())
    if not isinstance(value, str) or not value:
        return False
    named = isinstance(name, str) and _SECRET_NAME.search(name) is not None
    return named or holds_key(value)


def _kind(value: Any) -> str:
    if inspect.ismethod(value):
        return f"it belongs to a live object, of type {type(value.__self__).__name__}"
    return f"it is a live object, of type {type(value).__name__}"
