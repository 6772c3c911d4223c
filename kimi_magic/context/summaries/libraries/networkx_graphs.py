"""Describe graphs of networkx: size, kind, attributes, degrees, components of small ones."""

from __future__ import annotations

import operator
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from heapq import nlargest
from itertools import islice
from typing import Any

from kimi_magic.context.summaries.detail import Detail
from kimi_magic.context.summaries.libraries.wording import (
    attribute,
    fitted_lines,
    kinds,
    listed,
    named,
    number,
    phrase,
    quoted,
    span,
)
from kimi_magic.context.summaries.reprs import label
from kimi_magic.context.walker import type_name
from kimi_magic.core.sampling import positions_at_random
from kimi_magic.core.text import count

__all__ = ["describe"]

COUNTED = 100_000  # nodes whose loops are counted, pairs whose parallel edges are
SAMPLE = 1000
SMALL = 50_000  # nodes and edges of a graph that is searched for components
SHOWN_EDGES = 12
MAX_ATTRIBUTES = 10
FULLEST = 5
OF_A_VIEW = 100_000  # nodes of the graph behind a view, which filters them one by one


def describe(value: Any, limit: int, detail: Detail) -> str:
    directed, multi = value.is_directed(), value.is_multigraph()
    behind = attribute(value, "_graph")  # of a view
    if behind is not None and len(behind) > OF_A_VIEW:
        return f"networkx {type_name(value)}, a view of a graph of {len(behind):,} nodes"
    adjacency: Mapping[Any, Any] = value.adj if behind is not None else value._adj  # noqa: SLF001
    nodes = list(adjacency)
    degrees = list(map(len, adjacency.values()))
    edges, loops, exact = _edges(adjacency, degrees, directed=directed, multi=multi)
    title = quoted(value.name) if detail.values == "rows" else ""
    lines = [
        phrase(
            f"{named(value, 'networkx')}{title and f' {title}'}",
            count(len(nodes), "node"),
            f"{'' if exact else 'about '}{count(edges, 'edge')}",
            "directed" if directed else "undirected",
            "parallel edges allowed" if multi else None,
            count(loops, "self-loop") if loops else None,
        )
    ]
    small = len(nodes) + edges <= SMALL
    if nodes and small:
        lines[0] += f"; {phrase(*_structure(value, directed=directed))}"
    chosen = [nodes[at] for at in positions_at_random(0, len(nodes), SAMPLE)]
    if nodes:
        such = (
            f", such as {listed(chosen, len(nodes), most=6, room=120)}"
            if detail.values == "rows"
            else ""
        )
        lines.append(f"- nodes: {kinds(chosen)}{such}")
    of_nodes = [value.nodes[node] for node in chosen]
    of_edges = list(islice(_attributes_of_edges(adjacency, chosen, multi=multi), SAMPLE))
    lines += _attributes("node", of_nodes, detail)
    lines += _attributes("edge", of_edges, detail)
    if of_edges and not any(of_edges):
        lines[0] += ", no weights"
    own = {key: one for key, one in islice(value.graph.items(), 20) if key != "name"}
    if own and detail.values == "rows":
        said = [f"{label(key)}={label(one)}" for key, one in own.items()]
        lines.append(f"- graph attributes: {listed(said)}")
    if edges and detail.values != "schema":
        incoming = value.pred if directed else None
        lines.append(_degrees(nodes, degrees, incoming, detail))
    if 0 < edges <= SHOWN_EDGES and detail.values == "rows":
        arrow = "→" if directed else "—"
        lines.append(f"- edges: {listed(f'{_name(a)}{arrow}{_name(b)}' for a, b in value.edges())}")
    return fitted_lines(lines, limit)


def _name(node: object) -> str:
    return label(node, 30)


def _edges(
    adjacency: Mapping[Any, Any], degrees: list[int], *, directed: bool, multi: bool
) -> tuple[int, int, bool]:
    """Count edges and self-loops, and return whether that is exact."""
    pairs = sum(degrees)
    exact = (directed and not multi) or max(len(degrees), pairs) <= 5 * COUNTED
    loops = 0
    if exact:
        if multi:
            pairs = sum(len(keys) for near in adjacency.values() for keys in near.values())
            loops = sum(len(near[node]) for node, near in adjacency.items() if node in near)
        else:
            loops = sum(map(operator.contains, adjacency.values(), adjacency))
    # Without the loops a graph's edges are still counted right where it has none.
    return (pairs if directed else (pairs + loops) // 2), loops, exact


def _structure(graph: Any, *, directed: bool) -> Iterator[str]:
    networkx: Any = sys.modules["networkx"]
    find = networkx.weakly_connected_components if directed else networkx.connected_components
    sizes = sorted(map(len, find(graph)), reverse=True)
    kind = "weakly connected" if directed else "connected"
    if len(sizes) == 1:
        yield kind
    else:
        yield f"{len(sizes):,} {kind} components of {listed(sizes, most=5)} nodes"
    if directed:
        yield "acyclic" if networkx.is_directed_acyclic_graph(graph) else "has cycles"
    elif len(sizes) == 1 and networkx.is_tree(graph):
        yield "a tree"
    elif graph.number_of_edges() and networkx.is_bipartite(graph):
        yield "bipartite"


def _attributes_of_edges(
    adjacency: Mapping[Any, Any], nodes: Iterable[Any], *, multi: bool
) -> Iterator[Mapping[Any, Any]]:
    for node in nodes:
        for attributes in islice(adjacency[node].values(), 20):
            if multi:
                yield from islice(attributes.values(), 5)
            else:
                yield attributes


def _attributes(of: str, rows: list[Mapping[Any, Any]], detail: Detail) -> Iterator[str]:
    """Describe the attributes that some nodes or edges have."""
    having = Counter(name for row in rows for name in islice(row, 50))
    if not having:
        return
    parts = []
    for name, times in having.most_common(MAX_ATTRIBUTES):
        values = [row[name] for row in rows if name in row]
        text = f"{label(name)} ({kinds(values)})"
        if detail.values != "schema" and (about := span(values, texts=detail.values == "rows")):
            text += f" {about}"
        if times < len(rows):
            text += f", on {100 * times / len(rows):.2g} % of them"
        parts.append(text)
    yield f"- {of} attributes: {'; '.join(parts)}" + (
        f"; … {len(having) - len(parts)} more" if len(having) > len(parts) else ""
    )


def _degrees(nodes: list[Any], degrees: list[int], incoming: Any, detail: Detail) -> str:
    """Describe degrees as numbers of neighbours; of a directed graph in both directions."""
    if incoming is None:
        return f"- neighbours of a node: {_spread(nodes, degrees, detail)}"
    into = list(map(len, incoming.values()))
    return (
        f"- out-degree: {_spread(nodes, degrees, detail)}\n"
        f"- in-degree: {_spread(nodes, into, detail)}"
    )


def _spread(nodes: list[Any], degrees: list[int], detail: Detail) -> str:
    low, high = min(degrees), max(degrees)
    if low == high:
        return f"always {low:,}"
    text = f"{low:,} to {high:,}, mean {number(sum(degrees) / len(degrees), 3)}"
    if lonely := degrees.count(0):
        text += f", {lonely:,} at 0"
    if detail.values == "rows" and len(nodes) > COUNTED:
        text += f"; most: {_name(nodes[degrees.index(high)])}"
    elif detail.values == "rows":
        fullest = nlargest(FULLEST, range(len(nodes)), key=degrees.__getitem__)
        text += f"; most: {', '.join(f'{_name(nodes[at])} ({degrees[at]:,})' for at in fullest)}"
    return text
