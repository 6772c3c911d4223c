"""Latency of Kernel → Interrupt: ``python -m benchmarks.interrupt``.

Measured from the signal to the idle kernel, and to the closed connection at the server, in a real
kernel with the live view, at four moments of a turn. The target is 0.5 s.
"""

from __future__ import annotations

import json
import threading
import time
from typing import Any

from kimi_magic.testing import ScriptedServer
from tests.kernels import Kernel

ROUNDS = 5
MOMENTS: dict[str, dict[str, Any]] = {
    "waiting for headers": {"delay": 60.0},
    "a stalled stream": {"stall_after": 4},
    "streaming, 50 tokens/s": {"rate": 50},
    "waiting to retry": {},
}


def seconds(kernel: Kernel, moment: str) -> tuple[float, float | None]:
    """Return the seconds until the kernel is idle, and until the connection is closed."""
    with ScriptedServer(strict=False) as server:
        if moment == "waiting to retry":
            server.error(503, "busy", headers={"Retry-After": "60"})
        else:
            server.reply("word " * 500, reasoning="Well now.", **MOMENTS[moment])
        kernel.run(f"%env KIMI_BASE_URL={server.base_url}")
        sent: list[float] = []
        closed: list[float] = []

        def interrupt() -> None:
            while not server.requests:
                time.sleep(0.01)
            time.sleep(0.5)
            sent.append(time.monotonic())
            kernel.interrupt()
            if server.requests[0].closed.wait(10):
                closed.append(time.monotonic())

        thread = threading.Thread(target=interrupt)
        thread.start()
        kernel.run("%%kimi -c once\nGo", allow_stdin=True, ok=False)
        idle = time.monotonic()
        thread.join()
        kernel.run("%kimi reset once")
        answered = moment == "waiting to retry"
        return idle - sent[0], None if answered else closed[0] - sent[0]


def main() -> None:
    figures = {}
    with Kernel() as kernel:
        kernel.restart_session()
        for moment in MOMENTS:
            taken = [seconds(kernel, moment) for _ in range(ROUNDS)]
            worst = max(idle for idle, _ in taken)
            closed = max((close or 0.0) for _, close in taken)
            figures[moment] = f"idle after {worst * 1000:.0f} ms, closed after {closed * 1000:.0f}"
    print(json.dumps({"worst of": ROUNDS, **figures}, indent=2))


if __name__ == "__main__":
    main()
