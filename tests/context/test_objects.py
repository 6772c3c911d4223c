"""Code, modules, estimators, figures, exceptions and files as text."""

from __future__ import annotations

import importlib
import os
import re
import textwrap
import types
from pathlib import Path
from typing import Any

import pytest

from kimi_magic.context.cell_errors import traceback_text
from kimi_magic.context.summaries.summary import summarize
from tests.kernels import Kernel

np: Any = importlib.import_module("numpy")
pd: Any = importlib.import_module("pandas")


def double(x: float, *, times: int = 2) -> float:
    """Multiply.

    By two, if nothing else is said.
    """
    return x * times


class Doubler:
    """Doubles."""

    def run(self, x: float) -> float:
        return double(x)


def test_functions_and_classes_are_their_source() -> None:
    assert summarize(double).splitlines() == [
        "def double(x: float, *, times: int = 2) -> float:",
        '    """Multiply.',
        "",
        "    By two, if nothing else is said.",
        '    """',
        "    return x * times",
    ]
    assert summarize(Doubler).startswith('class Doubler:\n    """Doubles."""\n')
    assert summarize(Doubler().run) == "def run(self, x: float) -> float:\n    return double(x)"


def test_of_long_code_signature_and_docstring_stay() -> None:
    text = summarize(Kernel, tokens=300)
    assert text.startswith("class Kernel()")
    assert "\nA kernel that runs cells" in text
    assert "characters are missing]" in text


def test_of_the_code_of_libraries_signature_and_first_paragraph_are_told() -> None:
    text = summarize(textwrap.TextWrapper)
    assert text.startswith("class TextWrapper(width=70, initial_indent='', ")
    assert "\nof textwrap\nObject for wrapping/filling text." in text
    assert "\nnames: fill" in text
    assert "Merge DataFrame or named Series" in summarize(pd.DataFrame().merge)
    text = summarize(pd.DataFrame.to_csv)  # a long signature loses its hints
    assert "(self, path_or_buf=None, " in text
    assert ":" not in text
    for value in (pd.DataFrame, pd.read_csv, np.linalg.svd, re.sub, importlib.import_module):
        assert len(summarize(value)) <= 800


def test_code_without_source() -> None:
    assert summarize(len).startswith("def len(obj, /)\nReturn the number of items")
    assert summarize(bytearray).startswith("class bytearray(…)\nbytearray(iterable_of_ints)")
    assert "\nnames: append, " in summarize(bytearray)
    made: dict[str, Any] = {}
    exec("def f(a, b=1): ...", made)
    assert summarize(made["f"]) == "def f(a, b=1)"


def test_modules() -> None:
    module = types.ModuleType("helpers", "Helps.\n\nAnd more.")
    vars(module).update(__version__="1.2", load=double, _private=1)
    assert summarize(module) == "module helpers 1.2\nHelps.\nnames: load"
    assert summarize(np).startswith(f"module numpy {np.__version__}\n")
    module.__all__ = ["load", "lazily_made"]  # type: ignore[attr-defined]
    assert summarize(module).endswith("names: load, lazily_made")


class Regression:
    """As scikit-learn has it."""

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        return {"alpha": self.alpha, "base": np.zeros((100, 3))}

    def fit(self) -> Regression:
        self.coef_ = np.array([1.0, 2.0])
        self.names_ = pd.DataFrame({"a": [1]})
        return self


def test_estimators() -> None:
    assert summarize(Regression(0.5)).splitlines() == [
        "Regression, an estimator",
        "- alpha=0.5",
        "- base=<ndarray, shape (100, 3), dtype float64, from 0 to 0, mean 0>",
    ]
    assert summarize(Regression().fit()).splitlines()[3:] == [
        "fitted:",
        "- coef_ = array([1., 2.])",
        "- names_ = <DataFrame, 1 row × 1 column>",
    ]
    assert summarize(Regression).startswith("class Regression:")

    class Pipeline(Regression):
        fitted = False

        def __sklearn_is_fitted__(self) -> bool:
            return self.fitted

    pipeline = Pipeline()
    assert summarize(pipeline).endswith("\nnot fitted")
    pipeline.fitted = True
    assert summarize(pipeline).endswith("\nfitted")


@pytest.fixture
def pyplot() -> Any:
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("agg")
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    yield pyplot
    pyplot.close("all")


def test_figures(pyplot: Any) -> None:
    figure, (left, right) = pyplot.subplots(1, 2)
    figure.suptitle("Sales\nand more")
    left.set(title="By day", xlabel="day", ylabel="€", yscale="log", ylim=(1, 1000))
    left.plot(pd.date_range("2024-01-01", periods=60), np.arange(60.0), label="growth")
    left.legend()
    bars = right.bar(["a", "b"], [3, 4], label="shops")
    right.bar_label(bars)
    right.scatter([0, 1, 1], [2.0, 3.5, 4.0])
    right.axhline(1)
    right.imshow(np.eye(3))
    lines = summarize(figure).splitlines()
    assert lines[0] == "matplotlib Figure with 2 plots, title «Sales and more»"
    assert lines[1] == "plot 1: «By day»"
    assert lines[2].startswith("- x axis «day», labelled 2024-01-")
    assert lines[3] == "- y axis «€» (log) from 1 to 1000"
    assert re.fullmatch(
        r"- line «growth»: 60 points, x from 2024-01-01[T0:.]* to 2024-02-29[T0:.]*, "
        r"every 1 day, y from 0 to 59, mean 29.5, such as \(2024-01-\d\d, \d+\), .*",
        lines[4],
    )
    assert lines[5:7] == ["- legend: «growth»", "plot 2"]
    assert "- line: (0, 1), (1, 1)" in lines
    assert "- 2 bars «shops»: 3, 4" in lines
    assert "- Points: (0, 2), (1, 3.5), (1, 4)" in lines
    assert "- image of shape (3, 3), from 0 to 1, mean 0.333333" in lines
    assert "- text «3»" in lines
    assert summarize(right).startswith("matplotlib axes\n- x axis")


