"""The checks that a server of Anthropic's Messages API makes of a request."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from kimi_magic.testing.dialects import dig, items

__all__ = ["check_messages_request", "check_thinking", "signed_elsewhere"]

_KEYS = (
    "model messages system max_tokens stream temperature top_p top_k stop_sequences tools "
    "tool_choice thinking output_config metadata service_tier"
)
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_ID = re.compile(r"[a-zA-Z0-9_-]+")
_IMAGES = ("image/png", "image/jpeg", "image/webp", "image/gif")
_EFFORTS = ("low", "medium", "high", "xhigh", "max")
LEAST_BUDGET = 1024
INVALID = "Invalid `signature` in `thinking` block"
_THOUGHTS = {"thinking": "signature", "redacted_thinking": "data"}


def check_messages_request(body: Mapping[str, Any]) -> list[str]:
    """List what a server would refuse in the body of a request, a sentence a problem."""
    problems = [
        f"{key}: Extra inputs are not permitted" for key in body if key not in _KEYS.split()
    ]
    problems += _parameters(body)
    problems += _tools(body)
    problems += _conversation(body)
    return problems


def check_thinking(
    body: Mapping[str, Any], issued: Sequence[tuple[Sequence[str], list[dict[str, Any]]]]
) -> list[str]:
    """List the blocks of thinking that are not as this server gave them.

    ``issued`` are its answers: the ids of the calls, and the blocks of thinking before them.
    """
    known = [block for _, blocks in issued for block in blocks]
    proofs = {_proof(block) for block in known} - {""}
    by_call = {call_id: blocks for ids, blocks in issued for call_id in ids}
    problems = []
    for index, message in items(body.get("messages")):
        blocks = _blocks(message)
        thoughts = [block for block in blocks if dig(block, "type") in _THOUGHTS]
        if any(block not in known and _proof(block) in proofs for block in thoughts):
            problems.append(f"messages.{index}: {INVALID}")
        for block in blocks:
            wanted = by_call.get(str(dig(block, "id")), [])
            if dig(block, "type") == "tool_use" and wanted and thoughts != wanted:
                problems.append(
                    f"messages.{index}: Expected `thinking` or `redacted_thinking`, but found "
                    "`tool_use`: these blocks must remain as they were in the response"
                )
    return list(dict.fromkeys(problems))


def signed_elsewhere(
    body: Mapping[str, Any], issued: Sequence[tuple[Sequence[str], list[dict[str, Any]]]]
) -> str:
    """Return the words that refuse another server's thinking; "" where there is none."""
    proofs = {_proof(block) for _, blocks in issued for block in blocks}
    for index, message in items(body.get("messages")):
        for place, block in enumerate(_blocks(message)):
            if (proof := _proof(block)) and proof not in proofs:
                return f"messages.{index}.content.{place}: {INVALID}"
    return ""


def _proof(block: Any) -> str:
    """Return the signature of a block of thinking, or what stands for it; "" for all others."""
    proof = dig(block, _THOUGHTS.get(str(dig(block, "type")), ""))
    return proof if isinstance(proof, str) else ""


def _blocks(message: Any) -> list[Any]:
    content = dig(message, "content")
    return content if isinstance(content, list) else []


def _is_number(value: Any, low: float, high: float) -> bool:
    return type(value) in (int, float) and low <= value <= high


def _parameters(body: Mapping[str, Any]) -> Iterator[str]:
    if not isinstance(body.get("model"), str) or not body["model"]:
        yield "model: Field required"
    limit = body.get("max_tokens")
    if type(limit) is not int or limit < 1:
        yield f"max_tokens: Field required, from 1 on, not {limit!r}"
        limit = 0
    for name in ("temperature", "top_p"):
        if not _is_number(body.get(name, 1), 0, 1):
            yield f"{name}: range: 0..1, not {body[name]!r}"
    stops = body.get("stop_sequences", [])
    if not isinstance(stops, list) or not all(isinstance(s, str) and s.strip() for s in stops):
        yield f"stop_sequences: each must contain non-whitespace, not {stops!r:.60}"
    if not isinstance(body.get("stream", False), bool):
        yield f"stream: must be true or false, not {body['stream']!r}"
    if not isinstance(body.get("system", "."), str | list) or body.get("system") == "":
        yield "system: must be a text that is not empty, or a list of blocks"
    yield from _effort(body, limit)


def _effort(body: Mapping[str, Any], limit: int) -> Iterator[str]:
    kind, budget = dig(body.get("thinking"), "type"), dig(body.get("thinking"), "budget_tokens")
    if "thinking" in body and kind not in ("enabled", "disabled", "adaptive"):
        yield f"thinking.type: must be enabled, disabled or adaptive, not {kind!r}"
    if kind == "enabled" and not (type(budget) is int and LEAST_BUDGET <= budget < limit):
        yield f"max_tokens must be greater than thinking.budget_tokens (from 1024 on): {budget!r}"
    config = body.get("output_config", {})
    if dig(config, "effort") not in (None, *_EFFORTS):
        yield f"output_config.effort: must be one of {', '.join(_EFFORTS)}"
    form = dig(config, "format")
    if form is not None and (dig(form, "type") != "json_schema" or not dig(form, "schema")):
        yield "output_config.format: must be of type json_schema, with a schema"


