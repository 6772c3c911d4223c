"""The journal in a kernel: a chat goes on after the kernel's end, turns are found and forgotten."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kimi_magic.chats.journal import Journal
from kimi_magic.core.processes import process_name
from kimi_magic.jupyter import cli
from kimi_magic.testing import ScriptedServer
from tests.kept_turns import keep, record, spoil
from tests.kernels import Kernel


class _Killed(Exception):
    """The kernel is gone in the middle of a cell."""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The journal of every kernel that starts here, in the folder of its notebook."""
    monkeypatch.setenv("KIMI_JOURNAL", str(tmp_path / "of" / "journal.sqlite3"))
    monkeypatch.setenv("JPY_SESSION_NAME", str(tmp_path / "lesson.ipynb"))
    return tmp_path / "of" / "journal.sqlite3"


@pytest.fixture
def here(tmp_path: Path) -> str:
    return str(tmp_path.resolve() / "lesson.ipynb")


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch, scripted_server: ScriptedServer) -> ScriptedServer:
    monkeypatch.setenv("KIMI_BASE_URL", scripted_server.base_url)
    return scripted_server


def kill_in_mid_stream(kernel: Kernel, cell: str) -> None:
    """Ask in a cell, and kill the kernel when a part of the answer is on the page."""
    pid = int(kernel.run("import os; print(os.getpid())").stdout)

    def watch(message: dict[str, Any]) -> None:
        if "Once upon" in str(message["content"]):
            time.sleep(1)
            os.kill(pid, signal.SIGKILL)
            raise _Killed

    with pytest.raises(_Killed):
        kernel.run("%%kimi\nTell a story", cell=cell, watch=watch, allow_stdin=True)


def sent(server: ScriptedServer) -> list[str]:
    """The texts of the latest request, without the system prompt."""
    messages = server.requests[-1].body["messages"]
    return [m.get("content") for m in messages if m["role"] != "system"]


def prompts(kernel: Kernel, chat: str = "main") -> list[str]:
    shown = kernel.run(f"print(*[t.prompt for t in kimi.chat({chat!r}).turns], sep='|')").stdout
    return shown.strip().split("|")


def test_a_chat_goes_on_after_the_end_of_its_kernel(
    path: Path, here: str, serving: ScriptedServer
) -> None:
    """Input: two turns, a third that is killed in mid-stream. Holds: all three go on elsewhere."""
    serving.reply("Hello.", reasoning="They greet.")
    serving.reply("It is 3.")
    serving.reply("Once upon a time there was a " + "very " * 500, rate=40)
    with Kernel() as kernel:
        assert kernel.run("%load_ext kimi_magic").stdout == "", "there is no file yet"
        kernel.run("%%kimi\nHi", cell="a")
        kernel.run("%%kimi\n1 + 2?", cell="b")
        kill_in_mid_stream(kernel, "c")
    serving.reply(" And so it ended.")
    serving.reply("It is 3, as I said.")
    serving.reply("Bye.")
    with Kernel() as kernel:
        offered = kernel.run("%load_ext kimi_magic", allow_stdin=True).stdout
        assert re.fullmatch(
            r"main: 3 turns from \d\d:\d\d - `%kimi resume` goes on with it\n", offered
        )
        assert kernel.run("%reload_ext kimi_magic").stdout == ""
        kernel.run("import kimi_magic as kimi")
        line = kernel.run("%kimi resume").stdout
        assert re.match(r"main: 3 turns from \d\d:\d\d are back; the last ended with its ", line)
        assert "`%kimi continue` goes on" in line
        assert "[TurnLost]" in kernel.run("%kimi chat").record["text/plain"]
        error = kernel.run("%kimi resume", ok=False).error
        assert "has turns here already: `%kimi reset` ends it" in error
        assert "messages" in kernel.run("%kimi snippet --turn 1").record["text/plain"]
        assert kernel.run("print(len(kimi.chat().messages))").stdout == "7\n"

        kernel.run("%kimi continue", cell="d")
        assert sent(serving)[:5] == ["Hi", "Hello.", "1 + 2?", "It is 3.", "Tell a story"]
        assert any(text.startswith("Once upon a time") for text in sent(serving))
        ran = kernel.run("%%kimi\n1 + 2, again?", cell="b")
        assert sent(serving) == ["Hi", "Hello.", "1 + 2, again?"]
        assert "2 later turns were set aside" in ran.record["text/plain"]
        assert prompts(kernel) == ["Hi", "1 + 2, again?"]
        kernel.run("%%kimi\nBye", cell="e")
        log = kernel.run("%kimi log --here").stdout.splitlines()
        assert [line.split()[2] for line in log[1:]] == "done done lost done done done".split()
        assert {line.split()[3] for line in log[1:]} == {"main"}
        (stored,) = Journal(path).chats(here)
        assert stored.turns == 3, "the same conversation goes on"

    with Kernel() as kernel:
        offered = kernel.run("%load_ext kimi_magic", allow_stdin=True).stdout
        assert offered.startswith("main: 3 turns from ")
        kernel.run("import kimi_magic as kimi\nassert kimi.resume() is kimi.chat()")
        assert prompts(kernel) == ["Hi", "1 + 2, again?", "Bye"]


