"""Heavy mode in JupyterLab: eight trajectories at once, one of them looked at closely."""

from __future__ import annotations

from kimi_magic.testing import ScriptedServer
from tests.browser.test_browser_access import complaints, narrow, too_wide
from tests.frontends import Bench, in_a_browser, only_lab

pytestmark = in_a_browser

THOUGHT = "Compare the tenths first.\nNine tenths against one tenth, so it is 9.9 after all. " * 3


@only_lab
def test_eight_trajectories(bench: Bench, scripted_server: ScriptedServer) -> None:
    page, turn = bench.page, bench.turn
    scripted_server.lenient = True
    for _ in range(8):
        calls = [{"name": "monthly", "arguments": {"region": "north"}}]
        scripted_server.reply(reasoning=THOUGHT, tool_calls=calls, stall_after=20)
    for n in range(8):
        answer = "The months say it: $9.9 > 9.11$.\n\nAnswer: " + ("9.9" if n % 4 else "9.11")
        scripted_server.reply(answer, reasoning="Now I know. " * 4, stall_after=6)
    scripted_server.reply("**9.9** is bigger. " * 30, reasoning="They part. " * 20, stall_after=60)
    bench.run("%%kimi --heavy -T monthly\nWhich one is bigger, 9.11 or 9.9?")
    lanes = turn.get_by_role("group", name="Trajectories")
    buttons = lanes.get_by_role("button", expanded=False)
    lanes.get_by_text("Reasoning…").nth(7).wait_for()
    assert buttons.count() == 8
    turn.get_by_text("9 requests, more where tools are called").wait_for()

    third = lanes.get_by_role("button").nth(2)
    third.focus()
    page.keyboard.press("Enter")
    region = turn.get_by_role("region", name="Trajectory 3")
    region.get_by_text("Compare the tenths first.").wait_for()
    assert third.get_attribute("aria-expanded") == "true"
    bench.shot("lanes-1-light")
    assert complaints(page, ".kimi-turn") == []
    scripted_server.go_on()
    region.locator("summary", has_text="monthly(").wait_for()
    lanes.get_by_role("button").nth(5).click()
    region.wait_for(state="hidden")
    bench.theme("dark")
    lanes.get_by_text("step 2").first.wait_for()
    bench.shot("lanes-2-dark")
    assert complaints(page, ".kimi-turn") == []
    narrow(bench, width=420)
    assert too_wide(page, ".kimi-turn") <= 0
    bench.shot("lanes-3-narrow")
    narrow(bench, width=1000)

    lanes.get_by_text("step 2").nth(7).wait_for()
    scripted_server.go_on()
    lanes.get_by_text("6 of 8: 9.9").wait_for()
    assert lanes.get_by_text("A · 9.9").count() == 6
    assert lanes.get_by_text("B · 9.11").count() == 2
    turn.locator("details", has_text="They part.").first.wait_for()
    bench.theme("light")
    turn.get_by_text("is bigger.").last.wait_for()
    bench.shot("lanes-4-aggregate")
    scripted_server.go_on()

    bench.wait_for_record()
    record = bench.record
    record.locator("summary", has_text="8 trajectories").click()
    record.locator("summary", has_text="Trajectory 3 ·").click()
    bench.shot("lanes-5-record")
    assert record.locator("summary", has_text="1 tool call").count() == 8
    assert complaints(page, ".jp-OutputArea-output.jp-RenderedHTMLCommon") == []
