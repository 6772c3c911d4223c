"""What a person sees of a turn, in JupyterLab and Notebook 7."""

from __future__ import annotations

import re
from typing import Any

from kimi_magic.testing import ScriptedServer
from tests.frontends import LONG, Bench, in_a_browser, only_lab
from tests.wire.test_dialects import event

pytestmark = in_a_browser

SHOWN = "details:not(.kimi-sent)"  # the line of what was sent is hidden where it says nothing
THOUGHT = "Compare the tenths first: 0.11 against 0.9.\n\nSo 9.9, which is 9.90, is the bigger one."
ANSWER = (
    "**9.9** is bigger, as $9.9 > 9.11$.\n\n| number | tenths |\n|---|---|\n| 9.9 | 9 |\n\n"
    "```python\nprint(max(9.11, 9.9))\n```\n\nThat is all there is to say about it."
)
# Where the parts are in each frame that is drawn, until the widget is gone.
WATCH = """() => {
  const places = (root) => [...root.querySelectorAll("summary, p, table, pre, img")]
    .filter((e) => e.checkVisibility())
    .map((e) => [e.tagName, Math.round(e.getBoundingClientRect().top),
                 Math.round(e.getBoundingClientRect().left)].join(" "));
  window.places = places;
  const look = () => {
    const turn = document.querySelector(".kimi-turn");
    if (turn) window.lastFrame = places(turn);
    if (turn || !window.lastFrame) requestAnimationFrame(look);
  };
  window.lastFrame = null;
  look();
}"""


def long_answer(paragraphs: int) -> str:
    return "\n\n".join(f"Paragraph {i}. {'Words follow words. ' * 12}" for i in range(paragraphs))


def test_a_turn_from_its_first_word_to_its_record(bench: Bench, scripted_server: Any) -> None:
    page, turn = bench.page, bench.turn
    scripted_server.reply(
        reasoning=THOUGHT,
        tool_calls=[
            {"name": "monthly", "arguments": {"region": "north", "pause": 3}},
            {"name": "trend", "arguments": {"region": "north"}},
            {"name": "broken", "arguments": {"month": 13}},
        ],
        stall_after=4,
    )
    scripted_server.reply(ANSWER, reasoning="Now I know.", stall_after=30)
    bench.strangers.clear()
    bench.run("%%kimi -T monthly,trend,broken\nWhich one is bigger, 9.11 or 9.9?")
    panel = turn.locator(".kimi-reasoning").first
    panel.get_by_text("Compare the").wait_for()
    assert "bigger one" not in panel.inner_text(), "it is seen growing"
    assert panel.get_attribute("open") is not None, "open while it grows"
    turn.get_by_text(re.compile(r"Reasoning… \d s")).wait_for()
    bench.shot("1-reasoning")
    scripted_server.go_on()

    card = turn.locator(".kimi-tool").first
    card.get_by_text(re.compile(r"running… \d s")).wait_for()
    assert card.locator("summary").inner_text().startswith('monthly(region="north", pause=3)')
    assert panel.get_attribute("open") is None, "folded by itself"
    assert panel.inner_text().startswith("Reasoned for "), "and it says how long it took"
    bench.shot("2-tool")

    turn.locator("img").wait_for()  # visible: a figure is seen without a click
    assert card.get_attribute("open") is None
    turn.locator(".kimi-tool").nth(2).get_by_text(
        "✗ failed after".replace(" ", "\xa0", 1)
    ).wait_for()
    turn.locator("table").wait_for()
    page.evaluate(WATCH)
    assert turn.locator("strong").first.inner_text() == "9.9", "finished blocks are rendered"
    turn.locator("mjx-container").first.wait_for()
    bench.shot("3-answer")
    scripted_server.go_on()

    bench.wait_for_record()
    page.wait_for_function(
        "() => places(document.querySelector('.jp-OutputArea-output')).join() === lastFrame.join()"
    )
    bench.shot("4-record")
    assert bench.record.locator("img").is_visible()
    assert [url for url in bench.strangers if "kimi" in url or "anywidget" in url] == []
    (output,) = bench.saved()["outputs"]
    assert set(output["data"]) == {"text/html", "text/plain"}


def test_what_the_reader_opens_stays_open(bench: Bench, scripted_server: ScriptedServer) -> None:
    scripted_server.reply(ANSWER, reasoning=THOUGHT, stall_after=25)
    bench.run("%%kimi\nWhich one?")
    panel = bench.turn.locator(".kimi-reasoning")
    summary = panel.locator("summary")
    bench.turn.locator(".kimi-answer").get_by_text("is bigger").wait_for()
    assert panel.get_attribute("open") is None
    summary.focus()
    bench.page.keyboard.press("Space")
    assert panel.get_attribute("open") is not None, "by the keyboard as well"
    bench.page.wait_for_timeout(1000)  # the kernel is told; the record comes with the next token
    scripted_server.go_on()
    bench.wait_for_record()
    assert bench.record.locator("details").get_attribute("open") is not None


def test_a_setting_keeps_the_reasoning_open(bench: Bench, scripted_server: ScriptedServer) -> None:
    thought = (
        f"## First\n**{THOUGHT}**\nAs $9.9 > 9.11$:\n\n```python\nprint(9.9)\n```\n\n- so\n- it is"
    )
    scripted_server.reply(ANSWER, reasoning=thought, stall_after=55)
    bench.python("kimi.settings.keep_reasoning_open = True")
    bench.run("%%kimi\nWhich one?")
    bench.turn.locator(".kimi-answer table").wait_for()
    assert bench.turn.locator(".kimi-reasoning").get_attribute("open") is not None
    bench.turn.locator(".kimi-thought li").first.wait_for()
    bench.turn.locator(".kimi-thought mjx-container").wait_for()
    bench.page.evaluate(WATCH)
    bench.shot("5-reasoning-open")
    scripted_server.go_on()
    bench.wait_for_record()
    bench.page.wait_for_function(
        "() => places(document.querySelector('.jp-OutputArea-output')).join() === lastFrame.join()"
    )
    bench.shot("6-record-open")
    assert bench.record.locator("details").get_attribute("open") is not None


