"""The command ``kimi-magic``: the demo in a real kernel with the real practice model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nbformat as nbformat_typed
import pytest
from rich.console import Console

from kimi_magic.core.errors import KimiError
from kimi_magic.jupyter import cli, demo
from kimi_magic.testing import ScriptedServer

nbformat: Any = nbformat_typed  # half typed
v4 = nbformat.v4
ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "notebooks" / "quickstart.ipynb"
COMMAND = [sys.executable, "-m", "kimi_magic.jupyter.cli"]


def write_notebook(path: Path, *cells: str) -> Path:
    nodes = [
        v4.new_markdown_cell(cell[3:]) if cell.startswith("md:") else v4.new_code_cell(cell)
        for cell in cells
    ]
    nbformat.write(v4.new_notebook(cells=nodes), path)
    return path


def run_demo(notebook: Path, **environment: str) -> tuple[subprocess.CompletedProcess[str], Any]:
    """Run the command as a person does; what it printed, and the notebook that it saved."""
    ran = subprocess.run(
        [*COMMAND, "demo", "--notebook", str(notebook)],
        env=os.environ | environment | {"COLUMNS": "100", "PYTHONUTF8": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=100,
        check=False,
    )
    saved = notebook.with_name(f"{notebook.stem}.executed.ipynb")
    return ran, nbformat.read(saved, as_version=4) if saved.exists() else None


def text_of(cell: Any) -> str:
    return "".join(
        output.get("text") or output.get("data", {}).get("text/plain", "")
        for output in cell.outputs
    )


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any]:
    """What the terminal showed of a small notebook, and the notebook afterwards."""
    notebook = write_notebook(
        tmp_path_factory.mktemp("demo") / "small.ipynb",
        "md:## Greeting",
        "%load_ext kimi_magic\nimport kimi_magic as kimi",
        "%%kimi\nWho wrote Hamlet?",
        "import sys, os; print(sys.executable); print(os.getcwd())",
        "print(repr(input('Your name? ')))",
        "print('\\x1b[31mred\\x1b[0m')\n6 * 7",
        "print(kimi.last.reasoning.strip() + '|' + kimi.last.text)",
    )
    ran, saved = run_demo(notebook, NVIDIA_API_KEY="nvapi-not-to-be-used", KIMI_VIEW="auto")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stderr == ""
    return ran.stdout, saved


class TestDemo:
    def test_the_prompt_reasoning_and_answer_are_shown(self, shown: tuple[str, Any]) -> None:
        out, saved = shown
        # A terminal breaks long lines where it likes.
        turn = " ".join(out[out.index("%%kimi") : out.index("sys.executable")].split())
        reasoning, answer = (" ".join(t.split()) for t in text_of(saved.cells[6]).split("|"))
        assert turn.index("Hamlet?") < turn.index("practice model") < turn.index(reasoning)
        assert turn.index(reasoning) < turn.index(answer)

    def test_the_start_of_the_engine_is_shown(self, shown: tuple[str, Any]) -> None:
        out, _ = shown
        assert "Starting the practice model…" in out

    def test_other_output_is_shown(self, shown: tuple[str, Any]) -> None:
        out, _ = shown
        assert "Greeting" in out
        assert "red\n42\n" in out

    def test_the_record_is_saved_and_no_widget(self, shown: tuple[str, Any]) -> None:
        _, saved = shown
        (output,) = saved.cells[2].outputs
        assert "practice model" in output.data["text/plain"]
        assert "text/html" in output.data
        assert "widget" not in nbformat.writes(saved)

    def test_the_kernel_is_this_environments(self, shown: tuple[str, Any]) -> None:
        _, saved = shown
        executable, folder = text_of(saved.cells[3]).splitlines()
        assert Path(executable).resolve() == Path(sys.executable).resolve()
        assert Path(folder).name.startswith("demo")

    def test_a_question_gets_an_empty_answer(self, shown: tuple[str, Any]) -> None:
        _, saved = shown
        assert text_of(saved.cells[4]).endswith("''\n")

    def test_a_failing_cell_is_shown_saved_and_told(self, tmp_path: Path) -> None:
        notebook = write_notebook(tmp_path / "bad.ipynb", "print('before')", "1 / 0", "print(2)")
        ran, saved = run_demo(notebook)
        assert ran.returncode == 1
        assert "ZeroDivisionError: division by zero" in ran.stdout
        assert "A cell failed" in ran.stdout
        assert ran.stderr == ""
        assert text_of(saved.cells[0]) == "before\n"
        assert saved.cells[1].outputs[0].ename == "ZeroDivisionError"
        assert saved.cells[2].outputs == []

    def test_blocks_that_are_finished_at_once_are_shown_whole(self, tmp_path: Path) -> None:
        answer = "\n\n".join(f"Paragraph {i}." for i in range(9))
        with ScriptedServer() as server:
            server.reply(answer)
            notebook = write_notebook(
                tmp_path / "fast.ipynb",
                "%load_ext kimi_magic",
                f"%%kimi -e {server.base_url} -m kimi-k2-thinking\nSay much.",
            )
            ran, _ = run_demo(notebook)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert answer in ran.stdout

    @pytest.mark.skipif(os.name != "posix", reason="a signal to another process")
    def test_ctrl_c_stops_and_saves(self, tmp_path: Path) -> None:
        notebook = write_notebook(
            tmp_path / "slow.ipynb", "print('before')", "import time; time.sleep(600)"
        )
        with subprocess.Popen(
            [*COMMAND, "demo", "--notebook", str(notebook)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            assert process.stdout
            for line in process.stdout:
                if "time.sleep" in line:
                    break
            time.sleep(0.5)
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            rest = process.stdout.read()
        assert process.returncode == 130
        assert time.monotonic() - began < 60
        assert "Stopped." in rest
        assert "Traceback" not in rest
        saved = nbformat.read(tmp_path / "slow.executed.ipynb", as_version=4)
        assert text_of(saved.cells[0]) == "before\n"

    def test_lab_opens_on_the_result_with_this_kernel(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls: list[tuple[list[str], dict[str, str]]] = []

        def call(command: list[str], env: dict[str, str]) -> int:
            calls.append((command, env))
            return 0

        monkeypatch.setattr("subprocess.call", call)
        plan = demo.Plan(QUICKSTART, tmp_path, tmp_path / "q.ipynb")
        assert demo.open_lab(plan, Console(quiet=True)) == 0
        ((command, environment),) = calls
        assert command == [sys.executable, "-m", "jupyterlab", str(tmp_path / "q.ipynb")]
        assert environment["JUPYTER_PREFER_ENV_PATH"] == "1"


class TestPlan:
    def test_the_quickstart_of_a_clone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clone = QUICKSTART.parents[1]
        monkeypatch.setattr(demo, "__file__", str(clone / "kimi_magic" / "jupyter" / "demo.py"))
        plan = demo.make_plan()
        assert plan.notebook == QUICKSTART
        assert plan.output == QUICKSTART.with_name("quickstart.executed.ipynb")

    def test_the_quickstart_of_an_installed_package(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        packaged = tmp_path / "kimi_magic" / "notebooks" / "quickstart.ipynb"
        packaged.parent.mkdir(parents=True)
        packaged.write_bytes(QUICKSTART.read_bytes())
        monkeypatch.setattr(demo, "__file__", str(tmp_path / "kimi_magic" / "jupyter" / "demo.py"))
        monkeypatch.chdir(tmp_path)
        plan = demo.make_plan()
        assert plan.notebook == packaged
        assert plan.folder == Path.cwd()
        assert plan.output == Path.cwd() / "quickstart.executed.ipynb"

    def test_what_is_missing_is_told_first(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(KimiError, match="There is no notebook"):
            demo.make_plan(tmp_path / "none.ipynb")
        with pytest.raises(KimiError, match="There is no folder"):
            demo.make_plan(output=tmp_path / "none" / "out.ipynb")
        monkeypatch.setattr(demo, "available", lambda: False)
        with pytest.raises(KimiError, match=r"needs xllamacpp.*\n.*kimi-magic\[demo\]"):
            demo.make_plan()


class TestCommand:
    def test_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as ended:
            cli.main(["--version"])
        assert ended.value.code == 0
        assert capsys.readouterr().out.startswith("kimi-magic 0.")

    def test_fetch_says_where_the_weights_are(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["fetch"]) == 0
        path = capsys.readouterr().out.splitlines()[-1].partition("here: ")[2]
        assert Path(path).stat().st_size > 90_000_000

    def test_a_failure_is_told_in_a_few_lines(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        broken = tmp_path / "broken.ipynb"
        broken.write_text("{")
        assert cli.main(["demo", "--notebook", str(broken)]) == 1
        error = capsys.readouterr().err
        assert error.startswith("kimi-magic: ")
        assert "cannot be read as a notebook" in error
        assert len(error.splitlines()) <= 4


def test_the_quickstart_can_be_validated_cell_by_cell() -> None:
    """What a model answers is not compared; the cell after it checks the structure."""
    notebook = nbformat.read(QUICKSTART, as_version=4)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell, after in zip(cells, [*cells[1:], None], strict=True):
        assert cell.outputs == []
        if "%kimi" in cell.source or "kimi.ask" in cell.source:
            assert cell.metadata.tags == ["nbval-ignore-output"]
        if "%%kimi" in cell.source or " ask " in cell.source:
            assert after
            assert "assert" in after.source or "nbval-ignore-output" in after.metadata.tags
