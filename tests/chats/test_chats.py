"""Chats: tied to cells, always valid, nothing lost that was said."""

from __future__ import annotations

import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from kimi_magic.chats.chat import NOWHERE, Chat, Chats, ChatTurn, Place
from kimi_magic.chats.context_window import ContextWindow
from kimi_magic.core.events import ToolFinished
from kimi_magic.core.messages import Completion, Message, ToolCall, ToolResult, Usage, as_reasoning
from kimi_magic.core.reply import Reply
from kimi_magic.core.turn_record import TurnRecord
from kimi_magic.testing import ScriptedServer, check_messages
from kimi_magic.turn.loop import Loop, RunTools, Send, Stopped
from tests.kernels import Kernel


def never(*_: Any, **__: Any) -> Reply:
    raise AssertionError


def turn(prompt: str, place: Place = NOWHERE) -> ChatTurn:
    said = (Message("user", prompt), Message("assistant", f"answer to {prompt}"))
    return ChatTurn(prompt, Reply(TurnRecord(messages=said, sent=1)), place)


def prompts(chat: Chat) -> list[str]:
    return [made.prompt for made in chat.turns]


def test_a_cell_that_is_run_again_takes_the_place_of_its_turn() -> None:
    chat = Chat("main", never)
    for name in "abc":
        chat.append(turn(name, Place(name, f"run-{name}")))
    again = Place("b", "run-4")
    assert [m.text for m in chat.history(again)] == ["a", "answer to a"]
    assert chat.displaced_by(again) == 1, "one other cell's turn goes with it"
    chat.append(turn("b2", again))
    assert prompts(chat) == ["a", "b2"]
    assert [made.prompt for made in chat.set_aside] == ["b", "c"]


def test_a_chat_that_was_rebuilt_is_reset_like_any_other() -> None:
    forgotten: list[str] = []
    chats = Chats(never, forgotten.append)
    rebuilt = Chat("main", never)
    rebuilt.append(turn("a"))
    (chat,) = chats.restore([rebuilt])
    assert prompts(chat) == ["a"]
    chats.get("main").reset()
    assert forgotten == ["main"]


def test_turns_of_one_run_follow_one_another() -> None:
    chat = Chat("main", never)
    for run in ("first", "second"):
        for n in range(3):
            assert chat.displaced_by(Place("loop", run)) == 0
            chat.append(turn(f"{run} {n}", Place("loop", run)))
    assert prompts(chat) == ["second 0", "second 1", "second 2"]


def test_without_a_cell_id_turns_are_appended() -> None:
    chat = Chat("main", never)
    for run in ("1", "2"):
        chat.append(turn("same", Place("", run)))
    assert prompts(chat) == ["same", "same"]


CALL = ToolCall("x", "add", '{"a": 1}')


class Notebook(RuleBasedStateMachine):
    """Any order of running, running again, copying, interrupting and resetting cells."""

    def __init__(self) -> None:
        super().__init__()
        self.chat = Chat("main", never)
        self.expected: list[tuple[str, int]] = []  # cell, number of the turn
        self.everything: set[int] = set()
        self.runs = 0

    @rule(
        cell=st.sampled_from(["a", "b", "c", "d", ""]),
        end=st.sampled_from(["answer", "tools", "cut", "in a tool", "failed in the loop", "none"]),
        turns=st.integers(1, 3),
    )
    def run_cell(self, cell: str, end: str, turns: int) -> None:
        self.runs += 1
        place = Place(cell, f"run-{self.runs}")
        for n in range(turns):
            number = self.runs * 10 + n
            record = self.play(place, number, end).record(model="m", chat="main")
            assert bool(record.exchange) == (end != "none"), "what brought nothing leaves no trace"
            if not record.exchange:
                continue
            if n == 0 and cell and any(c == cell for c, _ in self.expected):
                first = [c for c, _ in self.expected].index(cell)
                self.expected = self.expected[:first]
            self.expected.append((cell, number))
            self.everything.add(number)
            self.chat.append(ChatTurn(str(number), Reply(record), place))

    def play(self, place: Place, number: int, end: str) -> Loop:
        history = [Message("system", "Be brief."), *self.chat.history(place)]
        made = Loop(history, Message("user", str(number)), retries=0, tools=[{"name": "add"}])
        calls = Completion(
            Message("assistant", "", as_reasoning("Hm."), tool_calls=(CALL, CALL)), "tool_calls"
        )
        answer = Completion(Message("assistant", "OK"), "stop")
        script: list[Completion] = [answer] if end == "answer" else [calls, answer]
        running = made.run()
        command: Any = next(running)
        while True:
            match command:
                case Send() if end == "none":
                    return made
                case Send() if end == "cut":
                    with pytest.raises(StopIteration):
                        running.throw(Stopped(calls))
                    return made
                case Send() if end == "failed in the loop" and len(script) == 1:
                    return made
                case Send():
                    value: Completion | None = script.pop(0)
                case RunTools(asked):
                    for n, call in enumerate(asked[:1] if end == "in a tool" else asked):
                        result = ToolResult(call.name, "1", call_id=call.id)
                        finished = ToolFinished(n, result)
                        assert running.send(finished) is finished, "it goes out as it came in"
                    if end == "in a tool":
                        return made
                    value = None
                case _:
                    value = None
            try:
                command = running.send(value)
            except StopIteration:
                return made

    @rule()
    def reset(self) -> None:
        self.chat.reset()
        self.expected.clear()
        self.everything.clear()

    @invariant()
    def the_chat_is_as_a_reader_expects(self) -> None:
        assert [int(made.prompt) for made in self.chat.turns] == [n for _, n in self.expected]
        aside = {int(made.prompt) for made in self.chat.set_aside}
        assert aside | {n for _, n in self.expected} == self.everything, "nothing is lost"

    @invariant()
    def the_next_request_is_valid(self) -> None:
        messages = [m.to_dict() for m in (*self.chat.history(), Message("user", "Next?"))]
        assert check_messages(messages) == []


