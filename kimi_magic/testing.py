"""A chat completions server for tests: scripted answers over real HTTP, strict about requests.

It speaks the dialect of one of the servers that host Kimi K2 Thinking, refuses what the real API
refuses, and fails the test when a request was invalid or unexpected or an answer was left over::

    with ScriptedServer() as server:
        server.reply("9.9 is bigger.", reasoning="Compare the tenths first.")
        answer = my_client(base_url=server.base_url).ask("Which one is bigger, 9.11 or 9.9?")

In pytest, ``from kimi_magic.testing import scripted_server`` gives the same as a fixture.
"""

from __future__ import annotations

import asyncio
import http
import json
import re
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, NamedTuple, Self, TypedDict, Unpack

try:
    from aiohttp import web
except ImportError:
    raise ImportError('kimi_magic.testing needs aiohttp: pip install "kimi-magic[test]"') from None

__all__ = ["DIALECTS", "Pace", "Request", "ScriptedServer", "check_messages", "check_request"]

_TEXT = "\0text\0"  # stands for a piece of text in a template
_NONE: Mapping[str, Any] = MappingProxyType({})


class _Dialect(NamedTuple):
    """What tells one server's wire from another's."""

    reasoning: str = "reasoning_content"
    accepts: tuple[str, ...] = ("reasoning_content",)  # keys under which reasoning may come back
    opening: Mapping[str, Any] = MappingProxyType({"role": "assistant", "content": ""})
    delta: Mapping[str, Any] = _NONE  # in each delta
    details: Mapping[str, Any] = _NONE  # beside the reasoning
    choice: Mapping[str, Any] = _NONE  # beside the delta
    chunk: Mapping[str, Any] = _NONE  # beside the choices
    later_call: Mapping[str, Any] = _NONE  # in the deltas of a tool call after its first
    later_function: Mapping[str, Any] = _NONE
    call_id: str = "functions.{name}:{index}"
    whole_calls: bool = False  # one delta a call, without an index
    eager_arguments: bool = False  # a call's first delta holds some of its arguments
    fused_finish: bool = False  # the last delta's chunk carries the finish_reason
    comment: bytes = b""
    cached: Mapping[str, Any] = MappingProxyType({"prompt_tokens_details": {"cached_tokens": 0}})
    usage_in_choice: bool = False
    request_id: str = "X-Request-Id"
    max_temperature: float = 2
    text_only: tuple[str, ...] = ()  # roles whose content may not be a list


_DIALECTS = {
    "moonshot": _Dialect(
        cached={"cached_tokens": 0},
        usage_in_choice=True,
        request_id="Msh-Request-Id",
        max_temperature=1,
    ),
    "vllm": _Dialect(
        reasoning="reasoning",
        accepts=("reasoning",),
        choice={"logprobs": None, "token_ids": None},
        call_id="chatcmpl-tool-{unique}",
        fused_finish=True,
    ),
    "sglang": _Dialect(
        opening={"role": "assistant", "content": "", "reasoning_content": None, "tool_calls": None},
        delta={"role": None, "content": None, "reasoning_content": None, "tool_calls": None},
        choice={"logprobs": None, "matched_stop": None},
        chunk={"usage": None},
        later_call={"id": None, "type": "function"},
        later_function={"name": None},
    ),
    "openrouter": _Dialect(
        reasoning="reasoning",
        accepts=("reasoning", "reasoning_details"),
        delta={"role": "assistant", "content": ""},
        details={"reasoning_details": [{"type": "reasoning.text", "text": _TEXT, "index": 0}]},
        choice={"native_finish_reason": None, "logprobs": None},
        chunk={"provider": "Moonshot AI"},
        call_id="call_{unique}",
        comment=b": OPENROUTER PROCESSING\n\n",
    ),
    "nvidia": _Dialect(
        accepts=("reasoning_content", "reasoning"),
        call_id="chatcmpl-tool-{unique}",
        whole_calls=True,
        request_id="NVCF-REQID",
        text_only=("system", "assistant"),
    ),
    "llamacpp": _Dialect(
        opening={"role": "assistant", "content": None},
        chunk={"system_fingerprint": "b0-unknown"},
        call_id="{unique}",
        eager_arguments=True,
    ),
}
DIALECTS = tuple(_DIALECTS)
"""Names of the dialects that a ScriptedServer speaks."""

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "invalid_authentication_error",
    403: "permission_denied_error",
    404: "resource_not_found_error",
    429: "rate_limit_reached_error",
}


