"""A request for chat completions → the body of the Messages API.

Above the wire a request has one form, that of chat completions, its messages *whole*: with blocks
of thinking in the place of the reasoning (``Message.to_dict``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from kimi_magic.wire.endpoints import DEFAULT_LIMIT
from kimi_magic.wire.models import is_kimi

__all__ = ["messages_body"]

# Fields that are written here one by one, or have no counterpart.
_TRANSLATED = frozenset(
    "model messages tools tool_choice max_tokens max_completion_tokens stop stream stream_options "
    "response_format reasoning_effort reasoning chat_template_kwargs thinking output_config "
    "seed logprobs top_logprobs n".split()
)
LEAST_BUDGET = 1024  # tokens of thinking; max_tokens must be greater
# For models that take a number: their share of all tokens that the answer may have.
SHARES = {"low": 1 / 8, "high": 1 / 2, "max": 3 / 4}
_CLAUDE = re.compile(r"claude-(?:[a-z]+-)?(\d{1,2})(?:[-.](\d{1,2}))?(?!\d)", re.IGNORECASE)
ADAPTIVE_SINCE = (4, 6)
_UNFIT_IN_ID = re.compile(r"[^a-zA-Z0-9_-]")
_DATA_URL = re.compile(r"data:([\w/+.-]+);base64,(.*)", re.DOTALL)
_THOUGHTS = ("thinking", "redacted_thinking")
_TOOL_CHOICES = {"auto": "auto", "none": "none", "required": "any"}


def messages_body(body: Mapping[str, Any], *, signed: bool = False) -> dict[str, Any]:
    """Encode a request.

    Parameters
    ----------
    body : Mapping
        The request for chat completions. Where it sets no limit, ``max_tokens`` is
        ``DEFAULT_LIMIT``: the API requires one.
    signed : bool
        The server takes no thinking without a signature that is its own, as Anthropic's.
    """
    model = str(body.get("model"))
    signed = signed or "claude" in model.lower()
    system, messages = _conversation(body.get("messages") or (), model, signed=signed)
    limit = body.get("max_completion_tokens") or body.get("max_tokens") or DEFAULT_LIMIT
    encoded: dict[str, Any] = {"model": model, "max_tokens": limit}
    if system:
        encoded["system"] = system
    encoded["messages"] = messages
    tools = [_tool(tool) for tool in body.get("tools") or ()]
    if tools:
        encoded["tools"] = tools
        if choice := _tool_choice(body.get("tool_choice")):
            encoded["tool_choice"] = choice
    elif names := _called(messages):
        # A history with calls needs tools, also where none may be called any more.
        encoded["tools"] = [{"name": name, "input_schema": {"type": "object"}} for name in names]
        encoded["tool_choice"] = {"type": "none"}
    encoded |= {name: value for name, value in body.items() if name not in _TRANSLATED}
    if stop := body.get("stop"):
        encoded["stop_sequences"] = [stop] if isinstance(stop, str) else list(stop)
    thinking, output = _thinking(body, model, limit)
    if signed and thinking.get("type") == "enabled" and _lacks_thought(messages):
        thinking = {}  # as the server's 400 recommends
    if form := _form(body.get("response_format")):
        output["format"] = form
    encoded |= {"thinking": thinking} if thinking else {}
    encoded |= {"output_config": output} if output else {}
    if body.get("stream"):
        encoded["stream"] = True
    return encoded


def _thinking(
    body: Mapping[str, Any], model: str, limit: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fields ``thinking`` and ``output_config``, empty where there is nothing to say.

    Kimi thinks in any case, and takes an effort. Claude 4.6 and later decide by an effort as well;
    the models before, and those of other makers, take a number of tokens.
    """
    output = dict(body.get("output_config") or {})
    effort, thinking = body.get("reasoning_effort"), dict(body.get("thinking") or {})
    if effort and is_kimi(model):
        output.setdefault("effort", effort)
    elif effort and _is_adaptive(model):
        thinking = thinking or {"type": "adaptive", "display": "summarized"}
        output.setdefault("effort", effort)
    elif effort:
        budget = max(int(limit * SHARES.get(effort, SHARES["high"])), LEAST_BUDGET)
        thinking = thinking or {"type": "enabled", "budget_tokens": budget}
    elif not thinking and (wanted := _switched(body)) is not None:
        thinking = {"type": "enabled" if wanted else "disabled"}
    if thinking.get("type") == "enabled":
        budget = thinking.get("budget_tokens") or int(limit * SHARES["max"])
        thinking["budget_tokens"] = min(max(budget, LEAST_BUDGET), limit - 1)
        if limit <= LEAST_BUDGET:  # there is no room to think
            thinking = {}
    return thinking, output


