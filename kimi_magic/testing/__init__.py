"""A chat completions server for tests, with scripted answers over real HTTP.

It speaks the dialect of one of the servers that host Kimi K2 Thinking and refuses what the real
API refuses. The test fails if a request was invalid or unexpected, or if an answer is left over::

    with ScriptedServer() as server:
        server.reply("9.9 is bigger.", reasoning="Compare the tenths first.")
        answer = my_client(base_url=server.base_url).ask("Which one is bigger, 9.11 or 9.9?")

In pytest, ``from kimi_magic.testing import scripted_server`` provides it as a fixture. The fixture
``kimi_tape`` plays recorded answers; it is there without an import (``docs/tape.md``).
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kimi_magic.testing.answers import Pace
    from kimi_magic.testing.checks import check_messages, check_request
    from kimi_magic.testing.dialects import DIALECTS, K3_DIALECTS
    from kimi_magic.testing.server import Request, ScriptedServer
    from kimi_magic.testing.tape_fixture import kimi_tape

__all__ = [
    "DIALECTS",
    "K3_DIALECTS",
    "Pace",
    "Request",
    "ScriptedServer",
    "check_messages",
    "check_request",
    "kimi_tape",
]

# pytest loads the plugin beside this file in every run of an environment: the server, and aiohttp
# with it, are loaded when they are wanted, and may be missing.
_HOMES = {
    "DIALECTS": "dialects",
    "K3_DIALECTS": "dialects",
    "Pace": "answers",
    "Request": "server",
    "ScriptedServer": "server",
    "check_messages": "checks",
    "check_request": "checks",
    "kimi_tape": "tape_fixture",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'kimi_magic.testing' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


try:
    import pytest
except ImportError:
    pass
else:

    @pytest.fixture
    def scripted_server(request: pytest.FixtureRequest) -> Iterator[ScriptedServer]:
        """Run a `ScriptedServer`; an indirect parameter names its dialect."""
        from kimi_magic.testing.server import ScriptedServer

        with ScriptedServer(getattr(request, "param", "moonshot")) as server:
            yield server
