"""``%kimi tape``, ``%kimi keep``, and the tape of one cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kimi_magic.core.errors import MagicError, TapeError
from kimi_magic.core.frontend import notebook_path
from kimi_magic.core.text import count
from kimi_magic.jupyter.notebook import Notebook
from kimi_magic.session import Session
from kimi_magic.wire.kept_answers import kept_path

if TYPE_CHECKING:
    from kimi_magic.wire.tape import TapeUse

__all__ = ["change_tape", "describe_tape", "keep", "with_tape"]

NONE_ON = "No tape is on: `%kimi tape FILE` plays one, and records what is not on it."
NONE_HERE = (
    "--strict and --frozen-tools are about a tape, and none is on: --tape FILE plays one here, "
    "`%kimi tape FILE` in every cell."
)
NOT_KEPT = "Answers are not kept: `%kimi keep on` keeps them beside the notebook."
MODES = {
    "new": "what is not on it is asked, and recorded",
    "none": "nothing is sent",
    "all": "everything is asked, and recorded anew",
}


def change_tape(notebook: Notebook, file: str, options: Mapping[str, Any]) -> None:
    """Put a tape on for the whole notebook, or take it off."""
    session, settings = notebook.session, notebook.settings
    if file == "off":
        name = use.name if (use := session.tapes.current) else ""
        settings.tape = ""
        notebook.say(f"{name} is off." if name else NONE_ON)
        return
    choices = {
        "speed": options["speed"] or "max",
        "strict": options["strict"],
        "frozen_tools": options["frozen_tools"],
    }
    path = Path(file).expanduser().absolute()
    use = session.tapes.use_of(path, options["mode"] or "new", **choices)
    settings.tape = str(path)
    session.tapes.put_on(use)
    describe_tape(notebook)


def describe_tape(notebook: Notebook) -> None:
    """Say which tape is on, what made it, and what was played and recorded."""
    use = notebook.session.tapes.current
    if use is None:
        notebook.say(NONE_ON)
        return
    makers = [entry.recording.made_by for entry in use.tape.entries()]
    lead = use.tape.lead
    made = f", made with {lead.model} at {lead.endpoint}" if lead else ""
    if makers and all(maker.get("scripted") for maker in makers):
        made = ", scripted: no model made these answers"
    strict, frozen = ", strict" * use.strict, ", frozen tools" * use.frozen_tools
    lines = [
        f"{use.name}: {count(len(makers), 'recorded exchange')}{made}.",
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
        use = session.tapes.use_of(options["tape"], **choices)
        leave = session.tapes.enter(use.anew() if options["again"] else use)
    elif own := session.tapes.current:
        own = own.varied(**choices)
        leave = session.tapes.enter(own.anew() if options["again"] else own)
    elif choices:
        raise MagicError(NONE_HERE)
    try:
        yield
    finally:
        if leave is not None:
            leave()


def keep(notebook: Notebook, word: str) -> None:
    """Keep answers from now on, or no longer; or say what is kept and what that saved."""
    session, settings = notebook.session, notebook.settings
    if word not in ("", "on", "off"):
        raise MagicError("`%kimi keep on` and `%kimi keep off`; alone it says what is kept.")
    if word == "off":
        settings.keep = False
        notebook.say("Answers are no longer kept; those that are stay in their file.")
        return
    if word == "on":
        try:
            kept_path(notebook_path())
        except TapeError as error:
            raise MagicError(f"Answers cannot be kept: {error}") from None
        settings.keep = True
    if not settings.keep:
        notebook.say(NOT_KEPT)
        return
    notebook.say("\n".join(_kept(session)))


def _kept(session: Session) -> Iterator[str]:
    kept = session.tapes.kept
    if kept is None:
        yield "Answers are not kept here: this kernel has no notebook to keep them beside."
        return
    file = kept.tape.file.path
    size = f", {file.stat().st_size:,} bytes" if file.exists() else ""
    exchanges = count(len(kept.tape.entries()), "exchange")
    yield f"Answers are kept in {file}: {exchanges}{size}."
    yield from kept.tape.problems
    usage = kept.saved
    saved = f"{count(len(kept.played), 'request')} and {usage.total_tokens:,} tokens"
    yield f"In this session that saved {saved}."
    if (other := session.tapes.current) is not None and other.tape is not kept.tape:
        yield f"The tape {other.name} is on, and goes before it."


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
