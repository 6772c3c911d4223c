"""The journal's file: who may read it, its versions, its faults, and what is deleted."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kimi_magic.chats import journal_file
from kimi_magic.chats.journal_file import JournalError, JournalFile, set_aside
from kimi_magic.chats.journal_fragments import LOST
from kimi_magic.chats.journal_schema import APPLICATION_ID, VERSION
from kimi_magic.core.processes import has_ended, process_name
from kimi_magic.core.turn_record import TurnRecord
from tests.chats.journals import ELSEWHERE, VERSION_1, add, fill, prepared, record, records, stored

MODES = pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "of" / "kimi-magic" / "journal.sqlite3"


@pytest.fixture
def file(path: Path) -> Iterator[JournalFile]:
    opened = JournalFile.open(path)
    yield opened
    opened.close()


@pytest.fixture
def wide_open() -> Iterator[None]:
    """Files and folders are open to all, unless somebody asks for less."""
    before = os.umask(0)
    yield
    os.umask(before)


@MODES
def test_only_its_owner_reads_it(wide_open: None, path: Path) -> None:
    created: list[int] = []
    real = os.open

    def watched(name: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
        number = real(name, flags, mode, **more)
        created.append(os.fstat(number).st_mode & 0o777)
        return number

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "open", watched)
        opened = JournalFile.open(path)
    fill(opened)
    modes = {each.name: each.stat().st_mode & 0o777 for each in path.parent.iterdir()}
    opened.close()
    assert set(modes.values()) == {0o600}, modes
    assert {name.removeprefix(path.name) for name in modes} == {"", "-wal", "-shm"}
    assert created == [0o600], "not even for a moment"
    assert [p.stat().st_mode & 0o777 for p in list(path.parents)[:2]] == [0o700, 0o700]


def test_the_file_says_whose_it_is(file: JournalFile) -> None:
    values = {
        name: file.connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in (
            "application_id",
            "user_version",
            "journal_mode",
            "secure_delete",
            "synchronous",
        )
    }
    assert values == {
        "application_id": APPLICATION_ID,
        "user_version": VERSION,
        "journal_mode": "wal",
        "secure_delete": 1,
        "synchronous": 1,
    }
    assert file.path.read_bytes()[68:72] == APPLICATION_ID.to_bytes(4, "big")
    assert file.full_text


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs", "9p"])
def test_a_network_file_system_has_no_write_ahead_log(
    path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    JournalFile.open(path).close()  # with one, as if it had been moved
    monkeypatch.setattr(journal_file, "_file_system", lambda _: kind)
    opened = JournalFile.open(path)
    assert opened.connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    fill(opened)
    opened.close()
    assert len(records(path)) == 4


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux")
def test_the_file_system_is_known(tmp_path: Path) -> None:
    assert journal_file._file_system(tmp_path)
    assert not journal_file.is_on_network(tmp_path)
    assert journal_file._file_system(tmp_path / "nothing") == ""


def test_the_views(file: JournalFile) -> None:
    fill(file)
    turns = file.connection.execute(
        "SELECT id, chat, state, started_utc, prompt, reasoning, answer, steps, prompt_tokens, "
        "failure, endpoint FROM turns ORDER BY id"
    ).fetchall()
    assert turns[0] == (
        *(1, "main", "done", "2025-11-24 16:00:00", "9.11 or 9.9?"),
        *("Let me compare.\n\nSo it is.", "9.9.", 2, 14, None, "moonshot"),
    )
    assert turns[1][9] == "The server was silent."
    assert turns[3][1] is None
    calls = file.connection.execute("SELECT * FROM tool_calls WHERE turn = 1").fetchall()
    assert calls == [(1, 1, 1, "compare", '{"a": 9.11}', "smaller", None, 0.25)]
    (step,) = file.connection.execute("SELECT text FROM steps WHERE turn = 1 AND step = 2")
    assert step == ("9.9.",)
    found = file.connection.execute("SELECT rowid FROM turn_texts('compare 9')").fetchall()
    assert found == [(1,)], "those that are under way are not in it"


def test_the_page_about_it(file: JournalFile) -> None:
    page = (Path(__file__).parents[2] / "docs" / "journal.md").read_text("utf-8")
    for name in ("chats", "turns", "steps", "tool_calls", "records", "fragments"):
        columns = [c for c, *_ in file.connection.execute(f"SELECT * FROM {name}").description]
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` ")]
        assert re.findall(r"`(\w+)`", row.split("|")[3]) == columns
    fill(file)
    for query in re.findall(r"SELECT [^;`]*?FROM turns[^;`\"]*", page):
        assert len(file.connection.execute(query.replace("tenths", "compare")).fetchall()) in (3, 4)


# Versions


def test_a_journal_of_version_1(path: Path) -> None:
    path.parent.mkdir(parents=True)
    shutil.copy(VERSION_1, path)
    opened = JournalFile.open(path, create=False)
    assert opened.recover() == 1
    opened.close()
    turns = records(path)
    assert [turn.prompt for turn in turns] == [
        "9.11 or 9.9?",
        "And 8?",
        "Write a story.",
        "A one-off",
    ]
    assert turns[0] == record()
    assert (turns[2].text, turns[2].failure) == ("Once upon a time", LOST)
    assert stored(path, "SELECT state FROM records") == [
        ("done",),
        ("failed",),
        ("lost",),
        ("done",),
    ]


def second(file: JournalFile) -> None:
    file.connection.execute("ALTER TABLE records ADD COLUMN stars INTEGER NOT NULL DEFAULT 3")


def test_a_migration(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.parent.mkdir(parents=True)
    shutil.copy(VERSION_1, path)
    migrations = journal_file.MIGRATIONS

    def half(file: JournalFile) -> None:
        second(file)
        raise sqlite3.OperationalError("and then nothing")

    monkeypatch.setattr(journal_file, "VERSION", 2)
    monkeypatch.setattr(journal_file, "MIGRATIONS", [*migrations, half])
    with pytest.raises(JournalError):
        JournalFile.open(path)
    assert stored(path, "PRAGMA user_version") == [(1,)]
    assert "stars" not in str(stored(path, "SELECT sql FROM sqlite_master"))

    monkeypatch.setattr(journal_file, "MIGRATIONS", [*migrations, second])
    for _ in range(2):
        JournalFile.open(path).close()
    assert stored(path, "PRAGMA user_version") == [(2,)]
    assert stored(path, "SELECT sum(stars), count(*) FROM records") == [(12, 4)]
    monkeypatch.undo()
    before = path.read_bytes()
    with pytest.raises(JournalError, match="newer kimi-magic") as caught:
        JournalFile.open(path)
    assert caught.value.trouble == "later"
    assert path.read_bytes() == before


def test_an_index_is_made_where_a_python_without_it_had_begun(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(journal_file, "_knows_full_text", lambda _: False)
        opened = JournalFile.open(path)
        fill(opened)
        assert opened.delete([4]).turns == 1
        opened.close()
    opened = JournalFile.open(path)
    query = "SELECT rowid FROM turn_texts('compare')"
    assert opened.connection.execute(query).fetchall() == [(1,), (2,)]
    with monkeypatch.context() as patched:
        patched.setattr(journal_file, "_knows_full_text", lambda _: False)
        other = JournalFile.open(path)
        row = add(other, record("Without"))
        other.close()
    assert opened.delete([1, row]).turns == 2, "one of them is not in the index"
    assert opened.connection.execute(query).fetchall() == [(2,)]
    check = "INSERT INTO turn_texts (turn_texts) VALUES ('integrity-check')"
    opened.connection.execute(check)
    opened.close()


# Faults


def text_file(path: Path) -> None:
    path.write_text("My shopping list: " + "milk, " * 2000)


def others_database(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE mine (x)")
        other.execute("PRAGMA user_version = 1")


def others_empty_database(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA application_id = 42")


@pytest.mark.parametrize("make", [text_file, others_database, others_empty_database])
def test_another_programs_file_is_left_alone(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "journal.sqlite3"
    make(path)
    before = path.read_bytes()
    with pytest.raises(JournalError, match="another program's file") as caught:
        JournalFile.open(path)
    assert caught.value.trouble == "foreign"
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["journal.sqlite3"]


def test_another_kernel_begins_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It makes its tables before the first, the second, … each statement of this one."""
    statement, meeting = 0, 0
    troubles, path = set(), tmp_path

    class Met(sqlite3.Connection):
        def execute(self, *args: Any) -> sqlite3.Cursor:
            nonlocal statement
            statement += 1
            if statement == meeting:
                with contextlib.suppress(JournalError):  # this one has the lock
                    JournalFile.open(path).close()
            return super().execute(*args)

    connect = sqlite3.connect
    monkeypatch.setattr(journal_file, "BUSY", 0.01)
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, factory=Met, **k))
    while statement >= meeting:
        statement, meeting = 0, meeting + 1
        path = tmp_path / f"{meeting}.sqlite3"
        try:
            JournalFile.open(path).close()
        except JournalError as error:
            troubles.add(error.trouble)
        with JournalFile.open(path).connection as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert meeting > 20
    assert troubles <= {"locked"}, "the writer tries this again"