def _error_body(dialect: str, status: int, message: str, kind: str | None) -> dict[str, Any]:
    kind = kind or _ERROR_TYPES.get(status, "server_error")
    match dialect:
        case "nvidia":
            return {"status": status, "title": http.HTTPStatus(status).phrase, "detail": message}
        case "openrouter":
            return {"error": {"message": message, "code": status}, "user_id": "user_1"}
        case "sglang":
            return {"object": "error", "message": message, "type": kind, "code": status}
        case "vllm" | "llamacpp":
            return {"error": {"message": message, "type": kind, "code": status}}
        case _:
            return {"error": {"type": kind, "message": message}}


# ---- what a server refuses

_KEYS = (
    "model messages stream stream_options temperature top_p max_tokens max_completion_tokens seed "
    "stop tools tool_choice parallel_tool_calls response_format n presence_penalty user "
    "frequency_penalty top_k cache_prompt chat_template_kwargs thinking reasoning reasoning_effort"
)
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]{0,63}")
_TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")


def check_request(body: Mapping[str, Any], *, dialect: str = "moonshot") -> list[str]:
    """Say what a server would refuse in the body of a chat completions request.

    Parameters
    ----------
    body : Mapping
        The request as the API knows it.
    dialect : str
        One of `DIALECTS`.

    Returns
    -------
    list of str
        The problems in words; empty for a valid request.
    """
    messages, tools = body.get("messages"), body.get("tools")
    problems = [f"unknown key {key!r}" for key in body if key not in _KEYS.split()]
    problems += _parameters(body, _DIALECTS[dialect].max_temperature)
    problems += check_messages(messages, dialect=dialect)
    last = _dig(messages[-1], "role") if isinstance(messages, list) and messages else "user"
    if last not in ("user", "tool"):
        problems.append(f"the last message must be of role user or tool, not {last!r}")
    problems += _tools([] if tools is None else tools)
    return problems


def check_messages(messages: Any, *, dialect: str = "moonshot") -> list[str]:
    """Say what a server would refuse in a history of messages, as `check_request` does."""
    return list(_history(messages, _DIALECTS[dialect]))


