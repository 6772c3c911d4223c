"""Input transformers for lines that IPython would refuse or read as its own help syntax."""

from __future__ import annotations

import re
from collections.abc import Sequence
from tokenize import TokenInfo

from IPython.core.inputtransformer2 import TokenTransformBase

__all__ = ["QuestionLine", "begins_cell", "cell_below_comments", "cell_without_body"]

_CELL = re.compile(r"%%kimi(\s.*)?$")
_COMMENT = re.compile(r"\s*(#.*)?$")
_ENDS_IN_QUESTION = re.compile(r"(\s*(?:[^\W\d]\w*\s*=\s*)?)%kimi\s(.*\?)\s*$")


def begins_cell(lines: Sequence[str]) -> bool:
    """Return True where nothing but comments and blank lines stand above a line."""
    return all(_COMMENT.match(line.rstrip("\n")) for line in lines)


def cell_below_comments(lines: list[str]) -> list[str]:
    """Drop comments and blank lines above ``%%kimi``, as a cleanup transformer.

    To IPython a cell magic is one in the first line alone. Below anything but comments, such as
    another magic or the beginning of a string, the line stays what it was.
    """
    for number, line in enumerate(lines):
        if _CELL.match(line.rstrip()):
            return lines[number:]
        if not _COMMENT.match(line.rstrip("\n")):
            break
    return lines


def cell_without_body(lines: list[str]) -> list[str]:
    """Give ``%%kimi`` without a body an empty one, as a cleanup transformer.

    IPython refuses a cell magic without a body before the magic is called. With an empty one,
    ``%%kimi -h`` shows the help and an empty cell says what to write.
    """
    if len(lines) == 1 and (found := _CELL.match(lines[0].rstrip())):
        return [f"get_ipython().run_cell_magic('kimi', {found[1] or ''!r}, '\\n')\n"]
    return lines


# IPython skips transformers with side effects when it checks if a cell is complete. This one would
# complete the first line of a cell, and a terminal would not wait for the body.
cell_without_body.has_side_effects = True  # type: ignore[attr-defined]


class QuestionLine(TokenTransformBase):
    """Token transformer that leaves the ``?`` at the end of a ``%kimi`` line to the prompt.

    It works on tokens, not on lines, so that a string which holds such a line stays as it is.
    """

    priority = 1  # before IPython's help syntax

    @classmethod
    def find(cls, tokens_by_line: list[list[TokenInfo]]) -> QuestionLine | None:
        for tokens in tokens_by_line:
            if tokens and _ENDS_IN_QUESTION.match(tokens[0].line):
                return cls(tokens[0].start)
        return None

    def transform(self, lines: list[str]) -> list[str]:
        found = _ENDS_IN_QUESTION.match(lines[self.start_line])
        assert found, "find returned this line"
        call = f"{found[1]}get_ipython().run_line_magic('kimi', {found[2].strip()!r})\n"
        return [*lines[: self.start_line], call, *lines[self.start_line + 1 :]]
