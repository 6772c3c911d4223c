"""Samples of large data: at random, and the same for the same data."""

from __future__ import annotations

import random

__all__ = ["SEED", "positions_at_random"]

SEED = 0


def positions_at_random(start: int, end: int, wanted: int) -> list[int]:
    """Sample positions in ascending order, the same in each run.

    Positions at even distances would show only a part of what repeats itself.
    """
    everything = range(start, end)
    if len(everything) <= wanted:
        return list(everything)
    return sorted(random.Random(SEED).sample(everything, wanted))  # noqa: S311 - no secret