def _dig(value: Any, *keys: str) -> Any:
    """The value under nested keys; None where the way ends."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _json_object(text: Any) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (TypeError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def _parameters(body: Mapping[str, Any], max_temperature: float) -> Iterator[str]:
    given = {key: value for key, value in body.items() if value is not None}
    if not isinstance(given.get("model"), str) or not given["model"]:
        yield "model must be the name of a model"
    for key, high in {"temperature": max_temperature, "top_p": 1}.items():
        number = given.get(key, 0)
        if type(number) not in (int, float) or not 0 <= number <= high:
            yield f"{key} must be a number from 0 to {high}, not {number!r}"
    for key, low in {"max_tokens": 1, "max_completion_tokens": 1, "n": 1, "seed": -(2**63)}.items():
        if type(number := given.get(key, 1)) is not int or number < low:
            yield f"{key} must be an integer of at least {low}, not {number!r}"
    stops = stop if isinstance(stop := given.get("stop", ""), list) else [stop]
    if not all(isinstance(text, str) for text in stops):
        yield f"stop must be a text or a list of texts, not {stop!r}"
    if not isinstance(given.get("stream", False), bool):
        yield f"stream must be true or false, not {given['stream']!r}"
    if "stream_options" in given and given.get("stream") is not True:
        yield "stream_options is only allowed with stream: true"
    if given.get("tool_choice", "auto") not in ("auto", "none"):
        yield "tool_choice must be auto, none or absent while the model thinks"


def _history(messages: Any, flavour: _Dialect) -> Iterator[str]:
    if not isinstance(messages, list) or not messages:
        yield "messages must be a list that is not empty"
        return
    roles = [_dig(message, "role") for message in messages]
    calls = [_dig(message, "tool_calls") for message in messages]
    # The chat template drops the reasoning up to the last final answer and needs it after that.
    answers = [i for i, role in enumerate(roles) if role == "assistant" and calls[i] is None]
    waiting: dict[str, Any] = {}  # call id → name
    seen: set[str] = set()
    for index, message in enumerate(messages):
        if roles[index] not in ("system", "user", "assistant", "tool"):
            problems = [f"role must be system, user, assistant or tool, not {roles[index]!r}"]
        elif roles[index] == "tool":
            problems = [*_content(message, flavour), *_tool_message(message, waiting)]
        else:
            problems = [f"{_UNANSWERED.format(key)}: it must be answered first" for key in waiting]
            waiting.clear()
            problems += _content(message, flavour)
            problems += _calls(calls[index], waiting, seen)
        yield from (f"messages[{index}]: {problem}" for problem in problems)
        in_loop = calls[index] is not None and index > max(answers, default=-1)
        if in_loop and not any(isinstance(message.get(k), str | list) for k in flavour.accepts):
            yield (
                f"thinking is enabled but {flavour.accepts[0]} is missing in assistant tool call "
                f"message at index {index}"
            )
    yield from (f"{_UNANSWERED.format(key)}: no tool message follows" for key in waiting)


_UNANSWERED = "tool_call_id {!r} is not found"


def _content(message: Mapping[str, Any], flavour: _Dialect) -> Iterator[str]:
    role, content, calls = message["role"], message.get("content"), message.get("tool_calls")
    if isinstance(content, list):
        if role in flavour.text_only:
            yield f"content of role {role} must be a text, not a list"
        for part in content:
            if _dig(part, "type") != "text" or not isinstance(_dig(part, "text"), str):
                yield f"content holds {part!r:.60}, but only text parts are read"
            elif not part["text"]:
                yield "text content is empty"
    elif not isinstance(content, str) and not (content is None and calls):
        yield f"content must be a text or a list of text parts, not {content!r:.60}"
    if content in ("", []) and calls:
        yield "text content is empty: leave content out beside tool_calls"
    elif content in ("", []) and role != "tool":
        yield f"the message with role {role!r} must not be empty"


def _tool_message(message: Mapping[str, Any], waiting: dict[str, Any]) -> Iterator[str]:
    call_id, name = message.get("tool_call_id"), message.get("name")
    if not isinstance(call_id, str) or call_id not in waiting:
        yield f"{_UNANSWERED.format(call_id)} among the calls that wait for an answer"
    elif name != (called := waiting.pop(call_id)):
        yield f"name must be that of the tool called, {called!r}, not {name!r}"


def _calls(calls: Any, waiting: dict[str, Any], seen: set[str]) -> Iterator[str]:
    """Problems of an assistant message's calls, which join those waiting and seen."""
    if calls is not None and (not isinstance(calls, list) or not calls):
        yield "tool_calls must be a list that is not empty"
        return
    for call in calls or ():
        call_id, name = _dig(call, "id"), _dig(call, "function", "name")
        if not isinstance(call_id, str) or not call_id or call_id in seen:
            yield f"the id of a tool call must be a text, and unique, not {call_id!r}"
        if _dig(call, "type") != "function" or not _is_name(name):
            yield f"a tool call must be of type function and name it, not {name!r}"
        if _json_object(_dig(call, "function", "arguments")) is None:
            yield f"arguments of {call_id!r} must be the text of a JSON object"
        waiting[str(call_id)] = name
        seen.add(str(call_id))


