"""A kernel that dies in mid-stream, and a reader who goes on by clicking nothing but cells."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

from kimi_magic.testing import ScriptedServer
from tests.frontends import LONG, Bench, in_a_browser, only_lab

pytestmark = in_a_browser

CELLS = ["", "%load_ext kimi_magic", "%%kimi\nWhich one is bigger, 9.11 or 9.9?"]
CELLS += ["%%kimi\nTell a story.", "%kimi resume", "%kimi continue"]
SET_UP, LOAD, FIRST, STORY, RESUME, CONTINUE = range(6)
WRITE = """cells => {
  const { sharedModel } = kimi.notebook.model;
  sharedModel.transact(() => {
    sharedModel.deleteCellRange(0, sharedModel.cells.length);
    const code = cells.map((source) => ({ cell_type: "code", source, metadata: {} }));
    sharedModel.insertCells(0, code);
  });
}"""


class Notebook:
    """The open notebook with several cells, clicked as a reader clicks them."""

    def __init__(self, bench: Bench, cells: list[str]) -> None:
        self.bench, self.page = bench, bench.page
        self.page.evaluate(WRITE, cells)

    def cell(self, number: int) -> Any:
        return self.page.locator(".jp-Notebook .jp-Cell").nth(number)

    def click(self, number: int) -> None:
        """Click a cell and run it; go on when it has begun."""
        self.cell(number).locator(".jp-InputPrompt").click()
        self.page.keyboard.press("Control+Enter")

    def run(self, number: int) -> str:
        """Run a cell to its end; return what stands below it."""
        # A new kernel counts from 1 again: the number may be the one that stands there.
        forget = "n => { kimi.notebook.model.cells.get(n).executionCount = null }"
        self.page.evaluate(forget, number)
        self.click(number)
        prompt = self.cell(number).locator(".jp-InputPrompt")
        prompt.get_by_text(re.compile(r"\d")).wait_for(timeout=LONG)
        self.bench.wait_for_kernel()
        text: str = self.cell(number).locator(".jp-OutputArea").inner_text()
        return text


def said(server: ScriptedServer) -> list[str]:
    """The texts of the latest request, without the system prompt."""
    return [m["content"] for m in server.requests[-1].body["messages"] if m["role"] != "system"]


@only_lab
def test_a_chat_goes_on_after_its_kernel_died(
    bench: Bench, scripted_server: ScriptedServer, tmp_path: Path
) -> None:
    own = {
        "KIMI_JOURNAL": str(tmp_path / "of" / "journal.sqlite3"),
        "KIMI_BASE_URL": scripted_server.base_url,
        "KIMI_MODEL": scripted_server.models[0],
    }
    set_up = f"import os; os.environ.update({own}); print(os.getpid())"
    notebook = Notebook(bench, [set_up, *CELLS[1:]])
    scripted_server.reply("9.9 is bigger.", reasoning="Compare the tenths.")
    scripted_server.reply("Once upon a time " + "and " * 500, reasoning="A story.", rate=12)
    pid = int(notebook.run(SET_UP))
    notebook.run(LOAD)
    assert "9.9 is bigger." in notebook.run(FIRST)
    notebook.click(STORY)
    bench.page.locator(".kimi-turn").get_by_text("Once upon a time and").wait_for(timeout=LONG)
    bench.page.wait_for_timeout(1000)  # what is lost is at most the last half second
    os.kill(pid, signal.SIGKILL)
    bench.page.locator(".jp-Dialog").get_by_role("button", name="Ok").click(timeout=LONG)
    bench.wait_for_kernel()

    assert int(notebook.run(SET_UP)) != pid
    offered = notebook.run(LOAD)
    assert re.search(r"^main: 2 turns from \d\d:\d\d - `%kimi resume` goes on with it", offered)
    assert "2 turns" in (back := notebook.run(RESUME))
    assert "the last ended with its kernel: `%kimi continue` goes on with it" in back
    scripted_server.reply("So it ended.")
    assert "So it ended." in notebook.run(CONTINUE)
    bench.shot("12-restarted")
    first, answer, story, begun, *rest = said(scripted_server)
    assert [first, answer] == ["Which one is bigger, 9.11 or 9.9?", "9.9 is bigger."]
    assert story == "Tell a story."
    assert begun.startswith("Once upon a time and")
    assert len(rest) <= 1, "nothing but the wish to go on"

    # A cell of the earlier kernel goes back to before its own turn.
    scripted_server.reply("9.9, as I said.")
    again = notebook.run(FIRST)
    assert "9.9, as I said." in again
    assert "2 later turns were set aside" in again
    assert said(scripted_server) == [first]
    bench.shot("13-run-again")
