"""``kimi-magic clean``: what is taken out, and that all else keeps its bytes."""

from __future__ import annotations

import copy
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat as nbformat_typed
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_magic.core.errors import KimiError
from kimi_magic.core.events import ContentDelta, Event, ReasoningDelta, ToolFinished, ToolStarted
from kimi_magic.core.messages import Output, ToolCall, ToolResult
from kimi_magic.display.record import make_record
from kimi_magic.display.timeline import Timeline
from kimi_magic.display.view import ViewOptions
from kimi_magic.jupyter import cli
from kimi_magic.jupyter.clean import Mode, clean_notebook
from tests.turns import OPENING, STOP

nbformat: Any = nbformat_typed  # half typed
v4 = nbformat.v4
MODES: tuple[Mode, ...] = ("turns", "keep-answers", "all")
PAGE = Output({"text/html": "<table><tr><td>cell</td></tr></table>"}, {})
EVENTS: tuple[Event, ...] = (
    *OPENING,
    ReasoningDelta("A thought with </details> in it."),
    ToolStarted(0, ToolCall("c", "forecast", '{"month": "May"}')),
    ToolFinished(0, ToolResult("forecast", "a finding", outputs=(PAGE,))),
    ContentDelta("The **answer** is <details>9.9</details>."),
    STOP,
)
FOREIGN = {
    "text/html": "<details><summary>mine</summary>kept</details>",
    "application/json": {"small": 1e-07, "big": 12345678901234567890, "odd": [1.50, -0.0]},
}


def a_record() -> Any:
    timeline = Timeline()
    for event in EVENTS:
        timeline.apply(event)
    options = ViewOptions(portable=lambda record: {"version": 2, "prompt": "the turn"})
    bundle = make_record(timeline, options)
    return v4.new_output("display_data", bundle.data, metadata=bundle.metadata)


def a_notebook() -> Any:
    cells = [
        v4.new_markdown_cell("# Ä title", id="a"),
        v4.new_code_cell("%%kimi\nHi", id="b", execution_count=1, outputs=[a_record()]),
        v4.new_code_cell(
            "kimi.ask('x'); show()",
            id="c",
            outputs=[a_record(), v4.new_output("display_data", FOREIGN, metadata={"x": 1})],
        ),
        v4.new_code_cell(
            "%kimi chats", id="d", outputs=[v4.new_output("stream", name="stdout", text="main")]
        ),
        v4.new_code_cell(
            "print(1)", id="e", outputs=[v4.new_output("stream", name="stdout", text="1\n")]
        ),
    ]
    return v4.new_notebook(cells=cells, metadata={"x": "\x7f\u2028"})


def text_of(notebook: Any) -> str:
    return str(nbformat.writes(notebook)) + "\n"


def clean(text: str, mode: Mode = "turns") -> str:
    return clean_notebook(text.encode("utf-8", "surrogatepass"), "x.ipynb", mode)[0].decode()


def outputs_of(text: str) -> list[Any]:
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def test_the_turns_alone_go_by_default() -> None:
    before = a_notebook()
    after = copy.deepcopy(before)
    for cell in after.cells:
        for output in cell.get("outputs", ()):
            output.get("metadata", {}).pop("kimi_magic", None)
    assert clean(text_of(before)) == text_of(after)


def test_answers_may_be_all_that_is_kept() -> None:
    cleaned = clean(text_of(a_notebook()), "keep-answers")
    for word in ("thought", "forecast", "finding", "cell<", "the turn", "kimi_magic"):
        assert word not in cleaned, word
    record, _, foreign, *_ = outputs_of(cleaned)
    page = record.data["text/html"]
    assert "<strong>answer</strong> is &lt;details&gt;9.9&lt;/details&gt;" in page
    assert page.startswith("<div>\n<div")
    assert page.count("<div") == page.count("</div>")
    text = "The answer is <details>9.9</details>.\n\nkimi-k2-thinking"
    assert record.data["text/plain"] == text
    assert "kept" in foreign.data["text/html"]


def test_all_outputs_of_ours() -> None:
    left = outputs_of(clean(text_of(a_notebook()), "all"))
    assert [output.output_type for output in left] == ["display_data", "stream"]
    assert left[0].data["text/html"] == FOREIGN["text/html"]


@pytest.mark.parametrize("mode", MODES)
def test_what_was_cleaned_of_turns_is_still_known(mode: Mode) -> None:
    text = text_of(a_notebook())
    assert clean(clean(text), mode) == clean(text, mode)
    assert clean(clean(text, mode), mode) == clean(text, mode)


def test_a_chat_that_was_shown() -> None:
    page = '<div>\n<div style="x">Prompt</div>\n<details style="y">why</details>\nAnswer</div>'
    shown = v4.new_output("display_data", {"text/html": page, "text/plain": "x"})
    text = text_of(v4.new_notebook(cells=[v4.new_code_cell("%kimi chat", outputs=[shown])]))
    (output,) = outputs_of(clean(text, "keep-answers"))
    assert output.data["text/html"] == '<div>\n<div style="x">Prompt</div>\nAnswer</div>'


def as_vs_code(text: str) -> str:
    return json.dumps(json.loads(text), indent=1, ensure_ascii=False)


