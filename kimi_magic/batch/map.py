"""Maps: one prompt for each row of a frame, asked side by side, and kept as the answers come."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from kimi_magic.batch.answer_frame import OWN, WRITERS, Run, make_frame, write_frame
from kimi_magic.batch.checkpoint import SUFFIX, Checkpoint, Header
from kimi_magic.batch.map_plan import plan
from kimi_magic.batch.map_run import Limits, MapRun
from kimi_magic.batch.prompts import row_prompt
from kimi_magic.batch.questions import Questions, row_key
from kimi_magic.batch.rows import Rows, is_of
from kimi_magic.core.errors import KimiError
from kimi_magic.core.frontend import notebook_path
from kimi_magic.core.interrupts import whole_imports
from kimi_magic.core.nesting import depth
from kimi_magic.core.text import count
from kimi_magic.secrets.redact import Redactor
from kimi_magic.session import Session, current
from kimi_magic.turn.request import make_request

__all__ = ["map"]

KEYWORDS = (
    "model endpoint system effort temperature top_p max_tokens seed stop max_steps approve judge "
    "until_agree equal"
).split()
ON_ERROR = ("keep", "raise")
BATCH = "batch"
ENGINES = ("threads", BATCH)
STOPPED = "Stopped: {why}\n{done} of {rows} came{hint}."
HINT = "; run it again to ask for the rest"
LAZY_BATCH = (
    'A Dask frame has no engine="batch": its partitions are asked when they are computed.\n'
    "Give kimi.map the frame that .compute() returns."
)
TAKEN = "The schema's {} would hide the column of that name: give it another one."
UNPRICED = (
    "max_cost= counts nothing here: the prices of {model} at {endpoint} are not known.\n"
    "Give them with kimi.add_endpoint(prices=…), or use max_tokens_total=."
)


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

    A row that fails has its ``error``, and the others go on; it is asked anew by the next call.
    What would befall every row (a refused key, no quota left, an unknown model, a budget that is
    spent, the same failure 20 times in a row) stops the map; so does an interrupt. What came is
    returned, the other rows have the error ``not asked``, with the reason.

    Parameters
    ----------
    data : DataFrame, Series, list or iterable
        A frame or a column of pandas, polars or pyarrow; dicts, or texts, in any iterable. A frame
        or a column of Dask stays lazy: each partition is asked by the worker that computes it.
    prompt : str or callable
        A text in which ``{{ column }}`` stands for the row's value, or any expression of columns,
        of ``row`` and of the notebook's names; ``{{ value }}`` for what is in a column or in a list
        of texts. Or a function of a row, a mapping, that returns what ``kimi.ask`` takes.
    schema, tools, heavy
        As for ``kimi.ask``. The trajectories of heavy rows count as requests of their own.
    into : str or path, optional
        A ``.parquet``, ``.csv`` or ``.jsonl`` file for the frame, with JSON in the place of values
        that it cannot hold. The answers are kept beside it,
        in ``NAME.map.jsonl``, else in the user's data folder, unless the setting ``journal`` is
        off. Keys, and what looks like one, are masked there as in the journal.
    key : str, list of str or callable, optional
        What tells a row from others: columns, or a function. By default its prompt does. A row
        with a key that was answered is not asked again, also if its other columns have changed;
        one whose key is missing is told apart by its prompt.
    concurrency : int
        Requests at once. It goes down by itself where a server refuses some (429) or is no faster
        with so many, and up again.
        ``requests_per_minute`` and ``tokens_per_minute`` of an `Endpoint` are kept as well.
    max_cost, max_tokens_total : optional
        Dollars or tokens of this call after which nothing more is asked; the answers that are
        under way are waited for.
    on_error : str
        ``keep``, or ``raise`` to stop at the first row that fails and raise its error; what came
        before is kept for the next call.
    engine : str or distributed.Client
        ``threads``; or a client of a Dask cluster: its workers send the requests, and all limits
        hold for them together; or ``batch`` for the Batch API of an endpoint that has it, such as
        Moonshot. Then the call submits the rows and returns at once, with the error ``not ready``
        in each of them. The same call collects what has come by then, in any kernel, and submits
        what is new or has failed. It costs less and may take a day; tools, heavy mode and limits
        of cost are refused.
    dry_run : bool
        Ask nothing; return a `MapPlan` with the first prompts and the tokens and cost to expect.
    show : bool, optional
        Show a progress bar; by default in the main thread, unless a tape plays all answers.
    **keywords
        Keywords of ``kimi.ask``, without ``chat`` and ``variables``.

    Returns
    -------
    DataFrame
        Of the library of ``data``, with its index: ``text``, or the fields of the schema, or
        ``data`` where that is no object; then ``reasoning``, ``error``, ``usage`` (a dict of
        tokens, seconds and dollars) and ``attempts`` (requests). Of equal rows, which are asked
        once, the first has the usage.

    Raises
    ------
    KimiError
        An argument does not fit, the answers are in use by another kernel, or ``into`` cannot be
        written.
    """
    session = current()
    of_cluster = _is_cluster(engine)
    is_lazy = is_of(data, "dask.dataframe", "DataFrame", "Series")
    _check(concurrency, on_error, engine, keywords, is_lazy=is_lazy)
    if is_lazy and dry_run:
        data, is_lazy = data.partitions[0].compute(), False
    limits = Limits(
        concurrency,
        _bound("max_cost", max_cost, Real),
        _bound("max_tokens_total", max_tokens_total, Integral),
        raises=on_error == "raise",
    )
    file = None if into is None else _file(into)
    fill = row_prompt(prompt, tokens=session.settings.summary_tokens)
    request = make_request("…", schema=schema, tools=tools, heavy=heavy, **keywords)
    # Workers may have keys of their own.
    ask_for_key = not (dry_run or of_cluster or is_lazy)
    turn = session.prepare(replace(request, no_history=True), ask_for_key=ask_for_key)
    questions = Questions(turn, prompt, fill, row_key(key))
    _check_fields(questions)
    if is_lazy:
        from kimi_magic.batch.dask_frames import lazy_map

        client = engine if of_cluster else None
        return lazy_map(
            data,
            questions,
            limits,
            session=session,
            prompt=prompt,
            key=key,
            into=file,
            client=client,
        )
    rows = Rows(data)
    masks = Redactor(session.connector.known_keys(), shapes=True)
    checkpoint = Checkpoint(
        _path(session, file, questions), _header(questions, prompt, rows, masks), masks
    )
    if engine == BATCH:
        from kimi_magic.batch.batch_api import check_batch

        check_batch(
            turn, checkpoint, **{"max_cost=": max_cost, "max_tokens_total=": max_tokens_total}
        )
    if dry_run:
        checkpoint.read()
        share = questions.one.endpoint.batch_price if engine == BATCH else 1.0
        return plan(rows, questions, checkpoint, share=share)
    if max_cost is not None:
        _check_prices(questions)
    if show is None:
        show = _is_shown(questions)
    checkpoint.open()
    try:
        run = _run(engine, rows, questions, checkpoint, limits)
        run.take(show=show)
    finally:
        checkpoint.close()
    if run.failure is not None:
        raise run.failure
    if run.why and show:
        hint = HINT if checkpoint.path else ""
        rows_in_words = count(len(rows), "row")
        print(STOPPED.format(why=run.why, done=run.done, rows=rows_in_words, hint=hint))
    return _framed(run, rows, questions.fields, file)


