"""The front-end extension: colours of ``%%kimi`` cells, and Ask, Fix and Explain as commands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from kimi_magic.testing import ScriptedServer
from tests.browser.test_browser_access import complaints
from tests.frontends import Bench, FrontEnd, in_a_browser

pytestmark = in_a_browser

BUTTON = "[data-jp-item-name='kimi']"
LINE = '%%kimi answer << -m kimi-k3 --max-tokens 20 -s "be brief"  # note'
PROMPT = """
# A heading for it

Say **why** `x` is in {{ table[3] + "x" }}, *not* snake_case. See https://example.org
```python
for x in {{ table }}:
```
> quoted
while x is in range(3): print(x) \\{{ x }}"""
# Of these, Python's colours would be seen.
PYTHON = {"for", "while", "is", "in", "print", "range", "not"}

# Notebook 7.6 says these without any extension.
OF_NOTEBOOK_7 = ("reading 'schema'", "Cannot convert undefined or null to object")

# The words of the first cell that have a colour or a weight of their own.
COLOURED = """() => {
  const content = document.querySelector(".jp-Notebook .jp-CodeCell .cm-content");
  return [...content.querySelectorAll(".cm-line > span")].map((span) => span.textContent);
}"""
CELLS = """() => [...kimi.notebook.model.cells].map((cell) => cell.sharedModel.source)"""
CURSOR = """([cell, offset]) => {
  const { editor } = kimi.notebook.widgets[cell];
  kimi.notebook.activeCellIndex = cell;
  kimi.notebook.mode = "edit";
  editor.focus();
  editor.setCursorPosition(editor.getPositionAt(offset));
}"""
# A toolbar gives the focus that comes back to it to the item that arrow keys have reached.
REACH = """(button) => {
  const item = button.getRootNode().host;
  const toolbar = item.closest("jp-toolbar");
  toolbar.activeIndex = toolbar.focusableElements.indexOf(item);
  item.focus();
}"""
MODEL = """() => {
  const { model } = kimi.notebook.widgets[0];
  return [model.sharedModel.source, model.mimeType, JSON.stringify(model.sharedModel.metadata)];
}"""
# What is done within half a second is one step to undo.
STEP = "() => kimi.notebook.widgets[0].model.sharedModel.undoManager.stopCapturing()"
ALONE = """async () => {
  const container = window._JUPYTERLAB["kimi-magic"];
  container.init({});
  return (await container.get("./extension"))().default;
}"""


def write(bench: Bench, source: str) -> None:
    bench.page.evaluate("source => kimi.write(source)", source)


def wait_for_colours(bench: Bench, *, python: bool) -> set[str]:
    """Wait until the first cell is coloured as Python, or as a prompt; return what is coloured."""
    language = "python" if python else "kimi"
    bench.page.locator(f".jp-CodeCell .cm-content[data-language='{language}']").first.wait_for()
    return set(bench.page.evaluate(COLOURED))


def wait_for_cells(bench: Bench, *sources: str) -> None:
    told = "want => JSON.stringify((" + CELLS + ")()) === JSON.stringify(want)"
    bench.page.wait_for_function(told, arg=list(sources))


def palette(bench: Bench, label: str) -> None:
    bench.command("apputils:activate-command-palette")
    search = bench.page.locator(".lm-CommandPalette-input:visible")
    search.fill(label)
    bench.page.locator(".lm-CommandPalette-item").filter(has_text=label).first.wait_for()
    search.press("Enter")


def click_button(bench: Bench, label: str) -> None:
    bench.page.locator(BUTTON).get_by_role("button", name="Kimi").first.click()
    bench.page.get_by_role("menuitem", name=label).click()


def click_menu(bench: Bench, label: str) -> None:
    bench.page.get_by_role("menuitem", name="Run", exact=True).click()
    bench.page.get_by_role("menuitem", name=label).click()


def type_in(bench: Bench, text: str) -> None:
    """Type where the focus goes, once that is the editor of a prompt."""
    focused = "() => document.activeElement.dataset.language === 'kimi'"
    bench.page.wait_for_function(focused)
    bench.page.keyboard.type(text)


def complete(bench: Bench, text: str) -> None:
    bench.page.keyboard.press("Tab")
    bench.page.locator(".jp-Completer-item").filter(has_text=text).first.wait_for()
    bench.page.keyboard.press("Enter")


def foreign(errors: list[str]) -> list[str]:
    return [text for text in errors if not any(known in text for known in OF_NOTEBOOK_7)]


@pytest.fixture
def complained(bench: Bench) -> Iterator[list[str]]:
    """Errors in the page's console, of which there are none at the end."""
    said: list[str] = []

    def hear(message: Any) -> None:
        if message.type == "error":
            said.append(message.text)

    def fail(error: Any) -> None:
        said.append(str(error))

    bench.page.on("console", hear)
    bench.page.on("pageerror", fail)
    yield said
    bench.page.remove_listener("console", hear)
    bench.page.remove_listener("pageerror", fail)
    assert foreign(said) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_prompt_is_not_coloured_as_python(
    bench: Bench, complained: list[str], theme: str
) -> None:
    bench.theme(theme)
    write(bench, LINE + PROMPT)
    coloured = wait_for_colours(bench, python=False)
    bench.shot(f"extension-colours-{theme}")
    assert not coloured & PYTHON
    assert {"%%kimi", "-m", "--max-tokens", "20", '"be brief"', "# note"} <= coloured
    assert {"# A heading for it", "**why**", "`x`", "*not*", "https://example.org"} <= coloured
    assert {"{{", "}}", "[", "3", '"x"', "```python", ">"} <= coloured
    write(bench, "# A note above\n\n" + LINE + PROMPT)
    assert "# A note above" in wait_for_colours(bench, python=False)
    write(bench, "%%kimi --raw\nfor {{ x }}")
    assert wait_for_colours(bench, python=False) == {"%%kimi", "--raw"}
    bench.theme("light")