LAYOUTS: dict[str, Callable[[str], str]] = {
    "Jupyter": str,
    "without a last line break": str.rstrip,
    "CRLF": lambda text: text.replace("\n", "\r\n"),
    "a byte order mark": lambda text: f"\ufeff{text}",
    "two spaces": lambda text: json.dumps(json.loads(text), indent=2),
    "a tab": lambda text: json.dumps(json.loads(text), indent="\t", ensure_ascii=False),
    "one line": lambda text: json.dumps(json.loads(text)),
    "compact": lambda text: json.dumps(json.loads(text), separators=(",", ":")),
    "numbers of JavaScript": lambda text: text.replace("1e-07", "1e-7").replace("-0.0", "-0"),
    "digits that were written": lambda text: text.replace("1.5,", "1.500E0,"),
    "half a code point": lambda text: text.replace("title", "title \\ud83d"),
    "not a number": lambda text: text.replace("1e-07", "NaN"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_other_byte_stays(layout: str) -> None:
    lay = LAYOUTS[layout]
    notebook = a_notebook()
    before = lay(text_of(notebook))
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            output.get("metadata", {}).pop("kimi_magic", None)
    assert clean(before) == lay(text_of(notebook))
    untouched = lay(text_of(v4.new_notebook(cells=[notebook.cells[-1]])))
    assert clean(untouched, "all") == untouched


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=9,
)


@given(VALUES, st.sampled_from(MODES))
def test_any_notebook_keeps_what_is_not_ours(value: Any, mode: Mode) -> None:
    notebook = {"cells": [{"outputs": value, "source": value}, {"metadata": value}], "nbformat": 4}
    text = json.dumps(notebook, indent=1, ensure_ascii=False)
    assert clean(text, mode) == text
    notebook["cells"].append(  # type: ignore[attr-defined]
        {"outputs": [{"metadata": {"kimi_magic": value}, "data": value}], "source": value}
    )
    once = clean(json.dumps(notebook), mode)
    assert "kimi_magic" not in once
    assert clean(once, mode) == once


@pytest.mark.parametrize("data", [b"{", b"[]", b'{"nbformat": 3}', b"<<<<<<< HEAD\n{}", b"\xff"])
def test_what_is_no_notebook(data: bytes) -> None:
    with pytest.raises(KimiError, match=r"^x\.ipynb is"):
        clean_notebook(data, "x.ipynb")


class TestCommand:
    def test_files_are_cleaned_in_their_place(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        one, two = tmp_path / "1.ipynb", tmp_path / "2.ipynb"
        one.write_text(text_of(a_notebook()), "utf-8")
        one.chmod(0o640)
        two.write_text("{")
        assert cli.main(["clean", "--keep-answers", str(one), str(two)]) == 1
        said = capsys.readouterr()
        assert "2 outputs cleaned" in "".join(said.out.split("\n"))
        assert said.err == "kimi-magic: 2.ipynb is no notebook: it is not JSON, or not whole.\n"
        assert "thought" not in one.read_text("utf-8")
        assert one.stat().st_mode & 0o777 == 0o640
        stamp = one.stat().st_mtime_ns
        assert cli.main(["clean", "--keep-answers", str(one)]) == 0
        assert one.stat().st_mtime_ns == stamp, "nothing to do"

    def test_a_pipe(self, monkeypatch: pytest.MonkeyPatch, capfdbinary: Any) -> None:
        text = text_of(a_notebook())
        for data in (text.encode(), b""):
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
            assert cli.main(["clean", "-"]) == 0
        assert capfdbinary.readouterr().out == clean(text).encode()

    def test_the_recipe_for_git(self, tmp_path: Path) -> None:
        """The lines of docs/notebooks.md, word for word."""
        document = (Path(__file__).parents[2] / "docs" / "notebooks.md").read_text("utf-8")
        _, recipe, *_ = document.split("```sh\n# git")
        recipe = recipe.partition("\n")[2].partition("```")[0]
        command = tmp_path / "bin" / "kimi-magic"
        command.parent.mkdir()
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -m kimi_magic.jupyter.cli "$@"\n')
        command.chmod(0o755)
        work = tmp_path / "work"
        work.mkdir()
        environment = os.environ | {
            "PATH": f"{command.parent}:{os.environ['PATH']}",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_SYSTEM": os.devnull,
        }

        def run(*words: str) -> str:
            return subprocess.run(
                words, cwd=work, env=environment, capture_output=True, encoding="utf-8", check=True
            ).stdout

        run("git", "init", "-q")
        run("sh", "-ec", recipe)
        path = work / "lesson.ipynb"
        text = text_of(a_notebook())
        path.write_text(text, "utf-8")
        run("git", "add", ".")
        assert run("git", "show", ":lesson.ipynb") == clean(text)
        assert path.read_text("utf-8") == text, "the notebook here keeps its turns"
        for name in ("name", "email"):
            run("git", "config", f"user.{name}", "x")
        run("git", "commit", "-qm", "x")
        assert run("git", "status", "--porcelain") == ""
        path.write_text(text.replace("title", "heading"), "utf-8")
        run("git", "stash")
        assert path.read_text("utf-8") == clean(text), "what was committed"
        run("git", "stash", "pop")
        assert path.read_text("utf-8") == clean(text.replace("title", "heading"))
