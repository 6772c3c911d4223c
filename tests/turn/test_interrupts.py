"""An interrupt at any moment of a turn leaves a frozen record, a legal chat and TurnInterrupted."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest

import kimi_magic as kimi
from kimi_magic.core.errors import KimiError, TurnInterrupted
from kimi_magic.core.events import Envelope, Event, ToolFinished, TurnFinished
from kimi_magic.display.view import ViewOptions
from kimi_magic.session import Session
from kimi_magic.testing import ScriptedServer, check_messages
from kimi_magic.turn.request import TurnRequest
from kimi_magic.turn.sinks import ChatSink
from tests.kernels import Kernel

CALL = {"name": "add", "arguments": {"a": 1, "b": 2}}


def add(a: int, b: int) -> int:
    """Add two numbers."""
    time.sleep(0.01)
    return a + b


class Recorder:
    """A view that notes what it was handed, and can interrupt in the middle of an event."""

    def __init__(self, during: int = -1) -> None:
        self.during = during
        self.events: list[str] = []
        self.closed = 0

    def handle(self, envelope: Envelope) -> None:
        if len(self.events) == self.during:
            signal.raise_signal(signal.SIGINT)
        self.events.append(type(envelope.event).__name__)

    def tick(self) -> None:
        """Nothing is put off."""

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def watch(session: Session, monkeypatch: pytest.MonkeyPatch) -> Callable[[Recorder], None]:
    def show_in(view: Recorder) -> None:
        monkeypatch.setattr("kimi_magic.session.open_view", lambda *_: view)

    return show_in


def ask(session: Session) -> None:
    request = TurnRequest("Add", chat="main", tools=[add])
    session.ask(request, show=True, options=ViewOptions())


def script(server: ScriptedServer) -> None:
    """A long turn: a failed request, two steps with calls, one side notice, and an answer."""
    server.error(503, "busy", headers={"Retry-After": "0.05"})
    server.reply("One moment. ", reasoning="Add them.", tool_calls=[CALL, CALL])
    server.reply("", reasoning="Once more.", tool_calls=[CALL])
    server.reply("It is three, and three.", reasoning="So.")


def check_chat(session: Session) -> None:
    messages = session.chats.get("main").messages
    follow_up = [*messages, {"role": "user", "content": "Next?"}]
    assert check_messages(follow_up) == []


def test_an_interrupt_at_each_event_of_a_long_turn(
    server: ScriptedServer, session: Session, watch: Callable[[Recorder], None]
) -> None:
    whole = Recorder()
    watch(whole)
    script(server)
    ask(session)
    assert whole.closed == 1
    assert "Retrying" in whole.events
    assert whole.events.count("ToolFinished") == 3
    for number in range(len(whole.events)):
        session.chats.clear()
        view = Recorder(during=number)
        watch(view)
        server._script.clear()
        script(server)
        with pytest.raises(TurnInterrupted) as caught:
            ask(session)
        assert view.events[-1] == "TurnFinished", f"interrupted in {whole.events[number]}"
        assert view.closed == 1
        assert caught.value.reply is kimi.last
        check_chat(session)
    server._script.clear()


RANDOM = """
import contextlib, random, signal, threading, time
from kimi_magic.testing import ScriptedServer, check_messages
from kimi_magic.core.errors import TurnInterrupted

chance, main = random.Random(5), threading.main_thread().ident
rounds = interrupted = 0

def add(a: int, b: int) -> int:
    time.sleep(0.01)
    return a + b

