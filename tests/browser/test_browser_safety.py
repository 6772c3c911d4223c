"""Hostile text in a real JupyterLab: the page is asked whether anything ran, loaded or moved."""

from __future__ import annotations

import base64
import json

from kimi_magic.testing import ScriptedServer
from tests.frontends import LONG, Bench, in_a_browser, only_lab
from tests.hostile import HTML, VECTORS

pytestmark = in_a_browser

# What lies outside of the output: its text, its size, the title, the address.
# Without the ages of files and the kernel's state, which go on.
# The toolbar of a cell comes and goes with the length of its first line.
OUTSIDE = r"""() => [document.title, location.href, document.body.className,
  [...document.querySelectorAll(".jp-Toolbar:not(.jp-cell-toolbar), #jp-top-panel, #jp-left-stack")]
    .map((e) => [e.innerText.replace(/\n(now|\d+\w+ ago)|Kernel status: [^]*/g, ""),
                 Math.round(e.getBoundingClientRect().width)].join()).join("|")]"""
SPRUNG = "() => { for (const e of document.querySelectorAll('details')) e.open = true; }"


@only_lab
def test_nothing_runs_loads_or_moves(bench: Bench, scripted_server: ScriptedServer) -> None:
    vectors = [text.encode("utf-8", "replace").decode() for text in VECTORS]
    everything = "\n\n".join(vectors)
    packed = base64.b64encode(json.dumps(HTML).encode()).decode()
    bench.python(
        "import base64, json\nfrom IPython.display import display\n"
        f"hostile = json.loads(base64.b64decode({packed!r}))\n"
        "def attack(text: str):\n    'Attack.'\n    print(text)\n"
        "    for html in hostile:\n"
        "        display({'text/html': html, 'text/plain': html}, raw=True)\n"
        "    display({'application/javascript': 'window.ran=1', 'image/svg+xml': hostile[6],\n"
        "             'text/plain': 'x'}, raw=True)\n"
        "    raise ValueError(text)\n"
    )
    bench.page.evaluate("() => { window.ran = undefined; }")
    before = bench.page.evaluate(OUTSIDE)
    bench.strangers.clear()
    call = {"name": "attack", "arguments": {"text": everything}}
    scripted_server.reply(everything, reasoning=everything, tool_calls=[call])
    scripted_server.reply(everything, reasoning="So.", rate=400)
    bench.run("%%kimi -T attack\nGo")
    bench.turn.locator("details").nth(1).wait_for(timeout=LONG)
    bench.page.evaluate(SPRUNG)
    bench.wait_for_record()
    bench.page.evaluate(SPRUNG)
    bench.page.wait_for_timeout(1000)  # for what runs a moment later
    assert bench.page.evaluate("() => window.ran") is None
    assert [url for url in bench.strangers if "stranger" in url] == []
    assert bench.page.evaluate(OUTSIDE) == before
    bench.shot("7-hostile")
