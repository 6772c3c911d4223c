"""One turn as a generator without I/O: step → tool calls → step … → answer.

``Turn.run`` yields events for those who watch and commands for its driver: ``Send`` is answered
with the ``Completion`` (or a thrown ``EndpointError``), ``Pause`` when the time is over,
``RunTools`` when each result is in ``Turn.results``. Whatever happens, ``Turn.reply`` gives what
the turn has come to.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kimi_magic.chats.context_window import ContextWindow
from kimi_magic.chats.history import (
    CUT_OFF,
    NO_ANSWER,
    CallIds,
    after_the_loop,
    cancelled,
    resumed,
    sendable,
    shortened,
    told,
)
from kimi_magic.core.errors import BadRequest, ContextTooLong, EndpointError
from kimi_magic.core.events import Event, Notice, RequestStarted, Retrying, StepFinished
from kimi_magic.core.messages import Completion, Message, Reply, Step, ToolCall, ToolResult, Usage

__all__ = ["Command", "Pause", "RunTools", "Send", "Turn"]

FIRST_DELAY, LONGEST_DELAY = 0.5, 8.0
# A server that asks for a longer wait is not worth a blocked notebook.
LONGEST_WAIT_ASKED = 120.0
EMPTY = "The model reasoned but gave no answer: it is asked again."
LOST_CALLS = "The server announced tool calls but sent none: it is asked again."
NO_TOOLS = "The model asked for a tool, but none was offered."
CONCLUDE = "In this turn no more tools can be called. Conclude now, with what you have."
MISFIT = "The answer does not fit the schema: the model is told, and asked again."
MOST_CORRECTIONS = 2
SAME_CALL, SAME_CALL_ENDS = 3, 10


@dataclass(frozen=True, slots=True)
class Send:
    """Ask the model with these messages; the driver sends back a ``Completion``.

    Attributes
    ----------
    tools : sequence of dict
        The schemas of the tools that are offered.
    whole : bool
        Whether the answer is to come in one piece, whatever the question wants.
    """

    messages: tuple[Message, ...]
    tools: Sequence[dict[str, Any]] = ()
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait for this many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class RunTools:
    """Make these calls; the driver puts each result into ``Turn.results`` as it comes."""

    calls: tuple[ToolCall, ...]


Command = Send | Pause | RunTools


class Turn:
    """Prompt → final answer.

    Parameters
    ----------
    history : sequence of Message
        What is sent before the prompt: the system prompt, and the chat so far.
    prompt : Message
    retries : int
        How often one request may go out again.
    tools : sequence of dict
        The schemas of the tools that are offered.
    max_steps : int
        After how many steps the model must conclude without tools.
    budget : ContextWindow or None
        What fits into the context window; None: whatever the server takes.
    check : callable or None
        Tells what is wrong with an answer, as the words that go back to the model; "" for nothing.
    goes_on : bool
        The prompt asks to go on with the latest turn of the history.
    partial_mode : bool
        What is cut there is an answer, and the server takes its text as the beginning.

    Attributes
    ----------
    partial : Completion or None
        What had arrived of a model call that did not come to its end; the driver sets it.
    begun : set of str
        The ids of the calls that were made, of the step under way; the driver fills it.
    results : dict of str to ToolResult
        By call id, of the step under way; the driver fills it.
    """

    def __init__(
        self,
        history: Sequence[Message],
        prompt: Message,
        *,
        retries: int,
        tools: Sequence[dict[str, Any]] = (),
        max_steps: int = 50,
        budget: ContextWindow | None = None,
        check: Callable[[str], str] | None = None,
        goes_on: bool = False,
        partial_mode: bool = False,
    ) -> None:
        self._history = tuple(history)
        self._prompt = prompt
        self._retries = retries
        self._tools = tools
        self._max_steps = max_steps
        self._budget = budget
        self._check = check
        self._goes_on = goes_on
        self._partial_mode = partial_mode
        self._corrections = 0
        self._steps: list[Step] = []
        self._said: list[Message] = []
        self._ids = CallIds(history)
        self._repetition = _Repetition()
        self._open: Completion | None = None
        self._wasted = Usage()
        self._cut: str | None = None
        self._model: str | None = None
        self.partial: Completion | None = None
        self.begun: set[str] = set()
        self.results: dict[str, ToolResult] = {}

    def run(self) -> Generator[Event | Command, Completion | None, None]:
        """Take the turn to its end."""
        while True:
            completion = yield from self._complete()
            self._model = completion.model
            if not (self._tools and completion.message.tool_calls):
                if completion.message.tool_calls:
                    yield Notice(NO_TOOLS)
                yield StepFinished(self._answered(completion))
                if not (correction := self._correction(completion)):
                    return
                yield Notice(MISFIT)
                self._said.append(Message("user", correction))
                self._tools = ()
                continue
            self._open = replace(completion, message=self._ids.give(completion.message))
            yield RunTools(self._open.message.tool_calls)
            step = self._close()
            yield StepFinished(step)
            yield from self._watch_repetition(step)
            if self._cut is None and len(self._steps) >= self._max_steps:
                yield Notice(
                    f"The limit of {self._max_steps} steps is reached: the model is asked to "
                    "conclude. --max-steps raises it."
                )
                self._conclude("max_steps")

    @property
    def text(self) -> str:
        """The latest step's answer."""
        return self._steps[-1].text if self._steps else ""

    @property
    def cut_short(self) -> bool:
        """Whether the latest step's answer was cut at its limit."""
        return bool(self._steps) and self._steps[-1].finish_reason == "length"

    @property
    def calling(self) -> bool:
        """Whether tools are running."""
        return self._open is not None

    def messages(self) -> tuple[Message, ...]:
        """The prompt and what came of it, as the next turn's history; empty if nothing came."""
        said = list(self._said)
        if self._open:
            said += told(self._open.message, self._results_of(self._open))
        if self.partial:
            said.append(sendable(self.partial.message, CUT_OFF))
        return (self._prompt, *said) if said else ()

    def reply(self, *, model: str, chat: str | None, error: BaseException | None) -> Reply:
        """What the turn has come to, whole or cut."""
        steps = list(self._steps)
        if self._open:
            steps.append(_step(self._open, self._results_of(self._open)))
        if self.partial:
            steps.append(_step(self.partial))
        usage = sum((step.usage for step in steps), self._wasted)
        finish_reason = self._cut or (steps[-1].finish_reason if steps else None)
        return Reply(
            text=steps[-1].text if steps else "",
            reasoning="\n\n".join(step.reasoning for step in steps if step.reasoning),
            steps=tuple(steps),
            usage=usage,
            conversation=(*self._history, *(self.messages() or (self._prompt,))),
            finish_reason=None if error else finish_reason,
            model=self._model or model,
            chat=chat,
            error=error,
            asked=len(self._history) + 1,
        )

    def _complete(self) -> Generator[Event | Command, Completion | None, Completion]:
        """One step's model call; a second one where the first answer is of no use."""
        completion = yield from self._ask()
        lost_calls = bool(self._tools) and completion.finish_reason == "tool_calls"
        if completion.message.tool_calls or not (lost_calls or _is_empty(completion)):
            return completion
        self._wasted += completion.usage
        yield Notice(LOST_CALLS if lost_calls else EMPTY)
        return (yield from self._ask(whole=lost_calls))

    def _ask(
        self, *, whole: bool = False
    ) -> Generator[Event | Command, Completion | None, Completion]:
        """One model call, asked again while that can help and nothing of it was shown."""
        attempt = 1
        while True:
            yield from self._make_room()
            yield RequestStarted(len(self._steps) + 1, attempt)
            messages, tools = self._messages(), self._tools
            try:
                completion = yield Send(messages, tools, whole)
            except EndpointError as error:
                nothing_came = not error.partial
                if nothing_came and isinstance(error, ContextTooLong):
                    if self._budget:
                        self._budget.refused(messages, tools)
                    if notice := self._shorten():
                        yield Notice(notice)
                        continue
                if nothing_came and type(error) is BadRequest and messages[-1].partial:
                    self._partial_mode = False  # not every model of an endpoint has it: in words
                    continue
                if not self._may_retry(error, attempt):
                    raise
                delay = _delay(error, attempt)
                reason = str(error).partition("\n")[0]
            else:
                assert completion is not None, "the driver answers Send with a Completion"
                if self._budget:
                    self._budget.learn(messages, tools, completion.usage)
                return completion
            yield Retrying(reason, delay, attempt, self._retries)
            yield Pause(delay)
            attempt += 1

    def _messages(self) -> tuple[Message, ...]:
        begun = resumed(self._history) if self._partial_mode and not self._said else ()
        return begun or (*self._history, self._prompt, *self._said)

    def _make_room(self) -> Iterator[Event]:
        """Leave out what the context window cannot hold, as far as that can be."""
        while self._budget and not self._budget.fits(self._messages(), self._tools):
            if not (notice := self._shorten()):
                return
            yield Notice(notice)

    def _shorten(self) -> str:
        """Make room in what is sent; say how, "" where nothing can be left out."""
        found = shortened(self._history, self._said, least=int(self._goes_on))
        if not found:
            return ""
        self._history, self._said, notice = found
        return notice

    def _may_retry(self, error: EndpointError, attempt: int) -> bool:
        return (
            error.retriable
            and attempt <= self._retries
            and not error.partial
            and (error.retry_after or 0.0) <= LONGEST_WAIT_ASKED
        )

    def _answered(self, completion: Completion) -> Step:
        """Keep the final answer."""
        step = _step(completion)
        self._steps.append(step)
        self._said = [after_the_loop(message) for message in self._said]
        self._said.append(sendable(completion.message, NO_ANSWER))
        return step

    def _correction(self, completion: Completion) -> str:
        """What goes back to a model whose answer does not fit, as long as that is of use."""
        if self._check is None or self._corrections == MOST_CORRECTIONS or self.cut_short:
            return ""
        self._corrections += 1
        return self._check(completion.message.text)

    def _close(self) -> Step:
        """Keep the step whose tools have run."""
        assert self._open is not None, "a step is open while its tools run"
        results = self._results_of(self._open)
        step = _step(self._open, results)
        self._steps.append(step)
        self._said += told(self._open.message, results)
        self._open = None
        self.begun, self.results = set(), {}
        return step

    def _results_of(self, completion: Completion) -> tuple[ToolResult, ...]:
        """In the order of the calls; those that have none were cancelled."""
        return tuple(
            self.results.get(call.id) or cancelled(call, begun=call.id in self.begun)
            for call in completion.message.tool_calls
        )

    def _watch_repetition(self, step: Step) -> Iterator[Event]:
        """Tell a model that makes the same call again and again; in the end, stop it."""
        name, before = step.tool_calls[-1].name, self._repetition.count
        times = self._repetition.watch(step.tool_calls)
        if times < SAME_CALL:
            return
        last = self._said[-1]
        word = (
            f"[This same call with the same arguments was made {times} times in a row. "
            "Do something else.]"
        )
        self._said[-1] = replace(last, content=f"{last.text}\n\n{word}")
        if before < SAME_CALL:
            yield Notice(f"{name} was called with the same arguments {times} times in a row.")
        if times >= SAME_CALL_ENDS:
            yield Notice(f"{name} was called {times} times so: the model is asked to conclude.")
            self._conclude("repetition")

    def _conclude(self, reason: str) -> None:
        self._tools = ()
        self._cut = reason
        self._said.append(Message("user", CONCLUDE))


