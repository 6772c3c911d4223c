"""A turn as plain data, which a journal, a notebook or a tape can store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from kimi_magic.core.errors import KimiError
from kimi_magic.core.interrupts import whole_imports
from kimi_magic.core.messages import Message, Step, Usage

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = ["EndpointFacts", "Failure", "TurnRecord"]

VERSION = 1


@dataclass(frozen=True, slots=True)
class EndpointFacts:
    """The endpoint that a turn was sent to; ``base_url`` is empty for the embedded engine.

    The values of ``headers`` name environment variables, as ``${NAME}``, and hold nothing of them.
    """

    name: str
    base_url: str = ""
    key_env: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failure:
    """The error that ended a turn: the name of its class, and its message."""

    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """Everything about a turn that is data.

    Live objects stay outside: the values that tools returned, their functions, the answer as an
    instance of the user's own class, the exception. ``Reply`` holds those.

    Attributes
    ----------
    steps : tuple of Step
        Their tool results carry no ``value``.
    messages : tuple of Message
        The conversation: what the first request held, and what came of it.
    sent : int
        Count of the messages that the first request held. In partial mode it held the last two of
        them as one.
    usage : Usage
        Summed over all requests, discarded ones included.
    finish_reason : str or None
        See ``Reply``.
    model : str
    chat : str or None
    parameters : mapping
        What the request that gave the answer held beside its messages, its ``response_format``
        included, and the tools that were offered before.
    endpoint : EndpointFacts or None
        None where the turn never had one.
    data : any
        The answer as JSON data, where a schema was asked for.
    failure : Failure or None
    """

    steps: tuple[Step, ...] = ()
    messages: tuple[Message, ...] = ()
    sent: int = 0
    usage: Usage = field(default_factory=Usage)
    finish_reason: str | None = None
    model: str = ""
    chat: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    endpoint: EndpointFacts | None = None
    data: Any = None
    failure: Failure | None = None

    @property
    def text(self) -> str:
        """The final answer, or as much of it as arrived."""
        return self.steps[-1].text if self.steps else ""

    @property
    def reasoning(self) -> str:
        """The reasoning of all steps, in order."""
        return "\n\n".join(step.reasoning for step in self.steps if step.reasoning)

    @property
    def exchange(self) -> tuple[Message, ...]:
        """The prompt and what came of it, as later requests of the chat repeat it.

        Empty where nothing came: a prompt without an answer is not repeated.
        """
        own = self.messages[max(self.sent - 1, 0) :]
        return own if len(own) > 1 else ()

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON data; fields that have their default are left out."""
        data: dict[str, Any] = _adapter().dump_python(self, mode="json", exclude_defaults=True)
        return {"version": VERSION} | data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TurnRecord:
        """Read what ``to_dict`` wrote; unknown fields are ignored.

        Raises
        ------
        KimiError
            It is no record of a turn, or one that a newer version wrote.
        """
        with whole_imports():
            from pydantic import ValidationError

        version = data.get("version")
        if not isinstance(version, int):
            raise KimiError("This is no record of a turn: it has no version.")
        if version > VERSION:
            raise KimiError(
                f"A newer kimi-magic wrote this record (version {version}; this one reads "
                f"{VERSION}).\nUpdate with `pip install -U kimi-magic`."
            )
        try:
            return _adapter().validate_python({k: v for k, v in data.items() if k != "version"})
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"]))
            raise KimiError(f"This is no record of a turn: {where} does not fit.") from None


@cache
def _adapter() -> TypeAdapter[TurnRecord]:
    with whole_imports():
        from pydantic import TypeAdapter

        return TypeAdapter(TurnRecord)
