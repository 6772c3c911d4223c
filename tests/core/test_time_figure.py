"""A turn over time as a figure, by whichever library is installed."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from kimi_magic.core.errors import KimiError
from kimi_magic.core.reply import Reply
from tests.kernels import Kernel
from tests.lab.steps import timed_turn


def texts(figure: Any) -> list[str]:
    (axes,) = figure.axes
    return [text.get_text() for text in axes.texts]


def test_a_bar_for_each_step() -> None:
    figure = Reply(timed_turn()).timeline()
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["step 1", "step 2"]
    assert len(axes.patches) == 6
    assert texts(figure) == [
        "first token after 0.50 s, 20 tokens/s", "first token after 0.25 s, 29 tokens/s",
    ]  # fmt: skip
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "waiting", "reasoning", "tools", "answer",
    ]  # fmt: skip
    figure.canvas.draw()


def test_a_bar_for_each_trajectory() -> None:
    turn = timed_turn()
    figure = Reply(timed_turn(200.0, trajectories=(turn, turn))).timeline()
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["trajectory 1", "trajectory 2", "aggregation"]


def test_nothing_to_draw() -> None:
    with pytest.raises(KimiError, match="no step to draw"):
        Reply().timeline()


def test_altair_where_there_is_no_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "altair", None)
    with pytest.raises(KimiError, match="pip install matplotlib"):
        Reply(timed_turn()).timeline()
    data: list[Any] = []

    class Chart:
        """Takes every call, as Altair's own does."""

        def __getattr__(self, _: str) -> Any:
            return lambda *_args, **_more: self

    def make(own: Any) -> Chart:
        data.append(own)
        return Chart()

    def ignore(*_args: Any, **more: Any) -> Any:
        return more.get("values")

    altair = SimpleNamespace(Chart=make, layer=lambda *_: Chart())
    for name in ("Data", "X", "Y", "Scale", "Color"):
        setattr(altair, name, ignore)
    monkeypatch.setitem(sys.modules, "altair", altair)
    assert isinstance(Reply(timed_turn()).timeline(), Chart)
    bars, notes = data
    assert bars[0] == {"row": "step 1", "phase": "waiting", "start": 0.0, "end": 0.5}
    assert [note["row"] for note in notes] == ["step 1", "step 2"]


def test_a_notebook_shows_it_once(kernel: Kernel) -> None:
    kernel.run("from tests.lab.steps import timed_turn\nfrom kimi_magic import Reply")
    ran = kernel.run("Reply(timed_turn()).timeline()")
    shown = [content["data"] for content in ran.of("execute_result", "display_data")]
    assert [sorted(data) for data in shown] == [["image/png", "text/plain"]]
