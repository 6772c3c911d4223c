"""The run of a map on a Dask cluster: its rows are asked by tasks on the workers.

The kernel fills in the prompts, gives chunks of them to the workers, keeps each answer as it comes,
and looks for the end. What a worker had not answered when it was lost goes to another one.
"""

from __future__ import annotations

import pickle
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any
from uuid import uuid4

from kimi_magic.batch.checkpoint import Answer, Checkpoint
from kimi_magic.batch.cluster_limits import Permits
from kimi_magic.batch.cluster_link import OUT_OF_CONTACT, Closed, Link, Lost, SecretsAtHand
from kimi_magic.batch.cluster_post import Outfit
from kimi_magic.batch.cluster_request import check_remote, pack, remote_request, unpack
from kimi_magic.batch.cluster_worker import GivenRow
from kimi_magic.batch.map_run import Limits, MapRun, told
from kimi_magic.batch.questions import Questions
from kimi_magic.batch.rows import Rows
from kimi_magic.core.errors import BudgetSpent, KimiError
from kimi_magic.core.events import Envelope
from kimi_magic.core.interrupts import waiting
from kimi_magic.core.messages import Usage
from kimi_magic.core.sent import CHARS_PER_TOKEN
from kimi_magic.session import Session
from kimi_magic.turn.heavy import plain_turn
from kimi_magic.turn.lanes import TICK
from kimi_magic.wire.spending import Account

__all__ = ["ClusterRun"]

AHEAD = 2  # chunks of a worker: one that is asked, and the next
MOST_ROWS, MOST_BYTES = 2000, 4_000_000  # of a chunk
LONG_ENOUGH = 0.2  # seconds for filling in prompts, while answers wait
MOST_LOSSES = 4  # workers that a row may see die
PATIENCE = 60.0  # seconds without a worker
STOPPING = 5.0  # seconds in which workers tell what they had stopped

ASYNCHRONOUS = (
    "engine= takes a client that waits: this one was made with asynchronous=True.\n"
    "Make another: Client(address)."
)
NO_CLIENT = "The client is {status}: connect it again with `client = Client({address!r})`."
NO_WORKER = "No worker of the cluster was left for {seconds:.0f} seconds: start some."
DIED = "WorkerLost: {count} workers died while the row was theirs."


@dataclass(slots=True)
class _Chunk:
    """Rows that a worker has; ``left`` are those without an answer."""

    worker: str
    future: Any
    left: dict[str, Any] = field(default_factory=dict)


