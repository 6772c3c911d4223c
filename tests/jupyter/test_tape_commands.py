"""``%kimi tape`` and the tape options of a cell, in a kernel."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from kimi_magic.testing import ScriptedServer
from kimi_magic.wire.tape_file import TapeFile
from tests.kernels import Kernel


@pytest.fixture
def at(kernel: Kernel, scripted_server: ScriptedServer, tmp_path: Path) -> str:
    """The path of a tape; cells ask the scripted server with ``-e lab``."""
    kernel.run(
        f"import os; os.chdir({str(tmp_path)!r})\n"
        f"kimi.add_endpoint(name='lab', base_url={scripted_server.base_url!r}, "
        f"model={scripted_server.models[0]!r})"
    )
    return str(tmp_path / "lesson.tape")


def test_a_tape_for_the_notebook(kernel: Kernel, at: str, scripted_server: ScriptedServer) -> None:
    assert kernel.run("%kimi tape").stdout.startswith("No tape is on: `%kimi tape FILE`")
    assert kernel.run("%kimi tape off").stdout.startswith("No tape is on")
    said = kernel.run("%kimi tape lesson.tape --speed 4 --strict").stdout
    assert said.splitlines() == [
        "lesson.tape: 0 recorded exchanges.",
        "Mode new: what is not on it is asked, and recorded. Speed: 4 ×, strict.",
        "So far: 0 exchanges played, 0 recorded.",
    ]
    scripted_server.reply("The sum is 3.")
    kernel.run("n = 1")
    assert "The sum is 3." in str(kernel.run("%%kimi -e lab -o a\n1 + {{ n }}?", cell="a").record)
    assert "The sum is 3." in str(kernel.run("%%kimi -e lab -o b\n1 + {{ n }}?", cell="a").record)
    assert kernel.run("print(repr(a.replayed), b.replayed)").stdout == "'' lesson.tape, scripted\n"
    assert "1 exchange played, 1 recorded." in kernel.run("%kimi tape").stdout
    kernel.run("n = 2")
    kernel.run("%kimi tape lesson.tape --mode none")
    kernel.run("%%kimi -e lab -o c\n1 + {{ n }}?", cell="a")
    assert kernel.run("print(c.replayed)").stdout == "lesson.tape, scripted, inputs differ\n"
    error = kernel.run("%%kimi -e lab --strict\n1 + {{ n }}?", cell="a", ok=False).told
    assert "[TapeError: lesson.tape holds no answer to this request" in error
    assert "  - 1 + 1?\n  + 1 + 2?" in error
    assert kernel.run("%kimi tape off").stdout == "lesson.tape is off.\n"
    assert len(scripted_server.requests) == 1
    assert TapeFile(at).read().recordings[0].cue == {"prompt": "1 + {{ n }}?", "step": 1}


def test_a_tape_for_one_cell(kernel: Kernel, at: str, scripted_server: ScriptedServer) -> None:
    scripted_server.reply("one")
    scripted_server.reply("live")
    kernel.run("%%kimi -e lab --tape lesson.tape\nHello?", cell="a")
    kernel.run("%%kimi -e lab --tape lesson.tape -o again --frozen-tools\nHello?", cell="a")
    assert kernel.run("print(again, again.replayed)").stdout == "one lesson.tape, scripted\n"
    kernel.run("%%kimi -e lab -o live\nHello?", cell="a")
    assert kernel.run("print(repr(live.replayed))").stdout == "''\n"
    error = kernel.run("%%kimi --strict\nHello?", ok=False).error
    assert error.startswith("MagicError: --strict and --frozen-tools are about a tape")
    error = kernel.run("%kimi tape x --mode once", ok=False).error
    assert "--mode is one of new, none, all" in error
    error = kernel.run("%kimi tape x --speed fast", ok=False).error
    assert error.startswith("TapeError: The speed of a tape is max, real, or how many times")
    error = kernel.run("%kimi tape --mode none", ok=False).error
    assert error.startswith("MagicError: Which tape?")


def test_an_interrupt_in_a_played_answer(
    kernel: Kernel, at: str, scripted_server: ScriptedServer
) -> None:
    scripted_server.reply("Once upon a time there was", rate=20)
    kernel.run("%%kimi -e lab --tape lesson.tape\nTell", cell="a")
    tape = TapeFile(at)
    (recording,) = tape.read().recordings
    pieces = [(3600.0 * (n > 3), data) for n, (_, data) in enumerate(recording.pieces)]
    assert b"Once" in b"".join(data for moment, data in pieces if not moment)
    kernel.run(
        "from dataclasses import replace\n"
        "from kimi_magic.wire.tape_file import TapeFile\n"
        "tape = TapeFile('lesson.tape')\n"
        f"tape.rewrite([replace(tape.read().recordings[0], pieces={tuple(pieces)!r})])"
    )

    seen: list[Any] = []

    def watch(message: dict[str, Any]) -> None:
        if not seen and "Once" in str(message["content"]):  # and not when the record has it
            seen.append(message)
            kernel.interrupt()

    kernel.run("%kimi tape lesson.tape --speed real --mode none")
    ran = kernel.run("%%kimi -e lab\nTell", cell="a", ok=False, watch=watch, allow_stdin=True)
    assert ran.reply["ename"] == "TurnInterrupted"
    assert kernel.run("print(kimi.last.replayed)").stdout == "lesson.tape, scripted\n"


def test_a_kernel_that_is_killed_while_it_records(
    at: str, scripted_server: ScriptedServer, tmp_path: Path
) -> None:
    """Whole lines stay, and the lock goes with the kernel."""
    scripted_server.reply("one")
    scripted_server.reply("two and more", stall_after=1)
    with Kernel() as own:
        own.run(
            f"%load_ext kimi_magic\nimport os, kimi_magic as kimi\n"
            f"kimi.add_endpoint(name='lab', base_url={scripted_server.base_url!r}, "
            f"model={scripted_server.models[0]!r})\n%kimi tape {at}"
        )
        own.run("%%kimi -e lab\nFirst?")
        pid = int(own.run("print(os.getpid())").stdout)

        def watch(message: dict[str, Any]) -> None:
            if "two" in str(message["content"]):
                os.kill(pid, signal.SIGKILL)
                raise InterruptedError

        with pytest.raises(InterruptedError):
            own.run("%%kimi -e lab\nSecond?", watch=watch, allow_stdin=True)
    content = TapeFile(at).read()
    assert [each.cue["prompt"] for each in content.recordings] == ["First?"]
    assert content.problems == ()
    tape = TapeFile(at)
    tape.lock()
    tape.unlock()