def test_colours_follow_while_the_cell_is_typed(bench: Bench, complained: list[str]) -> None:
    keyboard = bench.page.keyboard
    for other in ("%%kimino\nfor", "%%time\n%%kimi\nfor", "x = 1\n%%kimi\nfor", "%kimi ask x\nfor"):
        write(bench, other)
        assert "for" in wait_for_colours(bench, python=True), other
    source = "%%kim\nfor x in range(3)"
    write(bench, source)
    _, kind, metadata = bench.page.evaluate(MODEL)
    assert "for" in wait_for_colours(bench, python=True)
    bench.page.evaluate(CURSOR, [0, 5])
    bench.page.evaluate(STEP)
    keyboard.type("i")
    assert wait_for_colours(bench, python=False) == {"%%kimi"}
    assert bench.page.evaluate(MODEL) == [source.replace("kim", "kimi"), kind, metadata]
    keyboard.press("Control+z")
    assert "for" in wait_for_colours(bench, python=True)
    assert bench.page.evaluate(MODEL) == [source, kind, metadata]
    keyboard.press("Control+Shift+z")
    assert wait_for_colours(bench, python=False) == {"%%kimi"}
    keyboard.press("Backspace")
    wait_for_colours(bench, python=True)


def test_the_tab_key_asks_the_kernel(bench: Bench) -> None:
    # The first completion takes longer than the second that front ends wait for one.
    bench.page.evaluate("() => kimi.kernel.requestComplete({ code: 'month', cursor_pos: 5 })")
    write(bench, "%%kimi --max-tok\n{{ month }}")
    wait_for_colours(bench, python=False)
    bench.page.evaluate(CURSOR, [0, 16])
    complete(bench, "--max-tokens")
    wait_for_cells(bench, "%%kimi --max-tokens\n{{ month }}")
    bench.page.evaluate(CURSOR, [0, 28])
    complete(bench, "monthly")
    wait_for_cells(bench, "%%kimi --max-tokens\n{{ monthly }}")


def test_ask_inserts_a_cell_to_write_in(bench: Bench, complained: list[str]) -> None:
    write(bench, "region, south = 1, 2")
    palette(bench, "Ask Kimi")
    wait_for_cells(bench, "region, south = 1, 2", "%%kimi\n")
    type_in(bench, "Why?")
    wait_for_cells(bench, "region, south = 1, 2", "%%kimi\nWhy?")

    write(bench, "region, south = 1, 2")
    bench.page.evaluate(CURSOR, [0, 0])
    bench.page.keyboard.press("Shift+Control+ArrowRight")
    click_button(bench, "Ask Kimi")
    wait_for_cells(bench, "region, south = 1, 2", "%%kimi -v region\n")


