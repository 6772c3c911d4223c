"""The session, as far as rooms below it need one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeVar

from kimi_magic.config import Settings
from kimi_magic.wire.connector import Connector

__all__ = ["Host", "attach", "host"]

T = TypeVar("T")


class Host(Protocol):
    """The session, as far as servers need it."""

    settings: Settings
    connector: Connector

    def consents(self, question: str, shown: Mapping[str, str]) -> bool | None:
        """Ask a person to agree to what is shown; None where nobody can answer."""

    def redact(self, value: T) -> T:
        """Redact known keys in a text, or in a structure of texts."""


_host: Host | None = None


def attach(session: Host) -> None:
    """Make a session the one whose settings, keys and person hold."""
    global _host  # noqa: PLW0603 - one session a process is what a kernel is
    _host = session


def host() -> Host | None:
    """Return the session; None before there is one."""
    return _host
