"""Turns travel in notebooks: from real kernels into files, and from files into other kernels."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat as nbformat_typed
import pytest
from nbclient import NotebookClient
from nbdime import diff_notebooks as diff_notebooks_typed

from kimi_magic.chats.notebook_file import read_turns
from kimi_magic.jupyter.clean import clean_notebook
from kimi_magic.testing import ScriptedServer
from tests.kernels import Kernel, OwnManager

nbformat: Any = nbformat_typed  # half typed
diff_notebooks: Any = diff_notebooks_typed
v4 = nbformat.v4
CELLS = (
    "%load_ext kimi_magic\n"
    "import kimi_magic as kimi\n"
    "def forecast(month: str) -> str:\n"
    "    'Forecast.'\n"
    "    return f'rain in {month}'",
    "%%kimi -T forecast\nAnd May?",
    "for city in ('Oslo', 'Rome'):\n    kimi.chat('cities').ask(f'{city}?')",
    "%%kimi --no-history\nBetween us?",
    "kimi.ask('A one-off?');",
    "%%kimi --max-tokens 50\nCount.",
)


def a_notebook() -> Any:
    cells = [v4.new_code_cell(source, id=f"cell-{n}") for n, source in enumerate(CELLS)]
    return v4.new_notebook(cells=cells)


@contextmanager
def answering(run: int) -> Iterator[ScriptedServer]:
    """A server that gives the same answers in each run, and other ids, counts and times."""
    with ScriptedServer("moonshot-k3") as server:

        def counts(number: int) -> dict[str, Any]:
            cached = {"cached_tokens": run * 10}
            return {
                "prompt_tokens": 100 * number,
                "completion_tokens": 10,
                "total_tokens": 100 * number + 10,
                "prompt_tokens_details": cached,
                **cached,
            }

        call = {"id": f"call_{run}{run}", "name": "forecast", "arguments": {"month": "May"}}
        server.reply("", reasoning="Look.", tool_calls=[call], usage=counts(1), delay=run / 5)
        server.reply("It rains.", reasoning="So it is.", usage=counts(2))
        server.reply("Cold.", usage=counts(3), rate=20 if run else None)
        server.reply("Warm.", usage=counts(4))
        server.reply("Of course.", usage=counts(5))
        server.reply("Yes.", usage=counts(6))
        server.reply("One, two,", finish_reason="length", usage=counts(7))
        yield server


def execute(notebook: Any, server: ScriptedServer) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KIMI_BASE_URL", server.base_url)
        patch.setenv("KIMI_MODEL", "kimi-k3")
        manager = OwnManager()
        client = NotebookClient(notebook, km=manager, timeout=60, record_timing=False)
        client.execute(cleanup_kc=True)
    nbformat.validate(notebook)
    return notebook


def carried(notebook: Any) -> list[list[Any]]:
    """The facts that each cell's outputs carry."""
    return [
        [o.metadata["kimi_magic"] for o in cell.outputs if "kimi_magic" in o.get("metadata", {})]
        for cell in notebook.cells
    ]


@pytest.fixture(scope="module")
def executed() -> Any:
    """The notebook after a run."""
    with answering(0) as server:
        return execute(a_notebook(), server)


@pytest.fixture
def lesson(executed: Any, tmp_path: Path) -> Path:
    """The notebook in a file."""
    path = tmp_path / "lesson.ipynb"
    nbformat.write(executed, path)
    return path


def test_each_record_carries_its_turn(executed: Any) -> None:
    none, may, cities, between_us, one_off, count = carried(executed)
    assert none == []
    assert [[facts["turn"]["prompt"] for facts in cell] for cell in (may, cities, count)] == [
        ["And May?"],
        ["Oslo?", "Rome?"],
        ["Count."],
    ]
    assert "turn" not in between_us[0]
    assert "chat" not in one_off[0]["turn"]
    assert may[0]["turn"]["steps"][0]["tool_results"][0]["content"] == "rain in May"
    assert may[0]["usage"] == {
        "prompt_tokens": 300, "completion_tokens": 20, "reasoning_tokens": 0
    }  # fmt: skip


def test_a_run_with_the_same_answers_changes_nothing(executed: Any) -> None:
    """Once more from the file: other ids, other times, another port, a warm cache."""
    again = nbformat.reads(nbformat.writes(executed), as_version=4)
    with answering(1) as server:
        execute(again, server)
    assert diff_notebooks(executed, again) == []


RICH = """\
**Two** months, by region:

| month | orders |
|:--|--:|
| March | 284 |

```python
sales.groupby("month").sum()
```
"""
COUNTING = """\
%load_ext kimi_magic
%config KimiMagics.record_times = {}
def orders(month: str) -> int:
    "Orders of a month."
    print("reading", month)
    return len(month)"""


