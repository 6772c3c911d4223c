"""Anything that the model may call: the protocol, its options and its names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeGuard, runtime_checkable

from kimi_magic.core.errors import KimiError
from kimi_magic.core.messages import Output
from kimi_magic.core.text import clip

if TYPE_CHECKING:
    from kimi_magic.tools.printing import Printing

__all__ = [
    "DEFAULT_OPTIONS",
    "MAX_NAME",
    "Approve",
    "CallFailed",
    "DescribedTool",
    "KnowsNames",
    "RunningCall",
    "TellsDefaults",
    "TellsPerson",
    "Tool",
    "ToolOptions",
    "defaults_of",
    "is_tool",
    "name_of",
    "proper_name",
    "read_params",
    "running_call",
    "split_params",
    "unfit",
]

MAX_NAME = 64
MAX_REASON = 200

_METHODS = ("schema", "bind", "call", "identity", "variant", "at_moment")


@dataclass(frozen=True, slots=True)
class ToolOptions:
    """Options of the calls of a tool, as the decorator ``kimi.tool`` documents them."""

    confirm: bool = False
    timeout: float | None = None
    max_chars: int = 4000
    parallel: bool = False
    once: bool = False

    def __post_init__(self) -> None:
        for name, value in (("timeout", self.timeout or 0), ("max_chars", self.max_chars)):
            is_number = isinstance(value, Real) and not isinstance(value, bool)
            if not is_number or not value >= 0:  # written so that NaN fails
                raise KimiError(f"{name} is {value!r:.40}: give a number of 0 or more")


DEFAULT_OPTIONS = ToolOptions()


class Tool(Protocol):
    """A tool: a function of the notebook, or anything else with a name and a schema.

    Attributes
    ----------
    name, description : str
        As the model sees them.
    options : ToolOptions
        Options of its calls.
    notes : tuple of str
        What was guessed, renamed or dropped to make the tool, for the user.
    languages : mapping
        The programming languages of arguments that are source code, by the arguments' names.
    function : callable or None
        The Python function behind the tool, which exported programs contain.
    """

    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def options(self) -> ToolOptions: ...
    @property
    def notes(self) -> tuple[str, ...]: ...
    @property
    def languages(self) -> Mapping[str, str]: ...
    @property
    def function(self) -> Callable[..., Any] | None: ...

    def schema(self) -> dict[str, Any]:
        """Return the tool as the API takes it."""

    def bind(self, arguments: Mapping[str, Any], namespace: Mapping[str, Any]) -> Any:
        """Validate the arguments and return what `call` takes, or raise ArgumentsError.

        Arguments may name the variables of the namespace.
        """

    def call(self, bound: Any) -> Any:
        """Make the call; a coroutine or generator that it returns is run to its end."""

    def identity(self) -> Hashable:
        """Return what must stay equal for a person's approval to hold."""

    def variant(self, *, name: str | None = None, options: ToolOptions | None = None) -> Tool:
        """Return the same tool with another name or other options."""

    def at_moment(self, namespace: Mapping[str, Any]) -> Tool:
        """Return the tool with a schema that lists the variables of this moment."""


@dataclass(frozen=True, slots=True)
class DescribedTool:
    """The base of a `Tool` with no Python function behind it, and no variables in its schema."""

    name: str
    description: str
    parameters: Mapping[str, Any]

    @property
    def languages(self) -> Mapping[str, str]:
        return {}

    @property
    def function(self) -> Callable[..., Any] | None:
        return None

    def schema(self) -> dict[str, Any]:
        function = {"name": self.name, "description": self.description}
        return {"type": "function", "function": {**function, "parameters": dict(self.parameters)}}

    def at_moment(self, namespace: Mapping[str, Any]) -> Self:  # noqa: ARG002 - of `Tool`
        return self


