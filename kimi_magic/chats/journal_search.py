"""Searches of the journal: words, moments, and the SQL that finds the turns they name."""

from __future__ import annotations

import json
import re
import sqlite3
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from kimi_magic.core.errors import KimiError
from kimi_magic.core.text import mend_surrogates

__all__ = ["Query", "find", "has_full_text", "moment", "texts_of"]

_AGE = re.compile(r"\s*(\d{1,6})\s*([mhdw])\s*")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
# Scripts that put no space between words, by their first and last code points: the index holds a
# whole run of them as one word. Not a regular expression, which takes 10 ms to compile.
_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x9FFF),  # Chinese, Japanese
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)
LEAST_PREFIX = 3  # characters: a shorter one begins too many words
MOST_WORDS = 50  # that the index looks up: a longer text names few turns by then


@dataclass(frozen=True, slots=True)
class Query:
    """Turns to look for; what is None does not matter.

    Attributes
    ----------
    words : tuple of str
        Texts that occur in prompt, reasoning or answer, in any order; the last may be the
        beginning of a word.
    chat, notebook : str or None
    since, before : float or None
        Seconds of Unix time.
    number : int or None
        Of one turn.
    running : bool
        Turns that are under way are among them.
    """

    words: tuple[str, ...] = ()
    chat: str | None = None
    notebook: str | None = None
    since: float | None = None
    before: float | None = None
    number: int | None = None
    running: bool = True

    @classmethod
    def of(cls, words: str | Iterable[str] | None, **fields: Any) -> Query:
        """Make a query of words in one text, or of several texts."""
        split = words.split() if isinstance(words, str) else words or ()
        texts = (mend_surrogates(word).replace("\0", " ").strip() for word in split)
        return cls(tuple(text for text in texts if text), **fields)

    def conditions(self) -> tuple[list[str], list[Any]]:
        """Return conditions on a row of ``records``, with the values of their parameters."""
        found: list[tuple[str, list[Any]]] = []
        if self.chat is not None:
            found.append((_IN_CHAT, [self.chat]))
        if self.notebook is not None:
            found.append((_IN_NOTEBOOK, [self.notebook, self.notebook]))
        if self.since is not None:
            found.append((_SINCE, [self.since]))
        if self.before is not None:
            found.append((_BEFORE, [self.before]))
        if self.number is not None:
            found.append(("id = ?", [self.number]))
        if not self.running:
            found.append((_OVER, []))
        return [condition for condition, _ in found], [v for _, values in found for v in values]


# Subqueries that indexes answer: a row with its record is many times as long.
_IN_CHAT = """id IN (
    SELECT id FROM records WHERE chat IN (SELECT id FROM chats WHERE name = ?))"""
_IN_NOTEBOOK = """id IN (
    SELECT id FROM records WHERE chat IN (SELECT id FROM chats WHERE notebook = ?)
    UNION ALL SELECT id FROM records WHERE chat IS NULL AND notebook = ?)"""
_SINCE = "id IN (SELECT id FROM records WHERE started >= ?)"
_BEFORE = "id IN (SELECT id FROM records WHERE started < ?)"
_OVER = "id NOT IN (SELECT id FROM records WHERE state = 'running')"


def moment(text: Any, now: datetime | None = None) -> float:
    """Return the Unix time of ``2d``, ``3h``, a date in ISO 8601, or a `datetime`, local time.

    Raises
    ------
    KimiError
        It is none of these.
    """
    now = now or datetime.now().astimezone()
    try:
        if isinstance(text, datetime):
            return text.timestamp()
        if isinstance(text, date):
            return datetime(text.year, text.month, text.day).timestamp()  # noqa: DTZ001 - local
        if isinstance(text, timedelta):
            return (now - text).timestamp()
        if isinstance(text, str):
            if age := _AGE.fullmatch(text):
                return (now - timedelta(**{_UNITS[age[2]]: int(age[1])})).timestamp()
            return datetime.fromisoformat(text.strip()).timestamp()
    except (ValueError, OverflowError, OSError):
        pass
    raise KimiError(f"{text!r:.60} is no time: write 30m, 3h, 2d, 1w, or a date as 2026-11-01.")


