"""The doctor's rules, from facts to rows, without a network: each fact, fine and otherwise."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from kimi_magic.chats.journal_health import Health
from kimi_magic.core.messages import ToolCall, Usage
from kimi_magic.jupyter.doctor_endpoint import Findings, endpoint_rows, is_kept_to_schema
from kimi_magic.jupyter.doctor_machine import (
    FrontEndFinding,
    Software,
    Unmet,
    front_end_rows,
    software_rows,
)
from kimi_magic.jupyter.doctor_setup import (
    Disk,
    EngineFinding,
    Environment,
    Kept,
    KeyFinding,
    TapeFinding,
    environment_rows,
    kept_rows,
    key_rows,
    local_rows,
)
from kimi_magic.jupyter.doctor_table import GROUPS, Row
from kimi_magic.wire.probe import Failure, Listing, Trip

Rows = Iterable[Row]


def by_check(rows: Rows) -> dict[str, Row]:
    found: dict[str, Row] = {}
    for row in rows:
        assert row.check not in found or row.check == "software.requirements", row.check
        assert row.check.partition(".")[0] in GROUPS
        assert row.found
        assert row.state != "mend" or (row.means and row.do) or row.check.startswith("key."), row
        found[row.check] = row
    return found


def shown(rows: Rows, check: str) -> str:
    """The state and the texts of one row, "" for none."""
    row = by_check(rows).get(check)
    return f"{row.state}: {row.found} | {row.means} | {row.do}" if row else ""


# The endpoint.

CALLS = (ToolCall("call_1", "w", "{}"), ToolCall("call_2", "w", "{}"))
STREAM = Trip(
    status=200,
    skew=0.4,
    wait=0.8,
    span=1.2,
    pieces=9,
    chunks=12,
    is_chat=True,
    reasoning_fields=("reasoning_content",),
    usage_place="last",
    text="9.9",
    reasoning_chars=30,
    usage=Usage(20, 40, 15),
    model="kimi-k3",
    finish_reason="stop",
)
TOOLS = Trip(status=200, is_chat=True, sent_calls=True, calls=CALLS)
STRUCTURED = Trip(status=200, text='{"larger": "9.9"}')
FINE = Findings(
    "lab",
    "https://lab.test/v1",
    "kimi-k3",
    has_key=True,
    window=1000,
    answers="json_schema",
    listing=Listing(("kimi-k3",), {"kimi-k3": 1000}),
    stream=STREAM,
    tools=TOOLS,
    structured=STRUCTURED,
)


def stream(**changes: Any) -> Findings:
    return replace(FINE, stream=replace(STREAM, **changes))


def tools(**changes: Any) -> Findings:
    return replace(FINE, tools=replace(TOOLS, **changes))


def broken(kind: str, status: int | None = None, **changes: Any) -> Findings:
    trip = Trip(failure=Failure(kind, "It failed.", "Do this.", status))
    known = replace(FINE, stream=trip, tools=None, structured=None)
    return replace(known, **changes)


def test_what_was_stopped_is_not_judged() -> None:
    waiting = Trip(stopped=True)
    begun = replace(STREAM, stopped=True, usage=Usage(), model="")
    known = replace(FINE, tools=None, structured=None)
    cases = [
        (Findings("lab", "https://lab.test/v1"), ""),
        (replace(known, listing=None, stream=waiting), "window"),
        (replace(known, stream=waiting), "address window"),
        (replace(known, stream=begun), "address key window clock"),
        (replace(FINE, tools=waiting, structured=None),
         "address key model stream reasoning usage window clock"),
        (replace(FINE, structured=waiting),
         "address key model stream reasoning usage tool_calls call_ids window clock"),
    ]  # fmt: skip
    for facts, checks in cases:
        rows = by_check(endpoint_rows(facts))
        assert " ".join(check.removeprefix("endpoint.") for check in rows) == checks
        assert {row.state for row in rows.values()} <= {"ok"}


REFUSED = Trip(failure=Failure("request", "response_format is unknown", "", 400))


def test_an_endpoint_without_a_flaw() -> None:
    rows = by_check(endpoint_rows(FINE))
    assert {row.state for row in rows.values()} == {"ok"}
    assert not any(row.do for row in rows.values())
    checks = "address key model stream reasoning usage tool_calls call_ids structured window clock"
    assert list(rows) == [f"endpoint.{check}" for check in checks.split()]


@pytest.mark.parametrize(
    ("facts", "check", "words"),
    [
        (stream(pieces=1, span=0.0), "stream", "look: 12 chunks came all at once, after 0.8 s"),
        (stream(pieces=3, span=0.01), "stream", "look: 12 chunks came all at once"),
        (stream(pieces=1, span=0, wait=0.02), "stream", "unknown: the whole stream came at once"),
        (stream(pieces=1, span=0, chunks=2), "stream", "unknown: the whole stream"),
        (stream(wait=0.02, span=0.01), "stream", "ok: it streams: 12 chunks in 9 pieces"),
        (stream(is_whole=True), "stream", "look: the answer came as one document"),
        (stream(reasoning_fields=()), "reasoning", "look: reasoning comes inside the text"),
        (stream(reasoning_fields=("reasoning",)), "reasoning", "ok: reasoning comes as reasoning"),
        (
            stream(reasoning_fields=(), is_chat=False),
            "reasoning",
            "ok: reasoning comes in blocks of its own",
        ),
        (stream(reasoning_fields=(), reasoning_chars=0), "reasoning", "unknown: no reasoning came"),
        (stream(usage=Usage()), "usage", "look: no token counts came"),
        (stream(usage=Usage(9, 5)), "usage", "9 in, 5 out | reasoning is not counted apart"),
        (stream(usage=Usage(9, 5, 2, 4)), "usage", "9 in, 5 out, 2 of reasoning, 4 cached"),
        (stream(usage_place="choice"), "usage", "beside the finish reason"),
        (stream(skew=-70.0), "clock", "look: this machine's clock is 70 s ahead of the server's"),
        (stream(skew=4000.0), "clock", "mend: this machine's clock is 4,000 s behind"),
        (stream(skew=None), "clock", ""),
        (stream(model="Kimi-K3-0716"), "model", "ok: kimi-k3 answers, as Kimi-K3-0716"),
        (
            replace(stream(model="tiny"), same_model=False),
            "model",
            "look: tiny answers where kimi-k3 was asked",
        ),
        (
            replace(FINE, listing=Listing(("a",), {})),
            "model",
            "ok: kimi-k3 answers, although the server does not list it",
        ),
        (replace(FINE, has_key=False), "key", "ok: it answers without a key"),
        (tools(sent_calls=False), "tool_calls", "look: 2 calls came as raw tokens in the text"),
        (tools(sent_indexes=False), "tool_calls", "ok: 2 calls, parsed, whole and without"),
        (tools(calls=()), "tool_calls", "unknown: no tool was called |"),
        (tools(calls=(), finish_reason="length"), "tool_calls", "called, as the answer was cut"),
        (
            tools(calls=(), text="I <|tool_call_begin|>f"),
            "tool_calls",
            "mend: tokens of a call stand in the text: <|tool_call_begin|>",
        ),
        (
            tools(calls=(ToolCall("a", "w", "{"),)),
            "tool_calls",
            "look: the arguments of 1 call are no JSON",
        ),
        (tools(calls=CALLS[:1] * 2), "call_ids", "look: ids of calls are not unique"),
        (tools(calls=CALLS[:1]), "call_ids", "unique (there was one call) | they have the form c"),
        (tools(calls=(ToolCall("", "w", "{}"),)), "call_ids", "ok: calls have no ids"),
        (
            tools(calls=(ToolCall("functions.w:0", "w", "{}"),)),
            "call_ids",
            "they have the form functions.NAME:N",
        ),
        (
            tools(failure=Failure("rate", "429", "Wait.")),
            "tool_calls",
            "look: a request with a tool failed: 429 |",
        ),
        (replace(FINE, structured=REFUSED), "structured", "look: json_schema and json_object are"),
        (
            replace(FINE, structured=REFUSED, any_json=STRUCTURED),
            "structured",
            "look: json_object is taken, json_schema is refused",
        ),
        (
            replace(FINE, structured=REFUSED, any_json=STRUCTURED, answers="json_object"),
            "structured",
            "ok: json_object is taken",
        ),
        (
            replace(FINE, structured=REFUSED, any_json=REFUSED, answers="text"),
            "structured",
            "ok: json_schema and json_object are refused",
        ),
        (replace(FINE, structured=Trip(text="9.9")), "structured", "look: json_schema is taken"),
        (
            replace(FINE, structured=Trip(text="{", finish_reason="length")),
            "structured",
            "unknown: the answer in JSON was cut",
        ),
        (replace(FINE, answers="text"), "structured", "answers='json_schema') has turns ask"),
        (replace(FINE, window=9000), "window", "look: the server's context window has 1,000"),
        (
            replace(FINE, listing=Listing(("kimi-k3",))),
            "window",
            "ok: the server tells no context window; kimi-k3 is known to have 1,000 tokens",
        ),
        (
            replace(FINE, listing=Listing(("kimi-k3",)), is_window_known=False),
            "window",
            "look: the context window is not known",
        ),
        (
            replace(FINE, listing=Listing(failure=Failure("missing", "404 there"))),
            "models",
            "look: no list of models: 404 there",
        ),
        (
            replace(FINE, batch_price=0.6),
            "batch",
            "ok: the Batch API is known to be there | `kimi.map",
        ),
        (replace(FINE, batch_price=0.6), "batch", "for 60% of the price"),
        (stream(is_chat=False, usage=Usage()), "usage", "go by estimates | "),
        (replace(FINE, via="HTTPS_PROXY"), "address", "through the proxy of HTTPS_PROXY"),
        (broken("name"), "address", "mend: It failed. | the name of the host is not found (DNS)"),
        (broken("tls"), "address", "mend: It failed. | TLS fails"),
        (broken("refused"), "address", "| nobody listens at this address and port | Do this."),
        (broken("refused", via="ALL_PROXY"), "address", "| the proxy of ALL_PROXY is not found or"),
        (broken("name"), "address", "check the spelling, the network and the VPN"),
        (
            replace(FINE, wire="messages", structured=REFUSED),
            "structured",
            "look: json_schema is refused | turns ask the server for a schema, and check it",
        ),
        (broken("page"), "address", "| a page of HTML came in place of an answer"),
        (broken("proxy", 407), "address", "mend: It failed. | the proxy on the way"),
        (broken("redirect", 302), "address", "| it leads elsewhere, and no prompt goes there |"),
        (broken("key", 401), "address", "ok: https://lab.test/v1 is reached (HTTP 401)"),
        (broken("key", 401), "key", "mend: It failed. | the key is not accepted | Do this."),
        (broken("missing", 404), "model", "mend: It failed. | the model is not there"),
        (broken("missing", 404), "address", "ok: "),
        (broken("missing", 404, listing=None), "address", "mend: It failed. | nothing answers at"),
        (broken("quota", 402), "answer", "mend: It failed. | the account has nothing left"),
        (broken("here"), "answer", "mend: It failed. | nothing was sent"),
        (broken("silent"), "answer", "| the server is reached, and no answer came in time |"),
        (
            replace(FINE, unsent=("nobody can be asked", "say --yes")),
            "sent",
            "unknown: nothing was sent to lab | nobody can be asked: how it streams",
        ),
        (
            Findings("lab", listing=Listing(failure=Failure("name", "no host"))),
            "address",
            "no host",
        ),
        (Findings("lab"), "address", ""),  # stopped before the first request
        (Findings("lab", "x", listing=Listing(())), "address", "ok: x answers"),
    ],
)
def test_the_facts_of_an_endpoint(facts: Findings, check: str, words: str) -> None:
    told = shown(endpoint_rows(facts), f"endpoint.{check}")
    assert words in told if words else told == ""


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ('{"larger": "9.9"}', True),
        (' {"larger":"9.11"}\n', True),
        ('{"larger": 9.9}', False),
        ('{"larger": "9.9", "why": "x"}', False),
        ('```json\n{"larger": "9.9"}\n```', False),
        ("[" * 100_000, False),
        ("", False),
    ],
)
def test_an_answer_is_kept_to_its_schema(text: str, kept: bool) -> None:
    assert is_kept_to_schema(text) is kept


# This machine.

SOFTWARE = Software(
    "0.1.0",
    "3.12.1",
    "Linux x86_64",
    {"ipykernel": "7.4.0", "ipython": "9.18.1", "ipywidgets": "8.1.9", "jupyterlab": "4.6.6",
     "jupyterlab_widgets": "3.0.17"},
    (),
    {"keyring": [], "dask": ["dask", "distributed"]},
)  # fmt: skip


def with_versions(**changes: str) -> Software:
    return replace(SOFTWARE, versions={**SOFTWARE.versions, **changes})


@pytest.mark.parametrize(
    ("facts", "check", "words"),
    [
        (SOFTWARE, "versions", "ok: ipykernel 7.4.0, ipython 9.18.1, "),
        (SOFTWARE, "requirements", "ok: each library is as new"),
        (replace(SOFTWARE, unmet=None), "requirements", "unknown: "),
        (
            replace(SOFTWARE, unmet=[Unmet("anywidget", ">=0.9.13", "0.9.1")]),
            "requirements",
            "mend: anywidget 0.9.1 is installed | kimi-magic needs anywidget>=0.9.13 | pip install "
            '-U "anywidget>=0.9.13"',
        ),
        (
            replace(SOFTWARE, unmet=[Unmet("mcp", ">=2.0", "1.9", "mcp")]),
            "requirements",
            "mend: mcp 1.9 is installed | the extra mcp needs mcp>=2.0",
        ),
        (
            replace(SOFTWARE, unmet=[Unmet("nh3", ">=0.2.18")]),
            "requirements",
            "mend: no nh3 is installed",
        ),
        (SOFTWARE, "extra_keyring", "ok: the extra keyring"),
        (SOFTWARE, "extra_dask", "unknown: the extra dask is not installed | it is for maps on a"),
        (SOFTWARE, "extra_local", ""),
        (SOFTWARE, "pair_ipykernel", ""),
        (with_versions(ipykernel="6.31.0"), "pair_ipykernel", "look: ipykernel 6.31.0 | clicks"),
        (with_versions(ipython="9.0.2"), "pair_ipython", "look: IPython 9.0.2"),
        (with_versions(ipython="8.37"), "pair_ipython", "look: IPython 8.37"),
        (with_versions(ipython="9.10.1"), "pair_ipython", ""),
        (with_versions(jupyterlab_widgets="1.1.0"), "pair_widgets", "mend: ipywidgets 8.1.9 with"),
        (
            replace(SOFTWARE, versions={"ipywidgets": "8.1.5", "notebook": "7.2"}),
            "pair_widgets",
            "mend: ipywidgets 8.1.5 with no jupyterlab_widgets",
        ),
        (replace(SOFTWARE, versions={"ipywidgets": "8.1.5"}), "pair_widgets", ""),
        (with_versions(jupyterlab="3.6.8", notebook="6.5"), "pair_lab", "jupyterlab 3.6.8, note"),
        (with_versions(dask="2026.8.0", distributed="2026.7.1"), "pair_dask", "mend: dask 2026.8"),
        (with_versions(dask="2026.8.0", distributed="2026.8.0"), "pair_dask", ""),
        (with_versions(ipykernel="unknown"), "pair_ipykernel", ""),
    ],
)
def test_python_and_libraries(facts: Software, check: str, words: str) -> None:
    told = shown(software_rows(facts), f"software.{check}")
    assert words in told if words else told == ""


LAB = FrontEndFinding(
    "kernel",
    "JupyterLab or Notebook",
    "7.4.0",
    stdin=True,
    view="live",
    heard=0.21,
    has_cell_id=True,
    is_named=True,
    extension="0.1.0",
    version="0.1.0",
)


@pytest.mark.parametrize(
    ("facts", "check", "words"),
    [
        (LAB, "kind", "ok: a kernel of Jupyter, under JupyterLab or Notebook | turns are shown as"),
        (LAB, "widgets", "ok: widgets work; a page answered within 0.2 s while the cell ran"),
        (LAB, "stdin", "ok: "),
        (LAB, "cell_id", "ok: "),
        (LAB, "extension", "ok: the extension of JupyterLab, 0.1.0"),
        (LAB, "notebook", ""),
        (replace(LAB, heard=None), "widgets", "look: no page answered while this cell ran"),
        (replace(LAB, heard=None, ipykernel="6.31.0"), "widgets", '"ipykernel>=7.4"'),
        (replace(LAB, widgets="anywidget cannot be imported"), "widgets", "mend: widgets do not"),
        (replace(LAB, view="record", stdin=False), "widgets", "unknown: no widget is used here"),
        (replace(LAB, view="record", stdin=False), "stdin", "look: nobody can be asked anything"),
        (replace(LAB, captured=True, view="record"), "kind", "(the output is captured)"),
        (replace(LAB, setting="plain"), "kind", "turns are shown as plain, by the setting view"),
        (replace(LAB, has_cell_id=False), "cell_id", "look: cells tell no id"),
        (replace(LAB, is_named=False), "notebook", "unknown: the front end does not tell"),
        (replace(LAB, extension=None), "extension", "unknown: the extension of JupyterLab is not"),
        (replace(LAB, extension="0.0.9"), "extension", "look: the extension of JupyterLab is 0.0"),
        (
            FrontEndFinding("shell"),
            "kind",
            "unknown: front end, widgets, clicks, stdin",
        ),
        (FrontEndFinding("terminal", view="terminal"), "kind", "ok: IPython in a terminal"),
    ],
)
def test_the_front_end(facts: FrontEndFinding, check: str, words: str) -> None:
    told = shown(front_end_rows(facts), f"front_end.{check}")
    assert words in told if words else told == ""


# What is set up.

KEYS = [
    KeyFinding("nvidia", "NVIDIA_API_KEY", "the environment variable NVIDIA_API_KEY"),
    KeyFinding("moonshot", "MOONSHOT_API_KEY", is_chosen=True),
    KeyFinding("together", "TOGETHER_API_KEY"),
    KeyFinding("den", problem="The header X-Team needs TEAM."),
    KeyFinding("vllm"),
]


def test_where_each_key_comes_from() -> None:
    rows = by_check(key_rows(KEYS))
    assert {check: row.state for check, row in rows.items()} == {
        "key.moonshot": "mend",
        "key.den": "look",
        "key.nvidia": "ok",
        "key.absent": "unknown",
        "key.not_needed": "ok",
    }
    assert "neither in MOONSHOT_API_KEY nor in a keyring" in rows["key.moonshot"].found
    assert rows["key.absent"].found == "no key for together (TOGETHER_API_KEY)"
    told = shown(key_rows([replace(KEYS[0], is_chosen=True)]), "key.nvidia")
    assert told.startswith("ok: → nvidia: a key from the environment variable NVIDIA_API_KEY |")
    told = shown(key_rows([replace(KEYS[4], is_chosen=True)]), "key.vllm")
    assert told.startswith("ok: → vllm: no key is needed")
    assert shown(key_rows([], "KIMI_BASE_URL: no"), "key.base_url").startswith("mend: KIMI_BASE_U")
    told = shown(key_rows([], nobody="No model is at hand.\nSet one."), "key.chosen")
    assert told == "mend: No model is at hand. | cells cannot ask anybody | Set one."


SOUND = Health(turns=12, size=2_500_000)
KEPT = Kept("/data/journal.sqlite3", SOUND, Disk(9 * 10**9))


@pytest.mark.parametrize(
    ("facts", "check", "words"),
    [
        (KEPT, "journal", "ok: the journal at /data/journal.sqlite3: 12 turns, 2.5 MB, sound |"),
        (replace(KEPT, health=replace(SOUND, checked=False)), "journal", "a part of it was check"),
        (replace(KEPT, health=Health("missing")), "journal", "none yet"),
        (replace(KEPT, health=Health("damaged", "malformed")), "journal", "mend: the journal at"),
        (replace(KEPT, health=Health("foreign")), "journal", "mend: "),
        (replace(KEPT, health=Health("later")), "journal", "pip install -U kimi-magic"),
        (replace(KEPT, health=Health("locked")), "journal", "look: "),
        (replace(KEPT, health=Health("read-only")), "journal", "mend: "),
        (replace(KEPT, health=Health("unreadable", "no right")), "journal", "(no right)"),
        (replace(KEPT, health=replace(SOUND, on_network=True)), "network", "look: "),
        (replace(KEPT, health=replace(SOUND, aside=2)), "aside", "look: 2 damaged journals set as"),
        (Kept(), "journal", "look: the journal is off"),
        (KEPT, "disk", "ok: 9.0 GB of its disk are free"),
        (replace(KEPT, disk=Disk(10**8)), "disk", "look: 100.0 MB of the disk are free"),
        (replace(KEPT, disk=Disk(10**6)), "disk", "mend: 1.0 MB"),
        (replace(KEPT, disk=Disk(problem="/data cannot be written")), "disk", "mend: /data cannot"),
        (replace(KEPT, disk=Disk()), "disk", ""),
        (replace(KEPT, maps=3, map_bytes=4200), "maps", "ok: 3 maps with kept answers, 0.0 MB"),
        (KEPT, "maps", ""),
        (
            replace(KEPT, tape=TapeFinding("a.tape", "new", 2)),
            "tape",
            "ok: the tape a.tape is on: 2 recorded exchanges, mode new |",
        ),
        (replace(KEPT, tape=TapeFinding("a", "none")), "tape", "look: the tape a is on: 0 record"),
        (replace(KEPT, tape=TapeFinding("a", problem="line 3")), "tape", "mend: the tape a: line"),
        (replace(KEPT, keeps=True), "answers", "ok: answers are kept beside the notebook"),
    ],
)
def test_what_is_kept(facts: Kept, check: str, words: str) -> None:
    told = shown(kept_rows(facts), f"kept.{check}")
    assert words in told if words else told == ""


ENGINE = EngineFinding(True, "/cache/w.gguf", "/cache", disk=Disk(9 * 10**9), memory=8 * 10**9)


@pytest.mark.parametrize(
    ("facts", "check", "words"),
    [
        (ENGINE, "weights", "ok: the practice model is at /cache/w.gguf"),
        (ENGINE, "disk", ""),
        (ENGINE, "memory", ""),
        (EngineFinding(False), "engine", "unknown: the embedded engine is not installed"),
        (replace(ENGINE, weights=""), "weights", "unknown: the practice model is not in /cache"),
        (replace(ENGINE, weights="", disk=Disk(10**8)), "disk", "look: 100.0 MB of the disk are"),
        (replace(ENGINE, own="a.gguf"), "model", "ok: its model is a.gguf"),
        (replace(ENGINE, own="a.gguf", own_is_there=False), "model", "mend: its model a.gguf is"),
        (replace(ENGINE, memory=10**8), "memory", "look: 100.0 MB of memory are free"),
    ],
)
def test_the_practice_model(facts: EngineFinding, check: str, words: str) -> None:
    told = shown(local_rows(facts), f"local.{check}")
    assert words in told if words else told == ""


@pytest.mark.parametrize(
    ("rows", "check", "words"),
    [
        (environment_rows(Environment()), "environment.proxies", "ok: no proxy"),
        (
            environment_rows(Environment({"HTTPS_PROXY": "http://[account]@p:1"}, "b")),
            "environment.https_proxy",
            "ok: HTTPS_PROXY is http://[account]@p:1",
        ),
        (
            environment_rows(Environment({"ALL_PROXY": "socks5://p"}, lacks_socks=True)),
            "environment.socks",
            "pip install socksio",
        ),
        (
            environment_rows(Environment(certificates={"SSL_CERT_FILE": ("/no", False)})),
            "environment.ssl_cert_file",
            "mend: SSL_CERT_FILE is /no, which is not there",
        ),
        (
            environment_rows(Environment(problems=["KIMI_VIEW='x' does not fit"])),
            "environment.variable",
            "mend: KIMI_VIEW='x' does not fit",
        ),
    ],
)
def test_the_environment(rows: Rows, check: str, words: str) -> None:
    assert words in shown(rows, check)
