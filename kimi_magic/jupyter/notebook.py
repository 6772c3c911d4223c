"""The notebook as the magics see it: a shell with its variables and cells, and our session."""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kimi_magic.config import Settings
from kimi_magic.context.cell_errors import CellErrors
from kimi_magic.context.shown_figures import ShownFigures
from kimi_magic.core.errors import KimiError, MagicError
from kimi_magic.core.frontend import has_kernel, notebook_path, running_cell, takes_questions
from kimi_magic.core.reply import Reply
from kimi_magic.core.text import count, escape_hidden, reveal
from kimi_magic.display.view import ViewOptions
from kimi_magic.session import Session

if TYPE_CHECKING:
    from kimi_magic.context.cells import Cell
    from kimi_magic.turn.request import TurnRequest

__all__ = ["Notebook"]


@dataclass(frozen=True, slots=True)
class Notebook:
    """The place where cells and variables are read and turns are shown."""

    shell: Any
    session: Session
    cell_errors: CellErrors
    figures: ShownFigures = field(default_factory=ShownFigures)
    told: set[str] = field(default_factory=set)  # what is told once a kernel

    @property
    def variables(self) -> MutableMapping[str, Any]:
        """The namespace in which cells run."""
        variables: MutableMapping[str, Any] = self.shell.user_ns
        return variables

    @property
    def settings(self) -> Settings:
        """The settings, with changes of the environment applied."""
        self.session.settings.read_environment()
        return self.session.settings

    @property
    def current_chat(self) -> str:
        """Name of the chat that cells continue when they name none."""
        return self.session.chats.current

    def ask(self, request: TurnRequest, view: ViewOptions | None = None) -> Reply:
        """Run a turn and show it."""
        if request.chat is not None and "earlier turns" not in self.told:
            self._tell_of_earlier_turns()
        return self.session.ask(request, show=True, options=view)

    def _tell_of_earlier_turns(self) -> None:
        """Say once that the turns which this notebook shows are not remembered, if so."""
        if has_kernel(self.shell) and not takes_questions():
            return  # `jupyter execute`: nobody is there, and its output stays the same
        self.told.add("earlier turns")
        path, session = Path(notebook_path()), self.session
        if self.settings.journal_path is not None or not path.is_file():
            return
        if any(chat.turns for chat in session.chats):
            return
        from kimi_magic.chats.notebook_file import read_turns

        cell, _ = running_cell()
        with suppress(KimiError):  # no notebook that can be read
            shown = sum(
                t.chat is not None and (not cell or t.cell != cell) for t in read_turns(path)
            )
            if shown:
                are = "is" if shown == 1 else "are"
                print(
                    f"{count(shown, 'earlier turn')} of this notebook {are} not remembered, as the "
                    "journal is off: `%kimi reset`, then `%kimi load` brings back what it shows."
                )

    def find_reply(self, chat: str | None = None, turn: int | None = None) -> Reply:
        """Return the reply of a turn of a chat, counted from 1; by default the latest of all."""
        latest = chat is None and turn is None
        if latest and self.session.last is not None:
            return self.session.last
        turns = self.session.chats.known(chat or self.current_chat).turns
        if latest and not turns:
            raise MagicError("There is no turn yet: a %%kimi cell makes one.")
        number = len(turns) if turn is None else turn
        if not 1 <= number <= len(turns):
            raise MagicError(f"That chat has {len(turns)} turns; --turn counts from 1.")
        return turns[number - 1].reply

    def say(self, text: str) -> None:
        """Print a text that names or a server's answer may be part of.

        Without keys, and with each unseen character by its number.
        """
        print(reveal(self.session.redact(text)))

    def read_cells(self, numbers: Iterable[int]) -> tuple[Cell, ...]:
        """Return earlier cells with their outputs and errors."""
        from kimi_magic.context.cells import read_cell

        kept = self.cell_errors, self.figures
        return tuple(read_cell(number, self.shell, *kept) for number in numbers)

    def put_in_next_cell(self, code: str) -> None:
        """Write code into the next cell, in front ends that support it.

        What the code hides from a reader is written as escapes, and a line says so.
        """
        shown, escaped = escape_hidden(code)
        if escaped:
            were = count(escaped, "invisible character")
            print(f"The code of the next cell has {were}, written as escapes: look closely.")
        if shown:
            self.shell.set_next_input(shown)
