"""The embedded engine as the kernel sees it: one child process, started at the first request.

llama.cpp is never imported here: its memory and its crashes are the child's. The child ends with
its stdin (see ``engine``), so it outlives no kernel, whether that is shut down or killed.
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import queue
import re
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from kimi_magic.core.errors import LocalEngineError
from kimi_magic.core.text import why_not_written
from kimi_magic.wire.endpoints import LARGEST_CONTEXT, LOCAL
from kimi_magic.wire.local import engine
from kimi_magic.wire.local.weights import OTHERWISE, fetch_weights, find_weights, ignore_notice

__all__ = ["LocalEngine", "Running", "available", "fetch_weights", "find_weights"]

TEMPLATE = Path(__file__).with_name("practice.jinja")
START_SECONDS = 600.0
STOP_SECONDS = 2.0
POLL_SECONDS = 0.05
LOCAL_MODEL = (
    "KimiMagics.local_model takes the path of a GGUF file; empty, it is the practice model."
)


@dataclass(frozen=True, slots=True)
class Running:
    """A served model: its address on loopback, the child's own key and the id to ask for."""

    base_url: str
    key: str = field(repr=False)
    model: str
    practice: bool
    context_window: int


def available() -> bool:
    """Return True if the engine is installed, without importing it."""
    return importlib.util.find_spec("xllamacpp") is not None


class LocalEngine:
    """At most one child process, which serves one model."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._child: _Child | None = None
        self._running: tuple[str, Running] | None = None
        atexit.register(self.abandon)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.disown)

    def start(
        self, model_path: str = "", *, notice: Callable[[str], None] = ignore_notice
    ) -> Running:
        """Serve a GGUF file by its own chat template, or the practice model where none is named.

        A child that serves it already is used again. ``notice`` gets short lines for the user while
        it downloads or starts; a `LocalEngineError` says why it cannot.
        """
        with self._locked():
            if self._child and self._child.is_alive() and self._running:
                served, running = self._running
                if served == model_path:
                    return running
            self.stop()
            if not available():
                raise LocalEngineError(
                    f"The engine that runs {model_path or 'the practice model'} is not installed.\n"
                    f'Install it with `pip install "kimi-magic[local]"` and ask again.\n{OTHERWISE}'
                )
            options = _own_model(model_path) if model_path else _practice_model(notice)
            name = options["alias"] if model_path else "the practice model"
            notice(f"Starting {name}…")
            running = self._launch(options, name)
            self._running = (model_path, running)
            return running

    def stop(self) -> None:
        """End the child, if one runs."""
        with self._locked():
            child, self._child, self._running = self._child, None, None
            if child:
                child.end()

    def abandon(self) -> None:
        """End the child at exit, without the lock: a thread may still download under it."""
        if self._child:
            self._child.end()

    def disown(self) -> None:
        """Forget the child in a forked process: it belongs to the parent."""
        self._lock = threading.RLock()
        child, self._child, self._running = self._child, None, None
        if child:
            child.disown()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # A wait without a time limit cannot be interrupted on Windows.
        while not self._lock.acquire(timeout=POLL_SECONDS):
            pass
        try:
            yield
        finally:
            self._lock.release()

    def _launch(self, options: dict[str, Any], name: str) -> Running:
        key, practice = secrets.token_urlsafe(24), bool(options["template"])
        with _stderr_file() as stderr:
            try:
                self._child = _Child(key, stderr)
            except OSError as error:
                why = error.strerror or error
                raise LocalEngineError(
                    f"The engine's process cannot be started: {why}.\n{OTHERWISE}"
                ) from None
            try:
                answer = self._child.ask(options)
            except BaseException:
                self.stop()
                raise
            if "base_url" not in answer:
                self.stop()
                stderr.seek(0)
                words = stderr.read(4000).decode(errors="replace")
                reason = _reason(answer.get("error", ""), words)
                advice = OTHERWISE if practice else "Is the file whole, and a chat model's?"
                raise LocalEngineError(f"The engine could not start {name}: {reason}\n{advice}")
        window = answer["context_window"]
        return Running(answer["base_url"], key, options["alias"], practice, window)


def _stderr_file() -> IO[bytes]:
    try:
        return tempfile.TemporaryFile()
    except OSError as error:
        raise LocalEngineError(
            f"The engine cannot be started: no temporary file can be written, as "
            f"{why_not_written(error)}.\nTMPDIR names another folder.\n{OTHERWISE}"
        ) from None


class _Child:
    """The process that runs ``engine.py``, and the pipes to it."""

    def __init__(self, key: str, stderr: IO[bytes]) -> None:
        # A group of its own, which Ctrl-C in a terminal and Kernel → Interrupt do not reach.
        flags = getattr(subprocess, "CREATE_NO_WINDOW", 0)
        flags |= getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
        # -P: neither the folder of engine.py nor the notebook's may shadow other modules.
        self._process = subprocess.Popen(
            [sys.executable, "-P", engine.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=os.environ | {engine.KEY_VARIABLE: key},
            start_new_session=True,
            creationflags=flags,
        )
        self._stdin = cast("IO[bytes]", self._process.stdin)
        self._stdout = cast("IO[bytes]", self._process.stdout)

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, options: dict[str, Any]) -> dict[str, Any]:
        """Send the options and wait for the child's one line; an interrupt ends the wait."""
        with suppress(OSError):  # a child that died at once: its silence says so
            self._stdin.write(json.dumps(options).encode() + b"\n")
            self._stdin.flush()
        lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=self._read_line, args=(lines,), daemon=True).start()
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with suppress(queue.Empty):
                answer = json.loads(lines.get(timeout=POLL_SECONDS) or b"{}")
                return cast("dict[str, Any]", answer)
        return {"error": f"it said nothing for {START_SECONDS:.0f} seconds"}

    def _read_line(self, lines: queue.SimpleQueue[bytes]) -> None:
        try:
            lines.put(self._stdout.readline())
        except (OSError, ValueError):  # closed while we waited
            lines.put(b"")

    def end(self) -> None:
        """Close the child's stdin, which ends it; kill it if that does not."""
        with suppress(OSError):
            self._stdin.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        finally:
            self._stdout.close()

    def disown(self) -> None:
        """Close the pipes: a copy of the child's stdin would keep it alive."""
        self._process.returncode = 0  # or Popen would wait for it
        for pipe in (self._stdin, self._stdout):
            with suppress(OSError, ValueError):
                os.close(pipe.fileno())


