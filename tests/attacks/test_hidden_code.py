"""Aim: have a person run code, or take a text for harmless, that holds what cannot be seen."""

from __future__ import annotations

import ast
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_magic.core.messages import ToolCall, ToolResult
from kimi_magic.core.text import escape_hidden
from kimi_magic.display.record import show_call, show_code
from kimi_magic.testing import ScriptedServer
from tests.kernels import Kernel

HIDDEN = [
    *"\0\x07\x08\x0b\x0c\r\x1b\x7f\x85\x9b\xa0\xad",
    *"\u034f\u061c\u115f\u1160\u17b4\u180e\u200b\u200c\u200d\u200e\u200f\u2028\u2029\u202a\u202b",
    *"\u202c\u202d\u202e\u2060\u2062\u2066\u2067\u2068\u2069\u206a\u2800\u3000\u3164\ufe0f\ufeff",
    *"\uffa0\ufff9\ufffb\U000e0001\U000e0041\U000e0100\ud800\udfff",
]
ODD = re.compile("[\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\x00-\x08\x0b-\x1f\x7f-\x9f]")
# What a reader does not see: where code would hide from one who skims it.
TROJAN = (
    'level = "user\u202e \u2066# Check if admin\u2069 \u2066"\nif level != "user":\n    run()\u200b'
)


def is_visible(text: str) -> bool:
    return not any(unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") for char in text
                   if char not in "\n\t")  # fmt: skip


@pytest.mark.parametrize("char", HIDDEN, ids=lambda char: f"{ord(char):04x}")
def test_one_character(char: str) -> None:
    """Input: each kind of unseen character, in a string, a comment, a name.

    Holds: none is left; in a string the escape means the same, elsewhere Python refuses it.
    """
    for source in (f'x = "a{char}b"', f'x = f"{{1}}{char}"', f"x = '''a\\\\{char}'''"):
        shown, count = escape_hidden(source)
        assert count == 1
        assert is_visible(shown)
        if char not in "\0\r" and not "\ud800" <= char <= "\udfff":
            assert evaluated(shown) == evaluated(source)
    comment, _ = escape_hidden(f"# a{char}b")
    compile(comment, "cell", "exec")
    with pytest.raises(SyntaxError):
        compile(escape_hidden(f"a{char}b = 1")[0], "cell", "exec")


def evaluated(source: str) -> object:
    scope: dict[str, object] = {}
    exec(source, scope)
    return scope["x"]


@given(st.text(st.sampled_from([*HIDDEN, *"ab'\"\\ \n\t#é⚠"])))
def test_any_text(text: str) -> None:
    """Input: any mix of unseen characters, quotes and backslashes.

    Holds: nothing unseen is left, what was seen stays, and a second pass changes nothing.
    """
    shown, count = escape_hidden(text)
    assert not ODD.search(shown)
    assert (count == 0) is (shown == text.replace("\r\n", "\n"))
    assert escape_hidden(shown) == (shown, 0)
    literal = f'"""{text}"""'
    try:
        meant = ast.literal_eval(literal)
    except (SyntaxError, ValueError, UnicodeError):
        return
    if "\r" not in text:
        assert ast.literal_eval(escape_hidden(literal)[0]) == meant


def test_what_people_write_stays() -> None:
    """Input: emoji, accents and other scripts. Holds: they are no escapes."""
    text = 'print("⚠️ é 漢字 עברית ✅ ❤️ 🙂")\n\tx = 1\n'
    assert escape_hidden(text) == (text, 0)


def test_what_is_shown_of_code() -> None:
    """Input: a program, and code for ``run_python``, with characters that hide.

    Holds: the escapes are shown, in HTML and in plain text.
    """
    call = ToolCall("c", "run_python", '{"code": "x = 1 # \\u202e\\u200b\\u001b[2J"}')
    named = ToolCall("c", "f", '{"a\\u200b": "b\\u202e"}')
    for bundle in (
        show_code(TROJAN, "python"),
        show_call(call, ToolResult("run_python", "1")),
        show_call(named, ToolResult("f", "a\u202e\x1b")),
    ):
        for kind in ("text/html", "text/plain"):
            assert is_visible(bundle.data[kind])
            assert re.search(r"\\u202e|⟨U\+202E⟩", bundle.data[kind])


def test_in_a_notebook(kernel: Kernel, asked: ScriptedServer) -> None:
    """Input: answers with hidden code for -f code and fix, a snippet, a tool, a dry run.

    Holds: the next cell and all that is printed hold nothing unseen, and a line says so.
    """
    kernel.run("1 / 0", ok=False)
    for line in ("%%kimi -f code\nGo", "%kimi fix"):
        asked.reply(f"```python\n{TROJAN}\n```")
        ran = kernel.run(line)
        (code,) = [p["text"] for p in ran.reply["payload"] if p["source"] == "set_next_input"]
        assert code == escape_hidden(TROJAN)[0]
        assert (
            "The code of the next cell has 5 invisible characters, written as escapes" in ran.stdout
        )
        assert is_visible(ran.record["text/plain"] + ran.stdout)
    asked.reply("```python\nx = 1\n```")
    assert kernel.run("%%kimi -f code\nGo").stdout == ""
    kernel.run(
        "def f(x='a\u202e'):\n    'Do\u200b it.'\n    # \u2066\n    return x + '\x1b[2J<script>'"
    )
    asked.reply("OK.")
    kernel.run("%%kimi -T f\nGo \u202e now")
    shown = [kernel.run(line) for line in (
        "%kimi snippet", "%kimi tool f", '%kimi tool f {"x": "\u202e"}',
        "%%kimi --dry-run\nHi\u202e",
        "%kimi chat b\u202eb", "%kimi chats",
    )]  # fmt: skip
    for ran in shown:
        payload = "".join(p.get("text", "") for p in ran.reply["payload"])
        texts = [
            ran.stdout,
            payload,
            *(v for d in ran.displays for v in d.values() if isinstance(v, str)),
        ]
        assert is_visible("".join(texts))
    assert "\\u2066" in shown[0].record["text/plain"]
    assert "⟨U+200B⟩" in shown[1].stdout
    assert "⟨U+202E⟩" in shown[3].stdout


def test_the_bench_shows_what_a_turn_shows(kernel: Kernel) -> None:
    """Input: a tool on the bench that returns and displays script, styles, a remote image.

    Holds: the output is the card of a turn, in which nothing acts.
    """
    kernel.run(
        "from IPython.display import HTML, Javascript, display\n"
        "def f():\n    'Do.'\n    display(Javascript('alert(1)'))\n"
        "    return HTML('<b>fine</b><script>alert(1)</script><img src=http://x onerror=alert(1)>')"
    )
    ran = kernel.run("%kimi tool f {}")
    (bundle,) = ran.displays
    assert set(bundle) == {"text/plain", "text/html"}
    assert "<b>fine</b>" in bundle["text/html"]
    assert not re.search("<script|<img|onerror=", bundle["text/html"])
