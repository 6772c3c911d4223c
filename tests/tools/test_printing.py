"""What a call prints, handed on while it runs."""

from __future__ import annotations

import os
import threading
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import kimi_magic as kimi
from kimi_magic.core.events import Envelope, ToolFinished, ToolPrinted, ToolStarted
from kimi_magic.core.messages import ToolCall
from kimi_magic.secrets.keys import Key
from kimi_magic.session import Session
from kimi_magic.testing import ScriptedServer
from kimi_magic.tools.printing import GAP, MOST_CHARS, Printing, Watch
from kimi_magic.tools.step_calls import run_step_calls
from kimi_magic.tools.toolset import Toolset
from kimi_magic.turn.request import make_request

SECRET = "sk-live-0123456789abcdefghij"
LONG = 10.0  # seconds


class Heard:
    """Hears of prints, and lets a test wait for a text."""

    def __init__(self) -> None:
        self.text = ""
        self.events: list[ToolPrinted] = []
        self.came = threading.Condition()

    def __call__(self, event: ToolPrinted | None) -> None:
        with self.came:
            if event is not None:
                self.events.append(event)
                self.text += event.text
            self.came.notify_all()

    def wait_for(self, text: str) -> bool:
        with self.came:
            return self.came.wait_for(lambda: text in self.text, LONG)


def printing(*keys: Key) -> tuple[Printing, list[float]]:
    now = [0.0]
    return Printing(lambda: keys, clock=lambda: now[0]), now


@pytest.mark.parametrize("options", [{}, {"timeout": 60}], ids=str)
@pytest.mark.parametrize("way", ["print", "thread", "coroutine", "process"])
def test_a_print_is_heard_while_the_call_runs(options: dict[str, Any], way: str) -> None:
    heard, seen = Heard(), []

    def say() -> None:
        print("working", end="")
        seen.append(heard.wait_for("working"))
        print("more")
        seen.append(heard.wait_for("more"))

    def in_thread() -> None:
        thread = threading.Thread(target=say)
        thread.start()
        thread.join()

    async def in_loop() -> None:
        say()

    def forks() -> None:
        say()
        child = os.fork()
        if not child:
            print("of the child")
            os._exit(0)
        os.waitpid(child, 0)

    if way == "process" and not hasattr(os, "fork"):
        pytest.skip("this system does not fork")
    function = {"print": say, "thread": in_thread, "coroutine": in_loop, "process": forks}[way]
    tools = Toolset([kimi.Toolset([kimi.tool(function, name="work", **options)]).tools[0]])
    call = ToolCall("1", "work", "{}")
    before = threading.active_count()
    *_, last = run_step_calls(tools, [call], None, {}, Watch(heard, tuple))
    assert seen == [True, True]
    assert isinstance(last, ToolFinished)
    assert last.result.stdout == "workingmore\n"
    assert heard.text == "workingmore\n"
    assert {event.index for event in heard.events} == {0}
    assert threading.active_count() <= before + 1, "but for the loop of coroutines"


def test_parallel_calls_yield_what_they_print() -> None:
    go = {"a": threading.Event(), "b": threading.Event()}

    @kimi.tool(parallel=True)
    def work(name: str) -> None:
        print(name, "begins")
        assert go[name].wait(LONG)

    heard: dict[int, str] = {0: "", 1: ""}
    calls = [ToolCall(name, "work", f'{{"name": "{name}"}}') for name in go]
    ends = 0
    for event in run_step_calls(Toolset([work]), calls, None, {}, Watch(Heard(), tuple)):
        if isinstance(event, ToolPrinted):
            heard[event.index] += event.text
        if all(heard.values()):
            for each in go.values():
                each.set()
        ends += isinstance(event, ToolFinished)
    assert heard == {0: "a begins\n", 1: "b begins\n"}
    assert ends == 2