def _practice_model(notice: Callable[[str], None]) -> dict[str, Any]:
    return {
        "model": str(fetch_weights(notice)),
        "alias": LOCAL.model,
        "template": str(TEMPLATE),
        "context": LOCAL.context_window,
        "threads": _threads(4),
    }


def _own_model(model_path: str) -> dict[str, Any]:
    path = Path(model_path).expanduser().absolute()
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        problem = f"The model file {path} cannot be read: {error.strerror or error}."
        raise LocalEngineError(f"{problem}\n{LOCAL_MODEL}") from None
    if magic != b"GGUF":
        raise LocalEngineError(f"{path} is no GGUF file.\n{LOCAL_MODEL}")
    return {
        "model": str(path),
        "alias": path.stem,
        "template": "",
        "context": LARGEST_CONTEXT,
        "threads": _threads(8),
    }


def _threads(most: int) -> int:
    # The engine's threads spin while they wait for each other, and one that must share its core
    # holds up all of them (measured: a second's work took over 100 seconds). One core stays free.
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min((usable or 1) - 1, most))


def _reason(error: str, words: str) -> str:
    """Return the engine's first complaint; the later ones only say that it gives up."""
    complaints = re.findall(r"^[\d.]+ E\s+(?:\w+\s+)?(.+)$", words, re.MULTILINE)
    lines = [line for line in words.splitlines() if line.strip()]
    return (complaints[:1] or lines[-1:] or [error or "it ended without a word"])[0].strip()[:300]
