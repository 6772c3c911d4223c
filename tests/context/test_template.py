"""What becomes of ``{{ expression }}`` in a prompt."""

from __future__ import annotations

import datetime as dt
import importlib
from contextlib import suppress
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_magic.context.summaries.detail import Detail
from kimi_magic.context.template import Expression, expand, fill, in_namespace, parse
from kimi_magic.core.errors import KimiError, PromptError
from kimi_magic.core.sent import Attached
from kimi_magic.testing import ScriptedServer
from tests.kernels import Kernel

np: Any = importlib.import_module("numpy")
pd: Any = importlib.import_module("pandas")


class SaysItself(str):
    __slots__ = ()

    def _repr_llm_(self) -> str:
        return "own words"


def told(text: str, **names: object) -> str:
    return expand(text, in_namespace(names))


EXPANDED = [
    ("no template at all", "no template at all"),
    ("{{ 1 + 1 }}", "2"),
    ("a{{1}}b{{ 2 }}c", "a1b2c"),
    ('{{ {"a": 1}["a"] }}', "1"),
    ("{{ {1: {2: 3}}[1][2] }}", "3"),
    ("{{{1}}}", "{1}"),
    ('{{ "}}" }}', "}}"),
    ("{{ '{{' }}", "{{"),
    (r'{{ "\" }}" }}', '" }}'),
    ("{{ '''a\n}}\n''' }}", "a\n}}\n"),
    ('{{ f"{1}}}" }}', "1}"),
    ('{{ f"{{{1}}}" }}{{ 2 }}', "{1}2"),
    ('{{ f"{ {1: 2}[1]:>3}" }}', "  2"),
    ("{{\n1\n+ 1\n}}", "2"),
    ("{{ [n\n   for n in (1, 2)]\n  [0] }}", "1"),
    ("{{ 1 +\r\n 1 }}\r\n", "2\r\n"),
    ("{{ 1 # a comment }}\n + 1 }}", "2"),
    ("{{ (lambda n: n)(3), }}", "(3,)"),
    ("{{ 'ü' + 'é' }}ß{{ 1 }}", "üéß1"),
    ("{{ 1 }}'s \"book", "1's \"book"),
    ("{{ 1 }}'''", "1'''"),
    ("}} {{ 1 }} }}", "}} 1 }}"),
    (r"\{{ 1 }}", "{{ 1 }}"),
    (r"\{{{{ 1 }}", "{{1"),
    (r"\frac{1}{2}", r"\frac{1}{2}"),
    ("\0\r\ud800{{ 1 }}\ud800\0", "\0\r\ud8001\ud800\0"),
]


@pytest.mark.parametrize(("text", "expected"), EXPANDED)
def test_expressions_are_python(text: str, expected: str) -> None:
    assert told(text) == expected


VALUES = [
    ("a text\n", "a text\n"),
    (2.50, "2.5"),
    (True, "True"),
    (None, "None"),
    (Decimal("1.50"), "1.50"),
    (dt.date(2026, 3, 1), "2026-03-01"),
    (PurePosixPath("/a/b"), "/a/b"),
    (10**5000, "<an integer of 16,610 bits>"),
    ([1, "b"], "[1, 'b']"),
    ({"a": 1}, "{'a': 1}"),
    (b"raw", "b'raw'"),
    (SaysItself("text"), "own words"),
    (object(), "<object object>"),
]


@pytest.mark.parametrize(("value", "expected"), VALUES, ids=[str(i) for i in range(len(VALUES))])
def test_a_value_reads_as_part_of_the_sentence(value: object, expected: str) -> None:
    assert told("It is {{ value }}.", value=value) == f"It is {expected}."


def test_scalars_of_numpy_read_as_numbers() -> None:
    assert told("{{ x }} {{ n }}", x=np.float64(1.5), n=np.int8(3)) == "1.5 3"


def test_what_is_no_text_is_bounded() -> None:
    text = expand("{{ x }}", in_namespace({"x": list(range(10**6))}), tokens=50)
    assert text.startswith("list of 1,000,000 items (int): [0, 1, 2")
    assert len(text) <= 200


