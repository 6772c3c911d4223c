"""The programs of the turns in our notebooks: each sends what its turn sent, and runs its tools."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from kimi_magic.testing import Request, ScriptedServer
from tests.kernels import Kernel
from tests.snippets import run, stopped

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
ARGUMENTS: dict[str, dict[str, Any]] = {
    "average_hired": {"weather": "rain", "coldest": 20},
    "count_rows": {"frame": "sales"},
    "forward_mail": {"to": "travel@example.com"},
    "get_weather": {"city": "Beijing"},
    "kinds_of_weather": {},
    "mean": {"numbers": [1, 2, 6]},
    "mean_amount": {"region": "north"},
    "monthly": {"region": "north"},
    "monthly_shares": {},
    "plot_region": {"region": "south"},
    "price": {"item": "pen"},
    "read_mail": {},
    "share_without": {"first": "Jan", "last": "Mar"},
    "stock": {"item": "blue chair"},
}
# Many requests, tapes, and looks at answers that the server here does not give.
LEFT_OUT = re.compile(r"kimi\.sweep|%kimi (tape|step|compare|tool )|plot_sweep|heavy|names=")
ADVICE = re.compile(r"Fill in (\w+) here: .* In the notebook, (.*) saves it, and (.*) loads it\.")


class Obliging(ScriptedServer):
    """Calls each tool that is offered, once, and then says that all is well."""

    def _entry_for(self, request: Request) -> Any:
        offered = request.body.get("tools") or ()
        done = any(message["role"] == "tool" for message in request.body["messages"][-1:])
        names = [] if done else [tool["function"]["name"] for tool in offered]
        calls = [{"name": name, "arguments": ARGUMENTS[name]} for name in names]
        self.reply("" if calls else "All is well.", reasoning="So.", tool_calls=calls)
        return super()._entry_for(request)


@pytest.fixture
def server(kernel: Kernel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Obliging]:
    with Obliging() as server:
        kernel.run(f"%env KIMI_BASE_URL={server.base_url}")
        kernel.run(f"%env KIMI_MODEL={server.models[0]}")
        kernel.run(f"import os; _before = os.getcwd(); os.chdir({str(tmp_path)!r})")
        yield server
        kernel.run("import os; os.chdir(_before)")


def results(requests: list[Request]) -> list[Any]:
    """Return the tools' results, JSON as its value: a program may put other spaces into it."""
    texts = [m["content"] for m in requests[-1].body["messages"] if m["role"] == "tool"]
    return [json.loads(text) if text[:1] in "[{0123456789" else text for text in texts]


def follow(kernel: Kernel, text: str, folder: Path) -> str:
    """Fill in what a program lacks, as the line says in which it stops."""
    while "raise SystemExit(" in text:
        found = ADVICE.fullmatch(stopped(text, folder))
        assert found, text
        name, save, load = found.groups()
        kernel.run(save)
        lacks = rf"if \({name} := .*\n    raise SystemExit\((?:\n.*\n    )?.*\)\n"
        text = re.sub(lacks, f"import pandas\n\n{load}\n", text)
    return text


def cells_of(notebook: Path) -> list[str]:
    book = nbformat.read(notebook, as_version=4)  # type: ignore[no-untyped-call]
    return [cell.source for cell in book.cells if cell.cell_type == "code"]


WITH_TOOLS = [
    str(path.relative_to(NOTEBOOKS))
    for path in sorted(NOTEBOOKS.rglob("*.ipynb"))
    if any(" -T " in source or "tools=" in source for source in cells_of(path))
]


@pytest.mark.parametrize("notebook", ["quickstart.ipynb", *WITH_TOOLS])
def test_a_notebooks_programs_run(
    notebook: str, kernel: Kernel, server: Obliging, tmp_path: Path
) -> None:
    """One turn for each set of tools, in a notebook with tools those turns alone."""
    seen: set[tuple[str, ...]] = {()} if notebook in WITH_TOOLS else set()
    for source in cells_of(NOTEBOOKS / notebook):
        if LEFT_OUT.search(source):
            continue
        before = len(server.requests)
        kernel.run(source, ok=False)  # some look at an answer that this server did not give
        sent = server.requests[before:]
        tools = tuple(t["function"]["name"] for r in sent[:1] for t in r.body.get("tools", ()))
        if not sent or tools in seen:
            continue
        seen.add(tools)
        text = kernel.run("print(kimi.snippet(kimi.last, chat=True, with_data=True))").stdout
        asked = len(server.requests)
        printed = run(follow(kernel, text, tmp_path), "python", tmp_path)
        assert "All is well." in printed
        again = server.requests[asked:]
        assert again[0].body == sent[-len(again)].body
        for there, here in zip(results(sent), results(again), strict=True):
            # A program shows no figures, and asks nobody.
            assert here == there or re.search("figure|confirmation", there), printed
    assert seen - {()} if notebook in WITH_TOOLS else seen
