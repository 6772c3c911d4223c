"""The request of one turn: a prompt, and every way to ask it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from kimi_magic.chats.chat import Chat, Place
from kimi_magic.chats.history import with_reasoning
from kimi_magic.config import APPROVE, EFFORTS, Settings, out_of_bounds
from kimi_magic.core.errors import KimiError
from kimi_magic.core.messages import ImagePart, Message, Part, TextPart, as_content
from kimi_magic.core.reply import Reply
from kimi_magic.core.sent import Attached
from kimi_magic.core.turn_record import TurnRecord
from kimi_magic.wire.connector import Connector, Target
from kimi_magic.wire.endpoints import Endpoint
from kimi_magic.wire.models import Model
from kimi_magic.wire.spending import uncounted

__all__ = [
    "CONTINUE",
    "ELSEWHERE",
    "TurnRequest",
    "again",
    "answered",
    "as_seen",
    "check_heavy",
    "check_images",
    "continuation",
    "earlier_messages",
    "first",
    "judge_request",
    "left_out",
    "make_request",
    "parameters",
    "request_of",
    "system_prompt",
]

CONTINUE = "Go on exactly where you stopped; repeat nothing."
# Stands for an endpoint that is not known here: of a model it has the facts that hold anywhere.
ELSEWHERE = Endpoint("elsewhere", "http://localhost/v1")
COMPLETE = ("stop", "content_filter")
KINDS: dict[str, tuple[type, ...]] = {
    "system": (str,),
    "model": (str,),
    "endpoint": (str, Endpoint),
    "effort": (str,),
    "temperature": (float, int),
    "top_p": (float, int),
    "max_tokens": (int,),
    "seed": (int,),
    "stop": (str, list, tuple),
    "max_steps": (int,),
    "var_tokens": (int,),
    "var_rows": (int,),
    "approve": (str,),
    "heavy": (int,),
    "judge": (str,),
    "until_agree": (int,),
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
    no_history : bool
        Keep the turn nowhere: neither in a journal nor in the notebook's metadata.
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
    attached : tuple of Attached
        What is told of these values.
    filled : tuple of str
        The texts of those values that are data, rather than a word or a number.
    cells : tuple
        Earlier cells that go along.
    images : tuple of ImagePart
        Image files that go along.
    var_tokens : int or None
        Longest summary of a variable or a cell, in tokens.
    var_rows : int or None
        Most rows of a table in a summary; 0 for names, types and counts alone.
    allow_secrets : bool
        Send texts that look like keys.
    heavy : int or None
        How many trajectories there are, which are then aggregated; None for a turn of one.
    judge : str or None
        The model that aggregates, as ``MODEL``, ``MODEL@ENDPOINT`` or ``@ENDPOINT``.
    until_agree : int or None
        Stop when so many trajectories came to the same answer.
    equal : callable or None
        Compares the answers of two trajectories.
    attempts : tuple of Reply
        Trajectories that are there already, to be aggregated.
    logprobs : bool or None
        Ask how likely each token was.
    typed : str
        The prompt as it was typed, before its templates were filled in; "" for the prompt itself.
    sweep : str
        The mark of the row of a sweep that asks.
    """

    prompt: str | Sequence[Any]
    chat: str | None = None
    tools: Any = None
    system: str | None = None
    model: str | None = None
    endpoint: str | Endpoint | None = None
    effort: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: str | Sequence[str] | None = None
    stream: bool = True
    max_steps: int | None = None
    approve: str | None = None
    fresh: bool = False
    no_history: bool = False
    resumed: bool = False
    cut_in_text: bool = False
    schema: Any = None
    variables: Any = None
    expressions: tuple[str, ...] = ()
    attached: tuple[Attached, ...] = ()
    filled: tuple[str, ...] = ()
    cells: tuple[Any, ...] = ()
    images: tuple[ImagePart, ...] = ()
    var_tokens: int | None = None
    var_rows: int | None = None
    allow_secrets: bool = False
    heavy: int | None = None
    judge: str | None = None
    until_agree: int | None = None
    equal: Callable[[Any, Any], bool] | None = None
    attempts: tuple[Reply, ...] = ()
    logprobs: bool | None = None
    typed: str = ""
    sweep: str = ""

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
        if problem := out_of_bounds(name, value, f"{name}="):
            raise KimiError(problem)
    stop = options.get("stop")
    if stop is not None and not all(isinstance(text, str) for text in stop):
        raise KimiError(f"stop= takes a str or several; got {stop!r:.60}.")
    if options.get("approve") not in (None, *APPROVE):
        raise KimiError(f"approve= is one of {', '.join(APPROVE)}; not {options['approve']!r}.")
    if options.get("effort") not in (None, *EFFORTS):
        raise KimiError(f"effort= is one of {', '.join(EFFORTS)}; not {options['effort']!r:.60}.")
    if not callable(options.get("equal", callable)) and options["equal"] is not None:
        raise KimiError(f"equal= takes a function of two answers; got {options['equal']!r:.60}.")
    if not isinstance(options.get("logprobs"), bool | None):
        raise KimiError(f"logprobs= takes True or False; got {options['logprobs']!r:.60}.")
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
    request = again(latest.request, latest.reply.trajectories)
    if request.attempts and not latest.reply.text.strip():  # nothing yet to go on from
        return replace(request, resumed=True, fresh=False)
    if request.heavy or request.attempts:  # whoever aggregated goes on
        request = judge_request(request)
    return replace(
        request,
        prompt=CONTINUE,
        typed=request.typed or Message("user", as_content(request.prompt)).text,
        resumed=True,
        cut_in_text=bool(steps) and steps[-1].finish_reason not in COMPLETE,
        fresh=False,
        variables=None,
        cells=(),
        images=(),
        expressions=(),
        attached=(),
        filled=(),
    )


