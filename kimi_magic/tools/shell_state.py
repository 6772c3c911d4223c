"""A guard around each call: for the kernel's life, and for state that the process shares.

A call that asks for the end of the kernel fails, and the kernel lives on. Streams, hooks, signal
handlers and their like are put back. Settings that a function may be there to change, such as the
working folder, stay changed, and the result says so.
"""

from __future__ import annotations

import asyncio
import builtins
import gc
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from functools import wraps
from typing import Any

from kimi_magic.core.frontend import running_shell
from kimi_magic.core.stdout import replaced
from kimi_magic.core.text import clip

__all__ = ["CallGuard", "guarding", "inherited_by_threads", "refusing_ends"]

MAX_NAMED = 5
MAX_PATH = 200
SOON, ALARM_TOLERANCE = 0.001, 0.05  # seconds

_MISSING = object()
_current: ContextVar[CallGuard | None] = ContextVar("kimi_magic_guard", default=None)
inherited_by_threads = (_current,)


class CallGuard:
    """One guarded call.

    Attributes
    ----------
    refused : SystemExit or None
        Set where the call asked for the end of the kernel, or for an empty one, even if its own
        code caught the error.
    changes : list of str
        What the call changed and left so.
    """

    def __init__(self) -> None:
        self.refused: SystemExit | None = None
        self.changes: list[str] = []
        self.process = os.getpid()
        self.over = False
        in_main = threading.current_thread() is threading.main_thread()
        self._before = _Snapshot() if in_main else None

    def has_set(self, number: int, handler: Any) -> bool:
        """Return True if the call itself has set this handler of a signal."""
        return self._before is not None and self._before.handlers.get(number) != handler

    def settle(self) -> None:
        """Put back what the call changed, and note what stays changed."""
        before = self._before
        if before is not None and sys.getrecursionlimit() < before.recursion_limit:
            sys.setrecursionlimit(before.recursion_limit)  # what follows calls deeper
        self._before = None
        if before is not None and os.getpid() == self.process:
            before.put_back()
            self.changes += before.changes()
            if before.emptied:
                self.refused = self.refused or SystemExit(EMPTIED)


@contextmanager
def guarding() -> Iterator[CallGuard]:
    """Guard one call, or those of several threads of which this is the main one.

    State that all threads share is compared in the main thread only.
    """
    with refusing_ends(), _containing_callbacks():
        guard = CallGuard()
        token = _current.set(guard)
        try:
            yield guard
        finally:
            _current.reset(token)
            guard.settle()
            guard.over = True


# Ends of the kernel


@contextmanager
def refusing_ends() -> Iterator[None]:
    """Refuse the end of the kernel to guarded calls, and to threads that they started."""
    with ExitStack() as stack:
        for owner, name, ends in _ends(running_shell()):
            # Not every shell and system has each of them, and some loops have no attributes.
            if hasattr(owner, name) and hasattr(owner, "__dict__"):
                stack.enter_context(replaced(owner, name, _refusing(name, ends)))
        yield


REFUSED = "{} was not carried out: a tool cannot end the kernel"
NO_RESET = "reset was not carried out: it would delete the notebook's variables"
EMPTIED = "all variables of the notebook were deleted; they are back"
_DEADLY = {"SIGKILL", "SIGTERM", "SIGQUIT", "SIGHUP", "SIGABRT", "SIGSTOP"}
# All others end or stop a process that does not handle them.
_IGNORED = {"SIGCHLD", "SIGCLD", "SIGCONT", "SIGURG", "SIGWINCH", "SIGINFO"}

_Ends = Callable[..., bool]


def _ends(shell: Any) -> Iterator[tuple[Any, str, _Ends]]:
    """Yield the functions that end a kernel, each with what says so of its arguments."""
    for system in (os, sys.modules.get(os.name)):  # posix or nt, which os takes them from
        yield system, "_exit", _always
        yield system, "abort", _always
        yield system, "execv", _always
        yield system, "execve", _always
        yield system, "kill", lambda pid, number: _is_own(pid) and _is_deadly(number)
        yield system, "killpg", lambda group, number: _is_own(-group) and _is_deadly(number)
    yield signal, "raise_signal", _is_deadly
    yield signal, "pthread_kill", lambda _thread, number: _is_deadly(number)
    with suppress(RuntimeError):
        yield asyncio.get_running_loop(), "stop", _always
    if shell is not None:
        yield shell, "ask_exit", _always
        yield shell, "reset", _always
        # Called when `exit_now` is set, whoever sets it: a moment later it stops the kernel's loop.
        yield shell, "_update_exit_now", lambda change: bool(change["new"])
        yield getattr(shell, "kernel", None), "do_shutdown", _always


def _always(*_: Any, **__: Any) -> bool:
    return True


def _is_own(pid: int) -> bool:
    """Return True if what is sent to this number comes to this process: 0 and -1 are groups."""
    group = os.getpgrp() if hasattr(os, "getpgrp") else 0
    return pid in (os.getpid(), 0, -1, -group)


