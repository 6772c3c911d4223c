"""Objects of libraries: what a summary must not do to them, and what it must stand.

What it says is in `tests/summaries/`.
"""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kimi_magic.context.summaries.detail import Detail
from kimi_magic.context.summaries.libraries.registry import KNOWN
from kimi_magic.context.summaries.summary import summarize, summary_of
from kimi_magic.tools.results import to_text

FAMILIES = Path(summarize.__code__.co_filename).parent / "libraries"


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may take longer to import and to draw."""
    monkeypatch.setattr("kimi_magic.context.summaries.summary.SECONDS", 60.0)


def test_each_module_of_the_registry_is_there() -> None:
    assert {f"{name}.py" for name in KNOWN.values()} <= {path.name for path in FAMILIES.iterdir()}


def test_a_query_s_result_that_waits_is_not_lost() -> None:
    connection = pytest.importorskip("duckdb").connect()
    connection.execute("CREATE TABLE t AS SELECT range AS n FROM range(10)")
    connection.execute("SELECT n FROM t ORDER BY n")
    assert "t, about 10 rows: n BIGINT" in summarize(connection)
    assert connection.fetchmany(2) == [(0,), (1,)]


def test_a_transaction_stays_open() -> None:
    sa: Any = pytest.importorskip("sqlalchemy")
    for options in ({}, {"poolclass": sa.pool.StaticPool}):
        engine = sa.create_engine("sqlite://", **options)
        assert summarize(engine).endswith("no connection is open")
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE t (n INTEGER)")
        with engine.connect() as connection:
            connection.exec_driver_sql("INSERT INTO t VALUES (1)")
            for value in (engine, connection):
                assert "- t: n INTEGER" in summarize(value)
            assert connection.exec_driver_sql("SELECT count(*) FROM t").scalar() == 1
        engine.dispose()


def test_a_database_is_neither_made_nor_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sa: Any = pytest.importorskip("sqlalchemy")
    file = tmp_path / "new ü.db"
    engine = sa.create_engine(f"sqlite:///{file}", echo=True)
    connected: list[object] = []
    sa.event.listen(engine, "connect", lambda *_: connected.append(1))
    assert summarize(engine).endswith("there is no such file yet")
    assert not file.exists()
    made = sqlite3.connect(file)
    made.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)")
    made.commit()
    made.execute("BEGIN EXCLUSIVE")
    assert "cannot be read now" in summarize(engine)
    made.rollback()
    assert "- notes: id INTEGER key, text TEXT" in summarize(engine)
    made.close()
    assert not connected
    assert not capsys.readouterr().out


def test_connections_of_sqlite_that_cannot_be_read() -> None:
    made: list[sqlite3.Connection] = []
    thread = threading.Thread(target=lambda: made.append(sqlite3.connect(":memory:")))
    thread.start()
    thread.join()
    assert summarize(made[0]) == "sqlite3 Connection\nused by another thread"
    closed = sqlite3.connect(":memory:")
    closed.close()
    assert summarize(closed) == "sqlite3 Connection\nclosed"
    del made[:]


def test_nothing_lazy_is_computed() -> None:
    dask: Any = pytest.importorskip("dask")
    array: Any = pytest.importorskip("dask.array").ones((100, 100), chunks=10)
    values = [array, dask.delayed(lambda: 1)()]
    values += [pytest.importorskip("dask.bag").from_sequence(range(9))]
    values += [pytest.importorskip("xarray").DataArray(array)]
    pd: Any = pytest.importorskip("pandas")
    frame = pytest.importorskip("dask.dataframe").from_pandas(pd.DataFrame({"a": [1, 2]}))
    values += [frame, frame.a, frame.index, frame.groupby("a"), frame.a.sum(), frame[frame.a > 1]]

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError

    with dask.config.set(scheduler=refuse):
        for value in values:
            for values_of in ("rows", "figures", "schema"):
                text = summary_of(value, detail=Detail(values_of)).text
                assert text.startswith(("dask ", "xarray ")), text


def test_an_object_is_as_it_was() -> None:
    alt: Any = pytest.importorskip("altair")
    go: Any = pytest.importorskip("plotly.graph_objects")
    pytest.importorskip("sklearn")
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    chart = alt.Chart("cars.json").mark_bar().encode(x="a:Q") | alt.Chart("b.json").mark_point()
    figure = go.Figure(go.Bar(x=[1, 2], y=[3, 4]), layout={"title": {"text": "Cars"}})
    model = make_pipeline(StandardScaler(), LinearRegression()).fit([[1.0], [2.0]], [1.0, 2.0])
    state = (chart.to_json(), figure.to_json(), model.__getstate__(), vars(model[1]).copy())
    for value in (chart, figure, model, model[1]):
        for values in ("rows", "figures", "schema"):
            summary_of(value, detail=Detail(values))
    assert state == (chart.to_json(), figure.to_json(), model.__getstate__(), vars(model[1]))


def test_what_is_nested_without_end_is_cut() -> None:
    alt: Any = pytest.importorskip("altair")
    pytest.importorskip("sklearn")
    from sklearn.pipeline import FeatureUnion
    from sklearn.preprocessing import StandardScaler

    chart: Any = alt.Chart("cars.json").mark_bar().encode(x="a:Q")
    union: Any = StandardScaler()
    for _ in range(2):
        chart = alt.vconcat(*[chart] * 20)
        union = FeatureUnion([(f"s{n}", union) for n in range(20)])
    for value in (chart, union):
        text = summarize(value)
        assert text.startswith(("altair VConcatChart, 20 charts", "sklearn FeatureUnion"))
        assert len(text) <= 1600


def test_links_to_other_files_are_not_followed(tmp_path: Path) -> None:
    h5py: Any = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["x"] = [1]
    with h5py.File(tmp_path / "this.h5", "w") as file:
        file["link"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/x")
        file["loop/back"] = h5py.SoftLink("/loop")
        file["loop/same"] = file["loop"]
        text = summarize(file)
        assert "- link: ExternalLink /x" in text
        assert len(text) < 1600
        (tmp_path / "other.h5").rename(tmp_path / "gone.h5")
        assert summarize(file) == text


def test_a_class_of_the_notebook_says_whose_it_is() -> None:
    nx: Any = pytest.importorskip("networkx")

    class Roads(nx.DiGraph):  # type: ignore[misc]
        pass

    assert summarize(Roads([(1, 2)])).startswith("Roads, a networkx DiGraph, 2 nodes, 1 edge")
    assert (
        summarize({"roads": Roads()})
        == "{'roads': <Roads, a networkx DiGraph, 0 nodes, 0 edges, directed>}"
    )


def test_hostile_members_are_left_out() -> None:
    nx: Any = pytest.importorskip("networkx")

    class Fails:
        def __repr__(self) -> str:
            raise RuntimeError

        def __eq__(self, other: object) -> bool:
            raise RuntimeError

        def __hash__(self) -> int:
            return 7

    graph = nx.Graph([(Fails(), "x" * 100_000)])
    graph.add_node(1, **{f"attribute {n}": "y" * 10_000 for n in range(200)})
    assert len(summarize(graph)) <= 1600
    assert summarize(graph).startswith("networkx Graph, 3 nodes, 1 edge")


def test_large_objects_are_read_in_part() -> None:
    """The text would be the repr if that took too long."""
    nx: Any = pytest.importorskip("networkx")
    go: Any = pytest.importorskip("plotly.graph_objects")
    np: Any = pytest.importorskip("numpy")
    values = [
        nx.path_graph(300_000),
        go.Figure([go.Scattergl(x=np.arange(2_000_000), y=np.zeros(2_000_000))]),
        go.Figure([go.Bar(x=["a" * 100] * 1000, name="b" * 10_000)] * 300),
    ]
    for value in values:
        text = summarize(value)
        assert text.startswith(("networkx", "plotly"))
        assert len(text) <= 1600


def test_results_of_tools_are_summaries() -> None:
    pd: Any = pytest.importorskip("pandas")
    frame = pd.DataFrame({"x": range(20), "y": [n * n for n in range(20)], "g": ["a", "b"] * 10})
    assert to_text(frame.groupby("g"), 2000) == summarize(frame.groupby("g"))
    xr: Any = pytest.importorskip("xarray")
    fit = pytest.importorskip("statsmodels.formula.api").ols("y ~ x", frame).fit()
    assert to_text(fit, 2000).startswith("statsmodels OLS results\ny ~ x\nn = 20, ")
    assert to_text(xr.Dataset({"x": ("n", [1, 2])}), 2000).startswith("xarray Dataset, n 2, ")
    assert '"statsmodels OLS results\\ny ~ x' in to_text({"fit": fit}, 2000)


def test_a_server_is_named_without_what_may_be_secret() -> None:
    sa: Any = pytest.importorskip("sqlalchemy")
    driver = SimpleNamespace(paramstyle="pyformat", __version__="1.31.0")
    url = "postgresql+pg8000://ann:Hidden1@db.example.org/shop?password=Hidden2"
    for values in ("rows", "figures", "schema"):
        text = summary_of(sa.create_engine(url, module=driver), detail=Detail(values)).text
        assert text.startswith("sqlalchemy Engine, postgresql")
        assert "Hidden" not in text
