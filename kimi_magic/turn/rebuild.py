"""Chats of stored turns, as they were when their turns were made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from kimi_magic.chats.chat import Chat, ChatTurn, Place
from kimi_magic.chats.history import CallIds
from kimi_magic.config import Settings
from kimi_magic.core.messages import Message
from kimi_magic.core.reply import Reply
from kimi_magic.core.turn_record import TurnRecord
from kimi_magic.turn.request import again, earlier_messages, request_of
from kimi_magic.wire.connector import Connector

__all__ = ["rebuild"]


def rebuild(
    chat: Chat,
    replies: Iterable[Reply],
    *,
    connector: Connector,
    settings: Settings,
    made_here: bool = True,
) -> None:
    """Add stored turns to a chat, one after the other.

    Each takes the place that it took then: a cell that was run again rewinds, ``--fresh`` starts
    anew, and a turn in which nothing came is the one to ask again. The messages of earlier turns
    stand before those of each turn again. Of turns that were not ``made_here``, endpoint and model
    are those of whoever goes on with them.
    """
    for reply in replies:
        record = replace(reply.record, chat=chat.name)
        place = Place(record.cell, record.run)
        asked = record.parameters.get("model") or record.model
        model = connector.model_records.get(str(asked).strip())
        endpoint = connector.catalogue.of(record.endpoint)
        key = endpoint.reasoning_key if endpoint else ""
        earlier = earlier_messages(chat, place, model, fresh=record.fresh, reasoning_key=key)
        record = _numbered_on(record, earlier, keep=model.call_ids == "server")
        record = record.with_history(earlier)
        request = request_of(reply.record, connector, settings)
        if not made_here:
            request = replace(request, endpoint=None, model=None)
        if record.exchange:
            turn = ChatTurn(record.prompt, replace(reply, record=record), place, request)
            chat.append(turn, fresh=record.fresh)
        else:
            chat.unanswered = again(request, reply.trajectories)


def _numbered_on(record: TurnRecord, earlier: Sequence[Message], *, keep: bool) -> TurnRecord:
    """Return a record whose calls have ids that none of the earlier messages has.

    A turn that travelled counts them from 0.
    """
    ids = CallIds(earlier, keep=keep)
    new: dict[str, str] = {}
    for message in record.exchange:
        given = ids.give(message) if message.tool_calls else message
        pairs = zip(message.tool_calls, given.tool_calls, strict=True)
        new |= {old.id: call.id for old, call in pairs}
    return record.with_call_ids(lambda call_id: new.get(call_id, call_id))
