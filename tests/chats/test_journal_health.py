"""A look at a journal's file: each trouble by its name, and nothing of it is changed."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from kimi_magic.chats import journal_health
from kimi_magic.chats.journal_file import JournalFile
from kimi_magic.chats.journal_health import Health, health_of
from kimi_magic.chats.journal_schema import APPLICATION_ID, VERSION
from tests.chats.journals import fill


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal with four turns."""
    path = tmp_path / "kimi-magic" / "journal.sqlite3"
    with closing(JournalFile.open(path)) as file:
        fill(file)
    return path


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[2048:] = os.urandom(len(data) - 2048)
    path.write_bytes(data)


def replace_by_text(path: Path) -> None:
    path.write_text("no journal at all, but a text of some length " * 9, "utf-8")


def replace_by_another(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE shop (name)")


def make_later(path: Path) -> None:
    with closing(sqlite3.connect(path)) as file:
        file.execute(f"PRAGMA user_version = {VERSION + 1}")


def remove(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def begin(path: Path) -> None:
    """Leave it as a kernel does that ends before it makes the tables."""
    path.unlink()
    with closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA journal_mode = wal")


def lose_tables(path: Path) -> None:
    begin(path)
    with closing(sqlite3.connect(path)) as file:
        file.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        file.execute(f"PRAGMA user_version = {VERSION}")


def leave(path: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("happens", "trouble"),
    [
        (leave, ""),
        (damage, "damaged"),
        (replace_by_text, "damaged"),
        (replace_by_another, "foreign"),
        (make_later, "later"),
        (remove, "missing"),
        (empty, ""),
        (begin, ""),
        (lose_tables, "unreadable"),
    ],
)
def test_each_trouble_has_its_name(
    path: Path, happens: Callable[[Path], None], trouble: str
) -> None:
    happens(path)
    before = path.read_bytes() if path.exists() else None
    health = health_of(path)
    assert health.trouble == trouble
    assert (path.read_bytes() if path.exists() else None) == before
    if happens is leave:
        assert (health.turns, health.checked, health.aside) == (4, True, 0)
        assert health.size == path.stat().st_size


def test_another_program_has_locked_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_health, "BUSY", 0.05)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert health_of(path).trouble == "locked"
        other.execute("ROLLBACK")
    assert health_of(path).trouble == ""


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write all")
def test_it_cannot_be_written(path: Path) -> None:
    path.chmod(0o400)
    assert health_of(path).trouble == "read-only"


def test_the_check_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_health, "STEPS", 1)
    health = health_of(path, seconds=-1.0)
    assert (health.trouble, health.turns, health.checked) == ("", 4, False)


@pytest.mark.parametrize("name", ["journal", "journal [2]"])
def test_damaged_journals_beside_it(path: Path, name: str) -> None:
    path = path.rename(path.with_name(f"{name}.sqlite3"))
    path.with_name(f"{name}.corrupt-1.sqlite3").write_bytes(b"")
    assert health_of(path).aside == 1
    assert health_of(path / "inside") == Health("missing")
