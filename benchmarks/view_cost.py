"""Cost of the live view: ``python -m benchmarks.view_cost``.

Fresh processes read the same stream at full speed: a bare HTTP read, a turn whose widget messages
are counted, and a turn that sends its whole text with each refresh. Each figure is the median of
several. CPU time, since wall time on a shared machine says little.

- CPU of a turn with the live view over a bare read of its bytes (target 2 ×)
- bytes to the front end over the text, without live.js and live.css (target 4 ×)
- CPU a token at 36,000 tokens over that at 2,500 (target 1 ×)
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

from benchmarks.overhead import BARE_READ, event
from kimi_magic.testing import ScriptedServer

ROUNDS = 5
LENGTHS = 2_500, 36_000
PARAGRAPH = (
    "The fall in **March** comes from the north alone, where orders fell by a third. "
    "All other regions rose a little, as they do each spring, and so did the prices there. "
    "What is left to explain is why the warehouse was closed for nine days in that month.\n\n"
)
CODE = "```python\nmarch = sales[sales.month == 3]\nmarch.groupby('region').sum()\n```\n\n"

# Without a kernel: messages for the iopub thread are packed and counted.
TURN = """
import json, os, sys, time
os.environ["KIMI_BASE_URL"] = sys.argv[1]
import kimi_magic as kimi
from IPython.core.interactiveshell import InteractiveShell
from kimi_magic.display.view import ViewOptions
from kimi_magic.display.live import live_view as live
from kimi_magic.display.record import publish
shell = InteractiveShell.instance()
sizes = {"messages": 0, "bytes": 0}
ENVELOPE = 700  # header, parent header, signature of one message
def count(content):
    sizes["messages"] += 1
    sizes["bytes"] += ENVELOPE + len(json.dumps(content).encode())
def count_widget(self, content, buffers=None):
    count(content)
def count_bundle(bundle, display_id=None, *, update=False):
    count(bundle.data)
live.TurnWidget.send = count_widget
live.publish = count_bundle
class Whole(live.LiveView):
    def _send(self, **more):
        self._clicks.resync = True
        super()._send(**more)
import kimi_magic.session
view = {"live": live.LiveView, "whole": Whole}[sys.argv[2]]
kimi_magic.session.open_view = lambda kind, options: view(options)
kimi.ask("Hi", show=True)
sizes.update(messages=0, bytes=0)
began = time.process_time()
kimi.ask("Hi", show=True)
print(json.dumps(sizes | {"seconds": time.process_time() - began}))
"""
BARE = BARE_READ + '\nimport json; print(json.dumps({"seconds": time.process_time() - began}))'


def stream(tokens: int) -> tuple[list[bytes], str]:
    """Return the events, one per token, and their text: half reasoning, half Markdown."""
    thought = [" thought"] * (tokens // 2)
    answer: list[str] = []
    while len(answer) < tokens // 2:
        answer += re.findall(r"\S+\s+|.+", 3 * PARAGRAPH + CODE)
    events = [event(reasoning_content=token) for token in thought]
    events += [event(content=token) for token in answer]
    return [*events, b"data: [DONE]\n\n"], "".join(thought + answer)


def measure(code: str, events: list[bytes], *arguments: str) -> dict[str, Any]:
    """Return the median run of a program that reads the stream twice and measures the second."""
    runs: list[dict[str, Any]] = []
    with ScriptedServer(strict=False) as server:
        for _ in range(ROUNDS):
            server.raw(events)
            server.raw(events)
            ran = subprocess.run(
                [sys.executable, "-c", code, server.base_url, *arguments],
                capture_output=True,
                text=True,
                check=True,
            )
            runs.append(json.loads(ran.stdout.splitlines()[-1]))
    return sorted(runs, key=lambda run: run["seconds"])[ROUNDS // 2]


def main() -> None:
    figures: dict[str, Any] = {}
    a_token = []
    for tokens in LENGTHS:
        events, text = stream(tokens)
        bare = measure(BARE, events)["seconds"]
        ours, whole = (measure(TURN, events, view) for view in ("live", "whole"))
        a_token.append(ours["seconds"] / tokens)
        figures[f"{tokens:,} tokens ({len(text) / 1000:,.0f} KB of text)"] = {
            "CPU over a bare read (target 2 ×)": f"{ours['seconds'] / bare:.1f} × "
            f"({ours['seconds'] * 1000:.0f} ms against {bare * 1000:.0f} ms)",
            "bytes over the text (target 4 ×)": f"{ours['bytes'] / len(text):.1f} × "
            f"({ours['bytes'] / 1000:,.0f} KB in {ours['messages']} messages)",
            "sending the whole each time": f"{whole['bytes'] / 1000:,.0f} KB, "
            f"{whole['seconds'] * 1000:.0f} ms",
        }
    growth = a_token[1] / a_token[0]
    figures["CPU a token, 36,000 over 2,500 (target 1 ×)"] = f"{growth:.2f} ×"
    print(json.dumps(figures, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
