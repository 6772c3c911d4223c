"""One turn as a generator without I/O: step → tool calls → step … → answer.

``Loop.run`` yields events for those who watch and commands for its driver. The answer to a command
goes back in through the generator: ``Send`` is answered with the ``Completion``, ``Pause`` with
None when the time is over, ``RunTools`` with each event of the calls (the loop yields it back, to
be shown) and None after the last. Failures are thrown in: an ``EndpointError`` of a request, or
``Stopped`` for a turn that ends here. ``Loop.record`` gives the state of the turn at any moment.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kimi_magic.chats.context_window import ContextWindow
from kimi_magic.chats.history import (
    CUT_OFF,
    NO_ANSWER,
    CallIds,
    cancelled,
    final_message,
    outside_loop,
    shorten,
    to_continue,
    tool_messages,
    unsigned,
    with_reasoning,
)
from kimi_magic.core.errors import BadRequest, ContextTooLong, EndpointError, RateLimited
from kimi_magic.core.events import (
    Event,
    Notice,
    RequestStarted,
    Retrying,
    StepFinished,
    ToolFinished,
    ToolStarted,
)
from kimi_magic.core.messages import (
    Completion,
    ImagePart,
    Message,
    Step,
    ToolCall,
    ToolResult,
    Usage,
    join_parts,
)
from kimi_magic.core.sent import Sent
from kimi_magic.core.turn_record import Retry, TurnRecord
from kimi_magic.turn.logprobs import LogprobsAsked
from kimi_magic.turn.repetition import Repetition
from kimi_magic.wire.models import Model

__all__ = ["Command", "Loop", "Pause", "RunTools", "Send", "Stopped"]

FIRST_DELAY, LONGEST_DELAY = 0.5, 8.0
# A server that asks for a longer wait is not worth a blocked notebook.
LONGEST_RETRY_AFTER = 120.0
EMPTY = "The model reasoned but gave no answer: it is asked again."
LOST_CALLS = "The server announced tool calls but sent none: it is asked again."
NO_TOOLS = "The model asked for a tool, but none was offered."
CONCLUDE = "In this turn no more tools can be called. Conclude now, with what you have."
# For the reader, and for the model.
CALL_CUT = "The call of {} was cut at the limit of tokens: the model is told, and asked once more."
CALL_CUT_AGAIN = "The call of {} was cut at the limit of tokens again: the turn ends here."
TELL_CUT = (
    "Nothing was run: your answer reached its limit of tokens in the middle of this call's "
    "arguments. Make the call again with shorter arguments, or in several calls."
)
TELL_BROKEN = "Nothing was run: your answer broke off before the arguments. Make the call again."
TELL_NAMELESS = "Nothing was run: this call has no name. Call one of the tools by its name: {}."
MORE_ROOM = 4  # times the limit that was too low, as far as the context window has room
MISMATCH = "The answer does not fit the schema: the model is told, and asked again."
MOST_CORRECTIONS = 2
NOTHING = Usage()
REPEATED, REPEATED_TOO_OFTEN = 3, 10


@dataclass(frozen=True, slots=True)
class Send:
    """Ask the model with these messages and tool schemas.

    With ``whole``, the answer is to come in one piece, whatever the request says. ``max_tokens`` is
    a limit in place of the request's own, 0 for none. ``logprobs`` asks for these.
    """

    messages: tuple[Message, ...]
    tools: Sequence[dict[str, Any]] = ()
    whole: bool = False
    max_tokens: int = 0
    logprobs: bool = False


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait for this many seconds.

    ``for_all``: the server refuses requests for now, whoever makes them.
    """

    seconds: float
    for_all: bool = False


@dataclass(frozen=True, slots=True)
class RunTools:
    """Make these calls."""

    calls: tuple[ToolCall, ...]


Command = Send | Pause | RunTools
Answer = Completion | ToolStarted | ToolFinished | None


class Stopped(Exception):
    """Thrown into the loop to end it, with what had arrived.

    ``partial`` is the part of the model's answer, ``result`` that of the call that was running.
    """

    def __init__(self, partial: Completion | None = None, result: ToolResult | None = None) -> None:
        super().__init__()
        self.partial = partial
        self.result = result


