"""Python programs with tools: the functions, what those use, and the loop."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kimi_magic.export import Program, write
from kimi_magic.testing import DIALECTS, Request, ScriptedServer
from kimi_magic.tools.toolset import Toolset
from tests.kernels import Kernel
from tests.snippets import (
    MODEL,
    ask,
    cell,
    check_layout,
    export_and_run,
    program,
    run,
    stopped,
)

CELLS = '''
import datetime as dt
import json
from statistics import mean
from typing import Literal

import kimi_magic as kimi

Region = Literal["north", "south"]
SALES = {"north": [3, 4, 8], "south": [1.5, 2.5]}


class Ledger:
    def total(self, region: Region) -> float:
        """Sum the sales of a region."""
        return sum(SALES[region])


ledger = Ledger()


def share(region):
    return round(mean(SALES[region]) / mean([mean(s) for s in SALES.values()]), 2)


@kimi.tool(
    timeout=30,
)
def forecast(region: Region, day: dt.date) -> dict:
    """Forecast the sales of a region."""
    return {"region": region, "month": day.month, "share": share(region)}


async def wait(seconds: float = 1.5) -> str:
    """Wait."""
    return f"waited {seconds} s"


def countdown(n: int):
    """Count down."""
    while n:
        yield n
        n -= 1


def fail() -> None:
    """Fail."""
    raise RuntimeError("the till is locked")
'''


@pytest.fixture
def notebook() -> dict[str, Any]:
    namespace: dict[str, Any] = {}
    cell(CELLS, namespace)
    return namespace


def results(request: Request) -> list[str]:
    """Return the tool results in a request."""
    return [m["content"] for m in request.body["messages"] if m["role"] == "tool"]


def with_tools(server: ScriptedServer, *tools: Any, **how: Any) -> Program:
    bench = Toolset(tools)
    functions = {name: bench.get(name).function for name in bench.names}  # type: ignore[union-attr]
    return program(server, ask("Go."), tools=bench.schemas(), functions=functions, **how)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_loop_runs_to_its_end(
    dialect: str, stream: bool, notebook: dict[str, Any], tmp_path: Path
) -> None:
    """The server checks what each provider would: ids, reasoning, names, order."""
    day = {"region": "north", "day": "2026-03-31"}
    with ScriptedServer(dialect) as server:
        server.reply(
            reasoning="Two calls.",
            tool_calls=[
                {"name": "forecast", "arguments": day},
                {"name": "forecast", "arguments": {**day, "region": "south"}},
            ],
        )
        server.reply(
            "One more.",
            reasoning="And one.",
            tool_calls=[{"name": "countdown", "arguments": {"n": 2}}],
        )
        server.reply("Done.", reasoning="Enough.")
        asked = None if not stream else {"include_usage": True}
        wanted = with_tools(
            server, notebook["forecast"], notebook["countdown"], stream=stream, stream_options=asked
        )
        printed = export_and_run(wanted, "python", tmp_path)
    north = '{"region": "north", "month": 3, "share": 1.43}'
    south = '{"region": "south", "month": 3, "share": 0.57}'
    assert results(server.requests[2]) == [north, south, "[2, 1]"]
    own = [m for m in server.requests[2].body["messages"] if m["role"] == "assistant"]
    thoughts = [m.get("reasoning_content", m.get("reasoning")) for m in own]
    assert thoughts == ["Two calls.", "And one."]
    for part in ("Two calls.", north, "One more.", "Enough.", "Done."):
        assert part in printed


def test_what_goes_wrong_is_told_to_the_model(notebook: dict[str, Any], tmp_path: Path) -> None:
    """Covers a failing function, wrong arguments, broken JSON and a missing function."""
    with ScriptedServer() as server:
        server.reply(
            tool_calls=[
                {"name": "fail"},
                {"name": "forecast", "arguments": {"region": "west", "day": "2026-03-31"}},
                {"name": "forecast", "arguments": '{"region": "north"'},
                {"name": "total", "arguments": {"region": "north"}},
            ]
        )
        server.reply("I see.")
        tools = notebook["fail"], notebook["forecast"], notebook["ledger"].total
        export_and_run(with_tools(server, *tools), "python", tmp_path)
    failed, misfit, broken, nowhere = results(server.requests[1])
    assert failed == "Error: RuntimeError: the till is locked"
    assert "region" in misfit
    assert "'north' or 'south'" in misfit
    assert broken.startswith("Error: JSONDecodeError: ")
    assert "total" in nowhere


@pytest.mark.parametrize(
    ("typed", "told"),
    [("y\n", "waited 0.0 s"), ("no\n", "PermissionError: the user declined"), ("", "EOFError")],
)
def test_a_person_says_yes_to_a_call_as_in_the_notebook(
    notebook: dict[str, Any], tmp_path: Path, typed: str, told: str
) -> None:
    with ScriptedServer() as server:
        server.reply(tool_calls=[{"name": "wait", "arguments": {"seconds": 0.0}}])
        server.reply("I see.")
        asking = replace(with_tools(server, notebook["wait"]), confirmed=frozenset({"wait"}))
        printed = run(write(asking, "python"), "python", tmp_path, typed=typed)
    assert 'Run wait({"seconds": 0.0})? [y/N] ' in printed
    assert told in results(server.requests[1])[0]


def test_calls_that_were_cut_off_are_not_run(notebook: dict[str, Any], tmp_path: Path) -> None:
    with ScriptedServer() as server:
        server.reply(tool_calls=[{"name": "fail"}], finish_reason="length")
        printed = export_and_run(with_tools(server, notebook["fail"]), "python", tmp_path)
    assert "locked" not in printed


def test_calls_in_pieces_without_an_index(notebook: dict[str, Any], tmp_path: Path) -> None:
    def chunk(**call: Any) -> bytes:
        choice = {"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}
        return f"data: {json.dumps({'id': '1', 'choices': [choice]})}\n\n".encode()

    with ScriptedServer() as server:
        server.raw(
            [
                chunk(id="functions.wait:0", type="function", function={"name": "wait"}),
                chunk(id="functions.wait:0", function={"name": "", "arguments": '{"sec'}),
                chunk(id="functions.wait:0", function={"arguments": 'onds": 2}'}),
                chunk(id="functions.wait:1", function={"name": "wait", "arguments": ""}),
                b"data: [DONE]\n\n",
            ]
        )
        server.reply("Thanks.")
        export_and_run(with_tools(server, notebook["wait"]), "python", tmp_path)
    assert results(server.requests[1]) == ["waited 2.0 s", "waited 1.5 s"]


def test_what_stays_behind_is_listed_at_the_top(notebook: dict[str, Any], tmp_path: Path) -> None:
    cell(
        """
