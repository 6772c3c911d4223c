"""Graphs of networkx."""

from __future__ import annotations

from typing import Any

import pytest

from tests.context.golden import Case


def undirected() -> Any:
    nx: Any = pytest.importorskip("networkx")
    graph = nx.Graph(name="friends")
    for n, name in enumerate(["Ann", "Bob", "Cid", "Dan", "Eve", "Fay"]):
        graph.add_node(name, age=20 + n)
    graph.add_weighted_edges_from([("Ann", "Bob", 0.5), ("Bob", "Cid", 2.5), ("Dan", "Eve", 1.0)])
    return graph


def directed() -> Any:
    nx: Any = pytest.importorskip("networkx")
    return nx.DiGraph([("load", "clean"), ("clean", "fit"), ("load", "plot"), ("fit", "plot")])


def parallel() -> Any:
    nx: Any = pytest.importorskip("networkx")
    graph = nx.MultiDiGraph()
    graph.add_edge(1, 2, kind="road", km=3.5)
    graph.add_edge(1, 2, kind="rail", km=2.5)
    graph.add_edge(2, 2, kind="road")
    return graph


def large() -> Any:
    nx: Any = pytest.importorskip("networkx")
    graph = nx.Graph()
    graph.add_edges_from((n, n * 7 % 150_000) for n in range(1, 150_000))
    return graph


CASES = {
    "undirected": Case(undirected, "Ann Bob Eve friends 25 2.5"),
    "directed": Case(directed, "load clean fit plot"),
    "parallel-edges": Case(parallel, "road rail 3.5"),
    "large": Case(large, "149999"),
    "empty": Case(lambda: pytest.importorskip("networkx").Graph()),
}
