"""Far too much of anything, in a real kernel: the notebook is bounded, the memory level."""

from __future__ import annotations

import json
import sys

import pytest

from kimi_magic.testing import ScriptedServer
from tests.floods import FLOODS, TOOLS
from tests.kernels import Kernel

ROUNDS = {"200,000 tokens": 2}
RESIDENT = """
import ctypes, gc, os
gc.collect()
ctypes.CDLL("libc.so.6").malloc_trim(0)  # what was freed may stay with the allocator otherwise
with open("/proc/self/statm") as told:
    print(int(told.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
"""


def resident(kernel: Kernel) -> float:
    """The kernel's memory in MB; 0 where it cannot be had."""
    return int(kernel.run(RESIDENT).stdout) / 1e6 if sys.platform == "linux" else 0.0


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_leaves_the_notebook_bounded_and_the_memory_level(
    flood: str, kernel: Kernel, asked: ScriptedServer
) -> None:
    kernel.run(TOOLS)
    levels = []
    for _ in range(ROUNDS.get(flood, 5)):
        FLOODS[flood](asked)
        ran = kernel.run(
            "%%kimi -T shout,take,nest -o answer\nGo", allow_stdin=True, cell="a", timeout=120
        )
        bound = 200_000
        assert len(json.dumps(ran.record)) < 3 * bound, "HTML and text"
        assert "max_output_chars" in ran.record["text/plain"]
        assert "max_output_chars" in ran.record["text/html"]
        sent = sum(len(json.dumps(message["content"])) for message in ran.messages)
        assert sent < 8 * bound, "the live view, its script and its style, and the record"
        asked.requests.clear()
        kernel.run("%kimi reset\nanswer = None")
        levels.append(resident(kernel))
    assert levels[-1] - levels[0] < 35
    asked.reply("OK.")
    assert "OK." in kernel.run("%%kimi\nAnd now?").record["text/plain"]