class ClusterRun(MapRun):
    """Asks for the rows on the workers of a cluster.

    Raises
    ------
    KimiError
        The cluster cannot ask what is to be asked.
    """

    def __init__(
        self,
        rows: Rows,
        questions: Questions,
        checkpoint: Checkpoint,
        limits: Limits,
        *,
        client: Any,
        session: Session,
    ) -> None:
        super().__init__(rows, questions, checkpoint, limits)
        _check(client)
        check_remote(questions, session)
        one = questions.one
        endpoint = one.endpoint
        self._client = client
        self._session = session
        most = limits.at_once(endpoint)
        self._permits = Permits(
            most,
            per_minute=endpoint.requests_per_minute,
            tokens_per_minute=endpoint.tokens_per_minute,
        )
        self._name = uuid4().hex
        workers = max(len(client.nthreads()), 1)
        self._share = -(-most // workers)
        secrets = SecretsAtHand(endpoint, session.connector.key_at_hand, session.find_key)
        lanes = min(2 * self._share, most)  # for more, where others need less
        outfit = Outfit(pack(remote_request(one, raises=limits.raises)), lanes)
        self._link = Link(client, self._name, outfit, secrets, self._permits)
        self._chunks: dict[int, _Chunk] = {}
        self._returned: deque[GivenRow] = deque()
        self._filled: list[GivenRow] = []  # rows of the next chunk
        self._losses: dict[str, int] = {}
        self._numbers = 0
        self._all_read = False
        self._stops_at = 0.0
        self._last_worker = time.monotonic()
        target = one.connector.target(endpoint, one.model)
        priced = bool(target.record.prices_at(endpoint))
        self._account = Account(None, target.model, endpoint.name, priced)

    def _side_by_side(self) -> Iterator[Envelope | None]:
        interrupted = False
        try:
            with waiting():
                self._link.reach()
            self._link.start()
            while self._goes_on(interrupted=interrupted):
                try:
                    with waiting():
                        events = self._link.take(TICK)
                except KeyboardInterrupt:
                    if interrupted:  # somebody insists
                        break
                    interrupted = True
                    continue
                for worker, event in events:
                    self._take_in(worker, event)
                self._look_for_workers()
                yield None
        finally:
            self._end()
        if interrupted:
            raise KeyboardInterrupt

    def _goes_on(self, *, interrupted: bool) -> bool:
        """Tell the workers how the map stands, and give them rows; return False at its end."""
        if interrupted or self._cut:
            self._link.state = "stop"
            self._stops_at = self._stops_at or time.monotonic() + STOPPING
            if time.monotonic() > self._stops_at:
                return False
        elif self.why:
            self._link.state = "finish"
        else:
            self._hand_out()
        return bool(self._chunks) or not (self.why or interrupted or self._is_through)

    @property
    def _is_through(self) -> bool:
        return self._all_read and not self._returned and not self._filled

    def _hand_out(self) -> None:
        """Give chunks to the workers that have few rows left."""
        for worker in list(self._link.equipped):
            if self._is_through or self.why:
                return
            own = [chunk for chunk in self._chunks.values() if chunk.worker == worker]
            busy = sum(len(chunk.left) for chunk in own)
            if len(own) < AHEAD and busy <= 2 * self._share:
                is_full = self._fill()
                if self._filled and (is_full or not busy):
                    self._submit(worker)

    def _submit(self, worker: str) -> None:
        given, self._filled = self._filled, []
        number = self._numbers = self._numbers + 1
        self._expect(worker, number)
        try:
            future = self._client.submit(
                _task(),
                self._name,
                number,
                pickle.dumps(given),
                key=f"kimi-map-{self._name}-{number}",
                workers=[worker],
                retries=0,
                pure=False,
            )
        except Exception as error:  # noqa: BLE001 - of whatever the network raises
            closed = self._client.status in ("closed", "closing")
            said = OUT_OF_CONTACT.format(address=self._link.address) if closed else told(error)
            self.why = self.why or said
            return
        self._chunks[number] = _Chunk(worker, future, dict(given))

    def _expect(self, worker: str, number: int) -> None:
        known = [each for each in self._link.expected.get(worker, ()) if each in self._chunks]
        self._link.expected[worker] = [*known, number]

    def _fill(self) -> bool:
        """Fill in the prompts of the next chunk for a while; return True if it is complete.

        The more rows are left, the larger it is.
        """
        given = self._filled
        left = len(self._rows) - len(self.answers)
        share = left // (len(self._link.equipped) * 3 // 2 or 1)
        wanted = min(max(share, self._share), MOST_ROWS)
        until = time.monotonic() + LONG_ENOUGH
        size = 0
        while len(given) < wanted and size < MOST_BYTES:
            if self._returned:
                given.append(self._returned.popleft())
                continue
            place, row = (-1, {}) if self.why else next(self._todo, (-1, {}))
            if place < 0:
                self._all_read = True
                return True
            turn = self._prepare(place, row)
            if turn is not None:
                message = plain_turn(turn).prompt.message
                given.append((self.keys[place], message.content))
                size += len(message.text)
                self._permits.expect(len(message.text) // CHARS_PER_TOKEN)
            if time.monotonic() > until:
                return False
        return True

    def _take_in(self, worker: str, event: Any) -> None:
        if isinstance(event, Closed):
            self.why = self.why or str(event)
            self._cut = True
            for number in list(self._chunks):
                self._give_up(number, lost=True)
        elif isinstance(event, Lost):
            for number in [n for n, c in self._chunks.items() if c.worker == worker]:
                self._give_up(number, lost=True)
        elif isinstance(event, KimiError):  # a worker that cannot take part
            self.why = self.why or str(event)
        elif event[0] == "answer":
            self._take_answer(worker, *event[1:])
        elif event[0] == "broken":
            self.why = self.why or f"The worker {worker} failed. {event[2]}"
            self._cut = True
        elif event[0] == "over":
            self._give_up(event[1], lost=False)

    def _take_answer(self, worker: str, key: str, answer: Answer, failure: bytes | None) -> None:
        for chunk in self._chunks.values():
            chunk.left.pop(key, None)
        if key in self.answers:  # from a worker that was taken for lost
            return
        self._losses.pop(key, None)
        used = Usage(**answer.usage)
        self._used += used
        if worker not in self._link.same_process:  # else it was counted there
            self._session.connector.spending.add(self._account, used)
        self._keep(key, answer, unpack(failure) if failure else None)
        try:
            self._session.connector.spending.check(self._session.settings.most_spent)
        except BudgetSpent as spent:
            self.why = self.why or str(spent)

    def _give_up(self, number: int, *, lost: bool) -> None:
        """Take a chunk from its worker; its rows without an answer go to another one."""
        chunk = self._chunks.pop(number, None)
        if chunk is None:
            return
        self._expect_no_more(chunk.worker, number)
        chunk.future.release()  # Dask would run it again elsewhere
        for key, content in chunk.left.items():
            if lost:
                self._losses[key] = self._losses.get(key, 0) + 1
            if self._losses.get(key, 0) >= MOST_LOSSES:
                self._keep(key, Answer(error=DIED.format(count=MOST_LOSSES)), None)
            else:
                self._returned.append((key, content))

    def _expect_no_more(self, worker: str, number: int) -> None:
        known = self._link.expected.get(worker, [])
        self._link.expected[worker] = [each for each in known if each != number]

    def _look_for_workers(self) -> None:
        now = time.monotonic()
        if self._link.equipped:
            self._last_worker = now
        elif now - self._last_worker > PATIENCE and not self._chunks:
            self.why = self.why or NO_WORKER.format(seconds=PATIENCE)
        for number, chunk in list(self._chunks.items()):
            if chunk.future.status in ("error", "cancelled", "lost"):
                self._fail(number, chunk)

    def _fail(self, number: int, chunk: _Chunk) -> None:
        """Deal with a task that Dask has ended."""
        if chunk.future.status == "error":
            error = None
            with suppress(Exception):
                error = chunk.future.exception(timeout=5)
            if error is not None and type(error).__name__ != "KilledWorker":
                self.why = self.why or f"A task failed. {told(error)}"
        self._give_up(number, lost=True)

    def _end(self) -> None:
        """Leave nothing of the map on the cluster."""
        for chunk in self._chunks.values():
            chunk.future.release()
        self._link.close()


def _check(client: Any) -> None:
    """Refuse a client that cannot be used."""
    if client.asynchronous:
        raise KimiError(ASYNCHRONOUS)
    if client.status != "running":
        address = getattr(client.scheduler, "address", None) or "the address of the scheduler"
        raise KimiError(NO_CLIENT.format(status=client.status, address=address))


def _run_chunk(name: str, number: int, rows: bytes) -> None:
    from kimi_magic.batch.cluster_worker import run_chunk

    run_chunk(name, number, rows)


def _task() -> Callable[..., None]:
    """Return the function of a task, which is pickled whole.

    The scheduler unpickles what is submitted. A function of a module is only named in a pickle: the
    scheduler would have to have kimi-magic.
    """
    task = FunctionType(_run_chunk.__code__, {"__builtins__": __builtins__}, "kimi_map")
    task.__module__ = "__main__"
    return task
