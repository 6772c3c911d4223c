"""A turn where no live view can be: captured, executed without a front end, converted."""

from __future__ import annotations

from typing import Any

import nbconvert
import nbformat
import pytest

from kimi_magic.testing import ScriptedServer
from tests.kernels import Kernel

ANSWER = "It is **9.9**.\n\n| number | tenths |\n|---|---|\n| 9.9 | 9 |\n\n```python\nx = 9.9\n```"
TOOL = "def look(n: int) -> int:\n    'Look.'\n    return n + 1"


@pytest.fixture
def executed(kernel: Kernel, asked: ScriptedServer) -> Any:
    """A notebook as it is saved after a turn with a tool."""
    asked.reply(
        reasoning="Look <closely> & think.", tool_calls=[{"name": "look", "arguments": {"n": 9}}]
    )
    asked.reply(ANSWER, reasoning="So $9.9$.")
    kernel.run(TOOL)
    (shown,) = kernel.run("%%kimi -T look\nWhich one?").of("display_data")
    v4: Any = nbformat.v4
    output = v4.new_output("display_data", shown["data"], metadata=shown["metadata"])
    cell = v4.new_code_cell("%%kimi -T look\nWhich one?", outputs=[output])
    return v4.new_notebook(cells=[cell])


def converted(kind: str, notebook: Any) -> str:
    exporter: Any = getattr(nbconvert, f"{kind}Exporter")
    text: str = exporter().from_notebook_node(notebook)[0]
    return text


def test_as_html_it_is_the_record(executed: Any) -> None:
    html = converted("HTML", executed)
    for part in (
        "<details",
        "Look &lt;closely&gt; &amp; think.",
        "<strong>9.9</strong>",
        "<table>",
    ):
        assert part in html
    assert "look(n=9)" in html
    assert "widget-view" not in html


def test_as_markdown_it_is_the_record(executed: Any) -> None:
    markdown = converted("Markdown", executed)
    assert "<strong>9.9</strong>" in markdown
    assert "<details" in markdown


def test_as_latex_it_is_the_transcript(executed: Any) -> None:
    latex = converted("Latex", executed)
    assert "Look <closely>" in latex
    assert "It is **9.9**." in latex
    assert "details" not in latex


def test_a_captured_turn_shows_its_record_later(kernel: Kernel, asked: ScriptedServer) -> None:
    asked.reply(ANSWER, reasoning="Hm.")
    ran = kernel.run("%%capture out\nkimi.ask('Which one?')", allow_stdin=True)
    assert ran.displays == []
    shown = kernel.run("out.show()").displays
    assert "<strong>9.9</strong>" in shown[0]["text/html"]
    assert all("widget" not in kind for data in shown for kind in data)
