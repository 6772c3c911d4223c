"""Source gathered from notebook functions, run on its own."""

from __future__ import annotations

import functools
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kimi_magic.export.formatting import join_parts
from kimi_magic.export.function_sources import Sources, gather
from tests.snippets import cell, ruff


def found(source: str, *tools: str) -> Sources:
    namespace: dict[str, Any] = {}
    cell(source, namespace)
    return gather({name: namespace[name] for name in tools})


def alone(source: str, call: str, folder: Path) -> str:
    """Return what a call prints in a program of the gathered sources, which must be complete."""
    sources = found(source, call.partition("(")[0])
    assert not sources.missing
    text = join_parts([sources.imports.text(), *sources.blocks.values(), f"print({call})"])
    ruff(text, folder, "check", "--select=E4,E7,E9,F,I")
    program = folder / "alone.py"
    program.write_text(text, "utf-8")
    ran = subprocess.run([sys.executable, program], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{ran.stderr}\n{text}"
    return ran.stdout.rstrip("\n")


STANDING_ALONE = {
    "imports in their forms": (
        """
import concurrent.futures
import os.path
import xml.etree.ElementTree
import xml.sax.saxutils
from collections import Counter, defaultdict as dd
from math import *
from os import path, sep as separator
from xml.etree import ElementTree as trees
import xml.dom.minidom as dom

def amp():
    return xml.sax.saxutils.escape("&")

def f():
    a = xml.etree.ElementTree.fromstring("<a><b/></a>")
    b = trees.fromstring("<c/>").tag + dom.parseString("<d/>").documentElement.tagName
    with concurrent.futures.ThreadPoolExecutor() as pool:
        c = list(pool.map(floor, [1.5]))
    same = path is os.path, separator == os.sep
    return a[0].tag + amp(), b, c, Counter("aa"), dd(int), *same, round(pi)
""",
        "f()",
        "('b&amp;', 'cd', [1], Counter({'a': 2}), defaultdict(<class 'int'>, {}), True, True, 3)",
    ),
    "constants as they are now": (
        """
LIMITS = {"a": [1, -2.5, None, True], ("b", 1): {1, 2}, b"c": "d'\\n"}
LIMITS["a"].append(float("inf"))
TEXT = "a long line of text that goes on and on, to the edge of the page and then over it, and"
COUNT = 0

def f():
    global COUNT
    COUNT += 1
    return LIMITS, TEXT[-3:], COUNT
""",
        "f()",
        """({'a': [1, -2.5, None, True, inf], ('b', 1): {1, 2}, b'c': "d'\\n"}, 'and', 1)""",
    ),
    "other functions, also in a circle, lambdas, aliases": (
        """
def even(n):
    return n == 0 or odd(n - 1)

def odd(n):
    return n != 0 and even(n - 1)

double = lambda n: n * 2
twice = double
isodd = odd

def f(n):
    return even(n), isodd(n), twice(n)
""",
        "f(3)",
        "(False, True, 6)",
    ),
    "a local name is no name of the notebook": (
        """
data = object()

def f(rows):
    data = [row for row in rows]
    def inner(key=lambda data: -data):
        return sorted(data, key=key)
    return inner()
""",
        "f([1, 3, 2])",
        "[3, 2, 1]",
    ),
    "decorators, defaults and hints": (
        """
import functools
from typing import Literal, Optional

Unit = Literal["C", "F"]
Number = int | float
START = 3

def loud(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return str(function(*args, **kwargs)).upper()
    return wrapper

@loud
@functools.lru_cache(maxsize=None)
def f(x: "Optional[Number]" = START, unit: Unit = "C") -> str:
    return f"{x}{unit.lower()}"
""",
        "f()",
        "3C",
    ),
    "classes": (
        """
import enum
from dataclasses import dataclass, field

class Colour(enum.Enum):
    RED = 1

@dataclass
class Base:
    colour: Colour = Colour.RED

@dataclass
class Item(Base):
    tags: list = field(default_factory=list)

class Shop:
    stock = [Item()]
    def first(self) -> "Item":
        return self.stock[0]

def f():
    return Shop().first()
""",
        "f()",
        "Item(colour=<Colour.RED: 1>, tags=[])",
    ),
    "what never changes, from its assignment": (
        """
import re
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

WORD = re.compile(r"\\w+")
HOME, WEEK = Path("data"), timedelta(7)
FOLDER = Path("data") / "in"
FIRST = date(2026, 1, 1)
RATE = Decimal("0.19")

def f():
    return WORD.findall("a b"), FOLDER.name, FIRST.year, RATE
""",
        "f()",
        "(['a', 'b'], 'in', 2026, Decimal('0.19'))",
    ),
    "what a function closes over": (
        """
def make(factor):
    def f(x):
        return x * factor + offset()
    return f

def offset():
    return 1

f = make(3)
""",
        "f(2)",
        "7",
    ),
    "hints that are not evaluated": (
        """
from __future__ import annotations

class Node:
    def next(self) -> Node:
        return self

def f(x: Node | None = None) -> list[Node]:
    return [type(Node().next()).__name__]
""",
        "f()",
        "['Node']",
    ),
}


@pytest.mark.parametrize("case", STANDING_ALONE)
def test_a_function_stands_alone(case: str, tmp_path: Path) -> None:
    source, call, printed = STANDING_ALONE[case]
    assert alone(source, call, tmp_path) == printed


def test_the_latest_definition_counts() -> None:
    source = "class A:\n    x = 1\n\ndef f():\n    return A.x\n"
    namespace: dict[str, Any] = {}
    cell(source, namespace)
    cell(source.replace("1", "2"), namespace)
    assert gather({"f": namespace["f"]}).blocks["A"] == "class A:\n    x = 2"


def test_callables_that_need_no_source() -> None:
    sources = gather({"len": len, "sqrt": math.sqrt, "dumps": __import__("json").dumps})
    assert sources.functions == {"len": "len", "sqrt": "sqrt", "dumps": "dumps"}
    assert sources.imports.text() == "from json import dumps\nfrom math import sqrt"
    assert not sources.blocks


class Machine:
    def run(self) -> None: ...

    def __call__(self) -> None: ...


def nested() -> Callable[[], int]:
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return count

    return step


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (Machine().run, "it belongs to a live object, of type Machine"),
        (Machine(), "it is a live object, of type Machine"),
        (functools.partial(pow, 2), "it is a live object, of type partial"),
        (nested(), "it cannot stand alone"),
        (eval("lambda: 1"), "its source is not at hand"),
        ([lambda: 1, lambda: 2][1], "its source is not at hand"),
    ],
)
def test_callables_that_stay_behind(function: Callable[..., Any], why: str) -> None:
    sources = gather({"tool": function})
    assert sources.missing == {"tool": why}
    assert not sources.blocks
    assert not sources.functions


def test_one_name_has_one_meaning() -> None:
    one: dict[str, Any] = {}
    other: dict[str, Any] = {}
    cell("def f():\n    return g()\n\ndef g():\n    return 1\n", one)
    cell("def g():\n    return 2\n", other)
    sources = gather({"f": one["f"], "g": one["g"], "g_2": other["g"]})
    assert sources.functions == {"f": "f", "g": "g"}
    assert sources.missing == {"g_2": "another one of this name is in the program"}


def test_modules_beside_the_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop_helpers.py").write_text("def price():\n    return 1\n", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "shop_helpers", raising=False)
    source = "import pandas as pd\nfrom shop_helpers import price\n"
    sources = found(f"{source}def f():\n    return pd.Series([price()])\n", "f")
    assert sources.imports.text() == "import pandas as pd\n\nfrom shop_helpers import price"
    assert sources.imports.packages() == ["pandas"]
    assert sources.imports.own_modules() == ["shop_helpers"]


def test_what_the_shell_shows_with_is_imported() -> None:
    imports = "from IPython.display import Markdown, display"
    assert (
        found(f"{imports}\ndef f():\n    display(Markdown('x'))\n", "f").imports.text() == imports
    )