def test_ask_loads_the_magics_where_they_are_not(bench: Bench, complained: list[str]) -> None:
    bench.python("%unload_ext kimi_magic")
    write(bench, "")
    click_menu(bench, "Ask Kimi")
    type_in(bench, "Why?")
    wait_for_cells(bench, "", "%load_ext kimi_magic", "%%kimi\nWhy?")
    bench.page.wait_for_function("() => kimi.notebook.widgets[1].model.executionCount")
    bench.wait_for_kernel()
    bench.page.keyboard.type(" How?")
    wait_for_cells(bench, "", "%load_ext kimi_magic", "%%kimi\nWhy? How?")
    assert "'kimi'" in bench.python("print(list(get_ipython().magics_manager.magics['cell']))")


@pytest.mark.parametrize("loaded", [True, False])
def test_fix_and_explain_run_below_the_active_cell(
    bench: Bench, scripted_server: ScriptedServer, complained: list[str], loaded: bool
) -> None:
    if not loaded:
        bench.python("%unload_ext kimi_magic")
    load = "" if loaded else "%load_ext kimi_magic\n"
    scripted_server.reply("By 2.\n\n```python\n1 / 2\n```")
    bench.run("1 / 0")
    bench.page.get_by_text("division by zero").first.wait_for()
    click_button(bench, "Fix the Last Error with Kimi")
    wait_for_cells(bench, "1 / 0", f"{load}%kimi fix", "1 / 2")
    bench.wait_for_record()
    bench.shot(f"extension-fix-{loaded}")
    assert "ZeroDivisionError" in str(scripted_server.requests[-1].body)

    # The active cell, not the last one that ran.
    scripted_server.reply("It divides.")
    number = bench.page.evaluate(
        "() => { kimi.notebook.activeCellIndex = 0;"
        " return kimi.notebook.activeCell.model.executionCount }"
    )
    click_menu(bench, "Explain the Cell with Kimi")
    wait_for_cells(bench, "1 / 0", f"%kimi explain {number}", f"{load}%kimi fix", "1 / 2")
    bench.page.get_by_text("It divides.").first.wait_for()
    bench.wait_for_record()

    # A cell that has not run is sent as it stands there.
    scripted_server.reply("It would halve.")
    bench.page.evaluate("() => { kimi.notebook.activeCellIndex = 3 }")
    palette(bench, "Explain the Cell with Kimi")
    bench.page.get_by_text("It would halve.").first.wait_for()
    bench.wait_for_record()
    assert "```python\\n1 / 2\\n```" in str(scripted_server.requests[-1].body)
    assert bench.strangers == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_button_is_for_everybody(bench: Bench, complained: list[str], theme: str) -> None:
    bench.theme(theme)
    write(bench, "x = 1")
    assert complaints(bench.page, BUTTON) == []
    bench.page.locator(BUTTON).get_by_role("button", name="Kimi").first.evaluate(REACH)
    bench.page.keyboard.press("Enter")
    first = bench.page.get_by_role("menuitem", name="Ask Kimi")
    first.wait_for()
    bench.shot(f"extension-menu-{theme}")
    bench.page.keyboard.press("Escape")
    first.wait_for(state="detached")
    focused = "() => document.activeElement.closest('[data-jp-item-name]')?.dataset.jpItemName"
    assert bench.page.evaluate(focused) == "kimi", "the focus is where it was"
    bench.page.keyboard.press("Enter")
    first.wait_for()
    bench.page.keyboard.press("Enter")
    wait_for_cells(bench, "x = 1", "%%kimi\n")
    bench.theme("light")


def test_no_front_end_complains(open_bench: Bench, front_end: FrontEnd, browser: Any) -> None:
    pages = {"lab": ["lab", "doc/tree/page.ipynb"], "notebook": ["tree", "edit/page.ipynb"]}
    page = browser.new_page()
    said: list[str] = []
    page.on("console", lambda m: said.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    for path in pages[front_end.kind]:
        page.goto(f"{front_end.url}/{path}?token={front_end.token}")
        page.wait_for_function("() => window.jupyterapp?.restored.then(() => true)")
    # Nor one that shares no modules.
    assert page.evaluate(ALONE) == []
    page.close()
    assert foreign(said) == []
