"""Turns on their way into the journal: nothing is lost, nothing fails, nothing is told twice."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import kimi_magic as kimi
from kimi_magic.chats import journal_file, journal_writer
from kimi_magic.chats.journal_file import JournalFile
from kimi_magic.core.errors import TurnInterrupted
from kimi_magic.core.events import ContentDelta, TurnPrepared
from kimi_magic.core.processes import process_name
from kimi_magic.session import Session
from kimi_magic.testing import ScriptedServer
from tests.chats.journals import NOTEBOOK, VERSION_1, prepared, record, records, stored
from tests.chats.test_journal_file import others_database, text_file

FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="of POSIX")
KEY = "fake-key-0123456789abcdef"
SHAPE = "sk-proj-Abc123Def456Ghi789Jkl012Mno345"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "kimi-magic" / "journal.sqlite3"
    monkeypatch.setenv("KIMI_JOURNAL", str(path))
    return path


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The lines about the journal so far."""
    caplog.set_level(logging.WARNING, "kimi_magic")
    return lambda: [record.getMessage() for record in caplog.records]


def flush(session: Session) -> None:
    assert session.journal_writer is not None
    assert session.journal_writer.flush(20)


def ask(server: ScriptedServer, answer: str = "9.9", prompt: str = "Hi", **how: Any) -> kimi.Reply:
    server.reply(answer, reasoning="Compare.")
    return kimi.ask(prompt, show=False, **how)


def state_of(path: Path) -> list[str]:
    return [state for (state,) in stored(path, "SELECT state FROM records ORDER BY id")]


def test_a_turn_is_kept_as_it_was(server: ScriptedServer, session: Session, path: Path) -> None:
    def look(n: int) -> int:
        "Look at a number."
        return n + 1

    server.reply(reasoning="I look.", tool_calls=[{"name": "look", "arguments": {"n": 3}}])
    reply = ask(server, "Four.", chat="main", tools=[look])
    again = ask(server, "Five.", chat="main")
    flush(session)
    assert records(path) == [each.record.without_history() for each in (reply, again)]
    assert len(again.record.messages) > len(records(path)[1].messages), (
        "earlier turns are not in it"
    )
    ((kernel, folder),) = stored(path, "SELECT DISTINCT kernel, notebook FROM records")
    assert (kernel, folder) == (process_name(), os.path.realpath(Path.cwd()))
    assert stored(path, "SELECT * FROM fragments") == []


def test_the_rows_of_chats(server: ScriptedServer, session: Session, path: Path) -> None:
    ask(server, chat="main")
    ask(server, chat="main")
    ask(server, chat="other")
    ask(server)
    kimi.chat("main").reset()
    kimi.chat("main").reset()
    ask(server, chat="main")
    session.chats.clear()
    ask(server, chat="other")
    flush(session)
    assert session.journal_writer is not None
    session.journal_writer.adopt("main", 1)
    ask(server, chat="main")
    flush(session)
    rows = stored(path, "SELECT id, name, ended IS NULL FROM chats")
    assert rows == [(1, "main", 0), (2, "other", 0), (3, "main", 0), (4, "other", 1)]
    chats = [chat for (chat,) in stored(path, "SELECT chat FROM records ORDER BY id")]
    assert chats == [
        1,
        1,
        2,
        None,
        3,
        4,
        1,
    ]


def test_a_chat_that_was_deleted_begins_again(
    server: ScriptedServer, session: Session, path: Path
) -> None:
    ask(server, chat="main")
    flush(session)
    with contextlib.closing(JournalFile.open(path)) as other:
        assert other.delete([1]).turns == 1
    ask(server, chat="main")
    flush(session)
    assert stored(path, "SELECT r.id, name FROM records r JOIN chats c ON c.id = chat") == [
        (2, "main")
    ]


def test_what_is_not_kept(server: ScriptedServer, session: Session, path: Path) -> None:
    from dataclasses import replace

    from kimi_magic.turn.request import make_request

    server.reply("9.9")
    session.ask(replace(make_request("Hi"), no_history=True), show=False)
    assert not path.parent.exists(), "nothing is made for it"
    for setting in ("off", ""):
        kimi.settings.journal = setting
        ask(server)
    os.environ["KIMI_JOURNAL"] = "off"
    ask(server)
    assert not path.parent.exists()
    os.environ["KIMI_JOURNAL"] = str(path)
    ask(server)
    flush(session)
    elsewhere = path.with_name("other.sqlite3")
    os.environ["KIMI_JOURNAL"] = str(elsewhere)
    ask(server)
    flush(session)
    assert len(records(path)) == len(records(elsewhere)) == 1


