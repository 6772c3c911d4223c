"""The same tool call, made again and again."""

from __future__ import annotations

import json
from collections.abc import Sequence

from kimi_magic.core.messages import ToolCall

__all__ = ["Repetition"]


class Repetition:
    """Counts how often the latest call was made in a row."""

    def __init__(self) -> None:
        self._latest: tuple[str, str] | None = None
        self.count = 0

    def watch(self, calls: Sequence[ToolCall]) -> int:
        for call in calls:
            same = (call.name, _canonical(call.arguments))
            self.count = self.count + 1 if same == self._latest else 1
            self._latest = same
        return self.count


def _canonical(arguments: str) -> str:
    try:
        return json.dumps(json.loads(arguments), sort_keys=True)
    except (ValueError, RecursionError):
        return arguments
