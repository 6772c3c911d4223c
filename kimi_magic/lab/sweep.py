"""Sweeps: prompts and settings, each with each, asked side by side and kept in a tidy frame."""

from __future__ import annotations

import inspect
import itertools
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from kimi_magic.core.errors import KimiError, TurnInterrupted
from kimi_magic.core.events import Envelope, Sink
from kimi_magic.core.interrupts import holding_interrupts, interruptible, whole_imports
from kimi_magic.core.nesting import depth, inside_turn
from kimi_magic.core.reply import Reply
from kimi_magic.core.step_table import step_rows
from kimi_magic.core.text import count
from kimi_magic.lab.progress import ProgressBar
from kimi_magic.lab.sweep_journal import as_asked, mark_of, marked, stored_replies
from kimi_magic.session import Session, current
from kimi_magic.turn.agreement import final_answer, normalised
from kimi_magic.turn.heavy import HeavyTurn, plain_turn
from kimi_magic.turn.lanes import Lanes, side_by_side
from kimi_magic.turn.request import TurnRequest, make_request, parameters
from kimi_magic.turn.runner import PreparedTurn
from kimi_magic.turn.sinks import KeptReply

__all__ = ["SINGLE", "VARIED", "sweep"]

VARIED = (
    "system model endpoint effort heavy judge until_agree temperature top_p max_tokens seed "
    "max_steps approve"
).split()
"""Keywords of ``kimi.ask`` that take a list of values."""
SINGLE = "tools variables schema equal stop logprobs".split()
"""Those whose one value may be a list, and that are the same for all rows."""
SAMPLING = ("temperature", "top_p", "seed")
OF_HEAVY = ("heavy", "judge", "until_agree", "equal")
MEASURED = "repeat answer data correct prompt_tokens tokens seconds cost error reply".split()
STOPPED = "Stopped: {done} of {rows} came, and are in kimi.last_sweep."
NO_PANDAS = "A sweep needs pandas: install it with `pip install pandas`."
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")  # in an answer that was normalised
CHECK_ERROR = "check failed: {}: {:.200}"


@dataclass(frozen=True, slots=True)
class _Row:
    """A row to come: its place, the prompt, the values that vary, the turn to run, its mark."""

    place: int
    prompt: Any
    varied: Mapping[str, Any]
    repeat: int
    turn: PreparedTurn | HeavyTurn
    mark: str


