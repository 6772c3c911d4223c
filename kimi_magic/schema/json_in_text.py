"""JSON in a model's text: the arguments of a call, or the data in an answer.

JSON is read as it stands; nothing broken is completed or skipped, because an inner part or an
earlier example could be taken for the whole. Only what models and servers are known to put around
it is taken off: a JSON string around arguments, a fence or prose around an answer.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from kimi_magic.schema.problems import (
    ArgumentsError,
    InvalidValue,
    Place,
    abridge,
    got,
    object_in_words,
)
from kimi_magic.schema.strict import branches, json_type, subschema, types_of

__all__ = ["json_values", "parse_arguments"]

MAX_WRAPS = 3
MAX_SHOWN = 30
_FENCE = re.compile(r"^[ \t]*```([^\n`]*)\n(.*?)^[ \t]*```", re.MULTILINE | re.DOTALL)
# A bracket in prose opens a value only if what follows can be its first member: [0, 1) and [ ]
# are prose.
_OPENING = re.compile(r"\{(?=\s*[\"'}])|\[(?=\s*[\[{\"])")
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"?|[][{}]', re.DOTALL)


def parse_arguments(text: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Read the arguments of a call: a JSON object, or nothing or ``null`` for no arguments.

    A JSON string that holds one of these is unwrapped. A string inside is decoded, once, where the
    schema of the parameters wants an array or an object and no string. Raises ArgumentsError for
    broken or truncated JSON, anything but an object, a repeated key, NaN or infinity.
    """
    parameters = parameters or {}
    wanted = f"want {object_in_words(parameters)}"
    try:
        arguments = _unwrapped(text)
        if isinstance(arguments, dict):
            return dict(_decoded(arguments, parameters, parameters))
    except RecursionError:
        raise ArgumentsError({(): f"nested too deeply; {wanted}"}) from None
    except InvalidValue as error:
        places = {p: words if p else f"{words}; {wanted}" for p, words in error.places.items()}
        raise ArgumentsError(places) from None
    raise ArgumentsError({(): f"{got(arguments)}, {wanted}"})


def json_values(text: str) -> Iterator[Any]:
    """Yield the values that may be the answer, the likeliest first.

    Fenced values come before those in prose, objects before arrays, later before earlier ones.
    Raises InvalidValue if the next value is broken, or the text ends inside one.
    """
    try:
        whole = _loads(text)
    except InvalidValue:
        pass
    else:
        yield whole
        return
    fences = [m.span(2) for m in _FENCE.finditer(text) if re.match(r"\s*(json|$)", m[1].lower())]

    def rank(span: tuple[int, int]) -> tuple[bool, bool, int]:
        start, _ = span
        return not any(a <= start < b for a, b in fences), text[start] == "[", -start

    spans = sorted(_spans(text), key=rank)
    for start, end in reversed(fences):
        with suppress(InvalidValue):
            yield _loads(text[start:end])
    for start, end in spans:
        yield _loads(text[start:end])


def _loads(text: str) -> Any:
    repeated: list[str] = []

    def read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            counts = Counter(name for name, _ in pairs)
            repeated.extend(name for name, count in counts.items() if count > 1)
        return found

    try:
        # strict=False admits a raw line break inside a string, which has one meaning only.
        value = json.loads(text, object_pairs_hook=read_object, strict=False)
    except json.JSONDecodeError as error:
        raise InvalidValue({(): _broken(error)}) from None
    except ValueError:  # sys.set_int_max_str_digits
        raise InvalidValue({(): "got an integer of more than 4,300 digits"}) from None
    if repeated:
        names = [abridge(json.dumps(name, ensure_ascii=False)) for name in repeated]
        raise InvalidValue({(name,): "got it more than once, want it once" for name in names})
    if infinite := dict(_infinite(value)):
        raise InvalidValue(infinite)
    return value


def _broken(error: json.JSONDecodeError) -> str:
    text, at = error.doc.rstrip(), error.pos
    reason = error.msg.removesuffix(" at").removesuffix(" starting")
    if at >= len(text) or reason == "Unterminated string":
        return f"got JSON that is cut off after «{text[-MAX_SHOWN:]}» ({reason})"
    near = text[max(at - MAX_SHOWN // 2, 0) : at + MAX_SHOWN // 2]
    return f"got text that is not JSON ({reason} at character {at + 1}, near «{near}»)"


def _infinite(value: object, place: Place = ()) -> Iterator[tuple[Place, str]]:
    """Find NaN and Infinity, which Python reads although JSON lacks them, and 1e999."""
    if isinstance(value, float) and not math.isfinite(value):
        yield place, f"got {json.dumps(value)}, want a finite number"
    elif isinstance(value, dict | list):
        for step, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _infinite(inner, (*place, step))


def _unwrapped(text: str) -> Any:
    """Read arguments, which some servers encode as a JSON string once more."""
    found: Any = text
    for _ in range(MAX_WRAPS):
        if not isinstance(found, str):
            break
        found = _loads(found) if found.strip() else {}
    return {} if found is None else found


def _decoded(value: Any, schema: Any, root: Mapping[str, Any]) -> Any:
    """Decode strings where the schema wants an array or an object."""
    if isinstance(value, str):
        return _decoded_text(value, schema, root)

    def decoded(step: int | str, inner: Any) -> Any:
        is_decodable = isinstance(inner, str | dict | list)
        return _decoded(inner, subschema(schema, step, root), root) if is_decodable else inner

    if isinstance(value, dict):
        return {name: decoded(name, inner) for name, inner in value.items()}
    return [decoded(i, inner) for i, inner in enumerate(value)]


def _decoded_text(text: str, schema: Any, root: Mapping[str, Any]) -> Any:
    # A choice of texts, such as names of variables, is none for another text.
    nodes = [n for n in branches(schema, root) if text in n.get("enum", (text,))]
    types = [types_of(node) for node in nodes]
    wanted = {kind for kinds in types for kind in kinds} & {"string", "array", "object", "null"}
    if not all(types) or "string" in wanted or not wanted & {"array", "object"}:
        return text
    try:
        found = _loads(text)
    except InvalidValue:
        return text
    return found if json_type(found) in wanted else text


def _spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield where the outermost values start and end."""
    end = 0
    while opening := _OPENING.search(text, end):
        start = opening.start()
        end = _end(text, start)
        if not end:
            _loads(text[start:])  # raises with the place where the text is cut off
            return
        yield start, end


def _end(text: str, start: int) -> int:
    """Return where the bracket at `start` is closed, 0 if it is not."""
    depth = 0
    for token in _TOKEN.finditer(text, start):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(token[0], 0)
        if not depth:
            return token.end()
    return 0
