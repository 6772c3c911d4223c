"""The run of a map: its rows are asked in lanes, side by side, and each answer is kept."""

from __future__ import annotations

import math
import re
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from typing import Any

from kimi_magic.batch.bar import Bar
from kimi_magic.batch.checkpoint import Answer, Checkpoint, Header
from kimi_magic.batch.pace import Pace
from kimi_magic.batch.questions import Questions
from kimi_magic.batch.rows import Rows
from kimi_magic.context.template import message_of
from kimi_magic.core.budget import dollars
from kimi_magic.core.errors import (
    BudgetSpent,
    ConfigError,
    KeyRefused,
    KimiError,
    LocalEngineError,
    NotFound,
    QuotaExhausted,
    RateLimited,
)
from kimi_magic.core.events import Envelope
from kimi_magic.core.frontend import notebook_path
from kimi_magic.core.interrupts import holding_interrupts
from kimi_magic.core.messages import Usage
from kimi_magic.core.nesting import inside_turn
from kimi_magic.core.reply import Reply
from kimi_magic.core.sent import CHARS_PER_TOKEN
from kimi_magic.core.tabular import to_json
from kimi_magic.core.time_limit import USER_ERRORS
from kimi_magic.secrets.redact import Redactor
from kimi_magic.turn.heavy import HeavyTurn, plain_turn
from kimi_magic.turn.lanes import side_by_side
from kimi_magic.turn.runner import PreparedTurn
from kimi_magic.turn.sinks import KeptReply
from kimi_magic.wire.endpoints import Endpoint

__all__ = ["Limits", "MapRun", "header_of", "told"]

