"""The tool loop in a real kernel: what runs, what the server receives, what stays on the page."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest

from kimi_magic.testing import DIALECTS, ScriptedServer
from tests.kernels import Kernel
from tests.wire.test_dialects import RECORDED, SAID, wire_of


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


def value(kernel: Kernel, expression: str) -> Any:
    """The value of an expression in the kernel, through JSON."""
    return json.loads(kernel.run(f"import json; print(json.dumps({expression}))").stdout)


def sent(server: ScriptedServer, number: int = -1) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = server.requests[number].body["messages"]
    return messages


DEFINITIONS = """
import time, json
log = []
def add(a: int, b: int) -> int:
    "Add two numbers."
    log.append((a, b))
    return a + b
def fails(x: int):
    "Always fails."
    raise ValueError(f"no {x}")
"""


@pytest.fixture
def tools(kernel: Kernel, asked: ScriptedServer) -> ScriptedServer:
    kernel.run(DEFINITIONS)
    return asked


def test_the_model_calls_looks_and_answers(kernel: Kernel, tools: ScriptedServer) -> None:
    tools.reply(reasoning="I must add.", tool_calls=[call("add", a=2, b=3)])
    tools.reply(reasoning="Now once more.", tool_calls=[call("add", a=5, b=1)])
    tools.reply("It is **6**.", reasoning="I have it.")
    ran = kernel.run("%%kimi -T add -o answer\nAdd 2, 3 and 1.", allow_stdin=True)
    assert value(kernel, "log") == [[2, 3], [5, 1]]
    names = [tool["function"]["name"] for tool in tools.requests[0].body["tools"]]
    assert names == ["add"]
    asked, told = sent(tools, 1)[-2:]
    assert asked["reasoning_content"] == "I must add."
    assert "content" not in asked
    assert [c["id"] for c in asked["tool_calls"]] == ["functions.add:0"]
    assert told == {
        "role": "tool",
        "tool_call_id": "functions.add:0",
        "name": "add",
        "content": "5",
    }
    assert sent(tools, 2)[-2]["tool_calls"][0]["id"] == "functions.add:1"
    assert value(kernel, "[r.value for r in answer.tool_results]") == [5, 6]
    assert value(kernel, "[s.reasoning for s in answer.steps]") == [
        "I must add.",
        "Now once more.",
        "I have it.",
    ]
    assert value(kernel, "answer.messages[:-1]") == sent(tools), "what a next request would send"
    text = ran.record["text/plain"]
    places = [text.index(part) for part in ("I must add.", "add(a=", "Now once", "I have", "It is")]
    assert places == sorted(places), "the record follows the time line"
    assert ran.record["text/html"].count("<details") == 5


def test_ids_count_over_the_whole_chat(kernel: Kernel, tools: ScriptedServer) -> None:
    for _ in range(2):
        tools.reply(tool_calls=[call("add", a=1, b=1), call("add", a=1, b=2)], reasoning="Hm.")
        tools.reply("2 and 3.")
        kernel.run("%%kimi -T add\nAdd.")
    ids = [c["id"] for m in sent(tools) for c in m.get("tool_calls", ())]
    assert ids == [f"functions.add:{n}" for n in range(4)]


@pytest.mark.parametrize("dialect", ["moonshot", "vllm", "sglang", "openrouter", "nvidia"])
def test_each_server_gets_valid_requests(kernel: Kernel, dialect: str) -> None:
    with ScriptedServer(dialect=dialect) as server:
        kernel.run(f"%env KIMI_BASE_URL={server.base_url}")
        kernel.run(DEFINITIONS)
        server.reply("Let me see.", reasoning="Two.", tool_calls=[call("add", a=2, b=3)] * 2)
        server.reply(tool_calls=[call("fails", x=1)])
        server.reply("5", reasoning="So.")
        kernel.run("%%kimi -T add,fails\nGo")
        server.reply("Nothing.")
        kernel.run("%%kimi\nAnd now?")
    assert value(kernel, "log") == [[2, 3], [2, 3]]


def test_a_call_that_does_not_fit_runs_nothing_and_is_explained(
    kernel: Kernel, tools: ScriptedServer
) -> None:
    tools.reply(
        reasoning="Hm.",
        tool_calls=[
            call("add", a="two", b=3),
            {"name": "add", "arguments": '{"a": 1, "b"'},
            call("ad", a=1, b=1),
        ],
    )
    tools.reply("Sorry.")
    kernel.run("%%kimi -T add\nGo")
    assert value(kernel, "log") == []
    asked, *told = sent(tools)[-4:]
    assert "'two'" in told[0]["content"] or '"two"' in told[0]["content"]
    assert "a" in told[0]["content"]
    assert "JSON" in told[1]["content"]
    assert "known: add" in told[2]["content"]
    for made in asked["tool_calls"]:
        json.loads(made["function"]["arguments"])


def test_a_tool_that_fails_prints_and_draws(kernel: Kernel, tools: ScriptedServer) -> None:
    kernel.run(
        "%matplotlib inline\nimport matplotlib.pyplot as plt\n"
        "def plot():\n    'Draw.'\n    print('drawing <b>now</b>')\n    plt.plot([1, 2])\n"
    )
    tools.reply(reasoning="Hm.", tool_calls=[call("fails", x=7), call("plot")])
    tools.reply("Done.")
    ran = kernel.run("%%kimi -T fails,plot\nGo", allow_stdin=True)
    failed, drawn = sent(tools)[-2:]
    assert "ValueError: no 7" in failed["content"]
    assert "line" in failed["content"]
    assert "drawing" in drawn["content"]
    html = ran.record["text/html"]
    assert "ValueError: no 7" in html
    assert "data:image/png;base64," in html
    assert "drawing &lt;b&gt;now" in html
    assert "kimi_magic/" not in html, "no frames of ours"
    assert len(ran.of("display_data")) == 1, "the figure is in the card alone"


def test_three_hundred_steps(kernel: Kernel, tools: ScriptedServer) -> None:
    for n in range(300):
        tools.reply(reasoning=f"Step {n}.", tool_calls=[call("add", a=n, b=1)])
    tools.reply("300.", reasoning="Enough.")
    kernel.run("%%kimi -T add --max-steps 400 -o answer\nCount.", timeout=300)
    assert value(kernel, "len(log)") == 300
    assert value(kernel, "answer.text") == "300."
    assert value(kernel, "len(answer.steps)") == 301
    assert value(kernel, "answer.tool_calls[-1].id") == "functions.add:299"


def test_parallel_tools_run_side_by_side_and_in_order(
    kernel: Kernel, tools: ScriptedServer
) -> None:
    kernel.run(
        "import threading\n"
        "together = threading.Barrier(8, timeout=30)\n"
        "@kimi.tool(parallel=True)\n"
        "def meet(n: int) -> int:\n"
        "    'Wait until all eight are there.'\n"
        "    together.wait()\n"
        "    return n\n"
    )
    tools.reply(reasoning="All.", tool_calls=[call("meet", n=n) for n in range(8)])
    tools.reply("Met.")
    kernel.run("%%kimi\nMeet.")
    told = sent(tools)[-8:]
    assert [m["content"] for m in told] == [str(n) for n in range(8)]


def test_at_the_limit_the_model_concludes_without_tools(
    kernel: Kernel, tools: ScriptedServer
) -> None:
    for n in range(2):
        tools.reply(reasoning="More.", tool_calls=[call("add", a=n, b=1)])
    tools.reply("As far as I know.", reasoning="Well.")
    ran = kernel.run("%%kimi -T add --max-steps 2 -o answer\nCount.", allow_stdin=True)
    assert "tools" not in tools.requests[2].body
    assert value(kernel, "[answer.text, answer.finish_reason]") == [
        "As far as I know.",
        "max_steps",
    ]
    assert "limit of 2 steps" in ran.record["text/plain"]


def test_the_same_call_again_and_again(kernel: Kernel, tools: ScriptedServer) -> None:
    for _ in range(10):
        tools.reply(reasoning="Again.", tool_calls=[call("add", a=1, b=1)])
    tools.reply("I give up.")
    ran = kernel.run("%%kimi -T add -o answer\nCount.", allow_stdin=True)
    assert "in a row" not in sent(tools, 2)[-1]["content"]
    assert "3 times in a row" in sent(tools, 3)[-1]["content"]
    assert ran.record["text/plain"].count("3 times in a row") == 1
    assert "tools" not in tools.requests[10].body
    assert value(kernel, "answer.finish_reason") == "repetition"


def test_an_interrupt_in_a_tool_keeps_what_it_printed_and_the_chat_valid(
    kernel: Kernel, tools: ScriptedServer
) -> None:
    kernel.run("def slow():\n    'Take long.'\n    print('half way')\n    time.sleep(600)\n")
    tools.reply(reasoning="Hm.", tool_calls=[call("slow"), call("add", a=1, b=1)])
    stopper = threading.Timer(0.5, kernel.interrupt)

    def stop_when_it_runs(message: dict[str, Any]) -> None:
        if '"op": "run"' in json.dumps(message["content"], default=str) and not stopper.is_alive():
            stopper.start()

    ran = kernel.run("%%kimi -T slow,add\nGo", allow_stdin=True, ok=False, watch=stop_when_it_runs)
    assert ran.reply["ename"] == "TurnInterrupted"
    assert "half way" in ran.record["text/plain"]
    assert value(kernel, "log") == []
    results = value(kernel, "[[r.stdout, r.error] for r in kimi.last.tool_results]")
    assert results == [["half way\n", "interrupted"], ["", "cancelled"]]
    tools.reply("All right.")
    kernel.run("%%kimi\nNever mind.")
    told = [m["content"] for m in sent(tools) if m["role"] == "tool"]
    assert "half way" in told[0]
    assert told[1].startswith("Cancelled")


def test_a_failed_request_in_the_loop_is_sent_again_and_no_tool_runs_twice(
    kernel: Kernel, tools: ScriptedServer
) -> None:
    tools.reply(reasoning="Hm.", tool_calls=[call("add", a=1, b=1)])
    tools.error(502, "busy")
    tools.reply("2.")
    ran = kernel.run("%%kimi -T add -o answer\nGo")
    assert value(kernel, "[len(log), answer.text]") == [1, "2."]
    assert "busy" not in str(ran.record), "it ended well: no note of the retry stays"
    (retry,) = value(kernel, "[[r.step, r.reason] for r in answer.retries]")
    assert retry[0] == 2
    assert "busy" in retry[1]


def test_announced_calls_that_never_came_are_asked_for_in_one_piece(
    kernel: Kernel, tools: ScriptedServer
) -> None:
    tools.reply(reasoning="I call.", finish_reason="tool_calls")
    tools.reply(reasoning="I call.", tool_calls=[call("add", a=1, b=1)])
    tools.reply("2.")
    kernel.run("%%kimi -T add -o answer\nGo")
    assert [r.body["stream"] for r in tools.requests] == [True, False, True]
    assert value(kernel, "[len(log), len(answer.steps)]") == [1, 2]


def test_a_tool_that_asks_the_model_itself_stays_silent(
    kernel: Kernel, tools: ScriptedServer
) -> None:
    kernel.run("def think(q: str) -> str:\n    'Think.'\n    return kimi.ask(q).text\n")
    tools.reply(reasoning="Hm.", tool_calls=[call("think", q="1 + 1?")])
    tools.reply("two", reasoning="Inner.")
    tools.reply("It is two.")
    ran = kernel.run("%%kimi -T think\nGo", allow_stdin=True)
    assert sent(tools, 1)[-1]["content"] == "1 + 1?"
    assert "tools" not in tools.requests[1].body
    assert sent(tools, 2)[-1]["content"] == "two"
    assert "Inner." not in ran.record["text/plain"]
    assert value(kernel, "kimi.last.text") == "It is two."


def test_a_tool_that_runs_out_of_time(kernel: Kernel, tools: ScriptedServer) -> None:
    kernel.run("@kimi.tool(timeout=0.3)\ndef slow():\n    'Take long.'\n    time.sleep(600)\n")
    tools.reply(reasoning="Hm.", tool_calls=[call("slow")])
    tools.reply("Too slow.")
    began = time.monotonic()
    kernel.run("%%kimi\nGo")
    assert time.monotonic() - began < 60
    assert "timed out after 0.3 s" in sent(tools)[-1]["content"]


ASKING = (
    "@kimi.tool(confirm=True)\ndef pay(amount: int) -> str:\n    'Pay.'\n    return str(amount)\n"
)


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        (["y"], "5"),
        ([""], "The user declined this call"),
        (["n"], "The user declined this call"),
        (["e", '{"amount": 1}'], 'The user changed the arguments to {"amount": 1}.\n1'),
        (["e", '{"amount": "much"}', "e", "broken", "n"], "The user declined this call"),
    ],
)
def test_a_person_is_asked(
    kernel: Kernel, tools: ScriptedServer, answers: list[str], told: str
) -> None:
    kernel.run(ASKING)
    tools.reply(reasoning="Hm.", tool_calls=[call("pay", amount=5)])
    tools.reply("Done.")
    ran = kernel.run("%%kimi\nGo", allow_stdin=True, answer=answers)
    assert sent(tools)[-1]["content"].startswith(told)
    assert len(ran.questions) == len(answers)
    assert "pay" in ran.questions[0]
    assert "amount = 5" in ran.questions[0]


def test_yes_for_the_chat_lasts_until_the_function_is_another(
    kernel: Kernel, tools: ScriptedServer
) -> None:
    kernel.run(ASKING)
    for _ in range(3):
        tools.reply(reasoning="Hm.", tool_calls=[call("pay", amount=5)])
        tools.reply("Done.")
    assert len(kernel.run("%%kimi\nGo", allow_stdin=True, answer="c").questions) == 1
    assert kernel.run("%%kimi\nGo", allow_stdin=True, answer="n").questions == []
    kernel.run(ASKING.replace("str(amount)", "str(-amount)"))
    assert len(kernel.run("%%kimi\nGo", allow_stdin=True, answer="n").questions) == 1


@pytest.mark.parametrize(
    ("approve", "confirm", "told"),
    [
        ("auto", False, "5"),
        ("auto", True, "there was nobody to ask"),
        ("ask", False, "there was nobody to ask"),
        ("yes", True, "5"),
        ("no", False, "The user declined this call"),
    ],
)
def test_where_nobody_can_answer(
    kernel: Kernel, tools: ScriptedServer, approve: str, confirm: bool, told: str
) -> None:
    kernel.run(ASKING.replace("confirm=True", f"confirm={confirm}"))
    tools.reply(reasoning="Hm.", tool_calls=[call("pay", amount=5)])
    tools.reply("Done.")
    kernel.run(f"%%kimi --approve {approve}\nGo")
    assert told in sent(tools)[-1]["content"]


def test_run_python_works_in_the_notebook(kernel: Kernel, tools: ScriptedServer) -> None:
    code = "total = sum(numbers)\nprint('summing')\ntotal * 2"
    tools.reply(reasoning="Hm.", tool_calls=[call("run_python", code=code)])
    tools.reply(reasoning="Oh.", tool_calls=[call("run_python", code="1 / 0")])
    tools.reply("Twelve.")
    kernel.run("numbers = [1, 2, 3]")
    ran = kernel.run("%%kimi -T run_python -o answer\nGo", allow_stdin=True, answer="y")
    assert "total = sum(numbers)" in ran.questions[0], "the code that is approved is shown"
    assert value(kernel, "[total, answer.tool_results[0].value]") == [6, 12]
    assert sent(tools, 1)[-1]["content"] == "12\n\nPrinted:\nsumming"
    assert "ZeroDivisionError" in sent(tools, 2)[-1]["content"]
    html = ran.record["text/html"]
    assert "ZeroDivisionError" in html
    assert "total" in html
    assert "&quot;code&quot;" not in html, "the code stands there as code"


def test_run_python_asks_first(kernel: Kernel, tools: ScriptedServer) -> None:
    tools.reply(reasoning="Hm.", tool_calls=[call("run_python", code="x = 1")])
    tools.reply("No.")
    kernel.run("%%kimi -T run_python\nGo")
    assert value(kernel, "'x' in globals()") is False


def test_what_every_cell_is_offered(kernel: Kernel, tools: ScriptedServer) -> None:
    kernel.run("%kimi tools add add\n@kimi.tool\ndef other(): 'Do.'\n")
    for _ in range(4):
        tools.reply("OK.")
    kernel.run("%%kimi\nGo")
    kernel.run("%kimi ask Go")
    kernel.run("%%kimi -T fails\nGo")
    kernel.run("%%kimi --no-tools\nGo")
    offered = [[t["function"]["name"] for t in r.body.get("tools", ())] for r in tools.requests]
    assert offered == [["add", "other"], ["add", "other"], ["fails"], []]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("-T ad", "no ad"),
        ("-T log", "must be callable"),
        ("-T add --no-tools", "leave one of them out"),
        ("-T add --approve maybe", "auto"),
        ("-T add --max-steps 0", "at least 1"),
    ],
)
def test_what_cannot_be_offered_sends_nothing(
    kernel: Kernel, tools: ScriptedServer, line: str, words: str
) -> None:
    ran = kernel.run(f"%%kimi {line}\nGo", ok=False)
    assert words in ran.told
    assert len(ran.error.splitlines()) <= 4
    assert tools.requests == []


def test_methods_and_partials_and_hand_written_schemas(
    kernel: Kernel, tools: ScriptedServer
) -> None:
    kernel.run(
        "import functools\n"
        "class Model:\n    def predict(self, x: int) -> int:\n        'Predict.'\n"
        "        return 2 * x\n"
        "model = Model()\n"
        "schema = {'type': 'object', 'properties': {'city': {'type': 'string'}}}\n"
        "weather = [{'type': 'function', 'function': {'name': 'get_weather', "
        "'description': 'Weather.', 'parameters': schema}}]\n"
        "def get_weather(city): return {'weather': 'Sunny'}\n"
    )
    tools.reply(reasoning="Hm.", tool_calls=[call("predict", x=4)])
    tools.reply("8")
    kernel.run("%%kimi -T model.predict\nGo")
    assert sent(tools)[-1]["content"] == "8"
    tools.reply(reasoning="Hm.", tool_calls=[call("get_weather", city="Beijing"), call("add", b=1)])
    tools.reply("Sunny.")
    kernel.run(
        "kimi.ask('Go', tools=[*weather, {'get_weather': get_weather}, "
        "functools.partial(add, a=2)], show=False)"
    )
    assert [m["content"] for m in sent(tools)[-2:]] == ['{"weather":"Sunny"}', "3"]


OF_CHAT = [name for name, said in SAID.items() if said.calls and wire_of(name) == "chat"]


@pytest.mark.parametrize("name", OF_CHAT)
def test_calls_in_every_dialect(kernel: Kernel, name: str) -> None:
    """Recorded bytes ask for the tools; the next request is what that server takes back."""
    said, server = SAID[name], name.partition("-")[0]
    dialect = server if server in DIALECTS else "moonshot"
    with ScriptedServer(dialect=dialect, strict=said.key != "content") as peer:
        kernel.run(f"%env KIMI_BASE_URL={peer.base_url}")
        kernel.run(
            "def get_weather(city: str):\n    'Weather.'\n    return 'sunny in ' + city\n"
            "def get_time():\n    'Time.'\n    return 'noon'\n"
        )
        peer.raw([RECORDED[name]])
        peer.reply("OK.")
        kernel.run("%%kimi -T get_weather,get_time -o answer\nGo")
    assert value(kernel, "answer.text") == "OK."
    asked = next(m for m in sent(peer) if m["role"] == "assistant")
    told = [m["content"] for m in sent(peer) if m["role"] == "tool"]
    assert [c["function"]["name"] for c in asked["tool_calls"]] == [n for n, _ in said.calls]
    for (_, arguments), result in zip(said.calls, told, strict=True):
        if isinstance(arguments, str):
            assert "JSON" in result, "a call that was cut runs nothing"
        else:
            assert result in (f"sunny in {arguments.get('city')}", "noon")
    if said.key == "content":
        assert asked["content"].startswith(f"<think>{said.reasoning}")
    else:
        assert asked[said.key] == (said.reasoning or "")


def test_the_environment_says_who_approves_from_the_next_turn_on(
    kernel: Kernel, tools: ScriptedServer
) -> None:
    kernel.run("%env KIMI_APPROVE=no")
    tools.reply(reasoning="Hm.", tool_calls=[call("add", a=1, b=1)])
    tools.reply("Done.")
    kernel.run("%%kimi -T add\nGo")
    assert value(kernel, "log") == []


def test_a_key_that_an_interrupted_tool_printed_stays_here(
    kernel: Kernel, tools: ScriptedServer
) -> None:
    secret = "fake-key-0123456789abcdef"
    kernel.run(f"%env MOONSHOT_API_KEY={secret}")
    kernel.run(
        "import os, signal\ndef slow():\n    'Slow.'\n"
        "    print(os.environ['MOONSHOT_API_KEY'])\n"
        "    os.kill(os.getpid(), signal.SIGINT); time.sleep(600)\n"
    )
    tools.reply(reasoning="Hm.", tool_calls=[call("slow")])
    ran = kernel.run("%%kimi -T slow\nGo", allow_stdin=True, ok=False)
    assert ran.reply["ename"] == "TurnInterrupted"
    tools.reply("OK.")
    kernel.run("%%kimi\nNext")
    assert secret[:12] not in str(ran.messages) + str(tools.requests[-1].body)


def test_yes_to_one_object_is_not_yes_to_another(kernel: Kernel, tools: ScriptedServer) -> None:
    kernel.run(
        "class Store:\n    def __init__(self): self.dropped = 0\n"
        "    @kimi.tool(confirm=True)\n    def drop(self):\n        'Drop.'\n"
        "        self.dropped += 1\ntest, prod = Store(), Store()\n"
    )
    for name in ("test", "prod"):
        tools.reply(reasoning="Hm.", tool_calls=[call("drop")])
        tools.reply("Done.")
        answer = "c" if name == "test" else "n"
        ran = kernel.run(f"%%kimi -T {name}.drop\nGo", allow_stdin=True, answer=answer)
        assert len(ran.questions) == 1
    assert value(kernel, "[test.dropped, prod.dropped]") == [1, 0]


@pytest.mark.parametrize(
    "code",
    [
        "def run_python(code): exec(code, globals())",
        "kimi.tool(lambda code: exec(code, globals()), name='run_python')",
    ],
)
def test_code_cannot_take_the_question_off_run_python(
    code: str, kernel: Kernel, tools: ScriptedServer
) -> None:
    kernel.run(code)
    tools.reply(reasoning="Hm.", tool_calls=[call("run_python", code="x = 1")])
    tools.reply("Done.")
    kernel.run("%%kimi -T run_python\nGo")
    assert value(kernel, "'x' in globals()") is False


def test_turns_of_one_chat_that_overlap_leave_it_valid(
    kernel: Kernel, tools: ScriptedServer
) -> None:
    kernel.run(
        "def outer():\n    'Ask inside.'\n    return kimi.chat().ask('Inner?', tools=[add]).text\n"
    )
    tools.reply(reasoning="Hm.", tool_calls=[call("outer")])
    tools.reply(reasoning="Hm.", tool_calls=[call("add", a=1, b=1)])
    tools.reply("two")
    tools.reply("Done.")
    kernel.run("%%kimi -T outer\nGo")
    tools.reply("Fine.")
    kernel.run("%%kimi\nNext")
    ids = [c["id"] for m in sent(tools) for c in m.get("tool_calls", ())]
    assert ids == ["functions.add:0", "functions.outer:1"]


def test_a_name_means_what_it_is_now(kernel: Kernel, tools: ScriptedServer) -> None:
    kernel.run("@kimi.tool\ndef f() -> str:\n    'Old.'\n    return 'old'\n")
    kernel.run("def f() -> str:\n    'New.'\n    return 'new'\n")
    tools.reply(reasoning="Hm.", tool_calls=[call("f")])
    tools.reply("Done.")
    kernel.run("%%kimi -T f\nGo")
    assert sent(tools)[-1]["content"] == "new"


def test_what_a_tool_asks_under_stream_stays_silent(kernel: Kernel, tools: ScriptedServer) -> None:
    kernel.run("def think():\n    'Think.'\n    return kimi.ask('Inner?').text\n")
    tools.reply(reasoning="Hm.", tool_calls=[call("think")])
    tools.reply("two")
    tools.reply("Done.")
    kernel.run("reply = list(kimi.stream('Go', tools=[think]))[-1].reply")
    assert value(kernel, "reply.tool_results[0].stdout") == ""


AT_ONCE = """
import threading
from concurrent.futures import ThreadPoolExecutor
both = threading.Barrier(2, timeout=30)
def look(thing: str) -> str:
    "Look at a thing."
    both.wait()
    print("saw", thing)
    both.wait()
    return thing.upper()
