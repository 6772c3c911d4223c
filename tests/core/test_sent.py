"""The line of a turn's first request: names and counts, and nothing else."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from kimi_magic.core.messages import Message
from kimi_magic.core.sent import Attached, Sent, about_tokens, estimate, outline
from kimi_magic.core.text import reveal

DF = Attached("variable", "df", 10, 500)
CELL = Attached("cell", "In[8]", note="with its traceback")
EMAILS = (("email", "e-mail addresses"), ("phone", "phone numbers"))


@pytest.mark.parametrize(
    ("sent", "line"),
    [
        (Sent(1, 20), ""),
        (Sent(2, 40, tools=("f",)), ""),
        (Sent(1, 21, attached=(DF,)), "Sent: df (10 of 500 rows), 1 message, about 21 tokens"),
        (Sent(3, 1234, earlier=2), "Sent: 3 messages, about 1,200 tokens"),
        (
            Sent(12, 1389, 10, ("a", "b"), (DF, CELL)),
            "Sent: df (10 of 500 rows), In[8] with its traceback, 2 tools, 12 messages, "
            "about 1,400 tokens",
        ),
        (
            Sent(1, 99, attached=(Attached("variable", "df", 10, 500, personal=EMAILS),)),
            "Sent: df (10 of 500 rows, looks personal: email, phone), 1 message, about 99 tokens",
        ),
        (
            Sent(1, 99, attached=(Attached("variable", "df", note="types only"),)),
            "Sent: df (types only), 1 message, about 99 tokens",
        ),
        (
            Sent(1, 99, attached=(Attached("variable", "s", 1, 1),)),
            "Sent: s (1 row), 1 message, about 99 tokens",
        ),
    ],
)
def test_the_line(sent: Sent, line: str) -> None:
    assert sent.line == line
    assert repr(sent) == f"Sent({sent})"


def test_a_line_has_an_end() -> None:
    many = tuple(Attached("variable", f"v{n}" * 100, personal=(("c" * 500, "names"),) * 90)
                 for n in range(90))  # fmt: skip
    sent = Sent(1, 9, attached=many)
    assert "82 more" in sent.line
    assert "and 85 more" in sent.line
    assert len(sent.line) < 8 * 400


@given(st.text(max_size=60), st.text(max_size=60))
def test_names_hide_nothing(name: str, column: str) -> None:
    sent = Sent(
        1, 9, 0, (name,), (Attached("variable", name, 1, 2, personal=((column, "names"),)),)
    )
    for line in (sent.line, *sent.details):
        assert reveal(line) == line
        assert len(line.splitlines()) == 1


@given(st.integers(0, 10**8))
def test_about_so_many_tokens(tokens: int) -> None:
    said = int(about_tokens(tokens).split()[1].replace(",", ""))
    assert abs(said - tokens) <= tokens * 0.06
    assert len(str(said).rstrip("0")) <= 2


def test_an_outline() -> None:
    messages = [Message("system", "s"), Message("user", "a"), Message("assistant", "b"),
                Message("user", "c")]  # fmt: skip
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    sent = outline(messages, tools, [DF])
    assert sent == Sent(4, estimate(messages, tools), 2, ("f",), (DF,))
    assert outline(messages[:1] + messages[3:], (), []).earlier == 0
