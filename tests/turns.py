"""The beginning and the end of a turn for the tests of the views, and text in pieces."""

from __future__ import annotations

from itertools import pairwise

from kimi_magic.core.events import Event, RequestStarted, TurnFinished, TurnStarted
from kimi_magic.core.messages import Reply

OPENING: tuple[Event, ...] = (TurnStarted("kimi-k2-thinking", "moonshot"), RequestStarted(1))
STOP = TurnFinished(Reply("x", finish_reason="stop"))


def pieces(text: str, cuts: list[int]) -> list[str]:
    """The text in pieces, of which some may be empty; a cut may be any number from 0 on."""
    bounds = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[a:b] for a, b in pairwise(bounds)]
