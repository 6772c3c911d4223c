"""Maps on a Dask cluster: workers that die, keys, limits, and every way to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from distributed import Client, LocalCluster
from pydantic import BaseModel, field_validator

import kimi_magic as kimi
from kimi_magic.batch.cluster_limits import Permits
from kimi_magic.batch.cluster_link import Link, SecretsAtHand, check_worker, meet
from kimi_magic.batch.cluster_post import Outfit
from kimi_magic.batch.cluster_worker import versions
from kimi_magic.core.errors import BadRequest, KimiError, MissingKeyError
from kimi_magic.secrets.keys import Key
from kimi_magic.session import Session
from kimi_magic.testing import ScriptedServer
from tests.batch.faulty_server import FaultyServer, answer_to, named_fault
from tests.batch.test_faults import checkpointed
from tests.batch.test_map import COLUMNS, asked, kinds

KEY = "Qz7" + "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Start two workers, each a process."""
    with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50
    ) as own:
        yield own
        with Client(own) as last:  # they would be waited for
            for pid in last.run(os.getpid).values():
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def client(cluster: LocalCluster, session: Session) -> Iterator[Client]:
    with Client(cluster, set_as_default=False) as own:
        own.wait_for_workers(2, timeout=60)
        yield own


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch, session: Session) -> Iterator[FaultyServer]:
    session.settings.retries = 0
    with FaultyServer(named_fault, latency=0.01) as server:
        monkeypatch.setenv("KIMI_BASE_URL", server.base_url)
        monkeypatch.setenv("KIMI_MODEL", "kimi-k2-thinking")
        yield server


def interrupt() -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def test_a_worker_that_dies(faults: FaultyServer, client: Client, tmp_path: Path) -> None:
    """Each row is once in the result, and none is asked again that was in the checkpoint."""
    into = tmp_path / "labels.parquet"
    victim = next(iter(client.run(os.getpid).values()))
    kept: set[str] = set()

    def kill(count: int) -> None:
        if count == 80:
            os.kill(victim, signal.SIGKILL)
            kept.update(checkpointed(into))

    faults.on_request = kill
    rows = pd.DataFrame({"n": range(200)}, index=range(1000, 1200))
    frame = kimi.map(rows, "row {{ n }}", into=into, engine=client, concurrency=8, show=False)
    wanted = [answer_to(f"row {n}") for n in range(200)]
    assert list(frame.error.isna()) == [True] * 200
    assert list(frame.text) == wanted
    assert frame.index.equals(rows.index)
    assert list(frame.columns) == COLUMNS
    assert sorted(checkpointed(into)) == sorted(wanted)
    assert faults.most_at_once <= 8 + 8  # those of the dead worker are still under way
    again = [answer_to(prompt) for prompt, times in Counter(faults.asked).items() if times > 1]
    assert kept
    assert not kept & set(again)
    assert len(again) <= 8 + 40  # what was under way, and what had come since it was last asked
    count = len(faults.asked)
    kimi.map(rows, "row {{ n }}", into=into, engine=client, show=False)
    assert len(faults.asked) == count


def everything(value: Any, seen: set[int]) -> Iterator[bytes]:
    """Yield all texts that hang on an object, but for modules, classes and functions."""
    stack = [value]
    while stack:
        one = stack.pop()
        if id(one) in seen or isinstance(one, type) or type(one).__name__ == "module":
            continue
        seen.add(id(one))
        if isinstance(one, str):
            yield one.encode("utf-8", "surrogatepass")
        elif isinstance(one, bytes | bytearray | memoryview):
            yield bytes(one)
        elif isinstance(one, dict):
            stack += [*one.keys(), *one.values()]
        elif isinstance(one, list | tuple | set | frozenset) or type(one).__name__ == "deque":
            stack += list(one)
        else:
            stack += list(vars(one).values()) if hasattr(one, "__dict__") else []
            names = [n for kind in type(one).__mro__ for n in getattr(kind, "__slots__", ())]
            stack += [getattr(one, name) for name in names if hasattr(one, name)]