def sweep(
    prompts: Any,
    *,
    repeats: int = 1,
    check: Any = None,
    resume: Any = True,
    show: bool | None = None,
    **keywords: Any,
) -> Any:
    """Ask prompts with settings, each with each, and return what comes as a tidy frame.

    Rows run side by side, as many at once as ``max_concurrency`` of the settings and the endpoints
    allow; those of heavy mode run one after the other, as each is several requests itself. A row
    that fails has its error. All rows are prepared before the first request: what would be refused
    is refused then.

    Each row is kept in the journal. Called again in the same notebook, also after its kernel has
    ended, the sweep takes the answers that are there and asks only for the others; a line says how
    many. A row is the same if all that it sends is: the prompt, the variables, the values and
    settings, the tools with their source, and the number of its repeat.

    Parameters
    ----------
    prompts : str, list of dict, or list of these
        As ``kimi.ask`` takes them.
    repeats : int
        Times that each row is asked. Where there is a seed, each repeat adds one to it.
    check : callable, mapping, str or number, optional
        ``check(reply)`` or ``check(reply, prompt)`` says how right a reply is, as a bool or a
        number from 0 to 1. A text is compared with the final answer as the vote of heavy mode
        compares two, a number with the last number in it; a mapping has either for each prompt.
    resume : bool or pandas.DataFrame, optional
        False asks every row anew; the default takes those that the journal has. A frame of an
        earlier sweep, such as ``kimi.last_sweep``, is taken in its place: its rows without an error
        are not asked again. What is taken over is checked anew.
    show : bool, optional
        Show a progress bar; by default in the main thread.
    **keywords
        Keywords of ``kimi.ask``, except for ``chat``. A list varies: ``effort=["low", "high"]``,
        ``heavy=[1, 4, 8]`` (1 is a turn without trajectories). ``tools``, ``variables``,
        ``schema``, ``equal`` and ``stop`` are the same for all rows.

    Returns
    -------
    pandas.DataFrame
        One row a reply: ``prompt``, the keywords that can vary, ``repeat`` (from 1), ``answer``
        (the text), ``data``, ``correct``, ``prompt_tokens``, ``tokens`` (reasoning and answer),
        ``seconds`` (those of requests and tools; of a heavy row the time that it took), ``cost``
        (dollars, where prices are known), ``error`` and ``reply``. ``kimi.plot_sweep`` draws it.
        ``frame.attrs["from_journal"]`` counts the rows that were not asked.

    Raises
    ------
    KimiError
        A keyword or a value does not fit, the model fixes what should vary, or pandas is missing.
    TurnInterrupted
        A ``KeyboardInterrupt``. The rows that came are in ``kimi.last_sweep``.
    """
    session = current()
    with whole_imports():
        try:
            import pandas as pd
        except ImportError:
            raise KimiError(NO_PANDAS) from None
        rows = _plan(session, prompts, repeats, keywords)
        if show is None:
            show = threading.current_thread() is threading.main_thread() and not depth.get()
        taken: dict[int, dict[str, Any]] = {}
        stored: dict[str, Reply] = {}
        notice = ""
        if resume is None or resume is True:
            stored, notice = stored_replies(session, [row.mark for row in rows])
        elif resume is not False:
            taken = _came_before(rows, resume)
        if notice and show:
            print(notice)
        run = _Run(session, rows, _checker(check), taken, stored)
        interrupted = run.take(show=show)
        names = ["prompt", *(rows[0].varied if rows else ()), *MEASURED]
        frame = pd.DataFrame([made for _, made in sorted(run.made.items())], columns=names)
        frame.attrs["varied"] = [name for name in names if name in VARIED]
        frame.attrs["from_journal"] = run.from_journal
        session.last_sweep = frame
        if interrupted:
            said = STOPPED.format(done=len(frame), rows=count(len(rows), "row"))
            raise TurnInterrupted(said)
        return frame


def _plan(session: Session, prompts: Any, repeats: int, keywords: Mapping[str, Any]) -> list[_Row]:
    """Prepare every row, so that what is refused is refused before anything is sent."""
    if unknown := [name for name in keywords if name not in (*VARIED, *SINGLE)]:
        raise KimiError(
            f"kimi.sweep has no {unknown[0]}=: it takes the keywords of kimi.ask, without chat=."
        )
    if type(repeats) is not int or repeats < 1:
        raise KimiError(f"repeats= is a whole number from 1 on; got {repeats!r:.60}.")
    given = {name: value for name, value in keywords.items() if value is not None}
    lists = {name: _values(name, given[name]) for name in VARIED if name in given}
    single = {name: given[name] for name in SINGLE if name in given}
    rows: list[_Row] = []
    alike: Counter[str] = Counter()  # rows with the same mark, repeats among them
    for prompt in _prompts(prompts):
        for values in itertools.product(*lists.values()):
            varied = dict(zip(lists, values, strict=True))
            asked = {**single, **varied}
            if asked.get("heavy") == 1:
                asked = {n: value for n, value in asked.items() if n not in OF_HEAVY}
            request = make_request(prompt, **asked)
            turn = session.prepare(request)
            _refuse_fixed(session, plain_turn(turn), request)
            same = mark_of(turn)
            for number in range(repeats):
                alike[same] += 1
                mark = f"{same}-{alike[same]}"
                own = marked(turn.seeded(number), mark)
                rows.append(_Row(len(rows), prompt, varied, number + 1, own, mark))
    return rows


def _prompts(prompts: Any) -> list[Any]:
    if isinstance(prompts, str):
        return [prompts]
    found = list(prompts) if isinstance(prompts, Iterable) else [prompts]
    # One prompt of several parts.
    return [found] if found and all(isinstance(part, Mapping) for part in found) else found


