"""What a callable takes: names, kinds, hints and defaults, whatever sort of callable it is."""

from __future__ import annotations

import collections.abc
import functools
import inspect
import sys
import types
import typing
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from typing_extensions import is_typeddict

__all__ = ["EMPTY", "Parameter", "home_of", "is_union", "keys_of", "read_parameters"]

EMPTY = inspect.Parameter.empty
KEYWORD_ONLY = inspect.Parameter.KEYWORD_ONLY
VAR_KEYWORD = inspect.Parameter.VAR_KEYWORD
VAR_POSITIONAL = inspect.Parameter.VAR_POSITIONAL
Kind = Any  # inspect's enumeration of kinds is private

# A whole number as default says little: f(scale=1) takes 0.5 as well.
_GUESSES: dict[type, Any] = {t: t for t in (bool, float, str, list, dict)} | {int: int | float}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a callable.

    ``fill``: the default is passed on when nothing is sent. ``offered``: the model is told of it.
    """

    name: str
    kind: Kind
    hint: Any = EMPTY
    default: Any = EMPTY
    description: str = ""
    fill: bool = False
    offered: bool = True

    @property
    def required(self) -> bool:
        return self.default is EMPTY and self.kind not in (VAR_POSITIONAL, VAR_KEYWORD)


def read_parameters(
    fn: Callable[..., Any], namespace: Mapping[str, Any]
) -> tuple[list[Parameter], list[str]]:
    """The parameters of `fn` with hints resolved, and in words what was guessed."""
    try:
        signature = _signature(fn)
    except (TypeError, ValueError):
        note = "has no signature: takes a list of positional values, args"
        return [Parameter("args", VAR_POSITIONAL, Any)], [note]
    hints, notes = _hints(fn, signature, namespace)
    fixed = _fixed(fn)
    notes += [f"{name}: fixed by the partial, not offered" for name in fixed]
    found: list[Parameter] = []
    for name, raw in signature.parameters.items():
        if name not in fixed:
            parameter = Parameter(name, raw.kind, hints[name], raw.default)
            found += _unpacked(parameter) if raw.kind is VAR_KEYWORD else [parameter]
    return [_settled(parameter, notes) for parameter in found], notes


def home_of(fn: Any) -> Any:
    """The function in which the hints and the docstring of a callable were written."""
    for _ in range(100):
        if isinstance(fn, functools.partial):
            fn = fn.func
        elif isinstance(fn, types.MethodType):
            fn = fn.__func__
        elif isinstance(fn, type):
            made = (fn.__init__, fn.__new__)  # type: ignore[misc]
            return next((m for m in made if isinstance(m, types.FunctionType)), fn)
        elif hasattr(fn, "__wrapped__"):
            fn = fn.__wrapped__
        elif isinstance(getattr(type(fn), "__call__", None), types.FunctionType):  # noqa: B004
            fn = type(fn).__call__
        else:
            break
    return fn


def is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)


def keys_of(typed_dict: Any) -> dict[str, tuple[Any, bool]]:
    """The keys of a TypedDict: the hint of each, and whether it must be there."""
    found: dict[str, tuple[Any, bool]] = {}
    for name, hint in typing.get_type_hints(typed_dict, include_extras=True).items():
        # With annotations as text, __required_keys__ knows nothing of Required and NotRequired.
        said = {typing.Required: True, typing.NotRequired: False}.get(get_origin(hint))
        found[name] = hint, name in typed_dict.__required_keys__ if said is None else said
    return found


def _signature(fn: Callable[..., Any]) -> inspect.Signature:
    signature = _inspect(fn)
    if hasattr(fn, "__wrapped__"):
        try:
            own = _inspect(fn, follow_wrapped=False)
        except (TypeError, ValueError):
            return signature
        if not _accepts(own, signature):
            return own
    return signature


def _inspect(fn: Callable[..., Any], **options: Any) -> inspect.Signature:
    if sys.version_info >= (3, 14):
        import annotationlib

        options["annotation_format"] = annotationlib.Format.FORWARDREF
    return inspect.signature(fn, **options)


def _accepts(own: inspect.Signature, promised: inspect.Signature) -> bool:
    """Whether a wrapper takes what the function that it wraps says it takes."""
    parameters = promised.parameters.values()
    by_name = [p.name for p in parameters if p.kind is KEYWORD_ONLY]
    in_place = [p for p in parameters if p.kind not in (KEYWORD_ONLY, VAR_KEYWORD, VAR_POSITIONAL)]
    try:
        own.bind(*in_place, **dict.fromkeys(by_name))
        own.bind(*[p for p in in_place if p.default is EMPTY], **dict.fromkeys(by_name))
    except TypeError:
        return False
    return True


def _fixed(fn: Any) -> dict[str, Any]:
    """What the partials around a function have set by keyword."""
    fixed: dict[str, Any] = {}
    while isinstance(fn, functools.partial):
        fixed |= fn.keywords
        fn = fn.func
    return fixed


def _hints(
    fn: Callable[..., Any], signature: inspect.Signature, namespace: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Each parameter's hint; one that cannot be resolved does not spoil the others."""
    home = home_of(fn)
    *scopes, typing_names = _scopes(home)
    names = ChainMap(*scopes, dict(namespace), typing_names)
    raw = {name: p.annotation for name, p in signature.parameters.items()}
    try:
        resolved = typing.get_type_hints(home, localns=names, include_extras=True)
        own = home.__annotations__
    except Exception:  # noqa: BLE001 - hints are code of others, evaluated
        resolved, own = {}, {}
    hints: dict[str, Any] = {}
    notes: list[str] = []
    for name, hint in raw.items():
        if hint is EMPTY or (name in resolved and own.get(name) is hint):
            hints[name] = resolved[name] if hint is not EMPTY else EMPTY
            continue
        shim = types.SimpleNamespace(__annotations__={name: hint})
        try:
            hints[name] = typing.get_type_hints(shim, localns=names, include_extras=True)[name]
        except Exception as error:  # noqa: BLE001 - as above
            notes.append(f"{name}: its hint {hint!r} cannot be resolved ({error}), any value goes")
            hints[name] = Any
    return hints, notes


