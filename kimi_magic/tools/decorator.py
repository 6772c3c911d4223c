"""What is offered to every cell: the decorator ``tool`` and the list that it fills."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, overload

from kimi_magic.core.errors import KimiError

if TYPE_CHECKING:
    from kimi_magic.tools.tool import ToolOptions

__all__ = [
    "MAX_TOOLS",
    "RUN_PYTHON",
    "TOO_MANY",
    "Offer",
    "Offered",
    "is_one",
    "main",
    "offer_of",
    "offered",
    "tool",
]

RUN_PYTHON = "run_python"
MAX_TOOLS = 128
TOO_MANY = f"more than {MAX_TOOLS} tools: servers take no more, offer fewer with -T"
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Offer:
    """What `tool` was told about a callable."""

    function: Callable[..., Any]
    name: str | None
    description: str | None
    schema: Mapping[str, Any] | None
    options: ToolOptions


class Offered:
    """The tools that are offered to every cell, by name.

    A function that is defined anew takes the place of the one that it replaces.
    """

    def __init__(self) -> None:
        self._offers: dict[str, Offer] = {}

    def add(self, fn: Callable[..., Any], name: str | None = None) -> str:
        """Offer a callable, with the options it was decorated with; the name it goes by.

        Raises
        ------
        KimiError
            It cannot be called, or there are too many.
        """
        from kimi_magic.tools.tool import name_of, proper_name

        if not callable(fn):
            raise KimiError(f"{fn!r:.60} cannot be called: offer a function, a method or a class")
        offer = offer_of(fn)
        offer = replace(offer, name=name or offer.name)
        known = proper_name(offer.name or name_of(fn, main()))
        for old in [n for n, o in self._offers.items() if _redefines(fn, o.function)]:
            del self._offers[old]
        if len(self._offers) >= MAX_TOOLS and known not in self._offers:
            raise KimiError(TOO_MANY)
        self._offers[known] = replace(offer, name=known)
        return known

    def remove(self, tool: str | Callable[..., Any]) -> None:
        """Withdraw a tool, by its name or by the callable itself.

        Raises
        ------
        KimiError
            It was not offered; the message lists what is.
        """
        names = [n for n, o in self._offers.items() if n == tool or is_one(o.function, tool)]
        if not names:
            known = ", ".join(self.names) or "none"
            raise KimiError(f"{getattr(tool, '__name__', tool)} is not offered; offered: {known}")
        for name in names:
            del self._offers[name]

    def meant(self, name: str, namespace: Mapping[str, Any]) -> Offer | str:
        """The tool that a name means, as `Toolset` takes it.

        What the name means in the namespace now goes before what it was when it was decorated;
        that of the built-in tool always means that one, which asks.
        """
        now = name == RUN_PYTHON or callable(namespace.get(name))
        return name if now else self._offers.get(name, name)

    def clear(self) -> None:
        """Withdraw all."""
        self._offers.clear()

    @property
    def names(self) -> list[str]:
        return sorted(self._offers)

    def __iter__(self) -> Iterator[Offer]:
        return iter([self._offers[name] for name in self.names])

    def __len__(self) -> int:
        return len(self._offers)

    def __contains__(self, name: object) -> bool:
        return name in self._offers


offered = Offered()
"""Where `tool` puts what it decorates."""

_MARK = "__kimi_tool__"
_marks: dict[Any, Offer] = {}  # of callables that take no attribute, such as bound methods


@overload
def tool(fn: F) -> F: ...
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
) -> Any:
    """Offer a function to the model, in every cell that names no tools of its own.

    Parameters
    ----------
    fn : callable
        The function, which is returned as it is: ``@kimi.tool``, ``@kimi.tool(confirm=True)`` or
        ``kimi.tool(fn, …)``.
    name, description : str or None
        In place of its own.
    schema : mapping or None
        The parameters as JSON Schema, in place of what hints and docstring say.
    confirm : bool
        Ask before each call.
    timeout : float or None
        Seconds after which a call is given up and the model is told.
    max_chars : int
        The longest text that the model is given of a result.
    parallel : bool
        May run in a worker thread, beside other calls.

    Examples
    --------
    >>> import kimi_magic as kimi
    >>> @kimi.tool(timeout=30)
    ... def forecast(region: str, months: int = 3) -> list[float]:
    ...     "Forecast the sales of a region."
    """
    from kimi_magic.tools.tool import ToolOptions, make_tool

    options = ToolOptions(confirm, timeout, max_chars, parallel)

    def mark(fn: Callable[..., Any]) -> Callable[..., Any]:
        if not callable(fn):
            raise KimiError(f"{fn!r:.60} cannot be called: kimi.tool decorates a function")
        if schema is not None:
            make_tool(fn, name=name, description=description, schema=schema, namespace=main())
        _remember(Offer(fn, name, description, schema, options))
        if not _is_in_class(fn):
            offered.add(fn)
        return fn

    return mark if fn is None else mark(fn)


def is_one(fn: Any, other: Any) -> bool:
    """Whether two are the same callable."""
    # A bound method is another object each time that it is looked up.
    return fn is other or (inspect.ismethod(fn) and fn == other)


def _remember(offer: Offer) -> None:
    try:
        setattr(offer.function, _MARK, offer)
    except (AttributeError, TypeError):
        _marks[_key(offer.function)] = offer


def _key(fn: Any) -> Any:
    try:
        hash(fn)
    except TypeError:
        return id(fn)
    return fn


def offer_of(fn: Any) -> Offer:
    """What `tool` was told about a callable; a partial keeps the options of its function."""
    from kimi_magic.tools.tool import ToolOptions

    mark = getattr(fn, _MARK, None) or _marks.get(_key(fn))
    if isinstance(mark, Offer):
        own = is_one(mark.function, fn) or mark.function is getattr(fn, "__func__", None)
        return replace(mark, function=fn) if own else Offer(fn, None, None, None, mark.options)
    options = offer_of(fn.func).options if isinstance(fn, partial) else ToolOptions()
    return Offer(fn, None, None, None, options)


def _redefines(new: Any, old: Any) -> bool:
    """Whether a cell that defines a function was run again."""
    names = [(getattr(f, "__module__", ""), getattr(f, "__qualname__", "")) for f in (new, old)]
    plain = inspect.isfunction(new) and inspect.isfunction(old) and "<" not in names[0][1]
    return plain and names[0] == names[1] and new is not old


def _is_in_class(fn: Any) -> bool:
    """Whether it is being defined in a class, where no object is yet that it belongs to."""
    own = getattr(fn, "__qualname__", "").rpartition("<locals>.")[2]
    return inspect.isfunction(fn) and "." in own


def main() -> Mapping[str, Any]:
    """The variables of ``__main__``, which in a notebook are the notebook's."""
    return vars(sys.modules["__main__"])
