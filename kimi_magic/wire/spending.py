"""The use of a session: its requests as they are sent and answered, and the budget for them.

A request is counted when it ends, also one that failed or was stopped, and where it belongs to a
thread, a trajectory or a retry. One that is under way counts with what it is expected to use: so
requests that are sent at once pass a budget by no more than their answers turn out longer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from kimi_magic.core.budget import Budget
from kimi_magic.core.errors import BudgetSpent
from kimi_magic.core.messages import Completion, Usage
from kimi_magic.core.sent import CHARS_PER_TOKEN
from kimi_magic.core.text import count
from kimi_magic.wire.endpoints import Endpoint
from kimi_magic.wire.models import Model

__all__ = ["Account", "Meter", "Spending", "uncounted"]

UNCOUNTED = (
    "The prices of {model} at {endpoint} are not known: the budget of {budget} does not count it. "
    'A budget in tokens does, such as "500k tokens".'
)
SPENT = (
    "The budget of {budget} would be passed, so nothing was sent: {spent} spent{under_way}{more}. "
    '%config KimiMagics.budget = "{raised}" allows more; `%kimi usage` shows what was used.'
)


@dataclass(frozen=True, slots=True)
class Account:
    """Those who share a line of the list: a chat, or none, and a model at an endpoint."""

    chat: str | None
    model: str
    endpoint: str
    is_priced: bool = True  # what it costs is known


class Spending:
    """Counts what was used; safe in threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._used: dict[Account, Usage] = {}
        self._under_way: dict[Meter, int] = {}  # the tokens of the answers that are expected

    def accounts(self) -> dict[Account, Usage]:
        """Return what each account has used, in the order in which they began."""
        with self._lock:
            return dict(self._used)

    def check(self, budget: Budget | None) -> None:
        """Refuse where a budget is used up.

        Raises
        ------
        BudgetSpent
            Nothing of it is left.
        """
        with self._lock:
            if budget and budget.share_of(sum(self._used.values(), Usage())) >= budget.amount:
                raise self._spent(budget, Usage())

    def add(self, account: Account, used: Usage) -> None:
        """Count what was used elsewhere."""
        with self._lock:
            self._used[account] = self._used.get(account, Usage()) + used

    def begin(self, meter: Meter, budget: Budget | None) -> None:
        """Count a request as under way.

        Raises
        ------
        BudgetSpent
            It would pass the budget.
        """
        with self._lock:
            answer = self._answer_of(meter.account)
            if budget:
                expected = meter.expected(answer)
                if self._share(budget) + budget.share_of(expected) > budget.amount:
                    raise self._spent(budget, expected)
            self._under_way[meter] = answer

    def end(self, meter: Meter, used: Usage) -> None:
        """Count a request as over."""
        with self._lock:
            if self._under_way.pop(meter, None) is not None and (used.requests or used.cost):
                self._used[meter.account] = self._used.get(meter.account, Usage()) + used

    def _share(self, budget: Budget) -> float:
        expected = (meter.expected(answer) for meter, answer in self._under_way.items())
        return budget.share_of(sum([*self._used.values(), *expected], Usage()))

    def _answer_of(self, account: Account) -> int:
        """Return the tokens of the answers of this model in the mean; 0 where there is none."""
        tokens = requests = 0
        for other, used in self._used.items():
            if other.model == account.model and other.endpoint == account.endpoint:
                tokens, requests = tokens + used.completion_tokens, requests + used.requests
        return tokens // requests if requests else 0

    def _spent(self, budget: Budget, expected: Usage) -> BudgetSpent:
        spent = budget.share_of(sum(self._used.values(), Usage()))
        under_way, more = len(self._under_way), budget.share_of(expected)
        return BudgetSpent(
            SPENT.format(
                budget=budget,
                spent=budget.said(spent),
                under_way=f", {count(under_way, 'request')} under way" if under_way else "",
                more=f", about {budget.said(more)} for the next request" if more else "",
                raised=budget.raised(max(spent, more)).text,
            )
        )


class Meter:
    """Counts one request.

    Parameters
    ----------
    tokens : callable
        Returns those of the prompt, about; it is called where they are needed.
    limit : int
        The most that the answer may have; 0 where that is not limited.
    """

    def __init__(
        self,
        spending: Spending,
        chat: str | None,
        model: Model,
        endpoint: Endpoint,
        *,
        asked: str,
        tokens: Callable[[], int],
        limit: int = 0,
        budget: Budget | None = None,
    ) -> None:
        is_priced = bool(model.prices_at(endpoint)) or not endpoint.base_url
        self.account = Account(chat, asked, endpoint.name, is_priced)
        self._spending = spending
        self._model = model
        self._endpoint = endpoint
        self._estimate = tokens
        self._limit = limit
        self._budget = budget

    def begin(self) -> None:
        """Note that the request is about to be sent.

        Raises
        ------
        BudgetSpent
            It would pass the budget.
        """
        self._spending.begin(self, self._budget)

    def end(self, completion: Completion | None = None) -> None:
        """Note what came; None for a request that was not sent."""
        self._spending.end(self, self._used(completion) if completion else Usage())

    @cached_property
    def _tokens(self) -> int:
        return self._estimate()

    def expected(self, answer: int) -> Usage:
        """Return what it is expected to use, with an answer of so many tokens."""
        answer = min(answer, self._limit) if self._limit else answer
        return self._model.priced(Usage(self._tokens, answer), self._endpoint)

    def _used(self, completion: Completion) -> Usage:
        """Return what it used: as the server counted, else about as much as has come."""
        usage = completion.usage
        if usage.total_tokens:
            return usage if usage.requests else replace(usage, requests=1)
        message = completion.message
        chars = len(message.text) + len(message.reasoning_text or "")
        chars += sum(len(call.arguments) for call in message.tool_calls)
        used = Usage(self._tokens, chars // CHARS_PER_TOKEN, requests=1, seconds=usage.seconds)
        return self._model.priced(used, self._endpoint)


def uncounted(budget: Budget | None, model: Model, endpoint: Endpoint, asked: str) -> str:
    """Say that a budget of money does not count a model; "" where it does."""
    if budget is None or budget.unit != "USD" or not endpoint.base_url:
        return ""
    if model.prices_at(endpoint):
        return ""
    return UNCOUNTED.format(model=asked, endpoint=endpoint.name, budget=budget)
