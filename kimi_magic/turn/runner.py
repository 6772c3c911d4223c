"""Prepares a turn and runs it: request → reply.

The turn runs in the caller's thread. ``prepare`` refuses what can be refused before anything is
shown or sent; ``PreparedTurn.run`` then drives the loop: it connects, sends, waits, makes the
calls, and hands every event to the sinks.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from kimi_magic.chats.chat import Chat, Chats, Place
from kimi_magic.chats.context_window import Calibration
from kimi_magic.config import Settings
from kimi_magic.core.errors import (
    BadRequest,
    BudgetSpent,
    ConfigError,
    ConnectionFailed,
    EndpointError,
    KeyRefused,
    KimiError,
    NotFound,
    TapeError,
    ToolInterrupted,
    TurnInterrupted,
)
from kimi_magic.core.events import (
    Envelope,
    Event,
    Notice,
    Preparing,
    RequestStarted,
    Retrying,
    Sink,
    ToolFinished,
    ToolPrinted,
    ToolStarted,
    TurnFinished,
    TurnPrepared,
    TurnStarted,
)
from kimi_magic.core.frontend import can_answer
from kimi_magic.core.interrupts import interruptible, uninterrupted
from kimi_magic.core.messages import ToolCall, as_content, text_of
from kimi_magic.core.reply import Reply
from kimi_magic.core.sent import Sent
from kimi_magic.core.turn_record import Failure, TurnRecord
from kimi_magic.secrets.redact import Redactor
from kimi_magic.turn.approval import Approval, Approved, AskPerson, ask_with_input, with_approval
from kimi_magic.turn.drive import Opened, ToolEvent, drive
from kimi_magic.turn.lanes import Alone, Lane
from kimi_magic.turn.loop import Loop, Send
from kimi_magic.turn.outgoing import Draft, Outgoing
from kimi_magic.turn.prompt import ComposedPrompt, check_prompt, compose
from kimi_magic.turn.request import TurnRequest, check_images, left_out
from kimi_magic.turn.sinks import ChatSink, GuardedSinks, set_aside
from kimi_magic.wire.connector import Connector, Foreseen, ResolvedEndpoint, Target
from kimi_magic.wire.endpoints import Endpoint
from kimi_magic.wire.tape_endpoint import check_known

if TYPE_CHECKING:
    from kimi_magic.schema.output import OutputSchema
    from kimi_magic.secrets.keys import Key
    from kimi_magic.tools.step_calls import Made
    from kimi_magic.tools.tool import Approve
    from kimi_magic.tools.toolset import Toolset
    from kimi_magic.turn.taping import Taping
    from kimi_magic.wire.client import Client
    from kimi_magic.wire.tape import TapeUse

__all__ = ["PreparedTurn", "prepare"]

T = TypeVar("T")

PRACTICE = (
    "No key was found, so a small practice model answers; it is often wrong. For Kimi itself "
    "set NVIDIA_API_KEY (build.nvidia.com) or MOONSHOT_API_KEY (platform.kimi.ai)."
)
MASKED = "Masked in what is sent: {}. --allow-secrets sends it."
LIST_COMES_FIRST = "{} would be asked for its models first: {} stands for what it lists."
REPLACED = "{} is no longer offered here: {} answers, and from now on in this session."
LESS_STRICT = "The server refused the request with its answer's schema: it is asked less strictly."


@dataclass(frozen=True, slots=True)
class PreparedTurn:
    """A request that passed every check, with everything that it takes to run it.

    ``keys`` are those that were known when it was prepared, ``shown_in`` is the number of the cell
    that shows the turn. With ``announces_practice``, the reader is told, once a session, that the
    practice model answers. Its chat takes the turn in if it ``keeps`` it.
    ``approved`` is for a turn outside of any chat; the trajectories of a turn share it, and the
    calls that were ``made`` once for all.

    With a ``tape``, the endpoint's key is asked for with ``find_key`` when something has to be
    sent; ``led`` is the model that the tape says to ask. The turn ``aggregates`` those of heavy
    mode. ``news`` are notices for the reader of whichever turn is the next.
    """

    request: TurnRequest
    prompt: ComposedPrompt
    endpoint: Endpoint
    key: Key | None
    keys: Sequence[Key]
    toolset: Toolset | None
    schema: OutputSchema | None
    place: Place
    settings: Settings
    connector: Connector
    chats: Chats
    shown_in: int | None = None
    announces_practice: bool = False
    keeps: bool = True
    approved: Approved = field(default_factory=set)
    made: Made = field(default_factory=dict)
    tape: TapeUse | None = None
    led: str = ""
    find_key: Callable[[Endpoint], Key | None] | None = None
    aggregates: bool = False
    news: deque[str] = field(default_factory=deque)

    @property
    def model(self) -> str | None:
        """The model that somebody named, or the tape; None where the endpoint tells."""
        return self.request.model or self.settings.model or self.led or None

    def resolve(self, notice: Callable[[str], None]) -> ResolvedEndpoint | Foreseen:
        """Find out whom the turn asks; nothing is made ready where a tape may answer."""
        if self.tape is None:
            return self.connect(notice)
        named = self.request.model or self.led
        if found := self.connector.foresee(self.endpoint, named, self.settings):
            return found
        if self.tape.mode == "none":
            return Foreseen(self.connector.target(self.endpoint, None))
        return self.connect(notice)

    def connect(self, notice: Callable[[str], None], model: str | None = None) -> ResolvedEndpoint:
        """Make the endpoint ready for a model, or for the one that is to be asked."""
        key = self.key
        if self.tape is not None:
            check_known(self.endpoint)
            if key is None and self.find_key is not None:
                key = self.find_key(self.endpoint)
        model = model or self.request.model
        return self.connector.connect(self.endpoint, key, model, self.settings, notice)

    def run(
        self,
        sinks: Sequence[Sink] = (),
        ask: AskPerson | None = None,
        lane: Lane | None = None,
        *,
        followed: bool = True,
    ) -> Generator[Envelope | None, None, None]:
        """Run the turn: yield its events, and None now and then while nothing happens.

        The turn's chat hears an event first, then the sinks, then it is yielded. The last one is
        ``TurnFinished``; a turn that failed raises its error after that. A person is asked about
        calls with ``ask``, by default at an ``input()`` prompt. Where it is not ``followed``, only
        its beginning and its end are told.
        """
        chat = self.chats.get(self.request.chat) if self.request.chat else None
        if chat is not None and self.keeps:
            sinks = [ChatSink(chat, self.place, self.request), *sinks]
        lane = lane or Alone(self.settings.max_queue_bytes)
        return _Run(self, chat, sinks, ask, lane, followed=followed).run()

    def seeded(self, more: int) -> PreparedTurn:
        """Return the turn with a later seed, where it has one: the same request otherwise."""
        seed = self.endpoint.seed if self.request.seed is None else self.request.seed
        if seed is None or not more:
            return self
        return replace(self, request=replace(self.request, seed=seed + more))

    def outgoing(self, chat: Chat | None) -> Outgoing:
        """Return the requests of the turn, with the chat that it continues."""
        return Outgoing(
            self.request,
            self.prompt,
            self.toolset,
            self.schema,
            self.settings,
            self.keys,
            self.place,
            chat,
            self.connector.without_logprobs,
        )

    def first_request(self, model: str | None) -> tuple[dict[str, Any], Send, list[str]]:
        """Return what would be sent first, without sending it or changing anything.

        That is the body without its messages, the messages with the tools, and the notices that
        the turn would show before.
        """
        chat = self.chats.peek(self.request.chat) if self.request.chat else None
        outgoing = self.outgoing(chat)
        target = self.connector.target(self.endpoint, model)
        notices = left_out(self.request, target, self.settings)
        if model or self.connector.default_model(self.endpoint):
            check_images(self.request, target.record)
        else:  # the server's list will tell
            notices = [LIST_COMES_FIRST.format(self.endpoint.name, target.model)]
        notices += self.toolset.remarks.values() if self.toolset else ()
        draft, *_ = outgoing.drafts(target)
        for happening in outgoing.new_loop(target, draft).run():
            if isinstance(happening, Notice):
                notices.append(happening.text)
            if isinstance(happening, Send):
                return draft.parameters(happening), happening, notices
        raise AssertionError("a turn begins with a request")


def prepare(
    request: TurnRequest,
    *,
    settings: Settings,
    connector: Connector,
    chats: Chats,
    find_key: Callable[[Endpoint], Key | None],
    namespace: Mapping[str, Any],
    place: Place,
    tape: TapeUse | None = None,
    news: deque[str] | None = None,
) -> PreparedTurn:
    """Check everything that can be refused before anything is shown or sent.

    ``find_key`` looks the endpoint's key up or asks a person for it, and is called before the
    prompt is composed: a key that is known is redacted in it. With a ``tape`` nobody is asked
    before something has to be sent.

    Raises
    ------
    KimiError
        The prompt, the tools, the schema, the endpoint or its key do not fit.
    """
    check_prompt(request.prompt)
    endpoint = connector.choose(request.endpoint, settings, tape)
    lead = connector.lead(request.endpoint, settings, tape)
    schema = None
    if request.schema is not None:
        from kimi_magic.schema.output import output_schema

        schema = output_schema(request.schema, namespace)
    toolset = None
    if request.tools is not None:
        from kimi_magic.tools.toolset import Toolset

        toolset = with_approval(Toolset(request.tools), request.approve or settings.approve)
    if tape is None:
        key = find_key(endpoint)
    else:
        key = None
        with suppress(ConfigError):  # it is told when one is needed
            key = connector.key_at_hand(endpoint)
    led = lead.model if lead and not settings.model else ""
    keys = connector.known_keys()
    prompt = compose(
        request,
        namespace,
        None if request.allow_secrets else Redactor(keys, shapes=True),
        tokens=settings.summary_tokens,
        values=settings.summary_values,
        instruction=schema.instruction if schema else "",
        sees=connector.may_see(endpoint, request.model or settings.model or led),
    )
    return PreparedTurn(
        request,
        prompt,
        endpoint,
        key,
        keys,
        toolset or None,
        schema,
        place,
        settings,
        connector,
        chats,
        tape=tape,
        led=led,
        find_key=find_key,
        news=deque() if news is None else news,
    )


class _Run:
    def __init__(
        self,
        turn: PreparedTurn,
        chat: Chat | None,
        sinks: Sequence[Sink],
        ask: AskPerson | None,
        lane: Lane,
        *,
        followed: bool,
    ) -> None:
        self._turn = turn
        self._lane = lane
        self._followed = followed
        self._chat = chat
        self._began, self._started = time.monotonic(), time.time()
        connector = turn.connector

        # Not a method of this run: it would stay alive with the sinks, in a cycle, and with it
        # every object that a tool returned.
        def redact(text: str) -> str:
            return Redactor(connector.known_keys()).text(text)

        self._sinks = GuardedSinks(sinks, redact)
        self._ask = ask or partial(ask_with_input, redact=redact)
        model = turn.request.model or turn.led or turn.endpoint.model
        self._model = Redactor(turn.keys).text(model)
        self._taping: Taping | None = None
        if turn.tape is not None:
            from kimi_magic.turn.taping import Taping

            self._taping = Taping(turn.tape, turn, lane.number, self._connect)
        self._client: Client | None = None
        self._loop: Loop | None = None
        self._outgoing = turn.outgoing(chat)
        self._draft: Draft | None = None
        self._sent: Send | None = None  # the latest request
        self._sees = False  # True if the model reads images
        self._left_out: list[str] = []  # notices that wait
        self._data: Any = None

    def run(self) -> Generator[Envelope | None, None, None]:
        error: KimiError | TurnInterrupted | None = None
        try:
            try:
                yield from self._take()
            except KimiError as failure:
                error = failure
                if isinstance(failure, KeyRefused):
                    self._turn.connector.forget(self._turn.endpoint)
                if isinstance(failure, KeyRefused | ConnectionFailed):
                    self._turn.connector.ask_again(self._turn.endpoint)
            except KeyboardInterrupt:
                error = TurnInterrupted("Stopped. What had arrived is kept in kimi.last.")
                if self._loop is None or self._loop.waiting:
                    self._turn.connector.free(self._turn.endpoint)
            except GeneratorExit:
                left = TurnInterrupted("No more events were asked for.")
                self._tell(TurnFinished(self._reply(left)))
                raise
            reply = self._reply(error)
            kept_in = self._chat if self._turn.keeps else None
            notice = set_aside(kept_in, self._turn.place, reply.record)
            last = [self._tell(Notice(notice))] if notice else []
            last.append(self._tell(TurnFinished(reply)))  # kept, before a consumer may leave
            yield from last
        finally:
            self._sinks.close()
        if error is not None:
            raise error from None

    def _take(self) -> Iterator[Envelope | None]:
        """Drive the loop; with an answer's schema less and less strictly, where it is refused."""
        turn = self._turn
        resolved = turn.resolve(self._prepares)
        if turn.endpoint.base_url and isinstance(resolved, ResolvedEndpoint):
            self._client = resolved.client  # not the embedded engine's: it may end between requests
        self._model = self._redact(resolved.target.model)
        yield self._tell(TurnStarted(self._model, turn.endpoint.name, resolved.practice))
        for notice in self._opening(resolved):
            yield self._tell(Notice(notice))
        try:
            yield from self._take_with(resolved.target)
        except EndpointError as error:
            is_gone = isinstance(error, NotFound) and self._loop and not self._loop.steps
            is_news = not turn.connector.is_replaced(resolved.target)
            found = self._in_place_of(resolved) if is_gone else None
            if found is None:
                yield from self._tell_left_out()
                raise
            gone, self._model = self._model, self._redact(found.model)
            if is_news:
                yield self._tell(Notice(REPLACED.format(gone, self._model)))
            yield self._tell(TurnStarted(self._model, turn.endpoint.name))
            yield from self._take_with(found)

    def _in_place_of(self, resolved: ResolvedEndpoint | Foreseen) -> Target | None:
        """Find a model in the place of a default that is gone; a named one is never replaced."""
        if resolved.practice or not self._may_give_way(resolved.target):
            return None
        if isinstance(resolved, Foreseen):
            connected = self._taping.connected if self._taping else None
            if connected is None:
                return None
            resolved = replace(connected, target=resolved.target)
        found = self._turn.connector.replace_default(resolved)
        return found.target if found else None

    def _may_give_way(self, target: Target) -> bool:
        """Return True for a default: another model may answer, if the server has it no longer."""
        return not self._turn.model and target.is_default

    def _tell_left_out(self) -> Iterator[Envelope]:
        """Tell, once, what the model does not take; not before the server has taken the model."""
        notices, self._left_out = self._left_out, []
        for notice in notices:
            yield self._tell(Notice(notice))

    def _take_with(self, target: Target) -> Iterator[Envelope | None]:
        turn = self._turn
        if self._chat:
            self._chat.begin(turn.place, fresh=turn.request.fresh)
            self._chat.calibrations.setdefault((target.endpoint.name, target.model), Calibration())
        check_images(turn.request, target.record)
        self._sees = target.record.sees
        self._left_out = left_out(turn.request, target, turn.settings)
        if not self._may_give_way(target):
            yield from self._tell_left_out()
        drafts = self._outgoing.drafts(target)
        for draft in drafts:
            self._draft, self._sent = draft, None
            self._loop = self._outgoing.new_loop(target, draft, outlined=self._followed)
            if self._followed:
                yield self._tell(TurnPrepared(self._record()))
            try:
                yield from self._drive(self._loop, target)
                break
            except BadRequest as refused:
                # A subclass says that the request is too long, or filtered. With tools, the first
                # request, the only one after which nothing has come, holds no schema.
                about_schema = type(refused) is BadRequest and "tools" not in draft.common
                if draft is drafts[-1] or not about_schema or self._loop.steps:
                    raise
                yield self._tell(Notice(LESS_STRICT))
        if turn.schema and self._loop and not self._loop.cut_short:
            with interruptible():  # validators are the user's
                self._data = turn.schema.read(self._loop.steps[-1].text)

    def _drive(self, loop: Loop, target: Target) -> Iterator[Envelope | None]:
        opens = partial(self._open, target=target)
        with closing(drive(loop, opens, self._make_calls, self._lane)) as happenings:
            for event in happenings:
                if event is None:
                    self._sinks.tick()
                    yield None
                    continue
                if self._left_out and not isinstance(event, RequestStarted | Retrying):
                    yield from self._tell_left_out()
                if self._followed:
                    yield self._tell(event)

    def _opening(self, resolved: ResolvedEndpoint | Foreseen) -> Iterator[str]:
        """Yield notices for the reader before the first request."""
        connector = self._turn.connector
        # A tape that leads tells in its badge who answers.
        by_default = self._turn.announces_practice and not self._turn.led
        if resolved.practice and by_default and not connector.introduced:
            connector.introduced = True
            yield PRACTICE
        while self._turn.news:
            yield self._turn.news.popleft()
        if self._turn.toolset:
            yield from connector.not_told(self._turn.toolset.remarks)
        if self._turn.prompt.masked:
            yield MASKED.format(", ".join(self._turn.prompt.masked))

    def _prepares(self, text: str) -> None:
        self._announce(Preparing(text))

    def _connect(self, model: str) -> ResolvedEndpoint:
        return self._turn.connect(self._prepares, model)

    def _open(self, send: Send, target: Target) -> Opened:
        assert self._draft is not None, "a draft is chosen before the loop runs"
        self._sent = send
        body = self._draft.body(send)
        turn, inbox, held = self._turn, self._lane.inbox, self._lane.held
        meter = self._outgoing.meter(turn.connector.spending, send, target, body)
        if self._taping and self._loop:
            gives_way = self._may_give_way(target)
            steps = self._loop.steps
            return self._taping.open(
                body, target, steps, inbox, held, meter=meter, gives_way=gives_way
            )
        client = self._client or turn.connect(self._prepares).client
        keys = turn.connector.known_keys()
        return Opened(client.chat(body, keys, inbox, target.record, held=held, meter=meter))

    def _make_calls(self, calls: tuple[ToolCall, ...]) -> Generator[ToolEvent | None, None, None]:
        """Make the calls of a step; no result holds a key."""
        from kimi_magic.tools.printing import Watch
        from kimi_magic.tools.results import with_pictures
        from kimi_magic.tools.step_calls import run_step_calls

        turn = self._turn
        assert turn.toolset is not None, "only tools that were offered are called"
        if self._taping and self._loop:
            # The step of these calls counts as one of the loop's already.
            frozen = self._taping.frozen_results(calls, self._loop.steps[:-1])
            for place, result in enumerate(frozen):
                yield ToolStarted(place, calls[place])
                yield ToolFinished(place, self._redact(result))
            if frozen:
                return
        watch = Watch(self._announce_print, turn.connector.known_keys)
        try:
            for event in run_step_calls(turn.toolset, calls, self._approve(), turn.made, watch):
                if isinstance(event, ToolFinished):
                    result = self._redact(event.result)
                    yield replace(event, result=with_pictures(result) if self._sees else result)
                elif isinstance(event, ToolPrinted):
                    yield self._placed(event)
                else:
                    yield event
        except ToolInterrupted as interrupt:
            raise ToolInterrupted(self._redact(interrupt.result)) from None

    def _approve(self) -> Approve | None:
        """Return who is asked about calls; None where nobody can answer."""
        turn = self._turn
        if (turn.request.approve or turn.settings.approve) == "no":
            return lambda *_: False
        if turn.toolset is None or not can_answer():
            return None
        approved = self._chat.approved if self._chat else turn.approved
        return Approval(
            turn.toolset.namespace, approved, self._ask, self._announce, redact=self._redact
        )

    def _reply(self, error: KimiError | TurnInterrupted | None) -> Reply:
        """Make the reply of what the turn has come to, whole or cut."""
        turn = self._turn
        steps = self._loop.steps if self._loop else ()
        values = tuple(result.value for step in steps for result in step.tool_results)
        functions = turn.toolset.functions if turn.toolset else {}
        filled, record = turn.request.filled, self._record(error)
        reply = Reply(record, self._data, error, functions, turn.shown_in, values, filled)
        if error is not None:
            error.reply = reply
        return reply

    def _record(self, error: KimiError | TurnInterrupted | None = None) -> TurnRecord:
        turn = self._turn
        endpoint, request = turn.endpoint, turn.request
        masks = Redactor(turn.keys, shapes=not request.allow_secrets)
        facts: dict[str, Any] = {
            "model": self._model,
            "chat": request.chat,
            "prompt": masks.text(text_of(as_content(request.prompt))),
            "cell": turn.place.cell,
            "run": turn.place.run,
            "fresh": request.fresh,
            "started": self._started,
            "sweep": request.sweep,
            "parameters": self._draft.recorded(self._sent) if self._draft else {},
            "endpoint": endpoint.facts,
            "failure": Failure(type(error).__name__, str(error)) if error else None,
            "replayed": self._taping.replayed if self._taping else "",
        }
        if self._data is not None:
            from pydantic_core import to_json

            with suppress(Exception):  # a serializer of the user's: the answer's text says the same
                facts["data"] = json.loads(to_json(self._data, by_alias=False, fallback=str))
        if self._loop:
            record = self._loop.record(failed=error is not None, **facts)
        else:
            record = TurnRecord(messages=(turn.prompt.message,), sent=1, **facts)
        if isinstance(error, BudgetSpent | TapeError) and not record.steps:
            record = replace(record, outline=Sent())
        return record

    def _tell(self, event: Event) -> Envelope:
        envelope = Envelope(time.monotonic() - self._began, event, self._lane.number)
        self._sinks.handle(envelope)
        return envelope

    def _announce(self, event: Event) -> None:
        """Tell of an event that happens deep inside a call; only the sinks hear of it."""
        with uninterrupted():
            self._tell(event)

    def _announce_print(self, event: ToolPrinted | None) -> None:
        """Tell of what a call prints in this turn's thread, from another one."""
        if event is None:
            self._sinks.tick()
        else:
            self._tell(self._placed(event))

    def _placed(self, event: ToolPrinted) -> ToolPrinted:
        """Count the calls of the step that are not made as well."""
        places = self._loop.places if self._loop else ()
        return replace(event, index=places[event.index]) if places else event

    def _redact(self, value: T) -> T:
        # With the keys that are known by now: a tool may have set one.
        return Redactor(self._turn.connector.known_keys()).value(value)