def _tools(tools: Any) -> Iterator[str]:
    if not isinstance(tools, list) or len(tools) > 128:
        yield "tools must be a list of at most 128"
        return
    names = [_dig(tool, "function", "name") for tool in tools]
    for index, (tool, name) in enumerate(zip(tools, names, strict=True)):
        where, schema = f"tools[{index}]", _dig(tool, "function", "parameters")
        if _dig(tool, "type") != "function" or not _is_name(name):
            yield f"{where}: must be of type function, named like {_NAME.pattern}, not {name!r}"
        if name in names[:index]:
            yield f"{where}: function name {name!r} is duplicated"
        if schema is not None and _dig(schema, "type") != "object":
            yield f'{where}: function.parameters.type is required and must be "object"'
        if schema is not None:
            yield from (f"{where}: {problem}" for problem in _schema(schema, schema, ""))


# Moonshot's own validator (github.com/MoonshotAI/walle) has these rules, and these words.
def _schema(schema: Any, root: Any, path: str, *, typed: bool = False) -> Iterator[str]:
    at = f"At path '{path.lstrip('.') or 'root'}'"
    if not isinstance(schema, Mapping):
        yield f"{at}: schema must be an object, not {schema!r}"
        return
    yield from (f"{at}: {problem}" for problem in _schema_node(schema, root, typed=typed))
    for key in ("properties", "$defs"):
        for name, child in _items(schema.get(key)):
            yield from _schema(child, root, f"{path}.{key}.{name}", typed=True)
    for key in ("anyOf", "oneOf", "allOf"):
        for _, child in _items(schema.get(key)):
            yield from _schema(child, root, f"{path}.{key}", typed=key == "anyOf")
    for key in ("items", "additionalProperties"):
        if key in schema and not (key == "additionalProperties" and isinstance(schema[key], bool)):
            yield from _schema(schema[key], root, f"{path}.{key}")


