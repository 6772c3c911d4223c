"""CPU per prompt of ``kimi.ask`` in 32 threads: ``python -m benchmarks.threads``.

Many short prompts against a server in another process, beside a bare HTTP read of the same bytes
through one ``httpx2.Client`` in as many threads. The figures are the medians of rounds that take
turns, so that both are measured on the same machine in the same state.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

from kimi_magic.testing import ScriptedServer

ROUNDS = 5
THREADS, PROMPTS = 32, 960

SETUP = """
import gc, os, sys, time
from concurrent.futures import ThreadPoolExecutor
url, threads, prompts = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
"""
BARE = """
import httpx2, json
limits = httpx2.Limits(max_connections=None, max_keepalive_connections=threads)
client = httpx2.Client(limits=limits)
body = {"model": "kimi-k2-thinking", "messages": [{"role": "user", "content": "Hi"}],
        "stream": True, "stream_options": {"include_usage": True}}
def ask(_):
    with client.stream("POST", url + "/chat/completions", json=body) as response:
        for data in response.iter_bytes():
            pass
"""
OURS = """
os.environ["KIMI_BASE_URL"] = url
import kimi_magic as kimi
def ask(_):
    assert kimi.ask("Hi", show=False).text == "9.9 is bigger than 9.11."
"""
RUN = """
with ThreadPoolExecutor(threads) as pool:
    list(pool.map(ask, range(threads)))
    gc.collect()  # what imports have left
    began = time.process_time()
    list(pool.map(ask, range(prompts)))
    print((time.process_time() - began) / prompts * 1000)
"""


def milliseconds(code: str) -> float:
    """CPU time per prompt in a fresh process."""
    with ScriptedServer(strict=False) as server:
        for _ in range(THREADS + PROMPTS):
            server.reply("9.9 is bigger than 9.11.", reasoning="Compare the tenths.")
        command = [sys.executable, "-c", SETUP + code + RUN]
        command += [server.base_url, str(THREADS), str(PROMPTS)]
        ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(ran.stdout.split()[-1])


def main() -> None:
    rounds = [(milliseconds(BARE), milliseconds(OURS)) for _ in range(ROUNDS)]
    bare, ours = (statistics.median(column) for column in zip(*rounds, strict=True))
    name = f"kimi.ask in {THREADS} threads, CPU per prompt (target 2.5 ms where bare takes 1.7)"
    figure = f"{ours:.2f} ms against {bare:.2f} ms bare: {ours / bare:.2f} ×"
    print(json.dumps({name: figure}, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
