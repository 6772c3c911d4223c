"""The context window of a model, and the estimated size of a request in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kimi_magic.core.messages import Message, Usage
from kimi_magic.core.sent import CHARS_PER_TOKEN, estimate

__all__ = [
    "CHARS_PER_TOKEN",
    "LONG_ENOUGH",
    "MARGIN",
    "MOST_FACTOR",
    "Calibration",
    "ContextWindow",
    "estimate",
]

# A single answer corrects the estimate within these bounds, and only where the request was long:
# in a short one the chat template weighs more than the messages.
LEAST_FACTOR, MOST_FACTOR = 0.25, 4.0
LONG_ENOUGH = 2000
# The estimate of a request may be this many times too small.
MARGIN = 1.25
# A window this many times smaller than its endpoint's data say is believed.
PLAUSIBLE = 16


@dataclass(slots=True)
class Calibration:
    """Corrections learned from a server.

    ``factor`` is the tokens for each one that was estimated, ``ceiling`` the estimate that is known
    to be too long.
    """

    factor: float = 1.0
    ceiling: float = math.inf


class ContextWindow:
    """Estimates requests and tells which of them fit.

    Four characters count as a token, corrected by the count that the server reports: the
    calibration is refined in place. An answer may take ``answer_tokens`` of the window.
    """

    def __init__(
        self, tokens: int, answer_tokens: int = 0, calibration: Calibration | None = None
    ) -> None:
        self._all = tokens
        self._tokens = max(tokens - answer_tokens, tokens // 2)
        self._calibration = calibration or Calibration()

    def estimate(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> int:
        """Return about how many tokens a request has."""
        return round(estimate(messages, tools) * self._calibration.factor)

    def fits(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> bool:
        return self.estimate(messages, tools) <= min(self._tokens, self._calibration.ceiling)

    def left(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> int:
        """Return about how many tokens are surely left for the answer."""
        return max(self._all - round(self.estimate(messages, tools) * MARGIN), 0)

    def refuse(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> None:
        """Learn from a request that the server found too long.

        One that is far below the window hit another limit, and teaches nothing.
        """
        estimate = self.estimate(messages, tools)
        if estimate * PLAUSIBLE >= self._tokens:
            self._calibration.ceiling = min(self._calibration.ceiling, estimate * 0.9)

    def learn(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], usage: Usage
    ) -> None:
        """Correct the estimate by the server's own count for this request."""
        count = estimate(messages, tools)
        if usage.prompt_tokens and count >= LONG_ENOUGH:
            factor = usage.prompt_tokens / count
            self._calibration.factor = min(max(factor, LEAST_FACTOR), MOST_FACTOR)
