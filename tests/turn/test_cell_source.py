"""A turn as the source of a cell: run, it asks the same."""

from __future__ import annotations

import ast
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.inputtransformer2 import TransformerManager

from kimi_magic.chats.chat import ChatTurn
from kimi_magic.core.messages import Message, Step
from kimi_magic.core.reply import Reply
from kimi_magic.core.turn_record import EndpointFacts, TurnRecord
from kimi_magic.jupyter.line_parser import parse_line
from kimi_magic.schema.output import ANY_JSON
from kimi_magic.turn.cell_source import cell_source
from kimi_magic.turn.request import CONTINUE, TurnRequest
from kimi_magic.wire.endpoints import Endpoint

manager: Any = TransformerManager  # half typed


def a_turn(
    prompt: str = "Hi",
    chat: str = "main",
    endpoint: str = "custom",
    record: dict[str, Any] | None = None,
    **options: Any,
) -> ChatTurn:
    messages = (Message("user", prompt), Message("assistant", "OK"))
    facts: Any = {"parameters": {"model": "m"}, "endpoint": EndpointFacts(endpoint)}
    made = TurnRecord(
        (Step("OK"),), messages, 1, chat=chat, prompt=prompt, **facts | (record or {})
    )
    request = TurnRequest(prompt, chat=chat, **options)
    return ChatTurn(prompt, Reply.of(made), request=request)


class Person:
    """An answer's form."""


TOOLS = [{"type": "function", "function": {"name": name}} for name in ("forecast", "a; b")]


@pytest.mark.parametrize(
    ("turn", "source"),
    [
        (a_turn(), "%%kimi -m m\nHi"),
        (a_turn(endpoint="moonshot"), "%%kimi -m m -e moonshot\nHi"),
        (a_turn(endpoint="local"), "%%kimi -e local\nHi"),
        (a_turn(endpoint="http://gpu1/v1"), "%%kimi -m m\nHi"),
        (
            a_turn("See {{ x }}", "review", "moonshot", model="n", stream=False),
            "%%kimi -m n -e moonshot -c review --no-stream --raw\nSee {{ x }}",
        ),
        (a_turn(chat="my review"), '%%kimi -m m -c "my review"\nHi'),
        (a_turn(system="", schema="name, age int"), '%%kimi -m m -s "" --schema "name, age int"'),
        (a_turn(schema=Person), "%%kimi -m m --schema Person\nHi"),
        (a_turn(schema=ANY_JSON), "%%kimi -m m -f json\nHi"),
        (a_turn(record={"data": [1]}), "%%kimi -m m -f json\nHi"),
        (a_turn(schema={"type": "object"}), "ask(\n    'Hi',\n    model='m',\n    schema={'type'"),
        (a_turn(record={"parameters": {"tools": TOOLS}}), "%%kimi -T forecast\nHi"),
        (a_turn(variables=["sales", "df"], fresh=True), "%%kimi -m m -v sales,df --fresh\nHi"),
        (a_turn(variables={"sales": 1}), "%%kimi -m m\nHi"),
        (
            a_turn(effort="high", temperature=0.0, top_p=0.5, seed=7, stop=["a b", "-x"]),
            '--effort high --temperature 0.0 --top-p 0.5 --seed 7 --stop "a b" --stop "-x"\nHi',
        ),
        (a_turn(CONTINUE, resumed=True), "%kimi continue"),
        (a_turn(CONTINUE, "review", resumed=True), "%kimi continue review"),
        (a_turn(CONTINUE, "a\nimport os", resumed=True), "kimi.chat('a\\nimport os').ask(\n"),
        (a_turn("x", system="two\nlines"), "kimi.chat('main').ask(\n    'x',\n"),
        (a_turn(">>> f()\n1"), "kimi.chat('main').ask(\n    '>>> f()\\n1',\n"),
        (a_turn("\n x"), "kimi.chat('main').ask(\n    '\\n x',\n"),
        (
            a_turn("x", system="\n", record={"parameters": {"tools": TOOLS}}, fresh=True),
            "kimi.chat('main').reset()\nkimi.chat('main').ask(\n    'x',\n    system='\\n',\n"
            "    tools=[forecast],\n)",
        ),
    ],
)
def test_its_options_are_those_that_matter(turn: ChatTurn, source: str) -> None:
    made = cell_source(turn)
    assert source in made, made


ANYTHING = st.text(max_size=20) | st.sampled_from(
    ["{{ x }}", ">>> x", "...", "a\n>>> b", "In [1]: x"]
)


@given(
    ANYTHING.filter(str.strip),
    st.fixed_dictionaries(
        {},
        optional={
            "system": ANYTHING,
            "model": ANYTHING.filter(bool),
            "stop": st.lists(ANYTHING, min_size=1, max_size=2),
            "temperature": st.floats(0, 2),
        },
    ),
    st.text(min_size=1, max_size=9),
)
def test_what_the_cell_asks(prompt: str, options: dict[str, Any], chat: str) -> None:
    source = cell_source(a_turn(prompt, chat, **options))
    (call,) = ast.parse(manager().transform_cell(source)).body
    assert isinstance(call, ast.Expr)
    assert isinstance(call.value, ast.Call)
    if source.startswith("%%kimi"):
        name, line, body = (ast.literal_eval(argument) for argument in call.value.args)
        found = parse_line(line)
        found["chat"] = found["chat"] or "main"
        assert name == "kimi"
        assert body.strip("\n") == prompt
        assert found["raw"] == ("{{" in prompt)
    else:
        found = {str(k.arg): ast.literal_eval(k.value) for k in call.value.keywords}
        assert ast.literal_eval(call.value.args[0]) == prompt
        assert ast.unparse(call.value.func) == f"kimi.chat({chat!r}).ask"
        found["chat"] = chat
    wanted = {"model": "m", "chat": chat} | options
    assert {name: found[name] for name in wanted} == wanted


def test_an_endpoint_that_was_handed_in() -> None:
    turn = a_turn(endpoint="x")
    handed = Endpoint("lab", "http://127.0.0.1:9/v1")
    request = TurnRequest("Hi", chat="main", endpoint=handed)
    turn = ChatTurn("Hi", turn.reply, request=request)
    assert cell_source(turn) == "%%kimi -m m -e lab\nHi"
    turn = ChatTurn("Hi", turn.reply, request=TurnRequest("Hi", endpoint="http://gpu1/v1"))
    assert cell_source(turn) == "%%kimi -m m -e http://gpu1/v1\nHi", "it was written by a person"
