"""Sweeps: which rows are asked, what is refused before, and what a frame holds."""

from __future__ import annotations

import inspect
import math
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pandas as pd
import pytest
from hypothesis import given

import kimi_magic as kimi
import kimi_magic.session
from kimi_magic.chats.journal import Journal
from kimi_magic.chats.journal_search import Query
from kimi_magic.core.frontend import user_namespace
from kimi_magic.core.reply import Reply
from kimi_magic.lab.sweep import SINGLE, VARIED
from kimi_magic.lab.sweep_plot import interval, wilson
from kimi_magic.session import Session
from kimi_magic.testing import ScriptedServer
from tests.kernels import Kernel
from tests.snippets import cell


def test_its_keywords_are_those_of_ask() -> None:
    known = set(inspect.signature(kimi.ask).parameters)
    assert {*VARIED, *SINGLE} == known - {"prompt", "chat", "show"}


def test_each_with_each(server: ScriptedServer) -> None:
    server.lenient = True
    for n in range(8):
        server.reply(f"Answer: {n % 2}", reasoning="Hm.")
    frame = kimi.sweep(["a", "b"], repeats=2, max_tokens=[100, 200], check=1)
    assert list(frame.columns) == [
        "prompt", "max_tokens", "repeat", "answer", "data", "correct", "prompt_tokens", "tokens",
        "seconds", "cost", "error", "reply",
    ]  # fmt: skip
    assert list(frame.prompt) == ["a"] * 4 + ["b"] * 4
    assert list(frame.max_tokens) == [100, 100, 200, 200] * 2
    assert list(frame.repeat) == [1, 2] * 4
    assert frame.correct.sum() == 4
    assert frame.error.isna().all()
    assert all(isinstance(reply, Reply) for reply in frame.reply)
    assert kimi.last_sweep is frame
    asked = sorted((r.body["messages"][-1]["content"], r.body["max_tokens"])
                   for r in server.requests)  # fmt: skip
    assert asked == sorted((p, n) for p in "ab" for n in (100, 200) for _ in range(2))
    assert kimi.last is None


def test_no_more_at_once_than_allowed(server: ScriptedServer, session: Session) -> None:
    session.settings.max_concurrency = 2
    most = 0
    ended: list[float] = []
    for _ in range(5):
        server.reply("x " * 10, rate=100)
    frame = kimi.sweep("a", repeats=5)
    spans = [
        (step.timings.started, step.timings.started + step.usage.seconds)
        for reply in frame.reply
        for step in reply.steps
    ]
    for start, end in sorted(spans):
        ended = [each for each in ended if each > start + 0.02]
        ended.append(end)
        most = max(most, len(ended))
    assert most <= 2


def test_seeds_of_repeats(server: ScriptedServer) -> None:
    for _ in range(6):
        server.reply("x")
    kimi.sweep("a", repeats=3, seed=[7, 20])
    assert sorted(r.body["seed"] for r in server.requests) == [7, 8, 9, 20, 21, 22]


def test_heavy_rows(server: ScriptedServer) -> None:
    server.lenient = True
    for _ in range(5):
        server.reply("Answer: 9")
    frame = kimi.sweep("a", heavy=[1, 3], check=9)
    assert list(frame.heavy) == [1, 3]
    assert [len(reply.trajectories) for reply in frame.reply] == [0, 3]
    assert list(frame.correct) == [True, True]


def test_a_row_that_fails_has_its_error(server: ScriptedServer) -> None:
    server.reply("x")
    server.error(400, "No such thing.")
    server.reply("x")
    frame = kimi.sweep("a", repeats=3, check=lambda reply: 1.0)
    assert frame.error.notna().sum() == 1
    assert "BadRequest: " in next(filter(None, frame.error.dropna()))
    assert frame.correct.notna().sum() == 2


@pytest.mark.parametrize(
    ("check", "expected"),
    [
        ("nine", True),
        (9, False),
        ({"a": "Nine."}, True),
        (lambda reply: reply.text.startswith("It"), True),
        (lambda reply, prompt: prompt == "b", False),
        (lambda reply, prompt="b": prompt == "a", True),
        (lambda reply: 0.25, 0.25),
    ],
)
def test_checks(server: ScriptedServer, check: Any, expected: Any) -> None:
    server.reply("It is so.\nAnswer: Nine")
    assert list(kimi.sweep("a", check=check).correct) == [expected]


@pytest.mark.parametrize(
    ("text", "number", "expected"),
    [
        ("17 + 25 is 42.", 42, True),
        ("Answer: $1,234.50", 1234.5, True),
        ("From 3 to -7.0", -7, True),
        ("It is 420.", 42, False),
        ("None.", 0, False),
    ],
)
def test_a_number_is_looked_for(
    server: ScriptedServer, text: str, number: float, expected: bool
) -> None:
    server.reply(text)
    assert list(kimi.sweep("a", check=number).correct) == [expected]


