"""Time that the live view takes in the page: ``python -m benchmarks.page_time``.

JupyterLab in Chromium shows an answer that has 50,000 tokens already and goes on at 100 tokens a
second. Over five seconds, the page's time is counted as Chromium counts it.

- share of the time in which the page's thread is busy (target 25 %)
- the longest task, for which a click would have to wait (target 100 ms)
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from kimi_magic.testing import ScriptedServer
from tests.frontends import CHROMIUM, LONG, Bench, FrontEnd
from tests.kernels import RESET
from tests.wire.test_dialects import event

SECONDS = 5
LONG_TASKS = """() => {
    window.tasks = []
    new PerformanceObserver((list) => tasks.push(...list.getEntries().map((e) => e.duration)))
        .observe({ entryTypes: ['longtask'] })
}"""


def measure(bench: Bench, server: ScriptedServer) -> tuple[float, float]:
    """Return the busy share of the page's time, and its longest task in milliseconds."""
    before = [event(content=f"Paragraph {i}. {'word ' * 96}\n\n") for i in range(500)]
    then = [event(content=f"token {i} " if i % 50 else "\n\n") for i in range(1500)]
    server.raw([b"".join(before), *then], rate=100)
    own = {"KIMI_BASE_URL": server.base_url, "KIMI_MODEL": server.models[0]}
    bench.python(f"{RESET}\nimport os; os.environ.update({own})")
    bench.python("kimi.settings.max_output_chars = 10**7")
    bench.run("%%kimi\nWrite a book.")
    bench.turn.get_by_text("token 20 ").first.wait_for(state="attached", timeout=LONG)
    devtools = bench.page.context.new_cdp_session(bench.page)
    devtools.send("Performance.enable")

    def busy() -> float:
        metrics = devtools.send("Performance.getMetrics")["metrics"]
        return float(next(m["value"] for m in metrics if m["name"] == "TaskDuration"))

    bench.page.evaluate(LONG_TASKS)
    began = busy()
    bench.page.wait_for_timeout(SECONDS * 1000)
    share = (busy() - began) / SECONDS
    longest = max(bench.page.evaluate("() => tasks"), default=0.0)
    bench.turn.get_by_role("button", name="Stop").click()
    bench.wait_for_record()
    return share, longest


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        front_end = FrontEnd("lab", Path(folder))
        try:
            front_end.wait()
            page = browser.new_page(viewport={"width": 1000, "height": 800})
            page.set_default_timeout(LONG)
            bench = Bench(front_end, page)
            bench.wait_for_kernel()
            with ScriptedServer() as server:
                share, longest = measure(bench, server)
        finally:
            front_end.close()
            browser.close()
    print(f"the page is busy for {share:.0%} of the time (target 25 %)")
    print(f"its longest task took {longest:.0f} ms (target 100 ms)")


if __name__ == "__main__":
    main()
