"""``%%kimi --map`` and ``%kimi map``: the cell's prompt for each row of a frame."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from itertools import islice
from typing import Any

from kimi_magic.core.errors import MagicError
from kimi_magic.core.text import clip, count, reveal
from kimi_magic.jupyter.notebook import Notebook
from kimi_magic.jupyter.options import OPTIONS

__all__ = ["list_maps", "run_map"]

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
    """List the maps whose answers are kept, the latest first."""
    from kimi_magic.batch.checkpoint import kept_maps

    notebook.settings.read_environment()
    journal = notebook.settings.journal_path
    if journal is None:
        raise MagicError("No answers of maps are kept here: the setting journal is off.")
    found = list(islice(kept_maps(journal.parent / "maps"), MOST_LISTED))
    if not found:
        notebook.say("No map has been asked yet: `%%kimi --map df` asks one.")
    for kept in found:
        header = kept.header
        began = datetime.fromtimestamp(header.began).strftime("%Y-%m-%d %H:%M")  # noqa: DTZ006
        rows = f"{kept.answered:,} of {count(header.rows, 'row')}"
        failed = f", {kept.failed:,} failed" if kept.failed else ""
        prompt = clip(" ".join(reveal(header.prompt).split()), 60)
        notebook.say(f"{began}  {rows}{failed}  {reveal(header.model)}  {prompt}\n  {kept.path}")
