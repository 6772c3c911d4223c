"""The logarithms of tokens, fitted to the texts that they make."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_magic.core.likelihoods import TokenLogprob
from kimi_magic.core.messages import Completion
from kimi_magic.secrets.keys import Key
from kimi_magic.wire.openai.chat_completions import Accumulator

Token = dict[str, Any]


def entry(token: str | bytes, logprob: Any = -0.5, **others: float) -> Token:
    """A token as OpenAI's API has it."""
    data = token if isinstance(token, bytes) else token.encode()
    top = [{"token": name, "logprob": value, "bytes": None} for name, value in others.items()]
    text = data.decode("utf-8", "replace")
    return {"token": text, "logprob": logprob, "bytes": [*data], "top_logprobs": top}


def chunk(delta: dict[str, Any], *tokens: Any, form: str = "delta") -> dict[str, Any]:
    logprobs = {"content": list(tokens)} if tokens else None
    return {"choices": [{"index": 0, form: delta, "logprobs": logprobs}]}


def fold(*chunks: dict[str, Any], keys: tuple[Key, ...] = ()) -> Completion:
    accumulator = Accumulator(keys)
    for each in chunks:
        accumulator.add([each])
    accumulator.finish()
    return accumulator.completion()


def texts(tokens: tuple[TokenLogprob, ...]) -> list[str]:
    return [token.token for token in tokens]


def fits(completion: Completion) -> bool:
    """True if the tokens of both texts are these texts, or are none."""
    message = completion.message
    pairs = [
        (completion.logprobs, message.text),
        (completion.reasoning_logprobs, message.reasoning_text or ""),
    ]
    return all(not tokens or "".join(texts(tokens)) == text for tokens, text in pairs)


def test_tokens_beside_their_deltas() -> None:
    completion = fold(
        chunk({"role": "assistant", "content": ""}),
        chunk({"reasoning": "So"}, entry("So", -0.1)),
        chunk({"reasoning": "."}, entry(".", -0.2), entry("</think>")),
        chunk({"content": "9"}, entry("9", -0.3, **{"9": -0.3, "8": -1.5})),
        chunk({"content": ".9"}, entry(".9", -0.4)),
        chunk({}, entry("<|im_end|>")),
    )
    assert texts(completion.reasoning_logprobs) == ["So", "."]
    assert [token.logprob for token in completion.logprobs] == [-0.3, -0.4]
    assert completion.logprobs[0].alternatives == (("9", -0.3), ("8", -1.5))
    assert completion.logprobs[0].probability == pytest.approx(0.740818)
    assert completion.sent_logprobs


def test_tokens_of_an_answer_in_one_piece_with_tags_and_a_call() -> None:
    tokens = [entry(t) for t in ("<think>", "4", " it", " is", "</think>", "\n\n", "4")]
    call = [entry(t) for t in ("<call>", '{"a": ', "4", "}", "</call>")]
    message = {"role": "assistant", "reasoning_content": "4 it is", "content": "4"}
    completion = fold(chunk(message, *tokens, *call, form="message"))
    assert texts(completion.reasoning_logprobs) == ["4", " it", " is"]
    assert texts(completion.logprobs) == ["4"]


def test_a_text_that_the_servers_template_began() -> None:
    """As llama.cpp streams it: the first delta has more than its token."""
    completion = fold(
        chunk({"reasoning_content": "The user asks"}, entry(" asks", -2.7)),
        chunk({"reasoning_content": " how it is."}, entry(" how"), entry(" it"), entry(" is.")),
        chunk({"content": "Good."}, entry("Good", -0.1), entry(".")),
    )
    first, second, *_ = completion.reasoning_logprobs
    assert (first.token, first.logprob) == ("The user", None)
    assert (second.token, second.logprob) == (" asks", -2.7)
    assert texts(completion.logprobs) == ["Good", "."]


def test_a_server_that_gives_those_of_the_answer_alone() -> None:
    completion = fold(
        chunk({"reasoning": "It is 4, not 5."}),
        chunk({"content": "4"}, entry("4")),
        chunk({"content": ", not 5."}, entry(", not"), entry(" 5.")),
    )
    assert completion.reasoning_logprobs == ()
    assert texts(completion.logprobs) == ["4", ", not", " 5."]


def test_thought_whose_opening_tag_the_template_wrote() -> None:
    pieces = ["Compare", " them.", "</think>", "\n\n", "9.9"]
    completion = fold(*(chunk({"content": piece}, entry(piece)) for piece in pieces))
    assert completion.message.reasoning_text == "Compare them."
    assert texts(completion.reasoning_logprobs) == ["Compare", " them."]
    assert texts(completion.logprobs) == ["9.9"]


def test_a_part_of_a_character() -> None:
    data = "a🙂b".encode()
    completion = fold(
        chunk({"content": "a"}, entry(data[:2])),
        chunk({"content": "🙂b"}, entry(data[2:4]), entry(data[4:])),
    )
    assert texts(completion.logprobs) == ["a", "", "🙂b"]


def test_an_alternative_that_is_a_part_of_a_character_is_named_as_openai_does() -> None:
    part = entry("x")
    part["top_logprobs"] = [
        {"token": "\ufffd", "logprob": -1, "bytes": [0xE4, 0xB8]},
        {"token": "\ufffd", "logprob": -2, "bytes": [*"\ufffd".encode()]},
    ]
    (token,) = fold(chunk({"content": "x"}, part)).logprobs
    assert [other.token for other in token.alternatives] == ["bytes:\\xe4\\xb8", "\ufffd"]