def _is_deadly(number: int) -> bool:
    if number not in set(signal.Signals):  # such as 0, which only asks for a process
        return False
    name, handler = signal.Signals(number).name, signal.getsignal(number)
    if handler == signal.SIG_DFL:
        return name not in _IGNORED
    guard = _current.get()
    return name in _DEADLY and not (guard and guard.has_set(number, handler))


def _refusing(name: str, ends: _Ends) -> Callable[[Any], Any]:
    shown = "exit" if name in ("ask_exit", "_update_exit_now") else name
    text = NO_RESET if name == "reset" else REFUSED.format(shown)

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def stand_in(*args: Any, **kwargs: Any) -> Any:
            guard = _current.get()
            # A forked child may end as it likes.
            is_child = guard is not None and guard.process != os.getpid()
            if guard is None or is_child or not ends(*args, **kwargs):
                return original(*args, **kwargs)
            guard.refused = SystemExit(text)
            raise guard.refused

        return stand_in

    return make


# Ends that a call puts off

_SCHEDULING = {  # the place of the callback
    **dict.fromkeys(("call_soon", "call_soon_threadsafe"), 0),
    **dict.fromkeys(("call_at", "add_reader", "add_writer", "add_signal_handler"), 1),
}


@contextmanager
def _containing_callbacks() -> Iterator[None]:
    """Keep what guarded calls give to the kernel's loop from ending it, even when they are over.

    A loop ends with a SystemExit of a callback or a task.
    """
    with ExitStack() as stack:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        if hasattr(loop, "__dict__"):
            for name, place in _SCHEDULING.items():
                stack.enter_context(replaced(loop, name, _containing(place, _as_callback)))
            stack.enter_context(replaced(loop, "create_task", _containing(0, _as_coroutine)))
        yield


