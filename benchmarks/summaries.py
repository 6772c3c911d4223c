"""Cost of a summary: ``python -m benchmarks.summaries``.

Each figure is the fastest of several runs, next to a floor from the same process: pandas or Python
showing as much of the same value.

- a frame of 10 million rows (target 1 s), over ``df.head().to_string()`` and ``df.describe()``
- a frame of 10,000 columns, over its ``head().to_string()``
- a dict of a million keys, over ``reprlib.repr``
- an array of 100 million numbers, over ``str(array)``
- a prompt of a megabyte, searched for secrets, over a copy of it in lower case
- each object of `tests/context/golden/` whose library is installed: milliseconds (target 50 ms) and
  tokens, beside those of its repr

``python -m benchmarks.summaries NAME`` measures the objects whose names begin so, and no others.
"""

from __future__ import annotations

import json
import reprlib
import sys
import time
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import pytest

from kimi_magic.chats.context_window import CHARS_PER_TOKEN
from kimi_magic.context.summaries.summary import summarize
from kimi_magic.secrets.keys import Key
from kimi_magic.secrets.redact import Redactor
from tests.context.golden import all_cases

ROUNDS = 5
ROWS = 10_000_000
COLUMNS = 10_000
KEYS = 1_000_000


def tall() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    regions = pd.Categorical.from_codes(rng.integers(0, 4, ROWS), list("nesw"))
    return pd.DataFrame(
        {
            "region": regions,
            "name": np.array(["a name", "another name"], dtype=object)[rng.integers(0, 2, ROWS)],
            "sales": rng.normal(100, 20, ROWS),
            "units": rng.integers(0, 50, ROWS),
            "day": pd.date_range("2000-01-01", periods=ROWS, freq="min"),
        }
    )


def fastest(call: Callable[[], object]) -> float:
    """Return the seconds of the fastest call; other load only ever makes calls slower."""
    taken = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return min(taken)


def beside(ours: Callable[[], object], floor: Callable[[], object]) -> str:
    mine, least = fastest(ours), fastest(floor)
    return f"{mine * 1000:.2f} ms, {mine / least:.3g} × ({least * 1000:.2f} ms)"


def tokens(text: str) -> int:
    return -(-len(text) // CHARS_PER_TOKEN)


def objects(start: str) -> Iterator[tuple[str, str]]:
    """Yield the name of each golden object with its cost: at first, at best, and of its repr.

    The first summary of an object may cost more: what it computes, some libraries keep.
    """
    for name, case in all_cases().items():
        if not name.startswith(start):
            continue
        try:
            value = case.make()
        except pytest.skip.Exception:
            yield name, "its library is not installed"
            continue
        began = time.perf_counter()
        text = summarize(value)
        first = time.perf_counter() - began
        ours, floor = fastest(lambda: summarize(value)), fastest(lambda: repr(value))  # noqa: B023
        cost = f"{tokens(text)} tokens in {ours * 1000:.2f} ms (at first {first * 1000:.2f} ms)"
        yield name, f"{cost}; its repr: {tokens(repr(value)):,} in {floor * 1000:.2f} ms"


def large() -> dict[str, str]:
    frame, wide = tall(), pd.DataFrame(np.ones((1000, COLUMNS)))
    keys = {f"key {number}": number for number in range(KEYS)}
    array = np.ones(100_000_000, dtype="i1")
    prompt = "Lorem ipsum dolor sit amet, 12345; " * 30_000
    redactor = Redactor([Key("fake-key-0123456789abcdef" * 3, "A_KEY")], shapes=True)
    return {
        f"{ROWS:,} rows, over head().to_string() (target 1 s)": beside(
            lambda: summarize(frame), lambda: frame.head().to_string()
        ),
        f"{ROWS:,} rows, over describe()": beside(lambda: summarize(frame), frame.describe),
        f"{COLUMNS:,} columns, over head().to_string(max_cols=30)": beside(
            lambda: summarize(wide), lambda: wide.head().to_string(max_cols=30)
        ),
        f"a dict of {KEYS:,} keys, over reprlib.repr": beside(
            lambda: summarize(keys), lambda: reprlib.repr(keys)
        ),
        f"an array of {array.size:,}, over str": beside(
            lambda: summarize(array), lambda: str(array)
        ),
        f"{len(prompt):,} characters searched for secrets, over lower()": beside(
            lambda: redactor.text(prompt), prompt.lower
        ),
    }


def main(start: str = "") -> None:
    warnings.simplefilter("ignore")
    figures = {} if start else large()
    print(json.dumps(figures | dict(objects(start)), indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main(*sys.argv[1:])
