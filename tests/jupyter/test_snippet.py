"""``%kimi snippet`` and ``kimi.snippet``: the program of a turn that was taken in a kernel."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kimi_magic.testing import ScriptedServer
from tests.kernels import Kernel


def test_the_program_sends_what_the_turn_sent(
    kernel: Kernel, asked: ScriptedServer, tmp_path: Path
) -> None:
    kernel.run("def add(a: int, b: int) -> int:\n    'Add.'\n    return a + b\n")
    asked.reply("Hello.")
    kernel.run("%%kimi --temperature 0.5\nHi")
    call = {"name": "add", "arguments": {"a": 2, "b": 3}}
    asked.reply(reasoning="I add.", tool_calls=[call])
    asked.reply("Five.", reasoning="So.")
    kernel.run("%%kimi -T add --max-tokens 99 --seed 7\nAdd 2 and 3.")
    program = tmp_path / "turn.py"
    kernel.run(f"%kimi snippet --chat --out {program}")
    asked.reply(reasoning="I add.", tool_calls=[call])
    asked.reply("Five.", reasoning="So.")
    ran = subprocess.run(
        [sys.executable, str(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"PYTHONUTF8": "1"},
    )
    assert ran.returncode == 0, ran.stderr
    assert "Five." in ran.stdout
    of_turn, of_program = asked.requests[1:3], asked.requests[3:]
    assert [r.body for r in of_program] == [r.body for r in of_turn]


@pytest.mark.parametrize(
    ("line", "words", "next_cell"),
    [
        ("%kimi snippet", "from openai import OpenAI", True),
        ("%kimi snippet langchain -c other --turn 1", "First question", True),
        ("%kimi snippet node", "for await", False),
        ("%kimi snippet curl", "curl", False),
    ],
)
def test_forms(
    kernel: Kernel, asked: ScriptedServer, line: str, words: str, next_cell: bool
) -> None:
    for prompt in ("First question", "Second question"):
        asked.reply("OK.")
        kernel.run(f"%%kimi -c other\n{prompt}")
    ran = kernel.run(line)
    assert words in ran.record["text/plain"]
    texts = [p["text"] for p in ran.reply["payload"] if p["source"] == "set_next_input"]
    assert texts == ([ran.record["text/plain"]] if next_cell else [])
    assert "<<'EOF'" in kernel.run("print(kimi.snippet(kimi.last, 'curl'))").stdout


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("%kimi snippet", "no turn yet"),
        ("%kimi snippet -c other", "No chat is named"),
        ("%kimi snippet --turn 3", "0 turns"),
        ("%kimi snippet -c main --turn 0", "--turn counts from 1"),
        ("%kimi snippet --trun 3", "--trun"),
        ("%kimi snippet curl node", "'node' is one word too many"),
        ("kimi.snippet(kimi.Reply())", "sent nothing"),
    ],
)
def test_what_cannot_be_exported(kernel: Kernel, line: str, words: str) -> None:
    ran = kernel.run(line, ok=False)
    assert words in ran.error
    assert len(ran.error.splitlines()) <= 4


def test_a_file_that_cannot_be_written(kernel: Kernel, asked: ScriptedServer) -> None:
    asked.reply("OK.")
    kernel.run("%%kimi\nHi")
    error = kernel.run("%kimi snippet --out nowhere/turn.py", ok=False).error
    assert "nowhere/turn.py cannot be written: No such file" in error
    assert len(error.splitlines()) == 1


def test_an_unknown_form(kernel: Kernel, asked: ScriptedServer) -> None:
    asked.reply("OK.")
    kernel.run("%%kimi\nHi")
    assert "python, langchain, node, curl" in kernel.run("%kimi snippet perl", ok=False).error


def test_a_masked_secret_stays_masked_and_is_named(kernel: Kernel, asked: ScriptedServer) -> None:
    asked.reply("OK.")
    kernel.run("token = 'sk-' + 'aB3' * 12")
    kernel.run("%%kimi --allow-secrets\n{{ token }}")
    text = kernel.run("%kimi snippet").record["text/plain"]
    assert "aB3aB3" not in text
    assert "messages[1] holds [masked]" in text


def test_the_practice_model_does_not_leave_the_kernel(kernel: Kernel) -> None:
    kernel.run("%%kimi -e local --max-tokens 5\nHi")
    assert (
        "The practice model lives in the kernel alone"
        in kernel.run("print(kimi.snippet(kimi.last))").stdout
    )


def test_one_turn_and_no_data_by_default(kernel: Kernel, asked: ScriptedServer) -> None:
    mail = "{'name': 'Ann', 'mail': 'ann@' + 'example.org'}"
    kernel.run(f"rows = [{mail}] * 3\nnumber = get_ipython().execution_count\nrows")
    number = kernel.run("print(number)").stdout.strip()
    for cell in ("First question", "{{ rows }} and {{ 6 * 7 }}: why?"):
        asked.reply("OK.")
        kernel.run(f"%%kimi -v rows --cells {number}\n{cell}")
    text = kernel.run("%kimi snippet").record["text/plain"]
    assert "ann@example.org" not in text
    assert "First question" not in text
    assert "[data left out: rows]" in text
    assert "[data left out: output of cell " in text
    assert "and 42: why?" in text
    for line in ("%kimi snippet --with-data", "print(kimi.snippet(kimi.last, with_data=True))"):
        ran = kernel.run(line)
        shown = ran.stdout or ran.record["text/plain"]
        assert "data left out" not in shown
        assert "First question" not in shown
    whole = kernel.run("%kimi snippet --chat").record["text/plain"]
    assert "First question" in whole
    assert whole.count("[data left out: rows]") == 2
