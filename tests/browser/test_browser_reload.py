"""A page that is loaded again while the cell runs."""

from __future__ import annotations

import re
from typing import Any

import pytest

from kimi_magic.testing import ScriptedServer
from tests.frontends import HELPERS, Bench, in_a_browser, only_lab

pytestmark = in_a_browser

THOUGHT = "The months are needed. " * 4
ANSWER = "It is **February**.\n\n```python\nx = 1\n```\n\nAnd so on, word by word, to the end."


def reload(bench: Bench) -> None:
    """Load the page again; the kernel stays busy."""

    def accept(dialog: Any) -> None:  # there is none where nothing is unsaved
        dialog.accept()

    bench.page.on("dialog", accept)
    bench.page.goto(bench.front_end.address("page.ipynb"))
    bench.page.remove_listener("dialog", accept)
    bench.page.wait_for_function("() => kimi.panel?.sessionContext?.session?.kernel")


@pytest.mark.parametrize("saved", [True, False], ids=["saved in mid-stream", "not saved"])
def test_a_turn_goes_on_in_a_page_that_is_reloaded(
    bench: Bench, scripted_server: ScriptedServer, saved: bool
) -> None:
    calls = [{"name": "monthly", "arguments": {"region": "north"}}]
    scripted_server.reply(reasoning=THOUGHT, tool_calls=calls)
    scripted_server.reply(ANSWER, reasoning="Now I know.", stall_after=8)
    bench.run("%%kimi -T monthly\nWhich month?", saved=True)
    bench.turn.locator(".kimi-answer").wait_for()
    if saved:
        bench.command("docmanager:save")
    turn = bench.turn
    for _ in range(1 if saved else 2):
        reload(bench)
        turn.locator("strong", has_text="February").wait_for()
    assert turn.locator(".kimi-tool summary").inner_text().startswith('monthly(region="north")')
    assert turn.locator(".kimi-reasoning").first.inner_text().startswith("Reasoned for ")
    turn.get_by_role("button", name="Stop").wait_for()
    bench.shot("14-reloaded")
    scripted_server.go_on()
    bench.record.get_by_text("word by word, to the end").wait_for()
    bench.wait_for_record()
    bench.shot("15-reloaded-record")
    assert "Error displaying widget" not in bench.page.content()
    (output,) = bench.saved()["outputs"]
    assert set(output["data"]) == {"text/html", "text/plain"}
    left = "from ipywidgets.widgets.widget import _instances; print(len(_instances))"
    assert bench.python(left) == "0\n"


def test_a_person_answers_and_stops_in_a_page_that_is_reloaded(
    bench: Bench, scripted_server: ScriptedServer
) -> None:
    call = {"name": "order", "arguments": {"region": "north", "amount": 130}}
    scripted_server.reply(reasoning="Stock is low.", tool_calls=[call])
    scripted_server.reply("It is done, as far as I can see.", stall_after=3)
    bench.run("%%kimi -T order\nOrder what is needed.", saved=True)
    bench.turn.get_by_role("button", name="Do not run").wait_for()
    reload(bench)
    amount = bench.turn.get_by_label("amount")
    amount.fill("50")
    bench.page.wait_for_function("() => !document.querySelector('.kimi-main').disabled")
    bench.shot("14-reloaded-approval")
    bench.turn.get_by_role("button", name="Run", exact=True).click()
    bench.turn.get_by_text("It is").wait_for()
    bench.turn.get_by_role("button", name="Stop").click()
    bench.wait_for_record()
    assert "50 ordered for north" in scripted_server.requests[1].body["messages"][-1]["content"]
    text = bench.record.inner_text()
    assert "Stopped: what had arrived is kept." in text


TRAIN = """
import pathlib, time
def train(path: str):
    "Say nothing for long."
    while not pathlib.Path(path).exists():
        time.sleep(0.05)
"""
TWICE = """
first = kimi.ask("One?", tools=train)
second = kimi.ask("Two?")
"""


def test_a_page_is_reloaded_while_a_tool_computes_and_another_turn_follows(
    bench: Bench, scripted_server: ScriptedServer
) -> None:
    go_on = bench.path.with_name("go-on")
    go_on.unlink(missing_ok=True)
    bench.python(TRAIN)
    scripted_server.reply(tool_calls=[{"name": "train", "arguments": {"path": str(go_on)}}])
    scripted_server.reply("The first answer.")
    scripted_server.reply("The second answer.", stall_after=2)
    bench.run(TWICE, saved=True)
    bench.turn.get_by_text("running…").wait_for()
    reload(bench)
    bench.turn.get_by_text("running…").wait_for()
    go_on.touch()
    bench.record.get_by_text("The first answer.").wait_for()
    bench.turn.get_by_text("The second").wait_for()
    bench.turn.get_by_role("button", name="Stop").wait_for()
    bench.shot("14-reloaded-twice")
    scripted_server.go_on()
    bench.wait_for_record()
    bench.page.locator(".jp-OutputArea-output").get_by_text("The second answer.").wait_for()
    first, second = bench.saved()["outputs"]
    assert "The first answer." in str(first)
    assert "The second answer." in str(second)


THRICE = "import kimi_magic as kimi\nfor _ in range(3): kimi.ask('Is it?')"


