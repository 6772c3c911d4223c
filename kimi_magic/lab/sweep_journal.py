"""The rows of a sweep in the journal: the marks by which they are found, and their replies."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from typing import Any

from kimi_magic.chats.journal import replies
from kimi_magic.core.errors import KimiError
from kimi_magic.core.frontend import notebook_path
from kimi_magic.core.interrupts import interruptible
from kimi_magic.core.reply import Reply
from kimi_magic.session import Session
from kimi_magic.turn.heavy import HeavyTurn, plain_turn
from kimi_magic.turn.request import first
from kimi_magic.turn.runner import PreparedTurn
from kimi_magic.turn.sameness import facts_of

__all__ = ["as_asked", "mark_of", "marked", "stored_replies"]

UNREADABLE = "Nothing is taken from the journal: {}"


def mark_of(turn: PreparedTurn | HeavyTurn) -> str:
    """Return a text that is the same for the same question, in another kernel too.

    All that a row of a sweep sends counts: the prompt with its summaries, the values and settings,
    the tools with their source.
    """
    if isinstance(turn, HeavyTurn):
        request, settings = turn.turn.request, turn.turn.settings
        facts = {
            "turn": _facts(turn.turn),
            "judge": _facts(turn.judge),
            "heavy": [turn.count, request.until_agree, settings.heavy_prompt],
            "equal": _source(request.equal),
        }
    else:
        facts = _facts(turn)
    text = json.dumps(facts, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def marked(turn: PreparedTurn | HeavyTurn, mark: str) -> PreparedTurn | HeavyTurn:
    """Return a turn whose record will have a mark."""
    if isinstance(turn, HeavyTurn):
        return replace(turn, turn=_marked(turn.turn, mark), judge=_marked(turn.judge, mark))
    return _marked(turn, mark)


def _marked(turn: PreparedTurn, mark: str) -> PreparedTurn:
    return replace(turn, request=replace(turn.request, sweep=mark))


def stored_replies(session: Session, marks: Collection[str]) -> tuple[dict[str, Reply], str]:
    """Return the answers that this notebook's sweeps have had, by their marks, and a notice."""
    if session.settings.journal_path is None:
        return {}, ""
    try:
        found = replies(session.journal.of_sweep(marks, notebook_path()))
        return {reply.record.sweep: reply for reply in found if reply.error is None}, ""
    except KimiError as error:
        return {}, UNREADABLE.format(str(error).partition("\n")[0])


def as_asked(reply: Reply, turn: PreparedTurn | HeavyTurn) -> Reply:
    """Return a stored reply with the live objects that it would have had: its data, its tools."""
    own = plain_turn(turn)
    data = reply.data
    if own.schema is not None:
        with suppress(Exception), interruptible():  # validators are the user's
            data = own.schema.read(reply.text)
    functions = own.toolset.functions if own.toolset else {}
    return replace(reply, data=data, functions=functions)


def _facts(turn: PreparedTurn) -> dict[str, Any]:
    """Return what a turn sends, as far as it is the same in the next kernel."""
    return {
        **facts_of(turn),
        "prompt": turn.prompt.message.to_dict(),
        "seed": first(turn.request.seed, turn.endpoint.seed),
        "logprobs": turn.request.logprobs,
        "sources": turn.toolset and {n: _source(f) for n, f in turn.toolset.functions.items()},
    }


def _source(function: Any) -> str:
    """Return the source of a function as far as it is known: a changed one answers otherwise."""
    with suppress(OSError, TypeError):
        return inspect.getsource(function)
    return ""
