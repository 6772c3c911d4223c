"""Keeps a terminal from printing a reply again that a view has just shown.

A kernel asks the reply's ``_ipython_display_``. In a terminal ``Out[n]:`` would stand by then, so
``sys.displayhook`` is asked instead.
"""

from __future__ import annotations

import builtins
import sys
from types import CodeType, FrameType
from typing import Any

from kimi_magic.core.frontend import cell_number, has_kernel, running_shell
from kimi_magic.core.reply import Reply

__all__ = ["leave_out_repr"]


def leave_out_repr(reply: Reply) -> None:
    """Have the terminal leave out the repr of a reply, in the cell or statement that showed it."""
    shell = running_shell()
    if shell is None:
        if hasattr(sys, "ps1"):  # set in interactive mode alone
            _plain_hook().expect(reply)
    elif not has_kernel(shell) and not isinstance(shell.display_trap.hook, _ShellHook):
        trap = shell.display_trap
        wrapped = trap.hook
        trap.hook = _ShellHook(wrapped)
        if sys.displayhook is wrapped:  # the cell that runs has set it already
            sys.displayhook = trap.hook


class _ShellHook:
    """The display hook of IPython in a terminal; a reply that its cell has shown is only kept."""

    def __init__(self, wrapped: Any) -> None:
        self._wrapped = wrapped

    def __call__(self, result: Any = None) -> None:
        hook = self._wrapped
        if not isinstance(result, Reply) or result.shown_in != cell_number():
            hook(result)
            return
        hook.check_for_underscore()
        if not hook.quiet():
            hook.update_user_ns(result)
            hook.fill_exec_result(result)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped, name)


class _PlainHook:
    """The display hook of ``>>>``, which knows no cells: the code of a statement stands for one."""

    def __init__(self, wrapped: Any) -> None:
        self._wrapped = wrapped
        self._latest: Reply | None = None
        self._statement: CodeType | None = None

    def expect(self, reply: Reply) -> None:
        self._latest, self._statement = reply, _statement()

    def __call__(self, value: Any) -> None:
        if isinstance(value, Reply) and value is self._latest and _statement() is self._statement:
            builtins._ = value  # type: ignore[attr-defined]
        else:
            self._wrapped(value)


def _plain_hook() -> _PlainHook:
    if not isinstance(sys.displayhook, _PlainHook):
        sys.displayhook = _PlainHook(sys.displayhook)
    return sys.displayhook


def _statement() -> CodeType | None:
    """Return the code of the statement that ``>>>`` runs."""
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 - no public function knows frames
    found = None
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") == "__main__":
            found = frame.f_code
        frame = frame.f_back
    return found