def _values(name: str, value: Any) -> list[Any]:
    """Return the values of a keyword; a text is one."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        return [value]
    values = list(value)
    if not values:
        raise KimiError(f"{name}= is an empty list: leave it out, or give it a value.")
    return values


def _refuse_fixed(session: Session, turn: PreparedTurn, request: TurnRequest) -> None:
    """Refuse what the model fixes: a sweep over it would show differences that are none."""
    given = [f"{name}=" for name in SAMPLING if getattr(request, name) is not None]
    if not given and request.effort is None:
        return
    # A server's list may have to tell which model it is.
    way = turn.resolve(lambda _: None)
    model = way.target.record
    if model.fixed_sampling and given:
        raise KimiError(f"{model.name} fixes its sampling: leave out {', '.join(given)}.")
    parameters(request, way.target, session.settings)


def _came_before(rows: Sequence[_Row], frame: Any) -> dict[int, dict[str, Any]]:
    """Return the rows that an earlier frame has without an error, by their places."""
    if not hasattr(frame, "to_dict") or not hasattr(frame, "columns"):
        raise KimiError(f"resume= takes the frame of a sweep; got {frame!r:.60}.")
    if not len(frame):
        return {}
    names = list(rows[0].varied) if rows else []
    if missing := {"prompt", *names, *MEASURED} - set(frame.columns):
        raise KimiError(f"resume= takes the frame of a sweep; it has no {min(missing)}.")
    found = {}
    for made in frame.astype(object).where(frame.notna(), None).to_dict("records"):
        reply = made["reply"]
        if made["error"] is None or (isinstance(reply, Reply) and reply.error is None):
            found[_key(made["prompt"], [made[name] for name in names], made["repeat"])] = made
    return {
        row.place: found[key]
        for row in rows
        if (key := _key(row.prompt, row.varied.values(), row.repeat)) in found
    }


def _key(prompt: Any, values: Iterable[Any], repeat: Any) -> tuple[str, ...]:
    return (str(prompt), *map(str, values), str(repeat))


Check = Callable[[Reply, Any], Any]


def _checker(check: Any) -> Check | None:
    """Return a function of a reply and its prompt."""
    if check is None:
        return None
    if isinstance(check, Mapping):
        return lambda reply, prompt: _is_answer(reply, check[prompt])
    if not callable(check):
        return lambda reply, _: _is_answer(reply, check)
    function: Check = check
    try:
        inspect.signature(check).bind(None, None)
    except (TypeError, ValueError):  # it takes one, or is a builtin that does not tell
        return lambda reply, _: check(reply)
    return function


def _share(found: Any) -> bool | float | None:
    """Return what a check found as a bool, or as a number from 0 to 1."""
    if found is None or found in (True, False):  # those of numpy as well
        return None if found is None else bool(found)
    if 0 <= float(found) <= 1:
        return float(found)
    raise ValueError(f"{found!r:.60} is no bool, and no number from 0 to 1")


def _is_answer(reply: Reply, wanted: Any) -> bool:
    answer = normalised(final_answer(reply.text))
    if isinstance(wanted, int | float) and not isinstance(wanted, bool):
        numbers = NUMBER.findall(answer)
        return bool(numbers) and float(numbers[-1]) == wanted
    return answer == normalised(str(wanted))


def _seconds(reply: Reply) -> float:
    """Return the seconds of requests and tools; those of trajectories passed side by side."""
    if reply.record.trajectories:
        return max((row.began + row.seconds for row in step_rows(reply.record)), default=0.0)
    return sum(step.seconds for step in reply.record.steps)


class _Run:
    def __init__(
        self,
        session: Session,
        rows: Sequence[_Row],
        check: Check | None,
        taken: Mapping[int, dict[str, Any]],
        stored: Mapping[str, Reply],
    ) -> None:
        self.made: dict[int, dict[str, Any]] = {}
        self.from_journal = sum(row.mark in stored for row in rows)
        self._session = session
        self._taken = taken
        self._before = [(row, stored[row.mark]) for row in rows if row.mark in stored]
        self._given = [row for row in rows if row.place in taken]
        self._rows = [row for row in rows if row.place not in taken and row.mark not in stored]
        self._check = check
        self._bar: ProgressBar | None = None

    def take(self, *, show: bool) -> bool:
        """Run all rows; return True if an interrupt ended that."""
        if show and (self._rows or self._before):
            total = len(self._rows) + len(self._before)
            self._bar = ProgressBar(total, self.from_journal)
        with inside_turn(), holding_interrupts() as hold:
            try:
                self._take_over()
                for _ in itertools.chain(self._side_by_side(), self._one_by_one()):
                    if self._bar is not None:
                        self._bar.tick()
            except KeyboardInterrupt:
                return True
            finally:
                if self._bar is not None:
                    self._bar.close()
            late = hold is not None and bool(hold.pending)
            if hold is not None:
                hold.pending = 0
        return late

    def _take_over(self) -> None:
        """Take the rows that came earlier, and check them anew."""
        for row in self._given:
            made = self.made[row.place] = dict(self._taken[row.place])
            if isinstance(made["reply"], Reply):
                made["error"] = None
                self._check_row(row, made)
        for row, reply in self._before:
            self._keep(row, as_asked(reply, row.turn), _seconds(reply))

    def _side_by_side(self) -> Iterator[Envelope | None]:
        """Run the plain turns, each in the next lane that is free."""
        plain = [(row, row.turn) for row in self._rows if isinstance(row.turn, PreparedTurn)]
        settings = self._session.settings
        limits = [turn.endpoint.max_concurrency for _, turn in plain]
        most = min([settings.max_concurrency, *filter(None, limits)])
        lanes = Lanes(settings.max_queue_bytes, most)
        waiting = iter(plain)  # shared: a lane takes the next one when its own has ended
        # Each turn has sinks of its own, for which it is a whole turn.
        running = [self._in_lane(waiting, lanes) for _ in range(most)]
        return side_by_side(lanes, running[: len(plain)])

    def _in_lane(
        self, waiting: Iterator[tuple[_Row, PreparedTurn]], lanes: Lanes
    ) -> Generator[Envelope | None, None, None]:
        for row, turn in waiting:
            kept = KeptReply()
            with suppress(KimiError):  # it is in the reply
                yield from turn.run([kept, *self._journal(turn)], lane=lanes.lane(0))
            assert kept.reply is not None, "a turn ends with TurnFinished"
            self._keep(row, kept.reply, _seconds(kept.reply))

    def _one_by_one(self) -> Iterator[Envelope | None]:
        """Run the turns of heavy mode, each of which has lanes of its own."""
        for row in self._rows:
            if not isinstance(row.turn, HeavyTurn):
                continue
            began, kept = time.monotonic(), KeptReply()
            with suppress(KimiError):  # it is in the reply
                yield from row.turn.run([kept, *self._journal(row.turn.turn)])
            assert kept.reply is not None, "a turn ends with TurnFinished"
            self._keep(row, kept.reply, time.monotonic() - began)

    def _journal(self, turn: PreparedTurn) -> list[Sink]:
        return self._session.journal_sinks(turn.request)

    def _keep(self, row: _Row, reply: Reply, seconds: float) -> None:
        usage, error = reply.usage, reply.error
        made = {"prompt": row.prompt, **row.varied, "repeat": row.repeat, "answer": reply.text}
        made |= {"data": reply.data, "correct": None, "prompt_tokens": usage.prompt_tokens}
        made |= {"tokens": usage.completion_tokens, "seconds": seconds, "cost": usage.cost or None}
        made |= {"error": f"{type(error).__name__}: {error}" if error else None, "reply": reply}
        self.made[row.place] = made
        if error is None:
            self._check_row(row, made)
        if self._bar is not None:
            self._bar.add(failed=made["error"] is not None)

    def _check_row(self, row: _Row, made: dict[str, Any]) -> None:
        if self._check is None:
            return
        made["correct"] = None
        try:
            with interruptible():
                made["correct"] = _share(self._check(made["reply"], row.prompt))
        except Exception as failure:  # noqa: BLE001 - the function is the user's
            made["error"] = CHECK_ERROR.format(type(failure).__name__, str(failure))
