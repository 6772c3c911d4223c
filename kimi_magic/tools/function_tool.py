"""A Python callable as a tool: its name, its schema, and the binding of arguments."""

from __future__ import annotations

import json
import math
import types
from collections.abc import Callable, Container, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import partial
from typing import Any, get_args, get_origin

from kimi_magic.core.errors import KimiError
from kimi_magic.core.interrupts import is_interrupt
from kimi_magic.core.text import clip
from kimi_magic.schema.references import (
    NO_REFS,
    Listing,
    Refs,
    Variables,
    isinstance_of,
    read_refs,
)
from kimi_magic.schema.signature import (
    EMPTY,
    VAR_KEYWORD,
    VAR_POSITIONAL,
    Documentation,
    Parameter,
    documentation_of,
    fixed_by_partial,
    home_of,
    parameters_from_schema,
    read_parameters,
    with_documentation,
)
from kimi_magic.schema.strict import handwritten_schema, one_object, tool_schema
from kimi_magic.schema.type_hints import HintTranslator, with_names
from kimi_magic.secrets.fields import is_secret_field, surely_names_secret
from kimi_magic.tools.binding import Binding
from kimi_magic.tools.decorator import asks_first
from kimi_magic.tools.tool import (
    DEFAULT_OPTIONS,
    ToolOptions,
    name_of,
    proper_name,
    read_params,
    unfit,
)

__all__ = ["FunctionTool", "make_tool"]

MAX_DESCRIPTION = 4000
MAX_DEFAULT = 300
MAX_NAMED = 200

_LACKING = "{0} needs {1}, which params leaves out: add it"

_REST = {VAR_KEYWORD: "Further arguments by name", VAR_POSITIONAL: "Further values, in order"}
_CALLS = (types.MethodType, types.BuiltinFunctionType, partial)
_ATOMS = (type(None), bool, int, float, complex, str, bytes)


