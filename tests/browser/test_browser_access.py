"""Live view and record for everybody: light, dark, narrow, by axe's rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kimi_magic.testing import ScriptedServer
from tests.frontends import Bench, in_a_browser

pytestmark = in_a_browser

ANSWER = """\
Some **bold**, *emphasis*, `code`, ~~no~~, and a [link](https://example.org/a).

## Heading

| a | b |
|---|---|
| 1 | 2 |

1. one
2. two

> quoted

```python
@decorate(x=1)
class A(Base):
    '''Doc.'''
    def f(self, n: int = 3) -> str:  # comment
        return None if n in range(3) else f"{n}" and True
```

"""
CALLS = [
    {"name": "trend", "arguments": {"region": "north"}},
    {"name": "broken", "arguments": {"month": 13}},
    {"name": "run_python", "arguments": {"code": "for i in range(3):\n    print(i)  # all"}},
    {"name": "order", "arguments": {"region": "north", "amount": 130}},
    {"name": "order", "arguments": {"region": "south", "amount": 7}},
]


# Axe sees no background behind a notebook's many layers, or that of the page: for contrast, a copy
# of the part stands alone.
BUT_CONTRAST = """(selector) =>
  axe.run({ include: [selector] }, { rules: { "color-contrast": { enabled: false } } })"""
CONTRAST = """async (selector) => {
  const stage = document.createElement("div");
  stage.style.cssText = "position: fixed; inset: 0; overflow: auto";
  stage.style.background = "var(--jp-layout-color0)";
  stage.append(document.querySelector(selector).cloneNode(true));
  for (const panel of stage.querySelectorAll("details > div")) panel.style.maxHeight = "none";
  const others = [...document.body.children].filter((e) => e.checkVisibility());
  for (const other of others) other.style.visibility = "hidden";
  document.body.style.height = "100vh"; // JupyterLab's has none
  document.body.style.background = stage.style.background; // seen through a stage that is not full
  document.body.append(stage);
  try {
    return await axe.run({ include: [[stage]] }, { runOnly: ["color-contrast"] });
  } finally {
    stage.remove();
    document.body.style.background = "";
    for (const other of others) other.style.visibility = "";
  }
}"""


def complaints(page: Any, selector: str) -> list[str]:
    """What axe has against a part of the page."""
    if not page.evaluate("() => 'axe' in window"):
        import axe_playwright_python

        script = Path(axe_playwright_python.__file__).parent / "axe.min.js"
        page.evaluate(script.read_text("utf-8"))
    found = page.evaluate(BUT_CONTRAST, selector)
    contrast = page.evaluate(CONTRAST, selector)
    assert contrast["passes"], "some text was looked at"
    return [
        f"{rule['id']}: {node['html'][:200]} {node['failureSummary']}"
        for rule in (*found["violations"], *contrast["violations"])
        for node in rule["nodes"]
    ]


def too_wide(page: Any, selector: str) -> float:
    """How far it sticks out on the right, in pixels."""
    wide: float = page.evaluate(
        "selector => { const e = document.querySelector(selector);"
        " return e.scrollWidth - e.clientWidth }",
        selector,
    )
    return wide


def narrow(bench: Bench, width: int) -> None:
    bench.page.set_viewport_size({"width": width, "height": 800})
    if bench.front_end.kind == "lab":
        bench.command("application:toggle-left-area")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nobody_is_shut_out(bench: Bench, scripted_server: ScriptedServer, theme: str) -> None:
    page, turn = bench.page, bench.turn
    bench.theme(theme)
    scripted_server.reply(reasoning="I think about it. " * 60, tool_calls=CALLS, stall_after=60)
    said = ANSWER + "To be continued. " * 60
    scripted_server.reply(said, reasoning="Now.", stall_after=100, logprobs=True)
    bench.run("%%kimi -T trend,broken,run_python,order --approve auto --logprobs\nGo.")
    turn.get_by_text("think about").first.wait_for()
    assert complaints(page, ".kimi-turn") == []
    scripted_server.go_on()

    run = turn.get_by_role("button", name="Run", exact=True)
    while True:  # run_python is asked for as well
        run.wait_for()
        assert complaints(page, ".kimi-turn") == []
        bench.shot(f"7-approval-{theme}")
        asked = turn.get_by_label("amount")
        if asked.count() and asked.input_value() == "7":
            turn.get_by_role("button", name="Do not run").click()
            break
        field = turn.get_by_label("amount" if asked.count() else "code").element_handle()
        run.click()
        field.wait_for_element_state("hidden")

    turn.get_by_text("To be continued.").wait_for()
    page.evaluate("() => document.querySelectorAll('details').forEach((d) => (d.open = true))")
    assert complaints(page, ".kimi-turn") == []
    bench.shot(f"8-answer-{theme}")
    narrow(bench, width=420)
    assert too_wide(page, ".kimi-turn") <= 0
    bench.shot(f"9-narrow-{theme}")

    scripted_server.go_on()
    bench.wait_for_record()
    record = ".jp-OutputArea-output.jp-RenderedHTMLCommon"
    page.evaluate("() => document.querySelectorAll('details').forEach((d) => (d.open = true))")
    said = bench.record.inner_text()
    assert all(state in said for state in ("done", "failed", "declined"))
    assert too_wide(page, record) <= 0
    narrow(bench, width=1000)
    assert complaints(page, record) == []
    page.get_by_text("The least likely of").scroll_into_view_if_needed()
    bench.shot(f"9-tokens-{theme}")
    bench.theme("light")


# A long name, so that the line must break; the view stays until the file is there.
REPLAYED = """\
import time
from pathlib import Path
from kimi_magic.core import events as e
from kimi_magic.core.messages import Step, ToolCall, ToolResult, Usage
from kimi_magic.core.reply import Reply
from kimi_magic.core.turn_record import TurnRecord
from kimi_magic.display.live.live_view import LiveView
from kimi_magic.display.view import ViewOptions
call = ToolCall("1", "forecast", '{"month": "April"}')
played = e.Replayed("lesson-on-tools-and-interleaved-thinking.tape", "scripted", differs=True)
step = Step("It rises.", usage=Usage(1200, 34, 0, 0, 1))
view = LiveView(ViewOptions(usage=True))
for event in (
    e.TurnStarted("kimi-k3", "moonshot"), e.RequestStarted(1), played, e.ToolStarted(0, call),
    e.ToolFinished(0, ToolResult("forecast", "430", call_id="1", recorded=True)),
    e.StepFinished(step), e.RequestStarted(2), e.ContentDelta("It rises."),
):
    view.handle(e.Envelope(0.0, event))
while not Path("go").exists():
    view.tick()
    time.sleep(0.05)
Path("go").unlink()
record = TurnRecord((step,), model="kimi-k3", finish_reason="stop", replayed=played.label)
view.handle(e.Envelope(1.0, e.TurnFinished(Reply(record))))
view.close()"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_turn_from_a_tape_says_so_to_everybody(bench: Bench, theme: str) -> None:
    page, turn = bench.page, bench.turn
    bench.theme(theme)
    bench.run(REPLAYED)
    badge = turn.locator(".kimi-tape")
    badge.get_by_text("tape lesson-on-tools").wait_for()
    assert badge.inner_text().endswith(".tape, scripted, inputs differ")
    assert "not the output of a model" in badge.get_attribute("title")
    assert turn.locator(".kimi-figures").inner_text().replace("\xa0", " ").count("· recorded") == 1
    turn.get_by_text("· recorded result").wait_for()
    assert complaints(page, ".kimi-turn") == []
    bench.shot(f"10-tape-{theme}")
    narrow(bench, width=420)
    assert too_wide(page, ".kimi-turn") <= 0
    bench.shot(f"10-tape-narrow-{theme}")
    (bench.front_end.folder / "go").touch()
    bench.wait_for_record()
    record = ".jp-OutputArea-output.jp-RenderedHTMLCommon"
    assert too_wide(page, record) <= 0
    assert ".tape, scripted, inputs differ" in bench.record.inner_text()
    narrow(bench, width=1000)
    assert complaints(page, record) == []
    bench.shot(f"10-tape-record-{theme}")
    bench.theme("light")


FRAME = """\
import pandas as pd
sales = pd.DataFrame({"email": [f"a{n}@example.org" for n in range(500)],
                      "phone": ["+49 30 1234567"] * 500, "amount": range(500)})
costs = sales[["amount"]]"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_what_was_sent_is_told_to_everybody(
    bench: Bench, scripted_server: ScriptedServer, theme: str
) -> None:
    page, turn = bench.page, bench.turn
    bench.theme(theme)
    bench.python(FRAME)
    scripted_server.reply("The first answer.")
    bench.run("%%kimi\nFirst.")
    bench.wait_for_record()
    scripted_server.reply("It falls. " * 200, reasoning="Look at it.", rate=40)
    bench.run("%%kimi -v sales,costs:schema -T trend\nHow many are {{ len(sales) }}?")
    line = turn.locator(".kimi-sent summary")
    line.wait_for()
    said = line.inner_text()
    assert said.startswith("Sent: sales (10 of 500 rows, looks personal: email, phone), costs (")
    turn.get_by_text("It falls.").first.wait_for()
    assert not turn.locator(".kimi-sent").evaluate("e => e.open")
    bench.shot(f"11-sent-{theme}")
    line.click()
    turn.get_by_text("messages: 2 of earlier turns").wait_for()
    assert complaints(page, ".kimi-turn") == []
    narrow(bench, width=420)
    assert too_wide(page, ".kimi-turn") <= 0
    bench.shot(f"11-sent-narrow-{theme}")
    bench.wait_for_record()
    narrow(bench, width=1000)
    record = bench.record.first
    assert record.locator("summary").first.inner_text() == said
    bench.shot(f"11-sent-record-{theme}")
    record.locator("summary").first.click()
    assert complaints(page, ".jp-OutputArea-output.jp-RenderedHTMLCommon") == []
    bench.run("%%kimi -v sales --dry-run\nAnd now?")
    page.get_by_text("History: 4 messages of earlier turns").wait_for()
    page.get_by_text("Nothing was sent.").scroll_into_view_if_needed()
    bench.shot(f"11-dry-run-{theme}")
    bench.theme("light")
