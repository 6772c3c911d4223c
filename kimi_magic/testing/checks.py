"""The checks that a server makes of a request."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from kimi_magic.testing.dialects import BY_NAME, Dialect, dig, items, json_object

_KEYS = (
    "model messages stream stream_options temperature top_p max_tokens max_completion_tokens seed "
    "stop tools tool_choice parallel_tool_calls response_format n presence_penalty user "
    "frequency_penalty top_k cache_prompt chat_template_kwargs thinking reasoning reasoning_effort "
    "logprobs top_logprobs"
)
NO_LOGPROBS = "logprobs is not supported by this model"
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]{0,63}")
_IMAGE = re.compile(r"data:image/(?:png|jpeg|webp|gif);base64,[A-Za-z0-9+/]+=*$")
_TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")


def check_request(body: Mapping[str, Any], *, dialect: str = "moonshot") -> list[str]:
    """List what a server would refuse in the body of a chat completions request.

    Parameters
    ----------
    body : Mapping
        The request, as sent to the API.
    dialect : str
        One of `DIALECTS` or `K3_DIALECTS`.

    Returns
    -------
    list of str
        One sentence a problem; empty for a valid request.
    """
    messages, tools = body.get("messages"), body.get("tools")
    problems = [f"unknown key {key!r}" for key in body if key not in _KEYS.split()]
    problems += _parameters(body, BY_NAME[dialect])
    problems += _logprobs(body, BY_NAME[dialect])
    problems += _k3_parameters(body) if BY_NAME[dialect].k3 else ()
    problems += check_messages(messages, dialect=dialect)
    problems += _ending(body, BY_NAME[dialect])
    problems += _tools([] if tools is None else tools)
    return problems


def check_messages(messages: Any, *, dialect: str = "moonshot") -> list[str]:
    """List what a server would refuse in a history of messages, as `check_request` does."""
    return list(_history(messages, BY_NAME[dialect]))


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def _parameters(body: Mapping[str, Any], flavour: Dialect) -> Iterator[str]:
    given = {key: value for key, value in body.items() if value is not None}
    if not isinstance(given.get("model"), str) or not given["model"]:
        yield "model must be the name of a model"
    for key, high in {"temperature": flavour.max_temperature, "top_p": 1}.items():
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
    choices = ("auto", "none", "required") if flavour.k3 else ("auto", "none")
    if given.get("tool_choice", "auto") not in choices:
        yield f"tool_choice must be {', '.join(choices)} or absent while the model thinks"


def _logprobs(body: Mapping[str, Any], flavour: Dialect) -> Iterator[str]:
    asked, top = body.get("logprobs") or False, body.get("top_logprobs") or 0
    if not isinstance(asked, bool):
        yield f"logprobs must be true or false, not {asked!r}"
    elif asked and flavour.refuses_logprobs:
        yield NO_LOGPROBS
    if type(top) is not int or not 0 <= top <= 20 or (top and not asked):
        yield f"top_logprobs must be an integer from 0 to 20, beside logprobs: true, not {top!r}"


def _k3_parameters(body: Mapping[str, Any]) -> Iterator[str]:
    given = {key: value for key, value in body.items() if value is not None}
    fixed = {"temperature": 1, "top_p": 0.95, "n": 1, "presence_penalty": 0, "frequency_penalty": 0}
    for key, value in fixed.items():
        if given.get(key, value) != value:
            yield f"invalid {key}: only {value} is allowed for this model"
    if given.get("reasoning_effort", "max") not in ("low", "high", "max"):
        yield f"reasoning_effort must be low, high or max, not {given['reasoning_effort']!r}"
    if "thinking" in given:
        yield "thinking is not supported by this model: use reasoning_effort"
    limit = given.get("max_completion_tokens", given.get("max_tokens", 1))
    if isinstance(limit, int) and limit > 131_072:
        yield "max_completion_tokens must be at most 131072"


def _ending(body: Mapping[str, Any], flavour: Dialect) -> Iterator[str]:
    """Check the role of the last message, and that the model may continue it if it is partial."""
    messages = body.get("messages")
    begun = [message for _, message in items(messages) if dig(message, "partial") is not None]
    last = messages[-1] if isinstance(messages, list) and messages else {"role": "user"}
    role = dig(last, "role")
    if not begun:
        if role not in ("user", "tool"):
            yield f"the last message must be of role user or tool, not {role!r}"
    elif not flavour.partial_mode:
        yield "there is no partial mode"
    elif begun != [last] or role != "assistant" or last["partial"] is not True:
        yield "partial is true, in a last message of role assistant"
    elif "response_format" in body:
        yield "partial is for plain text, not with a response_format"


def _history(messages: Any, flavour: Dialect) -> Iterator[str]:
    if not isinstance(messages, list) or not messages:
        yield "messages must be a list that is not empty"
        return
    roles = [dig(message, "role") for message in messages]
    calls = [dig(message, "tool_calls") for message in messages]
    # Kimi's chat template drops reasoning up to the last final answer, and needs it after that.
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
        needs_reasoning = roles[index] == "assistant" if flavour.k3 else in_loop
        if needs_reasoning and not any(
            isinstance(message.get(k), str | list) for k in flavour.accepts
        ):
            yield (
                f"thinking is enabled but {flavour.accepts[0]} is missing in assistant "
                f"{'' if flavour.k3 else 'tool call '}message at index {index}"
            )
    yield from (f"{_UNANSWERED.format(key)}: no tool message follows" for key in waiting)


_UNANSWERED = "tool_call_id {!r} is not found"


def _content(message: Mapping[str, Any], flavour: Dialect) -> Iterator[str]:
    role, content, calls = message["role"], message.get("content"), message.get("tool_calls")
    if isinstance(content, list):
        if role in flavour.text_only:
            yield f"content of role {role} must be a text, not a list"
        for part in content:
            if flavour.k3 and dig(part, "type") == "image_url":
                yield from _image(dig(part, "image_url", "url"))
            elif dig(part, "type") != "text" or not isinstance(dig(part, "text"), str):
                yield f"content holds {part!r:.60}, but only text parts are read"
            elif not part["text"]:
                yield "text content is empty"
    elif not isinstance(content, str) and not (content is None and calls):
        yield f"content must be a text or a list of text parts, not {content!r:.60}"
    if content in ("", []) and calls:
        yield "text content is empty: leave content out beside tool_calls"
    elif content in ("", []) and role != "tool":
        yield f"the message with role {role!r} must not be empty"


def _image(url: Any) -> Iterator[str]:
    if not isinstance(url, str) or not _IMAGE.match(url):
        yield f"an image must be a data URL in base64, not {url!r:.60}"


def _tool_message(message: Mapping[str, Any], waiting: dict[str, Any]) -> Iterator[str]:
    call_id, name = message.get("tool_call_id"), message.get("name")
    if not isinstance(call_id, str) or call_id not in waiting:
        yield f"{_UNANSWERED.format(call_id)} among the calls that wait for an answer"
    elif name != (called := waiting.pop(call_id)):
        yield f"name must be that of the tool called, {called!r}, not {name!r}"


def _calls(calls: Any, waiting: dict[str, Any], seen: set[str]) -> Iterator[str]:
    """Check the calls of an assistant message, and add them to those waiting and seen."""
    if calls is not None and (not isinstance(calls, list) or not calls):
        yield "tool_calls must be a list that is not empty"
        return
    for call in calls or ():
        call_id, name = dig(call, "id"), dig(call, "function", "name")
        if not isinstance(call_id, str) or not call_id or call_id in seen:
            yield f"the id of a tool call must be a text, and unique, not {call_id!r}"
        if dig(call, "type") != "function" or not _is_name(name):
            yield f"a tool call must be of type function and name it, not {name!r}"
        if json_object(dig(call, "function", "arguments")) is None:
            yield f"arguments of {call_id!r} must be the text of a JSON object"
        waiting[str(call_id)] = name
        seen.add(str(call_id))


def _tools(tools: Any) -> Iterator[str]:
    if not isinstance(tools, list) or len(tools) > 128:
        yield "tools must be a list of at most 128"
        return
    names = [dig(tool, "function", "name") for tool in tools]
    for index, (tool, name) in enumerate(zip(tools, names, strict=True)):
        where, schema = f"tools[{index}]", dig(tool, "function", "parameters")
        if dig(tool, "type") != "function" or not _is_name(name):
            yield f"{where}: must be of type function, named like {_NAME.pattern}, not {name!r}"
        if name in names[:index]:
            yield f"{where}: function name {name!r} is duplicated"
        if schema is not None and dig(schema, "type") != "object":
            yield f'{where}: function.parameters.type is required and must be "object"'
        if schema is not None:
            yield from (f"{where}: {problem}" for problem in _schema(schema, schema, ""))


# These rules and messages are those of Moonshot's validator, github.com/MoonshotAI/walle.
def _schema(schema: Any, root: Any, path: str, *, typed: bool = False) -> Iterator[str]:
    at = f"At path '{path.lstrip('.') or 'root'}'"
    if not isinstance(schema, Mapping):
        yield f"{at}: schema must be an object, not {schema!r}"
        return
    yield from (f"{at}: {problem}" for problem in _schema_node(schema, root, typed=typed))
    for key in ("properties", "$defs"):
        for name, child in items(schema.get(key)):
            yield from _schema(child, root, f"{path}.{key}.{name}", typed=True)
    for key in ("anyOf", "oneOf", "allOf"):
        for _, child in items(schema.get(key)):
            yield from _schema(child, root, f"{path}.{key}", typed=key == "anyOf")
    for key in ("items", "additionalProperties"):
        if key in schema and not (key == "additionalProperties" and isinstance(schema[key], bool)):
            yield from _schema(schema[key], root, f"{path}.{key}")


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
    if reference not in (None, "#") and (way[0] != "$defs" or dig(root, *way) is None):
        yield f"$defs not found for reference: {reference}"
    properties = [name for name, _ in items(schema.get("properties"))]
    for _, name in items(schema.get("required")):
        if name not in properties:
            yield f"required property {name!r} is not defined in properties"
