"""A turn over time as a figure: a bar for each step, or for each trajectory.

It is drawn of plain data alone, by matplotlib or Altair, whichever is installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kimi_magic.core.errors import KimiError
from kimi_magic.core.frontend import has_kernel, running_shell
from kimi_magic.core.step_table import Phase, StepRow

__all__ = ["new_figure", "time_figure"]

NOTHING = "This turn has no step to draw: nothing had arrived."
INSTALL = "A figure needs matplotlib or Altair: install one with `pip install matplotlib`."
AXIS = "seconds"
# Colours of Okabe and Ito, which most kinds of colour vision tell apart, and hatching beside them.
LOOKS: dict[Phase, tuple[str, str]] = {
    "waiting": ("#c4c4c4", ""),
    "reasoning": ("#56b4e9", ""),
    "answer": ("#009e73", "//"),
    "tools": ("#e69f00", "xx"),
}
Bar = tuple[str, Phase, float, float]


def time_figure(rows: Sequence[StepRow]) -> Any:
    """Draw steps over time: a figure of matplotlib or, where that is not installed, of Altair.

    Raises
    ------
    KimiError
        There is nothing to draw, or neither is installed.
    """
    if not rows:
        raise KimiError(NOTHING)
    named: dict[str, list[StepRow]] = {}
    for row in rows:
        named.setdefault(_name(row, rows), []).append(row)
    bars = [(name, *phase) for name, own in named.items() for row in own for phase in row.phases()]
    notes = {name: _note(own) for name, own in named.items()}
    ends = {name: max(row.began + row.seconds for row in own) for name, own in named.items()}
    try:
        return _with_matplotlib(bars, notes, ends)
    except ImportError:
        pass
    try:
        return _with_altair(bars, notes, ends)
    except ImportError:
        raise KimiError(INSTALL) from None


def new_figure(width: float, height: float) -> Any:
    """Make a figure of matplotlib that is shown where it is a cell's value, and only there."""
    if not has_kernel(running_shell()):
        from matplotlib.figure import Figure

        return Figure(figsize=(width, height), layout="constrained")
    # pyplot's first figure makes the notebook show figures at all. One of pyplot's that is open
    # when the cell ends is shown as well.
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(width, height), layout="constrained")
    plt.close(figure)
    return figure


def _name(row: StepRow, rows: Sequence[StepRow]) -> str:
    if all(other.lane == 0 for other in rows):
        return f"step {row.step}"
    return f"trajectory {row.lane}" if row.lane else "aggregation"


def _note(rows: Sequence[StepRow]) -> str:
    """Return the time to the first token and the tokens a second of one bar."""
    first = rows[0].first_token
    rates = [row.tokens_per_second for row in rows if row.tokens_per_second is not None]
    notes = [] if first is None else [f"first token after {first:.2f} s"]
    notes += [f"{sum(rates) / len(rates):.0f} tokens/s"] if rates else []
    return ", ".join(notes)


def _with_matplotlib(bars: Sequence[Bar], notes: dict[str, str], ends: dict[str, float]) -> Any:
    figure = new_figure(9, 1.2 + 0.42 * len(notes))
    axes = figure.subplots()
    places = {name: place for place, name in enumerate(notes)}
    labelled: set[str] = set()
    for name, phase, start, end in bars:
        colour, hatch = LOOKS[phase]
        label = phase if phase not in labelled else None
        labelled.add(phase)
        axes.barh(
            places[name],
            end - start,
            0.7,
            start,
            color=colour,
            hatch=hatch,
            edgecolor="white",
            linewidth=0.5,
            label=label,
        )
    for name, note in notes.items():
        axes.annotate(
            note,
            (ends[name], places[name]),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize="small",
        )
    axes.set_yticks(list(places.values()), list(places))
    axes.invert_yaxis()
    axes.set_xlim(0, max(ends.values()) * 1.35 or 1.0)  # room for the notes
    axes.set_xlabel(AXIS)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if labelled:
        figure.legend(loc="outside upper center", ncols=len(LOOKS), frameon=False)
    return figure


def _with_altair(bars: Sequence[Bar], notes: dict[str, str], ends: dict[str, float]) -> Any:
    import altair as alt

    values = [{"row": n, "phase": p, "start": s, "end": e} for n, p, s, e in bars]
    said = [{"row": name, "end": ends[name], "note": note} for name, note in notes.items()]
    y = alt.Y("row:N", sort=list(notes), title=None)
    scale = alt.Scale(domain=list(LOOKS), range=[colour for colour, _ in LOOKS.values()])
    drawn = (
        alt.Chart(alt.Data(values=values))
        .mark_bar(stroke="white", strokeWidth=0.5)
        .encode(
            x=alt.X("start:Q", title=AXIS),
            x2="end:Q",
            y=y,
            color=alt.Color("phase:N", scale=scale, title=None),
            tooltip=["phase:N", "start:Q", "end:Q"],
        )
    )
    texts = (
        alt.Chart(alt.Data(values=said))
        .mark_text(align="left", dx=4)
        .encode(x="end:Q", y=y, text="note:N")
    )
    return alt.layer(drawn, texts).properties(width=480)
