"""The differences between the wire formats of servers, as data."""

from __future__ import annotations

import http
import json
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

TEXT = "\0text\0"  # placeholder for a piece of text
NOTHING: Mapping[str, Any] = MappingProxyType({})


class Dialect(NamedTuple):
    """The wire format of one server, where servers differ."""

    reasoning: str = "reasoning_content"
    accepts: tuple[str, ...] = ("reasoning_content",)  # keys that may return reasoning
    opening: Mapping[str, Any] = MappingProxyType({"role": "assistant", "content": ""})
    delta: Mapping[str, Any] = NOTHING  # in each delta
    details: Mapping[str, Any] = NOTHING  # beside the reasoning
    choice: Mapping[str, Any] = NOTHING  # beside the delta
    chunk: Mapping[str, Any] = NOTHING  # beside the choices
    later_call: Mapping[str, Any] = NOTHING  # in all deltas of a tool call but the first
    later_function: Mapping[str, Any] = NOTHING
    call_id: str = "functions.{name}:{index}"
    whole_calls: bool = False  # each call in one delta, without an index
    eager_arguments: bool = False  # the first delta of a call holds some arguments
    fused_finish: bool = False  # the last delta's chunk carries the finish_reason
    comment: bytes = b""
    cached: Mapping[str, Any] = MappingProxyType({"prompt_tokens_details": {"cached_tokens": 0}})
    usage_in_choice: bool = False
    request_id: str = "X-Request-Id"
    max_temperature: float = 2
    text_only: tuple[str, ...] = ()  # roles whose content may not be a list
    partial_mode: bool = False  # a last assistant message may be continued
    refuses_logprobs: bool = False
    k3: bool = False  # the rules of Kimi K3
    blocks: bool = False  # Anthropic's Messages API
    models: tuple[str, ...] = ("kimi-k2-thinking",)


BY_NAME = {
    "moonshot": Dialect(
        cached={"cached_tokens": 0},
        usage_in_choice=True,
        request_id="Msh-Request-Id",
        max_temperature=1,
        partial_mode=True,
    ),
    "vllm": Dialect(
        reasoning="reasoning",
        accepts=("reasoning",),
        choice={"logprobs": None, "token_ids": None},
        call_id="chatcmpl-tool-{unique}",
        fused_finish=True,
    ),
    "sglang": Dialect(
        opening={"role": "assistant", "content": "", "reasoning_content": None, "tool_calls": None},
        delta={"role": None, "content": None, "reasoning_content": None, "tool_calls": None},
        choice={"logprobs": None, "matched_stop": None},
        chunk={"usage": None},
        later_call={"id": None, "type": "function"},
        later_function={"name": None},
    ),
    "openrouter": Dialect(
        reasoning="reasoning",
        accepts=("reasoning", "reasoning_details"),
        delta={"role": "assistant", "content": ""},
        details={"reasoning_details": [{"type": "reasoning.text", "text": TEXT, "index": 0}]},
        choice={"native_finish_reason": None, "logprobs": None},
        chunk={"provider": "Moonshot AI"},
        call_id="call_{unique}",
        comment=b": OPENROUTER PROCESSING\n\n",
    ),
    "nvidia": Dialect(
        accepts=("reasoning_content", "reasoning"),
        call_id="chatcmpl-tool-{unique}",
        whole_calls=True,
        request_id="NVCF-REQID",
        text_only=("system", "assistant"),
        refuses_logprobs=True,
    ),
    "llamacpp": Dialect(
        opening={"role": "assistant", "content": None},
        chunk={"system_fingerprint": "b0-unknown"},
        call_id="{unique}",
        eager_arguments=True,
    ),
}
DIALECTS = tuple(BY_NAME)
"""Names of the dialects of a `ScriptedServer`, with the rules of Kimi K2 Thinking."""
K3_DIALECTS = ("moonshot-k3", "nvidia-k3", "openrouter-k3", "vllm-k3", "sglang-k3")
"""Names of the dialects with the rules of Kimi K3."""
for _name in K3_DIALECTS:
    _server = _name.removesuffix("-k3")
    _prefix = "moonshotai/" if _server in ("nvidia", "openrouter") else ""
    BY_NAME[_name] = BY_NAME[_server]._replace(
        k3=True, models=(f"{_prefix}kimi-k3",), call_id="call_{unique}", max_temperature=1
    )

BY_NAME["anthropic"] = Dialect(
    blocks=True, request_id="request-id", refuses_logprobs=True, models=("kimi-k3",)
)

_BLOCKS_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "invalid_authentication_error",
    403: "permission_denied_error",
    404: "resource_not_found_error",
    429: "rate_limit_reached_error",
}


def error_body(dialect: str, status: int, message: str, kind: str | None) -> dict[str, Any]:
    if dialect == "anthropic":
        kind = kind or _BLOCKS_ERROR_TYPES.get(status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": message}}
    kind = kind or _ERROR_TYPES.get(status, "server_error")
    match dialect.removesuffix("-k3"):
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


def dig(value: Any, *keys: str) -> Any:
    """Return the value under nested keys; None if one of them is missing."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def json_object(text: Any) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (TypeError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def items(inner: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(inner, list):
        return enumerate(inner)
    return inner.items() if isinstance(inner, Mapping) else ()


def dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def texts_of(messages: Any) -> Iterator[str]:
    """Yield what the messages of a request hold, as texts."""
    for _, message in items(messages):
        content = dig(message, "content")
        yield content if isinstance(content, str) else dumps(content)
