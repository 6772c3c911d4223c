"""The running cell: who can answer, its place and shell, and the sources of earlier cells."""

from __future__ import annotations

import ast
import linecache
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any

__all__ = [
    "can_answer",
    "cell_number",
    "cell_sources",
    "has_kernel",
    "is_captured",
    "lines_of",
    "notebook_path",
    "prints_only",
    "request",
    "running_cell",
    "running_shell",
    "starting_folder",
    "takes_questions",
    "user_namespace",
]


def can_answer() -> bool:
    """Return True if a person can be asked something, here and now."""
    if threading.current_thread() is not threading.main_thread():
        return False
    shell = running_shell()
    if shell is None:
        return sys.stdin is not None and sys.stdin.isatty()
    return not has_kernel(shell) or takes_questions()


def cell_number() -> int | None:
    """Return the number of the running cell, where there are cells."""
    shell = running_shell()
    return shell.execution_count if shell else None


def request() -> dict[str, Any]:
    """Return the front end's message that runs the cell; empty where there is none."""
    kernel = getattr(running_shell(), "kernel", None)
    return getattr(kernel, "get_parent", dict)() or {}


def running_cell() -> tuple[str, str]:
    """Return the ids of the running notebook cell and of this run of it.

    Both are empty where the front end gives none.
    """
    asked = request()
    cell = (asked.get("metadata") or {}).get("cellId") or ""
    return str(cell), str((asked.get("header") or {}).get("msg_id") or "")


def notebook_path() -> str:
    """Return the absolute path of the running notebook, else of the folder in which Python started.

    Links are resolved, so that a notebook has one path.
    """
    shell = running_shell()
    name = user_namespace().get("__vsc_ipynb_file__")  # of VS Code
    if not (isinstance(name, str) and name) and has_kernel(shell):
        # Of jupyter_server (sessionmanager.py, get_kernel_env): absolute where the front end named
        # its session, else from the server's root on; "FOLDER/" where that name is empty. Child
        # processes inherit it.
        name = os.environ.get("JPY_SESSION_NAME", "")
        if name and not Path(name).is_absolute():
            name = name.replace("\\", "/").rpartition("/")[2]
    # Path.resolve raises at a loop of links.
    return os.path.realpath(starting_folder() / (name or ""))


def starting_folder() -> Path:
    """Return the folder in which IPython started: a cell may have changed it since."""
    if folder := getattr(running_shell(), "starting_dir", None):
        return Path(folder)
    try:
        return Path.cwd()
    except FileNotFoundError:  # it was deleted
        return Path.home()


def running_shell() -> Any:
    """Return the running IPython shell; None where IPython is not imported."""
    # While another thread imports IPython, the module is there without its functions.
    return getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()


def has_kernel(shell: Any) -> bool:
    return getattr(shell, "kernel", None) is not None


def is_captured(shell: Any) -> bool:
    """Return True inside ``%%capture`` and ``capture_output``."""
    from IPython.core.displaypub import CapturingDisplayPublisher

    return isinstance(getattr(shell, "display_pub", None), CapturingDisplayPublisher)


def takes_questions() -> bool:
    """Return True if the front end takes questions; nbclient and nbval say that they don't."""
    return bool((request().get("content") or {}).get("allow_stdin"))


def prints_only() -> bool:
    """Return True if the front end prints what a cell displays, and never changes it afterwards.

    No message says so. A client in Python writes its process id into the ids of its messages.
    """
    _, pid, number = f"__{running_cell()[1]}".rsplit("_", 2)
    return pid.isdecimal() and number.isdecimal() and _is_console(_command(int(pid)))


# They handle no `update_display_data`: ptshell.py of jupyter_console, jupyter_widget.py of
# qtconsole, `_output_hook_default` of jupyter_client.
_CONSOLES = {"jupyter-console", "jupyter-qtconsole", "qtconsole", "jupyter-run"}


def _is_console(command: Sequence[str]) -> bool:
    """Return True for the command line of one of Jupyter's consoles."""
    # The interpreter, -m, and the module or the script.
    return any(PurePath(word).stem.replace("_", "-") in _CONSOLES for word in command[:3])


@lru_cache(maxsize=16)
def _command(pid: int) -> Sequence[str]:
    """Return the command line of a process on this machine; empty where it is not to be had."""
    with suppress(Exception):  # no psutil, which ipykernel brings; no such process, or another's
        import psutil

        return tuple(psutil.Process(pid).cmdline())
    return ()


def user_namespace() -> Mapping[str, Any]:
    """Return the variables of ``__main__``, which in a notebook are the notebook's."""
    return vars(sys.modules["__main__"])


def cell_sources() -> Iterator[str]:
    """Yield the cells' sources, the latest first."""
    shell = running_shell()
    ran = shell.history_manager.input_hist_parsed if shell else []
    number = {source: n for n, source in enumerate(ran)}
    found: list[tuple[int, int, str]] = []
    latest = 0
    for entry in linecache.cache.values():
        # The shell sets no modification time, so that linecache never looks for a file on disk.
        if len(entry) == 4 and entry[1] is None:
            source = "".join(entry[2])
            # A cell that runs again with the same text keeps its first place in the cache. Code
            # that a cell has run, as run_python does, comes after that cell.
            latest = number.get(source.rstrip("\n"), latest)
            found.append((latest, len(found), source))
    return (source for _, _, source in sorted(found, reverse=True))


def lines_of(source: str, node: ast.stmt) -> str:
    """Return the lines of a statement, from its first decorator on."""
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
    return "".join(source.splitlines(keepends=True)[first - 1 : node.end_lineno])
