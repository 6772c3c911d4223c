"""The parameters of a callable: from its signature and docstring, or from a handwritten schema."""

from __future__ import annotations

import ast
import builtins
import collections.abc
import functools
import inspect
import re
import sys
import textwrap
import types
import typing
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Annotated, Any, NamedTuple, get_args, get_origin

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, ValidationInfo
from pydantic.fields import FieldInfo
from typing_extensions import is_typeddict

from kimi_magic.core.errors import KimiError
from kimi_magic.schema.field_info import FieldFacts, MadeAnew, facts_of
from kimi_magic.schema.references import ARRAY, DATA, Named
from kimi_magic.schema.strict import types_of
from kimi_magic.schema.type_hints import (
    HintTranslator,
    choice,
    dict_of,
    either,
    is_union,
    keys_of,
    list_of,
    typed_dict,
)

__all__ = [
    "EMPTY",
    "VAR_KEYWORD",
    "VAR_POSITIONAL",
    "Documentation",
    "Parameter",
    "documentation_of",
    "fixed_by_partial",
    "home_of",
    "parameters_from_schema",
    "read_docstring",
    "read_parameters",
    "with_documentation",
]

EMPTY = inspect.Parameter.empty
KEYWORD_ONLY = inspect.Parameter.KEYWORD_ONLY
VAR_KEYWORD = inspect.Parameter.VAR_KEYWORD
VAR_POSITIONAL = inspect.Parameter.VAR_POSITIONAL
Kind = Any  # inspect's enumeration of kinds is private

# An integer as default often stands for any number: f(scale=1) takes 0.5 as well.
_HINT_OF_DEFAULT: dict[type, Any] = {
    **{kind: kind for kind in (bool, float, str, list, dict)},
    int: int | float,
}

_SECTIONS = (
    r"(?:Args|Arguments|Params|Parameters|Keyword (?:Args|Arguments|Parameters)|"
    r"Other (?:Args|Arguments|Params|Parameters)|Attributes|Returns?|Yields?|Receives|Raises|"
    r"Exceptions|Warns|Warnings?|Examples?|Notes?|References|See Also)"
)
_STYLES = {
    "numpy": re.compile(rf"^[ \t]*{_SECTIONS}[ \t]*\n[ \t]*-{{3,}}[ \t]*$", re.MULTILINE),
    "google": re.compile(rf"^[ \t]*{_SECTIONS}:[ \t]*$", re.MULTILINE | re.IGNORECASE),
    "sphinx": re.compile(r"^[ \t]*:(?:param|parameter|arg|argument|key|keyword)\b", re.MULTILINE),
}
_PARAMETERS = ("parameters", "other parameters", "keyword arguments")

# Types as docstrings name them: "{array-like, sparse matrix} of shape (n_samples, n_features)".
_ARRAYS = re.compile(
    r"array[-_ ]?like|\b(?:nd|\dd)?arrays?\b|data ?frame|\bseries\b|sparse matri|\btensors?\b"
    r"|\bindexables?\b",
    re.IGNORECASE,
)
# A text there picks a column: "label or list, or array-like".
_KEYS = re.compile(r"label|\b(?:keys?|columns?)\b", re.IGNORECASE)

