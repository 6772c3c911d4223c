"""Cost of the live view: ``python -m benchmarks.view_cost``.

The same stream is read in fresh processes, at full speed: by a bare HTTP read, by a turn that is
not shown, by one with the live view, and by one that sends its whole text anew with each refresh.
Each figure is the median of several; CPU time, since wall time on a shared machine says little.
All that goes to the front end is counted: the widget's opening, its messages, and the record.

- CPU of a turn with the live view over a bare read of its bytes (target 1.5 ×), and the view's
  part in it
- bytes to the front end (target 70 KB for 2,500 tokens), of a page that has the script
- CPU a token at 36,000 tokens over that at 2,500 (target 1 ×)
- size of the opening message: on a new page, and on one that has the script
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
import gc, json, os, sys, time
os.environ["KIMI_BASE_URL"], mode = sys.argv[1:]
import comm
from comm.base_comm import BaseComm
counts = {"messages": 0, "bytes": 0, "opening": 0}
ENVELOPE = 700  # header, parent header, signature of one message
def count(content, buffers=()):
    size = ENVELOPE + len(json.dumps(content).encode()) + sum(map(len, buffers or ()))
    counts["messages"] += 1
    counts["bytes"] += size
    return size
class CountingComm(BaseComm):
    def publish_msg(self, msg_type, data=None, metadata=None, buffers=None, **keys):
        size = count({"data": data or {}, "metadata": metadata or {}, **keys}, buffers)
        if msg_type == "comm_open":
            counts["opening"] = max(size, counts["opening"])
comm.create_comm = CountingComm
import kimi_magic as kimi
import kimi_magic.session
from IPython.core.interactiveshell import InteractiveShell
from kimi_magic.display.live import detached, live_view as live
shell = InteractiveShell.instance()
live.publish = lambda bundle, display_id=None, *, update=False: count(bundle.data)
live.HERE_WITHIN = 0
class Heard(live.LiveView):
    def __init__(self, options):
        super().__init__(options)
        self._widget._handle_custom_msg({"ready": "page"}, [])
class Whole(live.LiveView):
    def _send(self, **more):
        self._clicks.resync = True
        super()._send(**more)
view = {"live": live.LiveView, "heard": Heard, "whole": Whole, "unseen": None}[mode]
kimi_magic.session.open_view = lambda kind, options: view(options)
kimi.ask("Hi", show=view is not None)
opening = counts["opening"]
counts.update(messages=0, bytes=0, opening=0)
detached.note_heard({})
gc.collect()
began = time.process_time()
kimi.ask("Hi", show=view is not None)
seconds = time.process_time() - began
print(json.dumps(counts | {"first_opening": opening, "seconds": seconds}))
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
        modes = ("unseen", "live", "heard", "whole")
        unseen, live, heard, whole = (measure(TURN, events, mode) for mode in modes)
        a_token.append(live["seconds"] / tokens)

        def cost(run: dict[str, Any], bare: float = bare) -> str:
            return f"{run['seconds'] / bare:.1f} × ({run['seconds'] * 1000:.0f} ms)"

        def sent(run: dict[str, Any]) -> str:
            return f"{run['bytes'] / 1000:,.0f} KB in {run['messages']} messages"

        figures[f"{tokens:,} tokens ({len(text) / 1000:,.0f} KB of text)"] = {
            "CPU of a bare read": f"{bare * 1000:.0f} ms",
            "CPU of an unseen turn": cost(unseen),
            "CPU with the live view (target 1.5 ×)": cost(live),
            "CPU with a page that is heard at once": cost(heard),
            "CPU of the view alone": f"{(live['seconds'] - unseen['seconds']) / bare:.2f} ×",
            "sent with the live view (target 70 KB for 2,500)": sent(live),
            "sent to a page that is heard at once": sent(heard),
            "sending the whole each time": f"{sent(whole)}, {cost(whole)}",
        }
    growth = a_token[1] / a_token[0]
    figures["CPU a token, 36,000 over 2,500 (target 1 ×)"] = f"{growth:.2f} ×"
    opening = (live["first_opening"], live["opening"])
    figures["opening message, first and later"] = "{:,} and {:,} bytes".format(*opening)
    print(json.dumps(figures, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
