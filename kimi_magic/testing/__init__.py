"""A chat completions server for tests, with scripted answers over real HTTP.

It speaks the dialect of one of the servers that host Kimi K2 Thinking and refuses what the real
API refuses. The test fails if a request was invalid or unexpected, or if an answer is left over::

    with ScriptedServer() as server:
        server.reply("9.9 is bigger.", reasoning="Compare the tenths first.")
        answer = my_client(base_url=server.base_url).ask("Which one is bigger, 9.11 or 9.9?")

In pytest, ``from kimi_magic.testing import scripted_server`` provides it as a fixture.
"""

from __future__ import annotations

from collections.abc import Iterator

from kimi_magic.testing.answers import Pace
from kimi_magic.testing.checks import check_messages, check_request
from kimi_magic.testing.dialects import DIALECTS, K3_DIALECTS
from kimi_magic.testing.server import Request, ScriptedServer

__all__ = [
    "DIALECTS",
    "K3_DIALECTS",
    "Pace",
    "Request",
    "ScriptedServer",
    "check_messages",
    "check_request",
]

try:
    import pytest
except ImportError:
    pass
else:

    @pytest.fixture
    def scripted_server(request: pytest.FixtureRequest) -> Iterator[ScriptedServer]:
        """Run a `ScriptedServer`; an indirect parameter names its dialect."""
        with ScriptedServer(getattr(request, "param", "moonshot")) as server:
            yield server
