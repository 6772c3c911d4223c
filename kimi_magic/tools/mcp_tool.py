"""The tools of MCP servers: made of what a server lists, called through its session.

A server's text is somebody else's: it is bounded, and invisible characters in it are shown by their
numbers. Its word on a tool's effects is shown and not believed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from kimi_magic.core.errors import ConfigError, KimiError
from kimi_magic.core.text import clip, reveal
from kimi_magic.core.time_limit import CallTimedOut, TimeLimit, call_within
from kimi_magic.schema.problems import ArgumentsError, problems_with_schema
from kimi_magic.schema.strict import handwritten_schema, one_object
from kimi_magic.tools.mcp_pins import Pinned, agree_to_start
from kimi_magic.tools.mcp_questions import ask_person
from kimi_magic.tools.mcp_results import read_result
from kimi_magic.tools.mcp_servers import McpServer, find_server, one_line
from kimi_magic.tools.mcp_session import (
    Asked,
    CallLimits,
    Listing,
    ServerSession,
    known_listings,
    known_session,
    session_of,
)
from kimi_magic.tools.tool import (
    MAX_NAME,
    CallFailed,
    DescribedTool,
    ToolOptions,
    proper_name,
    running_call,
)
from kimi_magic.wire.host import host

if TYPE_CHECKING:
    from mcp_types import Tool as Listed
    from mcp_types import ToolAnnotations

__all__ = ["McpTool", "Served", "among", "exposed_name", "known_tools", "serve", "served_names"]

MAX_DESCRIPTION = 4000
MAX_INNER = 1000  # characters of a description inside a schema
MAX_SCHEMA = 30_000
MAX_SERVER = 20  # characters of a server's name before that of a tool
SCHEMA_LIMIT = 1.0  # seconds for a schema to be read
MAX_NAMED = 300

CHANGED = (
    "{name} was not run: its server has changed it since it was offered. It is offered again from "
    "the next turn on, when the user has agreed to what changed."
)

CHANGED_UNSEEN = "its server has changed it since you agreed to it; ask where you can answer"
DECLINED = "its server has changed it, and you declined"


@dataclass(frozen=True, slots=True)
class Served:
    """The tools of a server that are offered, and why others are not, by name."""

    tools: tuple[McpTool, ...]
    left_out: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class McpTool(DescribedTool):
    """A tool of a server as a `Tool`."""

    server: McpServer
    own_name: str  # as the server lists it
    options: ToolOptions
    hints: str = ""  # what the server says of its effects
    notes: tuple[str, ...] = ()
    _pinned: Pinned = field(kw_only=True, repr=False, compare=False)
    _listing: int = field(kw_only=True, repr=False, compare=False)

    @property
    def about(self) -> str:
        """The text for a person who approves a call."""
        return f"{self.said}\n\n{self.description}"

    @property
    def said(self) -> str:
        """The server, and what it says of the tool's effects."""
        return f"A tool of the MCP server {reveal(self.server.name)}. {self.hints}"

    @property
    def is_question(self) -> bool:
        return False

    def bind(self, arguments: Mapping[str, Any], namespace: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - of the protocol `Tool`
        """Return the arguments, which fit the schema; they name no variables."""
        schema = _without_patterns(self.parameters)
        try:
            places = call_within(
                lambda: problems_with_schema(dict(arguments), schema), TimeLimit(SCHEMA_LIMIT)
            )
        except (Exception, CallTimedOut):  # noqa: BLE001 - a schema that no validator takes
            places = {}
        if places:
            raise ArgumentsError(places)
        return dict(arguments)

    def call(self, bound: dict[str, Any]) -> Any:
        """Make the call, unless the server has changed the tool since it was offered."""
        running = running_call.get()
        approve = running.approve if running else None

        def ask(asked: Asked) -> None:
            assert approve is not None, "else nobody is asked"
            assert running is not None
            with running.quiet():
                ask_person(self.server, asked, approve)

        limits = CallLimits(ask=ask if approve else None, seconds=self.options.timeout)
        if running is not None and running.printing is not None:
            limits.progress = running.printing.write
        try:
            session = _session(self.server)
            if session.listing().number != self._listing and not self._is_listed(session):
                raise CallFailed(CHANGED.format(name=self.name))
            self._pinned.keep()
            result = session.call(self.own_name, bound, limits)
        except KimiError as error:
            raise CallFailed(str(error)) from None
        value, pictures = read_result(result)
        if running is not None:
            running.outputs += pictures
        if result.is_error:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            raise CallFailed(text or "the server says that it failed, and not why")
        return value

    def identity(self) -> Hashable:
        return "mcp", self.server.name, self.server.fingerprint, self.own_name, self._pinned.hash

    def variant(self, *, name: str | None = None, options: ToolOptions | None = None) -> McpTool:
        return replace(self, name=name or self.name, options=options or self.options)

    def _is_listed(self, session: ServerSession) -> bool:
        """Return True if the latest listing has the same tool."""
        for listed in session.listing().tools:
            if listed.name == self.own_name:
                return Pinned(self.server, _facts(listed)).hash == self._pinned.hash
        return False


def serve(item: McpServer | str) -> Served:
    """Return the tools of a server, which is started where it does not run.

    A person is asked first about a server of somebody else's file, and about each tool that is
    another one than what was agreed to.

    Raises
    ------
    KimiError
        There is no such server, it cannot be started, or it has no such tool.
    """
    server = find_server(item)
    listing = _session(server).listing(fresh=True)
    chosen = _chosen(server, listing)
    tools, left_out = [], {}
    seen: set[str] = set()
    for listed in chosen:
        name = exposed_name(server, listed.name)
        if listed.name in seen:  # the pin of one would be that of the other
            left_out[name] = "the server lists another tool of this name"
            continue
        seen.add(listed.name)
        try:
            pin = Pinned(server, _facts(listed))
            if pin.is_changed:
                agreed = pin.agreed()
                if not agreed:
                    left_out[name] = CHANGED_UNSEEN if agreed is None else DECLINED
                    continue
            tools.append(_made(server, listed, pin, listing.number))
        except (KimiError, ValueError, TypeError, AttributeError, RecursionError) as error:
            left_out[name] = f"its schema cannot be read ({clip(reveal(str(error)), 200)})"
    return Served(tuple(tools), left_out)


def known_tools(server: McpServer) -> list[str]:
    """Return the names of a server's tools, as far as it was asked for them already."""
    session = known_session(server)
    known = session.known if session is not None else None
    return [tool.name for tool in known.tools] if known is not None else []


def served_names(names: Iterable[str]) -> dict[str, str]:
    """Return where the tools of servers are, by the names under which they are offered."""
    wanted = set(names)
    return {
        name: f"the tool {one_line(tool.name)} of the MCP server {one_line(server.name)}"
        for server, listing in known_listings()
        for tool in listing.tools
        if (name := exposed_name(server, tool.name)) in wanted
    }


def among(selector: str, names: Collection[str]) -> McpServer | None:
    """Return a server with those of its selected tools that go by these names; None if none does.

    It is started only if one of the names may be that of a tool of it.
    """
    server = find_server(selector)
    if not any(name.startswith(_prefix(server)) for name in names):
        return None
    chosen = _chosen(server, _session(server).listing(fresh=True))
    own = [tool.name for tool in chosen if exposed_name(server, tool.name) in names]
    return server.of_tools(own) if own else None


def exposed_name(server: McpServer, tool: str) -> str:
    """Return the name under which a tool is offered.

    One that is too long is cut, and ends in a hash of the whole.
    """
    name = f"{_prefix(server)}{proper_name(tool)}"
    if len(name) <= MAX_NAME and len(tool) <= MAX_NAME:
        return name
    mark = hashlib.sha256(f"{server.name}\0{tool}".encode()).hexdigest()[:6]
    return f"{name[: MAX_NAME - 7]}_{mark}"


def _prefix(server: McpServer) -> str:
    return f"{proper_name(server.name)[:MAX_SERVER]}__"


def _session(server: McpServer) -> ServerSession:
    session = host()
    names = {*session.connector.catalogue.key_names} if session is not None else set[str]()
    keys = {value for name in names if (value := os.environ.get(name))}
    # Looked at first: a file's variables are not even read before somebody agrees to it.
    agree_to_start(server)
    launch = server.launch(
        # Windows does not tell the case of names; and a key may have a second name.
        lambda name: (
            name.upper() in names
            or name.upper().startswith("KIMI_")
            or os.environ.get(name) in keys
        )
    )
    if session is not None:
        session.connector.remember(server.secrets(launch))
    return session_of(server, launch)


def _chosen(server: McpServer, listing: Listing) -> list[Listed]:
    if server.tools is None:
        return list(listing.tools)
    by_name = {exposed_name(server, tool.name): tool for tool in reversed(listing.tools)}
    by_name |= {tool.name: tool for tool in reversed(listing.tools)}
    if unknown := [name for name in server.tools if name not in by_name]:
        names = [tool.name for tool in listing.tools]
        near = get_close_matches(unknown[0], names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(names) or 'none'}."
        raise ConfigError(
            f"The MCP server {server.name} has no tool {one_line(unknown[0])}; "
            f"{one_line(hint, MAX_NAMED)}"
        )
    return [by_name[name] for name in server.tools]


def _facts(listed: Listed) -> dict[str, Any]:
    """Return what is pinned of a tool."""
    return {
        "name": listed.name,
        "description": listed.description or "",
        "schema": listed.input_schema,
    }


def _made(server: McpServer, listed: Listed, pin: Pinned, number: int) -> McpTool:
    name = exposed_name(server, listed.name)
    description, notes = _told(listed.description or "", MAX_DESCRIPTION), []
    plain = f"{server.name}__{listed.name}"
    if name != plain:
        notes.append(f"renamed from {one_line(plain, 200)}")
    if not description:
        notes.append("no description: the server gives none")
    elif len(listed.description or "") > MAX_DESCRIPTION:
        notes.append(f"the description is cut after {MAX_DESCRIPTION:,} characters")
    hints = _hints(listed.annotations)
    notes.append(hints)
    if not server.trust:
        notes.append("asks before each call: kimi.mcp(…, trust=True) does not")
    try:
        parameters = call_within(lambda: _parameters(listed.input_schema), TimeLimit(SCHEMA_LIMIT))
    except CallTimedOut:
        raise KimiError("it takes too long") from None
    if (session := host()) is not None:  # it may hold what the server was given
        description, parameters = session.redact(description), session.redact(parameters)
    return McpTool(
        name,
        description,
        parameters,
        server,
        listed.name,
        ToolOptions(confirm=not server.trust),
        hints,
        tuple(notes),
        _pinned=pin,
        _listing=number,
    )


def _parameters(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of the arguments as servers of models take it."""
    text = json.dumps(schema)
    if len(text) > MAX_SCHEMA:
        raise KimiError(f"it has {len(text):,} characters, more than {MAX_SCHEMA:,}")
    tidy = handwritten_schema(_readable(json.loads(text), MAX_INNER))
    if tidy.get("type") != "object" or "anyOf" in tidy:
        tidy = one_object(tidy)
    if tidy.get("type") != "object":
        raise KimiError("it is no schema of an object")
    if len(json.dumps(tidy)) > 2 * MAX_SCHEMA:
        raise KimiError("it grows too long when its references are written out")
    return tidy


def _readable(node: Any, limit: int) -> Any:
    """Return a schema with its descriptions as `_told` makes them."""
    if isinstance(node, list):
        return [_readable(inner, limit) for inner in node]
    if not isinstance(node, dict):
        return node
    made = {}
    for key, inner in node.items():
        if isinstance(inner, str) and key in ("title", "$comment", "$schema"):
            continue  # noise, which each request would carry
        is_text = isinstance(inner, str) and key == "description"
        is_value = key in ("default", "enum", "const", "examples")
        if is_text:
            made[key] = _told(inner, limit)
        else:
            made[key] = inner if is_value else _readable(inner, limit)
    return made


def _told(text: str, limit: int) -> str:
    return clip(reveal(text.replace("\r\n", "\n")).strip(), limit)


def _without_patterns(node: Any) -> Any:
    """Drop the patterns of a schema: one can be made that takes for ever.

    Wherever they are: a reference makes a schema of any place in it.
    """
    if isinstance(node, list):
        return [_without_patterns(inner) for inner in node]
    if not isinstance(node, Mapping):
        return node
    return {
        key: _without_patterns(inner)
        for key, inner in node.items()
        # Under the name of a parameter there is no text.
        if not (key == "pattern" and isinstance(inner, str)) and key != "patternProperties"
    }


def _hints(annotations: ToolAnnotations | None) -> str:
    """Put into words what a server says of a tool's effects, of which nothing is checked."""
    said = list(_words(annotations)) if annotations is not None else []
    if not said:
        return "The server does not say whether it changes anything."
    return f"The server says that it {', '.join(said)}; nobody has checked that."


def _words(annotations: ToolAnnotations) -> Iterator[str]:
    if annotations.read_only_hint:
        yield "only reads"
    elif annotations.destructive_hint:
        yield "may destroy something"
    elif annotations.destructive_hint is False:
        yield "adds and destroys nothing"
    if annotations.idempotent_hint:
        yield "does the same when called twice"
    if annotations.open_world_hint:
        yield "reaches outside"
    elif annotations.open_world_hint is False:
        yield "stays within its own data"