def _switched(body: Mapping[str, Any]) -> bool | None:
    """Return the switch that servers of chat completions have under other names."""
    for name, switch in (("chat_template_kwargs", "thinking"), ("reasoning", "enabled")):
        given = body.get(name)
        if isinstance(given, Mapping) and isinstance(given.get(switch), bool):
            return bool(given[switch])
    return None


def _is_adaptive(model: str) -> bool:
    found = _CLAUDE.search(model)
    return found is not None and (int(found[1]), int(found[2] or 0)) >= ADAPTIVE_SINCE


def _conversation(
    messages: Iterable[Mapping[str, Any]], model: str, *, signed: bool
) -> tuple[str, list[dict[str, Any]]]:
    """Return the system prompt, and messages whose roles alternate."""
    system: list[str] = []
    turns: list[dict[str, Any]] = []
    for message in messages:
        role = message["role"]
        if role == "system":
            system.append(_text_of(message.get("content")))
            continue
        if role == "assistant":
            blocks = list(_answer(message, model, signed=signed))
            while signed and blocks and blocks[-1]["type"] in _THOUGHTS:
                blocks.pop()  # «the final block in an assistant message cannot be `thinking`»
        elif role == "tool":
            blocks = [_result(message, model)]
        else:
            blocks = list(_parts(message.get("content")))
        side = "assistant" if role == "assistant" else "user"
        if turns and turns[-1]["role"] == side:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": side, "content": blocks})
    for turn in turns:
        if turn["role"] == "user":  # results come first (docs.claude.com, *Tool use*)
            turn["content"].sort(key=lambda block: block["type"] != "tool_result")
    return "\n\n".join(filter(None, system)), [_short(turn) for turn in turns]


def _short(turn: dict[str, Any]) -> dict[str, Any]:
    """Return a message with its text alone, where it is nothing else."""
    content = turn["content"]
    if len(content) == 1 and content[0]["type"] == "text":
        return {"role": turn["role"], "content": content[0]["text"]}
    return turn


def _answer(message: Mapping[str, Any], model: str, *, signed: bool) -> Iterator[dict[str, Any]]:
    """Yield the blocks of an answer in their order: thinking where it stood, text, calls."""
    text, calls = _text_of(message.get("content")), message.get("tool_calls") or ()
    thoughts = _thoughts(message, model, signed=signed)
    at = 0
    for place in range(len(calls) + 1):
        here = [thought for thought in thoughts if thought["before_call"] == place]
        for thought in here:
            if not place and at < thought["before_text"]:
                yield from _parts(text[at : thought["before_text"]])
                at = thought["before_text"]
            yield {k: v for k, v in thought.items() if k not in ("before_call", "before_text")}
        if not place:  # text that came after a call is told before it
            yield from _parts(text[at:])
        if place < len(calls):
            yield _call(calls[place], model)


