"""The batches of a map in its file, beside the answers: what was sent, and what became of it.

Each step is a line of its own, written when it is done: the plan with the keys of the rows, the
uploaded file, the batch that was created, its progress, its end. Whoever opens the file after a
crash knows the last step, and goes on from there.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kimi_magic.batch.checkpoint import Checkpoint
from kimi_magic.core.text import count
from kimi_magic.wire.openai.batches import BatchState

__all__ = [
    "DROPPED",
    "BatchNote",
    "batches_under_way",
    "new_note",
    "notes_of",
    "progress",
    "write_step",
]

BEGIN = b'{"batch": '
DROPPED = "dropped"
"""The end of a batch that was never created."""
MAKING = "is being made"


@dataclass(frozen=True, slots=True)
class BatchNote:
    """A batch, as far as it is known here.

    Attributes
    ----------
    batch : str
        Our own mark of it, which its metadata hold as well.
    map : str
        The `Questions.mark` of its map: a file may hold the answers of several.
    endpoint, url : str
        The name and the address of its server.
    keys : sequence of str
        Those of its rows, which are the ids of its requests.
    at : float
        When it was planned.
    file, id : str
        The server's names of its file and of itself; "" where they are not known yet.
    status : str
        As the server told last.
    done, failed : int
        Requests, as the server told last.
    ended : str
        The status with which it was collected, or ``dropped``; "" while it is under way.
    """

    batch: str
    map: str
    endpoint: str
    url: str
    keys: Sequence[str]
    at: float = field(default_factory=time.time)
    file: str = ""
    id: str = ""
    status: str = ""
    done: int = 0
    failed: int = 0
    ended: str = ""

    @property
    def under_way(self) -> bool:
        """True if it may exist, and its answers are still to come."""
        return bool(self.file) and not self.ended

    def __str__(self) -> str:
        status = (self.status or "sent").replace("_", " ") if self.id else MAKING
        failed = f", {self.failed:,} failed" if self.failed else ""
        rows = f"{self.done:,} of {count(len(self.keys), 'row')} answered"
        return f"batch {self.id or self.batch} ({status}, {rows}{failed})"


def new_note(mark: str, endpoint: str, url: str, keys: Sequence[str]) -> BatchNote:
    return BatchNote(uuid.uuid4().hex, mark, endpoint, url, tuple(keys))


def progress(state: BatchState) -> dict[str, Any]:
    """Return the fields of a note that change while its batch is under way."""
    return {"status": state.status, "done": state.completed, "failed": state.failed}


def write_step(checkpoint: Checkpoint, before: BatchNote | None, note: BatchNote) -> None:
    """Write what is new in a note; all of it where there was none before."""
    names = [name for name in BatchNote.__slots__ if name != "batch"]
    new = {
        name: getattr(note, name)
        for name in names
        if before is None or getattr(before, name) != getattr(note, name)
    }
    if new:
        checkpoint.note({"batch": note.batch, **new})


def _read_notes(path: Path) -> dict[str, BatchNote]:
    """Return the batches in a map's file, by their marks, in the order in which they were made."""
    notes: dict[str, BatchNote] = {}
    with suppress(OSError), path.open("rb") as file:
        for facts in _lines(file):
            mark = facts["batch"]
            with suppress(TypeError):  # a step of a later version, or of nobody's
                known = notes.get(mark)
                notes[mark] = _checked(
                    BatchNote(**facts) if known is None else replace(known, **facts)
                )
    return notes


def _checked(note: BatchNote) -> BatchNote:
    """Return a note as it was read, or raise a TypeError: the file may be anybody's."""
    texts = (note.map, note.endpoint, note.url, note.file, note.id, note.status, note.ended)
    are_texts = all(isinstance(text, str) for text in (*texts, *note.keys))
    if not are_texts or not type(note.done) is type(note.failed) is int:
        raise TypeError("no note of ours")
    if type(note.at) is not float or isinstance(note.keys, str):
        raise TypeError("no note of ours")
    return note


def _lines(file: Any) -> Iterator[Mapping[str, Any]]:
    for line in file:
        if line.startswith(BEGIN):
            with suppress(ValueError, RecursionError):  # it was cut
                facts = json.loads(line)
                if isinstance(facts, dict) and isinstance(facts["batch"], str):
                    yield facts


def notes_of(path: Path, mark: str) -> list[BatchNote]:
    """Return a map's own batches that are under way."""
    return [note for note in batches_under_way(path) if note.map == mark]


def batches_under_way(path: Path) -> list[BatchNote]:
    """Return the batches of all maps in a file that are under way."""
    return [note for note in _read_notes(path).values() if note.under_way]