class Loop:
    """Prompt → final answer.

    Parameters
    ----------
    history : sequence of Message
        The messages before the prompt: the system prompt, and the chat so far.
    prompt : Message
    retries : int
        How often one request may be sent again.
    tools : sequence of dict
        The schemas of the tools that are offered.
    max_steps : int
        The number of steps after which the model must conclude without tools.
    window : ContextWindow or None
        None: the server alone says what is too long.
    check : callable or None
        Takes an answer; returns the correction that goes back to the model, "" for none.
    continues : bool
        The prompt asks to continue the latest turn of the history.
    partial_mode : bool
        That turn's text was cut, and the server takes it as the beginning of the answer.
    model : Model or None
        The rules that the history follows; None for those of Kimi K2.
    reasoning_key : str
        The field in which the server reads past reasoning; empty for the one in which it came.
    max_tokens : int
        The limit of an answer's tokens that the requests hold; 0 where they hold none.
    limit_is_ours : bool
        The user did not choose that limit: it may be raised where it cuts a call.
    logprobs : LogprobsAsked or None
        Asks for the logarithms of the tokens.
    outline : callable or None
        Outlines a request for the reader: its messages, its tools.
    """

    def __init__(
        self,
        history: Sequence[Message],
        prompt: Message,
        *,
        retries: int,
        tools: Sequence[dict[str, Any]] = (),
        max_steps: int = 50,
        window: ContextWindow | None = None,
        check: Callable[[str], str] | None = None,
        continues: bool = False,
        partial_mode: bool = False,
        model: Model | None = None,
        reasoning_key: str = "",
        max_tokens: int = 0,
        limit_is_ours: bool = False,
        logprobs: LogprobsAsked | None = None,
        outline: Callable[[Sequence[Message], Sequence[dict[str, Any]]], Sent] | None = None,
    ) -> None:
        self._outline, self._outlined = outline, Sent()
        self._logprobs = logprobs or LogprobsAsked()
        self._sees = model is not None and model.sees
        self._largest = (model.largest_output if model else None) or sys.maxsize
        self._keeps_reasoning = model is not None and model.past_reasoning == "all"
        self._reasoning_key = reasoning_key
        self._history = tuple(history)
        self._prompt = prompt
        self._retries = retries
        self._tools = tools
        self._max_steps = max_steps
        self._window = window
        self._check = check
        self._continues = continues
        self._partial_mode = partial_mode
        self._max_tokens = max_tokens
        self._limit_is_ours = limit_is_ours
        self._sent_limit = max_tokens  # of the latest request
        self._roomier = 0  # the limit that a call which was cut is asked again with
        self._calls_cut = 0  # steps with a call that was cut
        self._corrections = 0
        self._steps: list[Step] = []
        self._own: list[Message] = []  # the messages of this turn, after its prompt
        self._ids = CallIds(self._history, keep=model is not None and model.call_ids == "server")
        self._repetition = Repetition()
        self._calling: Completion | None = None  # the step whose tools are running
        self._begun: set[str] = set()
        # Of the calls that are made, among those of the step.
        self.places: Sequence[int] = ()
        self._results: dict[str, ToolResult] = {}
        self._partial: Completion | None = None
        self._discarded = NOTHING
        self._retried: list[Retry] = []
        self._concluded: str | None = None
        self._model: str | None = None

    def run(self) -> Generator[Event | Command, Answer, None]:
        """Take the turn to its end."""
        try:
            yield from self._run()
            if notice := self._logprobs.conclude():
                yield Notice(notice)
        except Stopped as stopped:
            self._partial = stopped.partial or self._partial
            if stopped.result:
                self._results[stopped.result.call_id] = stopped.result
        except EndpointError as error:
            self._partial = error.partial
            raise

    def _run(self) -> Generator[Event | Command, Answer, None]:
        while True:
            completion = yield from self._complete()
            self._model = completion.model
            if not (self._tools and completion.message.tool_calls):
                if completion.message.tool_calls:
                    yield Notice(NO_TOOLS)
                yield StepFinished(self._close_with_answer(completion))
                if not (correction := self._correction(completion)):
                    return
                yield Notice(MISMATCH)
                self._own.append(Message("user", correction))
                self._tools = ()
                continue
            cut = self._cut_calls(completion)
            step = yield from self._call_tools(completion)
            yield StepFinished(step)
            if cut:
                self._calls_cut += 1
                yield Notice((CALL_CUT if self._calls_cut == 1 else CALL_CUT_AGAIN).format(cut))
                if self._calls_cut > 1:
                    self._concluded = "length"  # whatever the server called it
                    self._close_with(Message("assistant", CUT_OFF))
                    return
                self._ask_for_more_room(completion)
            yield from self._watch_repetition(step)
            if self._concluded is None and len(self._steps) >= self._max_steps:
                yield Notice(
                    f"The limit of {self._max_steps} steps is reached: the model is asked to "
                    "conclude. --max-steps raises it."
                )
                self._conclude("max_steps")

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps so far, the one under way as far as it got."""
        steps = list(self._steps)
        if self._calling:
            steps.append(_step(self._calling, self._results_of(self._calling)))
        if self._partial:
            steps.append(_step(self._partial))
        return tuple(steps)

    @property
    def cut_short(self) -> bool:
        """True if the latest answer was cut at its limit of tokens."""
        reason = self._concluded or (self._steps[-1].finish_reason if self._steps else None)
        return reason == "length"

    @property
    def waiting(self) -> bool:
        """True while nothing of an answer has arrived, and no tool runs."""
        return not (self._partial or self._calling)

    def record(
        self, *, model: str, chat: str | None, failed: bool = False, **more: Any
    ) -> TurnRecord:
        """Return what the turn has come to, whole or cut; ``model`` is the one asked for.

        ``more`` are fields of the record that the loop does not know.
        """
        steps = self.steps
        reason = self._concluded or (steps[-1].finish_reason if steps else None)
        return TurnRecord(
            steps=tuple(
                replace(step, tool_results=tuple(map(_as_data, step.tool_results)))
                if step.tool_results
                else step
                for step in steps
            ),
            messages=(*self._history, self._prompt, *self._messages_so_far()),
            sent=len(self._history) + 1,
            usage=sum((step.usage for step in steps), self._discarded),
            finish_reason=None if failed else reason,
            model=self._model or model,
            chat=chat,
            outline=self._outlined,
            retries=tuple(self._retried),
            **more,
        )

    def _messages_so_far(self) -> list[Message]:
        messages = list(self._own)
        if self._calling:
            messages += tool_messages(self._calling.message, self._results_of(self._calling))
        if self._partial:
            messages.append(final_message(self._partial.message, CUT_OFF))
        return messages

    def _complete(self) -> Generator[Event | Command, Answer, Completion]:
        """Make one step's model call; a second one where the first answer is of no use."""
        completion = yield from self._ask()
        lost_calls = bool(self._tools) and completion.finish_reason == "tool_calls"
        if completion.message.tool_calls or not (lost_calls or _is_empty(completion)):
            return completion
        self._discarded += completion.usage
        yield Notice(LOST_CALLS if lost_calls else EMPTY)
        # vLLM under load streams no calls, but has them in an answer of one piece.
        return (yield from self._ask(whole=lost_calls))

    def _ask(self, *, whole: bool = False) -> Generator[Event | Command, Answer, Completion]:
        """Make one model call; again while that can help and nothing of it was shown."""
        attempt = 1
        while True:
            yield from self._make_room()
            messages, tools = self._request_messages(), self._tools
            yield RequestStarted(len(self._steps) + 1, attempt, self._outline_of_first())
            logprobs = self._logprobs.still
            send = Send(messages, tools, whole, self._limit(messages, tools), logprobs)
            try:
                completion = yield send
            except EndpointError as error:
                nothing_came = not error.partial
                if nothing_came and self._do_without(error, send):
                    continue
                if nothing_came and isinstance(error, ContextTooLong):
                    if self._window:
                        self._window.refuse(messages, tools)
                    if notice := self._shorten():
                        yield Notice(notice)
                        continue
                if not self._may_retry(error, attempt):
                    raise
                delay = _delay(error, attempt)
                refuses_all = isinstance(error, RateLimited)
                reason = str(error).partition("\n")[0]
            else:
                assert isinstance(completion, Completion), "Send is answered with a Completion"
                self._sent_limit = send.max_tokens or self._max_tokens
                self._logprobs.learn(completion)
                if self._window:
                    self._window.learn(messages, tools, completion.usage)
                return completion
            self._retried.append(Retry(len(self._steps) + 1, reason))
            yield Retrying(reason, delay, attempt, self._retries)
            yield Pause(delay, refuses_all)
            attempt += 1

    def _do_without(self, error: EndpointError, send: Send) -> bool:
        """Do without what not every model of an endpoint has; False where nothing is left."""
        if self._logprobs.refuse(error, named=True):
            return True
        if send.max_tokens and isinstance(error, BadRequest):
            self._roomier = 0
            return True
        if type(error) is BadRequest and "signature" in str(error):  # of another server's thinking
            with_it, self._history = self._history, tuple(map(unsigned, self._history))
            if self._history != with_it:
                return True
        if send.messages[-1].partial and type(error) is BadRequest:
            self._partial_mode = False  # it is asked in words
            return True
        return self._logprobs.refuse(error)

    def _request_messages(self) -> tuple[Message, ...]:
        begun = to_continue(self._history) if self._partial_mode and not self._own else ()
        return begun or (*self._history, self._prompt, *self._own)

    def _outline_of_first(self) -> Sent | None:
        """Outline the turn's first request; None for a later one."""
        if self._outline is None or self._own:
            return None
        self._outlined = self._outline(self._request_messages(), self._tools)
        return self._outlined

    def _make_room(self) -> Iterator[Event]:
        """Leave out what the context window cannot hold, as far as possible."""
        while self._window and not self._window.fits(self._request_messages(), self._tools):
            if not (notice := self._shorten()):
                return
            yield Notice(notice)

    def _shorten(self) -> str:
        """Make room; return a notice, "" where nothing can be left out."""
        shortened = shorten(self._history, self._own, least=int(self._continues))
        if not shortened:
            return ""
        self._history, self._own, notice = shortened
        return notice

    def _may_retry(self, error: EndpointError, attempt: int) -> bool:
        return (
            error.retriable
            and attempt <= self._retries
            and not error.partial
            and (error.retry_after or 0.0) <= LONGEST_RETRY_AFTER
        )

    def _close_with_answer(self, completion: Completion) -> Step:
        step = _step(completion)
        self._steps.append(step)
        self._close_with(final_message(completion.message, NO_ANSWER))
        return step

    def _close_with(self, answer: Message) -> None:
        self._own.append(answer)
        if self._keeps_reasoning:
            key = "" if any(m.reasoning for m in self._own) else self._reasoning_key
            self._own = list(with_reasoning(self._own, self._history, key=key))
        else:
            self._own = [outside_loop(message) for message in self._own]

    def _correction(self, completion: Completion) -> str:
        """Return what goes back to a model whose answer does not fit, while that is of use."""
        if self._check is None or self._corrections == MOST_CORRECTIONS or self.cut_short:
            return ""
        self._corrections += 1
        return self._check(completion.message.text)

    def _cut_calls(self, completion: Completion) -> str:
        """Return the names of the calls whose arguments the limit of tokens cut; "" for none."""
        # vLLM finishes with tool_calls, wherever its limit fell.
        used = completion.usage.completion_tokens
        if completion.finish_reason != "length" and not 0 < self._sent_limit <= used:
            return ""
        return ", ".join(
            call.name for call in completion.message.tool_calls if not _is_json(call.arguments)
        )

    def _ask_for_more_room(self, completion: Completion) -> None:
        """Raise the limit of tokens that cut a call, unless the user chose it."""
        if self._limit_is_ours:
            limit = self._max_tokens or completion.usage.completion_tokens
            self._roomier = MORE_ROOM * limit

    def _limit(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> int:
        """Return the raised limit, as far as there is room beside a request; 0 for none."""
        room = self._window.left(messages, tools) if self._window else self._roomier
        raised = min(self._roomier, room, self._largest)
        return raised if raised > self._max_tokens else 0

    def _call_tools(self, completion: Completion) -> Generator[Event | Command, Answer, Step]:
        self._begun, self._results = set(), {}
        self._calling = replace(completion, message=self._ids.give(completion.message))
        refused = self._refused(completion)
        calls = self._calling.message.tool_calls
        places = [place for place in range(len(calls)) if place not in refused]
        self.places = places
        event = (yield RunTools(tuple(calls[place] for place in places))) if places else None
        while event is not None:
            assert not isinstance(event, Completion), "RunTools is answered with events"
            if refused:
                event = replace(event, index=places[event.index])
            if isinstance(event, ToolStarted):
                self._begun.add(event.call.id)
            else:
                self._results[event.result.call_id] = event.result
            event = yield event
        for place, why in refused.items():
            call = calls[place]
            self._results[call.id] = replace(why, call_id=call.id)
            yield ToolStarted(place, call)
            yield ToolFinished(place, self._results[call.id])
        results = self._results_of(self._calling)
        step = _step(self._calling, results)
        self._steps.append(step)
        self._own += tool_messages(self._calling.message, results)
        if self._sees and (pictures := _pictures(results)):
            self._own.append(pictures)
        self._calling = None
        return step

    def _refused(self, completion: Completion) -> dict[int, ToolResult]:
        """Return the results of the calls that cannot be made, by their places."""
        cut = self._cut_calls(completion)
        refused = {}
        for place, call in enumerate(completion.message.tool_calls):
            if not call.name:
                said = TELL_NAMELESS.format(", ".join(t["function"]["name"] for t in self._tools))
                refused[place] = ToolResult("unnamed", said, error="the call has no name")
            elif cut and not _is_json(call.arguments):
                refused[place] = ToolResult(call.name, TELL_CUT, error="cut at the limit of tokens")
            elif completion.finish_reason is None and not call.arguments.strip():
                refused[place] = ToolResult(call.name, TELL_BROKEN, error="its arguments were lost")
        return refused

    def _results_of(self, completion: Completion) -> tuple[ToolResult, ...]:
        """Return the results in the order of the calls; calls without one were cancelled."""
        return tuple(
            self._results.get(call.id) or cancelled(call, begun=call.id in self._begun)
            for call in completion.message.tool_calls
        )

    def _watch_repetition(self, step: Step) -> Iterator[Event]:
        """Tell a model that makes the same call again and again; in the end, stop it."""
        name, before = step.tool_calls[-1].name, self._repetition.count
        times = self._repetition.watch(step.tool_calls)
        if times < REPEATED:
            return
        at = max(i for i, message in enumerate(self._own) if message.role == "tool")
        last = self._own[at]
        remark = (
            f"[This same call with the same arguments was made {times} times in a row. "
            "Do something else.]"
        )
        self._own[at] = replace(last, content=f"{last.text}\n\n{remark}")
        if before < REPEATED:
            yield Notice(f"{name} was called with the same arguments {times} times in a row.")
        if times >= REPEATED_TOO_OFTEN:
            yield Notice(f"{name} was called {times} times so: the model is asked to conclude.")
            self._conclude("repetition")

    def _conclude(self, reason: str) -> None:
        self._tools = ()
        self._concluded = reason
        self._own.append(Message("user", CONCLUDE))


def _as_data(result: ToolResult) -> ToolResult:
    """Return a result without its live value, and the pictures that a message of their own has."""
    return replace(result, value=None, pictures=())


def _pictures(results: Sequence[ToolResult]) -> Message | None:
    """Return a message with the pictures that tools made; a tool's own message holds text alone."""
    from kimi_magic.context.pictures import captioned, pngs, with_caption

    pieces: list[str | ImagePart] = []
    for result in results:
        caption = f"A picture that {result.name} made"
        pieces += captioned(caption, pngs(result.outputs))
        for image in result.pictures:
            pieces += with_caption(caption, image)
    return Message("user", join_parts(pieces)) if pieces else None


def _is_json(text: str) -> bool:
    try:
        json.loads(text, strict=False)
    except json.JSONDecodeError:
        return False
    except (ValueError, RecursionError):  # JSON all the same: of too many digits, or too deep
        pass
    return True


def _is_empty(completion: Completion) -> bool:
    """Return True if the model reasoned to its end and gave no answer."""
    message = completion.message
    ended = completion.finish_reason in ("stop", None)
    return ended and bool(message.reasoning) and not message.text.strip()


def _step(completion: Completion, results: tuple[ToolResult, ...] = ()) -> Step:
    message = completion.message
    return Step(
        text=message.text,
        reasoning_parts=message.reasoning or (),
        tool_calls=message.tool_calls,
        tool_results=results,
        usage=completion.usage,
        finish_reason=completion.finish_reason,
        timings=completion.timings,
        logprobs=completion.logprobs,
        reasoning_logprobs=completion.reasoning_logprobs,
    )


def _delay(error: EndpointError, attempt: int) -> float:
    """Return the seconds to wait: as the server asks, else exponential with jitter."""
    if error.retry_after is not None:
        return error.retry_after
    return min(FIRST_DELAY * 2.0 ** (attempt - 1), LONGEST_DELAY) * random.uniform(0.75, 1.0)  # noqa: S311 - jitter
