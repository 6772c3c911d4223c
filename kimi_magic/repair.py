"""``%kimi fix`` and ``%kimi explain``: a question about a cell, and the code of an answer."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from kimi_magic.messages import Reply

if TYPE_CHECKING:
    from kimi_magic.context.cells import Cell

__all__ = ["EXPLAIN", "FIX", "ONLY_CODE", "code_of", "variables_of"]

FIX = (
    "The cell In[{0}] above failed. Say in a few sentences why. Then give the whole corrected "
    "cell as one Python code block."
)
EXPLAIN = "Explain what the cell In[{0}] above does and what its output says."
ONLY_CODE = "Answer with one Python code block and nothing else."
MOST_VARIABLES = 8


def variables_of(cell: Cell, namespace: Mapping[str, Any]) -> dict[str, Any]:
    """The variables that a cell reads, with their values; not its modules and functions."""
    try:
        tree = ast.parse(cell.source)
    except SyntaxError:
        return {}
    names = dict.fromkeys(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
    found = {name: namespace[name] for name in names if name in namespace}
    data = {name: value for name, value in found.items() if not _is_code(value)}
    return dict(list(data.items())[:MOST_VARIABLES])


def code_of(reply: Reply) -> str:
    """The Python code of an answer: its last block of code, or all of it where it has none.

    Returns
    -------
    str
        Empty where the answer is prose.
    """
    blocks = [b.text for b in reply.code_blocks if b.language.lower() in ("", "python", "py")]
    if blocks:
        return blocks[-1].rstrip("\n")
    try:
        ast.parse(reply.text)
    except SyntaxError:
        return ""
    return reply.text.strip()


def _is_code(value: object) -> bool:
    return isinstance(value, ModuleType | type) or inspect.isroutine(value)
