"""Summaries without values: names, types and counts, or figures, and nothing of the values."""

from __future__ import annotations

import re
import time
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given

from kimi_magic.context.cell_errors import CellErrors, outline_of
from kimi_magic.context.summaries.detail import Detail
from kimi_magic.context.summaries.summary import summary_of
from kimi_magic.context.variables import details_of, find_variables
from kimi_magic.core.errors import PromptError
from kimi_magic.testing import ScriptedServer
from tests.kernels import Kernel

SECRET = "Qzxj"
NUMBER = 918273


class Own:
    def __repr__(self) -> str:
        return SECRET

    def _repr_llm_(self) -> str:
        return SECRET

    def __len__(self) -> int:
        return 3


def frames(rows: int) -> list[Any]:
    data = {"who": [SECRET] * rows, "n": [NUMBER] * rows, "at": [date(1987, 6, 5)] * rows}
    pandas = pd.DataFrame(data, index=pd.Index([SECRET] * rows, name="key"))
    enum = pl.DataFrame({"who": pl.Series([SECRET] * rows, dtype=pl.Enum([SECRET]))})
    polars = pl.DataFrame(data)
    arrow = [polars.to_arrow()] if find_spec("pyarrow") else []
    return [pandas, polars, *arrow, pandas.who, pandas.astype("category"), enum]


VALUES: list[Any] = [
    *frames(3), *frames(50), SECRET, SECRET.encode(), NUMBER, float(NUMBER), [SECRET] * 3,
    {SECRET: NUMBER}, {NUMBER}, (SECRET,), SimpleNamespace(who=SECRET), Own(), [Own()],
    ValueError(SECRET), Path(__file__), np.full(3, NUMBER), np.array([SECRET]), date(1987, 6, 5),
    pd.DataFrame({"who": [[SECRET], {SECRET: 1}, Own()] * 9}), lambda x=SECRET: x,
]  # fmt: skip
LEAKS = re.compile(rf"{SECRET}|{NUMBER}|1987")


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_no_value_is_in_a_schema(value: Any) -> None:
    summary = summary_of(value, detail=Detail("schema"))
    assert not LEAKS.search(summary.text)
    assert summary.text
    assert not summary.personal


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_figures_quote_no_text(value: Any) -> None:
    text = summary_of(value, detail=Detail("figures")).text
    assert SECRET not in text
    if not hasattr(value, "columns") or len(value) < 5:
        assert not LEAKS.search(text), "figures of a few values are the values"


def test_figures_of_numbers_that_look_personal_are_counts() -> None:
    frame = pd.DataFrame({"phone": [2025550143 + n for n in range(50)], "n": range(50)})
    text = summary_of(frame, detail=Detail("figures")).text
    assert "20255501" not in text
    assert "phone (int64): all distinct" in text
    assert "quartiles" in text


WORDS = st.text(st.characters(categories=["Lu"], max_codepoint=127), min_size=8, max_size=12)


@given(
    st.lists(WORDS, min_size=1, max_size=30, unique=True), st.sampled_from(["schema", "figures"])
)
def test_no_text_of_a_column_leaves(words: list[str], values: str) -> None:
    frame = pd.DataFrame({"a": words, "b": [{word: word} for word in words]}, index=words)
    text = summary_of(frame, detail=Detail(values)).text
    assert not any(word in text for word in words)


class Slow(Own):
    def __len__(self) -> int:
        while True:
            time.sleep(0.01)
        return 0

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        raise ValueError(SECRET)


def test_code_of_the_value_that_fails_or_takes_too_long() -> None:
    for values in ("schema", "figures"):
        assert summary_of(Slow(), detail=Detail(values)).text == "Slow object"


@pytest.mark.parametrize(("rows", "shown"), [(0, 0), (1, 1), (3, 3), (10, 10), (30, 30), (80, 80)])
def test_rows_are_counted(rows: int, shown: int) -> None:
    frame = pd.DataFrame({"n": range(80)})
    summary = summary_of(frame, detail=Detail.of("rows", rows))
    lines = [line for line in summary.text.splitlines() if re.fullmatch(r"\d+,\d+", line)]
    assert (len(lines), summary.shown, summary.of) == (shown, shown, 80)


