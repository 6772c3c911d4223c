"""Describe charts of Altair: marks, encodings, transforms, composition; never the data."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

from kimi_magic.context.summaries.detail import Detail
from kimi_magic.context.summaries.frames import as_table
from kimi_magic.context.summaries.libraries.wording import (
    attribute,
    fitted_lines,
    kinds,
    listed,
    phrase,
    quoted,
)
from kimi_magic.context.summaries.tables import heading
from kimi_magic.context.walker import type_name
from kimi_magic.core.text import clip, count

__all__ = ["describe"]

PARTS = {
    "layer": "layer",
    "hconcat": "chart side by side",
    "vconcat": "chart below each other",
    "concat": "chart",
}
MOST_CHARTS = 12
MAX_DEPTH = 4
MAX_MEMBERS = 12
MAX_CHANNEL, MAX_TRANSFORM = 160, 120
_MADE = re.compile(r"(?:param|view)_?\w*")  # a name that Altair makes up
PLAIN = (str, int, float, bool, type(None))


def describe(value: Any, limit: int, detail: Detail) -> str | None:
    """Describe a chart or, of other objects of Altair, what was set."""
    if not any(kind.__name__ == "TopLevelMixin" for kind in type(value).__mro__):
        if detail.values != "rows":
            return None
        return clip(f"altair {type_name(value)}: {_json(value)}", min(limit, 400))
    return fitted_lines(list(_chart(value, f"altair {type_name(value)}", detail, [], 0)), limit)


def _chart(chart: Any, name: str, detail: Detail, data: list[object], depth: int) -> Iterator[str]:
    indent = "  " * depth
    yield f"{indent}{phrase(name, *_heading(chart))}"
    own = _set(chart).get("data")
    if own is not None and not any(own is one for one in data):
        data.append(own)
        yield f"{indent}- data: {_data(own, detail)}"
    yield from (f"{indent}- {line}" for line in _drawn(chart, detail))
    if depth >= MAX_DEPTH:
        return
    parts = _set(chart)
    for part in PARTS:
        charts = parts.get(part)
        if isinstance(charts, list):
            word = "layer" if part == "layer" else "chart"
            most = max(MOST_CHARTS >> depth, 2)
            yield from _members(charts[:most], word, detail, data, depth + 1)
            if left := charts[most:]:
                marks = Counter(_mark(one) or type_name(one) for one in left)
                of = ", ".join(f"{n:,} {mark}" for mark, n in marks.most_common(4))
                yield f"{indent}  … {count(len(left), f'more {word}')}: {of}"
    if (spec := parts.get("spec")) is not None:
        yield from _chart(spec, "each", detail, data, depth + 1)


def _members(
    charts: list[Any], word: str, detail: Detail, data: list[object], depth: int
) -> Iterator[str]:
    """Describe charts that are composed, those alike once."""
    described = [list(_chart(one, "", detail, data, depth)) for one in charts]
    at = 0
    while at < len(charts):
        end = at + 1
        while end < len(charts) and described[end] == described[at] != []:
            end += 1
        first, *rest = described[at]
        numbers = f"{word} {at + 1}" if end == at + 1 else f"{word}s {at + 1} to {end}, alike"
        indent = "  " * depth
        yield f"{indent}{phrase(numbers, first.strip())}"
        yield from rest
        at = end


def _set(schema: Any) -> dict[str, Any]:
    """Return what was set of an object of the schema."""
    own = attribute(schema, "_kwds")
    if not isinstance(own, dict):
        return schema if isinstance(schema, dict) else {}
    return {key: one for key, one in own.items() if type_name(one) != "UndefinedType"}


def _heading(chart: Any) -> Iterator[str]:
    parts = _set(chart)
    for part, noun in PARTS.items():
        if isinstance(charts := parts.get(part), list):
            number, _, rest = count(len(charts), "layer" if part == "layer" else "chart").partition(
                " "
            )
            yield f"{number} {rest}{noun.removeprefix('chart').removeprefix('layer')}"
    for name in ("facet", "repeat"):
        if (by := parts.get(name)) is not None:
            yield f"{name} {clip(_by(by), MAX_CHANNEL)}"
    title = parts.get("title")
    if text := quoted(title if isinstance(title, str) else _set(title).get("text")):
        yield f"title {text}"
    sides = [parts.get("width"), parts.get("height")]
    if all(isinstance(side, int | float) for side in sides):
        yield "{} × {} pixels".format(*sides)
    if parts.get("params"):
        found = [_parameter(one) for one in parts["params"][:4]]
        yield f"parameters: {listed(found, len(parts['params']))}"
    resolved = _set(parts.get("resolve"))
    if resolved:
        yield f"resolve {clip(_json(resolved), 100)}"


def _by(by: Any) -> str:
    own = _set(by)
    return str(own["shorthand"]) if "shorthand" in own else _json(by)


def _parameter(one: Any) -> str:
    own = _set(one)
    select = own.get("select")
    kind = select if isinstance(select, str) else _set(select).get("type")
    bound = " bound to scales" if own.get("bind") == "scales" else ""
    name = _plain(own.get("name"), 0)
    named = f"{name} " if isinstance(name, str) and not _MADE.fullmatch(name) else ""
    return f"{named}{kind if isinstance(kind, str) else 'value'}{bound}"


def _mark(chart: Any) -> str:
    mark = _set(chart).get("mark")
    return mark if isinstance(mark, str) else str(_set(mark).get("type") or "")


def _drawn(chart: Any, detail: Detail) -> Iterator[str]:
    parts = _set(chart)
    if mark := _mark(chart):
        how = {name: one for name, one in _set(parts["mark"]).items() if name != "type"}
        yield f"mark {mark}{f' {clip(_json(how), 100)}' if how else ''}"
    encoding = _set(parts.get("encoding"))
    for channel, one in islice(encoding.items(), MAX_MEMBERS):
        several = one if isinstance(one, list) else [one]
        written = "; ".join(_channel(each, detail) for each in several[:MAX_MEMBERS])
        yield f"{channel}: {clip(written, MAX_CHANNEL)}"
    transforms = parts.get("transform")
    if not isinstance(transforms, list) or not transforms:
        return
    if detail.values != "rows":  # a filter has values in it
        kinds_of = [type_name(one).removesuffix("Transform").lower() for one in transforms]
        yield f"transforms: {listed(kinds_of)}"
        return
    for one in transforms[:MAX_MEMBERS]:
        yield f"transform {clip(_json(one), MAX_TRANSFORM)}"
    if len(transforms) > MAX_MEMBERS:
        yield f"… {count(len(transforms) - MAX_MEMBERS, 'more transform')}"


def _channel(channel: Any, detail: Detail) -> str:
    if isinstance(channel, str):
        return channel
    own = dict(_set(channel))
    field = own.pop("shorthand", None) or own.pop("field", None)
    kind = own.pop("type", None)
    text = ""
    if field is not None:
        text = field if isinstance(field, str) else _json(field)
        text += f" ({kind})" if isinstance(kind, str) else ""
    if own and detail.values == "rows":
        text += f" {_json(own)}"
    elif own:
        text += f" with {', '.join(own)}"
    return text.strip()


def _data(data: Any, detail: Detail) -> str:
    table = as_table(data)
    if table is not None:
        return heading(table)
    own = _set(data)
    url = data if isinstance(data, str) else own.get("url")
    if url is not None:
        return f"at {_url(str(url))}" if detail.values == "rows" else "at a URL"
    values = own.get("values")
    if isinstance(values, list):
        fields = list(values[0]) if values and isinstance(values[0], dict) else []
        text = count(len(values), "inline row")
        return f"{text} with {listed(fields)}" if fields else f"{text} of {kinds(values[:100])}"
    name = own.get("name")
    return f"named {name}" if isinstance(name, str) else type_name(data)


def _url(url: str) -> str:
    """Write an address without its query, in which there may be a key."""
    place, mark, _ = url.partition("?")
    return clip(f"{place}{'?…' if mark else ''}", 120)


def _json(schema: Any) -> str:
    """Write what was set as short JSON; large values are left out."""
    return json.dumps(_plain(schema, 0), ensure_ascii=False, default=type_name).replace('"', "")


def _plain(one: Any, depth: int) -> Any:
    if isinstance(one, PLAIN):
        return clip(one, 100) if isinstance(one, str) else one
    if depth > MAX_DEPTH:
        return "…"
    if ".expr" in type(one).__module__:
        return clip(repr(one), 100)
    if isinstance(one, list | tuple):
        some = [_plain(each, depth + 1) for each in one[:MAX_MEMBERS]]
        return [*some, f"… {len(one) - len(some):,} more"] if len(one) > len(some) else some
    return _plain_schema(one, depth)


def _plain_schema(one: Any, depth: int) -> Any:
    if arguments := attribute(one, "_args"):  # of a schema that is one value
        return _plain(arguments[0], depth + 1)
    own = _set(one)
    if own or isinstance(one, dict):
        names = islice(own.items(), MAX_MEMBERS)
        return {str(name): _plain(each, depth + 1) for name, each in names if name != "data"}
    if type_name(one) in ("Parameter", "ParameterExpression", "GetAttrExpression"):
        return str(attribute(one, "name") or type_name(one))
    return type_name(one)
