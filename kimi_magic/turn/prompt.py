"""The prompt as it is sent: with variables and cells attached, and without secrets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kimi_magic.core.errors import KimiError
from kimi_magic.core.messages import Message, TextPart, as_content
from kimi_magic.secrets.redact import Redactor
from kimi_magic.turn.request import TurnRequest

__all__ = ["ComposedPrompt", "check_prompt", "compose"]


@dataclass(frozen=True, slots=True)
class ComposedPrompt:
    """A prompt ready to be sent.

    ``variables`` are the variables and expressions whose values or summaries it holds, ``masked``
    describes the secrets that were taken out.
    """

    message: Message
    variables: tuple[str, ...] = ()
    masked: tuple[str, ...] = ()


def check_prompt(prompt: Any) -> str | tuple[TextPart, ...]:
    """Return a prompt's content.

    Raises
    ------
    KimiError
        It is no prompt, or an empty one.
    """
    content = as_content(prompt)
    if not Message("user", content).text.strip():
        raise KimiError("The prompt is empty: write what you want to ask.")
    return content


def compose(
    request: TurnRequest,
    namespace: Mapping[str, Any],
    redactor: Redactor | None,
    *,
    tokens: int,
    instruction: str = "",
) -> ComposedPrompt:
    """Attach variables and cells to the prompt, and mask what looks like a key.

    A summary has at most ``tokens`` tokens where the request says nothing else; ``instruction`` is
    added at the end. Without a redactor, what looks like a key may be sent.

    Raises
    ------
    KimiError
        The prompt is none or empty, or a variable or cell is not there.
    """
    content = check_prompt(request.prompt)
    variables = _variables(request.variables, namespace)
    blocks = _blocks(request, variables, request.var_tokens or tokens)
    before = f"{blocks}\n\n" if blocks else ""
    content = _between(before, content, instruction and f"\n\n{instruction}")
    if redactor is not None:
        content = redactor.value(content)
    values = dict.fromkeys([*variables, *request.expressions])
    masked = redactor.found if redactor else ()
    return ComposedPrompt(Message("user", content), tuple(values), masked)


def _between(
    before: str, content: str | tuple[TextPart, ...], after: str
) -> str | tuple[TextPart, ...]:
    if isinstance(content, str):
        return f"{before}{content}{after}"
    parts = (TextPart(before), *content, TextPart(after))
    return tuple(part for part in parts if part.text)


def _variables(given: Any, namespace: Mapping[str, Any]) -> dict[str, Any]:
    """Look names up; a mapping brings its values along."""
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return {str(name): value for name, value in given.items()}
    from kimi_magic.context.variables import find_variables

    names = [given] if isinstance(given, str) else given
    if not isinstance(names, Iterable) or not all(isinstance(name, str) for name in names):
        raise KimiError('variables= takes names, such as ["df"], or a mapping {"df": df}.')
    return find_variables(names, namespace)


def _blocks(request: TurnRequest, variables: Mapping[str, Any], tokens: int) -> str:
    from kimi_magic.context.cells import cell_blocks
    from kimi_magic.context.variables import variable_blocks

    cells = cell_blocks(list(request.cells), tokens=tokens) if request.cells else ""
    values = variable_blocks(variables, tokens=tokens) if variables else ""
    return "\n\n".join(filter(None, [cells, values]))
