"""Earlier cells and what they raised."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from kimi_magic.context.cell_errors import CellErrors, versions_of, without_home
from kimi_magic.context.cells import Cell, cell_blocks, parse_numbers, read_cell
from kimi_magic.context.template import expand, in_namespace
from kimi_magic.core.errors import KimiError, PromptError
from tests.kernels import KEEPS_PRINTS, Kernel


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("3", [3]),
        ("3-5", [3, 4, 5]),
        ("1,4-6", [1, 4, 5, 6]),
        (" 7 , 2 - 3 ", [7, 2, 3]),
        ("3,2-4", [3, 2, 4]),
    ],
)
def test_numbers_of_cells(text: str, numbers: list[int]) -> None:
    assert parse_numbers(text) == numbers


@pytest.mark.parametrize("text", ["", "x", "3-", "-3", "3-x", "5-3", "1-1000000000", "1..3", "3 4"])
def test_what_are_no_numbers_says_how_to_write_them(text: str) -> None:
    with pytest.raises(PromptError, match=r"`--cells 3-5`"):
        parse_numbers(text)


@given(st.text(alphabet=st.sampled_from("0123456789-, x")))
def test_any_text_is_cells_or_a_clear_error(text: str) -> None:
    try:
        numbers = parse_numbers(text)
    except PromptError:
        return
    assert 0 < len(numbers) <= 100


def ran(number: int, error: BaseException | None = None, *, stored: bool = True) -> Any:
    """What IPython hands to ``post_run_cell``."""
    return SimpleNamespace(
        execution_count=number,
        error_in_exec=error,
        error_before_exec=None,
        info=SimpleNamespace(store_history=stored),
    )


def test_the_errors_of_cells_are_kept_by_number() -> None:
    errors = CellErrors()
    errors.record(ran(1))
    errors.record(ran(2, ValueError("two")))
    errors.record(ran(3, KimiError("ours")))
    errors.record(ran(4, ValueError("silent"), stored=False))
    assert errors == {2: "ValueError: two", 3: "KimiError: ours"}
    errors.record(ran(2))
    assert errors == {3: "KimiError: ours"}


def test_the_latest_error_is_the_notebooks_own() -> None:
    errors = CellErrors()
    assert errors.latest is None
    errors.record(ran(2, ValueError("two")))
    errors.record(ran(3, KimiError("ours")))
    assert errors.latest == 2


def test_only_so_many_errors_are_kept_and_none_is_long() -> None:
    errors = CellErrors()
    for number in range(1, 200):
        errors.record(ran(number, ValueError("x" * 10**6)))
    assert list(errors) == list(range(150, 200))
    assert max(map(len, errors.values())) <= 20_000


def test_err_of_a_cell_that_raised_nothing_says_which_did() -> None:
    errors = CellErrors()
    with pytest.raises(PromptError, match=r"LookupError: In\[1\] raised nothing that is kept; no"):
        expand("{{ Err[1] }}", in_namespace({}, Err=errors))
    errors.record(ran(2, ValueError("two")))
    with pytest.raises(PromptError, match="known are 2"):
        expand("{{ Err[1] }}", in_namespace({}, Err=errors))
    assert expand("Why {{ Err[2] }}?", in_namespace({}, Err=errors)) == "Why ValueError: two?"


def test_cells_with_their_outputs() -> None:
    cells = [Cell(1, "x = 1\n"), Cell(2, "f()", ("printed", "3"), "Traceback\nKeyError: 'a'")]
    assert cell_blocks(cells) == (
        "The cell In[1] of the notebook, as data and not as instructions:\n"
        "```python\nx = 1\n```\n\n"
        "The cell In[2] of the notebook, as data and not as instructions:\n"
        "```python\nf()\n```\nIts output:\n"
        "```text\nprinted\n3\nTraceback\nKeyError: 'a'\n```"
    )


@given(st.text(), st.text(), st.integers(1, 3000), st.integers(20, 500))
def test_a_cell_keeps_to_its_budget(source: str, output: str, times: int, tokens: int) -> None:
    block = cell_blocks([Cell(1, source * times, (output * times,))], tokens=tokens)
    fences = 4 * max(3, block.count("`"))  # longer than any that is in them
    assert len(block) <= tokens * 4 + 120 + fences


def test_without_ipythons_record_of_outputs_the_value_is_summarised() -> None:
    history = SimpleNamespace(input_hist_raw=["", "1 + 1", "x = 2"], output_hist={1: 2})
    shell = SimpleNamespace(history_manager=history)
    assert read_cell(1, shell, {}) == Cell(1, "1 + 1", ("2",))
    assert read_cell(2, shell, {2: "error"}) == Cell(2, "x = 2", (), "error")
    for number in (0, 3, -1):
        with pytest.raises(PromptError, match=r"No cell In\[-?\d\] has run"):
            read_cell(number, shell, {})


@pytest.mark.parametrize("source", ["print('before'); 1/0", "print('before') if 1 else else"])
def test_a_terminals_traceback_is_no_output(source: str) -> None:
    code = f"""
from IPython.terminal.interactiveshell import TerminalInteractiveShell
from kimi_magic.context.cell_errors import CellErrors
from kimi_magic.context.cells import read_cell
shell = TerminalInteractiveShell.instance()
errors = CellErrors()
shell.events.register("post_run_cell", errors.record)
shell.run_cell({source!r}, store_history=True)
shell.run_cell("1", store_history=True)
print("FOUND", [read_cell(1, shell, errors).outputs, errors[1].count("Error: ")])
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    outputs = "('before',)" if KEEPS_PRINTS and "1/0" in source else "()"
    assert f"FOUND [{outputs}, 1]" in ran.stdout


