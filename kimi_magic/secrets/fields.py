"""Secrets that the name of a field tells: ``password='…'`` in the repr of any class.

A password looks like any other word, so that `patterns` does not find it. A name may be of a secret
for certain (``api_key``) or perhaps (``token``, which is a word in the study of language): there
the value must look like one as well. Names of other things are left alone: ``max_tokens=300``,
``key='column'``, ``pad_token='[PAD]'``.
"""

from __future__ import annotations

import re
from functools import cache

from kimi_magic.secrets.patterns import MASKED, mask_shapes

__all__ = ["is_secret_field", "mask_before_cut", "mask_fields", "may_be_secret", "names_secret"]

MAX_NAME = 60
LOOKED_AT = 200  # characters of a value
SEEN = 4096  # beyond a cut, characters that may tell what stands before it

_MAY_BE = re.compile(
    r"(?i)((api|access|private|secret)[_-]?key|token|secret|password|passwd|authorization)$"
)
# Of a name in lower case, with underscores between its words
_CERTAIN = re.compile(
    r"(?:.*_)?(?:password|passwd|pwd|passphrase|passcode|secret|credentials?|authorization"
    r"|(?:api|access|private|secret|secret_access|account|signing|encryption|subscription)_?key"
    r"|(?:api|auth|access|refresh|id|bearer|session|security|bot|github|gitlab|slack|hf)_?token)"
    r"(?:_?\d)?"
)
_PERHAPS = re.compile(r"(?:.*_)?token")
# Values that are none: placeholders, types of a column
_NO_SECRET = re.compile(
    r"|none|null|nan|true|false|str|string|object|text|bytes|int|varchar|secretstr|password|hidden"
    rf"|{re.escape(MASKED)}|\[key\]|[*•.…x]+|<.*>?|\$?\{{.*\}}?|\$[A-Z_]+",
    re.IGNORECASE | re.DOTALL,
)
_PATH = re.compile(r"~?/.*|[A-Za-z]:\\.*", re.DOTALL)  # of the working directory: `pwd`
_LIKE_A_SECRET = re.compile(r"(?=.*\d)(?=.*[A-Za-z])[\w+/=.~:-]{12,}", re.DOTALL)
_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[-.\s]+")


def may_be_secret(name: str) -> bool:
    """Return True for the name of a variable that should rather not be written into a file."""
    return _MAY_BE.search(name) is not None


def names_secret(name: object) -> bool:
    """Return True for a name that is a secret's for certain, or perhaps."""
    return type(name) is str and bool(_kind_of(name[:MAX_NAME]))


def is_secret_field(name: object, value: object) -> bool:
    """Return True for a field that holds a secret: a text, by its name and perhaps its looks."""
    if type(name) is not str or type(value) not in (str, bytes):
        return False
    kind = _kind_of(name[:MAX_NAME])
    if not kind:
        return False
    part = value[:LOOKED_AT]  # type: ignore[index]
    return _is_secret(kind, part.decode("latin-1") if type(part) is bytes else part)


def mask_fields(text: str) -> str:
    """Put ``[masked]`` for the values of secret fields in a repr: ``password='…'``.

    A value may be cut off at the end of the text.
    """
    pieces, end = [], 0
    for field in _field().finditer(text):
        kind = _kind_of(field["name"])
        if not kind or field.end() < end:
            continue
        value = _value(field["opening"]).match(text, field.end())
        if value is not None and _is_secret(kind, value[0][:LOOKED_AT]):
            pieces += [text[end : value.start()], MASKED]
            end = value.end()
    return "".join([*pieces, text[end:]])


def mask_before_cut(text: str, limit: int, *, fields: bool = False) -> str:
    """Mask what looks like a secret in a text that will be cut to about ``limit`` characters.

    What is left of a secret after the cut may not look like one any more. With ``fields`` the text
    is a repr, and what a field's name tells is masked too, also in one that is not cut.
    """
    if len(text) <= limit and not fields:
        return text
    seen, rest = text[: limit + SEEN], text[limit + SEEN :]
    part = mask_shapes(seen)[0]
    if fields:
        part = mask_fields(part)
    if rest and len(part) < limit:
        # Shorter now, it lets its end come into sight, where a secret may have begun.
        return f"{part[: part.rfind(MASKED) + len(MASKED)]}…"
    return part + rest


@cache
def _kind_of(name: str) -> str:
    words = _WORDS.sub("_", name).lower()
    if _CERTAIN.fullmatch(words):
        return "pwd" if words.endswith("pwd") else "certain"
    return "perhaps" if _PERHAPS.fullmatch(words) else ""


def _is_secret(kind: str, value: str) -> bool:
    if _NO_SECRET.fullmatch(value.strip()) or (kind == "pwd" and _PATH.fullmatch(value)):
        return False
    return kind != "perhaps" or _LIKE_A_SECRET.fullmatch(value) is not None


@cache
def _field() -> re.Pattern[str]:
    """Match a name, perhaps in quotes, and what leads to its value: a quote, or ``=`` alone."""
    return re.compile(
        r"""
        (?<![\w-]) (?P<around>\\{0,3}['"]|) (?P<name>[A-Za-z_][\w-]{2,59}) (?P=around)
        (?: \s{0,3} [=:] \s{0,3} [bru]? (?P<opening>\\{0,3}['"]) | = )
        """,
        re.VERBOSE,
    )


@cache
def _value(opening: str | None) -> re.Pattern[str]:
    """Match a value to its closing quote, or a bare one that is no call and no index.

    Within a text, quotes of its own kind have a backslash before them.
    """
    if not opening:
        return re.compile(r"""[^\s,;'"()\[\]{}<>&|]{3,200}(?![\w(\[.])""")
    return re.compile(rf"(?:(?!{re.escape(opening)})(?:\\.|[^\\]))*", re.DOTALL)