def test_turns_that_fail_or_are_left(server: ScriptedServer, session: Session, path: Path) -> None:
    server.error(400, "no such parameter")
    with pytest.raises(kimi.BadRequest):
        kimi.ask("Hi", show=False, chat="main")
    server.reply("one two three four five", rate=50)
    for event in kimi.stream("Hi", chat="main"):
        if isinstance(event, ContentDelta) and "two" in event.text:
            break
    with pytest.raises(kimi.MissingKeyError):
        kimi.ask("Hi", endpoint="moonshot", show=False)  # refused before anything is sent
    flush(session)
    assert state_of(path) == ["failed", "stopped"]
    first, second = records(path)
    assert first.failure is not None
    assert first.failure.kind == "BadRequest"
    assert second.text.startswith("one")


def test_a_turn_whose_end_nobody_told(session: Session, path: Path) -> None:
    """A third interrupt may come between the end of a turn and those who are to hear of it."""
    writer = journal_writer.JournalWriter(path, session.connector.known_keys)
    turn = writer.begin(NOTEBOOK)
    assert turn is not None
    turn.put(TurnPrepared(prepared("Hi")))
    turn.put(ContentDelta("as far"))
    turn.close()
    other = writer.begin(NOTEBOOK)
    assert other is not None
    other.close()
    writer.close(20)
    assert state_of(path) == ["stopped"]
    assert records(path)[0].text == "as far"


def test_no_secret_is_stored(
    server: ScriptedServer, session: Session, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from kimi_magic.turn.request import make_request

    monkeypatch.setenv("MOONSHOT_API_KEY", KEY)

    def look() -> str:
        """Look."""
        return f"{KEY} and {SHAPE}"

    server.reply(tool_calls=[{"name": "look", "arguments": {"a": SHAPE}}], reasoning=SHAPE)
    server.reply(f"Yours is {SHAPE}.", reasoning=f"It is {SHAPE}.", rate=100)
    request = make_request(
        f"{KEY} {SHAPE}", tools=[look], system=f"The key is {SHAPE}", chat="main"
    )
    session.ask(replace(request, allow_secrets=True, endpoint=server.base_url), show=False)
    assert KEY in str(server.requests[0].body), "it may be sent"
    flush(session)
    content = b"".join(each.read_bytes() for each in path.parent.iterdir())
    assert KEY.encode() not in content
    assert b"Abc123" not in content
    assert b"masked" in content


# Faults


def a_folder(path: Path) -> None:
    path.mkdir()


def a_folder_that_is_a_file(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("no folder")


def a_later_version(path: Path) -> None:
    shutil.copy(VERSION_1, path)
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA user_version = 99")
        file.execute("PRAGMA journal_mode = DELETE")


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (a_folder, "cannot be written"),
        (a_folder_that_is_a_file, "cannot be written"),
        (text_file, "another program's file"),
        (others_database, "another program's file"),
        (a_later_version, "a newer kimi-magic wrote"),
    ],
)
def test_one_line_and_the_answer(
    server: ScriptedServer,
    path: Path,
    told: Callable[[], list[str]],
    make: Callable[[Path], None],
    line: str,
) -> None:
    path.parent.mkdir()
    make(path)
    before = path.read_bytes() if path.is_file() else None
    for _ in range(3):
        assert ask(server).text == "9.9"
    (said,) = told()
    assert line in said
    assert len(said.splitlines()) == 1
    assert before is None or path.read_bytes() == before


