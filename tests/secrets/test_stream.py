"""Text that arrives in pieces: code points whole, keys masked."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kimi_magic.secrets.keys import BEGINNING, LEAK, Key
from kimi_magic.secrets.redact import Redactor
from tests.turns import pieces

LONG = "-".join(["nvapi", "aB3dE5gH7jK9m" + "N1pQ3rS5tU7vW9xY"])
SHORT = "-".join(["secret", "key", "12"])
KEYS = [Key(LONG, "a"), Key(SHORT, "b"), Key("EMPTY", "no secret")]

PIECES = st.one_of(
    st.sampled_from([LONG, SHORT, LONG[:20], LONG[9:], LONG[:5], SHORT[:11], "nvapi-", "EMPTY"]),
    st.text(alphabet="nvapi-aB3 \n😀", max_size=6),
)
TEXTS = st.lists(PIECES, max_size=8).map("".join)


def told(text: str, cuts: list[int]) -> str:
    arriving = Redactor(KEYS).stream()
    return "".join(map(arriving.feed, pieces(text, cuts))) + arriving.finish()


def leaks(text: str) -> bool:
    return any(
        secret[at : at + LEAK] in text
        for secret in (LONG, SHORT)
        for at in range(len(secret) - LEAK + 1)
    )


@given(TEXTS, st.lists(st.integers(0, 400)))
def test_no_key_gets_through_however_it_is_split(text: str, cuts: list[int]) -> None:
    found = told(text, cuts)
    assert not leaks(found)
    assert leaks(text) == ("[key]" in found)


@given(TEXTS, st.lists(st.integers(0, 400)))
def test_what_is_no_key_arrives_as_it_was(text: str, cuts: list[int]) -> None:
    masked = told(text, [])
    if masked == text:
        assert told(text, cuts) == text
    # Around a key no more is lost than the key, and of that little is told.
    assert len(told(text, cuts)) - len(masked) <= (BEGINNING - 1) * masked.count("[key]")


def test_only_the_beginning_of_a_key_waits() -> None:
    arriving = Redactor(KEYS).stream()
    assert arriving.feed("It is nvap") == "It is nvap"
    assert arriving.feed("i-") == ""
    assert arriving.feed("or so. nvapi-aB3") == "i-or so. "
    assert arriving.feed("?") == "nvapi-aB3?"
    assert arriving.feed("My key: nvapi-aB") == "My key: "
    assert arriving.finish() == "nvapi-aB"
