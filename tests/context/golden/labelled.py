"""Data with labels: xarray, GeoPandas."""

from __future__ import annotations

from typing import Any

import pytest

from tests.context.golden import Case


def array() -> Any:
    xr: Any = pytest.importorskip("xarray")
    np: Any = pytest.importorskip("numpy")
    pd: Any = pytest.importorskip("pandas")
    return xr.DataArray(
        np.arange(240.0).reshape(12, 5, 4) / 8,
        dims=("time", "lat", "lon"),
        coords={
            "time": pd.date_range("2021-01-01", periods=12, freq="MS").astype("datetime64[ns]"),
            "lat": np.linspace(40, 60, 5),
            "station": ("lon", ["Kiel", "Bonn", "Rome", "Oslo"]),
        },
        name="t2m",
        attrs={"units": "K", "source": "Kiel"},
    )


def dataset() -> Any:
    xr: Any = pytest.importorskip("xarray")
    hours = ("time", [True, False] * 6)
    return xr.Dataset({"t2m": array(), "valid": hours}, attrs={"title": "Reanalysis"})


def lazy() -> Any:
    pytest.importorskip("dask.array")
    return dataset().chunk({"time": 4})


def frame() -> Any:
    pytest.importorskip("pandas", "3.0")
    gpd: Any = pytest.importorskip("geopandas", "1.0")
    points = gpd.points_from_xy([13.4, 2.3, 12.5, 10.7, 7.4, 16.4], [52, 48, 41, 59, 46, 48])
    cities = ["Berlin", "Paris", "Rome", "Oslo", "Bern", "Wien"]
    return gpd.GeoDataFrame({"city": cities}, geometry=points, crs=4326)


def mixed() -> Any:
    gpd: Any = pytest.importorskip("geopandas", "1.0")
    shapely: Any = pytest.importorskip("shapely")
    return gpd.GeoSeries([shapely.Point(1, 2), shapely.box(0, 0, 3, 4), None, shapely.Polygon()])


CASES = {
    "xarray-array": Case(array, "Kiel Rome 2021 29.88"),
    "xarray-dataset": Case(dataset, "Kiel Rome 2021 Reanalysis"),
    "xarray-lazy": Case(lazy, "Reanalysis"),
    "geopandas-frame": Case(frame, "Berlin Paris 13.4"),
    "geopandas-column": Case(mixed),
    "shapely": Case(lambda: pytest.importorskip("shapely").Point(1.5, 2.5).buffer(1), "2.5"),
}
