"""Keys behind escapes: found wherever whoever decodes the text would find them."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_magic.core.text import clean
from kimi_magic.secrets.escapes import Unescaped
from kimi_magic.secrets.keys import LEAK, Key
from kimi_magic.secrets.redact import Redactor
from tests.turns import pieces

SECRET = "-".join(["nvapi", "aB3/dE5gH7jK9mN1pQ3rS5tU7vW9xY"])
KEYS = [Key("another-key-of-the-lab", "a"), Key(SECRET, "b")]

Write = Callable[[str], str]
WAYS: dict[str, Write] = {
    "plain": str,
    "JSON": lambda char: f"\\u{ord(char):04x}",
    "JSON in JSON": lambda char: f"\\\\u{ord(char):04X}",
    "Python": lambda char: f"\\x{ord(char):02x}",
    "URL": lambda char: f"%{ord(char):02X}",
    "URL in a URL": lambda char: f"%25{ord(char):02x}",
    "HTML": lambda char: f"&#{ord(char)};",
    "HTML, hexadecimal": lambda char: f"&#x{ord(char):X};",
    "HTML, without an end": lambda char: f"&#{ord(char):07}",
    "HTML in HTML": lambda char: f"&amp;#{ord(char):04};",
    "Markdown": lambda char: f"\\{char}" if char in "-/" else char,
    "with what nobody sees": lambda char: f"{char}\u200b",
    "with returns": lambda char: f"\r{char}",
    "slash": lambda char: "\\/" if char == "/" else char,
}
AROUND = st.text(alphabet="ab /\\%&u0;#'x\n", max_size=8)


@st.composite
def written(draw: st.DrawFn) -> str:
    """Part of a key, each character in a way of its own, between texts full of marks."""
    start = draw(st.integers(0, len(SECRET) - LEAK))
    stop = draw(st.integers(start + LEAK, len(SECRET)))
    ways = st.sampled_from(sorted(set(WAYS)))
    only = draw(st.none() | ways)
    body = "".join(WAYS[only or draw(ways)](char) for char in SECRET[start:stop])
    return draw(AROUND) + body + draw(AROUND)


def leaks(text: str) -> bool:
    """Tell whether a key is in the text, or in what some decoder makes of it."""
    read = {
        text,
        Unescaped(text).text,
        clean(text),
        unquote(unquote(text)),
        html.unescape(html.unescape(text)),
    }
    return any(
        SECRET[at : at + LEAK] in each for each in read for at in range(len(SECRET) - LEAK + 1)
    )


@given(written(), written(), st.lists(st.integers(0, 600)))
def test_an_escaped_key_is_masked_in_whole_and_in_pieces(
    one: str, other: str, cuts: list[int]
) -> None:
    text = one + other
    arriving = Redactor(KEYS).stream()
    told = "".join(map(arriving.feed, pieces(text, cuts))) + arriving.finish()
    for masked in (Redactor(KEYS).text(text), told):
        assert "[key]" in masked
        assert not leaks(masked)


@st.composite
def arguments(draw: st.DrawFn) -> str:
    """JSON that holds the key in names and values, with any characters of it escaped."""
    texts = st.lists(
        st.sampled_from([SECRET, SECRET[1:], SECRET[:15], "\n", '"', "\\", "é😀", "a%20b", "x&y"]),
        max_size=9,
    ).map("".join)
    value = draw(st.dictionaries(texts, texts | st.lists(texts, max_size=2), max_size=3))
    again = draw(st.booleans())
    text = json.dumps(json.dumps(value)) if again else json.dumps(value, ensure_ascii=False)
    escape = draw(st.sampled_from(["", "nva", "aB3", "-/", SECRET]))
    depth = "\\\\" if again else "\\"
    for char in set(escape):
        # Not the letter of an escape that is there already.
        text = text.replace(SECRET, SECRET.replace(char, f"{depth}u{ord(char):04x}"))
    return text


@given(arguments(), st.lists(st.integers(0, 900)))
def test_masked_json_is_json_however_it_is_split(text: str, cuts: list[int]) -> None:
    arriving = Redactor(KEYS).stream()
    told = "".join(map(arriving.feed, pieces(text, cuts))) + arriving.finish()
    for masked in (Redactor(KEYS).text(text), told):
        read = json.loads(masked)
        read = json.loads(read) if isinstance(read, str) else read
        assert not leaks(json.dumps(read))
        assert not leaks(str(read))


@pytest.mark.parametrize(
    "text",
    [
        "100% of R&D, a\\b and C:\\new\\users\\nvapi",
        "50%25 &amp; &lt;b&gt; &notanentity; \\u12 \\",
        "&",
        "%",
        "\\" * 40,
        "%25" * 40,
        "&amp;" * 40,
        "den-\r\n\u200b" * 40,
        "an\u200bot\u200bher" + "\u200b" * 2000 + "-key",
    ],
)
@given(cuts=st.lists(st.integers(0, 200)))
def test_escapes_without_a_key_arrive_as_they_were(text: str, cuts: list[int]) -> None:
    arriving = Redactor(KEYS).stream()
    assert "".join(map(arriving.feed, pieces(text, cuts))) + arriving.finish() == text
    assert Redactor(KEYS).text(text) == text


def test_places_lead_back_to_the_text_as_written() -> None:
    text = Unescaped("a\\u0062\\u0063%64e&#102;")
    assert text.text == "abcdef"
    assert [text.written[text.place(at) :][:2] for at in range(6)] == [
        "a\\",
        "\\u",
        "\\u",
        "%6",
        "e&",
        "&#",
    ]
    assert text.place(6) == len(text.written)
    assert text.widened(2, 3) == (1, 7)
    assert text.widened(7, 14) == (7, 16)
    assert text.last(2) == "e&#102;"
    assert len(Unescaped("\u200b" * 9000).last(12)) <= 400, "no stream keeps what nobody sees"
