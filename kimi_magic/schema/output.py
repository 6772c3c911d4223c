"""What an answer is to be: how it is asked for, and how it is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Literal

from kimi_magic.core.errors import KimiError
from kimi_magic.schema.form import form_of
from kimi_magic.schema.json_in_text import json_values
from kimi_magic.schema.problems import Misfit, Place

__all__ = ["ANY_JSON", "Mode", "OutputSchema", "SchemaMismatch", "output_schema"]

Mode = Literal["json_schema", "json_object", "text"]
MAX_TOLD, MAX_LISTED = 3, 20  # problems told to the user, and to the model


class SchemaMismatch(KimiError):
    """An answer that does not fit what was asked for.

    Attributes
    ----------
    problems : tuple of str
        Each names the field, what came and what is wanted.
    text : str
        The answer as it came.
    """

    def __init__(self, problems: tuple[str, ...], text: str) -> None:
        more = len(problems) - MAX_TOLD
        told = "; ".join(problems[:MAX_TOLD]) + (f"; and {more} more" if more > 0 else "")
        super().__init__(f"The answer does not fit what was asked for: {told}.")
        self.problems = problems
        self.text = text

    @property
    def correction(self) -> str:
        """What to tell the model, so that it mends its answer."""
        shown = self.problems[:MAX_LISTED]
        listed = "\n".join(f"- {problem}" for problem in shown)
        if more := len(self.problems) - len(shown):
            listed += f"\n- and {more} more"
        return f"Your answer does not fit:\n{listed}\nAnswer again with the whole JSON only."


@dataclass(frozen=True, slots=True, eq=False)
class OutputSchema:
    """What an answer is to be; `output_schema` makes one.

    Attributes
    ----------
    name : str
        Letters, digits, ``_`` and ``-``.
    json_schema : dict
        As the servers take it: an object at the root, each property required. Empty: any JSON.
    strict : bool
        Whether it says all that an answer may hold, so that a server can be held to it.
    """

    name: str
    json_schema: dict[str, Any]
    strict: bool = True
    _key: str = ""  # under which a value stands that is no object itself
    _check: Callable[[Any], Any] = field(default=lambda value: value, repr=False)

    @property
    def instruction(self) -> str:
        """What to add to the prompt, in each mode: of a grammar alone the model knows nothing."""
        shape = f", in this form: {form_of(self.json_schema)}" if self.json_schema else "."
        return f"Answer with JSON only, without any other text{shape}"

    def request(self, mode: Mode) -> dict[str, Any]:
        """What to add to the body of the request.

        Parameters
        ----------
        mode : str
            What the endpoint can be held to: ``json_schema``, ``json_object`` (any object), or
            ``text`` (nothing: the prompt alone says what is wanted).
        """
        if mode == "text":
            return {}
        if mode == "json_object" or not self.json_schema:
            return {"response_format": {"type": "json_object"}}
        wanted = {"name": self.name, "schema": self.json_schema, "strict": self.strict}
        return {"response_format": {"type": "json_schema", "json_schema": wanted}}

    def read(self, text: str) -> Any:
        """Find the data in an answer and give it as the user's own type.

        The answer may be JSON as a whole, or hold it in a fence or in prose.

        Raises
        ------
        SchemaMismatch
            There is none, or it does not fit; nothing in it is guessed at.
        """
        first: Misfit | None = None
        try:
            for found in json_values(text):
                try:
                    return self._value(found)
                except Misfit as misfit:
                    first = first or misfit
        except Misfit as misfit:
            first = first or misfit
        except RecursionError:
            first = first or Misfit({(): "got JSON that is nested too deeply"})
        first = first or Misfit({(): f"got no JSON, want {self._wanted()}"})
        raise SchemaMismatch(first.problems, text) from None

    def _value(self, found: Any) -> Any:
        if self._key and isinstance(found, dict) and list(found) == [self._key]:
            found = found[self._key]
        try:
            return self._check(found)
        except Misfit as misfit:
            # What may be left out is asked for with null allowed: null stands for left out.
            nulls = [place for place in misfit.places if _is_null_field(found, place)]
            if not nulls:
                raise self._inside(misfit) from None
        try:
            return self._check(_without(found, nulls))
        except Misfit as misfit:
            raise self._inside(misfit) from None

    def _inside(self, misfit: Misfit) -> Misfit:
        """The same, with the places as the model knows them."""
        root = (self._key,) if self._key else ()
        return Misfit({(*root, *place): words for place, words in misfit.places.items()})

    def _wanted(self) -> str:
        names = list(self.json_schema.get("properties", ()))[:5]
        shown = ", ".join(f'"{name}": …' for name in names)
        return f"one JSON object such as {{{shown}}}" if names else "one JSON object"


ANY_JSON = OutputSchema("json", {}, strict=False)
"""Whatever JSON there is."""


def output_schema(given: Any, namespace: Mapping[str, Any] | None = None) -> OutputSchema:
    """What a user gives as a schema → what answers are held to.

    Parameters
    ----------
    given : any
        A pydantic model, dataclass, TypedDict, ``list[Model]`` or any other type that pydantic
        reads; a JSON Schema as a dict; or text: the name of one of these, else fields as in
        ``name, age int, tags list, born date: the birthday``.
    namespace : mapping, optional
        The notebook's variables, where names are looked up.

    Raises
    ------
    KimiError
        It is nothing of these; the message says what to do.
    """
    from kimi_magic.schema.in_words import type_in_words
    from kimi_magic.schema.strict import strict_schema
    from kimi_magic.schema.value_checks import check_of_schema, check_of_type

    if isinstance(given, OutputSchema):
        return given
    if isinstance(given, str):
        given = type_in_words(given, namespace or {})
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
