"""Rows a second of ``kimi.map`` on four Dask workers: ``python -m benchmarks.cluster_map``.

One process with 32 requests under way, then four workers with 128, against one server in a process
of its own; then the workers with limits that are set. An answer takes 2 s, since at 50 ms the two
cores of the machine where this was written are the limit, and not the requests under way:
``python -m benchmarks.cluster_map 0.05`` shows that.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import sys
import time
from typing import Any

LATENCY = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
ALONE, TOGETHER, WORKERS = 32, 128, 4
SECONDS = 12  # of each run, about
PER_MINUTE = 200
ENDED = '{"index": 0, "delta": {}, "finish_reason": "stop"}'
ANSWER = '{"index": 0, "delta": {"content": "yes"}, "finish_reason": null}'
USAGE = '{"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}'


def chunk(choice: str, usage: str = "null") -> bytes:
    head = '{"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"'
    return f'data: {head}, "choices": [{choice}], "usage": {usage}}}\n\n'.encode()


BODY = chunk(ANSWER) + chunk(ENDED, USAGE) + b"data: [DONE]\n\n"


async def serve(told: Any) -> None:
    """Answer each request after a while; tell how many there were, and how many at once."""
    from aiohttp import web

    seen = {"requests": 0, "at once": 0, "most at once": 0}

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        seen["requests"] += 1
        seen["at once"] += 1
        seen["most at once"] = max(seen["most at once"], seen["at once"])
        try:
            await asyncio.sleep(LATENCY)
        finally:
            seen["at once"] -= 1
        return web.Response(body=BODY, content_type="text/event-stream")

    async def tell(_: web.Request) -> web.Response:
        now = dict(seen)
        seen.update({"requests": 0, "most at once": seen["at once"]})
        return web.json_response(now)

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    app.router.add_get("/seen", tell)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    told.put(f"http://127.0.0.1:{runner.addresses[0][1]}")
    await asyncio.Event().wait()


def start(told: Any) -> None:
    asyncio.run(serve(told))


def seen(url: str) -> dict[str, int]:
    import httpx2

    found: dict[str, int] = httpx2.get(url + "/seen").json()
    return found


def ask(url: str, name: str, rows: int, **keywords: Any) -> dict[str, Any]:
    """Map so many rows; return what was measured."""
    import kimi_magic as kimi

    seen(url)
    began = time.perf_counter()
    frame = kimi.map(
        [f"{name} {n}" for n in range(rows)], "Yes? {{ value }}", show=False, **keywords
    )
    took = time.perf_counter() - began
    at_server = seen(url)
    return {
        "rows": rows,
        "answered": int(frame.error.isna().sum()),
        "seconds": round(took, 2),
        "rows a second": round(rows / took, 1),
        "requests": at_server["requests"],
        "most at once": at_server["most at once"],
    }


def limited(url: str, client: Any) -> dict[str, Any]:
    """Map with a limit for a minute, and stop before the minute is over."""
    import signal
    import threading

    import kimi_magic as kimi

    kimi.add_endpoint(name="limited", base_url=url + "/v1", requests_per_minute=PER_MINUTE)
    main = threading.main_thread().ident or 0
    threading.Timer(20, signal.pthread_kill, (main, signal.SIGINT)).start()
    found = ask(url, "limited", 3 * PER_MINUTE, engine=client, endpoint="limited", model="m")
    return {"requests_per_minute": PER_MINUTE, "requests in 20 s": found["requests"]}


def main() -> None:
    from distributed import Client, LocalCluster

    os.environ["KIMI_JOURNAL"] = "off"
    os.environ["KIMI_MODEL"] = "m"
    spawn = multiprocessing.get_context("spawn")
    told = spawn.Queue()
    server = spawn.Process(target=start, args=(told,), daemon=True)
    server.start()
    url = told.get()
    os.environ["KIMI_BASE_URL"] = url + "/v1"
    count = int(ALONE * SECONDS / LATENCY)
    ask(url, "warm", ALONE, concurrency=ALONE)
    alone = ask(url, "alone", count, concurrency=ALONE)
    with (
        LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        ask(url, "warm", TOGETHER, engine=client, concurrency=TOGETHER)
        together = ask(url, "together", 4 * count, engine=client, concurrency=TOGETHER)
        few = ask(url, "few", 100, engine=client, concurrency=10)
        at_limit = limited(url, client)
    server.terminate()
    times = together["rows a second"] / alone["rows a second"]
    print(
        json.dumps(
            {
                "latency": f"{LATENCY} s",
                "cores": os.cpu_count(),
                f"one process, {ALONE} at once": alone,
                f"{WORKERS} workers, {TOGETHER} at once": together,
                "workers over process (target 3)": f"{times:.2f} ×",
                "10 at once": few,
                "a limit for a minute": at_limit,
            },
            indent=2,
            ensure_ascii=False,
        )
    )


if __name__ == "__main__":
    main()
