"""What the notebook's cells raised: kept from the moment the extension is loaded."""

from __future__ import annotations

from typing import Any

from kimi_magic.context.tracebacks import traceback_text
from kimi_magic.core.errors import KimiError, TurnInterrupted
from kimi_magic.core.text import cut_middle

__all__ = ["CellErrors"]

MAX_KEPT = 50
MAX_TRACEBACK = 20_000


class CellErrors(dict[int, str]):
    """The tracebacks of the cells that failed, by number: ``Err[3]``; the latest are kept.

    ``record`` is for IPython's event ``post_run_cell``.

    Attributes
    ----------
    latest : int or None
        The cell that failed last by its own code.
    """

    latest: int | None = None

    def record(self, result: Any) -> None:
        """Take over what a cell raised, or forget what an earlier one of its number had."""
        number = result.execution_count
        if number is None or not result.info.store_history:
            return
        self.pop(number, None)
        error = result.error_in_exec or result.error_before_exec
        if error is not None:
            if not isinstance(error, KimiError | TurnInterrupted):  # no change of code mends those
                self.latest = number
            self[number] = cut_middle(_told(error), MAX_TRACEBACK)
            while len(self) > MAX_KEPT:
                del self[next(iter(self))]

    def __missing__(self, number: object) -> str:
        known = f"known are {', '.join(map(str, self))}" if self else "no cell did"
        raise LookupError(f"In[{number!r}] raised nothing that is kept; {known}")


def _told(error: BaseException) -> str:
    own = getattr(type(error), "_render_traceback_", None)
    return "\n".join(own(error)) if own is not None else traceback_text(error)