def test_a_check_that_fails(server: ScriptedServer) -> None:
    server.reply("x")
    frame = kimi.sweep("a", check={"b": 1})
    assert list(frame.error) == ["check failed: KeyError: 'a'"]
    assert list(frame.answer) == ["x"]


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"model": "kimi-k3", "temperature": [0, 1]}, "kimi-k3 fixes its sampling: .* temperature"),
        ({"model": "kimi-k3", "seed": 1, "top_p": 0.5}, "leave out top_p=, seed="),
        ({"model": ["kimi-k3", "kimi-k2-thinking"], "effort": "low"}, "has no levels of effort"),
        ({"effort": ["low", "huge"], "model": "kimi-k3"}, "effort= is one of low, high, max"),
        ({"heavy": [1, 0]}, "heavy= is a number from 2"),
        ({"max_tokens": []}, "max_tokens= is an empty list"),
        ({"tool": 1}, "has no tool="),
        ({"chat": "main"}, "has no chat="),
        ({"repeats": 0}, "repeats= is a whole number"),
        ({"repeats": True}, "repeats= is a whole number"),
        ({"resume": pd.DataFrame({"a": [1]})}, "resume= takes the frame of a sweep"),
    ],
)
def test_what_is_refused_before_anything_is_sent(
    server: ScriptedServer, keywords: dict[str, Any], words: str
) -> None:
    with pytest.raises(kimi.KimiError, match=words) as caught:
        kimi.sweep("a", **keywords)
    assert len(str(caught.value).splitlines()) == 1
    assert server.requests == []


def test_it_resumes(server: ScriptedServer) -> None:
    server.reply("one")
    server.error(400, "No.")
    server.reply("three")
    first = kimi.sweep("a", repeats=3, max_tokens=[100])
    failed = int(first.index[first.error.notna()][0])
    server.reply("again")
    second = kimi.sweep("a", repeats=3, max_tokens=[100], resume=first)
    assert second.error.isna().all()
    assert second.answer[failed] == "again"
    kept = [row for row in range(3) if row != failed]
    assert [second.reply[row] for row in kept] == [first.reply[row] for row in kept]