def test_a_text_is_not_bounded() -> None:
    assert told("{{ x }}", x="y" * 100_000) == "y" * 100_000


def test_each_expression_is_evaluated_once_in_the_order_of_the_text() -> None:
    seen: list[str] = []

    def evaluate(source: str) -> str:
        seen.append(source)
        return "{{ 3 }} {1} $x"

    assert expand("{{ 1 }}-{{ 2 }}", evaluate) == "{{ 3 }} {1} $x-{{ 3 }} {1} $x"
    assert seen == ["1", "2"]


UNREADABLE = [
    ("{{ }}", "`{{  }}` in line 1 holds no expression"),
    ("{{}}", "holds no expression"),
    ("a\nb {{ sales.head( ", "`{{ sales.head(` in line 2: it has no end `}}`"),
    ("{{ 1 } }", "it has no end `}}`"),
    ("{{ '''1 }}", "it has no end `}}`"),
    ("{{ 'abc }}", "SyntaxError: unterminated string literal"),
    ("{{ f(1 }}", "'}' does not close '('"),
    ("{{ 1) + (2 }}", "')' does not close '{'"),
    ("\n\n{{ x y }}", "`{{ x y }}` in line 3: SyntaxError: invalid syntax"),
    ("{{ # nothing\n }}", "SyntaxError: invalid syntax"),
    ("{{ x = 1 }}", "SyntaxError: "),
    ("{{ 'a\0b' }}", "null bytes"),
]


@pytest.mark.parametrize(("text", "words"), UNREADABLE)
def test_what_cannot_be_read_says_where_and_nothing_is_evaluated(text: str, words: str) -> None:
    with pytest.raises(PromptError) as raised:
        expand("{{ 1 }}" + text, pytest.fail)
    assert words in str(raised.value)
    assert r"literal `{{` is written `\{{`" in str(raised.value)
    assert 1 <= str(raised.value).count("\n") <= 3


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def fail(error: BaseException) -> object:
    raise error


FAILURES = [
    (
        "missing.column",
        "`{{ missing.column }}` in line 1: NameError: name 'missing' is not defined",
    ),
    ("1 / 0", "`{{ 1 / 0 }}` in line 1: ZeroDivisionError: division by zero"),
    ("(1,\n 2)[2]", "`{{ (1, 2)[2] }}` in line 1: IndexError: tuple index out of range"),
    ("fail(SystemExit(1))", "SystemExit: 1"),
    ("fail(Unspeakable())", "Unspeakable"),
    ("fail(ValueError('x' * 10_000))", "characters are missing]"),
]


@pytest.mark.parametrize(("source", "words"), FAILURES)
def test_an_expression_that_fails_says_which_in_pythons_words(source: str, words: str) -> None:
    with pytest.raises(KimiError) as raised:
        told(f"{{{{ {source} }}}}", fail=fail, Unspeakable=Unspeakable)
    assert words in str(raised.value)
    assert "Nothing was sent." in str(raised.value)
    assert len(str(raised.value)) < 1000
    assert raised.value.__cause__ is not None


def test_an_interrupt_goes_through() -> None:
    with pytest.raises(KeyboardInterrupt):
        told("{{ fail(KeyboardInterrupt()) }}", fail=fail)


def test_the_expressions_are_told_before_they_are_evaluated() -> None:
    assert parse("a {{ x\n }}\n{{ y }}") == [
        "a ",
        Expression("x", 1),
        "\n",
        Expression("y", 3),
        "",
    ]


def test_names_reach_into_comprehensions_and_lambdas() -> None:
    evaluate = in_namespace({"x": 2}, Err={1: "boom"})
    assert expand("{{ [Err[n] * x for n in (1,)][0] }}", evaluate) == "boomboom"
    assert expand("{{ (lambda: Err[x - 1])() }}", evaluate) == "boom"


def test_the_notebooks_own_name_wins() -> None:
    assert expand("{{ Err }}", in_namespace({"Err": 0.1}, Err={1: "boom"})) == "0.1"


def test_the_namespace_stays_as_it_was() -> None:
    names: dict[str, Any] = {"x": 1}
    assert expand("{{ (y := x + 1) }}", in_namespace(names)) == "2"
    assert names == {"x": 1}