def test_forgotten_for_good(path: Path, here: str, serving: ScriptedServer) -> None:
    """Input: chats of two kernels, one of which is alive and writes. Holds: no byte is left."""
    hay = [f"needle{n} " + f"straw{n} " * (50 * n) for n in range(1, 40)]
    keep(path, [record(text, text.upper(), reasoning=text) for text in hay], notebook=here)
    keep(path, [record("kept", "this one")], notebook="/other.ipynb", chat="main")
    serving.reply("What a needleX that is.", reasoning="A needleY it is.")
    serving.reply("New.")
    with Kernel() as kernel:
        kernel.run("%load_ext kimi_magic\nimport kimi_magic as kimi")
        kernel.run("%kimi resume")
        kernel.run("%%kimi\nFind the needleZ", cell="z")
        said = kernel.run("%kimi forget main").stdout
        assert re.match(r"Deleted for good: 40 turns, 1 chat, [\d.,]+ [kM]B\.\n", said)
        assert "This kernel holds it still, until `%kimi reset CHAT`: main." in said
        files = list(path.parent.iterdir())
        assert {f.name.removeprefix(path.name) for f in files} <= {"", "-wal", "-shm"}
        for file in files:
            data = file.read_bytes().lower()
            assert b"needle" not in data
            assert b"straw" not in data
            assert here.encode() not in data
        assert kernel.run("%kimi log --here").stdout.startswith("No turn fits.")
        kernel.run("%%kimi\nAnd now?", cell="y")
        assert len(sent(serving)) == 2 * 40 + 1, "the chat itself goes on"
        log = kernel.run("%kimi log").stdout
        assert len(log.splitlines()) == 3
        assert "And now?" in log
        assert all(b"needle" not in f.read_bytes() for f in path.parent.iterdir())


@pytest.fixture
def shell(kernel: Kernel, path: Path, here: str) -> Iterator[Kernel]:
    """The shared kernel, with its journal there."""
    kernel.run(f"%env KIMI_JOURNAL={path}\n%env JPY_SESSION_NAME={here}")
    yield kernel
    kernel.run("%env KIMI_JOURNAL=off\n%env JPY_SESSION_NAME=")


HOSTILE = "\x1b[31mred\x1b[0m <script>alert(1)</script> \u202egnp.exe \x07"


