"""Describe one value in bounded text: which module describes which type, and the common limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

from kimi_magic.chats.context_window import CHARS_PER_TOKEN
from kimi_magic.context.cell_errors import describe_exception
from kimi_magic.context.summaries.arrays import describe_array
from kimi_magic.context.summaries.detail import ROWS, Detail, Summary, describe_type
from kimi_magic.context.summaries.estimators import describe_estimator
from kimi_magic.context.summaries.figures import describe_figure
from kimi_magic.context.summaries.files import describe_path
from kimi_magic.context.summaries.frames import (
    as_table,
    describe_lazy,
    lazy_heading,
    load_reader,
)
from kimi_magic.context.summaries.libraries.registry import describe_known, load_families
from kimi_magic.context.summaries.own_words import own_words, summarizer
from kimi_magic.context.summaries.reprs import Repr, describe_members
from kimi_magic.context.summaries.source_code import describe_code, describe_module
from kimi_magic.context.summaries.tables import heading, table_summary
from kimi_magic.context.walker import type_name
from kimi_magic.core.interrupts import whole_imports
from kimi_magic.core.stdout import silenced
from kimi_magic.core.text import cut
from kimi_magic.core.time_limit import USER_ERRORS, TimeLimit, call_within
from kimi_magic.core.unwarned import unwarned
from kimi_magic.secrets.fields import mask_fields

__all__ = ["summarize", "summarizer", "summary_of"]

SECONDS = 1.5
SMALL_ARRAY = 10
SAMPLES = 100
ROOM_INSIDE = 400  # of a description of which only the first line is shown


def summarize(value: object, *, tokens: int = 1500) -> str:
    """Describe a value in bounded text, for a model to read.

    Parameters
    ----------
    value : object
        If its class has a method ``__kimi_summary__(tokens)`` that returns a str, that is the
        text. A method ``_repr_llm_()`` comes next, then functions registered with ``summarizer``.
    tokens : int
        The limit of the text; a token is counted as four characters.

    Returns
    -------
    str
        A table as its shape, its columns with figures, its head and some random rows; an array as
        its shape, dtype, range, mean and a corner; a container as its shape and samples; a
        function or class as its source, one of a library as its signature and the beginning of
        its docstring; a model, chart, graph or database of a known library as an expert would
        describe it; a figure as what is drawn on it; an exception as its traceback; a path as an
        excerpt of the file; a str unchanged; everything else as its repr. Large data is
        read in part, lazy data is not computed. Never raises an error of the value's own code,
        and gives up on code that takes too long.
    """
    return summary_of(value, tokens=tokens).text


@whole_imports()
def summary_of(value: object, *, tokens: int = 1500, detail: Detail = ROWS) -> Summary:
    """Describe a value as `summarize` does, in this detail."""
    limit = max(int(tokens), 1) * CHARS_PER_TOKEN
    load_reader()
    load_families(value)
    with silenced(), unwarned():
        try:
            found: Summary | None = call_within(
                lambda: _describe(value, limit, detail), TimeLimit(SECONDS)
            )
        except USER_ERRORS:  # timed out
            found = None
        if found is None:
            whole = detail.values == "rows"
            shown = _shown(value, limit) if whole else f"{type_name(value)} object"
            found = Summary(shown)
        return replace(found, text=cut(found.text, limit))


def _describe(value: Any, limit: int, detail: Detail) -> Summary | None:
    describers = _DESCRIBERS if detail.values == "rows" else _WITHOUT_VALUES
    for describe in describers:
        try:
            found = describe(value, limit, detail)
        except USER_ERRORS:
            continue
        if issubclass(type(found), str):
            found = Summary(str.__str__(found))
        if isinstance(found, Summary):
            as_it_is = describe in (_text, _code)
            return found if as_it_is else replace(found, text=mask_fields(found.text))
    return None


def _own_words(value: Any, limit: int, _detail: Detail = ROWS) -> object:
    return own_words(value, limit // CHARS_PER_TOKEN)


def _text(value: object, _limit: int, _detail: Detail) -> object:
    return value if issubclass(type(value), str) else None


def _code(value: object, limit: int, _detail: Detail) -> object:
    return describe_code(value, limit)


def _table(value: object, limit: int, detail: Detail) -> Summary | None:
    table = as_table(value)
    return None if table is None else table_summary(table, limit, detail)


# The first that returns a text describes the value. What is known of a library comes first. Lazy
# frames come before tables: a table's length would compute them.
_Describer = Callable[[Any, int, Detail], object]
_WITHOUT_VALUES: tuple[_Describer, ...] = (
    describe_known,
    lambda value, _, __: describe_lazy(value),
    _table,
    lambda value, _, detail: describe_array(value, detail.values),
    lambda value, _, __: describe_type(value),
)
_DESCRIBERS: tuple[_Describer, ...] = (
    _own_words,
    _text,
    *_WITHOUT_VALUES[:-1],
    _code,
    lambda value, _, __: describe_module(value),
    lambda value, _, __: describe_estimator(value, _brief),
    lambda value, _, __: describe_figure(value),
    lambda value, limit, _: describe_exception(value, limit),
    lambda value, limit, _: describe_path(value, limit),
)


def _shown(value: object, limit: int) -> str:
    """Return the repr; where not all of it fits, after a line on what is in it."""
    shown = Repr(_brief)
    text = shown.of(value, limit)
    if "…" in text and (members := describe_members(value)):
        return f"{members}: {shown.of(value, limit - len(members) - 2, SAMPLES)}"
    return text


def _brief(value: Any, limit: int) -> str | None:
    """Return what stands for a value inside others; None: its repr."""
    words = own_words(value, max(limit // CHARS_PER_TOKEN, 1))
    if words is not None:
        return words
    text: Any = describe_known(value, max(limit, ROOM_INSIDE), ROWS)
    text = text.text if isinstance(text, Summary) else text or lazy_heading(value)
    if text is None and (table := as_table(value)) is not None:
        text = heading(table)
    if text is None and hasattr(type(value), "__dlpack__"):
        has_fields = getattr(value.dtype, "names", None) is not None
        if has_fields or prod(value.shape) > SMALL_ARRAY:
            text = describe_array(value)
    return f"<{text.splitlines()[0]}>" if text else None