def _framed(run: Run, rows: Rows, fields: list[str], file: Path | None) -> Any:
    """Return the frame of a run's answers, and write it where that is wanted."""
    frame = make_frame(run, rows, fields)
    if file is not None:
        try:
            write_frame(frame, file, lambda: make_frame(run, rows, fields, flat=True))
        except KimiError as error:
            if not run.why:
                raise
            # A map that stopped returns what came, also where the disk is full.
            print(str(error).partition("\n")[0])
    return frame


def _run(
    engine: Any, rows: Rows, questions: Questions, checkpoint: Checkpoint, limits: Limits
) -> Run:
    if engine == BATCH:
        from kimi_magic.batch.batch_api import BatchRun

        return BatchRun(rows, questions, checkpoint, limits)
    if _is_cluster(engine):
        from kimi_magic.batch.cluster_run import ClusterRun

        return ClusterRun(rows, questions, checkpoint, limits, client=engine, session=current())
    return MapRun(rows, questions, checkpoint, limits)


def _is_cluster(engine: Any) -> bool:
    return is_of(engine, "distributed", "Client")


def _check(
    concurrency: Any, on_error: Any, engine: Any, keywords: Mapping[str, Any], *, is_lazy: bool
) -> None:
    if unknown := [name for name in keywords if name not in KEYWORDS]:
        raise KimiError(
            f"kimi.map has no {unknown[0]}=: it takes the keywords of kimi.ask, without chat= and "
            "variables=."
        )
    if type(concurrency) is not int or not 1 <= concurrency <= 1000:
        raise KimiError(f"concurrency= is a whole number from 1 to 1000; got {concurrency!r:.60}.")
    if not isinstance(on_error, str) or on_error not in ON_ERROR:
        raise KimiError(f"on_error= is one of {', '.join(ON_ERROR)}; got {on_error!r:.60}.")
    if not (_is_cluster(engine) or (isinstance(engine, str) and engine in ENGINES)):
        known = ", ".join(ENGINES)
        raise KimiError(f"engine= is one of {known}, or a Dask client; got {engine!r:.60}.")
    if is_lazy and engine == BATCH:
        raise KimiError(LAZY_BATCH)


