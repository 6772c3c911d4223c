"""The arguments of a call: read as a function's parameters, and arranged for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Optional

from pydantic import BaseModel, Field, ValidationError, create_model

from kimi_magic.core.errors import KimiError
from kimi_magic.schema.problems import (
    ArgumentsError,
    Places,
    is_optional,
    problems_from_pydantic,
    problems_with_schema,
    stray_booleans,
    value_at,
)
from kimi_magic.schema.references import Listing, Variables, is_variable
from kimi_magic.schema.signature import EMPTY, VAR_KEYWORD, VAR_POSITIONAL, Parameter
from kimi_magic.schema.strict import RESERVED
from kimi_magic.schema.type_hints import (
    CONFIG,
    HintTranslator,
    QuietJsonSchema,
    dict_of,
    list_of,
)

__all__ = ["Binding"]


class Binding:
    """The parameters of a callable as a pydantic model."""

    def __init__(
        self,
        parameters: list[Parameter],
        translator: HintTranslator,
        alternatives: Mapping[str, Any] | None = None,
    ) -> None:
        self.parameters = parameters
        self._alternatives = alternatives  # a schema that the arguments must fit as well
        self.references = translator.references
        self.names = _names({p.name: p.alias or p.name for p in parameters if p.in_schema})
        aliases = {p.alias for p in parameters}
        for old, new in self.names.items():
            why = "its alias" if new in aliases else "for servers refuse the name"
            translator.notes += [f"{old}: sent as {new}, {why}"] if old != new else []
        fields: dict[str, Any] = {}
        self._by_name: dict[str, range] = {}  # the references of each parameter, as it is sent
        for i, p in enumerate(parameters):
            if p.in_schema:
                known, sent = len(self.references), self.names[p.name]
                hint = _hint(p, translator)
                fields[f"p{i}"] = (hint, Field(... if p.required else None, alias=sent))
                self._by_name[sent] = range(known, len(self.references))
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
            if self._alternatives and not places:
                places |= problems_with_schema(sent, self._alternatives)
            arranged = _arranged(self.parameters, values)
        except ValidationError as error:
            places = problems_from_pydantic(error, sent, self.schema) | places
        except Exception as error:  # noqa: BLE001 - validators may raise anything
            places[()] = f"{type(error).__name__}: {error}"
        if places:
            variables: Variables = context["variables"]
            raise ArgumentsError(_with_hints(places, sent, self.schema, variables.namespace))
        return arranged

    def misnamed(
        self, arguments: Mapping[str, Any], namespace: Mapping[str, Any], listing: Listing
    ) -> list[str]:
        """Return words on each text that was passed as it is, though a variable is called so."""
        sent, _ = self._renamed(arguments)
        told: list[str] = []
        for name, value in sent.items():
            taken = {each for i in self._by_name.get(name, ()) for each in listing.names[i]}
            if is_variable(value, namespace) and value not in taken:
                names = ", ".join(sorted(taken))
                why = f"the variables it takes are {names}" if names else "it takes no variables"
                told.append(f"{name} got the text {value!r}, not the variable of this name: {why}.")
        return told

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
        further = next((p for p in self.parameters if p.kind is VAR_KEYWORD and p.in_schema), None)
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


def _with_hints(
    places: Places, sent: Any, schema: Mapping[str, Any], namespace: Mapping[str, Any]
) -> Places:
    """Say of a text that it names a variable, and of an empty value that it may be left out."""
    told: Places = {}
    for place, words in places.items():
        value, hints = value_at(sent, place), [words]
        if is_variable(value, namespace) and "name of a variable" not in words:
            hints.append(f"; {value} is a variable, but its name is not taken here")
        is_empty = isinstance(value, str | None) and not value and "missing" not in words
        if is_empty and place and is_optional(place, schema):
            hints.append(f", or leave {place[-1]} out")
        told[place] = "".join(hints)
    return told


def _names(own: Mapping[str, str]) -> dict[str, str]:
    """Return the name of each parameter in the schema, of the names that they wish for."""
    names: dict[str, str] = {}
    for name, wanted in own.items():
        sent = wanted
        if wanted in names.values() or (wanted != name and wanted in own):
            raise KimiError(f"{name} has the name of another parameter as its alias, {wanted}")
        while sent in RESERVED or (sent != wanted and sent in own.values()):
            sent += "_"
        names[name] = sent
    return names


def _hint(parameter: Parameter, translator: HintTranslator) -> Any:
    if parameter.named:
        hint = translator.also_by_name(parameter.hint, parameter.named, parameter.name)
    else:
        hint = translator.parameter(parameter.hint, parameter.name)
    if parameter.kind is VAR_POSITIONAL:
        return list_of(hint)
    if parameter.kind is VAR_KEYWORD:
        return dict_of(hint)
    takes_none = hint is Any or (parameter.named and parameter.hint is Any)
    return Optional[hint] if parameter.default is None and not takes_none else hint  # noqa: UP045


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
        if p.fill and p.name not in values:
            values[p.name] = p.value(values)
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
            keywords[p.keyword or p.name] = values[p.name]
    return tuple(args), keywords