def test_the_line_is_in_the_cell(
    server: ScriptedServer, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path.parent.mkdir()
    text_file(path)
    kimi.settings.view = "plain"
    for _ in range(2):
        server.reply("9.9")
        kimi.ask("Hi", show=True)
    shown = capsys.readouterr()
    assert shown.out.count("The journal is off") == 1
    assert shown.err == ""


def test_a_full_disk_that_has_room_again(
    server: ScriptedServer,
    session: Session,
    path: Path,
    told: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ask(server)
    flush(session)
    assert session.journal_writer is not None
    file = session.journal_writer._file
    assert file is not None
    file.connection.execute("PRAGMA max_page_count = 1")
    for _ in range(3):
        ask(server, "a long one " * 1000)
        time.sleep(0.1)
    monkeypatch.setattr(journal_writer, "LONGEST_PAUSE", 0.1)
    ask(server, "a last one")
    assert len(records(path)) == 1
    file.connection.execute("PRAGMA max_page_count = 100000")
    until(lambda: len(records(path)) == 5)
    assert len(told()) == 1
    assert "the disk is full" in told()[0]


def until(holds: Callable[[], bool]) -> None:
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < 20
        time.sleep(0.02)


def test_a_lock_that_is_held_for_long(
    server: ScriptedServer,
    session: Session,
    path: Path,
    told: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(journal_file, "BUSY", 0.05)
    monkeypatch.setattr(journal_writer, "LONGEST_PAUSE", 0.1)
    ask(server)
    flush(session)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        ask(server)
        time.sleep(0.3)
        ask(server)
        assert told() == [], "others write now and then"
        monkeypatch.setattr(journal_writer, "PATIENCE", 0.0)
        until(lambda: bool(session.journal_writer and session.journal_writer.notices))
        for _ in range(3):
            ask(server)
        (line,) = told()
        assert "another program has locked it" in line
        other.execute("COMMIT")
    until(lambda: len(records(path)) == 6)
    assert len(told()) == 1


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9])
def test_a_file_that_is_damaged_while_it_is_in_use(
    server: ScriptedServer,
    session: Session,
    path: Path,
    told: Callable[[], list[str]],
    share: float,
) -> None:
    for _ in range(5):
        ask(server, "many words " * 300)
    flush(session)
    assert session.journal_writer is not None
    session.journal_writer.close(20)
    content = bytearray(path.read_bytes())
    damage = slice(max(int(len(content) * share), 0), int(len(content) * share) + 20_000)
    content[damage] = os.urandom(len(content[damage]))
    content[:100] = path.read_bytes()[:100]
    path.write_bytes(content)
    for _ in range(3):
        assert ask(server).text == "9.9"
        flush(session)  # the turn after it tells what was found
    aside = path.with_name("journal.corrupt-1.sqlite3")
    if aside.exists():
        assert told() == [journal_writer.DAMAGED.format(aside.name)]
        assert len(records(path)) == 3
    else:
        assert told() == []
    assert not path.with_name("journal.corrupt-2.sqlite3").exists()


def test_a_turn_that_goes_on_in_another_file(session: Session, path: Path) -> None:
    """The file is damaged, deleted or moved while a turn is under way."""
    writer = journal_writer.JournalWriter(path, session.connector.known_keys)
    turn = writer.begin(NOTEBOOK)
    assert turn is not None
    turn.put(TurnPrepared(prepared("Hi")))
    turn.put(ContentDelta("It "), at_once=True)
    assert writer.flush(20)
    assert state_of(path) == ["running"]
    for each in list(path.parent.iterdir()):
        each.unlink()
    turn.put(ContentDelta("goes on"), at_once=True)
    assert writer.flush(20)
    assert stored(path, "SELECT json_extract(data, '$.text') FROM fragments") == [("It goes on",)]
    turn.finish(record("Hi", "It goes on."), "done")
    assert writer.flush(20)
    writer.close(20)
    assert [turn.text for turn in records(path)] == ["It goes on."]
    assert stored(path, "SELECT name FROM chats") == [("main",)]


def test_a_turn_stays_in_the_file_in_which_it_began(
    server: ScriptedServer, session: Session, path: Path
) -> None:
    """A tool changes the setting and asks; back in the first file, its chat goes on."""
    elsewhere = path.with_name("elsewhere.sqlite3")

    def change() -> str:
        """Change the setting."""
        kimi.settings.journal = str(elsewhere)
        return kimi.ask("Inside", show=False).text

    server.reply("", tool_calls=[{"name": "change", "arguments": {}}])
    server.reply("9.9")
    server.reply("Changed.")
    kimi.ask("Outside", tools=[change], show=False, chat="main")
    kimi.settings.journal = str(path)
    ask(server, prompt="Outside again", chat="main")
    flush(session)
    session.close()
    prompts = "SELECT prompt, state FROM turns"
    assert stored(path, prompts) == [("Outside", "done"), ("Outside again", "done")]
    assert stored(elsewhere, prompts) == [("Inside", "done")]
    assert stored(path, "SELECT count(*) FROM chats") == [(1,)]


LONG_TURN = r"""
import re, sys, threading, time
from pathlib import Path
from kimi_magic.chats.journal_writer import JournalWriter
from kimi_magic.core.events import ContentDelta, TurnPrepared
from tests.chats.journals import prepared, record

def resident():
    return int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1000

def watch():
    while True:
        most[0] = max(most[0], resident())
        time.sleep(0.002)

writer = JournalWriter(Path(sys.argv[1]), list)
turn = writer.begin("")
turn.put(TurnPrepared(prepared()))
assert writer.flush(60)
text = "lorem ipsum " * 2_700_000
most = [before := resident()]
threading.Thread(target=watch, daemon=True).start()
for start in range(0, len(text), 4000):
    turn.put(ContentDelta(text[start : start + 4000]))
assert writer.flush(60)
print(round(most[0] - before))
turn.finish(record(text=text), "done")
assert writer.flush(60)
print(round(most[0] - before))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_long_turn_takes_a_few_times_its_text(path: Path) -> None:
    """Of 32 MB: its pieces and its rows while it grows; then the record, and SQLite's copy."""
    ran = subprocess.run(
        [sys.executable, "-c", LONG_TURN, str(path)], capture_output=True, text=True, check=True
    )
    growing, over = map(int, ran.stdout.split())
    assert growing < 110
    assert over < 210


def test_a_display_that_is_no_json_and_data_too_deep(
    server: ScriptedServer, session: Session, path: Path, told: Callable[[], list[str]]
) -> None:
    from kimi_magic.core.messages import Output, Step, ToolResult

    deep: Any = {}
    for _ in range(3000):
        deep = {"a": deep}
    result = ToolResult("look", "42", outputs=(Output({"application/json": object()}, {}),))
    writer = journal_writer.JournalWriter(path, session.connector.known_keys)
    for more in ({"steps": (Step("So.", tool_results=(result,)),)}, {"data": deep}):
        turn = writer.begin(NOTEBOOK)
        assert turn is not None
        turn.finish(record(**more), "done")
        turn.close()
    writer.close(20)
    assert [turn.prompt for turn in records(path)] == ["9.11 or 9.9?"] * 2
    assert not writer.notices


# Processes


ALONE = """
import os, sys, kimi_magic as kimi
os.environ["KIMI_BASE_URL"], os.environ["KIMI_JOURNAL"] = sys.argv[1:3]
def ask():
    return kimi.ask("Hi", show=False, chat="main").text
"""


def run(code: str, server: ScriptedServer, path: Path) -> str:
    command = [sys.executable, "-c", ALONE + code, server.base_url, str(path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    return ran.stdout


def test_a_process_that_ends_with_its_turn(scripted_server: ScriptedServer, path: Path) -> None:
    for _ in range(3):
        scripted_server.reply("9.9")
    run("ask(); ask(); ask()", scripted_server, path)
    assert state_of(path) == ["done"] * 3
    assert [each.name for each in path.parent.iterdir()] == [path.name], "the log is written back"


def test_nothing_is_made_before_the_first_turn(scripted_server: ScriptedServer, path: Path) -> None:
    out = run(
        """
from IPython.core.interactiveshell import InteractiveShell
InteractiveShell.instance().run_line_magic("load_ext", "kimi_magic")
kimi.chat().reset()
import threading, kimi_magic.session
kimi_magic.session.current().close()
print("kimi_magic.chats.journal_file" in sys.modules, os.path.exists(sys.argv[2]))
print([thread.name for thread in threading.enumerate() if "journal" in thread.name])
""",
        scripted_server,
        path,
    )
    assert out.split() == ["False", "False", "[]"]


@FORKS
def test_forked_children(scripted_server: ScriptedServer, path: Path) -> None:
    """Each writes its own turns through a file of its own, and ends as it likes."""
    for _ in range(9):
        scripted_server.reply("9.9")
    out = run(
        """
import kimi_magic.session
ask()
writer = kimi_magic.session.current().journal_writer
assert writer.flush(20)
before = writer._file
for child_ends in (lambda: os._exit(0), lambda: sys.exit(0)):
    ask()
    child = os.fork()
    if not child:
        assert writer._file is None
        ask()
        child_ends()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    ask()
    assert writer.flush(20) and writer._file not in (None, before)
import multiprocessing
process = multiprocessing.get_context("fork").Process(target=ask)
process.start(); process.join()
assert process.exitcode == 0
ask()
""",
        scripted_server,
        path,
    )
    assert out == ""
    assert state_of(path) == ["done"] * 9
    assert stored(path, "SELECT count(DISTINCT kernel) FROM records") == [(4,)]
    assert stored(path, "SELECT count(*) FROM chats") == [(1,)], "a child's chat is its parent's"
    assert stored(path, "PRAGMA integrity_check") == [("ok",)]


@FORKS
def test_a_child_that_outlives_its_parent(scripted_server: ScriptedServer, path: Path) -> None:
    """SQLite counts locks in a process's memory: a child must not take its parent's for its own."""
    for _ in range(8):
        scripted_server.reply("9.9")
    run(
        """
import kimi_magic.session, time
def flush():
    assert kimi_magic.session.current().journal_writer.flush(20)
ask(); flush()
(reading, writing), child = os.pipe(), os.fork()
if not child:
    os.close(writing)
    ask(); flush()
    os.read(reading, 1)  # until the parent has ended
    ask(); ask(); ask()
    kimi_magic.session.current().close()
    os._exit(0)
time.sleep(0.5)
ask(); flush()
""",
        scripted_server,
        path,
    )
    run("ask(); ask()", scripted_server, path)
    deadline = time.monotonic() + 20
    while state_of(path) != ["done"] * 8 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert state_of(path) == ["done"] * 8
    assert stored(path, "PRAGMA integrity_check") == [("ok",)]


@FORKS
def test_forks_in_the_middle_of_writing(scripted_server: ScriptedServer, path: Path) -> None:
    for _ in range(200):
        scripted_server.reply("9.9 " * 50)
    run(
        """
import sqlite3, threading
ask()  # a fork in the middle of an import breaks the import of the child's, whoever makes it
children = []
stop = threading.Event()
def work():
    for _ in range(45):
        ask()
    stop.set()
thread = threading.Thread(target=work)
thread.start()
while not stop.wait(0.02) and len(children) < 30:
    child = os.fork()
    if not child:
        sqlite3.connect(":memory:").execute("CREATE TABLE t (x)")
        os._exit(0)
    children.append(child)
thread.join()
for child in children:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
""",
        scripted_server,
        path,
    )
    scripted_server._script.clear()
    assert state_of(path) == ["done"] * 46
    assert stored(path, "PRAGMA integrity_check") == [("ok",)]


@FORKS
def test_a_fork_does_not_wait_for_a_disk_that_hangs(
    session: Session, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_writer, "AT_EXIT", 0.1)
    writer = journal_writer.JournalWriter(path, session.connector.known_keys)
    with writer._at_work:
        child = os.fork()
        if not child:
            os._exit(writer.begin(NOTEBOOK) is not None)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    turn = writer.begin(NOTEBOOK)
    assert turn is not None
    turn.finish(record(), "done")
    assert writer.flush(20)
    writer.close(20)
    assert state_of(path) == ["done"]


def test_many_threads(server: ScriptedServer, session: Session, path: Path) -> None:
    for _ in range(80):
        server.reply("9.9", reasoning="Compare.")

    def work() -> None:
        for _ in range(10):
            kimi.ask("Hi", show=False)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    flush(session)
    assert state_of(path) == ["done"] * 80


@pytest.fixture
def interrupts() -> Iterator[Callable[[float], None]]:
    """Interrupts the main thread after some seconds."""
    import signal

    timers: list[threading.Timer] = []

    def after(seconds: float) -> None:
        timers.append(threading.Timer(seconds, signal.raise_signal, [signal.SIGINT]))
        timers[-1].start()

    yield after
    for timer in timers:
        timer.join()


def test_an_interrupt_ends_a_turn_and_no_thread(
    server: ScriptedServer,
    session: Session,
    path: Path,
    interrupts: Callable[[float], None],
) -> None:
    for _ in range(3):
        server.reply("one two three four five six seven", rate=10)
        interrupts(0.5)
        with pytest.raises(TurnInterrupted):
            kimi.ask("Count", show=False, chat="main")
    ask(server, chat="main")
    flush(session)
    assert state_of(path) == ["stopped"] * 3 + ["done"]
    assert [turn.text[:3] for turn in records(path)] == ["one", "one", "one", "9.9"]