def _check_fields(questions: Questions) -> None:
    if taken := [name for name in questions.fields if name in OWN]:
        raise KimiError(TAKEN.format(taken[0]))


def _is_shown(questions: Questions) -> bool:
    """Tell whether a bar is wanted where nobody said so."""
    if questions.one.tape and questions.one.tape.mode == "none":
        return False  # a bar tells times, and a cell that a tape plays is the same each time
    return threading.current_thread() is threading.main_thread() and not depth.get()


def _bound(name: str, given: Any, kind: type) -> Any:
    is_number = isinstance(given, kind) and not isinstance(given, bool)
    if given is None or (is_number and given > 0):
        return given
    whole = ", without a fraction" if kind is Integral else ""
    raise KimiError(f"{name}= is a number above 0{whole}; got {given!r:.60}.")


def _check_prices(questions: Questions) -> None:
    one = questions.one
    target = one.connector.target(one.endpoint, one.model)
    if not target.record.prices_at(one.endpoint):
        raise KimiError(UNPRICED.format(model=target.model, endpoint=one.endpoint.name))


def _file(into: Any) -> Path:
    try:
        file = Path(into).expanduser()
    except (TypeError, RuntimeError):  # no path, or a home that does not exist
        raise KimiError(f"into= is the path of a file; got {into!r:.60}.") from None
    if file.suffix not in WRITERS:
        raise KimiError(f"into= is a file that ends in {', '.join(WRITERS)}; got {file.name!r}.")
    # `Path.is_dir` raises for a name that is too long, which has an error of its own later.
    if "\0" in str(file) or os.path.isdir(file):  # noqa: PTH112
        raise KimiError(f"into= is the path of a file; {str(file)!r:.100} is none.")
    return file


def _path(session: Session, into: Path | None, questions: Questions) -> Path | None:
    if into is not None:
        return into.with_name(into.name + SUFFIX)
    journal = session.settings.journal_path
    return None if journal is None else journal.parent / "maps" / f"{questions.mark[:32]}{SUFFIX}"


def _header(questions: Questions, prompt: Any, rows: Rows, masks: Redactor) -> Header:
    named = prompt if isinstance(prompt, str) else getattr(prompt, "__qualname__", "a function")
    model = questions.one.model or questions.one.endpoint.model
    return Header(masks.text(named), model, len(rows), str(notebook_path() or ""))
