"""What is there when the page is loaded again, or the notebook is opened elsewhere."""

from __future__ import annotations

import re

import pytest

from kimi_magic.testing import ScriptedServer
from tests.browser.test_browser_access import complaints
from tests.frontends import Bench, as_notebook, in_a_browser

pytestmark = in_a_browser

ANSWER = "It is **9.9**.\n\n| number | tenths |\n|---|---|\n| 9.9 | 9 |\n"


@pytest.mark.parametrize("saved", [True, False], ids=["saved in mid-stream", "not saved"])
def test_a_page_reloaded_in_mid_stream_gets_the_record(
    bench: Bench, scripted_server: ScriptedServer, saved: bool
) -> None:
    scripted_server.reply(ANSWER, reasoning="I think and think. " * 8, stall_after=20)
    bench.run("%%kimi\nWhich one?", saved=True)
    bench.turn.locator(".kimi-panel").get_by_text("I think").wait_for()
    bench.turn.get_by_role("button", name="Stop").wait_for()
    if saved:
        bench.command("docmanager:save")
    bench.page.once("dialog", lambda dialog: dialog.accept())
    bench.open()
    bench.turn.get_by_role("button", name="Stop").wait_for()
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


CODE = "total = 0\nfor n in range(3):\n    total += n  # all"
WRITTEN = f"It is **9.9**, *see*:\n\n```python\n{CODE}\n```\n\n- [x] checked\n"
COPIED = (
    "() => { window.copied = ''; navigator.clipboard.writeText = async (t) => { copied = t; } }"
)


@pytest.mark.parametrize("times", [False, True])
def test_the_finished_cell_keeps_what_the_live_view_knew(
    bench: Bench, scripted_server: ScriptedServer, times: bool
) -> None:
    """Times are shown while the output lives, and later where the metadata have them."""
    page, record = bench.page, bench.record
    bench.python(f"%config KimiMagics.record_times = {times}")
    calls = [
        {"name": "monthly", "arguments": {"region": "north", "pause": 0.1}},
        {"name": "broken", "arguments": {"month": 13}},
    ]
    scripted_server.reply(reasoning="Look at it.", tool_calls=calls, rate=20)
    scripted_server.reply(WRITTEN, reasoning="So it is.", rate=100)
    bench.run("%%kimi -T monthly,broken\nWhich one?")
    bench.wait_for_record()
    record.get_by_role("button", name="Copy the answer").wait_for()
    live = [_without_numbers(text) for text in record.locator("summary").all_inner_texts()]
    assert live == [
        "Reasoned for N",
        'monthly(region="north", pause=0.1) · ✓ done in N',
        "broken(month=13) · ✗ failed after N",
        "Reasoned for N",
    ]
    ending = record.locator(".kimi-record-end")
    kept = "kimi-k2-thinking · 2 steps · N tokens in · N tokens out"
    assert _without_numbers(ending.locator("span").first.inner_text()) == f"{kept} · N"
    assert complaints(page, ".jp-OutputArea-output.jp-RenderedHTMLCommon") == []
    bench.shot(f"6-finished-{times}")

    page.evaluate(COPIED)
    record.get_by_role("button", name="Copy the answer").click()
    page.wait_for_function("text => copied === text", arg=WRITTEN.strip())
    record.get_by_role("button", name="Copied").wait_for()
    record.get_by_role("button", name="Copy the code").press("Enter")
    page.wait_for_function("text => copied.trimEnd() === text", arg=CODE)
    record.get_by_role("button", name="Put the code into a new cell").press("Enter")
    page.wait_for_function(
        "code => kimi.notebook.model.cells.length === 2"
        " && kimi.notebook.model.cells.get(1).sharedModel.source === code",
        arg=CODE,
    )
    (output,) = [output for output in bench.saved()["outputs"] if "data" in output]
    assert "kimi-record" not in str(output)
    assert ("times" in output["metadata"]["kimi_magic"]) == times
    assert "transient" not in output
    assert "Reasoned for" not in str(output["data"])

    page.evaluate("() => kimi.kernel.restart()")
    bench.open()
    record.get_by_role("button", name="Copy the answer").wait_for()
    reopened = [_without_numbers(text) for text in record.locator("summary").all_inner_texts()]
    steady = [line.split(" for ")[0].replace("Reasoned", "Reasoning") for line in live]
    steady = [line.split(" in ")[0].split(" after ")[0] for line in steady]
    assert reopened == (live if times else steady)
    assert kept in _without_numbers(ending.inner_text())
    page.evaluate(COPIED)
    record.get_by_role("button", name="Copy the answer").click()
    page.wait_for_function("text => copied === text", arg=WRITTEN.strip())


def _without_numbers(text: str) -> str:
    """Write N for figures of time and tokens."""
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"\b[\d.]+ m?s\b", "N", text)
    return re.sub(r"\b\d+(?= tokens)", "N", text)