def _containing(place: int, contained: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Make the stand-in for a method of a loop that takes what to run at this place."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def stand_in(*args: Any, **kwargs: Any) -> Any:
            if _current.get() is not None and len(args) > place:
                args = (*args[:place], contained(args[place]), *args[place + 1 :])
            return original(*args, **kwargs)

        return stand_in

    return make


def _as_callback(callback: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(callback, updated=())
    def contained(*args: Any) -> Any:
        with _put_off():
            return callback(*args)

    return contained


def _as_coroutine(work: Any) -> Any:
    return _Contained(work) if asyncio.iscoroutine(work) else work


class _Contained(Coroutine[Any, Any, Any]):
    """A coroutine whose steps are those of another; a task that never begins closes that one."""

    def __init__(self, work: Any) -> None:
        self._work = work

    def send(self, value: Any) -> Any:
        with _put_off():
            return self._work.send(value)

    def throw(self, *error: Any) -> Any:
        with _put_off():
            return self._work.throw(*error)

    def close(self) -> None:
        self._work.close()

    def __await__(self) -> Any:
        return self._work.__await__()

    def __getattr__(self, name: str) -> Any:  # such as the code, for a task's repr
        return getattr(self._work, name)


@contextmanager
def _put_off() -> Iterator[None]:
    """Refuse the end of the kernel to what a call has put off, by an error that loops report."""
    guard = _current.get()
    with refusing_ends(), _containing_callbacks():
        try:
            yield
        except SystemExit as error:
            if guard is None or not guard.over:
                raise
            raise RuntimeError(REFUSED.format("exit")) from error


# State of the process and of the shell

_STREAMS_AND_HOOKS = (
    *((sys, name) for name in "stdin stdout stderr displayhook excepthook".split()),
    *((sys, name) for name in "unraisablehook breakpointhook".split()),
    (threading, "excepthook"),
)
_OF_THE_SHELL = ("exit_now", "keepkernel_on_exit", "keep_running", "user_ns", "user_module")
_NUMBERS: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (sys.getrecursionlimit, sys.setrecursionlimit),
    (sys.getswitchinterval, sys.setswitchinterval),
    (sys.gettrace, sys.settrace),
    (sys.getprofile, sys.setprofile),
    (gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
)


_SIGNALS = tuple(
    set(signal.Signals) - {getattr(signal, "SIGKILL", 0), getattr(signal, "SIGSTOP", 0)}
)


class _Snapshot:
    """The state before a call."""

    def __init__(self) -> None:
        self.shell = running_shell()
        self.emptied = False
        self.recursion_limit = sys.getrecursionlimit()
        self._attributes = [(o, n, getattr(o, n, _MISSING)) for o, n in _STREAMS_AND_HOOKS]
        if self.shell is not None:
            own = [name for name in _OF_THE_SHELL if hasattr(self.shell, name)]
            self._attributes += [(self.shell, name, getattr(self.shell, name)) for name in own]
        self._builtins = dict(vars(builtins))
        self._numbers = [get() for get, _ in _NUMBERS]
        self.handlers, self._blocked = dict(_handlers()), _blocked()
        self._alarm, self._began = _alarm(), time.monotonic()
        self._variables = dict(self.shell.user_ns) if self.shell is not None else {}
        self._settings = _settings(self.shell)

    def put_back(self) -> None:
        """Put back what no function is there to change."""
        self._put_back_signals()
        for owner, name, before in self._attributes:
            now = getattr(owner, name, _MISSING)
            if now is not before and not _is_stand_in(now):
                setattr(owner, name, before) if before is not _MISSING else delattr(owner, name)
        for (get, put), before in zip(_NUMBERS, self._numbers, strict=True):
            if get() != before:
                put(before)
        for name, value in self._builtins.items():
            if vars(builtins).get(name, _MISSING) is not value:
                setattr(builtins, name, value)
        if self.shell is not None:
            self._put_back_names()

    def _put_back_signals(self) -> None:
        for number, handler in _handlers():
            if handler != (before := self.handlers.get(number)) and before is not None:
                signal.signal(number, before)
        if _blocked() != self._blocked:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._blocked)
        # One that was set in the call would end the process, where nothing handles it.
        left, interval = self._alarm
        left = max(left - (time.monotonic() - self._began), SOON) if left else 0
        if abs(_alarm()[0] - left) > ALARM_TOLERANCE:
            signal.setitimer(signal.ITIMER_REAL, left, interval)

    def _put_back_names(self) -> None:
        space, hidden = self.shell.user_ns, self.shell.user_ns_hidden
        lost = self._variables.keys() - space.keys()
        own = {name for name in self._variables if name not in hidden and name[:1] != "_"}
        self.emptied = len(own) > 1 and own <= lost
        for name in lost if self.emptied else lost - own:
            space[name] = self._variables[name]

    def changes(self) -> list[str]:
        """Say what is different now, for a person and the model to read."""
        now = _settings(self.shell)
        found = [_change(what, old, now[what]) for what, old in self._settings.items()]
        if self.shell is not None:
            lost = self._variables.keys() - self.shell.user_ns.keys()
            if names := [name for name in self._variables if name in lost and name[:1] != "_"]:
                found.append(f"the variables ({_listed(names)} deleted)")
        return [text for text in found if text]


def _settings(shell: Any) -> dict[str, Any]:
    """Return settings by what they are called; mappings are told by the keys that differ."""
    settings: dict[str, Any] = {
        "the working folder": _working_folder(),
        "sys.path": tuple(map(str, sys.path)),
        "the environment": dict(os.environ),
        "the limits of logging": (logging.getLogger().level, logging.root.manager.disable),
        "the display of warnings": _ignores_all_warnings(),
    }
    # While another thread imports matplotlib, the module is there without its parameters.
    parameters = getattr(sys.modules.get("matplotlib"), "rcParams", None)
    if parameters is not None:
        backend = dict.__getitem__(parameters, "backend")  # without choosing one
        settings["matplotlib's backend"] = backend if isinstance(backend, str) else ""
    if shell is not None:
        callbacks = getattr(shell.events, "callbacks", {})
        settings["IPython's hooks"] = {
            name: tuple(one for one in called if not _is_matplotlibs(one))
            for name, called in callbacks.items()
        }
        payloads = getattr(getattr(shell, "payload_manager", None), "_payload", ())
        texts = [str(p.get("text")) for p in payloads if p.get("source") == "set_next_input"]
        settings["the text of the next cell"] = tuple(texts)
    return settings


def _change(what: str, old: Any, new: Any) -> str:
    if old == new:
        return ""
    if isinstance(old, Mapping):
        names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
        return f"{what} ({_listed(names)})"
    if isinstance(old, str) and old:  # a backend that was chosen only now is no change
        return f"{what} ({clip(old, MAX_PATH)} → {clip(new, MAX_PATH)})"
    return "" if isinstance(old, str) else what


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(clip(name, 40) for name in names[:MAX_NAMED]) + more


def _working_folder() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 - a text, to compare
    except OSError:
        return "one that was deleted"


def _ignores_all_warnings() -> bool:
    """Return True if a filter hides every warning; libraries add narrower ones of their own."""
    kinds = {kind for action, text, kind, *_ in warnings.filters if action == "ignore" and not text}
    return bool(kinds & {Warning})


def _is_matplotlibs(hook: Any) -> bool:
    """Return True for what matplotlib registers when it is imported."""
    return str(getattr(hook, "__module__", "")).startswith("matplotlib")


def _is_stand_in(value: Any) -> bool:
    """Return True for what another thread's call put there meanwhile."""
    own = getattr(value, "__module__", None), type(value).__module__
    return any(str(module).startswith("kimi_magic.") for module in own)


def _handlers() -> list[tuple[int, Any]]:
    return [(number, signal.getsignal(number)) for number in _SIGNALS]


def _blocked() -> set[Any]:
    """Return the signals that this thread does not get."""
    mask = getattr(signal, "pthread_sigmask", None)
    return mask(signal.SIG_BLOCK, ()) if mask else set()


def _alarm() -> tuple[float, float]:
    """Return the seconds until the timer's signal and its interval; 0 where it is off."""
    return signal.getitimer(signal.ITIMER_REAL) if hasattr(signal, "getitimer") else (0, 0)
