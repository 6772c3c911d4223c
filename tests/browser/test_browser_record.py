"""What is there when the page is loaded again, or the notebook is opened elsewhere."""

from __future__ import annotations

import pytest

from kimi_magic.testing import ScriptedServer
from tests.frontends import Bench, as_notebook, in_a_browser

pytestmark = in_a_browser

ANSWER = "It is **9.9**.\n\n| number | tenths |\n|---|---|\n| 9.9 | 9 |\n"


@pytest.mark.parametrize("saved", [True, False], ids=["saved in mid-stream", "not saved"])
def test_a_page_reloaded_in_mid_stream_gets_the_record(
    bench: Bench, scripted_server: ScriptedServer, saved: bool
) -> None:
    scripted_server.reply(ANSWER, reasoning="I think and think. " * 8, rate=14)
    bench.run("%%kimi\nWhich one?", saved=True)
    bench.turn.locator(".kimi-panel").get_by_text("I think").wait_for()
    bench.turn.get_by_role("button", name="Stop").wait_for()
    if saved:
        bench.command("docmanager:save")
    bench.page.on("dialog", lambda dialog: dialog.accept())
    bench.open()
    scripted_server.go_on()
    bench.record.get_by_text("It is 9.9.").wait_for()
    assert "Error displaying widget" not in bench.page.content()
    (output,) = bench.saved()["outputs"]
    assert set(output["data"]) == {"text/html", "text/plain"}
    left = "from ipywidgets.widgets.widget import _instances; print(len(_instances))"
    assert bench.python(left) == "0\n"


@pytest.mark.parametrize("trusted", [True, False], ids=["trusted", "untrusted"])
def test_a_notebook_opened_again_needs_nothing(
    bench: Bench, scripted_server: ScriptedServer, trusted: bool
) -> None:
    call = {"name": "trend", "arguments": {"region": "north"}}
    scripted_server.reply(reasoning="Look at it.", tool_calls=[call])
    scripted_server.reply(ANSWER)
    bench.run("%%kimi -T trend\nWhich one?")
    bench.wait_for_record()
    cell = bench.saved()
    if not trusted:
        cell["source"] += "  # changed by somebody else, so that no signature fits"
        bench.path.write_text(as_notebook(cell), "utf-8")
    bench.page.evaluate("() => kimi.kernel.restart()")
    bench.open()
    bench.record.get_by_text("It is 9.9.").wait_for()
    trusts = "() => kimi.notebook.model.cells.get(0).trusted"
    assert bench.page.evaluate(trusts) is trusted, "or nothing is sanitised"
    bench.record.locator("summary").first.click()
    assert bench.record.get_by_text("Look at it.").is_visible()
    assert bench.record.locator("img").is_visible()
    assert "Error displaying widget" not in bench.page.content()
    bench.shot(f"6-reopened-{'' if trusted else 'un'}trusted")
