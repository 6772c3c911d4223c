"""Figures that cells have shown: what is drawn on them, kept by the cell's number.

matplotlib closes a figure once a notebook has shown it, so it is described there and then.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from kimi_magic.core.time_limit import USER_ERRORS

__all__ = ["ShownFigures"]

MAX_CELLS = 100
MAX_FIGURES = 10  # of a cell
SECONDS = 1.0  # for those of a cell: an animation shows hundreds
TOKENS = 300
_PICTURES = re.compile(r"image/|application/vnd\.(?:plotly|vega|bokeh)")


class ShownFigures(dict[int, tuple[tuple[str, str], ...]]):
    """By cell, the plain text that stands for each figure and its summary.

    ``record`` is for IPython's event ``post_run_cell``.
    """

    def __init__(self) -> None:
        super().__init__()
        self._shown: list[tuple[str, str]] = []
        self._seconds = 0.0

    def attach(self, formatter: Any) -> None:
        """Look at all that a shell's display formatter is given, once."""
        if not isinstance(getattr(formatter.format, "watches", None), ShownFigures):
            formatter.format = _Watched(formatter.format, self)

    @staticmethod
    def detach(formatter: Any) -> None:
        """Leave a display formatter as it was."""
        if isinstance(formatter.format, _Watched):
            del formatter.format

    def look_at(self, value: Any, bundle: Mapping[str, Any]) -> None:
        """Describe a value if it is shown as a picture."""
        if not _is_picture(bundle) or len(self._shown) == MAX_FIGURES or self._seconds > SECONDS:
            return
        from kimi_magic.context.summaries.summary import summarize

        began = time.monotonic()
        name, summary = str(bundle.get("text/plain", "")), summarize(value, tokens=TOKENS)
        if summary != name:  # of an image file
            self._shown.append((name, summary))
        self._seconds += time.monotonic() - began

    def record(self, result: Any) -> None:
        """Keep the figures of the cell that has ended, those of its end included."""
        shown, self._shown, self._seconds = tuple(self._shown), [], 0.0
        number = result.execution_count
        if number is None or not result.info.store_history:
            return
        self.pop(number, None)
        if shown:
            self[number] = shown
            while len(self) > MAX_CELLS:
                del self[next(iter(self))]


class _Watched:
    """The method ``format`` of a display formatter, for which somebody looks at each value."""

    def __init__(self, wrapped: Callable[..., Any], watches: ShownFigures) -> None:
        self._wrapped = wrapped
        self.watches = watches

    def __call__(self, value: Any, *args: Any, **options: Any) -> Any:
        made = self._wrapped(value, *args, **options)
        with suppress(*USER_ERRORS):  # of a library's bundles
            self.watches.look_at(value, made[0])
        return made


def _is_picture(bundle: Mapping[str, Any]) -> bool:
    """Return True for images, and for the charts that a browser draws."""
    return any(_PICTURES.match(kind) for kind in bundle)
