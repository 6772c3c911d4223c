"""The reasoning lab in JupyterLab: a turn played back by keys, and turns side by side."""

from __future__ import annotations

from kimi_magic.testing import ScriptedServer
from tests.browser.test_browser_access import complaints, narrow, too_wide
from tests.frontends import Bench, in_a_browser, only_lab

pytestmark = in_a_browser

ASK = 'answer = kimi.ask("Which month is better?", tools=monthly, show=False); print("asked")'


@only_lab
def test_a_turn_is_played_back(bench: Bench, scripted_server: ScriptedServer) -> None:
    page, turn = bench.page, bench.turn
    calls = [{"name": "monthly", "arguments": {"region": "north"}}]
    scripted_server.reply(reasoning="The months are needed.\n\nAsk for them.", tool_calls=calls)
    scripted_server.reply("**February**, with $412 > 284$.", reasoning="412 against 284. " * 40)
    assert "asked" in bench.python(ASK)
    asked = len(scripted_server.requests)
    bench.run("%kimi step answer")
    controls = turn.get_by_role("toolbar", name="Replay")
    controls.get_by_text("1 of 7").wait_for()
    bench.wait_for_kernel()
    turn.get_by_text("Prompt: Which month is better?").wait_for()

    controls.focus()
    page.keyboard.press("ArrowRight")
    turn.get_by_text("The months are needed.").wait_for()
    assert turn.get_by_text("Ask for them.").count() == 0
    bench.shot("replay-1-light")
    assert complaints(page, ".kimi-turn") == []
    controls.focus()  # axe hid it for a moment
    page.keyboard.press("ArrowRight")
    turn.get_by_text("Ask for them.").wait_for()
    page.keyboard.press("ArrowRight")
    turn.locator("summary", has_text="monthly(").get_by_text("running…").wait_for()
    page.keyboard.press("ArrowLeft")
    turn.locator("summary", has_text="monthly(").wait_for(state="detached")
    assert turn.get_by_text("Ask for them.").is_visible()

    page.keyboard.press("End")
    controls.get_by_text("7 of 7 · the answer is hidden").wait_for()
    page.keyboard.press("ArrowRight")
    assert turn.get_by_text("February, with").count() == 0
    bench.theme("dark")
    bench.shot("replay-2-dark")
    assert complaints(page, ".kimi-turn") == []
    controls.focus()
    page.keyboard.press("a")
    turn.locator("strong", has_text="February").wait_for()
    controls.get_by_text("8 of 8").wait_for()
    narrow(bench, width=420)
    assert too_wide(page, ".kimi-turn") <= 0
    bench.shot("replay-3-narrow")
    narrow(bench, width=1000)
    bench.theme("light")
    controls.get_by_role("button", name="Hide the answer").click()
    turn.locator("strong", has_text="February").wait_for(state="detached")

    page.keyboard.press("ArrowLeft")  # of the button that has the focus
    controls.get_by_text("6 of 7").wait_for()
    controls.focus()
    for _ in range(4):
        page.keyboard.press("ArrowUp")
    assert controls.get_by_label("Speed").input_value() == "16"
    page.keyboard.press("Home")
    page.keyboard.press(" ")
    controls.get_by_text("7 of 7 · the answer is hidden").wait_for()
    controls.get_by_role("button", name="Play").wait_for()
    assert bench.python("print(sum(range(4)))").strip() == "6"
    assert len(scripted_server.requests) == asked
    assert bench.strangers == []


@only_lab
def test_turns_side_by_side(bench: Bench, scripted_server: ScriptedServer) -> None:
    page = bench.page
    for number in range(4):
        scripted_server.reply(f"It is **{number}**. Of course. `{'long' * 40}` " * 3)
    bench.python("several = [kimi.ask('How many?', show=False) for _ in range(4)]")
    bench.run("%kimi compare several")
    bench.record.get_by_text("several 4").first.wait_for()
    bench.wait_for_kernel()
    selector = ".jp-OutputArea-output.jp-RenderedHTMLCommon"
    for theme in ("light", "dark"):
        bench.theme(theme)
        bench.shot(f"compare-{theme}")
        assert complaints(page, selector) == []
    narrow(bench, width=420)
    assert too_wide(page, selector) <= 0
    assert bench.record.locator("th").first.bounding_box()["width"] > 100
    bench.shot("compare-narrow")
    narrow(bench, width=1000)
    bench.theme("light")
