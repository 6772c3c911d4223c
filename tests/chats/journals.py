"""Journals for tests; ``python -m tests.chats.journals`` writes the one that is kept."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

from kimi_magic.chats.journal_file import JournalFile
from kimi_magic.core.messages import Message, Step, ToolCall, ToolResult, Usage, as_reasoning
from kimi_magic.core.turn_record import EndpointFacts, Failure, TurnRecord

VERSION_1 = Path(__file__).parent / "journal-v1.sqlite3"
NOTEBOOK = "/home/me/lesson.ipynb"
ELSEWHERE = "elsewhere:17:0123abcd"  # a kernel of another host


def record(prompt: str = "9.11 or 9.9?", text: str = "9.9.", **more: Any) -> TurnRecord:
    """A turn of two steps, with a call."""
    call = ToolCall("functions.compare:0", "compare", '{"a": 9.11}')
    result = ToolResult("compare", "smaller", call_id=call.id, seconds=0.25)
    steps = (
        Step(
            "", as_reasoning("Let me compare.") or (), (call,), (result,), Usage(5, 3, requests=1)
        ),
        Step(text, as_reasoning("So it is.") or (), usage=Usage(9, 4, 2, requests=1)),
    )
    fields: dict[str, Any] = {
        "steps": steps,
        "messages": (
            Message("user", prompt),
            Message("assistant", reasoning=steps[0].reasoning_parts, tool_calls=(call,)),
            Message("tool", "smaller", tool_call_id=call.id, name="compare"),
            Message("assistant", text, reasoning=steps[1].reasoning_parts),
        ),
        "sent": 1,
        "usage": Usage(14, 7, 2, requests=2),
        "finish_reason": "stop",
        "model": "kimi-k2-thinking",
        "chat": "main",
        "parameters": {"model": "kimi-k2-thinking", "stream": True},
        "endpoint": EndpointFacts("moonshot", "https://api.moonshot.ai/v1"),
        "prompt": prompt,
        "cell": "c1",
        "started": 1_764_000_000.0,
    }
    return TurnRecord(**fields | more)


def prepared(prompt: str = "Go on.", **more: Any) -> TurnRecord:
    """A turn before its first request."""
    fields: dict[str, Any] = {
        "messages": (Message("user", prompt),),
        "steps": (),
        "usage": Usage(),
    } | more
    return record(prompt, finish_reason=None, **fields)


def add(file: JournalFile, turn: TurnRecord, state: Any = "done", **where: Any) -> int:
    """Add a turn to a journal, in a transaction of its own."""
    place = {"chat": None, "notebook": NOTEBOOK, "kernel": ELSEWHERE} | where
    with file.transaction():
        return file.add(turn.to_dict(), state=state, **place)


def fill(file: JournalFile) -> None:
    """Add a chat with a turn of each state."""
    with file.transaction():
        chat = file.add_chat(NOTEBOOK, "main", 1_764_000_000.0)
    add(file, record(), chat=chat)
    failure = Failure("TimedOut", "The server was silent.")
    add(file, record("And 8?", "It", failure=failure, finish_reason=None), "failed", chat=chat)
    row = add(file, prepared("Write a story."), "running", chat=chat)
    fragments = ['{"reasoning": "A story …"}', '{"text": "Once upon "}', '{"text": "a time"}']
    with file.transaction():
        file.put_fragments(row, enumerate(fragments))
    add(file, record("A one-off", "Yes.", chat=None))


def stored(path: Path, query: str) -> list[Any]:
    """Return the rows of a query, from a connection of its own."""
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def records(path: Path) -> list[TurnRecord]:
    rows = stored(path, "SELECT record FROM records ORDER BY id")
    return [TurnRecord.from_dict(json.loads(text)) for (text,) in rows]


if __name__ == "__main__":
    VERSION_1.unlink(missing_ok=True)
    journal = JournalFile.open(VERSION_1)
    fill(journal)
    journal.close()
