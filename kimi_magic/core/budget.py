"""The most that a session may spend: money or tokens, as a person writes it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from kimi_magic.core.messages import Usage
from kimi_magic.core.text import clip

__all__ = ["Budget", "dollars"]

_FORM = re.compile(
    r"(?P<sign>\$)?\s*(?P<number>\d{1,12}(?:\.\d{1,9})?|\d{1,3}(?:,\d{3})+)\s*"
    r"(?:(?P<times>[kKmM])(?![a-z]))?\s*(?P<unit>(?i:usd|dollars?|tokens?))?"
)
MOST = 999_999_999_999.0
LEAST = 0.0001  # dollars that four digits can tell
_TIMES = {"k": 1_000, "m": 1_000_000}


@dataclass(frozen=True, slots=True)
class Budget:
    """So many US dollars, or so many tokens, prompts and answers together."""

    amount: float
    unit: Literal["USD", "tokens"]

    @classmethod
    def of(cls, text: str | None) -> Budget | None:
        """Read a budget such as ``2 USD``, ``$0.50`` or ``500k tokens``; None for no text.

        Raises
        ------
        ValueError
            It is written in no such way.
        """
        if not (text or "").strip():
            return None
        found = _FORM.fullmatch(str(text).strip())
        sign, unit = (found["sign"], (found["unit"] or "").lower()) if found else (None, "")
        is_tokens = unit.startswith("token")
        if found is None or not (sign or unit) or (sign and is_tokens):
            raise ValueError(
                f"a budget is money or tokens, as in '2 USD' or '500k tokens'; got "
                f"{clip(str(text), 40)!r}"
            )
        number = float(found["number"].replace(",", ""))
        amount = number * _TIMES.get((found["times"] or "").lower(), 1)
        return cls(amount, "tokens" if is_tokens else "USD")

    def share_of(self, usage: Usage) -> float:
        """Return what a usage takes of it, in its unit."""
        return usage.cost if self.unit == "USD" else float(usage.total_tokens)

    def said(self, amount: float) -> str:
        """Write an amount of its unit."""
        return dollars(amount) if self.unit == "USD" else f"{amount:,.0f} tokens"

    @property
    def text(self) -> str:
        """The budget as a setting."""
        return f"{_written(self.amount)} USD" if self.unit == "USD" else f"{self.amount:.0f} tokens"

    def raised(self, needed: float) -> Budget:
        """Return a budget of twice what is needed, of twice this one at least."""
        amount = min(2 * max(self.amount, needed), MOST)
        least = 1.0 if self.unit == "tokens" else 0.0
        if amount <= least:
            amount = 100_000.0 if self.unit == "tokens" else 1.0
        return Budget(amount, self.unit)

    def __str__(self) -> str:
        return self.said(self.amount)


def dollars(amount: float) -> str:
    """Write an amount of money to the cent or, where that would say too little, more closely."""
    is_whole = amount >= 1 or round(amount, 2) == amount
    if is_whole:
        return f"${amount:,.2f}"
    return f"${amount:.4f}" if amount >= LEAST else f"${_written(amount)}"


def _written(amount: float) -> str:
    """Write a number without an exponent, which `Budget.of` does not read."""
    return f"{amount:.9f}".rstrip("0").rstrip(".")
