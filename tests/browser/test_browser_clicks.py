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
    amount.fill("")
    run.click()
    bench.turn.get_by_role("alert").get_by_text("amount is no JSON").wait_for()
    bench.shot("5-approval")
    amount.fill("1.5")
    run.click()
    bench.turn.get_by_role("alert").get_by_text("integer").wait_for()
    amount.fill("50")
    run.focus()
    bench.page.keyboard.press("Enter")
    bench.wait_for_record()
    summary = bench.record.locator("summary").nth(1)
    said = summary.inner_text().replace("\xa0", " ")
    assert said.startswith('order(region="north", amount=50) · arguments changed · ✓ done in ')
    sent = scripted_server.requests[1].body["messages"][-1]["content"]
    assert "50 ordered for north" in sent
    assert "changed the arguments" in sent


# Presses Enter as soon as a form has the focus.
AT_ONCE = """() => {
  const press = ({ target }) => {
    if (!target.closest(".kimi-form")) return;
    removeEventListener("focusin", press);
    target.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true }));
    window.pressed = target.closest("label").innerText.split(" ")[0];
  };
  window.pressed = null;
  addEventListener("focusin", press);
}"""
MAIL = '''
@kimi.tool(confirm=True)
def mail(to: str, times: int = 1, urgent: bool = False) -> str:
    """Send a mail.

    Parameters
    ----------
    to : str
        Who gets it.
    """
    return f"sent {to} {times} {urgent}"
'''


def test_a_form_is_filled_in_and_answered_with_keys(
    bench: Bench, scripted_server: ScriptedServer
) -> None:
    bench.python(MAIL)
    arguments = {"to": "Ann", "times": 2, "urgent": False}
    scripted_server.reply(tool_calls=[{"name": "mail", "arguments": arguments}] * 2)
    scripted_server.reply("Done.")
    page = bench.page
    page.evaluate(AT_ONCE)
    bench.run("%%kimi -T mail\nTell Ann.")
    page.wait_for_function("() => window.pressed === 'to'")  # on its way before the form was there
    form = bench.turn.locator(".kimi-form")
    for told in ("Send a mail.", "times · int", "urgent · bool", "later calls of mail", "Escape"):
        assert told in form.inner_text()
    bench.shot("5-approval-kinds")
    page.wait_for_timeout(500)
    bench.turn.get_by_label("urgent").check()
    bench.turn.get_by_label("times").fill("3")
    bench.turn.get_by_label("times").press("Enter")
    bench.turn.get_by_text("arguments changed").wait_for()
    page.wait_for_function("() => document.activeElement?.closest('.kimi-form')")
    page.wait_for_timeout(500)
    page.keyboard.press("Escape")
    bench.wait_for_record()
    first, second = (m["content"] for m in scripted_server.requests[1].body["messages"][-2:])
    assert "sent Ann 3 True" in first
    assert "declined" in second


@only_lab
def test_code_is_highlighted_until_it_is_changed(
    bench: Bench, scripted_server: ScriptedServer
) -> None:
    code = "for i in range(3):\n    print(i)"
    call = {"name": "run_python", "arguments": {"code": code}}
    scripted_server.reply(tool_calls=[call])
    scripted_server.reply("Done.")
    bench.run("%%kimi -T run_python\nCount.")
    shown = bench.turn.get_by_label("code", exact=True)
    shown.locator("span").first.wait_for()
    assert shown.inner_text() == code
    bench.shot("5-approval-code")
    bench.turn.get_by_role("button", name="Edit", exact=True).click()
    bench.page.wait_for_timeout(500)
    area = bench.turn.locator(".kimi-form textarea")
    assert area.evaluate("e => e === document.activeElement")
    bench.page.keyboard.press("ControlOrMeta+End")
    bench.page.keyboard.press("Enter")  # a new line
    bench.page.keyboard.type("    print(-i)")
    bench.page.keyboard.press("ControlOrMeta+Enter")
    bench.wait_for_record()
    assert "0\n0\n1\n-1" in scripted_server.requests[1].body["messages"][-1]["content"]


def test_a_form_takes_no_keys_from_somebody_who_types(
    bench: Bench, scripted_server: ScriptedServer
) -> None:
    call = {"name": "order", "arguments": {"region": "north", "amount": 130}}
    scripted_server.reply(reasoning="Think of it.", tool_calls=[call], stall_after=1)
    bench.run("%%kimi -T order\nGo.")
    bench.turn.wait_for()
    bench.page.locator(".cm-content").first.click()
    scripted_server.go_on()
    run = bench.turn.get_by_role("button", name="Run", exact=True)
    run.wait_for()
    bench.page.wait_for_function("() => !document.querySelector('.kimi-main').disabled")
    bench.page.keyboard.type("x = 1")
    bench.page.keyboard.press("Enter")
    assert "x = 1" in bench.page.locator(".cm-content").first.inner_text()
    scripted_server.reply("As you like.")
    bench.turn.get_by_role("button", name="Do not run").click()
    bench.wait_for_record()


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


def test_code_goes_into_a_new_cell_below(bench: Bench, scripted_server: ScriptedServer) -> None:
    answer = "So:\n\n```python\nx = 1\ny = 2\n```\n\nand then much more. " + "word " * 200
    scripted_server.reply(answer, stall_after=40)
    bench.run("%%kimi\nGo.")
    bench.turn.get_by_role("button", name="Stop").wait_for()
    button = bench.turn.get_by_role("button", name="Put the code into a new cell")
    button.focus()
    bench.shot("5-new-cell")
    bench.page.keyboard.press("Enter")
    bench.turn.get_by_role("button", name="Inserted").wait_for()
    sources = "() => [...kimi.notebook.model.cells].map((cell) => cell.sharedModel.source)"
    assert bench.page.evaluate(sources) == ["%%kimi\nGo.", "x = 1\ny = 2"]
    scripted_server.go_on()
    bench.wait_for_record()
    assert "New cell" not in str(bench.saved()["outputs"])


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