@pytest.fixture
def journal(session: Session, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "journal.sqlite3"
    session.settings.journal = str(path)
    yield path
    session.close()


def answers(server: ScriptedServer, *texts: str) -> None:
    for text in texts:
        server.reply(text)


def in_the_next_kernel(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kimi.session.current().close()
    session = Session()
    session.settings.journal = str(journal)
    monkeypatch.setattr(kimi.session, "_current", session)


def test_a_kernel_that_dies_leaves_its_rows(tmp_path: Path) -> None:
    journal = tmp_path / "journal.sqlite3"
    with ScriptedServer() as server:
        set_up = f"""
import os
os.environ["KIMI_BASE_URL"], os.environ["KIMI_MODEL"] = {server.base_url!r}, {server.models[0]!r}
%load_ext kimi_magic
import kimi_magic as kimi
kimi.settings.journal = {str(journal)!r}
kimi.settings.max_concurrency = 1
"""
        sweep = "frame = kimi.sweep(['a', 'b'], repeats=2, check='two')"
        answers(server, "one", "two", "three")
        server.reply("slow " * 1000, rate=20)
        with Kernel() as first:
            first.run(set_up)
            first.die(sweep, until=lambda: len(server.requests) == 4 and done_in(journal) == 3)
        answers(server, "four")
        with Kernel() as second:
            second.run(set_up)
            ran = second.run(sweep)
            shown = second.run("print(list(frame.answer), list(frame.correct), list(frame.repeat))")
        assert len(server.requests) == 5
    assert (
        shown.stdout == "['one', 'two', 'three', 'four'] [False, True, False, False] [1, 2, 1, 2]\n"
    )
    said = "Sweep: 4 rows. 3 rows came from the journal; resume=False asks all anew."
    assert said in ran.displays[-1]["text/html"]


def done_in(journal: Path) -> int:
    return sum(turn.state == "done" for turn in Journal(journal).stored(Query()))


def test_what_the_journal_has_is_checked_anew(
    server: ScriptedServer, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that failed is asked again, and so is every row where that is asked for."""
    monkeypatch.setattr(kimi.session.current().settings, "max_concurrency", 1)
    answers(server, "one")
    server.error(400, "No.")
    answers(server, "three")
    first = kimi.sweep("a", repeats=3, check="one")
    assert list(first.correct) == [True, None, False]
    in_the_next_kernel(journal, monkeypatch)
    answers(server, "two")
    second = kimi.sweep("a", repeats=3, check=in_text)
    assert list(second.answer) == ["one", "two", "three"]
    assert list(second.correct) == [False, True, True]
    assert second.attrs["from_journal"] == 2
    answers(server, "a", "b", "c")
    third = kimi.sweep("a", repeats=3, resume=False)
    assert sorted(third.answer) == ["a", "b", "c"]
    assert third.attrs["from_journal"] == 0
    in_the_next_kernel(journal, monkeypatch)
    again = kimi.sweep("a", repeats=3)
    assert list(again.answer) == list(third.answer), "the latest answer counts"
    for name in ("tokens", "prompt_tokens", "seconds"):
        assert list(again[name]) == pytest.approx(list(third[name]))
    answers(server, "more")
    assert list(kimi.sweep("a", repeats=4).answer) == [*third.answer, "more"]


def in_text(reply: Reply) -> bool:
    return reply.text in ("two", "three")


def length(text: str) -> int:
    """Count."""
    return len(text)


@pytest.mark.parametrize(
    "other",
    [
        {"prompts": "b"},
        {"max_tokens": 99},
        {"seed": 8},
        {"system": "Be brief."},
        {"stop": "x"},
        {"schema": "word"},
        {"variables": {"x": 5}},
        {"tools": [length]},
        {"temperature": [0.0]},
        {"heavy": 2},
        {"endpoint": "another"},
    ],
    ids=lambda other: next(iter(other)),
)
def test_what_makes_another_row(
    server: ScriptedServer, journal: Path, other: dict[str, Any]
) -> None:
    kimi.add_endpoint(name="another", base_url=server.base_url, like="vllm")
    server.lenient = True
    answers(server, "one")
    kimi.sweep("a")
    answers(server, *['{"word": "two"}'] * (3 if "heavy" in other else 1))
    given = {"prompts": "a"} | other
    assert kimi.sweep(**given).attrs["from_journal"] == 0
    asked = len(server.requests)
    again = kimi.sweep(**given)
    assert again.attrs["from_journal"] == 1
    assert again.error.isna().all()
    assert len(server.requests) == asked
    if "schema" in other:
        assert again.data[0] == {"word": "two"}
    if "heavy" in other:
        assert [each.text for each in again.reply[0].trajectories] == ['{"word": "two"}'] * 2


def test_a_tool_that_was_mended_is_asked_with_again(server: ScriptedServer, journal: Path) -> None:
    namespace: dict[str, Any] = {}
    answers(server, "one", "two")
    for source, answer in [("return 1", "one"), ("return 2", "two"), ("return 1", "one")]:
        cell(f"def count() -> int:\n    'Count.'\n    {source}", namespace)
        assert list(kimi.sweep("a", tools=[namespace["count"]]).answer) == [answer]
    assert len(server.requests) == 2


def test_rows_alike_have_answers_of_their_own(server: ScriptedServer, journal: Path) -> None:
    answers(server, *"abcd")
    first = kimi.sweep(["x", "x"], repeats=2)
    assert sorted(first.answer) == list("abcd")
    assert list(kimi.sweep(["x", "x"], repeats=2).answer) == list(first.answer)


def test_only_the_sweeps_of_this_notebook_count(
    server: ScriptedServer, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A turn that was asked without a sweep is none of its rows either."""
    answers(server, "asked", "one", "two")
    kimi.ask("a", show=False)
    assert list(kimi.sweep("a").answer) == ["one"]
    monkeypatch.setitem(user_namespace(), "__vsc_ipynb_file__", "/elsewhere/other.ipynb")
    assert list(kimi.sweep("a").answer) == ["two"]


def test_a_journal_that_cannot_be_read_is_told(
    server: ScriptedServer, journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal.write_bytes(b"no journal at all" * 100)
    answers(server, "one")
    assert list(kimi.sweep("a", show=True).answer) == ["one"]
    assert capsys.readouterr().out.startswith("Nothing is taken from the journal: ")


def test_a_script_says_what_came_from_the_journal(
    server: ScriptedServer, journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers(server, "one")
    kimi.sweep("a")
    kimi.sweep("a")
    assert capsys.readouterr().out == "1 row came from the journal; resume=False asks all anew.\n"


def test_a_frame_is_checked_anew(server: ScriptedServer) -> None:
    answers(server, "one")
    first = kimi.sweep("a", check={"b": 1})
    assert list(first.error) == ["check failed: KeyError: 'a'"]
    second = kimi.sweep("a", check="one", resume=first)
    assert list(second.correct) == [True]
    assert second.error.isna().all()


def test_an_interrupt_keeps_the_rows_that_came(server: ScriptedServer, session: Session) -> None:
    session.settings.max_concurrency = 1
    server.reply("one")
    server.reply("two")
    came = 0

    def check(reply: Reply) -> bool:
        nonlocal came
        came += 1
        if came == 2:
            signal.raise_signal(signal.SIGINT)
        return True

    with pytest.raises(kimi.TurnInterrupted, match=r"in kimi\.last_sweep"):
        kimi.sweep("a", repeats=4, check=check)
    assert list(kimi.last_sweep.answer) == ["one", "two"]


@pytest.mark.parametrize("heavy", [1, 2])
def test_an_interrupt_while_it_waits(server: ScriptedServer, heavy: int) -> None:
    sent = 2 if heavy == 1 else 5  # rows of heavy mode are asked one by one
    for _ in range(sent - 2):
        server.reply("done")
    for _ in range(2):
        server.reply("slow " * 1000, rate=20)

    def stop() -> None:
        while len(server.requests) < sent:
            time.sleep(0.01)
        signal.pthread_kill(main, signal.SIGINT)

    main = threading.get_ident()
    stopper = threading.Thread(target=stop)
    stopper.start()
    try:
        with pytest.raises(kimi.TurnInterrupted, match="Stopped: "):
            kimi.sweep("a", repeats=2, heavy=heavy)
    finally:
        stopper.join()
    assert len(kimi.last_sweep) == (0 if heavy == 1 else 1)


def test_a_prompt_of_parts_is_one(server: ScriptedServer) -> None:
    server.reply("x")
    frame = kimi.sweep([{"type": "text", "text": "a"}])
    assert len(frame) == 1
    assert frame.prompt[0] == [{"type": "text", "text": "a"}]


def test_it_needs_pandas(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(kimi.KimiError, match="pip install pandas"):
        kimi.sweep("a")
    assert server.requests == []


def test_its_bar_in_a_notebook(kernel: Kernel, asked: ScriptedServer) -> None:
    asked.reply("one")
    asked.error(400, "No.")
    ran = kernel.run("frame = kimi.sweep('a', repeats=2)\nprint(len(frame))")
    first, last = ran.displays[0], ran.displays[-1]
    assert '<progress value="0" max="2"' in first["text/html"]
    assert last["text/plain"] == "Sweep: 2 rows, 1 failed"
    assert "<progress" not in last["text/html"]
    assert ran.stdout == "2\n"


def test_its_bar_in_a_terminal(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        server.reply("x")
    kimi.sweep("a")
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    kimi.sweep("a")
    assert "Sweep: 1 row" in capsys.readouterr().out


# The table of Newcombe 1998 (Statistics in Medicine 17, 857), method 3.
@pytest.mark.parametrize(
    ("successes", "count", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611),
     (1, 29, 0.0061, 0.1718)],
)  # fmt: skip
def test_wilsons_interval(successes: int, count: int, low: float, high: float) -> None:
    _, *ends = wilson(successes, count)
    assert ends == pytest.approx([low, high], abs=5e-5)


@given(st.lists(st.floats(-1e6, 1e6) | st.sampled_from([0.0, 1.0]), min_size=1))
def test_an_interval_holds_its_mean(values: list[float]) -> None:
    mean, low, high = interval(values)
    assert low <= mean <= high
    assert math.isfinite(high - low)


def sweep_frame(**columns: Any) -> pd.DataFrame:
    count = len(next(iter(columns.values())))
    given = {"prompt": ["a$b$"] * count, "correct": [None] * count, "tokens": [9] * count}
    frame = pd.DataFrame(given | {"error": [None] * count} | columns)
    frame.attrs["varied"] = [name for name in columns if name in VARIED]
    return frame


def test_a_plot_with_intervals() -> None:
    frame = sweep_frame(
        effort=["low", "low", "high", "high"], heavy=[1, 4, 1, 4], correct=[True, False, True, None]
    )
    figure = kimi.plot_sweep(frame)
    (axes,) = figure.axes
    assert axes.get_xlabel() == "effort"
    assert axes.get_ylabel() == "share of correct answers, 95% interval"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["low", "high"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["1", "4"]
    figure.canvas.draw()
    (axes,) = kimi.plot_sweep(frame, x="heavy", y="tokens").axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "4"]
    (axes,) = kimi.plot_sweep(sweep_frame(model=["a"])).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == [r"a\$b\$"]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"x": "hat"}, "no column 'hat'"),
        ({"y": "prompt"}, "y= is one of"),
        ({"y": "correct"}, "No row"),
    ],
)
def test_plots_that_cannot_be(columns: dict[str, str], words: str) -> None:
    with pytest.raises(kimi.KimiError, match=words):
        kimi.plot_sweep(sweep_frame(effort=["low", "high"]), **columns)