def test_prints_stay_out_of_the_cell(capsys: pytest.CaptureFixture[str]) -> None:
    def noisy() -> int:
        print("working …")
        return 3

    assert told("{{ noisy() }}", noisy=noisy) == "3"
    assert capsys.readouterr().out == ""


def test_an_expression_that_only_prints_becomes_what_it_printed() -> None:
    text = told("{{ frame.info() }}", frame=pd.DataFrame({"a": [1, None]}))
    assert "1 non-null" in text
    assert told("{{ print() }}") == "None"


single_braces = st.text(alphabet=st.sampled_from("{}\\a$ \n'\"#")).filter(lambda t: "{{" not in t)


@given(single_braces | st.text().filter(lambda t: "{{" not in t))
def test_single_braces_are_never_touched(text: str) -> None:
    assert expand(text, pytest.fail) == text


@given(st.text(), st.text())
def test_what_comes_out_of_a_variable_is_never_expanded(before: str, value: str) -> None:
    before = before.replace("{", "").rstrip("\\")
    text = before + "{{ x }}" + "!"
    assert told(text, x=value + "{{ x }}") == f"{before}{value}{{{{ x }}}}!"


literals = st.recursive(
    st.integers() | st.text() | st.booleans() | st.none(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
)


@given(literals, st.text().map(lambda t: t.replace("{", "")))
def test_any_literal_of_python_is_found_to_its_end(value: object, after: str) -> None:
    assert told("{{ [" + repr(value) + "] == x }}" + after, x=[value]) == f"True{after}"


@given(st.text(alphabet=st.sampled_from("{}()[]'\"\\\n\r# fx1,:é\0\ud800")))
def test_any_prompt_expands_or_says_why_not(text: str) -> None:
    with suppress(PromptError):
        assert told(text, f=str, x=1) == text or "{{" in text


# In a kernel

VALUES_OF_SIZE = """
import numpy as np
import pandas as pd
frame = pd.DataFrame({f"column {n}": range(500) for n in range(40)})
array = np.arange(10_000.0).reshape(100, 100) * 1e6
class Wordy:
    def __repr__(self):
        return "<" + "word " * 10_000 + ">"
wordy = Wordy()
"""
SIZED = ["frame", "array", "wordy", "[frame] * 50", "{'a': [wordy, {'b': array}]}", "list(frame)"]


@pytest.mark.parametrize("expression", SIZED)
def test_the_option_and_the_setting_bound_what_an_expression_becomes(
    kernel: Kernel, asked: ScriptedServer, expression: str
) -> None:
    lengths = []
    kernel.run(VALUES_OF_SIZE)
    for setting, option in ((50, ""), (400, ""), (400, "--var-tokens 20"), (50, "--var-tokens 90")):
        asked.reply("OK.")
        kernel.run(f"kimi.settings.summary_tokens = {setting}")
        kernel.run(f"%%kimi --no-history {option}\n{{{{ {expression} }}}}")
        lengths.append(len(asked.requests[-1].body["messages"][-1]["content"]))
    limits = [50 * 4, 400 * 4, 20 * 4, 90 * 4]
    assert all(length <= limit for length, limit in zip(lengths, limits, strict=True))
    assert lengths[2] < lengths[0] < lengths[3] <= lengths[1]


def test_what_is_told_of_values_that_are_summarised() -> None:
    attached: list[Attached] = []
    texts: list[str] = []
    space = {"d": {"k": "Ann Smith"}, "who": "Ann", "n": 3, "nothing": None}
    pieces = parse("{{ d }} {{ who }} {{ n }} {{ nothing }}")
    evaluate = in_namespace(space)
    filled = fill(pieces, evaluate, detail=Detail("schema"), attached=attached, texts=texts)
    assert "Smith" not in str(filled)
    notes = [str(each) for each in attached]
    assert notes == ["d (types only)", "who", "n", "nothing (types only)"]
    texts.clear()
    fill(pieces, evaluate, texts=texts)
    assert texts == ["{'k': 'Ann Smith'}"], "a program leaves it out; words stay in the prompt"
