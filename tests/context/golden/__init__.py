"""Objects whose summaries are kept in `tests/summaries/`: one module for each family.

A module has ``CASES``, a dict from names to `Case`. A case's function makes the object; it imports
its library with ``pytest.importorskip`` (with the version on which the text depends, if any), and
makes the same object each time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

__all__ = ["Case"]


class Case(NamedTuple):
    """A function that makes an object, and values in it, each a word or a number.

    None of the values may be in the object's summary without values (``schema``); in the one with
    ``figures`` numbers may.
    """

    make: Callable[[], object]
    values: str = ""
