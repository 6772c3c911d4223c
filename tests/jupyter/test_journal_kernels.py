"""The journal of real kernels: killed in the middle of a turn, interrupted, two at once."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from kimi_magic.chats.journal_file import JournalFile
from kimi_magic.chats.journal_fragments import LOST
from kimi_magic.testing import ScriptedServer
from tests.chats.journals import records, stored
from tests.kernels import Kernel

TURNS = 500


@pytest.fixture
def path(
    tmp_path: Path, scripted_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    path = tmp_path / "kimi-magic" / "journal.sqlite3"
    monkeypatch.setenv("KIMI_JOURNAL", str(path))
    monkeypatch.setenv("KIMI_BASE_URL", scripted_server.base_url)
    monkeypatch.setenv("JPY_SESSION_NAME", str(tmp_path / "lesson.ipynb"))
    yield path
    with JournalFile.open(path).connection as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def shown(message: dict[str, Any]) -> str:
    """The text that a message adds to the live view."""
    data = message["content"].get("data", {}) if message["msg_type"] == "comm_msg" else {}
    ops = (data.get("content") or {}).get("ops", [])
    return "".join(op["text"] for op in ops if op["op"] == "append")


def kill_after(kernel: Kernel, code: str, pieces: int) -> None:
    """Run a cell and end its kernel, SIGKILL, when so many pieces are shown, and a second later."""
    provisioner: Any = kernel._manager.provisioner
    seen = 0

    class Killed(Exception):
        pass

    def watch(message: dict[str, Any]) -> None:
        nonlocal seen
        seen += len(shown(message).split())
        if seen >= pieces:
            time.sleep(1.0)  # what is lost is at most the last half second
            os.killpg(provisioner.pid, signal.SIGKILL)
            raise Killed

    with pytest.raises(Killed):
        kernel.run(code, allow_stdin=True, watch=watch, cell="c1")
    provisioner.process.wait(10)


def test_what_was_shown_survives_a_sigkill(scripted_server: ScriptedServer, path: Path) -> None:
    reasoning = " ".join(f"thought{n}" for n in range(20))
    answer = " ".join(f"word{n}" for n in range(60))
    tool = {"name": "look", "arguments": {"n": 1}}
    scripted_server.reply("First.", reasoning="I know.")
    scripted_server.reply("I look.", reasoning="I must look.", tool_calls=[tool])
    scripted_server.reply(answer, reasoning=reasoning, rate=100, stall_after=50)
    with Kernel() as kernel:
        kernel.run(
            "%load_ext kimi_magic\ndef look(n: int) -> int:\n    'Look.'\n    return n + 1\n"
            "%kimi tools add look"
        )
        kernel.run("%%kimi\nHello")
        kill_after(kernel, "%%kimi\nCount", 50)
    assert [state for (state,) in stored(path, "SELECT state FROM records")] == ["done", "running"]
    journal = JournalFile.open(path)
    assert journal.recover() == 1
    journal.close()
    first, lost = records(path)
    assert (first.text, first.failure) == ("First.", None)
    assert lost.failure == LOST
    assert (lost.prompt, lost.cell, lost.chat) == ("Count", "c1", "main")
    assert [result.content for result in lost.steps[0].tool_results] == ["2"]
    # All that the server had sent before it stopped.
    sent = 50
    assert lost.steps[1].reasoning == reasoning
    assert lost.text.split() == answer.split()[: len(lost.text.split())]
    assert len(lost.text.split()) in range(sent - 22, sent - 18)
    assert stored(path, "SELECT name, notebook, ended FROM chats") == [
        ("main", str(path.parent.parent / "lesson.ipynb"), None)
    ]
    # The chat goes on with it: the scripted server refuses what a server would.
    with Kernel() as kernel:
        scripted_server.reply("I go on.")
        kernel.run(
            f"""
%load_ext kimi_magic
import json, sqlite3, kimi_magic as kimi
from kimi_magic.chats.chat import ChatTurn
rows = sqlite3.connect({str(path)!r}).execute("SELECT record FROM records").fetchall()
for (text,) in rows:
    reply = kimi.Reply.from_dict(json.loads(text))
    kimi.chat()._turns.append(ChatTurn(reply.record.prompt, reply))
kimi.chat().ask("Go on", show=False)
"""
        )


def test_interrupts_lose_no_row(scripted_server: ScriptedServer, path: Path) -> None:
    with Kernel() as kernel:
        kernel.run("%load_ext kimi_magic")
        for _ in range(4):
            scripted_server.reply("one two three four five six seven eight", rate=8)
            times = [1]  # a second one may come to ipykernel itself, when the cell has ended

            def watch(message: dict[str, Any], times: list[int] = times) -> None:
                if shown(message) and times:
                    times.pop()
                    kernel.interrupt()

            ran = kernel.run("%%kimi\nCount", ok=False, allow_stdin=True, watch=watch)
            assert ran.status == "error"
        scripted_server.reply("And on.")
        kernel.run("%%kimi\nGo on")
        kernel.run("import kimi_magic.session as s; assert s.current().journal_writer.flush(20)")
        states = [state for (state,) in stored(path, "SELECT state FROM records ORDER BY id")]
        assert states == ["stopped"] * 4 + ["done"]
    assert len({turn.started for turn in records(path)}) == 5


def test_two_kernels_write_at_once(scripted_server: ScriptedServer, path: Path) -> None:
    for _ in range(2 * TURNS):
        scripted_server.reply("9.9 is bigger.", reasoning="Compare the tenths.")
    code = f"""
import kimi_magic as kimi, kimi_magic.session as s
kimi.settings.retries = 0
for n in range({TURNS}):
    kimi.ask(f"Turn {{n}}", show=False, chat=None)
assert s.current().journal_writer.flush(60)
print(s.current().journal_writer.notices)
"""
    with ExitStack() as stack:
        one, other = (stack.enter_context(Kernel()) for _ in range(2))
        other._execute(code, "", allow_stdin=False)
        ran = one.run(code, timeout=110)
        assert ran.stdout + ran.stderr == "deque([])\n"
        end = "print(n, s.current().journal_writer.notices)"
        assert other.run(end, timeout=110).stdout == f"{TURNS - 1} deque([])\n"
    rows = stored(
        path,
        "SELECT kernel, count(*), count(DISTINCT prompt) FROM records "
        "JOIN turns USING (id) WHERE records.state = 'done' GROUP BY kernel",
    )
    assert [row[1:] for row in rows] == [(TURNS, TURNS)] * 2
    assert stored(path, "SELECT count(*) FROM turn_texts('tenths')") == [(2 * TURNS,)]
    assert stored(path, "SELECT count(*) FROM fragments") == [(0,)]
