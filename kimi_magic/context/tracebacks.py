"""An exception as text: Python's own lines, from the cell inwards, cells by their numbers."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterator
from typing import Any

from kimi_magic.core.text import cut_middle

__all__ = ["describe_exception", "name_cells", "traceback_text"]

_FILE = re.compile(r'File "([^"\n]+)", line')
_SHELL = ("IPython/core/", "IPython\\core\\")


def describe_exception(value: Any, limit: int) -> str | None:
    """Describe an exception by its traceback; of a long one the end stays."""
    if not isinstance(value, BaseException):
        return None
    return cut_middle(traceback_text(value), limit)


def traceback_text(error: BaseException) -> str:
    """Write an exception, with its causes, as Python would, but without the shell's own frames."""
    told = traceback.TracebackException.from_exception(error)
    for one in _chain(told):
        frames = list(one.stack)
        while frames and any(part in frames[0].filename for part in _SHELL):
            del frames[0]
        one.stack = traceback.StackSummary.from_list(frames)
    return name_cells("".join(told.format())).rstrip()


def name_cells(text: str) -> str:
    """Name the cells of a traceback by their numbers: a cell's file has the process id in it."""
    return _FILE.sub(_as_jupyter_names_it, text)


def _chain(told: traceback.TracebackException | None) -> Iterator[traceback.TracebackException]:
    while told is not None:
        yield told
        told = told.__cause__ or told.__context__


def _as_jupyter_names_it(file: re.Match[str]) -> str:
    module: Any = sys.modules.get("IPython.core.getipython")
    shell = module.get_ipython() if module is not None else None
    named = shell.compile.format_code_name(file[1]) if shell is not None else None
    return f"{named[0]} {named[1]}, line" if named else file[0]
