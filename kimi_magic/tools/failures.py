"""An exception → what the model and the reader are told of it, without our own frames."""

from __future__ import annotations

import site
import sysconfig
import traceback
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from kimi_magic.context.tracebacks import name_cells
from kimi_magic.core import time_limit as timed
from kimi_magic.core.text import cut

__all__ = ["Failure", "describe"]

MAX_TRACEBACK = 20_000
MAX_MESSAGE = 1500
MAX_INNER = 5

_OURS = (str(Path(__file__).parent), str(timed.__file__))


@dataclass(frozen=True, slots=True)
class Failure:
    """What is told of an exception.

    Attributes
    ----------
    message : str
        Its type and message.
    place : str
        The line in the user's code; "" where it has none.
    traceback : str
        Python's own lines, from the user's function inwards.
    """

    message: str
    place: str
    traceback: str


def describe(error: BaseException) -> Failure:
    """Describe an exception that a function has raised."""
    told = traceback.TracebackException.from_exception(error)
    frames = list(told.stack)
    while frames and frames[0].filename.startswith(_OURS):
        del frames[0]
    told.stack = traceback.StackSummary.from_list(frames)
    text = name_cells("".join(told.format()))
    return Failure(_message(error, MAX_MESSAGE), _place(frames), cut(text, MAX_TRACEBACK))


def _message(error: BaseException, limit: int) -> str:
    told = traceback.TracebackException.from_exception(error, limit=0)
    lines = ["".join(told.format_exception_only()).strip()]
    if isinstance(error, BaseExceptionGroup):
        inner = (_message(one, limit // MAX_INNER) for one in error.exceptions[:MAX_INNER])
        lines += [f"- {text}" for text in inner]
    return cut("\n".join(lines), limit)


def _place(frames: list[traceback.FrameSummary]) -> str:
    """Find the innermost line that is not a library's; of a library's own function, its first."""
    own = [frame for frame in frames if not frame.filename.startswith(_libraries())]
    for frame in own[-1:] or frames[:1]:
        code = f": {frame.line.strip()}" if frame.line else ""
        return f"in {frame.name}, line {frame.lineno}{cut(code, 300)}"
    return ""


@cache
def _libraries() -> tuple[str, ...]:
    paths = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return ("<frozen ", *filter(None, paths | {site.getusersitepackages()}))
