"""Journals for tests, written a turn at a time."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from kimi_magic.chats.journal_file import JournalFile
from kimi_magic.core.messages import Message, Step, as_reasoning
from kimi_magic.core.turn_record import EndpointFacts, Failure, TurnRecord

__all__ = ["DEAD", "keep", "record", "spoil"]

DEAD = "nowhere:1:00000000"  # a kernel of another host


def record(
    prompt: str,
    answer: str = "",
    *,
    history: Sequence[Message] = (),
    reasoning: str = "",
    **fields: Any,
) -> TurnRecord:
    """Return the record of a turn with one step, without one where there is no answer."""
    own: list[Message] = [Message("user", prompt)]
    steps: tuple[Step, ...] = ()
    if answer:
        own.append(Message("assistant", answer, reasoning=as_reasoning(reasoning or None)))
        steps = (Step(answer, as_reasoning(reasoning) or (), finish_reason="stop"),)
    fields = {"finish_reason": "stop" if answer else None, "started": time.time()} | fields
    fields.setdefault("endpoint", EndpointFacts("lab", "http://lab/v1"))
    fields.setdefault("parameters", {"model": "kimi-k2-thinking", "stream": True})
    messages = (*history, *own)
    return TurnRecord(
        steps, messages, len(history) + 1, prompt=prompt, model="kimi-k2-thinking", **fields
    )


def keep(
    path: Path,
    records: Iterable[TurnRecord],
    *,
    notebook: str | Path = "/n/lesson.ipynb",
    chat: str | None = "main",
    kernel: str = DEAD,
    state: Any = "done",
    began: float = 0.0,
) -> list[int]:
    """Write turns of one chat; return their numbers."""
    with closing(JournalFile.open(path)) as file, file.transaction():
        row = file.add_chat(str(notebook), chat, began) if chat else None
        return [
            file.add(
                each.without_history().to_dict(),
                chat=row,
                notebook=str(notebook),
                kernel=kernel,
                state=state,
            )
            for each in records
        ]


def spoil(path: Path, number: int, text: str | bytes) -> None:
    """Put another text in the place of a record, as some other program may."""
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("UPDATE records SET record = ? WHERE id = ?", (text, number))


def failed(prompt: str, message: str = "Refused.") -> TurnRecord:
    return record(prompt, failure=Failure("ServerFailed", message))


def as_json(each: TurnRecord) -> str:
    return json.dumps(each.to_dict())
