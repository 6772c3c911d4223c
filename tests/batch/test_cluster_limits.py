"""The permits of a map on a cluster, with a clock that the tests turn, and workers they play."""

from __future__ import annotations

import pickle
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_magic.batch.cluster_limits import Permits, Report
from kimi_magic.batch.cluster_post import Outfit, Post, Secrets


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Task:
    """A task that always has rows."""

    why = ""

    def wanted(self) -> int:
        return 10


class Worker:
    """A worker's post; its requests begin and end when the test says so."""

    def __init__(self, name: str, permits: Permits) -> None:
        self.name = name
        self.under_way = 0
        self.post = Post(Outfit(b"", 10), Secrets())
        self.post._asking.append(Task())
        self._permits = permits
        permits.join(name)

    def call(self, state: str = "go") -> None:
        """Be asked for the post once, as the kernel does."""
        orders = self._permits.orders(self.name)
        reply = self.post.answer({**orders, "had": 0, "state": state, "expected": []})
        self._permits.hear(self.name, Report(*reply["report"]))

    def begin(self) -> bool:
        may = self.post.may_send()
        self.under_way += may
        return may

    def end(self) -> None:
        self.under_way -= 1
        self.post.sent()


def started(*workers: Worker) -> int:
    """Ask for the posts, and begin all that may begin."""
    for _ in "12":  # what is wanted is heard first, what is given then
        for worker in workers:
            worker.call()
    return sum(worker.begin() for worker in workers for _ in range(50))


def test_a_worker_that_joins_gets_its_share() -> None:
    permits = Permits(6)
    first = Worker("a", permits)
    assert started(first) == 6
    workers = [first, Worker("b", permits), Worker("c", permits)]
    for _ in range(20):
        assert started(*workers) <= 6
        assert sum(worker.under_way for worker in workers) <= 6
        for worker in workers:
            if worker.under_way:
                worker.end()
    started(*workers)
    assert [worker.under_way for worker in workers] == [2, 2, 2]


def test_permits_serve_again_without_the_kernel() -> None:
    permits = Permits(4)
    worker = Worker("a", permits)
    assert started(worker) == 4
    for _ in range(4):
        worker.end()
        assert worker.begin()
    worker.call()
    assert permits.under_way == 4


def test_the_permits_of_a_dead_worker_are_free() -> None:
    """Its requests may have begun: they count for the minute."""
    clock = Clock()
    permits = Permits(4, per_minute=6, clock=clock)
    dead = Worker("a", permits)
    assert started(dead) == 4
    permits.leave("a")
    assert permits.under_way == 0
    other = Worker("b", permits)
    assert started(other) == 2
    for _ in range(2):
        other.end()
    assert started(other) == 0
    clock.now += 60
    assert started(other) == 4


def test_a_refusal_holds_all_back() -> None:
    clock = Clock()
    permits = Permits(8, clock=clock)
    one, other = Worker("a", permits), Worker("b", permits)
    assert started(one, other) == 8
    one.end()
    permits.hear("a", Report(4, 4, 1, 0, 0, 9), refused=[30.0])
    assert permits.orders("b")["held_back"] == 30.0
    assert not permits.orders("b")["reuse"]
    other.call()
    other.end()
    assert not other.begin()
    clock.now += 29
    assert started(other) == 0


def test_what_a_worker_does_not_need_goes_back() -> None:
    permits = Permits(10)
    worker, other = Worker("a", permits), Worker("b", permits)
    worker.call()
    worker.call()
    worker.post._asking.clear()
    worker.call()
    worker.call()
    assert permits.under_way == 0
    assert started(other) == 10


def test_a_kernel_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent after a while, and at last all is stopped."""
    worker = Worker("a", Permits(4))
    worker.call()
    worker.call()
    assert worker.begin()
    for silent, sends, stopped in ((10, True, False), (30, False, False), (100, False, True)):
        clock = time.monotonic() + silent
        monkeypatch.setattr("time.monotonic", lambda now=clock: now)
        assert (worker.begin(), worker.post.is_stopped) == (sends, stopped)
        monkeypatch.undo()


def test_answers_are_told_until_they_are_had() -> None:
    """An answer of the worker that is lost on its way costs nothing."""
    post = Post(Outfit(b"", 1), Secrets())
    orders = {"granted": 0, "reuse": True, "held_back": 0.0, "state": "go", "expected": []}
    post.put(("one",))
    first = post.answer({**orders, "had": 0})
    post.put(("two",))
    post.answered(5, 0.5)
    again = post.answer({**orders, "had": 0})
    assert [pickle.loads(letter) for letter in again["letters"]] == [("one",), ("two",)]
    rest = post.answer({**orders, "had": first["last"]})
    assert [pickle.loads(letter) for letter in rest["letters"]] == [("two",)]
    assert rest["answered"] == [(5, 0.5)]
    assert not post.answer({**orders, "had": rest["last"]})["letters"]


@given(
    st.integers(1, 12),
    st.none() | st.integers(1, 20),
    st.lists(
        st.tuples(st.sampled_from("call call begin begin end wait die".split()), st.integers(0, 2)),
        max_size=150,
    ),
)
def test_no_limit_is_ever_passed(
    most: int, per_minute: int | None, steps: list[tuple[str, int]]
) -> None:
    clock = Clock()
    permits = Permits(most, per_minute=per_minute, clock=clock)
    workers = [Worker(str(number), permits) for number in range(3)]
    begun: list[float] = []
    for step, number in steps:
        worker: Any = workers[number]
        if step == "call":
            worker.call()
        elif step == "begin" and worker.begin():
            begun.append(clock.now)
        elif step == "end" and worker.under_way:
            worker.end()
        elif step == "wait":
            clock.now += 13 * (number + 1)
        elif step == "die":
            permits.leave(worker.name)
            workers[number] = Worker(worker.name + "+", permits)
        assert sum(each.under_way for each in workers) <= most
        if per_minute is not None:
            assert sum(moment > clock.now - 60 for moment in begun) <= per_minute
        assert 0 <= permits.under_way <= most
