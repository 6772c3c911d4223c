"""Live objects and names of IPython's own, which a program does not have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kimi_magic.export.formatting import join_parts
from kimi_magic.export.placeholders import placeholder
from tests.kernels import Kernel
from tests.snippets import check_layout, stopped

GATHER = """
from kimi_magic.export.formatting import join_parts
from kimi_magic.export.function_sources import gather
def program(**tools):
    found = gather(tools)
    parts = [found.imports.text(), *found.placeholders.values(), *found.blocks.values()]
    print(join_parts(parts))
    print("MISSING", found.missing)
"""


def test_the_shells_own_names(kernel: Kernel, tmp_path: Path) -> None:
    kernel.run(GATHER)
    kernel.run(
        """
from getpass import getpass
import typing
from typing import Annotated, Literal, Literal as L
sales, costs, rate, day, unit = (object() for _ in range(5))

def save(path: str, what: Literal["sales", "exit"], how: "L['costs']" = "costs",
         share: Annotated[float, "rate"] = 1, at: typing.Literal["day"] = "day",
         of: Annotated[Literal["unit"], "unit"] = "unit") -> str:
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"{what} {__name__} {__debug__}")
    if not path:
        print(getpass(), input(), exit, quit)
    display(path)
    return path
"""
    )
    shown = kernel.run("program(save=save)").stdout
    text, _, missing = shown.partition("MISSING ")
    assert missing.strip() == "{}"
    assert text.partition("\n\n\n")[0] == (
        "import typing\nfrom getpass import getpass\nfrom typing import Annotated, Literal\n"
        "from typing import Literal as L\n\nfrom IPython.display import display"
    )
    program = tmp_path / "alone.py"
    program.write_text(f"{text}\nsave('out.txt', 'sales')\n", "utf-8")
    kernel.run(
        "import os, subprocess, sys\n"
        f"os.chdir({str(tmp_path)!r})\n"
        "print(subprocess.run([sys.executable, 'alone.py'], check=True, capture_output=True))"
    )
    assert (tmp_path / "out.txt").read_text("utf-8") == "sales __main__ True"


def test_what_only_the_shell_has(kernel: Kernel) -> None:
    kernel.run(GATHER)
    kernel.run("6 * 7")
    kernel.run(
        "def look(n: int):\n"
        "    return In[n], Out, _, _ih, get_ipython().user_ns\n"
        "def _1(x): return x\n"
        "def own(x): return _1(x)\n"
    )
    shown = kernel.run("program(look=look, own=own)").stdout
    text, _, missing = shown.partition("MISSING ")
    history = "it is IPython's history (used by look)"
    for name in ("In", "Out", "_", "_ih"):
        assert f'if ({name} := globals().get("{name}")) is None:' in text
        assert f"{name!r}: {history!r}"[:-1].replace("'", '"') in missing.replace("'", '"')
    assert "6 * 7" not in text
    assert "from IPython import get_ipython" in text
    assert "run the program with ipython" in missing
    assert "def _1(x): return x" in text


class Engine:
    """A live object."""


LIVE = {
    "a frame of pandas": (
        "pandas",
        "DataFrame",
        "In the notebook, sales.to_parquet('sales.parquet') saves it, and "
        "sales = pandas.read_parquet('sales.parquet') loads it.",
    ),
    "a frame of polars": (
        "polars",
        "LazyFrame",
        "In the notebook, sales.sink_parquet('sales.parquet') saves it, and "
        "sales = polars.scan_parquet('sales.parquet') loads it.",
    ),
    "an index": (
        "pandas",
        "RangeIndex",
        "In the notebook, sales.to_series().to_pickle('sales.pickle') saves it.",
    ),
}


@pytest.mark.parametrize("case", LIVE)
def test_how_data_is_kept_and_loaded(case: str, tmp_path: Path) -> None:
    library, kind, advice = LIVE[case]
    value: Any = getattr(pytest.importorskip(library), kind)
    text = placeholder("sales", value({} if kind != "RangeIndex" else 3), "why", "sales = f()")
    check_layout(join_parts(["import os", text, "print(sales, os)"]), tmp_path)
    assert stopped(text, tmp_path) == f"Fill in sales here: why. {advice}"


@pytest.mark.parametrize(
    ("statement", "advice"),
    [
        (
            "engine = connect(\n    'local', port=1,\n)",
            "The notebook has: engine = connect('local', port=1)",
        ),
        ("engine = Engine()", "The notebook has: engine = Engine()"),
        ("engine = Engine(['Ann', 'Bob'])", "Write how it is made or loaded."),
        (f"engine = Engine('{'x' * 200}')", "Write how it is made or loaded."),
        ("engine = other", "Write how it is made or loaded."),
        ("", "Write how it is made or loaded."),
    ],
)
def test_the_notebooks_own_line(statement: str, advice: str, tmp_path: Path) -> None:
    text = placeholder("engine", Engine(), "why", statement)
    check_layout(f"{text}\nprint(engine)\n", tmp_path)
    assert stopped(text, tmp_path) == f"Fill in engine here: why. {advice}"
