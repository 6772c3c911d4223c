"""Sessions with MCP servers: begun, broken off, timed out, interrupted, and ended."""

from __future__ import annotations

import asyncio
import builtins
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

import kimi_magic as kimi
from kimi_magic.core.errors import KimiError, ToolInterrupted
from kimi_magic.core.messages import ToolResult
from kimi_magic.session import Session
from kimi_magic.tools import mcp_session
from kimi_magic.tools.toolset import Toolset
from kimi_magic.turn import approval
from kimi_magic.turn.approval import Approval, ask_with_input
from tests.kernels import Kernel
from tests.mcp_plans import Planned, Plans, described, served_over_http

pytestmark = pytest.mark.usefixtures("planned")

FORM = {
    "message": "Who are you?",
    "requestedSchema": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1, "title": "Your\nname"},
            "age": {"type": "integer", "default": 3},
        },
        "required": ["name"],
    },
}
PAGE = {"mode": "url", "message": "Sign in.", "url": "https://a.example", "elicitationId": "1"}


def until(holds: Callable[[], object]) -> None:
    stop = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < stop, "it never came so far"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    import psutil

    with suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


def servers_of(one: Planned) -> list[int]:
    """Return the processes that were started with the plan of a server."""
    import psutil

    found = psutil.process_iter(["cmdline"])
    return [p.pid for p in found if one.command[2] in (p.info["cmdline"] or ())]


def test_a_crash_is_one_error(planned: Plans) -> None:
    """Input: a server that ends in a call. Holds: its last words are told, the next call works."""
    one = planned(calls={"act": {"crash": True, "stderr": "no memory\n"}})
    toolset = kimi.Toolset(one.server())
    failed = toolset.call("demo__act", "{}")
    assert "broke the connection off" in failed.content
    assert "no memory" in failed.content
    one.plan()
    assert toolset.call("demo__act", "{}").error is None
    assert one.methods().count("initialize") == 2


