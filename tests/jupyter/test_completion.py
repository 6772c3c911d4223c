"""Completions of the tab key, from the one table of options."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.util import LazyLoader, find_spec, module_from_spec
from types import ModuleType
from typing import Any

import pytest

from kimi_magic.jupyter.completion import Names, callables, completions, parameters
from tests.kernels import Kernel

NAMES: Names = {
    "chats": lambda _: ["main", "review"],
    "endpoints": lambda _: ["moonshot", "nvidia"],
    "models": lambda _: ["moonshotai/kimi-k2-thinking"],
    "verbs": lambda _: ["ask"],
    "forms": lambda _: ["curl", "python"],
    "variables": lambda _: ["sales"],
    "callables": lambda typed: ["forecast", "plot", f"{typed}x"],
    "parameters": lambda path: {"forecast": ["region", "months", "rate"]}.get(path, []),
}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("%%kimi --temp", ["--temperature"]),
        ("%%kimi -e n", ["nvidia"]),
        ("%%kimi -R -m moon", ["moonshotai/kimi-k2-thinking"]),
        ("%%kimi -c ", ["main", "review"]),
        ("%%kimi -T forecast,pl", ["plot", "plx"]),
        ("%%kimi -T forecast, pl", ["plot", "plx"]),
        ('%%kimi -T "fore', ["forecast", "forex"]),
        ("%%kimi -T forecast(", ["region", "months", "rate"]),
        ("%%kimi -T mean, forecast(r", ["region", "rate"]),
        ('%%kimi -T "forecast(months, r', ["region", "rate"]),
        ("%%kimi -T forecast(region,months,r", ["rate"]),
        ("%%kimi -T forecast(region, months),pl", ["plot", "plx"]),
        ("%%kimi -T forecast(region, months) --ra", ["--raw"]),
        ("%%kimi -T nothing(r", []),
        ("%kimi tool forecast(mo", ["months"]),
        ("%%kimi -v a, b, s", ["sales"]),
        ("%%kimi -v a, b, -R --ra", ["--raw"]),
        ("%%kimi -f t", ["text"]),
        ("%%kimi --approve a", ["auto", "ask"]),
        ("answer = %kimi ch", ["chats", "chat"]),
        ("%kimi chat re", ["review"]),
        ("%kimi tools ", ["add", "remove"]),
        ("%kimi tools add fo", ["forecast", "fox"]),
        ("%kimi tool fore", ["forecast", "forex"]),
        ("%kimi models no", []),
        ("%kimi chat --", ["--all"]),
        ("%kimi chat --all re", ["review"]),
        ("%kimi chat main re", None),
        ("%kimi snippet cu", ["curl"]),
        ("%kimi snippet -c re", ["review"]),
        ("%kimi snippet -c review --turn 2 cu", ["curl"]),
        ("%kimi snippet curl --", ["--turn", "--chat", "--with-data", "--out"]),
        ("%kimi ask --ra", ["--raw"]),
        ("%kimi fix -v sa", ["sales"]),
        ("%kimi ask wh", None),
        ("%%kimi -s te", None),
        ("%%kimi hello", None),
        ("x = 5 %kimi ch", None),
        ("print(", None),
    ],
)
def test_lines(line: str, found: list[str] | None) -> None:
    assert completions(line, NAMES) == found


def test_every_option_is_offered() -> None:
    found = completions("%%kimi -", NAMES)
    assert found
    assert {"-T", "--tool", "--no-tools", "--max-steps", "-h"} <= set(found)


@pytest.mark.parametrize(
    ("code", "matches"),
    [
        ("%%kimi --max-", ["--max-tokens", "--max-steps"]),
        ("%%kimi -T forec", ["forecast"]),
        ("%%kimi -T forecast,mod", ["model"]),
        ("%%kimi -T model.pre", ["model.predict"]),
        ("%%kimi -T model.predict(", ["rows", "scale"]),
        ("%%kimi -T model.predict(rows, sc", ["scale"]),
        ("%%kimi -e local -c ma", ["main"]),
        ("x = 1\n%kimi to", ["tools", "tool"]),
        ("%%kimi\n%kimi_to", []),
        ("%%kimi\nfore", ["forecast"]),
    ],
)
def test_in_a_kernel(kernel: Kernel, code: str, matches: list[str]) -> None:
    kernel.run(
        "def forecast(): pass\n"
        "class Model:\n"
        "    def __call__(self): pass\n"
        "    def predict(self, rows, *, scale=1): pass\n"
        "model = Model()\n"
        "kimi.chat()"
    )
    found = kernel.complete(code)
    assert found["status"] == "ok"
    assert found["matches"] == matches
    if matches:
        assert matches[0].startswith(code[found["cursor_start"] :])


RAN: list[str] = []


class Descriptor:
    """Records that its code was run, as one would that reads a table from a server."""

    def __get__(self, owner: object, kind: type | None = None) -> Any:
        RAN.append("descriptor")
        return print


class Meta(type):
    def __getattribute__(cls, name: str) -> Any:
        RAN.append(f"metaclass: {name}")
        return super().__getattribute__(name)

    def __instancecheck__(cls, instance: object) -> bool:
        RAN.append("isinstance")
        return False


class Watched(metaclass=Meta):
    """An object on which nothing can be asked without its noticing."""

    slow = Descriptor()

    class Inner:
        def deep(self) -> None: ...

    def __init__(self) -> None:
        fields = object.__getattribute__(self, "__dict__")
        fields |= {"hook": print, "size": 3, "guarded": print, 7: print}

    @property
    def lazy(self) -> Any:
        RAN.append("property")
        return self

    @property
    def guarded(self) -> Any:
        RAN.append("property over a field")
        return print

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        RAN.append("__class__")
        return int

    def __getattr__(self, name: str) -> Any:
        RAN.append(f"__getattr__: {name}")
        raise AttributeError

    def __getattribute__(self, name: str) -> Any:
        RAN.append(f"__getattribute__: {name}")
        return object.__getattribute__(self, name)

    def __dir__(self) -> Iterator[str]:
        RAN.append("__dir__")
        return iter(())

    def __eq__(self, other: object) -> bool:
        RAN.append("__eq__")
        return False

    def __hash__(self) -> int:
        RAN.append("__hash__")
        return 0

    def method(self) -> None: ...

    @classmethod
    def of_class(cls) -> None: ...

    @staticmethod
    def static() -> None: ...


class Slots:
    __slots__ = ("field",)

    def method(self) -> None: ...


class OwnDict:
    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        RAN.append("__dict__")
        return {}

    def method(self) -> None: ...


def lazy_module() -> ModuleType:
    """A module that is loaded when one of its attributes is read."""
    spec = find_spec("colorsys")
    assert spec
    assert spec.loader
    spec.loader = LazyLoader(spec.loader)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


METHODS = ["method", "of_class", "static"]


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("watched.", ["Inner", "hook", *METHODS]),
        ("Watched.", ["Inner", *METHODS]),
        ("watched.Inner.", ["deep"]),
        ("watched.lazy.", []),
        ("watched.slow.", []),
        ("watched.guarded.", []),
        ("watched.nothing.", []),
        ("slots.", ["method"]),
        ("slots.field.", []),
        ("own_dict.", ["method"]),
        ("module.", ["called"]),
        ("module.missing.", []),
        ("lazy.", []),
        ("nothing.", []),
        ("watched..", []),
        (".", []),
    ],
)
def test_completion_runs_no_code_of_the_notebook(typed: str, found: list[str]) -> None:
    module = ModuleType("module")
    vars(module).update(called=print, RAN=RAN, __getattr__=RAN.append)
    space = {
        "watched": Watched(),
        "Watched": Watched,
        "slots": Slots(),
        "own_dict": OwnDict(),
        "module": module,
        "lazy": lazy_module(),
    }
    before = set(sys.modules)
    RAN.clear()
    offered = callables(space, typed)
    assert RAN == []
    path = typed.rpartition(".")[0]
    names = sorted(name.removeprefix(f"{path}.") for name in offered)
    assert names == found
    assert set(sys.modules) == before
    assert parameters(space, typed) == []
    assert RAN == []
    assert type(space["lazy"]).__name__ == "_LazyModule", "it was not loaded"


def test_parameters_of_callables() -> None:
    class Shop:
        def __init__(self, tax: float, *taxes: float, rate: int = 1, **more: int) -> None: ...
        def price(self, net: float) -> None: ...
        @classmethod
        def named(cls, name: str) -> None: ...
        @staticmethod
        def plain(n: int) -> None: ...

    module = ModuleType("module")
    vars(module).update(Shop=Shop, own=Shop.plain)
    space = {"Shop": Shop, "shop": Shop(1.0), "module": module, "price": Shop(1.0).price, "n": 3}
    own = {path: parameters(space, path) for path in
           ("Shop", "shop.price", "shop.named", "shop.plain", "module.own", "module.Shop", "price",
            "n", "shop", "nothing", "", "shop.nothing")}  # fmt: skip
    assert {path: names for path, names in own.items() if names} == {
        "Shop": ["tax", "rate"],
        "shop.price": ["net"],
        "shop.named": ["name"],
        "shop.plain": ["n"],
        "module.own": ["n"],
        "module.Shop": ["tax", "rate"],
        "price": ["net"],
    }
