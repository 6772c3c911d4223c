"""What a question becomes before it leaves: the prompt with what is attached, without secrets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kimi_magic.core.errors import KimiError
from kimi_magic.core.messages import Message, TextPart, as_content
from kimi_magic.secrets.keys import Key
from kimi_magic.secrets.redact import Redactor
from kimi_magic.turn.request import TurnRequest

__all__ = ["Composed", "compose"]


@dataclass(frozen=True, slots=True)
class Composed:
    """A prompt ready to be sent.

    Attributes
    ----------
    message : Message
    variables : tuple of str
        The variables and expressions whose values or summaries it holds.
    masked : tuple of str
        What was taken out as a secret, in words.
    """

    message: Message
    variables: tuple[str, ...] = ()
    masked: tuple[str, ...] = ()


def compose(
    question: TurnRequest,
    namespace: Mapping[str, Any],
    keys: Sequence[Key],
    *,
    tokens: int,
    closing: str = "",
) -> Composed:
    """Attach variables and cells to the prompt, and mask what looks like a key.

    Parameters
    ----------
    namespace : mapping
        Where the names of variables come from.
    keys : sequence of Key
    tokens : int
        The longest summary of each variable, where the question says nothing else.
    closing : str
        What is added below.

    Raises
    ------
    KimiError
        The prompt is none or empty, or a variable or cell is not there.
    """
    content = as_content(question.prompt)
    if not Message("user", content).text.strip():
        raise KimiError("The prompt is empty: write what you want to ask.")
    variables = _variables(question.variables, namespace)
    blocks = _blocks(question, variables, question.var_tokens or tokens)
    content = _between(f"{blocks}\n\n" if blocks else "", content, closing and f"\n\n{closing}")
    redactor = Redactor(keys, shapes=True)
    if not question.allow_secrets:
        content = redactor.value(content)
    held = dict.fromkeys([*variables, *question.expressions])
    return Composed(Message("user", content), tuple(held), redactor.found)


def _between(
    before: str, content: str | tuple[TextPart, ...], after: str
) -> str | tuple[TextPart, ...]:
    if isinstance(content, str):
        return f"{before}{content}{after}"
    parts = (TextPart(before), *content, TextPart(after))
    return tuple(part for part in parts if part.text)


def _variables(given: Any, namespace: Mapping[str, Any]) -> dict[str, Any]:
    """By name: names are looked up, a mapping brings its values along."""
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return {str(name): value for name, value in given.items()}
    from kimi_magic.context.variables import find_variables

    names = [given] if isinstance(given, str) else given
    if not isinstance(names, Iterable) or not all(isinstance(name, str) for name in names):
        raise KimiError('variables= takes names, such as ["df"], or a mapping {"df": df}.')
    return find_variables(names, namespace)


def _blocks(question: TurnRequest, variables: Mapping[str, Any], tokens: int) -> str:
    from kimi_magic.context.cells import cell_blocks
    from kimi_magic.context.variables import variable_blocks

    cells = cell_blocks(list(question.cells), tokens=tokens) if question.cells else ""
    values = variable_blocks(variables, tokens=tokens) if variables else ""
    return "\n\n".join(filter(None, [cells, values]))