class _Repetition:
    """Counts how often the latest call was made in a row."""

    def __init__(self) -> None:
        self._latest: tuple[str, str] | None = None
        self.count = 0

    def watch(self, calls: Sequence[ToolCall]) -> int:
        for call in calls:
            same = (call.name, _canonical(call.arguments))
            self.count = self.count + 1 if same == self._latest else 1
            self._latest = same
        return self.count


def _canonical(arguments: str) -> str:
    try:
        return json.dumps(json.loads(arguments), sort_keys=True)
    except (ValueError, RecursionError):
        return arguments


def _is_empty(completion: Completion) -> bool:
    """Whether the model has reasoned to its end and said nothing."""
    message = completion.message
    ended = completion.finish_reason in ("stop", None)
    return ended and bool(message.reasoning) and not message.text.strip()


def _step(completion: Completion, results: tuple[ToolResult, ...] = ()) -> Step:
    message = completion.message
    return Step(
        text=message.text,
        reasoning=message.reasoning or "",
        tool_calls=message.tool_calls,
        tool_results=results,
        usage=completion.usage,
        finish_reason=completion.finish_reason,
    )


def _delay(error: EndpointError, attempt: int) -> float:
    """As the server asks, else exponential with jitter (both in seconds)."""
    if error.retry_after is not None:
        return error.retry_after
    return min(FIRST_DELAY * 2.0 ** (attempt - 1), LONGEST_DELAY) * random.uniform(0.75, 1.0)  # noqa: S311 - jitter
