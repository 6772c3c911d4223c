"""``%kimi keep`` and ``--again``, in real kernels."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from kimi_magic.testing import ScriptedServer
from kimi_magic.wire.tape_file import TapeFile
from tests.kernels import Kernel


@pytest.fixture
def notebook(
    tmp_path: Path, scripted_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> Path:
    path = tmp_path / "lesson.ipynb"
    path.write_text("{}", "utf-8")
    monkeypatch.setenv("JPY_SESSION_NAME", str(path))
    monkeypatch.setenv("KIMI_BASE_URL", scripted_server.base_url)
    monkeypatch.setenv("KIMI_MODEL", scripted_server.models[0])
    return path


def told(kernel: Kernel, line: str) -> str:
    ran = kernel.run(line, ok=False)
    return ran.stdout + ran.error


def answer(kernel: Kernel, source: str, cell: str) -> str:
    return str(kernel.run(source, cell=cell).record["text/plain"])


def test_run_all_asks_nothing_that_was_asked(
    notebook: Path, scripted_server: ScriptedServer
) -> None:
    cells = {f"c{n}": f"%%kimi --no-history\nQuestion {n}?" for n in (1, 2)}
    with ExitStack() as stack:
        first = stack.enter_context(Kernel())
        first.run("%load_ext kimi_magic")
        assert told(first, "%kimi keep").startswith("Answers are not kept: `%kimi keep on`")
        said = told(first, "%kimi keep on")
        assert "lesson.tape: 0 exchanges." in said
        assert "saved 0 requests and 0 tokens" in said
        for n, (cell, source) in enumerate(cells.items(), 1):
            scripted_server.reply(f"Answer {n}.")
            assert "tape" not in answer(first, source, cell)
        for cell, source in cells.items():  # Run All, in the same kernel
            assert "tape lesson.tape, scripted" in answer(first, source, cell)

        second = stack.enter_context(Kernel())  # of the same notebook, while the first one runs
        second.run("%load_ext kimi_magic\n%config KimiMagics.keep = True")
        for n, (cell, source) in enumerate(cells.items(), 1):
            assert f"Answer {n}." in answer(second, source, cell)
        assert len(scripted_server.requests) == 2
        said = told(second, "%kimi keep")
        assert "2 exchanges, " in said
        assert "saved 2 requests and " in said
        scripted_server.reply("New.")
        new = answer(second, "%%kimi --no-history\nNew?", "c3")
        assert "New." in new
        assert "Another kernel records into lesson.tape" in new

        scripted_server.reply("Better.")
        again = cells["c1"].replace("%%kimi", "%%kimi --again")
        assert "Better." in answer(first, again, "c1")
        assert "Better." in answer(first, cells["c1"], "c1")
        assert "Better." in answer(second, cells["c1"], "c1"), "it sees what the other one kept"
        file = TapeFile(notebook.parent / ".kimi/lesson.tape")
        assert len(file.read().recordings) == 2, "in the place of the old answer"

        told(first, "%kimi keep off")
        scripted_server.reply("Asked.")
        assert "tape" not in answer(first, cells["c2"], "c2")
        assert "`%kimi keep on` and `%kimi keep off`" in told(first, "%kimi keep perhaps")


def test_again_without_a_tape_asks(kernel: Kernel, asked: ScriptedServer) -> None:
    asked.reply("One")
    assert "One" in answer(kernel, "%%kimi --again\nFirst?", "c1")
    assert "Answers cannot be kept: the kernel does not know" in told(kernel, "%kimi keep on")


def test_again_and_mode_none_contradict(
    kernel: Kernel, asked: ScriptedServer, tmp_path: Path
) -> None:
    kernel.run(f"%kimi tape {tmp_path / 'a.tape'} --mode none")
    ran = kernel.run("%%kimi --again\nFirst?", ok=False)
    assert "--again asks anew, and a.tape is on in mode none." in ran.error


def test_again_replaces_on_a_tape(kernel: Kernel, asked: ScriptedServer, tmp_path: Path) -> None:
    path = tmp_path / "a.tape"
    asked.reply("One")
    asked.reply("Two")
    kernel.run(f"%%kimi --no-history --tape {path}\nFirst?", cell="c1")
    kernel.run(f"%%kimi --no-history --tape {path} --again\nFirst?", cell="c1")
    (only,) = TapeFile(path).read().recordings
    assert b"Two" in only.body