@pytest.mark.parametrize("times", [False, True])
def test_the_same_turn_differs_in_nothing_but_metadata(times: bool) -> None:
    """Twice, with other times: reasoning, calls that print, a request that is sent again."""
    asks = "%%kimi -T orders\nWhich months?"
    found = []
    for run in range(2):
        cells = [v4.new_code_cell(cell, id=cell[2:6]) for cell in (COUNTING.format(times), asks)]
        with ScriptedServer("moonshot-k3", rate=200 if run else None) as server:
            calls = [{"name": "orders", "arguments": {"month": m}} for m in ("March", "May")]
            server.error(503, "Busy.", headers={"Retry-After": "0.01"})
            server.reply("", reasoning="Look **first**.", tool_calls=calls, delay=run / 10)
            server.reply(RICH, reasoning="Now I know.", delay=run / 5)
            found.append(execute(v4.new_notebook(cells=cells), server))
            assert len(server.requests) == 3
    first, second = ([o for cell in each.cells for o in cell.outputs] for each in found)
    (record,) = [o for o in first if "kimi_magic" in o.metadata]
    for part in ("reading March", "groupby", "<td", "<strong>first</strong>"):
        assert part in record.data["text/html"]
    assert ([o.metadata for o in first] == [o.metadata for o in second]) == (not times)
    for output in (*first, *second):
        told = output.metadata.get("kimi_magic", {}).get("times", {})
        assert len(told.get("folded", ())) == (4 if times else 0)
        output.metadata = {}
    assert nbformat.writes(found[0]) == nbformat.writes(found[1])


def test_nbval_passes(lesson: Path) -> None:
    options = ["-q", "--nbval", "--nbval-current-env", "-p", "no:cacheprovider"]
    with answering(2) as server:
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", *options, f"--rootdir={lesson.parent}", str(lesson)],
            env=os.environ | {"KIMI_BASE_URL": server.base_url, "KIMI_MODEL": "kimi-k3"},
            cwd=lesson.parent,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
    assert ran.returncode == 0, ran.stdout
    assert f"{len(CELLS)} passed" in ran.stdout


@pytest.mark.parametrize("times", [False, True])
def test_live_and_direct_records_carry_the_same(
    kernel: Kernel, asked: ScriptedServer, times: bool
) -> None:
    kernel.run(f"%config KimiMagics.record_times = {times}")
    found = []
    for number, allow_stdin in enumerate((True, True, False)):
        kernel.run("%kimi reset")
        asked.reply("9.9", reasoning="So.", delay=number / 20)
        ran = kernel.run("%%kimi\n9.11 or 9.9?", allow_stdin=allow_stdin, cell=f"cell-{number}")
        found.append(ran.of("display_data", "update_display_data")[-1]["metadata"])
    turn = found[0]["kimi_magic"]["turn"]
    assert turn["prompt"] == "9.11 or 9.9?"
    assert (found[0] == found[1] == found[2]) == (not times)
    assert ("started" in turn) == times
    assert ("seconds" in found[0]["kimi_magic"]["usage"]) == times


def test_another_kernel_goes_on_with_the_notebook(
    kernel: Kernel, asked: ScriptedServer, lesson: Path
) -> None:
    before = lesson.read_bytes()
    assert kernel.run(f"%kimi load {lesson}").stdout == "Loaded main: 2 turns, cities: 2 turns.\n"
    assert "Count." in kernel.run("%kimi snippet").record["text/plain"]
    shown = kernel.run("%kimi chat main").record["text/plain"]
    assert "> And May?\n\nIt rains.\n[1 tool call]" in shown
    # The cell of the first turn is run again: it goes back to before itself.
    asked.reply("Dry.")
    kernel.run("%%kimi\nAnd June?", cell="cell-1")
    assert [m["content"] for m in asked.requests[0].body["messages"][1:]] == ["And June?"]
    kernel.run("%kimi reset main")
    kernel.run("%kimi reset cities")
    kernel.run(f"%kimi load '{lesson}'")
    # The last one was cut, and is continued.
    asked.reply("three.")
    kernel.run("%kimi continue", cell="new")
    sent = asked.requests[1].body["messages"]
    asked_before = [m["content"] for m in sent if m["role"] == "user"]
    assert asked_before[:2] == ["And May?", "Count."]
    assert sent[2]["reasoning_content"] == "Look."
    assert sent[3]["content"] == "rain in May"
    assert sent[2]["tool_calls"][0]["id"] == sent[3]["tool_call_id"]
    assert "And May?" in kernel.run("%kimi snippet --turn 1 -c main").record["text/plain"]
    assert (
        "2 turns" in kernel.run("kimi.chat('cities')").of("execute_result")[0]["data"]["text/plain"]
    )
    failed = kernel.run(f"%kimi load {lesson}", ok=False)
    assert failed.error.startswith("KimiError: The chat main has 3 turns here: `%kimi reset main`")
    assert lesson.read_bytes() == before


