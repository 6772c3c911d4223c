"""The schema of an answer: how it is requested, shown to the model, and read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Literal

from kimi_magic.core.errors import KimiError
from kimi_magic.core.text import mend_surrogates
from kimi_magic.schema.json_in_text import json_values
from kimi_magic.schema.problems import InvalidValue, Place, limit_in_words, object_in_words
from kimi_magic.schema.strict import strict_schema

__all__ = ["ANY_JSON", "Mode", "OutputSchema", "SchemaMismatch", "output_schema"]

Mode = Literal["json_schema", "json_object", "text"]
MAX_IN_MESSAGE = 3
MAX_IN_CORRECTION = 20
_NO_LIMITS = {
    *("type", "enum", "anyOf", "items", "properties", "required", "additionalProperties"),
    *("$ref", "$defs"),
}


class SchemaMismatch(KimiError):
    """Raised when an answer does not fit the schema that was asked for.

    Attributes
    ----------
    problems : tuple of str
        Each names the field, what came and what is wanted.
    text : str
        The answer as it came.
    """

    def __init__(self, problems: tuple[str, ...], text: str) -> None:
        more = len(problems) - MAX_IN_MESSAGE
        shown = "; ".join(problems[:MAX_IN_MESSAGE]) + (f"; and {more} more" if more > 0 else "")
        super().__init__(f"The answer does not fit what was asked for: {shown}.")
        self.problems = problems
        self.text = text

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions are rebuilt from their args, which hold the message only.
        return type(self), (self.problems, self.text), self.__dict__

    @property
    def correction(self) -> str:
        """The prompt that asks the model to correct its answer."""
        shown = self.problems[:MAX_IN_CORRECTION]
        listed = "\n".join(f"- {problem}" for problem in shown)
        if more := len(self.problems) - len(shown):
            listed += f"\n- and {more} more"
        # The problems quote the answer, whose JSON may have named half a code point.
        return mend_surrogates(
            f"Your answer does not fit:\n{listed}\nAnswer again with the whole JSON only."
        )


@dataclass(frozen=True, slots=True, eq=False)
class OutputSchema:
    """The schema of an answer; `output_schema` makes one.

    In strict mode, ``json_schema`` is an object at the root with each property required.
    """

    name: str  # letters, digits, _ and -
    json_schema: dict[str, Any]  # empty for any JSON
    strict: bool = True  # the schema is closed, so that a server can enforce it
    _key: str = ""  # the property that wraps a value that is no object itself
    _check: Callable[[Any], Any] = field(default=lambda value: value, repr=False)

    @property
    def wraps(self) -> bool:
        """True where the object is a wrapper of ours, of a value that is none itself."""
        return bool(self._key)

    @property
    def instruction(self) -> str:
        """The sentence for the prompt, needed in every mode: models do not see the grammar."""
        form = f", in this form: {_form_of(self.json_schema)}" if self.json_schema else "."
        return f"Answer with JSON only, without any other text{form}"

    def request(self, mode: Mode) -> dict[str, Any]:
        """Return the parameters to add to the request.

        The mode is what the endpoint can enforce; with ``text``, only the prompt has the schema.
        """
        if mode == "text":
            return {}
        if mode == "json_object" or not self.json_schema:
            return {"response_format": {"type": "json_object"}}
        wanted = {"name": self.name, "schema": self.json_schema, "strict": self.strict}
        return {"response_format": {"type": "json_schema", "json_schema": wanted}}

    def read(self, text: str) -> Any:
        """Read the data in an answer as the user's own type.

        The answer may be JSON as a whole, or hold it in a fence or in prose. Raises SchemaMismatch
        if there is no JSON or it does not fit; nothing is guessed.
        """
        first: InvalidValue | None = None
        try:
            for found in json_values(text):
                try:
                    return self._value(found)
                except InvalidValue as error:
                    first = first or error
        except InvalidValue as error:
            first = first or error
        except RecursionError:
            first = first or InvalidValue({(): "got JSON that is nested too deeply"})
        wanted = object_in_words(self.json_schema)
        first = first or InvalidValue({(): f"got no JSON, want {wanted}"})
        raise SchemaMismatch(first.problems, text) from None

    def _value(self, found: Any) -> Any:
        if self._key and isinstance(found, dict) and list(found) == [self._key]:
            found = found[self._key]
        try:
            return self._check(found)
        except InvalidValue as error:
            # Strict mode requires each field, and admits null for those that may be left out.
            nulls = [place for place in error.places if _is_null_field(found, place)]
            if not nulls:
                raise self._wrapped(error) from None
        try:
            return self._check(_without(found, nulls))
        except InvalidValue as error:
            raise self._wrapped(error) from None

    def _wrapped(self, error: InvalidValue) -> InvalidValue:
        """Name the places as in the JSON Schema."""
        root = (self._key,) if self._key else ()
        return InvalidValue({(*root, *place): words for place, words in error.places.items()})


ANY_JSON = OutputSchema("json", {}, strict=False)
"""Any JSON at all."""


def output_schema(given: Any, namespace: Mapping[str, Any] | None = None) -> OutputSchema:
    """Make the schema of an answer.

    Parameters
    ----------
    given : any
        A pydantic model, dataclass, TypedDict, ``list[Model]`` or any other type that pydantic
        reads; a JSON Schema as a dict; or text: the name of one of these, else fields as in
        ``name, age int, tags list, born date: the birthday``, or a list of such,
        ``list[name, age int]``. Fields nest: ``cities list[name, area {width int, length int}]``.
    namespace : mapping, optional
        The notebook's variables, where names are looked up.
    """
    from kimi_magic.schema.answer_types import check_of_schema, check_of_type, parse_type

    if isinstance(given, OutputSchema):
        return given
    if isinstance(given, str):
        given = parse_type(given, namespace or {})
    if isinstance(given, Mapping):
        name, raw, check = check_of_schema(given)
    else:
        name, raw, check = check_of_type(given)
    schema, key, is_closed = strict_schema(raw)
    name = re.sub(r"[^a-zA-Z0-9_-]+", "_", name).strip("_")[:64] or "answer"
    return OutputSchema(name, schema, is_closed, key, check)


def _is_null_field(value: Any, place: Place) -> bool:
    for step in place:
        try:
            value = value[step]
        except (LookupError, TypeError):
            return False
    return value is None and bool(place) and isinstance(place[-1], str)


def _without(value: Any, places: list[Place]) -> Any:
    value = deepcopy(value)
    for place in places:
        holder = value
        for step in place[:-1]:
            holder = holder[step]
        del holder[place[-1]]
    return value


# Small models that are shown a JSON Schema answer with a JSON Schema (``benchmarks.structured``),
# so the prompt shows a form: {"name": string, "age": integer (at least 0)}.


def _form_of(schema: Mapping[str, Any]) -> str:
    where = [f"{name} is {_form(node)}" for name, node in schema.get("$defs", {}).items()]
    return "\nwhere ".join([_form(schema), *where])


def _form(node: Mapping[str, Any]) -> str:
    notes = [
        " ".join(value.split()) if key == "description" else limit_in_words(key, value)
        for key, value in node.items()
        if key not in _NO_LIMITS
    ]
    return f"{_kind(node)} ({'; '.join(notes)})" if notes else _kind(node)


def _kind(node: Mapping[str, Any]) -> str:
    if "$ref" in node:
        return str(node["$ref"]).rpartition("/")[2]
    if "anyOf" in node:
        return " or ".join(dict.fromkeys(map(_form, node["anyOf"])))
    if "enum" in node:
        return " or ".join(json.dumps(value, ensure_ascii=False) for value in node["enum"])
    if node["type"] == "array":
        return f"[{_form(node['items'])}, …]"
    if node["type"] == "object":
        return _object(node)
    return node["type"] if isinstance(node["type"], str) else "any JSON"


def _object(node: Mapping[str, Any]) -> str:
    if "properties" in node:
        fields = [f'"{name}": {_form(inner)}' for name, inner in node["properties"].items()]
        return f"{{{', '.join(fields)}}}"
    further = node.get("additionalProperties")
    return f'{{"…": {_form(further)}, …}}' if further else "object"
