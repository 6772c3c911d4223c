"""Keys do not leave: neither in what is sent or kept, nor in what is shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import reduce
from typing import Any, TypeVar

from kimi_magic.core.messages import Message, Output, TextPart, ToolCall, ToolResult
from kimi_magic.secrets.keys import Key

__all__ = ["Secrets", "keys_of", "mapped", "without_keys", "without_secrets"]

Secrets = Mapping[str, str]
"""Keys that are known, by the names of their variables."""
T = TypeVar("T")


def keys_of(secrets: Secrets) -> list[Key]:
    return [Key(value, name) for name, value in secrets.items()]


def mapped(value: T, clean: Callable[[str], str]) -> T:
    """Take each text in a message, or in a structure of these, through a function."""
    found: T = _mapped(value, clean)
    return found


def without_keys(value: T, secrets: Secrets) -> T:
    """Put ``[key]`` for each key in a text, a message, or a structure of these."""
    keys = keys_of(secrets)

    def clean(text: str) -> str:
        return reduce(lambda cleaned, key: key.mask(cleaned), keys, text)

    return mapped(value, clean) if keys else value


def without_secrets(result: ToolResult, secrets: Secrets) -> ToolResult:
    """A tool's result without keys: of what the model reads also those that only look like one."""
    from kimi_magic.secrets.patterns import mask

    return replace(
        result,
        content=mask(result.content, secrets)[0],
        error=without_keys(result.error, secrets),
        stdout=without_keys(result.stdout, secrets),
        traceback=without_keys(result.traceback, secrets),
        outputs=without_keys(result.outputs, secrets),
    )


def _mapped(value: Any, clean: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {_mapped(key, clean): _mapped(item, clean) for key, item in value.items()}
    if isinstance(value, Output):
        return Output(*(_mapped(item, clean) for item in value))
    if isinstance(value, list | tuple):
        return type(value)(_mapped(item, clean) for item in value)
    if isinstance(value, Message | TextPart | ToolCall):
        inside = {field.name: getattr(value, field.name) for field in fields(value)}
        return replace(value, **_mapped(inside, clean))
    return value