def test_a_session_serves_many_threads(planned: Plans) -> None:
    toolset = kimi.Toolset((one := planned()).server())
    results: list[ToolResult] = []
    work = [
        threading.Thread(
            target=lambda n=n: results.append(toolset.call("demo__act", json.dumps({"x": n})))
        )
        for n in range(8)
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert sorted(result.content for result in results) == [f'{{"x": {n}}}' for n in range(8)]
    assert one.methods().count("initialize") == 1


def test_a_start_at_a_second_attempt_is_one_start(planned: Plans) -> None:
    """Input: a server that ends at a new method, two callers. Holds: both have its next start."""
    one = planned(start={"old": True, "waits": True})
    server = one.server()
    session = mcp_session.session_of(server, server.launch(lambda _: False))
    loop = session._loop
    first = asyncio.run_coroutine_threadsafe(session._open(), loop)
    until(lambda: "initialize" in one.methods())
    second = asyncio.run_coroutine_threadsafe(session._open(), loop)
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result()
    one.plan()
    assert first.result(30) is second.result(30)
    assert one.methods().count("initialize") == 1


def test_a_session_that_ends_late_leaves_the_next_alone(
    planned: Plans, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Input: a start before the last one has ended. Holds: no third start, which would leak it."""
    one = planned()
    kimi.Toolset(server := one.server())
    session = mcp_session.session_of(server, server.launch(lambda _: False))
    last, opened = session._task, session._opened
    assert last is not None

    async def after_it() -> Any:
        await asyncio.wait([last])
        return await opened()

    async def again() -> bool:
        session._end()
        return await session._open() is await session._open()

    monkeypatch.setattr(session, "_opened", after_it)
    assert asyncio.run_coroutine_threadsafe(again(), session._loop).result(30)
    assert one.methods().count("initialize") == 2


def test_a_call_waits_for_the_list_that_is_under_way(planned: Plans) -> None:
    """Input: a change, and two who ask for the tools. Holds: neither gets the old ones."""
    one = planned(tools=[described("act", "One.")])
    server = one.server()
    kimi.Toolset(server)
    session = mcp_session.session_of(server, server.launch(lambda _: False))
    one.plan(tools=[described("act", "Two.")], waits=True)
    session._stale = True
    lists = [
        asyncio.run_coroutine_threadsafe(session._listed(fresh=False), session._loop)
        for _ in range(2)
    ]
    until(lambda: one.methods().count("tools/list") == 2)
    one.plan(tools=[described("act", "Two.")])
    assert [each.result(30).tools[0].description for each in lists] == ["Two."] * 2
    assert one.methods().count("tools/list") == 2


def test_a_call_that_takes_too_long_is_cancelled(
    planned: Plans, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Input: a server that never answers. Holds: it is told, and the session goes on."""
    one = planned(tools=[described("act"), described("hang")], calls={"hang": {"hang": True}})
    toolset = kimi.Toolset(one.server())
    monkeypatch.setattr(mcp_session, "CALL_LIMIT", 0.3)
    assert "gave no answer in 0.3 s" in toolset.call("demo__hang", "{}").content
    until(lambda: "notifications/cancelled" in one.methods())
    monkeypatch.undo()
    assert toolset.call("demo__act", "{}").error is None
    assert one.methods().count("initialize") == 1


def test_a_start_that_takes_too_long_is_given_up(
    planned: Plans, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp_session, "START_LIMIT", 0.5)
    one = planned(start={"hang": True, "stderr": "downloading\n"})
    with pytest.raises(KimiError, match=r"(?s)did not answer within 0\.5 s.*Try it") as raised:
        kimi.Toolset(one.server())
    assert "downloading" in str(raised.value)
    monkeypatch.undo()
    one.plan()
    assert kimi.Toolset(one.server()).names == ["demo__act"]


def test_a_server_that_cannot_start_says_why(planned: Plans) -> None:
    one = planned(start={"exit": 1, "stderr": "x\n" * 50 + "No module named files\n"})
    with pytest.raises(KimiError) as raised:
        kimi.Toolset(one.server())
    said = str(raised.value)
    assert "ended before it answered" in said
    assert "No module named files" in said
    assert len(said.splitlines()) <= 7
    with pytest.raises(KimiError, match="the program nothing-like-it is not installed"):
        kimi.Toolset(kimi.mcp("nothing-like-it --now", name="none"))
    with pytest.raises(KimiError, match=r"cannot be reached at http://127\.0\.0\.1:9/mcp"):
        kimi.Toolset(kimi.mcp("http://127.0.0.1:9/mcp", name="none"))


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_an_interrupt_cancels_the_call(planned: Plans) -> None:
    one = planned(tools=[described("act"), described("hang")], calls={"hang": {"hang": True}})
    toolset = kimi.Toolset(one.server())

    def interrupt() -> None:
        until(lambda: "tools/call" in one.methods())
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(ToolInterrupted):
        toolset.call("demo__hang", "{}")
    until(lambda: "notifications/cancelled" in one.methods())
    assert toolset.call("demo__act", "{}").error is None


def test_an_address_is_reached_and_reached_again() -> None:
    """Input: the SDK's own server over HTTP, which ends. Holds: one error, then a new one."""

    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    with served_over_http({"add": add}) as url:
        toolset = kimi.Toolset(kimi.mcp(url, name="web", trust=True))
        assert toolset.call("web__add", '{"a": 1, "b": 2}').content == '{"result":3}'
    assert "connects again" in toolset.call("web__add", '{"a": 1, "b": 2}').content
    assert "cannot be reached" in toolset.call("web__add", '{"a": 1, "b": 2}').content


def test_a_second_command_of_a_name_ends_the_first(planned: Plans) -> None:
    one = planned(calls={"act": {"env": True}})
    kimi.Toolset(one.server(env={"A": "1"}))
    result = kimi.Toolset(one.server(env={"A": "2"})).call("demo__act", "{}")
    assert json.loads(result.value)["A"] == "2"
    assert len(mcp_session._sessions) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_forked_child_starts_its_own(planned: Plans) -> None:
    one = planned()
    toolset = kimi.Toolset(one.server())
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.write(writing, toolset.call("demo__act", '{"x": 5}').content.encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    assert os.read(reading, 1000) == b'{"x": 5}'
    os.close(reading)
    assert one.methods().count("initialize") == 2
    assert toolset.call("demo__act", "{}").error is None


# Questions


def ask_for(
    toolset: Toolset, answers: list[str], monkeypatch: pytest.MonkeyPatch
) -> tuple[Any, list[str]]:
    """Call with a person at an ``input()`` prompt; return the result and what was asked."""
    asked: list[str] = []
    said: Iterator[str] = iter(answers)

    def type_in(prompt: str = "") -> str:
        asked.append(prompt)
        print(prompt)  # as a terminal shows it
        return next(said)

    monkeypatch.setattr(builtins, "input", type_in)
    approve = Approval({}, set(), ask_with_input, lambda _: None)
    return toolset.call("demo__act", "{}", approve=approve), asked


@pytest.mark.parametrize(
    ("question", "answers", "got"),
    [
        (
            FORM,
            ["e", '{"name": "Ada", "age": 36}'],
            {"action": "accept", "content": {"name": "Ada", "age": 36}},
        ),
        (
            FORM,
            ["y", "e", '{"age": 1}', "e", '{"name": "B"}'],
            {"action": "accept", "content": {"name": "B"}},
        ),
        (FORM, ["n"], {"action": "decline"}),
        (PAGE, ["y"], {"action": "accept"}),
        (PAGE, [""], {"action": "decline"}),
    ],
)
def test_a_person_answers_questions(
    planned: Plans,
    monkeypatch: pytest.MonkeyPatch,
    question: Any,
    answers: list[str],
    got: Any,
) -> None:
    server = planned(calls={"act": {"ask": question}}).server()
    result, asked = ask_for(kimi.Toolset(server), answers, monkeypatch)
    assert json.loads(result.value) == [got]
    assert "asks you" not in result.content
    assert question["message"] in asked[0]
    assert "MCP server demo asks you" in asked[0]
    assert ("https://a.example" if question is PAGE else "│ name: Your name") in asked[0]
    if question is FORM and answers[0] == "y":
        assert asked[1].startswith("These do not fit: name: got "), "the reason comes first"


def test_an_interrupt_cancels_a_question(planned: Plans, monkeypatch: pytest.MonkeyPatch) -> None:
    one = planned(calls={"act": {"ask": FORM}})

    def interrupted(_: str = "") -> str:
        raise KeyboardInterrupt

    toolset = kimi.Toolset(one.server())
    monkeypatch.setattr(approval, "_input", lambda *_: interrupted())
    approve = Approval({}, set(), ask_with_input, lambda _: None)
    with pytest.raises(ToolInterrupted):
        toolset.call("demo__act", "{}", approve=approve)
    until(lambda: {"action": "cancel"} in [message.get("result") for message in one.got])


def test_nobody_is_asked_where_nobody_can_answer(planned: Plans) -> None:
    result = kimi.Toolset(planned(calls={"act": {"ask": FORM}}).server()).call("demo__act", "{}")
    assert json.loads(result.value) == [{"action": "cancel"}]


# The kernel


def test_a_kernel_asks_interrupts_and_leaves_no_orphan(
    planned: Plans, session: Session, tmp_path: Any
) -> None:
    """Input: a file of servers, an interrupt, a shutdown. Holds: no server is left."""
    tools = [described("act"), described("hang")]
    one = planned(tools=tools, calls={"hang": {"hang": True}})
    (tmp_path / ".mcp.json").write_text(json.dumps({"mcpServers": {"demo": one.entry}}))
    begin = f"import os; os.chdir({str(tmp_path)!r}); get_ipython().starting_dir = os.getcwd()\n"
    begin += "import kimi_magic as kimi; os.environ['KIMI_JOURNAL'] = 'off'\n"
    begin += "%load_ext kimi_magic"

    with Kernel() as kernel:
        kernel.run(begin)
        refused = kernel.run("%kimi tool mcp:demo", ok=False)
        assert "nobody has agreed" in refused.error
        asked = kernel.run("%kimi tool mcp:demo", allow_stdin=True, answer="y")
        assert "Start the MCP server demo?" in asked.questions[0]
        whole = asked.questions[0].replace("\n  │ … ", "")  # long lines go on below
        assert "mcp_server.py" in whole
        assert '"demo__act"' in asked.stdout
        assert "mcp:demo (.mcp.json): act, hang" in kernel.run("%kimi tools").stdout
        found = kernel.complete("%%kimi -T mcp:d")["matches"]
        assert found == ["demo"]  # behind what IPython takes for a word of its own
        assert kernel.complete("%%kimi -T mcp:demo[act,h")["matches"] == ["hang"]

        def interrupt() -> None:
            until(lambda: "tools/call" in one.methods())
            kernel.interrupt()

        threading.Thread(target=interrupt).start()
        kernel.run("%kimi tool mcp:demo[hang] {}", allow_stdin=True, answer="y", ok=False)
        until(lambda: "notifications/cancelled" in one.methods())
        done = kernel.run('%kimi tool mcp:demo[act] {"x": 4}', allow_stdin=True, answer="y")
        assert '{"x": 4}' in done.stdout
        (server,) = servers_of(one)
        kernel._manager.shutdown_kernel()
        until(lambda: not is_alive(server))


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal")
def test_a_killed_kernel_leaves_no_server(planned: Plans) -> None:
    """Input: SIGKILL, and a server that stays when its input ends. Holds: it is gone."""
    one = planned(start={"stays": True})
    offer = f"kimi.Toolset(kimi.mcp({one.command!r}, name='demo'))"
    with Kernel() as kernel:
        kernel.run(f"import kimi_magic as kimi\n{offer}")
        (server,) = servers_of(one)
        kernel.die("pass", until=lambda: True)
        until(lambda: not is_alive(server))


@pytest.mark.parametrize("stubborn", [False, True])
def test_a_process_that_ends_leaves_no_server(planned: Plans, *, stubborn: bool) -> None:
    """Input: an ordinary end, with a server that stays; a kill. Holds: the server is gone."""
    import subprocess

    import psutil

    one = planned(start={"stays": stubborn})
    code = (
        f"import kimi_magic as kimi; s = kimi.mcp({one.command!r}, name='demo', trust=True); "
        "print(kimi.Toolset(s).names, flush=True); input()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert b"demo__act" in process.stdout.readline()
    (server,) = psutil.Process(process.pid).children()
    if stubborn:
        process.stdin.write(b"\n")
        process.stdin.close()
    else:
        process.kill()
    process.wait(30)
    until(lambda: not is_alive(server.pid))
    process.stdout.close()
    process.stdin.close()
