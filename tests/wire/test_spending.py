"""The use of requests, counted while they are sent from many threads, and the budget for it."""

from __future__ import annotations

from typing import Any

import pytest

from kimi_magic.core.budget import Budget
from kimi_magic.core.errors import BudgetSpent
from kimi_magic.core.messages import Completion, Message, ToolCall, Usage
from kimi_magic.wire.endpoints import Endpoint
from kimi_magic.wire.models import Model
from kimi_magic.wire.spending import Meter, Spending, uncounted

LAB = Endpoint("lab", "http://lab/v1", model="m", prices=(1.0, 10.0))
FREE = Endpoint("free", "http://free/v1", model="m")
MODEL = Model("m")


def meter(spending: Spending, budget: str | None = None, **how: Any) -> Meter:
    endpoint = how.pop("endpoint", LAB)
    tokens = how.pop("tokens", 10)
    how = {"asked": "m", "tokens": lambda: tokens, **how}
    return Meter(spending, "main", MODEL.at(endpoint), endpoint, budget=Budget.of(budget), **how)


def answer(prompt: int, completion: int, text: str = "OK") -> Completion:
    usage = MODEL.at(LAB).priced(Usage(prompt, completion, requests=1), LAB)
    return Completion(Message("assistant", text), usage=usage)


def used(spending: Spending) -> Usage:
    return sum(spending.accounts().values(), Usage())


def test_what_was_answered_is_counted_once() -> None:
    spending = Spending()
    first = meter(spending)
    first.begin()
    first.end(answer(100, 20))
    first.end(answer(100, 20))
    failed = meter(spending)
    failed.begin()
    failed.end()
    assert used(spending) == Usage(100, 20, requests=1, cost=(100 + 200) / 1e6)
    ((account, _),) = spending.accounts().items()
    assert (account.chat, account.model, account.endpoint, account.is_priced) == (
        *("main", "m", "lab"),
        True,
    )


def test_an_answer_without_a_count_is_counted_by_its_length() -> None:
    spending = Spending()
    cut = meter(spending, tokens=50)
    cut.begin()
    call = ToolCall("1", "f", "y" * 40)
    cut.end(Completion(Message("assistant", "x" * 80, tool_calls=(call,))))
    assert used(spending) == Usage(50, 30, requests=1, cost=350 / 1e6)


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ("100 tokens", "120 tokens spent, about 30 tokens for the next request"),
        ("0.0003 USD", "$0.0003 spent, about $0.0002 for the next request"),
    ],
)
def test_a_request_that_would_pass_the_budget_is_refused(budget: str, said: str) -> None:
    spending = Spending()
    first = meter(spending, budget)
    first.begin()
    first.end(answer(100, 20))
    with pytest.raises(BudgetSpent) as caught:
        meter(spending, budget).begin()
    assert said in str(caught.value)
    assert "nothing was sent" in str(caught.value)
    assert '%config KimiMagics.budget = "' in str(caught.value)
    with pytest.raises(BudgetSpent):
        spending.check(Budget.of(budget))
    meter(spending, "1M tokens").begin()
    assert len(str(caught.value).splitlines()) == 1


def test_one_that_fits_to_the_token_is_sent() -> None:
    spending = Spending()
    meter(spending, "10 tokens").begin()
    with pytest.raises(BudgetSpent, match="0 tokens spent, 1 request under way, about 10 tokens"):
        meter(spending, "19 tokens").begin()
    meter(spending, "20 tokens").begin()


def test_the_answer_that_is_expected_is_the_mean_of_this_model() -> None:
    spending = Spending()
    for size in (20, 40):
        one = meter(spending)
        one.begin()
        one.end(answer(10, size))
    assert meter(spending).expected(30) == MODEL.at(LAB).priced(Usage(10, 30), LAB)
    assert meter(spending, limit=8).expected(30).completion_tokens == 8
    with pytest.raises(BudgetSpent):
        meter(spending, "119 tokens").begin()  # 80 were used, 40 are expected
    meter(spending, "120 tokens").begin()


def test_money_does_not_count_what_has_no_price() -> None:
    spending = Spending()
    free = meter(spending, "0.01 USD", endpoint=FREE, tokens=10**9)
    free.begin()
    free.end(Completion(Message("assistant", "x"), usage=Usage(10**9, 5, requests=1)))
    ((account, usage),) = spending.accounts().items()
    assert not account.is_priced
    assert usage.cost == 0
    said = uncounted(Budget.of("0.01 USD"), MODEL, FREE, "m")
    assert "prices of m at free are not known" in said
    assert "500k tokens" in said
    for budget, endpoint in (("5 tokens", FREE), ("1 USD", LAB), (None, FREE)):
        assert not uncounted(Budget.of(budget), MODEL.at(endpoint), endpoint, "m")
    assert not uncounted(Budget.of("1 USD"), MODEL, Endpoint("local", ""), "m")