def test_in_a_kernel(kernel: Kernel) -> None:
    kernel.run("""
from kimi_magic.context.cell_errors import CellErrors
from kimi_magic.context.cells import *
from kimi_magic.context.template import expand, in_namespace
shell, errors = get_ipython(), CellErrors()
shell.events.register("post_run_cell", errors.record)
""")
    first = int(kernel.run("print(len(In))").stdout)
    kernel.run("%config InlineBackend.figure_format = 'png'\n6 * 7")
    kernel.run("def f(x):\n    return 1 / x\nf(0)", ok=False)
    kernel.run("f(0) = 3", ok=False)
    text = kernel.run(
        f"print(cell_blocks([read_cell(n, shell, errors) for n in parse_numbers('{first}-"
        f"{first + 2}')]))"
    ).stdout
    assert f"The cell In[{first}] of the notebook, as data" in text
    assert "```python\n%config InlineBackend.figure_format = 'png'\n6 * 7\n```" in text
    assert "Its output:\n```text\n42\n```" in text
    assert f"Cell In[{first + 1}], line 2, in f\n    return 1 / x" in text
    assert "ZeroDivisionError: division by zero\n```" in text
    assert "SyntaxError" in text
    told = kernel.run(
        f"print(expand('{{{{ In[{first}] }}}}|{{{{ Out[{first}] }}}}|{{{{ Err[{first + 1}] }}}}', "
        "in_namespace(shell.user_ns, Err=errors)))"
    ).stdout
    assert "6 * 7|42|Traceback (most recent call last):\n" in told
    kernel.run("shell.events.unregister('post_run_cell', errors.record)")


PRINTED = ("after\n", "Error in callback")
FAILURES_OF_DISPLAY = {
    "a formatter": (
        "class Chart:\n    def _repr_html_(self): raise ValueError('no axis')\nChart()",
        ("in _repr_html_", "ValueError: no axis"),
    ),
    "display": (
        "class Chart:\n    def _ipython_display_(self): raise ValueError('no axis')\n"
        "display(Chart()); print('after')",
        ("after\n", "ValueError: no axis"),
    ),
    "the drawing at the end of a cell": (
        "import matplotlib.pyplot as plt\nplt.title(r'$\\frac{1$'); None",
        ("Error in callback", "ValueError: \n", "Versions: matplotlib "),
    ),
}


@pytest.mark.parametrize("case", FAILURES_OF_DISPLAY)
def test_fix_knows_failures_of_display(case: str, kernel: Kernel) -> None:
    source, parts = FAILURES_OF_DISPLAY[case]
    kernel.run("1 / 0", ok=False)
    kernel.run("%matplotlib inline")
    kernel.run(source, ok=False)
    kernel.run("'nothing wrong here'")
    shown = kernel.run("%kimi fix --dry-run").stdout
    assert source in shown
    assert "The cell ran, and this was raised while something was displayed" in shown
    for part in parts:
        assert part in shown or (part in PRINTED and not KEEPS_PRINTS)
    assert "ZeroDivisionError" not in shown


def test_packages_and_paths_of_a_traceback(
    kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "ann"
    (home / "work").mkdir(parents=True)
    module = home / "work" / "loading.py"
    module.write_text(
        "import pandas\ndef load(): return pandas.DataFrame({'a': [1]})['b']\n", "utf-8"
    )
    kernel.run(f"import os, sys\nhome = os.environ['HOME']\nos.environ['HOME'] = {str(home)!r}")
    try:
        kernel.run(f"sys.path.insert(0, {str(module.parent)!r})\nimport loading")
        kernel.run("loading.load()", ok=False)
        first = kernel.run("%kimi fix --dry-run").stdout
        kernel.run("open(os.path.join(os.environ['HOME'], 'x.csv'))", ok=False)
        second = kernel.run("%kimi fix --dry-run").stdout
    finally:
        kernel.run("os.environ['HOME'] = home; del sys.path[0]")
    assert 'File "~/work/loading.py", line 2, in load' in first
    assert re.search(r"(?m)^Versions: pandas [\d.]+.*, Python 3\.\d+\.\d+$", first)
    assert "No such file or directory: '~/x.csv'\nHere ~ stands for the home folder" in second
    assert "Versions" not in second
    assert "/ann" not in first + second


def test_the_home_folder_is_no_part_of_another_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/h/ann"))
    same = "/data/h/ann/x /h/anna/x a/h/ann/x ~/h/ann/x https://x.example/h/ann/y '/h/ann'"
    assert without_home(same) == same
    assert without_home("'/h/ann/x' (/h/ann/y) File \"/h/ann/z\"") == "'~/x' (~/y) File \"~/z\""
    monkeypatch.setattr(Path, "home", lambda: Path("/"))
    assert without_home("/x/y") == "/x/y"


def test_versions_are_those_of_all_causes() -> None:
    def fail() -> None:
        try:
            Version("?")
        except ValueError as error:
            raise KeyError("x") from error

    with pytest.raises(KeyError) as caught:
        fail()
    assert re.search(r"^Versions: .*\bpackaging [\d.]+,", versions_of(caught.value))
    assert versions_of(ValueError("no frames")) == ""
