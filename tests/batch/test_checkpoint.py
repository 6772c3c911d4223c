"""The file of a map's answers: what is found again, and what is refused."""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import kimi_magic as kimi
from kimi_magic.batch.batch_api_notes import batches_under_way
from kimi_magic.batch.checkpoint import SUFFIX, Answer, Checkpoint, Header, kept_maps
from kimi_magic.core.errors import KimiError
from kimi_magic.secrets.keys import Key
from kimi_magic.secrets.redact import Redactor
from kimi_magic.session import Session
from kimi_magic.testing import ScriptedServer
from tests.batch.faulty_server import FaultyServer

HEADER = Header("prompt", "model", 3)
SECRET = "sk-" + "Ab1" * 16


def opened(path: Path) -> Checkpoint:
    own = Checkpoint(path, HEADER, Redactor([Key("correct-horse-battery", "LAB_KEY")], shapes=True))
    own.open()
    return own


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / f"labels.csv{SUFFIX}"


def test_answers_are_found_again_and_failures_are_not(path: Path) -> None:
    own = opened(path)
    whole = Answer("text\nof two lines \ud800", "r", {"a": [1, None]}, None, {"seconds": 0.5}, 2)
    own.keep("one", whole)
    own.keep("two", Answer(error="no"))
    own.close()
    again = opened(path)
    assert again.found == {"one": whole}
    again.close()
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@given(data=st.data())
def test_a_file_that_was_cut_anywhere(data: st.DataObject, tmp_path_factory: Any) -> None:
    """All that is whole is found, and later lines are found as well."""
    path = tmp_path_factory.mktemp("cut") / f"labels{SUFFIX}"
    own = opened(path)
    for number in range(5):
        own.keep(f"key {number}", Answer(f"text {number}"))
    own.close()
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    again = opened(path)
    found = list(again.found)
    assert found == [f"key {n}" for n in range(len(found))]
    # A line without its end is whole, too.
    assert len(found) in (max(whole[:cut].count(b"\n") - 1, 0), whole[:cut].count(b"\n"))
    again.keep("later", Answer("text"))
    again.close()
    third = opened(path)
    assert list(third.found) == [*found, "later"]
    third.close()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"name,label\na,b\n", "is no file of kimi.map"),
        (b"name,label", "is no file of kimi.map"),
        (b'{"key": "a", "text": "b"}\n', "is no file of kimi.map"),
        (b"[1]\n", "is no file of kimi.map"),
        (b"\x00\xff\n", "is no file of kimi.map"),
        (b'{"map": 2}\n', "was written by a later version"),
    ],
)
def test_files_of_others_stay_as_they_are(path: Path, content: bytes, said: str) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    for _ in range(2):  # the first has left no lock
        with pytest.raises(KimiError, match=said):
            opened(path)
    assert path.read_bytes() == content


def test_lines_that_are_none_of_ours_are_passed_over(path: Path) -> None:
    opened(path).close()
    with path.open("ab") as file:
        file.write(b'{"key": "a", "other": 1}\n[]\n\n{"key": "b", "text": "B"}\n\xff\n')
    again = opened(path)
    assert again.found == {"b": Answer("B")}
    again.close()


def test_a_second_kernel_is_kept_out(path: Path) -> None:
    first = opened(path)
    with pytest.raises(KimiError, match=r"Another kernel runs this map now: it writes .*labels"):
        opened(path)
    first.close()
    opened(path).close()


def test_keys_are_masked(path: Path) -> None:
    own = opened(path)
    told = f"correct-horse-battery {SECRET}"
    own.keep("one", Answer(told, told, {"a": [told], told: 1}, told))
    own.close()
    assert "correct-horse" not in path.read_text()
    assert SECRET not in path.read_text()


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch, session: Session) -> Any:
    with FaultyServer() as server:
        monkeypatch.setenv("KIMI_BASE_URL", server.base_url)
        monkeypatch.setenv("KIMI_MODEL", "kimi-k2-thinking")
        yield server