def request_of(record: TurnRecord, connector: Connector, settings: Settings) -> TurnRequest:
    """Make the request that asks a stored turn again, as far as its record tells.

    The endpoint and the tools are those that have the same names here. What the settings or the
    model would choose as well is left to them.
    """
    sent = record.parameters
    endpoint = connector.catalogue.of(record.endpoint)
    fields: dict[str, Any] = {"stream": sent.get("stream") is not False}
    named = sent.get("model")
    named = named.strip() if isinstance(named, str) else ""
    if named:
        fields |= _chosen(record, connector.target(endpoint or ELSEWHERE, named), settings)
        if endpoint is not None:
            by_default = connector.target(endpoint, settings.model).model
            fields |= {"endpoint": endpoint.name, "model": None if named == by_default else named}
    asked = record.messages[record.sent - 1] if 0 < record.sent <= len(record.messages) else None
    prompt: str | list[Any] = record.prompt
    if asked is not None and asked.content and asked.text != record.prompt:  # with summaries
        whole = asked.content
        prompt = whole if isinstance(whole, str) else [part.to_dict() for part in whole]
    return TurnRequest(
        prompt,
        chat=record.chat,
        tools=_OfferedNow(names) if (names := _tool_names(sent)) else None,
        fresh=record.fresh,
        resumed=prompt == CONTINUE,
        **fields,
    )


def _chosen(record: TurnRecord, target: Target, settings: Settings) -> dict[str, Any]:
    """Return the fields of a request that its record tells, and no default would give."""
    sent, model, endpoint = record.parameters, target.record, target.endpoint
    plain = parameters(TurnRequest(""), target, settings)
    names = {"temperature": "temperature", "top_p": "top_p", "seed": "seed", "stop": "stop"}
    names[model.limit_field] = "max_tokens"
    found = {
        names[name]: value
        for name, value in sent.items()
        if name in names and value != plain.get(name)
    }
    for effort in EFFORTS:
        with suppress(KimiError):
            asked = model.effort(effort, endpoint).items()
            if asked and asked <= sent.items() and not asked <= plain.items():
                found["effort"] = effort
    system = tuple(message for message in record.messages[:1] if message.role == "system")
    if system != system_prompt(TurnRequest(""), settings, model):
        found["system"] = system[0].text if system else ""
    if (schema := _answer_schema(sent)) is not None:
        found["schema"] = schema
    with suppress(KimiError):  # a value that no request may have: the record was changed
        make_request("", **found)
        return found
    return {}


