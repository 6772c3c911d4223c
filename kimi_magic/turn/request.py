"""What one turn asks, and the request that comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kimi_magic.chats.chat import Chat
from kimi_magic.config import APPROVE, Settings, out_of_bounds
from kimi_magic.core.errors import KimiError
from kimi_magic.core.messages import Message
from kimi_magic.wire.endpoints import KIMI_SYSTEM, Endpoint, is_kimi

__all__ = ["GO_ON", "TurnRequest", "make_request", "request_body", "system_prompt"]

GO_ON = "Go on exactly where you stopped; repeat nothing."
KINDS: dict[str, tuple[type, ...]] = {
    "system": (str,),
    "model": (str,),
    "endpoint": (str, Endpoint),
    "temperature": (float, int),
    "top_p": (float, int),
    "max_tokens": (int,),
    "seed": (int,),
    "stop": (str, list, tuple),
    "max_steps": (int,),
    "var_tokens": (int,),
    "approve": (str,),
}


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """What one turn asks, and how; None means: as the settings or the endpoint say.

    Attributes
    ----------
    tools : any
        What ``Toolset`` takes; None: none.
    fresh : bool
        Start the chat anew with it.
    goes_on : bool
        It was made to go on with a turn.
    resumes : bool
        The answer that it goes on with was cut in its text.
    schema : any
        What the answer is to hold: all that ``structured.output_schema`` takes.
    variables : any
        Names of variables, or a mapping of names to values, whose summaries go along.
    expressions : tuple of str
        The expressions whose values stand in the prompt.
    cells : tuple
        Earlier cells that go along.
    var_tokens : int or None
        The longest summary of each of them.
    allow_secrets : bool
        Send also what looks like a key.
    """

    prompt: str | Sequence[Any]
    chat: str | None = None
    tools: Any = None
    system: str | None = None
    model: str | None = None
    endpoint: str | Endpoint | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: str | Sequence[str] | None = None
    stream: bool = True
    max_steps: int | None = None
    approve: str | None = None
    fresh: bool = False
    goes_on: bool = False
    resumes: bool = False
    schema: Any = None
    variables: Any = None
    expressions: tuple[str, ...] = ()
    cells: tuple[Any, ...] = ()
    var_tokens: int | None = None
    allow_secrets: bool = False

    @property
    def continues(self) -> bool:
        """Whether it asks to go on with an answer, and not for one anew."""
        return self.goes_on and self.prompt == GO_ON


def make_request(prompt: Any, *, chat: str | Chat | None = None, **how: Any) -> TurnRequest:
    """Make a question of what the public functions take.

    Raises
    ------
    KimiError
        A value does not fit.
    """
    for name, kinds in KINDS.items():
        value = how.get(name)
        if value is not None and (not isinstance(value, kinds) or isinstance(value, bool)):
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise KimiError(f"{name}= takes {wanted}; got {value!r:.60}.")
        if problem := out_of_bounds(name, value, f"{name}="):
            raise KimiError(problem)
    stop = how.get("stop")
    if stop is not None and not isinstance(stop, str) and not all(map(_is_text, stop)):
        raise KimiError(f"stop= takes a str or several; got {stop!r:.60}.")
    if how.get("approve") not in (None, *APPROVE):
        raise KimiError(f"approve= is one of {', '.join(APPROVE)}; not {how['approve']!r}.")
    if not isinstance(chat, str | Chat | None):
        raise KimiError(f"chat= takes a name or a chat; got {chat!r:.60}.")
    return TurnRequest(prompt, chat=chat.name if isinstance(chat, Chat) else chat, **how)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def system_prompt(question: TurnRequest, settings: Settings, model: str) -> tuple[Message, ...]:
    """The question's, else the setting's, else Kimi's own for Kimi models; none where it is ""."""
    system = settings.system if question.system is None else question.system
    if system is None and is_kimi(model):
        system = KIMI_SYSTEM
    return (Message("system", system),) if system else ()


def request_body(
    question: TurnRequest, endpoint: Endpoint, model: str, settings: Settings
) -> dict[str, Any]:
    """The request but for its messages and tools: the question's word, else the setting, else the
    endpoint's default, else the server's."""
    stop = question.stop
    wanted = {
        "temperature": _first(question.temperature, settings.temperature, endpoint.temperature),
        "top_p": _first(question.top_p, settings.top_p, endpoint.top_p),
        "max_tokens": _first(question.max_tokens, settings.max_tokens, endpoint.max_tokens),
        "seed": _first(question.seed, endpoint.seed),
        "stop": [stop] if isinstance(stop, str) else list(stop) if stop else None,
        "stream_options": {"include_usage": True}
        if question.stream and endpoint.stream_usage
        else None,
    }
    body: dict[str, Any] = {"model": model, "stream": question.stream}
    return body | {name: value for name, value in wanted.items() if value is not None}


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)