TestNotebook = Notebook.TestCase


def test_the_window_is_kept_by_leaving_out_first_results_then_turns() -> None:
    long = "x" * 4000
    said = [Message("system", "Be brief.")]
    for n in range(6):
        call = ToolCall(f"functions.add:{n}", "add", "{}")
        said += [
            Message("user", f"q{n}"),
            Message("assistant", None, (), tool_calls=(call,)),
            Message("tool", long, tool_call_id=call.id, name="add"),
            Message("assistant", long),
        ]
    budget = ContextWindow(5000)
    made = Loop(said, Message("user", "Now?"), retries=0, window=budget)
    seen = []
    running = made.run()
    command: Any = next(running)
    while not isinstance(command, Send):
        seen.append(type(command).__name__)
        command = running.send(None)
    assert seen == ["Notice", "Notice", "RequestStarted"]
    sent = [message.to_dict() for message in command.messages]
    assert check_messages(sent) == []
    assert budget.fits(command.messages)
    assert [m["content"] for m in sent if m["role"] == "user"] == ["q3", "q4", "q5", "Now?"]
    assert all("left out" in m["content"] for m in sent if m["role"] == "tool")


def test_the_server_corrects_the_count() -> None:
    budget = ContextWindow(10_000)
    messages = [Message("user", "x" * 20_000)]
    assert budget.estimate(messages) == 5004
    budget.learn(messages, (), Usage(prompt_tokens=10_008))
    assert budget.estimate(messages) == 10_008
    budget.learn([Message("user", "Hi")], (), Usage(prompt_tokens=90))
    assert budget.estimate(messages) == 10_008, "the template of a short chat teaches nothing"


def sent(server: ScriptedServer) -> list[str]:
    return [m["content"] for m in server.requests[-1].body["messages"] if m["role"] == "user"]


def test_a_cell_run_again_in_a_kernel(kernel: Kernel, asked: ScriptedServer) -> None:
    for _ in range(5):
        asked.reply("OK.")
    kernel.run("%%kimi\nFirst", cell="a")
    kernel.run("%%kimi\nSecond", cell="b")
    again = kernel.run("%%kimi\nFirst, edited", cell="a")
    assert sent(asked) == ["First, edited"]
    assert "1 later turn was set aside" in again.record["text/plain"]
    kernel.run("%%kimi\nSecond", cell="b")
    assert sent(asked) == ["First, edited", "Second"]
    again = kernel.run("%%kimi\nSecond, edited", cell="b")
    assert sent(asked) == ["First, edited", "Second, edited"]
    assert "set aside" not in again.record["text/plain"], "it took its own place alone"
    shown = kernel.run("%kimi chat main --all").record["text/plain"]
    assert shown.index("> Second, edited") < shown.index("[Set aside") < shown.index("> First\n")


def test_a_loop_and_two_lines_in_one_cell(kernel: Kernel, asked: ScriptedServer) -> None:
    for _ in range(6):
        asked.reply("OK.")
    cell = "chat = kimi.chat('loop')\nfor n in range(3): chat.ask(f'{n}?', show=False)"
    kernel.run(cell, cell="a")
    kernel.run(cell, cell="a")
    assert sent(asked) == ["0?", "1?", "2?"]


def test_bad_input_leaves_the_chat_as_it_was(kernel: Kernel, asked: ScriptedServer) -> None:
    asked.reply("OK.")
    kernel.run("%%kimi\nFirst", cell="a")
    asked.error(400, "no")
    kernel.run("%%kimi --temprature 1\nFirst", cell="a", ok=False)
    kernel.run("%%kimi\nFirst", cell="a", ok=False)
    assert kernel.run("print(len(kimi.chat().turns))").stdout == "1\n"


