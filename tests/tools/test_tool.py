"""Tools of any kind: the protocol, the bounds of options, a turn with a tool of another kind."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

import kimi_magic as kimi
from kimi_magic.core.errors import KimiError
from kimi_magic.core.messages import ToolCall
from kimi_magic.schema.problems import ArgumentsError
from kimi_magic.testing import ScriptedServer
from kimi_magic.tools.decorator import offered, tool
from kimi_magic.tools.function_tool import make_tool
from kimi_magic.tools.step_calls import run_step_calls
from kimi_magic.tools.tool import Tool, ToolOptions, is_tool
from kimi_magic.tools.toolset import Toolset
from kimi_magic.turn.approval import Approval, Approved


@dataclass(frozen=True)
class RemoteTool:
    """A tool of some server, known by its schema only."""

    name: str = "weather"
    address: str = "http://localhost/weather"
    description: str = "Current weather of a city."
    options: ToolOptions = field(default_factory=ToolOptions)
    notes: tuple[str, ...] = ()
    languages: Mapping[str, str] = field(default_factory=dict)
    function: None = None
    sent: list[dict[str, Any]] = field(default_factory=list, compare=False)

    def schema(self) -> dict[str, Any]:
        parameters = {
            "type": "object",
            "properties": {"cities": {"type": "array", "items": {"type": "string"}}},
            "required": ["cities"],
        }
        function = {"name": self.name, "description": self.description, "parameters": parameters}
        return {"type": "function", "function": function}

    def bind(self, arguments: Mapping[str, Any], namespace: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(arguments.get("cities"), list):
            raise ArgumentsError({("cities",): "missing, want an array"})
        return dict(arguments)

    async def call(self, bound: dict[str, Any]) -> str:
        self.sent.append(bound)
        if "Atlantis" in bound["cities"]:
            raise ConnectionError("no such city")
        return f"Sunny in {' and '.join(bound['cities'])}"

    def identity(self) -> Hashable:
        return self.address

    def variant(self, *, name: str | None = None, options: ToolOptions | None = None) -> RemoteTool:
        return replace(self, name=name or self.name, options=options or self.options)

    def at_moment(self, namespace: Mapping[str, Any]) -> RemoteTool:
        return self


CITIES = '{"cities": ["Rome"]}'


def test_a_tool_of_another_kind_is_called() -> None:
    tools = Toolset([RemoteTool(), len])
    assert tools.names == ["weather", "len"]
    assert tools.schemas()[0] == RemoteTool().schema()
    result = tools.call("weather", CITIES, call_id="c1")
    assert (result.content, result.call_id, result.error) == ("Sunny in Rome", "c1", None)
    assert tools.call("weather", '{"cities": "[\\"Rome\\"]"}').value == "Sunny in Rome"
    assert tools.functions == {"len": len}


def test_what_fails_in_a_tool_of_another_kind_becomes_a_result() -> None:
    tools = Toolset(RemoteTool())
    refused = tools.call("weather", "{}")
    assert refused.error == "cities: missing, want an array"
    assert refused.content.startswith("Nothing was run")
    assert tools.call("weather", '{"cities": ').error
    failed = tools.call("weather", '{"cities": ["Atlantis"]}')
    assert failed.error == "ConnectionError: no such city"
    assert "kimi_magic/tools" not in failed.traceback


def test_tools_of_any_kind_get_unique_names() -> None:
    elsewhere = RemoteTool(address="http://localhost/2")
    known = RemoteTool()
    assert Toolset([known, elsewhere, known]).names == ["weather", "weather_2"]
    assert Toolset({"the sky": known}).schemas()[0]["function"]["name"] == "the_sky"


def test_a_name_may_stand_for_a_tool_of_any_kind() -> None:
    namespace = {"sky": RemoteTool(), "local": SimpleNamespace(size=make_tool(len))}
    assert Toolset(["sky", "local.size"], namespace=namespace).names == ["weather", "len"]


def test_a_tool_of_another_kind_waits_for_confirmation() -> None:
    remote = RemoteTool(options=ToolOptions(confirm=True))
    tools = Toolset(remote)
    assert tools.call("weather", CITIES).error
    assert tools.call("weather", CITIES, approve=lambda *_: False).error
    assert remote.sent == []
    edited = tools.call("weather", CITIES, approve=lambda *_: {"cities": ["Oslo"]})
    assert edited.value == "Sunny in Oslo"
    assert remote.sent == [{"cities": ["Oslo"]}]


def test_tools_of_any_kind_run_side_by_side() -> None:
    tools = Toolset(RemoteTool(options=ToolOptions(parallel=True)))
    calls = [ToolCall(str(i), "weather", CITIES) for i in range(3)]
    events = [event for event in run_step_calls(tools, calls, None, {}) if event is not None]
    assert len(events) == 6


def test_a_turn_with_a_tool_of_another_kind(server: ScriptedServer) -> None:
    remote = RemoteTool()
    calls = [{"name": "weather", "arguments": {"cities": ["Rome", "Oslo"]}}]
    server.reply(reasoning="I look.", tool_calls=calls)
    server.reply("Sunny everywhere.")
    reply = kimi.ask("How is the weather?", tools=[remote, len], show=False)
    assert reply.text == "Sunny everywhere."
    assert [result.value for result in reply.tool_results] == ["Sunny in Rome and Oslo"]
    assert reply.functions == {"len": len}
    offered_tools, answer = (
        server.requests[0].body["tools"],
        server.requests[1].body["messages"][-1],
    )
    assert [each["function"]["name"] for each in offered_tools] == ["weather", "len"]
    assert answer["content"] == "Sunny in Rome and Oslo"


@pytest.mark.parametrize("approve", ["yes", "no"])
def test_a_turn_asks_before_it_calls_a_tool_of_any_kind(
    server: ScriptedServer, approve: str
) -> None:
    remote = RemoteTool(options=ToolOptions(confirm=True))
    server.reply(tool_calls=[{"name": "weather", "arguments": {"cities": ["Rome"]}}])
    server.reply("Done.")
    kimi.ask("How is the weather?", tools=remote, approve=approve, show=False)
    assert len(remote.sent) == (1 if approve == "yes" else 0)


def test_approval_for_the_chat_holds_for_an_equal_identity() -> None:
    asked: list[Tool] = []

    def ask(tool: Tool, *_: Any) -> Any:
        asked.append(tool)
        return "chat"

    approved: Approved = set()
    approval = Approval({}, approved, ask, lambda _: None)
    arguments = json.loads(CITIES)
    for each in (RemoteTool(), RemoteTool(), RemoteTool(address="http://evil")):
        assert approval(each, arguments) is True
    assert [each.identity() for each in asked] == ["http://localhost/weather", "http://evil"]
    assert approval(RemoteTool(name="other"), arguments) is True
    assert len(asked) == 3


def test_approval_for_the_chat_ends_when_a_default_is_another() -> None:
    asked: list[Any] = []

    def ask(*question: Any) -> Any:
        asked.append(question)
        return "chat"

    approval = Approval({}, set(), ask, lambda _: None)
    scope: dict[str, Any] = {}
    for source in ("a=1", "a=1", "a=2", "*, a=2", "*, a=3", "a: int = 3", "a: float = 3"):
        exec(f"def pay({source}): pass", scope)
        assert approval(make_tool(scope["pay"]), {}) is True
    assert len(asked) == 6


@pytest.mark.parametrize(
    "value",
    [len, RemoteTool, make_tool, MagicMock(), SimpleNamespace(call=1), "weather", None, {}, 3],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_tool_is_not_taken_for_one(value: Any) -> None:
    assert not is_tool(value)


def test_tools_of_each_kind_are_tools() -> None:
    assert is_tool(RemoteTool())
    assert is_tool(make_tool(len))


def test_run_python_names_the_language_of_its_code() -> None:
    (run_python,) = Toolset("run_python", namespace={}).tools
    assert run_python.languages == {"code": "python"}
    assert make_tool(len).languages == {}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"timeout": -1}, "timeout is -1: give a number of 0 or more"),
        ({"timeout": float("nan")}, "timeout is nan"),
        ({"timeout": "3"}, "timeout is '3'"),
        ({"timeout": True}, "timeout is True"),
        ({"max_chars": -1}, "max_chars is -1: give a number of 0 or more"),
        ({"max_chars": None}, "max_chars is None"),
        ({"max_chars": float("nan")}, "max_chars is nan"),
    ],
    ids=str,
)
def test_options_have_bounds(options: dict[str, Any], says: str) -> None:
    with pytest.raises(KimiError, match=says):
        ToolOptions(**options)
    with pytest.raises(KimiError, match=says):
        tool(len, **options)
    with pytest.raises(KimiError, match=says):
        tool(**options)
    assert "len" not in offered


@pytest.mark.parametrize("options", [{"timeout": 0.0}, {"timeout": float("inf")}, {"max_chars": 0}])
def test_options_at_their_bounds(options: dict[str, Any]) -> None:
    made = ToolOptions(**options)
    assert all(getattr(made, name) == value for name, value in options.items())
