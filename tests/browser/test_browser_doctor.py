"""The doctor's table in JupyterLab: asked first, light, dark, narrow, by axe's rules."""

from __future__ import annotations

from kimi_magic.testing import ScriptedServer
from tests.browser.test_browser_access import complaints, narrow, too_wide
from tests.frontends import Bench, in_a_browser, only_lab

pytestmark = in_a_browser

TABLE = ".jp-OutputArea-output.jp-RenderedHTMLCommon"


@only_lab
def test_the_doctor_is_asked_and_draws_a_table(
    bench: Bench, scripted_server: ScriptedServer
) -> None:
    page = bench.page
    calls = [{"name": "get_weather", "arguments": {"city": city}} for city in ("Bern", "Rome")]
    scripted_server.reply("9.9 is the larger one of the two.", reasoning="By parts.", rate=50)
    scripted_server.reply(tool_calls=calls)
    scripted_server.reply('{"larger": "<img src=x onerror=alert(1)>"}')
    bench.run("%kimi doctor")
    asked = page.locator(".jp-Stdin-input")
    asked.wait_for()
    assert scripted_server.requests == []
    asked.fill("y")
    page.keyboard.press("Enter")
    table = page.locator(f"{TABLE} table")
    table.get_by_text("reasoning comes as reasoning_content").wait_for()
    bench.wait_for_kernel()
    assert page.locator(".jp-OutputArea-output .kimi-turn").count() == 0
    assert table.get_by_text("a page answered within").count() == 1
    assert table.get_by_text("cells tell their id").count() == 1
    assert table.locator("img").count() == 0
    bench.shot("doctor-1-light")
    bench.theme("dark")
    page.locator(TABLE).scroll_into_view_if_needed()
    bench.shot("doctor-2-dark")
    assert complaints(page, TABLE) == []
    narrow(bench, width=420)
    assert too_wide(page, TABLE) <= 0
    bench.shot("doctor-3-narrow")
    narrow(bench, width=1000)
    bench.theme("light")
    kinds = {output["output_type"]: output for output in bench.saved()["outputs"]}
    assert set(kinds) == {"display_data", "stream"}  # the table and the question
    assert set(kinds["display_data"]["data"]) == {"text/html", "text/plain"}
