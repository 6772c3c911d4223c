"""What the tab key completes on ``%%kimi`` and ``%kimi`` lines."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from IPython.core.completer import CompletionContext, SimpleCompletion, context_matcher

from kimi_magic.jupyter.options import OPTIONS, VERBS
from kimi_magic.session import current

__all__ = ["complete_kimi", "completions"]

_LINE = re.compile(r"\s*(?:[^\W\d]\w*\s*=\s*)?(%{1,2})kimi\s(.*)", re.DOTALL)

Names = Mapping[str, Callable[[str], Iterable[str]]]
"""The names of each kind that ``Option.completes`` tells; each function takes what was typed."""


@context_matcher(identifier="kimi_magic")  # type: ignore[untyped-decorator]
def complete_kimi(context: CompletionContext) -> dict[str, Any]:
    """IPython's matcher: it answers on our lines alone, and there alone."""
    lines = context.full_text.splitlines()[: context.cursor_line + 1] or [""]
    line = lines[-1][: context.cursor_position]
    is_cell = line.lstrip().startswith("%%")
    if is_cell and context.cursor_line:  # a cell magic stands in the first line
        return {"completions": []}
    found = completions(line, _names())
    if found is None:
        return {"completions": []}
    # What is replaced is the token, which begins after the last delimiter, a comma for one.
    typed = re.split(r"[\s,]", line)[-1]
    before = len(typed) - len(context.token)
    texts = [SimpleCompletion(name[max(before, 0) :], type="kimi") for name in found]
    return {"completions": texts, "suppress": True}


def completions(line: str, names: Names) -> list[str] | None:
    """What may stand where a line ends.

    Parameters
    ----------
    line : str
        The text up to the cursor.
    names : mapping
        What there is of each kind.

    Returns
    -------
    list of str or None
        None where the line is none of ours, or free text.
    """
    match = _LINE.match(line)
    if match is None:
        return None
    words = re.split(r"\s+", match[2])
    typed = words.pop()
    found = _of_cell(words, typed) if match[1] == "%%" else _of_verb(words)
    if found is None or isinstance(found, str):
        last = typed.rpartition(",")[2]
        found = names[found](last) if found else None
        typed = last
    return None if found is None else sorted({name for name in found if name.startswith(typed)})


def _of_cell(words: list[str], typed: str) -> Iterable[str] | str | None:
    """The values of the option before the cursor, else the options; or the kind of the values."""
    flags = {flag: option for option in OPTIONS for flag in option.flags}
    option = flags.get(words[-1]) if words else None
    if option is not None and option.value:
        return option.choices or option.completes or None
    return flags if not typed or typed.startswith("-") else None


def _of_verb(words: list[str]) -> Iterable[str] | str | None:
    verbs = {verb.name: verb for verb in VERBS}
    if not words:
        return verbs
    name, *more = words
    if name == "tools":
        if not more:
            return ("add", "remove")
        del more[0]
    verb = verbs.get(name)
    return (verb.completes or None) if verb and not more else None


def _names() -> Names:
    from IPython import get_ipython

    from kimi_magic.export import FORMS

    session, shell = current(), get_ipython()
    space: Mapping[str, Any] = shell.user_ns if shell else {}
    hidden = shell.user_ns_hidden if shell else {}
    own = {name: value for name, value in space.items() if name not in hidden and name[:1] != "_"}
    return {
        "chats": lambda _: [chat.name for chat in session.chats],
        "endpoints": lambda _: [endpoint.name for endpoint in session.connector.catalogue],
        "models": lambda _: session.connector.known_models(),
        "forms": lambda _: FORMS,
        "verbs": lambda _: [verb.name for verb in VERBS],
        "variables": lambda _: own,
        "callables": lambda typed: _callables(own, typed),
    }


def _callables(space: Mapping[str, Any], typed: str) -> list[str]:
    """Functions and, where a name is being spelled out after a dot, methods of that object."""
    path, dot, _ = typed.rpartition(".")
    if not dot:
        return [name for name, value in space.items() if callable(value)] + ["run_python"]
    first, *rest = path.split(".")
    try:
        owner = space[first]
        for part in rest:
            owner = getattr(owner, part)
        members = [name for name in dir(owner) if not name.startswith("_")]
        return [f"{path}.{name}" for name in members if callable(getattr(type(owner), name, None))]
    except Exception:  # noqa: BLE001 - an attribute's own code may raise anything
        return []
