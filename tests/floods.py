"""Turns with far too much output, from the model or from a tool."""

from __future__ import annotations

import json
from collections.abc import Callable

from kimi_magic.testing import ScriptedServer
from tests.wire.test_dialects import END, event

__all__ = ["FLOODS", "TOOLS"]

TOOLS = '''
def shout() -> str:
    """Print 50 MB."""
    for _ in range(50):
        print("x" * 999_999)
    return "done"

def take(text: str) -> int:
    """Count the letters of a text."""
    return len(text)

def nest() -> None:
    """Show HTML 100,000 elements deep."""
    from IPython.display import HTML, display
    display(HTML("<b><div>" * 50_000 + "deep"))
'''


def _runaway(server: ScriptedServer) -> None:
    thought = [event(reasoning_content=f" hm{i % 7}") for i in range(100_000)]
    answer = [event(content=f" word{i % 7}\n" + "\n" * (i % 50 == 0)) for i in range(100_000)]
    events = [*thought, *answer, END]
    server.raw([b"".join(events[at : at + 100]) for at in range(0, len(events), 100)])


def _calling(name: str, arguments: str) -> Callable[[ScriptedServer], None]:
    def script(server: ScriptedServer) -> None:
        function = {"name": name, "arguments": arguments}
        call = {"index": 0, "id": f"functions.{name}:0", "type": "function", "function": function}
        server.raw([event(tool_calls=[call]), END.replace(b"stop", b"tool_calls")])
        server.reply("> " * 50_000 + "Seen.")

    return script


FLOODS: dict[str, Callable[[ScriptedServer], None]] = {
    "200,000 tokens": _runaway,
    "50 MB printed": _calling("shout", "{}"),
    "10 MB of arguments": _calling("take", json.dumps({"text": "b" * 10_000_000})),
    "HTML nested 100,000 deep": _calling("nest", "{}"),
}
