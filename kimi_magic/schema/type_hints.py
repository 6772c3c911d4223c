"""Hints as people write them → hints with which pydantic reads JSON.

What JSON cannot carry (a DataFrame, a connection, an object of one's own class) is offered by
reference: the model names a variable, the call receives the live object.
"""

from __future__ import annotations

import enum
import io
import numbers
import typing
from collections import abc
from collections.abc import Container, Iterable, Mapping
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

from kimi_magic.schema.signature import is_union, keys_of

__all__ = [
    "CONFIG",
    "HOLDS",
    "Carrier",
    "QuietJsonSchema",
    "Reference",
    "choice",
    "dict_of",
    "either",
    "is_readable",
    "list_of",
    "typed_dict",
]

CONFIG = ConfigDict(
    extra="forbid",
    allow_inf_nan=False,
    arbitrary_types_allowed=False,
    regex_engine="python-re",
)
HOLDS = "x-holds"  # marks a reference in the schema until its description is written
MAX_NAMES = 20

_PLAIN = (bool, int, float, str, bytes, Any, None, type(None), object)
_BASES = (int, float, str, bytes, datetime, date, timedelta, list, dict, set, frozenset)
_ONE_BY_ONE = (abc.Iterable, abc.Collection, abc.Container, abc.Reversible)
_ITERATORS = (abc.Iterator, abc.Generator)
_CONTAINERS = (
    *(list, dict, tuple, set, frozenset),
    *(abc.Sequence, abc.MutableSequence, abc.Mapping, abc.MutableMapping, abc.Set, abc.MutableSet),
)


class QuietJsonSchema(GenerateJsonSchema):
    """Leaves out defaults that are no JSON without a warning to the user, who need not know."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012


@dataclass(frozen=True, slots=True)
class Reference:
    """A parameter's value that JSON cannot carry: the model names a variable that holds it."""

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
        """Whether `value` is one; where Python cannot tell (a Protocol), it is."""
        if is_typeddict(self._class):
            return isinstance(value, dict)
        kind = {typing.IO: io.IOBase, typing.TextIO: io.TextIOBase}.get(self._class, self._class)
        try:
            inner = get_args(self.hint)
            if kind is type and inner and isinstance(value, type) and isinstance(inner[0], type):
                return issubclass(value, inner[0])
            return isinstance(value, kind)
        except Exception:  # noqa: BLE001 - isinstance runs code of others
            return not isinstance(kind, type) or bool(getattr(kind, "_is_protocol", False))

    def names(self, namespace: Mapping[str, Any]) -> list[str]:
        """The variables that hold one at this moment."""
        items = list(namespace.items())
        return sorted(n for n, v in items if not n.startswith("_") and self.admits(v))

    def sentence(self, namespace: Mapping[str, Any]) -> str:
        """What the model is told."""
        names = self.names(namespace)
        more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
        now = f"now: {', '.join(names[:MAX_NAMES])}{more}" if names else "none now"
        return f"Name of a variable that holds {_a(self.label)} ({now}); attributes as in box.name"

    def look_up(self, value: Any, info: ValidationInfo) -> Any:
        """The object that the model named."""
        namespace = (info.context or {}).get("namespace", {})
        wanted = f"the name of a variable that holds {_a(self.label)}"
        if not isinstance(value, str):
            raise ValueError(wanted)  # noqa: TRY004 - what pydantic gathers
        found = _find(value.strip(), namespace)
        if found is not _NOTHING and self.admits(found):
            return found
        names = ", ".join(self.names(namespace)[:MAX_NAMES]) or "there is none now"
        if found is _NOTHING:
            raise ValueError(f"{wanted}: {names}")
        raise ValueError(f"{wanted}: {names} (it is {_a(type(found).__name__)})")


_NOTHING = object()


def _a(noun: str) -> str:
    return f"an {noun}" if noun[:1] in "AEIOUaeiou" else f"a {noun}"


def _find(path: str, namespace: Mapping[str, Any]) -> Any:
    first, *rest = path.split(".")
    if not all(part.isidentifier() and not part.startswith("__") for part in (first, *rest)):
        return _NOTHING
    found = namespace.get(first, _NOTHING)
    for part in rest:
        try:
            found = _NOTHING if found is _NOTHING else getattr(found, part)
        except Exception:  # noqa: BLE001 - a property is code of others
            return _NOTHING
    return found