@dataclass(frozen=True, slots=True)
class FunctionTool:
    """A Python callable as a `Tool`; `make_tool` makes one."""

    name: str
    description: str
    parameters: dict[str, Any]  # the JSON Schema of the arguments, an object at the root
    function: Callable[..., Any]
    options: ToolOptions = DEFAULT_OPTIONS
    notes: tuple[str, ...] = ()
    languages: Mapping[str, str] = field(default_factory=dict)
    refs: Refs = NO_REFS
    only: tuple[str, ...] | None = None  # the parameters that are offered; None for all
    path: str = ""  # by which the user offered it; "" if unknown
    _binding: Binding = field(kw_only=True, repr=False, compare=False)
    # The parameters before variables are listed in them, and the variables that are
    _template: Mapping[str, Any] = field(kw_only=True, repr=False, compare=False)
    _listing: Listing = field(kw_only=True, repr=False, compare=False)

    def schema(self) -> dict[str, Any]:
        function = {"name": self.name, "description": self.description}
        return {"type": "function", "function": {**function, "parameters": self.parameters}}

    def bind(
        self, arguments: Mapping[str, Any], namespace: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the positional and keyword arguments of the function, defaults left out.

        Of the variables that fit, only those that the schema lists may be named.
        """
        variables = _variables(self.function, namespace, self.refs)
        return self._binding(arguments, {"variables": variables, "listing": self._listing})

    def call(self, bound: tuple[tuple[Any, ...], dict[str, Any]]) -> Any:
        args, kwargs = bound
        return self.function(*args, **kwargs)

    def identity(self) -> Hashable:
        """Return a key of the function and of the notebook's functions that it calls.

        Code, defaults, closure, annotations and the bound object belong to it. Running the same
        definition again gives an equal key.
        """
        seen: list[Any] = []
        functions = (self.function, home_of(self.function))
        named = tuple(sorted(self.refs.objects.items()))
        told = (self.refs.paths, named, self.only)
        return tuple(_identity(each, seen) for each in (*functions, *told))

    def defaults(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the defaults that apply beside the arguments, and what a partial fixes."""
        return self._binding.defaults(arguments) | fixed_by_partial(self.function)

    def misnamed(self, arguments: Mapping[str, Any], namespace: Mapping[str, Any]) -> list[str]:
        """Return words on the arguments that are texts, and the names of variables as well."""
        return self._binding.misnamed(arguments, namespace, self._listing)

    def variant(
        self, *, name: str | None = None, options: ToolOptions | None = None
    ) -> FunctionTool:
        notes = self.notes
        if name is not None and name != self.name:
            notes = (*notes, f"renamed from {self.name}")
        return replace(self, name=name or self.name, options=options or self.options, notes=notes)

    def at_moment(self, namespace: Mapping[str, Any]) -> FunctionTool:
        references = self._binding.references
        if not references:
            return self
        listing = Listing.of(references, _variables(self.function, namespace, self.refs))
        parameters = with_names(self._template, references, listing)
        return replace(self, parameters=parameters, _listing=listing)


def make_tool(
    fn: Callable[..., Any],
    *,
    name: str | None = None,
    description: str | None = None,
    schema: Mapping[str, Any] | None = None,
    options: ToolOptions = DEFAULT_OPTIONS,
    languages: Mapping[str, str] | None = None,
    namespace: Mapping[str, Any] | None = None,
    refs: Any = None,
    params: Iterable[str] | None = None,
    path: str = "",
) -> FunctionTool:
    """Make a tool of a callable.

    A handwritten schema describes the parameters, or the whole tool as the API takes it. Names in
    hints are looked up in the namespace, whose variables the model may name for a parameter that
    JSON cannot carry; ``refs`` names more, as `read_refs` takes them. With ``params`` only these
    parameters are offered. ``path`` is the name by which the user offered it.

    Raises
    ------
    KimiError
        It names the callable, and the reason why it cannot be a tool.
    """
    if not callable(fn):
        raise KimiError(f"{fn!r:.60} cannot be called: offer a function, a method or a class")
    namespace = {} if namespace is None else namespace
    label = name or "the tool"
    try:
        label = name or name_of(fn, namespace)
        made = _Maker(fn, namespace, options, languages or {})
        only = read_params(params)
        return replace(made.tool(name, description, schema, read_refs(refs), only), path=path)
    except BaseException as error:
        if is_interrupt(error):
            raise
        raise unfit(label, error) from None  # to look at a function may run any code


@dataclass(frozen=True, slots=True)
class _Maker:
    """Makes the tool of a callable."""

    function: Callable[..., Any]
    namespace: Mapping[str, Any]
    options: ToolOptions
    languages: Mapping[str, str]

    def tool(
        self,
        name: str | None,
        description: str | None,
        schema: Mapping[str, Any] | None,
        refs: Refs,
        only: tuple[str, ...] | None,
    ) -> FunctionTool:
        fn, namespace = self.function, self.namespace
        if schema is not None:
            name, description, schema = _taken_apart(schema, name, description)
        wanted = name or name_of(fn, namespace)
        proper = proper_name(wanted)
        notes = [f"renamed from {wanted}"] if proper != wanted else []
        said = documentation_of(fn)
        purpose = said.purpose if description is None else description
        if not purpose:
            notes.append("no description: write a docstring")
        if len(purpose) > MAX_DESCRIPTION:
            notes.append(f"the description is cut after {MAX_DESCRIPTION:,} characters")
            purpose = purpose[: MAX_DESCRIPTION - 1] + "…"
        translator = HintTranslator()
        if schema is None:
            binding, template = self._read(said, only, translator, notes)
        else:
            template, alternatives = _handwritten(schema, proper)
            if only is not None:
                template = _part_of(template, only, proper)
            parameters, _ = read_parameters(fn, namespace)
            parameters = parameters_from_schema(template, parameters, translator, proper)
            binding = Binding(parameters, translator, alternatives)
        notes += translator.notes
        if refs != NO_REFS and not translator.references:
            notes.append("refs: no parameter takes an object by its name")
        lacking = _variables(fn, namespace, refs).lacking()
        notes += [f"refs: there is no {path} now, or it is computed" for path in lacking]
        made = FunctionTool(
            proper,
            purpose,
            template,
            fn,
            self.options,
            tuple(notes),
            self.languages,
            refs,
            only,
            _binding=binding,
            _template=template,
            _listing=Listing(),
        )
        return made.at_moment(namespace)

    def _read(
        self,
        said: Documentation,
        only: tuple[str, ...] | None,
        translator: HintTranslator,
        notes: list[str],
    ) -> tuple[Binding, dict[str, Any]]:
        """Read the parameters from the signature and the docstring."""
        parameters, guessed = read_parameters(self.function, self.namespace)
        parameters = [with_documentation(p, said) for p in parameters]
        if only is not None:
            parameters = _chosen(parameters, only, name_of(self.function, self.namespace))
            aside = [p.name for p in parameters if not p.in_schema]
            guessed = [note for note in guessed if note.partition(":")[0] not in aside]
            notes += [f"not offered: {clip(', '.join(aside), MAX_NAMED)}"] if aside else []
        translator.notes += guessed
        binding = Binding(parameters, translator)
        by_name = [p.name for p in parameters if p.in_schema and p.named]
        if by_name:
            notes.append(f"{', '.join(by_name)}: the name of a variable stands for its value")
        return binding, _described(binding, notes)


def _chosen(parameters: list[Parameter], only: tuple[str, ...], name: str) -> list[Parameter]:
    """Take the other parameters out of the schema."""
    by_name = {each: p.name for p in parameters for each in (p.alias, p.name) if each}
    _check_chosen(only, by_name, [p.alias or p.name for p in parameters], name)
    offered = {by_name[each] for each in only}
    lacking = [p.name for p in parameters if p.required and p.name not in offered]
    if lacking:
        raise KimiError(_LACKING.format(name, ", ".join(lacking)))
    return [replace(p, in_schema=p.in_schema and p.name in offered) for p in parameters]


def _part_of(template: dict[str, Any], only: tuple[str, ...], name: str) -> dict[str, Any]:
    """Return a part of a handwritten schema."""
    properties = template["properties"]
    _check_chosen(only, properties, list(properties), name)
    if lacking := [each for each in template.get("required", ()) if each not in only]:
        raise KimiError(_LACKING.format(name, ", ".join(lacking)))
    part = {each: node for each, node in properties.items() if each in only}
    return {**template, "properties": part, "additionalProperties": False}


def _check_chosen(
    only: tuple[str, ...], known: Container[str], names: list[str], tool: str
) -> None:
    unknown = [each for each in only if each not in known]
    if unknown:
        near = get_close_matches(unknown[0], names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(names) or 'none'}"
        raise KimiError(f"{tool} has no parameter {', '.join(unknown)}: {clip(hint, MAX_NAMED)}")


def _variables(fn: Any, namespace: Mapping[str, Any], refs: Refs) -> Variables:
    """Return the variables that a function's parameters may name."""
    # A namespace that somebody put together has no name: the function's own module is at home.
    home = namespace.get("__name__")
    if type(home) is not str:
        home = getattr(home_of(fn), "__module__", None) or "__main__"
    return Variables(namespace, refs, home, asks_first, surely_names_secret)


def _described(binding: Binding, notes: list[str]) -> dict[str, Any]:
    """Return the binding's schema with descriptions and with the defaults that JSON can express."""
    raw = binding.schema
    raw.setdefault("properties", {})
    offered = [p for p in binding.parameters if p.in_schema]
    for p in offered:
        node = raw["properties"][binding.names[p.name]]
        node.pop("default", None)
        described = p.description or node.get("description") or _REST.get(p.kind)
        if described:
            node["description"] = described
        secret = is_secret_field(p.name, p.default)
        if p.kind not in _REST and not secret and _is_json(p.default):
            node["default"] = p.default
    missing = [p.name for p in offered if not p.description]
    if missing:
        notes.append(f"no description of {', '.join(missing)}")
    return tool_schema(raw)


def _is_json(value: Any) -> bool:
    """Return True if a default survives JSON unchanged; a tuple, for one, does not.

    One that holds a secret is not for the model either.
    """
    if type(value) is float:
        return math.isfinite(value)
    if type(value) in (list, dict):
        keys = value if isinstance(value, dict) else ()
        inner = value.values() if isinstance(value, dict) else value
        try:
            fits = all(type(k) is str for k in keys) and all(map(_is_json, inner))
            fits = fits and not any(is_secret_field(k, value[k]) for k in keys)
            return fits and len(json.dumps(value)) <= MAX_DEFAULT
        except RecursionError:
            return False
    if type(value) is str:
        return len(value) <= MAX_DEFAULT
    return value is None or type(value) in (bool, int)


def _taken_apart(
    schema: Mapping[str, Any], name: str | None, description: str | None
) -> tuple[str | None, str | None, Mapping[str, Any]]:
    """Return name, description and parameters of a schema that may be a whole tool's."""
    whole = schema.get("function", schema)
    if not isinstance(whole, Mapping) or "properties" in whole or "name" not in whole:
        return name, description, schema
    description = whole.get("description") if description is None else description
    return name or whole["name"], description, whole.get("parameters") or {}


def _handwritten(
    schema: Mapping[str, Any], name: str
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return a schema of one object, and the one with its alternatives where it has some."""
    try:
        tidy = handwritten_schema(schema)
    except (TypeError, ValueError, AttributeError) as error:
        raise KimiError(f"the schema of {name} is no JSON Schema: {error}") from None
    alternatives = None
    if "anyOf" in tidy:
        tidy, alternatives = one_object(tidy), tidy
    if tidy.get("type") != "object" or not isinstance(tidy.get("properties"), dict):
        raise KimiError(f'the schema of {name} must have "type": "object" at its root')
    return tidy, alternatives


class _Same:
    """An object that equals itself only, kept alive so that its id is not reused."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


def _identity(value: Any, seen: list[Any]) -> Hashable:
    """Return a key that is equal for equal code with equal plain values.

    Other objects equal only themselves: their ``==`` may run any code, and a list that a function
    fills as it runs must not undo the approval.
    """
    if type(value) in _ATOMS:
        return type(value), repr(value)  # 1 == 1.0 == True, and 0.0 == -0.0
    for i, function in enumerate(seen):
        if function is value:  # functions may refer to each other in a circle
            return "seen", i
    if isinstance(value, types.FunctionType):
        seen.append(value)
    key, parts = (tuple, value) if type(value) is tuple else _dissected(value)
    own = [_identity(part, seen) for part in parts]
    if isinstance(value, types.FunctionType):
        own += [_used(value, each, seen) for each in sorted(_names_in(value.__code__))]
    return (key, *own)


def _dissected(value: Any) -> tuple[Hashable, Iterable[Any]]:
    """Return a key, and further values that belong to the identity."""
    match value:
        case types.FunctionType():
            return (value.__code__, _Same(value.__globals__)), _state_of(value)
        case types.MethodType():
            return ("method", _Same(value.__self__)), (value.__func__,)
        case types.BuiltinFunctionType():  # "a".split is a new object every time
            return (value.__qualname__, _Same(value.__self__)), ()
        case partial() if type(value) is partial:
            return partial, (value.func, value.args, *value.keywords.items())
    if (origin := get_origin(value)) is not None:  # list[int] is a new object every time
        inner = get_args(value)  # with a list in Callable[[int], str]
        return _Same(origin), (tuple(arg) if type(arg) is list else arg for arg in inner)
    return _Same(value), ()


def _used(function: types.FunctionType, name: str, seen: list[Any]) -> Hashable:
    """Return the identity of what a function finds under a global name, if it is code.

    A function of the same notebook is its own code again. Data change as a notebook goes on.
    """
    found = function.__globals__.get(name)
    if type(found) is types.FunctionType:
        own = found.__globals__ is function.__globals__
        return name, _identity(found, seen) if own else _Same(found)
    return name, _Same(found) if isinstance_of(found, type, types.ModuleType, *_CALLS) else None


def _names_in(code: types.CodeType) -> set[str]:
    """Return the global names in code, those of inner functions included."""
    inner = (const for const in code.co_consts if isinstance(const, types.CodeType))
    return set(code.co_names).union(*map(_names_in, inner))


def _state_of(function: types.FunctionType) -> Iterator[Any]:
    yield function.__defaults__
    yield tuple((function.__kwdefaults__ or {}).items())
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not assigned yet
            yield EMPTY
    try:
        yield tuple(function.__annotations__.items())
    except Exception:  # noqa: BLE001 - Python 3.14 evaluates annotations here
        yield EMPTY
