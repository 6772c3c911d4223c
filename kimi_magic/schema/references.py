"""Objects of the notebook that a model may name where JSON cannot carry a value.

The schema lists the names, and a call takes no others: public variables that hold data of the
wanted type, callables that the notebook defines, and what the user named with ``refs``. To tell
types, nothing of a value is run: no attribute is read through a property or ``__getattr__``.
"""

from __future__ import annotations

import builtins
import functools
import inspect
import io
import keyword
import types
import typing
import unicodedata
from abc import ABCMeta
from collections import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args, get_origin

from pydantic import ValidationInfo
from typing_extensions import get_protocol_members, is_protocol, is_typeddict

from kimi_magic.core.errors import KimiError
from kimi_magic.core.frontend import running_shell
from kimi_magic.core.text import reveal

__all__ = [
    "ARRAY",
    "DATA",
    "MAX_NAMES",
    "NO_REFS",
    "Listing",
    "Named",
    "Reference",
    "Refs",
    "Variables",
    "is_variable",
    "isinstance_of",
    "read_refs",
]

MAX_NAMES = 100
MAX_LENGTH = 100

_NO_REF = "refs has {!r:.60}: give names such as 'np.mean', or callables"

_MISSING = object()
_SHELL_NAMES = {"In", "Out", "exit", "quit", "get_ipython"}
_NOT_DATA = {"IPython", "ipykernel", "kimi_magic", "_sitebuiltins"}
_CODE = (
    type,
    functools.partial,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    types.MethodWrapperType,
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
    staticmethod,
    classmethod,
    property,
    types.CodeType,
    types.FrameType,
)
# JSON has them, or a text for them: a call holds the value itself.
_PLAIN = (str, bytes, bytearray, bool, int, float, complex, type(None))
# Their attributes are stored with the object, and reading one runs no code of anybody's.
_STORED = (types.MemberDescriptorType, types.GetSetDescriptorType)
# A metaclass may say otherwise.
_mro, _members, _module_of = (
    type.__dict__[n].__get__ for n in ("__mro__", "__dict__", "__module__")
)
_IO = {typing.IO: io.IOBase, typing.TextIO: io.TextIOBase}


@dataclass(frozen=True, slots=True)
class Named:
    """Data whose name may stand for it where a value may be sent as well.

    Attributes
    ----------
    label : str
        As in «a variable that holds …».
    members : tuple of str
        Methods of which its class has one; none for any data.
    """

    label: str
    members: tuple[str, ...] = ()

    def admits(self, value: Any) -> bool:
        """Return True for such data; code is none, and whatever can be called."""
        if isinstance_of(value, *_PLAIN, *_CODE, types.ModuleType) or _is_callable(value):
            return False
        return not self.members or any(
            member in _members(base) for base in _mro(type(value)) for member in self.members
        )


DATA = Named("data")
ARRAY = Named("array-like data", ("__len__", "__dataframe__"))


@dataclass(frozen=True, slots=True)
class Refs:
    """The names, dotted paths, and objects under a name that a user gave as ``refs``."""

    paths: tuple[str, ...] = ()
    objects: Mapping[str, Any] = field(default_factory=dict)


def read_refs(given: Any) -> Refs:
    """Read the argument ``refs`` of `kimi.tool`.

    Raises
    ------
    KimiError
        It is neither a name, a callable, a mapping, nor several of these.
    """
    if given is None:
        return NO_REFS
    if isinstance(given, Refs):
        return given
    alone = (
        callable(given) or isinstance(given, str | Mapping) or not isinstance(given, abc.Iterable)
    )
    paths: list[str] = []
    objects: dict[str, Any] = {}
    for item in [given] if alone else given:
        if isinstance(item, str):
            paths.append(item)
        else:
            objects |= item if isinstance(item, Mapping) else {_own_name(item): item}
    names: list[Any] = [*paths, *objects]
    for name in names:
        if not isinstance(name, str) or not all(map(str.isidentifier, name.split("."))):
            raise KimiError(_NO_REF.format(name))
    return Refs(tuple(paths), objects)


def _own_name(item: Any) -> str:
    name = getattr(item, "__name__", None)
    if not callable(item) or not isinstance(name, str):
        raise KimiError(_NO_REF.format(item))
    return name


NO_REFS = Refs()