class Carrier:
    """Makes hints fit for JSON; gathers references, and notes on what was done."""

    def __init__(self) -> None:
        self.references: list[Reference] = []
        self.notes: list[str] = []
        self._open: list[Any] = []

    def carry(self, hint: Any, name: str) -> Any:
        """The hint with which the parameter `name` is read."""
        known = len(self.references)
        try:
            carried = self._carry(hint)
            if is_readable(carried):
                self.notes += [
                    f"{name}: JSON carries no {reference.label}, offered by a variable's name"
                    for reference in self.references[known:]
                ]
                return carried
        except Exception:  # noqa: BLE001, S110 - hints are code of others, in every shape
            pass
        del self.references[known:]
        self.notes.append(f"{name}: its hint {hint!r:.60} fits no JSON, any value goes")
        return Any

    def _carry(self, hint: Any) -> Any:
        if hint in _PLAIN:
            return hint
        origin, inner = get_origin(hint), get_args(hint)
        if origin is Annotated:
            return self._annotated(self._carry(inner[0]), inner[1:])
        if is_union(hint):
            return self._union(inner)
        if origin is Literal and any(isinstance(value, enum.Enum | bytes) for value in inner):
            return choice({_json_name(value): value for value in inner})
        meant = _meant(hint)
        return self._container(hint, origin, inner) if meant is hint else self._carry(meant)

    def _annotated(self, base: Any, extras: tuple[Any, ...]) -> Any:
        whole = reduce(lambda made, extra: Annotated[made, extra], extras, base)
        # Field(gt=0) on what is offered by name says nothing about the name.
        return whole if is_readable(whole) else base

    def _union(self, branches: tuple[Any, ...]) -> Any:
        carried = [self._carry(branch) for branch in branches]
        # A variable's name is a text as well: what is offered by name is tried before str.
        by_name = [hint for hint in carried if self._is_reference(hint)]
        others = [hint for hint in carried if not self._is_reference(hint)]
        union = either([*by_name, *others])
        mixed = by_name and set(others) - {None, type(None)}
        return Annotated[union, Field(union_mode="left_to_right")] if mixed else union

    def _is_reference(self, hint: Any) -> bool:
        schema = next((e for e in get_args(hint) if isinstance(e, WithJsonSchema)), None)
        return schema is not None and HOLDS in (schema.json_schema or {})

    def _container(self, hint: Any, origin: Any, inner: tuple[Any, ...]) -> Any:
        plain = origin or hint
        if plain in (*_ONE_BY_ONE, *_ITERATORS):
            # pydantic reads these lazily: a wrong item would be found inside the function.
            items = list_of(self._carry(inner[0]) if inner else Any)
            return Annotated[items, AfterValidator(iter)] if plain in _ITERATORS else items
        if origin in _CONTAINERS and inner:
            parts = tuple(part if part is ... else self._carry(part) for part in inner)
            return origin[parts if len(parts) > 1 else parts[0]]
        if isinstance(plain, type) and issubclass(plain, enum.Enum):
            return _member(plain)
        return self._leaf(hint, plain)

    def _leaf(self, hint: Any, plain: Any) -> Any:
        if plain is not type and is_readable(hint):
            return hint
        if is_typeddict(plain):
            return self._typed_dict(plain)
        if alias := getattr(hint, "__value__", None):  # type Alias = …
            return self._carry(alias)
        if not isinstance(plain, type):
            raise TypeError(hint)
        if issubclass(plain, numbers.Number):
            return _number(plain)
        base = next((base for base in _BASES if issubclass(plain, base)), None)
        # A class derived from what JSON has is read as that, then made.
        return self._reference(hint) if base is None else Annotated[base, AfterValidator(plain)]

    def _typed_dict(self, plain: Any) -> Any:
        """Made anew: before Python 3.12 pydantic reads those of typing_extensions only."""
        if plain in self._open:
            return dict[str, Any]
        self._open.append(plain)
        keys = keys_of(plain)
        fields = {name: self._carry(hint) for name, (hint, _) in keys.items()}
        self._open.remove(plain)
        return typed_dict(
            plain.__name__, fields, [k for k, (_, required) in keys.items() if required]
        )

    def _reference(self, hint: Any) -> Any:
        reference = Reference(hint)
        self.references.append(reference)
        mark = {"type": "string", HOLDS: len(self.references) - 1}
        return Annotated[Any, BeforeValidator(reference.look_up), WithJsonSchema(mark)]


def is_readable(hint: Any) -> bool:
    """Whether pydantic can read it from JSON, and say so in a schema."""
    try:
        model = create_model("Probe", __config__=CONFIG, value=(hint, ...))
        model.model_json_schema(schema_generator=QuietJsonSchema)
    except Exception:  # noqa: BLE001 - hints are code of others, in every shape
        return False
    return True


def either(hints: Iterable[Any]) -> Any:
    """A hint for a value that one of the hints reads."""
    return Union[tuple(hints)]  # noqa: UP007


def list_of(hint: Any) -> Any:
    return GenericAlias(list, (hint,))


def dict_of(hint: Any) -> Any:
    return GenericAlias(dict, (str, hint))


def _meant(hint: Any) -> Any:
    """What stands behind a hint that is a name for another."""
    if isinstance(hint, typing.NewType):
        return hint.__supertype__
    if isinstance(hint, TypeVar):
        return either(hint.__constraints__) if hint.__constraints__ else hint.__bound__ or Any
    if get_origin(hint) in (typing.Required, typing.NotRequired, typing.Final):
        return get_args(hint)[0]
    return str if hint is typing.LiteralString else hint


def _member(plain: type[enum.Enum]) -> Any:
    """A member of an enumeration by its value, or by its name where JSON has no such value."""
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


def choice(choices: dict[Any, Any]) -> Any:
    """A hint for one of several objects, by what stands for each in JSON."""

    def choose(value: Any) -> Any:
        for name, chosen in choices.items():
            if type(value) is type(name) and value == name:
                return chosen
        raise ValueError(" or ".join(map(repr, choices)))

    schema = WithJsonSchema({"enum": list(choices)})
    return Annotated[Any, BeforeValidator(choose), schema]


def typed_dict(name: str, hints: dict[str, Any], required: Container[str]) -> Any:
    """A hint for a dict with these keys."""
    fields = {k: Required[h] if k in required else NotRequired[h] for k, h in hints.items()}
    return TypedDict(name, fields)  # type: ignore[operator]
