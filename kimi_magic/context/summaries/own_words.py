"""Texts that a value offers of itself, or that a notebook's function offers for its type."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import singledispatch
from typing import Any, TypeVar

from kimi_magic.core.time_limit import USER_ERRORS

__all__ = ["has_own_words", "own_words", "summarizer"]

Function = TypeVar("Function", bound=Callable[..., object])

_WITH_TOKENS, _WITHOUT = "__kimi_summary__", "_repr_llm_"


def has_own_words(kind: type) -> bool:
    """Return True for a class that describes its objects to a model."""
    return hasattr(kind, _WITH_TOKENS) or hasattr(kind, _WITHOUT)


def own_words(value: Any, tokens: int) -> str | None:
    """Return the text of the first hook that returns one; a hook that fails counts as absent."""
    for ask in (_with_tokens, _without, _of_function):
        try:
            text = ask(value, tokens)
        except USER_ERRORS:
            continue
        if issubclass(type(text), str):
            return str.__str__(text)
    return None


# Both are looked up in the class: a mock or a proxy has an attribute of any name.
def _with_tokens(value: Any, tokens: int) -> object:
    method: Callable[[Any, int], object] | None = getattr(type(value), _WITH_TOKENS, None)
    return None if method is None else method(value, tokens)


def _without(value: Any, _tokens: int) -> object:
    method: Callable[[Any], object] | None = getattr(type(value), _WITHOUT, None)
    return None if method is None else method(value)


def _of_function(value: Any, tokens: int) -> object:
    # Called directly, singledispatch would ask `value.__class__`, which a proxy computes.
    return _registered.dispatch(type(value))(value, tokens)


@singledispatch
def _registered(_value: object, _tokens: int) -> object:
    """Call the registered function for a value; return None where there is none."""
    return None


def summarizer(kind: type) -> Callable[[Function], Function]:
    """Register a function that describes the values of a type and of its subclasses.

    Parameters
    ----------
    kind : type
        May be an abstract base class. Of several registered types the most specific wins.

    Returns
    -------
    callable
        The decorator; it returns the function unchanged. The function is called with the value,
        and with ``tokens=`` if it has a parameter of that name; its text is cut to that. If it
        fails or returns no str, the value is described as if it were not registered.

    Examples
    --------
    >>> @kimi.summarizer(Graph)
    ... def describe(graph, tokens):
    ...     return f"{len(graph.nodes)} nodes, among them {graph.nodes[: tokens // 10]}"
    """

    def register(function: Function) -> Function:
        takes_tokens = "tokens" in inspect.signature(function).parameters

        def describe(value: object, tokens: int) -> object:
            return function(value, tokens=tokens) if takes_tokens else function(value)

        _registered.register(kind)(describe)
        return function

    return register