def report(region: str) -> str:
    return f"{region}: {ledger.total(region)} of {PLANNED} {token}"

token = "t0k3n"
HEADERS = {"Authorization": "Bearer t0k3n"}
BIG = list(range(3000))

def fetch(url: str) -> str:
    return download(url, HEADERS, BIG)

def post(text: str) -> str:
    return download("https://lab.example", {"X-Key": "sk-0123456789abcdef"}, text)
""",
        notebook,
    )
    tools = notebook["report"], notebook["ledger"].total, notebook["fetch"], notebook["post"]
    with ScriptedServer() as server:
        text = write(with_tools(server, *tools), "python")
    head = text.partition("\n\n")[0]
    assert head.partition("# Not exported from the notebook:\n")[2].splitlines() == [
        "# - PLANNED: it is not defined (used by report)",
        "# - ledger: it is a live object, of type Ledger (used by report)",
        "# - token: it may be a secret, and is read from the environment",
        "# - total: it belongs to a live object, of type Ledger",
        "# - BIG: it is long (28,899 characters) (used by fetch)",
        "# - HEADERS: it may hold a secret (used by fetch)",
        "# - download: it is not defined (used by fetch)",
        "# - post: it may hold a secret",
    ]
    assert "t0k3n" not in text
    assert "sk-0" not in text
    check_layout(text, tmp_path)


def test_names_of_the_notebook_are_left_to_it(tmp_path: Path) -> None:
    """The notebook has a function called run, a client and a message of its own."""
    notebook: dict[str, Any] = {}
    cell(
        """