def test_the_notebook_that_it_stands_in(kernel: Kernel, lesson: Path) -> None:
    failed = kernel.run("%kimi load", ok=False)
    assert "This front end does not tell: `%kimi load NAME.ipynb`." in failed.error
    kernel.run(f"__vsc_ipynb_file__ = {str(lesson)!r}")
    assert kernel.run("%kimi load").stdout.startswith("Loaded main: 2 turns")


def test_a_saved_chat_asks_the_same(lesson: Path, tmp_path: Path, kernel: Kernel) -> None:
    """A notebook → a kernel → a notebook, which is run: the requests are those of the first."""
    kernel.run(f"%kimi load {lesson}")
    path = tmp_path / "saved.ipynb"
    assert kernel.run(f"%kimi save {path}").stdout == f"Written to {path}.\n"
    failed = kernel.run(f"%kimi save {path}", ok=False)
    assert failed.error == f"KimiError: {path} exists already; --force (force=True) replaces it."
    kernel.run(f"%kimi save {path} --force")
    saved = nbformat.read(path, as_version=4)
    assert [cell.source for cell in saved.cells] == [
        "%load_ext kimi_magic\nimport kimi_magic as kimi",
        "%%kimi -m kimi-k3 -T forecast\nAnd May?",
        "%%kimi -m kimi-k3 --max-tokens 50\nCount.",
    ]
    saved.cells[0].source = CELLS[0]
    with ScriptedServer("moonshot-k3") as server:
        call = {"name": "forecast", "arguments": {"month": "May"}}
        server.reply("", reasoning="Look.", tool_calls=[call])
        server.reply("It rains.", reasoning="So it is.")
        server.reply("One, two,", finish_reason="length")
        execute(saved, server)
        bodies = [request.body for request in server.requests]
    with answering(0) as server:
        execute(a_notebook(), server)
        first = [request.body for request in server.requests]
    assert steady(bodies) == steady([first[0], first[1], first[-1]])
    before = [turn.exchange for turn in read_turns(lesson) if turn.chat == "main"]
    nbformat.write(saved, path)
    assert [turn.exchange for turn in read_turns(path)] == before


def steady(bodies: list[dict[str, Any]]) -> list[Any]:
    """Requests without the ids of calls."""
    return [
        json.loads(json.dumps(body), object_hook=lambda o: {
            k: v for k, v in o.items() if k not in ("id", "tool_call_id")
        })
        for body in bodies
    ]  # fmt: skip


def test_a_cleaned_notebook_carries_nothing(lesson: Path, kernel: Kernel) -> None:
    lesson.write_bytes(clean_notebook(lesson.read_bytes(), lesson.name)[0])
    failed = kernel.run(f"%kimi load {lesson}", ok=False)
    assert failed.error == "KimiError: lesson.ipynb carries no turns of a chat."


def test_turns_that_are_not_remembered_are_told_once(
    kernel: Kernel, asked: ScriptedServer, lesson: Path
) -> None:
    line = "4 earlier turns of this notebook are not remembered, as the journal is off"
    kernel.run(f"__vsc_ipynb_file__ = {str(lesson)!r}")
    kernel.run("kimi.settings.notebook.told.clear()")
    for _ in range(6):
        asked.reply("OK.")
    assert kernel.run("%%kimi --no-history\nHi", allow_stdin=True).stdout == ""
    assert kernel.run("%%kimi\nHi").stdout == "", "nobody is there"
    kernel.run("%kimi reset")
    first = kernel.run("%%kimi\nHi", allow_stdin=True)
    assert first.stdout.startswith(line)
    assert len(first.stdout.splitlines()) == 1
    assert kernel.run("%%kimi\nHi", allow_stdin=True).stdout == ""
    kernel.run("%kimi reset")
    assert kernel.run("%kimi load").stdout.startswith("Loaded main: 2 turns")
    kernel.run("kimi.settings.notebook.told.clear()")
    assert kernel.run("%%kimi\nHi", allow_stdin=True).stdout == "", "they were loaded"
    kernel.run("kimi.settings.notebook.told.clear()\nkimi_magic.session.current().chats.clear()")
    kernel.run(f"__vsc_ipynb_file__ = {str(lesson.parent / 'none.ipynb')!r}")
    assert kernel.run("%%kimi\nHi", allow_stdin=True).stdout == ""
