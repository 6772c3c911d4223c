"""The decorator ``tool``, and the registry of the tools that every cell offers."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, overload

from kimi_magic.core.errors import KimiError
from kimi_magic.core.frontend import user_namespace
from kimi_magic.tools.mcp_servers import is_served, read_selector
from kimi_magic.tools.tool import (
    DEFAULT_OPTIONS,
    ToolOptions,
    name_of,
    proper_name,
    read_params,
    split_params,
)

if TYPE_CHECKING:
    from kimi_magic.schema.references import Refs

__all__ = [
    "MAX_TOOLS",
    "RUN_PYTHON",
    "TOO_MANY",
    "ToolRegistry",
    "ToolSpec",
    "asks_first",
    "is_same_callable",
    "offered",
    "spec_of",
    "tool",
]

RUN_PYTHON = "run_python"
MAX_TOOLS = 128
TOO_MANY = f"more than {MAX_TOOLS} tools: servers take no more, offer fewer with -T"
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A callable with the arguments that `tool` was given for it."""

    function: Callable[..., Any]
    name: str | None = None
    description: str | None = None
    schema: Mapping[str, Any] | None = None
    options: ToolOptions = DEFAULT_OPTIONS
    languages: Mapping[str, str] | None = None
    refs: Refs | None = None
    params: tuple[str, ...] | None = None  # the parameters to offer; None for all


class ToolRegistry:
    """The tools that every cell offers, by name; a redefined function replaces its old self."""

    def __init__(self) -> None:
        self._specs: dict[str, ToolSpec] = {}
        self._servers: dict[str, str] = {}  # selectors of the offered tools, by server

    def add(
        self,
        fn: Callable[..., Any],
        name: str | None = None,
        params: tuple[str, ...] | None = None,
    ) -> str:
        """Add a callable with the options it was decorated with, and return its name.

        ``params`` are the parameters to offer, in place of those of the decorator.
        """
        if not callable(fn):
            raise KimiError(f"{fn!r:.60} cannot be called: offer a function, a method or a class")
        spec = spec_of(fn)
        spec = spec if params is None else replace(spec, params=params)
        known = proper_name(name or spec.name or name_of(fn, user_namespace()))
        for old in [n for n, s in self._specs.items() if _redefines(fn, s.function)]:
            del self._specs[old]
        if len(self._specs) >= MAX_TOOLS and known not in self._specs:
            raise KimiError(TOO_MANY)
        self._specs[known] = replace(spec, name=known)
        return known

    def add_server(self, selector: str) -> None:
        """Add all tools of an MCP server, or some: ``mcp:files``, ``mcp:files[read_file]``."""
        name, _ = read_selector(selector)
        self._servers[name] = selector

    def remove(self, tool: str | Callable[..., Any]) -> None:
        """Remove a tool, by its name or by the callable itself, or the tools of a server."""
        if isinstance(tool, str) and is_served(tool):
            name, _ = read_selector(tool)
            if self._servers.pop(name, None) is not None:
                return
        names = [
            n for n, s in self._specs.items() if n == tool or is_same_callable(s.function, tool)
        ]
        if not names:
            known = ", ".join([*self.names, *self._servers.values()]) or "none"
            raise KimiError(f"{getattr(tool, '__name__', tool)} is not offered; offered: {known}")
        for name in names:
            del self._specs[name]

    def resolve(self, name: str, namespace: Mapping[str, Any]) -> ToolSpec | str:
        """Return what a name stands for, as `Toolset` takes it; ``name(a, b)`` names parameters.

        The callable in the namespace comes before the registered one. The name of the built-in
        tool cannot be taken over, because that tool asks before each call.
        """
        if is_served(name):
            return name
        path, params = split_params(name)
        now = path == RUN_PYTHON or callable(namespace.get(path))
        spec = None if now else self._specs.get(path)
        if spec is None:
            return name
        return spec if params is None else replace(spec, params=params)

    def clear(self) -> None:
        self._specs.clear()
        self._servers.clear()

    @property
    def servers(self) -> list[str]:
        """The offered tools of MCP servers, as `add_server` takes them."""
        return list(self._servers.values())

    @property
    def names(self) -> list[str]:
        return sorted(self._specs)

    def __iter__(self) -> Iterator[ToolSpec]:
        return iter([self._specs[name] for name in self.names])

    def __len__(self) -> int:
        return len(self._specs)

    def __contains__(self, name: object) -> bool:
        return name in self._specs


offered = ToolRegistry()
"""The registry that `tool` fills."""

_ATTRIBUTE = "__kimi_tool__"
_specs: dict[Any, ToolSpec] = {}  # of callables without attributes, such as bound methods


