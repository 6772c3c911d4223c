"""Heavy mode: several trajectories of one prompt at once, then one pass that aggregates them.

The shape is that of the model's own best scores (model card of Kimi K2 Thinking, *heavy mode*).
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from kimi_magic.chats.context_window import MARGIN, estimate
from kimi_magic.core.errors import KimiError, TurnInterrupted
from kimi_magic.core.events import (
    Aggregating,
    ContentDelta,
    Envelope,
    Event,
    LanesStarted,
    Notice,
    Sink,
    TurnFinished,
    TurnPrepared,
    TurnStarted,
)
from kimi_magic.core.messages import Usage
from kimi_magic.core.reply import Reply
from kimi_magic.core.turn_record import Failure, TurnRecord
from kimi_magic.secrets.redact import Redactor
from kimi_magic.turn.aggregation import PROMPT, aggregation_message
from kimi_magic.turn.agreement import Vote, take_vote
from kimi_magic.turn.approval import AskPerson
from kimi_magic.turn.lanes import Lanes, side_by_side
from kimi_magic.turn.request import TurnRequest, parameters
from kimi_magic.turn.runner import PreparedTurn
from kimi_magic.turn.sinks import ChatSink, GuardedSinks

__all__ = ["HeavyTurn", "judge_request"]

ANNOUNCED = "Heavy mode: {count} trajectories and an aggregation, {requests} requests{more}{cost}."
ONE_AT_A_TIME = "This endpoint takes one request at a time: the trajectories queue."
EARLY = "{most} of {ended} agree: {saved} stopped early."
OF_THE_WHOLE = (TurnStarted, TurnPrepared, TurnFinished)  # events that a turn has once
MOST_OF_WINDOW = 0.75
MAJORITY = "The aggregation failed ({why}): the answer of the majority stands, {vote}."


@dataclass(frozen=True, slots=True)
class HeavyTurn:
    """A turn of several trajectories.

    Parameters
    ----------
    turn : PreparedTurn
        The prompt, as each trajectory asks it.
    judge : PreparedTurn
        The same turn as the aggregation is asked: without tools, perhaps of another model.
    count : int
        Trajectories.
    """

    turn: PreparedTurn
    judge: PreparedTurn
    count: int
    shown_in: int | None = None
    announces_practice: bool = False

    def run(
        self, sinks: Sequence[Sink] = (), ask: AskPerson | None = None
    ) -> Generator[Envelope | None, None, None]:
        """Run the turn, as `PreparedTurn.run` does.

        The envelopes of the trajectories have lanes from 1 on, the turn itself has lane 0.
        """
        request = self.turn.request
        if request.chat:
            chat = self.turn.chats.get(request.chat)
            sinks = [ChatSink(chat, self.turn.place, request), *sinks]
        return _HeavyRun(self, sinks, ask).run()


def judge_request(request: TurnRequest) -> TurnRequest:
    """Return the request that the aggregation is prepared from.

    Raises
    ------
    KimiError
        The judge is not of the form ``MODEL@ENDPOINT``.
    """
    alone = replace(request, tools=None, heavy=None, attempts=())
    if request.judge is None:
        return alone
    model, at, endpoint = request.judge.strip().rpartition("@")
    model, endpoint = (model, endpoint) if at else (endpoint, "")
    if not (model or endpoint) or " " in request.judge.strip():
        raise KimiError(
            f"A judge is MODEL, MODEL@ENDPOINT or @ENDPOINT; got {request.judge!r:.60}."
        )
    if not endpoint:
        return replace(alone, model=model)
    return replace(alone, model=model or None, endpoint=endpoint)


class _HeavyRun:
    def __init__(self, heavy: HeavyTurn, sinks: Sequence[Sink], ask: AskPerson | None) -> None:
        self._heavy = heavy
        self._turn = turn = replace(
            heavy.turn,
            shown_in=heavy.shown_in,
            announces_practice=heavy.announces_practice,
            keeps=False,
        )
        self._ask = ask
        connector = turn.connector
        self._sinks = GuardedSinks(sinks, lambda text: Redactor(connector.known_keys()).text(text))
        self._began = time.monotonic()
        self._replies: dict[int, Reply] = {}
        self._aggregate: Reply | None = None
        self._majority: Reply | None = None  # where the aggregation failed
        self._vote = Vote()
        # The turn before its first request.
        self._begun = TurnRecord(messages=(turn.prompt.message,), sent=1)
        self._is_prepared = False

    def run(self) -> Generator[Envelope | None, None, None]:
        error: KimiError | TurnInterrupted | None = None
        try:
            try:
                yield from self._take()
            except KimiError as failure:
                error = failure
            except KeyboardInterrupt:
                error = TurnInterrupted("Stopped. What had arrived is kept in kimi.last.")
            except GeneratorExit:
                left = TurnInterrupted("No more events were asked for.")
                self._tell(TurnFinished(self._reply(left)))
                raise
            yield self._tell(TurnFinished(self._reply(error)))
        finally:
            self._sinks.close()
        if error is not None:
            raise error from None

    def _take(self) -> Iterator[Envelope | None]:
        request = self._turn.request
        if request.attempts:  # those of an earlier turn, which was cut before it aggregated them
            self._replies = dict(enumerate(request.attempts, 1))
        else:
            yield from self._take_trajectories()
        ended = self._ended
        enough = 2 if request.attempts else math.ceil(self._heavy.count / 2)
        if len(ended) < enough and not self._agree():
            raise self._too_few(ended)
        self._vote = take_vote(ended, request.equal)
        yield self._tell(Aggregating(self._agreement))
        yield from self._take_aggregate(list(ended.values()))

    def _take_trajectories(self) -> Iterator[Envelope | None]:
        heavy, settings = self._heavy, self._turn.settings
        most = min(self._turn.endpoint.max_concurrency or heavy.count, settings.max_concurrency)
        lanes = Lanes(settings.max_queue_bytes, most)
        forward = _Forward(self._sinks, self._began)
        numbers = range(1, heavy.count + 1)
        turns = [self._trajectory(n).run([forward], self._ask, lanes.lane(n)) for n in numbers]
        yield self._tell(TurnStarted(self._model, self._turn.endpoint.name))
        yield self._tell(Notice(self._announcement()))
        if most == 1 < heavy.count:
            yield self._tell(Notice(ONE_AT_A_TIME))
        yield self._tell(LanesStarted(heavy.count))
        with closing(side_by_side(lanes, turns, self._agree)) as envelopes:
            for envelope in envelopes:
                if envelope is None:
                    self._sinks.tick()
                elif isinstance(envelope.event, TurnFinished):
                    self._replies[envelope.lane] = envelope.event.reply
                elif isinstance(envelope.event, TurnPrepared):
                    yield from self._prepared(envelope.event.record)
                yield envelope
        ended = len(self._ended)
        if ended < heavy.count and self._agree():
            said = EARLY.format(
                most=take_vote(self._ended, self._turn.request.equal).most,
                ended=ended,
                saved=heavy.count - ended,
            )
            yield self._tell(Notice(said))

    def _take_aggregate(self, ended: Sequence[Reply]) -> Iterator[Envelope | None]:
        """Have the trajectories aggregated; where that fails, the majority stands."""
        judge = self._heavy.judge
        target = judge.connector.target(judge.endpoint, judge.request.model or judge.settings.model)
        limit = parameters(judge.request, target, judge.settings).get(target.record.limit_field, 0)
        room = target.record.context_window - limit - round(estimate(self._begun.messages) * MARGIN)
        message = aggregation_message(
            judge.prompt.message,
            ended,
            tokens=min(max(room, 0), round(target.record.context_window * MOST_OF_WINDOW)),
            template=judge.settings.heavy_prompt or PROMPT,
        )
        turn = replace(judge, prompt=replace(judge.prompt, message=message), keeps=False)
        forward = _Forward(self._sinks, self._began, without=OF_THE_WHOLE)
        try:
            with closing(turn.run([forward])) as envelopes:
                for envelope in envelopes:
                    if envelope is None:
                        self._sinks.tick()
                    elif isinstance(envelope.event, TurnFinished):
                        self._aggregate = envelope.event.reply
                    elif isinstance(envelope.event, TurnPrepared):
                        yield from self._prepared(envelope.event.record)
                    if envelope is None or not isinstance(envelope.event, forward.without):
                        yield envelope
        except KimiError as failure:
            self._majority = self._replies[self._vote.groups[0].lanes[0]]
            why = str(failure).partition("\n")[0]
            yield self._tell(Notice(MAJORITY.format(why=why, vote=self._vote)))
            yield self._tell(ContentDelta(self._majority.text))

    def _prepared(self, record: TurnRecord) -> Iterator[Envelope]:
        """Tell once of what the turn asks; ``record`` is that of one of its requests."""
        if not self._is_prepared:
            self._is_prepared = True
            asked = (*record.messages[: record.sent - 1], self._turn.prompt.message)
            self._begun = replace(record, messages=asked, sent=len(asked))
            yield self._tell(TurnPrepared(self._begun))

    def _trajectory(self, number: int) -> PreparedTurn:
        """Return the turn of a lane: the same for all, but for the seed where there is one."""
        turn = self._turn
        seed = turn.endpoint.seed if turn.request.seed is None else turn.request.seed
        if seed is None:
            return turn
        return replace(turn, request=replace(turn.request, seed=seed + number - 1))

    @property
    def _ended(self) -> dict[int, Reply]:
        """The trajectories that came to their end, by their numbers."""
        ended = sorted(self._replies.items())
        return {n: reply for n, reply in ended if reply.error is None and reply.text.strip()}

    @property
    def _agreement(self) -> dict[str, tuple[int, ...]]:
        return {group.answer: group.lanes for group in self._vote.groups}

    @property
    def _model(self) -> str:
        turn = self._turn
        return turn.connector.target(turn.endpoint, turn.request.model or turn.settings.model).model

    def _agree(self) -> bool:
        """Return True if as many trajectories agree as were asked for."""
        wanted = self._turn.request.until_agree
        if wanted is None:
            return False
        return take_vote(self._ended, self._turn.request.equal).most >= wanted

    def _announcement(self) -> str:
        heavy, turn = self._heavy, self._turn
        target = turn.connector.target(turn.endpoint, self._model)
        limit = parameters(turn.request, target, turn.settings).get(target.record.limit_field, 0)
        asked = estimate([turn.prompt.message])
        most = Usage(asked * heavy.count, limit * (heavy.count + 1), requests=heavy.count + 1)
        cost = target.record.priced(most, turn.endpoint).cost if limit else 0.0
        return ANNOUNCED.format(
            count=heavy.count,
            requests=heavy.count + 1,
            more=", more where tools are called" if turn.toolset else "",
            cost=f", ${cost:.2f} at most" if cost else "",
        )

    def _too_few(self, ended: Mapping[int, Reply]) -> KimiError:
        errors = [reply.error for reply in self._replies.values() if reply.error is not None]
        why = (
            f" ({type(errors[0]).__name__}: {str(errors[0]).partition(chr(10))[0]})"
            if errors
            else ""
        )
        goes_on = len(ended) > 1 and self._turn.request.chat is not None
        advice = "\n`%kimi continue` aggregates these." if goes_on else ""
        return KimiError(
            f"{len(ended)} of {self._heavy.count} trajectories gave an answer{why}.{advice}"
        )

    def _reply(self, error: KimiError | TurnInterrupted | None) -> Reply:
        """Make the reply: the aggregation's, with the prompt that the trajectories were asked."""
        attempts = tuple(self._replies[number] for number in sorted(self._replies))
        last = self._aggregate if self._majority is None else self._majority
        if last is None or not last.record.exchange:
            last = Reply(self._begun)
        # With the prompt of the trajectories, also where another one was aggregated.
        asked, answer = self._begun.messages, last.record.messages[last.record.sent :]
        whole = replace(last.record, messages=(*asked, *answer), sent=len(asked))
        usage = sum((reply.usage for reply in attempts), Usage())
        if self._aggregate is not None:
            usage += self._aggregate.usage
        turn = self._turn
        record = replace(
            whole,
            usage=usage,
            trajectories=tuple(reply.record for reply in attempts),
            agreement=self._agreement,
            failure=Failure(type(error).__name__, str(error)) if error else None,
            chat=turn.request.chat,
        )
        if error is not None:
            record = replace(record, finish_reason=None)
        functions = turn.toolset.functions if turn.toolset else {}
        reply = replace(
            last,
            record=record,
            error=error,
            functions=functions,
            shown_in=turn.shown_in,
            attempts=attempts,
        )
        if error is not None:
            error.reply = reply
        return reply

    def _tell(self, event: Event) -> Envelope:
        envelope = Envelope(time.monotonic() - self._began, event)
        self._sinks.handle(envelope)
        return envelope


class _Forward:
    """Hands the events of a turn inside of this one on to its sinks, but for some kinds."""

    def __init__(self, sinks: GuardedSinks, began: float, without: tuple[type, ...] = ()) -> None:
        self.without = without
        self._sinks = sinks
        self._began = began

    def handle(self, envelope: Envelope) -> None:
        if not isinstance(envelope.event, self.without):
            self._sinks.handle(replace(envelope, seconds=time.monotonic() - self._began))

    def tick(self) -> None:
        """Do nothing: the whole turn has its own ticks."""

    def close(self) -> None:
        """Do nothing: the whole turn goes on."""
