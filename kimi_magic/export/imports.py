"""The import statements of a program: which one brings an object, and their layout."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from importlib.metadata import packages_distributions
from types import ModuleType
from typing import Any

__all__ = ["Imports"]

WIDTH = 88
# What os.path is called on the system at hand.
_PORTABLE = {"posixpath": "os.path", "ntpath": "os.path"}


class Imports:
    """Import statements, each once, in the order that isort and ruff keep."""

    def __init__(self) -> None:
        self._modules: set[tuple[str, str]] = set()  # path, name where it is another one
        self._members: dict[str, set[tuple[str, str]]] = {}  # path → attribute, name

    def add(self, path: str, member: str = "", name: str = "") -> None:
        """Import a module or a member of it, under another name where one is given."""
        if not member:
            self._modules.add((path, name))
        else:
            self._members.setdefault(path, set()).add((member, name or member))

    def bring(self, name: str, value: Any, paths: Iterable[str] = ()) -> bool:
        """Import what a name of the notebook means; False where no import brings it.

        Parameters
        ----------
        paths : iterable of str
            The dotted paths that are taken of it: an import has to reach to the submodule.
        """
        if isinstance(value, ModuleType):
            return self._bring_module(name, value, paths)
        for path, member in _places(name, value):
            self.add(path, member, name)
            return True
        return False

    def names(self) -> set[str]:
        """The names that are bound."""
        modules = {name or path.partition(".")[0] for path, name in self._modules}
        return modules | {name for members in self._members.values() for _, name in members}

    def packages(self) -> list[str]:
        """What has to be installed, by the names under which it is."""
        return sorted({self._known[top][0] for top in self._foreign() if top in self._known})

    def own_modules(self) -> list[str]:
        """The modules that come from files beside the notebook."""
        return sorted(self._foreign() - set(self._known))

    def text(self) -> str:
        """The import block."""
        own = set(self.own_modules())
        groups: dict[int, list[str]] = {}
        for path, statement in self._statements():
            top = path.partition(".")[0]
            is_standard = top in sys.stdlib_module_names
            place = 0 if top == "__future__" else 1 if is_standard else 3 if top in own else 2
            groups.setdefault(place, []).append(statement)
        return "\n\n".join("\n".join(groups[place]) for place in sorted(groups))

    @cached_property
    def _known(self) -> Mapping[str, list[str]]:
        """Each module that a package has installed → the packages."""
        return packages_distributions()

    def _bring_module(self, name: str, module: ModuleType, paths: Iterable[str]) -> bool:
        path = _PORTABLE.get(module.__name__, module.__name__)
        if path == "__main__":
            return False
        parent, _, last = path.rpartition(".")
        if path == name:
            reached = {name, *(_submodule(used) for used in paths if used.startswith(f"{name}."))}
            for end in reached:
                if not any(deeper.startswith(f"{end}.") for deeper in reached):
                    self.add(end)
        elif last == name:
            self.add(parent, last)
        else:
            self.add(path, name=name)
        return True

    def _foreign(self) -> set[str]:
        paths = {path for path, _ in self._modules} | set(self._members)
        return {path.partition(".")[0] for path in paths} - set(sys.stdlib_module_names)

    def _statements(self) -> Iterator[tuple[str, str]]:
        for path, name in sorted(self._modules):
            yield path, f"import {path}" + (f" as {name}" if name else "")
        for path in sorted(self._members):
            members = sorted(self._members[path], key=_by_type)
            if plain := [member for member, name in members if member == name]:
                line = f"from {path} import {', '.join(plain)}"
                listed = "".join(f"    {member},\n" for member in plain)
                yield path, line if len(line) <= WIDTH else f"from {path} import (\n{listed})"
            for member, name in members:
                if member != name:
                    yield path, f"from {path} import {member} as {name}"


def _by_type(member: tuple[str, str]) -> tuple[bool, bool, str]:
    """Constants, classes, functions."""
    name = member[0]
    return not name.isupper(), not name[0].isupper(), name


def _submodule(path: str) -> str:
    """As far as a dotted path leads through packages to a module."""
    found, *rest = path.split(".")
    for part in rest:
        if not hasattr(sys.modules.get(found), "__path__") or f"{found}.{part}" not in sys.modules:
            break
        found = f"{found}.{part}"
    return found


def _places(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Where an object can be imported from, the most public place first."""
    homes = [_text(value, "__module__"), type(value).__module__]
    if any(home.startswith("IPython.") for home in homes):
        homes.insert(0, "IPython.display")
    members = [name, *(_text(value, attribute) for attribute in ("__qualname__", "_name"))]
    for home in homes:
        parts = home.split(".")
        for end in range(1, len(parts) + 1):
            path = ".".join(parts[:end])
            module = sys.modules.get(path)
            for member in members if module and path != "__main__" else ():
                if member in vars(module) and vars(module)[member] is value:
                    yield path, member


def _text(value: Any, attribute: str) -> str:
    with suppress(Exception):  # an object's own code may answer
        found = getattr(value, attribute)
        return found if isinstance(found, str) else ""
    return ""
