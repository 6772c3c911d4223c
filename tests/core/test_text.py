"""Characters that mislead a reader, for each of those who show them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_magic.core.text import (
    clean,
    mend_surrogates,
    replace_unprintable,
    reveal,
    text_of_html,
    vote_line,
)
from tests.turns import pieces

MISLEADING = {
    "escape": "\x1b",
    "C1": "\x9b",
    "half a code point": "\ud800",
    "right-to-left override": "\u202e",
    "tag": "\U000e0041",
    "zero-width space": "\u200b",
    "soft hyphen": "\xad",
    "Hangul filler": "\u3164",
}
texts = st.text(st.characters() | st.sampled_from([*MISLEADING.values(), "\ud800", "\udc00"]))


@pytest.mark.parametrize("char", MISLEADING.values(), ids=MISLEADING)
def test_nobody_lets_them_through(char: str) -> None:
    text = f"a{char}b"
    assert char not in clean(text)
    assert replace_unprintable(text) == "a\ufffdb"
    assert reveal(text) == f"a⟨U+{ord(char):04X}⟩b"


def test_what_shapes_letters_and_emoji_stays() -> None:
    text = "نمی\u200cخواهم 👩\u200d💻 ⚠\ufe0f\n\tx"
    assert clean(text) == text
    assert replace_unprintable("⚠\ufe0f\n\tx") == "⚠\ufe0f\n\tx"


@given(texts, st.lists(st.integers(0, 400)))
def test_cleaned_pieces_add_up_to_the_cleaned_whole(text: str, cuts: list[int]) -> None:
    assert "".join(map(clean, pieces(text, cuts))) == clean(text)


@given(texts)
def test_a_cleaned_text_is_clean_and_can_be_encoded(text: str) -> None:
    for way in (clean, replace_unprintable, reveal, mend_surrogates):
        assert way(way(text)) == way(text)
        way(text).encode()


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<!DOCTYPE html>\n<title>502 Bad &amp; Gateway</title><p>nginx", "502 Bad & Gateway"),
        ("<script>x()</script><h1>Sorry</h1> <style>p {}</style>a < b <!-- no -->", "Sorry a < b"),
        ("", ""),
    ],
)
def test_what_a_page_says(page: str, text: str) -> None:
    assert text_of_html(page) == text


def test_a_vote_counts_the_other_answers() -> None:
    groups = [(letter, 1) for letter in "abcde"]
    assert vote_line(groups[:4]).endswith("1 of 4: c; 1 other answer")
    assert vote_line(groups).endswith("1 of 5: c; 2 other answers")
