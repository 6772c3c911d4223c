"""The prompt of a row: a template with ``{{ column }}``, or a function of the row."""

from __future__ import annotations

import ast
from collections.abc import Callable, Container, Mapping
from typing import Any

from kimi_magic.context.template import Evaluate, Expression, fill, in_namespace, parse
from kimi_magic.core.errors import KimiError, PromptError
from kimi_magic.core.frontend import user_namespace
from kimi_magic.core.text import clip

__all__ = ["RowPrompt", "expression_names", "names_in", "row_prompt"]

RowPrompt = Callable[[Mapping[str, Any]], Any]
ROW = "row"
"""The name of the whole row in an expression: ``{{ row["unit price"] }}``."""

SPACES = (
    'Nothing was sent. A column whose name is no Python name is written {{ row["unit price"] }}; '
    r"a literal {{ is written \{{."
)


def row_prompt(prompt: Any, *, tokens: int, names: Mapping[str, Any] | None = None) -> RowPrompt:
    """Return a function that makes the prompt of a row.

    ``names`` stand in for those of the notebook.

    Raises
    ------
    KimiError
        It is no text and no function, or a template in which nothing is to be filled in.
    """
    if callable(prompt):
        function: RowPrompt = prompt
        return function
    if not isinstance(prompt, str):
        kind = type(prompt).__name__
        raise KimiError(
            f"prompt= is a text with {{{{ column }}}}, or a function of a row; got {kind}."
        )
    try:
        pieces = parse(prompt)
    except PromptError as error:
        said = str(error).partition("\n")[0]
        raise PromptError(f"{said}\n{SPACES}") from None
    if not any(isinstance(piece, Expression) for piece in pieces):
        raise KimiError(
            "The prompt is the same for every row: name a column in it, as in {{ text }}."
        )
    return lambda row: fill(pieces, _evaluate(row, names), tokens=tokens)


def names_in(prompt: str, columns: Container[str]) -> dict[str, Any]:
    """Return the names of the notebook in a template, with their values now."""
    used: set[str] = set()
    for piece in parse(prompt):
        if isinstance(piece, Expression) and piece.source not in columns:
            used |= expression_names(piece.code)
    namespace = user_namespace()
    return {name: namespace[name] for name in used if name in namespace and name not in columns}


def expression_names(source: str) -> set[str]:
    """Return the names in an expression.

    Raises
    ------
    SyntaxError
        It is none.
    """
    nodes = ast.walk(ast.parse(source.strip(), mode="eval"))
    return {node.id for node in nodes if isinstance(node, ast.Name)}


def _evaluate(row: Mapping[str, Any], known: Mapping[str, Any] | None) -> Evaluate:
    def evaluate(source: str) -> object:
        if source in row:  # a name alone is by far the most frequent
            return row[source]
        names = {str(name): value for name, value in row.items()}
        others = user_namespace() if known is None else known
        try:
            return in_namespace({**others, ROW: row, **names})(source)
        except NameError as error:
            raise NameError(f"{error}. The row has {clip(', '.join(names), 200)}") from None

    return evaluate
