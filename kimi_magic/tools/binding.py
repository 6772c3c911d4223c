"""The model's arguments → what the function is called with, or what is wrong in words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Optional

from pydantic import BaseModel, Field, ValidationError, create_model

from kimi_magic.schema.argument_problems import ArgumentsError, problems_of, stray_booleans
from kimi_magic.schema.shapes import RESERVED
from kimi_magic.schema.signature import VAR_KEYWORD, VAR_POSITIONAL, Parameter
from kimi_magic.schema.type_hints import CONFIG, Carrier, QuietJsonSchema, dict_of, list_of

__all__ = ["Binding"]


class Binding:
    """The parameters of one callable as a pydantic model.

    Parameters
    ----------
    parameters : list of Parameter
        In the order of the signature.
    carrier : Carrier
        Makes their hints fit for JSON; keeps the references and the notes.

    Attributes
    ----------
    schema : dict
        As pydantic has it.
    """

    def __init__(self, parameters: list[Parameter], carrier: Carrier) -> None:
        self.parameters = parameters
        self.names = _names([p for p in parameters if p.offered])
        carrier.notes += [
            f"{old}: sent as {new}, for servers refuse the name"
            for old, new in self.names.items()
            if old != new
        ]
        fields: dict[str, Any] = {
            f"p{i}": (
                _hint(p, carrier),
                Field(... if p.required else None, alias=self.names[p.name]),
            )
            for i, p in enumerate(parameters)
            if p.offered
        }
        self._model: type[BaseModel] = create_model("Arguments", __config__=CONFIG, **fields)
        self.schema = self._model.model_json_schema(schema_generator=QuietJsonSchema)

    def __call__(
        self, arguments: Mapping[str, Any], namespace: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        sent, problems = self._sorted(arguments)
        values: dict[str, Any] = {}
        try:
            problems += stray_booleans(sent, self.schema, self.schema.get("$defs", {}))
            read = self._read(sent, {"namespace": namespace})
            values = {
                p.name: getattr(read, f"p{i}")
                for i, p in enumerate(self.parameters)
                if f"p{i}" in read.model_fields_set
            }
        except ValidationError as error:
            problems += problems_of(error, sent, self.schema)
        except Exception as error:  # noqa: BLE001 - a validator is code of the user
            problems.append(f"arguments: {type(error).__name__}: {error}")
        if problems:
            raise ArgumentsError(*dict.fromkeys(problems))
        return _arranged(self.parameters, values)

    def _sorted(self, arguments: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """The arguments under the names of the schema; further keywords in their place."""
        names = {old: new for old, new in self.names.items() if new not in arguments}
        sent = {names.get(key, key): value for key, value in arguments.items()}
        further = next((p for p in self.parameters if p.kind is VAR_KEYWORD), None)
        if further is None:
            return sent, []
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
        return sent, [
            f"{further.name}.{key}: is a field of its own; leave it out of {further.name}"
            for key in taken
            if isinstance(given, dict) and key in given
        ]

    def _read(self, sent: dict[str, Any], context: dict[str, Any]) -> BaseModel:
        # Read as JSON where it can be written as JSON: even a strict model takes a list for a set.
        try:
            return self._model.model_validate_json(json.dumps(sent), context=context)
        except ValidationError as error:
            if error.errors(include_url=False)[0]["type"] != "json_invalid":
                raise
        except (ValueError, RecursionError):
            pass
        return self._model.model_validate(sent, context=context)


def _names(parameters: list[Parameter]) -> dict[str, str]:
    """The name of each parameter in the schema."""
    own = [parameter.name for parameter in parameters]
    names: dict[str, str] = {}
    for name in own:
        sent = name
        while sent in RESERVED or (sent != name and sent in own):
            sent += "_"
        names[name] = sent
    return names


def _hint(parameter: Parameter, carrier: Carrier) -> Any:
    hint = carrier.carry(parameter.hint, parameter.name)
    if parameter.kind is VAR_POSITIONAL:
        return list_of(hint)
    if parameter.kind is VAR_KEYWORD:
        return dict_of(hint)
    return Optional[hint] if parameter.default is None and hint is not Any else hint  # noqa: UP045


def _arranged(
    parameters: list[Parameter], values: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments; a default is named only where the place demands it."""
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
