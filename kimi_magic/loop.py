"""One turn as a generator without I/O.

``Turn.run`` yields events for those who watch and commands for its driver: ``Send`` is answered
with the ``Completion`` (or a thrown ``EndpointError``), ``Pause`` when the time is over. Whatever
happens, ``Turn.reply`` gives what the turn has come to.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

from kimi_magic.errors import ContextTooLong, EndpointError
from kimi_magic.events import Event, Notice, RequestStarted, Retrying, StepFinished
from kimi_magic.messages import Completion, Message, Reply, Step, Usage

__all__ = ["Command", "Pause", "Send", "Turn"]

FIRST_DELAY, LONGEST_DELAY = 0.5, 8.0
# A server that asks for a longer wait is not worth a blocked notebook.
LONGEST_WAIT_ASKED = 120.0
SHORTENED = "The chat outgrew the model's context window: its oldest turns were left out."
NO_ANSWER = "[No answer was given.]"
CUT_OFF = "[The answer was cut off.]"


@dataclass(frozen=True, slots=True)
class Send:
    """Ask the model with these messages; the driver sends back a ``Completion``."""

    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait for this many seconds."""

    seconds: float


Command = Send | Pause


class Turn:
    """Prompt → final answer.

    Parameters
    ----------
    history : sequence of Message
        What is sent before the prompt: the system prompt, and the chat so far.
    prompt : Message
    retries : int
        How often one request may go out again.

    Attributes
    ----------
    partial : Completion or None
        What had arrived of a model call that did not come to its end; the driver sets it.
    """

    def __init__(self, history: Sequence[Message], prompt: Message, *, retries: int) -> None:
        self._history = tuple(history)
        self._prompt = prompt
        self._retries = retries
        self._steps: list[Step] = []
        self._said: list[Message] = []
        self._model: str | None = None
        self.partial: Completion | None = None

    def run(self) -> Generator[Event | Command, Completion | None, None]:
        """Take the turn to its end: a step is one model call."""
        completion = yield from self._ask(len(self._steps) + 1)
        if completion.message.tool_calls:
            yield Notice("The model asked for a tool, but none was offered.")
        yield StepFinished(self._keep(completion))

    def messages(self) -> tuple[Message, ...]:
        """The prompt and what came of it, as the next turn's history; empty if nothing came."""
        said = list(self._said)
        if self.partial:
            said.append(_sendable(self.partial.message, CUT_OFF))
        return (self._prompt, *said) if said else ()

    def reply(self, *, model: str, chat: str | None, error: BaseException | None) -> Reply:
        """What the turn has come to, whole or cut."""
        partial = [_step(self.partial)] if self.partial else []
        steps = (*self._steps, *partial)
        usage = sum((step.usage for step in steps), Usage())
        messages = (*self._history, *(self.messages() or (self._prompt,)))
        return Reply(
            text=steps[-1].text if steps else "",
            reasoning="\n\n".join(step.reasoning for step in steps if step.reasoning),
            steps=steps,
            usage=usage,
            conversation=messages,
            finish_reason=steps[-1].finish_reason if steps and not error else None,
            model=self._model or model,
            chat=chat,
            error=error,
        )

    def _ask(self, step: int) -> Generator[Event | Command, Completion | None, Completion]:
        """One model call, asked again while that can help and nothing was shown."""
        attempt = 1
        while True:
            yield RequestStarted(step, attempt)
            try:
                completion = yield Send((*self._history, self._prompt, *self._said))
            except EndpointError as error:
                if isinstance(error, ContextTooLong) and self._shorten():
                    yield Notice(SHORTENED)
                    continue
                if not self._may_retry(error, attempt):
                    raise
                delay = _delay(error, attempt)
                reason = str(error).partition("\n")[0]
            else:
                assert completion is not None, "the driver answers Send with a Completion"
                return completion
            yield Retrying(reason, delay, attempt, self._retries)
            yield Pause(delay)
            attempt += 1

    def _shorten(self) -> bool:
        """Leave out the older half of what was said before; False where there is nothing."""
        system = tuple(m for m in self._history if m.role == "system")
        prompts = [i for i, m in enumerate(self._history) if m.role == "user"]
        if not prompts:
            return False
        later = prompts[(len(prompts) + 1) // 2 :]
        self._history = system + (self._history[later[0] :] if later else ())
        return True

    def _may_retry(self, error: EndpointError, attempt: int) -> bool:
        return (
            error.retriable
            and attempt <= self._retries
            and not error.partial
            and (error.retry_after or 0.0) <= LONGEST_WAIT_ASKED
        )

    def _keep(self, completion: Completion) -> Step:
        step = _step(completion)
        self._steps.append(step)
        self._said.append(_sendable(completion.message, NO_ANSWER))
        self._model = completion.model
        return step


def _step(completion: Completion) -> Step:
    message = completion.message
    return Step(
        text=message.text,
        reasoning=message.reasoning or "",
        tool_calls=message.tool_calls,
        usage=completion.usage,
        finish_reason=completion.finish_reason,
    )


def _sendable(message: Message, stand_in: str) -> Message:
    """What servers accept in a history: no empty answer, no call without its result."""
    return replace(message, content=message.content or stand_in, tool_calls=())


def _delay(error: EndpointError, attempt: int) -> float:
    """As the server asks, else exponential with jitter (both in seconds)."""
    if error.retry_after is not None:
        return error.retry_after
    return min(FIRST_DELAY * 2.0 ** (attempt - 1), LONGEST_DELAY) * random.uniform(0.75, 1.0)  # noqa: S311 - jitter
