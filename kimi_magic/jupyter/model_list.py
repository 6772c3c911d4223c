"""The table of ``%kimi models``: what a server offers, what else is known, and their rules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import wrap

from kimi_magic.wire.connector import Connector, Target
from kimi_magic.wire.endpoints import Endpoint
from kimi_magic.wire.models import Model

__all__ = ["describe_models"]

HEAD = ("", "model", "window", "effort", "reads", "$/M in · cached · out")
WIDTH = 120
DEFAULT, NOT_OFFERED = "→", "–"


def describe_models(
    connector: Connector, endpoint: Endpoint, offered: Sequence[str], named: str
) -> tuple[list[tuple[str, ...]], list[str]]:
    """Return the rows of the table, and the lines below it with the rules of the known models.

    The models that the server offers come first, then the records that it does not list. ``named``
    is the model of the settings.
    """
    default = connector.target(endpoint, named).model
    targets = [connector.target(endpoint, model_id) for model_id in offered]
    rows: list[tuple[str, ...]] = [HEAD]
    for model_id, target in zip(offered, targets, strict=True):
        rows.append((DEFAULT if model_id == default else "", model_id, *_facts(target)))
    names = {connector.model_records.get(model_id).name for model_id in offered}
    others = [model for model in connector.model_records if model.name not in names]
    for model in others:
        target = connector.target(endpoint, model.name)
        day = model.ended.get(endpoint.kind)
        status = f"ended on {day}" if day else "not offered here"
        rows.append((NOT_OFFERED, target.model, *_facts(target)[:-1], status))
    listed = [target.record for target in targets if target.record.reasoning != "unknown"]
    known = {model.name: model for model in [*listed, *(other.at(endpoint) for other in others)]}
    return rows, list(_rules(list(known.values())))


def _facts(target: Target) -> tuple[str, ...]:
    """Return what is known of a model, in the columns of the table; empty for a guess."""
    model = target.record
    if model.reasoning == "unknown":
        return ("", "", "", "")
    prices = model.prices_at(target.endpoint)
    return (
        f"{model.context_window:,}",
        ", ".join(model.efforts_at(target.endpoint)),
        ", ".join(model.inputs),
        " · ".join(f"{price:.2f}" for price in (prices[0], prices[2], prices[1])) if prices else "",
    )


def _rules(models: Sequence[Model]) -> Iterator[str]:
    """Yield the rules that models share, each with the names of the models below it."""
    by_rule: dict[str, list[str]] = {}
    for model in models:
        by_rule.setdefault(_rule(model), []).append(model.name)
    for rule, names in by_rule.items():
        yield ""
        yield from wrap(rule, WIDTH)
        yield from wrap(
            ", ".join(names),
            WIDTH,
            initial_indent="   ",
            subsequent_indent="   ",
            break_on_hyphens=False,
        )


def _rule(model: Model) -> str:
    largest = f" up to {model.largest_output:,}" if model.largest_output else ""
    default = f", {model.max_tokens:,} by default" if model.max_tokens else ""
    return "; ".join(
        (
            "Fixed sampling" if model.fixed_sampling else "Free sampling",
            "all reasoning goes back"
            if model.past_reasoning == "all"
            else "reasoning goes back inside a tool loop",
            f"{model.limit_field}{largest}{default}",
        )
    )
