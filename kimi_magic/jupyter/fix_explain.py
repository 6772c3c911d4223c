"""Questions about a cell of the notebook, and the code in their answers."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from kimi_magic.core.reply import Reply
from kimi_magic.jupyter.notebook import Notebook

__all__ = ["EXPLAIN", "FIX", "MOST_TOKENS", "ONLY_CODE", "Question", "about", "code_of"]

FIX = (
    "The cell In[{0}] above failed. Say in a few sentences why. Then give the whole corrected "
    "cell as one Python code block."
)
EXPLAIN = "Explain what the cell In[{0}] above does and what its output says."
ONLY_CODE = "Answer with one Python code block and nothing else."
MOST_VARIABLES = 8
MOST_TOKENS = 600
PYTHON = ("python", "py", "python3", "ipython")


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a cell, with the numbers of the cells and the variables that go along."""

    prompt: str
    cells: tuple[int, ...]
    variables: tuple[str, ...]


def about(notebook: Notebook, number: int, question: str, words: str) -> Question:
    """Make `FIX` or `EXPLAIN` about a cell and the variables that it reads.

    ``words`` are the user's own and stand below the question.
    """
    (cell,) = notebook.read_cells([number])
    variables = _variables(notebook.shell.transform_cell(cell.source), notebook.variables)
    prompt = question.format(number) + (f"\n\n{words}" if words else "")
    return Question(prompt, (number,), tuple(variables))


def code_of(reply: Reply) -> str:
    """Return the answer's last block of Python, or all of it if it is code; "" for prose."""
    blocks = reply.code_blocks
    tagged = [block.text for block in blocks if block.language.lower() in PYTHON]
    untagged = [block.text for block in blocks if not block.language]
    if found := tagged or untagged:
        return found[-1].rstrip("\n")
    return reply.text.strip() if _is_program(reply.text) else ""


def _variables(source: str, namespace: Mapping[str, Any]) -> list[str]:
    """Name the data that code reads: no modules, classes or functions."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return []
    names = dict.fromkeys(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
    found = {name: namespace[name] for name in names if name in namespace}
    return [name for name, value in found.items() if not _is_code(value)][:MOST_VARIABLES]


def _is_program(text: str) -> bool:
    """Return True for code; a lone word such as «Yes» parses as Python, too, and is none."""
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError):
        return False
    words = (ast.Name, ast.Constant)
    return not all(isinstance(p, ast.Expr) and isinstance(p.value, words) for p in body)


def _is_code(value: object) -> bool:
    return isinstance(value, ModuleType | type) or inspect.isroutine(value)
