"""Type hints as people write them → hints that pydantic reads from JSON.

A value that JSON cannot carry (a DataFrame, a connection, an object of the user's own class) is
passed by reference (`schema.references`): the model names a variable, and the call receives the
live object.
"""

from __future__ import annotations

import enum
import numbers
import re
import types
import typing
from collections import abc
from collections.abc import Container, Iterable, Mapping
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
    ImportString,
    WithJsonSchema,
    create_model,
)
from pydantic.json_schema import GenerateJsonSchema
from typing_extensions import TypedDict, is_typeddict

from kimi_magic.schema.references import Listing, Named, Reference

__all__ = [
    "CONFIG",
    "HintTranslator",
    "QuietJsonSchema",
    "choice",
    "dict_of",
    "either",
    "is_union",
    "keys_of",
    "list_of",
    "typed_dict",
    "with_names",
]

CONFIG = ConfigDict(
    extra="forbid",
    allow_inf_nan=False,
    arbitrary_types_allowed=False,
    regex_engine="python-re",
)

_REFERENCE = "x-holds"  # marks a reference in the schema until its description is written
_LITERAL = ("default", "enum", "const", "examples")  # keywords whose values are no schemas
_KINDS = ["string", "number", "boolean", "object", "array", "null"]
_ANYTHING: dict[str, Any] = {"type": _KINDS}
_EACH: dict[str, Any] = {"anyOf": [{"type": kind} for kind in _KINDS]}  # for rules beside
_PLAIN = (bool, int, float, str, bytes, Any, None, type(None), object)
_BASES = (int, float, str, bytes, datetime, date, timedelta, list, dict, set, frozenset)
_VALUES = ("default", "expected", "metadata")  # of the user's, in a schema of pydantic's core
_ITERABLES = (abc.Iterable, abc.Collection, abc.Container, abc.Reversible)
_ITERATORS = (abc.Iterator, abc.Generator)
_CONTAINERS = (
    *(list, dict, tuple, set, frozenset),
    *(abc.Sequence, abc.MutableSequence, abc.Mapping, abc.MutableMapping, abc.Set, abc.MutableSet),
)


