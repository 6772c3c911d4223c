"""``%kimi fix`` and ``%kimi explain``: a question about a cell, and the code of an answer."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from kimi_magic.core.reply import Reply

__all__ = ["EXPLAIN", "FIX", "ONLY_CODE", "code_of", "variables_of"]

FIX = (
    "The cell In[{0}] above failed. Say in a few sentences why. Then give the whole corrected "
    "cell as one Python code block."
)
EXPLAIN = "Explain what the cell In[{0}] above does and what its output says."
ONLY_CODE = "Answer with one Python code block and nothing else."
MOST_VARIABLES = 8
PYTHON = ("python", "py", "python3", "ipython")


def variables_of(source: str, namespace: Mapping[str, Any]) -> dict[str, Any]:
    """The variables that code reads, with their values; not its modules and functions."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return {}
    names = dict.fromkeys(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
    found = {name: namespace[name] for name in names if name in namespace}
    data = {name: value for name, value in found.items() if not _is_code(value)}
    return dict(list(data.items())[:MOST_VARIABLES])


def code_of(reply: Reply) -> str:
    """The Python code of an answer: its last block, or all of it; "" where it is prose."""
    blocks = reply.code_blocks
    tagged = [block.text for block in blocks if block.language.lower() in PYTHON]
    untagged = [block.text for block in blocks if not block.language]
    found = tagged or untagged
    if found:
        return found[-1].rstrip("\n")
    return reply.text.strip() if _is_program(reply.text) else ""


def _is_program(text: str) -> bool:
    """Whether a text without fences is code, and no single word that could be."""
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError):
        return False
    words = (ast.Name, ast.Constant)
    return not all(isinstance(p, ast.Expr) and isinstance(p.value, words) for p in body)


def _is_code(value: object) -> bool:
    return isinstance(value, ModuleType | type) or inspect.isroutine(value)