def _items(inner: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(inner, list):
        return enumerate(inner)
    return inner.items() if isinstance(inner, Mapping) else ()


def _schema_node(schema: Mapping[str, Any], root: Any, *, typed: bool) -> Iterator[str]:
    kind, reference = schema.get("type"), schema.get("$ref")
    if kind is None and typed and "anyOf" not in schema and reference is None:
        yield "type is not defined"
    if any(k not in _TYPES for k in (kind if isinstance(kind, list) else [kind or "null"])):
        yield f"invalid type {kind!r}"
    for key, place in {"anyOf": "anyOf items", "$ref": "the referenced schema"}.items():
        if kind is not None and key in schema:
            rule = f"when using {key}, type should be defined in {place}"
            yield f"{rule} instead of the parent schema"
    way = str(reference).removeprefix("#/").split("/")
    if reference not in (None, "#") and (way[0] != "$defs" or _dig(root, *way) is None):
        yield f"$defs not found for reference: {reference}"
    properties = [name for name, _ in _items(schema.get("properties"))]
    for _, name in _items(schema.get("required")):
        if name not in properties:
            yield f"required property {name!r} is not defined in properties"


# ---- what a server answers


class Pace(TypedDict, total=False):
    """When an answer is sent, and how far.

    Attributes
    ----------
    delay : float
        Seconds before the headers.
    rate : float or None
        Deltas per second; None is the server's own rate.
    stall_after : int or None
        After this many deltas nothing more comes, and the connection stays open.
    cut_after : int or None
        After this many deltas the connection is cut.
    """

    delay: float
    rate: float | None
    stall_after: int | None
    cut_after: int | None


class _Answer(NamedTuple):
    """What goes over the wire; the deltas are what a `Pace` counts."""

    deltas: Sequence[bytes] = ()
    opening: Sequence[bytes] = ()
    closing: Sequence[bytes] = ()
    status: int = 200
    headers: Mapping[str, str] = _NONE
    joined: bool = False  # at full speed, all in one write


def _json_answer(value: Any, status: int = 200, headers: Mapping[str, str] = _NONE) -> _Answer:
    data = _dumps(value).encode()
    about = {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}
    return _Answer(closing=[data], status=status, headers=about)


@dataclass(frozen=True, slots=True)
class _Reply:
    """A completion, which takes the form that a request asks for."""

    flavour: _Dialect
    text: str
    reasoning: str | None
    calls: Sequence[tuple[str | None, str, str]]  # id, name, arguments
    finish_reason: str | None
    usage: Mapping[str, Any] | None

    def answer(self, body: Mapping[str, Any], number: int) -> _Answer:
        """The answer to a request with this body, the ``number``-th of its server."""
        head = {"id": f"chatcmpl-{number}", "object": "chat.completion", "created": 1762387200}
        head |= {"model": body.get("model"), **self.flavour.chunk}
        calls = self._tool_calls(body, number)
        finish = self.finish_reason or ("tool_calls" if calls else "stop")
        usage = self.usage or self._count(body)
        if body.get("stream"):
            head["object"] = "chat.completion.chunk"
            last = {**head, "choices": [], "usage": usage}
            asked = _dig(body, "stream_options", "include_usage")
            return self._stream(head, calls, finish, usage, [_event(last)] if asked else [])
        message = {**self.flavour.delta, "role": "assistant", "content": self.text}
        if self.reasoning is not None:
            message |= json.loads(_dumps(self._thought()).replace(_HOLE, _dumps(self.reasoning)))
        if calls:
            message |= {"content": self.text or None, "tool_calls": calls}
        choice = self._choice(finish, message=message)
        return _json_answer({**head, "choices": [choice], "usage": usage})

    def _stream(
        self, head: dict[str, Any], calls: Any, finish: str, usage: Any, last: list[str]
    ) -> _Answer:
        flavour = self.flavour

        def event(delta: Mapping[str, Any], end: str | None = None) -> str:
            count = {"usage": usage} if end and flavour.usage_in_choice else {}
            choice = self._choice(end, delta={**flavour.delta, **delta})
            return _event({**head, "choices": [{**choice, **count}]})

        def events(delta: Mapping[str, Any], text: str) -> Iterator[str]:
            parts = event(delta).split(_HOLE)
            return (_dumps(piece).join(parts) for piece in _pieces(text))

        deltas = [*events(self._thought(), self.reasoning or "")]
        deltas += events({"content": _TEXT}, self.text)
        deltas += (event({"tool_calls": [call]}) for call in self._call_deltas(calls))
        if flavour.fused_finish and deltas:
            end = f'"finish_reason":{_dumps(finish)}'
            deltas[-1] = deltas[-1].replace('"finish_reason":null', end)
        else:
            last = [event({}, finish), *last]
        comment = flavour.comment
        return _Answer(
            [comment * (i % 8 == 7) + delta.encode() for i, delta in enumerate(deltas)],
            [*([comment] * 2 if comment else []), event(flavour.opening).encode()],
            [*(chunk.encode() for chunk in last), b"data: [DONE]\n\n"],
            headers={"Content-Type": "text/event-stream; charset=utf-8"},
            joined=True,
        )

    def _thought(self) -> dict[str, Any]:
        return {self.flavour.reasoning: _TEXT, **self.flavour.details}

    def _choice(self, finish: str | None, **said: Any) -> dict[str, Any]:
        choice = {"index": 0, **said, **self.flavour.choice, "finish_reason": finish}
        if "native_finish_reason" in choice:
            choice["native_finish_reason"] = finish
        return choice

    def _tool_calls(self, body: Mapping[str, Any], number: int) -> list[dict[str, Any]]:
        # Kimi's ids count over the whole conversation.
        said = [_items(_dig(m, "tool_calls")) for _, m in _items(body.get("messages"))]
        earlier = sum(1 for calls in said for _ in calls)
        made = []
        for index, (given, name, arguments) in enumerate(self.calls, earlier):
            unique = uuid.uuid5(uuid.NAMESPACE_OID, f"{number}:{index}").hex
            call_id = given or self.flavour.call_id.format(name=name, index=index, unique=unique)
            function = {"name": name, "arguments": arguments}
            made.append({"id": call_id, "type": "function", "function": function})
        return made

    def _call_deltas(self, calls: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        if self.flavour.whole_calls:
            yield from calls
            return
        for index, call in enumerate(calls):
            eager = slice(0, int(self.flavour.eager_arguments))
            pieces = _pieces(call["function"]["arguments"])
            function = {"name": call["function"]["name"], "arguments": "".join(pieces[eager])}
            yield {"index": index, **call, "function": function}
            for piece in pieces[eager.stop :]:
                function = {**self.flavour.later_function, "arguments": piece}
                yield {"index": index, **self.flavour.later_call, "function": function}

    def _count(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Usage, with words for tokens."""
        prompt = len(_dumps(body.get("messages")).split())
        said = len(f"{self.reasoning or ''} {self.text} {_dumps(self.calls)}".split())
        usage = {"prompt_tokens": prompt, "completion_tokens": said, "total_tokens": prompt + said}
        return {**usage, **self.flavour.cached}


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _as_json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _event(chunk: Mapping[str, Any]) -> str:
    return f"data: {_dumps(chunk)}\n\n"


_HOLE = _dumps(_TEXT)


def _pieces(text: str) -> list[str]:
    return re.findall(r"\s*\S{1,12}|\s+", text)


# ---- the server


@dataclass(slots=True, eq=False)
class Request:
    """A request that the server received.

    Attributes
    ----------
    number : int
        Its place in the order of arrival, from 1.
    method, path : str
    headers : Mapping
        Their names are found in any case.
    body : dict
        The JSON object that was sent; empty where there was none.
    problems : list of str
        Why it was refused as invalid.
    arrived : float
        When it arrived, in seconds of `time.monotonic`.
    closed : threading.Event
        Set when the client closed the connection before its answer was complete.
    """

    number: int
    method: str
    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]
    problems: list[str] = field(default_factory=list)
    arrived: float = field(default_factory=time.monotonic)
    closed: threading.Event = field(default_factory=threading.Event)

    @property
    def closed_early(self) -> bool:
        """Whether the client closed the connection before its answer was complete."""
        return self.closed.is_set()


@dataclass(frozen=True, slots=True)
class _Entry:
    """A scripted answer and its pace."""

    summary: str
    answer: Callable[[Mapping[str, Any], int], _Answer]
    delay: float = 0.0
    rate: float | None = None
    stall_after: int | None = None
    cut_after: int | None = None


class ScriptedServer:
    """An HTTP server on a loopback port that answers chat completions from a script.

    It runs in a thread of its own inside a ``with`` block. Each scripted answer is for one
    ``POST /v1/chat/completions``, first in, first out; ``GET /v1/models`` is always answered.
    Answers may be scripted at any time, from any thread.

    Parameters
    ----------
    dialect : str
        Whose wire it speaks, one of `DIALECTS`.
    rate : float, optional
        Deltas per second of all answers; None is full speed.
    key : str, optional
        The key that requests must carry; those with another one are answered 401.
    models : sequence of str
        The ids that ``GET /v1/models`` lists.
    strict : bool
        Whether `check_request` decides on requests; ``server.lenient`` is its opposite.

    Attributes
    ----------
    base_url : str
        What a client takes as its base URL.
    requests : list of Request
        All requests so far, in order of arrival.

    Raises
    ------
    AssertionError
        At the end of a ``with`` block that no other exception ends; see `verify`.
    """

    def __init__(
        self,
        dialect: str = "moonshot",
        *,
        rate: float | None = None,
        key: str | None = None,
        models: Sequence[str] = ("kimi-k2-thinking",),
        strict: bool = True,
    ) -> None:
        self._flavour = _DIALECTS[dialect]
        self.dialect, self.rate, self.key, self.models = dialect, rate, key, models
        self.lenient = not strict
        self.base_url = ""
        self.requests: list[Request] = []
        self._script: deque[_Entry] = deque()
        self._complaints: list[str] = []

    def reply(
        self,
        text: str = "",
        *,
        reasoning: str | None = None,
        tool_calls: Iterable[Mapping[str, Any]] = (),
        finish_reason: str | None = None,
        usage: Mapping[str, Any] | None = None,
        **pace: Unpack[Pace],
    ) -> None:
        """Script a completion, sent as a stream or as one JSON body, as the request asks.

        Parameters
        ----------
        text, reasoning : str
            The answer and the thought before it; streamed in word-like pieces, one a delta.
        tool_calls : iterable of Mapping
            Each with ``name`` and ``arguments`` (values, or a JSON text that is sent as it is),
            and with ``id`` to have another one than the dialect's.
        finish_reason : str, optional
            By default ``tool_calls`` or ``stop``.
        usage : Mapping, optional
            By default words are counted.
        **pace
            See `Pace`.
        """
        calls = [(c.get("id"), c["name"], _as_json(c.get("arguments", {}))) for c in tool_calls]
        reply = _Reply(self._flavour, text, reasoning, calls, finish_reason, usage)
        summary = f"reply({text!r:.60}, {len(calls)} tool calls)"
        self._script.append(_Entry(summary, reply.answer, **pace))

    def error(
        self,
        status: int,
        message: str,
        *,
        type: str | None = None,  # noqa: A002 (the API's word)
        headers: Mapping[str, str] | None = None,
        **pace: Unpack[Pace],
    ) -> None:
        """Script a refusal in the dialect's shape.

        Parameters
        ----------
        status : int
            The HTTP status.
        message, type : str
            What the body says; the type goes with the status by default.
        headers : Mapping, optional
            More headers, such as ``Retry-After``.
        **pace
            See `Pace`.
        """
        entry = self._refusal(status, message, type, headers or {})
        self._script.append(replace(entry, **pace))

    def raw(
        self,
        items: Iterable[bytes],
        *,
        content_type: str = "text/event-stream",
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        **pace: Unpack[Pace],
    ) -> None:
        """Script bytes that are sent as they are, one write an item; `Pace` counts the items."""
        about = {"Content-Type": content_type, **(headers or {})}
        answer = _Answer(list(items), status=status, headers=about)
        summary = f"raw({answer.deltas!r:.60})"
        self._script.append(_Entry(summary, lambda *_: answer, **pace))

    def render(self, body: Mapping[str, Any] | None = None) -> list[bytes]:
        """Take the next answer off the script and give its bytes, one item an event.

        Parameters
        ----------
        body : Mapping, optional
            The request to answer; by default one for a stream with usage.
        """
        asked = {"model": self.models[0], "stream": True, "stream_options": {"include_usage": True}}
        answer = self._script.popleft().answer(body or asked, 1)
        return [*answer.opening, *answer.deltas, *answer.closing]

    def verify(self) -> None:
        """Check that everything went as scripted.

        Raises
        ------
        AssertionError
            When a request was invalid or unexpected, or answers are left; it lists them all.
        """
        left = [f"not asked for: {entry.summary}" for entry in self._script]
        if problems := [*self._complaints, *left]:
            raise AssertionError("\n  ".join(["ScriptedServer:", *problems]))

    def __enter__(self) -> Self:
        port: Future[int] = Future()
        run = self._serve(port)
        self._thread = threading.Thread(target=asyncio.run, args=[run], name="ScriptedServer")
        self._thread.daemon = True
        self._thread.start()
        self.base_url = f"http://127.0.0.1:{port.result(timeout=10)}/v1"
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        if error is None:
            self.verify()
        elif self._complaints:
            error.add_note("\n  ".join(["ScriptedServer:", *self._complaints]))

    async def _serve(self, port: Future[int]) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(client_max_size=2**28)
        app.router.add_route("*", "/{path:.*}", self._handle)
        # Without handler_cancellation aiohttp does not tell a handler that its client is gone.
        runner = web.AppRunner(
            app, handler_cancellation=True, access_log=None, shutdown_timeout=0.01
        )
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port.set_result(runner.addresses[0][1])
        await self._stopping.wait()
        await runner.cleanup()

    async def _handle(self, got: web.Request) -> web.StreamResponse:
        body = _json_object(await got.read()) or {}
        request = Request(len(self.requests) + 1, got.method, got.path, got.headers, body)
        self.requests.append(request)
        try:
            return await self._send(got, request, self._entry_for(request))
        except (ConnectionError, asyncio.CancelledError):
            if not self._stopping.is_set():
                request.closed.set()
            raise

    def _entry_for(self, request: Request) -> _Entry:
        where = f"request {request.number}, {request.method} {request.path}"
        if self.key is not None and request.headers.get("Authorization") != f"Bearer {self.key}":
            return self._refusal(401, "Invalid Authentication")
        if (request.method, request.path) == ("GET", "/v1/models"):
            models = [{"id": model, "object": "model", "created": 0} for model in self.models]
            answer = _json_answer({"object": "list", "data": models})
            return _Entry("models", lambda *_: answer)
        if (request.method, request.path) != ("POST", "/v1/chat/completions"):
            return self._refusal(404, f"nothing at {request.path}")
        if not self.lenient:
            request.problems += check_request(request.body, dialect=self.dialect)
        if request.problems:
            self._complaints += (f"{where}: invalid: {problem}" for problem in request.problems)
            return self._refusal(400, "Invalid request: " + "; ".join(request.problems))
        if not self._script:
            self._complaints.append(f"{where}: unexpected: nothing scripted for it")
            return self._refusal(500, "nothing scripted")
        return self._script.popleft()

    def _refusal(
        self, status: int, message: str, kind: str | None = None, headers: Mapping[str, str] = _NONE
    ) -> _Entry:
        body = _error_body(self.dialect, status, message, kind)
        answer = _json_answer(body, status, headers)
        return _Entry(f"error({status}, {message!r:.60})", lambda *_: answer)

    async def _send(self, got: web.Request, request: Request, entry: _Entry) -> web.StreamResponse:
        answer = entry.answer(request.body, request.number)
        await asyncio.sleep(entry.delay)
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        response.headers.setdefault(self._flavour.request_id, f"req-{request.number}")
        await response.prepare(got)
        limit = entry.stall_after if entry.cut_after is None else entry.cut_after
        closing = answer.closing if limit is None else ()
        blocks = [*answer.opening, *answer.deltas[:limit], *closing]
        rate = entry.rate or self.rate
        if answer.joined and not rate:
            blocks = [b"".join(blocks)]
        started = self._loop.time()
        for number, block in enumerate(blocks):
            if rate:
                await asyncio.sleep(max(0, started + number / rate - self._loop.time()))
            await response.write(block)
        if entry.cut_after is not None and got.transport is not None:
            while got.transport.get_write_buffer_size():
                await asyncio.sleep(0.001)
            got.transport.abort()
        elif limit is not None:
            await asyncio.Event().wait()
        return response


try:
    import pytest
except ImportError:
    pass
else:

    @pytest.fixture
    def scripted_server(request: pytest.FixtureRequest) -> Iterator[ScriptedServer]:
        """A running `ScriptedServer`; an indirect parameter names its dialect."""
        with ScriptedServer(getattr(request, "param", "moonshot")) as server:
            yield server
