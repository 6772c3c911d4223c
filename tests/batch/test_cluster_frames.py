"""Maps of Dask frames: lazy, typed, without a key in the graph, and each row asked once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import cloudpickle
import dask
import dask.dataframe as dd
import pandas as pd
import pytest
from dask.base import tokenize
from distributed import Client, LocalCluster
from pydantic import BaseModel, Field

import kimi_magic as kimi
from kimi_magic.batch import dask_frames
from kimi_magic.batch.checkpoint import Answer, Header
from kimi_magic.core.errors import KimiError
from kimi_magic.secrets.redact import Redactor
from kimi_magic.session import Session
from kimi_magic.testing import ScriptedServer
from tests.batch.faulty_server import FaultyServer, named_fault
from tests.batch.test_map import COLUMNS

KEY = "Qz7" + "correct-horse-battery-staple"
ROWS = pd.DataFrame({"name": [f"n{n}" for n in range(12)], "n": range(12)}, index=range(10, 22))


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch, session: Session) -> Iterator[FaultyServer]:
    session.settings.retries = 0
    with FaultyServer(named_fault) as server:
        monkeypatch.setenv("KIMI_BASE_URL", server.base_url)
        monkeypatch.setenv("KIMI_MODEL", "kimi-k2-thinking")
        with dask.config.set(scheduler="threads", num_workers=2):
            yield server


@pytest.fixture
def frame() -> Any:
    return dd.from_pandas(ROWS, npartitions=3)


def test_lazy_until_it_is_computed(
    faults: FaultyServer, frame: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names of the notebook are those of the call; parts are computed alone."""
    word = {"suffix": "!", "step": 1}
    monkeypatch.setattr("kimi_magic.batch.prompts.user_namespace", lambda: word)
    answers = kimi.map(frame, "{{ name }}{{ n\n + step }}{{ suffix }}")
    word.update(suffix="later", step=2)
    assert faults.asked == []
    assert isinstance(answers, dd.DataFrame)
    assert list(answers.columns) == COLUMNS
    assert answers.divisions == frame.divisions
    first = answers.head(2)
    assert list(first.text) == ["N01!", "N12!"]
    assert len(faults.asked) == 4
    second = answers.partitions[1].compute()
    assert list(second.text) == ["N45!", "N56!", "N67!", "N78!"]
    assert len(faults.asked) == 8
    whole = answers.compute()
    assert whole.dtypes.equals(answers.dtypes)
    assert whole.index.equals(ROWS.index)
    assert list(whole.text) == [f"N{n}{n + 1}!" for n in range(12)]
    assert list(whole.attempts) == [1] * 12


