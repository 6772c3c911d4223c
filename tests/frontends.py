"""JupyterLab and Notebook 7 in a real browser, each with one server, one page and one kernel.

Screenshots go to ``tests/screenshots``, for people to look at.
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
from tests.kernels import RESET

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
SCREENSHOTS = Path(__file__).parent / "screenshots"
LABEXTENSION = Path(__file__).parent.parent / "kimi_magic" / "labextension"
LONG = 60_000.0  # ms

in_a_browser = [
    pytest.mark.skipif(
        not CHROMIUM and not os.environ.get("REQUIRE_BROWSER"),
        reason="no Chromium on this machine: what front ends show was not looked at",
    ),
    # Playwright leaves its event loop open until the process ends.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

# For slow tests that do not depend on the front end.
only_lab = pytest.mark.parametrize("front_end", ["lab"], indirect=True)

# Runs in the page, and drives the open notebook.
HELPERS = """
window.kimi = {
  get panel() {
    const widgets = window.jupyterapp ? [...window.jupyterapp.shell.widgets("main")] : [];
    return widgets.find((widget) => widget.content?.model?.cells);
  },
  get kernel() { return this.panel?.sessionContext?.session?.kernel; },
  get notebook() { return this.panel.content; },
  command: (name, args) => window.jupyterapp.commands.execute(name, args),
  async python(code) {
    let text = "";
    const future = this.kernel.requestExecute({ code, store_history: false });
    future.onIOPub = ({ header, content }) => {
      if (content.name === "stdout") text += content.text;  // asyncio logs at times to the other
      if (header.msg_type === "error") text += content.traceback.join("\\n");
    };
    await future.done;
    return text;
  },
  write(source) {
    const { model } = this.notebook;
    model.sharedModel.transact(() => {
      model.sharedModel.deleteCellRange(0, model.cells.length);
      model.sharedModel.insertCell(0, { cell_type: "code", source, metadata: {} });
    });
    this.notebook.activeCellIndex = 0;
  },
};
"""


def as_notebook(*cells: dict[str, Any]) -> str:
    """Return the text of a notebook file; each cell gives its source, and its outputs if any."""
    whole = [
        {"cell_type": "code", "id": f"cell-{i}", "metadata": {}, "outputs": []}
        | {"execution_count": None, **cell}
        for i, cell in enumerate(cells)
    ]
    kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    metadata = {"kernelspec": kernelspec}
    return json.dumps({"cells": whole, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5})


class FrontEnd:
    """JupyterLab (``lab``) or Notebook 7 (``notebook``), on a free port and in its own folder."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder, self.token = kind, folder, secrets.token_hex(8)
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            port = held.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        module, app = {
            "lab": ("jupyterlab", "LabApp"),
            "notebook": ("notebook", "JupyterNotebookApp"),
        }[kind]
        own = {
            f"JUPYTER_{name}_DIR": str(folder / f".{name.lower()}")
            for name in ("CONFIG", "DATA", "RUNTIME")
        }
        news = folder / ".config/lab/user-settings/@jupyterlab/apputils-extension"
        news.mkdir(parents=True)
        (news / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}')
        # An editable install has only a copy of it, as old as the install.
        shutil.copytree(LABEXTENSION, folder / ".share/labextensions/kimi-magic")
        own["JUPYTER_PATH"] = str(folder / ".share")
        self._process = subprocess.Popen(
            [
                sys.executable, "-m", module, "--no-browser", "--ip=127.0.0.1", f"--port={port}",
                "--ServerApp.port_retries=0", "--allow-root", f"--ServerApp.root_dir={folder}",
                f"--IdentityProvider.token={self.token}", f"--{app}.expose_app_in_browser=True",
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
        raise TimeoutError(f"{self.kind} did not start")

    def address(self, name: str) -> str:
        way = f"lab/tree/{name}?reset&" if self.kind == "lab" else f"notebooks/{name}?"
        return f"{self.url}/{way}token={self.token}"

    def close(self) -> None:
        """End the server and its kernels; these also end by themselves when it is gone."""
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Bench:
    """A notebook open in a front end, with one cell that each test replaces."""

    def __init__(self, front_end: FrontEnd, page: Any) -> None:
        self.front_end, self.page = front_end, page
        self.path = front_end.folder / "page.ipynb"
        self.path.write_text(as_notebook({"source": ""}), "utf-8")
        page.add_init_script(HELPERS)
        self.strangers: list[str] = []
        page.on("request", self._note)
        self.open()

    def _note(self, request: Any) -> None:
        if not request.url.startswith((self.front_end.url, "data:", "blob:")):
            self.strangers.append(request.url)

    def open(self) -> None:
        self.page.goto(self.front_end.address("page.ipynb"))
        self.wait_for_kernel()

    def wait_for_kernel(self) -> None:
        self.page.wait_for_function("() => kimi.kernel?.status === 'idle'", timeout=LONG)

    def command(self, name: str, **arguments: Any) -> None:
        self.page.evaluate("([name, args]) => kimi.command(name, args)", [name, arguments])

    def python(self, code: str) -> str:
        """Run code in the kernel without a cell, and return what it prints."""
        printed: str = self.page.evaluate("code => kimi.python(code)", code)
        return printed

    def run(self, source: str, *, saved: bool = False) -> None:
        """Run this as the notebook's only cell; ``saved`` saves the file first."""
        self.page.evaluate("source => kimi.write(source)", source)
        if saved:
            self.command("docmanager:save")
        self.page.evaluate("() => { kimi.command('notebook:run-cell') }")

    @property
    def turn(self) -> Any:
        """The live view."""
        return self.page.locator(".kimi-turn").first

    @property
    def record(self) -> Any:
        """The frozen record."""
        return self.page.locator(".jp-OutputArea-output.jp-RenderedHTMLCommon").first

    def wait_for_record(self) -> None:
        self.turn.wait_for(state="detached", timeout=LONG)
        self.record.wait_for(timeout=LONG)
        self.wait_for_kernel()

    def saved(self) -> dict[str, Any]:
        """Save the notebook, and return the cell as it is in the file."""
        self.command("docmanager:save")
        cell: dict[str, Any] = json.loads(self.path.read_text("utf-8"))["cells"][0]
        return cell

    def theme(self, name: str) -> None:
        self.command("apputils:change-theme", theme=f"JupyterLab {name.capitalize()}")
        dark = "true" if name == "light" else "false"
        self.page.locator(f"body[data-jp-theme-light='{dark}']").wait_for(state="attached")
        self.page.locator("#jupyterlab-splash").wait_for(state="detached")  # it covers the page

    def shot(self, name: str) -> None:
        SCREENSHOTS.mkdir(exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}-{self.front_end.kind}.png")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    assert CHROMIUM, "REQUIRE_BROWSER is set, and there is no Chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-quic"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session", params=["lab", "notebook"])
def front_end(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FrontEnd]:
    front_end = FrontEnd(request.param, tmp_path_factory.mktemp(request.param))
    try:
        front_end.wait()
        yield front_end
    finally:
        front_end.close()


@pytest.fixture(scope="session")
def open_bench(front_end: FrontEnd, browser: Any) -> Iterator[Bench]:
    page = browser.new_page(viewport={"width": 1000, "height": 800})
    page.set_default_timeout(LONG / 2)
    yield Bench(front_end, page)
    page.close()


@pytest.fixture
def bench(open_bench: Bench, scripted_server: ScriptedServer) -> Bench:
    """The open notebook, with the extension loaded and a scripted server as its endpoint."""
    open_bench.wait_for_kernel()
    own = {"KIMI_BASE_URL": scripted_server.base_url, "KIMI_MODEL": scripted_server.models[0]}
    set_up = f"import os; os.environ.update({own})"
    open_bench.python(f"{RESET}\n{set_up}\n{TOOLS}")
    return open_bench


TOOLS = '''
import time
import kimi_magic as kimi

def monthly(region: str, pause: float = 0.0) -> dict:
    """Orders of each month."""
    print("reading", region)
    time.sleep(pause)
    return {"February": 412, "March": 284}

def trend(region: str):
    """Plot the orders."""
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots(figsize=(5, 2))
    axes.plot([412, 390, 284, 430])

def broken(month: int):
    """Fail."""
    raise ValueError(f"month must be below 13, not {month}")

@kimi.tool(confirm=True)
def order(region: str, amount: int) -> str:
    """Order goods."""
    assert amount > 0
    return f"{amount} ordered for {region}"
'''
