"""Results of MCP servers' tools: text and data for the model, pictures for the reader."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from kimi_magic.core.messages import Output
from kimi_magic.core.text import clip, cut, reveal

if TYPE_CHECKING:
    from mcp_types import CallToolResult

__all__ = ["read_result"]

MAX_LINK = 500
MAX_TEXT = 1_000_000  # characters of a result that are kept
MAX_PICTURES = 20
_PICTURES = ("image/png", "image/jpeg")


def read_result(result: CallToolResult) -> tuple[Any, tuple[Output, ...]]:
    """Return the value of a result, and the pictures that came with it.

    The value is the structured content where there is some, else the text. A text that says the
    same as the structured content, as the protocol wants it for older clients, is left out.
    """
    pictures: list[Output] = []
    texts = [text for block in result.content if (text := _text_of(block, pictures))]
    data = result.structured_content
    whole = cut("\n\n".join(texts), MAX_TEXT)
    if data is None or data == {"result": whole}:
        return whole, tuple(pictures)
    others = [] if _are_items(texts, data) else [t for t in texts if not _is_same(t, data)]
    value: Any = {"text": cut("\n\n".join(others), MAX_TEXT), "data": data} if others else data
    return value, tuple(pictures)


def _text_of(block: Any, pictures: list[Output]) -> str:
    if block.type == "text":
        return str(block.text)
    if block.type == "image":
        return _picture(block.mime_type, block.data, pictures)
    if block.type == "resource":
        return _resource(block.resource, pictures)
    if block.type == "resource_link":
        named = " ".join(filter(None, [block.name, block.description, block.mime_type]))
        return f"[link to {clip(block.uri, MAX_LINK)}: {clip(named, MAX_LINK)}]"
    return f"[{block.type}, {_about(block.mime_type, block.data)}: not passed on]"


def _resource(resource: Any, pictures: list[Output]) -> str:
    text, kind = getattr(resource, "text", None), resource.mime_type or "data"
    if isinstance(text, str):
        return f"[{clip(resource.uri, MAX_LINK)}]\n{text}"
    if kind in _PICTURES:
        return _picture(kind, resource.blob, pictures)
    about = _about(kind, resource.blob)
    return f"[{clip(resource.uri, MAX_LINK)}, {about}: not passed on]"


def _picture(kind: str, data: str, pictures: list[Output]) -> str:
    if kind not in _PICTURES or len(pictures) >= MAX_PICTURES:
        return f"[image, {_about(kind, data)}: not passed on]"
    pictures.append(Output({kind: data}, {}))
    return ""


def _about(kind: str, data: str) -> str:
    return f"{reveal(clip(kind, 60))}, {len(data) * 3 // 4:,} bytes"


def _is_same(text: str, data: Any) -> bool:
    if isinstance(data, str) and text == data:
        return True
    with suppress(ValueError, RecursionError):
        found = json.loads(text)
        return data in (found, {"result": found})
    return False


def _are_items(texts: list[str], data: Any) -> bool:
    """Return True if each text is an item, as the SDK's own servers send a list."""
    items = data.get("result") if isinstance(data, dict) and set(data) == {"result"} else data
    if not isinstance(items, list) or len(items) != len(texts):
        return False
    return all(map(_is_same, texts, items))