def held(scheduler: Any) -> bytes:
    """All that a scheduler holds of tasks, events, transitions, clients and workers."""
    names = "tasks transition_log _broker clients workers task_groups task_prefixes plugins"
    names += " worker_plugins nanny_plugins extensions task_metadata unrunnable computations"
    kept = [getattr(scheduler, name, None) for name in names.split()]
    return b"\n".join(everything(kept, set()))


def test_no_key_is_on_the_scheduler(
    cluster: LocalCluster, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked for while tasks run, with their graphs, and when they have ended."""
    monkeypatch.setenv("LAB_KEY", KEY)
    found = []
    with FaultyServer(latency=0.01) as server:
        kimi.add_endpoint(
            name="lab",
            base_url=server.base_url,
            key_env="LAB_KEY",
            model="kimi-k2-thinking",
            headers={"X-Team": "${LAB_KEY}", "X-Token": KEY[::-1]},
        )

        def look(count: int) -> None:
            if count % 10 == 0:
                found.append(held(cluster.scheduler))

        server.on_request = look
        rows = [f"row {n} {KEY}" for n in range(40)]
        frame = kimi.map(
            rows, "{{ value }}", endpoint="lab", system=KEY, engine=client, concurrency=4
        )
    found.append(held(cluster.scheduler))
    assert list(frame.error.isna()) == [True] * 40
    assert set(server.keys) == {KEY}
    assert b"row 39" in b"".join(found)  # the graphs were among what was looked at
    assert not any(KEY.encode() in each or KEY[::-1].encode() in each for each in found)
    assert not any(KEY in each for each in server.asked)


def set_variable(name: str, value: str) -> None:
    os.environ[name] = value


def remove_variable(name: str) -> None:
    os.environ.pop(name, None)


def test_keys_of_the_workers_come_first(client: Client, faults: FaultyServer) -> None:
    kimi.add_endpoint(name="lab", base_url=faults.base_url, key_env="LAB_KEY", model="m")
    with pytest.raises(MissingKeyError, match="LAB_KEY"):
        kimi.map(["a"], "{{ value }}", endpoint="lab", engine=client)
    client.run(set_variable, "LAB_KEY", KEY)
    try:
        frame = kimi.map(["a", "b"], "{{ value }}", endpoint="lab", engine=client)
    finally:
        client.run(remove_variable, "LAB_KEY")
    assert list(frame.text) == ["A", "B"]
    assert faults.keys == [KEY, KEY]


def test_a_limit_of_requests_and_an_interrupt(
    client: Client, faults: FaultyServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """No worker asks more than all of them may; what came by then is returned."""
    kimi.add_endpoint(
        name="slow", base_url=faults.base_url, model="kimi-k2-thinking", requests_per_minute=6
    )
    timer = threading.Timer(1.5, interrupt)
    faults.on_request = lambda count: timer.start() if count == 6 else None
    rows = [f"row {n}" for n in range(30)]
    frame = kimi.map(rows, "{{ value }}", endpoint="slow", engine=client, show=True)
    assert len(faults.asked) == 6
    assert frame.error.isna().sum() == 6
    assert "Stopped: Interrupted.\n6 of 30 rows came" in capsys.readouterr().out


def test_never_more_at_once(client: Client, faults: FaultyServer) -> None:
    kimi.map([f"r{n}" for n in range(60)], "{{ value }}", engine=client, concurrency=3)
    assert 2 <= faults.most_at_once <= 3


@pytest.mark.parametrize(
    ("rows", "keywords", "why", "most"),
    [
        ([f"400 {n}" for n in range(200)] + ["silent"], {}, "The last 20 rows failed alike", 60),
        (["a", "401"] + [f"b{n}" for n in range(200)], {}, "KeyRefused", 60),
        ([f"row {n}" for n in range(200)], {"max_tokens_total": 40}, "max_tokens_total=40", 60),
    ],
    ids=["breaker", "key", "tokens"],
)
def test_ends(
    client: Client,
    faults: FaultyServer,
    rows: list[str],
    keywords: dict[str, Any],
    why: str,
    most: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    frame = kimi.map(rows, "{{ value }}", engine=client, concurrency=6, show=True, **keywords)
    assert why in capsys.readouterr().out
    assert len(faults.asked) < most
    assert frame.error.iloc[-1].startswith(("not asked: ", "Stopped while"))
    for _ in range(100):
        if not (
            tasks := client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.tasks))
        ):
            break
        time.sleep(0.05)
    assert not tasks


def test_the_first_failure_is_raised(client: Client, faults: FaultyServer) -> None:
    with pytest.raises(BadRequest, match="fault 400"):
        kimi.map(
            ["a", "silent", "400"], "{{ value }}", engine=client, concurrency=3, on_error="raise"
        )


class Place(BaseModel):
    name: str
    people: int

    @field_validator("name")
    @classmethod
    def is_known(cls, name: str) -> str:
        return {"bern": "Bern"}[name]


def test_schema_and_tools(client: Client, server: ScriptedServer) -> None:
    factor = 7

    def area(name: str) -> int:
        """Return the area."""
        return len(name) * factor

    server.reply(tool_calls=[{"name": "area", "arguments": {"name": "Bern"}}])
    server.reply('{"name": "bern", "people": 28}')
    frame = kimi.map(["x"], "{{ value }}", schema=Place, tools=[area], engine=client)
    assert kinds(frame) == [""]
    assert frame.iloc[0][["name", "people"]].to_dict() == {"name": "Bern", "people": 28}
    assert any("28" in str(request.body["messages"]) for request in server.requests[1:])
    assert asked(server)[0].startswith("x")


@pytest.fixture
def threads(session: Session) -> Iterator[Client]:
    """Start a cluster that is cheap: its workers are threads of this process."""
    with (
        LocalCluster(
            n_workers=1, processes=False, threads_per_worker=2, dashboard_address=":0"
        ) as own,
        Client(own, set_as_default=False) as client,
    ):
        yield client


def test_heavy(threads: Client, faults: FaultyServer) -> None:
    frame = kimi.map(["a", "b"], "{{ value }}", heavy=2, engine=threads, concurrency=4)
    assert kinds(frame) == ["", ""]
    assert list(frame.attempts) == [3, 3]
    assert faults.most_at_once <= 4


def test_workers_that_join(threads: Client, faults: FaultyServer) -> None:
    faults.on_request = lambda count: threads.cluster.scale(2) if count == 5 else None
    frame = kimi.map([f"r{n}" for n in range(150)], "{{ value }}", engine=threads, concurrency=4)
    assert kinds(frame) == [""] * 150
    assert len(faults.asked) == 150


def test_a_cluster_that_is_closed(
    threads: Client, faults: FaultyServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    into = tmp_path / "labels.csv"
    closing = threading.Thread(target=threads.cluster.close)
    faults.on_request = lambda count: closing.start() if count == 100 else None
    rows = [f"r{n}" for n in range(300)]
    frame = kimi.map(rows, "{{ value }}", engine=threads, concurrency=4, into=into, show=True)
    closing.join()
    assert "The cluster at " in capsys.readouterr().out
    came = frame.error.isna().sum()
    assert 0 < came < 300
    assert len(checkpointed(into)) == came
    with pytest.raises(KimiError, match=r"The client is closed: connect it again with"):
        kimi.map(rows, "{{ value }}", engine=threads)


def test_what_a_cluster_does_not_do(
    threads: Client, faults: FaultyServer, session: Session
) -> None:
    with pytest.raises(KimiError, match="The practice model runs in this kernel, not on"):
        kimi.map(["a"], "{{ value }}", endpoint="local", engine=threads)
    with pytest.raises(KimiError, match="Workers ask one endpoint"):
        kimi.map(["a"], "{{ value }}", heavy=2, judge="m@local", engine=threads)
    lock = threading.Lock()

    def locked() -> str:
        """Return a text."""
        return str(lock)

    with pytest.raises(KimiError, match=r"cannot be sent to the workers: .*lock"):
        kimi.map(["a"], "{{ value }}", tools=[locked], engine=threads)
    assert faults.asked == []


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (ModuleNotFoundError("kimi_magic"), r"is not installed on the worker w\.\nInstall it"),
        ({**versions(), "kimi-magic": "0.0.9"}, r"w has kimi-magic 0\.0\.9, this"),
        ({**versions(), "Python": "2.7"}, r"w has Python 2\.7, this kernel 3\."),
    ],
)
def test_workers_of_another_kind(facts: Any, said: str) -> None:
    with pytest.raises(KimiError, match=said):
        check_worker("w", facts)


class Scripted:
    """A client of two workers that answers as told; it notes what it ran."""

    scheduler = None

    def __init__(self, **answers: Any) -> None:
        self.ran: list[str] = []
        self._answers = answers

    def nthreads(self) -> dict[str, int]:
        return {"a": 1, "b": 1}

    def run(self, function: Any, *_: Any, workers: list[str], **__: Any) -> Any:
        self.ran.append(f"{function.__name__} {','.join(workers)}")
        found = self._answers.get(self.ran[-1].replace(" ", "_").replace(",", ""))
        if isinstance(found, Exception):
            raise found
        return found


def facts(**own: Any) -> dict[str, Any]:
    return {**versions(), "boot": "", "has key": True, "lacking": []} | own


ENDPOINT = kimi.Endpoint("lab", "http://lab.test/v1", None)


def test_a_worker_that_dies_when_it_is_met_is_left_out() -> None:
    client = Scripted(introduce_ab={"a": facts(), "b": OSError("Timed out")})
    secrets = SecretsAtHand(ENDPOINT, lambda _: None, lambda _: None)
    assert meet(client, secrets) == {"a": facts()}


def test_secrets_do_not_stay_where_no_map_begins() -> None:
    """One worker has been equipped when another cannot be."""
    known = {"a": facts(), "b": facts(**{"has key": False})}
    client = Scripted(introduce_ab=known, equip_b=OSError("Timed out"))
    secrets = SecretsAtHand(ENDPOINT, lambda _: Key(KEY, "LAB_KEY"), lambda _: None)
    with pytest.raises(OSError, match="Timed out"):
        Link(client, "a map", Outfit(b"", 1), secrets, Permits(1)).reach()
    assert client.ran == ["introduce a,b", "equip a", "equip b", "forget a,b"]


def test_the_messages_api(threads: Client) -> None:
    """It is asked by threads and by workers alike, and its batches are refused."""
    with ScriptedServer("anthropic") as server:
        kimi.add_endpoint(
            name="lab", base_url=server.base_url, key_env=None, model="m", wire="messages"
        )
        options: dict[str, Any] = {"endpoint": "lab", "schema": "label", "key": "value"}
        for engine in ("threads", threads):
            for text in "ABBB":
                server.reply('{"label": "%s"}' % text, to=f"row {text.lower()}")  # noqa: UP031
            frame = kimi.map(["row a"], "{{ value }}", engine=engine, **options)
            assert list(frame.label) == ["A"]
            frame = kimi.map(["row b"], "{{ value }}", engine=engine, heavy=2, **options)
            assert list(frame.label) == ["B"]
        with pytest.raises(KimiError, match="has no Batch API"):
            kimi.map(["a"], "{{ value }}", engine="batch", **options)


MAP = """
import sys
import kimi_magic as kimi
from distributed import Client
rows = [f"row {n}" for n in range(300)]
kimi.map(rows, "{{ value }}", into=sys.argv[1], engine=Client(sys.argv[2]), concurrency=4)
"""


def test_a_kernel_that_is_killed(faults: FaultyServer, client: Client, tmp_path: Path) -> None:
    """Workers stop soon; what was kept is asked no more, without the cluster as well."""
    into = tmp_path / "labels.csv"
    command = [sys.executable, "-c", MAP, str(into), client.scheduler.address]
    child = subprocess.Popen(command, env={**os.environ, "KIMI_JOURNAL": "off"})
    faults.on_request = lambda count: child.kill() if count == 60 else None
    assert child.wait() == -signal.SIGKILL
    kept = set(checkpointed(into))
    faults.wait_until_quiet()
    before = len(faults.asked)
    assert kept
    assert before < 290
    rows = [f"row {n}" for n in range(300)]
    frame = kimi.map(rows, "{{ value }}", into=into)
    assert list(frame.text) == [answer_to(row) for row in rows]
    assert not kept & {answer_to(prompt) for prompt in faults.asked[before:]}