def one_round(server):
    global interrupted
    server.error(503, "busy", headers={"Retry-After": "0.05"})
    call = {"name": "add", "arguments": {"a": 1, "b": 2}}
    server.reply("One moment.", reasoning="Add them.", tool_calls=[call, call])
    server.reply("Three.", reasoning="So.")
    over = threading.Event()
    # Now and then two, a moment apart: the second comes while the first is dealt with.
    pauses = [chance.uniform(0, 0.15)] + [chance.uniform(0, 0.002)] * (rounds % 3 == 0)

    def interrupt():
        for pause in pauses:
            if over.wait(pause):
                return
            signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    began = False
    with contextlib.suppress(KeyboardInterrupt):  # outside of the turn it is our own
        thread.start()
        try:
            kimi.ask("Add", tools=[add], chat="main", show=True)
        except TurnInterrupted as error:
            interrupted += 1
            if error.reply is not None:
                assert error.reply is kimi.last
        over.set()
    over.set()
    while thread.is_alive():
        with contextlib.suppress(KeyboardInterrupt):
            thread.join()
    assert check_messages([*kimi.chat().messages, {"role": "user", "content": "Next?"}]) == []

until = time.monotonic() + 25
server = ScriptedServer(strict=False).__enter__()
kimi.settings.endpoint = server.base_url
while time.monotonic() < until + 60 * (interrupted <= 10):  # a busy machine takes longer
    server._script.clear()
    one_round(server)
    rounds += 1
    kimi.chat().reset()
server._script.clear()
server.__exit__(None, None, None)
print(rounds, interrupted)
"""


def test_interrupts_at_random_times(kernel: Kernel) -> None:
    """In a real kernel, whose turns are shown; whatever is open is frozen."""
    ran = kernel.run(RANDOM, timeout=100, allow_stdin=True)
    rounds, interrupted = map(int, ran.stdout.split())
    assert rounds >= interrupted > 10, "they come while the turn runs"
    shown = kernel.run("kimi.ask('Hi', endpoint='local', show=True, max_tokens=5)")
    assert shown.record, "the kernel works on"


def test_an_interrupt_under_stream(
    server: ScriptedServer, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the turn works it is held, and comes before the next event."""
    handle = ChatSink.handle

    def interrupted(self: ChatSink, envelope: Envelope) -> None:
        handle(self, envelope)
        if isinstance(envelope.event, ToolFinished):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(ChatSink, "handle", interrupted)
    script(server)
    events: list[Event] = []
    with pytest.raises(TurnInterrupted) as caught:
        events.extend(kimi.stream("Add", tools=[add], chat="main"))
    server._script.clear()
    assert caught.value.reply is kimi.last is session.last
    assert session.last is not None
    assert len(session.last.tool_calls) == 2
    check_chat(session)


def test_between_two_events_of_a_stream_an_interrupt_is_the_consumers(
    server: ScriptedServer, session: Session
) -> None:
    server.reply("OK")
    handler = signal.getsignal(signal.SIGINT)
    for _ in kimi.stream("Hi"):
        assert signal.getsignal(signal.SIGINT) == handler


def test_a_sink_that_fails_is_reported_once_and_the_turn_goes_on(
    server: ScriptedServer,
    session: Session,
    watch: Callable[[Recorder], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(Recorder):
        def handle(self, envelope: Envelope) -> None:
            super().handle(envelope)
            if isinstance(envelope.event, TurnFinished) or len(self.events) == 3:
                raise RuntimeError("the page is gone")

    view = Broken()
    watch(view)
    script(server)
    ask(session)
    assert session.last is not None
    assert session.last.text == "It is three, and three."
    assert len(session.chats.get("main").turns) == 1
    assert len(view.events) == 3, "it hears no more"
    assert view.closed == 1, "what it shows is frozen as far as it came"
    (record,) = caplog.records
    assert "Broken failed" in record.getMessage()
    assert "the page is gone" in record.getMessage()


def test_a_turn_that_fails_is_closed_as_well(
    server: ScriptedServer, session: Session, watch: Callable[[Recorder], None]
) -> None:
    view = Recorder()
    watch(view)
    server.error(400, "no")
    with pytest.raises(KimiError):
        ask(session)
    assert view.events[-1] == "TurnFinished"
    assert view.closed == 1
