"""What a docstring says about a function and its parameters, in each of the three styles."""

from __future__ import annotations

import inspect
import re
import textwrap
from typing import Any

__all__ = ["read_docstring"]

_SECTIONS = (
    r"(?:Args|Arguments|Params|Parameters|Keyword (?:Args|Arguments|Parameters)|"
    r"Other (?:Args|Arguments|Params|Parameters)|Attributes|Returns?|Yields?|Receives|Raises|"
    r"Exceptions|Warns|Warnings?|Examples?|Notes?|References|See Also)"
)
_STYLES = {
    "numpy": re.compile(rf"^[ \t]*{_SECTIONS}[ \t]*\n[ \t]*-{{3,}}[ \t]*$", re.MULTILINE),
    "google": re.compile(rf"^[ \t]*{_SECTIONS}:[ \t]*$", re.MULTILINE | re.IGNORECASE),
    "sphinx": re.compile(r"^[ \t]*:(?:param|parameter|arg|argument|key|keyword)\b", re.MULTILINE),
}
_PARAMETERS = ("parameters", "other parameters")


def read_docstring(text: str | None) -> tuple[str, dict[str, str]]:
    """What a function does, and the parameters' descriptions by name.

    Parameters
    ----------
    text : str or None
        A docstring in Google, NumPy or Sphinx style, or in none.
    """
    text = inspect.cleandoc(text or "").strip()
    purpose, described = text, dict[str, str]()
    for style, mark in _STYLES.items():
        if mark.search(text):
            # The parsers take a section for one only after a blank line.
            spaced = text if style == "sphinx" else mark.sub(r"\n\g<0>", _indented(text))
            prose, found = _parse(spaced, style)
            purpose, described = min(purpose, prose, key=len), found | described
    return purpose, described


def _indented(text: str) -> str:
    """Give the lines of a lone section at the very start the indent that cleandoc took."""
    first, _, rest = text.partition("\n")
    if _STYLES["google"].fullmatch(first) and not rest.startswith((" ", "\n")):
        rest = textwrap.indent(rest, "    ")
    return f"{first}\n{rest}"


def _parse(text: str, style: Any) -> tuple[str, dict[str, str]]:
    import griffe

    options: dict[str, Any] = {"warnings": False}
    prose: list[str] = []
    described: dict[str, str] = {}
    for section in griffe.Docstring(text).parse(style, **options):
        if section.kind.value == "text":
            prose.append(section.value.strip())
        elif section.kind.value in (*_PARAMETERS, "keyword arguments"):
            for parameter in section.value:
                words = " ".join(parameter.description.split())
                for name in parameter.name.split(","):
                    described[name.strip().lstrip("*\\")] = words
    return "\n\n".join(prose).strip(), {name: words for name, words in described.items() if words}
