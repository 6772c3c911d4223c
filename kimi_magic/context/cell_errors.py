"""Errors of the notebook's cells: their tracebacks as text, kept by the cell's number."""

from __future__ import annotations

import builtins
import re
import traceback
from collections.abc import Container
from keyword import kwlist
from typing import Any

from kimi_magic.core.errors import KimiError, TurnInterrupted
from kimi_magic.core.frontend import running_shell
from kimi_magic.core.text import cut_middle

__all__ = ["CellErrors", "describe_exception", "name_cells", "traceback_text", "trimmed"]

MAX_ERRORS = 50
MAX_TRACEBACK = 20_000
MAX_MESSAGE = 500

_FILE = re.compile(r'File "([^"\n]+)", line')
_WORD = re.compile(r"\w+")
_PIECE = re.compile(r"\w+|[\s.,:;'\"()\[\]{}+*/<>=!?-]+|.")
_ELLIPSES = re.compile(r"…(?:[^\w]{0,3}…)+")
_OF_MESSAGES = frozenset(
    """a all already an and any are argument arguments as at attribute axes axis base be before bool
    but by call callable cannot characters closed column columns contain contains convert could data
    decode defined dictionary did different dimension dimensions division do does duplicate
    elements empty expected for found function got has have ambiguous hashable if in index indexer
    indices infinite input instance int integer integers invalid is iterable key keyword label
    length lengths line literal local mapping match maximum method missing module more must named
    name names NaN no not object of on one only operand or out outside parse positional range read
    required row rows s same sequence series setting shape shapes should size sizes string
    subscriptable supported syntax take takes than that the to too two type types unexpected
    unhashable unpack unsupported use used value values variable was were with without wrong
    zero""".split()
)
_SHELL = ("IPython/core/", "IPython\\core\\")


class CellErrors(dict[int, str]):
    """The tracebacks of the latest cells that failed, by number: ``Err[3]``.

    ``record`` is for IPython's event ``post_run_cell``.
    """

    latest: int | None = None  # the cell that failed last by its own code

    def __init__(self) -> None:
        super().__init__()
        self.outlines: dict[int, str] = {}  # the tracebacks without values

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
            source = getattr(result.info, "raw_cell", "") or ""
            self.outlines[number] = cut_middle(outline_of(error, source), MAX_TRACEBACK)
            while len(self) > MAX_ERRORS:
                del self[next(iter(self))]
            self.outlines = {n: text for n, text in self.outlines.items() if n in self}

    def __missing__(self, number: object) -> str:
        known = f"known are {', '.join(map(str, self))}" if self else "no cell did"
        raise LookupError(f"In[{number!r}] raised nothing that is kept; {known}")


def _as_shown(error: BaseException) -> str:
    if isinstance(error, KimiError | TurnInterrupted):
        return f"{type(error).__name__}: {error}"
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


def outline_of(error: BaseException, source: str) -> str:
    """Write an exception with its causes and their lines of code, without values.

    Of a message the words stay that are in the cell's source, names of Python's own, or words that
    Python's messages are made of. All others may be values.
    """
    whole = trimmed(error, _SHELL)
    known = {*_WORD.findall(source), *dir(builtins), *kwlist, *_OF_MESSAGES}
    lines: list[str] = []
    one: traceback.TracebackException | None = whole
    while one is not None:
        name = one.exc_type.__name__
        message = _masked(str(one), known)
        part = [*one.stack.format(), f"{name}: {message}" if message else name]
        lines = [*part, *(["", "which led to:"] if lines else []), *lines]
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return name_cells("\n".join(line.rstrip("\n") for line in lines))


def _masked(message: str, known: Container[str]) -> str:
    """Return a message with an ellipsis for each run of words that are not known."""
    first = message.partition("\n")[0][:MAX_MESSAGE]
    pieces = _PIECE.findall(first)
    shown = [p if not _WORD.fullmatch(p) or p in known else "…" for p in pieces]
    return _ELLIPSES.sub("…", "".join(shown)).strip()


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
