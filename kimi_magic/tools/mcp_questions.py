"""Questions of an MCP server to the user, in the form in which calls are approved.

The protocol calls them elicitation. A form has a flat schema; a page is shown and never opened.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kimi_magic.core.text import clip, reveal
from kimi_magic.schema.problems import ArgumentsError, problems_with_schema
from kimi_magic.tools.mcp_servers import McpServer, one_line
from kimi_magic.tools.tool import DEFAULT_OPTIONS, Approve, DescribedTool, ToolOptions, proper_name

if TYPE_CHECKING:
    from kimi_magic.tools.mcp_session import Asked

__all__ = ["Question", "ask_person"]

MAX_MESSAGE = 2000
MAX_FIELDS = 30
MAX_CHOICES = 200
MAX_DEFAULT = 2000  # characters
MAX_TITLE, MAX_WRONG = 60, 300
MAX_TRIES = 3
_EMPTY: Mapping[str, Any] = {"string": "", "integer": 0, "number": 0.0, "boolean": False}
_LIMITS = {
    "string": ("minLength", "maxLength"),
    "array": ("minItems", "maxItems"),
    **dict.fromkeys(("integer", "number"), ("minimum", "maximum")),
}
_TYPES = ("string", "integer", "number", "boolean", "array")

FORM = "The MCP server {} asks you for these values. What you send goes to it: no passwords."
PAGE = "The MCP server {} asks you to open this page yourself; it is not opened here."


@dataclass(frozen=True, slots=True)
class Question(DescribedTool):
    """A question in the shape of a tool, which is what approval forms show."""

    options: ToolOptions = DEFAULT_OPTIONS

    @property
    def notes(self) -> tuple[str, ...]:
        return ()

    @property
    def said(self) -> str:
        """The text for a person who answers."""
        return self.description

    @property
    def about(self) -> str:
        """The same, for a form."""
        return self.description

    @property
    def is_question(self) -> bool:
        return True

    def bind(self, arguments: Mapping[str, Any], namespace: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - of the protocol `Tool`
        if places := problems_with_schema(dict(arguments), self.parameters):
            raise ArgumentsError(places)
        return dict(arguments)

    def call(self, bound: Any) -> Any:
        return bound

    def identity(self) -> Hashable:
        return object()  # equal to no other

    def variant(
        self,
        *,
        name: str | None = None,  # noqa: ARG002 - of the protocol `Tool`
        options: ToolOptions | None = None,  # noqa: ARG002
    ) -> Question:
        return self


def ask_person(server: McpServer, asked: Asked, approve: Approve) -> None:
    """Ask what a server wants to know, and send the answer back.

    An interrupt cancels the question, and is raised again.
    """
    from mcp_types import ElicitResult

    try:
        content = _content(server, asked, approve)
    except BaseException:
        asked.answer(ElicitResult(action="cancel"))
        raise
    if content is None:
        asked.answer(ElicitResult(action="decline"))
    else:
        asked.answer(ElicitResult(action="accept", content=content or None))


def _content(server: McpServer, asked: Asked, approve: Approve) -> dict[str, Any] | None:
    """Return what the person sends; None for a no."""
    params = asked.params
    called, title = reveal(clip(server.name, 60)), proper_name(f"{server.name}_asks")
    lines = clip(reveal(params.message.strip()), MAX_MESSAGE).split("\n")
    if params.mode == "url":
        text = _barred(PAGE.format(called), lines)
        given = approve(Question(title, text, {"type": "object"}), {"page": params.url})
        return None if given is False else {}
    schema = _flat(params.requested_schema)
    fields = schema["properties"]
    lines += [
        f"{one_line(name, MAX_TITLE)}: {node['title']}"
        for name, node in fields.items()
        if "title" in node
    ]
    text = _barred(FORM.format(called), lines)
    question = Question(title, text, schema)
    values = {name: _first(node) for name, node in fields.items()}
    for _ in range(MAX_TRIES):
        given = approve(question, values)
        if given is False:
            return None
        values = given if isinstance(given, dict) else values
        try:
            return question.bind(values, {})
        except ArgumentsError as error:
            # First, as a form shows only so many lines before it scrolls.
            wrong = f"These do not fit: {one_line(str(error), MAX_WRONG)}\n{text}"
            question = Question(title, wrong, schema)
    return None


def _barred(head: str, lines: Iterable[str]) -> str:
    """Return a server's lines below one of ours, with bars that tell them apart."""
    return "\n".join([head, *(f"│ {line}" for line in lines)])


def _flat(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a schema that a form can show: fields of plain values."""
    given = schema.get("properties")
    nodes = given if isinstance(given, Mapping) else {}
    kept = {
        str(name): _field(node)
        for name, node in list(nodes.items())[:MAX_FIELDS]
        if isinstance(node, Mapping) and node.get("type") in _TYPES
    }
    required = schema.get("required")
    names = [name for name in required if name in kept] if isinstance(required, list) else []
    return {"type": "object", "properties": kept, "required": names}


def _field(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the protocol has of a field, and nothing else: no pattern, no reference.

    A pattern can be made that takes for ever, and nothing stops it.
    """
    kind = str(node["type"])
    kept: dict[str, Any] = {"type": kind}
    if isinstance(title := node.get("title"), str) and title.strip():
        kept["title"] = one_line(title, MAX_TITLE)
    for name in _LIMITS.get(kind, ()):
        if isinstance(limit := node.get(name), int | float):
            kept[name] = limit
    if kind == "array":  # of texts, the protocol says
        items = node.get("items")
        choices = _choices(items) if isinstance(items, Mapping) else []
        kept["items"] = {"type": "string"} | ({"enum": choices} if choices else {})
    elif choices := _choices(node):
        kept["enum"] = choices
    default = node.get("default")
    if default is not None and len(json.dumps(default)) <= MAX_DEFAULT:
        whole = {"type": "object", "properties": {"x": kept}}
        if not problems_with_schema({"x": default}, whole):
            kept["default"] = default
    return kept


def _choices(node: Mapping[str, Any]) -> list[Any]:
    """Return the values that a person can choose from."""
    given = node.get("enum")
    if not isinstance(given, list):
        either = node.get("oneOf") or node.get("anyOf")
        named = either if isinstance(either, list) else []
        given = [each.get("const") for each in named if isinstance(each, Mapping)]
    return [each for each in given if isinstance(each, str | int | float)][:MAX_CHOICES]


def _first(node: Mapping[str, Any]) -> Any:
    """Return the value that stands in a field before a person writes another."""
    if "default" in node:
        return node["default"]
    if "enum" in node:
        return node["enum"][0]
    return _EMPTY.get(str(node.get("type")), [])
