"""Notebooks like those of public data science, run whole: what a model is sent of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from kimi_magic.testing import ScriptedServer
from tests.kernels import Kernel, Ran
from tests.snippets import run, stopped

HERE = Path(__file__).parent


@pytest.fixture
def play(
    kernel: Kernel, asked: ScriptedServer, tmp_path: Path
) -> Iterator[Callable[[str], list[Ran]]]:
    """Run a notebook's cells; ``{cells}`` is the range of those before that ran."""

    def played(notebook: str) -> list[Ran]:
        book = nbformat.read(HERE / notebook, as_version=4)  # type: ignore[no-untyped-call]
        ran: list[Ran] = []
        for cell in (each for each in book.cells if each.cell_type == "code"):
            source = cell.source
            if "{cells}" in source:
                latest = int(kernel.run("print(len(In) - 2)").stdout)
                source = source.replace("{cells}", f"{latest - 1}-{latest}")
            ran.append(kernel.run(source, ok=False))
        return ran

    kernel.run(f"import os; _before = os.getcwd(); os.chdir({str(tmp_path)!r})")
    yield played
    kernel.run("import os; os.chdir(_before)")


def sent(server: ScriptedServer, number: int) -> str:
    """Return the prompt of a request."""
    content = server.requests[number].body["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def test_rentals(play: Callable[[str], list[Ran]], asked: ScriptedServer) -> None:
    """A frame that is cleaned, grouped and plotted; two cells that fail, one while it is shown."""
    for text in ("```python\nrides\n```", "Yes.", "The mail.", "```python\nfigure\n```"):
        asked.reply(text)
    ran = play("rentals.ipynb")
    fix, figure, careful, fraction = (sent(asked, number) for number in range(4))

    assert 'rides.groupby("station").rides.mean()' in fix
    assert re.search(r"(?m)^TypeError: .*", fix)
    assert re.search(r"(?m)^Versions: pandas [\d.]+.*Python 3", fix)
    assert "example.org" not in fix.partition("of the notebook, as data")[0]
    assert "the first one in which rides are text" in fix

    assert (
        "A figure is shown: matplotlib Figure with 1 plot\nplot 1: «Rides by temperature»" in figure
    )
    assert "legend: «Harbour», «Old Town»" in figure
    assert "<Figure size" not in figure
    assert "6 rows" in figure

    assert "mail" in careful
    assert "example.org" not in careful
    assert "1180" not in careful

    assert "The cell ran, and this was raised while something was displayed" in fraction
    assert "ParseSyntaxException" in fraction
    assert "Versions: matplotlib" in fraction
    assert "image/png" not in fraction
    assert not ran[8].error
    assert len(asked.requests) == 4


def test_forecast(
    play: Callable[[str], list[Ran]], kernel: Kernel, asked: ScriptedServer, tmp_path: Path
) -> None:
    """Tools over live data, and the program of their turn."""
    calls: list[dict[str, Any]] = [
        {"name": "forecast", "arguments": {"month": 30, "region": "orders"}},
        {"name": "keep", "arguments": {"text": "month 30"}},
        {"name": "largest", "arguments": {"frame": "orders", "column": "month"}},
    ]
    asked.reply(reasoning="Three calls.", tool_calls=calls)
    asked.reply("About 226.")
    ran = play("forecast.ipynb")
    results = [m["content"] for m in asked.requests[1].body["messages"] if m["role"] == "tool"]
    assert re.fullmatch(r'\{"month": ?30, ?"gross": ?22\d\.\d\}', results[0])
    assert results[1:] == ["8 characters", "23.0"]
    assert "The variable `trend` of the notebook" in sent(asked, 0)
    assert ran[-1].error.startswith(
        "MagicError: -v takes a value (NAMES), and --cells is an option"
    )

    text = (tmp_path / "program.py").read_text("utf-8")
    assert "Fill in orders here: it is a live object, of type DataFrame" in stopped(text, tmp_path)
    kernel.run("orders.write_parquet('orders.parquet')")
    loaded = text.replace(
        "if (orders := ", "orders = pl.read_parquet('orders.parquet')\nif (orders := "
    )
    assert len(asked.requests) == 2
    asked.reply(tool_calls=calls)
    asked.reply("About 226.")
    assert "About 226." in run(loaded, "python", tmp_path)
    again = [m["content"] for m in asked.requests[3].body["messages"] if m["role"] == "tool"]
    assert [text.replace(" ", "") for text in again] == [t.replace(" ", "") for t in results]
    assert (tmp_path / "notes.txt").read_text("utf-8") == "month 30\nmonth 30\n"
    assert not re.search(r"(?m)^(?:from|import) .*(?:IPython|\bopen\b)", text)
