"""The dry run of a map: its first prompts, and the tokens and cost to expect."""

from __future__ import annotations

from dataclasses import dataclass

from kimi_magic.batch.checkpoint import Checkpoint
from kimi_magic.batch.questions import Questions
from kimi_magic.batch.rows import Rows
from kimi_magic.core.messages import Usage
from kimi_magic.core.sent import CHARS_PER_TOKEN
from kimi_magic.core.shown import Shown
from kimi_magic.turn.heavy import HeavyTurn, plain_turn

__all__ = ["MapPlan", "plan"]

SHOWN = 3  # prompts
SAMPLED = 200  # rows whose prompts tell the tokens of all


@dataclass(frozen=True, slots=True, repr=False)
class MapPlan(Shown):
    """A map that is not asked yet: its size, its first prompts, and its cost.

    Attributes
    ----------
    rows : int
    to_ask : int
        Rows whose answers are not kept yet; equal ones count once.
    prompts : tuple of str
        The first ones, filled in.
    prompt_tokens : int
        Tokens of all prompts that would be sent, estimated.
    most_tokens : int
        The same with answers as long as they may be; 0 where they have no limit.
    cost, most_cost : float
        US dollars for the prompts, and with the longest answers; 0 where prices are not known.
    """

    rows: int
    to_ask: int
    prompts: tuple[str, ...]
    prompt_tokens: int
    most_tokens: int = 0
    cost: float = 0.0
    most_cost: float = 0.0


def plan(
    rows: Rows, questions: Questions, checkpoint: Checkpoint, *, share: float = 1.0
) -> MapPlan:
    """Fill in the prompts, and send none; an error of a row is raised.

    ``share`` is the part of the prices that is paid.
    """
    seen: set[str] = set()
    prompts: list[str] = []
    chars = sampled = 0
    for row in rows:
        prompt = questions.prompt(row)
        key = questions.key(row, prompt)
        if key in seen or key in checkpoint.found:
            continue
        seen.add(key)
        if sampled < SAMPLED:
            one = plain_turn(questions.ask(prompt))
            text = one.prompt.message.text
            chars, sampled = chars + len(text + (one.request.system or "")), sampled + 1
            prompts += [text] if len(prompts) < SHOWN else []
    one, count = questions.one, 1
    if isinstance(questions.turn, HeavyTurn):
        count = questions.turn.count + 1
    target = one.connector.target(one.endpoint, one.model)
    asked = chars * len(seen) // CHARS_PER_TOKEN // sampled * count if sampled else 0
    limit = one.request.max_tokens or one.settings.max_tokens or target.record.max_tokens or 0
    most = Usage(asked, limit * len(seen) * count)
    priced = target.record.priced
    return MapPlan(
        len(rows),
        len(seen),
        tuple(prompts),
        asked,
        most.total_tokens if limit else 0,
        priced(Usage(asked), one.endpoint).cost * share,
        priced(most, one.endpoint).cost * share if limit else 0.0,
    )
