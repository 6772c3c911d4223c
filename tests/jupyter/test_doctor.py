"""``%kimi doctor`` and ``kimi-magic doctor`` from their doors: what is asked, sent and shown."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import keyring
import pytest
from rich.console import Console

import kimi_magic as kimi
from kimi_magic.jupyter import cli, doctor_machine
from kimi_magic.jupyter.doctor import DoctorOptions, Patient, examine
from kimi_magic.jupyter.doctor_table import (
    Diagnosis,
    Row,
    draw,
    hidden,
    print_table,
    report,
    to_json,
    to_text,
)
from kimi_magic.secrets.keys import LEAK
from kimi_magic.session import Session
from kimi_magic.testing import ScriptedServer
from kimi_magic.wire.probe import Probe
from tests.kernels import Kernel

CALLS = [{"name": "get_weather", "arguments": {"city": city}} for city in ("Bern", "Rome")]
Told = dict[str, Any]


def script(server: ScriptedServer) -> None:
    """Script the answers to the three requests."""
    server.reply("9.9 is the larger one.", reasoning="By parts.")
    server.reply(tool_calls=CALLS)
    server.reply('{"larger": "9.9"}')


@pytest.fixture
def run(session: Session, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Told]]:
    """Run the command with ``--json``; return its status, and its rows by their checks."""

    def run(*arguments: str) -> tuple[int, Told]:
        code = cli.main(["doctor", "--json", *arguments])
        told = json.loads(capsys.readouterr().out)
        return code, told | {row["check"]: row for row in told["rows"]}

    return run


Run = Callable[..., tuple[int, Told]]


def test_all_is_well(run: Run, server: ScriptedServer) -> None:
    script(server)
    code, told = run("--yes")
    assert code == 0
    assert (told["doctor"], told["where"], told["endpoint"]) == (1, "shell", "custom")
    assert (told["sent"], told["stopped"], told["counts"]["mend"]) == (True, False, 0)
    assert told["endpoint.reasoning"]["is"] == "reasoning comes as reasoning_content"
    for check in ("usage", "tool_calls", "call_ids", "structured", "clock", "window"):
        assert told[f"endpoint.{check}"]["state"] == "ok", check
    bodies = [request.body for request in server.requests if request.method == "POST"]
    assert [len(body["messages"]) for body in bodies] == [1, 1, 1]
    assert all(body["max_tokens"] == 500 and body["stream"] for body in bodies)
    assert set(told["rows"][0]) == {"check", "group", "state", "is", "means", "do"}
    assert run("--yes", "--offline")[1]["sent"] is False


def test_a_server_of_the_messages_api(run: Run) -> None:
    with ScriptedServer("anthropic") as server:
        script(server)
        server.reply("9.9", reasoning="By parts.")
        server.reply(tool_calls=CALLS)
        server.error(400, "output_config.format: not supported for this model")
        code, told = run("--yes", server.base_url)
        refused = run("--yes", server.base_url)[1]["endpoint.structured"]["is"]
        bodies = [request.body for request in server.requests if request.method == "POST"]
    assert (code, told["counts"]["mend"]) == (0, 0)
    assert told["endpoint.reasoning"]["is"] == "reasoning comes in blocks of its own"
    for check in ("usage", "tool_calls", "call_ids", "structured", "clock", "window"):
        assert told[f"endpoint.{check}"]["state"] == "ok", check
    assert refused == "json_schema is refused"
    assert bodies[2]["output_config"]["format"]["type"] == "json_schema"
    assert all(body["max_tokens"] == 500 and body["stream"] for body in bodies)


def test_mcp_servers_are_told_of_by_their_names(
    run: Run, session: Session, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plain = "plain" + "word99"  # has the shape of no key
    monkeypatch.chdir(tmp_path)
    entries: dict[str, Any] = {
        "here": {"command": sys.executable, "env": {"PIN": plain, "PATH": os.environ["PATH"]}},
        "gone": {"command": "no-such-program", "args": ["--pin", plain]},
        "below": {"command": f".{os.sep}serve.cmd", "cwd": "servers"},
        "later": {"command": "serve", "env": {"PATH": "${HOME}/bin"}},
        "web": {"url": f"https://mcp.test/{plain}", "headers": {"X-Pin": plain}},
        "odd": {"command": 5, "env": {"PIN": plain}},
    }
    (tmp_path / "servers").mkdir()
    (tmp_path / "servers" / "serve.cmd").touch(0o700)
    (tmp_path / ".mcp.json").write_text(json.dumps({"mcpServers": entries}))
    session.settings.mcp_servers = {"own": entries["web"]}
    _, told = run("--offline")
    rows = [row for row in told["rows"] if row["group"] == "tool"]
    assert [(row["check"], row["state"]) for row in rows] == [
        ("tool.mcp_entry", "mend"),
        ("tool.mcp_server", "ok"),
        ("tool.mcp_program", "look"),
        *[("tool.mcp_server", "ok")] * 4,
    ]
    assert "gone is started by no-such-program" in rows[2]["is"]
    assert plain not in json.dumps(told)


def wrong_key(server: ScriptedServer) -> None:
    server.key = "another"


def wrong_model(server: ScriptedServer) -> None:
    server.error(404, "model not found: kimi-k2-thinking")


def no_schema(server: ScriptedServer) -> None:
    server.reply("9.9", reasoning="So.")
    server.reply("I do not know.")
    server.error(400, "response_format.type json_schema is not supported")
    server.reply('{"larger": "9.9"}')


def no_format(server: ScriptedServer) -> None:
    server.reply("9.9", reasoning="So.")
    server.reply(tool_calls=CALLS)
    server.error(400, "unknown field response_format")
    server.error(400, "unknown field response_format")


def limited(server: ScriptedServer) -> None:
    server.reply("9.9", reasoning="So.")
    server.error(429, "slow down")


def raw_calls(server: ScriptedServer) -> None:
    server.reply("9.9")
    server.reply(
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0"
        '<|tool_call_argument_begin|>{"city":"Bern"}<|tool_call_end|><|tool_calls_section_end|>'
    )
    server.reply("no")


def held_back(server: ScriptedServer) -> None:
    server.reply("9.9 is the larger one of these two.", delay=0.6)
    server.reply(tool_calls=CALLS)
    server.reply('{"larger": "9.9"}')


@pytest.mark.parametrize(
    ("happens", "code", "check", "words"),
    [
        (wrong_key, 1, "key", "answered 401: Invalid Authentication"),
        (wrong_model, 1, "model", "answered 404: model not found"),
        (no_schema, 0, "structured", "json_object is taken, json_schema is refused"),
        (no_format, 0, "structured", "json_schema and json_object are refused"),
        (limited, 0, "tool_calls", "a request with a tool failed: custom"),
        (raw_calls, 0, "tool_calls", "1 call came as raw tokens in the text"),
        (held_back, 0, "stream", "came all at once, after 0."),
    ],
)
def test_what_a_server_does(
    run: Run,
    server: ScriptedServer,
    happens: Callable[[ScriptedServer], None],
    code: int,
    check: str,
    words: str,
) -> None:
    happens(server)
    ended, told = run("--yes")
    assert words in told[f"endpoint.{check}"]["is"]
    assert ended == code
    assert told[f"endpoint.{check}"]["do"] or happens is no_schema


def test_a_path_that_leads_nowhere(
    run: Run, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIMI_BASE_URL", server.base_url.replace("/v1", "/v2"))
    code, told = run("--yes")
    assert code == 1
    assert "answered 404: nothing at /v2/chat/completions" in told["endpoint.address"]["is"]
    assert "(often /v1)?" in told["endpoint.address"]["do"]


def test_a_budget_that_is_used_up(
    run: Run, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIMI_BUDGET", "3 tokens")
    code, told = run("--yes")
    assert code == 1
    assert "The budget of 3 tokens would be passed" in told["endpoint.answer"]["is"]
    assert all(request.method == "GET" for request in server.requests)


def test_nothing_is_sent_unasked(
    run: Run, server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    _, told = run()
    assert told["endpoint.sent"]["means"].startswith("with --json nobody is asked")
    assert cli.main(["doctor"]) == 0  # no terminal
    shown = capsys.readouterr().out
    assert "nobody can be asked here" in shown
    assert "`kimi-magic doctor --yes` sends 3 short requests" in shown
    assert server.requests == []
    assert cli.main(["doctor", "nowhere"]) == 1
    assert "No endpoint is named 'nowhere'" in capsys.readouterr().err


def test_no_key_no_request(run: Run) -> None:
    code, told = run("nvidia", "--yes")
    assert code == 1
    assert told["key.nvidia"]["state"] == "mend"
    assert "NVIDIA_API_KEY is not set" in told["endpoint.sent"]["means"]


@pytest.mark.parametrize("typed", ["right", "wrong"])
def test_a_key_that_is_typed(session: Session, monkeypatch: pytest.MonkeyPatch, typed: str) -> None:
    """It is asked for after the yes; one that is refused is asked for again."""
    right, asked = f"right-{PLAIN}", list[str]()

    def type_it(question: str) -> str:
        asked.append(question)
        return f"{typed}-{PLAIN}"

    monkeypatch.setattr("kimi_magic.session.can_answer", lambda: True)
    monkeypatch.setattr("kimi_magic.session.getpass", type_it)
    with ScriptedServer(key=right) as server:
        kimi.add_endpoint(
            name="den", base_url=server.base_url, key_env="DEN_KEY", model="kimi-k2-thinking"
        )
        if typed == "right":
            script(server)
        diagnosis = examine(Patient(session, DoctorOptions(yes=True), "%kimi doctor den"), "den")
    rows = {row.check: row for row in diagnosis.rows}
    assert len(asked) == 1
    assert rows["endpoint.key"].state == rows["key.den"].state
    if typed == "right":
        assert rows["key.den"].found == "→ den: a key from what you typed"
    else:
        assert "answered 401" in rows["endpoint.key"].found
        assert rows["key.den"].state == "mend"


def test_a_key_prompt_can_be_interrupted(
    session: Session, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def type_it(_: str) -> str:
        signal.raise_signal(signal.SIGINT)
        return f"late-{PLAIN}"

    monkeypatch.setattr("kimi_magic.session.can_answer", lambda: True)
    monkeypatch.setattr("kimi_magic.session.getpass", type_it)
    kimi.add_endpoint(name="den", base_url=server.base_url, key_env="DEN_KEY")
    diagnosis = examine(Patient(session, DoctorOptions(yes=True), "%kimi doctor den"), "den")
    assert diagnosis.stopped
    assert {row.check: row.state for row in diagnosis.rows}["key.den"] == "mend"
    assert server.requests == []


def test_a_journal_that_is_none(
    run: Run, server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal.sqlite3"
    path.write_bytes(b"SQLite format 3\0" + b"kimi" * 99)
    monkeypatch.setenv("KIMI_JOURNAL", str(path))
    before = path.read_bytes()
    code, told = run()
    assert code == 1
    assert told["kept.journal"]["state"] == "mend"
    assert path.read_bytes() == before


def test_settings_that_do_not_fit(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KIMI_JOURNAL", str(tmp_path / "j.sqlite3"))
    monkeypatch.setenv("KIMI_VIEW", "beautiful")
    monkeypatch.setenv("KIMI_BASE_URL", "nowhere")
    code, told = run()
    assert code == 1
    assert "KIMI_VIEW='beautiful'" in told["environment.variable"]["is"]
    assert "KIMI_BASE_URL: 'nowhere' is no address" in told["key.base_url"]["is"]
    assert [check for check in told if check.endswith(".failed")] == []


def test_a_fault_of_the_doctor_is_a_row(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("of the doctor\nitself")

    monkeypatch.setattr(doctor_machine, "look_at_software", fail)
    monkeypatch.setattr(Probe, "list_models", lambda _: fail())
    _, told = run("--yes")
    assert told["software.failed"]["is"] == "Python and libraries: RuntimeError: of the doctor"
    assert told["endpoint.failed"]["is"] == "The endpoint: RuntimeError: of the doctor"
    assert told["kept.journal"]["state"] == "look"


def test_the_sources_of_settings(
    session: Session, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KIMI_STALL_TIMEOUT", "33")
    session.settings.system = "Talk like a pirate."
    session.settings.of_profile = {"max_steps": 7, "view": "plain"}
    session.settings.max_steps = 7
    session.settings.view = "live"
    _, told = run("--offline")
    assert told["setting.max_steps"]["means"] == "by an IPython profile"
    assert told["setting.view"]["means"] == "by this session (%config or kimi.settings)"
    assert told["setting.stall_timeout"]["is"] == "stall_timeout = 33.0"
    assert "environment variable KIMI_STALL_TIMEOUT" in told["setting.stall_timeout"]["means"]
    assert told["setting.system"]["is"] == "system = a text of 19 characters"
    assert "pirate" not in str(told)


# Secrets and names.

PLAIN = "-".join(["den", "0123456789abcdefghijklmnop"])  # no shape gives it away
SHAPED = "-".join(["nvapi", "0123456789" + "abcdefghij" + "KLMNOP"])
SECRETS = {
    "NVIDIA_API_KEY": SHAPED,
    "MOONSHOT_API_KEY": "moon" + PLAIN,
    "DEN_TOKEN": "team" + PLAIN,
    "LOCKED_KEY": "ring" + PLAIN,
    "HTTPS_PROXY": "pass" + PLAIN,
    "KIMI_API_KEY": "own" + PLAIN,
    "KIMI_LOCAL_MODEL": "sk-" + "Ab1" * 9,
}


def leaks(text: str) -> list[str]:
    """The secrets of which a text holds a piece, or the last characters of one."""
    return [
        name
        for name, secret in SECRETS.items()
        if any(secret[at : at + LEAK] in text for at in range(len(secret) - LEAK + 1))
        or secret[-6:] in text
    ]


@pytest.fixture
def held(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys wherever keys may be."""
    for name, secret in SECRETS.items():
        if name not in ("LOCKED_KEY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, secret)
    secret = SECRETS["HTTPS_PROXY"]
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{secret}@proxy.acme.test:8080")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,wiki.acme.test")
    passwords = {"LOCKED_KEY": SECRETS["LOCKED_KEY"]}
    monkeypatch.setattr(keyring, "get_password", lambda _, name: passwords.get(name))
    kimi.add_endpoint(name="locked", base_url="https://llm.acme.test/v1", key_env="LOCKED_KEY")
    headers = {"X-Team": "${DEN_TOKEN}", "Authorization": "Bearer ${DEN_TOKEN}"}
    kimi.add_endpoint(name="den", base_url="https://den.acme.test/v1", headers=headers)


