"""Heavy mode: several trajectories, a vote, and one pass that aggregates them."""

from __future__ import annotations

import json
import signal
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

import kimi_magic as kimi
from kimi_magic.chats.journal_fragments import Fragments, recovered
from kimi_magic.core.events import (
    Aggregating,
    ContentDelta,
    Envelope,
    LaneEvent,
    LanesStarted,
    Notice,
    ReasoningDelta,
    RequestStarted,
    Retrying,
    TurnFinished,
    TurnPrepared,
    TurnStarted,
)
from kimi_magic.core.messages import Message
from kimi_magic.core.reply import Reply
from kimi_magic.core.turn_record import TurnRecord
from kimi_magic.display.record import record_of
from kimi_magic.secrets.redact import Redactor
from kimi_magic.session import Session
from kimi_magic.testing import ScriptedServer
from kimi_magic.tools.decorator import offered as kimi_tools
from kimi_magic.turn.aggregation import aggregation_message
from kimi_magic.turn.agreement import final_answer, take_vote
from kimi_magic.turn.heavy import HeavyTurn
from kimi_magic.turn.request import make_request
from kimi_magic.turn.sinks import ChatSink, JournalSink
from kimi_magic.wire.endpoints import Endpoint
from tests.turns import make_reply


def script(server: ScriptedServer, *answers: str, final: str = "It is 9.9.") -> None:
    for answer in answers:
        server.reply(answer, reasoning=f"I think {answer}")
    server.reply(final, reasoning="They part at the tenths.")


def test_trajectories_are_aggregated(server: ScriptedServer) -> None:
    script(server, "Answer: 9.9", "The answer is: **9.90**", "9.11")
    reply = kimi.ask("Which is bigger?", heavy=3, chat="main", show=False)
    assert reply.text == "It is 9.9."
    assert {each.text for each in reply.trajectories} == {
        "Answer: 9.9", "The answer is: **9.90**", "9.11",
    }  # fmt: skip
    assert list(reply.agreement.values()) == [pytest.approx(2 / 3), pytest.approx(1 / 3)]
    assert reply.usage.requests == 4
    asked = server.requests[-1].body["messages"][-1]["content"]
    assert asked.count("Which is bigger?") == 2
    for each in reply.trajectories:
        assert each.text in asked
        assert each.reasoning in asked
    assert all(r.body["messages"][-1]["content"] == "Which is bigger?" for r in server.requests[:3])
    # The chat goes on with the question and its answer alone.
    (turn,) = kimi.chat().turns
    assert turn.reply is reply
    assert [m["content"] for m in reply.messages[-2:]] == ["Which is bigger?", "It is 9.9."]
    server.reply("Yes.")
    kimi.ask("Sure?", chat="main", show=False)
    assert [m["content"] for m in server.requests[-1].body["messages"][-3:]] == [
        "Which is bigger?", "It is 9.9.", "Sure?",
    ]  # fmt: skip
    again = Reply.from_dict(json.loads(json.dumps(reply.to_dict())))
    assert [each.text for each in again.trajectories] == [r.text for r in reply.trajectories]
    assert again.agreement == reply.agreement


def test_its_events(server: ScriptedServer) -> None:
    script(server, "a", "a")
    events = list(kimi.stream("x", heavy=2))
    (announced,) = (e.text for e in events if isinstance(e, Notice))
    assert announced.startswith("Heavy mode: 2 trajectories and an aggregation, 3 requests")
    assert sum(isinstance(e, LanesStarted) for e in events) == 1
    assert {e.lane for e in events if isinstance(e, LaneEvent)} == {1, 2}
    assert sum(isinstance(e, TurnFinished) for e in events) == 1
    assert isinstance(events[-1], TurnFinished)
    (aggregating,) = (e for e in events if isinstance(e, Aggregating))
    assert aggregating.agreement == {"a": (1, 2)}


def test_data_are_compared_as_data(server: ScriptedServer) -> None:
    for text in ('{"n": 1, "w": "x"}', '{"w": "x", "n": 1}', '{"n": 2, "w": "x"}'):
        server.reply(text)
    server.reply('{"n": 1, "w": "x"}')
    reply = kimi.ask("x", heavy=3, schema="n int, w", show=False)
    assert sorted(reply.agreement.values()) == [pytest.approx(1 / 3), pytest.approx(2 / 3)]
    assert reply.data == {"n": 1, "w": "x"}


