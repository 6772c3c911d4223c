"""How many tokens a request may have, and about how many it has."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kimi_magic.core.messages import Message, Usage

__all__ = ["CHARS_PER_TOKEN", "ContextWindow", "Learnt"]

CHARS_PER_TOKEN = 4
PER_MESSAGE = 4  # tokens for the role and its marks
# What one answer teaches is not believed beyond this, nor where the chat template weighs more
# than what was said.
LEAST, MOST = 0.25, 4.0
ENOUGH = 2000
# A window this many times smaller than its data say is believed.
PLAUSIBLE = 16


@dataclass(slots=True)
class Learnt:
    """What a server has taught of its count: tokens for one that was counted, and the estimate
    that is too much."""

    factor: float = 1.0
    ceiling: float = math.inf


class ContextWindow:
    """What fits into a model's context window.

    A token is counted as four characters, and the count is corrected by what the server reports
    of each request.

    Parameters
    ----------
    window : int
        The context window.
    answer : int
        How much of it an answer may take.
    learnt : Learnt, optional
        What was learnt before; grows.
    """

    def __init__(self, window: int, answer: int = 0, learnt: Learnt | None = None) -> None:
        self._tokens = max(window - answer, window // 2)
        self._learnt = learnt or Learnt()

    def estimate(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> int:
        """About how many tokens a request has."""
        return round(self._counted(messages, tools) * self._learnt.factor)

    def fits(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> bool:
        return self.estimate(messages, tools) <= min(self._tokens, self._learnt.ceiling)

    def refused(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> None:
        """The server has found this request too long: its window is smaller than was thought.

        Of a request far below the window it is another limit that was meant.
        """
        found = self.estimate(messages, tools)
        if found * PLAUSIBLE >= self._tokens:
            self._learnt.ceiling = min(self._learnt.ceiling, found * 0.9)

    def learn(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], usage: Usage
    ) -> None:
        """Correct the count by what the server counted for this request."""
        counted = self._counted(messages, tools)
        if usage.prompt_tokens and counted >= ENOUGH:
            found = usage.prompt_tokens / counted
            self._learnt.factor = min(max(found, LEAST), MOST)

    def _counted(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> float:
        chars = sum(
            len(message.text)
            + len(message.reasoning or "")
            + sum(len(call.name) + len(call.arguments) for call in message.tool_calls)
            for message in messages
        )
        chars += len(json.dumps(tools)) if tools else 0
        return chars / CHARS_PER_TOKEN + PER_MESSAGE * len(messages)
