"""Pins of what a person agreed to, so that a server cannot change it unseen.

A server may show a harmless tool first and another of the same name later («tool poisoning», OWASP
MCP03). The hash of a tool's name, description and schema is kept at the first yes, and the command
that starts a server of somebody else's file at the first yes to that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from difflib import unified_diff
from pathlib import Path
from typing import Any

from kimi_magic.chats.journal_pins import Pin, Place, keep_pin, kept_pin
from kimi_magic.core.errors import ConfigError
from kimi_magic.core.frontend import notebook_path
from kimi_magic.core.text import cut, reveal
from kimi_magic.secrets.patterns import mask_shapes
from kimi_magic.tools.mcp_servers import McpServer, one_line
from kimi_magic.wire.host import host

__all__ = ["Pinned", "agree_to_start"]

MAX_SHOWN = 20_000
MAX_CHANGES = 6000
_kept: dict[Place, Pin] = {}  # in this kernel, where no journal is kept too

NOT_AGREED = (
    "The MCP server {name} was not started: it comes from {file}, and nobody has agreed to its "
    "command.\n{way}"
)
NOBODY = (
    "Use it once in a notebook where you can answer, or name it yourself: "
    "kimi.mcp(command, name=…)."
)

DECLINED = "Ask again with -T mcp:{name}, or leave it out."


def _hash_of(facts: Any) -> str:
    """Return the hash of JSON data, whatever the order of its keys."""
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), default=repr)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _pinned(place: Place) -> Pin | None:
    """Return what was agreed to."""
    path = _journal()
    if place not in _kept and path is not None and (found := kept_pin(path, place)):
        _kept[place] = found
    return _kept.get(place)


def _pin(place: Place, pin: Pin) -> None:
    if _kept.get(place) == pin:
        return
    _kept[place] = pin
    if (path := _journal()) is not None:
        keep_pin(path, place, pin)


def _journal() -> Path | None:
    session = host()
    return session.settings.journal_path if session is not None else None


class Pinned:
    """The pin of a tool as a server lists it now.

    Parameters
    ----------
    definition : mapping
        Its name, description and schema, as they came.
    """

    def __init__(self, server: McpServer, definition: Mapping[str, Any]) -> None:
        self._place = notebook_path(), server.name, str(definition["name"])
        self.hash = _hash_of(definition)
        text = json.dumps(definition, indent=1, ensure_ascii=False, default=repr)
        text = text.encode("utf-8", "backslashreplace").decode()
        text = mask_shapes(cut(text.replace("\\n", "\n"), MAX_SHOWN))[0]
        session = host()
        self._shown = session.redact(text) if session is not None else text

    @property
    def is_changed(self) -> bool:
        """True if a person agreed to another tool of this name."""
        before = _pinned(self._place)
        return before is not None and before.hash != self.hash

    def keep(self) -> None:
        """Keep it as what is agreed to."""
        _pin(self._place, Pin(self.hash, self._shown))

    @property
    def changes(self) -> str:
        """The lines that are other than they were."""
        before = _pinned(self._place)
        lines = (before.shown if before else "").splitlines(), self._shown.splitlines()
        changed = [*unified_diff(*lines, "before", "now", lineterm="", n=1)][2:]
        return cut(reveal("\n".join(changed)), MAX_CHANGES) or "what cannot be shown"

    def agreed(self) -> bool | None:
        """Ask a person to agree to what has changed; None where nobody can answer."""
        session = host()
        if session is None:
            return None
        _, server, tool = self._place
        question = (
            f"The MCP server {server} has changed its tool {one_line(tool)}. Offer it as it is now?"
        )
        agreed = session.consents(question, {"changed": self.changes})
        if agreed:
            self.keep()
        return agreed


def agree_to_start(server: McpServer) -> None:
    """Have a person agree to a server of a file, which may be a stranger's.

    Raises
    ------
    ConfigError
        Nobody did.
    """
    if not server.file:
        return
    place = server.file, server.name, ""
    known = _pinned(place)
    if known is not None and known.hash == server.fingerprint:
        return
    if sum(map(len, server.shown.values())) > MAX_SHOWN:
        raise ConfigError(
            f"The MCP server {server.name} of {server.source} is not started: its command is too "
            "long to be shown to you."
        )
    session = host()
    verb = "Connect to" if server.url else "Start"
    again = " It is another one than you agreed to before." if known else ""
    question = f"{verb} the MCP server {server.name}?{again}"
    agreed = session.consents(question, server.shown) if session is not None else None
    if not agreed:
        way = NOBODY if agreed is None else DECLINED.format(name=server.name)
        raise ConfigError(NOT_AGREED.format(name=server.name, file=server.source, way=way))
    _pin(place, Pin(server.fingerprint, server.place))
