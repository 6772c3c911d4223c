"""The prompt as it is sent: with variables and cells attached, and without secrets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from kimi_magic.core.errors import KimiError
from kimi_magic.core.messages import ImagePart, Message, Part, as_content, join_parts, text_of
from kimi_magic.core.sent import Attached
from kimi_magic.secrets.redact import Redactor
from kimi_magic.turn.request import TurnRequest

if TYPE_CHECKING:
    from kimi_magic.context.summaries.detail import Detail

__all__ = ["ComposedPrompt", "check_prompt", "compose"]

MOST_ATTACHED = 100
_ORDER = ("variable", "expression", "cell", "image")


@dataclass(frozen=True, slots=True)
class ComposedPrompt:
    """A prompt ready to be sent.

    ``variables`` are the variables and expressions whose values or summaries it holds,
    ``attached`` is all that went along, ``masked`` describes the secrets that were taken out.
    """

    message: Message
    variables: tuple[str, ...] = ()
    masked: tuple[str, ...] = ()
    attached: tuple[Attached, ...] = ()


def check_prompt(prompt: Any) -> str | tuple[Part, ...]:
    """Return a prompt's content.

    Raises
    ------
    KimiError
        It is no prompt, or an empty one.
    """
    content = as_content(prompt)
    if not text_of(content).strip():
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
    values: str = "rows",
) -> ComposedPrompt:
    """Attach variables and cells to the prompt, and mask what looks like a key.

    A summary has at most ``tokens`` tokens where the request says nothing else; ``instruction`` is
    added at the end. Without a redactor, what looks like a key may be sent. For a model that
    ``sees``, figures are drawn. ``values`` is the setting ``summary_values``.

    Raises
    ------
    KimiError
        The prompt is none or empty, or a variable or cell is not there.
    """
    content = check_prompt(request.prompt)
    variables, details = _variables(request, namespace, values)
    attached: list[Attached] = []
    limit = request.var_tokens or tokens
    blocks = _blocks(request, variables, details, limit, sees=sees, attached=attached)
    before = [piece for block in blocks for piece in (block, "\n\n")]
    pieces = [content] if isinstance(content, str) else map(_drawn_anew, content)
    after = f"\n\n{instruction}" if instruction else ""
    content = join_parts([*request.images, *before, *pieces, after])
    if redactor is not None:
        content = redactor.value(content)
    named = dict.fromkeys([*variables, *request.expressions])
    masked = redactor.found if redactor else ()
    attached = sorted([*attached, *request.attached], key=lambda each: _ORDER.index(each.kind))
    return ComposedPrompt(
        Message("user", content), tuple(named), masked, tuple(attached[:MOST_ATTACHED])
    )


def _variables(
    request: TurnRequest, namespace: Mapping[str, Any], values: str
) -> tuple[dict[str, Any], _Details]:
    """Look names up, with the detail of each; a mapping brings its values along."""
    given, detail = request.variables, _Details(values, request.var_rows)
    if given is None:
        return {}, detail
    from kimi_magic.context.variables import details_of, find_variables, with_detail

    if isinstance(given, Mapping):
        named = {with_detail(str(name)): value for name, value in given.items()}
        own = {name: of for name, of in named if of}
        return {name: value for (name, _), value in named.items()}, replace(detail, own=own)

    names = [given] if isinstance(given, str) else given
    if not isinstance(names, Iterable) or not all(isinstance(name, str) for name in names):
        raise KimiError('variables= takes names, such as ["df"], or a mapping {"df": df}.')
    return find_variables(names, namespace), replace(detail, own=details_of(names))


@dataclass(frozen=True, slots=True)
class _Details:
    """The detail in which values are sent: those in ``own`` by their names, and all others."""

    values: str
    rows: int | None
    own: Mapping[str, str] = field(default_factory=dict)

    def of(self, name: str = "") -> Detail:
        from kimi_magic.context.summaries.detail import Detail

        if name in self.own:
            return Detail.of(self.own[name], self.rows or None)
        return Detail.of(self.values, self.rows)


def _drawn_anew(part: Part) -> Part:
    """Return a picture of the user's own bounded and without metadata."""
    if not isinstance(part, ImagePart) or part.width:
        return part
    from kimi_magic.context.pictures import drawn_anew

    return drawn_anew(part)


def _blocks(
    request: TurnRequest,
    variables: Mapping[str, Any],
    details: _Details,
    tokens: int,
    *,
    sees: bool,
    attached: list[Attached],
) -> Iterator[str | ImagePart]:
    """Yield the attached cells and variables: as text, and as pictures for a model that sees.

    What goes along is noted in ``attached``.
    """
    if request.cells:
        from kimi_magic.context.cells import attached_cell, cell_blocks

        whole = details.of().values == "rows"
        attached += (attached_cell(cell, values=whole) for cell in request.cells)
        yield cell_blocks(list(request.cells), tokens=tokens, values=whole)
        if sees and whole and any(cell.images for cell in request.cells):
            from kimi_magic.context.pictures import captioned

            for cell in request.cells:
                caption = f"A picture among the outputs of In[{cell.number}]"
                yield from captioned(caption, cell.images)
    if not variables:
        return
    from kimi_magic.context.variables import attach_variables, picture_caption

    pictures = {}
    if sees:
        from kimi_magic.context.pictures import is_picture, picture, with_caption

        drawn = {
            name: picture(value, tokens=tokens)
            for name, value in variables.items()
            if is_picture(value) and details.of(name).values == "rows"
        }
        pictures = {name: image for name, image in drawn.items() if image}
    if texts := {name: value for name, value in variables.items() if name not in pictures}:
        each = {name: details.of(name) for name in texts}
        text, found = attach_variables(texts, tokens=tokens, details=each)
        attached += found
        yield text
    for name, image in pictures.items():
        attached.append(Attached("variable", name, note="a picture"))
        yield from with_caption(picture_caption(name), image)