def test_the_end_is_followed_until_the_reader_scrolls_up(
    bench: Bench, scripted_server: ScriptedServer
) -> None:
    page, scroller = bench.page, bench.page.locator(".jp-WindowedPanel-outer")
    scripted_server.reply(long_answer(80), rate=150)
    bench.run("%%kimi\nTell me more.")
    bench.turn.get_by_text("Paragraph 7.").wait_for()
    end = bench.turn.locator(".kimi-footing")
    assert end.bounding_box()["y"] < 800
    assert scroller.evaluate("e => e.scrollTop") > 0

    scroller.hover()
    page.mouse.wheel(0, -400)
    page.wait_for_timeout(400)
    first = bench.turn.get_by_text("Paragraph 5.")
    before = first.bounding_box()["y"]
    bench.turn.get_by_text("Paragraph 11.").wait_for(state="attached")
    assert first.bounding_box()["y"] == before, "nothing moves above what is read"

    page.mouse.wheel(0, 10_000)
    page.wait_for_timeout(1500)
    assert end.bounding_box()["y"] < 800, "followed again"
    bench.turn.get_by_role("button", name="Stop").click()
    bench.wait_for_record()


@only_lab
def test_a_second_view_shows_the_same(bench: Bench, scripted_server: ScriptedServer) -> None:
    scripted_server.reply(ANSWER, reasoning=THOUGHT, stall_after=40)
    bench.run("%%kimi\nWhich one?")
    bench.turn.locator("table").wait_for()
    bench.command("notebook:create-output-view")
    second = bench.page.locator(".kimi-turn").nth(1)
    second.get_by_text("0.11 against").wait_for(state="attached")
    second.locator("table").wait_for(state="attached")
    assert second.inner_text().startswith("Reasoned for")
    scripted_server.go_on()
    bench.wait_for_record()
    bench.page.evaluate("() => [...jupyterapp.shell.widgets('main')].at(-1).close()")


@only_lab
def test_a_cell_edited_and_run_again_is_one_turn(
    bench: Bench, scripted_server: ScriptedServer
) -> None:
    scripted_server.reply("Paris.")
    bench.run("%%kimi\nCapital of France?")
    bench.wait_for_record()
    scripted_server.reply("Rome.")
    bench.page.evaluate(
        "() => kimi.notebook.activeCell.model.sharedModel.setSource('%%kimi\\nOf Italy?')"
    )
    bench.page.evaluate("() => { kimi.command('notebook:run-cell') }")
    bench.record.get_by_text("Rome.").wait_for()
    bench.wait_for_kernel()
    assert bench.python("print([t.prompt for t in kimi.chat().turns])") == "['Of Italy?']\n"
    assert [m["content"] for m in scripted_server.requests[1].body["messages"][1:]] == ["Of Italy?"]


# What the page does to an element from now on: nodes that come and go, and texts that change.
COUNT = """(element) => {
    window.touched = 0
    new MutationObserver((changes) => {
        for (const change of changes) {
            touched += change.addedNodes.length + change.removedNodes.length
            touched += change.type === 'characterData'
        }
    }).observe(element, { childList: true, characterData: true, subtree: true })
}"""


@only_lab
def test_a_token_behind_50_000_others_costs_the_page_no_more(
    bench: Bench, scripted_server: ScriptedServer
) -> None:
    before = [event(content=f"Paragraph {i}. {'word ' * 96}\n\n") for i in range(500)]
    then = [event(content=f"token {i} " if i % 50 else "\n\n") for i in range(501)]
    scripted_server.raw([b"".join(before), *then], stall_after=502, rate=100)
    bench.python("kimi.settings.max_output_chars = 10**7")
    bench.run("%%kimi\nWrite a book.")
    bench.turn.get_by_text("token 20 ").first.wait_for(state="attached", timeout=LONG)
    bench.turn.evaluate(COUNT)
    bench.turn.get_by_text("token 499 ").first.wait_for(state="attached", timeout=LONG)
    # What draws the book anew touches its 500 paragraphs with each token, or with a few.
    assert bench.page.evaluate("() => touched") < 5 * 480
    bench.turn.get_by_role("button", name="Stop").click()
    bench.wait_for_record()


def test_what_a_tool_prints_shows_while_it_runs(
    bench: Bench, scripted_server: ScriptedServer
) -> None:
    go_on = bench.path.with_name("go-on")
    go_on.unlink(missing_ok=True)
    bench.python(
        "import pathlib, time\n"
        "def train(path: str):\n"
        "    print('<b>epoch</b> 1')\n"
        "    for i in range(3):\n"
        "        print(f'\\r{i}0 % \\x1b[32mof it', end='')\n"
        "    while not pathlib.Path(path).exists():\n"
        "        time.sleep(0.05)\n"
        "    print('\\rdone')\n"
    )
    scripted_server.reply(tool_calls=[{"name": "train", "arguments": {"path": str(go_on)}}])
    scripted_server.reply("Trained.")
    bench.run("%%kimi -T train\nGo.")
    printed = bench.turn.locator(".kimi-printed")
    printed.get_by_text("20 % of it").wait_for()
    assert printed.inner_text() == "<b>epoch</b> 1\n20 % of it"
    bench.shot("2-prints")
    go_on.touch()
    bench.wait_for_record()
    bench.record.locator("summary").first.click()
    assert "<b>epoch</b> 1\ndone" in bench.record.inner_text()
