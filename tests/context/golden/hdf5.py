"""Files, groups and datasets of HDF5."""

from __future__ import annotations

from typing import Any

import pytest

from tests.context.golden import Case


def file() -> Any:
    h5py: Any = pytest.importorskip("h5py")
    np: Any = pytest.importorskip("numpy")
    file = h5py.File("run.h5", "w", driver="core", backing_store=False)
    file.attrs["title"] = "A night"
    images = file.create_dataset(
        "camera/images", (500, 64, 64), "uint8", chunks=(10, 64, 64), compression="gzip"
    )
    images.attrs["exposure"] = 0.25
    file["camera/latest"] = h5py.SoftLink("/camera/images")
    file["camera/other"] = h5py.ExternalLink("missing.h5", "/images")
    file["labels"] = ["dawn", "dusk"]
    file["events"] = np.zeros(20, [("t", "f8"), ("n", "i4")])
    return file


def wide() -> Any:
    file = pytest.importorskip("h5py").File("w.h5", "w", driver="core", backing_store=False)
    for n in range(300):
        file.create_group(f"run{n:03}")
    return file


def closed() -> Any:
    opened = file()
    opened.close()
    return opened


CASES = {
    "file": Case(file, "dawn night 0.25"),
    "dataset": Case(lambda: file()["camera/images"], "0.25"),
    "wide": Case(wide),
    "closed": Case(closed),
}
