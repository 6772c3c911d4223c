"""The steps of a turn as rows with times, for frames and figures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from kimi_magic.core.messages import Step
from kimi_magic.core.tabular import to_frame
from kimi_magic.core.turn_record import TurnRecord

__all__ = ["Phase", "StepRow", "step_rows", "steps_frame"]

Phase = Literal["waiting", "reasoning", "answer", "tools"]
# Tokens a second are told where they came over some time, not where an answer came in one piece.
LEAST_STREAMED = 0.05
LONGEST = 1e10  # seconds, the moments of the clock among them


@dataclass(frozen=True, slots=True)
class StepRow:
    """One step of a turn, or of one of its trajectories.

    Attributes
    ----------
    lane : int
        The number of the trajectory; 0 for the turn itself.
    step : int
        Counted from 1 in its lane.
    began : float
        Seconds after the first request of the turn.
    seconds : float
        Time of the request and of its tools.
    first_token, first_answer : float or None
        Seconds after ``began`` until anything came, and until text of the answer came.
    prompt_tokens, completion_tokens, reasoning_tokens : int
        As in ``Usage``.
    tokens_per_second : float or None
        Completion tokens since the first token.
    tools : str
        Names of the tools that were called, with commas between them.
    tool_seconds : float
        Run time of the tools.
    reasoning_chars, text_chars : int
        Lengths in characters.
    finish_reason : str or None
    """

    lane: int
    step: int
    began: float
    seconds: float
    first_token: float | None
    first_answer: float | None
    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    tokens_per_second: float | None
    tools: str
    tool_seconds: float
    reasoning_chars: int
    text_chars: int
    finish_reason: str | None

    def phases(self) -> Iterator[tuple[Phase, float, float]]:
        """Yield the step's phases, each with its begin and end in seconds of the turn.

        Reasoning ends where the answer's text begins; a call that the model writes belongs to the
        phase before it. Where nothing else was written, it belongs to the tools.
        """
        requested = self.seconds - self.tool_seconds
        marks = [0.0, self.first_token, self.first_answer, requested, self.seconds]
        at = [requested if mark is None else min(max(mark, 0.0), requested) for mark in marks[:4]]
        token, answer, end = at[1], max(at[2], at[1]), requested
        written: Phase = "answer" if self.text_chars else "tools"
        if self.reasoning_chars:
            spans: list[tuple[Phase, float, float]] = [
                ("reasoning", token, answer),
                ("answer", answer, end),
            ]
        else:
            spans = [(written, token, end)]
        spans = [("waiting", 0.0, token), *spans, ("tools", end, self.seconds)]
        for phase, start, stop in spans:
            if stop > start:
                yield phase, self.began + start, self.began + stop


def step_rows(record: TurnRecord) -> list[StepRow]:
    """Return the steps of a turn in order, those of its trajectories first.

    Steps whose moments were not noted begin where the step before them ended.
    """
    lanes = [*enumerate(record.trajectories, 1), (0, record)]
    known = [_known(step.timings.started) for _, lane in lanes for step in lane.steps]
    origin = min((started for started in known if started), default=0.0)
    rows: list[StepRow] = []
    longest = 0.0
    for lane, turn in lanes:
        ended = 0.0 if lane else longest  # the aggregation follows the trajectories
        for number, step in enumerate(turn.steps, 1):
            started = _known(step.timings.started)
            row = _row(lane, number, step, max(started - origin, 0.0) if started else ended)
            rows.append(row)
            ended = row.began + row.seconds
        longest = max(longest, ended)
    return rows


def _row(lane: int, number: int, step: Step, began: float) -> StepRow:
    usage, timings = step.usage, step.timings
    first_token, first_answer = _known(timings.first_token), _known(timings.first_answer)
    seconds, tool_seconds = (_known(usage.seconds) or 0.0), _tool_seconds(step)
    streamed = seconds - (first_token or 0.0)
    rated = first_token is not None and streamed > LEAST_STREAMED
    return StepRow(
        lane,
        number,
        began,
        seconds + tool_seconds,
        first_token,
        first_answer,
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.reasoning_tokens,
        usage.completion_tokens / streamed if rated and usage.completion_tokens else None,
        ", ".join(call.name for call in step.tool_calls),
        tool_seconds,
        len(step.reasoning),
        len(step.text),
        step.finish_reason,
    )


def _tool_seconds(step: Step) -> float:
    return sum(_known(result.seconds) or 0.0 for result in step.tool_results)


def _known(seconds: float | None) -> float | None:
    """Return None for what is no time: a record may come from somebody else's notebook."""
    return seconds if seconds is not None and 0 <= seconds <= LONGEST else None


def steps_frame(rows: list[StepRow]) -> Any:
    """Return the rows as a frame of pandas or, where that is not installed, of polars.

    Raises
    ------
    KimiError
        Neither is installed.
    """
    names = StepRow.__dataclass_fields__
    return to_frame(
        {name: [getattr(row, name) for row in rows] for name in names},
        numbers=("first_token", "first_answer", "tokens_per_second"),
        texts=("finish_reason",),
    )
