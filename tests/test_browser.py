"""What a person sees in JupyterLab, in a real browser.

Screenshots go to ``tests/screenshots``.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kimi_magic.testing import ScriptedServer

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
SCREENSHOTS = Path(__file__).parent / "screenshots"

pytestmark = [
    pytest.mark.skipif(
        not CHROMIUM and not os.environ.get("REQUIRE_BROWSER"),
        reason="no Chromium on this machine: what JupyterLab shows was not looked at",
    ),
    # Playwright leaves its event loop to the end of the process.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

THOUGHT = "Compare the tenths first: 0.11 against 0.9.\n\nSo 9.9, which is 9.90, is the bigger one."
ANSWER = "**9.9** is bigger.\n\n| number | tenths |\n|---|---|\n| 9.11 | 1 |\n| 9.9 | 9 |\n"
SOURCES = ["%load_ext kimi_magic", "%%kimi\nWhich one is bigger, 9.11 or 9.9?"]
LONG = 60.0


def notebook(*sources: str) -> str:
    cells: list[dict[str, Any]] = [
        {
            "cell_type": "code", "id": f"cell-{i}", "metadata": {}, "outputs": [],
            "execution_count": None, "source": source,
        }
        for i, source in enumerate(sources)
    ]  # fmt: skip
    kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    metadata = {"kernelspec": kernelspec}
    return json.dumps({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5})


class Lab:
    """A JupyterLab on a free port, over a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.token = secrets.token_hex(8)
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            port = held.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        own = {
            f"JUPYTER_{name}_DIR": str(folder / name.lower())
            for name in ("CONFIG", "DATA", "RUNTIME")
        }
        self._process = subprocess.Popen(
            [
                sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1",
                f"--port={port}", "--ServerApp.port_retries=0", "--allow-root",
                f"--IdentityProvider.token={self.token}", f"--ServerApp.root_dir={folder}",
                "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None",
            ],
            env=os.environ | own | {"JUPYTER_PREFER_ENV_PATH": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def wait(self) -> None:
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"{self.url}/api?token={self.token}"):
                    return
            except OSError:
                time.sleep(0.1)
        raise TimeoutError("JupyterLab did not start")

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(20)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("lab"))
    try:
        lab.wait()
        yield lab
    finally:
        lab.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    assert CHROMIUM, "REQUIRE_BROWSER is set, and there is no Chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-quic"]
        )
        yield browser
        browser.close()


@pytest.fixture(params=["light", "dark"])
def page(request: pytest.FixtureRequest, lab: Lab, browser: Any) -> Iterator[Any]:
    """The notebook open in Lab; requests to any other host are noted."""
    (lab.folder / "page.ipynb").write_text(notebook(*SOURCES), "utf-8")
    page = browser.new_page(viewport={"width": 1000, "height": 640})
    page.scheme = request.param
    page.strangers = []
    page.on("request", lambda r: page.strangers.append(r.url) if lab.url not in r.url else None)
    open_notebook(page, lab)
    theme = "JupyterLab Dark" if request.param == "dark" else "JupyterLab Light"
    command(page, f"'apputils:change-theme', {{theme: '{theme}'}}")
    yield page
    page.close()


def open_notebook(page: Any, lab: Lab) -> None:
    page.goto(f"{lab.url}/lab/tree/page.ipynb?reset&token={lab.token}")
    page.wait_for_function(
        "() => window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel"
        "?.status === 'idle'",
        timeout=LONG * 1000,
    )


def command(page: Any, call: str) -> None:
    page.evaluate(f"() => window.jupyterapp.commands.execute({call})")


def run_next_cell(page: Any) -> None:
    page.evaluate(
        "() => { window.jupyterapp.commands.execute('notebook:run-cell-and-select-next') }"
    )


def shot(page: Any, name: str) -> None:
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}-{page.scheme}.png")


def ours(urls: list[str]) -> list[str]:
    """Lab itself loads MathJax and asks for news from elsewhere; data: is no request."""
    return [url for url in urls if "kimi" in url or "anywidget" in url]


def test_a_turn_in_jupyterlab(page: Any, lab: Lab, server: ScriptedServer) -> None:
    server.reply(ANSWER, reasoning=THOUGHT, rate=12)
    first = f"import os; os.environ['KIMI_BASE_URL'] = {server.base_url!r}\n{SOURCES[0]}"
    page.evaluate(
        "source => { const nb = window.jupyterapp.shell.currentWidget.content;"
        " nb.activeCellIndex = 0; nb.activeCell.model.sharedModel.setSource(source) }",
        first,
    )
    run_next_cell(page)
    run_next_cell(page)

    panel = page.locator(".jp-OutputArea-output details").first
    panel.get_by_text("Compare the").wait_for(timeout=LONG * 1000)
    assert panel.get_attribute("open") is not None, "open while it grows"
    early = panel.inner_text()
    assert "bigger one" not in early, "it is seen growing"
    shot(page, "reasoning")
    page.get_by_text("bigger one.").wait_for(state="attached", timeout=LONG * 1000)
    page.locator(".kimi-turn").get_by_text("9.9** is").wait_for(timeout=LONG * 1000)
    assert panel.get_attribute("open") is None, "folded by itself when the answer starts"

    page.locator(".jp-OutputArea-output table").wait_for(timeout=LONG * 1000)
    assert page.locator(".kimi-turn").count() == 0, "the widget gave way to the record"
    assert page.locator(".jp-OutputArea-output strong").inner_text() == "9.9"
    shot(page, "record")
    page.locator(".jp-OutputArea-output summary").click()
    assert "bigger one" in page.locator(".jp-OutputArea-output details").inner_text()

    command(page, "'docmanager:save'")
    page.wait_for_timeout(500)
    saved = json.loads((lab.folder / "page.ipynb").read_text("utf-8"))
    (output,) = saved["cells"][1]["outputs"]
    assert set(output["data"]) == {"text/html", "text/plain"}
    assert ours(page.strangers) == []

    command(page, "'kernelmenu:shutdown'")
    open_notebook(page, lab)
    page.locator(".jp-OutputArea-output table").wait_for(timeout=LONG * 1000)
    assert "Error displaying widget" not in page.content()
