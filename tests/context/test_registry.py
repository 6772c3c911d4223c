"""Which module describes a library's object."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest

from kimi_magic.context.summaries.detail import Detail
from kimi_magic.context.summaries.libraries import registry
from kimi_magic.context.summaries.summary import summarize, summary_of


class Graph:
    def __repr__(self) -> str:
        return "Graph()"


class Tree(Graph):
    pass


class Liar(type):
    @property
    def __mro__(cls) -> Any:
        raise RuntimeError


class Twisted(Graph, metaclass=Liar):
    pass


@pytest.fixture
def family(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A family of this module's graphs."""
    module = ModuleType("graphs_for_tests")
    name = f"{registry.__name__.rpartition('.')[0]}.{module.__name__}"
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(registry.KNOWN, f"{__name__}.Graph", module.__name__)
    return module


def test_a_class_and_its_subclasses_are_found_by_name(family: Any) -> None:
    family.describe = lambda value, limit, detail: f"a graph: {detail.values} in {limit}\nmore"
    for kind in (Graph, Tree, Twisted):
        assert summarize(kind(), tokens=50) == "a graph: rows in 200\nmore"
        assert summary_of(kind(), detail=Detail("schema")).text.startswith("a graph: schema")
        assert summarize([kind()]).startswith("[<a graph: rows in ")
    assert summarize(Graph).startswith("class Graph:")


@pytest.mark.parametrize("answer", ["None", "1 / 0", "exit()"])
def test_one_that_is_not_its_own_or_fails_is_described_otherwise(family: Any, answer: str) -> None:
    family.describe = lambda value, limit, detail: eval(answer)
    assert summarize(Graph()) == "Graph()"
    assert summarize([Graph()]) == "[Graph()]"


def test_every_family_is_there() -> None:
    for module in set(registry.KNOWN.values()):
        assert callable(import_module(f"{registry.__name__.rpartition('.')[0]}.{module}").describe)


LOADED = """
import sys
from kimi_magic.context.summaries.libraries.registry import KNOWN
from kimi_magic.context.summaries.summary import summarize
for value in (1, "a", [object()], {"a": print}, type):
    summarize(value)
libraries = {name.partition(".")[0] for name in KNOWN} - {"sqlite3"}
families = {name for name in sys.modules if name.rpartition(".")[2] in set(KNOWN.values())}
print(*sorted(libraries & set(sys.modules)), *sorted(families))
"""


def test_nothing_is_imported_that_is_not_needed() -> None:
    ran = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""
