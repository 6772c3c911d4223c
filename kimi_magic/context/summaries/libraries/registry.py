"""Find the module that describes the objects of a library.

Classes go by their qualified names: a value's class says which library it is of, and nothing is
imported that the notebook has not imported.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from kimi_magic.context.summaries.detail import Detail, Summary

__all__ = ["KNOWN", "describe_known", "is_known", "load_families"]

_HERE = __name__.rpartition(".")[0]

# A class, where it is defined, and the module of this folder that describes its objects and those
# of its subclasses. Such a module has a function
# `describe(value: Any, limit: int, detail: Detail) -> str | Summary | None`.
# `type(value).__module__` says where: pandas 3 shows its classes in `pandas.api.typing`.
KNOWN: dict[str, str] = {
    "altair.utils.schemapi.SchemaBase": "altair_charts",
    "dask.array.core.Array": "dask_collections",
    "dask.base.DaskMethodsMixin": "dask_collections",
    "dask.dataframe.dask_expr._groupby.GroupBy": "dask_collections",
    "dask_expr._groupby.GroupBy": "dask_collections",  # before 2025.1
    "duckdb._relation.DuckDBPyRelation": "duckdb_tables",
    "duckdb.duckdb.DuckDBPyConnection": "duckdb_tables",  # before 1.4
    "duckdb.duckdb.DuckDBPyRelation": "duckdb_tables",
    "_duckdb.DuckDBPyConnection": "duckdb_tables",
    "_duckdb.DuckDBPyRelation": "duckdb_tables",
    "geopandas.base.GeoPandasBase": "geo_frames",
    "h5py._hl.base.HLObject": "hdf5_files",
    "lightgbm.basic.Booster": "boosted_trees",
    "lightgbm.basic.Dataset": "boosted_trees",
    "lightgbm.sklearn.LGBMModel": "boosted_trees",
    "networkx.classes.graph.Graph": "networkx_graphs",
    "pandas.api.extensions.ExtensionArray": "pandas_columns",
    "pandas.api.typing.DataFrameGroupBy": "grouped_frames",
    "pandas.api.typing.Resampler": "grouped_frames",
    "pandas.api.typing.SeriesGroupBy": "grouped_frames",
    "pandas.core.arrays.base.ExtensionArray": "pandas_columns",
    "pandas.core.groupby.generic.DataFrameGroupBy": "grouped_frames",
    "pandas.core.groupby.generic.SeriesGroupBy": "grouped_frames",
    "pandas.core.indexes.base.Index": "pandas_columns",
    "pandas.core.resample.Resampler": "grouped_frames",
    "pandas.core.window.rolling.BaseWindow": "grouped_frames",
    "pandas.Index": "pandas_columns",
    "pandas.io.formats.style.Styler": "styled_frames",
    "plotly.basedatatypes.BaseFigure": "plotly_figures",
    "polars.dataframe.group_by.DynamicGroupBy": "grouped_frames",
    "polars.dataframe.group_by.GroupBy": "grouped_frames",
    "polars.dataframe.group_by.RollingGroupBy": "grouped_frames",
    "polars.lazyframe.group_by.LazyGroupBy": "grouped_frames",
    "pyspark.sql.connect.dataframe.DataFrame": "dask_collections",
    "pyspark.sql.dataframe.DataFrame": "dask_collections",
    "seaborn._core.plot.Plot": "seaborn_grids",
    "seaborn.axisgrid._BaseGrid": "seaborn_grids",
    "shapely.lib.Geometry": "geo_frames",
    "sklearn.base.BaseEstimator": "sklearn_estimators",
    "sqlalchemy.engine.base.Connection": "sql_engines",
    "sqlalchemy.engine.base.Engine": "sql_engines",
    "sqlalchemy.ext.asyncio.engine.AsyncConnectable": "sql_engines",
    "sqlalchemy.ext.asyncio.session.AsyncSession": "sql_engines",
    "sqlalchemy.orm.scoping.scoped_session": "sql_engines",
    "sqlalchemy.orm.session.Session": "sql_engines",
    "sqlalchemy.sql.schema.MetaData": "sql_engines",
    "sqlalchemy.sql.schema.Table": "sql_engines",
    "sqlite3.Connection": "sql_engines",
    "statsmodels.base.model.Model": "statsmodels_results",
    "statsmodels.base.model.Results": "statsmodels_results",
    "statsmodels.base.wrapper.ResultsWrapper": "statsmodels_results",
    "statsmodels.tsa.seasonal._seasonal.DecomposeResult": "statsmodels_results",
    "statsmodels.tsa.seasonal.DecomposeResult": "statsmodels_results",  # before 0.15
    "torch.nn.modules.module.Module": "torch_objects",
    "torch.Tensor": "torch_objects",
    "xarray.core.dataarray.DataArray": "xarray_data",
    "xarray.core.dataset.Dataset": "xarray_data",
    "xarray.core.datatree.DataTree": "xarray_data",
    "xgboost.core.Booster": "boosted_trees",
    "xgboost.core.DMatrix": "boosted_trees",
    "xgboost.sklearn.XGBModel": "boosted_trees",
}


def load_families(value: Any) -> None:
    """Import what describes a value; slow machines need longer than a time limit."""
    for name in _names(type(value)):
        if name in KNOWN:
            _family(name)


def describe_known(value: Any, limit: int, detail: Detail) -> str | Summary | None:
    """Describe an object of a class that is known here, in about ``limit`` characters."""
    for name in _names(type(value)):
        if name in KNOWN:
            describe: Callable[[Any, int, Detail], str | Summary | None] = _family(name).describe
            if (found := describe(value, limit, detail)) is not None:
                return found
    return None


def is_known(kind: type) -> bool:
    """Return True for a class whose objects are described here."""
    return any(name in KNOWN for name in _names(kind))


def _family(name: str) -> Any:
    return import_module(f"{_HERE}.{KNOWN[name]}")


def _names(kind: type) -> list[str]:
    """Name a class and its bases, whatever a metaclass says."""
    bases = vars(type)["__mro__"].__get__(kind)
    return [f"{base.__module__}.{base.__qualname__}" for base in bases]
