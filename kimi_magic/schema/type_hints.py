"""Type hints as people write them → hints that pydantic reads from JSON.

A value that JSON cannot carry (a DataFrame, a connection, an object of the user's own class) is
passed by reference: the model names a variable, and the call receives the live object.
"""

from __future__ import annotations

import enum
import io
import numbers
import types
import typing
from collections import abc
from collections.abc import Container, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import reduce
from types import GenericAlias
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Required,
    TypeVar,
    Union,
    get_args,
    get_origin,
)

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    create_model,
)
from pydantic.json_schema import GenerateJsonSchema
from typing_extensions import TypedDict, is_typeddict

__all__ = [
    "CONFIG",
    "HintTranslator",
    "QuietJsonSchema",
    "Reference",
    "choice",
    "dict_of",
    "either",
    "is_union",
    "keys_of",
    "list_of",
    "typed_dict",
    "with_variables",
]

CONFIG = ConfigDict(
    extra="forbid",
    allow_inf_nan=False,
    arbitrary_types_allowed=False,
    regex_engine="python-re",
)
MAX_NAMES = 20

_REFERENCE = "x-holds"  # marks a reference in the schema until its description is written
_PLAIN = (bool, int, float, str, bytes, Any, None, type(None), object)
_BASES = (int, float, str, bytes, datetime, date, timedelta, list, dict, set, frozenset)
_ITERABLES = (abc.Iterable, abc.Collection, abc.Container, abc.Reversible)
_ITERATORS = (abc.Iterator, abc.Generator)
_CONTAINERS = (
    *(list, dict, tuple, set, frozenset),
    *(abc.Sequence, abc.MutableSequence, abc.Mapping, abc.MutableMapping, abc.Set, abc.MutableSet),
)
_MISSING = object()