@overload
def tool(
    fn: None = None,
    *,
    name: str | None = None,
    description: str | None = None,
    schema: Mapping[str, Any] | None = None,
    confirm: bool = False,
    timeout: float | None = None,
    max_chars: int = 4000,
    parallel: bool = False,
    once: bool = False,
    refs: Any = None,
    params: Iterable[str] | None = None,
) -> Callable[[F], F]: ...
@overload
def tool(
    fn: F,
    *,
    name: str | None = None,
    description: str | None = None,
    schema: Mapping[str, Any] | None = None,
    confirm: bool = False,
    timeout: float | None = None,
    max_chars: int = 4000,
    parallel: bool = False,
    once: bool = False,
    refs: Any = None,
    params: Iterable[str] | None = None,
) -> F: ...
def tool(
    fn: Any = None,
    *,
    name: str | None = None,
    description: str | None = None,
    schema: Mapping[str, Any] | None = None,
    confirm: bool = False,
    timeout: float | None = None,
    max_chars: int = 4000,
    parallel: bool = False,
    once: bool = False,
    refs: Any = None,
    params: Iterable[str] | None = None,
) -> Any:
    """Offer a function to the model in every cell that names no tools of its own.

    Parameters
    ----------
    fn : callable
        The function, which is returned unchanged: ``@kimi.tool``, ``@kimi.tool(confirm=True)`` or
        ``kimi.tool(fn, …)``.
    name, description : str or None
        In place of the function's own.
    schema : mapping or None
        The parameters as JSON Schema, in place of hints and docstring.
    confirm : bool
        Ask before each call.
    timeout : float or None
        Seconds after which a call is given up; the model gets to know.
    max_chars : int
        Characters of a result that are sent to the model.
    parallel : bool
        Run in a worker thread, beside other calls.
    once : bool
        Make a call with the same arguments only once in a turn, for all of its trajectories.
    refs : str, callable, mapping or iterable of these, optional
        What the model may name for parameters that take an object by its name, beside the
        notebook's data and own functions: names and dotted paths such as ``"np.mean"``,
        callables, objects by name.
    params : iterable of str, optional
        The parameters to offer; the function's defaults hold for all others.

    Examples
    --------
    >>> import kimi_magic as kimi
    >>> @kimi.tool(timeout=30)
    ... def forecast(region: str, months: int = 3) -> list[float]:
    ...     "Forecast the sales of a region."
    """
    options = ToolOptions(confirm, timeout, max_chars, parallel, once)

    def mark(fn: Callable[..., Any]) -> Callable[..., Any]:
        if not callable(fn):
            raise KimiError(f"{fn!r:.60} cannot be called: kimi.tool decorates a function")
        read = None
        if refs is not None:
            from kimi_magic.schema.references import read_refs

            read = read_refs(refs)
        only = read_params(params)
        if schema is not None or only is not None:  # a mistake in them shows at once
            from kimi_magic.tools.function_tool import make_tool

            make_tool(
                fn,
                name=name,
                description=description,
                schema=schema,
                namespace=user_namespace(),
                params=only,
            )
        spec = ToolSpec(fn, name, description, schema, options, refs=read, params=only)
        try:
            setattr(fn, _ATTRIBUTE, spec)
        except (AttributeError, TypeError):
            _specs[_key(fn)] = spec
        if not _is_in_class(fn):
            offered.add(fn)
        return fn

    return mark if fn is None else mark(fn)


def is_same_callable(fn: Any, other: Any) -> bool:
    # Every look-up of a bound method makes a new object.
    return fn is other or (inspect.ismethod(fn) and fn == other)


def _key(fn: Any) -> Any:
    try:
        hash(fn)
    except TypeError:
        return id(fn)
    return fn


def spec_of(fn: Any) -> ToolSpec:
    """Return what `tool` was given for a callable; wrappers keep the options of their function."""
    spec = getattr(fn, _ATTRIBUTE, None) or _specs.get(_key(fn))
    if isinstance(spec, ToolSpec):
        own = is_same_callable(spec.function, fn) or spec.function is getattr(fn, "__func__", None)
        return replace(spec, function=fn) if own else _wrapping(fn, spec)
    return _wrapping(fn, spec_of(fn.func)) if isinstance(fn, partial) else ToolSpec(fn)


def _wrapping(fn: Any, spec: ToolSpec) -> ToolSpec:
    return ToolSpec(fn, options=spec.options, refs=spec.refs)


def asks_first(fn: Any) -> bool:
    """Return True for a tool with ``confirm=True``, without running code of a value's class."""
    if type(fn) in (partial, types.FunctionType, types.MethodType, types.BuiltinFunctionType):
        return spec_of(fn).options.confirm
    spec = inspect.getattr_static(fn, _ATTRIBUTE, None)
    return isinstance(spec, ToolSpec) and spec.options.confirm


def _redefines(new: Any, old: Any) -> bool:
    """Return True if running a cell again has defined the same function anew."""
    names = [(getattr(f, "__module__", ""), getattr(f, "__qualname__", "")) for f in (new, old)]
    plain = inspect.isfunction(new) and inspect.isfunction(old) and "<" not in names[0][1]
    return plain and names[0] == names[1] and new is not old


def _is_in_class(fn: Any) -> bool:
    """Return True for a function in a class body, which no object belongs to yet."""
    own = getattr(fn, "__qualname__", "").rpartition("<locals>.")[2]
    return inspect.isfunction(fn) and "." in own