# These would hit every row: the map stops, and returns all that came.
ENDS_ALL = (KeyRefused, QuotaExhausted, NotFound, ConfigError, BudgetSpent, LocalEngineError)
ALIKE = 20  # failures in a row, all for one reason, after which nothing more is asked
# A server that refuses for its rate alone says nothing of the row: it is asked again, each time
# with as many retries as the settings allow.
MOST_ROUNDS = 10
NOT_ASKED = "not asked"
INTERRUPTED = "Stopped while the answer was under way."
EMPTY = "The answer is empty."
EMPTY_AT_LIMIT = "The answer is empty: the limit of tokens came before it. max_tokens= raises it."
LONG_ENOUGH = 0.2  # seconds for rows that need no request, while the lanes of others wait
_COUNTS = tuple(field.name for field in fields(Usage))
# What differs from row to row: numbers, ids, what is quoted of an answer.
_PARTICULARS = re.compile(r"«[^»]*»|\b(?=\w*\d)[\w-]+")


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a run: requests at once, dollars, tokens; ``raises`` at the first failure."""

    concurrency: int
    cost: float | None = None
    tokens: int | None = None
    raises: bool = False

    def at_once(self, endpoint: Endpoint) -> int:
        """Return the most requests at once that an endpoint takes."""
        return min(self.concurrency, endpoint.max_concurrency or self.concurrency)

    def passed(self, used: Usage) -> str:
        """Say which limit is reached; "" for none."""
        if self.cost is not None and used.cost >= self.cost:
            return f"max_cost={self.cost:g} is reached, at {dollars(used.cost)}."
        if self.tokens is not None and used.total_tokens >= self.tokens:
            return f"max_tokens_total={self.tokens:,} is reached."
        return ""


class MapRun:
    """Asks for the rows.

    Attributes
    ----------
    why : str
        The reason for which it stopped early; "" where it did not.
    failure : BaseException or None
        The first failure of a row, where that is to be raised.
    answers : dict
        By the keys of rows.
    keys : list of str
        The key of each row; "" for those that were never reached.
    owners : dict
        By keys, the places of the rows that were asked. Equal rows share a key.
    """

    def __init__(
        self, rows: Rows, questions: Questions, checkpoint: Checkpoint, limits: Limits
    ) -> None:
        self.why = ""
        self.failure: BaseException | None = None
        self.answers: dict[str, Answer] = dict(checkpoint.found)
        self.keys: list[str] = [""] * len(rows)
        self.owners: dict[str, int] = {}
        self._cut = False  # the answers that are under way are not waited for
        self._rows = rows
        self._questions = questions
        self._checkpoint = checkpoint
        self._limits = limits
        self._todo: Iterator[tuple[int, Mapping[str, Any]]] = enumerate(rows)
        self._used = Usage()
        self._latest: deque[str] = deque(maxlen=ALIKE)
        self._bar = Bar(0, show=False)

    @property
    def _are_known(self) -> bool:
        """True if something may be known of rows that were not reached."""
        return bool(self._checkpoint.found)

    @property
    def done(self) -> int:
        """The number of rows that have an answer."""
        return sum(key in self.answers and not self.answers[key].error for key in self.keys)

    def answer(self, place: int) -> Answer:
        """Return the answer of a row, with an error where it has none."""
        missing = f"{NOT_ASKED}: {self.why}" if self.why else NOT_ASKED
        return self.answers.get(self.keys[place]) or Answer(error=missing)

    def take(self, *, show: bool) -> None:
        """Ask for all rows, unless something stops that."""
        self._bar = Bar(len(self._rows), show=show)
        with inside_turn(), holding_interrupts() as hold:
            try:
                for _ in self._side_by_side():
                    pass
            except KeyboardInterrupt:
                self.why = self.why or "Interrupted."
            finally:
                self._bar.close()
            with suppress(KeyboardInterrupt):
                self._find_the_rest()
            if hold is not None and self.why:
                hold.pending = 0

    def _side_by_side(self) -> Iterator[Envelope | None]:
        most = self._limits.at_once(self._questions.one.endpoint)
        pace = self._pace(most)
        rows = most
        if isinstance(turn := self._questions.turn, HeavyTurn):
            # A row has this many requests under way in the mean: its attempts, then the last one.
            rows = math.ceil(most / ((turn.count + 1) / 2))
        lanes = [self._in_lane(pace) for _ in range(min(rows, len(self._rows)))]
        return side_by_side(pace, lanes, lambda: self._cut)

    def _pace(self, most: int) -> Pace:
        one = self._questions.one
        return Pace(
            one.settings.max_queue_bytes,
            most,
            per_minute=one.endpoint.requests_per_minute,
            tokens_per_minute=one.endpoint.tokens_per_minute,
        )

    def _in_lane(self, pace: Pace) -> Generator[Envelope | None, None, None]:
        """Ask for one row after the other, while there are some that nobody has asked for."""
        began = time.monotonic()
        while not self.why:
            place, row = next(self._todo, (-1, {}))
            if place < 0:
                return
            turn = self._prepare(place, row)
            if turn is not None:
                yield from self._take_row(self.keys[place], turn, pace)
                began = time.monotonic()
            elif time.monotonic() - began > LONG_ENOUGH:
                yield None
                began = time.monotonic()

    def _prepare(self, place: int, row: Mapping[str, Any]) -> PreparedTurn | HeavyTurn | None:
        """Return the turn of a row; None where it is not to be asked."""
        try:
            prompt = self._questions.prompt(row)
            key = self._questions.key(row, prompt)
            turn = None
            if key not in self.answers and key not in self.owners:
                turn = self._questions.ask(prompt)
        except USER_ERRORS as error:  # of a template or a function: the row's own
            self.keys[place] = key = f"row {place}"
            self._keep(key, Answer(error=told(error)), error)
            return None
        self.keys[place] = key
        if turn is None:
            self._bar.add(self._used, failed=False)
        else:
            self.owners[key] = place
        return turn

    def _take_row(
        self, key: str, turn: PreparedTurn | HeavyTurn, pace: Pace
    ) -> Generator[Envelope | None, None, None]:
        """Ask for a row; again where the server refused it for its rate alone."""
        attempts, used = 0, Usage()
        for rounds in range(1, MOST_ROUNDS + 1):
            kept = KeptReply()
            error: Exception | None = None
            pace.expect(_prompt_tokens(turn))
            try:
                yield from self._silently(turn, kept, pace)
            except KeyboardInterrupt:
                self._keep(key, self._interrupted(kept.reply, attempts, used), None)
                raise
            except Exception as failure:  # noqa: BLE001 - a validator's own error, too
                error = failure
            if kept.reply is None:
                assert error is not None, "a turn ends with TurnFinished"
                self._keep(key, Answer(error=told(error), attempts=attempts + 1), error)
                return
            attempts, used = attempts + _attempts(kept.reply), used + kept.reply.usage
            self._used += kept.reply.usage
            if not isinstance(error, RateLimited) or rounds == MOST_ROUNDS or self.why:
                answer = _answer(kept.reply, error)
                self._keep(key, replace(answer, attempts=attempts, usage=_counts(used)), error)
                return

    def _silently(
        self, turn: PreparedTurn | HeavyTurn, kept: KeptReply, pace: Pace
    ) -> Generator[Envelope | None, None, None]:
        """Run a turn without showing it; while it waits, the other rows go on."""
        if isinstance(turn, HeavyTurn):
            yield from turn.run([kept], lanes=pace)
        else:
            yield from turn.run([kept], lane=pace.lane(0), followed=False)

    def _interrupted(self, reply: Reply | None, attempts: int, used: Usage) -> Answer:
        if reply is not None:
            attempts, used = attempts + _attempts(reply), used + reply.usage
            self._used += reply.usage
        return Answer(error=INTERRUPTED, usage=_counts(used), attempts=attempts)

    def _keep(self, key: str, answer: Answer, error: BaseException | None) -> None:
        self.answers[key] = answer
        self._bar.add(self._used, failed=answer.error is not None)
        if answer.error == INTERRUPTED:
            return
        try:
            self._checkpoint.keep(key, answer)
        except KimiError as full:
            self.why = self.why or str(full)
        self._look_for_the_end(answer, error)

    def _look_for_the_end(self, answer: Answer, error: BaseException | None) -> None:
        """Stop where the answer to a row says that asking for more is of no use."""
        said = answer.error or ""
        self._latest.append(_PARTICULARS.sub("…", said))
        if said and self._latest.count(self._latest[-1]) == ALIKE:
            self.why = self.why or f"The last {ALIKE} rows failed alike. {said}"
            self._cut = True
        if isinstance(error, ENDS_ALL):
            self.why = self.why or said
        if error is not None and self._limits.raises:
            self.why, self.failure, self._cut = self.why or said, self.failure or error, True
        self.why = self.why or self._limits.passed(self._used)

    def _find_the_rest(self) -> None:
        """Look for the rows of a map that stopped among the answers that were kept."""
        if not self._are_known:
            return
        for place, row in self._todo:
            with suppress(*USER_ERRORS):
                self.keys[place] = self._questions.key(row, self._questions.prompt(row))


def header_of(questions: Questions, prompt: Any, rows: Rows, masks: Redactor) -> Header:
    """Return the header of a run, which names a prompt that is a function."""
    named = prompt if isinstance(prompt, str) else getattr(prompt, "__qualname__", "a function")
    model = questions.one.model or questions.one.endpoint.model
    return Header(masks.text(named), model, len(rows), str(notebook_path() or ""))


def _prompt_tokens(turn: PreparedTurn | HeavyTurn) -> int:
    return len(plain_turn(turn).prompt.message.text) // CHARS_PER_TOKEN


def _counts(usage: Usage) -> dict[str, Any]:
    return {name: getattr(usage, name) for name in _COUNTS}  # `asdict` is ten times as slow


def _attempts(reply: Reply) -> int:
    own = max(len(reply.record.steps), 1) + len(reply.retries)
    return own + sum(map(_attempts, reply.attempts))


def _answer(reply: Reply, error: BaseException | None) -> Answer:
    said = told(error) if error else None
    if said is None and not reply.text.strip():
        said = EMPTY_AT_LIMIT if reply.finish_reason == "length" else EMPTY
    data = None if reply.data is None else to_json(reply.data)
    return Answer(reply.text, reply.reasoning, data, said)


def told(error: BaseException) -> str:
    """Return an error's kind and the first line of what it says."""
    return message_of(error).partition("\n")[0]
