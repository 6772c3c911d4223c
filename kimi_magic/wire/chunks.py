"""JSON from a server: an event of a stream, or a body in one piece → chunks of an answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeGuard

from pydantic_core import from_json

from kimi_magic.core.text import is_json_bomb

__all__ = ["BLANK", "as_mapping", "as_string", "is_count", "read_chunks"]

BLANK = b"\xef\xbb\xbf \t\r\n"  # what may stand in front of a body
MOST_DIGITS = 400
MOST_TOKENS = 10**12  # the largest count that is taken for one


def _integer(digits: str) -> float:
    """Read a number that no count has as infinite: Python takes no more than 4,300 digits."""
    return int(digits) if len(digits) < MOST_DIGITS else float(digits)


def read_chunks(data: bytes) -> list[Mapping[str, Any]]:
    """Parse an event; JSON that is no object says nothing here, such as a sign of life."""
    if is_json_bomb(data):
        raise ValueError("too many objects in one event")
    try:
        value = from_json(data)  # in half the time of json
    except ValueError:  # it takes neither broken UTF-8 nor half a code point, which servers send
        value = json.loads(data.decode("utf-8", "replace"), parse_int=_integer)
    if type(value) is dict:
        return [value]
    return [
        chunk for chunk in (value if isinstance(value, list) else [value]) if type(chunk) is dict
    ]


def as_mapping(value: Any) -> Mapping[str, Any]:
    """Return a field that should be an object; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def as_string(value: Any) -> str:
    """Return a field that should be a text; "" for anything else."""
    return value if isinstance(value, str) else ""


def is_count(value: object) -> TypeGuard[int]:
    """Return True for a number that can be a count of tokens."""
    return type(value) is int and 0 <= value <= MOST_TOKENS