@dataclass(frozen=True, slots=True)
class Variables:
    """The variables of a moment, as far as a tool's parameters may name them.

    Attributes
    ----------
    namespace : mapping
    refs : Refs
    home : str
        The module whose callables count as the notebook's.
    barred : callable
        Returns True for a callable that may not be named: one that asks before it runs.
    """

    namespace: Mapping[str, Any]
    refs: Refs = NO_REFS
    home: str = "__main__"
    barred: Callable[[Any], bool] = lambda _: False

    def find(self, name: str, reference: Reference) -> Any:
        """Return the object that a name stands for, or `_MISSING` if it may not be named."""
        if (named := self._named(name)) is not _MISSING:
            return named if reference.admits_chosen(named) else _MISSING
        value = self.namespace.get(name, _MISSING) if _is_public(name) else _MISSING
        return value if self._offers(name, value, reference) else _MISSING

    def names(self, reference: Reference) -> tuple[list[str], int]:
        """Return the names to list, sorted, and how many more there are.

        Those of ``refs`` come first, then those that were defined last.
        """
        named = [
            name
            for name in dict.fromkeys((*self.refs.objects, *self.refs.paths))
            if reference.admits_chosen(self._named(name))
        ]
        others = [
            name
            for name, value in list(self.namespace.items())
            if _is_public(name) and name not in named and self._offers(name, value, reference)
        ]
        room = max(MAX_NAMES - len(named), 0)
        kept = [*named[:MAX_NAMES], *others[len(others) - min(room, len(others)) :]]
        return sorted(kept), len(named) + len(others) - len(kept)

    def lacking(self) -> list[str]:
        """Return the paths of ``refs`` that stand for nothing now."""
        return [path for path in self.refs.paths if self._named(path) is _MISSING]

    def _named(self, name: str) -> Any:
        """Return what a name of ``refs`` stands for."""
        if name in self.refs.objects:
            return self.refs.objects[name]
        if name not in self.refs.paths:
            return _MISSING
        first, *rest = name.split(".")
        found = self.namespace.get(first, vars(builtins).get(first, _MISSING))
        for part in rest:
            found = found if found is _MISSING else _attribute(found, part)
        return found

    def _offers(self, name: str, value: Any, reference: Reference) -> bool:
        if value is _MISSING or isinstance_of(value, types.ModuleType):
            return False
        # IPython lists what it puts there itself; a variable of the user's may take the name over.
        hidden = getattr(running_shell(), "user_ns_hidden", {})
        if hidden.get(name, _MISSING) is value or _root(type(value)) in _NOT_DATA:
            return False
        if not reference.admits(value):
            return False
        is_code = isinstance_of(value, *_CODE) or (reference.wants_calls and _is_callable(value))
        return not is_code or (self._defines(value) and not self.barred(value))

    def _defines(self, value: Any) -> bool:
        """Return True for a callable that was defined in the notebook."""
        for _ in range(10):
            if type(value) is functools.partial:
                value = value.func
            elif type(value) is types.MethodType:
                value = value.__func__
            else:
                break
        if type(value) is types.FunctionType:
            return value.__globals__ is self.namespace or value.__module__ == self.home
        if isinstance_of(value, type):
            return _module(value) == self.home
        if isinstance_of(value, *_CODE):
            return False
        # A wrapper such as functools.cache makes has the module of the function that it wraps.
        own = inspect.getattr_static(value, "__module__", None)
        return type(own) is str and own == self.home


@dataclass(frozen=True, slots=True)
class Listing:
    """The names that were listed for each of a tool's references."""

    names: tuple[tuple[str, ...], ...] = ()
    more: tuple[int, ...] = ()

    @classmethod
    def of(cls, references: list[Reference], variables: Variables) -> Listing:
        found = [variables.names(reference) for reference in references]
        return cls(tuple(tuple(names) for names, _ in found), tuple(more for _, more in found))


