"""Objects whose summaries are kept in `tests/summaries/`: one module for each family.

A module has ``CASES``, a dict from names to `Case`. A case's function makes the object; it imports
its library with ``pytest.importorskip`` (with the version on which the text depends, if any), and
makes the same object each time.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple

__all__ = ["Case", "all_cases"]


class Case(NamedTuple):
    """A function that makes an object, and values in it, each a word or a number.

    None of the values may be in the object's summary without values (``schema``); in the one with
    ``figures`` numbers may.
    """

    make: Callable[[], object]
    values: str = ""


def all_cases() -> dict[str, Case]:
    """Return the cases of all modules here by the names of their files, such as `arrays-days`."""
    return {
        f"{family.name}-{name}": case
        for family in pkgutil.iter_modules(__path__)
        for name, case in import_module(f"{__name__}.{family.name}").CASES.items()
    }
