"""``%%kimi --map`` and ``%kimi map``: the cell's prompt for each row of a frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kimi_magic.core.errors import KimiError, MagicError
from kimi_magic.core.text import clip, count
from kimi_magic.jupyter.notebook import Notebook
from kimi_magic.jupyter.options import OPTIONS

if TYPE_CHECKING:
    from kimi_magic.batch.batch_api_notes import BatchNote
    from kimi_magic.batch.checkpoint import KeptMap
    from kimi_magic.session import Session

__all__ = ["cancel_batches", "list_maps", "run_map"]

KEYWORDS = (
    "model endpoint system schema effort heavy judge until_agree temperature top_p max_tokens seed "
    "stop max_steps approve dry_run"
).split()
ELSEWHERE = "map out tool no_tools tape strict frozen_tools again".split()
LEFT_OUT = "--map takes no {}: {} of one turn, and there is one for each row."
MOST_LISTED = 20


def run_map(notebook: Notebook, options: Mapping[str, Any], body: str, tools: Any) -> Any:
    """Ask the prompt for each row; return the frame, or None where a variable takes it.

    Raises
    ------
    MagicError
        An option belongs to a single turn, or there is no such data.
    """
    from kimi_magic.batch.map import map as ask_rows
    from kimi_magic.context.template import in_namespace, message_of
    from kimi_magic.core.time_limit import USER_ERRORS

    given = [option for option in OPTIONS if options[option.name] not in (None, False, [], "")]
    strange = [o.flags[-1] for o in given if o.name not in (*KEYWORDS, *ELSEWHERE)]
    if strange:
        raise MagicError(
            LEFT_OUT.format(", ".join(strange), "it is" if len(strange) == 1 else "they are")
        )
    try:
        data = in_namespace(notebook.variables)(options["map"])
    except USER_ERRORS as error:
        raise MagicError(f"--map {options['map']}: {message_of(error)}") from None
    keywords = {name: options[name] for name in KEYWORDS if options[name] is not None}
    frame = ask_rows(data, body, tools=tools or None, **keywords)
    if options["out"] and not options["dry_run"]:
        notebook.variables[options["out"]] = frame
        return None
    return frame


def list_maps(notebook: Notebook) -> None:
    """List the maps whose answers are kept, the latest first, and their batches as they are now."""
    from kimi_magic.batch.batch_api_look import ask_for
    from kimi_magic.batch.batch_api_notes import batches_under_way

    found = _kept(notebook)
    if not found:
        notebook.say("No map has been asked yet: `%%kimi --map df` asks one.")
    for kept in found:
        header = kept.header
        began = datetime.fromtimestamp(header.began).strftime("%Y-%m-%d %H:%M")  # noqa: DTZ006
        rows = f"{kept.answered:,} of {count(header.rows, 'row')}"
        if kept.answered > header.rows:  # those of the latest run: fewer, or one of a Dask frame
            rows = f"{count(kept.answered, 'row')} answered"
        failed = f", {kept.failed:,} failed" if kept.failed else ""
        prompt = clip(" ".join(header.prompt.split()), 60)
        notebook.say(f"{began}  {rows}{failed}  {header.model}  {prompt}\n  {kept.path}")
        for note in batches_under_way(kept.path):
            notebook.say(f"  {_as_of_now(notebook, note, ask_for)}")


def cancel_batches(notebook: Notebook, name: str) -> None:
    """Cancel a batch, or ``all``; without a name, the only one that is under way.

    Raises
    ------
    MagicError
        There is none, or there are several.
    """
    from kimi_magic.batch.batch_api_look import cancel
    from kimi_magic.batch.batch_api_notes import batches_under_way

    notes = [note for kept in _kept(notebook) for note in batches_under_way(kept.path)]
    chosen = [note for note in notes if name in (note.id, "all", "")]
    if not chosen:
        known = ", ".join(note.id for note in notes)
        raise MagicError(
            f"No batch {name} is under way" + (f", but {known}." if known else ".")
            if name
            else "No batch is under way."
        )
    if not name and len(chosen) > 1:
        known = ", ".join(note.id for note in chosen)
        raise MagicError(f"Which one? `%kimi map cancel ID` takes one of {known}, or all.")
    for note in chosen:
        notebook.say(_as_of_now(notebook, note, cancel))


def _as_of_now(
    notebook: Notebook, note: BatchNote, ask: Callable[[Session, BatchNote], BatchNote]
) -> str:
    try:
        return str(ask(notebook.session, note))
    except KimiError as error:
        return f"{note}: {str(error).partition(chr(10))[0]}"


def _kept(notebook: Notebook) -> list[KeptMap]:
    """Return the maps whose answers are kept: in the user's folder, and beside files here."""
    from kimi_magic.batch.checkpoint import kept_maps, maps_folder

    notebook.settings.read_environment()
    journal = notebook.settings.journal_path
    here = list(islice(kept_maps(Path.cwd()), MOST_LISTED))
    if journal is None and not here:
        raise MagicError("No answers of maps are kept here: the setting journal is off.")
    kept = islice(kept_maps(maps_folder(journal)), MOST_LISTED) if journal else ()
    return sorted([*here, *kept], key=lambda each: -each.header.began)[:MOST_LISTED]
