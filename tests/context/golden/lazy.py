"""Collections of Dask; frames of Spark, by stand-ins."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.context.golden import Case


def frame() -> Any:
    pd: Any = pytest.importorskip("pandas", "3.0")
    dd: Any = pytest.importorskip("dask.dataframe")
    data = pd.DataFrame({"n": range(40), "city": ["Kiel", "Bonn"] * 20})
    return dd.from_pandas(data, npartitions=4)


class Frame:
    """As Spark has it: what it stands for is not to be asked for."""

    isStreaming = False

    def __init__(self) -> None:
        kinds = {"id": ("bigint", False), "tags": ("array<string>", True)}
        fields = [
            SimpleNamespace(
                name=name, nullable=null, dataType=SimpleNamespace(simpleString=lambda k=kind: k)
            )
            for name, (kind, null) in kinds.items()
        ]
        self.schema = SimpleNamespace(fields=fields)

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} may run a job")


Frame.__module__, Frame.__qualname__, Frame.__name__ = (
    "pyspark.sql.dataframe",
    "DataFrame",
    "DataFrame",
)


CASES = {
    "dask-frame": Case(frame, "Kiel 39"),
    "dask-column": Case(lambda: frame().n),
    "dask-groups": Case(lambda: frame().groupby("city")),
    "dask-array": Case(lambda: pytest.importorskip("dask.array").ones((5000, 300), chunks=100)),
    "dask-bag": Case(
        lambda: pytest.importorskip("dask.bag").from_sequence(["Kiel"] * 9, npartitions=3), "Kiel"
    ),
    "dask-delayed": Case(
        lambda: pytest.importorskip("dask").delayed(sum)([1, 2], dask_key_name="sum-1")
    ),
    "spark-frame": Case(Frame),
}
