"""The APIs that servers speak, by the name that an endpoint has for its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, Literal

from kimi_magic.core.errors import ConfigError
from kimi_magic.wire.addresses import host_of
from kimi_magic.wire.endpoints import Endpoint
from kimi_magic.wire.openai.chat_completions import ChatCompletions
from kimi_magic.wire.protocols import Wire

__all__ = ["encoder_of", "sdk_of", "wire_of", "wire_of_body"]

ANTHROPIC = "api.anthropic.com"
SDK_SINCE = 2
NO_SDK = '{} speaks the Messages API: install its SDK with `pip install "kimi-magic[anthropic]"`.'
# The first event of the Messages API, or its answer in one document.
_HEAD = 2000
_MARKS = (b'"message_start"', b'"type":"message"', b'"type": "message"')


def wire_of(endpoint: Endpoint) -> Wire:
    """Return the API that an endpoint's server speaks."""
    if endpoint.wire == "messages":
        from kimi_magic.wire.anthropic.messages_api import Messages

        return Messages(signed=host_of(endpoint.base_url) == ANTHROPIC)
    return ChatCompletions(endpoint.reasoning_key or "reasoning_content")


def wire_of_body(body: bytes) -> Wire:
    """Return the API that an answer is written in, judged by its beginning."""
    head = body[:_HEAD]
    if b'"choices"' not in head and any(mark in head for mark in _MARKS):
        from kimi_magic.wire.anthropic.messages_api import Messages

        return Messages()
    return ChatCompletions()


def encoder_of(api: str) -> Callable[[Mapping[str, Any]], dict[str, Any]] | None:
    """Return the function that writes a request for another API; None for chat completions."""
    if api != "messages":
        return None
    from kimi_magic.wire.anthropic.messages_body import messages_body

    return messages_body


def sdk_of(endpoint: Endpoint) -> Literal["openai", "anthropic"]:
    """Return the SDK that carries requests to an endpoint.

    Raises
    ------
    ConfigError
        It is not installed.
    """
    if endpoint.wire == "chat":
        return "openai"
    if not _has_sdk():
        raise ConfigError(NO_SDK.format(endpoint.name))
    return "anthropic"


def _has_sdk() -> bool:
    """Return True if Anthropic's SDK is installed, and is built on the HTTP library that we use."""
    if find_spec("anthropic") is None:
        return False
    with suppress(PackageNotFoundError, ValueError):
        return int(version("anthropic").partition(".")[0]) >= SDK_SINCE
    return True