def _answer_schema(sent: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the JSON Schema that the answer was held to, where the request held one."""
    form: Any = sent.get("response_format")
    for name in ("json_schema", "schema"):
        form = form.get(name) if isinstance(form, Mapping) else None
    with suppress(RecursionError):  # of somebody who nests it too deeply
        return _in_order(form) if isinstance(form, dict) else None
    return None


def _in_order(schema: Any) -> Any:
    """Return a schema with its properties in the order of ``required``, in which they are answered.

    A notebook does not keep it: nbformat sorts the keys of what it writes.
    """
    if isinstance(schema, list | tuple):
        return [_in_order(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    ordered = {name: _in_order(value) for name, value in schema.items()}
    properties, required = ordered.get("properties"), ordered.get("required")
    if isinstance(properties, dict) and isinstance(required, list):
        first = {n: properties[n] for n in required if isinstance(n, str) and n in properties}
        ordered["properties"] = first | properties
    return ordered


def _tool_names(sent: Mapping[str, Any]) -> frozenset[str]:
    listed = sent.get("tools")
    tools = listed if isinstance(listed, list | tuple) else ()
    functions = (tool.get("function") for tool in tools if isinstance(tool, Mapping))
    names = (function.get("name") for function in functions if isinstance(function, Mapping))
    return frozenset(name for name in names if isinstance(name, str))


class _OfferedNow:
    """The tools of some names that every cell offers at the moment of asking.

    Only those: a record may come from somebody else, and names nothing that the user does not
    offer.
    """

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    def __iter__(self) -> Iterator[Any]:
        from kimi_magic.tools.decorator import offered

        return (spec for spec in offered if spec.name in self._names)


def system_prompt(request: TurnRequest, settings: Settings, model: Model) -> tuple[Message, ...]:
    """Return the request's system prompt, else the setting's, else the model's own."""
    system = settings.system if request.system is None else request.system
    if system is None:
        system = model.system
    return (Message("system", system),) if system else ()


def parameters(request: TurnRequest, target: Target, settings: Settings) -> dict[str, Any]:
    """Return the body of a request without its messages and tools.

    Each value is the request's, else the setting's, else the endpoint's or the model's default;
    what none of them names is left to the server.

    Raises
    ------
    KimiError
        The model has no such effort.
    """
    endpoint, model = target.endpoint, target.record
    stop = request.stop
    wanted: dict[str, Any] = {}
    if not model.fixed_sampling:
        wanted = {
            "temperature": first(request.temperature, settings.temperature, model.temperature),
            "top_p": first(request.top_p, settings.top_p, model.top_p),
        }
    wanted |= {
        model.limit_field: first(request.max_tokens, settings.max_tokens, model.max_tokens),
        "seed": first(request.seed, endpoint.seed),
        "stop": [stop] if isinstance(stop, str) else list(stop) if stop else None,
        "stream_options": {"include_usage": True}
        if request.stream and endpoint.stream_usage
        else None,
    }
    body: dict[str, Any] = {"model": target.model, "stream": request.stream}
    body |= {name: value for name, value in wanted.items() if value is not None}
    return {**body, **_effort(request, target, settings)}


def left_out(request: TurnRequest, target: Target, settings: Settings) -> list[str]:
    """Return notices of what the user set and the model does not take."""
    model, notices = target.record, []
    given = {
        "temperature": first(request.temperature, settings.temperature),
        "top_p": first(request.top_p, settings.top_p),
    }
    names = [name for name, value in given.items() if value is not None]
    if model.fixed_sampling and names:
        verb = "are" if len(names) > 1 else "is"
        notices.append(f"{model.name} fixes its sampling: {' and '.join(names)} {verb} left out.")
    if request.effort is None and settings.effort:
        try:
            model.effort(settings.effort, target.endpoint)
        except KimiError as error:
            notices.append(f"The setting effort is left out: {str(error).partition(':')[0]}.")
    if why := uncounted(settings.most_spent, model, target.endpoint, target.model):
        notices.append(why)
    return notices


def answered(trajectories: Sequence[Reply]) -> tuple[Reply, ...]:
    """Return the trajectories that came to an answer."""
    return tuple(each for each in trajectories if each.error is None and each.text.strip())


def again(request: TurnRequest, trajectories: Sequence[Reply]) -> TurnRequest:
    """Return the request that takes up a turn in which no answer came.

    Where two of its trajectories came to one, these are aggregated; else all are asked again.
    """
    ended = answered(trajectories)
    return replace(request, attempts=ended if len(ended) > 1 else ())


def check_heavy(request: TurnRequest) -> None:
    """Refuse what only heavy mode has where it is not asked for, and an agreement of too many.

    Raises
    ------
    KimiError
        It says what to give.
    """
    if request.attempts:  # an earlier turn's, which was checked
        return
    for name in ("judge", "until_agree", "equal"):
        option = f"--{name.replace('_', '-')}"
        if getattr(request, name) is not None and request.heavy is None:
            given = f"{name}=" if name == "equal" else f"{name}= or {option}"
            raise KimiError(f"{given} is for heavy mode: add heavy=N, or --heavy to the cell.")
    if request.until_agree is not None and request.until_agree > (request.heavy or 0):
        raise KimiError(
            f"{request.until_agree} trajectories cannot agree: there are {request.heavy}. "
            "Lower --until-agree or raise --heavy."
        )


def judge_request(request: TurnRequest) -> TurnRequest:
    """Return the request that the aggregation is prepared from, which is one of a plain turn.

    Raises
    ------
    KimiError
        The judge is not of the form ``MODEL@ENDPOINT``.
    """
    alone = replace(
        request, tools=None, heavy=None, judge=None, until_agree=None, equal=None, attempts=()
    )
    if request.judge is None:
        return alone
    model, at, endpoint = request.judge.strip().rpartition("@")
    model, endpoint = (model, endpoint) if at else (endpoint, "")
    if not (model or endpoint) or " " in request.judge.strip():
        raise KimiError(
            f"A judge is MODEL, MODEL@ENDPOINT or @ENDPOINT; got {request.judge!r:.60}."
        )
    if not endpoint:
        return replace(alone, model=model)
    return replace(alone, model=model or None, endpoint=endpoint)


def as_seen(messages: Iterable[Message], model: Model) -> Iterator[Message]:
    """Yield messages with pictures only where the model sees, else with what stands for them.

    A model of which nothing is known gets those that have no text in their place.
    """
    for message in messages:
        if model.sees or not message.images:
            yield message
            continue
        known = model.reasoning != "unknown"
        parts: list[Part] = [
            TextPart(part.text) if isinstance(part, ImagePart) and (part.instead or known) else part
            for part in message.content or ()
            if not isinstance(part, str)
        ]
        yield replace(message, content=tuple(parts))


def earlier_messages(
    chat: Chat, place: Place, model: Model, *, fresh: bool = False, reasoning_key: str = ""
) -> tuple[Message, ...]:
    """Return the messages of a chat before a turn at this place, in the form that the model takes.

    ``reasoning_key`` is the field in which its server reads past reasoning; "" keeps each as it is.
    """
    history = chat.history(place, fresh=fresh, keep_ids=model.call_ids == "server")
    seen = as_seen(history, model)
    return tuple(with_reasoning(seen, key=reasoning_key) if model.past_reasoning == "all" else seen)


def check_images(request: TurnRequest, model: Model) -> None:
    """Refuse images that the user sends to a model that is known not to see.

    Raises
    ------
    KimiError
        It names a model that sees.
    """
    if model.sees or model.reasoning == "unknown":
        return
    sent = list(request.images)
    if not isinstance(request.prompt, str):
        sent += Message("user", as_content(request.prompt)).images
    if any(not image.instead for image in sent):
        raise KimiError(
            f"{model.name} reads no images: leave the image out, or ask a model that does, such as "
            "`-m kimi-k3`."
        )


def _effort(request: TurnRequest, target: Target, settings: Settings) -> Mapping[str, Any]:
    """Return the fields that ask for an effort; one of the settings gives way without an error."""
    if request.effort is not None:
        return target.record.effort(request.effort, target.endpoint)
    if settings.effort:
        with suppress(KimiError):
            return target.record.effort(settings.effort, target.endpoint)
    return {}


def first(*values: Any) -> Any:
    """Return the first value that somebody chose; None where nobody did."""
    return next((value for value in values if value is not None), None)
