"""Heavy mode: several trajectories of one prompt at once, then one pass that aggregates them.

The shape is that of the model's own best scores (model card of Kimi K2 Thinking, *heavy mode*).
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

from kimi_magic.chats.chat import Chat
from kimi_magic.chats.context_window import LONG_ENOUGH, MARGIN, MOST_FACTOR, estimate
from kimi_magic.core.errors import KimiError, TurnInterrupted
from kimi_magic.core.events import (
    Aggregating,
    ContentDelta,
    Envelope,
    Event,
    LanesStarted,
    Notice,
    ReasoningDelta,
    RequestStarted,
    Sink,
    StepFinished,
    ToolCallStarted,
    TurnFinished,
    TurnPrepared,
    TurnStarted,
    joined_label,
)
from kimi_magic.core.messages import Usage
from kimi_magic.core.reply import Reply
from kimi_magic.core.sent import Sent
from kimi_magic.core.turn_record import Failure, TurnRecord
from kimi_magic.display.timeline import events_of
from kimi_magic.secrets.redact import Redactor
from kimi_magic.turn.aggregation import PROMPT, aggregation_message
from kimi_magic.turn.agreement import Vote, take_vote
from kimi_magic.turn.approval import AskPerson
from kimi_magic.turn.lanes import Lanes, Within, side_by_side
from kimi_magic.turn.request import answered, check_images, parameters
from kimi_magic.turn.runner import PreparedTurn
from kimi_magic.turn.sinks import ChatSink, GuardedSinks, set_aside
from kimi_magic.wire.connector import Target

__all__ = ["HeavyTurn", "plain_turn"]

ANNOUNCED = "Heavy mode: {count} trajectories and an aggregation, {requests} requests{cost}{more}."
MORE = ", more where tools are called"
TAKEN_UP = "Heavy mode: {count} trajectories that came to an answer earlier are aggregated."
ONE_AT_A_TIME = "This endpoint takes one request at a time: the trajectories queue."
EARLY = "{most} of {ended} agree: {saved} stopped early."
NO_EQUAL = "{}: answers are compared as without it."
ONCE_A_TURN = (TurnStarted, TurnPrepared, TurnFinished)
_SAID_BY_EACH = (TurnPrepared, TurnStarted, RequestStarted, Notice)  # before its answer begins
_ANSWERING = (ReasoningDelta, ContentDelta, ToolCallStarted, StepFinished)
MOST_OF_WINDOW = 0.75
CENT = 0.01  # dollars
BLIND_JUDGE = (
    "{} reads no images, so it cannot judge: leave the image out, or name one that does, such as "
    "`--judge kimi-k3`."
)
NEVER_BEGAN = "Stopped before it began."
EMPTY = "its answer is empty"
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
        self,
        sinks: Sequence[Sink] = (),
        ask: AskPerson | None = None,
        lanes: Lanes | None = None,
    ) -> Generator[Envelope | None, None, None]:
        """Run the turn, as `PreparedTurn.run` does.

        The envelopes of the trajectories have lanes from 1 on, the turn itself has lane 0. With
        ``lanes``, its requests go out among those of other turns, in the slots that these share.
        """
        request = self.turn.request
        chat = self.turn.chats.get(request.chat) if request.chat else None
        if chat is not None:
            sinks = [ChatSink(chat, self.turn.place, request), *sinks]
        return _HeavyRun(self, chat, sinks, ask, lanes).run()

    def check(self) -> None:
        """Refuse pictures that a model does not read, before any trajectory is paid for.

        Raises
        ------
        KimiError
            It names the model.
        """
        for turn in (self.turn, self.judge):
            connector, named = turn.connector, turn.request.model or turn.settings.model
            if not (named or connector.default_model(turn.endpoint)):
                continue  # the server's list will tell
            model = connector.target(turn.endpoint, named).record
            try:
                check_images(turn.request, model)
            except KimiError:
                if turn is self.turn:
                    raise
                raise KimiError(BLIND_JUDGE.format(model.name)) from None

    def seeded(self, more: int) -> HeavyTurn:
        """Return the turn with later seeds, none of which its earlier trajectories had."""
        return replace(self, turn=self.turn.seeded(more * self.count))

    def announcement(self) -> str:
        """Return the line that says how many requests this is, and what they may cost."""
        count, tools = self.count, self.turn.toolset
        cost = self._most_cost()
        said = f", {f'${cost:.2f}' if cost >= CENT else 'less than $0.01'} at most" if cost else ""
        return ANNOUNCED.format(
            count=count, requests=count + 1, cost=said, more=MORE if tools else ""
        )

    def _most_cost(self) -> float:
        """Return what the requests cost at most, without calls of tools; 0 for not known."""
        turn, judge, count = self.turn, self.judge, self.count
        _, sent, _ = turn.first_request(turn.model)
        asked = round(estimate(sent.messages, sent.tools) * MARGIN)
        own, limit = _limit(turn)
        judging, most = _limit(judge)
        if not (limit and most):
            return 0.0
        # It holds the problem twice, and of the attempts what the window has room for.
        read = min(2 * asked + count * limit, judging.record.context_window)
        costs = [
            own.record.priced(Usage(asked * count, limit * count), turn.endpoint).cost,
            judging.record.priced(Usage(read, most), judge.endpoint).cost,
        ]
        return sum(costs) if all(costs) else 0.0


def plain_turn(turn: PreparedTurn | HeavyTurn) -> PreparedTurn:
    """Return the turn as one request asks it: that of a trajectory in heavy mode."""
    return turn.turn if isinstance(turn, HeavyTurn) else turn


class _HeavyRun:
    def __init__(
        self,
        heavy: HeavyTurn,
        chat: Chat | None,
        sinks: Sequence[Sink],
        ask: AskPerson | None,
        shared: Lanes | None,
    ) -> None:
        self._heavy = heavy
        self._shared = shared
        self._chat = chat
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
        self._equal = turn.request.equal  # None once it has failed
        self._equal_failed = ""
        self._compared: dict[tuple[int, int], bool] = {}  # answers, by the numbers of two
        self._opened: TurnStarted | None = None  # as it was told latest
        self._noticed: set[str] = set()
        self._lanes = 0  # that were told of
        self._aggregated: dict[int, Reply] = {}  # the aggregation's reply, once it has ended
        self._majority: Reply | None = None  # where the aggregation failed
        self._vote = Vote()
        # The turn before its first request.
        self._begun = TurnRecord(messages=(turn.prompt.message,), sent=1)
        self._is_prepared = self._outlined = False

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
                self._end_all()
                self._tell(TurnFinished(self._reply(left)))
                raise
            yield from self._end_all()
            reply = self._reply(error)
            notice = set_aside(self._chat, self._turn.place, reply.record)
            last = [self._tell(Notice(notice))] if notice else []
            last.append(self._tell(TurnFinished(reply)))  # kept, before a consumer may leave
            yield from last
        finally:
            self._sinks.close()
        if error is not None:
            raise error from None

    def _take(self) -> Iterator[Envelope | None]:
        request = self._turn.request
        yield from self._opens(TurnStarted(self._model, self._turn.endpoint.name))
        if request.attempts:
            yield from self._take_up(request.attempts)
        else:
            yield from self._take_trajectories()
        ended = self._ended
        enough = 2 if request.attempts else math.ceil(self._heavy.count / 2)
        if len(ended) < enough and not self._agree():
            raise self._too_few(ended)
        self._vote = self._take_vote()
        if self._equal_failed:
            yield self._tell(Notice(NO_EQUAL.format(self._equal_failed)))
        yield self._tell(Aggregating(self._agreement))
        yield from self._take_aggregate(list(ended.values()))

    def _take_up(self, attempts: Sequence[Reply]) -> Iterator[Envelope]:
        """Tell of the trajectories of an earlier turn, which was cut before it aggregated them."""
        self._replies = dict(enumerate(attempts, 1))
        yield self._tell(Notice(TAKEN_UP.format(count=len(attempts))))
        yield self._tell(LanesStarted(len(attempts)))
        for number, attempt in self._replies.items():
            for event in events_of(attempt):
                yield self._tell(event, number)

    def _take_trajectories(self) -> Iterator[Envelope | None]:
        heavy, settings = self._heavy, self._turn.settings
        most = min(self._turn.endpoint.max_concurrency or heavy.count, settings.max_concurrency)
        lanes: Lanes | Within = Lanes(settings.max_queue_bytes, most, heavy.count)
        if self._shared:
            lanes = Within(self._shared, heavy.count)
        forward = _Forward(self._sinks, self._began, self._replies)
        numbers = range(1, heavy.count + 1)
        turns = [self._turn.seeded(n - 1).run([forward], self._ask, lanes.lane(n)) for n in numbers]
        yield self._tell(Notice(heavy.announcement()))
        if most == 1 < heavy.count:
            yield self._tell(Notice(ONE_AT_A_TIME))
        self._lanes = heavy.count
        yield self._tell(LanesStarted(heavy.count))
        answering: set[int] = set()
        with closing(side_by_side(lanes, turns, self._agree)) as envelopes:
            for envelope in envelopes:
                if envelope is None:
                    self._sinks.tick()
                elif isinstance(envelope.event, _ANSWERING):
                    answering.add(envelope.lane)
                elif isinstance(envelope.event, _SAID_BY_EACH) and envelope.lane not in answering:
                    yield from self._of_all(envelope.event)
                yield envelope
        yield from self._end_all()
        saved = sum(isinstance(reply.error, TurnInterrupted) for reply in self._replies.values())
        if saved and self._agree():
            most = self._take_vote().most
            said = EARLY.format(most=most, ended=len(self._ended), saved=saved)
            yield self._tell(Notice(said))

    def _end_all(self) -> list[Envelope]:
        """End the trajectories that were stopped before they began, so that each has its number."""
        left = [n for n in range(1, self._lanes + 1) if n not in self._replies]
        for number in left:
            error = TurnInterrupted(NEVER_BEGAN)
            model = self._opened.model if self._opened else ""
            failure = Failure(type(error).__name__, NEVER_BEGAN)
            self._replies[number] = error.reply = Reply(
                TurnRecord(model=model, failure=failure), error=error
            )
        return [self._tell(TurnFinished(self._replies[number]), number) for number in left]

    def _of_all(self, event: Event) -> Iterator[Envelope]:
        """Tell once, of the turn, what each trajectory tells as it begins."""
        if isinstance(event, TurnPrepared):
            yield from self._prepared(event.record)
        elif isinstance(event, TurnStarted):
            yield from self._opens(event)
        elif isinstance(event, RequestStarted) and event.sent and not self._outlined:
            self._outlined = True
            yield self._tell(event)
        elif isinstance(event, Notice) and event.text not in self._noticed:
            self._noticed.add(event.text)
            yield self._tell(event)

    def _opens(self, event: TurnStarted) -> Iterator[Envelope]:
        """Tell of the model that answers, unless it was told: a server's list may tell it."""
        if event != self._opened:
            self._opened = event
            yield self._tell(event)

    def _take_aggregate(self, ended: Sequence[Reply]) -> Iterator[Envelope | None]:
        """Have the trajectories aggregated; where that fails, the majority stands."""
        judge = self._heavy.judge
        message = aggregation_message(
            judge.prompt.message,
            ended,
            tokens=self._room(ended),
            template=judge.settings.heavy_prompt or PROMPT,
        )
        prompt = replace(judge.prompt, message=message)
        turn = replace(judge, prompt=prompt, keeps=False, aggregates=True)
        forward = _Forward(self._sinks, self._began, self._aggregated, without=ONCE_A_TURN)
        lane = self._shared.lane(0) if self._shared else None
        try:
            with closing(turn.run([forward], lane=lane)) as envelopes:
                for envelope in envelopes:
                    if envelope is None:
                        self._sinks.tick()
                    elif isinstance(envelope.event, TurnPrepared):
                        yield from self._prepared(envelope.event.record)
                    if envelope is None or not isinstance(envelope.event, forward.without):
                        yield envelope
            reply = self._aggregated[0]
            is_cut = reply.finish_reason == "length"  # `%kimi continue` makes it again
            why = "" if is_cut or reply.text.strip() else EMPTY
        except KimiError as failure:
            why = str(failure).partition("\n")[0]
        if why:
            self._majority = self._replies[self._vote.groups[0].lanes[0]]
            yield self._tell(Notice(MAJORITY.format(why=why, vote=self._vote)))
            yield self._tell(ContentDelta(self._majority.text))

    def _room(self, ended: Sequence[Reply]) -> int:
        """Return how many tokens, as they are estimated, the text of the aggregation may take."""
        target, limit = _limit(self._heavy.judge)
        window = target.record.context_window
        asked = self._begun.messages
        # As the trajectories' server counted the same messages: in some scripts a token is shorter.
        count = estimate(asked, self._begun.parameters.get("tools") or ())
        counted = [r.record.steps[0].usage.prompt_tokens for r in ended if r.record.steps]
        is_known = count >= LONG_ENOUGH and any(counted)
        factor = min(max(max(counted) / count, 1.0), MOST_FACTOR) if is_known else MARGIN
        room = min(max(window - limit, window // 2), round(window * MOST_OF_WINDOW))
        room = round(room / factor) - sum(image.tokens for image in asked[-1].images)
        # Of a long chat the loop leaves out what the window cannot hold.
        return max(room - min(estimate(asked[:-1]), room // 2), 0)

    def _prepared(self, record: TurnRecord) -> Iterator[Envelope]:
        """Tell once of what the turn asks; ``record`` is that of one of its requests."""
        if not self._is_prepared:
            self._is_prepared = True
            asked = (*record.messages[: record.sent - 1], self._turn.prompt.message)
            self._begun = replace(record, messages=asked, sent=len(asked))
            yield self._tell(TurnPrepared(self._begun))

    @property
    def _ended(self) -> dict[int, Reply]:
        """The trajectories that came to an answer, by their numbers."""
        return {n: reply for n, reply in sorted(self._replies.items()) if answered([reply])}

    @property
    def _agreement(self) -> dict[str, tuple[int, ...]]:
        return {group.answer: group.lanes for group in self._vote.groups}

    @property
    def _model(self) -> str:
        return _limit(self._turn)[0].model

    def _agree(self) -> bool:
        """Return True if as many trajectories agree as were asked for."""
        wanted = self._turn.request.until_agree
        return wanted is not None and self._take_vote().most >= wanted

    def _take_vote(self) -> Vote:
        try:
            return take_vote(self._ended, self._equal, self._compared)
        except KimiError as failure:  # what the trajectories have cost is not thrown away for that
            self._equal, self._equal_failed = None, str(failure)
            self._compared = {}
            return self._take_vote()

    def _too_few(self, ended: Mapping[int, Reply]) -> KimiError:
        errors = [reply.error for reply in self._replies.values() if reply.error is not None]
        first = errors[0] if errors else None
        # All for one reason, such as a key that is refused: it says itself what to do.
        alike = len({(type(error), str(error)) for error in errors}) == 1
        if isinstance(first, KimiError) and alike and len(errors) == self._heavy.count:
            return copy(first)
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
        aggregate = self._aggregated.get(0)
        last = aggregate if self._majority is None else self._majority
        if last is None or not last.record.exchange:
            last = Reply(self._begun)
        # With the prompt of the trajectories, also where another one was aggregated.
        asked, answer = self._begun.messages, last.record.messages[last.record.sent :]
        whole = replace(last.record, messages=(*asked, *answer), sent=len(asked))
        usage = sum((reply.usage for reply in attempts), Usage())
        if aggregate is not None:
            usage += aggregate.usage
        turn = self._turn
        record = replace(
            whole,
            usage=usage,
            parameters=_with_tools(whole.parameters, attempts),
            trajectories=tuple(reply.record for reply in attempts),
            agreement=self._agreement,
            failure=Failure(type(error).__name__, str(error)) if error else None,
            outline=attempts[0].sent if attempts else Sent(),
            chat=turn.request.chat,
            replayed=_replayed([*attempts, *([aggregate] if aggregate is not None else [])]),
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

    def _tell(self, event: Event, lane: int = 0) -> Envelope:
        envelope = Envelope(time.monotonic() - self._began, event, lane)
        self._sinks.handle(envelope)
        return envelope


def _with_tools(sent: Mapping[str, Any], attempts: Sequence[Reply]) -> Mapping[str, Any]:
    """Return parameters with the tools that the trajectories were offered."""
    offered = (reply.record.parameters.get("tools") for reply in attempts)
    tools = next(filter(None, offered), None)
    return {**sent, "tools": tools} if tools and "tools" not in sent else sent


def _limit(turn: PreparedTurn) -> tuple[Target, int]:
    """Return what a turn asks, and the limit of its answer's tokens; 0 for none."""
    target = turn.connector.target(turn.endpoint, turn.model)
    sent = parameters(turn.request, target, turn.settings)
    return target, sent.get(target.record.limit_field, 0)


def _replayed(replies: Sequence[Reply]) -> str:
    """Return the tape that answers came from, and what holds of any of them."""
    return joined_label(reply.replayed for reply in replies)


class _Forward:
    """Hands the events of turns inside of this one on to its sinks, but for some kinds.

    Their replies go into ``replies``, by their lanes: also those of lanes that nobody asks for
    events any more.
    """

    def __init__(
        self,
        sinks: GuardedSinks,
        began: float,
        replies: dict[int, Reply],
        without: tuple[type, ...] = (),
    ) -> None:
        self.without = without
        self._sinks = sinks
        self._began = began
        self._replies = replies

    def handle(self, envelope: Envelope) -> None:
        if isinstance(envelope.event, TurnFinished):
            self._replies[envelope.lane] = envelope.event.reply
        if not isinstance(envelope.event, self.without):
            self._sinks.handle(replace(envelope, seconds=time.monotonic() - self._began))

    def tick(self) -> None:
        """Do nothing: the whole turn has its own ticks."""

    def close(self) -> None:
        """Do nothing: the whole turn goes on."""
