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
# Scripts that put no space between words: the index holds a whole run of them as one word.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff"
    "\U00020000-\U0003ffff]"
)
MOST_WORDS = 50  # that the index looks up: a longer text names few turns by then


@dataclass(frozen=True, slots=True)
class Query:
    """Turns to look for; what is None does not matter.

    Attributes
    ----------
    words : tuple of str
        Texts that occur in prompt, reasoning or answer, in any order; the last may go on.
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
    source, number = "records", "id"
    if read and has_full_text(file):
        looked_up = [word for word in read if _is_indexed(word)][:MOST_WORDS]
        read = [word for word in read if word not in looked_up]
        if looked_up:
            source, number = "turn_texts", "rowid"
            ends = looked_up[-1] == query.words[-1]
            conditions = [f"row{c}" if c.startswith("id ") else c for c in conditions]
            conditions.insert(0, "turn_texts MATCH ?")
            values.insert(0, _match(looked_up, prefix=ends))
    if read:
        file.create_function("holds_words", 1, _reader(read), deterministic=True)
        if source == "turn_texts":
            found = f"SELECT rowid FROM turn_texts WHERE {' AND '.join(conditions)}"  # noqa: S608
            source, number, conditions = "records", "id", [f"id IN ({found})"]
        conditions.append("holds_words(record)")
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    rows = file.execute(f"SELECT {number} FROM {source}{where} ORDER BY {number}", values)  # noqa: S608
    return array("q", (row[0] for row in rows))


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
    return any(map(str.isalnum, word)) and not _UNSPACED.search(word)


def _match(words: Sequence[str], *, prefix: bool) -> str:
    """Return words as FTS5 takes them: in quotes, any text is a phrase."""
    quoted = ['"{}"'.format(word.replace('"', '""')) for word in words]
    return " ".join(quoted) + ("*" if prefix else "")


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
