"""``%%kimi`` and ``%kimi``."""

from __future__ import annotations

import logging
from typing import Any

from IPython.core.magic import Magics, line_cell_magic, magics_class, no_var_expand

from kimi_magic.config import Settings
from kimi_magic.context.cell_errors import CellErrors
from kimi_magic.core.interrupts import whole_imports
from kimi_magic.jupyter.commands import help_text, run_verb
from kimi_magic.jupyter.line_parser import parse_line
from kimi_magic.jupyter.notebook import Notebook
from kimi_magic.session import current

__all__ = ["KimiMagics"]

logger = logging.getLogger("kimi_magic")


@magics_class
class KimiMagics(Settings, Magics):
    """``%%kimi`` and ``%kimi``; their settings are the traits of ``Settings``."""

    def __init__(self, shell: Any) -> None:
        super().__init__(shell=shell, parent=shell)
        self.adopt(current().settings)  # of `kimi.settings` before the extension was loaded
        self.cell_errors = CellErrors()
        self._offered = False
        self.notebook = Notebook(shell, current(self), self.cell_errors)

    @classmethod
    def of(cls, shell: Any) -> KimiMagics:
        """Return the magics of a shell; those of an earlier load keep their settings."""
        known = current().settings
        return known if isinstance(known, cls) and known.shell is shell else cls(shell)

    def offer_chats(self) -> None:
        """Offer the notebook's chats of an earlier kernel, once; this never fails."""
        if self._offered:
            return
        self._offered = True
        try:
            self.read_environment()
            path = self.journal_path
            if self.resume == "never" or path is None or not path.exists():
                return
            from kimi_magic.jupyter.journal_commands import offer

            offer(self.notebook)
        except Exception as error:  # of a file that anything may have written
            logger.debug("The journal offers no chat: %s", error, exc_info=error)

    @no_var_expand
    @line_cell_magic
    def kimi(self, line: str, cell: str | None = None) -> Any:
        """Ask a reasoning model: `%%kimi` asks the cell, `%kimi help` lists the verbs."""
        with whole_imports():
            if cell is None:
                return run_verb(self.notebook, line)
            options = parse_line(line)
            if options["help"]:
                print(help_text())
                return None
            from kimi_magic.jupyter.cell_request import run_cell

            return run_cell(self.notebook, options, cell)

    kimi.__doc__ = f"{kimi.__doc__}\n\n{help_text()}"  # `%%kimi?` shows it
