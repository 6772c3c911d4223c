"""Describe seaborn's grids of plots, and plots of seaborn.objects that are not drawn yet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kimi_magic.context.summaries.detail import Detail
from kimi_magic.context.summaries.figures import describe_figure
from kimi_magic.context.summaries.frames import as_table
from kimi_magic.context.summaries.libraries.wording import (
    attribute,
    fitted_lines,
    listed,
    named,
    phrase,
    quoted,
    shape_of,
)
from kimi_magic.context.summaries.reprs import bounded_repr, label
from kimi_magic.context.summaries.tables import heading
from kimi_magic.context.walker import type_name
from kimi_magic.core.text import clip

__all__ = ["describe"]

MAX_FIGURE = 1200
MAX_LAYERS = 10


def describe(value: Any, limit: int, detail: Detail) -> str | None:
    """Describe a grid by its facets and then its figure, a plot by what it will draw."""
    name = named(value, "seaborn")
    if type_name(value) == "Plot" and "_layers" in vars(value):
        return fitted_lines(
            list(_plot(value, f"seaborn.objects {type_name(value)}", detail)), limit
        )
    lines = [phrase(name, *_facets(value, detail))]
    data = attribute(value, "data")
    if (table := as_table(data) if data is not None else None) is not None:
        lines.append(f"data: {heading(table)}")
    figure = attribute(value, "figure")
    if detail.values == "rows" and figure is not None:
        room = min(limit, MAX_FIGURE)
        lines += (describe_figure(figure, samples=False) or "").splitlines()
        return fitted_lines(lines, room)
    return fitted_lines(lines, limit)


def _facets(grid: Any, detail: Detail) -> Iterator[str]:
    own = vars(grid)
    if "ax_joint" in own:
        for side in ("x", "y"):
            if (name := attribute(own.get(side), "name")) is not None:
                yield f"{side}={label(name)}"
    axes = own.get("axes", own.get("_axes"))
    if axes is not None and "ax_joint" not in own:
        yield f"{shape_of(axes)} plots"
    for side in ("row", "col", "hue"):
        variable = own.get(f"_{side}_var")
        names = own.get(f"{side}_names")
        if variable is None or not names:
            continue
        said = {"row": "rows by", "col": "columns by", "hue": "colours by"}[side]
        levels = listed(names, most=8, room=120) if detail.values == "rows" else f"{len(names):,}"
        yield f"{said} {label(variable)} ({levels})"
    for side in ("x", "y"):
        if names := own.get(f"{side}_vars"):
            yield f"{side} variables: {listed(list(names), most=8, room=120)}"


def _plot(plot: Any, name: str, detail: Detail) -> Iterator[str]:
    own = vars(plot)
    source = own.get("_data")
    yield f"{name}, drawn when it is shown{_variables(attribute(source, 'source_vars'))}"
    data = attribute(source, "source_data")
    if (table := as_table(data) if data is not None else None) is not None:
        yield f"data: {heading(table)}"
    layers = own.get("_layers") or []
    for layer in layers[:MAX_LAYERS]:
        steps = [layer.get("mark"), layer.get("stat"), *(layer.get("move") or ())]
        words = " + ".join(type_name(step) for step in steps if step is not None)
        yield f"- layer {words}{_variables(layer.get('vars'))}"
    if len(layers) > MAX_LAYERS:
        yield f"- … {len(layers) - MAX_LAYERS:,} more layers"
    if not layers:
        yield "- no layer: it would draw nothing"
    for key, words in (("_facet_spec", "facets"), ("_pair_spec", "pairs")):
        spec = own.get(key) or {}
        if isinstance(variables := spec.get("variables"), dict) and variables:
            yield f"- {words}{_variables(variables)}"
    if scales := own.get("_scales"):
        named = [f"{side} {_scale(scale)}" for side, scale in list(scales.items())[:MAX_LAYERS]]
        yield f"- scales: {listed(named, len(scales))}"
    if (labels := own.get("_labels")) and detail.values == "rows":
        said = [f"{side} {quoted(text) or type_name(text)}" for side, text in labels.items()]
        yield f"- labels: {listed(said)}"


def _variables(found: Any) -> str:
    """Write what is drawn by which column; given vectors by their shape."""
    if not isinstance(found, dict) or not found:
        return ""
    said = []
    for role, by in list(found.items())[:MAX_LAYERS]:
        if isinstance(by, str):
            said.append(f"{role}={label(by)}")
        elif by is not None:
            said.append(f"{role} given as {type_name(by)} {shape_of(by)}".strip())
    return f": {', '.join(said)}" if said else ""


def _scale(scale: Any) -> str:
    if isinstance(scale, str):
        return scale
    return clip(
        bounded_repr(scale, 60) if isinstance(scale, list | tuple) else type_name(scale), 60
    )
