"""Cost of a step of the tool loop: ``python -m benchmarks.steps``.

A turn of 300 steps, each a call of a function that does nothing, next to a bare HTTP client that
sends the same growing history and reads the same answers. The overhead of a step is its CPU time
minus that of the bare client's same step.
"""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys

from kimi_magic.testing import ScriptedServer

STEPS, WINDOW, ROUNDS = 300, 50, 3
REASONING = "I should look at the next number before I say anything. " * 8

OURS = f"""
import sys, time
import kimi_magic as kimi
from kimi_magic.core.events import RequestStarted
def look(n: int) -> int:
    "Look at a number."
    return n
kimi.ask("Hi", endpoint=sys.argv[1], show=False)
times = []
for event in kimi.stream("Go", tools=[look], max_steps={STEPS} + 1, endpoint=sys.argv[1]):
    if isinstance(event, RequestStarted):
        times.append(time.process_time())
"""
BARE = f"""
import sys, time, json, httpx2
client = httpx2.Client()
def send(messages):
    body = {{"model": "m", "messages": messages, "stream": True, "tools": tools}}
    with client.stream("POST", sys.argv[1] + "/chat/completions", json=body) as response:
        for data in response.iter_bytes():
            pass
tools = [{{"type": "function", "function": {{"name": "look", "description": "Look at a number.",
          "parameters": {{"type": "object", "required": ["n"], "additionalProperties": False,
                         "properties": {{"n": {{"type": "integer"}}}}}}}}}}]
messages = [{{"role": "user", "content": "Go"}}]
send(messages)
times = []
for n in range({STEPS} + 1):
    times.append(time.process_time())
    send(messages)
    function = {{"name": "look", "arguments": json.dumps({{"n": n}})}}
    calls = [{{"id": f"functions.look:{{n}}", "type": "function", "function": function}}]
    messages.append({{"role": "assistant", "reasoning_content": {REASONING!r},
                     "tool_calls": calls}})
    messages.append({{"role": "tool", "tool_call_id": calls[0]["id"], "name": "look",
                     "content": str(n)}})
"""
END = "\nimport json; print(json.dumps(times))"


def step_times(code: str) -> list[float]:
    """Return the CPU seconds of each step, the median of several processes."""
    rounds = []
    for _ in range(ROUNDS):
        with ScriptedServer(strict=False) as server:
            server.reply("OK")
            for n in range(STEPS):
                calls = [{"name": "look", "arguments": {"n": n}}]
                server.reply(reasoning=REASONING, tool_calls=calls)
            server.reply("Done.")
            ran = subprocess.run(
                [sys.executable, "-c", code + END, server.base_url],
                capture_output=True,
                text=True,
                check=True,
            )
        times = json.loads(ran.stdout)
        rounds.append([later - sooner for sooner, later in itertools.pairwise(times)])
    return [statistics.median(step) for step in zip(*rounds, strict=True)]


def main() -> None:
    ours, bare = step_times(OURS), step_times(BARE)
    windows = {"first": slice(WINDOW), "last": slice(-WINDOW, None)}
    mid = {
        (name, who): statistics.median(times[window]) * 1000
        for name, window in windows.items()
        for who, times in (("ours", ours), ("bare", bare))
    }
    overhead = {name: mid[name, "ours"] - mid[name, "bare"] for name in windows}
    resending = mid["last", "bare"] - mid["first", "bare"]
    figures = {
        f"steps 1-{WINDOW}, ms": f"{mid['first', 'ours']:.1f}, bare {mid['first', 'bare']:.1f}",
        f"steps {STEPS - WINDOW + 1}-{STEPS}, ms": (
            f"{mid['last', 'ours']:.1f}, bare {mid['last', 'bare']:.1f}"
        ),
        "overhead of the last against 1.5 × that of the first + re-sending, ms": (
            f"{overhead['last']:.1f} against {1.5 * overhead['first'] + resending:.1f}"
        ),
    }
    print(json.dumps(figures, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
