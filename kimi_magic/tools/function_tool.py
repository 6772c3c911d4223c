"""A Python callable as a tool: its name, its schema, and the binding of arguments."""

from __future__ import annotations

import json
import math
import types
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Optional, get_args, get_origin

from pydantic import BaseModel, Field, ValidationError, create_model

from kimi_magic.core.errors import KimiError
from kimi_magic.schema.problems import (
    ArgumentsError,
    Places,
    problems_from_pydantic,
    stray_booleans,
)
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
    Parameter,
    documentation_of,
    fixed_by_partial,
    home_of,
    parameters_from_schema,
    read_parameters,
)
from kimi_magic.schema.strict import RESERVED, handwritten_schema, tool_schema
from kimi_magic.schema.type_hints import (
    CONFIG,
    HintTranslator,
    QuietJsonSchema,
    dict_of,
    list_of,
    with_names,
)
from kimi_magic.tools.decorator import asks_first
from kimi_magic.tools.tool import DEFAULT_OPTIONS, ToolOptions, name_of, proper_name

__all__ = ["FunctionTool", "make_tool"]

MAX_DESCRIPTION = 4000
MAX_DEFAULT = 300

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
    _binding: _Binding = field(kw_only=True, repr=False, compare=False)
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
        return tuple(_identity(each, seen) for each in (*functions, self.refs.paths, named))

    def defaults(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the defaults that apply beside the arguments, and what a partial fixes."""
        return self._binding.defaults(arguments) | fixed_by_partial(self.function)

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
) -> FunctionTool:
    """Make a tool of a callable.

    A handwritten schema describes the parameters, or the whole tool as the API takes it. Names in
    hints are looked up in the namespace, whose variables the model may name for a parameter that
    JSON cannot carry; ``refs`` names more, as `read_refs` takes them.
    """
    if not callable(fn):
        raise KimiError(f"{fn!r:.60} cannot be called: offer a function, a method or a class")
    namespace = {} if namespace is None else namespace
    if schema is not None:
        name, description, schema = _taken_apart(schema, name, description)
    wanted = name or name_of(fn, namespace)
    proper = proper_name(wanted)
    notes = [f"renamed from {wanted}"] if proper != wanted else []
    purpose, described = documentation_of(fn)
    purpose = purpose if description is None else description
    if not purpose:
        notes.append("no description: write a docstring")
    if len(purpose) > MAX_DESCRIPTION:
        notes.append(f"the description is cut after {MAX_DESCRIPTION:,} characters")
        purpose = purpose[: MAX_DESCRIPTION - 1] + "…"
    parameters, guessed = read_parameters(fn, namespace)
    translator = HintTranslator()
    if schema is None:
        translator.notes += guessed
        parameters = [
            replace(p, description=p.description or described.get(p.name, "")) for p in parameters
        ]
        binding = _Binding(parameters, translator)
        template = _described(binding, notes)
    else:
        template = _handwritten(schema, proper)
        binding = _Binding(
            parameters_from_schema(template, parameters, translator, proper), translator
        )
    refs = read_refs(refs)
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
        options,
        tuple(notes),
        languages or {},
        refs,
        _binding=binding,
        _template=template,
        _listing=Listing(),
    )
    return made.at_moment(namespace)


def _variables(fn: Any, namespace: Mapping[str, Any], refs: Refs) -> Variables:
    """Return the variables that a function's parameters may name."""
    # A namespace that somebody put together has no name: the function's own module is at home.
    home = namespace.get("__name__")
    if type(home) is not str:
        home = getattr(home_of(fn), "__module__", None) or "__main__"
    return Variables(namespace, refs, home, asks_first)


def _described(binding: _Binding, notes: list[str]) -> dict[str, Any]:
    """Return the binding's schema with descriptions and with the defaults that JSON can express."""
    raw = binding.schema
    raw.setdefault("properties", {})
    for p in binding.parameters:
        node = raw["properties"][binding.names[p.name]]
        node.pop("default", None)
        described = p.description or node.get("description") or _REST.get(p.kind)
        if described:
            node["description"] = described
        if p.kind not in _REST and _is_json(p.default):
            node["default"] = p.default
    missing = [p.name for p in binding.parameters if not p.description]
    if missing:
        notes.append(f"no description of {', '.join(missing)}")
    return tool_schema(raw)


def _is_json(value: Any) -> bool:
    """Return True if a default survives JSON unchanged; a tuple, for one, does not."""
    if type(value) is float:
        return math.isfinite(value)
    if type(value) in (list, dict):
        keys = value if isinstance(value, dict) else ()
        inner = value.values() if isinstance(value, dict) else value
        try:
            fits = all(type(k) is str for k in keys) and all(map(_is_json, inner))
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


def _handwritten(schema: Mapping[str, Any], name: str) -> dict[str, Any]:
    try:
        tidy = handwritten_schema(schema)
    except (TypeError, ValueError, AttributeError) as error:
        raise KimiError(f"the schema of {name} is no JSON Schema: {error}") from None
    if tidy.get("type") != "object" or not isinstance(tidy.get("properties"), dict):
        raise KimiError(f'the schema of {name} must have "type": "object" at its root')
    return tidy


class _Binding:
    """The parameters of a callable as a pydantic model."""

    def __init__(self, parameters: list[Parameter], translator: HintTranslator) -> None:
        self.parameters = parameters
        self.references = translator.references
        self.names = _names([p.name for p in parameters if p.in_schema])
        translator.notes += [
            f"{old}: sent as {new}, for servers refuse the name"
            for old, new in self.names.items()
            if old != new
        ]
        fields: dict[str, Any] = {
            f"p{i}": (
                _hint(p, translator),
                Field(... if p.required else None, alias=self.names[p.name]),
            )
            for i, p in enumerate(parameters)
            if p.in_schema
        }
        self._model: type[BaseModel] = create_model("Arguments", __config__=CONFIG, **fields)
        self.schema = self._model.model_json_schema(schema_generator=QuietJsonSchema)

    def __call__(
        self, arguments: Mapping[str, Any], context: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        sent, places = self._renamed(arguments)
        values: dict[str, Any] = {}
        try:
            places |= dict(stray_booleans(sent, self.schema, self.schema))
            read = self._read(sent, context)
            values = {
                p.name: getattr(read, f"p{i}")
                for i, p in enumerate(self.parameters)
                if f"p{i}" in read.model_fields_set
            }
        except ValidationError as error:
            places = problems_from_pydantic(error, sent, self.schema) | places
        except Exception as error:  # noqa: BLE001 - validators may raise anything
            places[()] = f"{type(error).__name__}: {error}"
        if places:
            raise ArgumentsError(places)
        return _arranged(self.parameters, values)

    def defaults(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the defaults of the parameters that a call leaves out."""
        sent, _ = self._renamed(arguments)
        own = {self.names.get(p.name, p.name): p.default for p in self.parameters}
        return {
            name: value
            for name, value in own.items()
            if name not in sent and value is not EMPTY and value is not ...
        }

    def _renamed(self, arguments: Mapping[str, Any]) -> tuple[dict[str, Any], Places]:
        """Use the names of the schema, and gather further keywords under their parameter."""
        names = {old: new for old, new in self.names.items() if new not in arguments}
        sent = {names.get(key, key): value for key, value in arguments.items()}
        further = next((p for p in self.parameters if p.kind is VAR_KEYWORD), None)
        if further is None:
            return sent, {}
        given = sent.get(further.name, {})
        unknown = [key for key in sent if key not in self.names.values()]
        if isinstance(given, dict) and (unknown or given):
            given = {**given, **{key: sent.pop(key) for key in unknown}}
            sent[further.name] = given
        taken = [
            p.name
            for p in self.parameters
            if p.kind is not p.kind.POSITIONAL_ONLY and p is not further
        ]
        return sent, {
            (further.name, key): f"is a field of its own; leave it out of {further.name}"
            for key in taken
            if isinstance(given, dict) and key in given
        }

    def _read(self, sent: dict[str, Any], context: dict[str, Any]) -> BaseModel:
        # Validated as JSON text if possible: in this mode even strict models read sets and dates.
        try:
            return self._model.model_validate_json(json.dumps(sent), context=context)
        except ValidationError as error:
            if error.errors(include_url=False)[0]["type"] != "json_invalid":
                raise
        except (ValueError, RecursionError):
            pass
        return self._model.model_validate(sent, context=context)


def _names(own: list[str]) -> dict[str, str]:
    """Return the name of each parameter in the schema."""
    names: dict[str, str] = {}
    for name in own:
        sent = name
        while sent in RESERVED or (sent != name and sent in own):
            sent += "_"
        names[name] = sent
    return names


def _hint(parameter: Parameter, translator: HintTranslator) -> Any:
    hint = translator.parameter(parameter.hint, parameter.name)
    if parameter.kind is VAR_POSITIONAL:
        return list_of(hint)
    if parameter.kind is VAR_KEYWORD:
        return dict_of(hint)
    return Optional[hint] if parameter.default is None and hint is not Any else hint  # noqa: UP045


def _arranged(
    parameters: list[Parameter], values: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return positional and keyword arguments; defaults fill only gaps between positions."""
    args: list[Any] = []
    skipped: list[Any] = []
    keywords: dict[str, Any] = {}
    rest = [v for p in parameters if p.kind is VAR_POSITIONAL for v in values.get(p.name, ())]
    for p in parameters:
        in_place = p.kind is p.kind.POSITIONAL_ONLY
        in_place = in_place or (bool(rest) and p.kind is p.kind.POSITIONAL_OR_KEYWORD)
        if p.fill:
            values.setdefault(p.name, p.default)
        if p.kind is VAR_POSITIONAL:
            args += [*skipped, *rest] if rest else []
        elif p.kind is VAR_KEYWORD:
            keywords |= values.get(p.name, {})
        elif p.name not in values:
            skipped += [p.default] if in_place else []
        elif in_place:
            args += [*skipped, values[p.name]]
            skipped = []
        else:
            keywords[p.name] = values[p.name]
    return tuple(args), keywords


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
