"""Aim: have a tape of somebody else's run, hold up or fill the machine of whoever plays it."""

from __future__ import annotations

import gzip
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import kimi_magic as kimi
from kimi_magic.core.errors import TapeError
from kimi_magic.jupyter import cli
from kimi_magic.testing import ScriptedServer
from kimi_magic.wire import tape_file
from kimi_magic.wire.tape_file import TapeFile

HEADER = b'{"kimi_tape": 1, "made_by": {}}\n'


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a tape be no larger than 1 MB, so that a test need not be."""
    monkeypatch.setattr(tape_file, "MOST_BYTES", 1_000_000)
    monkeypatch.setattr(tape_file, "MOST_LINES", 10_000)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.skipif(os.name == "nt", reason="Windows has none of these")
@pytest.mark.parametrize("plant", [pipe, endless, loop, Path.mkdir])
def test_what_is_no_file_is_refused(tmp_path: Path, plant: Callable[[Path], None]) -> None:
    """Input: a pipe that nobody writes to, a device without end, a loop of links, a folder.

    Holds: reading ends at once with an error, in the kernel and in `kimi-magic tape check`.
    """
    plant(path := tmp_path / "a.tape")
    told: list[Exception | int] = []

    def read() -> None:
        try:
            TapeFile(path).read()
        except TapeError as error:
            told.append(error)
        told.append(cli.main(["tape", "check", str(path)]))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert "cannot be read" in str(told[0])
    assert told[1] == 2


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("name", "data"),
    [
        pytest.param("a.tape", HEADER + b'{"a": "' + b"0" * 1_000_000 + b'"}\n', id="a long line"),
        pytest.param("a.tape", HEADER + b"\n" * 20_000, id="empty lines"),
        pytest.param("a.tape.gz", gzip.compress(HEADER + b"0" * 50_000_000), id="a bomb"),
        pytest.param("a.tape.gz", gzip.compress(b"\n" * 900) * 5_000, id="many members"),
    ],
)
def test_what_would_fill_the_memory_is_refused(tmp_path: Path, name: str, data: bytes) -> None:
    """Input: more than a tape may hold, as it is or decompressed. Holds: an error, and no more."""
    (tmp_path / name).write_bytes(data)
    with pytest.raises(TapeError, match="too large: a tape has at most"):
        TapeFile(tmp_path / name).read()


def test_a_line_whose_values_would_fill_the_memory_is_left_out(tmp_path: Path) -> None:
    """Input: a line of a million empty lists. Holds: it counts as damaged, the rest plays."""
    path = tmp_path / "a.tape"
    path.write_bytes(HEADER + b'{"a": [' + b"[]," * 1_000_000 + b"0]}\n")
    content = TapeFile(path).read()
    assert content.header
    assert len(content.problems) == 1


@pytest.mark.parametrize("field", ["meaning", "cue", "made_by"])
@pytest.mark.parametrize("nested", [("[", "]"), ('{"a":', "}")], ids=["lists", "objects"])
def test_what_nests_too_deeply_is_left_out(
    tmp_path: Path, field: str, nested: tuple[str, str]
) -> None:
    """Input: data as deep as a parser of JSON just takes. Holds: it is left out, and said."""
    path = tmp_path / "a.tape"
    line = '{"meaning": {}, "cue": {}, "made_by": {}, "status": 200, "pieces": []}'
    for depth in (160, 300, 600, 900, 990):
        deep = f"{nested[0] * depth}1{nested[1] * depth}"
        planted = line.replace(f'"{field}": {{}}', f'"{field}": {{"a": {deep}}}')
        path.write_bytes(HEADER + f"{planted}\n{line}\n".encode())
        with kimi.tape(path, mode="none") as use:
            with pytest.raises(TapeError, match="no answer"):
                kimi.ask("Hello")
            assert len(use.tape.entries()) == len(use.tape.problems) == 1, depth


def test_planted_calls_are_approved_as_live_ones(
    server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Input: a tape that calls `run_python`, a tool with confirm=True, and one not offered.

    Holds: where nobody can be asked none of them runs, and --frozen-tools does not change it.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    ran: list[str] = []

    @kimi.tool(confirm=True)
    def transfer(to: str) -> str:
        """Transfer everything."""
        ran.append(to)
        return "done"

    calls = [
        {"name": "run_python", "arguments": {"code": "ran.append('code')"}},
        {"name": "transfer", "arguments": {"to": "a stranger"}},
        {"name": "eval", "arguments": {"source": "1"}},
    ]
    server.reply(tool_calls=calls)
    server.reply("All is well.")
    with kimi.tape(path := tmp_path / "a.tape"):
        live = kimi.ask("Hello", tools=[transfer, "run_python"])
    for frozen in (False, True):
        with kimi.tape(path, mode="none", frozen_tools=frozen):
            reply = kimi.ask("Hello", tools=[transfer, "run_python"])
        assert reply.text == "All is well."
        assert len(reply.tool_results) == len(live.tool_results) == 3
    assert not ran