def test_hostile_rows_are_one_line_each(shell: Kernel, path: Path, here: str) -> None:
    """Input: escapes, HTML, bidi, bad JSON, a later version. Holds: a line each, others work."""
    numbers = keep(
        path,
        [
            record(HOSTILE, HOSTILE),
            record("huge " * 200_000, "x" * 1_000_000),
            *[record(f"spoilt {n}", "x") for n in range(5)],
            record("good one", "works"),
        ],
        chat=f"ma{HOSTILE}\nin",
        notebook=f"{here}{HOSTILE}\n",
    )
    texts: list[str | bytes] = [
        "{",
        '{"version": 99, "prompt": "later"}',
        "[]",
        b"\xff\xfe",
        '{"version": 2, "steps": 7}',
    ]
    for number, text in zip(numbers[2:7], texts, strict=True):
        spoil(path, number, text)
    shown = shell.run("%kimi log").stdout
    assert len(shown.splitlines()) == 9
    assert all(char.isprintable() or char == "\n" for char in shown)
    assert max(map(len, shown.splitlines())) < 400
    assert "(A newer kimi-magic wrote this record" in shown
    assert shown.count("(This is no record of a turn") == 3
    assert "good one" in shell.run("%kimi log works").stdout
    for number in numbers[2:7]:
        error = shell.run(f"%kimi show {number}", ok=False).error
        assert re.match("KimiError: (This is no record|A newer kimi-magic)", error)
    for number in numbers[:2]:
        ran = shell.run(f"%kimi show {number}")
        assert "\x1b" not in ran.stdout + str(ran.record)
        assert "<script" not in ran.record["text/html"]
        assert len(ran.stdout) < 10_000
    count = "print(len(list(kimi.journal.turns())), len(kimi.journal.to_pandas()))"
    ran = shell.run(count)
    assert ran.stdout == "3 6\n"
    assert ran.stderr.count("of the journal is left out") == 5


def test_mistakes_and_their_lines(shell: Kernel, path: Path, here: str) -> None:
    lines = {
        "%kimi show": "Which turn?",
        "%kimi show 12": "The journal has no turn 12: `%kimi log` lists its latest turns.",
        "%kimi log --since soon": "'soon' is no time",
        "%kimi log -n 0": "-n takes a number of at least 1",
        "%kimi log --wat": "has no option --wat",
        "%kimi forget": "Forget what?",
        "%kimi forget main --turn 3": "Forget what?",
        "%kimi forget --turn 3": "no turn 3",
        "%kimi forget --before then": "'then' is no time",
        "%kimi resume": "The journal has no chat main of this notebook.",
        "kimi.resume('main')": "The journal has no chat main of this notebook.",
    }
    for line, words in lines.items():
        error = shell.run(line, ok=False).error
        assert words in error
        assert len(error.splitlines()) == 1
    assert shell.run("%kimi log").stdout == f"The journal is empty. It is {path}.\n"
    assert shell.run("%kimi forget main").stdout.startswith("Deleted for good: 0 turns")
    assert not path.exists(), "nothing is made by looking"
    keep(path, [record("Hi", "Hello")], notebook=here, chat="review")
    assert "There is review." in shell.run("%kimi resume", ok=False).error
    assert shell.complete("%kimi resume r")["matches"] == ["review"]
    assert shell.complete("%kimi forget ")["matches"] == ["review"]
    assert shell.complete("%kimi log -c ")["matches"] == ["review"]
    assert shell.complete("%kimi show ")["matches"] == ["1"]
    shell.run("%env KIMI_JOURNAL=off")
    for line in ("%kimi log", "%kimi show 1", "%kimi forget x", "%kimi resume"):
        assert "No turns are kept" in shell.run(line, ok=False).error
    assert shell.run("kimi.journal").of("execute_result")[0]["data"]["text/plain"] == (
        "<Journal: off, no turns are kept>"
    )


def test_running_turns_stay(shell: Kernel, path: Path, here: str) -> None:
    keep(path, [record("Done", "yes")], notebook=here)
    own = process_name()  # alive, and not the kernel's
    keep(path, [record("Under way")], notebook=here, kernel=own, state="running")
    said = shell.run("%kimi forget main").stdout
    assert said.startswith("Deleted for good: 1 turn, 1 chat")
    assert "1 turn under way stayed." in said
    assert "Under way" in shell.run("%kimi log").stdout


OFFER = """
from kimi_magic.jupyter.magics import KimiMagics
magics = KimiMagics.of(get_ipython())
magics._offered = False
magics.offer_chats()
"""


