"""Times of a turn, beside its record: a page shows them there, and its HTML stays the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kimi_magic.display.segments import Segment
from kimi_magic.display.timeline import Timeline

__all__ = ["times_of"]


def times_of(timeline: Timeline) -> dict[str, Any]:
    """Return how long the turn took and its parts, as JSON data; empty where that is not known.

    ``folded`` has an entry for each panel of the record that folds, in order: of reasoning and
    tool calls an object, of trajectories a list with the entries of each, else None.
    """
    folded = list(_folded(timeline))
    times: dict[str, Any] = {"folded": folded} if any(folded) else {}
    if timeline.seconds is not None:
        times["seconds"] = _rounded(timeline.seconds)
    return times


def _folded(timeline: Timeline) -> Iterator[Any]:
    if timeline.sent is not None and timeline.sent.line:
        yield None
    lanes = [list(_folded(lane)) for lane in timeline.lanes.values()]
    for place, segment in enumerate(timeline.segments):
        if lanes and place == timeline.lanes_at:
            yield lanes
        if segment.kind in ("reasoning", "tool"):
            yield _entry(segment)
    if lanes and timeline.lanes_at >= len(timeline.segments):
        yield lanes


def _entry(segment: Segment) -> dict[str, Any] | None:
    entry: dict[str, Any] = {}
    if segment.seconds:
        entry["seconds"] = _rounded(segment.seconds)
    if segment.tokens:
        entry["tokens"] = segment.tokens
    return entry or None


def _rounded(seconds: float) -> float:
    """Return whole milliseconds, and at least one: 0 stands for what is not known."""
    return max(round(seconds, 3), 0.001)
