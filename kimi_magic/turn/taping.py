"""The tape of one turn: its requests are looked up there, sent if they may be, and recorded."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from kimi_magic.core.errors import EndpointError, NotFound, TapeError
from kimi_magic.core.events import Notice, Replayed, replay_label
from kimi_magic.core.frontend import cell_number
from kimi_magic.core.messages import Message, Step, ToolCall, ToolResult, as_content
from kimi_magic.secrets.redact import Redactor
from kimi_magic.turn.drive import Opened
from kimi_magic.wire.connector import ResolvedEndpoint, Target
from kimi_magic.wire.inbox import Held, Inbox
from kimi_magic.wire.tape import Asked, OnTape, TapeUse
from kimi_magic.wire.tape_endpoint import facts_of
from kimi_magic.wire.tape_file import Recording
from kimi_magic.wire.tape_meaning import cue_of, meaning_of
from kimi_magic.wire.tape_secrets import find_secret, masked
from kimi_magic.wire.tape_transport import Player, Recorder

if TYPE_CHECKING:
    from kimi_magic.secrets.keys import Key
    from kimi_magic.turn.runner import PreparedTurn
    from kimi_magic.wire.client import Client, Exchange
    from kimi_magic.wire.spending import Meter

__all__ = ["Taping"]

AGGREGATION, CONTINUATION = "aggregation", "continuation"
NOT_RECORDED = "Not recorded on {tape}: {place} holds a key, or what looks like one."
NOT_WRITTEN = "Not recorded: {error}"
SCRIPTED = "kimi-scripted"  # the header by which a `testing.ScriptedServer` tells what it is
# The loop adds it to a result, after the tool has run.
REMARK = "\n\n[This same call with the same arguments was made "


@dataclass(frozen=True, slots=True)
class _Sending:
    """A request under way, as the tape will know it."""

    body: Mapping[str, Any]
    target: Target
    asked: Asked


class Taping:
    """One turn's way to its tape.

    Parameters
    ----------
    connect : callable
        Makes the endpoint ready for a model, and asks for its key: called only when something is
        really sent.
    """

    def __init__(
        self,
        use: TapeUse,
        turn: PreparedTurn,
        lane: int,
        connect: Callable[[str], ResolvedEndpoint],
    ) -> None:
        self.connected: ResolvedEndpoint | None = None
        self._use = use
        self._turn = turn
        self._lane = lane
        self._connect = connect
        self._requests = 0
        self._replays: list[Replayed] = []
        self._told = 0  # the step whose replay was told latest
        self._before: Asked | None = None  # the latest request that was played

    @property
    def replayed(self) -> str:
        """The tape that answers came from, for the turn's record."""
        return replay_label(self._replays, self._requests)

    def open(
        self,
        body: Mapping[str, Any],
        target: Target,
        steps: Sequence[Step],
        inbox: Inbox,
        held: Held,
        *,
        meter: Meter,
        gives_way: bool,
    ) -> Opened:
        """Look a request up, and make what answers it ready.

        ``meter`` counts it if it is sent. ``gives_way``: another model answers where the server
        does not have this one.

        Raises
        ------
        KimiError
            The request must not be sent, or cannot.
        """
        keys = self._turn.connector.known_keys()
        asked = self._asked(body, target, steps, keys)
        self._requests += 1
        found = self._use.find(asked)
        model = target.record
        self._before = asked if found else None
        if found is not None:
            exchange = self._player(found, target).chat(body, keys, inbox, model, held=held)
            return Opened(exchange, self._note(found, len(steps) + 1))
        self._use.begin_recording()
        resolved = self.connected = self._connect(target.model)
        recorder = Recorder(resolved.client.transport)
        keys = self._turn.connector.known_keys()
        exchange = resolved.client.chat(
            self._sendable(body, keys),
            keys,
            inbox,
            model,
            held=held,
            transport=recorder,
            meter=meter,
        )
        sending = _Sending(body, target, asked)

        def conclude(error: EndpointError | None) -> Sequence[Notice]:
            lasts = exchange.is_lasting and not (gives_way and isinstance(error, NotFound))
            notice = self._record(sending, recorder, exchange) if lasts else ""
            return [Notice(text) for text in (notice, *self._use.news()) if text]

        return Opened(exchange, conclude=conclude)

    def frozen_results(self, calls: Sequence[ToolCall], steps: Sequence[Step]) -> list[ToolResult]:
        """Return the results that calls of a step had when it was recorded.

        None at all where not each of them is on the tape.
        """
        before = self._before
        if before is None or not self._use.frozen_tools:
            return []
        made = [*_calls(steps), *((call.name, call.arguments) for call in calls)]
        cue = self._cue(made, len(steps) + 2)
        messages = self._use.results_after(before._replace(cue=cue))
        found = [m for m in messages if m.get("role") == "tool"]
        texts = [m.get("content") for m in found[: len(calls)]]
        if len(texts) < len(calls):
            return []
        return [
            ToolResult(call.name, str(text).partition(REMARK)[0], call_id=call.id, recorded=True)
            for call, text in zip(calls, texts, strict=True)
        ]

    def _player(self, found: OnTape, target: Target) -> Client:
        """Return a client that has no key, and nothing but the recording."""
        from kimi_magic.wire.client import Client

        endpoint = replace(target.endpoint, headers={})
        player = Player(found.recording, self._use.speed)
        settings = self._turn.settings
        return Client(endpoint, endpoint.base_url, None, settings, transport=player)

    def _note(self, found: OnTape, step: int) -> Replayed | None:
        """Note what is played; return what the reader is told, once a step."""
        replay = Replayed(self._use.name, _maker(found.recording.made_by), found.differs)
        self._replays.append(replay)
        if step == self._told:
            return None
        self._told = step
        return replay

    def _sendable(self, body: Mapping[str, Any], keys: Sequence[Key]) -> Mapping[str, Any]:
        """Return a body without a key that was asked for after its prompt was composed."""
        known = {key.value for key in self._turn.keys}
        new = [key for key in keys if key.value not in known]
        if not new or self._turn.request.allow_secrets:
            return body
        return Redactor(new).value(dict(body))

    def _asked(
        self, body: Mapping[str, Any], target: Target, steps: Sequence[Step], keys: Sequence[Key]
    ) -> Asked:
        place = self._turn.place
        run = place.run or str(cell_number() or "")
        mask = Redactor(keys, shapes=True).text
        meaning = meaning_of(body, target.endpoint.kind, mask, wire=target.endpoint.wire)
        cue = self._cue(_calls(steps), len(steps) + 1, mask)
        return Asked(meaning, cue, place.cell, run, self._lane)

    def _cue(
        self, calls: Sequence[tuple[str, str]], step: int, mask: Callable[[str], str] | None = None
    ) -> dict[str, Any]:
        request = self._turn.request
        part = AGGREGATION if self._turn.aggregates else CONTINUATION * request.continues
        prompt = request.typed or Message("user", as_content(request.prompt)).text
        mask = mask or Redactor(self._turn.connector.known_keys(), shapes=True).text
        return cue_of(prompt, step, calls, part, mask)

    def _record(self, sending: _Sending, recorder: Recorder, exchange: Exchange) -> str:
        """Write what came; return why not, in a line for the reader, or ""."""
        keys = self._turn.connector.known_keys()
        if key := exchange.key:
            keys = [*keys, key]
        pieces = masked(tuple(recorder.pieces), keys, recorder.status)
        if place := find_secret(pieces, keys, exchange.wire):
            self._use.counts["refused"] += 1
            return NOT_RECORDED.format(tape=self._use.name, place=place)
        completion = exchange.completion()
        timings = completion.timings
        asked = sending.asked
        mask = Redactor(keys).text
        recording = Recording(
            asked.meaning,
            asked.cue,
            recorder.status,
            {name: mask(value) for name, value in recorder.kept_headers.items()},
            pieces,
            max(round(completion.usage.seconds, 3), *(at for at, _ in pieces), 0.0),
            first_token=_rounded(timings.first_token),
            first_answer=_rounded(timings.first_answer),
            made_by=self._made_by(sending.target, recorder),
            lane=asked.lane,
        )
        try:
            self._use.record(recording, asked)
        except TapeError as error:
            return NOT_WRITTEN.format(error=str(error).partition("\n")[0])
        return ""

    def _made_by(self, target: Target, recorder: Recorder) -> dict[str, Any]:
        endpoint = target.endpoint
        made_by: dict[str, Any] = {
            "model": target.model,
            "endpoint": endpoint.name,
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
        }
        if SCRIPTED in recorder.headers:
            made_by["scripted"] = True
        if not endpoint.base_url:
            made_by["engine"] = True
        request = self._turn.request
        chosen = {"endpoint": request.endpoint, "model": request.model}
        if named := [name for name, value in chosen.items() if value]:
            made_by["named"] = named
        facts = facts_of(endpoint)
        return made_by | ({"facts": facts} if facts else {})


def _rounded(moment: float | None) -> float | None:
    return None if moment is None else round(moment, 3)


def _calls(steps: Sequence[Step]) -> list[tuple[str, str]]:
    return [(call.name, call.arguments) for step in steps for call in step.tool_calls]


def _maker(made_by: Mapping[str, Any]) -> str:
    if made_by.get("scripted"):
        return "scripted"
    if made_by.get("engine"):
        return "engine"
    model = made_by.get("model")
    return model if isinstance(model, str) else ""