class QuietJsonSchema(GenerateJsonSchema):
    """Drops defaults that JSON cannot express, without a warning to the user."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012


@dataclass(frozen=True, slots=True)
class Reference:
    """A parameter that is passed by the name of a variable."""

    hint: Any

    @property
    def label(self) -> str:
        if self._class is abc.Callable:
            return "function"
        return getattr(self._class, "__name__", None) or str(self.hint)

    @property
    def _class(self) -> Any:
        return get_origin(self.hint) or self.hint

    def admits(self, value: Any) -> bool:
        """Return True unless `value` is known to be of another type; a Protocol cannot tell."""
        if is_typeddict(self._class):
            return isinstance(value, dict)
        kind = {typing.IO: io.IOBase, typing.TextIO: io.TextIOBase}.get(self._class, self._class)
        try:
            inner = get_args(self.hint)
            if kind is type and inner and isinstance(value, type) and isinstance(inner[0], type):
                return issubclass(value, inner[0])
            return isinstance(value, kind)
        except Exception:  # noqa: BLE001 - isinstance may run any code
            return not isinstance(kind, type) or bool(getattr(kind, "_is_protocol", False))

    def names(self, namespace: Mapping[str, Any]) -> list[str]:
        """List the variables that hold a fitting value now."""
        items = list(namespace.items())
        return sorted(n for n, v in items if not n.startswith("_") and self.admits(v))

    def description(self, namespace: Mapping[str, Any]) -> str:
        """Describe the parameter to the model."""
        names = self.names(namespace)
        more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
        now = f"now: {', '.join(names[:MAX_NAMES])}{more}" if names else "none now"
        return f"Name of a variable that holds {_a(self.label)} ({now}); attributes as in box.name"

    def look_up(self, value: Any, info: ValidationInfo) -> Any:
        """Return the object that the model named."""
        namespace = (info.context or {}).get("namespace", {})
        wanted = f"the name of a variable that holds {_a(self.label)}"
        if not isinstance(value, str):
            raise ValueError(wanted)  # noqa: TRY004 - pydantic collects ValueError only
        found = _find(value.strip(), namespace)
        if found is not _MISSING and self.admits(found):
            return found
        names = ", ".join(self.names(namespace)[:MAX_NAMES]) or "there is none now"
        if found is _MISSING:
            raise ValueError(f"{wanted}: {names}")
        raise ValueError(f"{wanted}: {names} (it is {_a(type(found).__name__)})")


def with_variables(
    schema: Mapping[str, Any], references: list[Reference], namespace: Mapping[str, Any]
) -> dict[str, Any]:
    """Describe the references in a schema with the variables that fit now."""
    filled = deepcopy(dict(schema))
    for node in _marked(filled):
        variables = references[node.pop(_REFERENCE)].description(namespace)
        own = str(node.get("description", "")).rstrip(". ")
        node["description"] = f"{own}. {variables}" if own else variables
    return filled


def _marked(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if _REFERENCE in node:
            yield node
        node = list(node.values())
    if isinstance(node, list):
        for inner in node:
            yield from _marked(inner)


def _a(noun: str) -> str:
    return f"an {noun}" if noun[:1] in "AEIOUaeiou" else f"a {noun}"


def _find(path: str, namespace: Mapping[str, Any]) -> Any:
    first, *rest = path.split(".")
    if not all(part.isidentifier() and not part.startswith("__") for part in (first, *rest)):
        return _MISSING
    found = namespace.get(first, _MISSING)
    for part in rest:
        try:
            found = _MISSING if found is _MISSING else getattr(found, part)
        except Exception:  # noqa: BLE001 - a property may run any code
            return _MISSING
    return found


class HintTranslator:
    """Translates hints for pydantic; passes what JSON cannot carry by reference, or refuses it."""

    def __init__(self, *, by_reference: bool = True) -> None:
        self.references: list[Reference] = []  # schemas are marked with their indices
        self.notes: list[str] = []  # for the user, about the translation
        self._by_reference = by_reference
        self._open: list[Any] = []

    def parameter(self, hint: Any, name: str) -> Any:
        """Translate the hint of a parameter; one that cannot be read becomes ``Any``."""
        known = len(self.references)
        try:
            translated = self.translate(hint)
            if _is_readable(translated):
                self.notes += [
                    f"{name}: JSON carries no {reference.label}, offered by a variable's name"
                    for reference in self.references[known:]
                ]
                return translated
        except Exception:  # noqa: BLE001, S110 - hints may be anything and run any code
            pass
        del self.references[known:]
        self.notes.append(f"{name}: its hint {hint!r:.60} fits no JSON, any value goes")
        return Any

    def translate(self, hint: Any) -> Any:
        """Translate a hint, or raise whatever a hint raises that cannot be translated."""
        if hint in _PLAIN:
            return hint
        origin, inner = get_origin(hint), get_args(hint)
        if origin is Annotated:
            return self._annotated(self.translate(inner[0]), inner[1:])
        if is_union(hint):
            return self._union(inner)
        if origin is Literal and any(isinstance(value, enum.Enum | bytes) for value in inner):
            return choice({_json_name(value): value for value in inner})
        target = _alias_target(hint)
        return self._container(hint, origin, inner) if target is hint else self.translate(target)

    def _annotated(self, base: Any, extras: tuple[Any, ...]) -> Any:
        whole = reduce(lambda made, extra: Annotated[made, extra], extras, base)
        # Constraints such as Field(gt=0) cannot hold for the name of a variable.
        return whole if _is_readable(whole) else base

    def _union(self, members: tuple[Any, ...]) -> Any:
        translated = [self.translate(member) for member in members]
        # A variable's name is a string too, so references must be tried before str.
        by_name = [hint for hint in translated if self._is_reference(hint)]
        others = [hint for hint in translated if not self._is_reference(hint)]
        union = either([*by_name, *others])
        mixed = by_name and set(others) - {None, type(None)}
        return Annotated[union, Field(union_mode="left_to_right")] if mixed else union

    def _is_reference(self, hint: Any) -> bool:
        schema = next((e for e in get_args(hint) if isinstance(e, WithJsonSchema)), None)
        return schema is not None and _REFERENCE in (schema.json_schema or {})

    def _container(self, hint: Any, origin: Any, inner: tuple[Any, ...]) -> Any:
        plain = origin or hint
        if plain in (*_ITERABLES, *_ITERATORS):
            # pydantic validates these lazily: a wrong item would only surface in the function.
            items = list_of(self.translate(inner[0]) if inner else Any)
            return Annotated[items, AfterValidator(iter)] if plain in _ITERATORS else items
        if origin in _CONTAINERS and inner:
            parts = tuple(part if part is ... else self.translate(part) for part in inner)
            return origin[parts if len(parts) > 1 else parts[0]]
        if isinstance(plain, type) and issubclass(plain, enum.Enum):
            return _member(plain)
        return self._leaf(hint, plain)

    def _leaf(self, hint: Any, plain: Any) -> Any:
        if plain is not type and _is_readable(hint):
            return hint
        if is_typeddict(plain):
            return self._typed_dict(plain)
        if alias := getattr(hint, "__value__", None):  # type Alias = …
            return self.translate(alias)
        if not isinstance(plain, type):
            raise TypeError(hint)
        if issubclass(plain, numbers.Number):
            return _number(plain)
        base = next((base for base in _BASES if issubclass(plain, base)), None)
        # A subclass of a type that JSON has is read as that type, then constructed.
        return self._reference(hint) if base is None else Annotated[base, AfterValidator(plain)]

    def _typed_dict(self, plain: Any) -> Any:
        """Rebuild a TypedDict: before Python 3.12 pydantic refuses those of ``typing``."""
        if plain in self._open:
            return dict[str, Any]
        self._open.append(plain)
        keys = keys_of(plain)
        fields = {name: self.translate(hint) for name, (hint, _) in keys.items()}
        self._open.remove(plain)
        return typed_dict(
            plain.__name__, fields, [k for k, (_, required) in keys.items() if required]
        )

    def _reference(self, hint: Any) -> Any:
        if not self._by_reference:
            raise TypeError(hint)
        reference = Reference(hint)
        self.references.append(reference)
        mark = {"type": "string", _REFERENCE: len(self.references) - 1}
        return Annotated[Any, BeforeValidator(reference.look_up), WithJsonSchema(mark)]


def is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)


def keys_of(typed_dict: Any) -> dict[str, tuple[Any, bool]]:
    """Return the hint of each key of a TypedDict, and True for a required one."""
    found: dict[str, tuple[Any, bool]] = {}
    for name, hint in typing.get_type_hints(typed_dict, include_extras=True).items():
        # With postponed annotations, __required_keys__ ignores Required and NotRequired.
        marked = {Required: True, NotRequired: False}.get(get_origin(hint))
        found[name] = hint, name in typed_dict.__required_keys__ if marked is None else marked
    return found


def either(hints: Iterable[Any]) -> Any:
    """Return the union of the hints."""
    return Union[tuple(hints)]  # noqa: UP007


def list_of(hint: Any) -> Any:
    return GenericAlias(list, (hint,))


def dict_of(hint: Any) -> Any:
    return GenericAlias(dict, (str, hint))


def choice(choices: dict[Any, Any]) -> Any:
    """Return a hint for one of several objects, chosen by its key in JSON."""

    def choose(value: Any) -> Any:
        for name, chosen in choices.items():
            if type(value) is type(name) and value == name:
                return chosen
        raise ValueError(" or ".join(map(repr, choices)))

    schema = WithJsonSchema({"enum": list(choices)})
    return Annotated[Any, BeforeValidator(choose), schema]


def typed_dict(name: str, hints: dict[str, Any], required: Container[str]) -> Any:
    """Return a hint for a dict with these keys."""
    fields = {k: Required[h] if k in required else NotRequired[h] for k, h in hints.items()}
    return TypedDict(name, fields)  # type: ignore[operator]


def _is_readable(hint: Any) -> bool:
    """Return True if pydantic can read the hint from JSON and generate its schema."""
    try:
        model = create_model("Probe", __config__=CONFIG, value=(hint, ...))
        model.model_json_schema(schema_generator=QuietJsonSchema)
    except Exception:  # noqa: BLE001 - hints may be anything and run any code
        return False
    return True


def _alias_target(hint: Any) -> Any:
    """Return the hint that an alias stands for, or the hint itself."""
    if isinstance(hint, typing.NewType):
        return hint.__supertype__
    if isinstance(hint, TypeVar):
        return either(hint.__constraints__) if hint.__constraints__ else hint.__bound__ or Any
    if get_origin(hint) in (Required, NotRequired, typing.Final):
        return get_args(hint)[0]
    return str if hint is typing.LiteralString else hint


def _member(plain: type[enum.Enum]) -> Any:
    """Read a member by its value, or by its name if JSON lacks such a value."""
    values = [member.value for member in plain]
    if all(value is None or type(value) in (str, int, float, bool) for value in values):
        return plain
    return choice({member.name: member for member in plain})


def _number(plain: type) -> Any:
    whole = issubclass(plain, numbers.Integral)
    if plain.__module__ == "numbers":
        return int if whole else int | float
    return Annotated[int if whole else float, AfterValidator(plain)]


def _json_name(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        value = value.value if isinstance(value.value, str | int) else value.name
    return value.decode(errors="replace") if isinstance(value, bytes) else value
