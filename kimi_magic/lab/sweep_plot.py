"""The plot of a sweep: means with their confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev
from typing import Any

from kimi_magic.core.errors import KimiError
from kimi_magic.core.interrupts import whole_imports
from kimi_magic.core.time_figure import new_figure

__all__ = ["interval", "plot_sweep", "wilson"]

LEVEL = 0.95
NO_MATPLOTLIB = "This plot needs matplotlib: install it with `pip install matplotlib`."
MEASURES = {
    "correct": "share of correct answers",
    "tokens": "tokens of reasoning and answer",
    "prompt_tokens": "tokens of the prompt",
    "seconds": "seconds",
    "cost": "US dollars",
}
# Okabe and Ito's colours without yellow, and markers beside them.
LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
MARKERS = "osD^vPX"


def plot_sweep(
    frame: Any, x: str | None = None, y: str | None = None, by: str | None = None
) -> Any:
    """Draw means of a sweep's rows, with 95 % confidence intervals.

    Shares of right answers have Wilson's interval (Wilson 1927, *J. Am. Stat. Assoc.* 22, 209; the
    one that Brown, Cai and DasGupta 2001 recommend for few rows), all else that of the normal
    distribution. Rows count as independent of each other; those with an error are left out.

    Parameters
    ----------
    frame : pandas.DataFrame
        As ``kimi.sweep`` returns it, or some of its rows.
    x : str, optional
        The column along the axis; by default the first keyword that varies, else the prompt.
    y : str, optional
        ``correct``, ``tokens``, ``prompt_tokens``, ``seconds`` or ``cost``; by default ``correct``
        where answers were checked, else ``tokens``.
    by : str, optional
        A column of which each value gets a line; by default the second keyword that varies.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    KimiError
        There is nothing to draw, or matplotlib is not installed.
    """
    with whole_imports():
        y = y or ("correct" if frame["correct"].notna().any() else "tokens")
        varying = [
            name
            for name in [*frame.attrs.get("varied", ()), "prompt"]
            if name in frame and len(set(map(str, frame[name]))) > 1
        ]
        x = x or (varying[0] if varying else "prompt")
        by = by or next((name for name in varying if name not in (x, "prompt")), None)
        if missing := [name for name in (x, y, by) if name is not None and name not in frame]:
            raise KimiError(f"The frame has no column {missing[0]!r:.60}.")
        if y not in MEASURES:
            raise KimiError(f"y= is one of {', '.join(MEASURES)}; got {y!r:.60}.")
        rows = frame[frame["error"].isna() & frame[y].notna()]
        if not len(rows):
            raise KimiError(f"No row has a value of {y} and no error: there is nothing to draw.")
        try:
            return _draw(rows, x, y, by)
        except ImportError:
            raise KimiError(NO_MATPLOTLIB) from None


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean of values and the ends of its confidence interval."""
    if all(value in (0, 1) for value in values):
        return wilson(round(sum(values)), len(values))
    mean = fmean(values)
    if len(values) == 1:
        return mean, mean, mean
    half = _z() * stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def wilson(successes: int, count: int) -> tuple[float, float, float]:
    """Return a share and the ends of Wilson's confidence interval for it."""
    share, z2 = successes / count, _z() ** 2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = _z() * math.sqrt(share * (1 - share) / count + z2 / (4 * count * count))
    half /= 1 + z2 / count
    return share, max(min(middle - half, share), 0.0), min(max(middle + half, share), 1.0)


def _z() -> float:
    return NormalDist().inv_cdf((1 + LEVEL) / 2)


def _draw(rows: Any, x: str, y: str, by: str | None) -> Any:
    numeric = all(isinstance(value, int | float) for value in rows[x])
    named = [name for name in (by, None if numeric else x) if name]
    rows = rows.assign(**{name: [str(value) for value in rows[name]] for name in named})
    values = list(dict.fromkeys(rows[x]))
    places = {value: value if numeric else place for place, value in enumerate(values)}
    groups = list(dict.fromkeys(rows[by])) if by else [None]
    width = (max(places.values()) - min(places.values())) or 1
    figure = new_figure(6.4, 3.8)
    axes = figure.subplots()
    for number, group in enumerate(groups):
        own = rows[rows[by] == group] if by else rows
        measured = {
            value: interval([float(each) for each in own[own[x] == value][y]])
            for value in (sorted(values) if numeric else values)
            if (own[x] == value).any()
        }
        # Beside each other, so that no bar hides another.
        aside = (number - (len(groups) - 1) / 2) * width * 0.012
        means = [mean for mean, _, _ in measured.values()]
        axes.errorbar(
            [places[value] + aside for value in measured],
            means,
            [
                [mean - low for mean, low, _ in measured.values()],
                [high - mean for mean, _, high in measured.values()],
            ],
            color=LINES[number % len(LINES)],
            marker=MARKERS[number % len(MARKERS)],
            linewidth=1,
            capsize=3,
            label=_plain(group),
        )
    axes.set_xticks(list(places.values()), [_plain(value) for value in values])
    axes.set_xlabel(_plain(x))
    axes.set_ylabel(f"{MEASURES[y]}, {LEVEL:.0%} interval")
    if y == "correct":
        axes.set_ylim(-0.03, 1.03)
    else:
        axes.set_ylim(bottom=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if by:
        axes.legend(title=_plain(by), frameon=False)
    return figure


def _plain(value: Any) -> str:
    r"""Return a value as a short label; matplotlib would typeset what stands between dollars."""
    text = " ".join(str(value).split())
    return (text if len(text) <= 30 else f"{text[:29]}…").replace("$", r"\$")
