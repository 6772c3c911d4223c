"""Turns with a tape: recorded once, played anywhere, and nothing sent that need not be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

import kimi_magic as kimi
from kimi_magic import session as session_module
from kimi_magic.core.events import ContentDelta, Envelope, Event, LaneEvent, Notice, Replayed
from kimi_magic.display.record import record_of
from kimi_magic.display.view import ViewOptions
from kimi_magic.session import Session
from kimi_magic.testing import ScriptedServer
from kimi_magic.wire.endpoints import LOCAL
from kimi_magic.wire.local import process
from kimi_magic.wire.tape_file import TapeFile


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "lesson.tape"


@pytest.fixture
def alone(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Make this machine one without a server, a key or an engine, in a session of its own."""

    def leave_alone() -> None:
        for name in ("KIMI_BASE_URL", "KIMI_MODEL", "KIMI_API_KEY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(process, "available", lambda: False)
        monkeypatch.setattr(session_module, "_current", Session())

    return leave_alone


def asked(prompt: str, **options: Any) -> tuple[str, str]:
    reply = kimi.ask(prompt, **options)
    return reply.text, reply.replayed


def replays(prompt: str, **options: Any) -> list[Replayed]:
    return [event for event in kimi.stream(prompt, **options) if isinstance(event, Replayed)]


def test_what_was_recorded_plays_on_a_machine_that_has_nothing(
    server: ScriptedServer, path: Path, alone: Callable[[], None]
) -> None:
    server.reply("It is 9.9.", reasoning="Let me think.")
    with kimi.tape(path) as use:
        live = kimi.ask("Which is bigger?")
        assert live.replayed == ""
        assert dict(use.counts) == {"recorded": 1}
    header = TapeFile(path).read().header
    assert header is not None
    assert header.made_by["scripted"] is True
    assert (header.made_by["model"], header.made_by["endpoint"]) == (server.models[0], "custom")
    alone()
    with kimi.tape(path, mode="none") as use:
        played = kimi.ask("Which is bigger?")
        assert replays("Which is bigger?") == [Replayed("lesson.tape", "scripted")]
        assert dict(use.counts) == {"played": 2}
    assert (played.text, played.reasoning) == (live.text, live.reasoning)
    assert played.replayed == "lesson.tape, scripted"
    assert played.usage.steady == live.usage.steady
    assert played.usage.seconds == round(live.usage.seconds, 3)
    assert played.messages == live.messages
    assert len(server.requests) == 1


def test_none_sends_nothing_and_says_what_differs(server: ScriptedServer, path: Path) -> None:
    server.reply("fine")
    with (
        kimi.tape(path, mode="none"),
        pytest.raises(kimi.TapeError, match="does not exist, and mode none sends nothing"),
    ):
        kimi.ask("How are you?")
    with kimi.tape(path):
        kimi.ask("How are you?")
    with kimi.tape(path, mode="none"), pytest.raises(kimi.TapeError) as caught:
        kimi.ask("How are they?")
    assert str(caught.value).splitlines() == [
        "lesson.tape holds no answer to this request, and mode none sends nothing.",
        "The nearest is «How are you?»; recorded (-) and asked (+) differ:",
        "message 2 (user):",
        "  - How are you?",
        "  + How are they?",
        "`--mode new` (KIMI_TAPE_MODE=new) asks and records it.",
    ]
    assert caught.value.reply is not None
    assert caught.value.reply.error is caught.value
    assert len(server.requests) == 1


def test_a_model_that_a_list_would_tell_is_not_asked_for(
    server: ScriptedServer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even ``GET /models``, neither for the model nor for the hint of an error."""
    monkeypatch.delenv("KIMI_MODEL")
    server.reply("fine")
    with kimi.tape(path):
        kimi.ask("How are you?")
    server.error(404, "no such model")
    with kimi.tape(path), pytest.raises(kimi.NotFound):
        kimi.ask("And this?", model="gone")
    sent = len(server.requests)
    monkeypatch.setattr(session_module, "_current", Session())
    with kimi.tape(path, mode="none"):
        assert asked("How are you?") == ("fine", "lesson.tape, scripted")
        with pytest.raises(kimi.NotFound):
            kimi.ask("And this?", model="gone")
        with pytest.raises(kimi.TapeError):
            kimi.ask("Nothing like it")
    assert len(server.requests) == sent


def test_the_embedded_engine_is_not_started(
    path: Path, session: Session, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until something must be sent; then its ordinary error comes."""
    server.reply("practice")
    running = process.Running(
        server.base_url,
        "engine-key-0123456789",
        LOCAL.model,
        practice=True,
        context_window=4096,
    )
    monkeypatch.setattr(process.LocalEngine, "start", lambda *_, **__: running)
    server.lenient = True
    with kimi.tape(path):
        kimi.ask("Practise", endpoint="local")
    header = TapeFile(path).read().header
    assert header is not None
    assert header.made_by["engine"] is True

    def fails(*_: Any, **__: Any) -> process.Running:
        raise kimi.LocalEngineError("not installed")

    monkeypatch.setattr(process.LocalEngine, "start", fails)
    with kimi.tape(path):
        assert asked("Practise", endpoint="local") == ("practice", "lesson.tape, scripted")
        with pytest.raises(kimi.LocalEngineError, match="not installed"):
            kimi.ask("Something else", endpoint="local")


def test_a_key_is_asked_for_when_something_must_be_sent(
    server: ScriptedServer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kimi.add_endpoint(name="lab", base_url=server.base_url, key_env="LAB_API_KEY")
    monkeypatch.setenv("LAB_API_KEY", "lab-0123456789-abcdef")
    server.reply("fine")
    with kimi.tape(path):
        kimi.ask("How are you?", endpoint="lab")
    monkeypatch.delenv("LAB_API_KEY")
    with kimi.tape(path):
        assert asked("How are you?", endpoint="lab") == ("fine", "lesson.tape, scripted")
        with pytest.raises(kimi.MissingKeyError):
            kimi.ask("Something else", endpoint="lab")


def test_an_endpoint_that_only_the_tape_knows(
    server: ScriptedServer, path: Path, alone: Callable[[], None]
) -> None:
    kimi.add_endpoint(name="lab", base_url=server.base_url, temperature=0.25, like="vllm")
    server.reply("fine")
    with kimi.tape(path):
        kimi.ask("How are you?", endpoint="lab")
    assert server.base_url not in path.read_text("utf-8")
    alone()
    with kimi.tape(path):
        assert asked("How are you?", endpoint="lab") == ("fine", "lesson.tape, scripted")
        assert asked("How are you?") == ("fine", "lesson.tape, scripted")  # it leads
        with pytest.raises(kimi.ConfigError, match="endpoint lab, which is not known here"):
            kimi.ask("Something else")


def test_other_inputs_are_played_and_said(server: ScriptedServer, path: Path) -> None:
    server.reply("Sales fell.")
    with kimi.tape(path):
        kimi.ask("Why?", variables={"sales": [1, 2, 3]})
    with kimi.tape(path, mode="none") as use:
        assert asked("Why?", variables={"sales": [4, 5, 6]}) == (
            "Sales fell.",
            "lesson.tape, scripted, inputs differ",
        )
        assert replays("Why?", variables={"sales": [7]}) == [
            Replayed("lesson.tape", "scripted", differs=True)
        ]
        assert use.counts["differing"] == 2
        with pytest.raises(kimi.TapeError, match="no answer"):
            kimi.ask("Why?", variables={"sales": [4]}, temperature=0.1)
    with kimi.tape(path, mode="none", strict=True):
        assert asked("Why?", variables={"sales": [1, 2, 3]})[1] == "lesson.tape, scripted"
        with pytest.raises(kimi.TapeError, match="differs only in its inputs, which --strict"):
            kimi.ask("Why?", variables={"sales": [4, 5, 6]})


def test_a_tool_that_another_cell_has_offered_since(server: ScriptedServer, path: Path) -> None:
    server.reply("Io.")
    server.reply("Rome.", reasoning="Without a tool.")
    with kimi.tape(path):
        kimi.ask("A moon?")
        kimi.ask("A city?", tools=[len])
    with kimi.tape(path, mode="none"):
        assert asked("A moon?", tools=[max, len]) == ("Io.", "lesson.tape, scripted, inputs differ")
        assert asked("A city?", tools=[max, len])[0] == "Rome."
        with pytest.raises(kimi.TapeError, match="no answer"):
            kimi.ask("A city?", tools=[max])  # the recorded answer might have called the other one
    with kimi.tape(path, mode="none", strict=True), pytest.raises(kimi.TapeError):
        kimi.ask("A moon?", tools=[max])


def test_tools_run_for_real_and_may_give_other_results(server: ScriptedServer, path: Path) -> None:
    result, ran = ["24 °C"], []

    def weather(city: str) -> str:
        ran.append(city)
        return result[0]

    def script() -> None:
        server.reply(tool_calls=[{"name": "weather", "arguments": {"city": "Rome"}}])
        server.reply("Warm.")

    script()
    with kimi.tape(path):
        kimi.ask("Warm?", tools=[weather])
    with kimi.tape(path, mode="none"):
        assert asked("Warm?", tools=[weather]) == ("Warm.", "lesson.tape, scripted")
        assert len(replays("Warm?", tools=[weather])) == 2
        assert ran == ["Rome"] * 3
        result[0] = "5 °C"
        reply = kimi.ask("Warm?", tools=[weather])
    assert (reply.text, reply.replayed) == ("Warm.", "lesson.tape, scripted, inputs differ")
    assert reply.tool_results[0].content == "5 °C"
    assert not reply.tool_results[0].recorded
    with kimi.tape(path, mode="none", frozen_tools=True, strict=True):
        reply = kimi.ask("Warm?", tools=[weather])
    assert (reply.text, reply.replayed) == ("Warm.", "lesson.tape, scripted")
    assert reply.tool_results[0].content == "24 °C"
    assert reply.tool_results[0].recorded
    assert len(ran) == 4


def test_equal_requests_play_in_turn_then_the_last_again(
    server: ScriptedServer, path: Path
) -> None:
    for number in range(3):
        server.reply(f"answer {number}")
    with kimi.tape(path):
        live = [kimi.ask("Same?").text for _ in range(3)]
    assert live == ["answer 0", "answer 1", "answer 2"]
    for mode in ("new", "none"):
        with kimi.tape(path, mode=mode):
            assert [kimi.ask("Same?").text for _ in range(4)] == [*live, "answer 2"]
    with kimi.tape(path), ThreadPoolExecutor(3) as pool:
        assert sorted(pool.map(lambda _: kimi.ask("Same?").text, range(3))) == live


def test_all_records_anew_and_leaves_the_rest(server: ScriptedServer, path: Path) -> None:
    for text in ("one", "two", "other", "new one", "other data"):
        server.reply(text)
    with kimi.tape(path):
        kimi.ask("Same?")
        kimi.ask("Same?")
        kimi.ask("Other?", variables={"x": 1})
    with kimi.tape(path, mode="all"):
        assert asked("Same?") == ("new one", "")
        assert asked("Other?", variables={"x": 2}) == ("other data", "")
    recordings = TapeFile(path).read().recordings
    assert [each.cue["prompt"] for each in recordings] == ["Same?", "Other?"]
    with kimi.tape(path, mode="none", strict=True):
        assert asked("Same?")[0] == "new one"
        assert asked("Other?", variables={"x": 2})[0] == "other data"


@pytest.fixture
def in_cell(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Ask from a cell, in one run of it."""

    def place(cell: str, run: str) -> None:
        monkeypatch.setattr(session_module, "running_cell", lambda: (cell, run))

    return place


def test_a_cell_that_is_run_again_costs_nothing_and_begins_where_it_did(
    server: ScriptedServer, path: Path, in_cell: Callable[[str, str], None]
) -> None:
    for number in range(2):
        server.reply(f"answer {number}")
    with kimi.tape(path) as use:
        in_cell("a", "1")
        first = [kimi.ask("Same?").text for _ in range(2)]
        in_cell("b", "2")
        assert asked("Same?")[0] == "answer 0"  # it is there already
        in_cell("a", "3")
        assert [kimi.ask("Same?").text for _ in range(2)] == first
        assert use.counts["recorded"] == 2
    with kimi.tape(path):
        in_cell("a", "4")
        assert asked("Same?")[0] == "answer 0"
        in_cell("b", "5")
        assert asked("Same?")[0] == "answer 1"
        in_cell("a", "6")
        assert asked("Same?")[0] == "answer 0"
        in_cell("b", "7")
        assert asked("Same?")[0] == "answer 1"


def test_a_cell_that_records_anew_twice_keeps_its_last_word(
    server: ScriptedServer, path: Path, in_cell: Callable[[str, str], None]
) -> None:
    for text in ("not good", "good"):
        server.reply(text)
    with kimi.tape(path, mode="all"):
        for run in ("1", "2"):
            in_cell("a", run)
            kimi.ask("Same?")
    with kimi.tape(path, mode="none"):
        assert asked("Same?") == ("good", "lesson.tape, scripted")


def test_another_order_and_an_inserted_turn_of_a_chat(server: ScriptedServer, path: Path) -> None:
    for text in ("one", "two", "inserted"):
        server.reply(text)
    with kimi.tape(path):
        kimi.ask("First?", chat="a")
        kimi.ask("Second?", chat="a")
    with kimi.tape(path):
        assert asked("First?", chat="b") == ("one", "lesson.tape, scripted")
        assert asked("Inserted?", chat="b") == ("inserted", "")
        assert asked("Second?", chat="b") == ("two", "lesson.tape, scripted, inputs differ")
    with kimi.tape(path, mode="none"):
        assert asked("Second?", chat="c") == ("two", "lesson.tape, scripted, inputs differ")


def test_eight_trajectories_play_their_own(server: ScriptedServer, path: Path) -> None:
    for number in range(8):
        server.reply(f"answer {number % 3}")
    server.reply("the aggregate")
    with kimi.tape(path):
        live = kimi.ask("Heavy?", heavy=8)
    with kimi.tape(path, mode="none") as use:
        played = kimi.ask("Heavy?", heavy=8)
        events = list(kimi.stream("Heavy?", heavy=8))
    assert [each.text for each in played.trajectories] == [each.text for each in live.trajectories]
    assert (played.text, played.replayed) == ("the aggregate", "lesson.tape, scripted")
    assert all(each.replayed == "lesson.tape, scripted" for each in played.trajectories)
    assert played.agreement == live.agreement
    assert use.counts["played"] == 18
    lanes = [e.lane for e in events if isinstance(e, LaneEvent) and isinstance(e.event, Replayed)]
    assert sorted(lanes) == list(range(1, 9))
    assert len(server.requests) == 9


def test_one_piece_a_schema_and_its_correction(server: ScriptedServer, path: Path) -> None:
    for text in ('{"age": "old"}', '{"age": 7}'):
        server.reply(text)
    with kimi.tape(path):
        live = kimi.ask("How old?", schema="age int")
    with kimi.tape(path, mode="none"):
        played = kimi.ask("How old?", schema="age int")
    assert played.data == live.data
    assert played.replayed == "lesson.tape, scripted"
    assert len(played.steps) == len(live.steps) == 2


def test_a_turn_that_is_continued(server: ScriptedServer, path: Path, session: Session) -> None:
    server.reply("Once upon", finish_reason="length")
    server.reply(" a time.")

    def tell() -> list[str]:
        texts = [kimi.ask("Tell", chat="story").text]
        return [*texts, session.ask(session.to_continue("story"), show=False).text]

    with kimi.tape(path):
        live = tell()
    kimi.chat("story").reset()
    with kimi.tape(path, mode="none", strict=True):
        assert tell() == live
    assert kimi.chat("story").turns[-1].reply.replayed == "lesson.tape, scripted"


def test_turns_inside_of_tools_and_parallel_ones(server: ScriptedServer, path: Path) -> None:
    @kimi.tool(parallel=True)
    def expert(topic: str) -> str:
        return kimi.ask(f"Explain {topic}").text

    calls = [{"name": "expert", "arguments": {"topic": topic}} for topic in ("a", "b")]
    server.reply(tool_calls=calls)
    for text in ("about", "about", "all"):
        server.reply(text)
    with kimi.tape(path):
        assert kimi.ask("Both?", tools=[expert]).text == "all"
    sent = len(server.requests)
    with kimi.tape(path, mode="none") as use:
        assert kimi.ask("Both?", tools=[expert]).text == "all"
        assert use.counts["played"] == 4
    assert len(server.requests) == sent


def test_the_innermost_tape_counts_and_threads_may_have_their_own(
    server: ScriptedServer, path: Path
) -> None:
    other = path.with_name("other.tape")
    for text in ("outer", "inner", "own"):
        server.reply(text)
    with kimi.tape(path):
        kimi.ask("Outer?")
        with kimi.tape(other):
            kimi.ask("Inner?")
    own = path.with_name("own.tape")

    def in_thread() -> tuple[str, str]:
        with kimi.tape(own):
            return asked("Own?")

    with kimi.tape(path, mode="none"):
        with kimi.tape(other, mode="none"):
            assert asked("Inner?") == ("inner", "other.tape, scripted")
            with ThreadPoolExecutor(1) as pool:
                assert pool.submit(in_thread).result() == ("own", "")
                assert pool.submit(asked, "Inner?").result() == ("inner", "other.tape, scripted")
        assert asked("Outer?") == ("outer", "lesson.tape, scripted")


def test_blocks_that_end_in_another_order(server: ScriptedServer, path: Path) -> None:
    server.reply("fine")
    first, second = kimi.tape(path), kimi.tape(path.with_name("other.tape"), mode="none")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    with pytest.raises(kimi.TapeError, match=r"other\.tape"):
        kimi.ask("Hello?")
    second.__exit__(None, None, None)
    assert asked("Hello?") == ("fine", "")
    assert not path.exists()


def test_only_the_answer_after_a_refusal_is_recorded(
    server: ScriptedServer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kimi_magic.turn.loop.FIRST_DELAY", 0.01)
    server.error(429, "slow down")
    server.reply("at last")
    with kimi.tape(path):
        kimi.ask("Hello?")
    (recording,) = TapeFile(path).read().recordings
    assert recording.status == 200
    with kimi.tape(path, mode="none"):
        assert asked("Hello?") == ("at last", "lesson.tape, scripted")


def test_what_was_stopped_is_not_recorded(server: ScriptedServer, path: Path) -> None:
    server.reply("a b c d e f", stall_after=3)
    with kimi.tape(path), closing(cast("Generator[Event]", kimi.stream("Hello?"))) as events:
        next(event for event in events if isinstance(event, ContentDelta))
    assert not path.exists()


def test_a_tape_at_its_own_speed_can_be_stopped(
    server: ScriptedServer, path: Path, session: Session
) -> None:
    server.reply("one two three")
    with kimi.tape(path):
        kimi.ask("Hello?")
    tape = TapeFile(path)
    (recording,) = tape.read().recordings
    first, *_ = recording.body.split(b"\n\n")
    slow = ((0.0, first + b"\n\n"), (3600.0, recording.body[len(first) + 2 :]))
    tape.rewrite([type(recording)(*recording_fields(recording, slow))])
    with kimi.tape(path, mode="none", speed="real"):
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(kimi.TurnInterrupted) as caught:
            kimi.ask("Hello?")
    assert caught.value.reply is not None
    assert caught.value.reply.replayed == "lesson.tape"


def recording_fields(recording: Any, pieces: Any) -> Iterator[Any]:
    yield from (recording.meaning, recording.cue, recording.status, recording.headers, pieces)
    yield 3601.0


def test_the_records_of_two_plays_are_the_same(server: ScriptedServer, path: Path) -> None:
    server.reply("Is it $x$?", reasoning="Hm.")
    with kimi.tape(path):
        kimi.ask("Hello?")
    found = []
    for _ in range(2):
        with kimi.tape(path, mode="none"):
            reply = kimi.ask("Hello?")
        data, _ = record_of(reply, ViewOptions(usage=True))
        found.append((data, reply.usage, [step.usage for step in reply.steps]))
    assert found[0] == found[1]


def test_the_environment_names_a_tape_and_its_mode(
    server: ScriptedServer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.reply("fine")
    monkeypatch.setenv("KIMI_TAPE", str(path))
    assert asked("Hello?") == ("fine", "")
    monkeypatch.setenv("KIMI_TAPE_MODE", "none")
    assert asked("Hello?") == ("fine", "lesson.tape, scripted")
    with pytest.raises(kimi.TapeError):
        kimi.ask("Something else")
    with kimi.tape(path), pytest.raises(kimi.TapeError):  # "new" gives way
        kimi.ask("Something else")
    monkeypatch.delenv("KIMI_TAPE")
    server.reply("live")
    assert asked("Something else") == ("live", "")


@pytest.mark.parametrize(
    "options",
    [{"mode": "once"}, {"speed": "fast"}, {"speed": 0}, {"speed": -1}, {"speed": float("nan")}],
)
def test_options_that_are_none(options: dict[str, Any], session: Session, path: Path) -> None:
    with pytest.raises(kimi.TapeError, match="of a tape is"), kimi.tape(path, **options):
        pass


def test_a_damaged_tape_plays_what_is_whole(server: ScriptedServer, path: Path) -> None:
    for text in ("one", "two", "three"):
        server.reply(text)
    with kimi.tape(path):
        for prompt in ("One?", "Two?", "Three?"):
            kimi.ask(prompt)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], lines[2][:50] + b"\n", lines[3]]))
    with kimi.tape(path, mode="none") as use:
        assert asked("One?")[0] == "one"
        assert asked("Three?")[0] == "three"
        with pytest.raises(kimi.TapeError):
            kimi.ask("Two?")
        assert use.tape.problems == ("lesson.tape, line 3 is damaged: it is left out.",)


RECORDS = """
import sys
import kimi_magic as kimi
with kimi.tape(sys.argv[1]):
    print(kimi.ask(sys.argv[2], show=False).text, flush=True)
    sys.stdin.read()
"""


def test_two_kernels_record_into_one_file(server: ScriptedServer, path: Path) -> None:
    server.reply("from the other")
    with subprocess.Popen(
        [sys.executable, "-c", RECORDS, str(path), "Theirs?"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline().strip() == b"from the other"
        before = path.read_bytes()
        with kimi.tape(path):
            assert asked("Theirs?") == (
                "from the other",
                "lesson.tape, scripted",
            )  # playing is free
            with pytest.raises(kimi.TapeError, match=r"Another kernel records into lesson\.tape"):
                kimi.ask("Mine?")
        assert path.read_bytes() == before
        assert len(server.requests) == 1
        other.stdin.close()
        other.wait(30)
    server.reply("mine")
    with kimi.tape(path):
        assert asked("Mine?") == ("mine", "")
    assert len(TapeFile(path).read().recordings) == 2


def test_a_notice_where_it_cannot_be_written(server: ScriptedServer, path: Path) -> None:
    path.write_text("not a tape\n", "utf-8")
    server.reply("fine")
    with kimi.tape(path):
        events = list(kimi.stream("Hello?"))
    notices = [event.text for event in events if isinstance(event, Notice)]
    assert notices
    assert "is no tape" in notices[0]
    assert path.read_text("utf-8") == "not a tape\n"


def test_what_sinks_hear_is_in_the_turns_time(server: ScriptedServer, path: Path) -> None:
    """A played turn takes its own time: its events do not lie in the future."""
    server.reply("fine")
    with kimi.tape(path):
        kimi.ask("Hello?")
    heard: list[Envelope] = []

    class Ear:
        def handle(self, envelope: Envelope) -> None:
            heard.append(envelope)

        def tick(self) -> None:
            pass

        def close(self) -> None:
            pass

    began = time.monotonic()
    with kimi.tape(path, mode="none"):
        from kimi_magic.turn.request import make_request

        list(session_module.current().prepare(make_request("Hello?")).run([Ear()]))
    assert max(envelope.seconds for envelope in heard) <= time.monotonic() - began
