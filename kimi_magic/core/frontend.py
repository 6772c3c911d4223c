"""The front end of the running cell: who can answer, which cell runs, and in which shell."""

from __future__ import annotations

import sys
import threading
from typing import Any

__all__ = [
    "can_answer",
    "cell_number",
    "has_kernel",
    "is_captured",
    "request",
    "running_cell",
    "running_shell",
    "takes_questions",
]


def can_answer() -> bool:
    """Whether a person can be asked something, here and now."""
    if threading.current_thread() is not threading.main_thread():
        return False
    shell = running_shell()
    if shell is None:
        return sys.stdin is not None and sys.stdin.isatty()
    return not has_kernel(shell) or takes_questions()


def cell_number() -> int | None:
    """The number of the cell that runs, where there are cells."""
    shell = running_shell()
    return shell.execution_count if shell else None


def request() -> dict[str, Any]:
    """The front end's message that runs the cell; empty where there is none."""
    kernel = getattr(running_shell(), "kernel", None)
    return getattr(kernel, "get_parent", dict)() or {}


def running_cell() -> tuple[str, str]:
    """The id of the notebook cell that runs, "" where the front end gives none, and of this run."""
    asked = request()
    cell = (asked.get("metadata") or {}).get("cellId") or ""
    return str(cell), str((asked.get("header") or {}).get("msg_id") or "")


def running_shell() -> Any:
    """The running IPython shell; where IPython is not imported there is none."""
    module = sys.modules.get("IPython")
    return module.get_ipython() if module is not None else None


def has_kernel(shell: Any) -> bool:
    return getattr(shell, "kernel", None) is not None


def is_captured(shell: Any) -> bool:
    """Return True inside ``%%capture`` and ``capture_output``."""
    from IPython.core.displaypub import CapturingDisplayPublisher

    return isinstance(getattr(shell, "display_pub", None), CapturingDisplayPublisher)


def takes_questions() -> bool:
    """Whether the front end takes questions: nbclient and nbval set ``allow_stdin`` false."""
    return bool((request().get("content") or {}).get("allow_stdin"))