def test_chats_by_name(kernel: Kernel, asked: ScriptedServer) -> None:
    for _ in range(6):
        asked.reply("OK.", usage={"prompt_tokens": 1000, "completion_tokens": 234})
    kernel.run("%%kimi\nIn main")
    kernel.run("%%kimi -c review\nIn review")
    kernel.run("%kimi chat review")
    kernel.run("%kimi ask Also in review?")
    assert sent(asked) == ["In review", "Also in review?"]
    listed = kernel.run("%kimi chats").stdout.splitlines()
    assert [line.split() for line in listed[1:]] == [
        ["main", "1", "1,234"],
        ["→", "review", "2", "2,468"],
    ]
    kernel.run("%%kimi --no-history\nAlone")
    assert sent(asked) == ["Alone"]
    anew = kernel.run("%%kimi --fresh\nAnew")
    assert sent(asked) == ["Anew"]
    assert "2 earlier turns were set aside" in anew.record["text/plain"]
    kernel.run("%kimi reset")
    kernel.run("%%kimi\nAfter the reset")
    assert sent(asked) == ["After the reset"]


def test_going_on_asks_whom_and_how_it_was_asked(kernel: Kernel, asked: ScriptedServer) -> None:
    with ScriptedServer() as other:
        other.reply("One,", finish_reason="length")
        other.reply(" two.")
        kernel.run(f"kimi.add_endpoint(name='other', base_url='{other.base_url}')")
        kernel.run("%%kimi -e other -s Brief. --temperature 0.5\nCount.")
        kernel.run("%kimi continue")
        bodies = [request.body for request in other.requests]
    assert asked.requests == []
    assert [body["temperature"] for body in bodies] == [0.5, 0.5]
    assert bodies[1]["messages"][0]["content"] == "Brief."


def test_going_on_after_a_failure_asks_again(kernel: Kernel, asked: ScriptedServer) -> None:
    asked.reply("OK.")
    kernel.run("%%kimi\nFirst")
    assert "came to its end" in kernel.run("%kimi continue", ok=False).error
    asked.error(400, "no")
    kernel.run("%%kimi\nSecond", ok=False)
    for _ in range(2):
        asked.reply("OK.")
        kernel.run("%kimi continue", cell="on")
        assert sent(asked) == ["First", "Second"]
    asked.error(400, "no")
    kernel.run("%%kimi --fresh\nAnew", ok=False)
    asked.reply("OK.")
    kernel.run("%kimi continue")
    assert sent(asked) == ["Anew"]


MOON = "kimi.add_endpoint(name='moon', base_url='{}', partial_mode=True, answers='json_schema')"


def test_going_on_in_partial_mode(kernel: Kernel) -> None:
    with ScriptedServer("moonshot") as server:
        kernel.run(MOON.format(server.base_url))
        server.reply("One, two,", reasoning="Count.", finish_reason="length")
        kernel.run("%%kimi -e moon\nCount to four.")
        server.reply(" three, four.")
        kernel.run("%kimi continue", cell="on")
        begun = server.requests[-1].body["messages"]
        assert [m["role"] for m in begun] == ["system", "user", "assistant"]
        assert begun[-1]["content"] == "One, two,"
        assert begun[-1]["partial"] is True
        server.reply("They are.")
        kernel.run("%%kimi -e moon\nAre these all?")
        after = server.requests[-1].body["messages"]
        assert "partial" not in str(after)
        assert [m["content"] for m in after if m["role"] == "assistant"] == [
            "One, two,",
            " three, four.",
        ]
        server.reply("Yes,", finish_reason="length")
        kernel.run("%%kimi -e moon\nSure?")
        server.error(400, "this model has no partial mode")
        server.reply(" sure.")
        assert " sure." in kernel.run("%kimi continue").record["text/plain"]
        assert "Go on exactly" in sent(server)[-1]
        server.reply("[1, 2,", finish_reason="length")
        kernel.run("%%kimi -e moon --schema list[int]\nAs a list.", ok=False)
        server.reply("[1, 2, 3, 4]")
        kernel.run("%kimi continue")
        assert "partial" not in str(server.requests[-1].body), (
            "with a response_format it is refused"
        )


