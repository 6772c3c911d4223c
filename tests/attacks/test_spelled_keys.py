"""Aim: get a key into what is shared by the tokens of an answer, none of which holds it."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

import kimi_magic as kimi
from kimi_magic.core.errors import KimiError
from kimi_magic.display.record import record_of
from kimi_magic.secrets.redact import Redactor
from kimi_magic.session import Session
from kimi_magic.testing import ScriptedServer
from kimi_magic.testing.answers import Token

SECRET = "-".join(["den", "0123456789/abcdefghijklmnop/QRSTUV"])  # no shape gives it away
SHAPED = "sk-" + "aB3" * 10
SIZE = 5


@pytest.fixture
def den(session: Session, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    with ScriptedServer("vllm", key=SECRET) as server:
        monkeypatch.setenv("KIMI_BASE_URL", server.base_url)
        monkeypatch.setenv("KIMI_MODEL", server.models[0])
        monkeypatch.setenv("KIMI_API_KEY", SECRET)
        yield server


def pieces(secret: str) -> list[str]:
    return [secret[at : at + SIZE] for at in range(0, len(secret), SIZE)]


def spelled(value: Any, secret: str) -> bool:
    """True if pieces of the secret stand in data one after the other, whatever is between them."""
    told = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    at = 0
    for piece in pieces(secret)[:4]:
        at = told.find(piece, at)
        if at < 0:
            return False
    return True


ANSWERS: dict[str, tuple[str, list[Token]]] = {
    "the tokens": (f"It is {SECRET}.", [("It is ", -0.1), *((p, -2.0) for p in pieces(SECRET))]),
    "the likeliest in their places": (
        "x" * len(pieces(SECRET)) + ".",
        [("x", -3.0, {piece: -0.2}) for piece in pieces(SECRET)],
    ),
    "the second ones": (
        "x" * len(pieces(SECRET)) + ".",
        [("x", -0.1, {piece: -2.2}) for piece in pieces(SECRET)],
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_tokens_that_spell_the_key(den: ScriptedServer, name: str) -> None:
    """Input: an answer whose tokens, or the ones that could stand in their places, are the key.

    Holds: reply, frame, stored turn, record, pickle and program tell no twelve letters of it.
    """
    text, tokens = ANSWERS[name]
    den.reply(text, logprobs=[*tokens, (".", -0.1)])
    reply = kimi.ask("Tell me.", logprobs=True, show=False)
    assert reply.steps[0].logprobs == ()
    with pytest.raises(KimiError, match="No logprobs"):
        _ = reply.logprobs
    told = [reply.to_dict(), *record_of(reply).data.values(), kimi.snippet(reply)]
    assert not any(spelled(each, SECRET) for each in told)
    assert not spelled(repr(pickle.loads(pickle.dumps(reply)).record), SECRET)


def test_tokens_that_spell_what_looks_like_a_key(den: ScriptedServer) -> None:
    """Input: an answer that is no key of ours, but looks like one.

    Holds: what is stored of the turn, which is masked, does not spell it.
    """
    tokens: list[Token] = [(piece, -2.0) for piece in pieces(SHAPED)]
    den.reply(SHAPED, logprobs=tokens)
    reply = kimi.ask("Make one up.", logprobs=True, show=False)
    assert reply.text == SHAPED
    assert reply.steps[0].logprobs
    stored = Redactor([], shapes=True).value(reply.record.without_history().to_dict())
    assert not spelled(stored, SHAPED)