def test_how_answers_are_compared_can_be_given(server: ScriptedServer) -> None:
    script(server, "yes, since", "yes, because", "no")
    reply = kimi.ask("x", heavy=3, equal=lambda a, b: a[0] == b[0], show=False)
    assert sorted(reply.agreement.values()) == [pytest.approx(1 / 3), pytest.approx(2 / 3)]


def test_some_may_fail(server: ScriptedServer) -> None:
    server.error(400, "No.")
    script(server, "a", "b", "a")
    reply = kimi.ask("x", heavy=4, show=False)
    assert reply.text == "It is 9.9."
    assert sum(each.error is not None for each in reply.trajectories) == 1
    assert sum(reply.agreement.values()) == pytest.approx(1)


def test_too_few_are_aggregated_on_request(server: ScriptedServer) -> None:
    for _ in range(3):
        server.error(400, "No.")
    server.reply("a")
    server.reply("b")
    with pytest.raises(kimi.KimiError, match=r"2 of 5 trajectories .*No\.") as caught:
        kimi.ask("x", heavy=5, chat="main", show=False)
    assert "%kimi continue" in str(caught.value)
    assert caught.value.reply is not None
    assert len(caught.value.reply.trajectories) == 5


def test_a_judge_that_fails_leaves_the_majority(server: ScriptedServer) -> None:
    for text in ("a", "b", "b"):
        server.reply(text)
    server.error(400, "I judge nothing.")
    notices = [e.text for e in kimi.stream("x", heavy=3, chat="main") if isinstance(e, Notice)]
    reply = kimi.last
    assert reply is not None
    assert (reply.text, reply.error) == ("b", None)
    assert "I judge nothing" in notices[-1]
    assert "majority" in notices[-1]
    assert reply.messages[-1]["content"] == "b"


def test_a_judge_that_says_nothing_leaves_the_majority(server: ScriptedServer) -> None:
    for text in ("a", "b", "b"):
        server.reply(text)
    for _ in range(2):
        server.reply("", reasoning="I wonder.")
    notices = [e.text for e in kimi.stream("x", heavy=3) if isinstance(e, Notice)]
    assert kimi.last is not None
    assert kimi.last.text == "b"
    assert "its answer is empty" in notices[-1]


def test_it_may_stop_early(server: ScriptedServer) -> None:
    for _ in range(2):
        server.reply("a")
    for _ in range(3):
        server.reply("never heard", delay=30)
    server.reply("a, then")

    def equal(one: str, other: str) -> bool:
        while len(server.requests) < 5:  # all are on their way
            time.sleep(0.01)
        return one == other

    events = list(kimi.stream("x", heavy=5, until_agree=2, equal=equal))
    reply = kimi.last
    assert reply is not None
    assert reply.text == "a, then"
    assert reply.agreement == {"a": 1.0}
    assert any("stopped early" in e.text for e in events if isinstance(e, Notice))


def test_an_interrupt_keeps_those_that_ended(server: ScriptedServer, session: Session) -> None:
    for text in ("a", "b"):
        server.reply(text)
    server.reply("slow " * 100, rate=50)

    calls = []

    def equal(one: str, other: str) -> bool:
        while len(server.requests) < 3:
            time.sleep(0.01)
        calls.append(one)
        if len(calls) == 1:
            signal.raise_signal(signal.SIGINT)
        return one == other

    with pytest.raises(kimi.TurnInterrupted):
        kimi.ask("x", heavy=3, chat="main", until_agree=3, equal=equal, show=False)
    reply = session.last
    assert reply is not None
    assert sorted(each.text for each in reply.trajectories if each.error is None) == ["a", "b"]
    assert sum(isinstance(each.error, kimi.TurnInterrupted) for each in reply.trajectories) == 1
    server.reply("both")
    again = session.ask(session.to_continue("main"), show=False)
    assert again.text == "both"
    assert len(again.trajectories) == 2
    asked = server.requests[-1].body["messages"][-1]["content"]
    assert "2 independent attempts" in asked
    assert [m["content"] for m in again.messages[-2:]] == ["x", "both"]


