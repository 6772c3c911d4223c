"""Aim: have a session spend more than its budget."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

import kimi_magic as kimi
from kimi_magic.core.budget import Budget
from kimi_magic.core.errors import BudgetSpent
from kimi_magic.core.events import Notice
from kimi_magic.core.messages import Completion, Message, Usage
from kimi_magic.jupyter.usage_list import describe_usage
from kimi_magic.session import Session
from kimi_magic.testing import ScriptedServer
from kimi_magic.wire.endpoints import Endpoint
from kimi_magic.wire.models import Model
from kimi_magic.wire.spending import Account, Meter, Spending

COUNTED = {"prompt_tokens": 80, "completion_tokens": 20, "total_tokens": 100}


def spent(session: Session) -> Usage:
    return sum(session.connector.spending.accounts().values(), Usage())


@pytest.mark.parametrize("seed", range(5))
def test_fifty_threads_begin_at_once(seed: int) -> None:
    """Input: 50 threads that ask until they are refused, answers of random length. Holds: what is
    spent and expected never passes the budget; what was under way passes it by no more than its
    answers were longer than expected."""
    spending, budget = Spending(), Budget(20_000, "tokens")
    endpoint, model = Endpoint("lab", "http://lab/v1"), Model("m")
    longer: list[int] = []
    gate = threading.Barrier(50)

    def ask(number: int) -> int:
        luck = random.Random(seed * 100 + number)
        gate.wait(60)
        for turn in range(1000):
            meter = Meter(
                spending, None, model, endpoint, asked="m", tokens=lambda: 50, budget=budget
            )
            try:
                meter.begin()
            except BudgetSpent:
                return turn
            answer = luck.randrange(200)
            with spending._lock:  # as it was counted on
                expected = meter.expected(spending._under_way[meter])
                assert spending._share(budget) <= budget.amount + sum(longer)
            longer.append(max(50 + answer - expected.total_tokens, 0))
            usage = Usage(50, answer, requests=1)
            meter.end(Completion(Message("assistant", "x"), usage=usage))
        raise AssertionError("nobody was refused")

    with ThreadPoolExecutor(50) as pool:
        asked = sum(pool.map(ask, range(50)))
    (whole,) = spending.accounts().values()
    assert whole.requests == asked
    assert whole.total_tokens >= budget.amount - 250, "it is used as far as it goes"
    assert not spending._under_way
    with pytest.raises(BudgetSpent):
        Meter(spending, None, model, endpoint, asked="m", tokens=lambda: 250, budget=budget).begin()


def test_turns_in_threads(server: ScriptedServer, session: Session) -> None:
    """Input: 16 threads that ask through one session. Holds: no more requests arrive than fit."""
    kimi.settings.budget = "1000 tokens"
    server.reply("First.", usage=COUNTED)
    kimi.ask("Hi", show=False)  # an answer takes 20 tokens, so the next ones are expected to
    for _ in range(60):
        server.reply("OK", usage=COUNTED, delay=0.01)

    def ask(_: int) -> int:
        for turn in range(10):
            try:
                kimi.ask("x" * 320, show=False)
            except BudgetSpent:
                return turn
        return 10

    with ThreadPoolExecutor(16) as pool:
        asked = sum(pool.map(ask, range(16)))
    assert len(server.requests) == asked + 1 <= 10
    assert 800 <= spent(session).total_tokens <= 1000
    server._script.clear()


def test_nothing_is_sent_once_it_is_spent(server: ScriptedServer, session: Session) -> None:
    """Input: a budget that one answer has passed; ask, stream, heavy, sweep. Holds: each is refused
    in one line before a request; a higher budget lets the next one through."""
    kimi.settings.budget = "100 tokens"
    server.reply("OK", usage=COUNTED)
    kimi.ask("Hi", chat="main", show=False)
    ways: list[Any] = [
        lambda: kimi.ask("Hi", chat="main", show=False),
        lambda: list(kimi.stream("Hi")),
        lambda: kimi.ask("Hi", heavy=2, show=False),
        lambda: kimi.chat("main").ask("Hi", show=False),
        lambda: kimi.sweep(["Hi"], repeats=2, show=False),
    ]
    for way in ways:
        with pytest.raises(BudgetSpent, match="100 tokens spent") as caught:
            way()
        assert '%config KimiMagics.budget = "200 tokens"' in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
    assert len(server.requests) == 1
    assert len(kimi.chat("main").turns) == 1
    kimi.settings.budget = "1k tokens"
    server.reply("Again.", usage=COUNTED)
    assert kimi.ask("Hi", chat="main", show=False).text == "Again."
    kimi.chat("main").reset()
    assert spent(session).total_tokens == 200, "a chat that is forgotten was paid all the same"


def test_a_turn_stops_between_its_steps(server: ScriptedServer, session: Session) -> None:
    """Input: a tool loop that uses the budget up in its second step. Holds: the call is made and
    kept, no third request is sent, and the chat goes on when the budget is raised."""
    made: list[int] = []

    def look(n: int) -> str:
        """Look."""
        made.append(n)
        return f"result {n}"

    kimi.settings.budget = "280 tokens"
    for n in range(3):
        server.reply(tool_calls=[{"name": "look", "arguments": {"n": n}}], usage=COUNTED)
    with pytest.raises(BudgetSpent, match="200 tokens spent, about") as caught:
        kimi.ask("Go " + "x" * 80, tools=[look], chat="main", show=False)
    reply = caught.value.reply
    assert reply is not None
    assert made == [0, 1]
    assert [r.content for r in reply.tool_results] == ["result 0", "result 1"]
    assert kimi.last is reply
    assert len(server.requests) == 2
    (turn,) = kimi.chat("main").turns
    assert turn.reply is reply
    server._script.clear()
    kimi.settings.budget = None
    server.reply("Done.", usage=COUNTED)
    assert kimi.ask("And now?", chat="main", show=False).text == "Done."
    roles = [message["role"] for message in server.requests[-1].body["messages"]]
    assert roles[1:] == "user assistant tool assistant tool user".split()


def test_retries_and_discarded_answers_are_counted(
    server: ScriptedServer, session: Session
) -> None:
    """Input: a 500, an empty answer, one that breaks off. Holds: what came of each is counted."""
    server.error(500, "later")
    server.reply("", reasoning="Only thoughts.", usage=COUNTED)
    server.reply("Yes.", usage=COUNTED)
    reply = kimi.ask("Hi", show=False)
    assert reply.usage.total_tokens == spent(session).total_tokens == 200
    server.reply("A long answer " * 40, cut_after=30, usage=COUNTED)
    with pytest.raises(kimi.ConnectionFailed):
        kimi.ask("Hi", show=False)
    assert spent(session).total_tokens > 230
    assert spent(session).requests == 3


def test_trajectories_and_their_aggregation(server: ScriptedServer, session: Session) -> None:
    """Input: heavy mode. Holds: each request is counted to the chat; where the budget ends in the
    aggregation, the trajectories are kept and the majority stands."""
    for text in ("Answer: 4", "Answer: 4", "It is 4."):
        server.reply(text, usage=COUNTED)
    kimi.ask("2 + 2?", heavy=2, chat="main", show=False)
    ((account, usage),) = session.connector.spending.accounts().items()
    assert (account.chat, usage.requests, usage.total_tokens) == ("main", 3, 300)
    kimi.settings.budget = "560 tokens"
    for _ in range(2):
        server.reply("Answer: 4", usage=COUNTED)
    reply = kimi.ask("2 + 2?", heavy=2, chat="main", show=False)
    assert reply.text == "Answer: 4"
    assert len(reply.trajectories) == 2
    assert spent(session).total_tokens == 500


def test_unknown_prices_are_said(server: ScriptedServer, session: Session) -> None:
    """Input: a budget of money, a model without prices. Holds: the turn and the list say so."""
    kimi.settings.budget = "2 USD"
    server.reply("OK", usage=COUNTED)
    said = [event.text for event in kimi.stream("Hi") if isinstance(event, Notice)]
    assert any("are not known: the budget of $2.00 does not count it" in text for text in said)
    listed = describe_usage(session.connector.spending.accounts(), kimi.settings.most_spent)
    assert "unknown" in listed
    assert "Budget: $2.00, $2.00 left." in listed


def test_the_list(server: ScriptedServer, session: Session) -> None:
    """Input: two chats, a one-off, prices. Holds: tokens and cost of each, and the sum."""
    kimi.add_endpoint(name="paid", base_url=server.base_url, model="m", prices=(100.0, 1000.0))
    for chat in ("main", "other", None, "main"):
        server.reply("OK", usage=COUNTED)
        kimi.ask("Hi", chat=chat, endpoint="paid", model="m", show=False)
    kimi.settings.budget = "$1"
    listed = describe_usage(session.connector.spending.accounts(), kimi.settings.most_spent)
    rows = [line.split() for line in listed.splitlines()]
    assert rows[0] == "chat model endpoint requests tokens in cached out cost".split()
    assert rows[1] == "main m paid 2 160 0 40 $0.0560".split()
    assert rows[2] == "other m paid 1 80 0 20 $0.0280".split()
    assert rows[3] == "(no chat) m paid 1 80 0 20 $0.0280".split()
    assert rows[4] == "in all 4 320 0 80 $0.1120".split()
    assert listed.endswith("Budget: $1.00, $0.8880 left.")
    assert describe_usage({}, None) == "Nothing was used yet in this session."


def test_the_sum_of_what_is_partly_unknown() -> None:
    """Input: accounts with and without prices. Holds: their sum does not pass for all of it."""
    known = Account("main", "m", "paid")
    unknown = Account("main", "m", "lab", is_priced=False)
    used, free = Usage(80, 20, cost=0.5, requests=1), Usage(80, 20, requests=1)
    sums = [
        describe_usage(accounts, None).split("in all")[1].splitlines()[0].split(maxsplit=4)[4]
        for accounts in (
            {known: used, replace(known, chat=None): used},
            {known: used, unknown: free},
            {unknown: free, replace(unknown, chat=None): free},
        )
    ]
    assert sums == ["$1.00", "$0.50 + unknown", "unknown"]


def test_a_budget_of_the_environment(
    server: ScriptedServer, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Input: KIMI_BUDGET, good and bad. Holds: it is a limit; what is none is named."""
    monkeypatch.setenv("KIMI_BUDGET", "0 tokens")
    with pytest.raises(BudgetSpent):
        kimi.ask("Hi", show=False)
    monkeypatch.setenv("KIMI_BUDGET", "two euros")
    with pytest.raises(kimi.ConfigError, match=r"KIMI_BUDGET.*as in '2 USD'"):
        kimi.ask("Hi", show=False)
    assert not server.requests
