"""The beginning and the end of a turn, replies, and text as it streams in, for tests of views."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from kimi_magic.core.events import Event, RequestStarted, TurnFinished, TurnStarted
from kimi_magic.core.messages import Step, as_reasoning
from kimi_magic.core.reply import Reply
from kimi_magic.core.turn_record import TurnRecord

OPENING: tuple[Event, ...] = (TurnStarted("kimi-k2-thinking", "moonshot"), RequestStarted(1))


def make_reply(
    text: str = "",
    reasoning: str = "",
    *,
    steps: Sequence[Step] = (),
    error: BaseException | None = None,
    data: Any = None,
    **record: Any,
) -> Reply:
    """Return a reply of some steps, the last of which answers."""
    last = Step(text, as_reasoning(reasoning) or ())
    steps = (*steps[:-1], last) if text or reasoning else tuple(steps)
    return Reply(TurnRecord(steps, **record), data, error)


STOP = TurnFinished(make_reply("x", finish_reason="stop"))


def pieces(text: str, cuts: list[int]) -> list[str]:
    """The text in pieces, of which some may be empty; a cut may be any number from 0 on."""
    bounds = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[a:b] for a, b in pairwise(bounds)]
