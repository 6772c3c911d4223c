"""A turn in terminal IPython, typed key by key."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any

import pytest

from kimi_magic.testing import ScriptedServer

pexpect = pytest.importorskip("pexpect", reason="no pseudo-terminals on this system")


def spawn(server: ScriptedServer, *command: str) -> Any:
    own = {"KIMI_BASE_URL": server.base_url, "TERM": "dumb", "COLUMNS": "80"}
    own["KIMI_MODEL"] = "kimi-k2-thinking"
    return pexpect.spawn(
        sys.executable,
        list(command),
        env=os.environ | own,
        encoding="utf-8",
        timeout=60,
        dimensions=(40, 80),
    )


def typed(terminal: Any, lines: Iterable[tuple[str, str]]) -> str:
    """Type a line behind each prompt; return all that the terminal shows until it ends."""
    shown = ""
    try:
        for prompt, line in lines:
            terminal.expect(prompt)
            shown += terminal.before
            terminal.sendline(line)
        terminal.expect(pexpect.EOF)
        return shown + str(terminal.before)
    finally:
        terminal.close(force=True)


IPYTHON = ("-m", "IPython", "--simple-prompt", "--no-banner", "--colors=NoColor")


def test_a_cell_typed_in_a_terminal(scripted_server: ScriptedServer) -> None:
    """The reply is not printed below its view; it is where IPython keeps values all the same."""
    scripted_server.reply("It is **9.9**.", reasoning="Compare the tenths.")
    scripted_server.reply("Once more.")
    scripted_server.reply("Unseen.")
    terminal = spawn(scripted_server, *IPYTHON, "--no-confirm-exit")
    shown = typed(
        terminal,
        [
            ("In .1.: ", "%load_ext kimi_magic"),
            ("In .2.: ", "%%kimi"),
            (r"\.\.\.: ", "Which one is bigger,"),
            (r"\.\.\.: ", "9.11 or 9.9?"),
            (r"\.\.\.: ", ""),
            (r"\.\.\.: ", ""),
            ("In .3.: ", "print('kept', _ is _2 is Out[2], _.text)"),
            ("In .4.: ", "import kimi_magic as kimi; kimi.ask('Again?')"),
            ("In .5.: ", "kimi.ask('Hidden?', show=False)"),
            ("In .6.: ", "_4"),
            ("In .7.: ", "exit"),
        ],
    )
    sent = scripted_server.requests[0].body["messages"][-1]["content"]
    assert sent == "Which one is bigger,\n9.11 or 9.9?"
    assert "Compare the tenths." in shown
    assert "kept True It is **9.9**." in shown
    assert "Out[2]: " not in shown
    assert "Out[4]: " not in shown
    assert shown.count("Once more.") == 2  # where it was asked, and in Out[6]
    assert "Out[5]: Reply('Unseen.'" in shown
    assert "Out[6]: Reply('Once more.'" in shown


def test_code_from_the_command_line(scripted_server: ScriptedServer) -> None:
    """No extension is loaded, and no cell is counted."""
    scripted_server.reply("It is 9.9.")
    code = "import kimi_magic as kimi; kimi.ask('Which?')"
    shown = typed(spawn(scripted_server, *IPYTHON, "-c", code), [])
    assert shown.count("It is 9.9.") == 1
    assert "Out[" not in shown


def test_jupyter_console(scripted_server: ScriptedServer) -> None:
    """It prints what is displayed and takes no updates: text as it comes, questions, no repr."""
    pytest.importorskip("jupyter_console")
    scripted_server.reply("It is **9.9**.", reasoning="Compare the tenths.")
    scripted_server.reply(tool_calls=[{"name": "one"}])
    scripted_server.reply("It is one.")
    terminal = spawn(scripted_server, "-m", "jupyter_console", "--simple-prompt")
    shown = typed(
        terminal,
        [
            (r"In .1.: ", "%load_ext kimi_magic"),
            (r"In .2.: ", "%kimi ask Which one is bigger?"),
            (r"In .3.: ", "one = lambda: 1"),
            (r"In .4.: ", "%kimi ask --approve ask -T one Which?"),
            (r"\[y\]es.*: ", "y"),
            (r"In .5.: ", "exit"),
        ],
    )
    for once in ("Compare the tenths.", "It is **9.9**.", "It is one."):
        assert shown.count(once) == 1
    for never in ("A turn is running", "Reply(", "TurnWidget"):
        assert never not in shown


def test_python_without_ipython(scripted_server: ScriptedServer) -> None:
    for text in ("First.", "Second.", "Third.", "Fourth."):
        scripted_server.reply(text)
    terminal = spawn(scripted_server, "-q", "-i", "-c", "import kimi_magic as kimi")
    shown = typed(
        terminal,
        [
            (">>> ", "kimi.ask('One?')"),
            (">>> ", "second = kimi.ask('Two?')"),
            (">>> ", "second"),
            (">>> ", "kimi.ask('Three?', show=False)"),
            (">>> ", "for _ in range(1): kimi.ask('Four?')"),
            (r"\.\.\. ", ""),
            (">>> ", "exit()"),
        ],
    )
    assert "Reply('First.'" not in shown
    assert shown.count("Reply('Second.'") == 1
    assert shown.count("Reply('Third.'") == 1
    assert "Fourth." in shown
    assert "Reply('Fourth.'" not in shown