def _scopes(home: Any) -> Iterator[dict[str, Any]]:
    """Where names of a hint are looked up, before the notebook."""
    with suppress(TypeError, ValueError):
        yield dict(inspect.getclosurevars(home).nonlocals)
    yield getattr(home, "__globals__", {})
    # Imported for type checkers only, most often.
    yield {**vars(collections.abc), **vars(typing)}


def _unpacked(parameter: Parameter) -> list[Parameter]:
    """``**kwargs: Unpack[SomeTypedDict]`` as keyword-only parameters."""
    inner = get_args(parameter.hint)
    if get_origin(parameter.hint) is not typing.Unpack or not is_typeddict(inner[0]):
        return [parameter]
    return [
        Parameter(name, KEYWORD_ONLY, hint, EMPTY if required else ...)
        for name, (hint, required) in keys_of(inner[0]).items()
    ]


def _settled(parameter: Parameter, notes: list[str]) -> Parameter:
    """A parameter with a hint in any case, and the description that its hint carries."""
    name, hint, default = parameter.name, parameter.hint, parameter.default
    if isinstance(default, FieldInfo):  # f(x: int = Field(3, description="…"))
        known = Any if hint is EMPTY else hint
        inner = EMPTY if default.is_required() else default.get_default(call_default_factory=True)
        parameter = replace(parameter, default=inner, fill=inner is not EMPTY)
        hint = Annotated[known, default]
    elif hint is EMPTY and type(default) in _GUESSES:
        hint = _GUESSES[type(default)]
        kind = "number" if isinstance(default, int | float) else type(default).__name__
        kind = "bool" if isinstance(default, bool) else kind
        notes.append(f"{name}: no hint, taken as {kind} from its default {default!r:.40}")
    elif hint is EMPTY:
        hint = Any
        notes.append(f"{name}: no hint, any value goes")
    return replace(parameter, hint=hint, description=_description(hint))


def _description(hint: Any) -> str:
    """The text in ``Annotated[…, "text"]``, ``Field(description="text")`` or ``Doc("text")``."""
    if is_union(hint):
        return next(filter(None, map(_description, get_args(hint))), "")
    if get_origin(hint) is not Annotated:
        return ""
    base, *extras = get_args(hint)
    for extra in reversed(extras):
        text = extra if isinstance(extra, str) else getattr(extra, "description", None)
        text = text or getattr(extra, "documentation", None)
        if isinstance(text, str) and text:
            return text
    return _description(base)