@dataclass(frozen=True, slots=True)
class Reference:
    """A parameter that is passed by the name of a variable, or may be.

    Its hint is `Named` where a value may be sent in the place of a name.
    """

    hint: Any
    index: int = 0  # its place among the references of its tool
    keeps: bool = False  # any value that is no name is passed as it is

    @property
    def label(self) -> str:
        if isinstance(self.hint, Named):
            return self.hint.label
        if self._class is abc.Callable:
            return "function"
        return getattr(self._class, "__name__", None) or str(self.hint)

    @property
    def wants_calls(self) -> bool:
        """True if what is named will be called, of whatever type it is."""
        kind = self._class
        if isinstance(kind, type) and is_protocol(kind):
            return "__call__" in get_protocol_members(kind)
        return kind in (abc.Callable, object)

    @property
    def _class(self) -> Any:
        return get_origin(self.hint) or self.hint

    def admits(self, value: Any) -> bool:
        """Return True if `value` is of the type, as far as its class tells."""
        if isinstance(self.hint, Named):
            return value is not _MISSING and self.hint.admits(value)
        kind = _IO.get(self._class, self._class)
        kind = dict if is_typeddict(kind) else kind
        if value is _MISSING or not isinstance(kind, type):
            return False
        inner = get_args(self.hint)
        if kind is type and inner and isinstance(inner[0], type):
            return isinstance_of(value, type) and any(base is inner[0] for base in _mro(value))
        if is_protocol(kind) and kind.__module__ not in ("typing", "collections.abc"):
            return all(_has(value, member) for member in get_protocol_members(kind))
        if isinstance_of(value, kind):
            return True
        is_called = self._class is abc.Callable
        return _is_callable(value) if is_called else _is_registered(type(value), kind)

    def admits_chosen(self, value: Any) -> bool:
        """Return True for what the user named with ``refs``, which may be no data."""
        return self.admits(value) or (self.hint is DATA and value is not _MISSING)

    def schema(self, listing: Listing) -> dict[str, Any]:
        """Return what the schema of the parameter says beyond its type."""
        names, more = listing.names[self.index], listing.more[self.index]
        text = f"Name of a variable that holds {self._noun}"
        if not names:
            return {"description": f"{text} (none now)"}
        text += f" ({more} more cannot be named)" if more else ""
        return {"enum": list(names), "description": text}

    def look_up(self, value: Any, info: ValidationInfo) -> Any:
        """Return the object that the model named, or the value that needs no name.

        A text is refused that would be taken for a variable, had the schema listed it.
        """
        context = info.context or {}
        variables: Variables = context.get("variables") or Variables({})
        listing: Listing | None = context.get("listing")
        listed = listing.names[self.index] if listing is not None else ()
        name = value.strip() if isinstance(value, str) else ""
        found = variables.find(name, self) if name in listed or self.keeps else _MISSING
        if found is _MISSING and self.keeps and name not in listed:
            return value
        if found is not _MISSING and name in listed:
            return found
        usable = [each for each in listed if variables.find(each, self) is not _MISSING]
        changed = f" ({name} holds none any more)" if name in listed else ""
        changed = changed or (f" ({name} was not listed)" if found is not _MISSING else "")
        names = f"{', '.join(usable) or 'there is none now'}{changed}"
        raise ValueError(f"the name of a variable that holds {self._noun}: {names}")

    @property
    def _noun(self) -> str:
        return self.label if isinstance(self.hint, Named) else _a(self.label)


def isinstance_of(value: Any, *kinds: type) -> bool:
    """Return True if a value's class is one of these or inherits from one.

    Unlike ``isinstance``, it asks neither ``value.__class__`` nor a metaclass.
    """
    return any(base is kind for base in _mro(type(value)) for kind in kinds)


def is_variable(text: object, namespace: Mapping[str, Any]) -> bool:
    """Return True for the public name of a variable that holds no module."""
    if not _is_public(text) or text not in namespace:
        return False
    return not isinstance_of(namespace[str(text)], types.ModuleType)


def _is_registered(own: type, kind: type) -> bool:
    """Return True for a subclass by registration, or by the methods that an abstract class wants.

    A metaclass with a check of its own is not asked, nor one that answers for its classes.
    """
    checks_itself = type(kind).__subclasscheck__ is not ABCMeta.__subclasscheck__
    if (checks_itself and not is_protocol(kind)) or _answers_itself(type(own)):
        return False
    try:
        return issubclass(own, kind)
    except Exception:  # noqa: BLE001 - hooks may be anything
        return False


def _answers_itself(metaclass: type) -> bool:
    asked = {"__mro__", "__dict__", "__getattribute__", "__getattr__"}
    return any(
        asked & _members(base).keys() for base in _mro(metaclass) if base not in (type, object)
    )


def _is_callable(value: Any) -> bool:
    return any("__call__" in _members(base) for base in _mro(type(value)))


def _has(value: Any, member: str) -> bool:
    return inspect.getattr_static(value, member, _MISSING) is not _MISSING


def _attribute(owner: Any, name: str) -> Any:
    """Return an attribute that no property computes."""
    try:
        if isinstance_of(owner, types.ModuleType):
            return getattr(owner, name)  # lazily imported, in many a library
        found = inspect.getattr_static(owner, name)
        computed = not isinstance_of(found, *_CODE, *_STORED) and hasattr(type(found), "__get__")
        if computed or isinstance_of(found, property):
            return _MISSING
        return getattr(owner, name)
    except Exception:  # noqa: BLE001 - what is not there, or cannot be read
        return _MISSING


def _is_public(name: Any) -> bool:
    """Return True for a name that code can use, and that shows all of itself."""
    return (
        type(name) is str
        and name.isidentifier()
        and not name.startswith("_")
        and not keyword.iskeyword(name)
        and name not in _SHELL_NAMES
        and len(name) <= MAX_LENGTH
        and (name.isascii() or unicodedata.normalize("NFKC", name) == name == reveal(name))
    )


def _module(kind: type) -> str:
    name = _module_of(kind)
    return name if type(name) is str else ""


def _root(kind: type) -> str:
    return _module(kind).partition(".")[0]


def _a(noun: str) -> str:
    return f"an {noun}" if noun[:1] in "AEIOUaeiou" else f"a {noun}"
