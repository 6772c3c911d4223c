"""Tab completion on ``%%kimi`` and ``%kimi`` lines."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from glob import escape, glob
from types import (
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any

from IPython.core.completer import CompletionContext, SimpleCompletion, context_matcher

from kimi_magic.core.errors import KimiError
from kimi_magic.core.frontend import notebook_path
from kimi_magic.core.interrupts import whole_imports
from kimi_magic.jupyter.commands import REGISTRY
from kimi_magic.jupyter.input_transforms import begins_cell
from kimi_magic.jupyter.options import OPTIONS, Option
from kimi_magic.session import current

__all__ = ["Names", "callables", "complete_kimi", "completions", "parameters"]

# A list that is being typed, by the kind of its names: where they are from, those before, and the
# start of the next, as in `pd.read_csv(path, se` and `mcp:files[read_file, li`; the word for one.
_LISTS = {
    "parameters": (re.compile(r"([\w.]+)\(((?:[^(),]*,)*)\s*(\w*)$"), "parameter"),
    "served": (re.compile(r"mcp:([^\[\],]+)\[((?:[^\[\],]*,)*)\s*([^\s\[\],]*)$"), "tool"),
}
_LINE = re.compile(r"\s*(?:[^\W\d]\w*\s*=\s*)?(%{1,2})kimi\s(.*)", re.DOTALL)

Names = Mapping[str, Callable[[str], Iterable[str]]]
"""Functions from the text typed so far to the names of each kind in ``Option.completes``."""


@context_matcher(identifier="kimi_magic")  # type: ignore[untyped-decorator]
@whole_imports()
def complete_kimi(context: CompletionContext) -> dict[str, Any]:
    """Complete our lines, and suppress the other matchers of IPython there."""
    lines = context.full_text.splitlines()[: context.cursor_line + 1] or [""]
    line = lines[-1][: context.cursor_position]
    # Only the first line of a cell can be a cell magic, or one below comments.
    is_text = line.lstrip().startswith("%%") and not begins_cell(lines[: context.cursor_line])
    found = None if is_text else described(line, _names())
    if found is None:
        return {"completions": []}
    # IPython replaces its token, which begins after the last delimiter, such as the dot of a path.
    typed = re.split(r"[\s,]", line)[-1].lstrip("\"'")
    if "parameter" in found.values():
        typed = typed.rpartition("(")[2]
    elif "tool" in found.values():
        typed = typed.rpartition("[")[2]
    before = len(typed) - len(context.token)
    # JupyterLab and the terminal show the type beside the text.
    texts = [SimpleCompletion(name[max(before, 0) :], type=said) for name, said in found.items()]
    return {"completions": texts, "suppress": True, "ordered": True}


def completions(line: str, names: Names) -> list[str] | None:
    """Return the words that may end a line; None if the line is free text or not one of ours.

    Options and verbs come in the order of their tables, names by the alphabet.
    """
    found = described(line, names)
    return None if found is None else list(found)


def described(line: str, names: Names) -> dict[str, str] | None:
    """Return the words that `completions` does, each with what it is in a few words."""
    match = _LINE.match(line)
    if match is None:
        return None
    words = re.split(r"\s+", match[2])
    typed = words.pop()
    found: Iterable[str] | str | None = None
    kind = "kimi"
    if match[1] == "%%":
        found = _fitting(OPTIONS, (), words, typed)
    elif not words:
        found = REGISTRY
    elif verb := REGISTRY.get(words[0]):
        found = _fitting(verb.options, verb.completes, words[1:], typed)
    if found == "callables":
        for listed, (pattern, word) in _LISTS.items():
            if inside := pattern.search(match[2]):
                left = _not_listed_yet(inside, names.get(listed, lambda _: ()))
                return dict.fromkeys(left, word)
    if isinstance(found, str):
        kind = found.removesuffix("s")
        typed = typed.rpartition(",")[2].lstrip("\"'")
        found = sorted(names[found](typed))
    if found is None:
        return None
    told = found if isinstance(found, Mapping) else {}
    return {
        name: told[name].help if name in told else kind for name in found if name.startswith(typed)
    }


def _not_listed_yet(
    inside: re.Match[str], names_of: Callable[[str], Iterable[str]]
) -> Iterator[str]:
    """Yield the parameters of a callable, or the tools of a server, that a list lacks."""
    source, listed, typed = inside.groups()
    given = {name.strip() for name in listed.split(",")}
    for name in names_of(source.strip()):
        if name.startswith(typed) and name not in given:
            yield name


def _fitting(
    options: Sequence[Option], kinds: Sequence[str], words: list[str], typed: str
) -> Iterable[str] | str | None:
    """Return the words that fit after others, or the kind of names, or None for free text."""
    flags = {flag: option for option in options for flag in option.flags}
    place, option, opened = 0, None, 0
    for word in words:
        opened += sum((char in "([") - (char in ")]") for char in word)
        # A list goes on: `-T mean, med`, `-T mean(numbers, dig`
        if option is not None and (word.endswith(",") or opened > 0):
            continue
        takes_word = option is None and word not in flags
        option = flags[word] if word in flags and flags[word].value else None
        place += takes_word
    if option is not None:
        return option.choices or option.completes or None
    if flags and (typed.startswith("-") or not (typed or kinds or place)):
        return flags
    if place >= len(kinds):
        return None
    return kinds[place].split("|") if "|" in kinds[place] else kinds[place]


def _names() -> Names:
    from IPython import get_ipython

    from kimi_magic.chats.journal_search import Query
    from kimi_magic.export import FORMS

    session, shell = current(), get_ipython()
    space: Mapping[str, Any] = shell.user_ns if shell else {}
    hidden = shell.user_ns_hidden if shell else {}
    own = {name: value for name, value in space.items() if name not in hidden and name[:1] != "_"}
    return {
        "kept chats": lambda _: _kept(lambda: session.journal.names(notebook_path())),
        "kept turns": lambda _: _kept(lambda: map(str, session.journal.find(Query())[-20:])),
        "chats": lambda _: [chat.name for chat in session.chats],
        "endpoints": lambda _: [endpoint.name for endpoint in session.connector.catalogue],
        "models": lambda _: session.connector.known_models(),
        "forms": lambda _: FORMS,
        "verbs": lambda _: REGISTRY,
        "variables": lambda _: own,
        "files": _files,
        "tapes": lambda typed: ["off", *_files(typed)],
        "callables": lambda typed: [*callables(own, typed), *_servers()],
        "served": _served_tools,
        "parameters": lambda path: parameters(own, path),
    }


def _files(typed: str) -> list[str]:
    return glob(f"{escape(typed)}*")  # noqa: PTH207 - Path drops a leading ./


def _kept(names: Callable[[], Iterable[str]]) -> list[str]:
    """Return names out of the journal; none where it cannot be read."""
    try:
        return list(names())
    except KimiError:
        return []


def _servers() -> list[str]:
    """Return the names of MCP servers as ``-T`` takes them; nothing is started."""
    from kimi_magic.tools.mcp_servers import PREFIX, known_servers

    return [f"{PREFIX}{name}" for name in known_servers() if not re.search(r"[\s\"']", name)]


def _served_tools(server: str) -> list[str]:
    """Return the tools of an MCP server, if it was asked for them before."""
    from kimi_magic.tools.mcp_servers import known_servers
    from kimi_magic.tools.mcp_tool import known_tools

    known = known_servers().get(server)
    names = known_tools(known) if known is not None else []
    return [name for name in names if name.isprintable() and not re.search(r"[\s\[\],]", name)]


def callables(space: Mapping[str, Any], typed: str) -> list[str]:
    """Return the callables of the notebook or, after a dot, those of an object."""
    path, dot, _ = typed.rpartition(".")
    if not dot:
        return [name for name, value in space.items() if callable(value)] + ["run_python"]
    members = _members_of(space, path)
    return [
        f"{path}.{name}"
        for name, value in members.items()
        # On the class itself, a class method is an object that cannot be called.
        if not name.startswith("_") and (callable(value) or issubclass(type(value), classmethod))
    ]


def parameters(space: Mapping[str, Any], path: str) -> list[str]:
    """Return the names of the parameters of a function, a method or a class."""
    owner, _, name = path.rpartition(".")
    found: Any = (_members_of(space, owner) if owner else space).get(name)
    is_bound = bool(owner) and not issubclass(type(_last(space, owner)), ModuleType)
    if issubclass(type(found), type):
        is_bound, found = True, _members(found).get("__init__")
    if type(found) in (classmethod, staticmethod, MethodType):
        is_bound, found = type(found) is not staticmethod, found.__func__
    while type(found) is FunctionType and "__wrapped__" in vars(found):
        found = vars(found)["__wrapped__"]
    if type(found) is not FunctionType:
        return []
    code = found.__code__
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return list(names[1:] if is_bound else names)


def _members_of(space: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    """Return the attributes of what a dotted path leads to, none where that takes code."""
    return _members(found) if (found := _last(space, path)) is not None else {}


def _last(space: Mapping[str, Any], path: str) -> Any:
    """Return what a dotted path leads to; None where that is nothing, or takes code."""
    members, found = space, None
    for part in path.split("."):
        found = members.get(part)
        if found is None or _defines(type(found), "__get__"):
            return None
        members = _members(found)
    return found


# ``getattr`` and ``dir`` run properties, ``__getattr__``, ``__dir__`` and the loading of lazy
# modules: a tab key must do none of it. Even ``vars`` and ``isinstance`` ask the object. So the
# dictionaries are read through the descriptors of ``type``, which no class can override.
_mro = type.__dict__["__mro__"].__get__
_class_dict = type.__dict__["__dict__"].__get__


def _members(owner: object) -> dict[str, Any]:
    """Return an object's attributes by name, as they lie in it and its classes."""
    is_class = issubclass(type(owner), type)
    found: dict[str, Any] = {}
    for base in reversed(_mro(owner if is_class else type(owner))):
        found |= _class_dict(base)
    slot: Any = None if is_class else found.get("__dict__")
    if type(slot) in (GetSetDescriptorType, MemberDescriptorType):
        own = slot.__get__(owner)
        for name, value in own.items():
            if type(name) is str and not _defines(type(found.get(name)), "__set__"):
                found[name] = value
    return found


def _defines(kind: type, name: str) -> bool:
    return any(name in _class_dict(base) for base in _mro(kind))
