"""Charts of Altair, Plotly, seaborn and matplotlib."""

from __future__ import annotations

from typing import Any

import pytest

from tests.context.golden import Case


def frame() -> Any:
    pd: Any = pytest.importorskip("pandas")
    rows = range(60)
    return pd.DataFrame(
        {
            "hour": [n * 0.25 for n in rows],
            "load": [(n * 37 % 61) / 2 for n in rows],
            "site": [("Kiel", "Bern")[n % 2] for n in rows],
        }
    )


def altair() -> Any:
    return pytest.importorskip("altair", "5.4")


def layered() -> Any:
    alt = altair()
    points = (
        alt.Chart(frame(), title="Load")
        .mark_circle(size=60)
        .encode(
            x=alt.X("hour:Q", bin=alt.Bin(maxbins=20)),
            y=alt.Y("mean(load):Q", scale=alt.Scale(zero=False), title="kW"),
            color="site:N",
        )
        .transform_filter("datum.site == 'Kiel'")
    )
    line = alt.Chart(frame()).mark_line(color="red").encode(x="hour", y="load")
    return points + line


def of_a_thousand_layers() -> Any:
    alt = altair()
    line = alt.Chart().mark_line().encode(x="hour:Q", y="load:Q")
    return alt.layer(*[line] * 1000, data="https://example.org/load.json?key=Kiel")


def plotly() -> Any:
    go: Any = pytest.importorskip("plotly.graph_objects")
    figure = go.Figure(layout={"title": {"text": "Load in Bern"}, "yaxis": {"type": "log"}})
    for site, part in frame().groupby("site"):
        figure.add_scatter(x=part.hour.to_numpy(), y=part.load.to_numpy(), name=site, mode="lines")
    figure.add_bar(x=["Mo", "Di"], y=[3, 4])
    figure.update_xaxes(title_text="hour", range=[0, 15])
    return figure


def plotly_of_many() -> Any:
    go: Any = pytest.importorskip("plotly.graph_objects")
    return go.Figure([go.Scatter(x=[0, 1], y=[n, 1], name=f"Run {n}") for n in range(500)])


def seaborn(draw: str, **options: Any) -> Any:
    pytest.importorskip("matplotlib").use("agg")
    drawn = getattr(pytest.importorskip("seaborn"), draw)(frame(), **options)
    pytest.importorskip("matplotlib.pyplot").close("all")
    return drawn


def seaborn_objects() -> Any:
    so: Any = pytest.importorskip("seaborn.objects")
    plot = so.Plot(frame(), x="hour", y="load", color="site").add(so.Dots())
    plot = plot.add(so.Line(), so.PolyFit(2), color=None).facet("site")
    return plot.scale(x="log").label(title="Kiel and more")


def heatmap() -> Any:
    figure: Any = pytest.importorskip("matplotlib.figure").Figure()
    np: Any = pytest.importorskip("numpy")
    left, right = figure.subplots(1, 2)
    left.imshow(np.arange(12.0).reshape(3, 4), vmin=0, vmax=20)
    left.set_xticks(range(4), ["Q1", "Q2", "Q3", "Q4"])
    left.set_yticks(range(3), ["Kiel", "Bern", "Rome"])
    mesh = right.pcolormesh(np.array([[1.0, np.nan], [3.0, 4.0]]))
    right.set_title("mesh")
    figure.colorbar(mesh, ax=right)
    return figure


CASES = {
    "altair-layers": Case(layered, "Kiel Bern"),
    "altair-thousand-layers": Case(of_a_thousand_layers, "Kiel"),
    "altair-beside": Case(
        lambda: altair().hconcat(layered(), layered()).properties(title="Both"), "Kiel"
    ),
    "plotly": Case(plotly, "Kiel Bern Mo"),
    "plotly-many-traces": Case(plotly_of_many, "Run"),
    "seaborn-facets": Case(lambda: seaborn("relplot", x="hour", y="load", col="site"), "Kiel Bern"),
    "seaborn-joint": Case(lambda: seaborn("jointplot", x="hour", y="load")),
    "seaborn-objects": Case(seaborn_objects, "Kiel Bern"),
    "matplotlib-heatmaps": Case(heatmap, "Kiel Q1"),
}
