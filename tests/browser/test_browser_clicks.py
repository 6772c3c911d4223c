"""What a person clicks while a cell runs."""

from __future__ import annotations

import pytest

from kimi_magic.testing import ScriptedServer
from tests.frontends import Bench, in_a_browser, only_lab

pytestmark = in_a_browser


@pytest.mark.parametrize("way", ["mouse", "keyboard"])
def test_stop_in_a_stall(bench: Bench, scripted_server: ScriptedServer, way: str) -> None:
    scripted_server.reply(reasoning="I think and think and think.", rate=30, stall_after=3)
    bench.run("%%kimi\nThink.")
    stop = bench.turn.get_by_role("button", name="Stop")
    stop.wait_for()
    bench.turn.locator(".kimi-panel").get_by_text("I think").wait_for()
    if way == "mouse":
        stop.click()
    else:
        stop.focus()
        bench.page.keyboard.press("Enter")
    bench.wait_for_record()
    assert (
        "Stopped: what had arrived is kept. (%kimi continue goes on.)" in bench.record.inner_text()
    )
    bench.page.locator(".jp-OutputArea").first.get_by_text("TurnInterrupted").wait_for()
    assert bench.python("print(kimi.last.reasoning)").startswith("I think"), "the kernel goes on"


def test_stop_while_a_tool_runs(bench: Bench, scripted_server: ScriptedServer) -> None:
    call = {"name": "monthly", "arguments": {"region": "north", "pause": 600}}
    scripted_server.reply(tool_calls=[call])
    bench.run("%%kimi -T monthly\nGo.")
    bench.turn.get_by_text("running…").wait_for()
    bench.turn.get_by_role("button", name="Stop").click()
    bench.wait_for_record()
    bench.record.locator("summary").click()
    assert "reading north" in bench.record.inner_text(), "what it had printed is kept"


def ask_for_an_order(bench: Bench, server: ScriptedServer) -> None:
    call = {"name": "order", "arguments": {"region": "north", "amount": 130}}
    server.reply(reasoning="Stock is low.", tool_calls=[call])
    bench.run("%%kimi -T order\nOrder what is needed.")
    bench.turn.get_by_role("button", name="Do not run").wait_for()


def test_a_call_is_approved_with_other_arguments(
    bench: Bench, scripted_server: ScriptedServer
) -> None:
    ask_for_an_order(bench, scripted_server)
    scripted_server.reply("Done.")
    amount = bench.turn.get_by_label("amount")
    run = bench.turn.get_by_role("button", name="Run", exact=True)
    amount.fill("many")
    run.click()
    bench.turn.get_by_role("alert").get_by_text("amount is no JSON").wait_for()
    bench.shot("5-approval")
    amount.fill('"many"')
    run.click()
    bench.turn.get_by_role("alert").get_by_text("integer").wait_for()
    amount.fill("50")
    run.focus()
    bench.page.keyboard.press("Enter")
    bench.wait_for_record()
    summary = bench.record.locator("summary").nth(1)
    said = summary.inner_text().replace("\xa0", " ")
    assert said == 'order(region="north", amount=50) · arguments changed · ✓ done'
    sent = scripted_server.requests[1].body["messages"][-1]["content"]
    assert "50 ordered for north" in sent
    assert "changed the arguments" in sent


def test_a_call_is_declined(bench: Bench, scripted_server: ScriptedServer) -> None:
    ask_for_an_order(bench, scripted_server)
    scripted_server.reply("As you like.")
    bench.turn.get_by_role("button", name="Do not run").click()
    bench.wait_for_record()
    assert "declined" in scripted_server.requests[1].body["messages"][-1]["content"]


def test_approved_for_the_chat_asks_once(bench: Bench, scripted_server: ScriptedServer) -> None:
    ask_for_an_order(bench, scripted_server)
    call = {"name": "order", "arguments": {"region": "south", "amount": 7}}
    scripted_server.reply(tool_calls=[call])
    scripted_server.reply("Both are ordered.")
    bench.turn.get_by_role("button", name="do not ask again").click()
    bench.wait_for_record()
    assert "7 ordered" in scripted_server.requests[2].body["messages"][-1]["content"]


def test_stop_while_it_is_asked(bench: Bench, scripted_server: ScriptedServer) -> None:
    ask_for_an_order(bench, scripted_server)
    bench.turn.get_by_role("button", name="Stop").click()
    bench.wait_for_record()
    assert "Stopped" in bench.record.inner_text()


@only_lab
def test_the_answer_and_its_code_can_be_copied(
    bench: Bench, scripted_server: ScriptedServer
) -> None:
    answer = "**Yes**, so:\n\n```python\nx = 1\n```\n\nand then much more. " + "word " * 200
    scripted_server.reply(answer, rate=60, stall_after=40)
    bench.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    clipboard = "() => navigator.clipboard.readText()"
    bench.run("%%kimi\nGo.")
    bench.turn.get_by_text("and then").wait_for()
    bench.turn.get_by_role("button", name="Copy the code").click()
    assert bench.page.evaluate(clipboard) == "x = 1\n"
    bench.turn.get_by_role("button", name="Copy the answer").click()
    bench.turn.locator(".kimi-footing").get_by_role("button", name="Copied").wait_for()
    assert bench.page.evaluate(clipboard).startswith("**Yes**, so:\n\n```python\nx = 1\n```\n\nand")
    bench.turn.get_by_role("button", name="Stop").click()
    bench.wait_for_record()
