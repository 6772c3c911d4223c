"""Aim: reach an object that the user did not offer, by its name in an argument."""

from __future__ import annotations

import builtins
import os
from abc import ABC, ABCMeta, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import BaseModel, ImportString

from kimi_magic.core.errors import KimiError
from kimi_magic.testing import ScriptedServer
from kimi_magic.tools.decorator import tool
from kimi_magic.tools.toolset import Toolset
from tests.kernels import Kernel

RAN: list[str] = []
"""The calls that ran and should not have."""


def ran(*_: Any, **__: Any) -> Any:
    RAN.append("ran")
    raise AssertionError


class Checks(type):
    """A class that says itself what belongs to it."""

    __instancecheck__ = __subclasscheck__ = ran


class Watched(Checks):
    """A class whose every question about itself is code."""

    __name__ = __module__ = __mro__ = property(ran)


class Evil(metaclass=Watched):
    """An object that runs code wherever it is looked at."""

    __class__ = property(ran)
    __eq__ = __ne__ = __bool__ = __len__ = __iter__ = __repr__ = __str__ = ran
    __hash__ = ran
    frame = property(ran)

    def __getattribute__(self, name: str) -> Any:
        return ran()


class Claims:
    """An object that passes for a frame where ``isinstance`` is asked."""

    @property
    def __class__(self) -> Any:
        RAN.append("__class__")
        return pd.DataFrame

    @__class__.setter
    def __class__(self, _: Any) -> None: ...


class Job(BaseModel):
    run: ImportString[Any]


CELL = """
import os, functools, subprocess
import numpy as np, pandas as pd
import kimi_magic as kimi
from os import system
from numpy import mean as average
Out = {1: 2}; In = [""]; _private = lambda: 1; _1 = lambda: 1
def double(x): return 2 * x
class Maker:
    def __call__(self): return 1
    def method(self): return 1
    @staticmethod
    def static(): return 1
maker = Maker()
of_maker = maker.method
half = functools.partial(double, 1)
cached = functools.cache(double)
command = functools.partial(os.system, "ls")
vectorized = np.vectorize(os.system)
joined = "".join
wrapped = functools.lru_cache(os.system)
show = print
settings = kimi.settings
@kimi.tool(confirm=True)
def pay(x): return x
paid = functools.partial(pay, 1)
kimi.tool(maker.static, confirm=True)
"""

REFUSED = """
pd.io.common.os.system pd.io.common os os.system system subprocess.run functools.reduce np.mean
average pd.DataFrame pd.read_pickle kimi kimi.ask kimi.settings settings command vectorized joined
wrapped show pay paid print eval exec open __import__ __builtins__ __builtins__.eval builtins.eval
_private _1 In Out exit quit get_ipython maker.method Maker.static Maker.__init__ double.__call__
double.__globals__ double() double.real double[0] maker['x'] lambda:1 globals()
ｄouble dоuble doub\u200ble double\u202e \ufeffdouble double;os.system
""".split()
REFUSED += ["", " ", "double double", "import os", "double\0", "d" * 100_000]


@pytest.fixture
def notebook() -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "__main__", "__builtins__": builtins}
    exec(CELL, namespace)
    return namespace


def apply(function: Callable[..., Any]) -> str:
    """Apply a function."""
    return f"applied {getattr(function, '__name__', type(function).__name__)}"


def test_what_the_schema_lists_is_what_the_notebook_defines(notebook: dict[str, Any]) -> None:
    """Input: a notebook full of imports. Holds: its own public callables are listed, no others."""
    schema = Toolset([apply], namespace=notebook).schemas()[0]["function"]["parameters"]
    own = ["Maker", "cached", "double", "half", "maker", "of_maker"]
    assert schema["properties"]["function"]["enum"] == own


@pytest.mark.parametrize("name", REFUSED, ids=lambda name: ascii(name)[:30])
def test_a_name_that_was_not_listed(notebook: dict[str, Any], name: str) -> None:
    """Input: names with dots, of modules, of builtins, in disguise.

    Holds: nothing runs, and the model learns which names it may use.
    """
    tools = Toolset([apply], namespace=notebook)
    result = tools.call("apply", f'{{"function": {as_json(name)}}}')
    assert result.error
    assert "Nothing was run" in result.content
    assert "Maker, cached, double, half, maker, of_maker" in result.content
    assert len(result.content) < 1000


def as_json(text: str) -> str:
    import json

    return json.dumps(text)


