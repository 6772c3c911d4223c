"""Asks for the logarithms of an answer's tokens while the server gives them."""

from __future__ import annotations

from kimi_magic.core.errors import BadRequest, EndpointError
from kimi_magic.core.messages import Completion
from kimi_magic.wire.connector import Target

__all__ = ["LOGPROBS", "LogprobsAsked"]

# OpenAI takes 0 to 20 alternatives, vLLM 20 unless its --max-logprobs says otherwise.
LOGPROBS = {"logprobs": True, "top_logprobs": 5}
LACKING = "{} gives no logprobs here."
UNFIT = "The logprobs that came do not fit the text, or are too many: they are left out."


class LogprobsAsked:
    """The wish of one turn.

    Parameters
    ----------
    target : Target or None
        The model that is asked; None where nobody wants any.
    lacking : set
        The models, by endpoint, that were found to give none: it is added to.
    """

    def __init__(
        self, target: Target | None = None, lacking: set[tuple[str, str, str]] | None = None
    ) -> None:
        self._wanted = target is not None
        self._asked = ("", "", "")
        if target:
            self._asked = (target.endpoint.name, target.endpoint.base_url, target.model)
        self._lacking = set() if lacking is None else lacking
        self._refused = self._sent = self._fitted = self._answered = False

    @property
    def still(self) -> bool:
        """True if the next request is to ask for them."""
        return self._wanted and not self._refused and self._asked not in self._lacking

    def refuse(self, error: EndpointError, *, named: bool = False) -> bool:
        """Return True if the request that was refused may do without them.

        ``named``: only where the server names them.
        """
        if type(error) is not BadRequest or not self.still:
            return False
        if named and "logprobs" not in str(error):
            return False
        self._refused = True
        return True

    def learn(self, completion: Completion) -> None:
        """Note what came with an answer."""
        if not self._wanted or not completion:
            return
        self._answered = True
        self._sent |= completion.sent_logprobs
        self._fitted |= bool(completion.logprobs or completion.reasoning_logprobs)
        if self._refused:  # it was not the rest of the request that was refused
            self._lacking.add(self._asked)

    def conclude(self) -> str:
        """Return the notice, at the turn's end, that there are none; "" where there is no need."""
        if not self._answered or self._fitted:
            return ""
        if self._sent:
            return UNFIT
        self._lacking.add(self._asked)
        return LACKING.format(self._asked[2])
