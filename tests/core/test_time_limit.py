"""Code that is not ours runs within a time limit."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest

from kimi_magic.core.time_limit import CallTimedOut, TimeBudget, TimeLimit, call_within


def wait_for_ever() -> None:
    while True:
        time.sleep(0.01)


def test_budget_ends_and_is_shared_by_all_calls() -> None:
    budget = TimeBudget(0.2)
    assert budget.call(len, "abc") == 3
    with pytest.raises(CallTimedOut):
        budget.call(wait_for_ever)
    with pytest.raises(CallTimedOut, match="not called"):
        budget.call(len, "abc")


def test_budget_ends_in_other_threads() -> None:
    ended: list[str] = []

    def work() -> None:
        try:
            TimeBudget(0.2).call(threading.Event().wait)
        except CallTimedOut as error:
            ended.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)
    assert ended


def test_a_limit_that_is_caught_within_another_comes_again() -> None:
    rounds: list[int] = []

    def catches_everything() -> None:
        for _ in range(50):
            with contextlib.suppress(BaseException):
                time.sleep(0.02)

    def tries_again() -> None:
        for number in range(200):
            rounds.append(number)
            with contextlib.suppress(CallTimedOut):
                call_within(catches_everything, TimeLimit(60))

    with pytest.raises(CallTimedOut):
        call_within(tries_again, TimeLimit(0.05))
    assert len(rounds) < 200
