"""The lessons show what everybody gets, without a key and without a network."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.kernels import OwnManager

LESSONS = Path(__file__).parents[2] / "notebooks" / "lessons"
# A key that is there, a server that is not, and no engine: nothing of it may be asked for.
ELSEWHERE = {
    "NVIDIA_API_KEY": "nvapi-" + "0" * 64,
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "KIMI_LOCAL_MODEL": "/nowhere/none.gguf",
}


def run(folder: Path, lesson: str) -> list[Any]:
    """Execute a lesson in a fresh kernel; return the outputs of its cells."""
    notebook = read(folder / lesson)
    place = {"metadata": {"path": str(folder)}}
    # A kernel sends what is printed in pieces, by the clock; front ends join them.
    client = NotebookClient(notebook, km=OwnManager(), resources=place, coalesce_streams=True)
    client.execute(cleanup_kc=True, env=os.environ | ELSEWHERE)
    return outputs(notebook)


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def outputs(notebook: Any) -> list[Any]:
    return [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]


def without_pictures(cells: list[Any]) -> list[Any]:
    """Each version of matplotlib draws its own pixels."""
    for output in (output for cell in cells for output in cell):
        output.get("data", {}).pop("image/png", None)
    return cells


@pytest.mark.parametrize("lesson", sorted(path.name for path in LESSONS.glob("*.ipynb")))
def test_a_lesson_gives_the_same_outputs_everywhere(tmp_path: Path, lesson: str) -> None:
    folder = tmp_path / "lessons"
    shutil.copytree(LESSONS, folder)
    shown = outputs(read(LESSONS / lesson))
    first, second = run(folder, lesson), run(folder, lesson)
    assert first == second
    assert without_pictures(first) == without_pictures(shown)
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        path.name for path in LESSONS.iterdir()
    ), "nothing was written"


def test_the_tapes_come_with_a_clone() -> None:
    tapes = [path.with_suffix(".tape") for path in LESSONS.glob("*.ipynb")]
    assert all(map(Path.is_file, tapes))
    if shutil.which("git"):
        command = ["git", "-C", str(LESSONS), "check-ignore", *map(str, tapes)]
        assert not subprocess.run(command, capture_output=True, check=False).stdout