from subprocess import run as ask
client = {"name": "Ada"}
message = "Hello"
def run(tools: list[str]) -> str:
    return f"{message}, {client['name']}: {tools} {ask.__module__}"
def messages() -> str:
    return "none"
""",
        notebook,
    )
    with ScriptedServer() as server:
        server.reply(
            tool_calls=[{"name": "run", "arguments": {"tools": ["a"]}}, {"name": "messages"}]
        )
        server.reply("Fine.")
        wanted = with_tools(server, notebook["run"], notebook["messages"])
        text = write(wanted, "python")
        run(text, "python", tmp_path)
    assert results(server.requests[1]) == ["Hello, Ada: ['a'] subprocess", "none"]


def test_a_tool_without_a_function_of_python(notebook: dict[str, Any]) -> None:
    with ScriptedServer() as server:
        wanted = with_tools(server, notebook["fail"])
        text = write(replace(wanted, functions={"fail": None}), "python")
    assert '# "fail" stays in the notebook: add a function of your own here.\n' in text


def test_hints_that_json_does_not_carry(notebook: dict[str, Any], tmp_path: Path) -> None:
    cell(
        "import pandas as pd\n\n\ndef count(rows: pd.DataFrame) -> int:\n    return len(rows)\n",
        notebook,
    )
    with ScriptedServer() as server:
        text = write(with_tools(server, notebook["count"]), "python")
    assert (
        "functions = {\n"
        "    # Gets the arguments unchecked: its type hints are not for JSON.\n"
        '    "count": count,\n}\n'
    ) in text
    assert "Install: pip install openai pandas\n" in text
    check_layout(text, tmp_path)


def test_the_layout_with_tools(notebook: dict[str, Any], tmp_path: Path) -> None:
    tools = [notebook[name] for name in ("forecast", "wait", "countdown", "fail")]
    with ScriptedServer() as server:
        for stream in (True, False):
            wanted = with_tools(server, *tools, notebook["ledger"].total, stream=stream)
            check_layout(write(wanted, "python"), tmp_path)


def test_from_a_kernel_and_back_into_it(
    kernel: Kernel, scripted_server: ScriptedServer, tmp_path: Path
) -> None:
    """The program runs as a file, and as the next cell, where the live objects still exist."""
    kernel.run(CELLS)
    kernel.run(
        f"""
from dataclasses import dataclass
from kimi_magic.export import Program
from kimi_magic.export import write
from kimi_magic.tools.toolset import Toolset

@dataclass
class Item:
    name: str
    price: float = 1.0

def book(items: list[Item], region: "Region" = "north") -> str:
    return f"{{sum(item.price for item in items)}} on {{ledger.total(region)}}"

bench = Toolset([book, forecast])
body = {{
    "model": {MODEL!r}, "messages": [{{"role": "user", "content": "Book it."}}], "stream": True,
    "temperature": 1.0, "max_tokens": 100, "tools": bench.schemas(),
}}
functions = {{name: bench.get(name).function for name in bench.names}}
text = write(Program(body, {scripted_server.base_url!r}, functions=functions))
"""
    )
    text = kernel.run("print(text, end='')").stdout
    check_layout(text, tmp_path)
    call = {"name": "book", "arguments": {"items": [{"name": "pen", "price": 2}, {"name": "ink"}]}}
    assert stopped(text, tmp_path) == (
        "Fill in ledger here: it is a live object, of type Ledger (used by book). "
        "The notebook has: ledger = Ledger()"
    )
    assert not scripted_server.requests
    for _ in range(2):
        scripted_server.reply(tool_calls=[call])
        scripted_server.reply("Booked.")
    filled = text.replace("if (ledger := ", "class ledger:\n    total = len\n\n\nif (ledger := ")
    assert "Booked." in run(filled, "python", tmp_path)
    assert "Booked." in kernel.run(text).stdout
    (outside,), (inside,) = (results(scripted_server.requests[i]) for i in (1, 3))
    assert outside == "3.0 on 5"
    assert inside == "3.0 on 15"
