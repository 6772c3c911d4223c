"""The bar that shows how far a sweep has come: in a notebook, or in a terminal."""

from __future__ import annotations

import sys
from html import escape
from typing import Any
from uuid import uuid4

from kimi_magic.core.frontend import has_kernel, running_shell
from kimi_magic.core.text import count
from kimi_magic.display.record import Bundle, publish
from kimi_magic.display.view import Throttle

__all__ = ["ProgressBar"]

PER_SECOND = 4
FROM_JOURNAL = "{} came from the journal; resume=False asks all anew."


class ProgressBar:
    """Counts rows; ``stored`` of them came from the journal.

    In a notebook it is an output that stays as a line of text: the widget that rich has for this
    would be empty in the saved file. In a terminal it is rich's; elsewhere only the rows of the
    journal are told of.
    """

    def __init__(self, total: int, stored: int = 0) -> None:
        self._total = total
        self._done = self._failed = 0
        self._stored = FROM_JOURNAL.format(count(stored, "row")) if stored else ""
        self._throttle = Throttle(PER_SECOND)
        self._display_id = uuid4().hex if has_kernel(running_shell()) else ""
        self._bar: Any = None
        self._task: Any = None
        if self._display_id:
            publish(self._bundle(), self._display_id)
            return
        if self._stored:
            print(self._stored)
        if sys.stdout is not None and sys.stdout.isatty():
            from rich.progress import Progress

            self._bar = Progress(auto_refresh=False)
            self._task = self._bar.add_task("sweep", total=total)
            self._bar.start()

    def add(self, *, failed: bool) -> None:
        """Count a row."""
        self._done += 1
        self._failed += failed
        self.tick()

    def tick(self) -> None:
        """Draw, if it is time to."""
        if self._throttle.due():
            self._draw()

    def close(self) -> None:
        """Leave the last state."""
        if self._display_id:
            publish(self._bundle(is_over=True), self._display_id, update=True)
        elif self._bar is not None:
            self._draw()
            self._bar.stop()

    def _draw(self) -> None:
        if self._display_id:
            publish(self._bundle(), self._display_id, update=True)
        elif self._bar is not None:
            self._bar.update(self._task, completed=self._done, description=self._said())
            self._bar.refresh()

    def _bundle(self, *, is_over: bool = False) -> Bundle:
        said = self._said()
        bar = f'<progress value="{self._done}" max="{self._total}" aria-label="Sweep"></progress> '
        said = f"{said}. {self._stored}" if self._stored else said
        html = f"<div>{'' if is_over else bar}{escape(said)}</div>"
        return Bundle.of(said, html)

    def _said(self) -> str:
        rows = count(self._total, "row")
        said = f"Sweep: {rows}" if self._done == self._total else f"Sweep: {self._done} of {rows}"
        return f"{said}, {self._failed} failed" if self._failed else said
