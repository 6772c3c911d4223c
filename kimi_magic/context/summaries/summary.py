"""One value → bounded text: who describes which type, and what holds for all of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import singledispatch
from math import prod
from typing import Any, TypeVar

from kimi_magic.chats.context_window import CHARS_PER_TOKEN
from kimi_magic.context.guard import ANYTHING, silence
from kimi_magic.context.summaries.arrays import describe_array
from kimi_magic.context.summaries.estimators import describe_estimator
from kimi_magic.context.summaries.figures import describe_figure
from kimi_magic.context.summaries.files import describe_path
from kimi_magic.context.summaries.frames import as_table
from kimi_magic.context.summaries.lazy import describe_lazy, lazy_heading
from kimi_magic.context.summaries.reprs import Repr, describe_members
from kimi_magic.context.summaries.source_code import describe_code, describe_module
from kimi_magic.context.summaries.tables import describe_table, heading
from kimi_magic.context.tracebacks import describe_exception
from kimi_magic.core.text import cut
from kimi_magic.core.time_limit import Clock, call_within

__all__ = ["summarize", "summarizer"]

SECONDS = 1.5
SMALL_ARRAY = 10
SAMPLES = 100

Function = TypeVar("Function", bound=Callable[..., object])


def summarize(value: object, *, tokens: int = 1500) -> str:
    """Describe a value in bounded text, for a model to read.

    Parameters
    ----------
    value : object
        ``value._repr_llm_()`` is the text, where the class has that method and it gives a str;
        then come functions that ``summarizer`` has registered.
    tokens : int
        The longest text; a token is counted as four characters.

    Returns
    -------
    str
        A table as its shape, its columns with figures, its head and some random rows; an array as
        its shape, dtype, range, mean and a corner; a container as its shape and samples; a
        function or class as its source; an estimator as its parameters; a figure as what is drawn
        on it; an exception as its traceback; a path as an excerpt of the file; a str as it is;
        everything else as its repr. Large data is read in part, lazy data is not computed. Never
        raises for what the value does, and gives up on what takes it too long.
    """
    limit = max(int(tokens), 1) * CHARS_PER_TOKEN
    with silence():
        try:
            found = call_within(lambda: _describe(value, limit), Clock(SECONDS))
        except ANYTHING:  # its time was over
            found = None
        return cut(_shown(value, limit) if found is None else found, limit)


def summarizer(kind: type) -> Callable[[Function], Function]:
    """Register a function that describes the values of a type, and of those derived from it.

    Parameters
    ----------
    kind : type
        Of those that fit a value the most specific counts; an abstract base class will do.

    Returns
    -------
    callable
        The decorator; it gives the function back as it is. The function is called with the value,
        and with ``tokens=`` where it has a parameter of that name; its text is cut to that. If it
        fails or gives no str, the value is described as if it were not registered.

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


@singledispatch
def _registered(_value: object, _tokens: int) -> object:
    """What a registered function says of a value; None where there is none for it."""
    return None


def _describe(value: Any, limit: int) -> str | None:
    """What the first that knows the value's type says of it."""
    for describe in _WAYS:
        try:
            found = describe(value, limit)
        except ANYTHING:  # the next way may do
            continue
        if isinstance(found, str):
            return str.__str__(found)
    return None


def _own_words(value: Any, limit: int) -> object:
    # Looked up in the class: a mock or proxy answers to any name.
    method: Callable[[Any], object] | None = getattr(type(value), "_repr_llm_", None)
    said = method(value) if method is not None else None
    return said if isinstance(said, str) else _registered(value, limit // CHARS_PER_TOKEN)


def _text(value: object, _limit: int) -> object:
    return value if issubclass(type(value), str) else None


def _table(value: object, limit: int) -> str | None:
    table = as_table(value)
    return None if table is None else describe_table(table, limit)


_WAYS: tuple[Callable[[Any, int], object], ...] = (
    _own_words,
    _text,
    lambda value, _: describe_lazy(value),
    _table,
    lambda value, _: describe_array(value),
    describe_code,
    lambda value, _: describe_module(value),
    lambda value, _: describe_estimator(value, _brief),
    lambda value, _: describe_figure(value),
    describe_exception,
    describe_path,
)


def _shown(value: object, limit: int) -> str:
    """The repr; where not all of it fits, what it is and a sample of what is in it."""
    shown = Repr(_brief)
    text = shown.of(value, limit)
    if "…" in text and (members := describe_members(value)):
        return f"{members}: {shown.of(value, limit - len(members) - 2, SAMPLES)}"
    return text


def _brief(value: Any, limit: int) -> str | None:
    """What stands for a value inside others; None: its repr."""
    said = _own_words(value, limit)
    if isinstance(said, str):
        return str.__str__(said)
    found = lazy_heading(value)
    if found is None and (table := as_table(value)) is not None:
        found = heading(table)
    if found is None and hasattr(type(value), "__dlpack__") and prod(value.shape) > SMALL_ARRAY:
        found = describe_array(value)
    return found and f"<{found.splitlines()[0]}>"
