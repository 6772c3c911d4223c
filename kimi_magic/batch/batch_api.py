"""The run of a map over the Batch API: submitted by one call, collected by a later one.

A call first takes up what earlier ones have left, in this kernel or another, then submits the rows
that have no answer and are in no batch. It never waits for a batch to end.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import asdict, replace
from typing import IO, Any

from kimi_magic.batch.batch_api_notes import (
    DROPPED,
    BatchNote,
    new_note,
    notes_of,
    progress,
    write_step,
)
from kimi_magic.batch.checkpoint import Answer, Checkpoint
from kimi_magic.batch.map_run import EMPTY, EMPTY_AT_LIMIT, ENDS_ALL, Limits, MapRun, told
from kimi_magic.batch.questions import Questions
from kimi_magic.batch.rows import Rows
from kimi_magic.core.errors import (
    BadRequest,
    EndpointError,
    KeyRefused,
    KimiError,
    NotFound,
    QuotaExhausted,
    RateLimited,
)
from kimi_magic.core.interrupts import interruptible
from kimi_magic.core.messages import Completion
from kimi_magic.core.tabular import to_json
from kimi_magic.core.text import why_not_written
from kimi_magic.core.time_limit import USER_ERRORS
from kimi_magic.turn.heavy import HeavyTurn
from kimi_magic.turn.runner import PreparedTurn
from kimi_magic.wire.openai.batches import (
    MOST_BYTES,
    MOST_REQUESTS,
    BatchState,
    Result,
    batch_line,
)
from kimi_magic.wire.spending import Meter

__all__ = ["BatchRun", "check_batch"]

NOT_READY = "not ready: {}"
NO_BATCHES = (
    '{name} has no Batch API that is known of: leave out engine="batch", or ask another endpoint, '
    'such as endpoint="moonshot"; kimi.add_endpoint(…, batch=True) names one that has it.'
)
NO_FILE = (
    'engine="batch" keeps the names of its batches in a file: give into=, or switch the setting '
    "journal on."
)
NO_LIMIT = (
    'engine="batch" cannot keep {}: what is submitted is paid. dry_run=True estimates the cost.'
)
NO_TAPE = 'A tape holds no batches: leave out engine="batch", or switch it off with %kimi tape off.'
TOO_LARGE = "The request has {size:,} bytes: a file for a batch has {most:,} at most."
NO_TEMPORARY = "The file for a batch could not be written: {why}. TMPDIR names another folder."
NO_RESULT = "The batch {status} without an answer to this row{why}."
LOST = "{name} does not know {what} any more."
HINT = "The same call collects them, in any kernel; `%kimi map status` looks at them."
ENDS = {"completed": "ended", "cancelled": "was cancelled", "lost": "is gone"}
# A refusal after which there is surely no batch; all others leave that open.
MADE_NONE = (BadRequest, KeyRefused, NotFound, QuotaExhausted, RateLimited)
# Clocks differ, and a server may round.
CLOCKS = 86_400.0


def check_batch(turn: PreparedTurn | HeavyTurn, checkpoint: Checkpoint, limits: Limits) -> None:
    """Refuse what a batch cannot do.

    Raises
    ------
    KimiError
        One line says what to leave out.
    """
    if isinstance(turn, HeavyTurn):
        raise KimiError('engine="batch" has no heavy mode: leave out one of the two.')
    if turn.toolset:
        raise KimiError('engine="batch" calls no tools: leave out one of the two.')
    if not turn.endpoint.batch:
        raise KimiError(NO_BATCHES.format(name=turn.endpoint.name))
    if turn.tape is not None:
        raise KimiError(NO_TAPE)
    if checkpoint.path is None:
        raise KimiError(NO_FILE)
    budgets = {
        "max_cost=": limits.cost,
        "max_tokens_total=": limits.tokens,
        "the setting budget": turn.settings.most_spent,
    }
    if given := [name for name, value in budgets.items() if value]:
        raise KimiError(NO_LIMIT.format(given[0]))


class BatchRun(MapRun):
    """Collects the answers of batches, and submits the other rows.

    Nothing is in ``owners``, since no row is asked now.
    """

    def __init__(
        self, rows: Rows, questions: Questions, checkpoint: Checkpoint, limits: Limits
    ) -> None:
        super().__init__(rows, questions, checkpoint, limits)
        self._turn = questions.one
        self._notes: dict[str, BatchNote] = {}
        self._batch_of: dict[str, str] = {}  # by the keys of rows that are under way

    def answer(self, place: int) -> Answer:
        """Return the answer of a row, with an error where it has none."""
        key = self.keys[place]
        if key in self._batch_of and key not in self.answers:
            return Answer(error=NOT_READY.format(self._notes[self._batch_of[key]]))
        return super().answer(place)

    @property
    def _are_known(self) -> bool:
        return True  # those that are in batches

    def take(self, *, show: bool) -> None:
        """Collect what is ready and submit what is missing, unless something stops that."""
        super().take(show=False)
        if show and self._notes:
            print("\n".join([*(str(note) for note in self._notes.values()), HINT]))

    def _side_by_side(self) -> Iterator[None]:
        try:
            self._take()
        except KimiError as error:
            self.why = told(error)
        yield

    def _take(self) -> None:
        assert self._checkpoint.path is not None, "check_batch sees to it"
        resolved = self._turn.connect(lambda _: None)
        self._client, self._target = resolved.client, resolved.target
        with closing(self._client.batches()) as self._batches:
            for note in notes_of(self._checkpoint.path, self._questions.mark):
                self._hold(note)
            self._find_created()
            for note in list(self._notes.values()):
                self._look_at(note)
            if self._limits.raises and self.failure is not None:
                self.why = told(self.failure)
            else:
                self._submit()

    def _hold(self, note: BatchNote) -> None:
        """Keep a batch that is under way in mind, as it is now."""
        if note.batch not in self._notes:
            self._batch_of |= dict.fromkeys(note.keys, note.batch)
        self._notes[note.batch] = note

    def _step(self, note: BatchNote, **new: Any) -> BatchNote:
        """Write a step down, and keep the batch in mind while it is under way."""
        before, note = note, replace(note, **new)
        write_step(self._checkpoint, before, note)
        if note.ended:
            del self._notes[note.batch]
            for key in note.keys:
                self._batch_of.pop(key, None)
        else:
            self._hold(note)
        return note

    def _find_created(self) -> None:
        """Find the batches whose ids were not noted, since the kernel ended or the server failed.

        A file without a batch gets one now: its rows are asked once in any case.
        """
        lost = {note.batch: note for note in self._notes.values() if not note.id}
        if not lost:
            return
        since = min(note.at for note in lost.values()) - CLOCKS
        files = {note.file: note.batch for note in lost.values()}
        for state in self._created_since(since):
            mark = state.mark if state.mark in lost else files.get(state.input_file, "")
            if note := lost.pop(mark, None):
                self._step(note, **progress(state), id=state.id)
            if not lost:
                return
        for note in lost.values():
            with suppress(BadRequest, NotFound):  # the file is gone: its rows are sent anew
                self._create(note)

    def _created_since(self, moment: float) -> Iterator[BatchState]:
        with suppress(NotFound):  # a server that lists none
            yield from self._batches.created_since(moment)

    def _look_at(self, note: BatchNote) -> None:
        """Ask how a batch does; collect it where it has ended."""
        if not note.id:
            return
        try:
            state = self._batches.retrieve(note.id)
        except NotFound:
            self._end(note, "lost", LOST.format(name=note.endpoint, what=f"the batch {note.id}"))
            return
        except EndpointError as error:
            if isinstance(error, ENDS_ALL):
                raise
            self.why = self.why or told(error)  # the others may be ready
            return
        note = self._step(note, **progress(state), id=note.id)
        if state.ended:
            try:
                self._collect(note, state)
            except EndpointError as error:
                if isinstance(error, ENDS_ALL):
                    raise
                self.why = self.why or told(error)

    def _collect(self, note: BatchNote, state: BatchState) -> None:
        """Take in what came of a batch's rows; the first answer of a row counts."""
        left, why = set(note.keys) - self.answers.keys(), state.words
        failures: dict[str, tuple[Answer, BaseException | None]] = {}
        for file in filter(None, (state.output_file, state.error_file)):
            try:
                for result in self._batches.results(file):
                    if result.custom_id not in left:
                        continue
                    answer, error = self._read(result)
                    if error is None and answer.error is None:
                        left.discard(result.custom_id)
                        self._keep(result.custom_id, answer, None)
                    else:
                        failures.setdefault(result.custom_id, (answer, error))
            except NotFound:
                why = why or LOST.format(name=note.endpoint, what="its file")
        for key in left & failures.keys():
            self._keep(key, *failures[key])
        self._end(note, state.status, why)

    def _end(self, note: BatchNote, status: str, why: str) -> None:
        """Note that a batch is over; its rows that have no answer have failed."""
        did = ENDS.get(status, status)
        reason = f": {why.rstrip('.')}" if why else ""
        for key in note.keys:
            if key not in self.answers:
                said = NO_RESULT.format(status=did, why=reason)
                self._keep(key, Answer(error=said, attempts=1), KimiError(said))
        self._step(note, ended=status)

    def _keep(self, key: str, answer: Answer, error: BaseException | None) -> None:
        self.answers[key] = answer
        self._checkpoint.keep(key, answer)
        if error is not None and self.failure is None and self._limits.raises:
            self.failure = error

    def _read(self, result: Result) -> tuple[Answer, BaseException | None]:
        """Decode a result as any other answer, at the price of a batch."""
        turn, target = self._turn, self._target
        keys = turn.connector.known_keys()
        try:
            completion = self._batches.completion(result, target.model, target.record, keys)
        except EndpointError as refused:
            return Answer(error=told(refused), attempts=1), refused
        usage = completion.usage
        usage = replace(usage, seconds=0.0, cost=usage.cost * turn.endpoint.batch_price)
        self._count(replace(completion, usage=usage))
        message, cut = completion.message, completion.finish_reason == "length"
        error: BaseException | None = None
        said = data = None
        if not message.text.strip():
            said = EMPTY_AT_LIMIT if cut else EMPTY
        elif turn.schema is not None:
            try:
                with interruptible():  # validators are the user's
                    data = to_json(turn.schema.read(message.text))
            except USER_ERRORS as misfit:
                said, error = told(misfit), misfit
        answer = Answer(message.text, message.reasoning_text or "", data, said, asdict(usage), 1)
        return answer, error or (KimiError(said) if said else None)

    def _count(self, completion: Completion) -> None:
        """Add an answer to the use of the session."""
        target, connector = self._target, self._turn.connector
        meter = Meter(
            connector.spending,
            None,
            target.record,
            target.endpoint,
            asked=target.model,
            tokens=lambda: 0,
        )
        meter.begin()
        meter.end(completion)

    def _submit(self) -> None:
        """Send the rows that nobody has asked for, in as few files as there may be."""
        try:
            with tempfile.TemporaryFile() as file:
                self._submit_by(file)
        except OSError as error:
            raise KimiError(NO_TEMPORARY.format(why=why_not_written(error))) from None

    def _submit_by(self, file: IO[bytes]) -> None:
        keys: dict[str, None] = {}
        for place, row in self._todo:
            found = self._request(place, row, keys)
            if found is None:
                continue
            key, line = found
            if file.tell() + len(line) > MOST_BYTES or len(keys) >= MOST_REQUESTS:
                self._send(file, keys)
            file.write(line)
            keys[key] = None
        if keys:
            self._send(file, keys)

    def _request(
        self, place: int, row: Mapping[str, Any], others: Mapping[str, Any]
    ) -> tuple[str, bytes] | None:
        """Return the key and the line of a row; None where it is not to be sent."""
        try:
            prompt = self._questions.prompt(row)
            self.keys[place] = key = self._questions.key(row, prompt)
            if key in self.answers or key in self._batch_of or key in others:
                return None
            turn = self._questions.ask(prompt)
            assert isinstance(turn, PreparedTurn), "check_batch sees to it"
            line = batch_line(key, self._client.wire.request(_body(turn)))
            if len(line) > MOST_BYTES:
                raise KimiError(TOO_LARGE.format(size=len(line), most=MOST_BYTES))
        except USER_ERRORS as error:  # of a template or a function: the row's own
            self.keys[place] = key = self.keys[place] or f"row {place}"
            self._keep(key, Answer(error=told(error)), error)
            return None
        return key, line

    def _send(self, file: IO[bytes], keys: dict[str, None]) -> None:
        """Send a file of rows, and empty it; each step is noted before the next one."""
        endpoint = self._target.endpoint
        note = new_note(self._questions.mark, endpoint.name, endpoint.base_url, list(keys))
        write_step(self._checkpoint, None, note)
        uploaded = self._batches.upload(file, f"kimi-map-{note.batch}.jsonl")
        self._create(self._step(note, file=uploaded))
        keys.clear()
        file.seek(0)
        file.truncate()

    def _create(self, note: BatchNote) -> None:
        try:
            state = self._batches.create(note.file, note.batch)
        except MADE_NONE:
            self._step(note, ended=DROPPED)
            raise
        self._step(note, **progress(state), id=state.id)
        if self._batches.interrupted:
            raise KeyboardInterrupt


def _body(turn: PreparedTurn) -> dict[str, Any]:
    """Return the request of a row as it is sent one by one, but for the stream."""
    whole = replace(turn, request=replace(turn.request, stream=False))
    parameters, send, _ = whole.first_request(whole.model)
    return parameters | {"messages": [message.to_dict() for message in send.messages]}
