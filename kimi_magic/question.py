"""What one turn asks, and the request that comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kimi_magic.config import Settings
from kimi_magic.endpoints.catalogue import KIMI_SYSTEM, Endpoint, is_kimi
from kimi_magic.messages import Message

if TYPE_CHECKING:
    from kimi_magic.connect import Line

__all__ = ["Question", "request_body", "system_prompt"]


@dataclass(frozen=True, slots=True)
class Question:
    """What one turn asks, and how; None means: as the settings or the endpoint say.

    Attributes
    ----------
    tools : any
        What ``Toolset`` takes; None: none.
    fresh : bool
        Start the chat anew with it.
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


def system_prompt(question: Question, settings: Settings, model: str) -> tuple[Message, ...]:
    """The question's, else the setting's, else Kimi's own for Kimi models; none where it is ""."""
    system = settings.system if question.system is None else question.system
    if system is None and is_kimi(model):
        system = KIMI_SYSTEM
    return (Message("system", system),) if system else ()


def request_body(question: Question, line: Line, settings: Settings) -> dict[str, Any]:
    """The request but for its messages and tools: the question's word, else the setting, else the
    endpoint's default, else the server's."""
    endpoint, stop = line.endpoint, question.stop
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
    body: dict[str, Any] = {"model": line.model, "stream": question.stream}
    return body | {name: value for name, value in wanted.items() if value is not None}


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)
