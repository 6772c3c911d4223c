"""Every public error and value can be pickled and copied, with all that it holds."""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
import pkgutil
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

import kimi_magic
from kimi_magic import Reply
from kimi_magic.core import errors
from kimi_magic.core.errors import EndpointError, KimiError, ToolInterrupted, TurnInterrupted
from kimi_magic.core.events import TurnFinished
from kimi_magic.core.messages import Completion, Message, Step, ToolResult, Usage
from kimi_magic.core.turn_record import TurnRecord

CORE = [
    importlib.import_module(info.name)
    for info in pkgutil.iter_modules(kimi_magic.core.__path__, "kimi_magic.core.")
]
NAMES = {name: value for module in CORE for name, value in vars(module).items()}


def subclasses(kind: type[Any]) -> Iterator[type[Any]]:
    yield kind
    for child in kind.__subclasses__():
        yield from subclasses(child)


def public_errors() -> list[type[BaseException]]:
    """All of the package, wherever they are defined."""
    for module in pkgutil.walk_packages(kimi_magic.__path__, "kimi_magic."):
        if not module.name.startswith("kimi_magic.testing"):
            importlib.import_module(module.name)
    found = {
        error
        for base in (KimiError, TurnInterrupted, ToolInterrupted)
        for error in subclasses(base)
        if error.__module__.startswith("kimi_magic.")
    }
    return sorted(found, key=lambda error: error.__name__)


def public_values() -> list[type]:
    """The dataclasses and named tuples of the core's modules of values."""
    named = [getattr(module, name) for module in CORE for name in getattr(module, "__all__", ())]
    found = {
        value
        for value in named
        if inspect.isclass(value)
        and (is_dataclass(value) or (issubclass(value, tuple) and hasattr(value, "_fields")))
    }
    return sorted(found, key=lambda value: value.__name__)


# A trajectory has none itself. Its live form stays behind, as all live values do.
SAMPLES: dict[Any, Any] = {TurnRecord: (TurnRecord(steps=(Step("6"),)),), Reply: ()}


PLAIN: dict[Any, Any] = {BaseException: KimiError("inside"), Any: ["anything"], object: ["any"]}


def sample(hint: Any) -> Any:
    """Some value of a type."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return sample(next(arg for arg in args if arg is not types.NoneType))
    if origin is Literal:
        return args[0]
    if origin is tuple and args[0] in SAMPLES:
        return SAMPLES[args[0]]
    if origin is tuple:
        return tuple(sample(arg) for arg in args if arg is not ...)
    if origin in (dict, Mapping):
        return {sample(args[0]): sample(args[1])}
    if origin is list:
        return [sample(args[0])]
    if hint in PLAIN:
        return PLAIN[hint]
    if hint in (str, int, float, bool):
        return hint("7")
    if inspect.isclass(hint) and issubclass(hint, Enum):
        return next(iter(hint))
    return make(hint)


def make(kind: Any) -> Any:
    """An instance with a value of its own for each parameter."""
    is_value = is_dataclass(kind) or issubclass(kind, tuple)
    hints = get_type_hints(kind if is_value else kind.__init__, NAMES)
    hints.pop("return", None)
    if is_dataclass(kind):
        hints = {f.name: hints[f.name] for f in fields(kind) if f.init}
    positional = {
        name
        for name, parameter in inspect.signature(kind).parameters.items()
        if parameter.kind is not parameter.KEYWORD_ONLY
    }
    given = {name: sample(hint) for name, hint in hints.items() if name != "self"}
    return kind(
        *(value for name, value in given.items() if name in positional),
        **{name: value for name, value in given.items() if name not in positional},
    )


def make_error(kind: type[BaseException]) -> Any:
    has_init = inspect.isfunction(kind.__init__)
    error: Any = make(kind) if has_init else kind("What happened.\nWhat to do.")
    if isinstance(error, EndpointError):
        error.partial = Completion(Message("assistant", "half"))
    if not isinstance(error, ToolInterrupted):
        # A reply holds its error: the two form a cycle.
        error.reply = Reply(TurnRecord((Step("half"),), usage=Usage(1, 2)), error=error)
    return error


# Objects of any kind, which stay behind where the reply is pickled.
LIVE = {"functions", "shown_in", "values", "filled"}


def held(value: Any, depth: int = 6) -> Any:
    """Return the contents of a value as something that can be compared."""
    if not depth:
        return "…"
    if isinstance(value, BaseException):
        inside = {name: held(item, depth - 1) for name, item in vars(value).items()}
        return type(value), str(value), repr(value), inside
    if is_dataclass(value) and not isinstance(value, type):
        names = {f.name for f in fields(value)} - (LIVE if isinstance(value, Reply) else set())
        return type(value), {name: held(getattr(value, name), depth - 1) for name in names}
    if isinstance(value, Mapping):
        return {name: held(item, depth - 1) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value), [held(item, depth - 1) for item in value]
    return value


WAYS: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "oldest": lambda value: pickle.loads(pickle.dumps(value, 2)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}
by_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@by_way
@pytest.mark.parametrize("kind", public_errors(), ids=lambda kind: kind.__name__)
def test_errors(kind: type[BaseException], way: Callable[[Any], Any]) -> None:
    error = make_error(kind)
    again = way(error)
    assert again is not error
    assert held(again) == held(error)
    assert again.args == error.args


@by_way
@pytest.mark.parametrize("kind", public_values(), ids=lambda kind: kind.__name__)
def test_values(kind: type, way: Callable[[Any], Any]) -> None:
    value = make(kind)
    assert held(way(value)) == held(value)


def test_all_that_are_documented_are_found() -> None:
    found = {error.__name__ for error in public_errors()}
    documented = {name for name in errors.__all__ if inspect.isclass(getattr(errors, name))}
    assert documented <= found
    assert "SchemaMismatch" in found
    assert {Reply, Message, ToolResult, Usage, TurnFinished} <= set(public_values())


def test_a_copied_error_and_its_reply_still_hold_each_other() -> None:
    again = copy.deepcopy(make_error(EndpointError))
    assert again.reply.error is again
    from_reply = pickle.loads(pickle.dumps(make_error(TurnInterrupted).reply))
    assert from_reply.error.reply is from_reply


def test_the_error_tree_is_public() -> None:
    for name in errors.__all__:
        if inspect.isclass(getattr(errors, name)):
            assert getattr(kimi_magic, name) is getattr(errors, name)
            assert name in kimi_magic.__all__
