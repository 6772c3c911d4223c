"""Aim: have tools ask and answers call tools without end, at the user's cost."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import kimi_magic as kimi
from kimi_magic.core.errors import KimiError
from kimi_magic.core.nesting import depth
from kimi_magic.testing import ScriptedServer
from kimi_magic.tools.decorator import tool

ASKED: list[int] = []
DEEPEST = 2


def ask() -> str:
    ASKED.append(depth.get())
    return kimi.ask("Go on", tools=[TOOLS["now"]]).text


def at_once() -> str:
    """Ask again."""
    return ask()


def in_time() -> str:
    """Ask again."""
    return ask()


def beside() -> str:
    """Ask again."""
    return ask()


async def awaited() -> str:
    """Ask again."""
    return await asyncio.to_thread(ask)


def streamed() -> str:
    """Ask again."""
    ASKED.append(depth.get())
    return str([type(event) for event in kimi.stream("Go on", tools=[streamed])])


def in_a_copy() -> str:
    """Ask again."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(contextvars.copy_context().run, ask).result()


def in_a_thread() -> str:
    """Ask again."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(ask).result()


TOOLS: dict[str, Callable[..., Any]] = {}


@pytest.mark.parametrize(
    "function", [at_once, in_time, beside, awaited, streamed, in_a_copy, in_a_thread]
)
def test_a_tool_that_asks_for_itself(server: ScriptedServer, function: Callable[..., Any]) -> None:
    """Input: a tool whose answer calls the tool again: directly, with a time limit, in threads.

    Holds: it ends at the depth of the setting, the model is told, and the turn gives its answer.
    """
    ASKED.clear()
    kimi.settings.max_depth = DEEPEST
    options: dict[str, Any] = {"in_time": {"timeout": 60}, "beside": {"parallel": True}}
    tool(function, **options.get(function.__name__, {}))
    TOOLS["now"] = function
    for _ in range(DEEPEST + 1):
        server.reply(tool_calls=[{"name": function.__name__, "arguments": {}}])
    for _ in range(DEEPEST + 1):
        server.reply("Done.")
    assert kimi.ask("Go", tools=[function], show=False).text == "Done."
    assert ASKED == [1, 2, 3]
    told = server.requests[DEEPEST + 1].body["messages"][-1]["content"]
    assert "Tools ask inside of tools 2 deep already" in told
    assert depth.get() == 0


def test_no_tool_may_ask(server: ScriptedServer) -> None:
    """Input: the setting 0, and numbers out of bounds. Holds: a tool that asks is refused."""
    kimi.settings.max_depth = 0
    TOOLS["now"] = at_once
    server.reply(tool_calls=[{"name": "at_once", "arguments": {}}])
    server.reply("Done.")
    assert kimi.ask("Go", tools=[at_once], show=False).tool_results[0].error
    assert len(server.requests) == 2
    for wrong in (-1, 33):
        with pytest.raises(Exception, match="max_depth is a number from 0 to 32"):
            kimi.settings.max_depth = wrong


def test_many_threads_are_not_deep(server: ScriptedServer) -> None:
    """Input: turns side by side in many threads. Holds: each of them is at the top."""
    kimi.settings.max_depth = 0
    for _ in range(20):
        server.reply("Done.")
    failed: list[KimiError] = []

    def one() -> None:
        try:
            kimi.ask("Go")
        except KimiError as error:
            failed.append(error)

    threads = [threading.Thread(target=one) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
