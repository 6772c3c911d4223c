"""Overhead of kimi-magic: ``python -m benchmarks.overhead``.

Each figure is the median of several fresh processes, next to its floor from the same run. CPU
time, since wall time on a shared machine says little. What imports leave to the garbage collector
is collected before a stream is measured: that happens once, at some moment after the start.

- ``%load_ext kimi_magic`` over IPython's own start
- the first prompt over ``import openai``
- a stream of 2,500 tokens at full speed, shown as a record, over a bare HTTP read of its bytes
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

from kimi_magic.testing import ScriptedServer

ROUNDS = 7
TOKENS = 2500


def event(**delta: str) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return f"data: {json.dumps(chunk | {'choices': [choice]})}\n\n".encode()


# Servers send one HTTP chunk per token.
EVENTS = [
    *[event(reasoning_content=" thought")] * (TOKENS // 2),
    *[event(content=" word")] * (TOKENS // 2),
    b"data: [DONE]\n\n",
]

START = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
import time; began = time.process_time()
"""
LOAD = START + "shell.run_line_magic('load_ext', 'kimi_magic')"
END = "\nprint(time.process_time() - began)"

IMPORT_OPENAI = "import time; began = time.process_time()\nimport openai"
FIRST_PROMPT = """
import os, sys, time
os.environ["KIMI_BASE_URL"] = sys.argv[1]
import kimi_magic.jupyter.magics
began = time.process_time()
import kimi_magic as kimi
kimi.ask("Hi", show=False)
"""

BARE_READ = """
import gc, sys, time, httpx2
body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True,
        "stream_options": {"include_usage": True}}
def read():
    with client.stream("POST", sys.argv[1] + "/chat/completions", json=body) as response:
        for data in response.iter_bytes():
            pass
client = httpx2.Client()
read()
gc.collect()
began = time.process_time()
read()
"""
STREAM = """
import gc, os, sys, time
os.environ["KIMI_BASE_URL"] = sys.argv[1]
import kimi_magic as kimi
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
kimi.settings.view = "record"
from IPython.utils.capture import capture_output
with capture_output():
    kimi.ask("Hi", show=True)
    gc.collect()
    began = time.process_time()
    kimi.ask("Hi", show=True)
"""


def cpu_seconds(code: str, server: ScriptedServer | None = None, replies: int = 0) -> float:
    """Return the median of the numbers that ``code`` prints in fresh processes."""
    taken = []
    for _ in range(ROUNDS):
        if server:
            for _ in range(replies):
                server.raw(EVENTS)
        arguments = [server.base_url] if server else []
        ran = subprocess.run(
            [sys.executable, "-c", code + END, *arguments],
            capture_output=True,
            text=True,
            check=True,
        )
        taken.append(float(ran.stdout.split()[-1]))
    return statistics.median(taken)


def main() -> None:
    load = cpu_seconds(LOAD) - cpu_seconds(START)
    with ScriptedServer(strict=False) as server:
        first = cpu_seconds(FIRST_PROMPT, server, 1) - cpu_seconds(IMPORT_OPENAI)
        bare = cpu_seconds(BARE_READ, server, 2)
        ours = cpu_seconds(STREAM, server, 2)
    figures = {
        "%load_ext kimi_magic, CPU over IPython's own (target 60 ms)": f"{load * 1000:.0f} ms",
        "first prompt, CPU over `import openai` (target 200 ms)": f"{first * 1000:.0f} ms",
        f"{TOKENS:,} tokens at full speed, CPU over a bare HTTP read (target 2 ×)": (
            f"{ours / bare:.1f} × ({ours * 1000:.0f} ms against {bare * 1000:.0f} ms)"
        ),
    }
    print(json.dumps(figures, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
