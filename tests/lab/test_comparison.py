"""Replies side by side."""

from __future__ import annotations

import sys
from typing import Any

import hypothesis.strategies as st
import nbconvert
import nbformat
import pytest
from bs4 import BeautifulSoup
from hypothesis import given

import kimi_magic as kimi
from kimi_magic.core.messages import Step, ToolCall
from kimi_magic.core.reply import Reply
from kimi_magic.core.turn_record import TurnRecord
from kimi_magic.lab.comparison import compare, statements_of
from kimi_magic.testing import ScriptedServer
from tests.hostile import VECTORS, Checked, check_plain
from tests.kernels import Kernel
from tests.lab.steps import timed_turn, turns
from tests.turns import make_reply


def called(arguments: str) -> Step:
    return Step(tool_calls=(ToolCall("1", "monthly", arguments),))


ONE = make_reply(
    "It is **9.9**. See the tenths.\n\n- One item\n```py\nx = 1.\ny = 2\n```\nAnswer: 9.90",
    steps=(called('{"region": "north", "year": 1}'), Step()),
)
OTHER = make_reply(
    "it is 9.9!  Eleven is more than 9.\n* one item.\n\nAnswer: 9.9",
    steps=(called('{"year":1,"region":"north"}'), Step()),
)


def test_statements() -> None:
    assert statements_of(ONE) == [
        "It is **9.9**.", "See the tenths.", "One item", "x = 1.\ny = 2", "Answer: 9.90",
    ]  # fmt: skip
    assert statements_of(make_reply("Dr. No is 3.5 m. 12 are left. 3 more.")) == [
        "Dr.", "No is 3.5 m.", "12 are left.", "3 more.",
    ]  # fmt: skip
    record = TurnRecord((Step("x"),), data={"n": 1, "of": ["a"]})
    assert statements_of(Reply(record)) == ["n: 1", 'of: ["a"]']


def test_common_and_lone_statements() -> None:
    both = compare(ONE, OTHER)
    assert [statement.text for statement in both.common] == [
        "It is **9.9**.", "One item", "Answer: 9.90",
    ]  # fmt: skip
    assert [(s.text, s.places) for s in both.lone] == [
        ("See the tenths.", (1,)), ("x = 1.\ny = 2", (1,)), ("Eleven is more than 9.", (2,)),
    ]  # fmt: skip
    third = compare(ONE, OTHER, make_reply("One item"))
    assert [s.places for s in third.shared] == [(1, 2), (1, 2)]
    assert "It is **9.9**. (1, 2)" in repr(third)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([(called("{}"), Step("a")), (called(" {} "), Step(" a "))], None),
        ([(called('{"a": 1}'),), (called('{"a": 2}'),)], (1, "tool calls")),
        ([(called("{}"), Step("a")), (called("{}"), Step("b"))], (2, "text")),
        ([(called("{}"), Step("a")), (called("{}"),)], (2, "end")),
        ([(called("{"),), (called("{"),)], None),
    ],
)
def test_where_they_part(steps: list[tuple[Step, ...]], expected: tuple[int, str] | None) -> None:
    parting = compare(*(make_reply(steps=own) for own in steps)).parting
    assert (parting and (parting.step, parting.by)) == expected


def test_the_figures() -> None:
    pair = compare(Reply(timed_turn()), Reply(timed_turn(model="other")), names=["a", "b"])
    frame = pair.to_pandas()
    assert list(frame.index) == ["a", "b"]
    assert list(frame.model) == ["kimi-k3", "other"]
    assert list(frame.seconds) == [7.0, 7.0]
    assert list(frame.tools) == [["monthly"]] * 2
    assert frame.reply["a"] is pair.replies[0]
    assert "seconds  7.0" in repr(pair)
    assert "They do not part." in repr(pair)


def test_without_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(kimi.KimiError, match="pip install pandas"):
        compare(ONE, OTHER).to_pandas()