def test_a_histogram_and_an_empty_figure(pyplot: Any) -> None:
    _, axes = pyplot.subplots()
    axes.hist(np.arange(100), bins=4)
    assert "- 4 bars: 25, 25, 25, 25" in summarize(axes)
    axes.hist(np.arange(1000), bins=20)
    assert "- 20 bars: from 50 to 50, mean 50" in summarize(axes)
    axes.plot(np.full(100, np.nan), list("ab") * 50)
    assert "- line: 100 points, x 100 not finite, y from a to b, such as (nan, " in (
        summarize(axes)
    )
    axes.plot([], [])
    assert "\n- line: \n" in summarize(axes) + "\n"
    assert summarize(pyplot.figure()) == "matplotlib Figure with 0 plots"


def test_a_figure_in_three_dimensions(pyplot: Any) -> None:
    axes = pyplot.figure().add_subplot(projection="3d")
    axes.set(zlabel="height", zlim=(0, 2))
    assert "- z axis «height» from 0 to 2" in summarize(axes)


def fail(depth: int) -> None:
    if not depth:
        raise ValueError("the reason " + "x" * 50)
    fail(depth - 1)


def failure(depth: int = 0) -> BaseException:
    try:
        try:
            fail(depth)
        except ValueError as error:
            raise KeyError("outer") from error
    except KeyError as error:
        return error
    raise AssertionError


def test_exceptions_are_their_traceback() -> None:
    text = summarize(failure())
    assert text.startswith("Traceback (most recent call last):\n")
    assert "ValueError: the reason xxx" in text
    assert "direct cause of the following exception" in text
    assert text.endswith("KeyError: 'outer'")
    assert summarize(ValueError("no traceback")) == "ValueError: no traceback"


def test_the_end_of_a_long_traceback_stays() -> None:
    text = summarize(failure(depth=50), tokens=100)
    assert text.endswith("KeyError: 'outer'")
    assert "characters are missing]" in text


def test_a_text_file_is_an_excerpt(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("one\ntwo ü\n", "utf-8")
    assert summarize(file) == "notes.txt, 11 bytes\none\ntwo ü\n"
    file.write_text("".join(f"line {n} ü\n" for n in range(10**5)), "utf-8")
    text = summarize(file, tokens=100)
    assert text.startswith("notes.txt, 1,388,890 bytes\nline 0 ü\nline 1 ü\n")
    assert "the middle of the file is left out" in text
    assert text.endswith("line 99999 ü\n")
    assert "\ufffd" not in text


def test_paths_that_are_no_text_files(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"\x89PNG\0\0")
    (tmp_path / "data").mkdir()
    assert summarize(picture) == "a.png, 6 bytes, no text"
    assert summarize(tmp_path / "data") == "the folder data with\nnothing in it"
    assert summarize(tmp_path).splitlines()[1:] == ["a.png", "data/"]
    missing = tmp_path / "missing"
    assert summarize(missing) == f"{missing} (there is no such file)"
    for number in range(200):
        (tmp_path / "data" / f"{number}").touch()
    assert summarize(tmp_path / "data").endswith("\n…")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert summarize(pipe) == f"{pipe} (no regular file)"


def test_frames_of_a_failed_cell_are_named_by_its_number(kernel: Kernel) -> None:
    number = int(kernel.run("print(len(In))").stdout)
    kernel.run("def f(x):\n    return 1 / x\nf(0)", ok=False)
    kernel.run("from kimi_magic.context.cell_errors import traceback_text\nimport sys")
    told = kernel.run("print(traceback_text(sys.last_value))").stdout
    assert told.startswith(
        f"Traceback (most recent call last):\n  Cell In[{number}], line 3, in <module>\n    f(0)\n"
    )
    assert f"\n  Cell In[{number}], line 2, in f\n    return 1 / x\n" in told
    assert traceback_text(ValueError("x")) == "ValueError: x"


def test_a_class_has_the_source_of_the_cell_that_ran_last(kernel: Kernel) -> None:
    for size in (1, 2, 1):
        kernel.run(f"class Box:\n    size: int = {size}")
    assert "size: int = 1" in kernel.run("print(kimi.summarize(Box))").stdout


def test_classes_of_the_notebook_have_their_source(kernel: Kernel) -> None:
    """Python itself does not find it."""
    code = "from dataclasses import dataclass\n\n@dataclass\nclass Point:\n    x: int = 3\n"
    kernel.run(code)
    kernel.run("class Plain:\n    def __init__(self): self.size = 3")
    kernel.run("from kimi_magic.context.summaries.summary import summarize")
    assert kernel.run("print(summarize(Point))").stdout == (
        "@dataclass\nclass Point:\n    x: int = 3\n"
    )
    assert kernel.run("print(summarize([Point(), Plain()]))").stdout == (
        "[Point(x=3), Plain(size=3)]\n"
    )
