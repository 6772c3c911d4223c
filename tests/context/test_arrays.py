"""Arrays as text; those of libraries that may not be installed have stand-ins."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimi_magic.context.summaries.summary import summarize

np: Any = importlib.import_module("numpy")

ARRAYS = [
    (np.array(3), "ndarray, shape (), dtype int64, from 3 to 3, mean 3\n3"),
    (np.array([], dtype=int), "ndarray, shape (0,), dtype int64\n[]"),
    (
        np.array([1.0, np.nan]),
        "ndarray, shape (2,), dtype float64, from 1 to 1, mean 1, 1 not finite\n[ 1. nan]",
    ),
    (np.array([np.inf]), "ndarray, shape (1,), dtype float64, 1 not finite\n[inf]"),
    (
        np.array(["2024-01-01", "NaT"], dtype="M8[D]"),
        "ndarray, shape (2,), dtype datetime64[D], from 2024-01-01 to 2024-01-01, 1 NaT\n"
        "['2024-01-01'        'NaT']",
    ),
    (np.array([True, False]), "ndarray, shape (2,), dtype bool, 50 % true\n[ True False]"),
    (np.array([{}, None]), "ndarray, shape (2,), dtype object\n[{} None]"),
    (np.array([1 + 2j]), "ndarray, shape (1,), dtype complex128\n[1.+2.j]"),
    (
        np.arange(10_000).reshape(100, 100),
        "ndarray, shape (100, 100), dtype int64, from 0 to 9999, mean 4999.5\ncorner (5, 5):\n"
        "[[  0   1   2   3   4]\n [100 101 102 103 104]\n [200 201 202 203 204]\n"
        " [300 301 302 303 304]\n [400 401 402 403 404]]",
    ),
    (
        np.full((20,) * 4, 7, dtype="i8"),
        "ndarray, shape (20, 20, 20, 20), dtype int64, from 7 to 7, mean 7\ncorner (2, 2, 2, 2):\n",
    ),
    (np.full(1000, 6e4, dtype="f2"), "dtype float16, from 60000 to 60000, mean 60000"),
]


@pytest.mark.parametrize(("array", "text"), ARRAYS, ids=[str(i) for i in range(len(ARRAYS))])
def test_arrays(array: Any, text: str) -> None:
    found = summarize(array)
    assert found == text or text in found


def test_a_large_array_is_read_in_part_and_says_so() -> None:
    array = np.broadcast_to(np.arange(1000.0), (3, 10**6, 1000))
    text = summarize(array)
    assert text.startswith("ndarray, shape (3, 1000000, 1000), dtype float64, from 0 to ")
    assert " (of 10,000 values at random)\ncorner (3, 3, 3):\n" in text


@pytest.mark.parametrize("period", [2, 3, 5, 64, 100, 1000])
def test_a_sample_has_no_period(period: int) -> None:
    """One of each so many would see the same value of what repeats itself."""
    text = summarize(np.tile(np.arange(float(period)), 10_000_000 // period))
    low, high = (float(part.split(",")[0]) for part in text.split("from ")[1].split(" to ")[:2])
    assert (low, high) == (0, period - 1)


def test_values_under_a_mask_are_never_shown() -> None:
    for dtype in (int, float, "U4", object, "M8[s]", [("a", int), ("b", "U4")]):
        for size in (3, 30, 3000):
            plain = np.full(size, 4711).astype("U4" if dtype == "U4" else int)
            data = np.zeros(size, dtype) if isinstance(dtype, list) else plain.astype(dtype)
            if isinstance(dtype, list):
                data["a"], data["b"] = 4711, "4711"
            masked = np.ma.array(data, mask=True)
            for value in (masked, [masked], {"a": masked}):
                assert "4711" not in summarize(value)
                assert str(np.datetime64(4711, "s")) not in summarize(value)


def test_arrays_in_containers() -> None:
    values = {"large": np.zeros((100, 2)), "small": np.arange(3), "number": np.float64(1.5)}
    assert summarize(values) == (
        "{'large': <ndarray, shape (100, 2), dtype float64, from 0 to 0, mean 0>, "
        "'small': array([0, 1, 2]), 'number': 1.5}"
    )


class Tensor:
    """As torch has it: no numpy, values by ``tolist`` alone."""

    def __init__(self, values: Any, device: str = "cpu") -> None:
        self._values = values
        self.device = device
        self.read = 0

    @property
    def shape(self) -> Any:
        return self._values.shape

    @property
    def dtype(self) -> str:
        return "torch.float32"

    def __dlpack__(self) -> Any:
        pytest.fail("its memory may be a device's")

    def __array__(self) -> Any:
        pytest.fail("its memory may be a device's")

    def __getitem__(self, key: Any) -> Tensor:
        return Tensor(self._values[key])

    def size(self) -> Any:
        return self._values.shape

    def tolist(self) -> Any:
        assert self._values.size <= 100_000
        return self._values.tolist()


def test_tensors_of_other_libraries() -> None:
    text = summarize(Tensor(np.arange(20.0).reshape(4, 5), "cuda:0"))
    assert text.startswith(
        "tests Tensor, shape (4, 5), dtype float32, on cuda:0, from 0 to 19, mean 9.5\n[[ 0.  1."
    )
    large = summarize(Tensor(np.ones((4000, 5000))))
    assert "from 1 to 1, mean 1 (of " in large
    assert "corner (5, 5):" in large
    assert summarize([Tensor(np.ones(50))]).startswith("[<tests Tensor, shape (50,), dtype float32")


def test_tensors_without_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = Tensor(np.ones((2, 2)))
    monkeypatch.delitem(sys.modules, "numpy")
    assert summarize(tensor) == (
        "tests Tensor, shape (2, 2), dtype float32\n[[1.0, 1.0], [1.0, 1.0]]"
    )


@given(
    st.lists(st.integers(0, 60), max_size=4), st.sampled_from("?bhifdSUOMm"), st.integers(1, 300)
)
def test_any_array_is_described_within_the_budget(shape: list[int], kind: str, tokens: int) -> None:
    array = np.zeros(
        shape, dtype={"M": "M8[s]", "m": "m8[s]", "S": "S3", "U": "U3"}.get(kind, kind)
    )
    text = summarize(array, tokens=tokens)
    assert 0 < len(text) <= tokens * 4
    assert text.startswith("ndarray, shape"[: tokens * 4 - 1])
