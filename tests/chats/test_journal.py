"""The journal's readers: searches of any text, turns one by one, faults, and what is deleted."""

from __future__ import annotations

import builtins
import math
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_magic.chats import journal_search
from kimi_magic.chats.journal import Journal
from kimi_magic.chats.journal_file import JournalFile
from kimi_magic.chats.journal_search import Query, find, moment
from kimi_magic.core.errors import KimiError, TurnLost
from kimi_magic.core.turn_record import TurnRecord
from tests.kept_turns import DEAD, keep, record, spoil

NOTEBOOK = "/n/lesson.ipynb"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite3"


@pytest.fixture(params=[True, False], ids=["indexed", "read"])
def indexed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """With the full-text index, and as if SQLite had no FTS5."""
    if not request.param:
        monkeypatch.setattr(journal_search, "has_full_text", lambda _: False)
    return bool(request.param)


def found(path: Path, words: Any = None, **more: Any) -> list[str]:
    return [reply.record.prompt for reply in Journal(path).turns(words, **more)]


WRITTEN = [
    record("Why is the sky blue?", "Because of Rayleigh scattering.", reasoning="Light. Air."),
    record('She said "don\'t panic"', "C++ and a back\\slash\nand a new line"),
    record("Straße und Größe", "ÄRGER, 50 %, a_b"),
    record("月之暗面是什么公司?", "一家人工智能公司。"),
    record("Smile", "🙂 it is; => arrows"),
]
SEARCHES: dict[str, list[int]] = {
    "sky": [0],
    "SKY blue": [0],
    "blue sky rayl": [0],
    "blue ra": [],
    "light": [0],
    "don't": [1],
    "\"don't": [1],
    "slash": [1],
    "straße": [2],
    "größe": [2],
    "ärger": [2],
    "人工智能": [3],
    "暗面": [3],
    "公司 月": [3],
    "🙂": [4],
    "=>": [4],
    "🙂 arrows": [4],
    "nothing like this": [],
    "": [0, 1, 2, 3, 4],
    " \t ": [0, 1, 2, 3, 4],
    "%": [2],
    "prompt": [],
    "assistant": [],
    "version": [],
}


@pytest.mark.parametrize("words", SEARCHES, ids=repr)
def test_words_are_found(path: Path, indexed: bool, words: str) -> None:
    keep(path, WRITTEN)
    wanted = [WRITTEN[n].prompt for n in SEARCHES[words]]
    if words == "blue ra" and not indexed:  # without the index any part of a word is found
        wanted = [WRITTEN[0].prompt]
    assert found(path, words) == wanted


def test_a_text_of_several_words(path: Path, indexed: bool) -> None:
    keep(path, WRITTEN)
    assert found(path, ["sky blue"]) == [WRITTEN[0].prompt]
    assert found(path, ["blue sky"]) == []
    assert found(path, iter(["the sky", "scattering"])) == [WRITTEN[0].prompt]


TEXTS = st.text(max_size=40) | st.text("\"'*()^:-+ ANDORNOTNEAR{}[]%_\\\0\n", max_size=40)


