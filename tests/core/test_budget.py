"""Budgets as a person writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_magic.core.budget import Budget, dollars
from kimi_magic.core.messages import Usage


@pytest.mark.parametrize(
    ("text", "amount", "unit", "said"),
    [
        ("2 USD", 2, "USD", "$2.00"),
        ("$2", 2, "USD", "$2.00"),
        (" 0.50usd ", 0.5, "USD", "$0.50"),
        ("1.5 dollars", 1.5, "USD", "$1.50"),
        ("1,000 USD", 1000, "USD", "$1,000.00"),
        ("500k tokens", 500_000, "tokens", "500,000 tokens"),
        ("1.5M tokens", 1_500_000, "tokens", "1,500,000 tokens"),
        ("1500 token", 1500, "tokens", "1,500 tokens"),
        ("0 tokens", 0, "tokens", "0 tokens"),
    ],
)
def test_forms(text: str, amount: float, unit: str, said: str) -> None:
    budget = Budget.of(text)
    assert budget == Budget(amount, unit)  # type: ignore[arg-type]
    assert str(budget) == said
    assert Budget.of(budget.text) == budget


@pytest.mark.parametrize("text", [None, "", "  "])
def test_none(text: str | None) -> None:
    assert Budget.of(text) is None


@pytest.mark.parametrize(
    "text",
    [
        *("2", "2 EUR", "two USD", "-2 USD", "2,50 USD", "$2 tokens", "nan USD", "inf tokens"),
        *("1e9 USD", "USD", "tokens", "2 USD tokens", "9 9 tokens", "9" * 400 + " USD"),
    ],
)
def test_what_is_no_budget(text: str) -> None:
    with pytest.raises(ValueError, match="as in '2 USD'") as caught:
        Budget.of(text)
    assert len(str(caught.value)) < 150


FORMS = st.from_regex(r"\$? ?[0-9.,]{0,8} ?[kM]? ?(USD|tokens)?", fullmatch=True)


@given(st.text(max_size=20) | FORMS)
def test_any_text_is_a_budget_or_refused(text: str) -> None:
    try:
        budget = Budget.of(text)
    except ValueError:
        return
    assert budget is None or 0 <= budget.amount < float("inf")


def test_what_a_usage_takes() -> None:
    usage = Usage(70, 30, cost=0.25)
    assert Budget(1, "USD").share_of(usage) == 0.25
    assert Budget(1, "tokens").share_of(usage) == 100


@pytest.mark.parametrize("text", ["0 USD", "0.00001 USD", "$2", "500000000000 USD", "0 tokens"])
@pytest.mark.parametrize("needed", [0.0, 0.0000125, 3.0])
def test_the_budget_that_is_advised_is_read_and_allows_more(text: str, needed: float) -> None:
    budget = Budget.of(text)
    assert budget is not None
    raised = Budget.of(budget.raised(needed).text)
    assert raised is not None
    assert raised.amount > budget.amount
    assert raised.amount >= needed or raised.unit == "tokens"


@pytest.mark.parametrize(
    ("amount", "said"), [(0, "$0.00"), (0.00001, "$0.00001"), (0.0125, "$0.0125"), (1.5, "$1.50")]
)
def test_small_amounts_of_money_are_told(amount: float, said: str) -> None:
    assert dollars(amount) == said
