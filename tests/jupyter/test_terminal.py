"""A turn in terminal IPython, typed key by key."""

from __future__ import annotations

import os
import sys

import pytest

from kimi_magic.testing import ScriptedServer

pexpect = pytest.importorskip("pexpect", reason="no pseudo-terminals on this system")


def test_a_cell_typed_in_a_terminal(scripted_server: ScriptedServer) -> None:
    scripted_server.reply("It is **9.9**.", reasoning="Compare the tenths.")
    own = {"KIMI_BASE_URL": scripted_server.base_url, "TERM": "xterm", "COLUMNS": "80"}
    own["KIMI_MODEL"] = "kimi-k2-thinking"
    terminal = pexpect.spawn(
        sys.executable,
        [
            "-m",
            "IPython",
            "--simple-prompt",
            "--no-banner",
            "--colors=NoColor",
            "--no-confirm-exit",
        ],
        env=os.environ | own,
        encoding="utf-8",
        timeout=60,
        dimensions=(40, 80),
    )
    try:
        for prompt, line in [
            ("In .1.: ", "%load_ext kimi_magic"),
            ("In .2.: ", "%%kimi"),
            (r"\.\.\.: ", "Which one is bigger,"),
            (r"\.\.\.: ", "9.11 or 9.9?"),
            (r"\.\.\.: ", ""),
            (r"\.\.\.: ", ""),
        ]:
            terminal.expect(prompt)
            terminal.sendline(line)
        terminal.expect("Reasoning")
        terminal.expect("Compare the tenths.")
        terminal.expect("9.9")
        terminal.expect(r"Out.2.: Reply\('It is \*\*9.9\*\*.'")
        terminal.expect("In .3.: ")
        terminal.sendline("exit")
        terminal.expect(pexpect.EOF)
    finally:
        terminal.close(force=True)
    sent = scripted_server.requests[0].body["messages"][-1]["content"]
    assert sent == "Which one is bigger,\n9.11 or 9.9?"