def forms(diagnosis: Diagnosis) -> dict[str, str]:
    console = Console(width=110, force_terminal=True, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    print_table(diagnosis, console)
    page = draw(diagnosis).data
    return {
        "html": page["text/html"],
        "plain": page["text/plain"],
        "text": to_text(diagnosis),
        "json": to_json(diagnosis),
        "report": report(diagnosis),
        "terminal": console.export_text(),
    }


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("as_report", [False, True])
def test_no_key_is_in_any_form(
    session: Session, held: None, monkeypatch: pytest.MonkeyPatch, *, as_report: bool
) -> None:
    """A server that echoes keys in its list, its errors, its answers and its name."""
    echoed = " ".join(SECRETS.values())
    with ScriptedServer(models=["kimi-k2-thinking", *SECRETS.values()]) as server:
        server.reply(f"9.9 {echoed}", reasoning=echoed)
        server.reply(tool_calls=[{"id": f"call_{SHAPED}", "name": "w", "arguments": echoed}])
        server.error(400, f"No response_format for {echoed}")
        server.error(400, f"No response_format for {echoed}")
        monkeypatch.setenv("KIMI_BASE_URL", server.base_url)
        patient = Patient(session, DoctorOptions(yes=True, report=as_report), "%kimi doctor")
        shown = forms(examine(patient, ""))
    assert patient.findings is not None
    assert patient.findings.stream is not None
    assert patient.findings.stream.failure is None
    for form, text in shown.items():
        assert leaks(text) == [], form
    assert "from keyring (kimi-magic, LOCKED_KEY)" in shown["text"].replace("\n     ", "")
    assert "the environment variable MOONSHOT_API_KEY" in shown["plain"]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("given", ["den", "https://other.acme.test/v1"])
def test_a_report_has_no_names(
    session: Session, held: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: str
) -> None:
    home = tmp_path / "bob"
    (home / "work").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("KIMI_JOURNAL", str(home / "work" / "j.sqlite3"))
    monkeypatch.setenv("JPY_SESSION_NAME", str(home / "salaries.ipynb"))
    monkeypatch.setenv("KIMI_TAPE", str(home / "merger.tape"))
    monkeypatch.setenv("KIMI_SYSTEM", "You know the salaries.")
    monkeypatch.setattr(
        "kimi_magic.jupyter.doctor_setup.notebook_path", lambda: str(home / "salaries.ipynb")
    )
    patient = Patient(session, DoctorOptions(offline=True, report=True), "%kimi doctor")
    shown = forms(examine(patient, given))
    for form, text in shown.items():
        for name in ("bob", "salaries", "merger", "acme"):
            assert name not in text, (form, name)
    assert "~/work/j.sqlite3" in shown["plain"]
    assert "HTTPS_PROXY is http://[account]@[host]:8080" in shown["plain"]
    assert shown["report"].startswith("### kimi-magic ")
    assert not re.search(r"(?<!\\)[<`@]", shown["report"])


@pytest.mark.parametrize(
    "proxy",
    [
        "http://me:{}@proxy.acme.test:8080",
        "me:{}@proxy.acme.test:8080",
        "http://me:a/{}@proxy.acme.test",
        "socks5h://{}:@proxy.acme.test",
        "http://me:@{}@proxy.acme.test",
    ],
)
def test_a_proxy_is_shown_without_its_account(
    session: Session, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    plain = "plain" + "word99"
    monkeypatch.setenv("HTTPS_PROXY", proxy.format(plain))
    choices = DoctorOptions(offline=True, report=True)
    shown = to_json(examine(Patient(session, choices, "%kimi doctor"), ""))
    assert "HTTPS_PROXY" in shown
    assert plain not in shown
    assert "acme" not in shown


def test_names_are_hidden_as_words() -> None:
    names = {"/home/bob": "~", "bob": "[user]", "a.b": "[host]"}
    assert hidden("/home/bob/x bobby bob a.b axb", names) == "~/x bobby [user] [host] axb"
    assert hidden("as it is", {}) == "as it is"
    diagnosis = Diagnosis((Row("key.bob", "ok", "A key of bob."),), "0.1.0", "kernel")
    names = {"key": "[notebook]", "bob": "[user]"}
    (row,) = diagnosis.masked(partial(hidden, names=names)).rows
    assert (row.check, row.found) == ("key.[user]", "A [notebook] of [user].")


HOSTILE = Row(
    "endpoint.address",
    "mend",
    "<img src=x onerror=alert(1)> \x1b[31m $x^2$ | `rm -rf` \u202e" + "long " * 400,
    "</td></table><script>alert(1)</script> https://evil.test www.evil.test",
    "run `a<b>` and [click](javascript:alert(1))",
)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_texts_of_others_stay_texts() -> None:
    diagnosis = Diagnosis((HOSTILE,), "0.1.0", "kernel", "<b>").masked(str)
    shown = forms(diagnosis)
    assert "<img" not in shown["html"]
    assert "<script" not in shown["html"]
    assert "<code>a&lt;b&gt;</code>" in shown["html"]
    assert shown["html"].count("</table>") == 1
    assert "\\<img" in shown["report"]
    assert not re.search(r"(?i)\w://|www\.", shown["report"]), "GitHub would make links of them"
    for form in ("plain", "text", "html", "report"):
        assert "\x1b" not in shown[form]
        assert "\u202e" not in shown[form]
        assert len(shown[form]) < 5000
    assert json.loads(shown["json"])["rows"][0]["state"] == "mend"


# In a kernel, and as a process.


def test_a_kernel_where_nobody_answers(kernel: Kernel, asked: ScriptedServer) -> None:
    ran = kernel.run("%kimi doctor", cell="a")
    assert asked.requests == []
    (page,) = ran.displays
    assert "nobody can be asked here" in page["text/html"]
    assert "`%kimi doctor --yes` sends 3 short requests" in " ".join(page["text/plain"].split())
    assert "cells tell their id" in page["text/plain"]
    script(asked)
    kernel.run("%config KimiMagics.max_steps = 7")
    ran = kernel.run("%kimi doctor --json --yes", cell="a")
    told = json.loads(ran.stdout)
    assert (told["where"], told["sent"]) == ("kernel", True)
    (steps,) = (row for row in told["rows"] if row["check"] == "setting.max_steps")
    assert steps["means"] == "by this session (%config or kimi.settings)"
    assert len([each for each in asked.requests if each.method == "POST"]) == 3
    said = kernel.run("%kimi usage").stdout
    assert "(no chat)" in said  # it counts, and is in no chat
    ran = kernel.run("%kimi doctor custom --report --offline", cell="a")
    assert ran.stdout.startswith("### kimi-magic ")
    assert ran.displays == []
    error = kernel.run("%kimi doctor nowhere", ok=False).error
    assert error.startswith("ConfigError: No endpoint is named 'nowhere'.")
    assert "doctor" in str(kernel.complete("%kimi doc")["matches"])
    assert "custom" in kernel.complete("%kimi doctor cu")["matches"]


def test_a_kernel_where_a_person_says_yes_and_stops_it(
    kernel: Kernel, asked: ScriptedServer
) -> None:
    """The server is silent: the table shows what was found until then, and the cell fails."""
    kernel.run("import kimi_magic.display.live.hearing as h; h.heard_within.__defaults__ = (0.1,)")
    asked.reply("9.9 is the larger one.", reasoning="By parts.", stall_after=2)

    def stop() -> None:
        while not any(request.method == "POST" for request in asked.requests):
            time.sleep(0.05)
        kernel.interrupt()

    threading.Thread(target=stop, daemon=True).start()
    ran = kernel.run("%kimi doctor", cell="a", allow_stdin=True, answer="y", ok=False)
    assert ran.questions == [
        "Send 3 short requests, about 400 tokens (1,500 at most), to custom (kimi-k2-thinking)? "
        "[y/N] "
    ]
    assert ran.reply["ename"] == "TurnInterrupted"
    assert "The doctor was stopped: the rest was not asked." in ran.record["text/plain"]
    assert "no page answered while this cell ran" in " ".join(ran.record["text/plain"].split())
    assert "no token counts came" not in ran.record["text/plain"]
    assert "Traceback" not in ran.error
    asked.go_on()


def test_the_command_as_a_process(tmp_path: Path) -> None:
    own = os.environ | {"HOME": str(tmp_path), "KIMI_JOURNAL": str(tmp_path / "j.sqlite3")}
    command = [sys.executable, "-m", "kimi_magic.jupyter.cli", "doctor", "vllm", "--offline"]
    ran = subprocess.run(command, env=own, capture_output=True, text=True, check=False, timeout=60)
    assert ran.stderr == ""
    assert ran.returncode == 0, ran.stdout
    assert "the option --offline" in ran.stdout
    assert not (tmp_path / "j.sqlite3").exists()
