"""What a person at a front end sees, message by message, from a real kernel."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest

from kimi_magic.testing import ScriptedServer
from tests.kernels import Kernel, Ran

SECRET = "fake-key-0123456789abcdef"


def streamed(ran: Ran, kind: str) -> str:
    """The text that the live view was given for the segments of a kind."""
    found = {op["segment"] for op in ran.ops if op["op"] == "segment" and op["kind"] == kind}
    return "".join(op["text"] for op in ran.ops if op["op"] == "append" and op["segment"] in found)


def test_reasoning_then_answer_stream_and_are_replaced_by_the_record(
    kernel: Kernel, asked: ScriptedServer
) -> None:
    asked.reply("9.9 is **bigger**.", reasoning="Compare the tenths.", rate=30)
    ran = kernel.run("%%kimi\n9.11 or 9.9?", allow_stdin=True)
    assert streamed(ran, "reasoning") == "Compare the tenths."
    assert streamed(ran, "answer") == "9.9 is **bigger**."
    appended = [op for op in ran.ops if op["op"] == "append"]
    assert len(appended) > 3, "it arrives as it grows"
    kinds = [message["msg_type"] for message in ran.messages]
    assert (
        kinds.index("display_data") < kinds.index("comm_msg") < kinds.index("update_display_data")
    )
    assert kinds.count("comm_open") == kinds.count("comm_close"), "nothing live is left"
    assert "<strong>bigger</strong>" in ran.record["text/html"]
    assert "application/vnd.jupyter.widget-view+json" not in ran.record
    assert "Compare the tenths." in ran.record["text/plain"]


def test_live_and_direct_records_are_the_same(kernel: Kernel, asked: ScriptedServer) -> None:
    records = []
    for allow_stdin in (True, False):
        asked.reply("9.9", reasoning="So.")
        kernel.run("%kimi reset")
        records.append(kernel.run("%%kimi\n9.11 or 9.9?", allow_stdin=allow_stdin).record)
    assert records[0] == records[1]


def test_the_chat_goes_on_from_cell_to_cell(kernel: Kernel, asked: ScriptedServer) -> None:
    for answer in ("Paris.", "Rome.", "Bern.", "Oslo."):
        asked.reply(answer, reasoning="I know it.")
    kernel.run("%%kimi\nFrance?")
    kernel.run("%kimi ask Italy?")
    kernel.run("%%kimi -c other\nSwitzerland?")
    kernel.run("%kimi reset")
    kernel.run("%%kimi\nNorway?")
    conversations = [[m["content"] for m in r.body["messages"]] for r in asked.requests]
    system = "You are Kimi, an AI assistant created by Moonshot AI."
    assert conversations == [
        [system, "France?"],
        [system, "France?", "Paris.", "Italy?"],
        [system, "Switzerland?"],
        [system, "Norway?"],
    ]
    assert asked.requests[1].body["messages"][2]["reasoning_content"] == "I know it."


def test_the_defaults_of_a_kimi_model(kernel: Kernel, asked: ScriptedServer) -> None:
    asked.reply("OK")
    kernel.run("%%kimi\nHi")
    sent = {k: v for k, v in asked.requests[0].body.items() if k != "messages"}
    assert sent == {
        "model": "kimi-k2-thinking",
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 1.0,
        "max_tokens": 16384,
    }


def test_options_reach_the_server(kernel: Kernel, asked: ScriptedServer) -> None:
    asked.reply("Oui.")
    kernel.run(
        "%%kimi -m other-model --temperature 0.3 --top-p 0.8 --max-tokens 99 --seed 7 "
        "--stop END --stop FIN -s 'Speak French.' --no-stream  # it's a comment\nYes?"
    )
    assert asked.requests[0].body == {
        "model": "other-model",
        "messages": [
            {"role": "system", "content": "Speak French."},
            {"role": "user", "content": "Yes?"},
        ],
        "stream": False,
        "temperature": 0.3,
        "top_p": 0.8,
        "max_tokens": 99,
        "seed": 7,
        "stop": ["END", "FIN"],
    }


def test_only_kimi_is_told_that_it_is_kimi(kernel: Kernel, asked: ScriptedServer) -> None:
    asked.reply("OK")
    kernel.run("%%kimi -m deepseek-r1\nHi")
    assert [m["role"] for m in asked.requests[0].body["messages"]] == ["user"]


def test_settings_hold_until_they_change(kernel: Kernel, asked: ScriptedServer) -> None:
    for _ in range(3):
        asked.reply("OK")
    kernel.run("%config KimiMagics.temperature = 0.25\nkimi.settings.system = 'Be brief.'")
    kernel.run("%%kimi\nHi")
    kernel.run("%env KIMI_MODEL=kimi-k3")
    kernel.run("kimi.ask('Hi')")
    kernel.run("kimi.settings.temperature = None; kimi.ask('Hi', system='', model='m')")
    bodies = [r.body for r in asked.requests]
    # K3 fixes its sampling; of m nothing is known, and its server decides.
    assert [b.get("temperature") for b in bodies] == [0.25, None, None]
    assert [b["model"] for b in bodies] == ["kimi-k2-thinking", "kimi-k3", "m"]
    assert [b["messages"][0]["role"] for b in bodies] == ["system", "system", "user"]


def test_no_stream_shows_reasoning_and_answer(kernel: Kernel, asked: ScriptedServer) -> None:
    asked.reply("9.9", reasoning="Compare.")
    record = kernel.run("%%kimi --no-stream\n9.11 or 9.9?", allow_stdin=True).record
    assert "Compare." in record["text/html"]
    assert "9.9" in record["text/html"]


def test_formats(kernel: Kernel, asked: ScriptedServer) -> None:
    for _ in range(3):
        asked.reply("It is *so*.", reasoning="Hidden thought.")
    plain = kernel.run("%%kimi -f text\nHi").record
    assert "It is *so*." in plain["text/html"]
    hidden = kernel.run("%%kimi -R\nHi").record
    assert "Hidden thought." not in hidden["text/html"] + hidden["text/plain"]
    usage = kernel.run("%%kimi -u\nHi").record
    assert "tokens in" in usage["text/plain"]


@pytest.mark.parametrize("line", ["%%kimi -o answer", "%%kimi answer <<"])
def test_the_reply_in_a_variable(kernel: Kernel, asked: ScriptedServer, line: str) -> None:
    asked.reply("```python\nx = 1\n```\nDone.", reasoning="So.")
    kernel.run(f"{line}\nGo")
    ran = kernel.run(
        "print(answer.reasoning, answer.finish_reason, answer.model, answer.chat)\n"
        "print(answer.code_blocks, len(answer.steps), answer.usage.requests, answer.error)\n"
        "print(kimi.last is answer, str(answer) == answer.text)"
    )
    assert ran.stdout.splitlines() == [
        "So. stop kimi-k2-thinking main",
        "(CodeBlock(language='python', text='x = 1\\n'),) 1 1 None",
        "True True",
    ]


def test_a_reply_as_the_last_expression_is_shown_once(
    kernel: Kernel, asked: ScriptedServer
) -> None:
    asked.reply("9.9")
    ran = kernel.run("kimi.ask('9.11 or 9.9?')")
    assert len(ran.displays) == 1
    assert not ran.of("execute_result")
    assert kernel.run("print(_.text)").stdout == "9.9\n"
    (later,) = kernel.run("kimi.last").of("execute_result")
    assert later["data"]["text/plain"].startswith("Reply('9.9'")


@pytest.mark.parametrize(
    "prompt", ['what\'s "this" {x} $HOME?', "why??", "C:\\new # no comment", "  spaced   out  "]
)
def test_ask_takes_the_rest_of_the_line_as_it_is(
    kernel: Kernel, asked: ScriptedServer, prompt: str
) -> None:
    asked.reply("OK")
    asked.reply("OK")
    kernel.run(f"x = 1\n%kimi ask {prompt}")
    kernel.run(f"y = %kimi ask {prompt}\nassert y.text == 'OK'")
    assert [r.body["messages"][-1]["content"] for r in asked.requests] == [prompt.strip()] * 2


def test_a_cell_is_sent_as_it_is(kernel: Kernel, asked: ScriptedServer) -> None:
    asked.reply("OK")
    body = "    indented {x} $y\n%kimi ask not a magic?\n\\frac{a}{b}"
    kernel.run(f"x = 1\n\n{''}")
    kernel.run(f"%%kimi\n{body}\n")
    assert asked.requests[0].body["messages"][-1]["content"] == body


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("%%kimi --temprature 1\nHi", "Did you mean --temperature?"),
        ("%%kimi What is this?\nHi", "the prompt goes into the cell's body"),
        ("%%kimi\n   \n", "The cell is empty"),
        ("%%kimi", "The cell is empty"),
        ("%kimi rest", "Did you mean `%kimi reset`?"),
        ("%%kimi --api-key x\nHi", "does not belong on the magic line"),
        ("%%kimi -e nvidea\nHi", "Did you mean nvidia?"),
        ("kimi.ask('')", "The prompt is empty"),
        ("kimi.ask(3)", "list of text parts"),
    ],
)
def test_mistakes_take_few_lines_and_no_traceback(kernel: Kernel, cell: str, words: str) -> None:
    ran = kernel.run(cell, ok=False)
    assert ran.status == "error"
    assert words in ran.told
    assert len(ran.error.splitlines()) <= 4
    assert "Traceback" not in ran.error


def test_a_failure_is_raised_after_the_record_and_the_chat_stays_valid(
    kernel: Kernel, asked: ScriptedServer
) -> None:
    asked.raw(
        [
            b'data: {"choices":[{"delta":{"reasoning_content":"I was about"}}]}\n\n',
            b'data: {"error":{"message":"Stream failed","type":"server_error"}}\n\n',
        ]
    )
    asked.error(400, "no such thing")
    asked.reply("Better.")
    ran = kernel.run("%%kimi\nFirst", ok=False)
    assert ran.status == "error"
    assert "Stream failed" in ran.told
    assert len(ran.error.splitlines()) <= 4
    assert "I was about" in ran.record["text/html"]
    kernel.run("assert kimi.last.reasoning == 'I was about' and kimi.last.error is not None")
    refused = kernel.run("%%kimi\nSecond", ok=False)
    assert "no such thing" in refused.told
    kernel.run("%%kimi\nThird")
    said = [(m["role"], m["content"]) for m in asked.requests[-1].body["messages"][1:]]
    assert said == [
        ("user", "First"),
        ("assistant", "[The answer was cut off.]"),
        ("user", "Third"),
    ]


def test_a_retry_is_seen_and_succeeds(kernel: Kernel, asked: ScriptedServer) -> None:
    asked.error(503, "overloaded", headers={"Retry-After": "0.2"})
    asked.reply("At last.")
    ran = kernel.run("%%kimi\nHi", allow_stdin=True)
    assert any("etrying" in op.get("text", "") for op in ran.ops)
    assert "At last." in ran.record["text/plain"]


@pytest.mark.parametrize("moment", ["headers", "stall", "streaming", "retry"])
def test_interrupt_stops_the_turn_and_keeps_what_came(
    kernel: Kernel, asked: ScriptedServer, moment: str
) -> None:
    script: dict[str, dict[str, Any]] = {
        "headers": {"delay": 60.0},
        "stall": {"stall_after": 4},
        "streaming": {"rate": 20},
    }
    if moment == "retry":
        asked.error(503, "busy", headers={"Retry-After": "60"})
    else:
        asked.reply(" ".join(["word"] * 500), reasoning="Well now.", **script[moment])
    asked.reply("Next.")
    signs = {"headers": "Waiting", "stall": "word", "streaming": "word", "retry": "etrying"}
    sent: list[threading.Thread] = []

    def interrupt() -> None:
        while not asked.requests:
            time.sleep(0.01)
        time.sleep(0.2)
        kernel.interrupt()

    def interrupt_when_it_shows(message: dict[str, Any]) -> None:
        content = message["content"]
        if not sent and message["msg_type"] == "comm_msg" and signs[moment] in str(content):
            sent.append(threading.Thread(target=interrupt))
            sent[0].start()

    ran = kernel.run("%%kimi\nGo", allow_stdin=True, ok=False, watch=interrupt_when_it_shows)
    assert ran.status == "error"
    assert ran.reply["ename"] == "TurnInterrupted"
    assert len(ran.error.splitlines()) <= 4
    assert "Stopped" in ran.record["text/plain"]
    if moment != "retry":
        assert asked.requests[0].closed.wait(30)
    if moment in ("stall", "streaming"):
        assert "word" in ran.record["text/html"]
        kernel.run("assert 'word' in kimi.last.text and kimi.last.reasoning == 'Well now.'")
    kernel.run("%%kimi\nAgain")
    assert asked.requests[-1].body["messages"][-1]["content"] == "Again"


def test_ask_in_threads_is_silent_and_separate(kernel: Kernel, asked: ScriptedServer) -> None:
    for _ in range(4):
        asked.reply("OK")
    ran = kernel.run(
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(4) as pool:\n"
        "    replies = list(pool.map(kimi.ask, ['a', 'b', 'c', 'd']))\n"
        "print([r.text for r in replies], [r.messages[1]['content'] for r in replies])"
    )
    assert ran.displays == []
    assert ran.stdout == "['OK', 'OK', 'OK', 'OK'] ['a', 'b', 'c', 'd']\n"


def test_stream_yields_events_and_ends_with_the_reply(
    kernel: Kernel, asked: ScriptedServer
) -> None:
    asked.reply("one two", reasoning="Hm.")
    ran = kernel.run(
        "events = list(kimi.stream('Hi'))\n"
        "print([type(e).__name__ for e in events if 'Delta' not in type(e).__name__])\n"
        "print(events[-1].reply.text, '|', events[-1].reply.reasoning)"
    )
    assert ran.stdout.splitlines() == [
        "['TurnStarted', 'RequestStarted', 'StepFinished', 'TurnFinished']",
        "one two | Hm.",
    ]
    assert ran.displays == []


def test_a_chat_in_python(kernel: Kernel, asked: ScriptedServer) -> None:
    asked.reply("Paris.")
    asked.reply("Rome.")
    ran = kernel.run(
        "chat = kimi.chat('geo')\n"
        "chat.ask('France?', show=False)\n"
        "reply = kimi.ask('Italy?', chat='geo', show=False)\n"
        "print(len(chat.turns), [m['content'] for m in chat.messages[1:]], chat.usage.requests)\n"
        "print(chat.messages == reply.messages)\n"
        "chat.reset(); print(chat.turns, chat.messages)"
    )
    assert ran.stdout.splitlines() == [
        "2 ['France?', 'Paris.', 'Italy?', 'Rome.'] 2",
        "True",
        "() []",
    ]


def test_view_plain_prints(kernel: Kernel, asked: ScriptedServer) -> None:
    asked.reply("9.9", reasoning="Compare.")
    ran = kernel.run("%config KimiMagics.view = 'plain'\n%kimi ask 9.11 or 9.9", allow_stdin=True)
    assert ran.displays == []
    assert ran.stdout.index("Compare.") < ran.stdout.rindex("9.9")
    assert "\x1b" not in ran.stdout


def test_captured_output_holds_the_record(kernel: Kernel, asked: ScriptedServer) -> None:
    asked.reply("9.9", reasoning="Compare.")
    ran = kernel.run("%%capture out\nr = kimi.ask('Hi', show=True)", allow_stdin=True)
    assert ran.displays == []
    shown = kernel.run("out.show()")
    assert "9.9" in shown.record["text/html"]


def test_a_key_is_asked_for_and_shown_nowhere(kernel: Kernel) -> None:
    with ScriptedServer(key=SECRET) as server:
        for _ in range(2):
            server.reply("Welcome.")
        kernel.run(
            f"kimi.add_endpoint(name='lab', base_url={server.base_url!r}, key_env='LAB_KEY')"
        )
        refused = kernel.run("%%kimi -e lab\nHi", ok=False)
        assert "LAB_KEY is not set" in refused.told
        assert len(refused.error.splitlines()) <= 4
        first = kernel.run("%%kimi -e lab\nHi", allow_stdin=True, answer=SECRET)
        second = kernel.run("%%kimi -e lab\nHi again")
        assert "Welcome." in first.record["text/plain"]
        assert "Welcome." in second.record["text/plain"]
        listed = kernel.run("%kimi endpoints\nprint(kimi.chat().turns, vars(kimi.last.__class__))")
        assert "LAB_KEY: yes" in listed.stdout
        seen = str([first.messages, second.messages, listed.messages])
        assert SECRET not in seen


def test_a_key_that_the_server_refuses(kernel: Kernel) -> None:
    with ScriptedServer(key=SECRET, strict=False) as server:
        kernel.run(f"%env KIMI_BASE_URL={server.base_url}")
        kernel.run("import os; os.environ['KIMI_API_KEY'] = 'fake-other-key-456'")
        ran = kernel.run("%%kimi\nHi", ok=False)
        assert "the environment variable KIMI_API_KEY" in ran.told
        assert "fake-other-key-456" not in str(ran.messages)


def test_the_models_of_the_server(kernel: Kernel, asked: ScriptedServer) -> None:
    asked.models = ("kimi-k2-thinking", "kimi-k3", "qwen3-32b")
    head, *rows = kernel.run("%kimi models").stdout.splitlines()
    assert head.split()[:3] == ["model", "window", "effort"]
    assert rows[0].split() == ["→", "kimi-k2-thinking", "262,144", "text"]
    assert rows[1].split() == (
        ["kimi-k3", "1,048,576", "low,", "high,", "max", "text,", "image,", "video"]
    )
    assert rows[2].split() == ["qwen3-32b"]


def test_the_models_that_an_endpoint_does_not_list(kernel: Kernel, asked: ScriptedServer) -> None:
    asked.models = ("kimi-k3", "qwen3-32b")
    kernel.run(f"kimi.add_endpoint(name='gate', base_url={asked.base_url!r}, like='moonshot')")
    listed = kernel.run("%kimi models gate").stdout
    table, *rules = listed.split("\n\n")
    rows = table.splitlines()[1:]
    assert rows[0].endswith("3.00 · 0.30 · 15.00")
    assert [row.split()[0] for row in rows] == ["kimi-k3", "qwen3-32b", *"–" * (len(rows) - 2)]
    others = {row.split()[1]: row for row in rows[2:]}
    assert others["kimi-k2-thinking"].endswith("  ended on 2026-05-25")
    assert others["kimi-k3.1-pro"].endswith("  not offered here")
    assert "kimi-k3" not in others
    assert max(map(len, listed.splitlines())) <= 120
    first = "Fixed sampling; all reasoning goes back; max_completion_tokens up to 131,072"
    assert rules[0].startswith(first)
    assert "kimi-k3, kimi-k3.1-pro" in rules[0]
    assert "qwen" not in "".join(rules)
    assert (
        "Free sampling; reasoning goes back inside a tool loop; max_tokens up to 262,144"
        in (rules[-1])
    )
    assert "kimi-k2-thinking" in rules[-1]
    asked.models = tuple(f"moonshotai/{name}" for name in others)
    assert max(map(len, kernel.run("%kimi models gate").stdout.splitlines())) <= 120


def test_help(kernel: Kernel) -> None:
    everything = kernel.run("%kimi help").stdout
    assert kernel.run("%%kimi -h").stdout == everything == kernel.run("%kimi").stdout
    assert "%kimi ask What is" in kernel.run("%kimi help ask").stdout


def test_unload_takes_the_magic_away(kernel: Kernel) -> None:
    kernel.run("%unload_ext kimi_magic")
    assert "not found" in kernel.run("%kimi help", ok=False).stderr
    kernel.run("%load_ext kimi_magic")
    assert "%kimi ask" in kernel.run("%kimi help").stdout


def test_settings_survive_a_reload(kernel: Kernel) -> None:
    kernel.run("%config KimiMagics.max_tokens = 77")
    kernel.run("%reload_ext kimi_magic")
    assert kernel.run("print(kimi.settings.max_tokens)").stdout == "77\n"


def test_nobody_to_ask(kernel: Kernel) -> None:
    kernel.run(
        "import kimi_magic.wire.local.process as l\n"
        "l.available, _kept = (lambda: False), l.available"
    )
    ran = kernel.run("%%kimi\nHi", ok=False)
    kernel.run("import kimi_magic.wire.local.process as l; l.available = _kept")
    assert "NVIDIA_API_KEY" in ran.told
    assert 'pip install "kimi-magic[local]"' in ran.error


def test_a_typed_key_that_was_refused_is_asked_for_again(kernel: Kernel) -> None:
    with ScriptedServer(key=SECRET, strict=False) as server:
        server.reply("Welcome.")
        kernel.run(
            f"kimi.add_endpoint(name='den', base_url={server.base_url!r}, key_env='DEN_KEY')"
        )
        wrong = kernel.run("%%kimi -e den\nHi", allow_stdin=True, answer="fake-wrong-key", ok=False)
        assert "type another" in wrong.told
        right = kernel.run("kimi.ask('Hi', endpoint='den')", allow_stdin=True, answer=SECRET)
        assert "Welcome." in right.record["text/plain"]


def test_a_typed_key_is_masked_from_its_first_turn_on(kernel: Kernel) -> None:
    with ScriptedServer(key=SECRET) as server:
        server.reply(f"Your key is {SECRET}.", reasoning=f"{SECRET}?")
        kernel.run(
            f"kimi.add_endpoint(name='den', base_url={server.base_url!r}, key_env='NEW_DEN_KEY')"
        )
        ran = kernel.run("%%kimi -e den\nHi", allow_stdin=True, answer=SECRET)
        assert "[key]" in ran.record["text/plain"]
        assert SECRET not in str(ran.of("display_data", "update_display_data", "comm_msg"))


@pytest.mark.parametrize("reason", ["network_error", None])
def test_an_answer_that_ended_early_says_so(
    kernel: Kernel, asked: ScriptedServer, reason: str | None
) -> None:
    choice = {"delta": {"content": "Half an ans"}, "finish_reason": reason}
    asked.raw([f"data: {json.dumps({'choices': [choice]})}\n\n".encode()])
    record = kernel.run("%%kimi\nHi").record
    assert "Half an ans" in record["text/plain"]
    assert "ended the answer early" in record["text/plain"]


def test_a_string_that_holds_a_line_of_ours_stays_as_it_is(kernel: Kernel) -> None:
    ran = kernel.run('text = """\n%kimi ask Why?\n"""\nprint(text)')
    assert ran.stdout == "\n%kimi ask Why?\n\n"


def test_a_terminal_waits_for_the_body_of_a_cell(kernel: Kernel) -> None:
    code = "print(get_ipython().input_transformer_manager.check_complete('%%kimi')[0])"
    assert kernel.run(code).stdout == "incomplete\n"


def test_an_interrupt_at_the_key_prompt_takes_one_line(kernel: Kernel) -> None:
    kernel.run("kimi.add_endpoint(name='pit', base_url='http://127.0.0.1:9/v1', key_env='PIT_KEY')")
    timer = threading.Timer(1.0, kernel.interrupt)
    timer.start()
    ran = kernel.run("%%kimi -e pit\nHi", allow_stdin=True, ok=False)
    assert ran.reply["ename"] == "TurnInterrupted"
    assert len(ran.error.splitlines()) == 1
