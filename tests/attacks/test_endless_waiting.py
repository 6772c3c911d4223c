"""Aim: hold a turn for ever, or have a whole answer thrown away."""

from __future__ import annotations

import time

import pytest

import kimi_magic as kimi
from kimi_magic.core.events import ContentDelta
from kimi_magic.session import Session
from kimi_magic.testing import ScriptedServer
from kimi_magic.wire import client as client_module

STARTED = b'data: {"choices":[{"delta":{"content":"Half"}}]}\n\n'
FINISHED = b'data: {"choices":[{"delta":{"content":" whole."},"finish_reason":"stop"}]}\n\n'
KEEP_ALIVE = b": keep-alive\n\n"
QUEUED = b": OPENROUTER PROCESSING\n\n"


def test_comments_for_ever(session: Session, server: ScriptedServer) -> None:
    """Input: half an answer, then comments without end. Holds: it stalls, and the half is kept."""
    server.raw([STARTED, *[KEEP_ALIVE] * 5000], rate=200)
    session.settings.stall_timeout = 0.4
    with pytest.raises(kimi.TimedOut, match="stall_timeout") as raised:
        kimi.ask("Hi")
    assert raised.value.reply is not None
    assert raised.value.reply.text == "Half"
    assert server.requests[0].closed.wait(30)


def test_a_queue_is_waited_for(session: Session, server: ScriptedServer) -> None:
    """Input: comments before the first token, for longer than a stall. Holds: it is waited for."""
    server.raw([*[QUEUED] * 40, STARTED, FINISHED, b"data: [DONE]\n\n"], rate=40)
    session.settings.stall_timeout = 0.4
    session.settings.first_token_timeout = 60
    assert kimi.ask("Hi").text == "Half whole."


@pytest.mark.parametrize("end", ["silence", "comments", "reset", "no mark"])
def test_the_end_of_a_whole_answer(
    session: Session, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """Input: a finish reason, then silence, comments or a reset. Holds: the answer is whole."""
    monkeypatch.setattr(client_module, "USAGE_GRACE", 0.3)
    session.settings.stall_timeout = session.settings.first_token_timeout = 60
    events = [STARTED, FINISHED, *[KEEP_ALIVE] * (400 if end == "comments" else 1)]
    server.raw(
        events,
        rate=100,
        stall_after=2 if end == "silence" else None,
        cut_after=2 if end == "reset" else None,
    )
    reply = kimi.ask("Hi")
    assert (reply.text, reply.finish_reason, reply.error) == ("Half whole.", "stop", None)


def test_a_consumer_that_was_away(session: Session, server: ScriptedServer) -> None:
    """Input: a consumer of events that is busy for longer than a stall, while the answer goes on.

    Holds: what had arrived by then tells that nothing stalled, and the answer is whole.
    """
    session.settings.stall_timeout = 0.6
    server.reply("word " * 60, rate=40)
    texts: list[str] = []
    for event in kimi.stream("Hi"):
        if isinstance(event, ContentDelta):
            if not texts:
                time.sleep(0.9)
            texts.append(event.text)
    assert "".join(texts) == "word " * 60


def test_a_wait_that_is_none(session: Session, server: ScriptedServer) -> None:
    """Input: a refusal that asks to wait until a date that no clock has, or for ever.

    Holds: the refusal is told at once, in two lines.
    """
    session.settings.retries = 0
    session.settings.first_token_timeout = 60
    for wait in ("Mon, 01 Jan 2026 00:00:00 +99999999999999", "1e308", "inf", "nan"):
        server.error(429, "Slow down", headers={"Retry-After": wait})
        with pytest.raises(kimi.RateLimited, match="Slow down") as raised:
            kimi.ask("Hi")
        assert len(str(raised.value)) < 300
        assert str(raised.value).count("\n") == 1
