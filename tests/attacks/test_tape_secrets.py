"""Aim: get a key onto a tape, which people share."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kimi_magic as kimi
from kimi_magic.core.events import Notice
from kimi_magic.secrets.keys import Key
from kimi_magic.testing import ScriptedServer
from kimi_magic.wire.openai.chat_completions import ChatCompletions
from kimi_magic.wire.tape_file import TapeFile
from kimi_magic.wire.tape_secrets import find_secret, masked

SECRET = "den-0123456789/abcdefghijklmnop/QRSTUV"  # no shape gives it away
KEY = Key(SECRET, "a test", "LAB_API_KEY")
WIRE = ChatCompletions()
ESCAPED = "".join(f"\\u{ord(char):04x}" for char in SECRET)
LOOKS_LIKE_ONE = "sk-proj-" + "0a9b8c7d6e5f4g3h2i1j"


def event(**delta: Any) -> bytes:
    return f"data: {json.dumps({'choices': [{'index': 0, 'delta': delta}]})}\n\n".encode()


def call(arguments: str, index: int = 0, name: str | None = None) -> dict[str, Any]:
    function = {"arguments": arguments} | ({"name": name} if name else {})
    return {"index": index, "id": f"c{index}" if name else None, "function": function}


def pieces_of(secret: str, cuts: list[int]) -> list[str]:
    edges = sorted({0, len(secret), *(at % (len(secret) + 1) for at in cuts)})
    return [secret[a:b] for a, b in itertools.pairwise(edges)]


def tokens(parts: list[str]) -> list[bytes]:
    """Chunks with logprobs, whose tokens, bytes and alternatives spell a text."""
    found = []
    for part in parts:
        token = {"token": part, "logprob": -0.1, "bytes": list(part.encode())}
        other = {"token": part[::-1], "logprob": -3.0, "bytes": list(part[::-1].encode())}
        logprobs = {"content": [token | {"top_logprobs": [other, token]}]}
        choice = {"index": 0, "delta": {"content": part}, "logprobs": logprobs}
        found.append(f"data: {json.dumps({'choices': [choice]})}\n\n".encode())
    return found


WAYS: dict[str, Callable[[list[str]], list[bytes]]] = {
    "answer": lambda parts: [event(content=part) for part in parts],
    "reasoning": lambda parts: [event(reasoning_content=part) for part in parts],
    "twice": lambda parts: [
        event(reasoning=part, reasoning_details=[{"type": "reasoning.text", "text": part}])
        for part in parts
    ],
    "arguments": lambda parts: [
        event(tool_calls=[call('{"key": "', name="save")]),
        *(event(tool_calls=[call(part)]) for part in parts),
        event(tool_calls=[call('"}')]),
    ],
    "two calls by turns": lambda parts: [
        event(tool_calls=[call("", 0, "a"), call("", 1, "b")]),
        *(event(tool_calls=[call(part, 1), call("x", 0)]) for part in parts),
    ],
    "escaped arguments": lambda parts: [
        event(tool_calls=[call('{"key": "', name="save")]),
        *(
            event(tool_calls=[call("".join(f"\\u{ord(char):04x}" for char in part))])
            for part in parts
        ),
        event(tool_calls=[call('"}')]),
    ],
    "logprobs": tokens,
    "a field that nobody reads": lambda parts: [
        event(content="hello"),
        *(f"data: {json.dumps({'debug': {'trace': part}})}\n\n".encode() for part in parts),
    ],
}


@pytest.mark.parametrize("way", WAYS)
@given(
    cuts=st.lists(st.integers(0, 100), max_size=8),
    splits=st.lists(st.integers(0, 10**6), max_size=8),
)
@settings(max_examples=25, deadline=None)
def test_a_known_key_in_pieces(way: str, cuts: list[int], splits: list[int]) -> None:
    """Input: a key over chunks, in texts, calls, logprobs. Holds: masked, and nothing spells it."""
    body = b"".join([*WAYS[way](pieces_of(SECRET, cuts)), b"data: [DONE]\n\n"])
    edges = sorted({0, len(body), *(at % (len(body) + 1) for at in splits)})
    pieces = tuple((float(a), body[a:b]) for a, b in itertools.pairwise(edges))
    written = masked(pieces, [KEY])
    assert find_secret(written, [KEY], WIRE) == ""
    text = b"".join(data for _, data in written).decode()
    assert SECRET not in text
    said = "".join(
        str(value)
        for line in text.splitlines()
        if line.startswith("data: {")
        for value in leaves(json.loads(line[6:]))
    )
    assert SECRET not in said
    assert "[key]" in text


def leaves(value: Any) -> list[Any]:
    """The texts of a chunk; lists of numbers as what they spell."""
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in leaves(item)]
    if isinstance(value, list):
        if value and all(isinstance(item, int) for item in value):
            return ["".join(map(chr, value))]
        return [leaf for item in value for leaf in leaves(item)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize("form", [SECRET, ESCAPED, SECRET.replace("/", "\\/")])
def test_a_known_key_in_the_bytes(form: str) -> None:
    """Input: a key as it is, as escapes, in a body of one piece. Holds: it is masked there."""
    body = f'{{"choices": [{{"message": {{"content": "it is {form}."}}}}]}}'.encode()
    (piece,) = masked(((0.5, body),), [KEY])
    assert json.loads(piece[1])["choices"][0]["message"]["content"] == "it is [key]."


def test_the_ids_of_accounts() -> None:
    """Input: a chunk and a refusal that name an account. Holds: neither is on the tape."""
    chunk = b'data: {"user_id": "user_2abcDEF", "choices": []}\n\n'
    assert b"user_2abcDEF" not in masked(((0.1, chunk),), [])[0][1]
    words = b'{"error": {"message": "no such model for organization org-0123456789abcdef"}}'
    assert b"org-0123" not in masked(((0.1, words),), [], 404)[0][1]


@pytest.mark.parametrize(
    ("way", "place"),
    [
        ({"text": f"like {LOOKS_LIKE_ONE} here"}, "the answer"),
        ({"text": "hm", "reasoning": f"like {LOOKS_LIKE_ONE}"}, "the reasoning"),
    ],
)
def test_what_looks_like_a_key_is_refused(
    way: dict[str, Any], place: str, server: ScriptedServer, tmp_path: Path
) -> None:
    """Input: an answer with the shape of a key. Holds: not written, the place named, turn whole."""
    server.reply(**way)
    with kimi.tape(tmp_path / "a.tape") as use:
        events = list(kimi.stream("Show me a key"))
    notices = [event.text for event in events if isinstance(event, Notice)]
    assert notices == [f"Not recorded on a.tape: {place} holds a key, or what looks like one."]
    assert kimi.last is not None
    assert kimi.last.text == way["text"]
    assert use.counts["refused"] == 1
    assert not (tmp_path / "a.tape").exists()


def test_a_key_in_the_arguments_is_refused_by_its_tool(
    server: ScriptedServer, tmp_path: Path
) -> None:
    """Input: a shape in a call's arguments, as escapes. Holds: the place is the call."""

    def save(text: str) -> str:
        return "done"

    escaped = "".join(f"\\u{ord(char):04x}" for char in LOOKS_LIKE_ONE)
    server.reply(tool_calls=[{"name": "save", "arguments": f'{{"text": "{escaped}"}}'}])
    server.reply("done")
    with kimi.tape(tmp_path / "a.tape"):
        events = list(kimi.stream("Save it", tools=[save]))
    assert "the arguments of save holds a key" in str(
        [event for event in events if isinstance(event, Notice)]
    )
    text = (tmp_path / "a.tape").read_text("utf-8") if (tmp_path / "a.tape").exists() else ""
    assert LOOKS_LIKE_ONE not in text
    assert escaped not in text


def test_the_request_is_written_without_keys(
    server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Input: keys in the prompt, let out on purpose. Holds: none in meaning, cue or headers."""
    monkeypatch.setenv("KIMI_API_KEY", SECRET)
    server.reply("fine")
    tape = tmp_path / "a.tape"
    with kimi.tape(tape):
        kimi.ask(f"Is {SECRET} or {LOOKS_LIKE_ONE} a key?")
    text = tape.read_text("utf-8")
    assert SECRET not in text
    assert LOOKS_LIKE_ONE not in text
    assert "Bearer" not in text
    assert "uthorization" not in text
    assert "[masked]" in TapeFile(tape).read().recordings[0].cue["prompt"]
    with kimi.tape(tape, mode="none"):
        assert kimi.ask(f"Is {SECRET} or {LOOKS_LIKE_ONE} a key?").replayed == "a.tape, scripted"