def test_names_of_the_users_choice(notebook: dict[str, Any]) -> None:
    """Input: ``refs`` with a path, a builtin, a callable, a map. Holds: these and no others."""
    tool(apply, refs=["np.mean", "len", os.path.join, {"run": "".join}, "maker.static"])
    tools = Toolset([apply], namespace=notebook)
    listed = tools.schemas()[0]["function"]["parameters"]["properties"]["function"]["enum"]
    assert {"np.mean", "len", "join", "run", "double", "maker.static"} < set(listed)
    assert tools.call("apply", '{"function": "np.mean"}').value == "applied mean"
    assert tools.call("apply", '{"function": "run"}').value == "applied join"
    for name in ("np.median", "np", "max", "os.path.join", "np.mean.__globals__"):
        assert tools.call("apply", f'{{"function": "{name}"}}').error
    for wrong in (3, [3], "os.system()", {1: len}, ["a b"], object()):
        with pytest.raises(KimiError, match=r"refs has .*: give names such as 'np.mean'"):
            tool(apply, refs=wrong)


def test_values_are_not_run_to_learn_their_type() -> None:
    """Input: objects with code in every special method, and one that claims to be a frame.

    Holds: none of it runs, for classes, abstract classes, protocols and containers.
    """
    RAN.clear()

    class Kind(ABC):
        @abstractmethod
        def of(self) -> None: ...

    class Shape(metaclass=Checks): ...

    class Registered(metaclass=ABCMeta):
        @abstractmethod
        def of(self) -> None: ...

    frame = pd.DataFrame({"a": [1]})
    evil = object.__new__(Evil)
    namespace = {"evil": evil, "claims": Claims(), "frame": frame, "Evil": Evil}
    for hint in (
        pd.DataFrame,
        np.ndarray,
        Kind,
        Shape,
        Registered,
        Callable,
        type[Kind],
        ImportString,
    ):

        def take(x: Any) -> str:
            return "taken"

        take.__annotations__ = {"x": hint}
        tools = Toolset([take], namespace=namespace)
        tools.schemas()
        for name in ("evil", "claims", "evil.frame", "evil.__class__", "nothing", "Evil"):
            tools.call("take", f'{{"x": "{name}"}}')
    assert RAN == []

    def rows(df: pd.DataFrame) -> int:
        return len(df)

    tools = Toolset([rows], namespace=namespace)
    assert tools.schemas()[0]["function"]["parameters"]["properties"]["df"]["enum"] == ["frame"]
    assert tools.call("rows", '{"df": "frame"}').value == 1
    assert tools.call("rows", '{"df": "claims"}').error


def test_the_list_that_was_sent_counts() -> None:
    """Input: variables that come, change and go after the schema was made.

    Holds: a new name is unknown until it is listed, and a listed one is checked again.
    """

    def rows(df: pd.DataFrame) -> int:
        return len(df)

    namespace: dict[str, Any] = {"one": pd.DataFrame(), "two": pd.DataFrame()}
    tools = Toolset([rows], namespace=namespace)
    namespace |= {"late": pd.DataFrame(), "two": "a text"}
    assert "variable that holds a DataFrame: one" in tools.call("rows", '{"df": "late"}').content
    assert "two holds none any more" in tools.call("rows", '{"df": "two"}').content
    del namespace["one"]
    assert "there is none now" in tools.call("rows", '{"df": "one"}').content
    tools.schemas()
    assert tools.call("rows", '{"df": "late"}').value == 0


def test_names_that_nobody_can_read() -> None:
    """Input: 20,000 variables, some with names that code cannot write or that hide.

    Holds: a bounded list of plain names.
    """
    names = ["a\u3164", "ﬁ", "x y", "x.y", "class", "n" * 200, "__dunder__", "_", "1a", "a\u200db"]
    namespace: dict[Any, Any] = {name: pd.DataFrame() for name in names}
    namespace |= {3: pd.DataFrame(), None: pd.DataFrame()}
    namespace |= {f"v{i:05}": pd.DataFrame() for i in range(20_000)}

    def rows(df: pd.DataFrame) -> int:
        return len(df)

    tools = Toolset([rows], namespace=namespace)
    (schema,) = tools.schemas()
    listed = schema["function"]["parameters"]["properties"]["df"]["enum"]
    assert listed == [f"v{i:05}" for i in range(19_900, 20_000)]
    for name in names:
        assert tools.call("rows", f'{{"df": {as_json(name)}}}').error


def test_pydantic_imports_nothing() -> None:
    """Input: the hint ``ImportString``, alone and in a model. Holds: no name is imported."""

    def direct(x: ImportString[Any]) -> str:
        return "ran"

    def inside(x: Job) -> str:
        return "ran"

    tools = Toolset([direct, inside], namespace={})
    for arguments in ('{"x": "os.system"}', '{"x": {"run": "os.system"}}'):
        assert tools.call("direct", arguments).error
        assert tools.call("inside", arguments).error