def test_one_reply_stands_for_its_trajectories() -> None:
    heavy = Reply(timed_turn(trajectories=(timed_turn(), timed_turn(model="b"))))
    assert [reply.model for reply in compare(heavy).replies] == ["kimi-k3", "b"]
    assert len(compare(heavy.trajectories, heavy).replies) == 3


@pytest.mark.parametrize(
    ("values", "words"),
    [([], "Two replies"), ([ONE], "Two replies"), ([ONE, "x"], "got str"), ([[ONE] * 65], "65")],
)
def test_what_is_refused(values: list[object], words: str) -> None:
    with pytest.raises(kimi.KimiError, match=words):
        compare(*values)


@pytest.mark.parametrize("vector", VECTORS)
def test_hostile_texts_stay_text(vector: str) -> None:
    steps = (Step(tool_calls=(ToolCall("1", vector, vector),)), Step())
    hostile = make_reply(f"{vector}\n\nA. {vector}", steps=steps, model=vector)
    bundle = compare(hostile, ONE, names=[vector, vector]).bundle()
    Checked(bundle.data["text/html"])
    check_plain(bundle.data["text/plain"])


@given(turns, turns)
def test_every_reply_can_be_compared(one: Reply, other: Reply) -> None:
    pair = compare([one, other])
    said = [*pair.common, *pair.shared, *pair.lone]
    assert len({statement.text for statement in said}) == len(said)
    assert all(statement.places == (1, 2) for statement in pair.common)
    assert compare([one, one]).parting is None
    assert not compare([one, one]).lone
    pair.bundle()


@given(st.text())
def test_statements_are_of_the_text(text: str) -> None:
    for statement in statements_of(make_reply(text)):
        assert "".join(statement.split()) in "".join(text.split())


def test_its_record_needs_no_kernel(kernel: Kernel, asked: ScriptedServer) -> None:
    """It is static, and nbconvert shows all of it."""
    for text in ("**Nine**. Sure & <certain>.", "Nine. Not sure."):
        asked.reply(text)
    kernel.run("pair = [kimi.ask('How many?', show=False) for _ in range(2)]")
    ran = kernel.run("%kimi compare pair\nkimi.compare(pair)")
    outputs = ran.of("display_data", "execute_result")
    v4: Any = nbformat.v4
    cells = []
    for shown in outputs:
        assert set(shown["data"]) == {"text/html", "text/plain"}
        kind = "display_data"
        made = v4.new_output(kind, shown["data"], metadata=shown["metadata"])
        cells.append(v4.new_code_cell("", outputs=[made]))
    assert len(cells) == 2
    exporter: Any = nbconvert.HTMLExporter
    html = exporter().from_notebook_node(v4.new_notebook(cells=cells))[0]
    whole = words_of(html)
    for shown in outputs:  # nbconvert writes the tags in its own way
        assert words_of(shown["data"]["text/html"]) in whole
    assert "Sure &amp; &lt;certain&gt;." in html
    assert ran.of("comm_open") == []


def words_of(html: str) -> str:
    return " ".join(BeautifulSoup(html, "html.parser").get_text(" ").split())


def test_the_verb(kernel: Kernel, asked: ScriptedServer) -> None:
    for text in ("Nine. Sure.", "Nine. Not sure."):
        asked.reply(text)
        kernel.run("%%kimi\nHow many?")
    kernel.run("first, second = [turn.reply for turn in kimi.chat().turns]\nboth = [first, second]")
    page = kernel.run("%kimi compare first main:2").record
    assert "<th" in page["text/html"]
    assert "main:2" in page["text/html"]
    assert "In all answers:\n  Nine." in page["text/plain"]
    assert "both 2" in kernel.run("%kimi compare both").record["text/plain"]
    for line, words in {
        "compare first": "two or more",
        "compare first nothing": "'nothing' is no turn",
        "compare first main:7": "That chat has 2 turns",
        "compare first other:1": "No chat is named 'other'",
        "step both": "both holds 2 replies",
    }.items():
        error = kernel.run(f"%kimi {line}", ok=False).error
        assert words in error
        assert len(error.splitlines()) == 1