@pytest.mark.parametrize("leaves", [False, True], ids=["interrupt", "leaves"])
def test_trajectories_that_never_began_have_their_numbers(
    server: ScriptedServer,
    session: Session,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    leaves: bool,
) -> None:
    """An interrupt comes through while the first one reaches its server."""

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    session.settings.journal = str(tmp_path / "journal.sqlite3")
    request = make_request("x", heavy=4, chat="main")
    heard = Ended()
    running = session._prepare(request).run([heard, *session.journal_sinks(request)])
    yielded = []
    with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
        if not leaves:
            patch.setattr(session.connector, "connect", interrupted)
        for envelope in running:
            if envelope and isinstance(envelope.event, TurnFinished):
                yielded.append(envelope.lane)
            if leaves and envelope and envelope.lane == 1:
                break
    running.close()
    reply = heard.replies[0]
    assert [str(each.error) for each in reply.trajectories[1:]] == ["Stopped before it began."] * 3
    assert [type(each.error) for each in reply.trajectories] == [kimi.TurnInterrupted] * 4
    assert reply.agreement == {}
    assert list(heard.replies) == [1, 2, 3, 4, 0]
    assert yielded == ([] if leaves else [1, 2, 3, 4, 0])
    (kept,) = kimi.journal.turns()
    assert [str(each.error) for each in kept.trajectories[1:]] == ["Stopped before it began."] * 3
    assert record_of(reply).data["text/plain"].count("Stopped") >= 4
    script(server, *"abab")
    again = session.ask(session.to_continue("main"), show=False)
    assert [each.error for each in again.trajectories] == [None] * 4


@pytest.mark.parametrize(
    ("kind", "in_lane"),
    [
        (RequestStarted, True),
        (Retrying, True),
        (ReasoningDelta, True),
        (ContentDelta, True),
        (Aggregating, False),
        (RequestStarted, False),
        (ContentDelta, False),
    ],
    ids=lambda value: getattr(value, "__name__", "in a lane" if value else "of the turn"),
)
def test_an_interrupt_at_each_phase(
    server: ScriptedServer,
    session: Session,
    monkeypatch: pytest.MonkeyPatch,
    kind: type,
    in_lane: bool,
) -> None:
    """All that came is there, and ``%kimi continue`` takes it up."""
    handle = ChatSink.handle
    stopped: list[float] = []
    seen: list[type] = []

    def interrupting(self: ChatSink, envelope: Envelope) -> None:
        handle(self, envelope)
        seen.append(type(envelope.event))
        here = bool(envelope.lane) if in_lane else not envelope.lane and Aggregating in seen
        if not stopped and isinstance(envelope.event, kind) and here:
            stopped.append(time.monotonic())
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(ChatSink, "handle", interrupting)
    server.lenient = True
    if kind is Retrying:
        server.error(429, "Slow down.", headers={"Retry-After": "30"})
    for _ in range(3):
        server.reply("a " * 20, reasoning="Hm. " * 9, rate=200)
    server.reply("It is, " * 100, reasoning="They agree.", rate=100)
    with pytest.raises(kimi.TurnInterrupted):
        kimi.ask("x", heavy=3, chat="main", show=False)
    assert time.monotonic() - stopped[0] < 10, "no back-off or answer is waited for"
    server._script.clear()
    reply = session.last
    assert reply is not None
    assert len(reply.trajectories) == 3
    kinds = {type(each.error) for each in reply.trajectories}
    assert kinds <= {type(None), kimi.TurnInterrupted}
    if not in_lane:
        assert kinds == {type(None)}
        assert list(reply.agreement.values()) == [1.0]
    else:
        assert reply.text == ""
    if sum(each.error is None for each in reply.trajectories) < 2:
        script(server, "a", "b", "a", final="the end")
    else:
        server.reply("the end")
    assert session.ask(session.to_continue("main"), show=False).text == "the end"


def test_a_slow_and_a_stalled_trajectory(server: ScriptedServer, session: Session) -> None:
    """The slow one is waited for, the stalled one ends alone when its time is over."""
    session.settings.stall_timeout = 1.5
    server.reply("a")
    server.reply("never finished at all", stall_after=2)
    server.reply("slow a", rate=4)
    server.reply("a", reasoning="Both say so.")
    reply = kimi.ask("x", heavy=3, show=False)
    assert reply.text == "a"
    said = sorted((type(each.error).__name__, each.text) for each in reply.trajectories)
    assert [kind for kind, _ in said] == ["NoneType", "NoneType", "TimedOut"]
    assert [text for _, text in said][:2] == ["a", "slow a"]
    assert "never finished" not in server.requests[-1].body["messages"][-1]["content"]


