"""Known keys in text, containers, messages and tool results."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_magic.core.events import ContentDelta
from kimi_magic.core.likelihoods import Alternative, TokenLogprob
from kimi_magic.core.messages import (
    Completion,
    ImagePart,
    Message,
    Output,
    Step,
    TextPart,
    ToolCall,
    ToolResult,
    as_reasoning,
)
from kimi_magic.core.turn_record import TurnRecord
from kimi_magic.secrets.keys import Key
from kimi_magic.secrets.redact import Redactor

KEY = "nv-0123456789abcdefghij/KLMNOP.qrstuvwxyz"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (f"bad key {KEY}!", "bad key [key]!"),
        (f"Bearer {KEY[:20]}… is wrong", "Bearer [key]… is wrong"),
        (f"…{KEY[9:21]}", "…[key]"),
        (f"…{KEY[9:20]}", f"…{KEY[9:20]}"),
        (f"{KEY}{KEY}, {KEY[-12:]}", "[key][key], [key]"),
        ("nothing", "nothing"),
    ],
)
def test_twelve_characters_of_a_key_are_a_leak(text: str, masked: str) -> None:
    assert Redactor([Key(KEY, "x")]).text(text) == masked


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40), st.text("ab0", max_size=3))))
def test_no_mask_lets_twelve_characters_through(parts: list[tuple[int, int, str]]) -> None:
    text = "".join(KEY[a:b] + between for a, b, between in parts)
    masked = Redactor([Key(KEY, "x")]).text(text)
    assert not any(KEY[at : at + 12] in masked for at in range(len(KEY) - 11))


def test_a_short_key_is_masked_whole_and_a_shorter_one_is_no_secret() -> None:
    assert Redactor([Key("12345678", "x")]).text("12345678 1234567") == "[key] 1234567"
    assert Redactor([Key("none", "x")]).text("none of it") == "none of it"


LOOKS = "sk-" + "aB3" * 10


def test_every_text_of_a_message_is_redacted() -> None:
    message = Message(
        "assistant",
        (TextPart(f"a {KEY}"), TextPart("b")),
        reasoning=as_reasoning(f"{KEY}?"),
        tool_calls=(ToolCall("id", f"f{KEY}", f'{{"{KEY}": "{KEY}"}}'),),
        name=KEY,
    )
    redactor = Redactor([Key(KEY, "the environment", "LAB_KEY")])
    assert redactor.value(Completion(message)) == Completion(
        Message(
            "assistant",
            (TextPart("a [key]"), TextPart("b")),
            reasoning=as_reasoning("[key]?"),
            tool_calls=(ToolCall("id", "f[key]", '{"[key]": "[key]"}'),),
            name="[key]",
        )
    )
    assert redactor.found == ("the value of LAB_KEY",)


def test_the_structure_of_containers_stays() -> None:
    redactor = Redactor([Key(KEY, "x")])
    output = Output({"text/plain": KEY}, {"n": 1})
    value = {KEY: [KEY, (1, None, KEY)], "output": output, "other": 2.5}
    redacted = redactor.value(value)
    assert redacted == {
        "[key]": ["[key]", (1, None, "[key]")],
        "output": Output({"text/plain": "[key]"}, {"n": 1}),
        "other": 2.5,
    }
    assert type(redacted["output"]) is Output


TEXTS = st.sampled_from(["", "plain", KEY, f"a {KEY} b", f"{LOOKS}!", "assistant", "[key]"])


def messages(texts: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    calls = st.lists(st.builds(ToolCall, texts, texts, texts), max_size=2).map(tuple)
    parts = st.lists(st.builds(TextPart, texts) | images(), max_size=2).map(tuple)
    made = st.builds(
        Message,
        st.just("assistant"),
        texts | parts,
        reasoning=texts.map(as_reasoning) | st.none(),
        tool_calls=calls,
        name=st.none() | texts,
    )
    return made | st.builds(Completion, made) | st.builds(Step, text=texts, tool_calls=calls)


def images() -> st.SearchStrategy[ImagePart]:
    return st.builds(ImagePart, st.just(LOOKS), st.just("image/png"))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS
    | messages(TEXTS) | st.builds(ContentDelta, TEXTS),
    lambda inner: st.lists(inner, max_size=3)
    | st.lists(inner, max_size=3).map(tuple)
    | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def spelled_out(redactor: Redactor, value: Any) -> Any:
    """Redact each text by itself, and make each container and record anew."""
    if isinstance(value, str):
        return redactor.text(value)
    if isinstance(value, dict):
        return {redactor.text(k): spelled_out(redactor, v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(spelled_out(redactor, item) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        kept = {"role", "reasoning_key"} | ({"data"} if isinstance(value, ImagePart) else set())
        names = [field.name for field in fields(value) if field.name not in kept]
        return replace(value, **{n: spelled_out(redactor, getattr(value, n)) for n in names})
    return value


@given(VALUES, st.booleans(), st.booleans())
def test_what_holds_no_key_is_left_and_all_else_is_redacted(
    value: Any, known: bool, shapes: bool
) -> None:
    """Records in which nothing changes are not made anew: what comes out is the same as if."""
    keys = [Key(KEY, "x")] if known else []
    redactor, other = Redactor(keys, shapes=shapes), Redactor(keys, shapes=shapes)
    before = repr(value)
    redacted = redactor.value(value)
    assert redacted == spelled_out(other, value)
    assert redactor.found == other.found
    assert repr(value) == before
    if known:
        assert KEY not in repr(redacted)


def test_of_a_tools_result_the_model_reads_less_than_the_reader() -> None:
    live = [KEY]
    result = ToolResult(
        "f",
        f"{KEY} {LOOKS}",
        value=live,
        error=KEY,
        call_id="call-1",
        stdout=f"{KEY} {LOOKS}",
        outputs=(Output({"text/plain": KEY, "image/png": LOOKS}, {}),),
        traceback=KEY,
    )
    redacted = Redactor([Key(KEY, "x")]).value(result)
    assert redacted.content == "[masked] [masked]"
    assert redacted.stdout == f"[key] {LOOKS}"
    assert redacted.outputs == (Output({"text/plain": "[key]", "image/png": LOOKS}, {}),)
    assert (redacted.error, redacted.traceback, redacted.call_id) == ("[key]", "[key]", "call-1")
    assert redacted.value is live
    assert live == [KEY]


PIECES = st.lists(st.integers(1, 9), min_size=9, max_size=9)


def spelled(secret: str, sizes: list[int], rank: int) -> tuple[TokenLogprob, ...]:
    """Tokens that spell a secret, themselves or with those that could stand in their places."""
    tokens, at = [TokenLogprob("It is ", -0.1)], 0
    for size in sizes:
        piece, at = secret[at : at + size], at + size
        others = tuple(Alternative(piece if i == rank else "x", -1.0) for i in range(1, 4))
        tokens.append(TokenLogprob("y" if rank else piece, -1.0, others))
    rest = secret[at:]
    return (*tokens, TokenLogprob("y" if rank else rest, -1.0, (Alternative(rest, -2.0),) * 3))


@given(PIECES, st.integers(0, 3), st.booleans())
def test_tokens_that_spell_a_secret_are_left_out(sizes: list[int], rank: int, known: bool) -> None:
    """Neither one of them holds it; as a step, and as it is stored."""
    secret = KEY if known else LOOKS
    tokens = spelled(secret, sizes, rank)
    redactor = Redactor([Key(KEY, "x")], shapes=not known)
    step = Step("It is so", logprobs=tokens, reasoning_logprobs=tokens)
    redacted = redactor.value(step)
    assert (redacted.logprobs, redacted.reasoning_logprobs) == ((), ())
    stored = redactor.value(TurnRecord(steps=(step,)).to_dict())
    assert stored["steps"][0]["logprobs"] == []
    completion = redactor.value(Completion(Message("assistant", "x"), logprobs=tokens))
    assert completion.logprobs == ()


def test_other_tokens_stay() -> None:
    tokens = (TokenLogprob("9", -0.1, (Alternative("8", -1.0),)), TokenLogprob(".9"))
    redactor = Redactor([Key(KEY, "x")], shapes=True)
    step = Step("9.9", logprobs=tokens)
    assert redactor.value(step) == step
    assert redactor.value({"logprobs": True, "top_logprobs": 5}) == (
        {"logprobs": True, "top_logprobs": 5}
    )
    data = TurnRecord(steps=(step,)).to_dict()
    assert redactor.value(data) == data
