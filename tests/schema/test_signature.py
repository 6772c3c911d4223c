"""Docstrings in each of the three styles."""

from __future__ import annotations

import textwrap

import pytest

from kimi_magic.schema.signature import read_docstring

GOOGLE = """Forecast the sales.

Looks at past years.
Args:
    region (str): Where
        it is.
    months: How many.
    *more: Others.

Keyword Args:
    exact: To the cent.

Returns:
    The sales.
"""
NUMPY = """Forecast the sales.

Looks at past years.
Parameters
----------
region : str
    Where
    it is.
months
    How many.
*more
    Others.

Other Parameters
----------------
exact : bool, optional
    To the cent.

Returns
-------
float
"""
SPHINX = """Forecast the sales.

Looks at past years.
:param str region: Where
    it is.
:param months: How many.
:param more: Others.
:keyword exact: To the cent.
:returns: The sales.
"""


@pytest.mark.parametrize("text", [GOOGLE, NUMPY, SPHINX], ids=["google", "numpy", "sphinx"])
@pytest.mark.parametrize("indent", ["", "        "])
def test_docstrings(text: str, indent: str) -> None:
    first, _, others = text.partition("\n")
    purpose, described = read_docstring(first + "\n" + textwrap.indent(others, indent))
    assert purpose == "Forecast the sales.\n\nLooks at past years."
    assert described == {
        "region": "Where it is.",
        "months": "How many.",
        "more": "Others.",
        "exact": "To the cent.",
    }


@pytest.mark.parametrize(
    ("text", "purpose", "described"),
    [
        (None, "", {}),
        ("", "", {}),
        ("Do: it.\n\nNote that: this.", "Do: it.\n\nNote that: this.", {}),
        ("Args:\n        x: only", "", {"x": "only"}),
        ("Do.\nParams:\n    x: it", "Do.", {"x": "it"}),
        ("Do.\nOther Parameters:\n    x: it", "Do.", {"x": "it"}),
        ("Do.\n:param x: it", "Do.", {"x": "it"}),
        ("Do.\n\nParameters\n----------\nx, y : int\n    both", "Do.", {"x": "both", "y": "both"}),
        ("Do.\n\nReturns:\n    int: it", "Do.", {}),
    ],
)
def test_other_docstrings(text: str | None, purpose: str, described: dict[str, str]) -> None:
    assert read_docstring(text) == (purpose, described)
