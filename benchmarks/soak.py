"""Resource use of a long-lived kernel: ``python -m benchmarks.soak``.

2,000 turns in one kernel, each a ``%%kimi`` cell with the live view, a tool call and two requests.
After every hundred it prints the kernel's memory, threads, file handles, sockets and open comms.
Linux only.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from jupyter_client.manager import KernelManager

from kimi_magic.testing import ScriptedServer

TURNS, BATCH = 2000, 100

SETUP = """
%load_ext kimi_magic
import os, threading, gc, kimi_magic as kimi
os.environ["KIMI_BASE_URL"] = "{url}"
def look(n: int) -> int:
    "Look at a number."
    return n
def level():
    gc.collect()
    import comm
    pages = int(open("/proc/self/statm").read().split()[1])
    handles = [os.path.realpath(f"/proc/self/fd/{{name}}") for name in os.listdir("/proc/self/fd")]
    return [pages * os.sysconf("SC_PAGE_SIZE") / 2**20, threading.active_count(), len(handles),
            sum("socket:" in path for path in handles), len(comm.get_comm_manager().comms)]
"""
TURN = "%%kimi -T look --fresh -o answer\nLook at the number."


def run(client: Any, code: str) -> str:
    """Run a cell and return what it prints."""
    printed: list[str] = []

    def hear(message: dict[str, Any]) -> None:
        if message["msg_type"] == "stream":
            printed.append(message["content"]["text"])

    reply = client.execute_interactive(code, allow_stdin=True, output_hook=hear, timeout=120)
    assert reply["content"]["status"] == "ok", reply["content"]
    return "".join(printed)


def main() -> None:
    manager = KernelManager()
    manager.start_kernel(extra_arguments=[], stderr=sys.stderr)
    client = manager.blocking_client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    try:
        with ScriptedServer(strict=False) as server:
            run(client, SETUP.format(url=server.base_url))
            levels = []
            for turn in range(1, TURNS + 1):
                call = {"name": "look", "arguments": {"n": turn}}
                server.reply(reasoning="I should look. " * 20, tool_calls=[call])
                server.reply("It is a *number*. " * 20, reasoning="So.")
                run(client, TURN)
                server.requests.clear()
                if turn % BATCH == 0:
                    levels.append([turn, *json.loads(run(client, "print(level())"))])
                    text = "turn {}: {:.1f} MB, {} threads, {} handles, {} sockets, {} comms"
                    print(text.format(*levels[-1]), flush=True)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


if __name__ == "__main__":
    main()
