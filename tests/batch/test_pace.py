"""The pace of a map, with a clock that the tests turn."""

from __future__ import annotations

import random
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_magic.batch.pace import Pace

RANDOM = random.Random(22)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def started(pace: Pace) -> int:
    """Send all that may be sent."""
    count = 0
    while pace.may_send():
        count += 1
    return count


def paced(most: int = 32, **limits: Any) -> tuple[Pace, Clock]:
    clock = Clock()
    return Pace(1_000_000, most, clock=clock, **limits), clock


def test_refusals_of_one_round_halve_once() -> None:
    pace, clock = paced()
    assert started(pace) == 32
    for _ in range(32):
        pace.sent()
        pace.slow_down(clock.now + 1)
    assert pace.at_once == 16
    assert started(pace) == 0
    clock.now += 1
    assert started(pace) == 16
    pace.sent()
    pace.slow_down(clock.now)
    assert pace.at_once == 8


def test_a_refusal_holds_all_back_until_its_moment() -> None:
    pace, clock = paced()
    assert pace.may_send()
    pace.sent()
    pace.slow_down(clock.now + 30)
    pace.slow_down(clock.now + 10)  # a shorter one does not end it
    clock.now += 29.9
    assert not pace.may_send()
    clock.now += 0.1
    assert pace.may_send()


def test_never_less_than_one() -> None:
    pace, clock = paced()
    for _ in range(100):
        assert pace.may_send()
        pace.sent()
        pace.slow_down(clock.now)
    assert pace.at_once == 1


def test_one_more_for_each_round_that_the_server_takes() -> None:
    pace, clock = paced()
    started(pace)
    for _ in range(32):
        pace.sent()
        pace.slow_down(clock.now)
    assert started(pace) == 16
    pace.sent()  # the last of those that count as sent before
    for wanted in (17, 18, 19):
        for _ in range(pace.at_once):
            started(pace)
            pace.sent()
        assert pace.at_once in (wanted - 1, wanted)
    for _ in range(1000):
        started(pace)
        pace.sent()
    assert pace.at_once == 32


def test_requests_per_minute() -> None:
    pace, clock = paced(per_minute=5)
    assert started(pace) == 5
    for _ in range(5):
        pace.sent()
    clock.now += 59.9
    assert started(pace) == 0
    clock.now += 0.1
    assert started(pace) == 5


def test_tokens_per_minute() -> None:
    """Requests that are under way count with the mean of those that were answered."""
    pace, clock = paced(tokens_per_minute=1000)
    pace.expect(100)
    assert started(pace) == 10
    for _ in range(10):
        pace.sent()
        pace.used(50)
    assert started(pace) == 10
    for _ in range(10):
        pace.sent()
        pace.used(50)
    assert started(pace) == 0
    clock.now += 60
    assert started(pace) == 20


def test_a_request_larger_than_the_limit_goes_out_alone() -> None:
    pace, clock = paced(tokens_per_minute=1000)
    pace.expect(5000)
    assert started(pace) == 1
    pace.sent()
    pace.used(5000)
    assert started(pace) == 0
    clock.now += 60
    assert started(pace) == 1


@given(
    st.integers(1, 40),
    st.integers(1, 30),
    st.lists(st.tuples(st.sampled_from("send end refuse wait".split()), st.floats(0, 90))),
)
def test_no_limit_is_ever_passed(
    most: int, per_minute: int, steps: list[tuple[str, float]]
) -> None:
    pace, clock = paced(most, per_minute=per_minute)
    under_way, begun, not_before = 0, [], 0.0
    for step, seconds in steps:
        if step == "send" and pace.may_send():
            under_way += 1
            begun.append(clock.now)
            assert clock.now >= not_before
            assert under_way <= most
            assert sum(moment > clock.now - 60 for moment in begun) <= per_minute
        elif step in ("end", "refuse") and under_way:
            under_way -= 1
            pace.sent()
            if step == "refuse":
                pace.slow_down(clock.now + seconds)
                not_before = max(not_before, clock.now + seconds)
        elif step == "wait":
            clock.now += seconds
    assert 1 <= pace.at_once <= most


@pytest.mark.parametrize("takes", [1, 5, 20])
def test_comes_to_what_the_server_takes(takes: int) -> None:
    """A server that takes so many at once sees few more, and mostly as many."""
    pace, clock = paced()
    seen = []
    for _ in range(400):
        count = started(pace)
        seen.append(count)
        for place in range(count):
            pace.sent()
            if place >= takes:
                pace.slow_down(clock.now)
        clock.now += 1
    assert max(seen[10:]) <= takes + 2
    assert sum(seen[10:]) / len(seen[10:]) >= takes * 0.6


def asked(pace: Pace, clock: Clock, count: int, wait: Callable[[list[float]], float]) -> list[int]:
    """Ask a server; return how many requests were under way, each time that one was answered.

    ``wait`` takes the moments at which the answers to those under way will have come, from now.
    """
    under_way: list[tuple[float, float]] = []
    seen = []
    for _ in range(count):
        while pace.may_send():
            ends = sorted(end - clock.now for end, _ in under_way)
            heappush(under_way, (clock.now + wait(ends), clock.now))
        seen.append(len(under_way))
        clock.now, sent = heappop(under_way)
        pace.came(clock.now - sent)
        pace.sent()
    for end, _ in under_way:
        clock.now = max(clock.now, end)
        pace.sent()
    return seen


def queueing(slots: int, seconds: float) -> Callable[[list[float]], float]:
    """Return a server that works at so many answers at once; the others wait for their turns."""

    def wait(ends: list[float]) -> float:
        return seconds + (ends[-slots] if len(ends) >= slots else 0.0)

    return wait


@pytest.mark.parametrize("slots", [2, 4, 8, 13])
def test_no_more_than_a_server_has_slots_for(slots: int) -> None:
    """A server that queues is asked for as many at once as it answers, and not many more."""
    pace, clock = paced()
    began = clock.now
    seen = asked(pace, clock, 3000, queueing(slots, 1.0))
    assert max(seen[1500:]) <= max(3 * slots, 6)
    assert min(seen) >= slots
    assert clock.now - began <= 3000 / slots * 1.05


@pytest.mark.parametrize(
    "wait",
    [
        lambda _: 0.5,
        lambda ends: 0.5 if len(ends) % 2 else 0.9,  # two kinds of prompts
        lambda ends: 0.2 + 0.2 * len(ends) ** 0.5,  # slower with each one, but more come in all
        lambda _: RANDOM.lognormvariate(0, 0.5),
        queueing(32, 1.0),
        queueing(20, 1.0),
    ],
)
def test_all_at_once_where_that_brings_more(wait: Callable[[list[float]], float]) -> None:
    """Late answers are no reason to send fewer, where fewer would come."""
    pace, clock = paced()
    seen = asked(pace, clock, 3000, wait)
    assert sum(seen) / len(seen) > 0.95 * 32
    assert pace.at_once == 32


def test_a_server_that_becomes_faster_gets_more_again() -> None:
    pace, clock = paced()
    asked(pace, clock, 2000, queueing(4, 1.0))
    assert pace.at_once <= 12
    asked(pace, clock, 6000, queueing(64, 0.5))
    assert pace.at_once == 32


def test_a_server_that_becomes_slower_for_all_gets_as_many() -> None:
    pace, clock = paced()
    asked(pace, clock, 1000, lambda _: 0.5)
    seen = asked(pace, clock, 2000, lambda _: 5.0)
    assert pace.at_once == 32
    assert sum(seen) / len(seen) > 0.95 * 32
