"""A schema in words: the name of a type in the notebook, or its fields in short."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Mapping
from datetime import date, datetime
from difflib import get_close_matches
from types import GenericAlias
from typing import Annotated, Any, Literal, Optional, Union

from pydantic import Field
from typing_extensions import TypedDict

from kimi_magic.core.errors import KimiError
from kimi_magic.schema.value_checks import is_type

__all__ = ["type_in_words"]

_TYPES: dict[str, Any] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "list": list[Any],
    "dict": dict[str, Any],
    "date": date,
    "datetime": datetime,
}
_KNOWN = _TYPES | {
    "list": list,
    "dict": dict,
    "set": set,
    "tuple": tuple,
    "Any": Any,
    "Literal": Literal,
    "Optional": Optional,
    "Union": Union,
}
_COMMA = re.compile(r",(?![^\[]*\])")
_FIELD = re.compile(r"(?P<name>\S+?)(?:\s+(?P<type>[^:]+?))?\s*(?::\s*(?P<text>.*))?", re.DOTALL)
_LIST = re.compile(r"list\[\s*(\w+)\s*\]|(\w+)\[\]")
_HOW = "Write fields as in 'name, age int, tags list[str], born date: the birthday'."


def type_in_words(text: str, namespace: Mapping[str, Any]) -> Any:
    """The type or schema that a text names, else a dict with the fields that it lists.

    Parameters
    ----------
    text : str
        ``Person``, ``list[Person]``, ``models.Person``; or fields, by commas or one a line.
    namespace : mapping
        The notebook's variables.

    Raises
    ------
    KimiError
        It is neither.
    """
    expression = _expression(text)
    if expression is None:
        return _fields(text)
    try:
        return _named(expression, namespace)
    except KimiError:
        if isinstance(expression, ast.Name) and not expression.id[0].isupper():
            return _fields(text)
        raise


def _expression(text: str) -> ast.expr | None:
    """The text as a Python expression that names something, if it is one."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return tree if isinstance(tree, ast.Name | ast.Attribute | ast.Subscript | ast.BinOp) else None


def _named(expression: ast.expr, namespace: Mapping[str, Any]) -> Any:
    found = _evaluate(expression, namespace)
    if is_type(found) or isinstance(found, Mapping):
        return found
    what = f"{ast.unparse(expression)} is a {type(found).__name__}"
    raise KimiError(f"{what}, no type and no JSON Schema.\n{_HOW}")


def _evaluate(node: ast.expr, namespace: Mapping[str, Any]) -> Any:
    """What an expression names; nothing is called."""
    match node:
        case ast.Name(id=name):
            if name in namespace or name in _KNOWN:
                return namespace.get(name, _KNOWN.get(name))
            near = get_close_matches(name, [n for n in namespace if not n.startswith("_")], n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise KimiError(f"There is no {name} in the notebook.{hint}\n{_HOW}")
        case ast.Attribute(value=inner, attr=name) if not name.startswith("_"):
            holder = _evaluate(inner, namespace)
            return _tried(lambda: getattr(holder, name), node)
        case ast.Subscript(value=inner, slice=key):
            holder, index = _evaluate(inner, namespace), _evaluate(key, namespace)
            return _tried(lambda: holder[index], node)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            sides = _evaluate(left, namespace), _evaluate(right, namespace)
            return _tried(lambda: operator.or_(*sides), node)
        case ast.Tuple(elts=elements):
            return tuple(_evaluate(element, namespace) for element in elements)
        case ast.Constant(value=value):
            return value
    raise KimiError(f"{ast.unparse(node)} does not name a type.\n{_HOW}")


def _tried(look: Any, node: ast.expr) -> Any:
    try:
        return look()
    except Exception as error:  # noqa: BLE001 - classes are code of the user
        reason = f"{type(error).__name__}: {error}"
        raise KimiError(f"{ast.unparse(node)} does not name a type ({reason})") from None


def _fields(text: str) -> Any:
    """A TypedDict of the fields; a description on lines of their own may hold commas."""
    lines = text.splitlines() if "\n" in text.strip() else _COMMA.split(text)
    fields: dict[str, Any] = {}
    for line in filter(None, (line.strip().rstrip(",") for line in lines)):
        name, hint = _field(line)
        if name in fields:
            raise KimiError(f"The schema names the field {name} twice.")
        fields[name] = hint
    if not fields:
        raise KimiError(f"The schema is empty. {_HOW}")
    return TypedDict("answer", fields)  # type: ignore[operator]


def _field(line: str) -> tuple[str, Any]:
    found = _FIELD.fullmatch(line)
    name, kind, text = found.group("name", "type", "text") if found else ("", None, None)
    if not name.isidentifier():
        raise KimiError(f"{line!r:.60} is no field of a schema. {_HOW}")
    if text and not kind and _hint(text) is not None:  # name: int
        kind, text = text, None
    hint = _hint(kind or "str")
    if hint is None:
        raise KimiError(f"{name}: {kind!r} is none of the types {', '.join(_TYPES)}. {_HOW}")
    return name, Annotated[hint, Field(description=text)] if text else hint


def _hint(kind: str) -> Any:
    inner = _LIST.fullmatch(kind.strip())
    if inner is None:
        return _TYPES.get(kind.strip())
    item = _TYPES.get(inner[1] or inner[2])
    return None if item is None else GenericAlias(list, (item,))