def test_the_call_is_counted_among_all_of_its_step(
    server: ScriptedServer, session: Session
) -> None:
    """Those that were cut at the limit of tokens are not made, and move the others."""
    heard = Heard()

    class Listener:
        def handle(self, envelope: Envelope) -> None:
            if isinstance(envelope.event, ToolPrinted):
                heard(envelope.event)
            if isinstance(envelope.event, ToolStarted):
                self.started = envelope.event

        def tick(self) -> None: ...
        def close(self) -> None: ...

    def work() -> None:
        print("here")
        assert heard.wait_for("here")

    calls: list[dict[str, Any]] = [
        {"name": "work", "arguments": '{"x'},
        {"name": "work", "arguments": {}},
    ]
    server.reply(tool_calls=calls, finish_reason="length")
    server.reply("Done.")
    turn = session.prepare(make_request("Go.", tools=[work]))
    list(turn.run([Listener()]))
    assert [event.index for event in heard.events] == [1]


def test_a_flood_is_thinned_out() -> None:
    out, now = printing()
    shown = 0
    for _ in range(100):
        for line in range(1000):
            out.write(f"line {line} of many\n")
        text, _ = out.take()
        assert text.endswith("line 999 of many\n")
        shown += len(text)
        now[0] += 0.1
    assert text.startswith(f"{GAP}line ")
    assert shown < 12 * MOST_CHARS
    assert len(out._pieces) == 0
    for _ in range(100_000):
        out.write("x" * 100)
    assert sum(len(piece or "") for _, piece in out._pieces) <= 100_000


@pytest.mark.parametrize("in_one", [True, False])
def test_a_progress_bar_that_floods_stays_one_line(*, in_one: bool) -> None:
    now = 0.0
    printing = Printing(clock=lambda: now)
    printing.write("Training:\n")
    assert printing.take()[0] == "Training:\n"
    for _ in range(3):
        drawn = [f"\r{n} of 5000" for n in range(1, 5001)]
        for text in ["".join(drawn)] if in_one else drawn:
            printing.write(text)
        now += 0.1
        text, _ = printing.take()
        assert text.startswith("\r")
        assert text.endswith("\r5000 of 5000")
        assert GAP not in text
    printing.write("\nDone.\n" + "".join(drawn))
    assert printing.take()[0].startswith(GAP), "a line is missing"


def test_what_was_cleared_is_not_handed_on() -> None:
    out, _ = printing()
    out.write("old")
    out.clear()
    out.write("new")
    assert out.take() == ("new", True)
    assert out.take() == ("", False)


@given(st.lists(st.integers(0, 200), max_size=6), st.integers(0, 60), st.data())
def test_no_part_of_a_key_is_handed_on(cuts: list[int], filler: int, data: st.DataObject) -> None:
    """Wherever the pieces end, whenever they are taken, whatever of a flood is left out."""
    key = Key(SECRET, "A_KEY")
    out, now = printing(key)
    text = f"{'x' * filler} {SECRET}{'y ' * (filler * 200)} z{SECRET}\n" * 2
    bounds = [0, *sorted(cut * len(text) // 200 for cut in cuts), len(text)]
    told = ""
    for start, end in pairwise(bounds):
        out.write(text[start:end])
        if data.draw(st.booleans()):
            told += out.take()[0]
            now[0] += data.draw(st.sampled_from([0.0, 0.1, 5.0]))
    told += out.take()[0]
    assert SECRET not in told
    assert not any(SECRET[i : i + 8] in told for i in range(len(SECRET) - 8))


def test_a_key_that_is_set_by_the_call() -> None:
    keys: list[Key] = []
    out = Printing(lambda: keys)
    out.write("setting it\n")
    assert out.take()[0] == "setting it\n"
    keys.append(Key(SECRET, "A_KEY"))
    out.write(f"it is {SECRET}\n")
    assert out.take()[0] == "it is [key]\n"


def test_nobody_waits_for_a_thread_that_had_nothing_to_tell() -> None:
    heard = Heard()
    began = time.monotonic()
    call = ToolCall("1", "silent", "{}")
    tools = Toolset([kimi.tool(lambda: None, name="silent")])
    list(run_step_calls(tools, [call], None, {}, Watch(heard, tuple)))
    assert not heard.events
    assert time.monotonic() - began < LONG
