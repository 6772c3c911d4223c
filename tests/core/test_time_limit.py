"""Code that is not ours runs within a time limit."""

from __future__ import annotations

import threading
import time

import pytest

from kimi_magic.core.time_limit import CallTimedOut, TimeBudget


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