@given(TEXTS, TEXTS)
def test_any_text_is_a_search(prompt: str, words: str) -> None:
    """Input: any texts, asked and looked for. Holds: no error, and each word is found."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "journal.sqlite3"
        kept = prompt.encode("utf-8", "replace").decode()
        keep(path, [record(kept or "x", "y")])
        list(Journal(path).turns(words))
        list(Journal(path).turns([words, prompt]))
        for word in kept.split():
            if journal_search._is_indexed(word) is False or word.isascii():
                assert found(path, [word]) or not any(map(str.isalnum, word)) or "\0" in word


def test_a_long_text_is_a_search(path: Path, indexed: bool) -> None:
    text = " ".join(f"word{n}" for n in range(3000))
    keep(path, [record(text, "y"), record("word1 word2", "y")])
    assert found(path, text) == [text]
    assert found(path, text + " missing") == []
    assert found(path, ["x" * 100_000]) == []


def test_filters(path: Path, indexed: bool) -> None:
    now = time.time()
    keep(path, [record("old word", "x", started=now - 9 * 86400)], chat="a")
    keep(path, [record("new word", "x", started=now - 60)], chat="a", notebook="/other.ipynb")
    keep(path, [record("one-off word", "x", started=now)], chat=None)
    keep(path, [record("under way word")], state="running")
    assert found(path, "word") == ["old word", "new word", "one-off word"]
    for words in (None, "word"):
        assert found(path, words, chat="a") == ["old word", "new word"]
        assert found(path, words, since="2d") == ["new word", "one-off word"]
        assert found(path, words, notebook=NOTEBOOK) == ["old word", "one-off word"]
        assert found(path, words, notebook=Path("/other.ipynb"), chat="a") == ["new word"]
        assert found(path, words, chat="none") == []
        journal = Journal(path)
        assert len(journal.find(Query.of(words))) == (4 if words is None or not indexed else 3)
        assert len(journal.find(Query.of(words, before=now - 86400))) == 1
        assert len(journal.find(Query.of(words, number=2))) == 1


NOW = datetime(2026, 11, 29, 12, 0).astimezone()
MOMENTS: list[tuple[Any, datetime]] = [
    ("30m", NOW - timedelta(minutes=30)),
    ("3h", NOW - timedelta(hours=3)),
    (" 2 d ", NOW - timedelta(days=2)),
    ("1w", NOW - timedelta(weeks=1)),
    ("2026-11-01", datetime(2026, 11, 1)),  # noqa: DTZ001
    ("2026-11-01 10:42", datetime(2026, 11, 1, 10, 42)),  # noqa: DTZ001
    (date(2026, 11, 1), datetime(2026, 11, 1)),  # noqa: DTZ001
    (NOW, NOW),
    (timedelta(days=1), NOW - timedelta(days=1)),
]


@pytest.mark.parametrize(("given", "meant"), MOMENTS, ids=str)
def test_moments(given: Any, meant: datetime) -> None:
    assert moment(given, NOW) == meant.timestamp()


@given(st.text(max_size=12) | st.integers() | st.none() | st.from_regex(r"\d+[mhdw]"))
def test_no_moments(given: Any) -> None:
    said = problem(lambda: moment(given))  # none: there are times among them
    assert not said or "is no time" in said


def test_turns_come_one_by_one(path: Path) -> None:
    """Input: a walk that is left in the middle. Holds: writers write, and their log can end."""
    keep(path, [record(f"turn {n}", "x") for n in range(200)])
    walk = Journal(path).turns()
    assert next(walk).record.prompt == "turn 0"
    keep(path, [record("another", "x")])
    with closing(JournalFile.open(path)) as file:
        file.delete([150])
        assert file.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    rest = [reply.record.prompt for reply in walk]
    assert len(rest) == 198
    assert "turn 149" not in rest


def test_a_writer_at_work_does_not_stop_readers(path: Path) -> None:
    keep(path, [record("Hi", "x")])
    with closing(JournalFile.open(path)) as file, file.transaction():
        file.add_chat("/n", "new", 0.0)
        assert found(path, "hi") == ["Hi"]


def test_a_turn_under_way_is_shown_as_far_as_it_came(path: Path) -> None:
    (number,) = keep(path, [record("Tell")], state="running")
    with closing(JournalFile.open(path)) as file, file.transaction():
        file.put_fragments(number, [(0, '{"text": "Once upon"}')])
    reply = Journal(path).turn(number).reply()
    assert (reply.text, type(reply.error)) == ("Once upon", TurnLost)
    assert found(path) == []


def test_a_frame(path: Path) -> None:
    keep(path, [record("Hi", "Hello", started=1_764_000_000.0)])
    keep(path, [record(f"spoilt {n}", "x") for n in range(3)])
    spoil(path, 2, "{")
    spoil(path, 3, '{"version": 2, "steps": ["no object"]}')
    frame = Journal(path).to_pandas()
    assert list(frame["prompt"]) == ["Hi", "spoilt 2"]
    assert frame["started"][0].isoformat() == "2025-11-24T16:00:00+00:00"
    assert str(frame["chat"][0]) == "main"


def test_a_frame_without_pandas(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "pandas":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(KimiError, match="pip install pandas"):
        Journal(path).to_pandas()


@pytest.mark.parametrize("absent", [None, Path("/nowhere/of/journal.sqlite3")])
def test_nothing_is_made_by_reading(absent: Path | None) -> None:
    journal = Journal(absent)
    assert list(journal.turns("x")) == []
    assert len(journal.to_pandas()) == 0
    assert journal.chats("/n") == []
    assert journal.names("/n") == []
    assert journal.forget(Query()).turns == 0
    assert repr(journal) in (
        "<Journal: off, no turns are kept>",
        "<Journal /nowhere/of/journal.sqlite3: 0 turns, 0.0 MB>",
    )
    assert absent is None or not absent.parent.exists()


def damaged(path: Path) -> None:
    keep(path, [record(f"turn {n}", "x" * 9000) for n in range(30)])
    data = bytearray(path.read_bytes())
    data[4096 * 3 :] = bytes(random.Random(1).randbytes(len(data) - 4096 * 3))
    path.write_bytes(data)


def another_programs(path: Path) -> None:
    with closing(sqlite3.connect(path)) as file:
        file.execute("CREATE TABLE bookmarks (url)")


def of_later(path: Path) -> None:
    keep(path, [record("x", "y")])
    with closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA user_version = 99")


def without_tables(path: Path) -> None:
    keep(path, [record("x", "y")])
    with closing(sqlite3.connect(path)) as file:
        file.executescript("DROP VIEW turns; DROP TABLE records; DROP TABLE chats;")


def problem(call: Callable[[], Any]) -> str:
    try:
        call()
    except KimiError as error:
        return str(error)
    return ""


FAULTS = [
    damaged,
    another_programs,
    of_later,
    without_tables,
    lambda path: path.mkdir(),
    lambda path: path.write_bytes(b"no database at all " * 300) and None,
    # The system refuses even to look, as in a folder of somebody else's.
    lambda path: path.with_name("a" * 300),
]


@pytest.mark.parametrize("spoilt", FAULTS)
def test_each_fault_is_told_in_a_line(path: Path, spoilt: Any) -> None:
    path = spoilt(path) or path
    journal = Journal(path)
    for read in (
        lambda: list(journal.turns()),
        lambda: list(journal.turns("word")),
        journal.to_pandas,
        lambda: journal.chats(NOTEBOOK),
        lambda: journal.turn(1),
        lambda: journal.forget(Query(chat="main")),
    ):
        said = problem(read)  # none of a part that can still be read
        assert len(said.splitlines()) <= 1
        assert not said or str(path) in said or "no turn 1" in said
    assert str(path) in repr(journal)
    journal.recover()


def test_the_chats_of_a_notebook(path: Path) -> None:
    keep(path, [record("a", "x", started=10.0)], chat="main", began=1.0)
    keep(path, [record("b", "x", started=30.0)] * 2, chat="main", began=2.0)
    keep(path, [record("c", "x", started=20.0)], chat="review", began=3.0)
    keep(path, [record("d", "x", started=90.0)], chat="main", began=9.0, kernel="own")
    keep(path, [record("e", "x", started=99.0)], chat="main", notebook="/else.ipynb")
    with closing(JournalFile.open(path)) as file, file.transaction():
        file.end_chat(file.add_chat(NOTEBOOK, "ended", 5.0), 6.0)
        file.add_chat(NOTEBOOK, "empty", 5.0)
    main, review = Journal(path).chats(NOTEBOOK, kernel="own")
    assert (main.name, main.turns, main.latest, main.kernel) == ("main", 2, 30.0, DEAD)
    assert (review.name, review.turns) == ("review", 1)
    assert [t.texts()[0] for t in Journal(path).turns_of(main)] == ["b", "b"]
    assert Journal(path).names(NOTEBOOK) == ["empty", "ended", "main", "review"]


def test_the_length_of_a_chat(path: Path) -> None:
    kept = [
        record("a", "x", cell="a", run="1"),
        record("b", "x", cell="b", run="2"),
        record("nothing came", cell="c", run="3"),
        record("a again", "x", cell="a", run="4"),
        record("a, the second line", "x", cell="a", run="4"),
    ]
    keep(path, kept)
    (chat,) = Journal(path).chats(NOTEBOOK)
    assert chat.turns == 2


LONG_AGO = time.time() - 10 * 86400


@pytest.mark.parametrize("seed", range(4))
def test_nothing_of_forgotten_turns_stays(path: Path, seed: int) -> None:
    """Input: turns that grew, ended and were lost, by chance. Holds: no byte of the forgotten."""
    chance = random.Random(seed)
    with closing(JournalFile.open(path)) as file:
        with file.transaction():
            chats = {w: file.add_chat("/n", w, 0.0) for w in ("needle", "hay")}
        under_way: list[tuple[int, str, TurnRecord]] = []
        for n in range(150):
            word = "needle" if n % 3 == 0 else "hay"
            asked = record(f"{word}{n}", started=LONG_AGO)
            with file.transaction():
                row = file.add(
                    asked.to_dict(), chat=chats[word], notebook="/n", kernel=DEAD, state="running"
                )
                texts = [word * chance.randrange(1, 60) for _ in range(chance.randrange(6))]
                file.put_fragments(row, enumerate(f'{{"text": "{text}"}}' for text in texts))
            under_way.append((row, word, asked))
            while len(under_way) > 5 or (under_way and chance.random() < 0.5):
                row, word, asked = under_way.pop(chance.randrange(len(under_way)))
                text = f"{word} " * chance.choice([1, 5, 20, 300, 4000])
                with file.transaction():
                    ended = record(asked.prompt, text, reasoning=text, started=LONG_AGO)
                    file.replace(row, ended.to_dict(), state="done")
        journal = Journal(path)
        journal.forget(Query(number=chance.randrange(1, 150)))
        gone = journal.forget(Query(chat="needle"))
        assert (gone.chats, gone.under_way, gone.is_clean) == (1, 0, True)
        for each in path.parent.iterdir():
            assert b"needle" not in each.read_bytes().lower(), each.name
        with closing(sqlite3.connect(path)) as other:
            assert len(find(other, Query.of("needle"))) == 0
            assert len(find(other, Query.of("hay"))) >= 99
    assert journal.forget(Query(before=time.time())).turns >= 99
    assert b"hay" not in path.read_bytes()


def test_a_reader_that_keeps_the_log_alive_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kimi_magic.chats.journal.TRIES", 1)
    keep(path, [record("needle", "needle")])
    with closing(sqlite3.connect(path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM records").fetchall()
        gone = Journal(path).forget(Query(chat="main"))
        assert (gone.turns, gone.is_clean) == (1, False)
    assert Journal(path).forget(Query(chat="main")).is_clean
    assert b"needle" not in path.read_bytes()


def test_what_another_program_spoilt_is_forgotten(path: Path) -> None:
    spoilt: list[str | bytes] = ["{", b"\xff\x00", '{"prompt": "half \\ud800"}', '{"prompt": 5}']
    numbers = keep(path, [record(f"x{n}", "y") for n in range(5)])
    for number, text in zip(numbers, spoilt, strict=False):
        spoil(path, number, text)
    assert Journal(path).forget(Query(chat="main")).turns == 5
    assert list(walk(path)) == []


@pytest.mark.parametrize("state", ["done", "running"])
@pytest.mark.parametrize("value", ["abc", b"\xff\xfe", 5, 1e300, -1e18, math.inf])
@pytest.mark.parametrize("column", ["records.started", "records.notebook", "chats.name"])
def test_columns_of_any_type(path: Path, column: str, value: Any, state: str) -> None:
    """SQLite keeps what another program writes: one such row must not hide the others."""
    keep(path, [record(f"turn {n}", "x") for n in range(3)])
    table, _, name = column.partition(".")
    with closing(sqlite3.connect(path)) as file, file:
        where = f"WHERE id = (SELECT max(id) FROM {table})"
        file.execute("UPDATE records SET state = ?, kernel = 'a:1:b', started = 1", [state])
        file.execute(f"UPDATE {table} SET {name} = ? {where}", [value])
    journal = Journal(path)
    found = list(journal.stored(Query()))
    assert len(found) == 3
    for turn in found:
        assert (type(turn.chat), type(turn.notebook), type(turn.state)) == (str, str, str)
        assert type(turn.started) is float
    journal.recover()
    assert len(list(journal.turns())) == len(journal.to_pandas()) == 3
    assert all(type(chat.name) is str for chat in journal.chats(NOTEBOOK))
    assert journal.forget(Query()).turns == 3


def walk(path: Path) -> Iterator[str]:
    yield from (turn.state for turn in Journal(path).stored(Query()))
