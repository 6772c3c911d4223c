"""A server that answers each prompt with itself in capitals, with faults for some."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Self

from aiohttp import web

__all__ = ["FAULTS", "FaultyServer", "answer_to", "named_fault"]

FAULTS = (
    "",
    "429",
    "429 after",
    "500",
    "503",
    "cut",
    "cut before",
    "broken json",
    "no sse",
    "empty",
    "nothing",
    "error event",
    "silent",
    "400",
)


def named_fault(prompt: str, _: int) -> str:
    """Take the first word of a prompt for its fault: ``401 x`` gets a 401, others themselves."""
    word = prompt.partition(" ")[0]
    return word if word in FAULTS or word[:1] in ("4", "5") else ""


def answer_to(prompt: str) -> str:
    return prompt.upper()


class FaultyServer:
    """Answers in its own thread.

    Parameters
    ----------
    fault : callable
        Takes a prompt and how often it has been asked before; returns one of `FAULTS`.
    latency : float
        Seconds before each answer.

    Attributes
    ----------
    asked : list of str
        The prompts, in the order in which they came.
    keys : list of str
        The keys that came with them.
    on_request : callable
        Called with the number of requests so far, before one is answered.
    holds_for : int
        No answer begins before so many requests were under way at once.
    """

    def __init__(
        self, fault: Callable[[str, int], str] = lambda *_: "", *, latency: float = 0.0
    ) -> None:
        self.asked: list[str] = []
        self.keys: list[str] = []
        self.on_request: Callable[[int], None] = lambda _: None
        self.at_once = self.most_at_once = self.holds_for = 0
        self.base_url = ""
        self._fault = fault
        self._latency = latency
        self._times: Counter[str] = Counter()
        self._ready: Future[str] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.base_url = self._ready.result()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    def wait_until_quiet(self) -> None:
        """Wait until no request has come for a while."""
        count = -1
        while count != len(self.asked):
            count = len(self.asked)
            time.sleep(0.3)

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._answer)
        app.router.add_get("/v1/models", self._models)
        runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self._ready.set_result(f"http://127.0.0.1:{runner.addresses[0][1]}/v1")
        await self._over.wait()
        await runner.cleanup()

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "kimi-k2-thinking"}]})

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        try:
            prompt = (await request.json())["messages"][-1]["content"]
        except ConnectionResetError:  # the client was killed
            return web.Response()
        self.asked.append(prompt)
        self.keys.append(request.headers.get("Authorization", "").removeprefix("Bearer "))
        self.on_request(len(self.asked))
        fault = self._fault(prompt, self._times[prompt])
        self._times[prompt] += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            while self.most_at_once < self.holds_for:
                await asyncio.sleep(0.005)
            await asyncio.sleep(self._latency)
            return await self._respond(request, prompt, fault)
        finally:
            self.at_once -= 1

    async def _respond(self, request: web.Request, prompt: str, fault: str) -> web.StreamResponse:
        if fault[:1].isdigit():
            status, _, after = fault.partition(" ")
            headers = {"Retry-After": "0"} if after or status == "429" else {}
            said = {"error": {"message": f"fault {status}", "type": "fault"}}
            return web.json_response(said, status=int(status), headers=headers)
        kind = "text/html" if fault == "no sse" else "text/event-stream"
        response = web.StreamResponse(headers={"Content-Type": kind})
        if fault == "cut before":
            assert request.transport is not None, "it is connected"
            request.transport.close()
            return response
        await response.prepare(request)
        text = "" if fault == "empty" else answer_to(prompt)
        half = len(text) // 2
        events = [_delta(content=text[:half]), _delta(content=text[half:]), _end(prompt), "[DONE]"]
        if fault == "broken json":
            events[1] = events[1][: len(events[1]) // 2]
        elif fault == "nothing":
            events = ["[DONE]"]
        elif fault == "error event":
            events[1:] = ['{"error": {"message": "fault in the stream", "code": 500}}']
        for place, event in enumerate(events):
            if fault == "cut" and place == 1:
                assert request.transport is not None, "it is connected"
                request.transport.close()
                return response
            if fault == "silent" and place == 1:
                await asyncio.sleep(3600)
            written = f"data: {event}\n\n" if fault != "no sse" else "<html>"
            await response.write(written.encode())
        return response


def _delta(**delta: Any) -> str:
    return _chunk({"index": 0, "delta": delta, "finish_reason": None})


def _end(prompt: str) -> str:
    words = len(prompt.split())
    usage = {"prompt_tokens": words, "completion_tokens": words, "total_tokens": 2 * words}
    return _chunk({"index": 0, "delta": {}, "finish_reason": "stop"}, usage)


def _chunk(choice: dict[str, Any], usage: dict[str, int] | None = None) -> str:
    about = {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "kimi-k2-thinking",
    }
    return json.dumps({**about, "choices": [choice], "usage": usage})