@pytest.mark.parametrize("data", [b"", b"SQLite format 3\0" + b"x" * 5000, b"not a database " * 99])
def test_loading_says_nothing_of_a_bad_file(shell: Kernel, path: Path, data: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(data)
    ran = shell.run(OFFER, allow_stdin=True)
    assert ran.stdout + ran.stderr == ""
    assert path.read_bytes() == data or not data


def test_what_is_offered(shell: Kernel, path: Path, here: str) -> None:
    """Input: chats of several names, times and kernels. Holds: the latest of an earlier kernel."""
    then = time.mktime((2026, 3, 1, 10, 42, 0, 0, 0, -1))
    keep(path, [record("Hi", "Hello", started=then)], notebook=here, chat="review")
    assert shell.run(OFFER, allow_stdin=True).stdout == (
        "review: 1 turn from 2026-03-01 10:42 - `%kimi resume review` goes on with it\n"
    )
    # `jupyter execute` asks nobody, and a notebook that it runs again stays the same.
    assert shell.run(OFFER).stdout == ""
    keep(path, [record("Elsewhere", "x")], notebook="/else.ipynb")
    keep(path, [record("One-off", "x")], notebook=here, chat=None)
    keep(path, [record("Next door", "x")], notebook=here, chat="b", kernel=process_name())
    twice = [
        record("Hi", "Hello", started=then + 60, cell="a", run="1"),
        record("Hi again", "Hello", started=then + 120, cell="a", run="2"),
    ]
    keep(path, twice, notebook=here, began=5.0)
    assert shell.run(OFFER, allow_stdin=True).stdout == (
        "main: 1 turn from 2026-03-01 10:44 - `%kimi resume` goes on with it (1 more chat)\n"
    )
    shell.run("kimi.settings.resume = 'never'")
    assert shell.run(OFFER, allow_stdin=True).stdout == ""
    shell.run("kimi.settings.resume = 'always'")
    assert shell.run(OFFER, allow_stdin=True).stdout == (
        "main: 1 turn from 2026-03-01 10:44 is back.\n"
        "review: 1 turn from 2026-03-01 10:42 is back.\n"
    )
    assert prompts(shell) == ["Hi again"]


def test_an_own_chat_ends_before_an_older_one_goes_on(
    shell: Kernel, path: Path, here: str, asked: ScriptedServer
) -> None:
    keep(path, [record("Long ago", "Yes.", cell="x", run="0")], notebook=here)
    asked.reply("New.")
    asked.reply("And on.")
    shell.run("%%kimi\nSomething new", cell="y")
    error = shell.run("%kimi resume", ok=False).error
    assert "`%kimi reset` ends it, or ask in another with -c." in error
    shell.run("%kimi reset\n%kimi resume")
    assert prompts(shell) == ["Long ago"]
    shell.run("%%kimi\nOn?", cell="z")
    assert sent(asked) == ["Long ago", "Yes.", "On?"]
    shell.run("%kimi log")  # waits until all is written
    (chat,) = Journal(path).chats(here)
    assert (chat.name, chat.turns) == ("main", 2)


def test_the_shells_log(
    path: Path, here: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kimi_magic.session._current", None)
    keep(path, [record("What is 7 × 8?", "It is **56**."), record(HOSTILE, HOSTILE)], notebook=here)
    assert cli.main(["log", "56", "--since", "1h", "--chat", "main"]) == 0
    shown = capsys.readouterr().out
    assert "What is 7 × 8?" in shown
    assert len(shown.splitlines()) == 2
    assert cli.main(["show", "2"]) == 0
    shown = capsys.readouterr().out
    assert "\x1b[31m" not in shown
    assert shown.startswith("Turn 2 · ")
    assert cli.main(["show", "3"]) == 1
    assert capsys.readouterr().err == (
        "kimi-magic: The journal has no turn 3: `%kimi log` lists its latest turns.\n"
    )
    assert cli.main(["log", "--since", "soon"]) == 1
    monkeypatch.setenv("KIMI_JOURNAL", "off")
    assert cli.main(["log"]) == 1
