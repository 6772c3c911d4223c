"""Types of answers as users give them: a type or JSON Schema, its name, or fields as text."""

from __future__ import annotations

import ast
import json
import operator
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from types import UnionType
from typing import Any, Literal, NewType, Optional, Union, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from kimi_magic.core.errors import KimiError
from kimi_magic.schema.field_list import FIELDS, TYPES, is_list_of_fields, read_fields, read_list
from kimi_magic.schema.problems import (
    InvalidValue,
    problems_from_pydantic,
    problems_with_schema,
)
from kimi_magic.schema.type_hints import HintTranslator, QuietJsonSchema

__all__ = ["check_of_schema", "check_of_type", "parse_type"]

Check = tuple[str, Mapping[str, Any], Callable[[Any], Any]]
"""A name, a JSON Schema, and a function that converts a value or raises InvalidValue."""

_USE = (
    "As a schema take a pydantic model, a dataclass, a TypedDict, list[…] of one, a JSON Schema as "
    "a dict, or fields as text: 'name, age int, tags list' or 'list[name, age int]'."
)
_ROOT_KEYWORDS = set("type properties items anyOf oneOf allOf enum const $ref".split())
_KNOWN = TYPES | {kind.__name__: kind for kind in (list, dict, set, tuple)}
_KNOWN |= {"Any": Any, "Literal": Literal, "Optional": Optional, "Union": Union}


def check_of_schema(given: Mapping[str, Any]) -> Check:
    """Read a JSON Schema; values that fit it are returned unchanged."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    try:
        schema = json.loads(json.dumps(dict(given), allow_nan=False))
        Draft202012Validator.check_schema(schema, Draft202012Validator.FORMAT_CHECKER)
    except SchemaError as error:
        reason = f"{error.message} (at {error.json_path})"
        raise KimiError(f"The schema is no JSON Schema: {reason}.\n{_USE}") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise KimiError(f"The schema is no JSON: {error}.\n{_USE}") from None
    if not schema.keys() & _ROOT_KEYWORDS:
        raise KimiError(f"The schema has neither type nor properties at its root.\n{_USE}")

    def check(value: Any) -> Any:
        if places := problems_with_schema(value, schema):
            raise InvalidValue(places)
        return value

    return str(schema.get("title", "")), schema, check


def check_of_type(given: Any) -> Check:
    """Read a type; values that fit it become instances."""
    label = getattr(given, "__name__", None) or repr(given)[:60]
    if not _is_type(given):
        raise KimiError(f"{label} is no type.\n{_USE}")
    try:
        adapter, schema = _adapter(given)
    except Exception as error:  # noqa: BLE001 - types may run any code
        reason = re.split(r"\n|\. ", f"{error}")[0].rstrip(".")
        raise KimiError(f"{label} cannot be read from JSON: {reason}.\n{_USE}") from None

    def check(value: Any) -> Any:
        try:
            # Validated as JSON text: in this mode even strict models read sets and dates.
            return adapter.validate_json(json.dumps(value))
        except ValidationError as error:
            try:
                places = problems_with_schema(value, schema)
            except Exception:  # noqa: BLE001 - Python's re does not know every pattern
                places = {}
            places |= problems_from_pydantic(error, value, schema, tuple(places))
            raise InvalidValue(places) from None
        except Exception as error:  # noqa: BLE001 - validators may raise anything
            raise InvalidValue({(): f"{type(error).__name__}: {error}"}) from None

    return _name(given), schema, check


def _adapter(given: Any) -> tuple[TypeAdapter[Any], dict[str, Any]]:
    """Have pydantic read a type; if it refuses, try its translation."""
    try:
        adapter = TypeAdapter(given)
        return adapter, adapter.json_schema(schema_generator=QuietJsonSchema)
    except Exception as error:  # noqa: BLE001 - types may run any code
        try:
            adapter = TypeAdapter(HintTranslator(by_reference=False).translate(given))
            return adapter, adapter.json_schema(schema_generator=QuietJsonSchema)
        except Exception:  # noqa: BLE001 - the first reason is about the user's own type
            raise error from None


def _is_type(given: Any) -> bool:
    if isinstance(given, type | UnionType | NewType) or given is Any:
        return True
    return get_origin(given) is not None or hasattr(given, "__value__")  # type Name = …


def _name(given: Any) -> str:
    inner = get_args(given)
    if get_origin(given) is list and inner:
        return f"{_name(inner[0])}_list"
    return str(getattr(given, "__name__", ""))


def parse_type(text: str, namespace: Mapping[str, Any]) -> Any:
    """Return the type or schema that a text names, else a TypedDict of the fields it lists.

    The text is ``Person``, ``list[Person]``, ``models.Person``; or fields, by commas or one a line,
    or ``list[…]`` around fields.
    """
    if is_list_of_fields(text):
        return read_list(text)
    expression = _expression(text)
    if expression is None:
        return read_fields(text)
    try:
        return _named(expression, namespace)
    except KimiError:
        if isinstance(expression, ast.Name) and not expression.id[0].isupper():
            return read_fields(text)
        raise


def _expression(text: str) -> ast.expr | None:
    """Parse a text that can name a type; None for any other."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return tree if isinstance(tree, ast.Name | ast.Attribute | ast.Subscript | ast.BinOp) else None


def _named(expression: ast.expr, namespace: Mapping[str, Any]) -> Any:
    found = _evaluate(expression, namespace)
    if _is_type(found) or isinstance(found, Mapping):
        return found
    what = f"{ast.unparse(expression)} is a {type(found).__name__}"
    raise KimiError(f"{what}, no type and no JSON Schema.\n{FIELDS}")


def _evaluate(node: ast.expr, namespace: Mapping[str, Any]) -> Any:
    """Look up what an expression names, calling nothing."""
    match node:
        case ast.Name(id=name):
            if name in namespace or name in _KNOWN:
                return namespace.get(name, _KNOWN.get(name))
            near = get_close_matches(name, [n for n in namespace if not n.startswith("_")], n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise KimiError(f"There is no {name} in the notebook.{hint}\n{FIELDS}")
        case ast.Attribute(value=inner, attr=name) if not name.startswith("_"):
            holder = _evaluate(inner, namespace)
            return _looked_up(lambda: getattr(holder, name), node)
        case ast.Subscript(value=inner, slice=key):
            holder, index = _evaluate(inner, namespace), _evaluate(key, namespace)
            return _looked_up(lambda: holder[index], node)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            sides = _evaluate(left, namespace), _evaluate(right, namespace)
            return _looked_up(lambda: operator.or_(*sides), node)
        case ast.Tuple(elts=elements):
            return tuple(_evaluate(element, namespace) for element in elements)
        case ast.Constant(value=value):
            return value
    raise KimiError(f"{ast.unparse(node)} does not name a type.\n{FIELDS}")


def _looked_up(look: Callable[[], Any], node: ast.expr) -> Any:
    try:
        return look()
    except Exception as error:  # noqa: BLE001 - looking up may run any code
        reason = f"{type(error).__name__}: {error}"
        raise KimiError(f"{ast.unparse(node)} does not name a type ({reason})") from None