@pytest.mark.parametrize("keeps", ["into", "journal", "nowhere"])
def test_what_was_answered_is_not_asked_again(
    faults: FaultyServer, frame: Any, tmp_path: Path, session: Session, keeps: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    keywords = {"into": tmp_path / "labels[1].parquet"} if keeps == "into" else {}
    if keeps == "journal":
        monkeypatch.setenv("KIMI_JOURNAL", str(tmp_path / "journal.sqlite3"))
    answers = kimi.map(frame, "{{ name }}", **keywords)
    answers.partitions[0].compute()
    texts = list(answers.compute().text)
    assert texts == [name.upper() for name in ROWS.name]
    again = list(
        kimi.map(frame.repartition(npartitions=2), "{{ name }}", **keywords).compute().text
    )
    assert again == texts
    assert len(faults.asked) == (28 if keeps == "nowhere" else 12)
    assert not (tmp_path / "labels[1].parquet").exists()
    kept = answers.persist()
    asked = len(faults.asked)
    assert list(kept.compute().text) == texts
    assert len(faults.asked) == asked


def test_machines_that_share_a_folder_share_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither sees the other's lock; each reads what the other has kept."""
    monkeypatch.setattr(dask_frames, "this_worker", object)
    made = []
    for machine in ("one", "two"):
        monkeypatch.setattr("platform.node", lambda name=machine: name)
        header = Header("prompt", "model", 1)
        with closing(dask_frames._opened(tmp_path / "labels.csv", header, Redactor())) as own:
            own.keep(machine, Answer(machine))
            made.append((own.path, list(own.found)))
    assert made[0][0] != made[1][0]
    assert [found for _, found in made] == [[], ["one"]]


class Place(BaseModel):
    name: str
    inhabitants: int = Field(alias="people")
    area: float | None = None
    old: bool = False
    tags: list[str] = []


def test_types_of_a_schema(faults: FaultyServer, frame: Any) -> None:
    """They have room for rows that failed."""
    answers = kimi.map(frame, "400 {{ n }}", schema=Place)
    wanted = {
        "name": "string",
        "inhabitants": "Int64",
        "area": "Float64",
        "old": "boolean",
        "tags": "object",
        "reasoning": "string",
        "error": "string",
        "usage": "object",
        "attempts": "int64",
    }
    assert answers.dtypes.astype(str).to_dict() == wanted
    failed = answers.compute()
    assert failed.dtypes.astype(str).to_dict() == wanted
    assert failed.error.str.contains("BadRequest: .*fault 400").all()
    assert failed.name.isna().all()


def test_a_column(faults: FaultyServer, frame: Any) -> None:
    def ask(row: Any) -> str:
        return f"{row['name']}{row['value']}"

    assert list(kimi.map(frame.name, ask, key="value").compute().text[:2]) == ["N0N0", "N1N1"]


def test_tokens_tell_maps_apart_and_hold_no_key(
    faults: FaultyServer, frame: Any, monkeypatch: pytest.MonkeyPatch, session: Session
) -> None:
    monkeypatch.setenv("LAB_KEY", KEY)
    token = KEY.upper()
    session.settings.mcp_servers = {"wiki": {"command": "wiki", "env": {"TOKEN": token}}}
    session.settings.heavy_prompt = f"{{answers}} {KEY}"
    kimi.add_endpoint(
        name="lab", base_url=faults.base_url, key_env="LAB_KEY", model="m",
        headers={"X-Team": KEY[::-1]},
    )  # fmt: skip
    asked: dict[str, Any] = {"endpoint": "lab", "system": f"Know {KEY}"}
    one, same = (kimi.map(frame, "{{ name }}", **asked) for _ in "12")
    other = kimi.map(frame, "{{ name }}", temperature=0.5, **asked)
    assert tokenize(one) == tokenize(same) != tokenize(other)
    graph = cloudpickle.dumps(one.optimize().dask) + repr(dict(one.dask)).encode()
    assert b"{{ name }}" in graph
    assert KEY.encode() not in graph
    assert KEY[::-1].encode() not in graph
    assert token.encode() not in graph
    assert list(one.head(1).text) == ["N0"]
    assert set(faults.keys) == {KEY}
    with pytest.raises(KimiError, match="holds the key from the environment variable LAB_KEY"):
        kimi.map(frame, lambda row: f"{row} {[KEY]}", endpoint="lab")


def test_a_dry_run_looks_at_the_first_partition(faults: FaultyServer, frame: Any) -> None:
    plan = kimi.map(frame, "{{ name }}", dry_run=True)
    assert (plan.rows, plan.prompts) == (4, ("n0", "n1", "n2"))
    assert faults.asked == []


def test_partitions_of_a_process_share_the_limit(faults: FaultyServer) -> None:
    rows = dd.from_pandas(pd.DataFrame({"n": range(60)}), npartitions=4)
    faults._latency = 0.01
    kimi.map(rows, "{{ n + 100 }}", concurrency=3).compute()
    assert faults.most_at_once <= 3


def test_on_the_workers_of_a_client(faults: FaultyServer, frame: Any) -> None:
    """Each keeps its share of a limit, and what was cancelled is asked no more."""
    with (
        LocalCluster(
            n_workers=2, processes=False, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
        dask.config.set(scheduler=client),
    ):
        answers = kimi.map(frame, "{{ name }}", concurrency=4)
        assert list(answers.compute().text) == [name.upper() for name in ROWS.name]
        with pytest.raises(KimiError, match="concurrency=1 cannot be shared by 2 workers"):
            kimi.map(frame, "{{ name }}", concurrency=1).compute()
        with pytest.raises(Exception, match="fault 400"):
            kimi.map(frame, "400 {{ n }}", on_error="raise").compute()
        many = dd.from_pandas(pd.DataFrame({"n": range(1000)}), npartitions=1)
        begun = threading.Event()
        faults.on_request = lambda _: begun.set()
        faults._latency = 0.02
        asked = len(faults.asked)
        future = client.compute(kimi.map(many, "{{ n + 1000 }}", concurrency=4))
        assert begun.wait(20)
        future.cancel()
        faults.wait_until_quiet()
        assert len(faults.asked) - asked < 900


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"max_cost": 1.0}, "max_cost= needs a kernel that counts"),
        ({"max_tokens_total": 5}, "max_tokens_total= needs a kernel"),
        ({"heavy": 2, "judge": "m@local"}, "Workers ask one endpoint"),
        ({"endpoint": "local"}, "The practice model runs in this kernel"),
    ],
)
def test_what_is_refused(faults: FaultyServer, frame: Any, keywords: Any, said: str) -> None:
    with pytest.raises(KimiError, match=said):
        kimi.map(frame, "{{ name }}", **keywords)


def test_a_value_that_its_column_cannot_hold(server: ScriptedServer, session: Session) -> None:
    server.reply('{"n": 1%s}' % ("0" * 30))
    server.reply('{"n": 3}')
    data = dd.from_pandas(ROWS[:2], npartitions=1)
    answers = kimi.map(data, "{{ name }}", schema="n int", concurrency=1).compute()
    assert list(answers.n.isna()) == [True, False]
    assert list(answers.error.isna()) == [False, True]
    assert answers.error.iloc[0].endswith("is no Int64, the type of its column.")
