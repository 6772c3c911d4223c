"""Describe matplotlib's figures and axes: titles, labels, and what is drawn over which range."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from kimi_magic.context.summaries.arrays import distribution
from kimi_magic.context.summaries.tables import cell
from kimi_magic.context.walker import type_name
from kimi_magic.core.sampling import positions_at_random
from kimi_magic.core.text import clip, count

__all__ = ["describe_figure"]

MAX_TEXT = 100
MAX_PLOTS = 20
MAX_DRAWN = 20
FEW = 12
POINTS = 6
MAX_TEXTS = 3


def describe_figure(value: Any, *, samples: bool = True) -> str | None:
    """Describe a figure or axes; of many points some are shown with ``samples``."""
    figure = getattr(sys.modules.get("matplotlib.figure"), "FigureBase", ())
    axes = getattr(sys.modules.get("matplotlib.axes"), "Axes", ())
    if issubclass(type(value), axes):
        return "\n".join(_axes(value, "matplotlib axes", samples=samples))
    if not issubclass(type(value), figure):
        return None
    lines = [f"matplotlib {type_name(value)} with {count(len(value.axes), 'plot')}"]
    if title := value.get_suptitle():
        lines[0] += f", title {_quoted(title)}"
    for number, one in enumerate(value.axes[:MAX_PLOTS], 1):
        lines += _axes(one, f"plot {number}", samples=samples)
    if left := value.axes[MAX_PLOTS:]:
        lines.append(f"… {count(len(left), 'more plot')}")
    return "\n".join(lines)


def _axes(axes: Any, name: str, *, samples: bool) -> Iterator[str]:
    title = axes.get_title()
    # matplotlib has no public name for what a colour bar's axes belong to.
    colours = ", a colour bar" if getattr(axes, "_colorbar", None) is not None else ""
    yield f"{name}{colours}{f': {_quoted(title)}' if title else ''}"
    for side in ("x", "y", "z"):
        if hasattr(axes, f"get_{side}label"):
            yield f"- {side} axis{_axis(axes, side)}"
    drawn = [] if colours else list(_drawn(axes, samples=samples))
    yield from (f"- {line}" for line in drawn[:MAX_DRAWN])
    if len(drawn) > MAX_DRAWN:
        yield f"- … {len(drawn) - MAX_DRAWN:,} more"
    if (legend := axes.get_legend()) is not None:
        yield f"- legend: {', '.join(_quoted(text.get_text()) for text in legend.get_texts())}"


def _axis(axes: Any, side: str) -> str:
    named, scale, (low, high) = (
        getattr(axes, f"get_{side}{of}")() for of in "label scale lim".split()
    )
    text = f"{f' {_quoted(named)}' if named else ''}{'' if scale == 'linear' else f' ({scale})'}"
    axis = getattr(axes, f"{side}axis")
    formatter = type_name(axis.get_major_formatter())
    ticks = [tick.get_text() for tick in axis.get_ticklabels()]
    # Labels that are no numbers, such as the names of bars, were set by somebody.
    if any(ticks) and not formatter.startswith(("Scalar", "Log")):
        return f"{text}, labelled {', '.join(filter(None, ticks[:FEW]))}"
    return f"{text} from {cell(float(low))} to {cell(float(high))}"


def _drawn(axes: Any, *, samples: bool) -> Iterator[str]:
    for line in axes.get_lines():
        x, label = line.get_xdata(), _label(line)
        if len(x) or not label:  # a line without points is there for the legend
            yield f"line{label}: {_points(x, line.get_ydata(), samples=samples)}"
    in_containers: set[int] = set()
    for container in axes.containers:
        if bars := list(getattr(container, "patches", None) or ()):
            in_containers.update(map(id, bars))
            across = getattr(container, "orientation", None) == "horizontal"
            sizes = [bar.get_width() if across else bar.get_height() for bar in bars]
            shown = ", ".join(map(_plain, sizes)) if len(sizes) <= FEW else _span(sizes)
            yield f"{count(len(bars), 'bar')}{_label(container)}: {shown}"
    yield from _collections(axes, samples=samples)
    for image in axes.get_images():
        yield f"image{_label(image)}{_cells(image)}"
    for patch in axes.patches:
        if id(patch) not in in_containers:
            yield f"{type_name(patch)}{_label(patch)}"
    yield from _texts(axes)


def _collections(axes: Any, *, samples: bool) -> Iterator[str]:
    for collection in axes.collections:
        if type_name(collection) == "QuadMesh":
            yield f"heatmap{_label(collection)}{_cells(collection)}"
            continue
        offsets = collection.get_offsets()
        kind = type_name(collection).removesuffix("Collection").replace("Path", "Points")
        points = ""
        if len(offsets) > 1:
            points = f": {_points(offsets[:, 0], offsets[:, 1], samples=samples)}"
        yield f"{kind}{_label(collection)}{points}"


def _texts(axes: Any) -> Iterator[str]:
    written = [text.get_text() for text in axes.texts]
    written = [text for text in written if text]
    if len(written) > MAX_TEXTS and all(map(_is_figure, written)):
        yield f"{len(written):,} numbers written in it"  # in the cells of a heatmap
    else:
        yield from (f"text {_quoted(text)}" for text in written)


def _is_figure(text: str) -> bool:
    try:
        float(text.replace(",", "").replace("−", "-").rstrip("%"))
    except ValueError:
        return False
    return True


def _cells(image: Any) -> str:
    """Describe the values of an image or a heatmap, and the range of its colours."""
    array = image.get_array()
    if array is None or not array.size:
        return ""
    low, high = image.get_clim()
    span = _span(array.ravel())
    text = f" of shape {array.shape}, {span}"
    if low is None or high is None:
        return text
    ends = f"from {float(low):.6g} to {float(high):.6g}"
    return text if ends in span else f"{text}, colours {ends}"


def _points(x: Sequence[Any], y: Sequence[Any], *, samples: bool) -> str:
    """Describe points by their number, their range, and some of them."""
    places: Iterable[int] = range(len(x))
    if len(x) > FEW:
        places = positions_at_random(0, len(x), POINTS)
    shown = ", ".join(f"({_plain(x[at])}, {_plain(y[at])})" for at in places)
    if len(x) <= FEW and samples:
        return shown
    such = f", such as {shown}" if samples else ""
    return f"{count(len(x), 'point')}, x {_span(x)}, y {_span(y)}{such}"


def _span(values: Any) -> str:
    numpy = sys.modules["numpy"]  # matplotlib has imported it
    array = numpy.ma.compressed(numpy.ma.asarray(values))
    return distribution(array, numpy) or f"from {_plain(values[0])} to {_plain(values[-1])}"


def _plain(value: Any) -> str:
    """Write a value of the data, numpy's scalars as Python's."""
    if not hasattr(value, "dtype"):
        return cell(value)
    # `item` makes integers of times in other units than microseconds.
    unit = f"{value.dtype.kind}8[us]" if value.dtype.kind in "mM" else value.dtype
    return cell(value.astype(unit).item())


def _quoted(text: str) -> str:
    return f"«{clip(' '.join(text.split()), MAX_TEXT)}»"


def _label(artist: Any) -> str:
    """Return the label that somebody set; matplotlib's own begin with an underscore."""
    label = str(artist.get_label())
    return "" if label.startswith("_") or not label else f" {_quoted(label)}"
