"""Fields of an answer as a person types them: ``name, born date, cities list[name, people int]``.

A field is a name, perhaps a type, perhaps a colon and a description. A type is one of `TYPES`,
``list[…]`` of a type or of fields, ``…[]``, or fields in braces for an object.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from datetime import date, datetime
from typing import Annotated, Any

from pydantic import Field

from kimi_magic.core.errors import KimiError
from kimi_magic.core.text import clip
from kimi_magic.schema.type_hints import list_of, typed_dict

__all__ = ["FIELDS", "TYPES", "is_list_of_fields", "read_fields", "read_list"]

FIELDS = "Write fields as in 'name, age int, tags list[str], born date: the birthday'."
TYPES: dict[str, Any] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "list": list[Any],
    "dict": dict[str, Any],
    "date": date,
    "datetime": datetime,
}
MOST_DEPTH = 8
_CLOSERS = {"]": "[", "}": "{"}
_LIST = re.compile(r"list\s*\[(?P<inside>.*)\]", re.DOTALL)
_COMMA = re.compile(r",(?![^\[]*\])")


def is_list_of_fields(text: str) -> bool:
    """Return True for ``list[…]`` that describes its items, rather than naming their type."""
    if _list_inside(text) is None:
        return False
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return True
    # Python reads «list[name, age]» and «list[name: str]» as well, but no type is written so.
    return any(
        isinstance(node, ast.Set | ast.Slice)
        or (isinstance(node, ast.Subscript) and _is_list_of_several(node))
        for node in ast.walk(tree)
    )


def _is_list_of_several(node: ast.Subscript) -> bool:
    names_list = isinstance(node.value, ast.Name) and node.value.id == "list"
    return names_list and isinstance(node.slice, ast.Tuple)


def read_list(text: str) -> Any:
    """Return the type of the list that a text describes, its items dicts of the fields.

    Raises
    ------
    KimiError
        A part of the text is no field.
    """
    hint = _hint(text, "answer", 0)
    if hint is None:
        raise KimiError(f"{clip(text.strip(), 60)!r} is no list of fields. {FIELDS}")
    return hint


def read_fields(text: str, name: str = "answer", depth: int = 0) -> Any:
    """Return a TypedDict of the fields; only fields on separate lines may describe with commas.

    Raises
    ------
    KimiError
        A part of the text is no field.
    """
    if text.strip().startswith("{") and (hint := _hint(text, name, depth)) is not None:
        return hint
    fields: dict[str, Any] = {}
    for line in _parts(text):
        field, hint = _field(line, depth)
        if field in fields:
            raise KimiError(f"The schema names the field {field} twice.")
        fields[field] = hint
    if not fields:
        raise KimiError(f"The schema is empty. {FIELDS}")
    return typed_dict(name, fields, fields)


def _field(line: str, depth: int) -> tuple[str, Any]:
    head, colon, text = _outside(line, ":")
    name, kind, *_ = [*head.split(None, 1), "", ""]
    kind, text = kind.strip(), text.strip()
    if not name.isidentifier():
        raise KimiError(f"{clip(line, 60)!r} is no field of a schema. {FIELDS}")
    if text and not kind and _hint(text, name, depth) is not None:  # name: int
        kind, text = text, ""
    hint = _hint(kind or "str", name, depth)
    if hint is None:
        raise KimiError(
            f"{name}: {clip(kind, 60)!r} is none of the types {', '.join(TYPES)}. {FIELDS}"
        )
    return name, Annotated[hint, Field(description=text)] if colon and text else hint


def _hint(kind: str, name: str, depth: int) -> Any:
    """Return the type that a text describes; None if it describes none."""
    if depth > MOST_DEPTH:
        raise KimiError(f"The schema is nested more than {MOST_DEPTH} deep.")
    kind = kind.strip()
    if kind.startswith("{") and kind.endswith("}") and _is_one(kind):
        return read_fields(kind[1:-1], name, depth + 1)
    if kind.endswith("[]"):
        item = _hint(kind[:-2], name, depth + 1)
    elif (inside := _list_inside(kind)) is not None:
        is_fields = _holds_fields(inside)
        item = read_fields(inside, name, depth + 1) if is_fields else _hint(inside, name, depth + 1)
    else:
        return TYPES.get(kind)
    return None if item is None else list_of(item)


def _list_inside(text: str) -> str | None:
    found = _LIST.fullmatch(text.strip())
    return found["inside"] if found and _is_one(text.strip().removeprefix("list").strip()) else None


def _holds_fields(inside: str) -> bool:
    """Return True for several fields, or for one that is more than a word."""
    if _list_inside(inside) is not None or inside.strip().startswith("{"):
        return len(list(_parts(inside))) > 1
    return bool(re.search(r"[\s,:]", inside.strip()))


def _is_one(text: str) -> bool:
    """Return True if the last character of a text closes the first bracket."""
    ends = [place for place, _, depth in _walk(text) if depth == 0]
    return bool(ends) and ends[0] == len(text) - 1


def _parts(text: str) -> Iterator[str]:
    """Yield the parts of a list of fields: its lines if it has several, else those by commas."""
    text = text.strip()
    by = "\n" if any(char == "\n" and not depth for _, char, depth in _walk(text)) else ","
    if _depth(text):  # an interval in a description
        pieces = text.splitlines() if "\n" in text else _COMMA.split(text)
    else:
        ends = [place for place, char, depth in _walk(text) if char == by and not depth]
        bounds = zip([0, *(end + 1 for end in ends)], [*ends, len(text)], strict=True)
        pieces = [text[start:end] for start, end in bounds]
    yield from filter(None, (piece.strip().rstrip(",").strip() for piece in pieces))


def _outside(text: str, mark: str) -> tuple[str, str, str]:
    """Split a text at the first mark outside of all brackets, like ``str.partition``."""
    for place, char, depth in _walk(text):
        if char == mark and not depth:
            return text[:place], char, text[place + 1 :]
    return text, "", ""


def _depth(text: str) -> int:
    """Return how many brackets are open at the end; -1 if they do not fit."""
    open_now: list[str] = []
    for char in text:
        if char in _CLOSERS.values():
            open_now.append(char)
        elif char in _CLOSERS and (not open_now or open_now.pop() != _CLOSERS[char]):
            return -1
    return len(open_now)


def _walk(text: str) -> Iterator[tuple[int, str, int]]:
    """Yield each character with its place and the brackets that are open behind it."""
    depth = 0
    for place, char in enumerate(text):
        depth += (char in _CLOSERS.values()) - (char in _CLOSERS)
        yield place, char, depth
