"""The bar of a map."""

from __future__ import annotations

from typing import Any

import IPython.display
import pytest
import tqdm.auto
import tqdm.notebook

from kimi_magic.batch.bar import Bar
from kimi_magic.core.messages import Usage


class Displayed:
    """Keeps the text of what is displayed, as a notebook file does."""

    text = ""

    def __call__(self, shown: Any, *, display_id: bool) -> Displayed:
        assert display_id
        self.update(shown)
        return self

    def update(self, shown: Any) -> None:
        self.text = repr(shown)


def test_a_saved_notebook_has_the_bar_of_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tqdm.auto, "tqdm", tqdm.notebook.tqdm)
    monkeypatch.setattr(IPython.display, "display", displayed := Displayed())
    bar = Bar(3, show=True)
    assert "| 0/3 [" in displayed.text
    for count in (1, 2):
        bar.add(Usage(1000 * count, cost=0.5), failed=count == 2)
    bar.close()
    assert "| 2/3 [" in displayed.text
    assert displayed.text.endswith("row/s, 2,000 tokens, $0.50, 1 failed]")


def test_a_bar_in_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bar(1, show=True)
    bar.add(Usage(7), failed=False)
    bar.close()
    assert "1/1 [" in (said := capsys.readouterr().err)
    assert said.rstrip().endswith("row/s, 7 tokens]")
