"""The bar that shows how far a map has come."""

from __future__ import annotations

import sys
from typing import Any

from kimi_magic.core.budget import dollars
from kimi_magic.core.messages import Usage

__all__ = ["Bar"]


class Bar:
    """Counts rows, with rows a second and the time left (tqdm), tokens, cost and failures."""

    def __init__(self, total: int, *, show: bool) -> None:
        self._failed = 0
        self._bar: Any = None
        self._shown: Any = None
        if not show:
            return
        from tqdm.auto import tqdm

        draws_widget = _draws_widget(tqdm)
        own: dict[str, Any] = {"display": False} if draws_widget else {}
        self._bar = tqdm(total=total, unit="row", desc="kimi.map", smoothing=0.1, **own)
        if draws_widget:
            import IPython.display

            display: Any = IPython.display.display
            self._shown = display(self._bar.container, display_id=True)

    def add(self, used: Usage, *, failed: bool) -> None:
        """Count a row; ``used`` is what all have used."""
        self._failed += failed
        if self._bar is None:
            return
        said = [f"{used.total_tokens:,} tokens"] if used.total_tokens else []
        said += [dollars(used.cost)] if used.cost else []
        said += [f"{self._failed} failed"] if self._failed else []
        self._bar.set_postfix_str(", ".join(said), refresh=False)
        self._bar.update(1)

    def close(self) -> None:
        if self._bar is None:
            return
        self._bar.close()
        if self._shown is not None:
            # A notebook file keeps the text of a widget as it was displayed, and no state of it.
            self._shown.update(self._bar.container)


def _draws_widget(kind: Any) -> bool:
    notebook = sys.modules.get("tqdm.notebook")
    return notebook is not None and issubclass(kind, notebook.tqdm_notebook)