def has_full_text(file: sqlite3.Connection) -> bool:
    """Return True if the file has the index, and this SQLite can read it."""
    try:
        file.execute("SELECT rowid FROM turn_texts WHERE turn_texts MATCH '\"a\"' LIMIT 1")
    except sqlite3.OperationalError:
        return False
    return True


def find(file: sqlite3.Connection, query: Query) -> array[int]:
    """Return the numbers of the turns that a query names, oldest first."""
    conditions, values = query.conditions()
    read = list(query.words)
    source = "SELECT id FROM records"
    if read and has_full_text(file):
        looked_up = [word for word in read if _is_indexed(word)][:MOST_WORDS]
        read = [word for word in read if word not in looked_up]
        if looked_up:
            source = "SELECT rowid AS id FROM turn_texts"
            conditions.insert(0, "turn_texts MATCH ?")
            goes_on = looked_up[-1] == query.words[-1]
            values.insert(0, _match(looked_up, prefix=goes_on))
    # Without the sign, rows are looked up one by one: that takes seconds.
    column = "+id" if source == "SELECT id FROM records" else "+rowid"
    conditions = [re.sub(r"^id (?=(NOT )?IN)", f"{column} ", each) for each in conditions]
    sql = f"{source} WHERE {' AND '.join(conditions)}" if conditions else source
    if read:
        sql, values = _reading(file, sql, values, read)
    # By "+id" no index is in order: else SQLite reads all records, for ids that an index has.
    return array("q", (row[0] for row in file.execute(f"{sql} ORDER BY +id", values)))


def _reading(
    file: sqlite3.Connection, sql: str, values: list[Any], words: Sequence[str]
) -> tuple[str, list[Any]]:
    """Return the query that also reads the records for words."""
    file.create_function("holds_words", 1, _reader(words), deterministic=True)
    holds = "holds_words(record)"
    # What has no capitals stands in a record as it is, unless that is written with escapes.
    plain = [
        w for w in words if w.lower() == w.upper() and json.dumps(w, ensure_ascii=False) == f'"{w}"'
    ]
    for _ in plain:
        holds = f"CASE WHEN instr(record, ?) OR instr(record, '\\u') THEN {holds} ELSE 0 END"
    sql = f"SELECT id FROM records WHERE id IN ({sql}) AND {holds}"  # noqa: S608
    return sql, [*values, *reversed(plain)]


def texts_of(data: Any) -> tuple[str, list[str], list[str]]:
    """Return the prompt, reasoning and answers of a record in JSON, without what does not fit."""
    if not isinstance(data, dict):
        return "", [], []
    steps = _objects(data.get("steps"))
    parts = (part for step in steps for part in _objects(step.get("reasoning_parts")))
    answers = [_text(step.get("text")) for step in steps]
    return _text(data.get("prompt")), [_text(part.get("text")) for part in parts], answers


def _objects(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _is_indexed(word: str) -> bool:
    if word.isascii():
        return any(map(str.isalnum, word))
    points = set(map(ord, word))
    unspaced = any(first <= point <= last for point in points for first, last in _UNSPACED)
    return any(map(str.isalnum, word)) and not unspaced


def _match(words: Sequence[str], *, prefix: bool) -> str:
    """Return words as FTS5 takes them: in quotes, any text is a phrase."""
    quoted = ['"{}"'.format(word.replace('"', '""')) for word in words]
    return " ".join(quoted) + ("*" if prefix and len(words[-1]) >= LEAST_PREFIX else "")


def _reader(words: Iterable[str]) -> Callable[[Any], bool]:
    """Return a function that looks for texts in records."""
    wanted = [word.casefold() for word in words]
    written = [json.dumps(word, ensure_ascii=False)[1:-1] for word in wanted]

    def holds(record: Any) -> bool:
        if not isinstance(record, str):
            return False
        folded = record.casefold()
        if "\\u" not in folded and not all(word in folded for word in written):
            return False
        try:
            prompt, reasoning, answers = texts_of(json.loads(record))
        except (ValueError, RecursionError):
            return False
        texts = "\0".join([prompt, *reasoning, *answers]).casefold()
        return all(word in texts for word in wanted)

    return holds
