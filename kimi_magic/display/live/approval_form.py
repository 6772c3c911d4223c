"""The form in which a person approves a tool call: arguments to edit, and the answer.

It shows all that would run: invisible characters by their number, and the defaults that apply,
which are locked. A call with more than can be shown is refused before anybody is asked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from kimi_magic.core.text import clip, reveal
from kimi_magic.display.html.code import highlight
from kimi_magic.display.view import Answer

__all__ = [
    "ALWAYS",
    "Problem",
    "about_call",
    "as_fields",
    "is_same_call",
    "problem_of_size",
    "read_answer",
]

Problem = Callable[[dict[str, Any]], str]
MAX_FIELDS = 500
MAX_CHARS = 200_000  # of all fields together
MAX_DESCRIPTION, MAX_TYPE = 600, 60  # characters
_NAMES = {
    "string": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "null": "None",
    "array": "list",
    "object": "dict",
}
DEFAULT = "{} (default)"
ALWAYS = "Run, and do not ask again in this chat"


def problem_of_size(arguments: Mapping[str, Any]) -> str:
    """Say why arguments are too many or too long to be shown to a person, "" if they are not."""
    if len(arguments) > MAX_FIELDS:
        return f"{len(arguments):,} fields are too many to show to the user, who must approve them"
    length = sum(len(name) + len(_text(value)) for name, value in arguments.items())
    if length > MAX_CHARS:
        return f"{length:,} characters are too many to show to the user, who must approve them"
    return ""


def is_same_call(edited: Mapping[str, Any], arguments: Mapping[str, Any]) -> bool:
    """Return True for the same values as JSON: to Python ``1 == True == 1.0``."""
    one, other = (json.dumps(each, sort_keys=True, default=repr) for each in (edited, arguments))
    return edited == arguments and one == other


def as_fields(
    arguments: Mapping[str, Any], defaults: Mapping[str, str] | None = None
) -> list[tuple[str, str, bool]]:
    """Return each argument's name, its text, and True if a person may change it.

    Strings stand as they are, all else as JSON. The defaults, as text, follow.
    """
    fields = [(_in_a_line(name), reveal(_text(value)), True) for name, value in arguments.items()]
    others = defaults or {}
    return fields + [
        (DEFAULT.format(_in_a_line(name)), reveal(text), False) for name, text in others.items()
    ]


def about_call(
    arguments: Mapping[str, Any],
    parameters: Mapping[str, Any],
    languages: Mapping[str, str],
    description: str,
) -> dict[str, Any]:
    """Return what the form shows beside the fields: of the tool, and of each argument in order.

    A ``kind`` of field is only a convenience: the text that comes back is read by `read_answer`.
    """
    properties = parameters.get("properties")
    nodes = properties if isinstance(properties, Mapping) else {}
    traits = []
    for name, value in arguments.items():
        kind, html, known = "", "", type_name(nodes.get(name))
        if isinstance(value, bool) and known == "bool":
            kind = "bool"
        elif type(value) in (int, float) and known in ("int", "float"):
            kind = known
        elif name in languages and isinstance(value, str):
            kind, html = "code", highlight(reveal(value), languages[name])
        traits.append({"kind": kind, "type": clip(_in_a_line(known), MAX_TYPE), "html": html})
    return {"description": clip(reveal(description.strip()), MAX_DESCRIPTION), "traits": traits}


def type_name(node: Any) -> str:
    """Return the type that a JSON Schema means, as Python writes it; "" if it names none."""
    if not isinstance(node, Mapping):
        return ""
    if isinstance(values := node.get("enum"), list):
        return " | ".join(map(repr, values))
    if isinstance(either := node.get("anyOf") or node.get("type"), list):
        nodes = (each if isinstance(each, Mapping) else {"type": each} for each in either)
        return " | ".join(dict.fromkeys(filter(None, map(type_name, nodes))))
    if isinstance(reference := node.get("$ref"), str):
        return reference.rpartition("/")[2]
    name = _NAMES.get(str(either), "")
    inside = type_name(node.get("items")) if name == "list" else ""
    return f"{name}[{inside}]" if inside else name


def _in_a_line(name: str) -> str:
    """Show a name; a line break in it could pass for the end of a question."""
    return reveal(name).replace("\n", "⟨U+000A⟩").replace("\t", "⟨U+0009⟩")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def read_answer(
    given: dict[str, Any], arguments: dict[str, Any], problem: Problem
) -> tuple[Answer, str]:
    """Return a person's answer, and the problem with it, "" if there is none."""
    if given.get("say") not in ("once", "chat"):
        return "no", ""
    edited = dict(arguments)
    texts = given.get("fields")
    for name, (_, before, _), text in zip(
        arguments, as_fields(arguments), texts if isinstance(texts, list) else (), strict=False
    ):
        if text == before or not isinstance(text, str):
            continue
        try:
            edited[name] = text if isinstance(arguments[name], str) else json.loads(text)
        except (ValueError, RecursionError) as error:
            return "no", f"{_in_a_line(name)} is no JSON: {error}"
    if is_same_call(edited, arguments):
        return given["say"], ""
    return edited, problem(edited)
