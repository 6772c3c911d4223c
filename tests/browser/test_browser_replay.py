"""The reasoning lab in JupyterLab: a turn played back by keys, and turns side by side."""

from __future__ import annotations

from typing import Any

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


MADE = """
from kimi_magic.core.messages import ReasoningPart, Step, ToolCall, ToolResult
from kimi_magic.core.reply import Reply
from kimi_magic.core.turn_record import Failure, TurnRecord
EVIL = "<img src=x onerror=alert(1)><script>alert(1)</script></details>"
def step(n):
    call = ToolCall(f"c{n}", "look" + EVIL, '{"n": "' + EVIL + '"}')
    thought = ReasoningPart(f"{EVIL} Thought {n}.")
    return Step("", (thought,), (call,), (ToolResult("look", EVIL, call_id=f"c{n}"),))
answer = Step(f"**Done** {EVIL} [x](javascript:alert(1))")
facts = {"prompt": EVIL, "model": EVIL}
many = Reply(TurnRecord((*map(step, range(3000)), answer), **facts))
lanes = tuple(TurnRecord((step(n), answer), **facts) for n in range(3))
lanes += (TurnRecord(failure=Failure("TimedOut", EVIL)),)
vote = {EVIL: (1, 2), "b": (3,)}
heavy = Reply(TurnRecord((answer,), trajectories=lanes, agreement=vote, **facts))
failed = Reply.of(TurnRecord((step(0),), failure=Failure("RateLimited", EVIL), **facts))
"""


@only_lab
def test_hostile_turns_are_played_back_at_once(bench: Bench) -> None:
    """One of thousands of steps, one of trajectories and one that failed, in one cell.

    Each hears only its own keys, and other cells keep theirs.
    """
    page = bench.page
    alerts: list[str] = []

    def note(dialog: Any) -> None:
        alerts.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", note)
    assert bench.python(MADE) == ""
    bench.run("%kimi step many\n%kimi step heavy\n%kimi step failed")
    turns = page.locator(".kimi-turn")
    page.wait_for_function("() => document.querySelectorAll('.kimi-replay').length === 3")
    bench.wait_for_kernel()
    many, heavy, failed = (turns.nth(n).get_by_role("toolbar", name="Replay") for n in range(3))
    places = [each.get_by_role("status") for each in (many, heavy, failed)]
    for controls, turn in zip((many, heavy, failed), map(turns.nth, range(3)), strict=True):
        controls.focus()
        page.keyboard.press("End")
        page.keyboard.press("a")
        assert turn.locator("img, script, a[href^=javascript]").count() == 0
    turns.nth(0).locator("strong", has_text="Done").wait_for()
    turns.nth(1).locator("strong", has_text="Done").first.wait_for()
    places[2].get_by_text("3 of 3").or_(places[2].get_by_text("4 of 4")).wait_for()
    bench.shot("replay-4-hostile")

    many.focus()
    page.keyboard.press("Home")
    before = [place.inner_text() for place in places]
    assert before[0].startswith("1 of ")
    heavy.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert places[0].inner_text() == before[0]
    assert places[1].inner_text() != before[1]
    assert page.evaluate("() => kimi.notebook.model.cells.length") == 1, "a is no cell above"
    before = [place.inner_text() for place in places]
    page.locator(".jp-Notebook .cm-content").first.click()
    page.keyboard.press("End")
    page.keyboard.type("  # a b")
    page.keyboard.press("Escape")  # to the notebook's own keys
    page.keyboard.press("ArrowRight")
    assert [place.inner_text() for place in places] == before
    written = page.evaluate("() => kimi.notebook.model.cells.get(0).sharedModel.source")
    assert written.count("# a b") == 1
    assert alerts == []
    assert bench.strangers == []


def test_a_replay_in_a_file_is_its_record(bench: Bench, scripted_server: ScriptedServer) -> None:
    """Opened without its kernel, a widget would be an error; the open page keeps its replay."""
    scripted_server.reply("**February**.", reasoning="Ask for them.")
    bench.python('answer = kimi.ask("Which month?", show=False)')
    bench.run("%kimi step answer")
    controls = bench.turn.get_by_role("toolbar", name="Replay")
    controls.wait_for()
    bench.wait_for_kernel()
    controls.focus()
    bench.page.keyboard.press("a")
    bench.turn.locator("strong", has_text="February").wait_for()
    for key in ("ArrowLeft", "ArrowRight"):
        (output,) = bench.saved()["outputs"]
        assert set(output["data"]) == {"text/html", "text/plain"}
        controls.focus()
        bench.page.keyboard.press(key)
    bench.turn.locator("strong", has_text="February").wait_for()
    assert bench.page.evaluate("() => kimi.notebook.model.cells.length") == 1, "a is no cell above"
    bench.page.evaluate("() => kimi.kernel.restart()")
    bench.open()
    bench.record.locator("strong", has_text="February").wait_for()
    assert "Error displaying widget" not in bench.page.content()


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
    shown = bench.record.inner_text()
    (output,) = bench.saved()["outputs"]
    assert set(output["data"]) == {"text/html", "text/plain"}
    page.evaluate("() => kimi.panel.sessionContext.shutdown()")
    bench.open()
    bench.record.get_by_text("several 4").first.wait_for()
    assert bench.record.inner_text() == shown
