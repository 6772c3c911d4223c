"""Maps: one prompt for each row of a frame, asked side by side, and kept as the answers come."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kimi_magic.batch.bar import Bar
from kimi_magic.batch.checkpoint import SUFFIX, Answer, Checkpoint, Header
from kimi_magic.batch.pace import Pace
from kimi_magic.batch.prompts import row_prompt
from kimi_magic.batch.questions import Questions, row_key
from kimi_magic.batch.rows import Rows
from kimi_magic.core.budget import dollars
from kimi_magic.core.errors import (
    BudgetSpent,
    ConfigError,
    KeyRefused,
    KimiError,
    LocalEngineError,
    NotFound,
    QuotaExhausted,
)
from kimi_magic.core.events import Envelope, TurnFinished
from kimi_magic.core.frontend import notebook_path
from kimi_magic.core.interrupts import holding_interrupts, whole_imports
from kimi_magic.core.messages import Usage
from kimi_magic.core.nesting import depth, inside_turn
from kimi_magic.core.reply import Reply
from kimi_magic.core.sent import CHARS_PER_TOKEN
from kimi_magic.core.shown import Shown
from kimi_magic.core.tabular import to_json
from kimi_magic.core.text import count
from kimi_magic.display.view import Unseen
from kimi_magic.session import Session, current
from kimi_magic.turn.approval import asking
from kimi_magic.turn.heavy import HeavyTurn
from kimi_magic.turn.lanes import side_by_side
from kimi_magic.turn.request import make_request
from kimi_magic.turn.runner import PreparedTurn

__all__ = ["MapPlan", "map"]

KEYWORDS = (
    "model endpoint system effort temperature top_p max_tokens seed stop max_steps approve judge "
    "until_agree equal"
).split()
ON_ERROR = ("keep", "raise")
ENGINES = ("threads",)
# What befalls every row alike: the map stops, with all that came.
ENDS_ALL = (KeyRefused, QuotaExhausted, NotFound, ConfigError, BudgetSpent, LocalEngineError)
ALIKE = 20  # failures in a row, all for one reason, after which nothing more is asked
NOT_ASKED = "not asked"
SHOWN = 3  # prompts of a dry run
SAMPLED = 200  # rows whose prompts tell the tokens of all
STOPPED = "Stopped: {why}\n{done} of {rows} came; run it again to ask for the rest."
UNKEPT = "{done} of {rows} came."


@dataclass(frozen=True, slots=True, repr=False)
class MapPlan(Shown):
    """What a map would ask.

    Attributes
    ----------
    rows : int
    to_ask : int
        Those whose answers are not there yet; equal ones count once.
    prompts : tuple of str
        The first ones, filled in.
    prompt_tokens : int
        Those of all prompts that are asked, about.
    most_tokens : int
        With answers as long as they may be; 0 where they have no limit.
    cost, most_cost : float
        US dollars for the prompts, and with the longest answers; 0 where prices are not known.
    """

    rows: int
    to_ask: int
    prompts: tuple[str, ...]
    prompt_tokens: int
    most_tokens: int = 0
    cost: float = 0.0
    most_cost: float = 0.0


@whole_imports()
def map(  # noqa: A001 - Python's own word for it
    data: Any,
    prompt: Any,
    *,
    schema: Any = None,
    tools: Any = None,
    into: str | os.PathLike[str] | None = None,
    key: Any = None,
    concurrency: int = 32,
    max_cost: float | None = None,
    max_tokens_total: int | None = None,
    heavy: int | None = None,
    on_error: str = "keep",
    engine: Any = "threads",
    dry_run: bool = False,
    show: bool | None = None,
    **keywords: Any,
) -> Any:
    """Ask a prompt for each row, many at once, and return the answers as a frame.

    Each answer is kept as it comes. Called again with the same prompt, model, schema, tools and
    parameters, also after the kernel was killed, a map takes the answers that are there and asks
    for the others. Rows with the same prompt are asked once.

    A row that fails has its ``error``, and the others go on. What would befall every row (a
    refused key, no quota left, an unknown model, a budget that is spent, the same failure 20 times
    in a row) stops the map; so does an interrupt. What came is returned, the other rows have the
    error ``not asked``.

    Parameters
    ----------
    data : DataFrame, Series, list or iterable
        A frame or a column of pandas, polars or pyarrow; dicts, or texts.
    prompt : str or callable
        A text in which ``{{ column }}`` stands for the row's value, or any expression of columns,
        of ``row`` and of the notebook's names; ``{{ value }}`` for what is in a column or in a list
        of texts. Or a function of a row, a mapping, that returns what ``kimi.ask`` takes.
    schema, tools, heavy
        As for ``kimi.ask``. The rows of heavy mode are asked one after the other.
    into : str or path, optional
        A ``.parquet``, ``.csv`` or ``.jsonl`` file for the frame. The answers are kept beside it,
        else in the user's data folder, unless the setting ``journal`` is off.
    key : str, list of str or callable, optional
        What tells a row from others: columns, or a function. By default its prompt does. A row
        with a key that was answered is not asked again, also if its prompt has changed.
    concurrency : int
        Requests at once. It goes down by itself where a server refuses some (429), and up again.
    max_cost, max_tokens_total : optional
        Dollars or tokens after which nothing more is asked.
    on_error : str
        ``keep``, or ``raise`` to stop at the first row that fails and raise its error.
    engine : str
        ``threads``.
    dry_run : bool
        Ask nothing; return a `MapPlan` with the first prompts and the tokens and cost to expect.
    show : bool, optional
        Show a progress bar; by default in the main thread.
    **keywords
        Keywords of ``kimi.ask``, without ``chat`` and ``variables``.

    Returns
    -------
    DataFrame
        Of the library of ``data``, with its index: ``text``, or the fields of the schema, then
        ``reasoning``, ``error``, ``usage`` (a dict of tokens, seconds and dollars) and
        ``attempts``. Of equal rows the first one has the usage.

    Raises
    ------
    KimiError
        An argument does not fit, or the checkpoint or ``into`` cannot be written.
    """
    session = current()
    _check(concurrency, on_error, engine, keywords)
    rows = Rows(data)
    fill = row_prompt(prompt, tokens=session.settings.summary_tokens)
    request = make_request("…", schema=schema, tools=tools, heavy=heavy, **keywords)
    turn = session.prepare(replace(request, no_history=True))
    questions = Questions(turn, prompt, fill, row_key(key))
    header = Header(
        prompt if isinstance(prompt, str) else getattr(prompt, "__qualname__", "a function"),
        questions.one.model or questions.one.endpoint.model,
        len(rows),
        str(notebook_path() or ""),
    )
    checkpoint = Checkpoint(_path(session, into, questions), header)
    if dry_run:
        checkpoint.read()
        return _plan(rows, questions, checkpoint)
    if show is None:
        show = threading.current_thread() is threading.main_thread() and not depth.get()
    checkpoint.open()
    limits = _Limits(concurrency, max_cost, max_tokens_total, raises=on_error == "raise")
    run = _Run(rows, questions, checkpoint, limits)
    try:
        run.take(show=show)
    finally:
        checkpoint.close()
    frame = run.frame()
    if into is not None:
        _write(frame, Path(into).expanduser())
    if run.failure is not None:
        raise run.failure
    if run.why and show:
        said = STOPPED if checkpoint.path else f"Stopped: {{why}}\n{UNKEPT}"
        print(said.format(why=run.why, done=run.done, rows=count(len(rows), "row")))
    return frame


def _check(concurrency: Any, on_error: Any, engine: Any, keywords: Mapping[str, Any]) -> None:
    if unknown := [name for name in keywords if name not in KEYWORDS]:
        raise KimiError(
            f"kimi.map has no {unknown[0]}=: it takes the keywords of kimi.ask, without chat= and "
            "variables=."
        )
    if type(concurrency) is not int or not 1 <= concurrency <= 1000:
        raise KimiError(f"concurrency= is a whole number from 1 to 1000; got {concurrency!r:.60}.")
    if on_error not in ON_ERROR:
        raise KimiError(f"on_error= is one of {', '.join(ON_ERROR)}; got {on_error!r:.60}.")
    if engine not in ENGINES:
        raise KimiError(f"engine= is one of {', '.join(ENGINES)}; got {engine!r:.60}.")


def _path(
    session: Session, into: str | os.PathLike[str] | None, questions: Questions
) -> Path | None:
    if into is not None:
        file = Path(into).expanduser()
        if file.suffix not in WRITERS:
            raise KimiError(
                f"into= is a file that ends in {', '.join(WRITERS)}; got {file.name!r}."
            )
        return file.with_name(file.name + SUFFIX)
    journal = session.settings.journal_path
    return None if journal is None else journal.parent / "maps" / f"{questions.mark[:32]}{SUFFIX}"


WRITERS = {
    ".parquet": ("to_parquet", "write_parquet"),
    ".csv": ("to_csv", "write_csv"),
    ".jsonl": ("to_json", "write_ndjson"),
}


def _write(frame: Any, file: Path) -> None:
    """Write a frame of pandas or polars; an index goes along where the format has room for it."""
    of_pandas, of_polars = WRITERS[file.suffix]
    try:
        if hasattr(frame, of_polars):
            getattr(frame, of_polars)(file)
        elif file.suffix == ".jsonl":
            frame.to_json(file, orient="records", lines=True)
        else:
            getattr(frame, of_pandas)(file)
    except Exception as error:
        raise KimiError(f"{file} could not be written: {error}. Its rows are kept.") from None


def _plan(rows: Rows, questions: Questions, checkpoint: Checkpoint) -> MapPlan:
    seen: set[str] = set()
    prompts: list[str] = []
    chars = sampled = 0
    for row in rows:
        asked = questions.prompt(row)
        key = questions.key(row, asked)
        if key in seen or key in checkpoint.found:
            continue
        seen.add(key)
        if sampled < SAMPLED:
            one = questions.ask(asked)
            text = (one.turn if isinstance(one, HeavyTurn) else one).prompt.message.text
            chars, sampled = chars + len(text), sampled + 1
            prompts += [text] if len(prompts) < SHOWN else []
    one = questions.one
    target = one.connector.target(one.endpoint, one.model)
    each = chars // CHARS_PER_TOKEN // sampled if sampled else 0
    asked = each * len(seen)
    limit = one.request.max_tokens or one.settings.max_tokens or target.record.max_tokens or 0
    most = Usage(asked, limit * len(seen))
    priced = target.record.priced
    return MapPlan(
        len(rows),
        len(seen),
        tuple(prompts),
        asked,
        most.total_tokens if limit else 0,
        priced(Usage(asked), one.endpoint).cost,
        priced(most, one.endpoint).cost if limit else 0.0,
    )


class _Kept:
    """The sink that keeps the reply of a row."""

    reply: Reply | None = None

    def handle(self, envelope: Envelope) -> None:
        if isinstance(envelope.event, TurnFinished) and not envelope.lane:
            self.reply = envelope.event.reply

    def tick(self) -> None:
        """Do nothing: only the finished turn counts."""

    def close(self) -> None:
        """Do nothing: only the finished turn counts."""


@dataclass(frozen=True, slots=True)
class _Limits:
    concurrency: int
    cost: float | None
    tokens: int | None
    raises: bool

    def passed(self, used: Usage) -> str:
        """Say which limit is reached; "" for none."""
        if self.cost is not None and used.cost >= self.cost:
            return f"max_cost={self.cost:g} is reached, at {dollars(used.cost)}."
        if self.tokens is not None and used.total_tokens >= self.tokens:
            return f"max_tokens_total={self.tokens:,} is reached."
        return ""


class _Run:
    """Asks for the rows; ``why`` says what stopped it, ``failure`` is an error to be raised."""

    def __init__(
        self, rows: Rows, questions: Questions, checkpoint: Checkpoint, limits: _Limits
    ) -> None:
        self.why = ""
        self.failure: BaseException | None = None
        self._rows = rows
        self._questions = questions
        self._checkpoint = checkpoint
        self._limits = limits
        self._ask = asking(Unseen())
        self._todo: Iterator[tuple[int, Mapping[str, Any]]] = enumerate(rows)
        self._keys: list[str] = [""] * len(rows)
        self._answers = checkpoint.found
        self._owners: dict[str, int] = {}  # the rows that were asked, by their keys
        self._used = Usage()
        self._latest: deque[str] = deque(maxlen=ALIKE)
        self._bar: Bar | None = None

    @property
    def done(self) -> int:
        return sum(key in self._answers for key in self._keys)

    def take(self, *, show: bool) -> None:
        """Ask for all rows, unless something stops that."""
        self._bar = Bar(len(self._rows), show=show)
        with inside_turn(), holding_interrupts() as hold:
            try:
                for _ in self._side_by_side():
                    pass
            except KeyboardInterrupt:
                self.why = self.why or "an interrupt."
            finally:
                self._bar.close()
            if hold is not None and hold.pending:
                hold.pending = 0

    def _side_by_side(self) -> Iterator[Envelope | None]:
        one = self._questions.one
        most = min(self._limits.concurrency, one.endpoint.max_concurrency or 1000)
        if isinstance(self._questions.turn, HeavyTurn):
            most = 1  # each is several requests itself
        pace = Pace(one.settings.max_queue_bytes, most)
        lanes = [self._in_lane(pace) for _ in range(min(most, len(self._rows)))]
        return side_by_side(pace, lanes, lambda: bool(self.why))

    def _in_lane(self, pace: Pace) -> Generator[Envelope | None, None, None]:
        for place, row in self._todo:
            if self.why:
                return
            try:
                prompt = self._questions.prompt(row)
                key = self._questions.key(row, prompt)
                turn = self._questions.ask(prompt) if self._is_new(key) else None
            except Exception as error:  # noqa: BLE001 - a template, a function: the row's own
                self._keys[place] = key = f"row {place}"
                self._keep(key, Answer(error=_told(error)), error)
                continue
            self._keys[place] = key
            if turn is None:
                self._count(failed=False)
                continue
            self._owners[key] = place
            kept = _Kept()
            with suppress(KimiError):  # it is in the reply
                yield from self._silently(turn, kept, pace)
            assert kept.reply is not None, "a turn ends with TurnFinished"
            pace.used(kept.reply.usage.total_tokens)
            self._used += kept.reply.usage
            self._keep(key, _answer(kept.reply), kept.reply.error)

    def _is_new(self, key: str) -> bool:
        return key not in self._answers and key not in self._owners

    def _silently(
        self, turn: PreparedTurn | HeavyTurn, kept: _Kept, pace: Pace
    ) -> Generator[Envelope | None, None, None]:
        """Run a turn; its events are nobody's, and its waiting is everybody's."""
        if isinstance(turn, HeavyTurn):
            yield from turn.run([kept], self._ask)
        else:
            yield from turn.run([kept], self._ask, pace.lane(0))

    def _keep(self, key: str, answer: Answer, error: BaseException | None) -> None:
        self._answers[key] = answer
        try:
            self._checkpoint.keep(key, answer)
        except KimiError as full:
            self.why, self.failure = str(full), full
        self._count(failed=answer.error is not None)
        self._latest.append(answer.error or "")
        if isinstance(error, ENDS_ALL):
            self.why = str(answer.error)
        elif answer.error and self._latest.count(answer.error) == ALIKE:
            self.why = f"the last {ALIKE} rows failed alike. {answer.error}"
        if error is not None and self._limits.raises:
            self.why, self.failure = str(answer.error), self.failure or error
        self.why = self.why or self._limits.passed(self._used)

    def _count(self, *, failed: bool) -> None:
        if self._bar is not None:
            self._bar.add(self._used, failed=failed)

    def frame(self) -> Any:
        """Return the answers as a frame like the data."""
        fields = self._questions.fields
        nothing = Answer(error=NOT_ASKED)
        answers = [self._answers.get(key, nothing) for key in self._keys]
        columns: dict[str, list[Any]] = {}
        if not fields:
            columns["text"] = [a.text if a.text or not a.error else None for a in answers]
        for name in fields:
            columns[name] = [_field(a, name, whole=fields == ["data"]) for a in answers]
        columns["reasoning"] = [a.reasoning or None for a in answers]
        columns["error"] = [a.error for a in answers]
        own = [self._owners.get(key, place) == place for place, key in enumerate(self._keys)]
        columns["usage"] = [
            dict(a.usage) if is_own and a.usage else None
            for a, is_own in zip(answers, own, strict=True)
        ]
        columns["attempts"] = [
            a.attempts if is_own else 0 for a, is_own in zip(answers, own, strict=True)
        ]
        return self._rows.like(columns, texts=[] if fields else ["text"])


def _field(answer: Answer, name: str, *, whole: bool) -> Any:
    if whole:
        return answer.data
    return answer.data.get(name) if isinstance(answer.data, Mapping) else None


def _answer(reply: Reply) -> Answer:
    usage, error = reply.usage, reply.error
    return Answer(
        reply.text,
        reply.reasoning,
        None if reply.data is None else to_json(reply.data),
        _told(error) if error else None,
        asdict(usage),
        max(len(reply.steps), 1) + len(reply.retries),
    )


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
