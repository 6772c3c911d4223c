"""The request of one turn: a prompt, and every way to ask it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from kimi_magic.chats.chat import Chat, Place
from kimi_magic.config import APPROVE, Settings
from kimi_magic.core.errors import KimiError
from kimi_magic.core.messages import Message
from kimi_magic.wire.endpoints import KIMI_SYSTEM, Endpoint, is_kimi

__all__ = ["TurnRequest", "continuation", "make_request", "parameters", "system_prompt"]

CONTINUE = "Go on exactly where you stopped; repeat nothing."
COMPLETE = ("stop", "content_filter")
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
    "approve": (str,),
}


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """A prompt, and how to ask it; None leaves it to the settings or the endpoint.

    Attributes
    ----------
    prompt : str or sequence of dict
    chat : str or None
        None asks outside of any chat.
    tools : any
        Tools to offer, as ``Toolset`` takes them; None for none.
    stream : bool
    fresh : bool
        Start the chat anew.
    resumed : bool
        Made to continue an earlier turn, or to ask it again.
    cut_in_text : bool
        The answer to continue was cut in its text, so that partial mode can take it up.
    schema : any
        The form of the answer: everything that ``schema.output.output_schema`` takes.
    variables : any
        Names of variables, or a mapping of names to values, whose summaries go along.
    expressions : tuple of str
        The expressions whose values stand in the prompt.
    cells : tuple
        Earlier cells that go along.
    var_tokens : int or None
        Longest summary of a variable or a cell, in tokens.
    allow_secrets : bool
        Send texts that look like keys.
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
    resumed: bool = False
    cut_in_text: bool = False
    schema: Any = None
    variables: Any = None
    expressions: tuple[str, ...] = ()
    cells: tuple[Any, ...] = ()
    var_tokens: int | None = None
    allow_secrets: bool = False

    @property
    def continues(self) -> bool:
        """True if it asks to continue an answer, not for a new one."""
        return self.resumed and self.prompt == CONTINUE


def make_request(prompt: Any, *, chat: str | Chat | None = None, **options: Any) -> TurnRequest:
    """Make a request of the keywords of the public functions.

    Raises
    ------
    KimiError
        A value does not fit.
    """
    for name, kinds in KINDS.items():
        value = options.get(name)
        if value is not None and (not isinstance(value, kinds) or isinstance(value, bool)):
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise KimiError(f"{name}= takes {wanted}; got {value!r:.60}.")
    stop = options.get("stop")
    if stop is not None and not all(isinstance(text, str) for text in stop):
        raise KimiError(f"stop= takes a str or several; got {stop!r:.60}.")
    if options.get("max_steps") is not None and options["max_steps"] < 1:
        raise KimiError(f"max_steps is at least 1; not {options['max_steps']}.")
    if options.get("approve") not in (None, *APPROVE):
        raise KimiError(f"approve= is one of {', '.join(APPROVE)}; not {options['approve']!r}.")
    if not isinstance(chat, str | Chat | None):
        raise KimiError(f"chat= takes a name or a chat; got {chat!r:.60}.")
    return TurnRequest(prompt, chat=chat.name if isinstance(chat, Chat) else chat, **options)


def continuation(chat: Chat, place: Place) -> TurnRequest:
    """Make the request that continues a chat's latest turn, or asks a failed one again.

    Raises
    ------
    KimiError
        There is no such turn, or it came to its end.
    """
    unanswered = chat.unanswered
    if isinstance(unanswered, TurnRequest) and not unanswered.continues:
        return replace(unanswered, resumed=True)
    turns = chat.before(place)
    # The cell was run before: it continues what it continued then.
    own = next((turn.request for turn in chat.turns[len(turns) :]), None)
    if isinstance(own, TurnRequest) and not own.resumed:
        raise KimiError(
            "The turn to continue is this cell's own: run `%kimi continue` in a cell of its own."
        )
    if isinstance(own, TurnRequest) and not own.continues:
        return own
    if not turns:
        raise KimiError(f"The chat {chat.name} has no turn to go on with.")
    latest = turns[-1]
    if latest.reply.error is None and latest.reply.finish_reason == "stop":
        raise KimiError("The latest turn came to its end: ask the next question in a new cell.")
    assert isinstance(latest.request, TurnRequest), "a session's chats keep its requests"
    steps = latest.reply.record.steps
    return replace(
        latest.request,
        prompt=CONTINUE,
        resumed=True,
        cut_in_text=bool(steps) and steps[-1].finish_reason not in COMPLETE,
        fresh=False,
        variables=None,
        cells=(),
        expressions=(),
    )


def system_prompt(request: TurnRequest, settings: Settings, model: str) -> tuple[Message, ...]:
    """Return the request's system prompt, else the setting's, else Kimi's own for Kimi models."""
    system = settings.system if request.system is None else request.system
    if system is None and is_kimi(model):
        system = KIMI_SYSTEM
    return (Message("system", system),) if system else ()


def parameters(
    request: TurnRequest, endpoint: Endpoint, model: str, settings: Settings
) -> dict[str, Any]:
    """Return the body of a request without its messages and tools.

    Each value is the request's, else the setting's, else the endpoint's default; what none of them
    names is left to the server.
    """
    stop = request.stop
    wanted = {
        "temperature": _first(request.temperature, settings.temperature, endpoint.temperature),
        "top_p": _first(request.top_p, settings.top_p, endpoint.top_p),
        "max_tokens": _first(request.max_tokens, settings.max_tokens, endpoint.max_tokens),
        "seed": _first(request.seed, endpoint.seed),
        "stop": [stop] if isinstance(stop, str) else list(stop) if stop else None,
        "stream_options": {"include_usage": True}
        if request.stream and endpoint.stream_usage
        else None,
    }
    body: dict[str, Any] = {"model": model, "stream": request.stream}
    return body | {name: value for name, value in wanted.items() if value is not None}


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)
