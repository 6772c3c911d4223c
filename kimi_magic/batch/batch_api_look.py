"""Batches of maps, asked for and cancelled outside of a map's run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

from kimi_magic.batch.batch_api_notes import BatchNote, progress
from kimi_magic.core.errors import ConfigError, KimiError
from kimi_magic.core.interrupts import whole_imports
from kimi_magic.session import Session
from kimi_magic.wire.openai.batches import Batches, BatchState

__all__ = ["ask_for", "cancel"]

ELSEWHERE = "{name} is not at {url} in this kernel: add it with kimi.add_endpoint."


def ask_for(session: Session, note: BatchNote) -> BatchNote:
    """Return the note with what its server tells now.

    Raises
    ------
    KimiError
        The server cannot be asked, or does not answer.
    """
    return _at_server(session, note, lambda batches: batches.retrieve(note.id))


def cancel(session: Session, note: BatchNote) -> BatchNote:
    """Have a batch cancelled; the next call of its map collects the answers that it has by then.

    Raises
    ------
    KimiError
        As for `ask_for`.
    """
    return _at_server(session, note, lambda batches: batches.cancel(note.id))


@whole_imports()
def _at_server(
    session: Session, note: BatchNote, call: Callable[[Batches], BatchState]
) -> BatchNote:
    if not note.id:
        raise KimiError("The map has not noted its name yet: run it again.")
    connector, settings = session.connector, session.settings
    endpoint = connector.choose(note.endpoint, settings)
    if endpoint.base_url != note.url:
        raise ConfigError(ELSEWHERE.format(name=note.endpoint, url=note.url))
    key = connector.key(endpoint, None)
    # With a model named, the server is not asked for one.
    client = connector.connect(endpoint, key, "…", settings, lambda _: None).client
    with closing(client.batches()) as batches:
        return replace(note, **progress(call(batches)))
