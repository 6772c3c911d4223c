"""Aim: have a person approve another call than the one that runs."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from kimi_magic.chats.chat import Chat, Place
from kimi_magic.core.events import ApprovalAsked
from kimi_magic.display.live.approval_form import MAX_CHARS, MAX_FIELDS, as_fields
from kimi_magic.testing import ScriptedServer
from kimi_magic.tools.function_tool import make_tool
from kimi_magic.tools.tool import Tool, ToolOptions
from kimi_magic.tools.toolset import Toolset
from kimi_magic.turn.approval import Approval, _shown
from tests.kernels import Kernel
from tests.tools.test_tool import CITIES, RemoteTool


class Person:
    """Says «do not ask again» to everything, and keeps what was shown."""

    def __init__(self, answer: str = "chat") -> None:
        self.answer: Any = answer
        self.shown: list[str] = []
        self.events: list[Any] = []
        self.approval = Approval({}, set(), self._ask, self.events.append)

    def _ask(self, tool: Tool, arguments: Any, problem: Any, defaults: Mapping[str, str]) -> Any:
        self.shown.append(_shown(arguments, defaults))
        return self.answer

    def is_asked(self, tool: Tool, **arguments: Any) -> bool:
        before = len(self.shown)
        assert self.approval(tool, arguments)
        return len(self.shown) > before


def cell(source: str, scope: dict[str, Any]) -> Tool:
    exec(compile(source, "cell", "exec", dont_inherit=True), scope)
    return make_tool(scope["pay"], namespace=scope)


PAY = "def pay(amount: int, to: str = 'me') -> str:\n    'Pay.'\n    return send(amount, to)\n"
SEND = "def send(amount, to): return log(amount)\n"
LOG = "import json\nclass Bank: pass\ndef log(amount): return json.dumps([amount, Bank.__name__])\n"
CHANGED = {
    "code": PAY.replace("amount, to)\n", "-amount, to)\n"),
    "default": PAY.replace("'me'", "'you'"),
    "description": PAY.replace("'Pay.'", "'Pay nothing.'"),
    "hint": PAY.replace("amount: int", "amount: float"),
    "a function that it calls": SEND.replace("amount)", "-amount)"),
    "a function that this one calls": LOG.replace("[amount", "[-amount"),
    "a class": "class Bank: pass",
    "a module": "json = __import__('pickle')",
    "a builtin that is taken over": "def send(amount, to): return print(amount)",
    "a function that is gone": "send = None",
}


@pytest.mark.parametrize("change", CHANGED.values(), ids=CHANGED.keys())
def test_what_was_approved_is_changed(change: str) -> None:
    """Input: a cell that changes the function, or what it uses. Holds: it is asked about again."""
    person = Person()
    scope: dict[str, Any] = {}
    exec(LOG, scope)
    cell(PAY, scope)
    assert person.is_asked(cell(SEND, scope), amount=5)
    for source in (PAY, SEND):
        assert not person.is_asked(cell(source, scope), amount=7), "the same definitions"
    assert person.is_asked(cell(change, scope), amount=5)


def test_a_builtin_that_is_taken_over_later() -> None:
    """Input: a variable with the name of a builtin that an approved function calls.

    Holds: it is asked about again.
    """
    person = Person()
    scope: dict[str, Any] = {}
    pay = cell("def pay(x): return print(x)", scope)
    assert person.is_asked(pay, x=1)
    assert not person.is_asked(pay, x=1)
    scope["print"] = exec
    assert person.is_asked(pay, x=1)


def test_data_come_and_go() -> None:
    """Input: data that an approved function reads and writes. Holds: the approval stays."""
    person, scope = Person(), {"count": 0, "seen": []}
    pay = cell("def pay(x):\n global count\n count += 1\n seen.append(x)", scope)
    for amount in range(3):
        assert person.is_asked(pay, x=amount) is (amount == 0)
        pay.call(pay.bind({"x": amount}, scope))
        scope[f"result_{amount}"] = amount


def test_a_tool_is_described_otherwise_from_call_to_call() -> None:
    """Input: a server's tool with another description, schema or name at each call.

    Holds: each of them is asked about, and the first one is not asked about twice.
    """
    first = RemoteTool()

    class Widened(RemoteTool):
        def schema(self) -> dict[str, Any]:
            schema = super().schema()
            schema["function"]["parameters"]["properties"]["admin"] = {"type": "boolean"}
            return schema

    person = Person()
    arguments = json.loads(CITIES)
    tools = (
        first,
        replace(first, description="Deletes a city."),
        Widened(),
        replace(first, name="x"),
    )
    assert [person.is_asked(tool, **arguments) for tool in tools] == [True] * 4
    assert not person.is_asked(RemoteTool(), **arguments)


def test_variables_come_between_two_calls() -> None:
    """Input: a tool whose schema lists variables. Holds: a new variable asks nobody again."""
    import pandas as pd

    def drop(df: pd.DataFrame) -> None: ...

    scope: dict[str, Any] = {"one": pd.DataFrame()}
    tools, person = Toolset([drop], namespace=scope), Person()
    assert person.is_asked(tools.tools[0], df="one")
    scope["two"] = pd.DataFrame()
    assert not person.is_asked(tools.tools[0], df="two")


def test_code_is_approved_by_its_text() -> None:
    """Input: other code for ``run_python`` after an approval for the chat.

    Holds: each new text is asked about, the same text is not, and the question says so.
    """
    (run_python,) = Toolset("run_python", namespace={}).tools
    person = Person()
    for code, asked in (("1 + 1", True), ("1 + 1", False), ("1 + 1 ", True), ("import os", True)):
        assert person.is_asked(run_python, code=code) is asked


def pay(
    amount: int, to: str = "me", fast: bool = True, key: str = "sk-0123", how: Any = print
) -> int:
    """Pay."""
    return amount


def test_defaults_are_shown() -> None:
    """Input: a call that leaves dangerous defaults out. Holds: they are shown and recorded."""
    person = Person()
    hidden = functools.partial(pay, fast=False)
    for function, fast in ((pay, "true"), (hidden, "false")):
        person.is_asked(make_tool(function), amount=5)
        shown = person.shown[-1].split("\n")
        assert shown[:2] == ["  amount = 5", '  to (default) = "me"']
        assert f"  fast (default) = {fast}" in shown
        assert "  how (default) =" in shown
        assert "print(" in person.shown[-1]
    assert person.is_asked(make_tool(pay), amount=5, to="you") is False
    (event, *_) = (e for e in person.events if isinstance(e, ApprovalAsked))
    assert ("to", '"me"') in event.defaults
    remote = RemoteTool()
    remote_schema = remote.schema()
    remote_schema["function"]["parameters"]["properties"]["force"] = {"default": True}

    class Forced(RemoteTool):
        def schema(self) -> dict[str, Any]:
            return remote_schema

    person.is_asked(Forced(), cities=["Rome"])
    assert person.shown[-1].endswith("  force (default) = true")


def test_defaults_hold_no_key() -> None:
    """Input: a key as default. Holds: the form, the question and the record show none."""
    events: list[Any] = []
    asked: list[Any] = []

    def ask(*question: Any) -> Any:
        asked.append(question[-1])
        return "no"

    mask = functools.partial(re.sub, "sk-[0-9]+", "[masked]")
    approval = Approval({}, set(), ask, events.append, redact=mask)
    approval(make_tool(pay), {"amount": 1})
    assert "sk-" not in repr(asked + events)
    assert "[masked]" in repr(asked)


@pytest.mark.parametrize(
    "arguments",
    [{"code": "x" * (MAX_CHARS + 1)}, {f"a{i}": 1 for i in range(MAX_FIELDS + 1)}],
    ids=["long", "many"],
)
def test_more_than_can_be_shown(arguments: dict[str, Any]) -> None:
    """Input: a text or fields past what a form can show. Holds: nobody is asked, nothing runs."""
    ran: list[Any] = []

    def take(**given: Any) -> None:
        ran.append(given)

    person = Person("once")
    tools = Toolset([make_tool(take, options=ToolOptions(confirm=True))])
    result = tools.call("take", json.dumps(arguments), approve=person.approval)
    assert "too many to show to the user" in result.content
    assert (person.shown, person.events, ran) == ([], [], [])
    problems: list[str] = []

    def edit(*question: Any) -> Any:
        problems.append(question[2](arguments))
        return "no"

    Approval({}, set(), edit, lambda _: None)(make_tool(take), {})
    assert "too many" in problems[0]


@pytest.mark.parametrize("make", [str, lambda s: [s], lambda s: {"k": s}])
def test_all_of_a_long_call_is_shown(make: Callable[[str], Any]) -> None:
    """Input: the harm at the end of many lines, of spaces, of invisible characters.

    Holds: the form and the question have all of it, by its number where it cannot be seen.
    """
    for filler in ("\n" * 9000, " " * 9000, "\u200b\u202e\x1b[2J\r" * 900, "x = 1\n" * 9000):
        arguments = {"code": make(f"safe(){filler}os.system('harm')")}
        ((_, text, whole),) = as_fields(arguments)
        assert whole
        assert text.replace("\\n", "\n").endswith(("os.system('harm')", "harm')\"]", "harm')\"}"))
        assert len(text) >= len(filler)
        assert "harm" in _shown(arguments)
        assert not re.search("[\u200b\u202e\x1b\r]", text)


def test_a_name_that_looks_like_another_argument() -> None:
    """Input: a name with a line break and what a value looks like. Holds: it stays on its line."""
    shown = _shown({"n\n  b = 1\n  x": 2, "b": 1000}, {"a\tb": "1"}).split("\n")
    assert shown == [
        "  n⟨U+000A⟩  b = 1⟨U+000A⟩  x = 2",
        "  b = 1000",
        "  a⟨U+0009⟩b (default) = 1",
    ]


def test_an_edit_that_python_takes_for_none() -> None:
    """Input: a person changes 1 to true, which Python holds for equal. Holds: true is passed."""
    got: list[Any] = []

    def pay(amount: Any) -> None:
        """Pay."""
        got.append(amount)

    tool = make_tool(pay, options=ToolOptions(confirm=True))
    result = Toolset([tool]).call("pay", '{"amount": 1}', approve=lambda *_: {"amount": True})
    assert got[0] is True
    assert "The user changed the arguments" in result.content


def test_a_chat_forgets_what_was_approved() -> None:
    """Input: --fresh, reset, a cell that is run again. Holds: what was approved there has ended."""
    chat = Chat("main", ask=lambda *_, **__: None)  # type: ignore[arg-type]
    first, second, third = Place("a", "1"), Place("b", "2"), Place("c", "3")
    for place, tool in ((first, "pay"), (second, "send"), (third, "drop")):
        chat.begin(place)
        chat.approved.add(tool)
        chat.begin(place)  # a tool that asks, a loop
    chat.begin(Place("c", "4"))
    assert chat.approved == {"pay", "send"}
    chat.begin(Place("b", "5"))
    assert chat.approved == {"pay"}
    chat.begin(Place())  # a front end without cell ids
    assert chat.approved == {"pay"}
    chat.begin(Place("d", "6"), fresh=True)
    assert chat.approved == set()
    chat.approved.add("pay")
    chat.reset()
    assert chat.approved == set()


def test_in_a_notebook(kernel: Kernel, asked: ScriptedServer) -> None:
    """Input: the same call after --fresh, after %kimi reset, and in a cell that is run again.

    Holds: the person is asked each time, sees the defaults, and is not asked in between.
    """
    kernel.run(
        "@kimi.tool(confirm=True)\n"
        "def pay(amount: int, to: str = 'me') -> str:\n    'Pay.'\n    return str(amount)"
    )

    def questions(line: str, cell: str = "") -> list[str]:
        asked.reply(tool_calls=[{"name": "pay", "arguments": {"amount": 5}}])
        asked.reply("Done.")
        ran = kernel.run(f"%%kimi {line}\nGo", allow_stdin=True, answer="c", cell=cell)
        assert ("Defaults: to=&quot;me&quot;" in ran.record["text/html"]) is bool(ran.questions)
        return ran.questions

    (question,) = questions("")
    assert '  to (default) = "me"' in question
    assert "for this [c]hat" in question
    assert questions("") == []
    assert len(questions("--fresh")) == 1
    assert questions("") == []
    kernel.run("%kimi reset")
    assert len(questions("", "a")) == 1
    assert questions("", "b") == []
    assert len(questions("", "a")) == 1
    code = {"name": "run_python", "arguments": {"code": "total = 1"}}
    for _ in range(2):
        asked.reply(tool_calls=[code])
    asked.reply(tool_calls=[code | {"arguments": {"code": "total = 2"}}])
    asked.reply("Done.")
    ran = kernel.run("%%kimi -T run_python\nGo", allow_stdin=True, answer="c")
    assert len(ran.questions) == 2
    assert "this same code in this [c]hat" in ran.questions[0]