def _tools(body: Mapping[str, Any]) -> Iterator[str]:
    tools, choice = body.get("tools", []), body.get("tool_choice")
    if not isinstance(tools, list):
        yield "tools: must be a list"
        return
    names = [dig(tool, "name") for tool in tools]
    for index, (tool, name) in enumerate(zip(tools, names, strict=True)):
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            yield f"tools.{index}.name: must be like {_NAME.pattern}, not {name!r}"
        if name in names[:index]:
            yield f"tools: Tool names must be unique: {name!r}"
        if dig(tool, "input_schema", "type") != "object":
            yield f"tools.{index}.input_schema.type: Field required, and must be object"
    if choice is not None and not tools:
        yield "tool_choice may only be specified while providing tools"
    if choice is not None and dig(choice, "type") not in ("auto", "any", "none", "tool"):
        yield f"tool_choice.type: must be auto, any, none or tool, not {choice!r:.60}"
    used = any(
        dig(block, "type") in ("tool_use", "tool_result")
        for _, message in items(body.get("messages"))
        for block in _blocks(message)
    )
    if used and not tools:
        yield "Requests which include `tool_use` or `tool_result` blocks must define tools"


def _conversation(body: Mapping[str, Any]) -> Iterator[str]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        yield "messages: at least one message is required"
        return
    waiting: list[str] = []
    seen: set[str] = set()
    for index, message in enumerate(messages):
        where, role = f"messages.{index}", dig(message, "role")
        if role != ("user", "assistant")[index % 2]:
            yield f"{where}: roles must alternate between user and assistant, not {role!r}"
        yield from (f"{where}: {problem}" for problem in _content(message, str(body.get("model"))))
        yield from (f"{where}: {problem}" for problem in _results(_blocks(message), waiting))
        waiting = [str(dig(b, "id")) for b in _blocks(message) if dig(b, "type") == "tool_use"]
        yield from (f"{where}: `tool_use` ids must be unique: {i}" for i in seen & {*waiting})
        seen |= {*waiting}
    if dig(messages[-1], "role") != "user":
        yield "messages: the conversation must end with a user message"


def _results(blocks: Sequence[Any], waiting: Sequence[str]) -> Iterator[str]:
    """Check the results in a message, which answer the calls of the message before."""
    results = [block for block in blocks if dig(block, "type") == "tool_result"]
    answered = [dig(block, "tool_use_id") for block in results]
    if blocks[: len(results)] != results:
        yield "tool_result blocks come first in the content"
    for call_id in waiting:
        if call_id not in answered:
            yield (
                "`tool_use` ids were found without `tool_result` blocks immediately after: "
                f"{call_id}"
            )
    for call_id in answered:
        if answered.count(call_id) > 1 or call_id not in waiting:
            yield f"unexpected `tool_use_id` found in `tool_result` blocks: {call_id!r}"


def _content(message: Any, model: str) -> Iterator[str]:
    content, role = dig(message, "content"), dig(message, "role")
    if not isinstance(content, str | list) or not content:
        yield "content must be a text or a list of blocks, and not empty"
    if isinstance(content, str) and not content.strip():
        yield "text content blocks must contain non-whitespace text"
    if role == "assistant" and _blocks(message) and dig(_blocks(message)[-1], "type") in _THOUGHTS:
        yield "the final block in an assistant message cannot be `thinking`"
    for index, block in enumerate(_blocks(message)):
        kind = str(dig(block, "type"))
        problems = list(_BLOCKS[kind](block, model)) if kind in _BLOCKS else ["unknown block"]
        if kind in _SIDES and _SIDES[kind] != role:
            problems.append(f"not permitted in a message of role {role}")
        yield from (f"content.{index}.{kind}: {problem}" for problem in problems)


def _text(block: Any, _: str) -> Iterator[str]:
    if not isinstance(block.get("text"), str) or not block["text"].strip():
        yield "text content blocks must contain non-whitespace text"


def _image(block: Any, _: str) -> Iterator[str]:
    source = block.get("source")
    kind, of = dig(source, "type"), dig(source, "media_type")
    if kind == "base64" and (of not in _IMAGES or not dig(source, "data")):
        yield f"source: media_type must be one of {', '.join(_IMAGES)}"
    elif kind not in ("base64", "url"):
        yield "source.type: must be base64 or url"


def _thinking(block: Any, model: str) -> Iterator[str]:
    if not isinstance(block.get("thinking"), str):
        yield "thinking: Field required"
    if not isinstance(block.get("signature"), str):
        yield "signature: Field required"
    elif not block["signature"] and "claude" in model.lower():
        yield INVALID


def _redacted(block: Any, _: str) -> Iterator[str]:
    if not isinstance(block.get("data"), str) or not block["data"]:
        yield "data: Field required"


def _tool_use(block: Any, model: str) -> Iterator[str]:
    call_id, name = block.get("id"), block.get("name")
    if not isinstance(call_id, str) or not call_id:
        yield "id: Field required"
    elif "kimi" not in model.lower() and not _ID.fullmatch(call_id):
        yield f"id: String should match pattern '{_ID.pattern}', not {call_id!r}"
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        yield f"name: must be like {_NAME.pattern}, not {name!r}"
    if not isinstance(block.get("input"), dict):
        yield "input: Input should be an object"


def _tool_result(block: Any, _: str) -> Iterator[str]:
    if not isinstance(block.get("is_error", False), bool):
        yield "is_error: must be true or false"
    if not isinstance(block.get("content", ""), str | list):
        yield "content: must be a text or a list of blocks"


_BLOCKS: Mapping[str, Callable[[Any, str], Iterator[str]]] = {
    "text": _text,
    "image": _image,
    "thinking": _thinking,
    "redacted_thinking": _redacted,
    "tool_use": _tool_use,
    "tool_result": _tool_result,
}
_SIDES = {
    **dict.fromkeys(("thinking", "redacted_thinking", "tool_use"), "assistant"),
    **dict.fromkeys(("image", "tool_result"), "user"),
}
