"""The reply of a turn: its record, and the live objects beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from kimi_magic.core.errors import KimiError, TurnInterrupted, restore
from kimi_magic.core.frontend import cell_number, has_kernel, running_shell
from kimi_magic.core.interrupts import whole_imports
from kimi_magic.core.messages import Step, ToolCall, ToolResult, Usage
from kimi_magic.core.sent import Sent
from kimi_magic.core.shown import Shown, Words, short_html, short_repr
from kimi_magic.core.turn_record import Failure, Retry, TurnRecord

__all__ = ["CodeBlock", "Reply"]

NO_LOGPROBS = (
    "No logprobs came with this reply: `%%kimi --logprobs` or kimi.ask(…, logprobs=True) asks a "
    "server that gives them."
)


class CodeBlock(NamedTuple):
    """A fenced block of the answer; ``language`` is "" where the fence names none."""

    language: str
    text: str

    def __repr__(self) -> str:
        return short_repr(self)

    def _repr_html_(self) -> str:
        return short_html(self)


@dataclass(frozen=True, eq=False, repr=False)
class Reply(Shown):
    """The outcome of a turn.

    Attributes
    ----------
    text : str
        The final answer; ``str(reply)`` is the same.
    reasoning : str
        The reasoning of all steps, in order.
    steps : tuple of Step
        The model calls, each with its tool calls and their results.
    tool_calls, tool_results : tuple
        Those of all steps, in order.
    usage : Usage
        Tokens and seconds, summed over the steps.
    data : any
        The answer as the value that was asked for, with ``schema=`` or ``-f json``.
    code_blocks : tuple of CodeBlock
        The fenced code of the answer, in order.
    messages : list of dict
        The conversation as the API knows it: what was sent, and the answer. Where a turn brought
        nothing it ends with the prompt, which the chat does not keep.
    finish_reason : str or None
        ``stop``, ``length``, ``content_filter`` …; ``max_steps`` or ``repetition`` where the
        model had to conclude early; None where the turn did not come to its end.
    model : str
        The model that answered, as named by the server where it names one.
    chat : str or None
        The chat's name; None for a one-off.
    error : BaseException or None
        The reason why the turn did not come to its end.
    record : TurnRecord
        The turn as plain data.
    functions : dict
        The functions that were offered, by the names of their tools.
    shown_in : int or None
        The number of the cell in which a view showed the turn.
    filled : tuple of str
        The texts that stand in the prompt for values of the notebook.
    trajectories : tuple of Reply
        The attempts that the answer was aggregated from, in heavy mode.
    agreement : dict
        The share of the attempts for each distinct answer of theirs, the largest first.
    logprobs : pandas.DataFrame or polars.DataFrame
        How likely each token was, where ``logprobs=True`` or ``--logprobs`` asked for it.
    replayed : str
        The tape that answers came from, such as ``lesson.tape`` or ``lesson.tape, scripted, inputs
        differ``; "" where all were asked for.
    sent : Sent
        What the first request held: variables, cells and images that went along, with the rows of
        tables, and the numbers of ``messages`` and, about, of ``tokens``.
    retries : tuple of Retry
        The requests that failed and were sent again: the ``step`` of each, from 1, and the
        ``reason``. A turn that came to its end shows none of them.
    """

    record: TurnRecord = field(default_factory=TurnRecord)
    data: Any = None
    error: BaseException | None = None
    functions: Mapping[str, Any] = field(default_factory=dict)
    shown_in: int | None = None
    values: tuple[Any, ...] = ()
    filled: tuple[str, ...] = ()
    attempts: tuple[Reply, ...] = ()

    @property
    def text(self) -> str:
        return self.record.text

    @property
    def reasoning(self) -> str:
        return self.record.reasoning

    @property
    def steps(self) -> tuple[Step, ...]:
        values = iter(self.values)
        return tuple(
            replace(
                step,
                tool_results=tuple(
                    replace(result, value=next(values, None)) for result in step.tool_results
                ),
            )
            for step in self.record.steps
        )

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        return tuple(call for step in self.record.steps for call in step.tool_calls)

    @property
    def tool_results(self) -> tuple[ToolResult, ...]:
        return tuple(result for step in self.steps for result in step.tool_results)

    @property
    def usage(self) -> Usage:
        return self.record.usage

    @property
    def finish_reason(self) -> str | None:
        return self.record.finish_reason

    @property
    def model(self) -> str:
        return self.record.model

    @property
    def chat(self) -> str | None:
        return self.record.chat

    @property
    def sent(self) -> Sent:
        return self.record.outline

    @property
    def replayed(self) -> str:
        return self.record.replayed

    @property
    def retries(self) -> tuple[Retry, ...]:
        return self.record.retries

    @property
    def trajectories(self) -> tuple[Reply, ...]:
        return self.attempts or tuple(map(Reply.of, self.record.trajectories))

    @property
    def agreement(self) -> dict[str, float]:
        groups = self.record.agreement
        count = sum(map(len, groups.values()))
        return {answer: len(numbers) / count for answer, numbers in groups.items()}

    @property
    def logprobs(self) -> Any:
        """The tokens as a frame of pandas, else of polars: one row each, in order.

        The columns are ``step`` and ``place`` (counted from 1, the place within its text), ``kind``
        (``reasoning`` or ``answer``), ``token``, ``logprob``, ``probability``, and
        ``alternatives``: a list of dicts with the same three for the likeliest tokens there.

        Raises
        ------
        KimiError
            No logprobs came with this reply, or neither pandas nor polars is installed.
        """
        from kimi_magic.core.tabular import to_frame

        columns = _logprob_columns(self.record.steps)
        if not columns["token"]:
            raise KimiError(NO_LOGPROBS)
        with whole_imports():
            return to_frame(columns)

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [message.to_dict() for message in self.record.messages]

    @property
    def code_blocks(self) -> tuple[CodeBlock, ...]:
        with whole_imports():
            from markdown_it import MarkdownIt

        tokens = MarkdownIt("commonmark").parse(self.text)
        return tuple(
            CodeBlock((token.info.split() or [""])[0], token.content)
            for token in tokens
            if token.type == "fence"
        )

    def to_pandas(self) -> Any:
        """Return the data as a ``pandas.DataFrame``, one record a row.

        Raises
        ------
        KimiError
            The data are no records, or pandas is not installed.
        """
        from kimi_magic.core.tabular import to_pandas

        with whole_imports():
            return to_pandas(self.data)

    def steps_frame(self) -> Any:
        """Return the steps as a tidy frame of pandas, else of polars: one row a step.

        The columns are ``lane`` (the number of the trajectory, 0 for the turn itself), ``step``,
        ``began``, ``seconds``, ``first_token`` and ``first_answer`` (seconds), ``prompt_tokens``,
        ``completion_tokens``, ``reasoning_tokens``, ``tokens_per_second``, ``tools`` (names),
        ``tool_seconds``, ``reasoning_chars``, ``text_chars`` and ``finish_reason``.

        Raises
        ------
        KimiError
            Neither pandas nor polars is installed.
        """
        from kimi_magic.core.step_table import step_rows, steps_frame

        with whole_imports():
            return steps_frame(step_rows(self.record))

    def timeline(self) -> Any:
        """Draw reasoning, tools and answer over time: a bar a step, or a bar a trajectory.

        Beside each bar stand the time to its first token and its tokens a second.

        Returns
        -------
        matplotlib.figure.Figure or altair.LayerChart
            Of matplotlib where it is installed.

        Raises
        ------
        KimiError
            Neither is installed, or the turn has no steps.
        """
        from kimi_magic.core.step_table import step_rows
        from kimi_magic.core.time_figure import time_figure

        with whole_imports():
            return time_figure(step_rows(self.record))

    def to_dict(self) -> dict[str, Any]:
        """Return the turn as JSON data: the record, without live objects."""
        return self.record.to_dict()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Reply:
        """Make the reply of a stored turn; ``data`` is what ``to_dict`` returned.

        Raises
        ------
        KimiError
            It is no record of a turn, or one that a newer version wrote.
        """
        return cls.of(TurnRecord.from_dict(data))

    @classmethod
    def of(cls, record: TurnRecord) -> Reply:
        """Make the reply of a record that was stored."""
        return cls(record, record.data, _revived(record.failure))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what is data: functions and live values may be of any kind."""
        # The error as state, which is read after the object is there: it holds the reply.
        return Reply, (self.record, self.data), {"error": self.error}

    def __copy__(self) -> Reply:
        return replace(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Reply:
        memo[id(self)] = again = replace(self)  # before its error, which holds the reply
        for name in self.__dataclass_fields__:
            object.__setattr__(again, name, deepcopy(getattr(self, name), memo))
        return again

    def __str__(self) -> str:
        return self.text

    def _facts(self) -> Iterator[tuple[str, Any]]:
        yield "text", self.text
        if self.reasoning:
            yield "reasoning", self.reasoning
        if self.data is not None:
            is_plain = type(self.data) in (dict, list, str, int, float, bool)
            yield "data", self.data if is_plain else Words(f"<{type(self.data).__name__}>")
        yield "steps", len(self.record.steps)
        yield "model", self.model
        yield "chat", self.chat
        if self.error is not None:
            yield "error", self.error
        else:
            yield "finish_reason", self.finish_reason

    def _ipython_display_(self) -> None:
        """Show nothing in the cell whose view has shown the turn; elsewhere the usual repr.

        A terminal has written ``Out[n]:`` by then, and wants something behind it; its display hook
        (``display.display_hook``) sees to it before.
        """
        if cell_number() != self.shown_in or not has_kernel(running_shell()):
            raise NotImplementedError


def _logprob_columns(steps: tuple[Step, ...]) -> dict[str, list[Any]]:
    """Return the columns of the frame of tokens; NaN for what is not known."""
    names = ("step", "place", "kind", "token", "logprob", "probability", "alternatives")
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for number, step in enumerate(steps, 1):
        for kind, tokens in (("reasoning", step.reasoning_logprobs), ("answer", step.logprobs)):
            for place, token in enumerate(tokens, 1):
                others = [
                    other._asdict() | {"probability": other.probability}
                    for other in token.alternatives
                ]
                known = math.nan if token.logprob is None else token.logprob
                likely = math.nan if token.probability is None else token.probability
                row = (number, place, kind, token.token, known, likely, others)
                for name, value in zip(names, row, strict=True):
                    columns[name].append(value)
    return columns


def _revived(failure: Failure | None) -> BaseException | None:
    """Make an exception of the same message, and of the same class where that is one of ours."""
    if failure is None:
        return None
    kinds: list[type[BaseException]] = [KimiError, TurnInterrupted]
    for kind in kinds:
        kinds += kind.__subclasses__()
        if kind.__name__ == failure.kind:
            return restore(kind, (failure.message,))
    return KimiError(f"{failure.kind}: {failure.message}")
