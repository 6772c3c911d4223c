"""The README's screenshot, taken in JupyterLab: ``python -m tests.picture``."""

from __future__ import annotations

import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from kimi_magic.testing import ScriptedServer
from tests.frontends import CHROMIUM, Bench, FrontEnd

PICTURE = Path(__file__).parents[1] / "docs" / "live-view.png"
SET_UP = '''
import os
os.environ["KIMI_BASE_URL"] = {!r}
import matplotlib.pyplot as plt
import numpy as np
import kimi_magic as kimi
get_ipython().run_line_magic("load_ext", "kimi_magic")

def orders(region: str) -> dict:
    """Orders of each month."""
    return {{"January": 421, "February": 412, "March": 284}}

def plot_trend(region: str, ahead: int = 1):
    """Plot the orders and a forecast."""
    months = ["Oct", "Nov", "Dec", "Jan", "Feb", "Mar", "Apr"]
    figure, axes = plt.subplots(figsize=(6.2, 2.1), layout="constrained")
    axes.plot(months[:6], [398, 405, 430, 421, 412, 284], "o-", color="#1668b8")
    axes.plot(months[5:], [284, 428], "o--", color="#1668b8", alpha=0.5)
    axes.spines[["top", "right"]].set_visible(False)
'''
QUESTION = """\
%%kimi -T orders,plot_trend
Why did orders in the north fall in March, and what will April bring?"""
THOUGHT = (
    "I should look at the orders of the north first, month by month. If every region fell it is "
    "the season; if the north alone fell, something happened there."
)
ANSWER = """\
March is **one outlier**: orders fell by 31 % because the warehouse was closed for nine days. \
Before it the north was steady, with a mean of $\\bar{x} = 413$ and a small spread:

| month | orders | change |
|:--|--:|--:|
| February | 412 | −2 % |
| March | 284 | −31 % |
| April, expected | 428 | +51 % |

With the stock back, April should bring about **428 orders**. To be sure, compare the days on \
which the warehouse was open, as the fall may well have begun before it closed its doors.
"""


def main() -> None:
    PICTURE.parent.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        ScriptedServer() as server,
        sync_playwright() as playwright,
    ):
        lab = FrontEnd("lab", Path(folder))
        try:
            lab.wait()
            browser = playwright.chromium.launch(
                executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
            )
            page = browser.new_page(viewport={"width": 960, "height": 890}, device_scale_factor=1.5)
            take(Bench(lab, page), server)
            browser.close()
        finally:
            lab.close()


def take(bench: Bench, server: ScriptedServer) -> None:
    """Take the screenshot while the answer streams."""
    bench.python(SET_UP.format(server.base_url))
    bench.command("application:toggle-left-area")
    calls = [
        {"name": "orders", "arguments": {"region": "north"}},
        {"name": "plot_trend", "arguments": {"region": "north", "ahead": 1}},
    ]
    server.reply(reasoning=THOUGHT, tool_calls=calls, rate=12)
    server.reply(ANSWER, reasoning="March alone is out of line, so I can answer. " * 3, rate=14)
    bench.run(QUESTION)
    bench.turn.get_by_text("on which the warehouse").wait_for()
    bench.page.locator(".jp-Notebook").screenshot(path=PICTURE)
    bench.wait_for_record()


if __name__ == "__main__":
    main()
