"""Far too much of anything, in a real JupyterLab: the page stays usable, the file small."""

from __future__ import annotations

import json

import pytest

from kimi_magic.testing import ScriptedServer
from tests.floods import FLOODS, TOOLS
from tests.frontends import Bench, in_a_browser, only_lab

pytestmark = in_a_browser


@only_lab
@pytest.mark.parametrize("flood", FLOODS)
def test_the_page_stays_usable(flood: str, bench: Bench, scripted_server: ScriptedServer) -> None:
    bench.python(TOOLS)
    FLOODS[flood](scripted_server)
    bench.run("%%kimi -T shout,take,nest\nGo")
    bench.wait_for_record()
    assert bench.record.evaluate("(e) => e.querySelectorAll('*').length") < 2000
    assert len(json.dumps(bench.saved())) < 600_000
    panel = bench.record.locator("details").first
    panel.locator("summary").first.click()
    assert panel.evaluate("(e) => e.open")
    bench.shot(f"9-flood-{[*FLOODS].index(flood)}")
    scripted_server.reply("All is well.")
    bench.run("%%kimi\nStill there?")
    bench.wait_for_record()
    bench.record.get_by_text("All is well.").wait_for()
