"""Describe figures of Plotly: each trace by type, name, count and ranges, titles and axes."""

from __future__ import annotations

import base64
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

from kimi_magic.context.summaries.detail import Detail
from kimi_magic.context.summaries.libraries.wording import (
    attribute,
    fitted_lines,
    is_number,
    number,
    phrase,
    quoted,
    shape_of,
    span,
)
from kimi_magic.context.walker import type_name
from kimi_magic.core.text import clip, count

__all__ = ["describe"]

MOST_TRACES = 12
MAX_BYTES = 8_000_000  # of values that are stored in base64
# Data of all kinds of traces, in the order in which a reader wants them.
DATA = (
    "x", "y", "z", "lat", "lon", "r", "theta", "a", "b", "c", "values", "labels", "parents",
    "locations", "open", "high", "low", "close", "value", "header.values", "cells.values",
    "node.label", "link.value", "dimensions",
)  # fmt: skip
STYLES = ("mode", "orientation", "histfunc", "nbinsx", "nbinsy", "stackgroup", "fill", "xaxis")
LAYOUT = ("barmode", "hovermode", "width", "height")


def describe(value: Any, limit: int, detail: Detail) -> str:
    traces = value.data
    kinds = Counter(trace.type for trace in traces)
    of = ", ".join(f"{n:,} {kind}" for kind, n in kinds.most_common(5))
    layout = value.layout
    shown = detail.values == "rows"
    title = quoted(attribute(layout, "title.text")) if shown else ""
    frames = len(attribute(value, "frames") or ())
    heading = phrase(
        f"plotly {type_name(value)} with {count(len(traces), 'trace')}{f': {of}' if of else ''}",
        f"title {title}" if title else None,
        count(frames, "frame") + " of an animation" if frames else None,
        *_settings(layout),
    )
    lines = [heading, *_axes(layout, detail)]
    lines += [f"- {_trace(trace, detail)}" for trace in traces[:MOST_TRACES]]
    if (left := len(traces) - MOST_TRACES) > 0:
        lines.append(f"- … {count(left, 'more trace')}")
    marks = [f"{len(found)} {what}" for what in ("annotations", "shapes", "sliders", "updatemenus")
             if (found := attribute(layout, what))]  # fmt: skip
    if marks:
        lines.append(f"- {', '.join(marks)}{_notes(layout) if shown else ''}")
    return fitted_lines(lines, limit)


def _settings(layout: Any) -> Iterator[str]:
    for name in LAYOUT:
        found = attribute(layout, name)
        if isinstance(found, str) or is_number(found):
            yield f"{name} {found}"


def _axes(layout: Any, detail: Detail) -> Iterator[str]:
    """Tell the titles, kinds and ranges of the axes that were set."""
    names = sorted(name for name in layout if name.startswith(("xaxis", "yaxis")))
    for name in names[:6]:
        axis = attribute(layout, name)
        title = quoted(attribute(axis, "title.text"))
        kind = attribute(axis, "type")
        ends = attribute(axis, "range") if detail.values == "rows" else None
        text = phrase(
            title, kind, f"range {_end(ends[0])} to {_end(ends[1])}" if ends else None
        )  # fmt: skip
        if text:
            yield f"- {name.replace('axis', ' axis ').strip()}: {text}"
    scenes = [name for name in layout if name.startswith(("scene", "polar", "geo", "map"))]
    if found := [name for name in scenes if layout[name].to_plotly_json()][:4]:
        yield f"- {', '.join(found)}"


def _end(end: Any) -> str:
    return number(end) if is_number(end) else clip(str(end), 30)


def _trace(trace: Any, detail: Detail) -> str:
    shown = detail.values == "rows"
    name = quoted(trace.name) if shown else ""
    styles = [f"{style} {found}" for style in STYLES
              if isinstance(found := attribute(trace, style), str | int)
              and (style, found) not in (("xaxis", "x"), ("orientation", "v"))]  # fmt: skip
    parts = [f"{trace.type}{name and f' {name}'}", *styles]
    for key in DATA:
        data = _decoded(attribute(trace, key))
        if data is None:
            continue
        size = shape_of(data) or ("1" if is_number(data) else "")
        if is_number(data):
            parts.append(f"{key} {number(data) if detail.values != 'schema' else 'given'}")
            continue
        if not size:
            parts.append(key)
            continue
        text = span(data, texts=shown) if detail.values != "schema" else ""
        parts.append(f"{key.partition('.')[0]} ({size}){text and f' {text}'}")
    return clip(", ".join(parts), 300)


def _decoded(data: Any) -> Any:
    """Return an array that is stored in base64, as in a figure that was read from JSON."""
    if not isinstance(data, dict) or "bdata" not in data:
        return data
    numpy: Any = sys.modules.get("numpy")
    raw = data["bdata"]
    if numpy is None or not isinstance(raw, str) or len(raw) > MAX_BYTES:
        return f"{data.get('dtype')} values in base64"
    return numpy.frombuffer(base64.b64decode(raw), data["dtype"])


def _notes(layout: Any) -> str:
    texts = [quoted(attribute(one, "text")) for one in (attribute(layout, "annotations") or ())[:5]]
    said = ", ".join(filter(None, texts))
    return f": {said}" if said else ""