class QuietJsonSchema(GenerateJsonSchema):
    """Drops defaults that JSON cannot express, without a warning to the user."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012


def with_names(
    schema: Mapping[str, Any], references: list[Reference], listing: Listing
) -> dict[str, Any]:
    """Write the names that were listed into a copy of a schema with references."""
    return _Filling(references, listing).root(schema)


class _Filling:
    """Writes names into a schema; names that several parameters share become a definition."""

    def __init__(self, references: list[Reference], listing: Listing) -> None:
        self._references = references
        self._listed = [reference.schema(listing) for reference in references]
        self._defs: dict[str, Any] = {}

    def root(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        known = schema.get("$defs", {})
        shared = {r.hint: name for r in self._references if (name := self._shared(r, known))}
        filled = dict(self._filled(schema, shared))
        defs = {**filled.pop("$defs", {}), **self._defs}
        return {**filled, "$defs": defs} if defs else filled

    def _shared(self, reference: Reference, known: Container[str]) -> str:
        """Return the name of the definition for a kind of data that several parameters name."""
        hint = reference.hint
        if not isinstance(hint, Named) or not self._listed[reference.index].get("enum"):
            return ""
        if sum(other.hint is hint for other in self._references) < 2:
            return ""
        name = "_".join(re.findall(r"\w+", hint.label))
        while name in known:
            name += "_"
        return name

    def _filled(self, node: Any, shared: Mapping[Named, str]) -> Any:
        if isinstance(node, list):
            return [self._filled(inner, shared) for inner in node]
        if not isinstance(node, Mapping):
            return node
        if _REFERENCE in node:
            return self._reference(dict(node), shared)
        filled = dict(node)
        for key, inner in node.items():
            if key in ("properties", "$defs"):
                filled[key] = {name: self._filled(each, shared) for name, each in inner.items()}
            elif key not in ("items", "additionalProperties"):
                filled[key] = inner if key in _LITERAL else self._filled(inner, shared)
            elif self._is_unnamed(inner):  # without names, a value that may be any says nothing
                del filled[key]
            else:
                filled[key] = self._filled(inner, shared)
        branches = [each for each in node.get("anyOf", ()) if not self._is_unnamed(each)]
        if 0 < len(branches) < len(node.get("anyOf", ())):
            filled["anyOf"] = self._filled(branches, shared)
            if len(branches) == 1:
                filled = filled.pop("anyOf")[0] | filled
        return filled

    def _is_unnamed(self, node: Any) -> bool:
        """Return True where data may be named beside a value, and there is none."""
        index = node.get(_REFERENCE) if isinstance(node, Mapping) else None
        if index is None or not isinstance(self._references[index].hint, Named):
            return False
        return "enum" not in self._listed[index]

    def _reference(self, node: dict[str, Any], shared: Mapping[Named, str]) -> dict[str, Any]:
        reference = self._references[node.pop(_REFERENCE)]
        listed = self._listed[reference.index]
        if not isinstance(reference.hint, Named):
            own = str(node.get("description", "")).rstrip(". ")
            text = listed["description"]
            return {**node, **listed, "description": f"{own}. {text}" if own else text}
        rest = {key: value for key, value in node.items() if key not in ("type", "anyOf")}
        if rest.get("default", ...) is None:
            del rest["default"]
        if "enum" not in listed:
            return (_EACH if rest.keys() - {"description"} else _ANYTHING) | rest
        by_name = {"type": "string", **listed}
        if name := shared.get(reference.hint, ""):
            self._defs[name], by_name = by_name, {"$ref": f"#/$defs/{name}"}
        return {"anyOf": [by_name, _ANYTHING], **rest} if reference.keeps else by_name


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

    def also_by_name(self, hint: Any, named: Named, name: str) -> Any:
        """Translate the hint of a parameter that takes the name of a variable as well.

        A hint that admits objects by their names already stays as it is.
        """
        known, notes = len(self.references), [*self.notes]
        if hint is not Any and hint is not object:
            translated = self.parameter(hint, name)
            if len(self.references) > known or translated is Any:
                return translated
            self.notes = notes
            union = either([self._add(named), translated])
            return Annotated[union, Field(union_mode="left_to_right")]
        return self._add(named, keeps=True)

    def translate(self, hint: Any) -> Any:
        """Translate a hint, or raise whatever a hint raises that cannot be translated."""
        if hint in _PLAIN:
            return hint
        origin, inner = get_origin(hint), get_args(hint)
        # Pydantic's own would import whatever the model names.
        if hint is ImportString or any(type(extra) is ImportString for extra in inner[1:]):
            return self._reference(inner[0] if inner and inner[0] is not Any else object)
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
        if _is_readable(whole):
            return whole
        # Constraints such as Field(gt=0) cannot hold for the name of a variable.
        for extra in extras:
            base = made if _is_readable(made := Annotated[base, extra]) else base
        return base

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
        return self._add(hint)

    def _add(self, hint: Any, *, keeps: bool = False) -> Any:
        reference = Reference(hint, len(self.references), keeps)
        self.references.append(reference)
        mark = {"type": list(_KINDS) if keeps else "string", _REFERENCE: reference.index}
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
        return not _imports(model.__pydantic_core_schema__)
    except Exception:  # noqa: BLE001 - hints may be anything and run any code
        return False


def _imports(node: Any) -> bool:
    """Return True if pydantic imports what a value names, as `ImportString` in a model does."""
    if isinstance(node, dict):
        if getattr(node.get("function"), "__name__", "") == "import_string":
            return True
        node = [value for key, value in node.items() if key not in _VALUES]
    return isinstance(node, list | tuple) and any(map(_imports, node))


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