def test_a_storm_of_refusals(server: ScriptedServer) -> None:
    """All are refused at once: none goes ahead of its time, fewer go at once, each is answered."""
    for _ in range(8):
        server.error(429, "Slow down.", headers={"Retry-After": "0.6"})
    script(server, *"abababab")
    reply = kimi.ask("x", heavy=8, show=False)
    assert reply.text == "It is 9.9."
    assert [each.error for each in reply.trajectories] == [None] * 8
    assert reply.agreement == {"a": 0.5, "b": 0.5}
    arrived = [request.arrived for request in server.requests]
    assert len(arrived) == 17
    assert arrived[8] - arrived[7] >= 0.5


def test_a_storm_without_end(server: ScriptedServer, session: Session) -> None:
    """The error for which each trajectory was refused is that of the turn."""
    session.settings.retries = 1
    for _ in range(6):
        server.error(429, "Slow down.", headers={"Retry-After": "0.05"})
    with pytest.raises(kimi.RateLimited):
        kimi.ask("x", heavy=3, show=False)
    assert session.last is not None
    assert {type(each.error) for each in session.last.trajectories} == {kimi.RateLimited}


class Ended:
    """A sink that keeps the replies of all lanes."""

    def __init__(self) -> None:
        self.replies: dict[int, Reply] = {}

    def handle(self, envelope: Envelope) -> None:
        if isinstance(envelope.event, TurnFinished):
            self.replies[envelope.lane] = envelope.event.reply

    def tick(self) -> None: ...
    def close(self) -> None: ...


def test_one_trajectory_alone_is_asked_again_with_the_others(
    server: ScriptedServer, session: Session
) -> None:
    server.reply("a")
    for _ in range(2):
        server.error(400, "No.")
    with pytest.raises(kimi.KimiError, match="1 of 3 trajectories"):
        kimi.ask("x", heavy=3, chat="main", show=False)
    script(server, "a", "b", "c")
    again = session.ask(session.to_continue("main"), show=False)
    assert (again.text, len(again.trajectories)) == ("It is 9.9.", 3)


def test_whoever_aggregated_goes_on_where_the_aggregation_was_cut(
    server: ScriptedServer, session: Session
) -> None:
    server.lenient = True
    server.reply("a")
    server.reply("b")
    server.reply("half of it", finish_reason="length")
    reply = kimi.ask("x", heavy=2, judge="kimi-k2.6", chat="main", show=False)
    assert reply.finish_reason == "length"
    server.reply(" and the rest")
    again = session.ask(session.to_continue("main"), show=False)
    assert not again.trajectories
    assert server.requests[-1].body["model"] == "kimi-k2.6"
    assert [m["content"] for m in server.requests[-1].body["messages"]][1:3] == ["x", "half of it"]


def test_an_aggregation_that_was_cut_before_its_answer_is_made_again(
    server: ScriptedServer, session: Session
) -> None:
    server.reply("a")
    server.reply("b")
    server.reply("", reasoning="They part at", finish_reason="length")
    reply = kimi.ask("x", heavy=2, chat="main", show=False)
    assert (reply.text, reply.reasoning) == ("", "They part at")
    server.reply("both")
    again = session.ask(session.to_continue("main"), show=False)
    assert again.text == "both"
    assert "2 independent attempts" in server.requests[-1].body["messages"][-1]["content"]


def test_trajectories_that_are_taken_up_are_shown(server: ScriptedServer, session: Session) -> None:
    request = make_request("x", chat="main", heavy=2)
    attempts = (make_reply("a"), make_reply("b"))
    server.reply("both")
    events = list(session.stream(replace(request, attempts=attempts)))
    assert isinstance(events[0], TurnStarted)
    assert LanesStarted(2) in events
    ended = [e for e in events if isinstance(e, LaneEvent) and isinstance(e.event, TurnFinished)]
    assert [each.lane for each in ended] == [1, 2]


