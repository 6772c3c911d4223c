"""The import statements of a program."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property, lru_cache
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["Imports"]

WIDTH = 88
# os.path is one of these modules, depending on the system.
_PORTABLE = {"posixpath": "os.path", "ntpath": "os.path"}


class Imports:
    """A set of import statements, printed in the order of isort and ruff."""

    def __init__(self) -> None:
        self._modules: set[tuple[str, str]] = set()  # (path, alias or "")
        self._members: dict[str, set[tuple[str, str]]] = {}  # path → (member, name)

    def add(self, path: str, member: str = "", name: str = "") -> None:
        """Import a module or one of its members, under another name if one is given."""
        if not member:
            self._modules.add((path, name))
        else:
            self._members.setdefault(path, set()).add((member, name or member))

    def add_value(self, name: str, value: Any, paths: Iterable[str] = ()) -> bool:
        """Import the value of a notebook name; return False if no import can provide it.

        The import has to reach down to the submodules in the source's dotted paths.
        """
        if isinstance(value, ModuleType):
            return self._add_module(name, value, paths)
        for path, member in _places(name, value):
            self.add(path, member, name)
            return True
        return False

    def names(self) -> set[str]:
        """Return the names that the statements bind."""
        modules = {name or path.partition(".")[0] for path, name in self._modules}
        return modules | {name for members in self._members.values() for _, name in members}

    def packages(self) -> list[str]:
        """Return the names of the distributions to install."""
        known = self._third_party() & set(self._installed)
        return sorted({self._installed[top][0] for top in known})

    def own_modules(self) -> list[str]:
        """Return the modules that are files beside the notebook."""
        return sorted(self._third_party() - set(self._installed))

    def text(self) -> str:
        """Return the import block."""
        own = set(self.own_modules())
        groups: dict[int, list[str]] = {}
        for path, statement in self._statements():
            top = path.partition(".")[0]
            is_standard = top in sys.stdlib_module_names
            group = 0 if top == "__future__" else 1 if is_standard else 3 if top in own else 2
            groups.setdefault(group, []).append(statement)
        return "\n\n".join("\n".join(groups[group]) for group in sorted(groups))

    @cached_property
    def _installed(self) -> Mapping[str, list[str]]:
        """Installed top-level modules, each with its distributions."""
        return _distributions(tuple((path, _changed(path)) for path in sys.path))

    def _add_module(self, name: str, module: ModuleType, paths: Iterable[str]) -> bool:
        path = _PORTABLE.get(module.__name__, module.__name__)
        if path == "__main__":
            return False
        parent, _, last = path.rpartition(".")
        if path == name:
            used = {name, *(_submodule(p) for p in paths if p.startswith(f"{name}."))}
            for submodule in used:
                if not any(deeper.startswith(f"{submodule}.") for deeper in used):
                    self.add(submodule)
        elif last == name:
            self.add(parent, last)
        else:
            self.add(path, name=name)
        return True

    def _third_party(self) -> set[str]:
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


@lru_cache(maxsize=1)
def _distributions(_folders: tuple[tuple[str, int], ...]) -> Mapping[str, list[str]]:
    # It reads the files of all that is installed, which takes up to seconds.
    return packages_distributions()


def _changed(path: str) -> int:
    """Return when a folder's entries last changed: an installation adds one."""
    with suppress(OSError, ValueError):
        return Path(path).stat().st_mtime_ns
    return 0


def _by_type(member: tuple[str, str]) -> tuple[bool, bool, str]:
    """Sort constants before classes, and classes before functions, as isort does."""
    name = member[0]
    return not name.isupper(), not name[0].isupper(), name


def _submodule(path: str) -> str:
    """Return the part of a dotted path that leads through packages to a module."""
    found, *rest = path.split(".")
    for part in rest:
        if not hasattr(sys.modules.get(found), "__path__") or f"{found}.{part}" not in sys.modules:
            break
        found = f"{found}.{part}"
    return found


def _places(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield the places an object can be imported from, the most public one first."""
    homes = [_text_of(value, "__module__"), type(value).__module__]
    if any(home.startswith("IPython.") for home in homes):
        # Defined in IPython.core, which is private; people import them from here.
        homes.insert(0, "IPython.display")
    # typing's aliases have no __qualname__, but a _name.
    members = [name, _text_of(value, "__qualname__"), _text_of(value, "_name")]
    for home in homes:
        parts = home.split(".")
        # A package often re-exports what a private module of it defines: shortest path first.
        for end in range(1, len(parts) + 1):
            path = ".".join(parts[:end])
            module = sys.modules.get(path)
            for member in members if module and path != "__main__" else ():
                if member in vars(module) and vars(module)[member] is value:
                    yield path, member


def _text_of(value: Any, attribute: str) -> str:
    with suppress(Exception):  # attribute access may run the object's own code
        found = getattr(value, attribute)
        return found if isinstance(found, str) else ""
    return ""
