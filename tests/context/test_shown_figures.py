"""Figures that cells have shown."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from kimi_magic.context import shown_figures
from kimi_magic.context.shown_figures import ShownFigures
from tests.kernels import KEEPS_PRINTS, Kernel


def ended(number: int | None, *, stored: bool = True) -> Any:
    return SimpleNamespace(execution_count=number, info=SimpleNamespace(store_history=stored))


class Formatter:
    def format(self, value: Any, include: Any = None) -> Any:
        bundle = {"text/plain": f"<{value!r}>"}
        return (bundle | {"image/png": "aGk="} if include is None else bundle), {}


def test_figures_are_kept_by_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    figures, formatter = ShownFigures(), Formatter()
    figures.attach(formatter)
    figures.attach(formatter)
    for value in ([1], [2]):
        assert formatter.format(value) == ({"text/plain": f"<{value}>", "image/png": "aGk="}, {})
    formatter.format([3], include=["text/plain"])
    figures.record(ended(7))
    assert figures == {7: (("<[1]>", "[1]"), ("<[2]>", "[2]"))}
    formatter.format([4])
    figures.record(ended(8, stored=False))
    figures.record(ended(None))
    figures.record(ended(7))
    assert not figures
    monkeypatch.setattr(shown_figures, "MAX_FIGURES", 3)
    monkeypatch.setattr(shown_figures, "MAX_CELLS", 2)
    for number in range(4):
        for each in range(9):
            formatter.format([each])
        figures.record(ended(number))
    assert {number: len(shown) for number, shown in figures.items()} == {2: 3, 3: 3}
    figures.detach(formatter)
    assert "format" not in vars(formatter)


def test_cells_tell_their_figures(kernel: Kernel) -> None:
    kernel.run("%matplotlib inline\nimport matplotlib.pyplot as plt")
    kernel.run("plt.plot([1, 2]); plt.title('At the end'); None")
    first = int(kernel.run("print(len(In) - 2)").stdout)
    kernel.run("fig, axes = plt.subplots()\naxes.set_title('Twice')\nfig")
    kernel.run("print('before'); plt.bar(['a', 'b'], [3, 4]); plt.show()")
    shown = kernel.run(f"%kimi ask --dry-run --cells {first}-{first + 3} Why?").stdout
    plot = "A figure is shown: matplotlib Figure with 1 plot\nplot 1"
    assert shown.count(plot) == 4
    for told in (f"{plot}: «At the end»\n", "line: (0, 1), (1, 2)", "- 2 bars: 3, 4"):
        assert shown.count(told) == 1
    assert shown.count(f"{plot}: «Twice»") == 2  # as a value, and at the end of the cell
    assert "before\nA figure is shown" in shown or not KEEPS_PRINTS
    assert "<Figure size" not in shown
    assert kernel.run("print(plt.get_fignums())").stdout == "[]\n"


def test_unloaded_nothing_is_looked_at(kernel: Kernel) -> None:
    kernel.run("%unload_ext kimi_magic")
    watched = "print('_Watched' in str(get_ipython().display_formatter.format))"
    assert kernel.run(watched).stdout == "False\n"
    kernel.run("%load_ext kimi_magic")
    assert kernel.run(watched).stdout == "True\n"
