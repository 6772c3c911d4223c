"""Literals evaluate to their value, and are laid out as the usual formatters do."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kimi_magic.core.text import mend_surrogates
from kimi_magic.export.formatting import JAVASCRIPT, PYTHON, as_json
from tests.snippets import NASTY, hostile, ruff

texts = hostile.map(mend_surrogates)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
data = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
)
values = st.recursive(
    data | st.binary() | st.sets(numbers), lambda inner: st.lists(inner).map(tuple)
)


@given(values, st.integers(0, 90))
def test_python_reads_what_was_written(value: Any, used: int) -> None:
    for text in (PYTHON.flat(value), PYTHON.write(value, "    ", used)):
        assert ast.literal_eval(text) == value


@given(texts)
def test_texts_of_many_lines(text: str) -> None:
    written = PYTHON.multiline(text)
    assert ast.literal_eval(written) == text
    assert all(line == line.rstrip(" \t\r") for line in written.split("\n"))


@given(data)
def test_json_reads_what_was_written(value: Any) -> None:
    for indent in (None, 2):
        written = as_json(value, indent)
        assert json.loads(written) == value
        assert all(char.isprintable() or char in "\n\u200c\u200d" for char in written)


def test_the_layout_is_the_formatters(tmp_path: Path) -> None:
    """Checked with values of every length around the line limit."""
    samples: list[Any] = [*map(mend_surrogates, NASTY)]
    for length in range(60, 95):
        word = "x" * length
        samples += [word, [word], {"a": word}, {"a": [word], "b": {"c": word[:40]}}, (word, 1)]
    samples += [1e100, -1e-7, 0.1, 10**30, b"bytes", b'"', set(), {1, 2}, (), (1,), [], {}]
    lines = [PYTHON.assign("value", sample) for sample in samples]
    ruff("\n".join([*lines, ""]), tmp_path, "format", "--diff")
    namespace: dict[str, Any] = {}
    for line, sample in zip(lines, samples, strict=True):
        exec(line, namespace)
        assert namespace["value"] == sample


def test_javascript_as_people_write_it() -> None:
    value = {"role": "user", "content-type": None, "n": [1, True], "long": "a\nb`${c}\\" * 9}
    assert JAVASCRIPT.write(value) == (
        '{\n  role: "user",\n  "content-type": null,\n  n: [1, true],\n'
        "  long: `" + "a\nb\\`\\${c}\\\\" * 9 + "`,\n}"
    )