def send(text: str) -> str:
    "Send a text."
    log.append(text)
    return "sent"
def at_once(**how):
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda prompt: kimi.ask(prompt, **how), ["First", "Second"]))
"""


def test_turns_at_the_same_time_keep_their_calls_apart(
    kernel: Kernel, tools: ScriptedServer
) -> None:
    kernel.run(AT_ONCE)
    for name in "ab":
        tools.reply(reasoning=f"I want {name}.", tool_calls=[call("look", thing=name)])
    for _ in range(2):
        tools.reply("Seen.")
    ran = kernel.run("replies = at_once(tools=[look])")
    assert (ran.stdout, ran.displays) == ("", [])
    seen = value(
        kernel,
        "[(r.reasoning[7], r.tool_results[0].value, r.tool_results[0].stdout) for r in replies]",
    )
    assert sorted(seen) == [["a", "A", "saw a\n"], ["b", "B", "saw b\n"]]
    for request in tools.requests[2:]:
        _, _, asked, result = request.body["messages"]
        wanted = asked["reasoning_content"][7]
        assert result["content"].startswith(wanted.upper()), "each got what it had asked for"


def test_in_threads_nobody_is_asked_and_nothing_runs_unasked(
    kernel: Kernel, tools: ScriptedServer
) -> None:
    kernel.run(AT_ONCE)
    for name in "ab":
        tools.reply(reasoning="Hm.", tool_calls=[call("send", text=name)])
    for _ in range(2):
        tools.reply("Done.")
    kernel.run("replies = at_once(tools=[send], approve='ask')", allow_stdin=True, answer="y")
    assert value(kernel, "log") == []
    errors = value(kernel, "[result.error for r in replies for result in r.tool_results]")
    assert len(errors) == 2
    assert all("nobody to ask" in error for error in errors)
