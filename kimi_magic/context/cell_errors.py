"""Errors of the notebook's cells: their tracebacks as text, kept by the cell's number."""

from __future__ import annotations

import builtins
import os
import re
import sys
import traceback
from collections.abc import Container, Iterator
from importlib.metadata import version
from keyword import kwlist
from pathlib import Path
from typing import Any

from kimi_magic.core.errors import KimiError, TurnInterrupted
from kimi_magic.core.frontend import running_shell
from kimi_magic.core.text import cut_middle

__all__ = [
    "CellErrors",
    "describe_exception",
    "name_cells",
    "traceback_text",
    "trimmed",
    "versions_of",
    "without_home",
]

MAX_ERRORS = 50
MAX_TRACEBACK = 20_000
MAX_MESSAGE = 500

_FILE = re.compile(r'File "([^"\n]+)", line')
_WORD = re.compile(r"\w+")
_PIECE = re.compile(r"\w+|[\s.,:;'\"()\[\]{}+*/<>=!?-]+|.")
_VERSION = re.compile(r"[\w.+!-]{1,40}")
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
_NO_PACKAGES = {*sys.stdlib_module_names, "", "__main__", "__mp_main__", "IPython", "kimi_magic"}
DISPLAYED = "The cell ran, and this was raised while something was displayed or run for it:"
HOME = "Here ~ stands for the home folder, which the notebook writes in full."
MAX_PACKAGES = 12
# Not in the place of a file, such as `File "~/analysis/load.py", line 3`.
_HOME_IN_WORDS = re.compile(r'(?m)^(?!  File ").*(?<![\w.~/\\-])~[/\\]')


class CellErrors(dict[int, str]):
    """The tracebacks of the latest cells that failed, by number: ``Err[3]``.

    ``begin`` is for IPython's event ``pre_run_cell``, ``record`` for ``post_run_cell``.
    """

    latest: int | None = None  # the cell that failed last by its own code

    def __init__(self) -> None:
        super().__init__()
        self.outlines: dict[int, str] = {}  # the tracebacks without values
        self._before = _last_shown()

    def begin(self, _info: Any) -> None:
        """Remember which exception was shown before the cell that begins."""
        self._before = _last_shown()

    def record(self, result: Any) -> None:
        """Record a cell's error, or forget that of an earlier cell with its number."""
        number = result.execution_count
        if number is None or not result.info.store_history:
            return
        self.pop(number, None)
        error, heading = result.error_in_exec or result.error_before_exec, ""
        # A formatter, a figure's drawing at the end, %%time and %run show what they catch.
        if error is None and (shown := _last_shown()) is not self._before:
            error, heading = shown, DISPLAYED
        if error is not None:
            # No change of the cell's code helps against an error of ours.
            if not isinstance(error, KimiError | TurnInterrupted):
                self.latest = number
            source = getattr(result.info, "raw_cell", "") or ""
            versions = versions_of(error)
            for kept, text in (
                (self, without_home(_as_shown(error))),
                (self.outlines, outline_of(error, source)),
            ):
                short = HOME if _HOME_IN_WORDS.search(text) else ""
                whole = "\n".join(filter(None, [heading, text, versions, short]))
                kept[number] = cut_middle(whole, MAX_TRACEBACK)
            while len(self) > MAX_ERRORS:
                del self[next(iter(self))]
            self.outlines = {n: text for n, text in self.outlines.items() if n in self}

    def __missing__(self, number: object) -> str:
        known = f"known are {', '.join(map(str, self))}" if self else "no cell did"
        raise LookupError(f"In[{number!r}] raised nothing that is kept; {known}")


def _last_shown() -> BaseException | None:
    """Return the exception whose traceback was printed last."""
    shown = getattr(sys, "last_value", None)
    return shown if isinstance(shown, BaseException) else None


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
    return without_home(name_cells("".join(trimmed(error, _SHELL).format())).rstrip())


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
    return without_home(name_cells("\n".join(line.rstrip("\n") for line in lines)))


def versions_of(error: BaseException) -> str:
    """Name the packages whose code is in a traceback, with their versions; "" for none."""
    packages: dict[str, str] = {}
    for one in _with_causes(error):
        homes = [
            frame.f_globals.get("__name__") for frame, _ in traceback.walk_tb(one.__traceback__)
        ]
        for home in (*homes, type(one).__module__):
            name = home.partition(".")[0] if isinstance(home, str) else ""
            if name not in _NO_PACKAGES and name not in packages:
                packages[name] = _version_of(name)
    known = [f"{name} {version}" for name, version in packages.items() if version]
    python = ".".join(map(str, sys.version_info[:3]))
    return f"Versions: {', '.join(known[:MAX_PACKAGES])}, Python {python}" if known else ""


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        yield one
        seen.add(id(one))
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)


def _version_of(name: str) -> str:
    found = getattr(sys.modules.get(name), "__version__", None)
    if not isinstance(found, str):
        try:
            found = version(name)
        except Exception:  # noqa: BLE001 - no distribution of this name, or a broken one
            found = ""
    return found if _VERSION.fullmatch(found) else ""


def without_home(text: str) -> str:
    """Write ``~`` for the user's home folder, whose name is the user's."""
    try:
        homes = {str(Path.home()), os.path.realpath(Path.home())}
    except (OSError, RuntimeError):  # none can be found
        return text
    for home in sorted(homes, key=len, reverse=True):
        for written in dict.fromkeys((home, home.replace("\\", "\\\\"))):
            if len(written.strip("/\\")) > 1:
                text = re.sub(rf"(?<![\w.~/\\-]){re.escape(written)}(?=[/\\])", "~", text)
    return text


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