def test_partial_mode_is_for_a_text_that_was_cut(kernel: Kernel) -> None:
    with ScriptedServer("moonshot") as server:
        kernel.run(MOON.format(server.base_url) + "\ndef f() -> int:\n    'Count.'\n    return 1")
        server.reply(reasoning="Hm.", tool_calls=[{"name": "f", "arguments": {}}])
        server.reply("So far 1.")
        kernel.run("%%kimi -e moon -T f --max-steps 1\nGo")
        server.reply("Now 2.")
        kernel.run("%kimi continue")
        assert "partial" not in str(server.requests[-1].body), "the answer was whole"
        server.reply("So", finish_reason="length")
        kernel.run("%%kimi -e moon\nAnd now?")
        failed = {"error": {"code": 400, "message": "Bad."}}
        said = {"choices": [{"index": 0, "delta": {"content": " it"}, "finish_reason": None}]}
        server.raw([f"data: {json.dumps(part)}\n\n".encode() for part in (said, failed)])
        kernel.run("%kimi continue", ok=False)
        assert server.requests[-1].body["messages"][-1]["partial"] is True
        assert kernel.run("print(kimi.last.text, len(kimi.last.steps))").stdout == " it 1\n"
        server.reply(" is.")
        kernel.run("%kimi continue")
        contents = [m.get("content") for m in server.requests[-1].body["messages"]]
        assert contents[-3:] == ["So", "Go on exactly where you stopped; repeat nothing.", " it"]


def test_what_one_chat_taught_of_its_tokens_is_not_believed_of_another(kernel: Kernel) -> None:
    with ScriptedServer() as server:
        small = f"name='small', base_url='{server.base_url}', context_window=8000, max_tokens=1000"
        kernel.run(f"kimi.add_endpoint({small})")

        def ask(chat: str, chars: int, **usage: int) -> int:
            server.reply("OK.", usage=usage or None)
            kernel.run(f"%%kimi -e small -c {chat}\n{{{{ 'x' * {chars} }}}}")
            return len(sent(server))

        assert ask("dense", 10_000, prompt_tokens=10_000, completion_tokens=1) == 1
        assert ask("dense", 10) == 1, "as the server counts, the first turn does not fit"
        assert ask("plain", 16_000) == 1
        assert ask("plain", 10) == 2
        kernel.run("%kimi reset dense")
        assert ask("dense", 10_000) == 1
        assert ask("dense", 10) == 2


def test_a_turn_that_is_gone_on_with_is_not_left_out_for_room(kernel: Kernel) -> None:
    with ScriptedServer() as server:
        small = f"name='small', base_url='{server.base_url}', context_window=2000, max_tokens=100"
        kernel.run(f"kimi.add_endpoint({small})")
        server.reply("OK.")
        kernel.run("%%kimi -e small\nBefore.")
        server.reply("word " * 2000, finish_reason="length")
        kernel.run("%%kimi -e small\nWrite.")
        server.reply("more.")
        ran = kernel.run("%kimi continue")
        assert "left out" in ran.record["text/plain"]
        assert [text.partition(" on ")[0] for text in sent(server)] == ["Write.", "Go"]


def test_a_cell_that_went_on_is_run_again(kernel: Kernel, asked: ScriptedServer) -> None:
    asked.reply("One,", finish_reason="length")
    kernel.run("%%kimi\nCount.", cell="count")
    for said in (" two.", " two, three."):
        asked.reply(said)
        kernel.run("%kimi continue", cell="on")
        assert sent(asked)[0] == "Count."
        assert len(sent(asked)) == 2
    assert len(asked.requests) == 3
    told = kernel.run("%kimi continue", cell="count", ok=False).error
    assert "in a cell of its own" in told
    asked.error(400, "no")
    kernel.run("%kimi continue", cell="on", ok=False)
    told = kernel.run("%kimi continue", cell="later", ok=False).error
    assert "came to its end" in told, "what failed was no question"
    assert len(asked.requests) == 4


def test_a_name_that_no_chat_has(kernel: Kernel) -> None:
    kernel.run("kimi.chat('review')")
    assert "Did you mean review?" in kernel.run("%kimi reset reveiw", ok=False).error
    assert "reveiw" not in kernel.run("%kimi chats").stdout


def test_going_on_after_a_turn_that_was_cut(kernel: Kernel, asked: ScriptedServer) -> None:
    assert "no turn to go on with" in kernel.run("%kimi continue", ok=False).error
    asked.reply("One, two, three,", reasoning="Count.", finish_reason="length")
    kernel.run("%%kimi\nCount to five.")
    asked.reply(" four, five.")
    kernel.run("%kimi continue")
    roles = [m["role"] for m in asked.requests[-1].body["messages"]]
    assert roles == ["system", "user", "assistant", "user"]
    assert "Go on exactly" in sent(asked)[-1]


def test_what_is_left_of_the_window_errs_on_the_safe_side() -> None:
    window = ContextWindow(4096, 999)
    assert 4096 - 1500 < window.left([Message("user", "x" * 4000)]) < 4096 - 1000
    assert window.left([Message("user", "x" * 40_000)]) == 0
