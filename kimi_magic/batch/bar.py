"""The bar that shows how far a map has come."""

from __future__ import annotations

from typing import Any

from kimi_magic.core.budget import dollars
from kimi_magic.core.messages import Usage

__all__ = ["Bar"]


class Bar:
    """Counts rows, with rows a second and the time left (tqdm), tokens, cost and failures."""

    def __init__(self, total: int, *, show: bool) -> None:
        self._failed = 0
        self._bar: Any = None
        if show:
            from tqdm.auto import tqdm

            self._bar = tqdm(total=total, unit="row", desc="kimi.map", smoothing=0.1)

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
        if self._bar is not None:
            self._bar.close()