_PLAIN_HINTS = {"string": str, "integer": int, "number": int | float, "boolean": bool, "null": None}
_LIMITS = {
    "minimum": "ge",
    "maximum": "le",
    "exclusiveMinimum": "gt",
    "exclusiveMaximum": "lt",
    "multipleOf": "multiple_of",
    "minLength": "min_length",
    "maxLength": "max_length",
    "pattern": "pattern",
    "minItems": "min_length",
    "maxItems": "max_length",
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a callable."""

    name: str
    kind: Kind
    hint: Any = EMPTY
    default: Any = EMPTY
    description: str = ""
    fill: bool = False  # pass the default on when nothing was sent
    in_schema: bool = True  # let the model set the parameter
    alias: str = ""  # the name that the model sees; "" for its own
    keyword: str = ""  # the name that the call takes; "" for its own
    named: Named | None = None  # the variables whose names stand for their values
    # No hint, or one that cannot be resolved, as it was written
    unread: str | None = None

    @property
    def required(self) -> bool:
        return self.default is EMPTY and self.kind not in (VAR_POSITIONAL, VAR_KEYWORD)

    def value(self, before: dict[str, Any]) -> Any:
        """Return the default of a call; it may be made of the values of the parameters before."""
        if isinstance(self.default, MadeAnew):
            return self.default.make(before)
        is_mutable = isinstance(self.default, list | dict | set)
        return deepcopy(self.default) if is_mutable else self.default  # as pydantic does


class Documentation(NamedTuple):
    """The content of a docstring: the purpose, and of each parameter its description and type."""

    purpose: str = ""
    described: dict[str, str] = {}  # noqa: RUF012 - never changed
    types: dict[str, str] = {}  # noqa: RUF012 - never changed


def read_parameters(
    fn: Callable[..., Any], namespace: Mapping[str, Any]
) -> tuple[list[Parameter], list[str]]:
    """Return the parameters of `fn` with hints resolved, and notes on what was guessed."""
    try:
        signature = _signature(fn)
    except (TypeError, ValueError):
        note = "has no signature: takes a list of positional values, args"
        return [Parameter("args", VAR_POSITIONAL, Any, unread="")], [note]
    hints, unread, notes = _hints(fn, signature, namespace)
    fixed: dict[str, Any] = {}
    while isinstance(fn, functools.partial):
        fixed |= fn.keywords
        fn = fn.func
    notes += [f"{name}: fixed by the partial, not offered" for name in fixed]
    found: list[Parameter] = []
    for name, raw in signature.parameters.items():
        if name not in fixed:
            parameter = Parameter(name, raw.kind, hints[name], raw.default, unread=unread.get(name))
            found += _unpacked(parameter) if raw.kind is VAR_KEYWORD else [parameter]
    completed = [_completed(parameter, notes) for parameter in found]
    if "raw_function" in getattr(fn, "__dict__", ()):  # pydantic's validate_call wants the aliases
        completed = [replace(p, keyword=p.alias) for p in completed]
    return completed, notes


def with_documentation(parameter: Parameter, said: Documentation) -> Parameter:
    """Add what the docstring says: the description, and what kind of data may be named.

    A name is taken for data by a parameter without a hint, unless it is documented as something
    else, and by one that is documented as array-like. Where a text picks a column, it is a text.
    """
    name, kind = parameter.name, said.types.get(parameter.name, "")
    written = parameter.unread or ""
    text = f"{kind} {written}".strip()
    named: Named | None = None
    if _KEYS.search(text) or _reads_text(parameter.hint):
        pass
    elif _ARRAYS.search(text) or _is_numpys(parameter.hint):
        named = ARRAY
    elif parameter.unread == "" and not text and _is_open(parameter.hint):
        named = DATA
    description = parameter.description or said.described.get(name, "")
    # Numpy's union of protocols and scalars is read as what it stands for.
    hint = Any if _is_numpys(parameter.hint) else parameter.hint
    return replace(parameter, hint=hint, description=description, named=named)


def _reads_text(hint: Any) -> bool:
    if get_origin(hint) is Annotated:
        return _reads_text(get_args(hint)[0])
    if _is_numpys(hint):
        return False
    return hint is str or (is_union(hint) and any(map(_reads_text, get_args(hint))))


def _is_open(hint: Any) -> bool:
    """Return True if any value goes, or a container."""
    return hint in (Any, list, dict)


def _is_numpys(hint: Any) -> bool:
    """Return True for ``numpy.typing.ArrayLike``, or a union with it."""
    names = (getattr(get_origin(each) or each, "__name__", "") for each in get_args(hint))
    return is_union(hint) and "_SupportsArray" in names


def fixed_by_partial(fn: Any) -> dict[str, Any]:
    """Return the values that a partial fixes, by the names of the parameters they go to."""
    fixed: dict[str, Any] = {}
    if isinstance(fn, functools.partial):
        with suppress(TypeError, ValueError):
            bound = _inspect(fn.func).bind_partial(*fn.args, **fn.keywords)
            fixed = {**fixed_by_partial(fn.func), **bound.arguments}
    return fixed


def home_of(fn: Any) -> Any:
    """Return the function whose source holds the hints and the docstring of a callable."""
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


def _signature(fn: Callable[..., Any]) -> inspect.Signature:
    signature = _inspect(fn)
    if hasattr(fn, "__wrapped__"):
        with suppress(TypeError, ValueError):
            own = _inspect(fn, follow_wrapped=False)
            return signature if _accepts(own, signature) else own
    return signature


def _inspect(fn: Callable[..., Any], **options: Any) -> inspect.Signature:
    if sys.version_info >= (3, 14):
        import annotationlib

        options["annotation_format"] = annotationlib.Format.FORWARDREF
    return inspect.signature(fn, **options)


def _accepts(own: inspect.Signature, promised: inspect.Signature) -> bool:
    """Return True if a wrapper takes what the signature of the wrapped function promises."""
    parameters = promised.parameters.values()
    by_name = [p.name for p in parameters if p.kind is KEYWORD_ONLY]
    in_place = [p for p in parameters if p.kind not in (KEYWORD_ONLY, VAR_KEYWORD, VAR_POSITIONAL)]
    try:
        own.bind(*in_place, **dict.fromkeys(by_name))
        own.bind(*[p for p in in_place if p.default is EMPTY], **dict.fromkeys(by_name))
    except TypeError:
        return False
    return True


def _hints(
    fn: Callable[..., Any], signature: inspect.Signature, namespace: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """Resolve the hints one by one, so that one bad hint does not spoil the others.

    Those that are missing, or cannot be resolved, are returned as they were written, too.
    """
    home = home_of(fn)
    *scopes, typing_names = _scopes(home)
    names = ChainMap(*scopes, dict(namespace), typing_names)
    raw = {name: p.annotation for name, p in signature.parameters.items()}
    try:
        resolved = typing.get_type_hints(home, localns=names, include_extras=True)
        own = home.__annotations__
    except Exception:  # noqa: BLE001 - hints are evaluated, which may run any code
        resolved, own = {}, {}
    hints: dict[str, Any] = {}
    unread = {name: "" for name, hint in raw.items() if hint is EMPTY}
    notes: list[str] = []
    for name, hint in raw.items():
        if hint is EMPTY or (name in resolved and own.get(name) is hint):
            hints[name] = EMPTY if hint is EMPTY else resolved[name]
            continue
        shim = types.SimpleNamespace(__annotations__={name: hint})
        try:
            hints[name] = typing.get_type_hints(shim, localns=names, include_extras=True)[name]
        except Exception as error:  # noqa: BLE001 - as above
            hints[name] = _resolved_in_part(shim, names, home)
            if hints[name] is Any:
                unread[name] = f"{hint}"
                why = f"cannot be resolved ({error}), any value goes"
                notes.append(f"{name}: its hint {hint!r} {why}")
    return hints, unread, notes


def _resolved_in_part(shim: Any, names: Mapping[str, Any], home: Any) -> Any:
    """Resolve a hint with names that its module imports for type checkers only.

    Its package often has them at its root, as pandas has Series; any other admits any value.
    """
    (hint,) = shim.__annotations__.values()
    package = str(getattr(home, "__module__", None) or "").partition(".")[0]
    root = vars(sys.modules.get(package, types))
    try:
        used = {n.id for n in ast.walk(ast.parse(hint)) if isinstance(n, ast.Name)}
        known = names.keys() | vars(builtins).keys()
        lacking = {name: root.get(name, Any) for name in used - known}
        if any(not isinstance(found, type) and found is not Any for found in lacking.values()):
            return Any
        scope = ChainMap(lacking, dict(names))
        (resolved,) = typing.get_type_hints(shim, localns=scope, include_extras=True).values()
    except Exception:  # noqa: BLE001 - as above
        return Any
    return Any if is_union(resolved) and Any in get_args(resolved) else resolved


def _scopes(home: Any) -> Iterator[dict[str, Any]]:
    """Yield the scopes in which the names of a hint are looked up."""
    with suppress(TypeError, ValueError):
        yield dict(inspect.getclosurevars(home).nonlocals)
    yield getattr(home, "__globals__", {})
    # Often imported under TYPE_CHECKING only.
    yield {**vars(collections.abc), **vars(typing)}


def _unpacked(parameter: Parameter) -> list[Parameter]:
    """Turn ``**kwargs: Unpack[SomeTypedDict]`` into keyword-only parameters."""
    inner = get_args(parameter.hint)
    if get_origin(parameter.hint) is not typing.Unpack or not is_typeddict(inner[0]):
        return [parameter]
    return [
        Parameter(name, KEYWORD_ONLY, hint, EMPTY if required else ...)
        for name, (hint, required) in keys_of(inner[0]).items()
    ]


def _completed(parameter: Parameter, notes: list[str]) -> Parameter:
    """Add a hint where there is none, and the description that the hint carries."""
    name, hint, default = parameter.name, parameter.hint, parameter.default
    if isinstance(default, FieldInfo) or get_origin(hint) is Annotated:
        known = Any if hint is EMPTY else hint
        hint, facts = facts_of(known, default)
        parameter = _with_facts(parameter, facts, notes)
    elif hint is EMPTY and type(default) in _HINT_OF_DEFAULT:
        hint = _HINT_OF_DEFAULT[type(default)]
        kind = "number" if isinstance(default, int | float) else type(default).__name__
        kind = "bool" if isinstance(default, bool) else kind
        notes.append(f"{name}: no hint, taken as {kind} from its default {default!r:.40}")
    elif hint is EMPTY:
        hint = Any
        notes.append(f"{name}: no hint, any value goes")
    return replace(parameter, hint=hint, description=_description(hint))


def _with_facts(parameter: Parameter, facts: FieldFacts, notes: list[str]) -> Parameter:
    """Take over the default and the alias that `pydantic.Field` gives to a parameter."""
    if facts.note:
        notes.append(f"{parameter.name}: {facts.note}")
    given = parameter.default
    if facts.is_filled:  # what the function itself does not know
        return replace(parameter, default=facts.default, fill=True, alias=facts.alias)
    default = EMPTY if isinstance(given, FieldInfo) else given
    return replace(parameter, default=default, alias=facts.alias)


def _description(hint: Any) -> str:
    """Find the text in ``Annotated[…, "text"]``, ``Field(description=…)`` or ``Doc("text")``."""
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


def documentation_of(fn: Any) -> Documentation:
    """Read the docstrings of a callable.

    A class may describe its parameters in the docstring of ``__init__``.
    """
    home = home_of(fn)
    inner = fn
    while isinstance(inner, functools.partial):
        inner = inner.func
    own = inner if inspect.isroutine(inner) or isinstance(inner, type) else type(inner)
    texts = [getattr(thing, "__doc__", None) for thing in (own, home)]
    if own is type(inner):  # for an object, __call__ says more than the class
        texts.reverse()
    read = [_read(text) for text in texts if isinstance(text, str)]
    purpose = next((said.purpose for said in read if said.purpose), "")
    described: dict[str, str] = {}
    types: dict[str, str] = {}
    for said in reversed(read):
        described |= said.described
        types |= said.types
    return Documentation(purpose, described, types)


def read_docstring(text: str | None) -> tuple[str, dict[str, str]]:
    """Read a docstring in Google, NumPy, Sphinx or no style.

    Returns the purpose, and the descriptions of the parameters by name.
    """
    said = _read(text)
    return said.purpose, said.described


def _read(text: str | None) -> Documentation:
    text = inspect.cleandoc(text or "").strip()
    said = Documentation(text)
    for style, mark in _STYLES.items():
        if mark.search(text):
            # griffe recognizes a section only after a blank line.
            spaced = text if style == "sphinx" else mark.sub(r"\n\g<0>", _indented(text))
            found = _parse(spaced, style)
            said = Documentation(
                min(said.purpose, found.purpose, key=len),
                found.described | said.described,
                found.types | said.types,
            )
    return said


def _indented(text: str) -> str:
    """Restore the indent that cleandoc took from a section at the very start."""
    first, _, rest = text.partition("\n")
    if _STYLES["google"].fullmatch(first) and not rest.startswith((" ", "\n")):
        rest = textwrap.indent(rest, "    ")
    return f"{first}\n{rest}"


def _parse(text: str, style: Any) -> Documentation:
    import griffe

    options: dict[str, Any] = {"warnings": False}
    prose: list[str] = []
    described: dict[str, str] = {}
    types: dict[str, str] = {}
    for section in griffe.Docstring(text).parse(style, **options):
        if section.kind.value == "text":
            prose.append(section.value.strip())
        elif section.kind.value in _PARAMETERS:
            for parameter in section.value:
                words = " ".join(parameter.description.split())
                for name in parameter.name.split(","):
                    described[name.strip().lstrip("*\\")] = words
                    types[name.strip().lstrip("*\\")] = str(parameter.annotation or "")
    given = {name: words for name, words in described.items() if words}
    return Documentation("\n\n".join(prose).strip(), given, {n: t for n, t in types.items() if t})


def parameters_from_schema(
    schema: Mapping[str, Any], own: Sequence[Parameter], translator: HintTranslator, name: str
) -> list[Parameter]:
    """Return the parameters of a function as a handwritten schema describes them.

    The schema is normalized, an object at the root. Validated values are converted to the
    function's own hints.
    """
    properties, required = schema["properties"], schema.get("required", ())
    if missing := [key for key in required if key not in properties]:
        raise KimiError(f"the schema of {name} requires {missing[0]}: add it to its properties")
    further = next((p for p in own if p.kind is VAR_KEYWORD), None)
    found: list[Parameter] = []
    for p in own:
        if p is further:
            continue
        if p.name not in properties:
            if p.required:
                raise KimiError(
                    f"the schema of {name} lacks {p.name}, which it takes: add a property"
                )
            found.append(replace(p, in_schema=False))
            continue
        hint = _own_hint(p, _hint(properties[p.name], schema, ()), translator)
        found.append(replace(p, hint=hint, default=EMPTY if p.name in required else p.default))
    names = {p.name for p in own if p is not further}
    others = [key for key in properties if key not in names]
    is_unknown = [(p.name, p.kind) for p in own] == [("args", VAR_POSITIONAL)]
    if others and further is None and not is_unknown:
        raise KimiError(f"the schema of {name} has {others[0]}, which {name} does not take")
    for key in others:
        default = EMPTY if key in required else ...
        found.append(Parameter(key, KEYWORD_ONLY, _hint(properties[key], schema, ()), default))
    if further and schema.get("additionalProperties", True) is not False:
        free = further.name
        while free in properties:
            free += "_"
        found.append(replace(further, name=free, hint=Any, in_schema=True))
    return found


def _own_hint(parameter: Parameter, read: Any, translator: HintTranslator) -> Any:
    """Return a hint that validates with `read`, then converts to the parameter's own hint."""
    if parameter.kind is VAR_POSITIONAL:
        return Any
    if parameter.hint is Any:
        return read
    adapter = TypeAdapter(translator.parameter(parameter.hint, parameter.name))

    def convert(value: Any, info: ValidationInfo) -> Any:
        try:
            return adapter.validate_python(value, context=info.context)
        except ValidationError as error:
            raise ValueError(error.errors(include_url=False)[0]["msg"]) from None

    return Annotated[read, AfterValidator(convert)]


def _hint(node: Mapping[str, Any], root: Mapping[str, Any], within: tuple[str, ...]) -> Any:
    """Return a hint for a subschema; a recursive reference admits any value."""
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        return Any if name in within else _hint(root["$defs"][name], root, (*within, name))
    if "anyOf" in node:
        return _either([_hint(branch, root, within) for branch in node["anyOf"]])
    if "enum" in node or "const" in node:
        return choice({value: value for value in node.get("enum", [node.get("const")])})
    kinds = types_of(node)
    if len(kinds) != 1:
        return _either([_hint({**node, "type": kind}, root, within) for kind in kinds])
    limits = {_LIMITS[key]: value for key, value in node.items() if key in _LIMITS}
    hint = _plain_hint(kinds[0], node, root, within)
    return Annotated[hint, Field(**limits)] if limits else hint


def _either(hints: list[Any]) -> Any:
    return either(hints) if hints and Any not in hints else Any


def _plain_hint(
    kind: str, node: Mapping[str, Any], root: Mapping[str, Any], within: tuple[str, ...]
) -> Any:
    if kind == "array":
        return list_of(_hint(node["items"], root, within) if "items" in node else Any)
    if kind != "object":
        return _PLAIN_HINTS.get(kind, Any)
    further = node.get("additionalProperties", True)
    if "properties" not in node:
        return dict_of(_hint(further, root, within) if isinstance(further, Mapping) else Any)
    hints = {key: _hint(inner, root, within) for key, inner in node["properties"].items()}
    made = typed_dict("Object", hints, node.get("required", ()))
    made.__pydantic_config__ = ConfigDict(extra="forbid" if further is False else "allow")
    return made
