"""Turns with times, and strategies for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import hypothesis.strategies as st

from kimi_magic.core.messages import Step, Timings, ToolCall, ToolResult, Usage, as_reasoning
from kimi_magic.core.reply import Reply
from kimi_magic.core.turn_record import TurnRecord


def timed_step(
    text: str = "",
    reasoning: str = "",
    *,
    started: float = 0.0,
    first_token: float | None = None,
    first_answer: float | None = None,
    seconds: float = 0.0,
    calls: Sequence[str] = (),
    tool_seconds: float = 0.0,
    tokens: int = 50,
) -> Step:
    return Step(
        text,
        as_reasoning(reasoning) or (),
        tuple(ToolCall(name, name, "{}") for name in calls),
        tuple(ToolResult(name, "x", call_id=name, seconds=tool_seconds) for name in calls),
        Usage(10, tokens, seconds=seconds),
        "tool_calls" if calls else "stop",
        Timings(started, first_token, first_answer),
    )


def timed_turn(start: float = 100.0, **record: Any) -> TurnRecord:
    """Return a turn of two steps: reasoning and a call, then reasoning and an answer."""
    first = timed_step(
        reasoning="Look it up.", started=start, first_token=0.5, seconds=3.0, calls=["monthly"],
        tool_seconds=1.5,
    )  # fmt: skip
    last = timed_step(
        "**February**.", "412 against 284.", started=start + 5, first_token=0.25,
        first_answer=1.0, seconds=2.0,
    )  # fmt: skip
    facts = {"model": "kimi-k3", "prompt": "Which month?", "finish_reason": "stop"}
    return TurnRecord((first, last), **(facts | record))


times = st.none() | st.floats(0, 100)
texts = st.text(max_size=40) | st.text("a. \n\n!?", max_size=2000)
steps = st.builds(
    timed_step,
    texts,
    texts,
    started=st.just(0.0) | st.floats(1e9, 1e9 + 100),
    first_token=times,
    first_answer=times,
    seconds=st.floats(0, 100),
    calls=st.lists(st.sampled_from(["monthly", "trend"]), max_size=2, unique=True),
    tool_seconds=st.floats(0, 10),
)
plain_turns = st.builds(
    TurnRecord,
    st.lists(steps, min_size=1, max_size=3).map(tuple),
    finish_reason=st.sampled_from(["stop", "length", None]),
    prompt=texts,
)
turns = st.builds(
    TurnRecord,
    st.lists(steps, min_size=1, max_size=2).map(tuple),
    prompt=st.just("Why?"),
    finish_reason=st.just("stop"),
    trajectories=st.lists(plain_turns, max_size=3).map(tuple),
).map(Reply)
