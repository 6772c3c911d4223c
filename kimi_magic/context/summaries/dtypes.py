"""Facts on the columns of a frame that lie in their types: categories, density, levels, gaps.

They cost no look at the values, or one at all of them where that takes a few milliseconds.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from kimi_magic.context.summaries.column_figures import cell
from kimi_magic.context.summaries.reprs import label
from kimi_magic.core.text import clip, count
from kimi_magic.core.time_limit import USER_ERRORS

__all__ = [
    "density",
    "is_sparse",
    "labels_at",
    "level_counts",
    "missing_in",
    "remark_on",
    "shown_dtype",
]

COUNTED = 1_000_000  # codes of categories or levels that are counted whole
MAX_SHOWN = 8
MAX_REMARK = 150
UNNAMED = "(no name)"
MOST_SPARSE = 1000

# Nanoseconds that pandas takes to see whether a value is missing, and all that it may take. Other
# libraries know how many are missing.
COSTS = {"O": 10, "b": 0, "i": 0, "u": 0}
COST, BUDGET = 1, 40_000_000


def shown_dtype(dtype: Any) -> object:
    """Return what stands for a type: categories and other values that may be part of it do not."""
    if _has_categories(dtype):
        ordered = ", ordered" if getattr(dtype, "ordered", _is_enum(dtype)) else ""
        return f"{_name(dtype)} of {len(dtype.categories):,}{ordered}"
    if is_sparse(dtype):
        return f"Sparse[{dtype.subtype}]"
    if _library(dtype) == "pyarrow" and hasattr(dtype, "index_type"):
        return f"dictionary<{dtype.value_type}{', ordered' if dtype.ordered else ''}>"
    return dtype


def _name(dtype: Any) -> str:
    return "Enum" if _is_enum(dtype) else "category"


def _is_enum(dtype: object) -> bool:
    """Return True for polars' type of texts from a list, which has an order."""
    return type(dtype).__name__ == "Enum" and _library(dtype) == "polars"


def _has_categories(dtype: Any) -> bool:
    if _is_enum(dtype):
        return True
    return (
        _library(dtype) == "pandas"
        and type(dtype).__name__ == "CategoricalDtype"
        and (dtype.categories is not None)
    )


def is_sparse(dtype: object) -> bool:
    return _library(dtype) == "pandas" and type(dtype).__name__ == "SparseDtype"


def _library(value: object) -> str:
    return type(value).__module__.partition(".")[0]


def remark_on(native: Any, dtype: Any, *, quotes: bool) -> str:
    """Tell of a column of categories their order and which are not used."""
    if not _has_categories(dtype):
        return ""
    categories = list(dtype.categories)
    parts = []
    texts = all(type(name) is str for name in categories[:MAX_SHOWN])  # others show their order
    if quotes and texts and getattr(dtype, "ordered", _is_enum(dtype)):
        more = " < …" if len(categories) > MAX_SHOWN else ""
        parts.append(f"ordered {' < '.join(map(cell, categories[:MAX_SHOWN]))}{more}")
    with suppress(*USER_ERRORS):
        unused = _unused(native, categories) if len(native) <= COUNTED else []
        if unused and quotes:
            more = ", …" if len(unused) > MAX_SHOWN else ""
            parts.append(f"unused: {', '.join(map(cell, unused[:MAX_SHOWN]))}{more}")
        elif unused:
            parts.append(f"{len(unused):,} unused")
    return clip(", ".join(parts), MAX_REMARK)


def _unused(native: Any, categories: Sequence[Any]) -> list[Any]:
    if hasattr(native, "array"):  # pandas
        numpy = sys.modules["numpy"]
        used = set(numpy.unique(native.array.codes).tolist())
        return [name for code, name in enumerate(categories) if code not in used]
    found = set(native.unique().to_list())
    return [name for name in categories if name not in found]


def level_counts(index: Any, words: str) -> str:
    """Count the distinct values of each level of a MultiIndex; "" for any other index."""
    if not hasattr(type(index), "levels") or not hasattr(type(index), "codes"):
        return ""
    numpy = sys.modules["numpy"]
    whole = len(index) <= COUNTED
    counts = (
        len(numpy.unique(codes[codes >= 0])) if whole else len(level)
        for codes, level in zip(index.codes, index.levels, strict=True)
    )
    named = (
        f"{UNNAMED if name is None else label(name)} ({n:,})"
        for name, n in zip(index.names, counts, strict=True)
    )
    return f"{words}, with distinct values: {', '.join(named)}"


def labels_at(index: Any, positions: Sequence[int]) -> list[Any]:
    """Return the labels of some rows, None where one is missing."""
    part = index[list(positions)]
    labels = part.tolist()
    with suppress(*USER_ERRORS):  # not defined for a MultiIndex
        if part.hasnans:
            return [None if lost else name for name, lost in zip(labels, part.isna(), strict=True)]
    return list(labels)


def density(native: Any, dtypes: Sequence[Any]) -> str:
    """Say once how much of sparse columns is stored, and what the rest is taken to be."""
    sparse = [at for at, dtype in enumerate(dtypes) if is_sparse(dtype)]
    if not sparse:
        return ""
    columns = [native] if native.ndim == 1 else [native.iloc[:, at] for at in sparse[:MOST_SPARSE]]
    arrays = [column.array for column in columns]
    cells = sum(map(len, arrays))
    stored = sum(array.sp_index.npoints for array in arrays)
    which = "" if len(sparse) == len(dtypes) else f" ({count(len(sparse), 'column')})"
    share = f"{stored / cells:.4g}" if cells else "0"
    return f"sparse{which}: density {share}"


def missing_in(columns: Iterable[Any], dtypes: Sequence[Any], rows: int) -> list[int | None]:
    """Count what is missing in columns of narwhals, as far as that is cheap."""
    left = BUDGET
    found: list[int | None] = []
    for column, dtype in zip(columns, dtypes, strict=False):
        cost = rows * _cost(column, dtype)
        if cost > left:
            found.append(None)
            continue
        left -= cost
        try:
            found.append(int(column.null_count()))
        except USER_ERRORS:
            found.append(None)
    return found


def _cost(column: Any, dtype: Any) -> int:
    implementation = column.implementation
    if implementation.is_polars() or implementation.is_pyarrow():
        return 0
    if not implementation.is_pandas():
        return max(COSTS.values())
    if type(dtype).__name__ in ("ArrowDtype", "StringDtype"):
        return 0 if getattr(dtype, "storage", "pyarrow") == "pyarrow" else COSTS["O"]
    return COSTS.get(dtype.kind, COST) if type(dtype).__module__.startswith("numpy") else COST