def _thoughts(message: Mapping[str, Any], model: str, *, signed: bool) -> list[dict[str, Any]]:
    """Return the blocks of thinking that the server takes, with their places.

    A server that signs takes none without its signature: a chat that was begun elsewhere goes on
    without. Others want the key with any value, and Kimi a block before each call, as it wants
    ``reasoning_content`` (an empty one, where there was no reasoning).
    """
    given = message.get("thinking_blocks")
    if given is None:
        return []
    blocks = []
    for block in map(dict, given):
        if block["type"] == "thinking" and not block.get("signature"):
            if signed or not (block["thinking"] or is_kimi(model)):
                continue
            block["signature"] = ""
        if block["type"] != "redacted_thinking" or block["data"]:
            blocks.append(block)
    if not blocks and not signed and is_kimi(model):
        empty = {"type": "thinking", "thinking": "", "signature": ""}
        blocks.append(empty | {"before_call": 0, "before_text": 0})
    return blocks


def _call(call: Mapping[str, Any], model: str) -> dict[str, Any]:
    function = call["function"]
    arguments: Any = {}
    with suppress(ValueError, RecursionError):
        arguments = json.loads(function.get("arguments") or "{}")
    return {
        "type": "tool_use",
        "id": _id(call["id"], model),
        "name": function["name"],
        "input": arguments if isinstance(arguments, dict) else {},
    }


def _result(message: Mapping[str, Any], model: str) -> dict[str, Any]:
    block: dict[str, Any] = {
        "type": "tool_result",
        "tool_use_id": _id(message["tool_call_id"], model),
    }
    if content := message.get("content"):
        block["content"] = content if isinstance(content, str) else list(_parts(content))
    return block | ({"is_error": True} if message.get("is_error") else {})


def _id(call_id: str, model: str) -> str:
    """Return the id of a call: Anthropic takes letters, digits, ``_`` and ``-`` alone.

    Kimi K2 was trained on ``functions.NAME:IDX``.
    """
    return call_id if is_kimi(model) else _UNFIT_IN_ID.sub("_", call_id)


def _parts(content: Any) -> Iterator[dict[str, Any]]:
    """Yield the blocks of a content; a text of nothing but blanks is refused, and left out."""
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    for part in content or ():
        if part.get("type") == "image_url":
            yield {"type": "image", "source": _source(part["image_url"]["url"])}
        elif part.get("text", "").strip():
            yield {"type": "text", "text": part["text"]}


def _source(url: str) -> dict[str, str]:
    if found := _DATA_URL.fullmatch(url):
        return {"type": "base64", "media_type": found[1], "data": found[2]}
    return {"type": "url", "url": url}


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = tool["function"]
    encoded = {"name": function["name"], "description": function.get("description")}
    encoded["input_schema"] = function.get("parameters") or {"type": "object", "properties": {}}
    return {name: value for name, value in encoded.items() if value is not None}


def _tool_choice(choice: Any) -> dict[str, Any] | None:
    if isinstance(choice, Mapping):
        return {"type": "tool", "name": choice["function"]["name"]}
    return {"type": _TOOL_CHOICES[choice]} if choice in _TOOL_CHOICES else None


def _lacks_thought(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Return True where results answer a message that has lost its thinking, as one masked has."""
    *_, asked, results = [{"content": ()}, {"content": ()}, *messages]
    if not any(block["type"] == "tool_result" for block in _blocks(results)):
        return False
    return all(block["type"] not in _THOUGHTS for block in _blocks(asked)[:1])


def _blocks(message: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return () if isinstance(message["content"], str) else message["content"]


def _called(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of the tools that the conversation has called."""
    blocks = (block for message in messages for block in _blocks(message))
    return list(dict.fromkeys(b["name"] for b in blocks if b["type"] == "tool_use"))


def _form(response_format: Any) -> dict[str, Any] | None:
    """Return the form of the answer; the API has none for any JSON."""
    if isinstance(response_format, Mapping) and response_format.get("type") == "json_schema":
        return {"type": "json_schema", "schema": response_format["json_schema"]["schema"]}
    return None


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content or ())