def test_an_empty_file_is_a_beginning(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite3").touch(0o600)
    JournalFile.open(tmp_path / "journal.sqlite3").close()
    assert stored(tmp_path / "journal.sqlite3", "SELECT count(*) FROM turns") == [(0,)]


def test_there_is_none(path: Path) -> None:
    with pytest.raises(JournalError) as caught:
        JournalFile.open(path, create=False)
    assert caught.value.trouble == "missing"
    assert not path.parent.exists()


def test_a_path_that_cannot_be_one(tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    for path in (tmp_path, tmp_path / "a file" / "journal.sqlite3"):
        with pytest.raises(JournalError, match="cannot be written") as caught:
            JournalFile.open(path)
        assert str(path) in str(caught.value)
        assert len(str(caught.value).splitlines()) <= 3


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_anywhere(tmp_path: Path, data: st.DataObject) -> None:
    """Whatever is damaged is set aside as it is, or works; there is no other end."""
    folder = tmp_path / f"{time.monotonic_ns()}"
    folder.mkdir()
    path = folder / "journal.sqlite3"
    content = bytearray(VERSION_1.read_bytes())
    places = data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=40))
    for place in places:
        content[place : place + 16] = os.urandom(16)
    content = content[: data.draw(st.sampled_from([len(content), 5000, 50]))]
    path.write_bytes(content)
    try:
        opened = JournalFile.open(path)
        try:
            opened.recover()
            add(opened, record())
            opened.delete([1, 2, 3])
        finally:
            opened.close()
    except JournalError as error:
        if error.trouble == "corrupt":
            damaged = path.read_bytes()
            assert set_aside(path).read_bytes() == damaged
            JournalFile.open(path).close()
        elif error.trouble in ("foreign", "later"):
            assert path.read_bytes() == content


