"""Tokens of an answer, and how likely they and others were."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from kimi_magic.core.shown import Shown, short_html, short_repr

__all__ = ["Alternative", "TokenLogprob"]


class Alternative(NamedTuple):
    """A token that could have stood in the place of another, with its logarithm."""

    token: str
    logprob: float

    def __repr__(self) -> str:
        return short_repr(self)

    def _repr_html_(self) -> str:
        return short_html(self)

    @property
    def probability(self) -> float | None:
        return _probability(self.logprob)


@dataclass(frozen=True, slots=True, repr=False)
class TokenLogprob(Shown):
    """A token of an answer, and how likely it was.

    Attributes
    ----------
    token : str
        Its text. A character that several tokens make is in the last of them.
    logprob : float or None
        The natural logarithm of its probability; None where the server gave none, as for a text
        that the server's template began. -9999 stands for any that is about 0 (OpenAI API
        reference, *logprobs*).
    alternatives : tuple of Alternative
        The likeliest tokens at this place, itself among them if it is one.
    """

    token: str
    logprob: float | None = None
    alternatives: tuple[Alternative, ...] = ()

    @property
    def probability(self) -> float | None:
        return None if self.logprob is None else _probability(self.logprob)


def _probability(logprob: float) -> float | None:
    """Return the probability of a logarithm; None for what is no logarithm of one."""
    return None if math.isnan(logprob) else math.exp(min(logprob, 0.0))
