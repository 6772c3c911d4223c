"""Turns side by side in one thread: what happens in one lane disturbs no other."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast

import pytest

from kimi_magic.core.events import (
    ContentDelta,
    Envelope,
    RequestStarted,
    Retrying,
    ToolStarted,
    TurnFinished,
)
from kimi_magic.core.interrupts import holding_interrupts
from kimi_magic.core.reply import Reply
from kimi_magic.session import Session
from kimi_magic.testing import ScriptedServer
from kimi_magic.turn.lanes import Lanes, side_by_side
from kimi_magic.turn.request import make_request


def run(session: Session, count: int, *, at_once: int = 8, **options: Any) -> list[Envelope]:
    """Ask the same in some lanes; return all events."""
    lanes = Lanes(session.settings.max_queue_bytes, at_once)
    turns = [
        session._prepare_one(make_request("Why?", **options)).run(lane=lanes.lane(number))
        for number in range(1, count + 1)
    ]
    return [envelope for envelope in side_by_side(lanes, turns) if envelope is not None]


def replies(seen: Sequence[Envelope]) -> dict[int, Reply]:
    return {e.lane: e.event.reply for e in seen if isinstance(e.event, TurnFinished)}


def test_lanes_stream_at_the_same_time(server: ScriptedServer, session: Session) -> None:
    for word in "abcdefgh":
        server.reply(f"{word} " * 20, reasoning="Hm.", rate=200)
    seen = run(session, 8)
    texts = {reply.text for reply in replies(seen).values()}
    assert texts == {f"{word} " * 20 for word in "abcdefgh"}
    for lane, reply in replies(seen).items():
        own = [e.event for e in seen if e.lane == lane]
        assert "".join(e.text for e in own if isinstance(e, ContentDelta)) == reply.text
        assert isinstance(own[-1], TurnFinished)
    order = [e.lane for e in seen if isinstance(e.event, ContentDelta)]
    changes = sum(1 for a, b in pairwise(order) if a != b)
    assert changes > 8, "one after the other there would be 7"


def test_a_lane_that_fails_stalls_or_is_cut_ends_alone(
    server: ScriptedServer, session: Session
) -> None:
    session.settings.stall_timeout = 0.4
    server.error(400, "No such thing.")
    server.reply("never finished at all", stall_after=2)
    server.reply("half of it", cut_after=2)
    for _ in range(3):
        server.reply("Fine.")
    ended = [
        (reply.text, type(reply.error).__name__) for reply in replies(run(session, 6)).values()
    ]
    assert sorted(kind for _, kind in ended) == [
        "BadRequest", "ConnectionFailed", "NoneType", "NoneType", "NoneType", "TimedOut",
    ]  # fmt: skip
    assert [text for text, kind in ended if kind == "NoneType"] == ["Fine."] * 3


def test_no_more_requests_at_once_than_allowed(server: ScriptedServer, session: Session) -> None:
    for _ in range(6):
        server.reply("Some words one by one.", rate=100)
    seen = run(session, 6, at_once=2)
    assert len(replies(seen)) == 6
    under_way = most = 0
    for envelope in seen:
        if isinstance(envelope.event, ContentDelta) and envelope.event.text.startswith("Some"):
            under_way += 1
            most = max(most, under_way)
        under_way -= isinstance(envelope.event, TurnFinished)
    assert most <= 2
    assert all(reply.text == "Some words one by one." for reply in replies(seen).values())


def test_a_server_that_is_busy_slows_all_lanes(server: ScriptedServer, session: Session) -> None:
    server.error(429, "Slow down.", headers={"Retry-After": "0.5"})
    for _ in range(4):
        server.reply("OK")
    seen = run(session, 4, at_once=1)
    assert sum(isinstance(e.event, Retrying) for e in seen) == 1
    assert {reply.text for reply in replies(seen).values()} == {"OK"}
    first, *others = [request.arrived for request in server.requests]
    assert min(others) - first >= 0.5, "no lane goes ahead of the one that was refused"


def test_tools_of_all_lanes_run_one_at_a_time(server: ScriptedServer, session: Session) -> None:
    running, threads = [0], set()

    def work() -> int:
        """Work."""
        running[0] += 1
        assert running[0] == 1
        threads.add(threading.current_thread())
        time.sleep(0.01)
        running[0] -= 1
        return 1

    server.lenient = True
    for _ in range(3):
        server.reply(tool_calls=[{"name": "work"}])
    for _ in range(3):
        server.reply("Done.")
    seen = run(session, 3, tools=[work])
    assert sum(isinstance(e.event, ToolStarted) for e in seen) == 3
    assert [r.text for r in replies(seen).values()] == ["Done."] * 3
    assert threads == {threading.main_thread()}


@pytest.mark.parametrize("moment", [RequestStarted, ContentDelta, ToolStarted])
def test_an_interrupt_stops_all_and_keeps_what_came(
    server: ScriptedServer, session: Session, moment: type
) -> None:
    def work() -> int:
        """Work."""
        if moment is ToolStarted:
            signal.raise_signal(signal.SIGINT)
        return 1

    server.lenient = True
    for _ in range(2):
        server.reply("First. " * 3, tool_calls=[{"name": "work"}], rate=300)
    for _ in range(4):
        server.reply("It goes on and on " * 50, rate=100)
    lanes = Lanes(session.settings.max_queue_bytes, 8)
    prepared = session._prepare_one(make_request("Why?", tools=[work]))
    turns = [prepared.run(lane=lanes.lane(number)) for number in (1, 2, 3, 4)]
    seen: list[Envelope] = []

    def take_all() -> None:
        for envelope in side_by_side(lanes, turns):
            if envelope is not None:
                first = not any(isinstance(e.event, moment) for e in seen)
                seen.append(envelope)
                if first and isinstance(envelope.event, moment) and moment is not ToolStarted:
                    signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), holding_interrupts():
        take_all()
    server._script.clear()  # the answers that nobody asked for any more
    ended = replies(seen)
    assert all(isinstance(r.error, KeyboardInterrupt) for r in ended.values())
    if moment is not RequestStarted:
        assert set(ended) == {1, 2, 3, 4}
        assert any(reply.text or reply.tool_results for reply in ended.values())


def test_a_refusal_lowers_the_requests_at_once_a_single_time() -> None:
    lanes = Lanes(1000, 8)
    sending = [lanes.lane(number) for number in range(1, 9)]
    assert all(lane.may_send() for lane in sending)
    first, *others = sending
    first.sent()
    first.slow_down(time.monotonic() - 1)  # seven are under way, and end while it pauses
    for lane in others:
        lane.sent()
        first.pause(time.monotonic() - 1)
    assert [lane.may_send() for lane in sending] == [True] * 7 + [False]
    for lane in others:
        lane.sent()
    first.slow_down(time.monotonic() - 1)  # the only one: at least half as many remain
    assert [lane.may_send() for lane in sending] == [True] * 3 + [False] * 5


def test_a_lane_goes_on_when_what_it_waits_for_is_there() -> None:
    """Of many lanes, most wait: to look at each of them for each arrival costs more than it."""
    lanes = Lanes(1000, 1)
    one, other = lanes.lane(1), lanes.lane(2)
    assert lanes.can_go_on(lanes.idle)  # nothing is known of a turn that runs a tool
    exchange, not_mine = cast("Any", "an exchange"), cast("Any", "another")
    assert one.receive(exchange) == []
    waits_for_answer, lanes.idle = lanes.idle, type(lanes.idle)()
    assert one.may_send()
    assert not other.may_send()
    waits_for_room, lanes.idle = lanes.idle, type(lanes.idle)()
    assert not other.pause(time.monotonic() + 1000)
    waits_for_time = lanes.idle
    kinds = (waits_for_answer, waits_for_room, waits_for_time)
    assert not any(map(lanes.can_go_on, kinds))
    lanes._arrived = {not_mine: []}
    assert not any(map(lanes.can_go_on, kinds))
    lanes._arrived = {exchange: []}
    assert [lanes.can_go_on(idle) for idle in kinds] == [True, False, False]
    one.sent()
    assert [lanes.can_go_on(idle) for idle in kinds] == [True, True, False]


def test_only_the_ends_of_a_turn_that_nobody_follows_are_told(
    server: ScriptedServer, session: Session
) -> None:
    server.reply("Fine.", reasoning="Hm.")
    told: list[Envelope] = []
    turn = session._prepare_one(make_request("Why?"))
    for envelope in turn.run(followed=False):
        told += [envelope] if envelope is not None else []
    assert [type(each.event).__name__ for each in told] == ["TurnStarted", "TurnFinished"]
    assert replies(told)[0].text == "Fine."
