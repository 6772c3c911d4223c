"""The pytest plugin: ``kimi_tape`` plays a test's requests from a tape beside its file.

It is loaded by itself where kimi-magic is installed (entry point ``pytest11``).
``--kimi-tape=none``, the default, sends nothing; ``new`` records what is not on the tape, ``all``
records anew.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pluggy import Result

__all__ = ["kimi_tape", "tape_of"]

MODES = ("new", "none", "all")
FOLDER = "tapes"
MARK = "kimi_tape(name=None, *, mode=None, **options)"
ABOUT = (
    "the tape of a test: another name beside its file, another mode, and what kimi.tape takes "
    "(speed, strict, frozen_tools)."
)
LONGEST = 100  # characters of a name: file systems take 255 bytes at most
# Some file systems take less, some shells give more a meaning.
_UNSAFE = re.compile(r"[^A-Za-z0-9_.,=+@-]+")
_DEVICES = re.compile(r"(?i)(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|$)")  # of Windows
# A name that stays as it is, and differs from others by more than the case of its parameters.
_PLAIN = re.compile(r"\w[\w.]*(?:\[[a-z\d_.-]+\])?", re.ASCII)
_TAPE = pytest.StashKey[tuple[Path, str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("kimi-magic").addoption(
        "--kimi-tape",
        choices=MODES,
        default="none",
        help="tapes of the fixture kimi_tape: none (default) plays and sends nothing, new records "
        "what is missing, all records anew",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{MARK}: {ABOUT}")


@pytest.fixture
def kimi_tape(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Play what the test asks from the tape ``tapes/TEST_FILE/TEST.tape`` beside its file."""
    mark = request.node.get_closest_marker("kimi_tape")
    given = dict(mark.kwargs) if mark else {}
    name = mark.args[0] if mark and mark.args else given.pop("name", None)
    mode = given.pop("mode", None) or request.config.getoption("--kimi-tape", "none")
    path = tape_of(request.path, _name_of(request), name)
    request.node.stash[_TAPE] = (path, mode)
    import kimi_magic as kimi

    with kimi.tape(path, mode=mode, **given) as tape:
        yield tape


def tape_of(test_file: Path, test: str, name: str | None = None) -> Path:
    """Return the path of a test's tape, or of the one that its mark names.

    What a file system would not take is replaced, and then a few letters of a hash keep the names
    of two tests apart. They do as well where names differ by case alone.
    """
    if name is None:
        return test_file.parent / FOLDER / _safe(test_file.stem) / f"{_safe(test)}.tape"
    folder = test_file.parent / FOLDER
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()) or path == folder.resolve():
        raise pytest.UsageError(f"kimi_tape: {name!r} is not in the folder {folder}.")
    return path


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Result[Any], None]:
    """Say below a test that failed which tape it played, and how to record it."""
    report = (yield).get_result()
    played = item.stash.get(_TAPE, None)
    if played is None or not report.failed:
        return
    path, mode = played
    there = "" if path.exists() else ", which does not exist"
    hint = "" if mode != "none" else "\npytest --kimi-tape=new records what is not on it."
    report.sections.append(("kimi_tape", f"The tape is {path}{there} (mode {mode}).{hint}"))


def _name_of(request: pytest.FixtureRequest) -> str:
    """Return the test's name with its parameters, behind that of its class."""
    names = [request.cls.__qualname__] if request.cls else []
    return ".".join([*names, request.node.name])


def _safe(name: str) -> str:
    """Make a name fit for every file system."""
    flat = _UNSAFE.sub("-", name.removesuffix("]")).strip(".-") or "test"
    flat = f"_{flat}" if _DEVICES.match(flat) else flat
    if _PLAIN.fullmatch(name) and len(flat) <= LONGEST:
        return flat
    return f"{flat[:LONGEST]}-{sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