def test_a_full_disk_ends_the_map(
    faults: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frame has all that came; a later call finds what was written, and no cut line."""
    real, room = os.fdopen, 2000

    class Full:
        """A file on a disk that has room for so many bytes."""

        def __init__(self, file: Any) -> None:
            self._file = file

        def write(self, data: bytes) -> int:
            left = room - self._file.seek(0, os.SEEK_END)
            if left <= 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return int(self._file.write(data[:left]))

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

    into = tmp_path / "labels.csv"
    rows = [f"row {n}" for n in range(100)]
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdopen", lambda *args, **kwargs: Full(real(*args, **kwargs)))
        frame = kimi.map(rows, "{{ value }}", into=into, concurrency=4)
    came = int(frame.error.isna().sum())
    assert 0 < came < 20
    assert "labels.csv.map.jsonl" in frame.error.iloc[-1]
    asked = len(faults.asked)
    frame = kimi.map(rows, "{{ value }}", into=into)
    assert frame.error.isna().all()
    kept = asked + 100 - len(faults.asked)
    assert came - 5 <= kept < came


def test_a_folder_that_cannot_be_written(faults: FaultyServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KimiError, match="labels"):
        kimi.map(["a"], "{{ value }}", into=tmp_path / "file" / "labels.csv")
    assert faults.asked == []


def test_what_stopped_holds_the_answers_of_earlier_calls(
    server: ScriptedServer, session: Session, tmp_path: Path
) -> None:
    into = tmp_path / "labels.parquet"
    server.reply("B")
    kimi.map(["b"], "{{ value }}", into=into)
    server.error(401, "no")
    frame = kimi.map(["a", "b", "c"], "{{ value }}", into=into, concurrency=1)
    assert list(frame.text.fillna("-")) == ["-", "B", "-"]
    assert list(frame.attempts) == [1, 1, 0]


def test_a_file_that_cannot_be_written_leaves_the_old_one(
    faults: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    into = tmp_path / "labels.csv"
    kimi.map(["a"], "{{ value }}", into=into)
    before = into.read_text()

    def fail(self: Any, file: Path) -> None:
        file.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pandas.DataFrame.to_csv", fail)
    with pytest.raises(KimiError, match=r"could not be written: .*\nThe answers are kept\."):
        kimi.map(["b"], "{{ value }}", into=into)
    assert into.read_text() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["labels.csv", f"labels.csv{SUFFIX}"]


def test_answers_are_kept_beside_the_journal_or_nowhere(
    faults: FaultyServer, session: Session, tmp_path: Path
) -> None:
    session.settings.journal = "off"
    for _ in range(2):
        kimi.map(["a"], "{{ value }}")
    assert faults.asked == ["a", "a"]
    session.settings.journal = str(tmp_path / "journal.sqlite3")
    for _ in range(2):
        kimi.map(["a", "b"], "{{ value }} " + SECRET, show=False)
    assert len(faults.asked) == 4
    (kept,) = kept_maps(tmp_path / "maps")
    assert (kept.answered, kept.failed, kept.header.rows) == (2, 0, 2)
    assert SECRET not in kept.path.read_text()


def test_a_dry_run_asks_and_leaves_nothing(
    faults: FaultyServer, session: Session, tmp_path: Path
) -> None:
    into = tmp_path / "new" / "labels.csv"
    rows = [f"row {n % 4}" for n in range(8)]
    plan = kimi.map(rows, "{{ value }}!", into=into, dry_run=True, max_tokens=100)
    assert (plan.rows, plan.to_ask) == (8, 4)
    assert plan.prompts == ("row 0!", "row 1!", "row 2!")
    assert plan.prompt_tokens > 0
    assert plan.most_tokens == plan.prompt_tokens + 400
    assert not into.parent.exists()
    assert faults.asked == []
    kimi.map(rows[:2], "{{ value }}!", into=into, max_tokens=100)
    plan = kimi.map(rows, "{{ value }}!", into=into, dry_run=True, max_tokens=100)
    assert (plan.rows, plan.to_ask) == (8, 2)


def test_a_dry_run_needs_no_key(session: Session) -> None:
    plan = kimi.map(["a" * 99], "{{ value }}", endpoint="moonshot", dry_run=True)
    assert plan.cost > 0


def test_failures_of_earlier_runs_are_forgotten(path: Path) -> None:
    first = opened(path)
    first.keep("row 1", Answer(error="no"))
    first.keep("a", Answer("A"))
    first.close()
    (kept,) = kept_maps(path.parent)
    assert (kept.answered, kept.failed) == (1, 1)
    opened(path).close()
    path.with_name(f"foreign{SUFFIX}").write_text(json.dumps({"a": 1}))
    (kept,) = kept_maps(path.parent)
    assert (kept.answered, kept.failed) == (1, 0)


def test_files_of_nobody(path: Path) -> None:
    """The list of maps passes over whatever they hold."""
    begun = {"map": 1, "prompt": "p", "model": "m", "rows": 1, "began": 1.0}
    note = {"batch": "b", "map": "m", "endpoint": "e", "url": "u", "keys": ["k"], "file": "f"}
    lines: list[Any] = [begun, {"key": []}, note]
    lines += [begun | {name: [3]} for name in begun if name != "map"]
    lines += [begun | {"began": 1e300}, *(note | {name: 3} for name in note if name != "batch")]
    path.parent.mkdir()
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (found,) = kept_maps(path.parent)
    assert (found.header.prompt, found.answered) == ("p", 1)
    assert [note.keys for note in batches_under_way(path)] == [["k"]]


def test_a_dry_run_where_the_answers_cannot_be_read(faults: FaultyServer, tmp_path: Path) -> None:
    (tmp_path / f"labels.csv{SUFFIX}").mkdir()
    for into in (tmp_path / "labels.csv", tmp_path / f"{'n' * 300}.csv"):
        for dry_run in (True, False):
            with pytest.raises(KimiError, match=r"could not be (read|written): "):
                kimi.map(["a"], "{{ value }}", into=into, dry_run=dry_run)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(KimiError, match="into= is the path of a file"):
        kimi.map(["a"], "{{ value }}", into=tmp_path / "folder.csv")
    assert faults.asked == []


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of a process")
def test_a_disk_that_takes_nothing_more(
    faults: FaultyServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The frame comes back although its file cannot be written either."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        rows = [f"row {n}" for n in range(100)]
        frame = kimi.map(rows, "{{ value }}", into=tmp_path / "labels.jsonl", concurrency=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert 0 < frame.error.isna().sum() < 20
    assert "labels.jsonl could not be written" in capsys.readouterr().out
