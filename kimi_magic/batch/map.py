"""Maps: one prompt for each row of a frame, asked side by side, and kept as the answers come."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from difflib import get_close_matches
from inspect import signature
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from kimi_magic.batch.answer_frame import OWN, WRITERS, Run, make_frame, write_frame
from kimi_magic.batch.checkpoint import SUFFIX, Checkpoint, maps_folder
from kimi_magic.batch.map_plan import plan
from kimi_magic.batch.map_run import Limits, MapRun, header_of
from kimi_magic.batch.prompts import row_prompt
from kimi_magic.batch.questions import Questions, row_key
from kimi_magic.batch.rows import Rows, is_of
from kimi_magic.core.errors import KimiError
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

    Each answer is kept as it comes. The same call again (the same prompt, model, schema, tools and
    parameters) takes the answers that are there and asks only for the others, even after the
    kernel was killed. Rows with the same prompt are asked once.

    A row that fails has an ``error``, and the others go on; the next call asks it again. A failure
    that would hit every row stops the map: a refused key, no quota left, an unknown model, a spent
    budget, or the same failure 20 times in a row. So does an interrupt. The frame then has the
    answers that came, and the error ``not asked``, with the reason, in the other rows.

    Parameters
    ----------
    data : DataFrame, Series, list or iterable
        A frame or a column of pandas, polars or pyarrow, or an iterable of dicts or texts. A map
        of a Dask frame or column is lazy: the worker that computes a partition asks its rows.
    prompt : str or callable
        A text in which ``{{ column }}`` stands for the row's value. An expression may use columns,
        ``row`` and the notebook's names. ``{{ value }}`` is the value in a column or in a list of
        texts. Or a function that takes a row, a mapping, and returns what ``kimi.ask`` takes.
    schema, tools, heavy
        As for ``kimi.ask``; ``heavy=1`` is an ordinary turn. Each trajectory of a heavy row is a
        request of its own.
    into : str or path, optional
        A ``.parquet``, ``.csv`` or ``.jsonl`` file for the frame; a value that it cannot hold is
        written as JSON. The answers are kept beside it, in ``NAME.map.jsonl``. Without it they are
        kept in the user's data folder, unless the setting ``journal`` is off. Keys, and what looks
        like one, are masked in these files.
    key : str, list of str or callable, optional
        Columns, or a function of a row, that identify a row; by default its prompt does. A row
        whose key was answered is not asked again, even if its other columns have changed. Where
        the key is missing, the prompt identifies the row.
    concurrency : int
        The most requests at once. Fewer are sent while a server refuses some (429) or is no faster
        with so many. ``requests_per_minute`` and ``tokens_per_minute`` of an `Endpoint` are kept
        as well.
    max_cost, max_tokens_total : optional
        Stop asking after so many dollars or tokens of this call. Requests that are under way then
        are waited for.
    on_error : str
        ``keep``, or ``raise`` to stop at the first row that fails and raise its error. The answers
        that came before it are kept for the next call.
    engine : str or distributed.Client
        ``threads`` sends the requests from this kernel. With a Dask client, the workers of its
        cluster send them, and all limits hold for the workers together. ``batch`` uses the Batch
        API of an endpoint that has one, such as Moonshot's: it costs less and may take a day. The
        call submits the rows and returns at once, each with the error ``not ready``; the same
        call, in any kernel, collects the answers so far and submits rows that are new or have
        failed. Tools, heavy mode, ``max_cost`` and ``max_tokens_total`` are refused there.
    dry_run : bool
        Ask nothing; return a `MapPlan` with the first prompts and the expected tokens and cost.
    show : bool, optional
        Show a progress bar; by default in the main thread, unless a tape plays all answers.
    **keywords
        Other keywords of ``kimi.ask``, except ``chat`` and ``variables``.

    Returns
    -------
    DataFrame
        A frame of the library of ``data``, with its index. Its columns are ``text``, or the fields
        of the schema (``data`` where that is no object), then ``reasoning``, ``error``, ``usage``
        (a dict of tokens, seconds and dollars) and ``attempts`` (requests). Equal rows are asked
        once: the first of them has the usage.

    Raises
    ------
    KimiError
        An argument is not valid, another kernel is using the file of answers, or ``into`` cannot
        be written.
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
    request = make_request("…", schema=schema, tools=tools, heavy=_trajectories(heavy), **keywords)
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
        _path(session, file, questions), header_of(questions, prompt, rows, masks), masks
    )
    if engine == BATCH:
        from kimi_magic.batch.batch_api import check_batch

        check_batch(turn, checkpoint, limits)
    if dry_run:
        checkpoint.read()
        share = questions.one.endpoint.batch_price if engine == BATCH else 1.0
        return plan(rows, questions, checkpoint, share=share)
    if max_cost is not None:
        _check_prices(questions)
    if show is None:
        show = _is_shown(questions)
    checkpoint.open()
    with closing(checkpoint):
        run = _run(engine, rows, questions, checkpoint, limits)
        run.take(show=show)
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
        near = get_close_matches(unknown[0], [*KEYWORDS, *signature(map).parameters], n=1)
        guess = f" (did you mean {near[0]}=?)" if near else ""
        raise KimiError(
            f"kimi.map has no {unknown[0]}={guess}: it takes the keywords of kimi.ask, without "
            "chat= and variables=."
        )
    if type(concurrency) is not int or not 1 <= concurrency <= 1000:
        raise KimiError(f"concurrency= is a whole number from 1 to 1000; got {concurrency!r:.60}.")
    if not isinstance(on_error, str) or on_error not in ON_ERROR:
        raise KimiError(f"on_error= is one of {', '.join(ON_ERROR)}; got {on_error!r:.60}.")
    if not (_is_cluster(engine) or (isinstance(engine, str) and engine in ENGINES)):
        known = ", ".join(ENGINES)
        raise KimiError(
            f"engine= is one of {known}, or the client of a Dask cluster; got {engine!r:.60}."
        )
    if is_lazy and engine == BATCH:
        raise KimiError(LAZY_BATCH)


def _trajectories(heavy: Any) -> Any:
    """Return None for one: that is an ordinary turn."""
    return None if type(heavy) is int and heavy == 1 else heavy


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
    return None if journal is None else maps_folder(journal) / f"{questions.mark[:32]}{SUFFIX}"
