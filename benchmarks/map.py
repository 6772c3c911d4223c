"""CPU and wall time per prompt of ``kimi.map``: ``python -m benchmarks.map``.

1,000 short prompts, 32 at once, against a server in another process that takes 50 ms for each,
beside a bare HTTP read of the same bytes through one ``httpx2.Client`` in as many threads.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

from kimi_magic.testing import ScriptedServer

ROUNDS = 3
AT_ONCE, PROMPTS, LATENCY = 32, 1000, 0.05

SETUP = """
import gc, os, sys, time
from concurrent.futures import ThreadPoolExecutor
url, threads, prompts = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
"""
BARE = """
import httpx2
limits = httpx2.Limits(max_connections=None, max_keepalive_connections=threads)
client = httpx2.Client(limits=limits)
def ask(text):
    body = {"model": "kimi-k2-thinking", "messages": [{"role": "user", "content": f"Hi {text}"}],
            "stream": True, "stream_options": {"include_usage": True}}
    with client.stream("POST", url + "/chat/completions", json=body) as response:
        for data in response.iter_bytes():
            pass
def run(texts):
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(ask, texts))
"""
OURS = """
os.environ["KIMI_BASE_URL"] = url
os.environ["KIMI_JOURNAL"] = "off"
import kimi_magic as kimi
def run(texts):
    frame = kimi.map(texts, "Hi {{ value }}", concurrency=threads, show=False)
    assert (frame.text == "9.9 is bigger than 9.11.").all(), frame.error
"""
RUN = """
run([f"warm {i}" for i in range(threads)])
gc.collect()  # what imports have left
cpu, wall = time.process_time(), time.perf_counter()
run([f"row {i}" for i in range(prompts)])
print(time.perf_counter() - wall, (time.process_time() - cpu) / prompts * 1000)
"""


def measured(code: str) -> tuple[float, float]:
    """Seconds for all prompts, and milliseconds of CPU for each, in a fresh process."""
    with ScriptedServer(strict=False) as server:
        for _ in range(AT_ONCE + PROMPTS):
            server.reply("9.9 is bigger than 9.11.", reasoning="Compare the tenths.", delay=LATENCY)
        command = [sys.executable, "-c", SETUP + code + RUN]
        command += [server.base_url, str(AT_ONCE), str(PROMPTS)]
        ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    wall, cpu = map(float, ran.stdout.split()[-2:])
    return wall, cpu


def main() -> None:
    rounds = [(*measured(BARE), *measured(OURS)) for _ in range(ROUNDS)]
    bare_wall, bare_cpu, wall, cpu = (statistics.median(c) for c in zip(*rounds, strict=True))
    ideal = PROMPTS / AT_ONCE * LATENCY
    print(
        json.dumps(
            {
                "ideal seconds": ideal,
                "bare": f"{bare_wall:.2f} s, {bare_cpu:.2f} ms CPU a prompt",
                "kimi.map": f"{wall:.2f} s, {cpu:.2f} ms CPU a prompt",
                "wall over ideal (target 1.25)": f"{wall / ideal:.2f} ×",
                "CPU over bare (target 2)": f"{cpu / bare_cpu:.2f} ×",
            },
            indent=2,
            ensure_ascii=False,
        )
    )


if __name__ == "__main__":
    main()