def test_a_name_may_say_its_detail() -> None:
    space = {"df": 1, "model": SimpleNamespace(coef=2), "runs": {"a:b": [5]}}
    names = ["df:schema, model.coef : figures", 'runs["a:b"][0]:rows', "df"]
    assert list(find_variables(names, space)) == ["df", "model.coef", "runs['a:b'][0]"]
    assert details_of(names) == {
        "df": "schema", "model.coef": "figures", "runs['a:b'][0]": "rows",
    }  # fmt: skip
    for wrong in (
        "df][df",
        "df] + df[0",
        "df:nothing",
        "df:",
        "df:1",
        ":schema",
        "df:schema:rows",
        "df:schema.x",
    ):
        with pytest.raises(PromptError):
            find_variables([wrong], space)
    with pytest.raises(PromptError, match="one of `:rows`, `:figures`, `:schema`"):
        find_variables(["df:none"], space)


@pytest.mark.parametrize(
    ("source", "error", "kept"),
    [
        ("df['regoin']", KeyError("regoin"), "KeyError: 'regoin'"),
        ("int(x)", ValueError(f"invalid literal for int() with base 10: '{SECRET}'"),
         "ValueError: invalid literal for int() with base …'"),
        ("1 + ''", TypeError("unsupported operand type(s) for +: 'int' and 'str'"),
         "TypeError: unsupported operand type(s) for +: 'int' and 'str'"),
        ("raise X", ValueError(f"{SECRET} {NUMBER}\n{SECRET}"), "ValueError: …"),
        ("f()", ValueError(), "ValueError"),
    ],
)  # fmt: skip
def test_the_outline_of_a_traceback(source: str, error: Exception, kept: str) -> None:
    outline = outline_of(error, source)
    assert outline.splitlines()[-1] == kept
    assert not LEAKS.search(outline)


def test_outlines_are_kept_with_their_errors() -> None:
    errors = CellErrors()
    for number in range(1, 90):
        info = SimpleNamespace(store_history=True, raw_cell="f()")
        result = SimpleNamespace(execution_count=number, info=info, error_before_exec=None)
        result.error_in_exec = ValueError(SECRET)
        errors.record(result)
    assert errors.outlines.keys() == errors.keys()


def test_the_setting_holds_for_all_that_goes_along(kernel: Kernel, asked: ScriptedServer) -> None:
    kernel.run(f"import pandas as pd\ndf = pd.DataFrame({{'who': ['{SECRET}'] * 50}})")
    kernel.run("print(df.who[0]); df", ok=True)
    kernel.run("row = df.iloc[0].who\nfloat(row)", ok=False)
    number = int(kernel.run("print(len(In) - 2)").stdout)
    kernel.run("%config KimiMagics.summary_values = 'schema'")
    for line in ("%kimi fix", "%kimi explain", f"%%kimi -v df --cells {number - 1}\n{{{{ df }}}}"):
        asked.reply("OK.")
        kernel.run(line)
        assert SECRET not in str(asked.requests[-1].body), line
        assert "): who" in str(asked.requests[-1].body) or "explain" in line
    asked.reply("OK.")
    ran = kernel.run("%%kimi --fresh -v df:rows\nHi")
    assert SECRET in str(asked.requests[-1].body), "one that is named decides for itself"
    assert ran.record["text/plain"].startswith("[Sent: df (10 of 50 rows), ")
    kernel.run("%config KimiMagics.summary_values = 'rows'")
    for line in ("-v df:schema", "-v df --var-rows 0"):
        asked.reply("OK.")
        ran = kernel.run(f"%%kimi --fresh {line}\nHi")
        assert SECRET not in str(asked.requests[-1].body)
        assert ran.record["text/plain"].startswith("[Sent: df (types only), ")
    asked.reply("OK.")
    kernel.run("kimi.ask('Hi', variables=['df:schema'], show=False)")
    assert SECRET not in str(asked.requests[-1].body)
