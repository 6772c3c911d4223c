"""Evaluate ``{{ expression }}`` in a prompt.

Python's tokenizer finds the end of an expression. Single braces are literal, and so is ``{{`` that
is written ``\\{{``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from fractions import Fraction
from io import StringIO
from pathlib import PurePath
from tokenize import OP, TokenError, TokenInfo, generate_tokens
from typing import Any
from uuid import UUID

from kimi_magic.chats.context_window import CHARS_PER_TOKEN
from kimi_magic.context.summaries.detail import ROWS, Detail, Summary
from kimi_magic.context.summaries.own_words import has_own_words
from kimi_magic.context.summaries.summary import summary_of
from kimi_magic.core.errors import PromptError
from kimi_magic.core.messages import ImagePart, Message, Part, join_parts
from kimi_magic.core.sent import Attached
from kimi_magic.core.stdout import redirected
from kimi_magic.core.text import cut
from kimi_magic.core.time_limit import USER_ERRORS

__all__ = ["Evaluate", "Expression", "expand", "fill", "in_namespace", "message_of", "parse"]

Evaluate = Callable[[str], object]

MAX_QUOTED = 120
MAX_WORDS = 100  # characters of a value that counts as a word of the prompt, not as data
MAX_NAMES = 8  # the same for the summary of a value that is no text, such as None
MAX_MESSAGE = 500

_OPENING = re.compile(r"\\?\{\{")
_OPENERS = {")": "(", "]": "[", "}": "{"}
# The tokenizer fails at these, and they may stand in the text around an expression. It gets spaces
# instead; the expression's own source is not changed.
_UNREADABLE = re.compile("[\0\r\ud800-\udfff]")
_SCALARS = (int, float, complex, Decimal, Fraction, date, time, timedelta, UUID, PurePath)
_HINT = r"Nothing was sent. A literal `{{` is written `\{{`; --raw leaves all of them as they are."


@dataclass(frozen=True, slots=True)
class Expression:
    """The source between ``{{`` and ``}}``, and the line of the prompt where it begins."""

    source: str
    line: int

    @property
    def code(self) -> str:
        """The source for ``eval``, in parentheses if it has several lines."""
        return f"({self.source}\n)" if "\n" in self.source else self.source

    def __str__(self) -> str:
        source = cut(" ".join(self.source.split()), MAX_QUOTED)
        return f"`{{{{ {source} }}}}` in line {self.line}"


def expand(text: str, evaluate: Evaluate, *, tokens: int = 1500) -> str:
    """Replace each expression by its value.

    Expressions are evaluated once, in the order of the text, and only if all of them can be parsed.
    Values are not expanded again. ``tokens`` limits each value's summary, but not a str, which is
    put in unchanged.
    """
    return Message("user", fill(parse(text), evaluate, tokens=tokens)).text


def parse(text: str) -> list[str | Expression]:
    """Split a prompt into literal text and valid expressions."""
    pieces: list[str | Expression] = []
    start = 0
    while found := _OPENING.search(text, start):
        pieces.append(text[start : found.start()])
        if found[0].startswith("\\"):
            start = found.end()
            pieces.append("{{")
        else:
            start = _end(text, found.start())
            pieces.append(_checked(text, found.end(), start - 2))
    pieces.append(text[start:])
    return pieces


def fill(
    pieces: Iterable[str | Expression],
    evaluate: Evaluate,
    *,
    tokens: int = 1500,
    draw: Callable[[object], ImagePart | None] | None = None,
    detail: Detail = ROWS,
    attached: list[Attached] | None = None,
    texts: list[str] | None = None,
) -> str | tuple[Part, ...]:
    """Join the pieces of a prompt with the values of its expressions, as `expand` does.

    ``draw`` makes a picture of a value, or None where it is to be written. ``detail`` is that of
    summaries: texts and numbers are put in as they are. ``attached`` takes what is told of values,
    ``texts`` the texts of those that are more than a few words.
    """
    filled: list[str | ImagePart] = []
    for piece in pieces:
        if isinstance(piece, str):
            filled.append(piece)
        else:
            value = _evaluated(piece, evaluate)
            image = draw(value) if draw else None
            plain = None if image else _plain(value, tokens)
            found = Summary(plain or "")
            if image is None and plain is None:
                found = summary_of(value, tokens=tokens, detail=detail)
            filled.append(image or found.text)
            most = MAX_WORDS if plain is not None else MAX_NAMES
            if texts is not None and ("\n" in found.text or len(found.text) > most):
                texts.append(found.text)
            if attached is not None:
                note = "a picture" if image else detail.note if plain is None else ""
                rows = (None, None) if note else (found.shown, found.of)
                name = cut(" ".join(piece.source.split()), MAX_QUOTED)
                attached.append(Attached("expression", name, *rows, note, found.personal))
    return join_parts(filled)


def _end(text: str, start: int) -> int:
    """Find where the braces that open at ``start`` are closed.

    To the tokenizer they are a set in a set, with each line break, string and bracket inside.
    """
    lines = _Lines(text, start)
    opened: list[TokenInfo] = []
    closed_at = -1
    try:
        for token in generate_tokens(lines.next):
            if token.type != OP or token.string not in "()[]{}":
                continue
            if token.string not in _OPENERS:
                opened.append(token)
                continue
            opener = opened.pop().string
            if opener != _OPENERS[token.string]:
                raise _unreadable(text, start, f"'{token.string}' does not close '{opener}'")
            before, closed_at = closed_at, lines.offset(token.end)
            if not opened and before == closed_at - 1:
                return closed_at
            if not opened:
                break
    except (TokenError, SyntaxError) as error:
        if "EOF" not in error.args[0]:
            raise _unreadable(text, start, f"SyntaxError: {error.args[0]}") from None
    raise _unreadable(text, start, "it has no end `}}`")


class _Lines:
    """Feeds a text from ``start`` to the tokenizer, line by line."""

    def __init__(self, text: str, start: int) -> None:
        self._text = text
        self._starts = [start]

    def next(self) -> str:
        start = self._starts[-1]
        end = self._text.find("\n", start) + 1 or len(self._text)
        self._starts.append(end)
        return _UNREADABLE.sub(" ", self._text[start:end])

    def offset(self, place: tuple[int, int]) -> int:
        row, column = place
        return self._starts[row - 1] + column


def _unreadable(text: str, start: int, why: str) -> PromptError:
    rest = text[start : text.find("\n", start) + 1 or None].rstrip()
    line = text.count("\n", 0, start) + 1
    return PromptError(f"`{cut(rest, MAX_QUOTED)}` in line {line}: {why}\n{_HINT}")


def _checked(text: str, start: int, end: int) -> Expression:
    """Return the expression at a place, or raise if it is none."""
    expression = Expression(text[start:end].strip(), text.count("\n", 0, start) + 1)
    if not expression.source:
        raise PromptError(f"{expression} holds no expression\n{_HINT}")
    try:
        compile(expression.code, "<prompt>", "eval", dont_inherit=True)
    except USER_ERRORS as error:
        raise PromptError(f"{expression}: {message_of(error)}\n{_HINT}") from None
    return expression


def _evaluated(expression: Expression, evaluate: Evaluate) -> object:
    try:
        return evaluate(expression.code)
    except USER_ERRORS as error:
        raise PromptError(f"{expression}: {message_of(error)}\n{_HINT}") from error


def message_of(error: BaseException) -> str:
    """Return an error's name and message, without its place, which is not the prompt's."""
    try:
        text = error.msg if isinstance(error, SyntaxError) else str(error)
    except USER_ERRORS:
        text = ""
    name = type(error).__name__
    return cut(f"{name}: {text}" if text else name, MAX_MESSAGE)


def _plain(value: object, tokens: int) -> str | None:
    """Write a text or a number as part of a sentence; None for what gets a summary."""
    kind: Any = type(value)
    if issubclass(kind, str) and not has_own_words(kind):
        return str.__str__(value)
    if issubclass(kind, _SCALARS):
        with suppress(*USER_ERRORS):  # an integer of too many digits
            return cut(str(value), tokens * CHARS_PER_TOKEN)
    return None


def in_namespace(namespace: Mapping[str, object], **more: object) -> Evaluate:
    """Evaluate expressions as a cell would; the namespace takes precedence over ``more``.

    The value of an expression that prints and returns None, like ``df.info()``, is what it printed.
    Assignments with ``:=`` do not outlive the expression.
    """

    def evaluate(source: str) -> object:
        printed = StringIO()
        with redirected("stdout", printed):
            value: object = eval(source, {**more, **namespace})  # noqa: S307 - the user's own
        return printed.getvalue().strip() or None if value is None else value

    return evaluate
