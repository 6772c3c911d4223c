"""The default, the alias and the constraints that ``pydantic.Field`` gives to a parameter."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from typing import Annotated, Any, get_args, get_origin

from pydantic import AliasChoices, Field
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

__all__ = ["FieldFacts", "MadeAnew", "facts_of"]

EMPTY = inspect.Parameter.empty
# Its default and its alias would be those of a field of our own model.
_OF_VALUES = ("title", "description", "examples", "discriminator", "json_schema_extra")
_NO_PATH = "its alias is a path into the arguments, which a call has not: its own name is sent"


@dataclass(frozen=True, slots=True)
class MadeAnew:
    """Stands for a default that a function makes for each call."""

    make: Callable[[dict[str, Any]], Any]  # takes the values of the parameters before it
    label: str

    def __repr__(self) -> str:
        return f"made anew for each call by {self.label}"


@dataclass(frozen=True, slots=True)
class FieldFacts:
    """The facts of a field that are not about its values.

    Attributes
    ----------
    default : any
        ``EMPTY`` where it is required.
    alias : str
        The name by which it is sent; "" for its own.
    is_filled : bool
        True if the default is not the function's own.
    note : str
        For the user.
    """

    default: Any = EMPTY
    alias: str = ""
    is_filled: bool = False
    note: str = ""


def facts_of(hint: Any, default: Any) -> tuple[Any, FieldFacts]:
    """Take the facts of its field off a hint, as pydantic reads them.

    The default may be a ``Field(…)`` of its own; it goes before those within ``Annotated``.
    """
    base, *extras = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    fields = [extra for extra in extras if isinstance(extra, FieldInfo)]
    fields += [default] if isinstance(default, FieldInfo) else []
    own_extras = [default] if isinstance(default, FieldInfo) else []
    kept = [inner for extra in [*extras, *own_extras] for inner in _of_values(extra)]
    bare = reduce(lambda made, extra: Annotated[made, extra], kept, base)
    alias, note = _alias(fields)
    own = EMPTY if isinstance(default, FieldInfo) else default
    if own is not EMPTY:
        return bare, FieldFacts(own, alias, note=note)
    for field in reversed(fields):
        given = _default(field)
        if given is not EMPTY:
            return bare, FieldFacts(given, alias, is_filled=True, note=note)
    return bare, FieldFacts(alias=alias, note=note)


def _default(field: FieldInfo) -> Any:
    factory, value = field.default_factory, field.default
    if factory in (list, dict, set):
        value = factory()
    elif factory is not None:
        name = getattr(factory, "__qualname__", type(factory).__name__)
        return MadeAnew(_maker(factory), f"{name}()")
    return EMPTY if value is PydanticUndefined or value is ... else value


def _of_values(extra: Any) -> list[Any]:
    """Return what a field says of its values: their limits, their description."""
    if not isinstance(extra, FieldInfo):
        return [extra]
    said = {name: given for name in _OF_VALUES if (given := getattr(extra, name)) is not None}
    return [*extra.metadata, *([Field(**said)] if said else [])]


def _alias(fields: list[FieldInfo]) -> tuple[str, str]:
    """Return the name of the latest field that has one, and a note on one that is none."""
    for field in reversed(fields):
        found = field.validation_alias or field.alias
        if isinstance(found, AliasChoices):
            found = next((each for each in found.choices if isinstance(each, str)), found)
        if isinstance(found, str):
            return found, ""
        if found is not None:
            return "", _NO_PATH
    return "", ""


def _maker(factory: Any) -> Callable[[dict[str, Any]], Any]:
    """Return a function of the values before; a factory may take them or nothing."""
    wanted: list[inspect.Parameter] = []
    with suppress(TypeError, ValueError):  # of a class in C
        wanted = [*inspect.signature(factory).parameters.values()]
    takes = any(p.default is EMPTY and p.kind is p.POSITIONAL_OR_KEYWORD for p in wanted)
    return factory if takes else lambda _: factory()