def test_a_default_that_is_gone_is_replaced_once(
    server: ScriptedServer, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KIMI_MODEL")
    server.models = ("kimi-k2-thinking", "kimi-k2.6")
    server.lenient = True
    for _ in range(4):
        server.error(404, "No such model.")
    for _ in range(4):
        server.reply("a")
    server.reply("b")
    events = list(kimi.stream("x", heavy=4))
    lists = [request for request in server.requests if request.path == "/v1/models"]
    assert len(lists) <= 1 + 1 + 4  # the default, what took its place, the hints of the errors
    said = [e.text for e in events if isinstance(e, Notice) and "no longer offered" in e.text]
    assert len(said) == 1
    started = [e.model for e in events if isinstance(e, TurnStarted)]
    assert started[-1] == "kimi-k2-thinking"
    in_lanes = [e.event for e in events if isinstance(e, LaneEvent)]
    again = [e for e in in_lanes if isinstance(e, Notice) and "no longer offered" in e.text]
    assert len(again) == 1, "the others know"


def test_a_consumer_that_leaves_keeps_what_came(server: ScriptedServer, session: Session) -> None:
    server.reply("a")
    for word in "bc":
        server.reply(f"{word} " * 200, rate=100)
    events = kimi.stream("x", heavy=3, chat="main")
    seen: set[int] = set()
    for event in events:
        if isinstance(event, LaneEvent) and isinstance(event.event, ContentDelta):
            seen.add(event.lane)
        if seen == {1, 2, 3}:
            break
    events.close()  # type: ignore[attr-defined]
    assert session.last is not None
    assert [bool(each.text) for each in session.last.trajectories] == [True] * 3


def test_what_it_may_cost(session: Session) -> None:
    session.settings.max_tokens = 1000
    priced = Endpoint("priced", "http://localhost:1/v1", model="m", prices=(1.0, 10.0))
    turn = session.prepare(make_request("x " * 4000, endpoint=priced, heavy=2))
    assert isinstance(turn, HeavyTurn)
    # Three answers of 1,000 tokens, the prompt of 2,000 four times, the attempts once.
    assert 0.03 + 0.008 + 0.002 <= turn._most_cost() <= 0.045
    assert ", $0.04 at most" in turn.announcement()
    dry = session.dry_run(make_request("x", endpoint=priced, heavy=2))
    assert "Heavy mode: 2 trajectories and an aggregation, 3 requests, less than" in dry.text or (
        "Heavy mode: 2 trajectories and an aggregation, 3 requests, $0.0" in dry.text
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"heavy": 2, "until_agree": 3}, "3 trajectories cannot agree"),
        ({"until_agree": 3}, "is for heavy mode"),
        ({"judge": "kimi-k3"}, "is for heavy mode"),
        ({"heavy": 2, "equal": 3}, "takes a function"),
    ],
)
def test_what_does_not_go_together_is_refused(
    session: Session, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(kimi.KimiError, match=said):
        kimi.ask("x", show=False, endpoint="http://localhost:1/v1", **options)


def test_two_answers_are_compared_once(server: ScriptedServer) -> None:
    compared = []

    def equal(one: str, other: str) -> bool:
        compared.append({one, other})
        return False

    script(server, *"abcdef")
    kimi.ask("x", heavy=6, until_agree=6, equal=equal, show=False)
    assert len(compared) == 15


@pytest.mark.parametrize("parallel", [False, True])
def test_a_call_that_is_made_once_gives_all_its_result(
    server: ScriptedServer, parallel: bool
) -> None:
    made = []

    @kimi.tool(once=True, parallel=parallel)
    def load(name: str, rows: int = 1) -> str:
        """Load."""
        made.append(name)
        return f"{name} is loaded"

    kimi_tools.clear()
    server.lenient = True
    for arguments in ('{"name": "a", "rows": 2}', '{"rows": 2, "name": "a"}', '{"name": "b"}'):
        server.reply(tool_calls=[{"name": "load", "arguments": arguments}])
    for _ in range(3):
        server.reply("Done.")
    server.reply("All done.")
    reply = kimi.ask("x", heavy=3, tools=[load], show=False)
    assert sorted(made) == ["a", "b"]
    # A lane may be so fast that it makes two of the calls.
    results = [result for each in reply.trajectories for result in each.tool_results]
    calls = [call for each in reply.trajectories for call in each.tool_calls]
    assert sorted(r.content for r in results) == ["a is loaded"] * 2 + ["b is loaded"]
    assert [r.call_id for r in results] == [call.id for call in calls]


def test_another_model_may_judge(server: ScriptedServer) -> None:
    script(server, "a", "b")
    server.lenient = True
    kimi.ask("x", heavy=2, judge="kimi-k2.6", show=False)
    models = [request.body["model"] for request in server.requests]
    assert models[-1] == "kimi-k2.6"
    assert models[0] == models[1] != models[2]
    with pytest.raises(kimi.KimiError, match="MODEL@ENDPOINT"):
        kimi.ask("x", heavy=2, judge="@", show=False)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"So \boxed{\frac{1}{2}} it is.", r"\frac{1}{2}"),
        ("Long.\n\n**Final answer:** 42.", "42."),
        ("The answer is: yes", "yes"),
        ("One.\nTwo.", "Two."),
        ("", ""),
        (r"\boxed{never closed", r"\boxed{never closed"),
    ],
)
def test_final_answers(text: str, answer: str) -> None:
    assert final_answer(text).strip("* ") == answer