@pytest.mark.parametrize(
    ("text", "tokens", "shown"),
    [
        ("a🙂 b", ["a", "\ufffd", "\ufffd", " b"], ["a", "", "🙂", " b"]),
        ("a 🙂東", ["a", " \ufffd", "\ufffd", "東"], ["a", "", " 🙂", "東"]),
        ("🙂🙂", ["\ufffd"] * 6, ["", "", "", "", "", "🙂🙂"]),
        ("\ufffd!", ["\ufffd", "!"], ["\ufffd", "!"]),
    ],
)
def test_parts_of_characters_that_were_sent_as_such(
    text: str, tokens: list[str], shown: list[str]
) -> None:
    """As SGLang sends them: the bytes are those of U+FFFD."""
    entries = [entry("</think>"), *(entry(token) for token in tokens), entry("<|im_end|>")]
    completion = fold(
        chunk({"reasoning_content": "So."}, entry("So"), entry(".")),
        chunk({"content": text}, *entries),
    )
    assert texts(completion.logprobs) == shown
    assert texts(completion.reasoning_logprobs) == ["So", "."]


ALPHABET = st.text("ab .\n🙂東é<", min_size=1, max_size=8)


@given(st.lists(ALPHABET, max_size=6), st.lists(ALPHABET, min_size=1, max_size=6), st.data())
def test_tokens_and_deltas_cut_anywhere(
    thought: list[str], said: list[str], data: st.DataObject
) -> None:
    """Deltas and tokens come in pieces of their own, and a tag between the texts."""

    def cut(whole: Any) -> list[Any]:
        places = data.draw(st.lists(st.integers(0, len(whole)), max_size=6))
        edges = [0, *sorted(places), len(whole)]
        return [whole[a:b] for a, b in pairwise(edges)]

    reasoning, content = "".join(thought), "".join(said)
    tokens = []
    if reasoning:
        tokens = [entry(piece, -1.0) for piece in cut(reasoning.encode())]
        tokens.append(entry("<|close|>think<|sep|>"))
    tokens += [entry(piece, -2.0) for piece in cut(content.encode())]
    deltas = [{"reasoning": piece} for piece in cut(reasoning)]
    deltas += [{"content": piece} for piece in cut(content)]
    chunks = [chunk(delta) for delta in [{"reasoning": ""}, *deltas, {}]]
    places = data.draw(
        st.lists(st.integers(0, len(chunks) - 1), min_size=len(tokens), max_size=len(tokens))
    )
    for place, token in zip(sorted(places), tokens, strict=True):
        logprobs = chunks[place]["choices"][0]
        logprobs["logprobs"] = {"content": [*(logprobs["logprobs"] or {"content": []})["content"]]}
        logprobs["logprobs"]["content"].append(token)
    completion = fold(*chunks)
    assert fits(completion)
    if completion.message.text == content and (completion.message.reasoning_text or "") == (
        reasoning
    ):
        assert {token.logprob for token in completion.logprobs} == {-2.0}
        assert "".join(texts(completion.reasoning_logprobs)) == reasoning


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([10**400, -(10**400), math.inf, -math.inf, math.nan, "-0.5"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.fixed_dictionaries(
            {},
            optional={
                "token": inner | st.sampled_from(["9", ".9", "\ud83d"]),
                "logprob": inner,
                "bytes": inner | st.lists(st.integers(-1, 300), max_size=3),
                "top_logprobs": inner | st.lists(inner, max_size=3),
                "content": inner | st.lists(inner, max_size=3),
            },
        )
    ),
    max_leaves=30,
)


@given(JSON, st.lists(JSON, max_size=4))
def test_nothing_that_a_server_sends_there_is_in_the_way(logprobs: Any, entries: list[Any]) -> None:
    first, second = chunk({"content": "9"}), chunk({"content": ".9"})
    first["choices"][0]["logprobs"] = logprobs
    second["choices"][0]["logprobs"] = {"content": entries}
    completion = fold(first, second)
    assert completion.message.text == "9.9"
    assert fits(completion)
    for token in (*completion.logprobs, *completion.reasoning_logprobs):
        for value in (token.logprob, *(other.logprob for other in token.alternatives)):
            assert value is None or -9999 <= value <= 0


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (-math.inf, -9999.0),
        (-1e300, -9999.0),
        (-(10**400), -9999.0),
        (-1, -1.0),
        (-0.0, 0.0),
        (1e-5, 0.0),
        (0.5, None),
        (math.inf, None),
        (10**400, None),
        (math.nan, None),
        ("-1", None),
        (None, None),
        (True, None),
    ],
)
def test_what_is_a_logarithm(value: Any, kept: float | None) -> None:
    (token,) = fold(chunk({"content": "x"}, entry("x", value))).logprobs
    assert token.logprob == kept
    assert kept != 0.0 or math.copysign(1, token.logprob or 0.0) == 1


KEY = "nv-0123456789abcdefghij"


def test_a_masked_text_has_no_tokens() -> None:
    pieces = ["It", " is ", KEY[:5], KEY[5:12], KEY[12:], "."]
    chunks = [chunk({"content": piece}, entry(piece)) for piece in pieces]
    completion = fold(*chunks, keys=(Key(KEY, "a test"),))
    assert "[key]" in completion.message.text
    assert completion.logprobs == ()
    assert completion.sent_logprobs


def test_more_than_is_kept() -> None:
    accumulator = Accumulator()
    accumulator.add([chunk({"content": "a"}, entry("a"))])
    assert accumulator.logprob_bytes > 0
    accumulator.drop_logprobs()
    accumulator.add([chunk({"content": "b"}, entry("b"))])
    assert accumulator.logprob_bytes == 0
    completion = accumulator.completion()
    assert (completion.message.text, completion.logprobs) == ("ab", ())