@runtime_checkable
class TellsDefaults(Protocol):
    """A tool that knows more of its defaults than its schema says."""

    def defaults(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a call with these arguments takes for the parameters that they lack."""


@runtime_checkable
class KnowsNames(Protocol):
    """A tool that tells where a text may have been meant as the name of a variable."""

    def misnamed(self, arguments: Mapping[str, Any], namespace: Mapping[str, Any]) -> list[str]:
        """Return a sentence for each such argument."""


@runtime_checkable
class TellsPerson(Protocol):
    """A tool that tells the person who approves a call more than it tells the model."""

    @property
    def said(self) -> str:
        """A line or two, for an ``input()`` prompt."""

    @property
    def about(self) -> str:
        """All of it, for a form."""

    @property
    def is_question(self) -> bool:
        """True for what is no call: the arguments are the answer."""


Approve = Callable[[Tool, dict[str, Any]], bool | dict[str, Any]]
"""Called with a tool and its arguments; returns True, False, or arguments to use instead."""


class CallFailed(Exception):
    """Raised by a tool whose call failed somewhere else; the text is for the model."""


@dataclass(slots=True)
class RunningCall:
    """The ways of a tool that runs to ask the person who approves calls, and to show something.

    ``approve`` is None where nobody can be asked.
    """

    approve: Approve | None = None
    printing: Printing | None = None
    outputs: list[Output] = field(default_factory=list)

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Announce nothing that is printed inside the block, in which events of a turn happen."""
        if self.printing is None:
            yield
            return
        with self.printing.quiet:
            yield


running_call: ContextVar[RunningCall | None] = ContextVar("kimi_magic_running_call", default=None)
"""The call that the running code is inside of."""


def defaults_of(tool: Tool, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults that apply in a call, by the names of the parameters."""
    if isinstance(tool, TellsDefaults):
        return tool.defaults(arguments)
    parameters = tool.schema()["function"].get("parameters") or {}
    return {
        name: node["default"]
        for name, node in (parameters.get("properties") or {}).items()
        if name not in arguments and isinstance(node, Mapping) and "default" in node
    }


def is_tool(value: Any) -> TypeGuard[Tool]:
    """Return True for an object that implements `Tool`."""
    # Looked up on the class: an object with __getattr__, such as a mock, claims every method.
    return all(callable(getattr(type(value), method, None)) for method in _METHODS)


def name_of(fn: Any, namespace: Mapping[str, Any]) -> str:
    """Return the name of a callable; a lambda takes that of the variable that holds it."""
    while isinstance(fn, partial):
        fn = fn.func
    name = str(getattr(fn, "__name__", type(fn).__name__))
    if name == "<lambda>":
        name = next((key for key, value in list(namespace.items()) if value is fn), "lambda")
    return name


def proper_name(name: str) -> str:
    """Return the nearest name that servers accept."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^a-zA-Z0-9_-]+", "_", plain)
    if not plain.strip("_-"):
        plain = "tool"
    return (plain if re.match(r"[a-zA-Z_]", plain) else f"_{plain}")[:MAX_NAME]


def unfit(label: str, error: BaseException) -> KimiError:
    """Return an error that says in one line why something cannot be a tool."""
    if isinstance(error, KimiError):
        # Most reasons name the tool, under a name that servers accept.
        labels = "|".join(map(re.escape, (label, proper_name(label))))
        is_named = re.search(rf"(?<!\w)(?:{labels})(?!\w)", str(error))
        return error if is_named else KimiError(f"{label} cannot be offered: {error}")
    text = f"{type(error).__name__}: {error}".removesuffix(": ")
    return KimiError(f"{label} cannot be offered: {clip(' '.join(text.split()), MAX_REASON)}")


def read_params(given: Any) -> tuple[str, ...] | None:
    """Read the names of the parameters to offer: several, or a text with commas; None for all."""
    if given is None:
        return None
    names = given.split(",") if isinstance(given, str) else given
    if not isinstance(names, Iterable) or isinstance(names, Mapping):
        raise KimiError(f"params is {given!r:.60}: give names of parameters")
    read = [name.strip() if isinstance(name, str) else name for name in names]
    if wrong := [name for name in read if not (isinstance(name, str) and name.isidentifier())]:
        if read == [""]:
            return ()
        raise KimiError(f"params has {wrong[0]!r:.60}: give names of parameters")
    return tuple(dict.fromkeys(read))


def split_params(text: str) -> tuple[str, tuple[str, ...] | None]:
    """Split ``read_csv(path, sep)`` into the name of a callable and the parameters to offer."""
    path, opened, rest = text.partition("(")
    if not opened:
        return text.strip(), None
    inside, closed, behind = rest.rpartition(")")
    if not closed or behind.strip() or not path.strip():
        raise KimiError(f"{text:.60} is no function: write NAME, or NAME(parameter, parameter)")
    return path.strip(), read_params(inside)
