"""The prompt as it is sent: with variables and cells attached, and without secrets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kimi_magic.core.errors import KimiError
from kimi_magic.core.messages import ImagePart, Message, Part, as_content, join_parts
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


def check_prompt(prompt: Any) -> str | tuple[Part, ...]:
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
    sees: bool = False,
) -> ComposedPrompt:
    """Attach variables and cells to the prompt, and mask what looks like a key.

    A summary has at most ``tokens`` tokens where the request says nothing else; ``instruction`` is
    added at the end. Without a redactor, what looks like a key may be sent. For a model that
    ``sees``, figures are drawn.

    Raises
    ------
    KimiError
        The prompt is none or empty, or a variable or cell is not there.
    """
    content = check_prompt(request.prompt)
    variables = _variables(request.variables, namespace)
    blocks = _blocks(request, variables, request.var_tokens or tokens, sees=sees)
    before = [piece for block in blocks for piece in (block, "\n\n")]
    pieces = [content] if isinstance(content, str) else map(_drawn_anew, content)
    after = f"\n\n{instruction}" if instruction else ""
    content = join_parts([*request.images, *before, *pieces, after])
    if redactor is not None:
        content = redactor.value(content)
    values = dict.fromkeys([*variables, *request.expressions])
    masked = redactor.found if redactor else ()
    return ComposedPrompt(Message("user", content), tuple(values), masked)


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


def _drawn_anew(part: Part) -> Part:
    """Return a picture of the user's own bounded and without metadata."""
    if not isinstance(part, ImagePart) or part.width:
        return part
    from kimi_magic.context.pictures import drawn_anew

    return drawn_anew(part)


def _blocks(
    request: TurnRequest, variables: Mapping[str, Any], tokens: int, *, sees: bool
) -> Iterator[str | ImagePart]:
    """Yield the attached cells and variables: as text, and as pictures for a model that sees."""
    if request.cells:
        from kimi_magic.context.cells import cell_blocks

        yield cell_blocks(list(request.cells), tokens=tokens)
        if sees and any(cell.images for cell in request.cells):
            from kimi_magic.context.pictures import captioned

            for cell in request.cells:
                caption = f"A picture among the outputs of In[{cell.number}]"
                yield from captioned(caption, cell.images)
    if not variables:
        return
    from kimi_magic.context.variables import picture_caption, variable_blocks

    pictures = {}
    if sees:
        from kimi_magic.context.pictures import is_picture, picture, with_caption

        drawn = {n: picture(v, tokens=tokens) for n, v in variables.items() if is_picture(v)}
        pictures = {name: image for name, image in drawn.items() if image}
    if texts := {name: value for name, value in variables.items() if name not in pictures}:
        yield variable_blocks(texts, tokens=tokens)
    for name, image in pictures.items():
        yield from with_caption(picture_caption(name), image)