def test_nothing_is_overwritten_when_it_is_set_aside(path: Path) -> None:
    names = []
    for number in range(3):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"damaged {number}")
        Path(f"{path}-wal").write_text("log")
        aside = set_aside(path)
        assert aside.read_text() == f"damaged {number}"
        assert Path(f"{aside}-wal").read_text() == "log"
        names.append(aside.name)
    assert names == [f"journal.corrupt-{n}.sqlite3" for n in (1, 2, 3)]
    assert not path.exists()
    assert not Path(f"{path}-wal").exists()


def test_a_full_disk_and_a_lock(file: JournalFile, path: Path) -> None:
    file.connection.execute("PRAGMA busy_timeout = 10")
    (pages,) = file.connection.execute("PRAGMA page_count").fetchone()
    file.connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(JournalError, match="the disk is full") as caught:
        add(file, record(text="x" * 100_000))
    assert caught.value.trouble == "full"
    file.connection.execute("PRAGMA max_page_count = 1000000")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalError, match="another program has locked it") as caught:
            add(file, record())
        assert caught.value.trouble == "locked"
        other.execute("COMMIT")
    add(file, record())
    assert len(records(path)) == 1


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_takes_no_file(
    path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(JournalError, match=r"the disk is (full|read-only)"):
        JournalFile.open(path)


# Records


def test_records_that_sqlite_cannot_read(file: JournalFile, path: Path) -> None:
    """One of them in a view would fail every query of it."""
    deep: Any = 0
    for _ in range(900):
        deep = {"a": [deep]}
    turns = [
        record(data={"x": math.inf, "y": [math.nan]}),
        record(prompt="half a code point \ud83d"),
        record(prompt="nothing \x00 at all"),
    ]
    for turn in turns:
        add(file, turn)
    with file.transaction():
        data = record().to_dict() | {"data": deep}
        file.add(data, chat=None, notebook="", kernel="k", state="done")
    rows = stored(
        path, "SELECT prompt, answer, json_valid(record) FROM turns JOIN records USING (id)"
    )
    assert [row[1:] for row in rows] == [("9.9.", 1)] * 4
    assert rows[1][0] == "half a code point \ufffd"
    again = records(path)
    assert again[0].data == {"x": None, "y": [None]}
    assert again[3] == record(parameters={})


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_turns_of_kernels_that_have_ended(file: JournalFile, path: Path) -> None:
    host, own, word = process_name().rsplit(":", 2)
    now = time.time()
    kernels = {
        process_name(): (now - 9e6, False),
        f"{host}:{own}:other678": (now, True),  # its number was given to this one
        f"{host}:{os.getppid()}:{word}": (now, False),
        f"{host}:{dead_process()}:{word}": (now, True),
        f"{host}:{os.getppid()}:before12": (now - 9e8, True),  # that process is younger
        ELSEWHERE: (now - 3600, False),
        "host:with:colons:5:0123abcd": (now - 90_000, True),
        "": (now - 90_000, True),
    }
    for kernel, (since, _) in kernels.items():
        add(file, prepared(started=since), "running", kernel=kernel)
    assert file.recover() == 5
    assert file.recover() == 0
    lost = {kernel for kernel, (_, ended) in kernels.items() if ended}
    rows = stored(path, "SELECT kernel, state FROM records")
    assert {kernel for kernel, state in rows if state == "lost"} == lost


def test_processes_without_psutil(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    host, _, _ = process_name().rsplit(":", 2)
    now = time.time()
    assert not has_ended(f"{host}:{os.getppid()}:0123abcd", now, now)
    assert has_ended(f"{host}:{dead_process()}:0123abcd", now, now)
    monkeypatch.setattr(os, "name", "nt")
    assert not has_ended(f"{host}:{dead_process()}:0123abcd", now, now)


def test_a_record_that_is_none_is_lost_as_it_is(file: JournalFile, path: Path) -> None:
    row = add(file, prepared(), "running")
    query = "UPDATE records SET record = '{\"version\": 99}' WHERE id = ?"
    file.connection.execute(query, (row,))
    other = add(file, prepared(), "running")
    file.connection.execute("INSERT INTO fragments VALUES (?, 0, 'no JSON')", (other,))
    assert file.recover() == 2
    rows = stored(path, "SELECT state, record FROM records")
    assert rows == [("lost", '{"version": 99}'), ("lost", rows[1][1])]
    assert stored(path, "SELECT count(*) FROM turns WHERE prompt IS NOT NULL") == [(1,)]


def test_a_kernel_that_was_taken_for_dead_has_the_last_word(file: JournalFile, path: Path) -> None:
    row = add(file, prepared("Still here?"), "running")
    file.recover()
    with file.transaction():
        file.put_fragments(row, [(0, '{"text": "Yes"}')])
        file.replace(row, record("Still here?", "Alive.").to_dict(), state="done")
    assert stored(path, "SELECT state, answer FROM turns") == [("done", "Alive.")]
    assert stored(path, "SELECT count(*) FROM fragments") == [(0,)]
    assert file.connection.execute("SELECT rowid FROM turn_texts('alive')").fetchall() == [(row,)]
    file.connection.execute("INSERT INTO turn_texts (turn_texts) VALUES ('integrity-check')")


def test_deletion_is_for_good(file: JournalFile, path: Path) -> None:
    fill(file)
    word, other = "Mitternachtsblau", "Zwetschgenkuchen"
    long = f"{word} " + "and so on " * 3000
    turn = record(f"{word}?", long, chat="secret")
    with file.transaction():
        chat = file.add_chat("/home/me/Taubenhaus.ipynb", "secret", 1.0)
    rows = [add(file, turn, chat=chat) for _ in range(20)]
    row = add(file, prepared(word), "running", chat=chat)
    with file.transaction():
        file.put_fragments(row, [(0, json.dumps({"text": word}))])
    add(file, record(other))
    size = len(json.dumps(turn.to_dict()))
    deleted = file.delete([*rows, row, 12345])
    assert deleted.turns == 21
    assert deleted.bytes > 15 * size
    found = [each.read_bytes() for each in path.parent.iterdir()]
    for gone in (word, word.lower(), "Taubenhaus"):
        assert not any(gone.encode() in content for content in found), gone
    assert any(other.encode() in content for content in found)
    assert file.connection.execute("SELECT rowid FROM turn_texts(?)", (word,)).fetchall() == []
    file.connection.execute("INSERT INTO turn_texts (turn_texts) VALUES ('integrity-check')")
    # Its kernel goes on, and nothing of it comes back.
    with file.transaction():
        file.put_fragments(row, [(1, json.dumps({"text": word}))], instead_from=0)
        file.replace(row, turn.to_dict(), state="done")
    assert row not in [number for (number,) in stored(path, "SELECT id FROM records")]
    assert add(file, record()) > row, "a number is not given again"


def test_replaced_by_another_file(file: JournalFile, path: Path) -> None:
    assert not file.is_replaced
    path.rename(path.with_name("moved"))
    assert file.is_replaced
    path.touch()
    assert file.is_replaced


def test_the_forms_are_read_back(file: JournalFile, path: Path) -> None:
    turn = record()
    row = add(file, prepared(), "running")
    with file.transaction():
        file.replace(row, turn.to_dict(), state="done")
    assert records(path) == [turn]
    again = replace(turn, messages=(), sent=0)
    assert TurnRecord.from_dict(again.to_dict()) == again
