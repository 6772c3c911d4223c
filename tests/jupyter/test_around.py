"""The recipes of docs/around.md."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from kimi_magic.testing import ScriptedServer
from tests.kernels import Kernel

ROOT = Path(__file__).parents[2]
RECIPES = (ROOT / "docs" / "around.md").read_text("utf-8")
v4: Any = nbformat.v4


def write(path: Path, *cells: str) -> None:
    nodes = [v4.new_code_cell(cell, id=f"cell-{number}") for number, cell in enumerate(cells)]
    about = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    nbformat.write(v4.new_notebook(cells=nodes, metadata=about), path)  # type: ignore[no-untyped-call]


def sources(path: Path) -> list[str]:
    book = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    return [cell.source for cell in book.cells]


def run(*command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_jupytext_comments_cells_and_brings_them_back(tmp_path: Path) -> None:
    pytest.importorskip("jupytext")
    (recipe,) = re.findall(r"(?s)```toml\n(# jupytext.*?)```", RECIPES)
    (tmp_path / "jupytext.toml").write_text(recipe, "utf-8")
    cells = (
        "%load_ext kimi_magic\nimport kimi_magic as kimi",
        "%%kimi -v sales,costs -o answer\nWhy?\n\n# A heading\n{{ x }}\n```python\nx = 'it's\n```",
        "print(answer.text)",
        "%kimi ask What's up?",
        "%%kimi answer <<\n# %% no cell\n\n\nIt's \"quoted\", 'quoted', a \\ and a % sign",
        "%%kimi\n%time x\n!ls\n%%kimi",
        "x = %kimi ask Which?",
    )
    write(tmp_path / "book.ipynb", *cells)
    for arguments in (["--sync", "book.ipynb"], ["--to", "ipynb", "book.py", "-o", "back.ipynb"]):
        ran = run("jupytext", *arguments, folder=tmp_path)
        assert ran.returncode == 0, ran.stderr
    assert sources(tmp_path / "back.ipynb") == list(cells)
    script = (tmp_path / "book.py").read_text("utf-8")
    compile(script, "book.py", "exec")
    assert '# %% magic_args="-v sales,costs -o answer" language="kimi"\n# Why?\n' in script


@pytest.mark.parametrize(
    ("cells", "options", "finds"),
    [
        (["%%kimi -o answer\nWhy?", "print(answer)"], [], True),
        (["%%kimi answer <<\nWhy?", "print(answer)"], [], True),
        (["answer = %kimi ask What's up?", "print(answer)"], [], False),
        (["%%kimi\nIt's?", "answer = kimi.last\nprint(answer)"], [], False),
        (["%%kimi -o answer\nIt's?", "print(answer)"], ["--config", "builtins=['answer']"], False),
        (
            ["%%kimi -o answer\nIt's?", "print(answer)"],
            ["--per-file-ignores", "*.ipynb:F821"],
            False,
        ),
        (["# ruff: noqa: F821", "%%kimi -o answer\nWhy?", "print(answer)"], [], False),
    ],
)
def test_ruff_knows_the_names(
    cells: list[str], options: list[str], finds: bool, tmp_path: Path
) -> None:
    first, *rest = cells
    imports = "import kimi_magic as kimi\n\nprint(kimi)"
    top = [f"{first}\n{imports}", *rest] if first.startswith("# ruff") else [imports, *cells]
    write(tmp_path / "book.ipynb", *top)
    command = ["ruff", "check", "--isolated", "--no-cache", "--output-format=json", *options]
    ran = run(*command, "book.ipynb", folder=tmp_path)
    assert [found["code"] for found in json.loads(ran.stdout)] == ["F821"] * finds


def test_a_reply_is_assigned_from_a_line(kernel: Kernel, asked: ScriptedServer) -> None:
    asked.reply("Because.")
    ran = kernel.run("answer = %kimi ask What's up?\nprint(answer is kimi.last, answer.text)")
    assert ran.stdout.endswith("True Because.\n")
    assert not ran.of("execute_result")
