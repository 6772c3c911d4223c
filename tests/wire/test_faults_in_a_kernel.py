"""Failures on the way as a person sees them, from a real kernel; and the next cell works.

The rows are the fault table of the project: what happens, what is said, whether it is asked again.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from kimi_magic.testing import ScriptedServer
from tests.faulty import EVENTS, Answer, answering, refusing, resetting
from tests.kernels import Kernel, Ran

KEY = "-".join(["nvapi", "0123456789" + "abcdefghij" + "KLMNOP"])
CAME = (
    b'data: {"choices":[{"delta":{"reasoning_content":"Well now.","content":"Half an ans"}}]}\n\n'
)
STREAM_ERROR = b'data: {"error":{"message":"Stream failed","type":"server_error"}}\n\n'
Break = Callable[[ScriptedServer, ExitStack], str | None]


@dataclass(frozen=True)
class Fault:
    """A row of the table.

    Attributes
    ----------
    name : str
    happens : callable
        Brings it about, as often as it is asked; gives the address, None for the server's own.
    says : str
        What the error says, in pieces.
    again : bool
        Whether the request goes out again.
    kept : bool
        Whether some of an answer had come, which is kept.
    dialect : str
        Of the server.
    settings : Mapping
        Those that the row needs.
    """

    name: str
    happens: Break
    says: tuple[str, ...]
    again: bool = False
    kept: bool = False
    dialect: str = "moonshot"
    settings: Mapping[str, float] = field(default_factory=dict)


def error(status: int, message: str, **more: Any) -> Break:
    """The server refuses, both times it may be asked."""

    def happens(server: ScriptedServer, stack: ExitStack) -> None:
        for _ in range(2):
            server.error(status, message, **more)

    return happens


def bytes_(*items: bytes, **more: Any) -> Break:
    """The server answers with these bytes, both times it may be asked."""

    def happens(server: ScriptedServer, stack: ExitStack) -> None:
        for _ in range(2):
            server.raw(items, **more)

    return happens


def elsewhere(opened: Callable[[], AbstractContextManager[str]]) -> Break:
    return lambda server, stack: stack.enter_context(opened())


def answers(*given: Answer) -> Break:
    """Another server answers with the first of these, then the next; with the last for ever."""

    def happens(server: ScriptedServer, stack: ExitStack) -> str:
        left = [*given]
        url, _ = stack.enter_context(answering(lambda _: left.pop(0) if len(left) > 1 else left[0]))
        return url

    return happens


def redirected(server: ScriptedServer, stack: ExitStack) -> str:
    """To a server of another name."""
    other = server.base_url.replace("127.0.0.1", "localhost")
    moved = Answer(307, headers={"Location": f"{other}/chat/completions"})
    return stack.enter_context(answering(lambda _: moved))[0]


def over_tls(server: ScriptedServer, stack: ExitStack) -> str:
    return server.base_url.replace("http:", "https:")


def looked_up(server: ScriptedServer, stack: ExitStack) -> str:
    return "http://no-such-host.invalid/v1"


REACH = ("could not be reached", "KIMI_BASE_URL")
SOON = {"Retry-After": "0.1"}
LATER = "run the cell again later"
TRANSPORT = [
    Fault("refused", elsewhere(refusing), (*REACH, "http://127.0.0.1:", "refused"), again=True),
    Fault(
        "reset", elsewhere(resetting), ("http://127.0.0.1:", "broke", "KIMI_BASE_URL"), again=True
    ),
    Fault(
        "no such host", looked_up, (*REACH, "no-such-host"), True, settings={"connect_timeout": 1}
    ),
    Fault("no TLS there", over_tls, (*REACH, "https://127.0.0.1:", "speak https"), again=True),
    Fault("redirected", redirected, ("redirects to http://localhost:", "nothing was sent there")),
]

SILENT = {"first_token_timeout": 0.3}
STREAMS = [
    Fault("no first token", bytes_(CAME, delay=20), ("no first token", "first_token_timeout"),
          settings=SILENT),
    Fault("comments alone", bytes_(*[b": wait\n\n"] * 999, rate=100),
          ("no first token", "first_token_timeout"), settings=SILENT),
    Fault("a stall", bytes_(CAME, b"", stall_after=1), ("stopped in the middle", "is kept",
          "stall_timeout"), kept=True, settings={"stall_timeout": 0.3}),
    Fault("a cut", bytes_(CAME, b"", cut_after=1), ("broke", "is kept"), kept=True),
    Fault("an error at once", bytes_(STREAM_ERROR), ("Stream failed", LATER), again=True),
    Fault("an error later", bytes_(CAME, STREAM_ERROR), ("Stream failed", "is kept"), kept=True),
    Fault("an error in another shape",
          bytes_(CAME, b'data: {"status":500,"title":"Server Error","detail":"it broke"}\n\n'),
          ("Server Error: it broke", "is kept"), kept=True),
    Fault("bad JSON", bytes_(CAME, b"data: {broken\n\n"), ("{broken", "is kept"), kept=True),
    Fault("a page", bytes_(b"<html><title>Welcome to nginx</title>", content_type="text/html"),
          ("Welcome to nginx", "/v1")),
    Fault("nothing", bytes_(b"", content_type=EVENTS), ("an empty body", "/v1")),
    Fault("no body", answers(Answer()), ("an empty body", "/v1")),
    Fault("words", bytes_(b'"Loading"', content_type="application/json"), ("Loading", "/v1")),
    Fault("no choice", bytes_(b'{"message":"soon"}', content_type="application/json"), ("soon",)),
    Fault("the end at once", bytes_(b"data: [DONE]\n\n"), ("before it began",), again=True),
    Fault("not gzip", bytes_(b"plain", headers={"Content-Encoding": "gzip"}), ("cannot be read",)),
    Fault("queued", answers(Answer(202)), ("queued", "202", "again later")),
    Fault("queued, then failed",
          answers(Answer(202, headers={"NVCF-REQID": "1"}), Answer(422, b'{"detail":"it broke"}')),
          ("answered 422", "it broke")),
]  # fmt: skip


def refusals(dialect: str) -> Iterator[Fault]:
    """Refusals of a server with an error status, in its own shape."""

    def row(name: str, status: int, message: str, *says: str, **more: Any) -> Fault:
        again = more.pop("again", False)
        return Fault(
            f"{dialect}: {name}",
            error(status, message, **more),
            (f"answered {status}", message, *says),
            again=again,
            dialect=dialect,
        )

    yield row("a bad request", 400, "temperature is too high", "Change what the server names")
    yield row("an unknown key", 401, "Invalid Authentication", "variable KIMI_API_KEY", "keyring")
    yield row("a right that lacks", 403, "Not for you", "variable KIMI_API_KEY")
    yield row("no such model", 404, "Not found the model", "kimi-k2-thinking-0905", "-m NAME")
    yield row("too many requests", 429, "Slow down", "wait a little", again=True, headers=SOON)
    yield row(
        "a wait of an hour", 429, "Come back", "wait 3,600 s", headers={"Retry-After": "3600"}
    )
    yield row("a failure", 500, "Something broke", LATER, again=True, headers=SOON)
    yield row("an overload", 503, "Loading model", LATER, again=True, headers=SOON)


def kind(name: str, status: int, type_: str, *says: str, again: bool = False) -> Fault:
    happens = error(status, "In its own words.", type=type_)
    return Fault(f"moonshot: {name}", happens, ("In its own words.", *says), again=again)


KINDS = [
    kind("quota", 429, "exceeded_current_quota_error", "quota is used up", "billing"),
    kind("overloaded", 429, "engine_overloaded_error", "run the cell again", again=True),
    kind("filtered", 400, "content_filter", "content filter", "rephrase"),
    kind("too long", 400, "context_length_exceeded", "%kimi reset"),
    Fault("nvidia: degraded", error(400, "Function id 'f': DEGRADED function cannot be invoked"),
          ("Bad Request: Function id 'f': DEGRADED function", LATER), True, dialect="nvidia"),
    Fault("nvidia: not for this account", error(404, "Function 'f': Not found for account 'a'"),
          ("for account '[account]'", "kimi-k2-thinking-0905"), dialect="nvidia"),
    Fault("openrouter: unpaid", error(402, "Insufficient credits"), ("credits", "billing"),
          dialect="openrouter"),
    Fault("a gateway's page", bytes_(b"<html><title>502 Bad Gateway</title>", status=502,
          content_type="text/html"), ("answered 502: 502 Bad Gateway", LATER), again=True),
    Fault("no words", bytes_(b"", status=504), ("answered 504: no words", LATER), again=True),
    Fault("10,000 words", error(500, "word " * 10_000, headers=SOON), ("word", LATER), again=True),
    Fault("escapes", error(500, "\x1b[31mred\x1b[0m \u202etxet\n\n\n\n\nmore", headers=SOON),
          ("more",), again=True),
]  # fmt: skip

CAME_IN_BLOCKS = (
    b'data: {"type":"message_start","message":{"role":"assistant","content":[]}}\n\n'
    b'data: {"type":"content_block_start","index":0,'
    b'"content_block":{"type":"thinking","thinking":"Well now."}}\n\n'
    b'data: {"type":"content_block_start","index":1,'
    b'"content_block":{"type":"text","text":"Half an ans"}}\n\n'
)
OVERLOADED = (
    b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Full"}}\n\n'
)


def of_blocks(name: str, happens: Break, *says: str, **more: Any) -> Fault:
    return Fault(f"anthropic: {name}", happens, says, dialect="anthropic", **more)


MESSAGES = [
    of_blocks("an overload", error(529, "Overloaded", headers=SOON), "answered 529: Overloaded",
              LATER, again=True),
    of_blocks("too long", error(400, "prompt is too long: 9 tokens > 8 maximum"), "%kimi reset"),
    of_blocks("no such model", error(404, "model: kimi-k2-thinking"), "kimi-k2-thinking-0905",
              "-m NAME"),
    of_blocks("an unknown key", error(401, "invalid x-api-key"), "variable KIMI_API_KEY"),
    of_blocks("an error at once", bytes_(OVERLOADED), "broke off: Full", LATER, again=True),
    of_blocks("an error later", bytes_(CAME_IN_BLOCKS, OVERLOADED), "Full", "is kept", kept=True),
    of_blocks("a cut", bytes_(CAME_IN_BLOCKS, b"", cut_after=1), "broke", "is kept", kept=True),
]  # fmt: skip

DIALECTS = ("moonshot", "nvidia", "openrouter", "vllm", "sglang")
REFUSALS = (row for name in DIALECTS for row in refusals(name))
FAULTS = [*TRANSPORT, *STREAMS, *KINDS, *REFUSALS, *MESSAGES]


def ask(kernel: Kernel, url: str, prompt: str, **how: Any) -> Ran:
    """Run a cell that asks the server at that address."""
    kernel.run(f"%env KIMI_BASE_URL={url}")
    return kernel.run(f"%%kimi -m kimi-k2-thinking\n{prompt}", allow_stdin=True, **how)


def next_cell_works(kernel: Kernel, *, kept: bool) -> None:
    """The history that goes out is one that a strict server takes, and it holds what was kept."""
    kernel.run("kimi.settings.first_token_timeout = kimi.settings.stall_timeout = 60")
    with ScriptedServer() as server:
        server.reply("Better.")
        assert "Better." in ask(kernel, server.base_url, "Again").record["text/plain"]
    said = [message["content"] for message in server.requests[0].body["messages"][1:]]
    assert said == (["Go", "Half an ans", "Again"] if kept else ["Again"])


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_a_fault(fault: Fault, kernel: Kernel) -> None:
    kernel.run(f"import os; os.environ['KIMI_API_KEY'] = {KEY!r}; kimi.settings.retries = 1")
    for name, value in fault.settings.items():
        kernel.run(f"kimi.settings.{name} = {value}")
    with ExitStack() as stack:
        models = ["kimi-k2-thinking-0905", "another"]
        server = ScriptedServer(fault.dialect, models=models)
        stack.enter_context(server)
        url = fault.happens(server, stack) or server.base_url
        ran = ask(kernel, url, "Go", ok=False, timeout=20)
        posts = [request for request in server.requests if request.method == "POST"]
        server._script.clear()  # what was scripted for a second time
    assert ran.status == "error"
    record = ran.record["text/plain"]
    for words in fault.says:
        assert words in record
    name = ran.reply["ename"]
    assert ran.error == f"{name}: see above.", "it is told in one place"
    assert record.count(f"[{name}: ") == 1
    notice = record.partition(f"[{name}: ")[2].partition("]\n")[0]
    assert 1 <= len(notice.splitlines()) <= 4
    assert len(notice) <= 2000
    assert "Traceback" not in ran.error
    assert not {"\x1b", "\u202e"} & set(record)
    assert ("Tried 2 times." in record) == fault.again
    if posts:
        assert len(posts) == 1 + fault.again
    assert ("Half an ans" in record) == ("%kimi continue" in record) == fault.kept
    kept = "Well now.|Half an ans" if fault.kept else "|"
    kernel.run(f"assert kimi.last.reasoning + '|' + kimi.last.text == {kept!r}")
    kernel.run("assert kimi.last.error is not None and kimi.last.finish_reason is None")
    leaks = {KEY[at : at + 12] for at in range(len(KEY) - 11)}
    assert not any(leak in str(ran.messages) for leak in leaks)
    next_cell_works(kernel, kept=fault.kept)


def test_a_proxy_that_is_not_there(kernel: Kernel) -> None:
    with refusing() as nobody:
        proxy = nobody.removesuffix("/v1").replace("//", "//me:password@")
        kernel.run(f"import os; os.environ['http_proxy'] = {proxy!r}; kimi.settings.retries = 0")
        try:
            ran = ask(kernel, "http://lab.invalid/v1", "Go", ok=False)
        finally:
            kernel.run("del os.environ['http_proxy']")
    assert "http://lab.invalid/v1 could not be reached" in ran.told
    assert "HTTP_PROXY puts a proxy in between" in ran.told
    assert "password" not in str(ran.messages)
    next_cell_works(kernel, kept=False)


@pytest.mark.parametrize("shown", [KEY, KEY[:18] + "***", "…" + KEY[-14:]])
def test_a_key_that_the_server_echoes_is_not_shown(shown: str, kernel: Kernel) -> None:
    kernel.run(f"import os; os.environ['KIMI_API_KEY'] = {KEY!r}")
    echo = json.dumps({"error": {"message": f"Incorrect API key provided: {shown}."}}).encode()
    in_stream = Answer(200, b"data: " + echo + b"\n\n", EVENTS)
    in_words = Answer(200, f"<title>{shown}</title>".encode(), "text/html")
    kernel.run("kimi.settings.retries = 0")
    left = [Answer(401, echo), Answer(500, echo), in_stream, in_words]
    with answering(lambda _: left.pop()) as (url, requests):
        while left:
            ran = ask(kernel, url, "Go", ok=False)
            assert "[key]" in ran.told
            after = kernel.run("print(repr(kimi.last.error), kimi.last, vars(kimi.last.error))")
            told = str(ran.messages) + str(after.messages)
            assert not any(KEY[at : at + 12] in told for at in range(len(KEY) - 11))
    assert {asked.headers["Authorization"] for asked in requests} == {f"Bearer {KEY}"}


@pytest.mark.parametrize(
    "code",
    [
        "%%kimi\n{{ int(key) }}",
        "kimi.ask('x', schema=key)",
        "kimi.ask('x', variables=[key])",
        "kimi.ask('x', stop=[key, 3])",
        "kimi.Toolset([key])",
        "kimi.chat(key)\n%kimi chats",
        "kimi.add_endpoint(name=key, base_url='http://lab.invalid/v1')\n%kimi endpoints",
        "@kimi.tool(description=key)\ndef g(): ...\n%kimi tools",
        "try: kimi.Toolset([key])\nexcept kimi.KimiError as error: print(repr(error), error)",
    ],
)
def test_a_key_in_the_wrong_place_is_not_shown(code: str, kernel: Kernel) -> None:
    kernel.run(f"import os; os.environ['KIMI_API_KEY'] = key = {KEY!r}")
    shown = kernel.run(code, ok=False).of("stream", "error", "display_data")
    kernel.run("import kimi_magic.tools.decorator as o; o.offered.clear()")
    assert "[key]" in str(shown)
    assert KEY[4:-4] not in str(shown)


@pytest.mark.parametrize(
    ("reason", "says"),
    [
        ("length", "--max-tokens"),
        ("content_filter", "content filter ended the answer"),
        ("network_error", "ended the answer early (network_error)"),
        (None, "ended the answer early"),
    ],
)
def test_an_answer_that_ended_otherwise_says_so(
    reason: str | None, says: str, kernel: Kernel, asked: ScriptedServer
) -> None:
    end = json.dumps({"choices": [{"delta": {}, "finish_reason": reason}]})
    asked.raw([CAME, f"data: {end}\n\n".encode()])
    record = kernel.run("%%kimi\nGo", allow_stdin=True).record["text/plain"]
    assert "Half an ans" in record
    assert says in record
    assert "%kimi continue" in record
    kernel.run(f"assert kimi.last.finish_reason == {reason!r} and kimi.last.error is None")
    next_cell_works(kernel, kept=True)


def test_an_interrupt_while_the_answer_is_pending(kernel: Kernel) -> None:
    with answering(lambda _: Answer(202, headers={"NVCF-REQID": "1"})) as (url, requests):

        def interrupt() -> None:
            while len(requests) < 2:
                time.sleep(0.01)
            kernel.interrupt()

        threading.Thread(target=interrupt).start()
        ran = ask(kernel, url, "Go", ok=False)
    assert ran.reply["ename"] == "TurnInterrupted"
    next_cell_works(kernel, kept=False)
