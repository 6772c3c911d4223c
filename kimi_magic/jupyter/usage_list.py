"""``%kimi usage``: what this session has used, by chat and model."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from kimi_magic.core.budget import Budget, dollars
from kimi_magic.core.messages import Usage
from kimi_magic.core.text import columns
from kimi_magic.wire.spending import Account

__all__ = ["describe_usage"]

NOTHING = "Nothing was used yet in this session."
UNKNOWN_COST = "unknown"
NO_CHAT = "(no chat)"
UNKNOWN = "The prices of {} are not known: give its endpoint prices=, or set a budget in tokens."


def describe_usage(accounts: Mapping[Account, Usage], budget: Budget | None) -> str:
    """Return the list with its sum, and what the budget leaves."""
    if not accounts:
        return "\n".join([NOTHING, *_budget(Usage(), budget)])
    rows = [("chat", "model", "endpoint", "requests", "tokens in", "cached", "out", "cost")]
    rows += [
        (*_names(account), *_figures(used, _cost(used, [account])))
        for account, used in accounts.items()
    ]
    whole = sum(accounts.values(), Usage())
    if len(accounts) > 1:
        rows.append(("in all", "", "", *_figures(whole, _cost(whole, accounts))))
    unknown = dict.fromkeys(
        f"{account.model} at {account.endpoint}" for account in accounts if not account.is_priced
    )
    lines = [columns(rows)]
    lines += [UNKNOWN.format(", ".join(unknown))] if unknown else []
    return "\n".join([*lines, *_budget(whole, budget)])


def _names(account: Account) -> tuple[str, str, str]:
    return account.chat or NO_CHAT, account.model, account.endpoint


def _cost(used: Usage, accounts: Collection[Account]) -> str:
    """Write what accounts cost together, as far as that is known."""
    unknown = [account for account in accounts if not account.is_priced]
    if len(unknown) == len(accounts) and not used.cost:
        return UNKNOWN_COST
    return dollars(used.cost) + (f" + {UNKNOWN_COST}" if unknown else "")


def _figures(used: Usage, cost: str) -> tuple[str, str, str, str, str]:
    counts = (used.requests, used.prompt_tokens, used.cached_tokens, used.completion_tokens)
    requests, sent, cached, answered = (f"{number:,}" for number in counts)
    return requests, sent, cached, answered, cost


def _budget(whole: Usage, budget: Budget | None) -> list[str]:
    if budget is None:
        return []
    left = max(budget.amount - budget.share_of(whole), 0.0)
    return [f"Budget: {budget}, {budget.said(left)} left."]
