"""``%kimi tape``, and the tape of one cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kimi_magic.core.errors import MagicError
from kimi_magic.core.text import count
from kimi_magic.jupyter.notebook import Notebook

if TYPE_CHECKING:
    from kimi_magic.wire.tape import TapeUse

__all__ = ["change_tape", "describe_tape", "with_tape"]

NONE_ON = "No tape is on: `%kimi tape FILE` plays one, and records what is not on it."
NONE_HERE = (
    "--strict and --frozen-tools are about a tape, and none is on: --tape FILE plays one here, "
    "`%kimi tape FILE` in every cell."
)
MODES = {
    "new": "what is not on it is asked, and recorded",
    "none": "nothing is sent",
    "all": "everything is asked, and recorded anew",
}


def change_tape(notebook: Notebook, file: str, options: Mapping[str, Any]) -> None:
    """Put a tape on for the whole notebook, or take it off."""
    session, settings = notebook.session, notebook.settings
    if file == "off":
        name = use.name if (use := session.tape) else ""
        settings.tape = ""
        notebook.say(f"{name} is off." if name else NONE_ON)
        return
    choices = {
        "speed": options["speed"] or "max",
        "strict": options["strict"],
        "frozen_tools": options["frozen_tools"],
    }
    path = Path(file).expanduser().absolute()
    use = session.use_of_tape(path, options["mode"] or "new", **choices)
    settings.tape = str(path)
    session.tapes.put_on(use, settings.tape_path, settings.tape_mode)
    describe_tape(notebook)


def describe_tape(notebook: Notebook) -> None:
    """Say which tape is on, what made it, and what was played and recorded."""
    use = notebook.session.tape
    if use is None:
        notebook.say(NONE_ON)
        return
    recordings = len(use.tape.entries())
    lead = use.tape.lead
    made = f", made with {lead.model} at {lead.endpoint}" if lead else ""
    strict, frozen = ", strict" * use.strict, ", frozen tools" * use.frozen_tools
    lines = [
        f"{use.name}: {count(recordings, 'recorded exchange')}{made}.",
        f"Mode {use.mode}: {MODES[use.mode]}. Speed: {_speed(use)}{strict}{frozen}.",
        f"So far: {_counts(use)}.",
        *use.tape.problems,
    ]
    notebook.say("\n".join(lines))


@contextmanager
def with_tape(notebook: Notebook, options: Mapping[str, Any]) -> Iterator[None]:
    """Hold to the tape options of one cell while it runs."""
    session = notebook.session
    choices: dict[str, Any] = {name: True for name in ("strict", "frozen_tools") if options[name]}
    leave: Callable[[], None] | None = None
    if options["tape"]:
        leave = session.tapes.enter(session.use_of_tape(options["tape"], **choices))
    elif choices:
        use = session.tape
        if use is None:
            raise MagicError(NONE_HERE)
        leave = session.tapes.enter(use.varied(**choices))
    try:
        yield
    finally:
        if leave is not None:
            leave()


def _speed(use: TapeUse) -> str:
    named = {0.0: "max", 1.0: "real"}
    return named.get(use.speed) or f"{use.speed:g} ×"


def _counts(use: TapeUse) -> str:
    counts = use.counts
    played = f"{count(counts['played'], 'exchange')} played"
    if counts["differing"]:
        played += f" ({counts['differing']} with other inputs)"
    recorded = f"{counts['recorded']} recorded"
    refused = f", {counts['refused']} not recorded because of keys" if counts["refused"] else ""
    return f"{played}, {recorded}{refused}"
