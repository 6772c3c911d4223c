"""Errors of the notebook's cells: their tracebacks as text, kept by the cell's number."""

from __future__ import annotations

import re
import traceback
from typing import Any

from kimi_magic.core.errors import KimiError, TurnInterrupted
from kimi_magic.core.frontend import running_shell
from kimi_magic.core.text import cut_middle

__all__ = ["CellErrors", "describe_exception", "name_cells", "traceback_text", "trimmed"]

MAX_ERRORS = 50
MAX_TRACEBACK = 20_000

_FILE = re.compile(r'File "([^"\n]+)", line')
_SHELL = ("IPython/core/", "IPython\\core\\")


class CellErrors(dict[int, str]):
    """The tracebacks of the latest cells that failed, by number: ``Err[3]``.

    ``record`` is for IPython's event ``post_run_cell``.
    """

    latest: int | None = None  # the cell that failed last by its own code

    def record(self, result: Any) -> None:
        """Record a cell's error, or forget that of an earlier cell with its number."""
        number = result.execution_count
        if number is None or not result.info.store_history:
            return
        self.pop(number, None)
        error = result.error_in_exec or result.error_before_exec
        if error is not None:
            # No change of the cell's code helps against an error of ours.
            if not isinstance(error, KimiError | TurnInterrupted):
                self.latest = number
            self[number] = cut_middle(_as_shown(error), MAX_TRACEBACK)
            while len(self) > MAX_ERRORS:
                del self[next(iter(self))]

    def __missing__(self, number: object) -> str:
        known = f"known are {', '.join(map(str, self))}" if self else "no cell did"
        raise LookupError(f"In[{number!r}] raised nothing that is kept; {known}")


def _as_shown(error: BaseException) -> str:
    own = getattr(type(error), "_render_traceback_", None)
    return "\n".join(own(error)) if own is not None else traceback_text(error)


def describe_exception(value: Any, limit: int) -> str | None:
    """Describe an exception by its traceback; the end of a long one stays."""
    if not issubclass(type(value), BaseException):
        return None
    return cut_middle(traceback_text(value), limit)


def traceback_text(error: BaseException) -> str:
    """Write an exception with its causes as Python does, without the shell's own frames."""
    return name_cells("".join(trimmed(error, _SHELL).format())).rstrip()


def trimmed(error: BaseException, hidden: tuple[str, ...]) -> traceback.TracebackException:
    """Drop the outermost frames whose file name has one of the parts ``hidden``."""
    whole = traceback.TracebackException.from_exception(error)
    one: traceback.TracebackException | None = whole
    while one is not None:
        frames = list(one.stack)
        while frames and any(part in frames[0].filename for part in hidden):
            del frames[0]
        one.stack = traceback.StackSummary.from_list(frames)
        one = one.__cause__ or one.__context__
    return whole


def name_cells(text: str) -> str:
    """Name cells by their numbers, as Jupyter does: a cell's file name holds the process id."""
    return _FILE.sub(_cell_name, text)


def _cell_name(file: re.Match[str]) -> str:
    shell = running_shell()
    named = shell.compile.format_code_name(file[1]) if shell is not None else None
    return f"{named[0]} {named[1]}, line" if named else file[0]
