"""A type or a JSON Schema → its name, its schema, and the check that values go through."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from types import UnionType
from typing import Any, NewType, NotRequired, Required, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic.json_schema import GenerateJsonSchema
from typing_extensions import TypedDict, is_typeddict

from kimi_magic.core.errors import KimiError
from kimi_magic.schema.problems import Misfit, Place, Places, got, schema_problems

__all__ = ["check_of_schema", "check_of_type", "is_type"]

Check = tuple[str, Mapping[str, Any], Callable[[Any], Any]]

_SAYS_SOMETHING = set("type properties items anyOf oneOf allOf enum const $ref".split())
_USE = (
    "As a schema take a pydantic model, a dataclass, a TypedDict, list[…] of one, a JSON Schema as "
    "a dict, or fields as text: 'name, age int, tags list'."
)


class _QuietJsonSchema(GenerateJsonSchema):
    """Leaves out defaults that are no JSON without a warning to the user, who need not know."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012


def check_of_schema(given: Mapping[str, Any]) -> Check:
    """A JSON Schema: what fits it is given back as it is."""
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
    if not schema.keys() & _SAYS_SOMETHING:
        raise KimiError(f"The schema has neither type nor properties at its root.\n{_USE}")

    def check(value: Any) -> Any:
        if places := schema_problems(value, schema):
            raise Misfit(places)
        return value

    return str(schema.get("title", "")), schema, check


def check_of_type(given: Any) -> Check:
    """A type that pydantic reads: what fits it becomes an instance."""
    label = getattr(given, "__name__", None) or repr(given)[:60]
    if not is_type(given):
        raise KimiError(f"{label} is no type.\n{_USE}")
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(_readable(given))
        schema = adapter.json_schema(schema_generator=_QuietJsonSchema)
    except Exception as error:  # noqa: BLE001 - types are code of the user, in every shape
        reason = re.split(r"\n|\. ", f"{error}")[0].rstrip(".")
        raise KimiError(f"{label} cannot be read from JSON: {reason}.\n{_USE}") from None

    def check(value: Any) -> Any:
        try:
            # As JSON: even a strict model takes a list for a set, and a text for a date.
            return adapter.validate_json(json.dumps(value))
        except ValidationError as error:
            raise Misfit(_places(error, value, schema)) from None
        except Exception as error:  # noqa: BLE001 - a validator is code of the user
            raise Misfit({(): f"{type(error).__name__}: {error}"}) from None

    return _name(given), schema, check


def is_type(given: Any) -> bool:
    """Whether it is a type in one of the ways to write one."""
    if isinstance(given, type | UnionType | NewType) or given is Any:
        return True
    return get_origin(given) is not None or hasattr(given, "__value__")  # type Name = …


def _name(given: Any) -> str:
    inner = get_args(given)
    if get_origin(given) is list and inner:
        return f"{_name(inner[0])}_list"
    return str(getattr(given, "__name__", ""))


def _places(error: ValidationError, value: Any, schema: Mapping[str, Any]) -> Places:
    """The schema's words where it has any, else pydantic's or those of the user's validator."""
    try:
        places = schema_problems(value, schema)
    except Exception:  # noqa: BLE001 - a pattern that Python's regular expressions do not know
        places = {}
    said = tuple(places)
    for found in error.errors(include_url=False, include_context=False, include_input=False):
        place, stem, at = _place(found["loc"], value)
        if any(known[: len(stem)] == stem for known in said):
            continue
        if found["type"] == "missing":
            places[*place, found["loc"][-1]] = "missing"
        else:
            places[place] = _said(found["msg"], at)
    return places


def _place(loc: Place, value: Any) -> tuple[Place, Place, Any]:
    """Where in the value, where before the first alternative, and what is there.

    pydantic's way to a place also names the alternatives that it tried.
    """
    place: Place = ()
    stem: Place | None = None
    for step in loc:
        in_object = isinstance(value, dict) and step in value
        if in_object or (isinstance(value, list) and isinstance(step, int) and step < len(value)):
            place, value = (*place, step), value[step]
        elif stem is None:
            stem = place
    return place, place if stem is None else stem, value


def _said(message: str, value: Any) -> str:
    message = re.sub("^(Value error, |Assertion failed, )+", "", message)
    for start in ("Input should be ", "Input must be "):
        message = message.removeprefix(start)
    message = message.replace("a valid ", "a ").replace("a integer", "an integer")
    return f"{got(value)}, want {message}"


def _readable(hint: Any) -> Any:
    """The hint, its TypedDicts of typing made anew: pydantic reads those from Python 3.12 on."""
    if sys.version_info >= (3, 12):
        return hint
    origin, inner = get_origin(hint), get_args(hint)
    if is_typeddict(hint) and type(hint).__module__ == "typing":
        fields = {}
        for name, kind in get_type_hints(hint, include_extras=True).items():
            # With annotations as text, __required_keys__ knows nothing of Required, NotRequired.
            mark = get_origin(kind)
            if mark in (Required, NotRequired):
                kind = get_args(kind)[0]  # noqa: PLW2901
            else:
                mark = Required if name in hint.__required_keys__ else NotRequired
            fields[name] = mark[_readable(kind)]
        return TypedDict(hint.__name__, fields)  # type: ignore[operator]
    if origin in (Union, UnionType):
        return Union[tuple(map(_readable, inner))]  # noqa: UP007
    if origin in (list, set, frozenset, tuple, dict) and inner:
        return origin[tuple(arg if arg is ... else _readable(arg) for arg in inner)]
    return hint
