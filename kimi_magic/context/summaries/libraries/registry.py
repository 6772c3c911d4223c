"""Find the module that describes the objects of a library.

Classes go by their qualified names: a value's class says which library it is of, and nothing is
imported that the notebook has not imported.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from kimi_magic.context.summaries.detail import Detail, Summary

__all__ = ["KNOWN", "describe_known"]

_HERE = __name__.rpartition(".")[0]

# A class, where it is defined, and the module of this folder that describes its objects and those
# of its subclasses. Such a module has a function
# `describe(value: Any, limit: int, detail: Detail) -> str | Summary | None`.
# `type(value).__module__` says where: pandas 3 shows its classes in `pandas.api.typing`.
KNOWN: dict[str, str] = {
    "pandas.api.typing.DataFrameGroupBy": "grouped_frames",
    "pandas.api.typing.SeriesGroupBy": "grouped_frames",
    "pandas.core.groupby.generic.DataFrameGroupBy": "grouped_frames",
    "pandas.core.groupby.generic.SeriesGroupBy": "grouped_frames",
}


def describe_known(value: Any, limit: int, detail: Detail) -> str | Summary | None:
    """Describe an object of a class that is known here, in about ``limit`` characters."""
    for name in _names(type(value)):
        if name in KNOWN:
            describe: Callable[[Any, int, Detail], str | Summary | None]
            describe = import_module(f"{_HERE}.{KNOWN[name]}").describe
            if (found := describe(value, limit, detail)) is not None:
                return found
    return None


def _names(kind: type) -> list[str]:
    """Name a class and its bases, whatever a metaclass says."""
    bases = vars(type)["__mro__"].__get__(kind)
    return [f"{base.__module__}.{base.__qualname__}" for base in bases]