@pytest.mark.parametrize(
    ("one", "other"),
    [("9.90", "9.9"), ("**Paris**.", "paris"), ("$1,000$", "1000"), (r"\boxed{x}", "x")],
)
def test_equal_answers(one: str, other: str) -> None:
    assert take_vote({1: make_reply(one), 2: make_reply(other)}).most == 2


@given(st.lists(st.tuples(st.text(max_size=300), st.text(max_size=300)), min_size=1, max_size=5),
       st.integers(0, 2000), st.text(max_size=100))  # fmt: skip
def test_an_aggregation_holds_each_answer_in_the_room_there_is(
    given_replies: list[tuple[str, str]], tokens: int, problem: str
) -> None:
    replies: list[Any] = [make_reply(text, reasoning) for text, reasoning in given_replies]
    message = aggregation_message(Message("user", problem), replies, tokens=tokens)
    assert message.text.count(problem) >= 2
    assert message.text.count("<attempt number=") >= len(replies)
    again = aggregation_message(Message("user", problem), replies[::-1], tokens=tokens)
    assert again == message, "the order says nothing"


def test_a_notebook_and_a_journal_hold_the_trajectories(
    server: ScriptedServer, session: Session, tmp_path: Path
) -> None:
    session.settings.journal = str(tmp_path / "journal.sqlite3")
    script(server, "a", "b", "a")
    reply = kimi.ask("x", heavy=3, chat="main", show=False)
    (kept,) = kimi.journal.turns()
    carried = Reply.from_dict(session._portable(reply.record))
    for again in (kept, carried):
        assert [each.text for each in again.trajectories] == [r.text for r in reply.trajectories]
        assert [each.reasoning for each in again.trajectories]
        assert again.agreement == reply.agreement
        assert again.text == "It is 9.9."
        assert [m["content"] for m in again.messages[-2:]] == ["x", "It is 9.9."]
    assert record_of(carried).data["text/html"].count("Trajectory ") == 3


def test_a_killed_kernel_leaves_the_trajectories_that_ended(
    server: ScriptedServer, session: Session, tmp_path: Path
) -> None:
    heard = Fragments()
    sink = JournalSink(Recorder(heard), "", None)  # type: ignore[arg-type]
    script(server, "a", "b", final="half of it " * 20)
    turn = session._prepare(make_request("x", heavy=2, chat="main"))
    begun: list[TurnRecord] = []
    for envelope in turn.run([sink]):
        if envelope is not None and not envelope.lane:
            if isinstance(envelope.event, TurnPrepared):
                begun.append(envelope.event.record)
            if isinstance(envelope.event, ContentDelta):
                break
    heard.update(Redactor())
    lost = Reply.of(recovered(begun[0], heard.rows))
    assert len(begun) == 1
    assert sorted(each.text for each in lost.trajectories) == ["a", "b"]
    assert "half of it".startswith(lost.text.strip()[:4])
    assert lost.messages[-1]["role"] == "assistant"


class Recorder:
    """A writer, as far as a sink knows it."""

    def __init__(self, heard: Fragments) -> None:
        self.heard = heard
        self.notices: list[str] = []
        self.opened = threading.Event()
        self.opened.set()

    def begin(self, _: str) -> Recorder:
        return self

    def put(self, event: Any, *, at_once: bool = False) -> None:
        self.heard.take(event)

    def finish(self, *_: Any) -> None: ...
    def close(self) -> None: ...


def test_a_turn_that_was_stopped_says_that_trajectories_are_kept(
    server: ScriptedServer, session: Session
) -> None:
    def look() -> int:
        """Look."""
        while len(server.requests) < 2:
            time.sleep(0.01)
        signal.raise_signal(signal.SIGINT)
        return 1

    server.lenient = True
    for _ in range(2):
        server.reply("I look.", tool_calls=[{"name": "look"}])
    with pytest.raises(kimi.TurnInterrupted):
        kimi.ask("x", heavy=2, tools=[look], chat="main", show=False)
    assert session.last is not None
    plain = record_of(session.last).data["text/plain"]
    assert "Stopped: what had arrived is kept." in plain
    assert "nothing had arrived" not in plain
