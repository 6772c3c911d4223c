"""The statements in the place of objects that live in the notebook alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from kimi_magic.export.formatting import PYTHON

__all__ = ["FROM_NOTEBOOK", "placeholder"]

MAX_STATEMENT = 120

# Run as the notebook's next cell, the program finds there what was left behind.
FROM_NOTEBOOK = 'globals().get("{}")'

# By module and class, subclasses included: how it is written in the notebook, and read again.
_KEPT = {
    "pandas.DataFrame": ("{0}.to_parquet('{0}.parquet')", "pandas.read_parquet('{0}.parquet')"),
    "pandas.Series": ("{0}.to_pickle('{0}.pickle')", "pandas.read_pickle('{0}.pickle')"),
    "pandas.Index": ("{0}.to_series().to_pickle('{0}.pickle')", None),
    "polars.DataFrame": ("{0}.write_parquet('{0}.parquet')", "polars.read_parquet('{0}.parquet')"),
    "polars.LazyFrame": ("{0}.sink_parquet('{0}.parquet')", "polars.scan_parquet('{0}.parquet')"),
    "pyarrow.Table": (
        "pyarrow.feather.write_feather({0}, '{0}.arrow')",
        "pyarrow.feather.read_table('{0}.arrow')",
    ),
    "numpy.ndarray": ("numpy.save('{0}.npy', {0})", "numpy.load('{0}.npy')"),
    "sklearn.BaseEstimator": ("joblib.dump({0}, '{0}.joblib')", "joblib.load('{0}.joblib')"),
}


def placeholder(name: str, value: Any, reason: str, statement: str) -> str:
    """Return a statement that stops the program with one line, which says what belongs there.

    ``reason`` says why the value is not part of it, ``statement`` how the notebook made it.
    """
    text = f"Fill in {name} here: {reason}. {_advice(name, value, statement)}"
    call = f"{PYTHON.tab}raise SystemExit({{}})"
    flat = call.format(PYTHON.flat(text))
    if len(flat) > PYTHON.width:
        inner = PYTHON.tab * 2
        flat = call.format(f"\n{inner}{PYTHON.flat(text)}\n{PYTHON.tab}")
    return f"if ({name} := {FROM_NOTEBOOK.format(name)}) is None:\n{flat}"


def _advice(name: str, value: Any, statement: str) -> str:
    for kind in _kinds(value):
        if kept := _KEPT.get(kind):
            written, read = (part and part.format(name) for part in kept)
            loads = f", and {name} = {read} loads it" if read else ""
            return f"In the notebook, {written} saves it{loads}."
    if statement := _as_one_line(statement):
        return f"The notebook has: {statement}"
    return "Write how it is made or loaded."


def _kinds(value: Any) -> Iterator[str]:
    """Yield the names of a value's classes, with their package alone."""
    for kind in type(value).__mro__:
        yield f"{kind.__module__.partition('.')[0]}.{kind.__qualname__}"


def _as_one_line(statement: str) -> str:
    """Return a statement that calls something without data of its own; "" for any other."""
    with suppress(SyntaxError):
        body = ast.parse(statement).body
        call = body[0].value if len(body) == 1 and isinstance(body[0], ast.Assign) else None
        held = (ast.Dict, ast.List, ast.Set, ast.Tuple)
        if isinstance(call, ast.Call) and not any(isinstance(n, held) for n in ast.walk(call)):
            line = " ".join(ast.unparse(body[0]).split())
            return line if len(line) <= MAX_STATEMENT else ""
    return ""