@pytest.mark.parametrize("saved", [True, False], ids=["saved in mid-stream", "not saved"])
def test_each_turn_of_a_cell_keeps_its_place_in_a_page_that_is_reloaded(
    bench: Bench, scripted_server: ScriptedServer, saved: bool
) -> None:
    """Turns may have the same record; outputs of an earlier run go, as they do when a cell runs."""
    for text in ("Before.", "Before.", "Before.", "Yes, it is.", "Yes, it is."):
        scripted_server.reply(text)
    scripted_server.reply("Yes, it is.", stall_after=1)
    bench.run(THRICE)
    bench.page.locator(".kimi-record-end").nth(2).wait_for()
    bench.wait_for_record()
    bench.page.wait_for_function("() => kimi.notebook.model.cells.get(0).executionCount")
    assert len(bench.saved()["outputs"]) == 3
    bench.page.evaluate("() => { kimi.command('notebook:run-cell') }")
    bench.record.get_by_text("Yes, it is.").wait_for()
    bench.page.locator(".kimi-record-end").nth(1).wait_for()
    bench.turn.get_by_text("Yes,").wait_for()
    if saved:
        bench.command("docmanager:save")
    reload(bench)
    bench.turn.get_by_text("Yes,").wait_for()
    scripted_server.go_on()
    bench.wait_for_record()
    end = bench.page.locator(".kimi-record-end").last.inner_text()
    assert re.search(r"\d\sm?s", end), "its time, as a page that was there shows it"
    outputs = bench.saved()["outputs"]
    assert len(outputs) == (3 if saved else 1)
    assert all("Yes, it is." in str(output["data"]["text/html"]) for output in outputs)
    assert "transient" not in outputs[-1]


@only_lab
def test_turns_that_end_while_the_page_is_away_keep_their_order(
    bench: Bench, scripted_server: ScriptedServer
) -> None:
    scripted_server.reply("One here.", stall_after=1)
    scripted_server.reply("Two here.")
    scripted_server.reply("Three here.", stall_after=1)
    bench.run(THRICE, saved=True)
    bench.turn.get_by_text("One").wait_for()
    bench.page.on("dialog", lambda dialog: dialog.accept())
    bench.page.goto(bench.front_end.address("page.ipynb"), wait_until="commit")
    scripted_server.go_on()
    bench.turn.get_by_text("Three").wait_for()
    scripted_server.go_on()
    bench.page.locator(".kimi-record-end").nth(2).wait_for()
    bench.wait_for_record()
    texts = ["".join(output["data"]["text/plain"]) for output in bench.saved()["outputs"]]
    assert [text.split()[0] for text in texts] == ["One", "Two", "Three"]
    ends = bench.page.locator(".kimi-record-end").all_inner_texts()
    assert all(re.search(r"\d\sm?s", end) for end in ends)


def test_a_turn_that_begins_after_the_page_was_reloaded_is_shown(
    bench: Bench, scripted_server: ScriptedServer
) -> None:
    """The page hears of its widget, and of no output."""
    go_on = bench.path.with_name("begin")
    go_on.unlink(missing_ok=True)
    bench.python(TRAIN)
    scripted_server.reply("The answer.", stall_after=1)
    bench.run(f"train({str(go_on)!r})\nanswer = kimi.ask('Which?')", saved=True)
    bench.page.wait_for_function("() => kimi.kernel.status === 'busy'")
    reload(bench)
    bench.page.wait_for_timeout(1000)  # until it listens
    go_on.touch()
    bench.turn.get_by_text("The").wait_for()
    scripted_server.go_on()
    bench.wait_for_record()
    (output,) = bench.saved()["outputs"]
    assert "The answer." in str(output["data"]["text/html"])


def test_a_cell_that_is_run_again_does_not_get_what_the_earlier_run_shows(
    bench: Bench, scripted_server: ScriptedServer
) -> None:
    scripted_server.reply("The first answer.", stall_after=2)
    scripted_server.reply("The second answer.")
    bench.run("%%kimi --fresh\nWhich?", saved=True)
    bench.turn.get_by_text("The first").wait_for()
    reload(bench)
    bench.turn.get_by_text("The first").wait_for()
    bench.page.evaluate("() => { kimi.command('notebook:run-cell') }")
    bench.turn.wait_for(state="detached")
    bench.page.wait_for_timeout(2000)  # it is announced again meanwhile
    scripted_server.go_on()
    bench.record.get_by_text("The second answer.").wait_for()
    bench.wait_for_record()
    (output,) = [output for output in bench.saved()["outputs"] if "data" in output]
    assert "The second answer." in str(output)


@only_lab
def test_a_second_window_shows_the_turn_as_well(
    bench: Bench, scripted_server: ScriptedServer
) -> None:
    scripted_server.reply(ANSWER, reasoning=THOUGHT, stall_after=24)
    bench.run("%%kimi\nWhich month?", saved=True)
    bench.turn.locator("strong", has_text="February").wait_for()
    second = bench.page.context.browser.new_page()
    second.add_init_script(HELPERS)
    second.goto(bench.front_end.address("page.ipynb"))
    try:
        second.locator(".kimi-turn strong", has_text="February").wait_for()
        assert bench.turn.locator("strong", has_text="February").count() == 1
        scripted_server.go_on()
        bench.wait_for_record()
        for page in (bench.page, second):
            output = page.locator(".jp-OutputArea-output")
            output.get_by_text("word by word, to the end").wait_for()
            assert output.count() == 1
        assert second.locator(".kimi-turn").count() == 0
    finally:
        second.close()