def test_a_computed_attribute_of_the_users_choice_is_not_computed() -> None:
    """Input: ``refs`` that name a property. Holds: it is not evaluated, and a note says so."""
    RAN.clear()

    class Box:
        frame = property(ran)
        plain = pd.DataFrame()

    def rows(df: pd.DataFrame) -> int:
        return len(df)

    tool(rows, refs=["box.frame", "box.plain"])
    tools = Toolset([rows], namespace={"box": Box()})
    (made,) = tools.tools
    assert made.notes[-1] == "refs: there is no box.frame now, or it is computed"
    assert tools.call("rows", '{"df": "box.plain"}').value == 0
    assert tools.call("rows", '{"df": "box.frame"}').error
    assert RAN == []


def test_in_a_notebook(kernel: Kernel, asked: ScriptedServer) -> None:
    """Input: the model names what IPython and the notebook's imports hold, in a real kernel.

    Holds: the command does not run, and the turn goes on with a name that was listed.
    """
    names = "pd.io.common.os.system exit quit get_ipython In Out _ __ _1 _i kimi open".split()
    calls = [{"name": "apply", "arguments": {"function": name}} for name in names]
    asked.reply(tool_calls=calls)
    asked.reply(tool_calls=[{"name": "apply", "arguments": {"function": "double"}}])
    asked.reply("Done.")
    kernel.run(
        "import pandas as pd\nfrom collections.abc import Callable\n"
        "def double(x): return 2 * x\n"
        "def apply(function: Callable, x=2):\n    'Apply it.'\n    return str(function(x))"
    )
    kernel.run("double")
    kernel.run("%%kimi -T apply\nGo")
    (schema,) = asked.requests[0].body["tools"]
    function = schema["function"]["parameters"]["properties"]["function"]
    assert function["enum"] == ["apply", "double"]
    sent = [m["content"] for m in asked.requests[1].body["messages"] if m["role"] == "tool"]
    assert len(sent) == len(names)
    assert all("function: apply, double" in content for content in sent)
    assert asked.requests[2].body["messages"][-1]["content"] == "4"
    assert asked.requests[2].body["tools"] == [schema], "the prompt's cache stays"


def give(thing):  # type: ignore[no-untyped-def]
    """Give back what it gets, with a parameter that has no hint."""
    return thing


def test_a_parameter_without_a_hint_reaches_data_alone(notebook: dict[str, Any]) -> None:
    """Input: names of code, modules, private and scalar variables, and names with dots.

    Holds: the schema lists the public data, and any other text arrives as the text it is.
    """
    frame = pd.DataFrame({"a": [1]})
    notebook |= {"frame": frame, "rows": [1], "secret": "sk-text", "number": 3, "box": Job}
    notebook["torch_like"] = type("Net", (), {"__call__": lambda self: 1})()
    tools = Toolset([give], namespace=notebook)
    (schema,) = tools.schemas()
    node = schema["function"]["parameters"]["properties"]["thing"]
    assert node["anyOf"][0]["enum"] == ["frame", "rows"]
    assert tools.call("give", '{"thing": "frame"}').value is frame
    for name in [*REFUSED, "double", "Maker", "maker", "secret", "number", "box", "torch_like"]:
        assert tools.call("give", f'{{"thing": {as_json(name)}}}').value == name
    notebook["late"] = frame
    assert "late was not listed" in tools.call("give", '{"thing": "late"}').content


def test_data_is_told_without_running_its_code() -> None:
    """Input: objects with code in every special method. Holds: none of it runs."""
    RAN.clear()
    evil = object.__new__(Evil)
    namespace = {"evil": evil, "Evil": Evil, "claims": Claims()}

    def ignore(thing, other=None):  # type: ignore[no-untyped-def]
        return "ignored"

    tools = Toolset([ignore, np.mean], namespace=namespace)
    listed = str(tools.schemas())
    for name in ("evil", "Evil", "claims", "evil.frame", "nothing"):
        assert tools.call("ignore", f'{{"thing": "{name}", "other": "evil"}}').value == "ignored"
    assert RAN == []
    assert "'Evil'" not in listed


def test_refs_widen_what_a_parameter_without_a_hint_takes(notebook: dict[str, Any]) -> None:
    """Input: ``refs`` for such a parameter. Holds: what the user named is taken, no more."""
    tools = Toolset([tool(lambda thing: thing, name="keep", refs=["np.mean"])], namespace=notebook)
    assert tools.call("keep", '{"thing": "np.mean"}').value is np.mean
    assert tools.call("keep", '{"thing": "np.median"}').value == "np.median"
